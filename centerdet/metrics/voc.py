"""Average precision as the official VOC devkit (VOCevaldet.m) computes it.

A detection goes to the ground truth of its class and image with the highest IoU, taken or not. So its lot does not
depend on other detections, and the true positive of a ground truth is the first detection in score order to go there.

Shapes: D detections, G ground truths, C classes, P true positives of a class.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .arrays import Problem, check_threshold
from .overlaps import Cells, find_cells, overlapping_pairs, score_order
from .result import mean_over, plain

__all__ = ["VocCurve", "VocMatch", "VocResult", "voc_evaluate", "voc_match"]

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]


class VocCurve(NamedTuple):
    """Recall, precision and score at each true positive of a class, (P,) each, best score first."""

    recall: Doubles
    precision: Doubles
    scores: Doubles


@dataclass(frozen=True, slots=True, eq=False)
class VocMatch:
    """What became of each detection, in the order in which the detections came.

    best_gt (D,) int64: row of its ground truth (the highest IoU of its class and image, the first wins ties), -1
    where it overlaps none. best_iou (D,). true_positive (D,) bool. ignored (D,) bool: went to a difficult one. All
    others are false positives. order (D,) int64: rows by class, then falling score, then row.
    """

    best_gt: Ints
    best_iou: Doubles
    true_positive: Mask
    ignored: Mask
    order: Ints


@dataclass(frozen=True, slots=True, eq=False)
class VocResult:
    """ap, ap_11pt (C,): NaN where a class has no ground truth that counts, left out of the means. num_positive (C,)."""

    ap: Doubles
    ap_11pt: Doubles
    num_positive: Ints
    mean_ap: float
    mean_ap_11pt: float
    iou_threshold: float
    eleven_points: str
    _curves: tuple[Ints, VocCurve] = field(repr=False)

    @property
    def protocol(self) -> str:
        """How the numbers were computed, in one line."""
        return (
            f"VOC devkit: IoU >= {self.iou_threshold:g}, best ground truth taken or not, difficult ignored; "
            f"ap: area under the curve (2010 on), ap_11pt: 11 points (2007), recall grid {self.eleven_points}"
        )

    def curve(self, label: int) -> VocCurve:
        """The precision-recall curve of a class at its true positives; between them precision only falls."""
        starts, whole = self._curves
        part = slice(starts[label], starts[label + 1])
        return VocCurve(*(column[part] for column in whole))

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers for JSON; NaN becomes None."""
        names = ("mean_ap", "mean_ap_11pt", "ap", "ap_11pt", "num_positive", "iou_threshold", "eleven_points")
        return {"protocol": self.protocol, **{name: plain(getattr(self, name)) for name in names}}


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
    eleven_points: Literal["arange", "exact"] = "arange",
) -> VocResult:
    """AP of every class by VOC's rules.

    Args: boxes (D, 4) and (G, 4) xyxy, half-open (a VOC box (xmin, ymin, xmax, ymax) is (xmin - 1, ymin - 1, xmax,
    ymax)), any float type. Labels and images: whole numbers from 0. Rows in file order, which settles ties.
    gt_difficult (G,): 0 or 1. eleven_points: "arange" compares recall with NumPy's arange(0, 1.1, 0.1), where 0.3 is
    0.30000000000000004; "exact" compares 10 * true positives with i * positives.
    Raises DataError (a ValueError) for broken rows.
    """
    threshold = check_threshold(iou_threshold)
    if eleven_points not in ("arange", "exact"):
        raise DataError(f'eleven_points: want "arange" or "exact", got {eleven_points!r}')
    problem = Problem.check(
        det_boxes, det_scores, det_labels, det_images, gt_boxes, gt_labels, gt_images, num_classes,
        flag=("gt_difficult", gt_difficult),
    )  # fmt: skip
    cells = find_cells(problem)
    with ThreadPoolExecutor(1) as pool:
        ordering = pool.submit(_ordering, problem)
        det, truth, _ = _best(problem, cells, threshold)
    order, place = ordering.result()
    hit, ignored = _judge(problem, truth, place[det])
    return _average(problem, order, np.sort(place[det[hit]]), np.sort(place[det[ignored]]), threshold, eleven_points)


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
    """What VOC's rules make of each detection; arguments as for `voc_evaluate`."""
    threshold = check_threshold(iou_threshold)
    problem = Problem.check(
        det_boxes, det_scores, det_labels, det_images, gt_boxes, gt_labels, gt_images, num_classes,
        flag=("gt_difficult", gt_difficult),
    )  # fmt: skip
    order, place = _ordering(problem)
    count = len(order)
    det, truth, iou = _best(problem, find_cells(problem), 0.0)
    match = VocMatch(np.full(count, -1, np.int64), np.zeros(count), np.zeros(count, bool), np.zeros(count, bool), order)
    match.best_gt[det], match.best_iou[det] = truth, iou
    enough = iou >= threshold
    det, truth = det[enough], truth[enough]
    match.true_positive[det], match.ignored[det] = _judge(problem, truth, place[det])
    return match


