"""Why VOC and COCO disagree about the same detections: from VOC's rules to COCO's, one change at a time."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..text import plural
from .arrays import Arrays
from .coco import CocoResult
from .coco_curves import LIMITS, RECALLS
from .result import mean_over
from .voc import VocMatch, VocResult, average, judge

__all__ = ["Step", "from_voc_to_coco"]


class Step(NamedTuple):
    """The mean AP under some rules, which differ from those of the step before in one point: `why` states which."""

    rules: str
    ap: float
    why: str


def from_voc_to_coco(arrays: Arrays, match: VocMatch, coco: Callable[[Sequence[int]], CocoResult]) -> list[Step]:
    """The steps from voc07-11pt to COCO AP; coco: the COCO result of the same arrays at limits on detections.

    A crowd is never an object; a difficult object is one for COCO alone.
    """
    crowds_only = replace(arrays, gt_difficult=arrays.gt_crowd)
    difficult = int((arrays.gt_difficult & ~arrays.gt_crowd).sum())
    voc, with_difficult = average(arrays, match), average(crowds_only, judge(crowds_only, match))

    limit = LIMITS[-1]
    per_cell = np.unique(np.stack([arrays.det_images, arrays.det_labels]), axis=1, return_counts=True)[1]
    dropped = int(np.maximum(per_cell - limit, 0).sum())
    limited = coco(LIMITS)
    unlimited = coco((int(per_cell.max()),)) if dropped else limited

    why_difficult = f"COCO has no such mark: {plural(difficult, 'more object')} to detect"
    why_best = "VOC matches a detection to its best object even if taken (a duplicate), COCO to the best one still free"
    why_limit = f"COCO keeps {limit} per class and image: {dropped} of {len(arrays.det_scores)} detections are dropped"
    steps = [
        Step("VOC of 2007 (voc07-11pt)", voc.mean_ap_11pt, "the mean of the precision at 11 recalls"),
        Step("VOC from 2010 on (voc-area)", voc.mean_ap, "the area under the whole curve instead"),
        Step("difficult objects count", with_difficult.mean_ap, why_difficult),
        Step("101 recalls", _mean_101(with_difficult), "the curve read at 101 recalls instead of its area"),
        Step("next best object", unlimited.stats[1], why_best),
        Step(f"{limit} detections (COCO AP50)", limited.stats[1], why_limit),
        Step("IoU 0.50:0.95 (COCO AP)", limited.stats[0], "the mean over ten IoU thresholds: boxes must fit better"),
    ]
    return [step._replace(ap=float("nan") if step.ap == -1 else float(step.ap)) for step in steps]


def _mean_101(result: VocResult) -> float:
    """The mean AP of VOC's curves, read at 101 recalls."""
    ap = np.full(len(result.ap), np.nan)
    for label in np.flatnonzero(result.num_positive).tolist():
        curve = result.curve(label)
        envelope = np.append(np.maximum.accumulate(curve.precision[::-1])[::-1], 0)
        ap[label] = envelope[np.searchsorted(curve.recall, RECALLS)].mean()
    return mean_over(ap)
