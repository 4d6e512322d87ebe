"""COCO detection JSON ("instances"), read and written; a bbox is (x, y, width, height), from 0.

Category ids may be sparse and in any order: the order of the file's categories makes the labels 0 to C - 1.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AnnotationError, DataError, MissingDataError
from ..text import as_tuple
from .coco_records import Id, as_id, list_records, name_of, read_object, shorten, to_size
from .files import Finder, leads_out, load_json
from .problems import Problem, Report, fail, val_hint
from .records import PLAIN, Item, ReadOptions, Record, Unreadable, assemble, report_similar
from .sample import Dataset, Sample
from .writing import Entry, Placing, prepare, write_files

__all__ = ["COCO_FILES", "coco_annotations", "find_annotations", "read_coco", "to_bbox", "write_coco"]

COCO_FILES = (
    "annotations/instances_{}.json", "annotations/person_keypoints_{}.json", "annotations/{}.json",
    "{}/_annotations.coco.json", "{}.json",
)  # fmt: skip
"""Where the JSON of a split is looked for below a dataset's folder, in this order."""


def read_coco(
    root: str | Path,
    splits: Sequence[str] = (),
    names: Sequence[str] | None = None,
    *,
    image_dir: str | Path | None = None,
    report: Report = fail,
    options: ReadOptions = PLAIN,
) -> Dataset:
    """Read COCO JSON.

    root: a folder, whose splits are found as in `COCO_FILES`; or one JSON file, which has no splits.
    names: the classes in their order; else the categories of the first file in its order.
    image_dir: the folder that file names count from; else <split>/, images/<split>/, images/, data/, the JSON's own
        folder and root, whichever has the image.
    report: called with each problem; the object or image concerned is left out. By default the first one raises.

    iscrowd makes `crowd`, area `areas`; the extra key `difficult`, which `write_coco` writes, makes `difficult`; all
    may be missing, as may an image's height and width.
    """
    root, splits = Path(root), as_tuple(splits)
    files = [(root, "")] if root.suffix == ".json" else [(find_annotations(root, split), split) for split in splits]
    if not files or (splits and root.suffix == ".json"):
        raise DataError(f"{root}: expected splits of a folder, or a JSON file without splits, got {list(splits)}")
    contents = [(file, split, _load(file)) for file, split in files]
    categories = [_read_categories(file, content, report) for file, _, content in contents]
    order = tuple(dict.fromkeys(categories[0].values())) if names is None else as_tuple(names)
    report_similar(files[0][0], order, report)
    if not order:
        raise DataError(f"{files[0][0]}: categories: expected at least one class, got none")

    def items() -> Iterator[Item]:
        for (file, split, content), known in zip(contents, categories, strict=True):
            above = file.parent.parent if file.parent.name == "annotations" else file.parent
            top, name = (root, split) if split else (above, re.sub("^(instances|person_keypoints)_", "", file.stem))
            places = [top / name, top / "images" / name, top / "images", file.parent, top, top / "data"]
            folders = [Path(image_dir)] if image_dir is not None else [place for place in places if place.is_dir()]
            finder = Finder(top if image_dir is None else Path(image_dir), options.allow_outside, report)
            yield from _read_items(file, content, known, finder, folders, options, report)

    return assemble(items(), order, options, report, (name for known in categories for name in known.values()))


