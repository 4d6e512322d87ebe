"""COCO's records, exactly as pycocotools reads them, as arrays.

Nothing is clipped, dropped or repaired: boxes may overhang or have sides of 0 or less, ids may be text, numbers or
negative, records may have any other keys. Beyond pycocotools, area may be missing (width x height) and so may iscrowd
(0). What no rule covers is a `DataError` that names record and key: NaN, infinity, a box of three numbers.

Shapes: N records.
"""

import contextlib
import gc
import importlib
import json
import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AnnotationError, DataError
from ..files import read_file
from .arrays import COORDINATE_LIMIT, Arrays

__all__ = ["Columns", "Table", "column", "find", "json_loader", "read_json", "select", "to_arrays", "uncollected"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Records = Sequence[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Records as arrays: images and categories as numbers of the evaluated ids, and ids as they are written.

    bbox (N, 4): x, y, width, height. ignored (N,): iscrowd is true; crowd (N,): as a number it is not 0. For detections
    both are False, for ground truths the scores are 0.
    """

    images: Ints
    labels: Ints
    bbox: Floats
    area: Floats
    scores: Floats
    ids: Sequence[Any] | Ints
    ignored: NDArray[np.bool_]
    crowd: NDArray[np.bool_]

    def numbers(self) -> Floats:
        """The ids as numbers, as `dtMatches` and `gtMatches` have them; the place from 1 on for ids that are none."""
        try:
            return np.array(self.ids, dtype=object).astype(np.float64).reshape(-1)
        except (TypeError, ValueError):
            return np.arange(1.0, len(self.ids) + 1)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Results as arrays: image and category ids (N,), bbox (N, 4) as x, y, width, height, scores (N,)."""

    images: Sequence[Any] | NDArray[Any]
    categories: Sequence[Any] | NDArray[Any]
    bbox: Floats
    scores: Floats

    @classmethod
    def from_records(cls, records: Records, where: str) -> "Table":
        """Take results as dicts."""
        rows = np.arange(len(records))
        images, categories, scores = (column(records, key, where) for key in ("image_id", "category_id", "score"))
        return cls(images, categories, boxes_of(records, where, rows), numbers_of(scores, where, "score", rows))

    @classmethod
    def from_array(cls, array: NDArray[Any]) -> "Table":
        """Take an array (N, 7) of image id, x, y, width, height, score, category id."""
        if array.ndim != 2 or array.shape[1] != 7:
            raise DataError(f"results: expected an array of shape (N, 7), got {array.shape}")
        wide = array.astype(np.float64)
        if not (np.abs(wide) <= COORDINATE_LIMIT).all():
            row = int((~(np.abs(wide) <= COORDINATE_LIMIT)).any(1).argmax())
            raise AnnotationError(f"results[{row}]: expected finite numbers, got {array[row].tolist()}")
        return cls(wide[:, 0].astype(np.int64), wide[:, 6].astype(np.int64), wide[:, 1:5], wide[:, 5])

    def to_records(self) -> list[dict[str, Any]]:
        """The same as dicts."""
        images, categories = (
            ids.tolist() if isinstance(ids, np.ndarray) else ids for ids in (self.images, self.categories)
        )
        rows = zip(images, categories, self.bbox.tolist(), self.scores.tolist(), strict=True)
        return [{"image_id": a, "category_id": b, "bbox": box, "score": score} for a, b, box, score in rows]


def read_json(path: str | os.PathLike[str]) -> Any:
    """The content of a JSON file: by orjson or msgspec where one is installed, else by the standard library."""
    file = Path(path)
    content = read_file(file)
    with uncollected():
        try:
            try:
                return json_loader()(content)
            except ValueError:  # orjson and msgspec refuse NaN
                return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise AnnotationError(f"{file}: broken JSON: {error}") from error


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Make a million objects, none of them in a cycle, without searching them for cycles."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def json_loader() -> Callable[[bytes], Any]:
    """The fastest JSON decoder that is installed."""
    for name, function in (("orjson", "loads"), ("msgspec.json", "decode")):
        with contextlib.suppress(ImportError):
            return getattr(importlib.import_module(name), function)  # type: ignore[no-any-return]
    return json.loads


def find(keys: Sequence[Any], values: Sequence[Any] | NDArray[Any]) -> Ints:
    """The place of each value among different keys, (N,); -1 where it is none of them. 1, 1.0 and True are equal."""
    known = _whole(keys)
    if known is not None and len(known) and (given := _whole(values)) is not None:
        order = np.argsort(known, kind="stable")
        place = order[np.minimum(np.searchsorted(known, given, sorter=order), len(known) - 1)]
        return np.where(known[place] == given, place, -1)
    numbers = {key: number for number, key in enumerate(keys)}
    return np.array([numbers.get(value, -1) for value in values], np.int64)


def _whole(values: Sequence[Any] | NDArray[Any]) -> Ints | None:
    """The values as int64, if all are whole numbers that fit."""
    try:
        array = np.array(values) if len(values) else np.zeros(0, np.int64)
    except (ValueError, OverflowError):
        return None
    return array.astype(np.int64) if array.dtype.kind in "iu" and array.dtype != np.uint64 else None


def select(
    records: Records | Table,
    where: str,
    images: Sequence[Any],
    categories: Sequence[Any],
    *,
    use_cats: bool = True,
    detections: bool,
) -> Columns:
    """The records of these images and categories, sorted by image, then place; where: for messages.

    Of records with the same id the last stands for each of them, as pycocotools looks them up by id. Without use_cats
    all labels are 0, and the records of an image are in the order of the categories.
    """
    results, records = (records, []) if isinstance(records, Table) else (None, records)
    image = find(images, results.images if results else column(records, "image_id", where))
    label = find(categories, results.categories if results else column(records, "category_id", where))
    rows = np.flatnonzero((image >= 0) & (label >= 0) if use_cats else image >= 0)
    rows = rows[np.argsort(image[rows], kind="stable")]
    ids = column(records, "id", where)
    last = {key: row for row, key in enumerate(ids)}
    if len(last) < len(ids):
        rows = np.array([last[ids[row]] for row in rows.tolist()], np.int64)
    rows = rows[(image[rows] >= 0) & (label[rows] >= 0)]
    if not use_cats:
        places = find(categories, categories)
        rows = np.concatenate([rows[:0], *(rows[label[rows] == place] for place in places)])
        label = np.zeros_like(label)
    rows = rows[np.argsort(image[rows], kind="stable")]
    no = np.zeros(len(rows), np.bool_)
    if results:
        bbox = results.bbox[rows]
        return Columns(image[rows], label[rows], bbox, bbox[:, 2] * bbox[:, 3], results.scores[rows], rows + 1, no, no)
    chosen = [records[row] for row in rows.tolist()]
    bbox = boxes_of(chosen, where, rows)
    area = bbox[:, 2] * bbox[:, 3]
    stated = [one.get("area") for one in chosen]
    missing = np.array([value is None for value in stated], np.bool_)
    area = np.where(missing, area, numbers_of([0 if value is None else value for value in stated], where, "area", rows))
    chosen_ids = [ids[row] for row in rows.tolist()]
    if detections:
        scores = numbers_of(column(chosen, "score", where, rows), where, "score", rows)
        return Columns(image[rows], label[rows], bbox, area, scores, chosen_ids, no, no)
    crowd = [one.get("iscrowd") or 0 for one in chosen]
    ignored = np.array([bool(value) for value in crowd], np.bool_)
    is_crowd = np.trunc(numbers_of(crowd, where, "iscrowd", rows)) != 0
    return Columns(image[rows], label[rows], bbox, area, np.zeros(len(rows)), chosen_ids, ignored, is_crowd)


def to_arrays(detections: Columns, truths: Columns, num_classes: int) -> Arrays:
    """Both as `coco.evaluate` takes them, and it alone; what is ignored has no area, so that no range contains it."""
    # COCO's rules take x and y from the boxes, and sides and areas from their own arrays.
    return Arrays(
        detections.bbox, detections.scores, detections.labels, detections.images,
        truths.bbox, truths.labels, truths.images,
        np.zeros(len(truths.bbox), np.bool_), truths.crowd & truths.ignored,
        np.where(truths.ignored, np.nan, truths.area), num_classes,
        detections.bbox[:, 2:], truths.bbox[:, 2:], detections.area,
    )  # fmt: skip


def column(records: Records, key: str, where: str, rows: Ints | None = None) -> list[Any]:
    """The values of a key, which each record must have; rows: the places of the records, for messages."""
    try:
        values = [one[key] for one in records]
        if key.endswith("id"):
            set(values)  # TypeError for a list or an object
        return values
    except (KeyError, TypeError):
        pass
    for place, one in enumerate(records):
        if not isinstance(one, Mapping):
            problem = f"got {one!r:.50}"
        elif key not in one:
            problem = "the key is missing"
        elif key.endswith("id") and not isinstance(one[key], Hashable):
            problem = f"got {one[key]!r:.50}"
        else:
            continue
        raise AnnotationError(f"{where}[{place if rows is None else rows[place]}].{key}: expected a value, {problem}")
    raise AnnotationError(f"{where}: expected records with {key}")


def boxes_of(records: Records, where: str, rows: Ints) -> Floats:
    boxes = column(records, "bbox", where, rows)
    try:
        table = np.fromiter(chain.from_iterable(boxes), np.float64, 4 * len(boxes)).reshape(-1, 4)
        good = set(map(len, boxes)) <= {4} and bool((np.abs(table) <= COORDINATE_LIMIT).all())
    except (TypeError, ValueError):
        good = False
    if good:
        return table
    for row, box in zip(rows.tolist(), boxes, strict=True):
        try:
            fine = np.shape(box) == (4,) and bool((np.abs(np.asarray(box, np.float64)) <= COORDINATE_LIMIT).all())
        except (TypeError, ValueError):
            fine = False
        if not fine:
            expected = f"[x, y, width, height], finite and within +-{COORDINATE_LIMIT:g}"
            raise AnnotationError(f"{where}[{row}].bbox: expected {expected}, got {box!r:.80}")
    return np.array([list(map(float, box)) for box in boxes])


def numbers_of(values: Sequence[Any], where: str, key: str, rows: Ints) -> Floats:
    try:
        numbers = np.array(values, np.float64)
        if numbers.shape == (len(values),) and np.isfinite(numbers).all():
            return numbers
    except (TypeError, ValueError, OverflowError):
        pass
    for row, value in zip(rows.tolist(), values, strict=True):
        try:
            fine = bool(np.isfinite(float(value)))
        except (TypeError, ValueError, OverflowError):
            fine = False
        if not fine:
            raise AnnotationError(f"{where}[{row}].{key}: expected a finite number, got {value!r:.50}")
    return np.array([float(value) for value in values])
