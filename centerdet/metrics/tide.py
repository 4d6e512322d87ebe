"""The errors of a detector by kind (TIDE).

Shapes: D detections, G ground truths, C classes, K kinds of errors.
"""

from dataclasses import dataclass, field, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .arrays import Array, Arrays, count_per_class
from .order import score_order
from .overlaps import best_of_each, pairs_of_any_class
from .result import Result, mean_over
from .voc import VocMatch, average

__all__ = ["ErrorKind", "ErrorKinds", "error_kinds"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


class ErrorKind(IntEnum):
    """A kind of error; its value is its row in the arrays of `ErrorKinds`."""

    CLASSIFICATION = 0
    LOCALIZATION = 1
    BOTH = 2
    DUPLICATE = 3
    BACKGROUND = 4
    MISSED = 5


NO_ERROR = -1  # true positives and ignored detections


@dataclass(frozen=True, slots=True, eq=False)
class ErrorKinds(Result):
    """Errors by kind and their cost: the AP by area with all errors of a kind fixed, minus the AP as it is.

    kinds: K = 6 names, in the order of `ErrorKind`. count (K, C) by the class of the detection, for missed by that of
    the ground truth. cost (K, C): NaN for classes without ground truth; mean_cost (K,). false_positive_cost,
    false_negative_cost (C,): all of either fixed. Not in to_dict: detection_kind (D,), an `ErrorKind` or -1 for true
    and ignored detections; other_gt (D,) and other_iou (D,), of false positives with an IoU of background_iou or more;
    missed (G,) bool.
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
    other_gt: Ints = field(metadata={"json": False})
    other_iou: Floats = field(metadata={"json": False})
    missed: Mask = field(metadata={"json": False})


def error_kinds(arrays: Arrays, match: VocMatch, *, background_iou: float = 0.1) -> ErrorKinds:
    """Kinds of errors by TIDE (Bolya et al., ECCV 2020, section 2.2), of VOC's false positives and false negatives.

    The kind of a false positive follows from two IoUs: `same`, with the best ground truth of its class, and `other`,
    with the best of any other class. The first line that holds, with t = iou_threshold and b = background_iou:
        localization    b <= same < t: the right class, the box too far off
        classification  other >= t: a good box of another class
        duplicate       same >= t: a good box of an object that a better-scored detection has
        both            other >= b: too far off, and of another class
        background      the rest
    missed: ground truths without a true positive that are not the best of a localization or classification error.

    Fixing one of those two kinds turns an error into a true positive of its best ground truth: the best-scored error of
    each, unless that ground truth has a true positive. All other errors of the kind are dropped, and so are those of
    the other kinds when they are fixed. Fixing missed takes the ground truths away. Special: all false positives
    dropped; all ground truths without a true positive taken away. Difficult ground truths, and the detections ignored
    for them, take no part.

    The PyPI package `tidecv` 1.0.1 differs: COCO's matching (on to the next free ground truth) and 101-point AP; at
    most 100 detections per image, none of an image without annotations; closed intervals; a class with detections but
    no ground truth counts as AP 0, and one left with neither leaves the mean (its AP here stays 0); negative costs
    become 0; detections in ignored regions may be errors too. The rest was compared with it and is equal.
    """
    threshold = match.iou_threshold
    if not 0 < background_iou <= threshold:
        raise DataError(f"background_iou: expected a number in (0, iou_threshold], got {background_iou!r}")
    labels, scores, correct = arrays.det_labels, arrays.det_scores, match.true_positive
    real = ~arrays.gt_difficult
    detected = np.zeros(len(real), np.bool_)
    detected[match.best_gt[correct]] = True
    positive = count_per_class(arrays, real)

    false_positive = ~correct & ~match.ignored
    det, truth, iou = pairs_of_any_class(arrays, background_iou, np.flatnonzero(false_positive))
    same = labels[det] == arrays.gt_labels[truth]
    (same_gt, same_iou), (other_gt, other_iou) = (
        best_of_each(det[part], truth[part], iou[part], len(labels))
        for part in (same & real[truth], ~same & real[truth])
    )
    kind = np.full(len(labels), NO_ERROR)
    kind[false_positive] = ErrorKind.BACKGROUND
    for each, holds in (  # the last that holds stays
        (ErrorKind.BOTH, other_iou >= background_iou),
        (ErrorKind.DUPLICATE, same_iou >= threshold),
        (ErrorKind.CLASSIFICATION, other_iou >= threshold),
        (ErrorKind.LOCALIZATION, (background_iou <= same_iou) & (same_iou < threshold)),
    ):
        kind[holds & false_positive] = each

    goal = np.full(len(labels), -1)  # the ground truth that a fixed error would detect
    for each, best_gt in ((ErrorKind.LOCALIZATION, same_gt), (ErrorKind.CLASSIFICATION, other_gt)):
        goal[kind == each] = best_gt[kind == each]
    missed = real & ~detected
    missed[goal[goal >= 0]] = False
    rows = np.flatnonzero(goal >= 0)
    rows = rows[~detected[goal[rows]]]
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    fixable = np.zeros(len(labels), np.bool_)
    fixable[rows[np.unique(goal[rows], return_index=True)[1]]] = True  # the best-scored error of each ground truth

    def ap_with(true: Mask, dropped: Mask, gone: Mask | None = None, new_labels: Array | None = None) -> Floats:
        """AP by area (C,) of changed detections and with ground truths gone."""
        changed = arrays if gone is None else replace(arrays, gt_difficult=arrays.gt_difficult | gone)
        order = match.order
        if new_labels is not None:
            changed = replace(changed, det_labels=new_labels)
            order = score_order(scores, new_labels, arrays.num_classes)
        result = average(changed, replace(match, order=order, true_positive=true, ignored=match.ignored | dropped))
        # A class that has lost all its ground truth had no true positive, and keeps its 0.
        return np.where(np.isnan(result.ap) & (positive > 0), 0, result.ap)

    fixed = []
    for each in (ErrorKind.CLASSIFICATION, ErrorKind.LOCALIZATION):
        mended = fixable & (kind == each)
        new_labels = labels.astype(np.int64)
        new_labels[mended] = arrays.gt_labels[goal[mended]]
        fixed.append(ap_with(correct | mended, (kind == each) & ~mended, new_labels=new_labels))
    nothing = np.zeros(len(labels), np.bool_)
    fixed += [ap_with(correct, kind == each) for each in (ErrorKind.BOTH, ErrorKind.DUPLICATE, ErrorKind.BACKGROUND)]
    fixed += [ap_with(correct, nothing, missed), ap_with(correct, ~correct), ap_with(correct, nothing, ~detected)]
    ap = ap_with(correct, nothing)
    cost = np.stack(fixed) - ap
    means = [mean_over(row) for row in cost]
    count = [np.bincount(labels[kind == each], minlength=arrays.num_classes) for each in ErrorKind]
    count[ErrorKind.MISSED] = count_per_class(arrays, missed)
    return ErrorKinds(
        tuple(each.name.lower() for each in ErrorKind), np.stack(count), cost[:6], np.array(means[:6]),
        cost[6], cost[7], means[6], means[7], ap, mean_over(ap), threshold, float(background_iou), kind,
        other_gt, other_iou, missed,
    )  # fmt: skip
