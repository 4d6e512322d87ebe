"""Sorting of many rows at once: by group, by falling score, stably.

Shapes: N rows.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["order_by_class", "position_in_run", "score_order", "stable_order"]

Ints = NDArray[np.int64]


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
    # Keys that rise, as unsigned numbers, while scores fall. The bits of a float are a sign and a magnitude, and a
    # larger magnitude is a larger number. So flip the magnitude of positive scores and keep negative scores as they
    # are: their sign bit puts them last, and their magnitudes already rise as they fall. In single precision:
    #     score  0.5: 3F000000 -> 40FFFFFF
    #     score  0.0: 00000000 -> 7FFFFFFF
    #     score -0.5: BF000000 -> BF000000
    # The shift copies the sign bit into all bits: 0 for positive scores, -1 for negative ones.
    key = bits ^ (~(bits >> (width - 1)) & np.iinfo(bits.dtype).max)
    return stable_order((key, width), (groups, num_groups.bit_length()))


def order_by_class(scores: NDArray[Any], labels: NDArray[Any], num_classes: int) -> tuple[Ints, Ints]:
    """Rows by class, then falling score, then row; and the rank of each row in that order, (N,) both."""
    order = score_order(scores, labels, num_classes)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return order, rank


def position_in_run(keys: Ints) -> Ints:
    """The number of equal keys directly before each, (N,) sorted -> (N,): 5 5 7 7 7 -> 0 1 0 1 2."""
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    return np.arange(len(keys)) - np.repeat(starts, np.diff(starts, append=len(keys)))
