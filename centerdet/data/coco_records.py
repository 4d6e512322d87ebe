"""The records of a COCO JSON file: ids, file names, sizes and objects, as tools spell them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from ..errors import AnnotationError
from .problems import Problem, Report
from .records import Record, to_flag, to_number

__all__ = ["Id", "as_id", "list_records", "name_of", "read_object", "shorten", "to_size"]

Id = int | str

LOST = {"keypoints": "keypoints", "caption": "captions"}
"""Keys of annotations that samples do not hold, and what they are called where they are counted."""

LONG = ("segmentation", *LOST)

KEPT = {
    "bbox": ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "difficult", *LONG),
    "file_name": ("id", "file_name", "width", "height"),
}
"""A key that images or annotations have -> the keys of them that are read where it is present."""


def shorten(record: dict[str, Any]) -> dict[str, Any]:
    """An image's or annotation's record without what is not read of it, so that large files fit in memory.

    Of masks and keypoints, which are most of such a file, remains whether there are any.
    """
    for key, kept in KEPT.items():
        if record.get(key) and "id" in record and "annotations" not in record:
            return {one: bool(record[one]) if one in LONG else record[one] for one in kept if one in record}
    return record


def as_id(value: object) -> Id | None:
    """An id as an integer where it is one in another spelling ("7", 7.0), else as text; None for what is no id."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        return int(value) if value.isdecimal() and str(int(value)) == value else value
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def list_records(
    file: Path, content: Mapping[str, Any], section: str, ids: Sequence[str], report: Report
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(place, record) of each record of a section's list; its ids there become those that `as_id` makes of them."""
    records = content.get(section)
    if not isinstance(records, list):
        got = f"got {type(records).__name__}" if section in content else "the key is missing"
        raise AnnotationError(f"{file}: {section}: expected a list, {got}")
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            what = f"expected an object, got {record!r:.50}"
            report(Problem("broken annotation", f"{file}: {section}[{number}]", what))
            continue
        changed = {}
        for key in ids:
            value = record.get(key)
            if type(value) is not int:
                where = f"{file}: {section}[{number}]"
                changed[key] = as_id(value)
                if changed[key] is None:
                    got = f"got {value!r:.50}" if key in record else "the key is missing"
                    report(Problem("broken annotation", f"{where}.{key}", f"expected a number or text, {got}"))
                elif type(changed[key]) is not type(value):
                    report(Problem("odd value", f"{where}.{key}", f"{value!r:.50} is read as {changed[key]}"))
        if None not in changed.values():
            record |= changed
            yield number, record


def name_of(image: Mapping[str, Any]) -> Any:
    """The file name of an image's record; LVIS has it in its URL only."""
    for key in ("file_name", "coco_url", "path", "url"):
        if isinstance(name := image.get(key), str) and name:
            return urlsplit(name).path.rpartition("/")[2] if "url" in key else name
    return image.get("file_name")


def read_object(record: Mapping[str, Any], where: str, name: str, report: Report) -> Record | None:
    """The object of an annotation; None, with a report, where it states no box.

    Raises:
        Unreadable: a flag is neither yes nor no.
    """
    bbox, masks = record.get("bbox"), record.get("segmentation")
    if not bbox and isinstance(masks, list) and masks:
        bbox = _box_of(masks)
        report(Problem("box of a polygon", where, "no bbox: the box of its segmentation is read"))
    if not isinstance(bbox, list):
        got = f"got {bbox!r:.50}" if "bbox" in record else "the key is missing"
        report(Problem("no box", f"{where}.bbox", f"expected a list, {got}"))
        return None
    sides = [side if type(side) is float else to_number(side, f"{where}.bbox", report) for side in bbox]
    if len(sides) != 4 or any(
        math.isnan(side) and type(given) is not float for side, given in zip(sides, bbox, strict=True)
    ):
        what = f"expected [x, y, width, height] in pixels, got {bbox!r:.80}"
        report(Problem("broken annotation", f"{where}.bbox", what))
        return None
    left, top, width, height = sides
    difficult, crowd = (to_flag(record.get(flag, 0), flag, where, report) for flag in ("difficult", "iscrowd"))
    area = record.get("area")
    area = float(area) if isinstance(area, int | float) and 0 <= area < 1e15 else None
    lost = ["masks"] if masks else []
    lost += [what for key, what in LOST.items() if record.get(key)]
    return Record(where, name, (left, top, left + width, top + height), bbox, difficult, crowd, area, lost)


def _box_of(polygons: Sequence[object]) -> list[float] | None:
    """[x, y, width, height] around polygons [x1, y1, x2, y2, ...]."""
    try:
        points = np.concatenate([np.array(polygon, float).reshape(-1, 2) for polygon in polygons])
        (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
    except (TypeError, ValueError):
        return None
    return [left, top, right - left, bottom - top]


def to_size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """(height, width) of an image's record; None where they are missing, unreadable or zero."""
    try:
        height, width = int(float(image["height"])), int(float(image["width"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return (height, width) if height > 0 and width > 0 else None
