"""COCO detection JSON ("instances"), read and written; a bbox is (x, y, width, height), from 0.

Category ids may be sparse and in any order: the order of the file's categories makes the labels 0 to C - 1.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AnnotationError, DataError
from ..text import as_tuple
from .files import Entry, Placing, prepare, write_files
from .problems import Problem, Report, fail, leads_out
from .records import Record, build_sample
from .sample import Dataset, Sample

__all__ = ["COCO_FILES", "coco_annotations", "read_coco", "to_bbox", "write_coco"]

COCO_FILES = ("annotations/instances_{}.json", "annotations/{}.json", "{}/_annotations.coco.json", "{}.json")
"""Where the JSON of a split is looked for below a dataset's folder, in this order."""


def read_coco(
    root: str | Path,
    splits: Sequence[str] = (),
    names: Sequence[str] | None = None,
    *,
    image_dir: str | Path | None = None,
    report: Report = fail,
) -> Dataset:
    """Read COCO JSON.

    root: a folder, whose splits are found as in `COCO_FILES`; or one JSON file, which has no splits.
    names: the classes in their order; else the categories of the first file in its order.
    image_dir: the folder that file names count from; else that of <split>/, images/<split>/, images/, the JSON's own
        and root which holds most of the first images.
    report: gets each problem; reading goes on without the object or image concerned. By default the first one raises.

    iscrowd makes `crowd`; the extra key `difficult`, which `write_coco` writes, makes `difficult`; both may be missing,
    as may a image's height and width. A box may stick out of its image by 1 px and is clipped then.
    """
    root, splits = Path(root), as_tuple(splits)
    files = [(root, "")] if root.suffix == ".json" else [(_find_file(root, split), split) for split in splits]
    if not files or (splits and root.suffix == ".json"):
        raise DataError(f"{root}: want splits of a folder, or a JSON file without splits, got {list(splits)}")
    order = None if names is None else as_tuple(names)
    samples: dict[Path, Sample] = {}
    for file, split in files:
        content = _load(file)
        categories = _read_categories(file, content, report)
        order = tuple(categories.values()) if order is None else order
        images = _read_images(file, content, report)
        if not images:
            report(Problem("empty split", str(file), "images: the split has no image"))
        above = file.parent.parent if file.parent.name == "annotations" else file.parent
        top, name = (above, file.stem.removeprefix("instances_")) if not split else (root, split)
        folders = [top / name, top / "images" / name, top / "images", file.parent, top]
        folder = Path(image_dir) if image_dir is not None else _likeliest(folders, list(images.values()))
        objects = _read_objects(file, content, images.keys(), categories, report)
        index = {name: label for label, name in enumerate(order)}
        for number, image in images.items():
            path = folder / image["file_name"]
            where = f"{file}: image {number!r}"
            if not path.is_file():
                report(Problem("missing image", where, f"no image {path}"))
            elif path in samples:
                report(Problem("listed twice", where, f"{path} is in the splits already"))
            else:
                sample = build_sample(path, _to_size(image), objects[number], index, report)
                samples |= {path: sample} if sample is not None else {}
    return Dataset(list(samples.values()), order or ())


def write_coco(
    dataset: Dataset, root: str | Path, split: str, *, placing: Placing = "copy", add: bool = False
) -> dict[str, int]:
    """Write a dataset as annotations/instances_<split>.json and <split>/ with its images; count what was written.

    Ids count from 1. Difficult objects carry `difficult: 1`, an extra key that others ignore. `read_coco` gives boxes
    back exactly where x + (x2 - x) is x2 in float64, as for whole pixels, else to the last bit.
    root must be new or empty, or `add`.
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


def _find_file(root: Path, split: str) -> Path:
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    if leads_out(split):
        raise DataError(f"{root}: split {split!r} leads out of the folder")
    tried = [pattern.format(split) for pattern in COCO_FILES]
    found = next((root / file for file in tried if (root / file).is_file()), None)
    if found is None:
        raise DataError(f"{root}: no such split {split!r}: want one of {tried}")
    return found


def _likeliest(folders: list[Path], images: list[dict[str, Any]]) -> Path:
    return max(folders, key=lambda folder: sum((folder / image["file_name"]).is_file() for image in images[:20]))


def _load(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        raise DataError(f"{file}: no such file")
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{file}: broken JSON: {error}") from error
    if not isinstance(content, dict):
        raise AnnotationError(
            f"{file}: want an object with images, annotations and categories, got {type(content).__name__}"
        )
    return content


def _records(
    file: Path, content: Mapping[str, Any], section: str, fields: Mapping[str, Any], report: Report
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, record) of each record of a section that has the fields in their types."""
    records = content.get(section)
    if not isinstance(records, list):
        got = f"got {type(records).__name__}" if section in content else "the key is missing"
        raise AnnotationError(f"{file}: {section}: want a list, {got}")
    for number, record in enumerate(records):
        where = f"{file}: {section}[{number}]"
        if not isinstance(record, dict):
            report(Problem("broken annotation", where, f"want an object, got {record!r:.50}"))
            continue
        wrong = next((key for key, kind in fields.items() if not isinstance(record.get(key), kind)), None)
        if wrong is None:
            yield where, record
        else:
            got = f"got {record[wrong]!r:.50}" if wrong in record else "the key is missing"
            kind = getattr(fields[wrong], "__name__", str(fields[wrong]))
            report(Problem("broken annotation", f"{where}.{wrong}", f"want {kind}, {got}"))


