"""The twelve COCO numbers, equal to pycocotools 2.0.11 bit for bit.

Shapes: D detections, G ground truths, C classes, T = 10 thresholds, R = 101 recalls, A = 4 area ranges.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .arrays import Arrays
from .coco_curves import LIMITS, Rules, draw_curves, match_detections
from .result import Result

__all__ = ["CocoResult", "coco_evaluate", "evaluate"]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class CocoResult(Result):
    """stats (12,) in pycocotools' order (9 + the number of limits on detections per image, in general).

    precision (T, R, C, A) and recall (T, C, A) at the largest limit, -1 where a class has no ground truth that counts.
    ap (C,): NaN there.
    """

    stats: Floats
    precision: Floats = field(metadata={"json": False})
    recall: Floats = field(metadata={"json": False})
    ap: Floats
    max_detections: tuple[int, ...] = field(metadata={"json": False})

    @property
    def protocol(self) -> str:
        """The rules behind the numbers, in one line."""
        return (
            "COCO (pycocotools 2.0.11): IoU 0.50:0.05:0.95, best free ground truth, crowds ignored, 101 recall points, "
            f"at most {self.max_detections[-1]} detections per class and image"
        )

    @property
    def stat_names(self) -> tuple[str, ...]:
        """The name of each of the stats."""
        sizes = ("small", "medium", "large")
        recalls = (f"AR{limit}" for limit in self.max_detections)
        return ("AP", "AP50", "AP75", *(f"AP_{s}" for s in sizes), *recalls, *(f"AR_{s}" for s in sizes))

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers for JSON; NaN becomes None."""
        stats = dict(zip(self.stat_names, self.stats.tolist(), strict=True))
        return {"protocol": self.protocol, **Result.to_dict(self), "stats": stats}


def coco_evaluate(
    det_boxes: object,
    det_scores: object,
    det_labels: object,
    det_images: object,
    gt_boxes: object,
    gt_labels: object,
    gt_images: object,
    *,
    gt_crowd: object = None,
    gt_area: object = None,
    num_classes: int,
    max_detections: Sequence[int] = LIMITS,
) -> CocoResult:
    """COCO's AP and AR.

    Args: boxes (D, 4) and (G, 4) xyxy, half-open, any float type. Labels and images: whole numbers from 0. Rows in file
    order; equal scores go by image, then row. gt_crowd (G,): 0 or 1. gt_area (G,): the box's area if None.
    max_detections: limits per class and image; AP is at the largest.
    Raises DataError (a ValueError) for broken rows.
    """
    arrays = Arrays.check(
        det_boxes, det_scores, det_labels, det_images, gt_boxes, gt_labels, gt_images,
        gt_crowd=gt_crowd, gt_area=gt_area, num_classes=num_classes,
    )  # fmt: skip
    return evaluate(arrays.by_image(), max_detections)


def evaluate(arrays: Arrays, max_detections: Sequence[int] = LIMITS, void: Mask | None = None) -> CocoResult:
    """COCO's AP and AR; the detections of an image stand together (`Arrays.by_image`) and equal scores go by row.

    void (G,): ground truths that take detections without making them true.
    """
    limits = _check_limits(max_detections)
    matched = match_detections(arrays, Rules(limits=limits))
    precision, recall, _ = draw_curves(matched, Rules(limits=limits), void, full=False)
    some = np.array([np.bincount(arrays.gt_labels[real], minlength=arrays.num_classes) > 0 for real in matched.real])
    curves = precision[..., -1]  # (T, R, C, A)
    ap = np.ascontiguousarray(np.moveaxis(curves[..., 0], 2, 0)).reshape(arrays.num_classes, -1).mean(1)
    ap[~some[0]] = np.nan
    stats = [
        *(_mean(curves[t, ..., 0], some[0]) for t in (slice(None), slice(0, 1), slice(5, 6))),
        *(_mean(curves[..., a], some[a]) for a in (1, 2, 3)),
        *(_mean(recall[:, :, 0, m], some[0]) for m in range(len(limits))),
        *(_mean(recall[:, :, a, -1], some[a]) for a in (1, 2, 3)),
    ]
    return CocoResult(np.array(stats), curves, recall[..., -1], ap, limits)


def _check_limits(max_detections: Sequence[int]) -> tuple[int, ...]:
    try:
        limits = tuple(sorted(operator.index(limit) for limit in max_detections))
    except TypeError:
        limits = ()
    if not limits or limits[0] < 1 or len(set(limits)) < len(limits):
        raise DataError(f"max_detections: expected different whole numbers > 0, got {max_detections!r}")
    return limits


def _mean(values: Floats, some: Mask) -> float:
    """The mean over the classes (last axis) that have ground truth, summed in pycocotools' order; -1 without any."""
    if not some.any():
        return -1.0
    return float(np.mean((values if some.all() else values[..., some]).ravel()))
