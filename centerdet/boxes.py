"""Box geometry on arrays.

Boxes are xyxy, 0-based, half-open, in pixels: width = x2 - x1. Shapes: boxes (N, 4), points of view
`...` broadcast. Nothing is changed in place.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["area", "clip", "flip", "intersection_matrix", "iou_matrix"]

Floats = NDArray[np.floating]


def area(boxes: Floats) -> Floats:
    """Area in square pixels, (..., 4) -> (...); inverted boxes have none."""
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return np.asarray(sides[..., 0] * sides[..., 1])


def clip(boxes: Floats, height: float, width: float) -> Floats:
    """The part of each box inside a (height, width) image, (..., 4) -> (..., 4)."""
    limits = np.asarray([width, height, width, height], boxes.dtype)
    return np.clip(boxes, 0, limits)


def flip(boxes: Floats, width: float) -> Floats:
    """Boxes of the image mirrored left to right, (..., 4) -> (..., 4)."""
    return np.stack([width - boxes[..., 2], boxes[..., 1], width - boxes[..., 0], boxes[..., 3]], axis=-1)


def intersection_matrix(first: Floats, second: Floats) -> Floats:
    """Area that every pair shares, in square pixels, (N, 4) and (M, 4) -> (N, M)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    return area(np.concatenate([low, high], axis=-1))


def iou_matrix(first: Floats, second: Floats) -> Floats:
    """Intersection over union of every pair, (N, 4) and (M, 4) -> (N, M); 0 where both are empty."""
    shared = intersection_matrix(first, second)
    union = area(first)[:, None] + area(second)[None] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))
