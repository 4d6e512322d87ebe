"""Large images in overlapping square tiles, so that small objects reach the network larger.

Law: an object whose sides are at most the tiles' overlap, less twice MARGIN, is seen uncut by at least one tile. So
what reaches an inner border of its tile is dropped, since another tile shows it whole or, where it is larger, the view
of the whole image does; and what a tile finds inside an object larger than a tile is a part of that. Windows are
(left, top, right, bottom) in whole pixels, half-open; sizes (height, width).
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import batched_nms

from .boxes import area, intersection_matrix
from .detections import Detections
from .errors import ConfigError

__all__ = ["Window", "check_tiling", "cut", "is_cut", "merge"]

Window = tuple[int, int, int, int]

LEAST = 32  # px of a tile's side: fewer would make thousands of tiles that show nothing
PART = 0.8  # of a tile's box inside a large object of its class that scores at least half as high: a part of it
MARGIN = 0.02  # of a tile's side; the network misses the border of what is cut by about as much


def check_tiling(tile: int | None, overlap: float) -> None:
    """Refuse what `cut` cannot do."""
    if tile is not None and tile < LEAST:
        raise ConfigError(f"tile: want None or a side of at least {LEAST} px, got {tile}")
    if not 0 <= overlap <= 0.9:
        raise ConfigError(f"overlap: want a share of the tile's side from 0 to 0.9, got {overlap}")


def cut(size: tuple[int, int], tile: int | None, overlap: float) -> list[Window]:
    """The whole image's window, then the tiles': as few as cover it and share `overlap` of their sides or more.

    A side that is shorter than a tile is taken whole; a image that one tile covers has no tiles.
    """
    height, width = size
    whole = [(0, 0, width, height)]
    if tile is None or tile >= max(height, width):
        return whole
    (tops, down), (lefts, across) = ((_starts(side, tile, overlap), min(side, tile)) for side in size)
    return whole + [(left, top, left + across, top + down) for top in tops for left in lefts]


def is_cut(boxes: NDArray[np.float32], window: Window, whole: Window) -> NDArray[np.bool_]:
    """Which boxes (N, 4), in a window's pixels, reach a border of it that is none of the whole image's, (N,)."""
    left, top, right, bottom = window
    away = np.abs(boxes - np.array([0, 0, right - left, bottom - top], np.float32))
    near = away < MARGIN * max(right - left, bottom - top)
    return np.asarray((near & (np.array(window) != np.array(whole))).any(1))


def merge(parts: Sequence[Detections], windows: Sequence[Window], nms_iou: float) -> Detections:
    """What the windows of a image show (the first is all of it) in its pixels: nothing cut, of doubles the best."""
    if len(parts) == 1:
        return parts[0]
    left, top, right, bottom = windows[1]
    large = parts[0][(parts[0].boxes[:, 2:] - parts[0].boxes[:, :2]).max(1) > max(right - left, bottom - top)]
    found = [parts[0]]
    for part, window in zip(parts[1:], windows[1:], strict=True):
        uncut = part[~is_cut(part.boxes, window, windows[0])]
        uncut = replace(uncut, boxes=uncut.boxes + np.array(window[:2] * 2, np.float32))
        inside = intersection_matrix(uncut.boxes, large.boxes) > PART * area(uncut.boxes)[:, None]
        alike = (uncut.labels[:, None] == large.labels) & (uncut.scores[:, None] <= 2 * large.scores)
        found.append(uncut[~(inside & alike).any(1)])
    boxes, scores, labels = (
        np.concatenate([getattr(one, name) for one in found]) for name in ("boxes", "scores", "labels")
    )
    keep = batched_nms(*map(torch.from_numpy, (boxes, scores, labels)), nms_iou).numpy()
    return replace(parts[0], boxes=boxes[keep], scores=scores[keep], labels=labels[keep])


def _starts(side: int, tile: int, overlap: float) -> list[int]:
    """Where the tiles of a side of the image begin, evenly."""
    count = math.ceil(max(0, side - tile) / max(1, math.floor(tile * (1 - overlap)))) + 1
    return [round(number * max(0, side - tile) / max(1, count - 1)) for number in range(count)]
