"""What lies behind an AP: sizes, operating points, curves and confusions, on the flat arrays of `voc_evaluate`.

All but the confusion matrix stand on the matching of `voc_match`; each says its rule. A score threshold is `>=`, in the
scores' own precision.

Shapes: D detections, G ground truths, C classes, K detections of a class.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..boxes import area
from .arrays import Problem, check_threshold
from .ranking import (
    Floats,
    Ints,
    Mask,
    Result,
    count_truths,
    finite_number,
    match_arrays,
    number_images,
    pairs_of_any_class,
    point_average,
    reaches,
)

__all__ = [
    "ConfusionMatrix", "OperatingPoints", "PrecisionRecall", "Rates", "SizeAP",
    "ap_by_size", "confusion_matrix", "operating_points", "precision_recall",
]  # fmt: skip

SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}  # COCO's, both ends inside


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


def ap_by_size(
    det_boxes: Any,
    det_scores: Any,
    det_labels: Any,
    det_images: Any,
    gt_boxes: Any,
    gt_labels: Any,
    gt_images: Any,
    *,
    gt_difficult: Any = None,
    gt_area: Any = None,
    num_classes: int,
    iou_threshold: float = 0.5,
) -> SizeAP:
    """VOC AP of small, medium and large objects, by COCO's bounds (both inclusive) on gt_area or the box's area.

    Ground truths outside a size are ignored as difficult ones are: so is every detection that goes to one. A detection
    that goes to none (its best IoU is below the threshold) is ignored if the area of its own box is outside.
    """
    problem, match = match_arrays(
        det_boxes, det_scores, det_labels, det_images, gt_boxes, gt_labels, gt_images,
        gt_difficult, num_classes, iou_threshold, gt_area,
    )  # fmt: skip
    truth_area = area(problem.gt_boxes) if problem.gt_area is None else problem.gt_area
    judged_by = area(problem.det_boxes.astype(np.float64))
    matched = match.best_iou >= iou_threshold
    judged_by[matched] = truth_area[match.best_gt[matched]]
    rows = []
    for low, high in SIZES.values():
        real = ~problem.gt_flag & (low <= truth_area) & (truth_area <= high)
        counted = ~match.ignored & (low <= judged_by) & (judged_by <= high)
        averages = point_average(problem, match.order, counted, match.true_positive, real)
        rows.append((*averages, count_truths(problem, real)))
    ap, ap_11pt, mean_ap, mean_ap_11pt, positive = (np.stack(column) for column in zip(*rows, strict=True))
    bounds = np.array(list(SIZES.values()))
    return SizeAP(tuple(SIZES), bounds, ap, ap_11pt, positive, mean_ap, mean_ap_11pt, float(iou_threshold))


@dataclass(frozen=True, slots=True, eq=False)
class Rates(Result):
    """Counts and rates at a score, numbers or (C,): NaN where nothing was detected (precision) or is there (recall)."""

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
    """Rates at the score asked for, and at the score of the best F1: of each class (C,), and of all classes together.

    Together: one score for all, and counts summed over classes. The best score is NaN where there is no ground truth.
    """

    per_class: Rates
    overall: Rates
    best_per_class: Rates
    best_overall: Rates
    num_images: int
    iou_threshold: float


def operating_points(
    det_boxes: Any,
    det_scores: Any,
    det_labels: Any,
    det_images: Any,
    gt_boxes: Any,
    gt_labels: Any,
    gt_images: Any,
    *,
    gt_difficult: Any = None,
    num_classes: int,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.3,
    num_images: int | None = None,
) -> OperatingPoints:
    """Precision, recall, F1 and false positives per image at a score, by VOC's matching.

    num_images counts the images evaluated; by default those that a detection or a ground truth names. Of several
    scores with the best F1 the highest is taken.
    """
    problem, match = match_arrays(
        det_boxes, det_scores, det_labels, det_images, gt_boxes, gt_labels, gt_images,
        gt_difficult, num_classes, iou_threshold,
    )  # fmt: skip
    score_threshold = finite_number("score_threshold", score_threshold)
    total = number_images(problem, num_images)[2]
    rows = match.order[~match.ignored[match.order]]
    scores, labels, correct = problem.det_scores[rows], problem.det_labels[rows], match.true_positive[rows]
    positive = count_truths(problem, ~problem.gt_flag)

    def rates(thresholds: Floats) -> Rates:
        """The rates with a threshold for each class."""
        kept = reaches(scores, thresholds[labels])
        hits, all_kept = (np.bincount(labels[kept & part], minlength=len(positive)) for part in (correct, True))
        return _rates(thresholds, hits, all_kept - hits, positive, total)

    def together(threshold: float) -> Rates:
        each = rates(np.full(num_classes, threshold))
        return _rates(threshold, each.true_positives.sum(), each.false_positives.sum(), positive.sum(), total)

    starts = np.searchsorted(labels, np.arange(num_classes + 1))
    best = np.full(num_classes, np.nan)
    for label in np.flatnonzero(positive).tolist():
        part = slice(starts[label], starts[label + 1])
        best[label] = _best_score(scores[part], correct[part], positive[label])
    falling = np.argsort(-scores, kind="stable")
    return OperatingPoints(
        rates(np.full(num_classes, score_threshold)), together(score_threshold),
        rates(best), together(_best_score(scores[falling], correct[falling], positive.sum())),
        total, float(iou_threshold),
    )  # fmt: skip


def _best_score(scores: Floats, correct: Mask, positive: int) -> float:
    """The highest score with the best F1, of scores sorted falling."""
    if not len(scores) or not positive:
        return float("nan")
    f1 = 2 * np.cumsum(correct) / (np.arange(1, len(scores) + 1) + positive)
    f1[:-1][scores[1:] == scores[:-1]] = -1  # a threshold takes all of a tie or none
    return float(scores[f1.argmax()])


def _rates(threshold: Any, hits: Any, false: Any, positive: Any, num_images: int) -> Rates:
    with np.errstate(invalid="ignore"):
        precision, recall = np.divide(hits, hits + false), np.divide(hits, positive)
        f1 = np.divide(2 * hits, hits + false + positive)
    return Rates(threshold, hits, false, positive, precision, recall, f1, false / num_images)


@dataclass(frozen=True, slots=True, eq=False)
class PrecisionRecall(Result):
    """One array (K,) a class, best score first; a point for each detection that is not ignored."""

    scores: tuple[Floats, ...]
    precision: tuple[Floats, ...]
    recall: tuple[Floats, ...]
    iou_threshold: float


def precision_recall(
    det_boxes: Any,
    det_scores: Any,
    det_labels: Any,
    det_images: Any,
    gt_boxes: Any,
    gt_labels: Any,
    gt_images: Any,
    *,
    gt_difficult: Any = None,
    num_classes: int,
    iou_threshold: float = 0.5,
) -> PrecisionRecall:
    """The whole precision-recall curve of every class, VOC matching; recall is NaN in a class without ground truth."""
    problem, match = match_arrays(
        det_boxes, det_scores, det_labels, det_images, gt_boxes, gt_labels, gt_images,
        gt_difficult, num_classes, iou_threshold,
    )  # fmt: skip
    rows = match.order[~match.ignored[match.order]]
    cuts = np.searchsorted(problem.det_labels[rows], np.arange(1, num_classes))
    hits = [np.cumsum(part) for part in np.split(match.true_positive[rows], cuts)]
    positive = count_truths(problem, ~problem.gt_flag)
    with np.errstate(invalid="ignore"):
        recall = tuple(np.divide(true, count) for true, count in zip(hits, positive, strict=True))
    precision = tuple(true / np.arange(1, len(true) + 1) for true in hits)
    scores = np.split(problem.det_scores[rows].astype(np.float64), cuts)
    return PrecisionRecall(tuple(scores), precision, recall, float(iou_threshold))


@dataclass(frozen=True, slots=True, eq=False)
class ConfusionMatrix(Result):
    """matrix[truth, said] (C + 1, C + 1): the last row is detected background, the last column missed ground truth."""

    matrix: Ints
    score_threshold: float
    iou_threshold: float


def confusion_matrix(
    det_boxes: Any,
    det_scores: Any,
    det_labels: Any,
    det_images: Any,
    gt_boxes: Any,
    gt_labels: Any,
    gt_images: Any,
    *,
    gt_difficult: Any = None,
    num_classes: int,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.3,
) -> ConfusionMatrix:
    """Which class was taken for which, by a greedy matching that does not look at classes.

    Detections with score >= the threshold, best first (ties by row): each takes the free ground truth of its image
    with the highest IoU >= iou_threshold (the first wins ties). Difficult ones are not in the matrix, nor are the
    detections left over that reach the IoU with one, whatever its class.
    """
    problem = Problem.check(
        det_boxes, det_scores, det_labels, det_images, gt_boxes, gt_labels, gt_images, num_classes,
        flag=("gt_difficult", gt_difficult),
    )  # fmt: skip
    threshold, score_threshold = check_threshold(iou_threshold), finite_number("score_threshold", score_threshold)
    kept = np.flatnonzero(reaches(problem.det_scores, score_threshold))
    kept = kept[np.argsort(-problem.det_scores[kept], kind="stable")]
    det, truth, iou = pairs_of_any_class(problem, threshold, kept)
    place = np.empty(len(problem.det_scores), np.int64)
    place[kept] = np.arange(len(kept))
    real = ~problem.gt_flag[truth]
    order = np.lexsort((truth[real], -iou[real], place[det[real]]))
    mate = _greedy(place[det[real]][order], truth[real][order], len(kept))

    matched, background = mate >= 0, num_classes
    excused = np.zeros(len(kept), np.bool_)
    excused[place[det[~real]]] = True
    said = problem.det_labels[kept].astype(np.int64)
    actual = np.full(len(kept), background)
    actual[matched] = problem.gt_labels[mate[matched]]
    lost = ~problem.gt_flag
    lost[mate[matched]] = False
    matrix = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    np.add.at(matrix, (actual[matched | ~excused], said[matched | ~excused]), 1)
    matrix[:-1, background] = count_truths(problem, lost)
    return ConfusionMatrix(matrix, score_threshold, threshold)


def _greedy(det: Ints, truth: Ints, count: int) -> Ints:
    """The ground truth (-1: none) of each of `count` detections that choose in turn, of pairs sorted by turn and wish.

    In a round, every detection whose first wish nobody before it wants gets it; the first in turn always does.
    """
    mate = np.full(count, -1)
    while len(det):
        first = np.diff(det, prepend=-1) > 0  # each detection's dearest wish of those left
        earliest = np.full(truth.max() + 1, count)
        np.minimum.at(earliest, truth, det)
        sure = first & (earliest[truth] == det)
        mate[det[sure]] = truth[sure]
        taken = np.zeros(len(earliest), np.bool_)
        taken[truth[sure]] = True
        left = ~taken[truth] & (mate[det] < 0)
        det, truth = det[left], truth[left]
    return mate
