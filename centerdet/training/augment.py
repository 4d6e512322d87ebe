"""Augmentation: random training images from a seeded generator.

Crop, zoom, aspect, and translation are one resize of a crop with `images.resize`, as in prediction. They are done here
so that the visible part of each box is known exactly. Color changes are albumentations', which only this file imports.
Boxes are xyxy px, (N, 4) float32; images RGB uint8 (H, W, 3).
"""

import os
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import boxes as box
from ..images import resize

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # otherwise importing it looks up its newest version online
import albumentations

__all__ = ["Augment", "Example"]

FILL = 114  # gray around an image that does not fill the input
REMNANT = 0.3  # a cropped object with less of its area visible is neither object nor background
SMALLEST = 4.0  # px; the same for an object with a shorter side


class Example(NamedTuple):
    """An image and its objects: image (H, W, 3) uint8, boxes (N, 4), labels (N,), ignore (N,) bool; labeled (C,) bool,
    the classes that are annotated on it."""

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    ignore: NDArray[np.bool_]
    labeled: NDArray[np.bool_]


class Augment:
    """Random augmentation of an example to `size` x `size` px.

    Args:
        zoom: the smallest and the largest scale, drawn log-uniformly; 1 shows the whole image.
        aspect: the largest stretch of width against height.
        color: strength of brightness, contrast, saturation and (a tenth of it) hue.
        flip: mirror left to right with probability 0.5.
    """

    def __init__(
        self, zoom: tuple[float, float] = (0.5, 1.8), aspect: float = 1.3, color: float = 0.4, flip: bool = True
    ) -> None:
        self.zoom, self.aspect, self.flip = zoom, aspect, flip
        strength = (1 - color, 1 + color)
        jitter = albumentations.ColorJitter(strength, strength, strength, (-color / 10, color / 10), p=0.8)
        self.colors = albumentations.Compose([jitter, albumentations.ToGray(p=0.02)] if color else [])

    def __call__(self, example: Example, size: int, rng: np.random.Generator) -> Example:
        """One random training image from the example."""
        image, boxes = np.full((size, size, 3), FILL, np.uint8), example.boxes
        sides = np.array(example.image.shape[1::-1])
        zoom, aspect = np.exp(rng.uniform(*np.log(self.zoom))), np.exp(rng.uniform(-1, 1) * np.log(self.aspect) / 2)
        scale = size / sides * zoom * np.array([aspect, 1 / aspect])
        shift = rng.uniform(0, 1, 2) * (size - sides * scale)  # of the image's top left corner

        low = np.clip(np.floor(-shift / scale), 0, sides - 1).astype(int)  # the visible part of the image
        high = np.clip(np.ceil((size - shift) / scale), low + 1, sides).astype(int)
        start = np.clip(np.rint(low * scale + shift), 0, size - 1).astype(int)  # and its place in the input
        stop = np.clip(np.rint(high * scale + shift), start + 1, size).astype(int)
        crop = example.image[low[1] : high[1], low[0] : high[0]]
        image[start[1] : stop[1], start[0] : stop[0]] = resize(crop, *(stop - start).tolist())

        scale = (stop - start) / (high - low)  # as rounded to whole pixels
        moved = ((boxes.reshape(-1, 2, 2) - low) * scale + start).reshape(-1, 4).astype(np.float32)
        visible = box.clip(moved, size, size)
        remnant = box.area(visible) < REMNANT * box.area(moved)
        small = (visible[:, 2:] - visible[:, :2]).min(1, initial=np.inf) < SMALLEST
        keep = box.area(visible) > 0
        if self.flip and rng.random() < 0.5:
            image, visible = image[:, ::-1], box.flip(visible, size)
        self.colors.set_random_seed(int(rng.integers(2**31)))
        image = np.ascontiguousarray(self.colors(image=np.ascontiguousarray(image))["image"])
        ignore = example.ignore | remnant | small
        return Example(image, visible[keep].astype(np.float32), example.labels[keep], ignore[keep], example.labeled)
