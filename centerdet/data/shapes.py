"""A generated dataset in VOC layout: flat shapes on noisy backgrounds, for the tutorial and for tests.

Each image has its own generator, seeded by (seed, split, index): the same arguments write the same pixels, and a larger
dataset starts with the images of a smaller one. A box encloses exactly the visible pixels of its shape.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ..errors import DataError
from ..files import new_folder
from .sample import Dataset, Sample
from .voc import write_voc

__all__ = ["SHAPE_NAMES", "Scene", "draw_scene", "write_shapes"]

SHAPE_NAMES = ("circle", "square", "triangle", "star", "cross")

Floats = NDArray[np.float32]
Points = NDArray[np.float64]

LEAST_SEEN = 0.7
"""Fraction of each shape that must stay visible beside later shapes and the image's border."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """One drawn image.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        boxes: (N, 4) float64, xyxy, 0-based, half-open.
        labels: (N,) int64, indices into SHAPE_NAMES.
        owners: (H, W) int16, the index of the object at each pixel, -1 for the background.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    owners: NDArray[np.int16]


def write_shapes(root: str | Path, *, train: int = 240, val: int = 80, seed: int = 0, size: int = 256) -> None:
    """Write a dataset of `train` and `val` images, about size x size px, into a new folder.

    The folder appears once it is complete; one that exists already is refused.
    """
    root = Path(root)
    if root.exists():
        raise DataError(f"{root}: expected a new folder for the generated dataset, it exists already")
    with new_folder(root) as draft:
        images = draft / "JPEGImages"
        images.mkdir(parents=True)
        for number, (split, count) in enumerate((("train", train), ("val", val))):
            samples = []
            for index in range(count):
                scene = draw_scene(np.random.default_rng((seed, number, index)), size)
                suffix, options = (".png", []) if index % 8 == 7 else (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 92])
                path = images / f"{split}_{index:05d}{suffix}"
                cv2.imwrite(str(path), scene.image[..., ::-1], options)
                samples.append(Sample(path, scene.boxes, scene.labels, size=scene.owners.shape))
            write_voc(Dataset(samples, SHAPE_NAMES), draft, split, add=True)


def draw_scene(generator: Generator, size: int = 256) -> Scene:
    """Draw one image whose sides lie between 3/4 and 5/4 of `size`; one in twelve shows no object."""
    height, width = (int(side) for side in generator.integers(size * 3 // 4, size * 5 // 4, 2, endpoint=True))
    canvas = np.full((height, width, 3), generator.uniform(20, 235, 3), np.float32)
    owners = np.full((height, width), -1, np.int16)
    areas: list[int] = []  # of each whole shape, its part outside the image included
    labels: list[int] = []
    wanted = 0 if generator.random() < 1 / 12 else int(generator.integers(1, 8))
    for _ in range(12 * wanted):
        if len(labels) == wanted:
            break
        label = int(generator.integers(len(SHAPE_NAMES)))
        mask, area = _place(generator, OUTLINES[SHAPE_NAMES[label]], height, width, size)
        covered = np.where(mask, len(labels), owners).astype(np.int16)
        seen = np.bincount(covered[covered >= 0], minlength=len(labels) + 1)
        if (seen >= LEAST_SEEN * np.asarray([*areas, area])).all():
            owners = covered
            areas.append(area)
            labels.append(label)
            canvas[mask] = _pick_color(generator, canvas[mask].mean(0))
    boxes = [_measure(owners == number) for number in range(len(labels))]
    noisy = canvas + generator.uniform(2, 12) * generator.standard_normal(canvas.shape)
    image = np.clip(noisy, 0, 255).round().astype(np.uint8)
    return Scene(image, np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(labels, np.int64), owners)


def _rays(turns: Points) -> Points:
    """Points on the unit circle, (N,) radians to (N, 2)."""
    return np.stack([np.cos(turns), np.sin(turns)], 1)


def _polygon(corners: int, waist: float = 1.0) -> Points:
    """A regular polygon of radius 1; with a waist, one more point between every two corners, at that radius."""
    radii = np.tile([1.0] if waist == 1.0 else [1.0, waist], corners)
    return radii[:, None] * _rays(2 * np.pi * np.arange(len(radii)) / len(radii))


ARM, END = 0.33, 0.94
"""Half the width of a cross's arms, and their length."""

OUTLINES: dict[str, Points] = {
    "circle": _polygon(64),
    "square": _polygon(4),
    "triangle": _polygon(3),
    "star": _polygon(5, 0.42),
    "cross": np.asarray([
        (ARM, END), (ARM, ARM), (END, ARM), (END, -ARM), (ARM, -ARM), (ARM, -END),
        (-ARM, -END), (-ARM, -ARM), (-END, -ARM), (-END, ARM), (-ARM, ARM), (-ARM, END),
    ]),
}  # fmt: skip


def _place(generator: Generator, outline: Points, height: int, width: int, size: int) -> tuple[NDArray[np.bool_], int]:
    """A shape at a random place, small ones more often: its mask, and its area beyond the image included."""
    radius = size * 0.05 * 6 ** generator.random()
    stretch = np.exp(generator.uniform(-0.25, 0.25))
    turn = generator.uniform(0, 2 * np.pi)
    rotate = np.asarray([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    center = generator.uniform(0, (width, height))
    points = (outline * radius * (stretch, 1 / stretch)) @ rotate.T + center
    margin = math.ceil(2 * radius)
    mask = np.zeros((height + 2 * margin, width + 2 * margin), np.uint8)
    cv2.fillPoly(mask, [np.round((points + margin) * 16).astype(np.int32)], 1, shift=4)
    return mask[margin : margin + height, margin : margin + width].astype(bool), int(mask.sum())


def _measure(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """The box (x1, y1, x2, y2) around the pixels of a mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def _pick_color(generator: Generator, away_from: NDArray[np.floating]) -> Floats:
    """An RGB color, at least 60 levels from another one in some channel."""
    colors = generator.uniform(10, 245, (16, 3)).astype(np.float32)
    return np.asarray(colors[np.argmax(np.abs(colors - away_from).max(1) > 60)])
