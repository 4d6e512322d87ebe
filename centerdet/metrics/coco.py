"""The twelve COCO numbers, equal to pycocotools 2.0.11 bit for bit.

A precision-recall curve rises at true positives only, so curves are computed from the matched pairs alone: the false
positives before each follow from a running count of the detections in the area range, corrected where they are matched.

Shapes: D detections, G ground truths, C classes, M matches, T = 10 thresholds, R = 101 recalls, A = 4 area ranges.
"""

import operator
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .arrays import SIZE_RANGES, Arrays, box_area
from .coco_matching import THRESHOLDS, Matches, match
from .order import order_by_class, position_in_run, score_order, stable_order
from .overlaps import Cells, find_cells, overlapping_pairs
from .result import Result

__all__ = ["LIMITS", "RECALLS", "CocoResult", "coco_evaluate", "evaluate"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

RECALLS = np.linspace(0.0, 1.0, 101)
LIMITS = (1, 10, 100)


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


def evaluate(arrays: Arrays, max_detections: Sequence[int] = LIMITS) -> CocoResult:
    """COCO's AP and AR; the detections of an image stand together (`Arrays.by_image`) and equal scores go by row."""
    limits = _check_limits(max_detections)
    cells = find_cells(arrays)
    arrays, cells = _keep_best(arrays, cells, limits[-1])
    gt_area = box_area(arrays.gt_boxes) if arrays.gt_area is None else arrays.gt_area
    real = np.array([~arrays.gt_crowd & (low <= gt_area) & (gt_area <= high) for low, high in SIZE_RANGES.values()])
    with ThreadPoolExecutor(1) as pool:  # sorting beside all that does not need the order
        ordering = pool.submit(order_by_class, arrays.det_scores, arrays.det_labels, arrays.num_classes)
        det, truth, iou = overlapping_pairs(arrays, cells, THRESHOLDS[0], by_sides=True)
        order, rank = ordering.result()
        in_cell = pool.submit(_rank_in_cell, cells, order)
        inside = pool.submit(_inside, arrays, order)
        matches = match(rank[det], truth, iou, cells.truth, arrays.gt_crowd, real)
    return _summarize(arrays, real, matches, in_cell.result()[matches.rank], inside.result(), limits)


def _check_limits(max_detections: Sequence[int]) -> tuple[int, ...]:
    try:
        limits = tuple(sorted(operator.index(limit) for limit in max_detections))
    except TypeError:
        limits = ()
    if not limits or limits[0] < 1 or len(set(limits)) < len(limits):
        raise DataError(f"max_detections: expected different whole numbers > 0, got {max_detections!r}")
    return limits


def _keep_best(arrays: Arrays, cells: Cells, limit: int) -> tuple[Arrays, Cells]:
    """The arrays with the best `limit` detections of every cell."""
    if not (arrays.det_images[limit:] == arrays.det_images[:-limit]).any():  # no image has more
        return arrays, cells
    full = np.bincount(cells.det, minlength=cells.total) > limit
    rows = np.flatnonzero(full[cells.det])
    if not len(rows):
        return arrays, cells
    cell = (np.cumsum(full) - 1)[cells.det[rows]]
    best_first = score_order(arrays.det_scores[rows], cell, int(cell.max()) + 1)
    keep = np.ones(len(cells.det), np.bool_)
    keep[rows[best_first[position_in_run(cell[best_first]) >= limit]]] = False
    kept = np.flatnonzero(keep)
    return arrays.take(kept), cells._replace(det=cells.det[kept])


def _rank_in_cell(cells: Cells, order: Ints) -> Ints:
    """For the detections in cells with ground truth, by rank: the number of better ones in their cell, (D,)."""
    cell = cells.det[order]
    ranks = np.flatnonzero((np.bincount(cells.truth, minlength=cells.total) > 0)[cell])
    cell = cell[ranks]
    by_cell = stable_order((cell, cells.total.bit_length()))
    in_cell = np.empty(len(order), np.int64)
    in_cell[ranks[by_cell]] = position_in_run(cell[by_cell])
    return in_cell


def _inside(arrays: Arrays, order: Ints) -> list[tuple[Mask, Ints]]:
    """For each area range, which detections lie in it by rank (D,), and the running count from 0 on (D + 1,)."""
    det_area = box_area(arrays.det_boxes)
    inside = [((low <= det_area) & (det_area <= high))[order] for low, high in SIZE_RANGES.values()]
    return [(mask, np.append(0, np.cumsum(mask))) for mask in inside]


def _summarize(
    arrays: Arrays,
    real: Mask,
    matches: Matches,
    in_cell: Ints,
    insides: list[tuple[Mask, Ints]],
    limits: tuple[int, ...],
) -> CocoResult:
    """Precision and recall at every threshold, area range and class, and their means.

    There are four index spaces, each a selection of the one before and all in score order: ranks 0 ... D - 1 of the
    detections, class by class; `use`, the matches that an area range counts or ignores; `won`, those of `use` that
    hold at a threshold; and `true`, the true positives among them.

    Precision at a true positive is its number within the class, divided by the detections that count up to it. To
    begin with, every detection in the area range counts, as a false positive; then matches correct the running count:
        real ground truth, detection in the range: 0, as it counts already
        real ground truth, detection outside:     +1, as it counts for its ground truth
        ignored ground truth, detection in range: -1, as it counts no more
    Take one class of 4 detections in the range, of which the second is matched to a crowd and the fourth to a real
    object. Up to the fourth the running count is 4 and the correction -1 + 0, so its precision is 1 / 3.
    """
    classes = arrays.num_classes
    edges = np.append(0, np.cumsum(np.bincount(arrays.det_labels, minlength=classes)))  # (C + 1,) ranks
    positive = np.array([np.bincount(arrays.gt_labels[mask], minlength=classes) for mask in real])  # (A, C)
    precision = np.full((len(real), len(THRESHOLDS), len(RECALLS), classes), -1.0)
    recall = np.full((len(real), len(limits), len(THRESHOLDS), classes), -1.0)
    by_class = np.empty((classes, len(THRESHOLDS), len(RECALLS)))
    for a, (inside, running) in enumerate(insides):
        correct, in_range = real[a, matches.truth], inside[matches.rank]
        use = np.flatnonzero(correct | in_range)
        rank, bits, correct = matches.rank[use], matches.bits[a, use], correct[use]
        label = arrays.gt_labels[matches.truth[use]].astype(np.int64)
        detected = running[rank + 1] - running[edges[label]]
        change = correct.astype(np.int64) - in_range[use]
        some = positive[a] > 0
        needed = _needed(positive[a])
        for t in range(len(THRESHOLDS)):
            won = np.flatnonzero((bits & (1 << t)).astype(np.bool_))
            changes = np.append(0, np.cumsum(change[won]))
            before = changes[np.searchsorted(rank[won], edges[:-1])]  # (C,) the changes in the classes before
            hits = np.flatnonzero(correct[won])
            true = won[hits]
            true_label = label[true]
            starts = np.searchsorted(true_label, np.arange(classes + 1))
            total = detected[true] + changes[hits + 1] - before[true_label]
            number = np.arange(1, len(true) + 1) - starts[true_label]
            curve = _envelope(number / (total + np.spacing(1)), starts, needed)
            precision[a, t] = np.where(some, curve.T, -1)
            if a == 0:
                by_class[:, t] = curve
            for m, limit in enumerate(limits):
                if limit == limits[-1]:
                    matched = np.diff(starts)
                elif a == 0:
                    matched = np.bincount(true_label[in_cell[use[true]] < limit], minlength=classes)
                else:
                    continue
                recall[a, m, t, some] = matched[some] / positive[a, some]
    ap = by_class.reshape(classes, -1).mean(1)
    ap[positive[0] == 0] = np.nan
    some = positive > 0
    stats = [
        *(_mean(precision[0, t], some[0]) for t in (slice(None), slice(0, 1), slice(5, 6))),
        *(_mean(precision[a], some[a]) for a in (1, 2, 3)),
        *(_mean(recall[0, m], some[0]) for m in range(len(limits))),
        *(_mean(recall[a, -1], some[a]) for a in (1, 2, 3)),
    ]
    return CocoResult(np.array(stats), precision.transpose(1, 2, 3, 0), recall[:, -1].transpose(1, 2, 0), ap, limits)


def _needed(positive: Ints) -> Ints:
    """How many true positives a class needs to reach each recall as floats compare it, at least one, (C, R)."""
    count = np.maximum(positive, 1)[:, None]
    need = np.ceil(RECALLS * count)  # at most one off: 0.28 * 25 is above 7, and 7 / 25 reaches 0.28
    need -= (need - 1) / count >= RECALLS
    need += need / count < RECALLS
    return np.maximum(need, 1).astype(np.int64)


def _envelope(values: Floats, starts: Ints, needed: Ints) -> Floats:
    """The highest precision from the needed true positive of a class on, (C, R); 0 where there are fewer."""
    reached = needed <= np.diff(starts)[:, None]
    curve = np.zeros(needed.shape)
    if len(values):
        curve[reached] = np.maximum.reduceat(values, (starts[:-1, None] + needed - 1)[reached])
    return np.asarray(np.maximum.accumulate(curve[:, ::-1], axis=1)[:, ::-1])


def _mean(values: Floats, some: Mask) -> float:
    """The mean over the classes (last axis) that have ground truth, summed in pycocotools' order; -1 without any."""
    if not some.any():
        return -1.0
    return float(np.mean((values if some.all() else values[..., some]).ravel()))
