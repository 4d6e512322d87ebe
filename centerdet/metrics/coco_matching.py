"""COCO's matching of detections and ground truths, at several IoU thresholds and in several area ranges at once.

In score order every detection takes its best ground truth that is still free: real ones before ignored ones (crowds,
or outside the area range; a crowd is always free), the last of equals. Two cases, by ground truth and threshold:

- Easy: none of the detections that reach the threshold has another choice there. The first of them takes it.
- Hard: some detection has a choice, so matches depend on each other, along chains of any length. See `_match_hard`.

Shapes: G ground truths, S pairs that reach the lowest threshold, T thresholds, A area ranges, M matches.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .order import stable_order

__all__ = ["MOST_THRESHOLDS", "Matches", "match"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Levels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

MOST_THRESHOLDS = 15  # bits of a positive int16
NOBODY = np.iinfo(np.int64).max


class Matches(NamedTuple):
    """Rank of the detection in score order (M,), row of the ground truth (M,), and (A, M) bits: bit t for threshold t.

    A pair may stand in several rows; no two of them have the same bit in the same range.
    """

    rank: Ints
    truth: Ints
    bits: NDArray[np.int16]


def match(rank: Ints, truth: Ints, iou: Floats, gt_cell: Ints, crowd: Mask, real: Mask, thresholds: Floats) -> Matches:
    """The matches among pairs (S,): rank in score order, truth row, IoU; grouped by detection, truth rows rising.

    gt_cell (G,): class and image. crowd (G,). real (A, G): ground truths that count; the first range contains the
    others. thresholds (T,): rising, at most MOST_THRESHOLDS.
    """
    level = np.zeros(len(iou), np.uint8)  # the pair reaches the thresholds 0 ... level - 1
    for threshold in thresholds:
        level += iou >= threshold
    # A ground truth is hard at the thresholds 0 ... hard - 1: there a detection that reaches it reaches another, too.
    hard = np.zeros(len(crowd), np.uint8)
    next_same = np.append(rank[1:] == rank[:-1], False)[: len(rank)]
    choice = np.flatnonzero(next_same | np.append(False, next_same[:-1])[: len(rank)])  # detections of several pairs
    if len(choice):
        starts = np.flatnonzero(np.diff(rank[choice], prepend=-1))
        lengths = np.diff(starts, append=len(choice))
        levels = level[choice]
        highest = np.flatnonzero(levels == np.repeat(np.maximum.reduceat(levels, starts), lengths))
        levels[highest[np.flatnonzero(np.diff(rank[choice[highest]], prepend=-1))]] = 0  # the first of the highest
        second = np.repeat(np.maximum.reduceat(levels, starts), lengths)  # below it the detection has a choice
        np.maximum.at(hard, truth[choice], np.minimum(level[choice], second))
    parts = [_match_easy(rank, truth, level, crowd, hard, real.shape[0], len(thresholds))]
    contested = np.flatnonzero(hard[truth])
    if len(contested):
        level = np.minimum(level, hard[truth])[contested]
        parts.append(
            _match_hard(
                rank[contested], truth[contested], iou[contested], level, gt_cell, crowd, real, hard, len(thresholds)
            )
        )
    rank, truth = (np.concatenate([part[column] for part in parts]) for column in (0, 1))
    rising = np.argsort(rank)
    return Matches(rank[rising], truth[rising], np.concatenate([part[2] for part in parts], axis=1)[:, rising])


def _match_easy(
    rank: Ints, truth: Ints, level: Levels, crowd: Mask, hard: Levels, ranges: int, thresholds: int
) -> Matches:
    """Each ground truth takes the first detection that reaches the threshold; the same in all area ranges.

    The higher the threshold, the later its first detection. So a pair wins a run of thresholds: from where the earlier
    detections fall short to where it does itself. If the detections of a ground truth have ranks 3, 5, 8 and levels
    4, 9, 7, then rank 3 wins the thresholds 0 ... 3, rank 5 wins 4 ... 8 and rank 8 none.
    """
    first = np.full((len(crowd), thresholds), NOBODY)  # rank of the first detection that reaches a threshold
    slot = truth * thresholds + level - 1
    np.minimum.at(first.reshape(-1), slot, rank)  # by the highest threshold that a detection reaches,
    np.minimum.accumulate(first[:, ::-1], axis=1, out=first[:, ::-1])  # and at all thresholds below
    many = crowd[truth]
    wins = np.flatnonzero(((first.reshape(-1)[slot] == rank) | many) & (level > hard[truth]))
    rank, truth, level, many = rank[wins], truth[wins], level[wins], many[wins]
    begin = (first[truth] < rank[:, None]).sum(1)
    begin[many] = 0
    begin = np.maximum(begin, hard[truth])
    bits = ((1 << level.astype(np.int64)) - (1 << begin)).astype(np.int16)  # bits begin ... level - 1
    return Matches(rank, truth, np.tile(bits, (ranges, 1)))


def _match_hard(
    rank: Ints,
    truth: Ints,
    iou: Floats,
    level: Levels,
    gt_cell: Ints,
    crowd: Mask,
    real: Mask,
    hard: Levels,
    thresholds: int,
) -> Matches:
    """Deferred acceptance (Gale and Shapley, 1962). level: up to where the pair's ground truth is hard as well.

    Taking turns in score order is a serial dictatorship. Deferred acceptance finds the same matching without turns:
    every detection proposes to the ground truths of its list, best first, and a ground truth holds on to the proposal
    that comes first in score order. Let A, B, C have falling scores, A and B prefer X, B then Y, and C has Y alone:
        round 1: A and B propose to X, C to Y; X holds A and refuses B, Y holds C
        round 2: B proposes to Y; Y holds B and drops C
        round 3: C has no one left to propose to; A-X and B-Y are matched, as they are in turns
    Invariant: the rank that a ground truth holds never rises. So whoever was refused or dropped would be so later, too,
    and needs to go down its list only. A few rounds settle all thresholds, area ranges and images.
    """
    rows = np.flatnonzero(hard)
    slot_of = np.cumsum(hard > 0) - 1
    cell = np.unique(gt_cell[rows], return_inverse=True)[1]
    # An area range orders the lists of a cell otherwise than the first range does only if it ignores some of the hard
    # ground truths that are real in the first, and not all. Elsewhere the matches of the first range hold.
    demoted = real[0, rows] & ~real[:, rows]  # (A, rows)
    count = np.array([np.bincount(cell, weights=row) for row in demoted])
    changed = (count > 0) & (count < np.bincount(cell))
    changed[0] = True
    changed = changed[:, cell[slot_of[truth]]]  # (A, S)
    area, pair = np.nonzero(changed)  # from here on a row is a pair in an area range
    rank, truth, level, iou = rank[pair], truth[pair], level[pair], iou[pair]

    # Lists of preference, each the consecutive rows of one detection in one area range. Only lists of several rows
    # need sorting. Rows go in backwards, so that the stable sort puts the last of equals first.
    head = np.append(True, (rank[1:] != rank[:-1]) | (area[1:] != area[:-1]))
    last = np.append(head[1:], True)
    several = np.flatnonzero(~(head & last))[::-1]
    falling = np.float64(np.inf).view(np.int64) - iou[several].view(np.int64)  # bits of positive floats rise with them
    ignored, number = ~real[area[several], truth[several]], np.cumsum(head)[several]
    order = np.arange(len(truth))
    order[several[::-1]] = several[stable_order((falling, 64), (ignored, 1), (number, len(truth).bit_length()))]
    truth, level = truth[order], level[order]

    # A slot is one ground truth in one area range at one threshold. A priority names a row and compares by rank: the
    # rank stands in its high bits, the row in the low ones.
    slot = (area * len(rows) + slot_of[truth]) * thresholds
    is_crowd = crowd[truth]
    shift = len(truth).bit_length()
    priority = (rank << shift) + np.arange(len(truth))

    # A proposer is a detection at one threshold t, and stands at the row that it proposes to.
    heads = np.flatnonzero(head)
    reach = np.maximum.reduceat(level, heads).astype(np.int64)
    row = np.repeat(heads, reach)
    t = np.arange(len(row)) - np.repeat(np.cumsum(reach) - reach, reach)
    holds = np.full(len(real) * len(rows) * thresholds, NOBODY)
    bits = np.zeros(len(truth), np.int64)
    while len(row):
        able = level[row] > t
        welcome = able & is_crowd[row]  # a crowd takes everyone
        np.add.at(bits, row[welcome], 1 << t[welcome])
        proposing = np.flatnonzero(able & ~welcome)
        suitor, at = row[proposing], t[proposing]
        target, offered = slot[suitor] + at, priority[suitor]
        before = holds[target]
        np.minimum.at(holds, target, offered)
        accepted = holds[target] == offered
        dropped = accepted & (before < NOBODY)
        row = np.concatenate([row[~able], suitor[~accepted], before[dropped] & ((1 << shift) - 1)])
        t = np.concatenate([t[~able], at[~accepted], at[dropped]])
        more = ~last[row]
        row, t = row[more] + 1, t[more]
    settled = np.flatnonzero(holds < NOBODY)
    np.add.at(bits, holds[settled] & ((1 << shift) - 1), 1 << (settled % thresholds))

    wins = np.flatnonzero(bits)
    area, pair = area[wins], pair[order[wins]]
    copied = (area == 0) & ~changed[:, pair]  # into the ranges where the first range's matches hold
    all_bits = np.where((np.arange(len(real))[:, None] == area) | copied, bits[wins], 0)
    return Matches(rank[wins], truth[wins], all_bits.astype(np.int16))