def _read_categories(file: Path, content: Mapping[str, Any], report: Report) -> dict[int, str]:
    categories: dict[int, str] = {}
    for where, record in _records(file, content, "categories", {"id": int, "name": str}, report):
        if record["id"] in categories:
            report(Problem("duplicate id", f"{where}.id", f"{record['id']} is another category's"))
        elif record["name"] in categories.values():
            report(Problem("duplicate id", f"{where}.name", f"{record['name']!r} is another category's"))
        else:
            categories[record["id"]] = record["name"]
    return categories


def _read_images(file: Path, content: Mapping[str, Any], report: Report) -> dict[int | str, dict[str, Any]]:
    images: dict[int | str, dict[str, Any]] = {}
    for where, record in _records(file, content, "images", {"id": int | str, "file_name": str}, report):
        if record["id"] in images:
            report(Problem("duplicate id", f"{where}.id", f"{record['id']!r} is another image's"))
        elif leads_out(record["file_name"]):
            report(Problem("refused path", f"{where}.file_name", f"{record['file_name']!r} leads out of the folder"))
        else:
            images[record["id"]] = record
    return images


def _read_objects(
    file: Path,
    content: Mapping[str, Any],
    images: Collection[int | str],
    categories: Mapping[int, str],
    report: Report,
) -> dict[int | str, list[Record]]:
    """Image id -> its objects."""
    objects: dict[int | str, list[Record]] = {number: [] for number in images}
    seen: set[int | str] = set()
    fields = {"image_id": int | str, "category_id": int, "bbox": list}
    for where, record in _records(file, content, "annotations", fields, report):
        number, bbox = record.get("id"), record["bbox"]
        flags = [record.get(flag, 0) for flag in ("difficult", "iscrowd")]
        if isinstance(number, int | str) and number in seen:
            report(Problem("duplicate id", f"{where}.id", f"{number!r} is another annotation's"))
        elif record["image_id"] not in objects:
            report(Problem("dangling id", f"{where}.image_id", f"no image has the id {record['image_id']!r}"))
        elif record["category_id"] not in categories:
            report(Problem("dangling id", f"{where}.category_id", f"no category has the id {record['category_id']}"))
        elif len(bbox) != 4 or not all(isinstance(side, float | int) and not abs(side) > 1e9 for side in bbox):
            what = f"want [x, y, width, height] in pixels, got {bbox!r:.80}"
            report(Problem("broken annotation", f"{where}.bbox", what))
        elif any(flag not in (0, 1) for flag in flags):
            report(Problem("broken annotation", where, f"difficult, iscrowd: want 0 or 1, got {flags!r:.80}"))
        else:
            left, top, width, height = map(float, bbox)
            box = (left, top, left + width, top + height)
            one = Record(where, categories[record["category_id"]], box, bbox, bool(flags[0]), bool(flags[1]))
            objects[record["image_id"]].append(one)
        seen |= {number} if isinstance(number, int | str) else set()
    return objects


def _to_size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = image.get("height"), image.get("width")
    return (height, width) if isinstance(height, int) and isinstance(width, int) and min(height, width) > 0 else None


def to_bbox(boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    """(x1, y1, x2, y2) -> COCO's (x, y, width, height), (N, 4); sides that six decimals state exactly have no more."""
    low, high = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64)
    sides = np.round(high - low, 6)
    return np.concatenate([low, np.where((low + sides) == high, sides, high - low)], axis=1)


def coco_annotations(
    sample: Sample, *, image_id: int | str, first_id: int = 1, category_ids: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """The objects of a sample as COCO annotations, numbered from `first_id`; by default label + 1 is the category id.

    A difficult object carries `difficult: 1`, an extra key that others ignore.
    """
    annotations: list[dict[str, Any]] = []
    rows = zip(to_bbox(sample.boxes).tolist(), sample.labels.tolist(), sample.difficult, sample.crowd, strict=True)
    for number, (bbox, label, difficult, crowd) in enumerate(rows, first_id):
        category = label + 1 if category_ids is None else category_ids[label]
        annotation = {"id": number, "image_id": image_id, "category_id": category, "bbox": bbox}
        annotation |= {"area": bbox[2] * bbox[3], "iscrowd": int(crowd)}
        annotations.append(annotation | ({"difficult": 1} if difficult else {}))
    return annotations