def write_coco(
    dataset: Dataset, root: str | Path, split: str, *, placing: Placing = "copy", add: bool = False
) -> dict[str, int]:
    """Write a dataset as annotations/instances_<split>.json and <split>/ with its images; count what was written.

    Ids count from 1. `read_coco` gives boxes back exactly where x + (x2 - x) is x2 in float64, as for whole pixels,
    else to the last bit. root must be new or empty, or `add`.
    """
    prepared = prepare(dataset, split)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (sample, name, (height, width)) in enumerate(prepared, 1):
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        annotations += coco_annotations(sample, image_id=number, first_id=len(annotations) + 1)
    categories = [{"id": label, "name": name} for label, name in enumerate(dataset.names, 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    entries: list[Entry] = [(f"{split}/{name}", sample.path) for sample, name, _ in prepared]
    entries.append((f"annotations/instances_{split}.json", json.dumps(content, ensure_ascii=False).encode()))
    write_files(Path(root), entries, placing, add)
    return {"images": len(images), "objects": len(annotations)}


def to_bbox(boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    """(x1, y1, x2, y2) -> COCO's (x, y, width, height), (N, 4); sides that six decimals state exactly have no more."""
    low, high = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64)
    sides = np.round(high - low, 6)
    return np.concatenate([low, np.where((low + sides) == high, sides, high - low)], axis=1)


def coco_annotations(
    sample: Sample, *, image_id: Id, first_id: int = 1, category_ids: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """The objects of a sample as COCO annotations, numbered from `first_id`; by default label + 1 is the category id.

    A difficult object carries `difficult: 1`, an extra key that others ignore.
    """
    annotations: list[dict[str, Any]] = []
    bboxes = to_bbox(sample.boxes)
    areas = bboxes[:, 2] * bboxes[:, 3] if sample.areas is None else sample.areas
    rows = zip(bboxes.tolist(), areas.tolist(), sample.labels.tolist(), sample.difficult, sample.crowd, strict=True)
    for number, (bbox, area, label, difficult, crowd) in enumerate(rows, first_id):
        category = label + 1 if category_ids is None else category_ids[label]
        annotation = {"id": number, "image_id": image_id, "category_id": category, "bbox": bbox}
        annotation |= {"area": area, "iscrowd": int(crowd)}
        annotations.append(annotation | ({"difficult": 1} if difficult else {}))
    return annotations


def find_annotations(root: Path, split: str) -> Path:
    """The JSON of a split of a folder."""
    if not root.is_dir():
        raise MissingDataError(f"{root}: no such folder")
    if leads_out(split):
        raise DataError(f"{root}: split {split!r} leads out of the folder")
    tried = [pattern.format(split) for pattern in COCO_FILES]
    path = next((root / file for file in tried if (root / file).is_file()), None)
    if path is None:
        raise MissingDataError(f"{root}: no such split {split!r}: expected one of {tried}{val_hint(split)}")
    return path


def _load(file: Path) -> dict[str, Any]:
    content = load_json(file, shorten)
    if not isinstance(content, dict):
        got = type(content).__name__
        raise AnnotationError(f"{file}: expected an object with images, annotations and categories, got {got}")
    return content


def _read_categories(file: Path, content: Mapping[str, Any], report: Report) -> dict[Id, str]:
    categories: dict[Id, str] = {}  # several ids may have one name: those of merged exports
    parents: dict[Id, object] = {}
    for place, record in list_records(file, content, "categories", ["id"], report):
        where, name = f"{file}: categories[{place}]", record.get("name")
        if not isinstance(name, str):
            got = f"got {name!r:.50}" if "name" in record else "the key is missing"
            report(Problem("broken annotation", f"{where}.name", f"expected text, {got}"))
        elif record["id"] in categories:
            report(Problem("duplicate id", f"{where}.id", f"{record['id']} is another category's"))
        else:
            if name in categories.values():
                what = f"{name!r} is another category's: they are one class"
                report(Problem("duplicate id", f"{where}.name", what, "repaired"))
            categories[record["id"]] = name
            parents[record["id"]] = record.get("supercategory")
    rows = content.get("annotations")
    used = {as_id(row.get("category_id")) for row in (rows if isinstance(rows, list) else ()) if isinstance(row, dict)}
    for number, name in list(categories.items()):  # Roboflow's first category is the project
        others = [parent for other, parent in parents.items() if other != number]
        if number not in used and others and all(parent == name for parent in others):
            del categories[number]
            report(Problem("class left out", f"{file}: categories", f"{name!r} groups the others and has no object"))
            break
    return categories


def _read_items(
    file: Path, content: dict[str, Any], categories: Mapping[Id, str], finder: Finder, folders: Sequence[Path],
    options: ReadOptions, report: Report,
) -> Iterator[Item]:  # fmt: skip
    """Each image of a file with its objects, whose records are dropped from `content` once they are read."""
    images: dict[Id, dict[str, Any]] = {}
    for place, record in list_records(file, content, "images", ["id"], report):
        where = f"{file}: images[{place}]"
        if record["id"] in images:
            report(Problem("duplicate id", f"{where}.id", f"{record['id']!r} is another image's"))
        elif not isinstance(name := name_of(record), str):
            got = f"got {name!r:.50}" if "file_name" in record else "the key is missing"
            report(Problem("broken annotation", f"{where}.file_name", f"expected text, {got}"))
        else:
            images[record["id"]] = record
    del content["images"]
    if not images:
        report(Problem("empty split", str(file), "images: the split has no image"))
    places = _find_objects(file, content, images.keys(), categories, report)
    rows = content["annotations"]
    for number in places:
        image = images.pop(number)
        where, name = f"{file}: image {number!r}", name_of(image)
        objects: list[Record] = []
        for place in places[number]:
            row, rows[place] = rows[place], None
            row_where = f"{file}: annotations[{place}]"
            try:
                one = read_object(row, row_where, categories[row["category_id"]], report)
            except Unreadable as error:
                report(Problem("broken annotation", row_where, str(error)))
            else:
                objects += [one] if one is not None else []
        path = finder.find(name, folders, where) if options.need_images else None
        if path is None and options.need_images and ".." in name.replace("\\", "/").split("/"):
            report(Problem("refused path", where, f"{name!r} leads out of the folder", "left out"))
            continue
        yield Item(where, path or folders[0] / name, to_size(image), objects)


def _find_objects(
    file: Path,
    content: Mapping[str, Any],
    images: Collection[Id],
    categories: Mapping[Id, str],
    report: Report,
) -> dict[Id, list[int]]:
    """Image id -> the places of its annotations in their list."""
    rows, places = f"{file}: annotations", {number: list[int]() for number in images}
    seen: set[object] = set()
    for place, record in list_records(file, content, "annotations", ["image_id", "category_id"], report):
        number, image, category = record.get("id"), record["image_id"], record["category_id"]
        if isinstance(number, int | str):
            if number in seen:
                what = f"{number!r} is another annotation's"
                report(Problem("duplicate id", f"{rows}[{place}].id", what, "repaired"))
            seen.add(number)
        if image not in places:
            report(Problem("unlisted image", f"{rows}[{place}].image_id", f"no image has the id {image!r}"))
        elif category not in categories:
            report(Problem("dangling id", f"{rows}[{place}].category_id", f"no category has the id {category!r}"))
        else:
            places[image].append(place)
    return places
