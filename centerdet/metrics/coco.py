"""The twelve COCO numbers, equal to pycocotools 2.0.11 bit for bit.

A precision-recall curve rises at true positives only, so curves are made from the matched pairs alone: a running count
of the detections in the area range, corrected where they are matched, tells the false positives before each.

Shapes: D detections, G ground truths, C classes, T = 10 thresholds, R = 101 recalls, A = 4 area ranges.
"""

import operator
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .arrays import Problem
from .coco_matching import THRESHOLDS, Matches, match
from .overlaps import Cells, find_cells, overlapping_pairs, rank_in_run, score_order, stable_order
from .result import plain

__all__ = ["AREAS", "RECALLS", "CocoResult", "box_area", "coco_evaluate"]

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]

RECALLS = np.linspace(0.0, 1.0, 101)
AREAS = {"all": (0, 1e5**2), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e5**2)}


@dataclass(frozen=True, slots=True, eq=False)
class CocoResult:
    """stats (12,) in pycocotools' order (9 + the number of limits on detections a image, in general).

    precision (T, R, C, A) and recall (T, C, A) at the largest limit, -1 where a class has no ground truth that counts.
    ap (C,): NaN there.
    """

    stats: Doubles
    precision: Doubles
    recall: Doubles
    ap: Doubles
    max_detections: tuple[int, ...]

    @property
    def protocol(self) -> str:
        """How the numbers were computed, in one line."""
        return (
            "COCO (pycocotools 2.0.11): IoU 0.50:0.05:0.95, best free ground truth, crowds ignored, 101 recall points, "
            f"at most {self.max_detections[-1]} detections a class and image"
        )

    @property
    def stat_names(self) -> tuple[str, ...]:
        """What each of the stats is called."""
        sizes = ("small", "medium", "large")
        recalls = (f"AR{limit}" for limit in self.max_detections)
        return ("AP", "AP50", "AP75", *(f"AP_{s}" for s in sizes), *recalls, *(f"AR_{s}" for s in sizes))

    def curve(self, label: int, iou_threshold: float = 0.5, area: str = "all") -> tuple[Doubles, Doubles]:
        """Recall (R,) and interpolated precision (R,) of a class."""
        found = np.flatnonzero(np.abs(THRESHOLDS - iou_threshold) < 1e-9)
        if not len(found):
            raise DataError(f"iou_threshold: want one of {THRESHOLDS.round(2).tolist()}, got {iou_threshold!r}")
        return RECALLS, self.precision[found[0], :, label, list(AREAS).index(area)]

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers for JSON; NaN becomes None."""
        stats = dict(zip(self.stat_names, self.stats.tolist(), strict=True))
        return {"protocol": self.protocol, "stats": stats, "ap": plain(self.ap)}


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
    max_detections: Sequence[int] = (1, 10, 100),
) -> CocoResult:
    """COCO's AP and AR.

    Args: boxes (D, 4) and (G, 4) xyxy, half-open, any float type. Labels and images: whole numbers from 0. Rows in file
    order; equal scores go by image, then row. gt_crowd (G,): 0 or 1. gt_area (G,): the box's area if None.
    max_detections: limits a class and image; AP is at the largest.
    Raises DataError (a ValueError) for broken rows.
    """
    limits = _check_limits(max_detections)
    problem = Problem.check(
        det_boxes, det_scores, det_labels, det_images, gt_boxes, gt_labels, gt_images, num_classes,
        flag=("gt_crowd", gt_crowd), gt_area=gt_area,
    )  # fmt: skip
    images = problem.det_images
    if not (images[1:] >= images[:-1]).all():
        problem = _take(problem, stable_order((images, problem.num_images.bit_length())))
    cells = find_cells(problem)
    problem, cells = _keep_best(problem, cells, limits[-1])
    area = box_area(problem.gt_boxes) if problem.gt_area is None else problem.gt_area
    real = np.array([~problem.gt_flag & (low <= area) & (area <= high) for low, high in AREAS.values()])  # (A, G)
    with ThreadPoolExecutor(1) as pool:  # sorting beside all that does not need the order
        ranking = pool.submit(_rank, problem)
        det, truth, iou = overlapping_pairs(problem, cells, THRESHOLDS[0], by_sides=True)
        order, place = ranking.result()
        in_cell = pool.submit(_rank_in_cell, cells, order)
        inside = pool.submit(_inside, problem, order)
        matches = match(place[det], truth, iou, cells.truth, problem.gt_flag, real)
    return _summarize(problem, real, matches, in_cell.result()[matches.place], inside.result(), limits)


def _check_limits(max_detections: Sequence[int]) -> tuple[int, ...]:
    try:
        limits = tuple(sorted(operator.index(limit) for limit in max_detections))
    except TypeError:
        limits = ()
    if not limits or limits[0] < 1 or len(set(limits)) < len(limits):
        raise DataError(f"max_detections: want different whole numbers > 0, got {max_detections!r}")
    return limits


def _keep_best(problem: Problem, cells: Cells, limit: int) -> tuple[Problem, Cells]:
    """The problem with the best `limit` detections of every cell."""
    if not len(cells.det) or np.bincount(problem.det_images).max() <= limit:
        return problem, cells
    full = np.bincount(cells.det, minlength=cells.total) > limit
    rows = np.flatnonzero(full[cells.det])
    if not len(rows):
        return problem, cells
    cell = (np.cumsum(full) - 1)[cells.det[rows]]
    best_first = score_order(problem.det_scores[rows], cell, int(cell.max()) + 1)
    keep = np.ones(len(cells.det), np.bool_)
    keep[rows[best_first[rank_in_run(cell[best_first]) >= limit]]] = False
    kept = np.flatnonzero(keep)
    return _take(problem, kept), cells._replace(det=cells.det[kept])


def _take(problem: Problem, rows: Ints) -> Problem:
    return replace(
        problem,
        det_boxes=np.take(problem.det_boxes, rows, axis=0),
        det_scores=problem.det_scores[rows],
        det_labels=problem.det_labels[rows],
        det_images=problem.det_images[rows],
    )


def box_area(boxes: NDArray[Any]) -> Doubles:
    """Width times height in double precision, (N, 4) -> (N,)."""
    area: Doubles = np.subtract(boxes[:, 2], boxes[:, 0], dtype=np.float64)
    area *= np.subtract(boxes[:, 3], boxes[:, 1], dtype=np.float64)
    return area


def _rank(problem: Problem) -> tuple[Ints, Ints]:
    """Rows by class and falling score, and the place of each row among them."""
    order = score_order(problem.det_scores, problem.det_labels, problem.num_classes)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return order, place


def _rank_in_cell(cells: Cells, order: Ints) -> Ints:
    """For the detections in cells with ground truth, by place: how many better ones their cell has, (D,)."""
    cell = cells.det[order]
    places = np.flatnonzero((np.bincount(cells.truth, minlength=cells.total) > 0)[cell])
    cell = cell[places]
    by_cell = stable_order((cell, cells.total.bit_length()))
    rank = np.empty(len(order), np.int64)
    rank[places[by_cell]] = rank_in_run(cell[by_cell])
    return rank


def _inside(problem: Problem, order: Ints) -> list[tuple[Mask, Ints]]:
    """For each area range, which detections lie in it by place (D,), and the running count from 0 on (D + 1,)."""
    area = box_area(problem.det_boxes)
    inside = [((low <= area) & (area <= high))[order] for low, high in AREAS.values()]
    return [(mask, np.append(0, np.cumsum(mask))) for mask in inside]


def _summarize(
    problem: Problem,
    real: Mask,
    matches: Matches,
    rank: Ints,
    insides: list[tuple[Mask, Ints]],
    limits: tuple[int, ...],
) -> CocoResult:
    """Precision and recall at every threshold, area range and class, and their means."""
    classes = problem.num_classes
    edges = np.append(0, np.cumsum(np.bincount(problem.det_labels, minlength=classes)))  # (C + 1,) places
    positive = np.array([np.bincount(problem.gt_labels[mask], minlength=classes) for mask in real])  # (A, C)
    precision = np.full((len(AREAS), len(THRESHOLDS), len(RECALLS), classes), -1.0)
    recall = np.full((len(AREAS), len(limits), len(THRESHOLDS), classes), -1.0)
    by_class = np.empty((classes, len(THRESHOLDS), len(RECALLS)))
    for a, (inside, running) in enumerate(insides):
        correct, inner = real[a, matches.truth], inside[matches.place]
        use = np.flatnonzero(correct | inner)
        place, bits, correct, inner = matches.place[use], matches.bits[a, use], correct[use], inner[use]
        label = problem.gt_labels[matches.truth[use]].astype(np.int64)
        # All detections of the range are false positives but the matched ones; of these, real matches are true.
        counted = running[place + 1] - running[edges[label]]
        change = correct.astype(np.int64) - inner
        there = positive[a] > 0
        wanted = _wanted(positive[a])
        for t in range(len(THRESHOLDS)):
            won = np.flatnonzero((bits & (1 << t)).astype(np.bool_))
            changed = np.append(0, np.cumsum(change[won]))
            base = changed[np.searchsorted(place[won], edges[:-1])]  # (C,)
            hit = np.flatnonzero(correct[won])
            true = won[hit]
            own = label[true]
            starts = np.searchsorted(own, np.arange(classes + 1))
            total = counted[true] + changed[hit + 1] - base[own]
            number = np.arange(1, len(true) + 1) - starts[own]
            curve = _envelope(number / (total + np.spacing(1)), starts, wanted)
            precision[a, t] = np.where(there, curve.T, -1)
            if a == 0:
                by_class[:, t] = curve
            for m, limit in enumerate(limits):
                if limit == limits[-1]:
                    found = np.diff(starts)
                elif a == 0:
                    found = np.bincount(own[rank[use[true]] < limit], minlength=classes)
                else:
                    continue
                recall[a, m, t, there] = found[there] / positive[a, there]
    ap = by_class.reshape(classes, -1).mean(1)
    ap[positive[0] == 0] = np.nan
    there = positive > 0
    stats = [
        *(_mean(precision[0, t], there[0]) for t in (slice(None), slice(0, 1), slice(5, 6))),
        *(_mean(precision[a], there[a]) for a in (1, 2, 3)),
        *(_mean(recall[0, m], there[0]) for m in range(len(limits))),
        *(_mean(recall[a, -1], there[a]) for a in (1, 2, 3)),
    ]
    return CocoResult(np.array(stats), precision.transpose(1, 2, 3, 0), recall[:, -1].transpose(1, 2, 0), ap, limits)


def _wanted(positive: Ints) -> Ints:
    """How many true positives a class needs to reach each recall as floats compare it, at least one, (C, R)."""
    count = np.maximum(positive, 1)[:, None]
    need = np.ceil(RECALLS * count)  # at most one off
    need -= (need - 1) / count >= RECALLS
    need += need / count < RECALLS
    return np.maximum(need, 1).astype(np.int64)


def _envelope(values: Doubles, starts: Ints, wanted: Ints) -> Doubles:
    """The highest precision from the wanted true positive of a class on, (C, R); 0 where there are not so many."""
    reached = wanted <= np.diff(starts)[:, None]
    curve = np.zeros(wanted.shape)
    if len(values):
        curve[reached] = np.maximum.reduceat(values, (starts[:-1, None] + wanted - 1)[reached])
    return np.asarray(np.maximum.accumulate(curve[:, ::-1], axis=1)[:, ::-1])


def _mean(values: Doubles, there: Mask) -> float:
    """The mean over the classes (last axis) that have ground truth, summed in pycocotools' order; -1 without any."""
    if not there.any():
        return -1.0
    return float(np.mean((values if there.all() else values[..., there]).ravel()))
