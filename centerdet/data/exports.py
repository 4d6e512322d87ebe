"""The own formats of labeling tools, read only: LabelMe, VoTT, Supervisely and FiftyOne.

A format here is two functions: the splits of a folder, and the images of one split. Boxes are 0-based and half-open.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import AnnotationError, CenterdetError, DataError, MissingDataError
from ..files import walk_files
from ..orientation import Box
from ..text import as_tuple
from .coco_records import to_size
from .files import Finder, find_images, load_json
from .problems import Problem, Report, fail, val_hint
from .records import PLAIN, Item, ReadOptions, Record, assemble, report_similar
from .sample import Dataset
from .tables import list_tables, read_tables

__all__ = ["EXPORTS", "list_export_splits", "read_export", "recognize_export"]

Items = Iterator[Item]


def read_export(
    root: str | Path,
    splits: Sequence[str] = (),
    names: Sequence[str] | None = None,
    *,
    report: Report = fail,
    options: ReadOptions = PLAIN,
) -> Dataset:
    """Read splits of a dataset in a tool's own format, see `recognize_export`; without splits, all of it.

    names: the classes in their order; else those of all splits in the order of their first appearance.
    report: called with each problem; the object or image concerned is left out. By default the first one raises.
    """
    root = Path(root)
    known, read = EXPORTS[recognize_export(root) or "csv"]
    files = known(root)
    chosen = as_tuple(splits) or list(files)
    if missing := [split for split in chosen if split not in files]:
        raise MissingDataError(f"{root}: no such split {missing[0]!r}; known are {list(files)}{val_hint(missing[0])}")
    top = root if root.is_dir() else root.parent

    def items(split: str, report: Report) -> list[Item]:
        return list(read(files[split], Finder(top, options.allow_outside, report), report))

    if names is None:
        all_items = [one for split in files for one in items(split, lambda problem: None)]
        names = list(dict.fromkeys(record.name for item in all_items for record in item.records))
        if not names:
            raise DataError(f"{root}: no object in any annotation")
    order = as_tuple(names)
    report_similar(root, order, report)
    chosen_items = [item for split in chosen for item in items(split, report)]
    if not chosen_items:
        report(Problem("empty split", str(root), f"{list(chosen)}: the split has no image"))
    return assemble(chosen_items, order, options, report)


def recognize_export(root: Path) -> str | None:
    """The tool whose format a folder or file has, by what lies in it; None where it is none of these."""
    if root.is_file():
        return "csv" if root.suffix == ".csv" else _recognize_json(root) if root.suffix == ".json" else None
    if (root / "meta.json").is_file() and next(root.glob("**/ann/*.json"), None) is not None:
        return "supervisely"
    for path in (path for pattern in ("*.json", "*/*.json") for path in sorted(root.glob(pattern))[:1]):
        if (form := _recognize_json(path)) is not None:
            return form
    return "csv" if list_tables(root) else None


def list_export_splits(root: Path) -> list[str]:
    """The splits of a dataset in one of these formats."""
    return list(EXPORTS[recognize_export(root) or "csv"][0](root))


def _recognize_json(path: Path) -> str | None:
    with path.open("rb") as file:
        start = file.read(1 << 16)
    if b'"annotations"' in start and b'"images"' in start:
        return None
    for key, form in ((b'"shapes"', "labelme"), (b'"imageData"', "labelme"), (b'"assets"', "vott")):
        if key in start:
            return form
    return "fiftyone" if b'"labels"' in start and b'"classes"' in start[:200] else None


def _list_folders(root: Path) -> dict[str, list[Path]]:
    """The JSON files by the folder of root that they lie in; "all" where they lie in root itself."""
    if root.is_file():
        return {"all": [root]}
    splits: dict[str, list[Path]] = {}
    for path in walk_files(root, (".json",)):
        parts = path.relative_to(root).parts
        splits.setdefault(parts[0] if len(parts) > 1 else "all", []).append(path)
    return {"all": [path for paths in splits.values() for path in paths]} if "all" in splits else splits


def _around(points: Any) -> Box:
    """The box around points (N, 2)."""
    array = np.array(points, float).reshape(-1, 2)
    (left, top), (right, bottom) = array.min(0).tolist(), array.max(0).tolist()
    return left, top, right, bottom


def _loaded(path: Path, report: Report) -> Mapping[str, Any]:
    try:
        content = load_json(path)
        if not isinstance(content, dict):
            raise AnnotationError(f"{path}: expected an object, got {type(content).__name__}")
    except CenterdetError as error:
        report(Problem("broken annotation", str(path), str(error).removeprefix(f"{path}: ")))
        return {}
    return content


def _collect(
    where: str, objects: Any, read: Callable[[Mapping[str, Any], str], list[Record]], report: Report
) -> list[Record]:
    """The records of a list of objects; those that `read` cannot use are reported."""
    records: list[Record] = []
    for number, one in enumerate(objects if isinstance(objects, list) else (), 1):
        place = f"{where}: object {number}"
        try:
            records += read(one, place)
        except CenterdetError:  # a report's
            raise
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            report(Problem("broken annotation", place, f"expected a class and a box, got {one!r:.80} ({error!r:.60})"))
    return records


def _read_labelme(paths: Sequence[Path], finder: Finder, report: Report) -> Items:
    """One JSON an image: shapes with label, shape_type and points; of polygons and circles the box."""

    def shape(one: Mapping[str, Any], where: str) -> list[Record]:
        kind, points = one.get("shape_type", "polygon"), one["points"]
        if kind == "circle":
            (x, y), (edge_x, edge_y) = points
            radius = float(np.hypot(edge_x - x, edge_y - y))
            points = [(x - radius, y - radius), (x + radius, y + radius)]
        if kind in ("point", "points", "line", "linestrip"):
            report(Problem("no box", where, f"a {kind} of {one['label']} has no box"))
            return []
        if kind != "rectangle":
            report(Problem("box of a polygon", where, f"the box of a {kind} is read"))
        lost = ["masks"] if kind not in ("rectangle", "circle") else []
        return [Record(where, str(one["label"]), _around(points), points, lost=lost)]

    for path in paths:
        if content := _loaded(path, report):
            name = str(content.get("imagePath") or path.with_suffix(".jpg").name)
            image = (
                finder.find(name, [path.parent, finder.root], str(path))
                or path.parent / name.replace("\\", "/").rpartition("/")[2]
            )
            size = to_size({"height": content.get("imageHeight"), "width": content.get("imageWidth")})
            yield Item(str(path), image, size, _collect(str(path), content.get("shapes"), shape, report))


def _read_vott(paths: Sequence[Path], finder: Finder, report: Report) -> Iterator[Item]:
    """One JSON for all: assets with regions that have tags (one object for each) and a boundingBox."""

    def region(one: Mapping[str, Any], where: str) -> list[Record]:
        side = one["boundingBox"]
        left, top, width, height = (float(side[key]) for key in ("left", "top", "width", "height"))
        box = (left, top, left + width, top + height)
        return [Record(where, str(tag), box, [left, top, width, height]) for tag in one["tags"]]

    for path in paths:
        assets = _loaded(path, report).get("assets", {})
        for key, entry in assets.items() if isinstance(assets, dict) else ():
            where, asset = f"{path}: {key}", entry.get("asset") if isinstance(entry, dict) else None
            if not isinstance(asset, dict) or not isinstance(name := asset.get("name"), str):
                report(Problem("broken annotation", where, f"expected an asset with a name, got {asset!r:.80}"))
                continue
            image = finder.find(name, [path.parent, path.parent.parent], where) or path.parent / name
            records = _collect(where, entry.get("regions"), region, report)
            yield Item(where, image, to_size(asset.get("size") or {}), records)


def _list_supervisely(root: Path) -> dict[str, list[Path]]:
    folders = sorted({path.parent.parent for path in root.glob("**/ann/*.json")})
    return {
        "all" if folder == root else folder.relative_to(root).as_posix(): sorted((folder / "ann").glob("[!.]*.json"))
        for folder in folders
    }


def _read_supervisely(paths: Sequence[Path], finder: Finder, report: Report) -> Iterator[Item]:
    """<dataset>/ann/<image>.json beside <dataset>/img/<image>; a rectangle includes its last pixels."""

    def figure(one: Mapping[str, Any], where: str) -> list[Record]:
        kind = one.get("geometryType", "rectangle")
        points = one.get("points", {}).get("exterior")
        if kind not in ("rectangle", "polygon") or not points:
            report(Problem("no box", where, f"a {kind} of {one['classTitle']} is not read"))
            return []
        left, top, right, bottom = _around(points)
        lost = [] if kind == "rectangle" else ["masks"]
        return [Record(where, str(one["classTitle"]), (left, top, right + 1, bottom + 1), points, lost=lost)]

    for path in paths:
        if content := _loaded(path, report):
            folder = path.parent.parent / "img"
            image = finder.find(path.name[: -len(".json")], [folder], str(path)) or folder / path.name[: -len(".json")]
            records = _collect(str(path), content.get("objects"), figure, report)
            yield Item(str(path), image, to_size(content.get("size") or {}), records)


def _read_fiftyone(paths: Sequence[Path], finder: Finder, report: Report) -> Iterator[Item]:
    """labels.json with classes and labels by image beside data/; bounding_box is x, y, width, height in fractions."""
    for path in paths:
        content = _loaded(path, report)
        classes, labels = content.get("classes") or [], content.get("labels")
        images = {image.stem: image for image in find_images(path.parent, report)}

        def detection(one: Mapping[str, Any], where: str, classes: Any = classes) -> list[Record]:
            label = one["label"]
            left, top, width, height = map(float, one["bounding_box"])
            name = classes[label] if isinstance(label, int) and label >= 0 else label
            return [Record(where, str(name), (left, top, left + width, top + height), one["bounding_box"])]

        for key, objects in labels.items() if isinstance(labels, dict) else ():
            where = f"{path}: {key}"
            image = images.get(key) or path.parent / "data" / f"{key}.jpg"
            yield Item(where, image, None, _collect(where, objects, detection, report), fractions=True)


EXPORTS: dict[str, tuple[Callable[[Path], dict[str, list[Path]]], Callable[..., Iterator[Item]]]] = {
    "labelme": (_list_folders, _read_labelme),
    "vott": (_list_folders, _read_vott),
    "supervisely": (_list_supervisely, _read_supervisely),
    "fiftyone": (_list_folders, _read_fiftyone),
    "csv": (list_tables, read_tables),
}
"""Format -> what lists its splits with their files, and what reads the files of one."""
