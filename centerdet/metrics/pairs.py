"""What both protocols need first: the order of the detections, and which of them overlap which ground truths.

No IoU is defined here, since the protocols round it differently: each hands in its own formula. Pairs that cannot reach
the wanted IoU under either formula are thrown out in single precision with room for every rounding.

Shapes: D detections, G ground truths, S pairs; a cell is a class in a picture.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .inputs import Problem

__all__ = ["mean_over", "overlapping_pairs", "plain", "rank_in_run", "score_order", "stable_order"]

Ints = NDArray[np.intp]
Doubles = NDArray[np.float64]
Iou = Callable[[Doubles, Doubles, Ints], Doubles]

CHUNK = 1 << 15  # pairs at a time: some 30 columns of them stay in the second-level cache


def score_order(scores: NDArray[Any], labels: NDArray[Any], num_classes: int) -> Ints:
    """Rows by class, then falling score, then row, (D,): one sort of packed integers."""
    count = len(scores)
    row_bits, class_bits = count.bit_length(), num_classes.bit_length()
    if row_bits + class_bits > 31:
        return np.asarray(np.lexsort((-scores, labels)))
    with np.errstate(over="ignore"):
        single = scores.astype(np.float32)
    single += 0  # -0 becomes 0
    bits = single.view(np.int32)
    if count and single.min() < 0:
        bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # as integers they now rise with the score
    key = np.left_shift(labels, 32, dtype=np.int64)
    key -= bits
    key <<= row_bits
    key += np.arange(count)
    key.sort()
    order: Ints = key & ((1 << row_bits) - 1)
    if scores.dtype == np.float64:
        key >>= row_bits
        alike = np.zeros(count + 1, np.bool_)  # the same class and score, in single precision, as the row before
        np.equal(key[1:], key[:-1], out=alike[1:-1])
        loose = np.flatnonzero(alike[1:] | alike[:-1])
        if len(loose):
            rows = order[loose]
            order[loose] = rows[np.lexsort((rows, -scores[rows], key[loose]))]
    return order


def stable_order(keys: NDArray[Any], limit: int) -> Ints:
    """Rows by key (0 ... limit - 1), then row; as np.argsort(kind="stable") but much faster on wide integers."""
    row_bits = len(keys).bit_length()
    if row_bits + limit.bit_length() > 62:
        return np.argsort(keys, kind="stable")
    packed = np.left_shift(keys, row_bits, dtype=np.int64)
    packed += np.arange(len(keys))
    packed.sort()
    packed &= (1 << row_bits) - 1
    return packed


def rank_in_run(keys: NDArray[Any]) -> Ints:
    """How many equal keys stand directly before each, (N,) sorted -> (N,)."""
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    return np.arange(len(keys)) - np.repeat(starts, np.diff(starts, append=len(keys)))


def overlapping_pairs(problem: Problem, floor: float, iou: Iou) -> tuple[Ints, Ints, Doubles]:
    """All pairs of one class and picture with an IoU >= floor (> 0 for floor 0): det rows, gt rows, IoU, each (S,).

    The pairs are in the order of the det rows, then of the gt rows. A flagged ground truth of COCO (a crowd) may be
    measured against the detection's area alone; `iou(det boxes (S, 4), gt boxes (S, 4), gt rows)` knows.
    """
    rows, first, number, gt_order = _candidates(problem)
    ends = np.cumsum(number)
    truths = problem.gt_boxes[gt_order]
    limit = max((float(np.abs(b).max()) for b in (problem.det_boxes, truths) if b.size), default=0.0)
    small = np.float32 if 1e-3 <= limit <= 1e15 else np.float64
    slack = small(limit * (2.0**-21 if small is np.float32 else 2.0**-50))
    gt_columns = np.ascontiguousarray(truths.T, dtype=small)
    gt_bound = _area_bound(gt_columns, slack)
    gt_bound[problem.gt_flag[gt_order]] = 0
    factor, share = small(1 + floor), small(floor * (1 - 1e-5))

    found = []
    total = int(ends[-1]) if len(ends) else 0
    cuts = np.unique(np.append(np.searchsorted(ends, np.arange(0, total, CHUNK)), len(rows)))
    for start, stop in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
        times = number[start:stop]
        boxes = problem.det_boxes[rows[start:stop]]
        columns = np.ascontiguousarray(boxes.T, dtype=small)
        owner = np.repeat(np.arange(stop - start), times)
        gt = np.arange(len(owner))
        gt += (first[start:stop] - (ends[start:stop] - times) + (ends[start] - times[0]))[owner]
        width = np.minimum(columns[2][owner], gt_columns[2][gt])
        width -= np.maximum(columns[0][owner], gt_columns[0][gt])
        width += slack
        height = np.minimum(columns[3][owner], gt_columns[3][gt])
        height -= np.maximum(columns[1][owner], gt_columns[1][gt])
        height += slack
        keep = np.minimum(width, height) > 0
        if floor:
            bound = _area_bound(columns, slack)[owner]
            bound += gt_bound[gt]
            bound *= share
            width *= height
            width *= factor
            keep &= width >= bound
        kept = np.flatnonzero(keep)
        gt = gt[kept]
        gt_rows = gt_order[gt]
        exact = iou(boxes[owner[kept]].astype(np.float64), truths[gt], gt_rows)
        good = np.flatnonzero((exact >= floor) & (exact > 0))
        found.append((rows[start:stop][owner[kept[good]]], gt_rows[good], exact[good]))
    if not found:
        return np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0)
    det, gt, values = (np.concatenate(column) for column in zip(*found, strict=True))
    return det, gt, values


def _area_bound(columns: NDArray[Any], slack: Any) -> NDArray[Any]:
    """At most the area of each box, (4, N) -> (N,)."""
    sides = np.maximum(columns[2:] - columns[:2] - slack, 0)
    return np.asarray(sides[0] * sides[1])


def _candidates(problem: Problem) -> tuple[Ints, Ints, Ints, Ints]:
    """Rows of the detections whose cell has ground truths; the first of these and their number; gt rows by cell."""
    cells = problem.num_classes * problem.num_images
    gt_cell = np.multiply(problem.gt_labels, problem.num_images, dtype=np.int64) + problem.gt_images
    det_cell = np.multiply(problem.det_labels, problem.num_images, dtype=np.int64)
    det_cell += problem.det_images
    gt_order = stable_order(gt_cell, cells)
    if cells > 4 * (len(gt_cell) + len(det_cell)) + (1 << 16):  # a table would be mostly empty
        known, gt_cell = np.unique(gt_cell, return_inverse=True)
        cells = len(known) + 1
        place = np.searchsorted(known, det_cell)
        det_cell = np.where(np.append(known, -1)[place] == det_cell, place, len(known))
    count = np.bincount(gt_cell, minlength=cells)
    rows = np.flatnonzero(count.astype(np.bool_)[det_cell])
    cell = det_cell[rows]
    return rows, (np.cumsum(count) - count)[cell], count[cell], gt_order


def mean_over(values: Doubles) -> float:
    """The mean of the classes that have a value; NaN if none has."""
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if len(kept) else float("nan")


def plain(value: Any) -> Any:
    """Arrays as lists, NumPy's numbers as Python's, NaN as None: what JSON can say."""
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value.tolist()]
    if isinstance(value, list):
        return [plain(item) for item in value]
    return None if value != value else value
