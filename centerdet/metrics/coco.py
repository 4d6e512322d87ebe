"""The twelve COCO numbers, equal to pycocotools 2.0.11 bit for bit.

A detection takes the best ground truth that is still free: real ones before ignored ones, the last of equals. In score
order that is a serial dictatorship, which deferred acceptance finds in a few rounds, all ten thresholds and four area
ranges at once. What a pair wins is kept as 40 bits: bit 10 * area + threshold. Curves are computed from these few pairs
alone, since a precision-recall curve only rises at true positives.

Shapes: D detections, G ground truths, C classes, T = 10 thresholds, R = 101 recalls, A = 4 area ranges, S pairs.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .inputs import Problem
from .pairs import overlapping_pairs, plain, rank_in_run, score_order, stable_order

__all__ = ["AREAS", "RECALLS", "THRESHOLDS", "CocoResult", "coco_evaluate"]

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS = {"all": (0, 1e5**2), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e5**2)}
EVERY_AREA = 1 | 1 << 10 | 1 << 20 | 1 << 30


@dataclass(frozen=True, slots=True, eq=False)
class CocoResult:
    """stats (12,) in pycocotools' order (9 + the number of limits on detections a picture, in general).

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
            f"at most {self.max_detections[-1]} detections a class and picture"
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


