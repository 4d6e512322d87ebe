"""COCO's precision-recall curves from matched detections, equal to pycocotools 2.0.11 bit for bit.

A precision-recall curve rises at true positives only, so curves are computed from the matched pairs alone: the false
positives before each follow from a running count of the detections in the area range, corrected where they are matched.

Shapes: D detections, G ground truths, C classes, M limits, T thresholds, R recalls, A area ranges.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .arrays import SIZE_RANGES, Arrays, box_area
from .coco_matching import MOST_THRESHOLDS, Matches, match
from .order import order_by_class, position_in_run, score_order, stable_order
from .overlaps import Cells, find_cells, overlapping_pairs

__all__ = ["LIMITS", "RECALLS", "THRESHOLDS", "Curves", "Matched", "Rules", "draw_curves", "match_detections"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
LIMITS = (1, 10, 100)
HIGHEST = 1 - 1e-10  # a threshold of 1 is this, as a division may give less than 1 for equal boxes


class Rules(NamedTuple):
    """IoU thresholds (T,), recalls (R,), A inclusive ranges of area, and rising limits per class and image."""

    thresholds: Floats = THRESHOLDS
    recalls: Floats = RECALLS
    ranges: tuple[tuple[float, float], ...] = tuple(SIZE_RANGES.values())
    limits: tuple[int, ...] = LIMITS


@dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """The best detections of each class and image, and their matches.

    arrays: with the detections `rows` (D,) of those given. order (D,) by class, then falling score. in_cell (D,) by
    rank: the number of better ones in the class and image. inside (A, D) by rank: whether the area of a detection is in
    the range. real (A, G): ground truths that count.
    parts: the numbers of some thresholds, and the matches there; all together have each threshold once.
    """

    arrays: Arrays
    rows: Ints
    order: Ints
    in_cell: Ints
    inside: Mask
    real: Mask
    parts: list[tuple[Ints, Matches]]


class Curves(NamedTuple):
    """Precision and score (T, R, C, A, M), recall (T, C, A, M); -1 where a class has no ground truth that counts."""

    precision: Floats
    recall: Floats
    scores: Floats


def match_detections(arrays: Arrays, rules: Rules) -> Matched:
    """Match; the detections of an image stand together (`Arrays.by_image`), and equal scores go by row."""
    cells = find_cells(arrays)
    rows = _best_rows(arrays, cells, rules.limits[-1])
    if len(rows) < len(cells.det):
        arrays, cells = arrays.take(rows), cells._replace(det=cells.det[rows])
    area = arrays.gt_area
    real = np.array([~arrays.gt_crowd & (low <= area) & (area <= high) for low, high in rules.ranges])
    # `match` works outward from a range that contains the others.
    extra = int((real[0] < real).any())
    outer = np.concatenate([real.any(0, keepdims=True), real]) if extra else real
    thresholds = np.minimum(rules.thresholds, HIGHEST)
    rising = np.argsort(thresholds, kind="stable")
    parts = []
    with ThreadPoolExecutor(1) as pool:  # sorting, and what needs the order alone, beside all the rest
        ordering = pool.submit(order_by_class, arrays.det_scores, arrays.det_labels, arrays.num_classes)
        floor = float(thresholds[rising[0]])
        det, truth, iou = overlapping_pairs(arrays, cells, floor if floor > 0 else -1, by_sides=True)
        order, rank = ordering.result()
        in_cell = pool.submit(_rank_in_cell, cells, order)
        inside = pool.submit(_find_inside, arrays, order, rules.ranges)
        rank = rank[det]
        for start in range(0, len(rising), MOST_THRESHOLDS):
            numbers = rising[start : start + MOST_THRESHOLDS]
            reach = np.flatnonzero(iou >= thresholds[numbers[0]]) if start else slice(None)
            pairs = rank[reach], truth[reach], iou[reach]
            matches = match(*pairs, cells.truth, arrays.gt_crowd, outer, thresholds[numbers])
            parts.append((numbers, matches._replace(bits=matches.bits[extra:])))
    return Matched(arrays, rows, order, in_cell.result(), inside.result(), real, parts)


def _best_rows(arrays: Arrays, cells: Cells, limit: int) -> Ints:
    """The rows of the best `limit` detections of every cell."""
    everything = np.arange(len(cells.det))
    if not (arrays.det_images[limit:] == arrays.det_images[:-limit]).any():  # no image has more
        return everything
    full = np.bincount(cells.det, minlength=cells.total) > limit
    rows = np.flatnonzero(full[cells.det])
    if not len(rows):
        return everything
    cell = (np.cumsum(full) - 1)[cells.det[rows]]
    best_first = score_order(arrays.det_scores[rows], cell, int(cell.max()) + 1)
    keep = np.ones(len(cells.det), np.bool_)
    keep[rows[best_first[position_in_run(cell[best_first]) >= limit]]] = False
    return np.flatnonzero(keep)


def _rank_in_cell(cells: Cells, order: Ints) -> Ints:
    """By rank, the number of better detections in the same cell, (D,)."""
    cell = cells.det[order]
    by_cell = stable_order((cell, cells.total.bit_length()))
    in_cell = np.empty(len(order), np.int64)
    in_cell[by_cell] = position_in_run(cell[by_cell])
    return in_cell


def _find_inside(arrays: Arrays, order: Ints, ranges: tuple[tuple[float, float], ...]) -> Mask:
    """By rank, whether the area of a detection is in each range, (A, D)."""
    area = (box_area(arrays.det_boxes) if arrays.det_area is None else arrays.det_area)[order]
    return np.array([(low <= area) & (area <= high) for low, high in ranges])


def draw_curves(matched: Matched, rules: Rules, void: Mask | None = None, *, full: bool = True) -> Curves:
    """Precision, recall and score at every threshold, recall, class, area range and limit.

    void (G,): ground truths that take detections without making them true. full: otherwise only precision at the
    largest limit, and recall there and, in the first range, at the others; the rest remains -1.
    """
    arrays, classes = matched.arrays, matched.arrays.num_classes
    edges = np.append(0, np.cumsum(np.bincount(arrays.det_labels, minlength=classes)))  # (C + 1,) ranks
    det_scores = arrays.det_scores[matched.order].astype(np.float64, copy=False) if full else np.empty(0)
    shape = len(rules.ranges), len(rules.limits), len(rules.thresholds), classes
    recall = np.full(shape, -1.0)
    precision, scores = (np.full((*shape, len(rules.recalls)), -1.0) for _ in range(2))
    for a in range(len(rules.ranges)):
        positive = np.bincount(arrays.gt_labels[matched.real[a]], minlength=classes)
        some = np.flatnonzero(positive)
        needed = _needed(positive, rules.recalls)
        for m in range(len(rules.limits)) if full else (len(rules.limits) - 1,):
            limit = None if m == len(rules.limits) - 1 else rules.limits[m]
            for t, rank, label, total in _true_positives(matched, edges, a, limit, void):
                starts = np.searchsorted(label, np.arange(classes + 1))
                recall[a, m, t, some] = np.diff(starts)[some] / positive[some]
                if not full and a == 0:  # of the detections of a smaller limit, the same are true
                    for k, smaller in enumerate(rules.limits[:-1]):
                        counts = np.bincount(label[matched.in_cell[rank] < smaller], minlength=classes)
                        recall[a, k, t, some] = counts[some] / positive[some]
                number = np.arange(1, len(rank) + 1) - starts[label]
                curve = _envelope(number / (total + np.spacing(1)), starts, needed)
                precision[a, m, t, some] = curve[some]
                if full:
                    scores[a, m, t, some] = _scores(det_scores, rank, edges, starts, needed)[some]
    by_recall = (2, 4, 3, 0, 1)
    turned = precision.transpose(by_recall), recall.transpose(2, 3, 0, 1), scores.transpose(by_recall)
    return Curves(*(map(np.ascontiguousarray, turned) if full else turned))


def _true_positives(
    matched: Matched, edges: Ints, a: int, limit: int | None, void: Mask | None
) -> Iterator[tuple[int, Ints, Ints, Ints]]:
    """(t, rank, label, total) for each threshold: the true positives, and the detections that count up to each.

    edges (C + 1,): ranks at which the classes begin. a: the area range. limit: detections of a class in an
    image, where it is not the largest one.

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
    arrays, inside = matched.arrays, matched.inside[a]
    running = np.append(0, np.cumsum(inside if limit is None else inside & (matched.in_cell < limit)))
    for numbers, matches in matched.parts:
        correct, in_range = matched.real[a, matches.truth], inside[matches.rank]
        counts = correct | in_range
        if void is not None:
            counts &= ~(correct & void[matches.truth])
        if limit is not None:
            counts &= matched.in_cell[matches.rank] < limit
        use = np.flatnonzero(counts)
        rank, bits, correct = matches.rank[use], matches.bits[a, use], correct[use]
        label = arrays.gt_labels[matches.truth[use]].astype(np.int64)
        detected = running[rank + 1] - running[edges[label]]
        change = correct.astype(np.int64) - in_range[use]
        for bit, t in enumerate(numbers.tolist()):
            won = np.flatnonzero((bits & (1 << bit)).astype(np.bool_))
            positive = np.flatnonzero(correct[won])
            true = won[positive]
            changes = np.append(0, np.cumsum(change[won]))
            before = changes[np.searchsorted(rank[won], edges[:-1])]  # (C,) the changes in the classes before
            yield t, rank[true], label[true], detected[true] + changes[positive + 1] - before[label[true]]


