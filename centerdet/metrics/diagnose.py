"""Behind an AP: sizes, operating points and confusions.

All but the confusion matrix use VOC's match (`voc.match_detections`); each function states its rule. A score threshold
is `>=`, in the precision of the scores.

Shapes: D detections, G ground truths, C classes.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import (
    SIZE_RANGES,
    Arrays,
    box_area,
    check_finite,
    check_threshold,
    count_per_class,
    number_images,
    reaches,
)
from .overlaps import pairs_of_any_class
from .result import Result
from .voc import VocMatch, average

__all__ = [
    "ConfusionMatrix", "OperatingPoints", "Rates", "SizeAP", "ap_by_size", "confusion_matrix", "operating_points",
]  # fmt: skip

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

SIZES = {name: bounds for name, bounds in SIZE_RANGES.items() if name != "all"}


@dataclass(frozen=True, slots=True, eq=False)
class SizeAP(Result):
    """AP by size: `ap`, `ap_11pt`, `num_positive` (3, C), the means (3,); bounds (3, 2) in square pixels."""

    sizes: tuple[str, ...]
    bounds: Floats
    ap: Floats
    ap_11pt: Floats
    num_positive: Ints
    mean_ap: Floats
    mean_ap_11pt: Floats
    iou_threshold: float


def ap_by_size(arrays: Arrays, match: VocMatch) -> SizeAP:
    """VOC AP of small, medium and large objects, by COCO's bounds (both inclusive) on gt_area or the box's area.

    Ground truths outside a size are ignored like difficult ones, with every detection matched to them. A detection
    without a match (its best IoU is below the threshold) is ignored if the area of its box is outside.
    """
    gt_area, det_area = arrays.gt_area, box_area(arrays.det_boxes)
    matched = match.best_iou >= match.iou_threshold
    det_area[matched] = gt_area[match.best_gt[matched]]
    results = []
    for low, high in SIZES.values():
        ignored = match.ignored | ~((low <= det_area) & (det_area <= high))
        difficult = arrays.gt_difficult | ~((low <= gt_area) & (gt_area <= high))
        part = replace(match, ignored=ignored, true_positive=match.true_positive & ~ignored)
        results.append(average(replace(arrays, gt_difficult=difficult), part))
    ap, ap_11pt, positive, mean_ap, mean_ap_11pt = (
        np.stack([getattr(result, name) for result in results])
        for name in ("ap", "ap_11pt", "num_positive", "mean_ap", "mean_ap_11pt")
    )
    bounds = np.array(list(SIZES.values()))
    return SizeAP(tuple(SIZES), bounds, ap, ap_11pt, positive, mean_ap, mean_ap_11pt, match.iou_threshold)


@dataclass(frozen=True, slots=True, eq=False)
class Rates(Result):
    """Counts and rates at a score, numbers or (C,): NaN without detections (precision) or ground truth (recall)."""

    score_threshold: Any
    true_positives: Any
    false_positives: Any
    num_positive: Any
    precision: Any
    recall: Any
    f1: Any
    false_positives_per_image: Any


@dataclass(frozen=True, slots=True, eq=False)
class OperatingPoints(Result):
    """Rates at the given score, and at the score of the best F1: of each class (C,), and of all classes together.

    Together: one score for all, and counts summed over classes. The best score is NaN without ground truth.
    """

    per_class: Rates
    overall: Rates
    best_per_class: Rates
    best_overall: Rates
    num_images: int
    iou_threshold: float


def operating_points(
    arrays: Arrays, match: VocMatch, *, score_threshold: float = 0.3, num_images: int | None = None
) -> OperatingPoints:
    """Precision, recall, F1 and false positives per image at a score.

    num_images: the number of images evaluated; by default those that have a detection or a ground truth. Of several
    scores with the best F1 the highest is taken.
    """
    score_threshold = check_finite("score_threshold", score_threshold)
    total = number_images(arrays, num_images)[2]
    rows = match.order[~match.ignored[match.order]]
    scores, labels, correct = arrays.det_scores[rows], arrays.det_labels[rows], match.true_positive[rows]
    positive = count_per_class(arrays, ~arrays.gt_difficult)
    classes = arrays.num_classes

    def rates(thresholds: Floats) -> Rates:
        """The rates with a threshold for each class."""
        used = reaches(scores, thresholds[labels])
        true, detected = (np.bincount(labels[used & part], minlength=classes) for part in (correct, True))
        return _rates(thresholds, true, detected - true, positive, total)

    def together(threshold: float) -> Rates:
        each = rates(np.full(classes, threshold))
        return _rates(threshold, each.true_positives.sum(), each.false_positives.sum(), positive.sum(), total)

    starts = np.searchsorted(labels, np.arange(classes + 1))
    best = np.full(classes, np.nan)
    for label in np.flatnonzero(positive).tolist():
        part = slice(starts[label], starts[label + 1])
        best[label] = _best_score(scores[part], correct[part], positive[label])
    falling = np.argsort(-scores, kind="stable")
    return OperatingPoints(
        rates(np.full(classes, score_threshold)), together(score_threshold),
        rates(best), together(_best_score(scores[falling], correct[falling], positive.sum())),
        total, match.iou_threshold,
    )  # fmt: skip


def _best_score(scores: Floats, correct: Mask, positive: int) -> float:
    """The highest score with the best F1, of scores sorted falling."""
    if not len(scores) or not positive:
        return float("nan")
    f1 = 2 * np.cumsum(correct) / (np.arange(1, len(scores) + 1) + positive)
    f1[:-1][scores[1:] == scores[:-1]] = -1  # a threshold takes all of a tie or none
    return float(scores[f1.argmax()])


def _rates(threshold: Any, true: Any, false: Any, positive: Any, num_images: int) -> Rates:
    with np.errstate(invalid="ignore"):
        precision, recall = np.divide(true, true + false), np.divide(true, positive)
        f1 = np.divide(2 * true, true + false + positive)
    return Rates(threshold, true, false, positive, precision, recall, f1, false / num_images)


@dataclass(frozen=True, slots=True, eq=False)
class ConfusionMatrix(Result):
    """matrix[truth, predicted] (C + 1, C + 1): the last row is background, the last column ground truth not detected.

    The rows of the classes add up to their ground truths that are not difficult.
    """

    matrix: Ints
    score_threshold: float
    iou_threshold: float


def confusion_matrix(arrays: Arrays, *, iou_threshold: float = 0.5, score_threshold: float = 0.3) -> ConfusionMatrix:
    """Which class was predicted for which, by a greedy matching across classes.

    Detections with score >= the threshold, best first (ties by row): each takes the free ground truth of its image
    with the highest IoU >= iou_threshold (the first wins ties). Difficult ones are not in the matrix, nor are the
    unmatched detections that reach the IoU with one, whatever its class.
    """
    threshold, score_threshold = check_threshold(iou_threshold), check_finite("score_threshold", score_threshold)
    rows = np.flatnonzero(reaches(arrays.det_scores, score_threshold))
    rows = rows[np.argsort(-arrays.det_scores[rows], kind="stable")]
    det, truth, iou = pairs_of_any_class(arrays, threshold, rows)
    rank = np.empty(len(arrays.det_scores), np.int64)
    rank[rows] = np.arange(len(rows))
    difficult = arrays.gt_difficult[truth]
    excused = np.zeros(len(rows), np.bool_)
    excused[rank[det[difficult]]] = True
    turn, truth, iou = rank[det[~difficult]], truth[~difficult], iou[~difficult]
    order = np.lexsort((truth, -iou, turn))
    partner = _match_greedily(turn[order], truth[order], len(rows))

    matched, background = partner >= 0, arrays.num_classes
    predicted = arrays.det_labels[rows].astype(np.int64)
    actual = np.full(len(rows), background)
    actual[matched] = arrays.gt_labels[partner[matched]]
    missed = ~arrays.gt_difficult
    missed[partner[matched]] = False
    matrix = np.zeros((background + 1, background + 1), np.int64)
    np.add.at(matrix, (actual[matched | ~excused], predicted[matched | ~excused]), 1)
    matrix[:-1, background] = count_per_class(arrays, missed)
    return ConfusionMatrix(matrix, score_threshold, threshold)


def _match_greedily(det: Ints, truth: Ints, count: int) -> Ints:
    """The ground truth (-1: none) of each of `count` detections that choose one after another.

    The pairs are sorted by detection, best first, then by preference. In a round, a detection gets its best ground
    truth that is left if no earlier detection could still take it; the first detection always does.
    """
    partner = np.full(count, -1)
    while len(det):
        favorite = np.diff(det, prepend=-1) > 0  # the first pair of each detection
        earliest = np.full(truth.max() + 1, count)
        np.minimum.at(earliest, truth, det)
        sure = favorite & (earliest[truth] == det)
        partner[det[sure]] = truth[sure]
        taken = np.zeros(len(earliest), np.bool_)
        taken[truth[sure]] = True
        open_pairs = ~taken[truth] & (partner[det] < 0)
        det, truth = det[open_pairs], truth[open_pairs]
    return partner