class _Matches(NamedTuple):
    """Pairs that won: place of the detection in score order (rising), gt row, 40 bits of what they won."""

    place: Ints
    gt: Ints
    bits: Ints


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
    order; equal scores go by picture, then row. gt_crowd (G,): 0 or 1. gt_area (G,): the box's area if None.
    max_detections: limits a class and picture; AP is at the largest.
    Raises DataError (a ValueError) for broken rows.
    """
    limits = _check_limits(max_detections)
    problem = Problem.check(
        det_boxes, det_scores, det_labels, det_images, gt_boxes, gt_labels, gt_images, num_classes,
        flag=("gt_crowd", gt_crowd), gt_area=gt_area,
    )  # fmt: skip
    problem = _sort_by_picture(problem)
    order = score_order(problem.det_scores, problem.det_labels, problem.num_classes)
    problem, order = _keep_best(problem, order, limits[-1])
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))

    area = _area(problem.gt_boxes) if problem.gt_area is None else problem.gt_area
    real = np.array([~problem.gt_flag & (low <= area) & (area <= high) for low, high in AREAS.values()])  # (A, G)
    det, gt, iou = overlapping_pairs(problem, THRESHOLDS[0], partial(_iou, problem.gt_flag))
    matches = _match(problem, real, place[det], gt, iou)
    return _summarise(problem, real, order, matches, limits)


def _check_limits(max_detections: Sequence[int]) -> tuple[int, ...]:
    try:
        limits = tuple(sorted(operator.index(limit) for limit in max_detections))
    except TypeError:
        limits = ()
    if not limits or limits[0] < 1 or len(set(limits)) < len(limits):
        raise DataError(f"max_detections: want different whole numbers > 0, got {max_detections!r}")
    return limits


def _sort_by_picture(problem: Problem) -> Problem:
    """The detections by picture, then row, which is how equal scores are ordered."""
    images = problem.det_images
    if bool((images[1:] >= images[:-1]).all()):
        return problem
    return _take(problem, stable_order(images, problem.num_images))


def _keep_best(problem: Problem, order: Ints, limit: int) -> tuple[Problem, Ints]:
    """The best `limit` detections of every class and picture, and their order."""
    if not len(order) or np.bincount(problem.det_images).max() <= limit:
        return problem, order
    cells = np.multiply(problem.det_labels, problem.num_images, dtype=np.int64) + problem.det_images
    cells = cells[order]
    by_cell = stable_order(cells, problem.num_classes * problem.num_images)
    keep = np.empty(len(order), np.bool_)
    keep[by_cell] = rank_in_run(cells[by_cell]) < limit
    if keep.all():
        return problem, order
    order = order[keep]
    rows = np.sort(order)
    return _take(problem, rows), np.searchsorted(rows, order)


def _take(problem: Problem, rows: Ints) -> Problem:
    return replace(
        problem,
        det_boxes=problem.det_boxes[rows],
        det_scores=problem.det_scores[rows],
        det_labels=problem.det_labels[rows],
        det_images=problem.det_images[rows],
    )


def _area(boxes: NDArray[Any]) -> Doubles:
    """Width times height in double precision, (N, 4) -> (N,)."""
    area = np.subtract(boxes[:, 2], boxes[:, 0], dtype=np.float64)
    area *= np.subtract(boxes[:, 3], boxes[:, 1], dtype=np.float64)
    return area


def _iou(crowd: Mask, det: Doubles, gt: Doubles, gt_rows: Ints) -> Doubles:
    """pycocotools' bbIou: boxes as x, y, width, height; a crowd is measured against the detection's area alone."""
    det_sides, gt_sides = det[:, 2:] - det[:, :2], gt[:, 2:] - gt[:, :2]
    sides = np.minimum(det[:, :2] + det_sides, gt[:, :2] + gt_sides) - np.maximum(det[:, :2], gt[:, :2])
    shared = sides[:, 0] * sides[:, 1]
    det_area = det_sides[:, 0] * det_sides[:, 1]
    union = det_area + gt_sides[:, 0] * gt_sides[:, 1] - shared
    crowded = crowd[gt_rows]
    union[crowded] = det_area[crowded]
    meet = (sides[:, 0] > 0) & (sides[:, 1] > 0) & (union > 0)
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=meet))


def _match(problem: Problem, real: NDArray[np.bool_], place: Ints, gt: Ints, iou: Doubles) -> _Matches:
    """Who gets whom, from the pairs with an IoU of at least 0.5, grouped by detection."""
    level = np.searchsorted(THRESHOLDS, iou, side="right")  # a pair can win the thresholds 0 ... level - 1
    again = place[1:] == place[:-1]
    wavering = np.zeros(len(gt), np.bool_)  # pairs of detections that have a choice
    wavering[1:] |= again
    wavering[:-1] |= again
    wanted = np.zeros(len(problem.gt_flag), np.bool_)
    wanted[gt[wavering]] = True
    hard = wanted[gt]  # all other ground truths are met only by detections that have no choice
    easy = ~hard
    parts = [_match_easy(problem, place[easy], gt[easy], level[easy])]
    if hard.any():
        parts.append(_match_hard(problem, real, place[hard], gt[hard], iou[hard], level[hard]))
    place, gt, bits = (np.concatenate(column) for column in zip(*parts, strict=True))
    rising = np.argsort(place)
    return _Matches(place[rising], gt[rising], bits[rising])


def _match_easy(problem: Problem, place: Ints, gt: Ints, level: Ints) -> _Matches:
    """Where no detection has a choice: each wins the thresholds that no earlier one of its ground truth reaches."""
    shift = problem.det_scores.shape[0].bit_length() + 4
    key = (gt << shift) + (place << 4) + level
    key.sort()
    gt, place, level = key >> shift, (key >> 4) & ((1 << (shift - 4)) - 1), key & 15
    reached = np.maximum.accumulate((gt << 4) + level)
    before = np.maximum(np.append(0, reached[:-1])[: len(gt)] - (gt << 4), 0)
    before[problem.gt_flag[gt]] = 0  # a crowd is never taken
    wins = np.flatnonzero(level > before)
    return _Matches(place[wins], gt[wins], ((1 << level[wins]) - (1 << before[wins])) * EVERY_AREA)


def _match_hard(
    problem: Problem, real: NDArray[np.bool_], place: Ints, gt: Ints, iou: Doubles, level: Ints
) -> _Matches:
    """Deferred acceptance: detections propose down their lists, a ground truth keeps the earliest in score order."""
    rows, slot = np.unique(gt, return_inverse=True)
    cell = np.multiply(problem.gt_labels[rows], problem.num_images, dtype=np.int64) + problem.gt_images[rows]
    cell = np.unique(cell, return_inverse=True)[1]  # (rows,)
    # In an area range that makes all or none of a cell's real ones ignored, each detection's list stays as it was.
    pairs, area, bits = [np.arange(len(gt))], [np.zeros(len(gt), np.int64)], np.ones(len(gt), np.int64)
    for a in range(1, len(AREAS)):
        demoted = real[0, rows] & ~real[a, rows]
        count, size = np.bincount(cell, weights=demoted), np.bincount(cell)
        changed = ((count > 0) & (count < size))[cell][slot]
        bits += (~changed).astype(np.int64) << (10 * a)
        pairs.append(np.flatnonzero(changed))
        area.append(np.full(len(pairs[-1]), a))
    pair, variant = np.concatenate(pairs), np.concatenate(area)
    bits = np.where(variant == 0, bits[pair], np.left_shift(1, 10 * variant))
    lists = np.lexsort((-gt[pair], -iou[pair], ~real[variant, gt[pair]], place[pair], variant))
    pair, variant, bits = pair[lists], variant[lists], bits[lists]
    place, gt, level = place[pair], gt[pair], level[pair]
    slot = (slot[pair] + len(rows) * variant) * len(THRESHOLDS)
    crowd = problem.gt_flag[gt]
    head = np.append(True, (place[1:] != place[:-1]) | (variant[1:] != variant[:-1]))

    none = len(pair)
    keeper = np.full(len(rows) * len(AREAS) * len(THRESHOLDS), none)  # the best proposal so far, by pair
    won = np.zeros(none, np.int64)
    offer = np.repeat(np.flatnonzero(head), len(THRESHOLDS))
    t = np.arange(len(offer)) % len(THRESHOLDS)
    last = np.append(head[1:], True)
    while len(offer):
        enough = level[offer] > t
        taken = enough & crowd[offer]
        np.add.at(won, offer[taken], 1 << t[taken])
        fight = enough & ~taken
        o, s, ot = offer[fight], slot[offer[fight]] + t[fight], t[fight]
        old = keeper[s]
        np.minimum.at(keeper, s, o)  # pairs are numbered in score order
        lost = keeper[s] != o
        ousted = ~lost & (old < none)
        offer = np.concatenate([offer[~enough], o[lost], old[ousted]])
        t = np.concatenate([t[~enough], ot[lost], ot[ousted]])
        more = ~last[offer]
        offer, t = offer[more] + 1, t[more]
    kept = np.flatnonzero(keeper < none)
    np.add.at(won, keeper[kept], 1 << (kept % len(THRESHOLDS)))
    wins = np.flatnonzero(won)
    return _Matches(place[wins], gt[wins], won[wins] * bits[wins])


def _summarise(
    problem: Problem, real: NDArray[np.bool_], order: Ints, matches: _Matches, limits: tuple[int, ...]
) -> CocoResult:
    """Precision and recall at every threshold, area range and class, and their means."""
    classes = np.arange(problem.num_classes)
    edges = np.append(0, np.cumsum(np.bincount(problem.det_labels, minlength=len(classes))))
    positive = np.array([np.bincount(problem.gt_labels[mask], minlength=len(classes)) for mask in real])  # (A, C)
    label = problem.gt_labels[matches.gt].astype(np.int64)
    begin = edges[label]
    rank = _rank_in_cell(problem, order, matches.place)
    det_area = _area(problem.det_boxes)

    precision = np.full((len(AREAS), len(THRESHOLDS), len(RECALLS), len(classes)), -1.0)
    recall = np.full((len(AREAS), len(limits), len(THRESHOLDS), len(classes)), -1.0)
    by_class = np.zeros((len(classes), len(THRESHOLDS), len(RECALLS)))
    for a, (low, high) in enumerate(AREAS.values()):
        inside = ((low <= det_area) & (det_area <= high))[order]
        running = np.append(0, np.cumsum(inside))
        counted = (
            running[matches.place + 1] - running[begin]
        )  # detections of the area range so far, each a false positive
        correct = real[a, matches.gt]
        change = correct.astype(np.int64) - inside[matches.place]  # unless it is matched
        wanted = _wanted(positive[a])
        there = positive[a] > 0
        for t in range(len(THRESHOLDS)):
            won = np.flatnonzero((matches.bits >> (10 * a + t)) & 1)
            change_so_far = np.append(0, np.cumsum(change[won]))
            offset = change_so_far[np.searchsorted(matches.place[won], edges)]
            hits = np.flatnonzero(correct[won])
            true = won[hits]
            total = counted[true] + change_so_far[hits + 1] - offset[label[true]]
            starts = np.searchsorted(label[true], np.arange(len(classes) + 1))
            number = np.arange(1, len(true) + 1) - starts[label[true]]
            values = number / (total + np.spacing(1))
            found = np.diff(starts)
            curve = _envelope(values, starts, found, wanted)
            precision[a, t][:, there] = curve[there].T
            if a == 0:
                by_class[:, t] = curve
            for m, limit in enumerate(limits):
                if m < len(limits) - 1:
                    found = np.bincount(label[true[rank[true] < limit]], minlength=len(classes))
                else:
                    found = np.diff(starts)
                recall[a, m, t, there] = found[there] / positive[a, there]
    ap = by_class.reshape(len(classes), -1).mean(1)
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


def _envelope(values: Doubles, starts: Ints, found: Ints, wanted: Ints) -> Doubles:
    """The highest precision from the wanted true positive of a class on, (C, R); 0 where there are not so many."""
    reached = wanted <= found[:, None]
    curve = np.zeros(wanted.shape)
    if len(values):
        curve[reached] = np.maximum.reduceat(values, (starts[:-1, None] + wanted - 1)[reached])
    return np.asarray(np.maximum.accumulate(curve[:, ::-1], axis=1)[:, ::-1])


def _rank_in_cell(problem: Problem, order: Ints, places: Ints) -> Ints:
    """How many better detections of its class its picture has, for detections by their place in the order."""
    cells = np.multiply(problem.det_labels, problem.num_images, dtype=np.int64) + problem.det_images
    cells = cells[order]
    by_cell = stable_order(cells, problem.num_classes * problem.num_images)
    rank = np.empty(len(order), np.int64)
    rank[by_cell] = rank_in_run(cells[by_cell])
    return rank[places]


def _mean(values: Doubles, there: Mask) -> float:
    """The mean over the classes (last axis) that have ground truth, summed in pycocotools' order; -1 without any."""
    if not there.any():
        return -1.0
    return float(np.mean((values if there.all() else values[..., there]).ravel()))