def _needed(positive: Ints, recalls: Floats) -> Ints:
    """How many true positives a class needs to reach each recall as floats compare it, (C, R); 0 for recall 0."""
    count = np.maximum(positive, 1)[:, None]
    need = np.ceil(recalls * count)  # at most one off: 0.28 * 25 is above 7, and 7 / 25 reaches 0.28
    need -= (need - 1) / count >= recalls
    need += need / count < recalls
    return np.maximum(need, 0).astype(np.int64)


def _envelope(values: Floats, starts: Ints, needed: Ints) -> Floats:
    """The highest precision from the needed true positive of a class on, (C, R); 0 where there are fewer."""
    needed = np.maximum(needed, 1)
    if (needed[:, 1:] < needed[:, :-1]).any() or (needed[:, :1] > 1).any():  # recalls that do not rise from 0
        levels, place = np.unique(np.concatenate([[1], needed.ravel()]), return_inverse=True)
        every = _envelope(values, starts, np.tile(levels, (len(needed), 1)))
        curve = np.take_along_axis(every, place[1:].reshape(needed.shape), axis=1)
        return np.where(np.logical_and.accumulate(needed <= np.diff(starts)[:, None], axis=1), curve, 0)
    reached = needed <= np.diff(starts)[:, None]
    curve = np.zeros(needed.shape)
    if len(values):
        curve[reached] = np.maximum.reduceat(values, (starts[:-1, None] + needed - 1)[reached])
    return np.asarray(np.maximum.accumulate(curve[:, ::-1], axis=1)[:, ::-1])


def _scores(scores: Floats, rank: Ints, edges: Ints, starts: Ints, needed: Ints) -> Floats:
    """The score of the needed true positive of a class, (C, R); of the first detection for none needed; else 0.

    scores (D,) by rank. rank: of the true positives. From the first recall that is not reached on, all are 0.
    """
    reached = np.where(needed > 0, needed <= np.diff(starts)[:, None], np.diff(edges)[:, None] > 0)
    reached = np.logical_and.accumulate(reached, axis=1)
    place = np.broadcast_to(edges[:-1, None], needed.shape).copy()
    positive = reached & (needed > 0)
    place[positive] = rank[(starts[:-1, None] + needed - 1)[positive]]
    curve = np.zeros(needed.shape)
    curve[reached] = scores[place[reached]]
    return curve
