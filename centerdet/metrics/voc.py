"""Average precision as the official VOC devkit (VOCevaldet.m) computes it.

A detection is matched to the ground truth of its class and image with the highest IoU, even if that one is taken. So
the match of a detection does not depend on the others, and the true positive of a ground truth is the best-scored
detection matched to it.

Shapes: D detections, G ground truths, C classes, M true positives of a class.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .arrays import Arrays, check_threshold, count_per_class
from .order import order_by_class
from .overlaps import best_pairs, find_cells, overlapping_pairs
from .result import Result, mean_over

__all__ = [
    "VocCurve",
    "VocMatch",
    "VocResult",
    "average",
    "best_scores",
    "evaluate",
    "judge",
    "match_detections",
    "voc_evaluate",
    "voc_match",
]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

RECALLS = np.arange(0, 1.1, 0.1)  # the devkit's 11 recalls, of which the fourth is 0.30000000000000004


class VocCurve(NamedTuple):
    """Recall, precision and score at each true positive of a class, (M,) each, best score first."""

    recall: Floats
    precision: Floats
    scores: Floats


@dataclass(frozen=True, slots=True, eq=False)
class VocMatch:
    """The match of each detection, in the order of the detections.

    best_gt (D,) int64: row of the ground truth of its class and image with the highest IoU (the first of equals), -1
    where it overlaps none. best_iou (D,). true_positive (D,) bool. ignored (D,) bool: matched to a difficult one. All
    others are false positives. order (D,) int64: rows by class, then falling score, then row.
    """

    best_gt: Ints
    best_iou: Floats
    true_positive: Mask
    ignored: Mask
    order: Ints
    iou_threshold: float


@dataclass(frozen=True, slots=True, eq=False)
class VocResult(Result):
    """AP per class and its means.

    ap, ap_11pt (C,): NaN for classes without ground truth that counts, which the means leave out. num_positive (C,).
    """

    mean_ap: float
    mean_ap_11pt: float
    ap: Floats
    ap_11pt: Floats
    num_positive: Ints
    iou_threshold: float
    _curves: tuple[Ints, VocCurve] = field(repr=False, metadata={"json": False})

    @property
    def protocol(self) -> str:
        """The rules behind the numbers, in one line."""
        return (
            f"VOC devkit: IoU >= {self.iou_threshold:g}, best ground truth even if taken, difficult ignored; "
            "ap: area under the curve (2010 on), ap_11pt: 11 points (2007)"
        )

    def curve(self, label: int) -> VocCurve:
        """The precision-recall curve of a class at its true positives; between them precision only falls."""
        starts, all_classes = self._curves
        part = slice(starts[label], starts[label + 1])
        return VocCurve(*(column[part] for column in all_classes))

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers for JSON; NaN becomes None."""
        return {"protocol": self.protocol, **Result.to_dict(self)}


def voc_evaluate(
    det_boxes: object,
    det_scores: object,
    det_labels: object,
    det_images: object,
    gt_boxes: object,
    gt_labels: object,
    gt_images: object,
    *,
    gt_difficult: object = None,
    num_classes: int,
    iou_threshold: float = 0.5,
) -> VocResult:
    """AP of every class by VOC's rules.

    Args: boxes (D, 4) and (G, 4) xyxy, half-open (a VOC box (xmin, ymin, xmax, ymax) is (xmin - 1, ymin - 1, xmax,
    ymax)), any float type. Labels and images: whole numbers from 0. Rows in file order, which settles ties.
    gt_difficult (G,): 0 or 1. The 11 recalls are NumPy's arange(0, 1.1, 0.1), where 0.3 is 0.30000000000000004.
    Raises DataError (a ValueError) for broken rows.
    """
    threshold = check_threshold(iou_threshold)
    arrays = Arrays.check(
        det_boxes, det_scores, det_labels, det_images, gt_boxes, gt_labels, gt_images,
        gt_difficult=gt_difficult, num_classes=num_classes,
    )  # fmt: skip
    return evaluate(arrays, threshold)


def voc_match(
    det_boxes: object,
    det_scores: object,
    det_labels: object,
    det_images: object,
    gt_boxes: object,
    gt_labels: object,
    gt_images: object,
    *,
    gt_difficult: object = None,
    num_classes: int,
    iou_threshold: float = 0.5,
) -> VocMatch:
    """The match of each detection by VOC's rules; arguments as for `voc_evaluate`."""
    threshold = check_threshold(iou_threshold)
    arrays = Arrays.check(
        det_boxes, det_scores, det_labels, det_images, gt_boxes, gt_labels, gt_images,
        gt_difficult=gt_difficult, num_classes=num_classes,
    )  # fmt: skip
    return match_detections(arrays, threshold)


