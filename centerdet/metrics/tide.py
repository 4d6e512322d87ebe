"""What a detector gets wrong, and where the labels may be wrong instead: on the flat arrays of `voc_evaluate`.

Shapes: D detections, G ground truths, C classes, S rows found.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import DataError
from .overlaps import score_order
from .ranking import (
    Array,
    Floats,
    Ints,
    Mask,
    Result,
    count_truths,
    finite_number,
    match_arrays,
    pairs_of_any_class,
    point_average,
    reaches,
)

__all__ = ["ErrorKinds", "LabelErrors", "error_kinds", "label_errors"]

KINDS = ("classification", "localization", "both", "duplicate", "background", "missed")


@dataclass(frozen=True, slots=True, eq=False)
class ErrorKinds(Result):
    """Errors by kind and what they cost: the AP by area with all errors of a kind fixed, less the AP as it is.

    count (6, C) by the class of the detection, missed by that of the ground truth. cost (6, C) NaN where a class has no
    ground truth, mean_cost (6,). false_positive_cost, false_negative_cost (C,): all of either fixed. Row by row (not in
    to_dict): detection_kind (D,) an index into kinds, -1 if true or ignored; missed (G,) bool.
    """

    kinds: tuple[str, ...]
    count: Ints
    cost: Floats
    mean_cost: Floats
    false_positive_cost: Floats
    false_negative_cost: Floats
    mean_false_positive_cost: float
    mean_false_negative_cost: float
    ap: Floats
    mean_ap: float
    iou_threshold: float
    background_iou: float
    detection_kind: Ints = field(metadata={"json": False})
    missed: Mask = field(metadata={"json": False})


def error_kinds(
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
    background_iou: float = 0.1,
) -> ErrorKinds:
    """Kinds of errors by TIDE (Bolya et al., ECCV 2020, section 2.2), of VOC's false positives and false negatives.

    With the IoU of a false positive's best ground truth of its own class and of any other, the first that holds:
    localization: own in [background_iou, iou_threshold). classification: other >= iou_threshold. duplicate: own >=
    iou_threshold. both: other >= background_iou. background: the rest. missed: ground truths without a true positive
    that are no classification or localization error's best. Of the errors of those two kinds with the same best ground
    truth, if that is not found yet, the best-scored is mended when its kind is fixed (becomes a true positive of that
    class); all others of a fixed kind are dropped. Fixing missed takes the ground truths away. Special: all false
    positives dropped; all ground truths not found taken away. Difficult ground truths, and the detections ignored for
    them, take no part.

    The PyPI package `tidecv` 1.0.1 differs: COCO's matching (on to the next free ground truth) and 101-point AP; at
    most 100 detections a image, none of a image without annotations; closed intervals; a class with detections but
    no ground truth counts as AP 0, and one left with neither leaves the mean (its AP here stays 0); negative costs
    become 0; detections in ignored regions may be errors too. The rest was compared with it and is equal.
    """
    problem, match = match_arrays(
        det_boxes, det_scores, det_labels, det_images, gt_boxes, gt_labels, gt_images,
        gt_difficult, num_classes, iou_threshold,
    )  # fmt: skip
    if not 0 < background_iou <= iou_threshold:
        raise DataError(f"background_iou: want a number in (0, iou_threshold], got {background_iou!r}")
    correct, counted, real = match.true_positive, ~match.ignored, ~problem.gt_flag
    found = np.zeros(len(real), np.bool_)
    found[match.best_gt[correct]] = True

    det, truth, iou = pairs_of_any_class(problem, background_iou, np.flatnonzero(counted & ~correct))
    own = problem.det_labels[det] == problem.gt_labels[truth]
    (own_gt, own_iou), (other_gt, other_iou) = (
        _best(det[part], truth[part], iou[part], len(counted)) for part in (own & real[truth], ~own & real[truth])
    )
    kind = np.select(
        [
            correct | match.ignored,
            (background_iou <= own_iou) & (own_iou < iou_threshold),
            other_iou >= iou_threshold,
            own_iou >= iou_threshold,
            other_iou >= background_iou,
        ],
        [-1, KINDS.index("localization"), KINDS.index("classification"), KINDS.index("duplicate"), KINDS.index("both")],
        KINDS.index("background"),
    )

    def average(labels: Array, correct: Mask, counted: Mask, real: Mask) -> Floats:
        """AP by area (C,); a class that has lost all its ground truth had no true positive, and keeps its 0."""
        order = match.order if labels is problem.det_labels else score_order(problem.det_scores, labels, num_classes)
        area = point_average(replace(problem, det_labels=labels), order, counted, correct, real)[0]
        return np.where(np.isnan(area) & (positive > 0), 0, area)

    labels, positive = problem.det_labels, count_truths(problem, real)
    missed, goal = real & ~found, np.where(kind == 1, own_gt, np.where(kind == 0, other_gt, -1))
    rows = np.flatnonzero(goal >= 0)
    missed[goal[rows]] = False
    rows = rows[~found[goal[rows]]]
    rows = rows[np.argsort(-problem.det_scores[rows], kind="stable")]
    rows = rows[np.unique(goal[rows], return_index=True)[1]]  # the best-scored error of each ground truth
    fixed = []
    for index in (0, 1):
        mended = rows[kind[rows] == index]
        right, relabeled = correct.copy(), labels.astype(np.int64)
        right[mended], relabeled[mended] = True, problem.gt_labels[goal[mended]]
        fixed.append(average(relabeled, right, counted & ((kind != index) | right), real))
    fixed += [average(labels, correct, counted & (kind != index), real) for index in (2, 3, 4)]
    fixed += [average(labels, correct, counted, real & ~missed)]
    fixed += [average(labels, correct, correct, real), average(labels, correct, counted, found)]
    ap = average(labels, correct, counted, real)
    cost = np.stack(fixed) - ap
    means = [float(row[positive > 0].mean()) if positive.any() else float("nan") for row in (*cost, ap)]
    count = [np.bincount(labels[kind == index], minlength=num_classes) for index in range(5)]
    return ErrorKinds(
        KINDS, np.stack([*count, count_truths(problem, missed)]), cost[:6], np.array(means[:6]), cost[6], cost[7],
        means[6], means[7], ap, means[8], float(iou_threshold), float(background_iou), kind, missed,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class LabelErrors(Result):
    """Rows to look at, the most suspicious first.

    detections (S,): rows, with their scores; detection_gt: the row of the ground truth of any class that it overlaps
    most, -1 for none, and their IoU. missed (S,): ground truth rows; missed_detection: the row of the detection of any
    class that overlaps it most, -1 for none, and their IoU.
    """

    detections: Ints
    detection_scores: Floats
    detection_gt: Ints
    detection_iou: Floats
    missed: Ints
    missed_detection: Ints
    missed_iou: Floats
    score_threshold: float
    found_score: float
    iou_threshold: float
    background_iou: float


def label_errors(
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
    background_iou: float = 0.1,
    score_threshold: float = 0.5,
    found_score: float = 0.0,
) -> LabelErrors:
    """Confident detections without a ground truth, and ground truths that nobody finds: likely errors of the labels.

    detections: score >= score_threshold, and no ground truth of their class, difficult or not, with IoU >=
    background_iou; by falling score, then row. Where the IoU with another class is high the label may be wrong, else an
    object may be missing. missed: not difficult, and no true positive (VOC matching) with score >= found_score; by
    rising IoU with the best detection of any class with such a score, then row.
    """
    problem, match = match_arrays(
        det_boxes, det_scores, det_labels, det_images, gt_boxes, gt_labels, gt_images,
        gt_difficult, num_classes, iou_threshold,
    )  # fmt: skip
    if not 0 < background_iou <= 1:
        raise DataError(f"background_iou: want a number in (0, 1], got {background_iou!r}")
    score_threshold = finite_number("score_threshold", score_threshold)
    found_score = finite_number("found_score", found_score)
    lonely = np.flatnonzero(reaches(problem.det_scores, score_threshold) & (match.best_iou < background_iou))
    lonely = lonely[np.argsort(-problem.det_scores[lonely], kind="stable")]
    det_gt, det_iou = _best(*pairs_of_any_class(problem, 0.0, lonely), len(problem.det_scores))

    used = reaches(problem.det_scores, found_score)
    missed = ~problem.gt_flag
    missed[match.best_gt[match.true_positive & used]] = False
    det, truth, iou = pairs_of_any_class(problem, 0.0, np.flatnonzero(used), np.flatnonzero(missed))
    gt_det, gt_iou = _best(truth, det, iou, len(missed))
    rows = np.flatnonzero(missed)
    rows = rows[np.argsort(gt_iou[rows], kind="stable")]
    return LabelErrors(
        lonely, problem.det_scores[lonely].astype(np.float64), det_gt[lonely], det_iou[lonely],
        rows, gt_det[rows], gt_iou[rows], score_threshold, found_score, float(iou_threshold), float(background_iou),
    )  # fmt: skip


def _best(rows: Ints, partners: Ints, iou: Floats, count: int) -> tuple[Ints, Floats]:
    """The partner of highest IoU (the lowest row wins ties; -1) of each of `count` rows, and that IoU (0)."""
    order = np.lexsort((partners, -iou, rows))
    order = order[np.diff(rows[order], prepend=-1) > 0]
    best, highest = np.full(count, -1), np.zeros(count)
    best[rows[order]], highest[rows[order]] = partners[order], iou[order]
    return best, highest
