"""What both protocols need first: the order of the detections, and which of them overlap which ground truths.

Shapes: D detections, G ground truths, S pairs; a cell is a class in a image.
"""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .arrays import Problem

__all__ = ["Cells", "find_cells", "overlapping_pairs", "rank_in_run", "score_order", "stable_order"]

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]

CHUNK = 1 << 15  # pairs at a time: their columns stay in the second-level cache


class Cells(NamedTuple):
    """The cell of each detection (D,) and ground truth (G,), numbered from 0, and how many numbers there are."""

    det: Ints
    truth: Ints
    total: int


def find_cells(problem: Problem) -> Cells:
    """Number the cells; where a table of all of them would be mostly empty, only those that occur."""
    det = np.multiply(problem.det_labels, problem.num_images, dtype=np.int64)
    det += problem.det_images
    truth = np.multiply(problem.gt_labels, problem.num_images, dtype=np.int64)
    truth += problem.gt_images
    count = problem.num_classes * problem.num_images
    if count > 4 * (len(det) + len(truth)) + (1 << 16):
        known, number = np.unique(np.concatenate([det, truth]), return_inverse=True)
        return Cells(number[: len(det)], number[len(det) :], len(known))
    return Cells(det, truth, count)


def stable_order(*keys: tuple[NDArray[Any], int]) -> Ints:
    """Rows by (whole numbers, number of their bits), the last key first; then by row.

    NumPy's stable sort of 16-bit numbers is a radix sort, so two or three passes beat one sort of wide numbers.
    """
    order = np.arange(len(keys[0][0]))
    for key, bits in keys:
        for shift in range(0, bits, 16):
            digit = (key >> shift).astype(np.uint16 if bits - shift > 8 else np.uint8)  # the lowest bits
            order = order[np.argsort(digit[order], kind="stable")]
    return order


def score_order(scores: NDArray[Any], groups: NDArray[Any], num_groups: int) -> Ints:
    """Rows by group, then falling score, then row, (N,)."""
    with np.errstate(over="ignore"):
        single = scores.astype(np.float32)
    if scores.dtype == np.float64 and not np.array_equal(single, scores):
        bits, width = (scores + 0.0).view(np.int64), 64
    else:
        bits, width = (single + np.float32(0)).view(np.int32), 32  # -0 becomes 0
    # Floats rise as the integers of their bits do, and where negative they fall. Here all shall fall.
    key = bits ^ (~(bits >> (width - 1)) & np.iinfo(bits.dtype).max)
    return stable_order((key, width), (groups, num_groups.bit_length()))


def rank_in_run(keys: Ints) -> Ints:
    """How many equal keys stand directly before each, (N,) sorted -> (N,)."""
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    return np.arange(len(keys)) - np.repeat(starts, np.diff(starts, append=len(keys)))


def overlapping_pairs(
    problem: Problem, cells: Cells, floor: float, *, by_sides: bool = False
) -> tuple[Ints, Ints, Doubles]:
    """All pairs in one cell with an IoU >= floor (any overlap for floor 0): det rows, truth rows, IoU, each (S,).

    The pairs are in the order of the det rows, then of the truth rows. by_sides is COCO's IoU: a box is x, y, width,
    height, so that its right edge is the rounded x + (x2 - x), and a flagged ground truth (a crowd) is measured against
    the detection's area alone. Otherwise VOC's: the corners as given.
    """
    count = np.bincount(cells.truth, minlength=cells.total)
    rows = np.flatnonzero((count > 0)[cells.det])
    cell = cells.det[rows]
    first, number = (np.cumsum(count) - count)[cell], count[cell]
    gt_order = stable_order((cells.truth, cells.total.bit_length()))
    truths = _columns(problem.gt_boxes[gt_order], by_sides)
    crowd = problem.gt_flag[gt_order] if by_sides and problem.gt_flag.any() else None
    floor = floor or np.nextafter(0, 1)

    ends = np.cumsum(number)
    total = int(ends[-1]) if len(ends) else 0
    cuts = np.unique(np.append(np.searchsorted(ends, np.arange(0, total, CHUNK)), len(rows))).tolist()
    found = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for start, stop in pairwise(cuts):
        det = _columns(np.take(problem.det_boxes, rows[start:stop], axis=0), by_sides)
        times = number[start:stop]
        owner = np.repeat(np.arange(stop - start), times)
        truth = np.arange(len(owner))
        truth += (first[start:stop] - (ends[start:stop] - times - (ends[start] - times[0])))[owner]
        width = np.minimum(det[2][owner], truths[2][truth])
        width -= np.maximum(det[0][owner], truths[0][truth])
        height = np.minimum(det[3][owner], truths[3][truth])
        height -= np.maximum(det[1][owner], truths[1][truth])
        shared = width * height
        area = det[4][owner]
        union = area + truths[4][truth]
        union -= shared
        if crowd is not None:
            np.copyto(union, area, where=crowd[truth])
        with np.errstate(divide="ignore", invalid="ignore"):
            shared /= union
        good = np.flatnonzero((shared >= floor) & (width > 0) & (height > 0))
        found.append((rows[start:stop][owner[good]], gt_order[truth[good]], shared[good]))
    det_rows, gt_rows, iou = (np.concatenate(column) for column in zip(*found, strict=True))
    return det_rows, gt_rows, iou


def _columns(boxes: NDArray[Any], by_sides: bool) -> Doubles:
    """x1, y1, x2, y2 and area in double precision, (N, 4) -> (5, N)."""
    columns = np.empty((5, len(boxes)))
    columns[:4] = boxes.T
    sides = columns[2:4] - columns[:2]
    np.multiply(sides[0], sides[1], out=columns[4])
    if by_sides:
        np.add(columns[:2], sides, out=columns[2:4])
    return columns
