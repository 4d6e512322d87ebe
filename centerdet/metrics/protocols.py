"""Why VOC and COCO disagree about the same detections: from the one's rules to the other's, one change at a time."""

from typing import Any, NamedTuple

import numpy as np

from .coco import RECALLS, coco_evaluate
from .result import mean_over
from .voc import VocResult, voc_evaluate

__all__ = ["Step", "from_voc_to_coco"]

LIMIT = 100


class Step(NamedTuple):
    """The mean AP under some rules, which differ from those of the step before in one thing, and what that is."""

    rules: str
    ap: float
    why: str


def from_voc_to_coco(
    det_boxes: Any,
    det_scores: Any,
    det_labels: Any,
    det_images: Any,
    gt_boxes: Any,
    gt_labels: Any,
    gt_images: Any,
    *,
    gt_difficult: Any,
    gt_crowd: Any,
    num_classes: int,
) -> list[Step]:
    """The steps from voc07-11pt to COCO AP; a crowd (gt_crowd) is never an object, a difficult one is for COCO."""
    arrays = (det_boxes, det_scores, det_labels, det_images, gt_boxes, gt_labels, gt_images)
    crowd = np.asarray(gt_crowd, np.bool_)
    difficult = int((np.asarray(gt_difficult, np.bool_) & ~crowd).sum())
    voc = voc_evaluate(*arrays, gt_difficult=crowd | gt_difficult, num_classes=num_classes)
    counted = voc_evaluate(*arrays, gt_difficult=crowd, num_classes=num_classes)

    per_cell = np.unique(np.stack([det_images, det_labels]), axis=1, return_counts=True)[1]
    dropped = int(np.maximum(per_cell - LIMIT, 0).sum())
    everything = int(per_cell.max(initial=LIMIT))
    unlimited = coco_evaluate(*arrays, gt_crowd=crowd, num_classes=num_classes, max_detections=(everything,)).stats[1]
    average, at_half = coco_evaluate(*arrays, gt_crowd=crowd, num_classes=num_classes).stats[:2]

    why_difficult = f"COCO knows no such mark: {difficult} more to be found, and finding them counts"
    why_best = "VOC gives a detection its best object even if taken (a duplicate, then), COCO the best one still free"
    why_limit = f"COCO keeps {LIMIT} of a class and image: {dropped} of {len(det_scores)} detections fall away"
    steps = [
        Step("VOC of 2007 (voc07-11pt)", voc.mean_ap_11pt, "the mean of the precision at 11 recalls"),
        Step("VOC from 2010 on (voc-area)", voc.mean_ap, "the area under the whole curve instead"),
        Step("difficult objects count", counted.mean_ap, why_difficult if difficult else "there are none here"),
        Step("101 recalls", _mean_101(counted), "COCO reads the curve at 101 recalls instead of taking its area"),
        Step("next best object", unlimited, why_best),
        Step(f"{LIMIT} detections (COCO AP50)", at_half, why_limit),
        Step("IoU 0.50:0.95 (COCO AP)", average, "the mean over ten IoU thresholds: boxes must fit far better"),
    ]
    return [step._replace(ap=float("nan") if step.ap == -1 else float(step.ap)) for step in steps]


def _mean_101(result: VocResult) -> float:
    """The mean AP of VOC's curves, read at 101 recalls."""
    found = np.full(len(result.ap), np.nan)
    for label in np.flatnonzero(result.num_positive).tolist():
        curve = result.curve(label)
        envelope = np.append(np.maximum.accumulate(curve.precision[::-1])[::-1], 0)
        found[label] = envelope[np.searchsorted(curve.recall, RECALLS)].mean()
    return mean_over(found)
