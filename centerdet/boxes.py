"""Box geometry on arrays.

Boxes are xyxy, 0-based, half-open, in pixels: width = x2 - x1. Shapes: boxes (N, 4); `...` broadcasts. Nothing is
changed in place.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError

__all__ = ["area", "clip", "convert", "flip", "intersection_matrix", "iou_matrix", "nms"]

Floats = NDArray[np.floating]

BLOCK = 256  # boxes that are compared with all others at a time


def area(boxes: Floats) -> Floats:
    """Area in square pixels, (..., 4) -> (...); inverted boxes have none."""
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return np.asarray(sides[..., 0] * sides[..., 1])


def clip(boxes: Floats, height: float, width: float) -> Floats:
    """The part of each box inside a (height, width) image, (..., 4) -> (..., 4)."""
    limits = np.asarray([width, height, width, height], boxes.dtype)
    return np.clip(boxes, 0, limits)


def convert(boxes: Floats, in_fmt: str, out_fmt: str) -> Floats:
    """Boxes in another form, (..., 4) -> (..., 4).

    Forms: "xyxy" (two corners), "xywh" (first corner, width, height), "cxcywh" (center, width, height).
    """
    if wrong := [form for form in (in_fmt, out_fmt) if form not in FORMS]:
        raise ConfigError(f"boxes: expected the form {', '.join(FORMS)}, got {wrong[0]!r}")
    return boxes.copy() if in_fmt == out_fmt else FORMS[out_fmt][1](FORMS[in_fmt][0](boxes))


FORMS: dict[str, tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]] = {  # to xyxy, and back
    "xyxy": (np.copy, np.copy),
    "xywh": (
        lambda boxes: np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], -1),
        lambda boxes: np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], -1),
    ),
    "cxcywh": (
        lambda boxes: np.concatenate([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1),
        lambda boxes: np.concatenate([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], -1),
    ),
}


def flip(boxes: Floats, width: float) -> Floats:
    """Boxes of the image mirrored left to right, (..., 4) -> (..., 4)."""
    return np.stack([width - boxes[..., 2], boxes[..., 1], width - boxes[..., 0], boxes[..., 3]], axis=-1)


def intersection_matrix(first: Floats, second: Floats) -> Floats:
    """Area that every pair shares, in square pixels, (N, 4) and (M, 4) -> (N, M)."""
    sides = (
        np.minimum(first[:, None, axis + 2], second[:, axis + 2]) - np.maximum(first[:, None, axis], second[:, axis])
        for axis in (0, 1)
    )
    width, height = (np.maximum(side, 0, out=side) for side in sides)
    return np.asarray(np.multiply(width, height, out=width))


def iou_matrix(first: Floats, second: Floats) -> Floats:
    """Intersection over union of every pair, (N, 4) and (M, 4) -> (N, M); 0 where both are empty."""
    shared = intersection_matrix(first, second)
    union = area(first)[:, None] + area(second)[None] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def nms(boxes: Floats, scores: Floats, labels: NDArray[np.integer], iou: float) -> NDArray[np.int64]:
    """Non-maximum suppression per class: indices of the boxes that stay, (N, 4), (N,), (N,) -> (K,), best first.

    A box goes if a better one that stays has its label and overlaps it by more than `iou`; of equal scores the earlier
    row is better. These are torchvision's rows (`batched_nms`).
    """
    order = np.argsort(-scores, kind="stable")
    boxes, labels = boxes[order], labels[order]
    limit = np.asarray(iou, boxes.dtype)
    if float(limit) > iou:  # compare with the double itself: nothing of this dtype lies between the two
        limit = np.nextafter(limit, np.asarray(-1, boxes.dtype))  # of one dtype, for NumPy 1
    stays = np.ones(len(boxes), bool)
    for start in range(0, len(boxes), BLOCK):
        # Invariant: rows before `start` are settled, and what they suppress is marked.
        rows = start + np.flatnonzero(stays[start : start + BLOCK])
        over = (iou_matrix(boxes[rows], boxes[start:]) > limit) & (labels[rows, None] == labels[start:])
        over &= rows[:, None] < np.arange(start, len(boxes))
        for row in np.flatnonzero(over.any(1)):
            if stays[rows[row]]:
                stays[start:] &= ~over[row]
    return order[stays]
