"""The flat arrays of an evaluation: checked once, never modified, never narrowed.

A broken row raises `DataError` (a ValueError) that names the argument and the 0-based row. Limits: coordinates within
+-1e150, image ids from 0 to 2**40, fewer than 2**29 rows, at most 2**20 classes.

Shapes: D detections, G ground truths; rows are in file order, which settles ties.
"""

from dataclasses import dataclass
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

__all__ = ["IMAGE_LIMIT", "Problem", "check_threshold"]

COORDINATE_LIMIT = 1e150  # areas stay finite
IMAGE_LIMIT = 2**40
ROW_LIMIT = 2**29 - 1
CLASS_LIMIT = 2**20

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Detections and ground truths that fit together; build it with `Problem.check`.

    det_boxes (D, 4) and det_scores (D,): float32 or wider. gt_boxes (G, 4) float64. Labels: any integers in
    0 ... num_classes - 1. Images: any integers in 0 ... num_images - 1, renumbered in the order of the ids given.
    gt_flag (G,) bool: difficult or crowd. gt_area (G,) float64 or None.
    """

    det_boxes: Array
    det_scores: Array
    det_labels: Array
    det_images: Array
    gt_boxes: NDArray[np.float64]
    gt_labels: Array
    gt_images: Array
    gt_flag: NDArray[np.bool_]
    gt_area: NDArray[np.float64] | None
    num_classes: int
    num_images: int

    @classmethod
    def check(
        cls,
        det_boxes: object,
        det_scores: object,
        det_labels: object,
        det_images: object,
        gt_boxes: object,
        gt_labels: object,
        gt_images: object,
        num_classes: int,
        *,
        flag: tuple[str, object],
        gt_area: object = None,
    ) -> "Problem":
        """Check everything; `flag` is the name and the value (or None) of the ground truths' 0-1 column."""
        classes = _count("num_classes", num_classes)
        boxes, truths = _boxes("det_boxes", det_boxes), _boxes("gt_boxes", gt_boxes)
        scores = _floats("det_scores", det_scores, len(boxes), "det_boxes")
        labels = _integers("det_labels", det_labels, len(boxes), "det_boxes", classes - 1)
        images = _integers("det_images", det_images, len(boxes), "det_boxes", IMAGE_LIMIT)
        gt_labels = _integers("gt_labels", gt_labels, len(truths), "gt_boxes", classes - 1)
        gt_images = _integers("gt_images", gt_images, len(truths), "gt_boxes", IMAGE_LIMIT)
        flags = np.zeros(len(truths), np.bool_)
        if flag[1] is not None:
            flags = _integers(flag[0], flag[1], len(truths), "gt_boxes", 1, boolean=True).astype(np.bool_)
        area = None
        if gt_area is not None:
            area = _floats("gt_area", gt_area, len(truths), "gt_boxes").astype(np.float64)
            _refuse("gt_area", area, area < 0, "a finite number >= 0")
        truths = truths.astype(np.float64)
        images, gt_images, num_images = _renumber(images, gt_images)
        return cls(boxes, scores, labels, images, truths, gt_labels, gt_images, flags, area, classes, num_images)


def check_threshold(iou_threshold: float) -> float:
    """An IoU threshold in (0, 1] as a float."""
    given: object = iou_threshold
    number = isinstance(given, int | float | np.number) and not isinstance(given, bool)
    if number and 0 < iou_threshold <= 1:
        return float(iou_threshold)
    raise DataError(f"iou_threshold: want a number in (0, 1], got {iou_threshold!r}")


def _count(name: str, value: int) -> int:
    if isinstance(value, bool | np.bool_):
        raise DataError(f"{name}: want a whole number, got {value!r}")
    try:
        count = index(value)
    except TypeError:
        raise DataError(f"{name}: want a whole number, got {value!r}") from None
    if not 1 <= count <= CLASS_LIMIT:
        raise DataError(f"{name}: want 1 to {CLASS_LIMIT}, got {count}")
    return count


