"""Large images in overlapping square tiles, so that small objects reach the network larger.

Law: an object whose sides are at most the tiles' overlap, less twice MARGIN, lies uncut in at least one tile. So a
detection at an inner border of its tile is dropped, since another tile shows the object whole or, where it is larger,
the view of the whole image does; and a detection in a tile inside an object larger than a tile is a part of that.
Windows are (left, top, right, bottom) in whole pixels, half-open; sizes (height, width).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .boxes import area, intersection_matrix, nms
from .errors import ConfigError

__all__ = ["Rows", "Tiling", "Window", "is_cut", "merge"]

Window = tuple[int, int, int, int]

MIN_SIDE = 32  # px of a tile: smaller ones would be thousands that show nothing
PART = 0.8  # of a tile's box inside a large object of its class that scores at least half as high: a part of it
MARGIN = 0.02  # of a tile's side; the network misses the border of what is cut by about as much


class Rows(NamedTuple):
    """Detections of one view: boxes (N, 4) xyxy px of it, scores (N,) and labels (N,)."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]

    def select(self, index: NDArray[np.bool_] | NDArray[np.int64]) -> "Rows":
        """Those of a mask or of row numbers."""
        return Rows(self.boxes[index], self.scores[index], self.labels[index])


@dataclass(frozen=True, slots=True)
class Tiling:
    """How images are cut: `side` of the square tiles in px, None for no tiles; `overlap`, the least share of a side
    that two neighbors have in common."""

    side: int | None = None
    overlap: float = 0.2

    def __post_init__(self) -> None:
        if self.side is not None and self.side < MIN_SIDE:
            raise ConfigError(f"tile: expected None or a side of at least {MIN_SIDE} px, got {self.side}")
        if not 0 <= self.overlap <= 0.9:
            raise ConfigError(f"overlap: expected a share of the tile's side from 0 to 0.9, got {self.overlap}")

    def cut(self, size: tuple[int, int]) -> list[Window]:
        """The window of a whole (height, width) image, then the fewest tiles that cover it.

        A side that is shorter than a tile is taken whole; an image that one tile covers has no tiles.
        """
        height, width = size
        whole = [(0, 0, width, height)]
        if self.side is None or self.side >= max(height, width):
            return whole
        (tops, down), (lefts, across) = ((self._starts(self.side, length), min(self.side, length)) for length in size)
        return whole + [(left, top, left + across, top + down) for top in tops for left in lefts]

    def _starts(self, side: int, length: int) -> list[int]:
        """Where the tiles along a side of the image begin, evenly spaced."""
        rest = max(0, length - side)
        count = math.ceil(rest / max(1, math.floor(side * (1 - self.overlap)))) + 1
        return [round(number * rest / max(1, count - 1)) for number in range(count)]


def is_cut(boxes: NDArray[np.float32], window: Window, whole: Window) -> NDArray[np.bool_]:
    """Which boxes (N, 4), in a window's pixels, reach a border of it that is none of the whole image's, (N,)."""
    left, top, right, bottom = window
    distance = np.abs(boxes - np.array([0, 0, right - left, bottom - top], np.float32))
    near = distance < MARGIN * max(right - left, bottom - top)
    return np.asarray((near & (np.array(window) != np.array(whole))).any(1))


def merge(views: Sequence[Rows], windows: Sequence[Window], nms_iou: float) -> Rows:
    """The detections of an image from those of its windows, the first being the whole image: cut ones and parts are
    dropped, of doubles the best stays."""
    whole, *tiles = views
    if not tiles:
        return whole
    left, top, right, bottom = windows[1]
    large = whole.select((whole.boxes[:, 2:] - whole.boxes[:, :2]).max(1) > max(right - left, bottom - top))
    chosen = [whole]
    for view, window in zip(tiles, windows[1:], strict=True):
        uncut = view.select(~is_cut(view.boxes, window, windows[0]))
        uncut = uncut._replace(boxes=uncut.boxes + np.array(window[:2] * 2, np.float32))
        inside = intersection_matrix(uncut.boxes, large.boxes) > PART * area(uncut.boxes)[:, None]
        alike = (uncut.labels[:, None] == large.labels) & (uncut.scores[:, None] <= 2 * large.scores)
        chosen.append(uncut.select(~(inside & alike).any(1)))
    rows = Rows(*(np.concatenate(columns) for columns in zip(*chosen, strict=True)))
    return rows.select(nms(*rows, nms_iou))
