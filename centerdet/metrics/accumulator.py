"""Evaluation image by image: for loops that do not keep everything in flat arrays themselves.

Law: the numbers are those of the flat arrays with images in the order of their numbers, whatever the order in which
images came and however accumulators were merged.
"""

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .arrays import IMAGE_LIMIT, Problem
from .coco import CocoResult, box_area, coco_evaluate
from .voc import VocResult, voc_evaluate

__all__ = ["Accumulator"]

EMPTY: dict[str, NDArray[Any]] = {
    "det_boxes": np.zeros((0, 4), np.float32),
    "det_scores": np.zeros(0, np.float32),
    "det_labels": np.zeros(0, np.int64),
    "gt_boxes": np.zeros((0, 4)),
    "gt_labels": np.zeros(0, np.int64),
    "gt_difficult": np.zeros(0, np.bool_),
    "gt_crowd": np.zeros(0, np.bool_),
    "gt_area": np.zeros(0),
}


class Accumulator:
    """Collects images, then computes. It can be pickled, so that processes can send theirs to one that merges them.

    Detections are anything with boxes, scores and labels, annotations anything with boxes, labels and perhaps
    difficult, crowd and area: attributes or keys, NumPy or torch. Their arrays are copied.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._images: dict[int, dict[str, NDArray[Any]]] = {}
        self._counted = True  # images are numbered as they come

    def __len__(self) -> int:
        return len(self._images)

    def update(self, detections: object, annotations: object, image: int | None = None) -> None:
        """Add a image; name its number for every image or for none. The same number twice is a DataError."""
        number = len(self) if image is None else operator.index(image)
        if not 0 <= number <= IMAGE_LIMIT:
            raise DataError(f"image: want a whole number from 0 to {IMAGE_LIMIT}, got {number}")
        if len(self) and self._counted != (image is None):
            raise DataError("image: want a number for every image or for none")
        if number in self._images:
            raise DataError(f"image: image {number} is there already")
        found = {name: _get(detections, name) for name in ("boxes", "scores", "labels")}
        truth = {name: _get(annotations, name) for name in ("boxes", "labels")}
        flags = {name: _get(annotations, name, None) for name in ("difficult", "crowd")}
        area = _get(annotations, "area", None)
        images = [np.full(len(boxes), number) for boxes in (found["boxes"], truth["boxes"])]
        try:
            problem, other = (
                Problem.check(
                    found["boxes"], found["scores"], found["labels"], images[0],
                    truth["boxes"], truth["labels"], images[1], self.num_classes,
                    flag=(f"gt_{name}", flag), gt_area=area,
                )
                for name, flag in flags.items()
            )  # fmt: skip
        except DataError as error:
            raise DataError(f"image {number}: {error}") from None
        row = {
            "det_boxes": problem.det_boxes,
            "det_scores": problem.det_scores,
            "det_labels": problem.det_labels,
            "gt_boxes": problem.gt_boxes,
            "gt_labels": problem.gt_labels,
            "gt_difficult": problem.gt_flag,
            "gt_crowd": other.gt_flag,
            "gt_area": box_area(problem.gt_boxes) if problem.gt_area is None else problem.gt_area,
        }
        self._images[number] = {name: array.copy() for name, array in row.items()}
        self._counted = image is None

    def merge(self, other: "Accumulator") -> None:
        """Add another one's images; where images were numbered as they came, the other's follow."""
        if other.num_classes != self.num_classes:
            raise DataError(f"num_classes: want {self.num_classes}, got {other.num_classes}")
        if not len(other):
            return
        if len(self) and self._counted != other._counted:
            raise DataError("image: want a number for every image or for none")
        shift = len(self) if other._counted else 0
        twice = sorted(self._images.keys() & {number + shift for number in other._images})
        if twice:
            raise DataError(f"image: image {twice[0]} is there already, as are {len(twice) - 1} more")
        self._images.update({number + shift: image for number, image in other._images.items()})
        self._counted = other._counted

    def compute(self, iou_threshold: float = 0.5) -> VocResult:
        """AP by VOC's rules."""
        columns = self._columns(without=("gt_crowd", "gt_area"))
        return voc_evaluate(**columns, num_classes=self.num_classes, iou_threshold=iou_threshold)

    def compute_coco(self, max_detections: Sequence[int] = (1, 10, 100)) -> CocoResult:
        """The COCO numbers."""
        columns = self._columns(without=("gt_difficult",))
        return coco_evaluate(**columns, num_classes=self.num_classes, max_detections=max_detections)

    def _columns(self, without: tuple[str, ...]) -> dict[str, Any]:
        """The flat arrays, images in the order of their numbers."""
        stored = sorted(self._images.items())
        columns: dict[str, Any] = {
            name: np.concatenate([empty, *(rows[name] for _, rows in stored)])
            for name, empty in EMPTY.items()
            if name not in without
        }
        for kind in ("det", "gt"):
            numbers = [np.full(len(rows[f"{kind}_labels"]), number) for number, rows in stored]
            columns[f"{kind}_images"] = np.concatenate([np.zeros(0, np.int64), *numbers])
        return columns


def _get(record: Any, name: str, *default: Any) -> Any:
    """A key of a mapping or an attribute of anything else."""
    if isinstance(record, Mapping):
        return record.get(name, *default) if default else record[name]
    return getattr(record, name, *default)
