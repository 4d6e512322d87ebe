"""Who gets which ground truth by COCO's rules, at ten IoU thresholds and in four area ranges at once.

In score order every detection takes its best ground truth that is still free: real ones before ignored ones (crowds,
or outside of the area range; a crowd is never taken), the last of equals. Two cases, by ground truth and threshold:

- Easy: all the detections that reach the threshold have no other choice, so the first of them gets it.
- Hard: this is a serial dictatorship, which deferred acceptance finds too: each detection proposes down its list, a
  ground truth keeps the earliest in score order. A few rounds settle all thresholds, area ranges and images.

Shapes: G ground truths, S pairs with an IoU of at least 0.5, A area ranges, M matches.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .overlaps import stable_order

__all__ = ["THRESHOLDS", "Matches", "match"]

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]

THRESHOLDS = np.linspace(0.5, 0.95, 10)
NONE = np.iinfo(np.int64).max


class Matches(NamedTuple):
    """Place of the detection in score order (M,), row of the ground truth (M,), and (A, M) bits: the thresholds won."""

    place: Ints
    truth: Ints
    bits: NDArray[np.int16]


def match(place: Ints, truth: Ints, iou: Doubles, gt_cell: Ints, crowd: Mask, real: Mask) -> Matches:
    """The matching of pairs (place in score order, truth row, IoU; each (S,), grouped by detection, truth rows rising).

    gt_cell (G,): class and image. crowd (G,). real (A, G): what counts; the first range contains the others.
    """
    level = np.zeros(len(iou), np.uint8)  # the pair reaches the thresholds 0 ... level - 1
    for threshold in THRESHOLDS:
        level += iou >= threshold
    hard = np.zeros(len(crowd), np.uint8)  # a ground truth is hard at the thresholds 0 ... hard - 1
    again = np.append(place[1:] == place[:-1], False)[: len(place)]
    choice = np.flatnonzero(again | np.append(False, again[:-1])[: len(place)])
    if len(choice):
        starts = np.flatnonzero(np.diff(place[choice], prepend=-1))
        lengths = np.diff(starts, append=len(choice))
        levels = level[choice]
        highest = np.flatnonzero(levels == np.repeat(np.maximum.reduceat(levels, starts), lengths))
        levels[highest[np.flatnonzero(np.diff(place[choice[highest]], prepend=-1))]] = 0
        second = np.repeat(np.maximum.reduceat(levels, starts), lengths)  # below it the detection has a choice
        np.maximum.at(hard, truth[choice], np.minimum(level[choice], second))
    parts = [_match_easy(place, truth, level, crowd, hard, len(real))]
    contested = np.flatnonzero(hard[truth])
    if len(contested):
        level = np.minimum(level, hard[truth])[contested]
        parts.append(_match_hard(place[contested], truth[contested], iou[contested], level, gt_cell, crowd, real, hard))
    place, truth = (np.concatenate([part[column] for part in parts]) for column in (0, 1))
    rising = np.argsort(place)
    return Matches(place[rising], truth[rising], np.concatenate([part[2] for part in parts], axis=1)[:, rising])


def _match_easy(
    place: Ints, truth: Ints, level: NDArray[np.uint8], crowd: Mask, hard: NDArray[np.uint8], ranges: int
) -> Matches:
    """A pair wins the thresholds that it reaches, from where the earlier detections of its ground truth reach on."""
    first = np.full((len(crowd), len(THRESHOLDS)), NONE)  # the first detection that reaches a threshold
    slot = truth * len(THRESHOLDS) + level - 1
    np.minimum.at(first.reshape(-1), slot, place)
    np.minimum.accumulate(first[:, ::-1], axis=1, out=first[:, ::-1])
    many = crowd[truth]
    wins = np.flatnonzero(((first.reshape(-1)[slot] == place) | many) & (level > hard[truth]))
    place, truth, level, many = place[wins], truth[wins], level[wins], many[wins]
    begin = (first[truth] < place[:, None]).sum(1)
    begin[many] = 0
    begin = np.maximum(begin, hard[truth])
    bits = ((1 << level.astype(np.int64)) - (1 << begin)).astype(np.int16)
    return Matches(place, truth, np.tile(bits, (ranges, 1)))


def _match_hard(
    place: Ints,
    truth: Ints,
    iou: Doubles,
    level: NDArray[np.uint8],
    gt_cell: Ints,
    crowd: Mask,
    real: Mask,
    hard: NDArray[np.uint8],
) -> Matches:
    """Deferred acceptance. level: up to where the pair's ground truth is hard as well."""
    rows = np.flatnonzero(hard)
    slot_of = np.cumsum(hard > 0) - 1
    cell = np.unique(gt_cell[rows], return_inverse=True)[1]
    # A range that ignores all of a cell's hard ground truths, or the same as the first range, leaves all lists alone.
    demoted = real[0, rows] & ~real[:, rows]  # (A, rows)
    count = np.array([np.bincount(cell, weights=row) for row in demoted])
    changed = (count > 0) & (count < np.bincount(cell))
    changed[0] = True
    changed = changed[:, cell[slot_of[truth]]]  # (A, S)
    area, pair = np.nonzero(changed)
    place, truth, level, iou = place[pair], truth[pair], level[pair], iou[pair]

    head = np.append(True, (place[1:] != place[:-1]) | (area[1:] != area[:-1]))  # a detection's list begins
    last = np.append(head[1:], True)
    mixed = np.flatnonzero(~(head & last))
    back = mixed[::-1]  # so that the last of equals comes first
    falling = np.float64(2).view(np.int64) - iou[back].view(np.int64)  # bits of IoUs rise with them
    ignored, own = ~real[area[back], truth[back]], np.cumsum(head)[back]
    order = np.arange(len(truth))
    order[mixed] = back[stable_order((falling, 64), (ignored, 1), (own, len(truth).bit_length()))]
    truth, level = truth[order], level[order]
    slot = (area * len(rows) + slot_of[truth]) * len(THRESHOLDS)
    free = crowd[truth]
    shift = len(truth).bit_length()
    claim = (place << shift) + np.arange(len(truth))  # compares by place, and names the pair

    heads = np.flatnonzero(head)
    reach = np.maximum.reduceat(level, heads).astype(np.int64)
    offer = np.repeat(heads, reach)
    t = np.arange(len(offer)) - np.repeat(np.cumsum(reach) - reach, reach)
    kept = np.full(len(real) * len(rows) * len(THRESHOLDS), NONE)
    won = np.zeros(len(truth), np.int64)
    while len(offer):
        enough = level[offer] > t
        welcome = enough & free[offer]
        np.add.at(won, offer[welcome], 1 << t[welcome])
        fight = np.flatnonzero(enough & ~welcome)
        rival, at = offer[fight], t[fight]
        target, bid = slot[rival] + at, claim[rival]
        before = kept[target]
        np.minimum.at(kept, target, bid)
        wins = kept[target] == bid
        ousted = wins & (before < NONE)
        failed = ~enough
        offer = np.concatenate([offer[failed], rival[~wins], before[ousted] & ((1 << shift) - 1)])
        t = np.concatenate([t[failed], at[~wins], at[ousted]])
        more = ~last[offer]
        offer, t = offer[more] + 1, t[more]
    settled = np.flatnonzero(kept < NONE)
    np.add.at(won, kept[settled] & ((1 << shift) - 1), 1 << (settled % len(THRESHOLDS)))

    wins = np.flatnonzero(won)
    area, pair = area[wins], pair[order[wins]]
    bits = np.where((np.arange(len(real))[:, None] == area) | ((area == 0) & ~changed[:, pair]), won[wins], 0)
    return Matches(place[wins], truth[wins], bits.astype(np.int16))
