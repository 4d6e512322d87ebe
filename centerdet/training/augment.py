"""Augmentation: one training image, drawn anew from a seeded generator.

Geometry (crop, zoom, aspect, translation, mosaic) is one resize of a crop, done here so that a image is
interpolated once and the part of each box that is left is known exactly; flip and color are albumentations',
which this file alone imports. Boxes are xyxy px, (N, 4) float32; images RGB uint8 (H, W, 3).
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from .. import boxes as box

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else it asks the network for its newest version
import albumentations

__all__ = ["Augment", "Example"]

FILL = 114  # gray around a image that does not fill the input
REMNANT = 0.3  # a cropped object with less of its area left is neither object nor background
SMALLEST = 4.0  # px; an object with a shorter side is neither, too


class Example(NamedTuple):
    """A image and its objects: image (H, W, 3) uint8, boxes (N, 4), labels (N,), ignore (N,) bool."""

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    ignore: NDArray[np.bool_]


class Augment:
    """Draws training inputs of `size` x `size` px.

    Args:
        zoom: the smallest and the largest scale, drawn log-uniformly; 1 shows the whole image.
        aspect: the largest stretch of width against height.
        color: strength of brightness, contrast, saturation and (a tenth of it) hue.
        flip: mirror left to right half of the time.
    """

    def __init__(
        self, zoom: tuple[float, float] = (0.5, 1.8), aspect: float = 1.3, color: float = 0.4, flip: bool = True
    ) -> None:
        self.zoom, self.aspect = zoom, aspect
        jitter = albumentations.ColorJitter(
            (1 - color, 1 + color),
            (1 - color, 1 + color),
            (1 - color, 1 + color),
            (-color / 10, color / 10),
            p=0.8,
        )
        parts = [albumentations.HorizontalFlip(p=0.5)] * flip + [jitter, albumentations.ToGray(p=0.02)] * (color > 0)
        self.finish = albumentations.Compose(
            parts or [albumentations.NoOp()],
            keypoint_params=albumentations.KeypointParams("xy", remove_invisible=False),
        )

    def __call__(self, examples: Sequence[Example], size: int, rng: np.random.Generator) -> Example:
        """One image alone, or a mosaic of four."""
        canvas = np.full((size, size, 3), FILL, np.uint8)
        if len(examples) == 1:
            placed = [self._place(examples[0], canvas, (0, 0, size, size), rng)]
        else:
            x, y = rng.integers(size * 3 // 10, size * 7 // 10 + 1, 2)
            regions = [(0, 0, x, y), (x, 0, size, y), (0, y, x, size), (x, y, size, size)]
            placed = [self._place(e, canvas, r, rng) for e, r in zip(examples, regions, strict=True)]
        boxes, labels, ignore = (np.concatenate(parts) for parts in zip(*placed, strict=True))
        self.finish.set_random_seed(int(rng.integers(2**31)))
        # albumentations mirrors centers of pixels, x to width - 1 - x; corners of boxes lie half a pixel beside them.
        done = self.finish(image=canvas, keypoints=boxes.reshape(-1, 2) - 0.5)
        corners = np.asarray(done["keypoints"], np.float32).reshape(-1, 2, 2) + 0.5
        boxes = np.concatenate([corners.min(1), corners.max(1)], 1)
        return Example(done["image"], boxes, labels, ignore)

    def _place(
        self, example: Example, canvas: NDArray[np.uint8], region: tuple[int, int, int, int], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]:
        """Resize a window of the image into a region (x1, y1, x2, y2) of the canvas; its objects there."""
        left, top, right, bottom = region
        room = np.array([right - left, bottom - top])
        sides = np.array(example.image.shape[1::-1])
        zoom, aspect = np.exp(rng.uniform(*np.log(self.zoom))), np.exp(rng.uniform(-1, 1) * np.log(self.aspect) / 2)
        scale = room / sides * zoom * np.array([aspect, 1 / aspect])
        shift = rng.uniform(0, 1, 2) * (room - sides * scale)  # where the image's corner comes to lie

        low = np.clip(np.floor(-shift / scale), 0, sides - 1).astype(int)  # the part of the image that is seen
        high = np.clip(np.ceil((room - shift) / scale), low + 1, sides).astype(int)
        start = np.clip(np.rint(low * scale + shift), 0, room - 1).astype(int)  # and where it goes
        stop = np.clip(np.rint(high * scale + shift), start + 1, room).astype(int)
        crop = example.image[low[1] : high[1], low[0] : high[0]]
        method = cv2.INTER_AREA if scale.min() < 1 else cv2.INTER_LINEAR
        canvas[top + start[1] : top + stop[1], left + start[0] : left + stop[0]] = cv2.resize(
            crop, tuple(int(v) for v in stop - start), interpolation=method
        )

        scale = (stop - start) / (high - low)  # as rounded to whole pixels
        moved = ((example.boxes.reshape(-1, 2, 2) - low) * scale + start).reshape(-1, 4).astype(np.float32)
        seen = box.clip(moved, room[1], room[0])
        left_over = box.area(seen) / np.maximum(box.area(moved), 1e-9)
        small = (seen[:, 2:] - seen[:, :2]).min(1, initial=np.inf) < SMALLEST
        keep = box.area(seen) > 0
        seen = seen + np.array([left, top, left, top], np.float32)
        return seen[keep], example.labels[keep], (example.ignore | (left_over < REMNANT) | small)[keep]