def evaluate(arrays: Arrays, iou_threshold: float = 0.5) -> VocResult:
    """`average` of `match_detections`, faster: pairs below the threshold are left out."""
    threshold = check_threshold(iou_threshold)
    with ThreadPoolExecutor(1) as pool:  # sorting needs no pairs
        ordering = pool.submit(order_by_class, arrays.det_scores, arrays.det_labels, arrays.num_classes)
        det, truth, _ = best_pairs(*overlapping_pairs(arrays, find_cells(arrays), threshold))
    order, rank = ordering.result()
    true, ignored = _judge(arrays.gt_difficult, truth, rank[det])
    return _average(arrays, order, np.sort(rank[det[true]]), np.sort(rank[det[ignored]]), threshold)


def match_detections(arrays: Arrays, iou_threshold: float = 0.5) -> VocMatch:
    """The match of each detection, to be handed to `average` and to all diagnoses."""
    threshold = check_threshold(iou_threshold)
    order, _ = order_by_class(arrays.det_scores, arrays.det_labels, arrays.num_classes)
    count = len(order)
    best_gt, best_iou = np.full(count, -1), np.zeros(count)
    det, truth, iou = best_pairs(*overlapping_pairs(arrays, find_cells(arrays), 0.0))
    best_gt[det], best_iou[det] = truth, iou
    return judge(arrays, VocMatch(best_gt, best_iou, np.zeros(0, bool), np.zeros(0, bool), order, threshold))


def judge(arrays: Arrays, match: VocMatch) -> VocMatch:
    """The match with its true positives and ignored detections as `arrays.gt_difficult` has them.

    The best ground truth does not depend on what is difficult, so a change of it needs no new `match_detections`.
    """
    count = len(match.order)
    rank = np.empty(count, np.int64)
    rank[match.order] = np.arange(count)
    det = np.flatnonzero(match.best_iou >= match.iou_threshold)
    true_positive, ignored = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    true_positive[det], ignored[det] = _judge(arrays.gt_difficult, match.best_gt[det], rank[det])
    return replace(match, true_positive=true_positive, ignored=ignored)


def _judge(difficult: Mask, truth: Ints, rank: Ints) -> tuple[Mask, Mask]:
    """Which of the detections of these ranks, matched to these ground truths, are true positives, which ignored."""
    ignored = difficult[truth]
    first = np.full(len(difficult), np.iinfo(np.int64).max)
    np.minimum.at(first, truth, rank)
    return (first[truth] == rank) & ~ignored, ignored


def best_scores(arrays: Arrays, match: VocMatch) -> Floats:
    """The best score of a detection that matches each ground truth, (G,), -inf without one."""
    best, fits = np.full(len(arrays.gt_boxes), -np.inf), match.best_iou >= match.iou_threshold
    np.maximum.at(best, match.best_gt[fits], arrays.det_scores[fits].astype(np.float64))
    return best


def average(arrays: Arrays, match: VocMatch) -> VocResult:
    """AP from true positives and ignored detections."""
    true, ignored = (np.flatnonzero(part[match.order]) for part in (match.true_positive, match.ignored))
    return _average(arrays, match.order, true, ignored, match.iou_threshold)


def _average(arrays: Arrays, order: Ints, true: Ints, ignored: Ints, threshold: float) -> VocResult:
    """AP from the places in the order, rising, of the true positives and of the ignored detections."""
    classes = arrays.num_classes
    positive = count_per_class(arrays, ~arrays.gt_difficult)
    label = arrays.det_labels[order[true]].astype(np.int64)
    begin = np.append(0, np.cumsum(np.bincount(arrays.det_labels, minlength=classes)))[label]
    starts = np.searchsorted(label, np.arange(classes + 1))
    number = np.arange(1, len(true) + 1) - starts[label]  # true positives so far
    detected = true - begin + 1 - (np.searchsorted(ignored, true) - np.searchsorted(ignored, begin))
    recall, precision = number / positive[label], number / detected

    ap, ap_11pt = np.where(positive > 0, 0.0, np.nan), np.where(positive > 0, 0.0, np.nan)
    for c in np.flatnonzero(np.diff(starts)).tolist():
        part = slice(starts[c], starts[c + 1])
        envelope = np.maximum.accumulate(precision[part][::-1])[::-1]
        steps = np.diff(recall[part], prepend=0) * envelope
        # The devkit adds a last step, from the last recall to 1 at precision 0. It decides how NumPy's sum rounds.
        ap[c] = steps.sum() if recall[part][-1] == 1 else np.append(steps, 0).sum()
        reached = np.searchsorted(recall[part], RECALLS)
        ap_11pt[c] = np.cumsum(envelope[reached[reached < len(envelope)]] / 11)[-1]  # one by one, as the devkit adds
    curve = VocCurve(recall, precision, arrays.det_scores[order[true]].astype(np.float64))
    return VocResult(mean_over(ap), mean_over(ap_11pt), ap, ap_11pt, positive, threshold, (starts, curve))
