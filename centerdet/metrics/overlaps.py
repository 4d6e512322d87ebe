"""Which detections overlap which ground truths, and by how much.

Shapes: D detections, G ground truths, S pairs. A cell is one class in one image.
"""

from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .arrays import Arrays
from .order import stable_order

__all__ = ["Cells", "best_of_each", "best_pairs", "find_cells", "overlapping_pairs", "pairs_of_any_class"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

CHUNK = 1 << 15  # pairs at a time: their columns stay in the second-level cache


class Cells(NamedTuple):
    """The cell of each detection (D,) and ground truth (G,), numbered from 0, and the number of cells."""

    det: Ints
    truth: Ints
    total: int


def find_cells(arrays: Arrays) -> Cells:
    """Number the cells; where a table of all classes and images would be mostly empty, only those that occur."""
    num_images = 1 + max((int(ids.max()) for ids in (arrays.det_images, arrays.gt_images) if ids.size), default=-1)
    det = np.multiply(arrays.det_labels, num_images, dtype=np.int64)
    det += arrays.det_images
    truth = np.multiply(arrays.gt_labels, num_images, dtype=np.int64)
    truth += arrays.gt_images
    count = arrays.num_classes * num_images
    if count > 4 * (len(det) + len(truth)) + (1 << 16):
        known, number = np.unique(np.concatenate([det, truth]), return_inverse=True)
        return Cells(number[: len(det)], number[len(det) :], len(known))
    return Cells(det, truth, count)


def overlapping_pairs(
    arrays: Arrays, cells: Cells, floor: float, *, by_sides: bool = False
) -> tuple[Ints, Ints, Floats]:
    """All pairs in one cell with an IoU >= floor: det rows, truth rows, IoU, each (S,).

    floor 0: any overlap; below 0: all pairs. The pairs are in the order of the det rows, then of the truth rows.
    by_sides is COCO's IoU: a box is x, y, width, height, so that its right edge is the rounded x + width, and for a
    crowd the shared area is divided by the detection's area alone. Otherwise VOC's: the corners as given.
    """
    count = np.bincount(cells.truth, minlength=cells.total)
    rows = np.flatnonzero((count > 0)[cells.det])
    cell = cells.det[rows]
    first, number = (np.cumsum(count) - count)[cell], count[cell]
    gt_order = stable_order((cells.truth, cells.total.bit_length()))
    truths = _columns(arrays.gt_boxes, arrays.gt_sides, gt_order, by_sides)
    crowd = arrays.gt_crowd[gt_order] if by_sides and arrays.gt_crowd.any() else None
    floor = floor or np.nextafter(0, 1)

    # Detection k is paired with the sorted truths first[k] ... first[k] + number[k] - 1; ends[k] pairs precede k + 1.
    ends = np.cumsum(number)
    total = int(ends[-1]) if len(ends) else 0
    cuts = np.unique(np.append(np.searchsorted(ends, np.arange(0, total, CHUNK)), len(rows))).tolist()
    pairs = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for start, stop in pairwise(cuts):
        det = _columns(arrays.det_boxes, arrays.det_sides, rows[start:stop], by_sides)
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
        overlap = (width > 0) & (height > 0)
        if floor < 0:
            shared[~overlap] = 0
            good = np.arange(len(shared))
        else:
            good = np.flatnonzero((shared >= floor) & overlap)
        pairs.append((rows[start:stop][owner[good]], gt_order[truth[good]], shared[good]))
    det_rows, gt_rows, iou = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return det_rows, gt_rows, iou


def _columns(boxes: NDArray[Any], sides: Floats | None, rows: Ints, by_sides: bool) -> Floats:
    """x1, y1, x2, y2 and area of these rows in double precision, (5, N)."""
    columns = np.empty((5, len(rows)))
    columns[:4] = np.take(boxes, rows, axis=0).T
    lengths = sides[rows].T if by_sides and sides is not None else columns[2:4] - columns[:2]
    np.multiply(lengths[0], lengths[1], out=columns[4])
    if by_sides:
        np.add(columns[:2], lengths, out=columns[2:4])
    return columns


def pairs_of_any_class(arrays: Arrays, floor: float, dets: Ints) -> tuple[Ints, Ints, Floats]:
    """`overlapping_pairs` of these detections in one image whatever the classes, as VOC measures IoU."""
    det_labels, gt_labels = np.zeros(len(dets), np.int64), np.zeros(len(arrays.gt_boxes), np.int64)
    part = replace(arrays.take(dets), det_labels=det_labels, gt_labels=gt_labels, num_classes=1)
    det, truth, iou = overlapping_pairs(part, find_cells(part), floor)
    return dets[det], truth, iou


def best_pairs(det: Ints, truth: Ints, iou: Floats) -> tuple[Ints, Ints, Floats]:
    """Of pairs grouped by detection, each detection's pair of highest IoU; the first of equals."""
    starts = np.flatnonzero(np.diff(det, prepend=-1))
    if len(starts) == len(det):
        return det, truth, iou
    highest = np.repeat(np.maximum.reduceat(iou, starts), np.diff(starts, append=len(det)))
    best = np.flatnonzero(iou == highest)
    first = best[np.flatnonzero(np.diff(det[best], prepend=-1))]
    return det[first], truth[first], iou[first]


def best_of_each(det: Ints, truth: Ints, iou: Floats, count: int) -> tuple[Ints, Floats]:
    """The ground truth of highest IoU (-1: none) of each of `count` detections, and that IoU (0)."""
    best, highest = np.full(count, -1), np.zeros(count)
    det, truth, iou = best_pairs(det, truth, iou)
    best[det], highest[det] = truth, iou
    return best, highest