def _array(name: str, value: Any, kinds: str, want: str) -> Array:
    """A NumPy view of an array, a list, or a tensor (detached, brought to the CPU, bfloat16 widened)."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:  # ragged lists
        raise DataError(f"{name}: want {want}, got {error}") from None
    if array.size == 0 and isinstance(value, list | tuple):
        array = array.astype(np.float32)
    if array.dtype.kind not in kinds or array.dtype.itemsize > 8:
        raise DataError(f"{name}: want {want}, got {array.dtype} of shape {array.shape}")
    if len(array.shape) and len(array) > ROW_LIMIT:
        raise DataError(f"{name}: want at most {ROW_LIMIT} rows, got {len(array)}")
    return array


def _refuse(name: str, array: Array, bad: Array, want: str) -> None:
    """Raise for the first bad row, if there is one."""
    if bad.any():
        row = int(bad.reshape(len(bad), -1).any(1).argmax())
        raise DataError(f"{name}[{row}]: want {want}, got {array[row].tolist()}")


def _widen(array: Array) -> Array:
    """Integers and half floats as float64, native byte order."""
    wide = np.float32 if array.dtype == np.float32 else np.float64
    return array.astype(wide, copy=False)


def _within(array: Array, low: float, high: float) -> bool:
    """Whether all numbers lie in [low, high]; False when one is NaN."""
    return array.size == 0 or bool(array.min().item() >= low and array.max().item() <= high)


def _boxes(name: str, value: object) -> Array:
    boxes = _array(name, value, "iuf", "numbers (N, 4)")
    if boxes.shape == (0,):
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise DataError(f"{name}: want shape (N, 4), got {boxes.shape}")
    boxes = _widen(boxes)
    if not _within(boxes, -COORDINATE_LIMIT, COORDINATE_LIMIT):
        beyond = ~(np.abs(boxes.astype(np.float64)) <= COORDINATE_LIMIT)
        _refuse(name, boxes, beyond, f"finite coordinates within +-{COORDINATE_LIMIT:g}")
    for side in (0, 1):
        bad = boxes[:, side + 2] < boxes[:, side]
        if bad.any():
            _refuse(name, boxes, bad, "x1 <= x2 and y1 <= y2")
    return boxes


def _length(name: str, array: Array, rows: int, other: str) -> None:
    if array.shape != (rows,):
        raise DataError(f"{name}: want shape ({rows},) as {other} has rows, got {array.shape}")


def _floats(name: str, value: object, rows: int, other: str) -> Array:
    array = _widen(_array(name, value, "iuf", "numbers (N,)"))
    _length(name, array, rows, other)
    if not _within(array, float(np.finfo(array.dtype).min), float(np.finfo(array.dtype).max)):
        _refuse(name, array, ~np.isfinite(array), "a finite number")
    return array


def _integers(name: str, value: object, rows: int, other: str, highest: int, *, boolean: bool = False) -> Array:
    array = _array(name, value, "iufb" if boolean else "iuf", "whole numbers (N,)")
    _length(name, array, rows, other)
    want = f"a whole number from 0 to {highest}"
    if not _within(array, 0, highest):
        _refuse(name, array, ~((array >= 0) & (array <= highest)), want)
    if array.dtype.kind in "iu":
        return array.astype(np.int64) if array.dtype == np.uint64 else array
    whole = array.astype(np.int64)
    _refuse(name, array, whole != array, want)
    return whole


def _renumber(det_images: Array, gt_images: Array) -> tuple[Array, Array, int]:
    """Image ids as small numbers in the same order, and how many numbers there are."""
    highest = max((int(ids.max()) for ids in (det_images, gt_images) if ids.size), default=-1)
    if highest <= 4 * (len(det_images) + len(gt_images)):
        return det_images, gt_images, highest + 1
    both = np.concatenate([det_images.astype(np.int64), gt_images.astype(np.int64)])
    ids, number = np.unique(both, return_inverse=True)
    return number[: len(det_images)], number[len(det_images) :], len(ids)
