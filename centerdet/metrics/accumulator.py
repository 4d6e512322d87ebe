"""Evaluation image by image, for loops that do not collect flat arrays themselves.

Law: the numbers are those of the flat arrays with images in the order of their numbers, whatever the order in which
images came and however accumulators were merged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, replace
from typing import Any

import numpy as np

from ..errors import DataError
from . import coco, voc
from .arrays import IMAGE_LIMIT, Arrays, check_whole
from .coco_curves import LIMITS

__all__ = ["Accumulator"]

COLUMNS = tuple(field.name for field in fields(Arrays) if field.name != "num_classes" and field.default is MISSING)


class Accumulator:
    """Collects images, then computes. It can be pickled, so that processes can send theirs to one that merges them.

    Detections are anything with boxes, scores and labels, annotations anything with boxes, labels and perhaps
    difficult, crowd and area: attributes or keys, NumPy or torch. Their arrays are copied.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._images: dict[int, Arrays] = {}
        self._in_turn = True  # images are numbered as they come

    def __len__(self) -> int:
        return len(self._images)

    def update(self, detections: object, annotations: object, image: int | None = None) -> None:
        """Add an image; give a number for every image or for none. A repeated number is a DataError."""
        number = len(self) if image is None else check_whole("image", image, 0, IMAGE_LIMIT)
        if len(self) and self._in_turn != (image is None):
            raise DataError("image: expected a number for every image or for none")
        if number in self._images:
            raise DataError(f"image: image {number} was added before")
        boxes, gt_boxes = _get(detections, "boxes"), _get(annotations, "boxes")
        try:
            arrays = Arrays.check(
                boxes, _get(detections, "scores"), _get(detections, "labels"), np.full(len(boxes), number),
                gt_boxes, _get(annotations, "labels"), np.full(len(gt_boxes), number),
                gt_difficult=_get(annotations, "difficult", None), gt_crowd=_get(annotations, "crowd", None),
                gt_area=_get(annotations, "area", None), num_classes=self.num_classes,
            )  # fmt: skip
        except DataError as error:
            raise DataError(f"image {number}: {error}") from None
        copies: dict[str, Any] = {name: getattr(arrays, name).copy() for name in COLUMNS}
        self._images[number] = replace(arrays, **copies)
        self._in_turn = image is None

    def merge(self, other: "Accumulator") -> None:
        """Add the images of another one; where images were numbered as they came, the other's follow."""
        if other.num_classes != self.num_classes:
            raise DataError(f"num_classes: expected {self.num_classes}, got {other.num_classes}")
        if not len(other):
            return
        if len(self) and self._in_turn != other._in_turn:
            raise DataError("image: expected a number for every image or for none")
        shift = len(self) if other._in_turn else 0
        if twice := sorted(self._images.keys() & {number + shift for number in other._images}):
            raise DataError(f"image: image {twice[0]} and {len(twice) - 1} more are in both")
        self._images.update({number + shift: image for number, image in other._images.items()})
        self._in_turn = other._in_turn

    def compute(self, iou_threshold: float = 0.5) -> voc.VocResult:
        """AP by VOC's rules."""
        return voc.evaluate(self._join(), iou_threshold)

    def compute_coco(self, max_detections: Sequence[int] = LIMITS) -> coco.CocoResult:
        """The COCO numbers."""
        return coco.evaluate(self._join(), max_detections)

    def _join(self) -> Arrays:
        """All images in one, in the order of their numbers."""
        empty = Arrays.check([], [], [], [], [], [], [], num_classes=self.num_classes)
        numbers = np.array(sorted(self._images), np.int64)
        parts = [self._images[number] for number in numbers.tolist()]
        columns: dict[str, Any] = {
            name: np.concatenate([getattr(empty, name), *(getattr(part, name) for part in parts)]) for name in COLUMNS
        }
        for kind in ("det", "gt"):  # a merge may have given an image another number
            counts = [len(getattr(part, f"{kind}_labels")) for part in parts]
            columns[f"{kind}_images"] = np.repeat(numbers, np.array(counts, np.int64))
        return replace(empty, **columns)


def _get(record: Any, name: str, *default: Any) -> Any:
    """A key of a mapping or an attribute of anything else."""
    if isinstance(record, Mapping):
        return record.get(name, *default) if default else record[name]
    return getattr(record, name, *default)
