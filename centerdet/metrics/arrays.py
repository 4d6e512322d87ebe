"""Detections and ground truth as flat arrays: checked once, never modified, never narrowed, then handed on.

A broken row raises `DataError` (a ValueError) that names the argument and the 0-based row. Limits: coordinates within
+-1e150, image ids from 0 to 2**40, fewer than 2**29 rows, at most 2**20 classes.

Shapes: D detections, G ground truths, P images; rows are in file order, which settles ties.
"""

from dataclasses import dataclass, replace
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .order import stable_order

__all__ = [
    "COORDINATE_LIMIT", "IMAGE_LIMIT", "SIZE_RANGES", "Arrays", "box_area", "check_finite",
    "check_probabilities", "check_threshold", "check_whole", "count_per_class", "number_images", "reaches",
]  # fmt: skip

COORDINATE_LIMIT = 1e150  # areas stay finite
IMAGE_LIMIT = 2**40
ROW_LIMIT = 2**29 - 1
CLASS_LIMIT = 2**20
SIZE_RANGES = {"all": (0.0, 1e5**2), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e5**2)}
"""COCO's ranges of area in square pixels, both ends inclusive."""

Array = NDArray[Any]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Arrays:
    """The detections of one detector and the ground truth of the same images; build it with `Arrays.check`.

    det_boxes (D, 4) and det_scores (D,): float32 or wider. gt_boxes (G, 4) float64. Labels: any integers in
    0 ... num_classes - 1. Images: any integers in 0 ... IMAGE_LIMIT. gt_difficult and gt_crowd (G,) bool: VOC ignores
    the one, COCO the other. gt_area (G,) float64: as stated, else that of the boxes.
    det_sides (D, 2), gt_sides (G, 2) and det_area (D,) float64: width, height and area as COCO files state them, where
    the difference of the corners would be rounded; None for arrays.
    """

    det_boxes: Array
    det_scores: Array
    det_labels: Array
    det_images: Array
    gt_boxes: NDArray[np.float64]
    gt_labels: Array
    gt_images: Array
    gt_difficult: Mask
    gt_crowd: Mask
    gt_area: NDArray[np.float64]
    num_classes: int
    det_sides: NDArray[np.float64] | None = None
    gt_sides: NDArray[np.float64] | None = None
    det_area: NDArray[np.float64] | None = None

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
        *,
        gt_difficult: object = None,
        gt_crowd: object = None,
        gt_area: object = None,
        num_classes: int,
    ) -> "Arrays":
        """Check arrays, lists or tensors; the arguments are those of `voc_evaluate` and `coco_evaluate`."""
        classes = check_whole("num_classes", num_classes, 1, CLASS_LIMIT)
        boxes, truths = _boxes("det_boxes", det_boxes), _boxes("gt_boxes", gt_boxes)
        if gt_area is None:
            area = box_area(truths)
        else:
            area = _floats("gt_area", gt_area, len(truths), "gt_boxes").astype(np.float64)
            _refuse("gt_area", area, area < 0, "a finite number >= 0")
        return cls(
            boxes,
            _floats("det_scores", det_scores, len(boxes), "det_boxes"),
            _integers("det_labels", det_labels, len(boxes), "det_boxes", classes - 1),
            _integers("det_images", det_images, len(boxes), "det_boxes", IMAGE_LIMIT),
            truths.astype(np.float64),
            _integers("gt_labels", gt_labels, len(truths), "gt_boxes", classes - 1),
            _integers("gt_images", gt_images, len(truths), "gt_boxes", IMAGE_LIMIT),
            _flags("gt_difficult", gt_difficult, len(truths)),
            _flags("gt_crowd", gt_crowd, len(truths)),
            area,
            classes,
        )

    def take(self, rows: Array) -> "Arrays":
        """The detections of these rows, with all of the ground truth."""
        return replace(
            self,
            det_boxes=np.take(self.det_boxes, rows, axis=0),
            det_scores=self.det_scores[rows],
            det_labels=self.det_labels[rows],
            det_images=self.det_images[rows],
            det_sides=None if self.det_sides is None else self.det_sides[rows],
            det_area=None if self.det_area is None else self.det_area[rows],
        )

    def by_image(self, ids: Array | None = None) -> "Arrays":
        """Detections sorted by image, then row: the order in which COCO's protocol breaks ties of score.

        ids (P,): sort by the ids of the images 0 ... P - 1 instead.
        """
        images = self.det_images if ids is None else ids[self.det_images]
        if (images[1:] >= images[:-1]).all():
            return self
        return self.take(stable_order((images, int(images.max()).bit_length())))


def box_area(boxes: Array) -> NDArray[np.float64]:
    """Width times height in double precision, (N, 4) -> (N,); by columns, as that needs no copy of the boxes."""
    area = np.subtract(boxes[:, 2], boxes[:, 0], dtype=np.float64)
    area *= np.subtract(boxes[:, 3], boxes[:, 1], dtype=np.float64)
    return area


def check_threshold(iou_threshold: float) -> float:
    """An IoU threshold in (0, 1] as a float."""
    given: object = iou_threshold
    number = isinstance(given, int | float | np.number) and not isinstance(given, bool)
    if number and 0 < iou_threshold <= 1:
        return float(iou_threshold)
    raise DataError(f"iou_threshold: expected a number in (0, 1], got {iou_threshold!r}")