def _ordering(problem: Problem) -> tuple[Ints, Ints]:
    """Rows by class and falling score, and the place of each row among them."""
    order = score_order(problem.det_scores, problem.det_labels, problem.num_classes)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return order, place


def _best(problem: Problem, cells: Cells, floor: float) -> tuple[Ints, Ints, Doubles]:
    """Det rows, truth rows and IoU of the best ground truth of each detection, at least floor; the first of equals."""
    det, truth, iou = overlapping_pairs(problem, cells, floor)
    starts = np.flatnonzero(np.diff(det, prepend=-1))
    if len(starts) < len(det):
        highest = np.maximum.reduceat(iou, starts)
        best = np.flatnonzero(iou == np.repeat(highest, np.diff(starts, append=len(det))))
        first = best[np.flatnonzero(np.diff(det[best], prepend=-1))]
        det, truth, iou = det[first], truth[first], iou[first]
    return det, truth, iou


def _judge(problem: Problem, truth: Ints, place: Ints) -> tuple[Mask, Mask]:
    """Which of the detections that went to these ground truths are true positives, which are ignored."""
    ignored = problem.gt_flag[truth]
    first = np.full(len(problem.gt_flag), np.iinfo(np.int64).max)
    np.minimum.at(first, truth, place)
    return (first[truth] == place) & ~ignored, ignored


def _average(
    problem: Problem, order: Ints, hits: Ints, ignored: Ints, threshold: float, eleven_points: str
) -> VocResult:
    """The result from the rising places in the order of the true positives and of the ignored detections."""
    classes = np.arange(problem.num_classes)
    positive = np.bincount(problem.gt_labels[~problem.gt_flag], minlength=len(classes))
    label = problem.det_labels[order[hits]].astype(np.int64)
    begin = np.append(0, np.cumsum(np.bincount(problem.det_labels, minlength=len(classes))))[label]
    starts = np.searchsorted(label, np.arange(len(classes) + 1))
    true = np.arange(1, len(hits) + 1) - starts[label]
    counted = hits - begin + 1 - (np.searchsorted(ignored, hits) - np.searchsorted(ignored, begin))
    recall, precision = true / positive[label], true / counted

    ap, ap_11pt = np.where(positive > 0, 0.0, np.nan), np.where(positive > 0, 0.0, np.nan)
    for c in np.flatnonzero(np.diff(starts)).tolist():
        part = slice(starts[c], starts[c + 1])
        envelope = np.maximum.accumulate(precision[part][::-1])[::-1]
        steps = np.diff(recall[part], prepend=0) * envelope
        # The devkit's last step, from the last recall to 1 at precision 0, is kept: it decides how NumPy's sum rounds.
        ap[c] = steps.sum() if recall[part][-1] == 1 else np.append(steps, 0).sum()
        if eleven_points == "arange":
            reached = np.searchsorted(recall[part], np.arange(0, 1.1, 0.1))
        else:
            reached = np.searchsorted(10 * true[part], np.arange(11) * positive[c])
        ap_11pt[c] = np.cumsum(envelope[reached[reached < len(envelope)]] / 11)[-1]  # one by one, as the devkit adds
    curve = VocCurve(recall, precision, problem.det_scores[order[hits]].astype(np.float64))
    return VocResult(
        ap, ap_11pt, positive, mean_over(ap), mean_over(ap_11pt), threshold, eleven_points, (starts, curve)
    )
