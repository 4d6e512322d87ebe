"""Likely label errors: annotations that contradict a confident detector.

A score is the confidence that the label is wrong, so all kinds are ranked in one list.

Shapes: D detections, G ground truths, S suspects.
"""

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .arrays import SIZE_RANGES, Arrays, box_area, reaches
from .overlaps import best_of_each, best_pairs, find_cells, overlapping_pairs, pairs_of_any_class
from .result import Result
from .voc import VocMatch, best_scores

__all__ = ["LabelErrorKind", "LabelErrors", "label_errors"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

TWIN_IOU = 0.7  # two boxes of one class with this IoU are one object, or two objects that occlude each other
WRONG = 0.05
"""Prior probability that a box is spurious: a box that the detector misses is still more likely an object than not."""


class LabelErrorKind(IntEnum):
    """An object without a box; or a box with the wrong class, in the wrong place, without an object, or repeated."""

    MISSING = 0
    RENAMED = 1
    SHIFTED = 2
    SPURIOUS = 3
    DUPLICATE = 4


@dataclass(frozen=True, slots=True, eq=False)
class LabelErrors(Result):
    """Likely label errors, the most likely first.

    Attributes:
        kind: a `LabelErrorKind`, (S,).
        score: from 0 to 1, (S,).
        detection: row of the detection that contradicts the label, (S,); -1 if spurious or duplicate.
        gt: row of the ground truth in question, (S,). For a missing object, the ground truth of any class with the
            highest IoU, or -1.
        iou: IoU of the detection and the ground truth, (S,); for a duplicate, of the two ground truths.
    """

    kind: Ints
    score: Floats
    detection: Ints
    gt: Ints
    iou: Floats
    score_threshold: float
    background_iou: float


def label_errors(
    arrays: Arrays, match: VocMatch, *, background_iou: float = 0.1, score_threshold: float = 0.3
) -> LabelErrors:
    """Find annotations that contradict the detections: suspects, each with a score of at least score_threshold.

    s is the score of a detection; detections with s < score_threshold make no suspects. t is the IoU threshold of the
    match. `seen` is the best score of the detections of a ground truth's class that match it best with IoU >= t, or 0.

    - renamed: a detection has IoU >= t with a ground truth of another class, and with none of its own class. Score:
      (s - best score of the labeled class near the ground truth) / P. P is the probability of any object there, since
      the label shows that there is one: 1 - the product over all classes of (1 - best score near the ground truth).
      Near means IoU >= background_iou, because loose boxes show the class, too.
    - shifted: not renamed; the closest detection of a ground truth of its class, with background_iou <= IoU < t.
      Score: s.
    - missing: neither of these; the detection has IoU < t with every ground truth. Score: s.
    - duplicate: a ground truth has IoU >= TWIN_IOU with another one of its class, which has a higher `seen`. Score:
      IoU * (1 - seen).
    - spurious: no detection of its class overlaps the ground truth. Score: (1 - seen / score_threshold) * the
      probability that the box has no object, from the prior WRONG and the share of objects of its class and size that
      are seen.

    Each detection and each ground truth is in at most one suspect, the one with the best score. Of missing objects
    that overlap with IoU >= t, only the one with the best score stays. Difficult and crowd ground truths are never
    suspects. A detection with half of its area in a crowd of its class is not a missing object.
    """
    if not 0 < background_iou <= match.iou_threshold:
        raise DataError(f"background_iou: expected a number in (0, iou_threshold], got {background_iou!r}")
    if not 0 < score_threshold <= 1:
        raise DataError(f"score_threshold: expected a number in (0, 1], got {score_threshold!r}")
    count, total = len(arrays.det_scores), len(arrays.gt_boxes)
    scores = np.clip(arrays.det_scores.astype(np.float64), 0, 1)
    real = ~(arrays.gt_difficult | arrays.gt_crowd)
    seen = np.clip(best_scores(arrays, match), 0, 1)

    rows = np.flatnonzero(reaches(arrays.det_scores, score_threshold))
    det, truth, iou = pairs_of_any_class(arrays, 0.0, rows)
    same = arrays.det_labels[det] == arrays.gt_labels[truth]
    own_gt, own_iou = best_of_each(det[same], truth[same], iou[same], count)
    other_gt, other_iou = best_of_each(det[~same], truth[~same], iou[~same], count)
    closest = _closest(det[same], truth[same], iou[same], total)

    fitting, confused = own_iou[rows] >= match.iou_threshold, other_iou[rows] >= match.iou_threshold
    moved = ~fitting & ~confused & (own_iou[rows] >= background_iou) & (closest[own_gt[rows]] == rows)
    renamed, shifted = rows[~fitting & confused], rows[moved]
    free = ~fitting & ~confused & ~moved & ~_in_crowd(arrays, rows, det[same], truth[same])
    missing = _drop_repeats(arrays, rows[free], match.iou_threshold)
    any_gt = np.where(own_iou >= other_iou, own_gt, other_gt)
    twin, twin_iou = _twins(arrays, seen, real)
    spurious, doubt = _spurious(arrays, seen, real & (closest[:-1] < 0), score_threshold)

    parts = [  # kind, score, detection, ground truth, IoU
        (LabelErrorKind.MISSING, scores[missing], missing, any_gt[missing], np.maximum(own_iou, other_iou)[missing]),
        (LabelErrorKind.RENAMED, _margins(arrays, scores, renamed, other_gt[renamed], background_iou), renamed,
         other_gt[renamed], other_iou[renamed]),
        (LabelErrorKind.SHIFTED, scores[shifted], shifted, own_gt[shifted], own_iou[shifted]),
        (LabelErrorKind.SPURIOUS, doubt, np.full(len(spurious), -1), spurious, np.zeros(len(spurious))),
        (LabelErrorKind.DUPLICATE, twin_iou * (1 - seen[twin]), np.full(len(twin), -1), twin, twin_iou),
    ]  # fmt: skip
    kind = np.concatenate([np.full(len(part[1]), part[0]) for part in parts])
    score, detection, gt, iou = (np.concatenate([part[column] for part in parts]) for column in range(1, 5))
    order = np.argsort(-score, kind="stable")
    kept = (score >= score_threshold) & ((kind == LabelErrorKind.MISSING) | np.append(real, False)[gt])
    order = order[kept[order]]
    subject = np.where(kind == LabelErrorKind.MISSING, -1 - np.arange(len(kind)), gt)  # the ground truth in question
    order = order[np.sort(np.unique(subject[order], return_index=True)[1])]
    kind, score, detection, gt, iou = (column[order] for column in (kind, score, detection, gt, iou))
    return LabelErrors(kind, score, detection, gt, iou, float(score_threshold), float(background_iou))


def _closest(det: Ints, truth: Ints, iou: Floats, total: int) -> Ints:
    """The detection with the highest IoU of each of `total` ground truths, -1 for none; one more -1 comes last."""
    order = np.argsort(truth, kind="stable")
    best, _ = best_of_each(truth[order], det[order], iou[order], total + 1)
    return best


def _margins(arrays: Arrays, scores: Floats, det: Ints, truth: Ints, floor: float) -> Floats:
    """How much more likely each detection's class is than that of a ground truth which it overlaps, given an object."""
    number = np.full(len(arrays.gt_boxes), -1)
    number[truth] = np.arange(len(truth))
    near, there, _ = pairs_of_any_class(
        arrays, floor, np.flatnonzero(np.isin(arrays.det_images, arrays.gt_images[truth]))
    )
    near, row = near[number[there] >= 0], number[there[number[there] >= 0]]
    best = np.zeros((len(truth), arrays.num_classes))
    np.maximum.at(best, (row, arrays.det_labels[near]), scores[near])
    last = number[truth]  # several detections may overlap one ground truth
    some = 1 - np.prod(1 - best[last], axis=1)
    margins: Floats = (scores[det] - best[last, arrays.gt_labels[truth]]) / some
    return margins


def _in_crowd(arrays: Arrays, rows: Ints, det: Ints, truth: Ints) -> Mask:
    """Which rows have half of their area in a crowd of their class; det, truth: all overlapping pairs of a class."""
    pairs = np.flatnonzero(arrays.gt_crowd[truth])
    boxes, crowds = arrays.det_boxes[det[pairs]].astype(np.float64), arrays.gt_boxes[truth[pairs]]
    shared = box_area(np.hstack([np.maximum(boxes[:, :2], crowds[:, :2]), np.minimum(boxes[:, 2:], crowds[:, 2:])]))
    return np.isin(rows, det[pairs[shared >= box_area(boxes) / 2]])


def _drop_repeats(arrays: Arrays, rows: Ints, iou_threshold: float) -> Ints:
    """The detections that no better one among them in their image overlaps by iou_threshold, whatever the classes."""
    rows = rows[np.argsort(-arrays.det_scores[rows], kind="stable")]
    nothing = np.zeros(len(rows), np.int64)
    images, boxes = arrays.det_images[rows], arrays.det_boxes[rows].astype(np.float64)
    among = replace(arrays.take(rows), det_labels=nothing, gt_boxes=boxes, gt_labels=nothing, gt_images=images,
                    gt_difficult=nothing > 0, gt_crowd=nothing > 0, num_classes=1)  # fmt: skip
    det, better, _ = overlapping_pairs(among, find_cells(among), iou_threshold)
    return np.delete(rows, det[better < det])


def _twins(arrays: Arrays, seen: Floats, real: Mask) -> tuple[Ints, Floats]:
    """Ground truths with a better seen twin of their class (of equals, the earlier is the better), and their IoU."""
    among = replace(arrays, det_boxes=arrays.gt_boxes, det_scores=seen, det_labels=arrays.gt_labels,
                    det_images=arrays.gt_images)  # fmt: skip
    one, other, iou = overlapping_pairs(among, find_cells(among), TWIN_IOU)
    good = real[one] & real[other] & ((seen[one] < seen[other]) | ((seen[one] == seen[other]) & (one > other)))
    covered, _, overlap = best_pairs(one[good], other[good], iou[good])
    return covered, overlap


def _spurious(arrays: Arrays, seen: Floats, alone: Mask, score_threshold: float) -> tuple[Ints, Floats]:
    """Ground truths that no detection overlaps, and the probability that each has no object."""
    size = np.searchsorted([SIZE_RANGES["small"][1], SIZE_RANGES["medium"][1]], arrays.gt_area)
    group = np.multiply(arrays.gt_labels, 3, dtype=np.int64) + size
    used = ~(arrays.gt_difficult | arrays.gt_crowd)
    objects, overlooked = (
        np.bincount(group[part], minlength=3 * arrays.num_classes) for part in (used, used & (seen < score_threshold))
    )
    rows = np.flatnonzero(alone & (seen < score_threshold))
    rate = ((overlooked + 1) / (objects + 2))[group[rows]]  # Laplace's rule: few objects are no evidence
    return rows, WRONG / (WRONG + (1 - WRONG) * rate) * (1 - seen[rows] / score_threshold)