def check_finite(name: str, value: float) -> float:
    """A finite number as a float."""
    if not abs(value) < float("inf"):
        raise DataError(f"{name}: expected a finite number, got {value!r}")
    return float(value)


def check_probabilities(arrays: Arrays) -> None:
    """Refuse scores that are no probabilities."""
    if not _within(arrays.det_scores, 0, 1):
        raise DataError("det_scores: expected numbers from 0 to 1, as probabilities are")


def check_whole(name: str, value: Any, lowest: int, highest: int | None = None) -> int:
    """A whole number within bounds as an int."""
    bounds = f"from {lowest}" + (f" to {highest}" if highest is not None else "")
    try:
        number = lowest - 1 if isinstance(value, bool | np.bool_) else index(value)
    except TypeError:
        number = lowest - 1
    if number < lowest or (highest is not None and number > highest):
        raise DataError(f"{name}: expected a whole number {bounds}, got {value!r}")
    return number


def number_images(arrays: Arrays, num_images: int | None) -> tuple[Array, Array, int]:
    """The images of the rows, numbered 0 ... in the order of their ids, and the count of all images, at least 1.

    num_images: the count, where images without detections and ground truth belong to it.
    """
    ids = np.concatenate([arrays.det_images.astype(np.int64), arrays.gt_images.astype(np.int64)])
    present, number = np.unique(ids, return_inverse=True)
    count = len(present) if num_images is None else check_whole("num_images", num_images, len(present))
    return number[: len(arrays.det_images)], number[len(arrays.det_images) :], max(1, count)


def count_per_class(arrays: Arrays, rows: Mask) -> NDArray[np.int64]:
    """How many of these ground truths each class has, (C,)."""
    return np.bincount(arrays.gt_labels[rows], minlength=arrays.num_classes)


def reaches(scores: Array, threshold: Any) -> Mask:
    """Scores >= threshold, compared in the scores' precision: 0.7 is the nearest float32 for float32 scores."""
    return np.asarray(scores >= np.asarray(threshold, scores.dtype))


def _array(name: str, value: Any, kinds: str, expected: str) -> Array:
    """A NumPy view of an array, a list, or a tensor (detached, brought to the CPU, bfloat16 widened)."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:  # ragged lists
        raise DataError(f"{name}: expected {expected}, got {error}") from None
    if array.size == 0 and isinstance(value, list | tuple):
        array = array.astype(np.float32)
    if array.dtype.kind not in kinds or array.dtype.itemsize > 8:
        raise DataError(f"{name}: expected {expected}, got {array.dtype} of shape {array.shape}")
    if len(array.shape) and len(array) > ROW_LIMIT:
        raise DataError(f"{name}: expected at most {ROW_LIMIT} rows, got {len(array)}")
    return array


def _refuse(name: str, array: Array, bad: Array, expected: str) -> None:
    """Raise for the first bad row, if there is one."""
    if bad.any():
        row = int(bad.reshape(len(bad), -1).any(1).argmax())
        raise DataError(f"{name}[{row}]: expected {expected}, got {array[row].tolist()}")


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
        raise DataError(f"{name}: expected shape (N, 4), got {boxes.shape}")
    boxes = _widen(boxes)
    if not _within(boxes, -COORDINATE_LIMIT, COORDINATE_LIMIT):
        beyond = ~(np.abs(boxes.astype(np.float64)) <= COORDINATE_LIMIT)
        _refuse(name, boxes, beyond, f"finite coordinates within +-{COORDINATE_LIMIT:g}")
    for side in (0, 1):
        _refuse(name, boxes, boxes[:, side + 2] < boxes[:, side], "x1 <= x2 and y1 <= y2")
    return boxes


def _column(name: str, value: object, rows: int, other: str, kinds: str, expected: str) -> Array:
    array = _array(name, value, kinds, expected)
    if array.shape != (rows,):
        raise DataError(f"{name}: expected shape ({rows},), one per row of {other}, got {array.shape}")
    return array


def _floats(name: str, value: object, rows: int, other: str) -> Array:
    array = _widen(_column(name, value, rows, other, "iuf", "numbers (N,)"))
    if not _within(array, float(np.finfo(array.dtype).min), float(np.finfo(array.dtype).max)):
        _refuse(name, array, ~np.isfinite(array), "a finite number")
    return array


def _integers(name: str, value: object, rows: int, other: str, highest: int, kinds: str = "iuf") -> Array:
    array = _column(name, value, rows, other, kinds, "whole numbers (N,)")
    expected = f"a whole number from 0 to {highest}"
    if not _within(array, 0, highest):
        _refuse(name, array, ~((array >= 0) & (array <= highest)), expected)
    if array.dtype.kind in "iu":
        return array.astype(np.int64) if array.dtype == np.uint64 else array
    whole = array.astype(np.int64)
    _refuse(name, array, whole != array, expected)
    return whole


def _flags(name: str, value: object, rows: int) -> Mask:
    if value is None:
        return np.zeros(rows, np.bool_)
    return _integers(name, value, rows, "gt_boxes", 1, kinds="iufb").astype(np.bool_)
