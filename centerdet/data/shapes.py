"""A generated dataset in VOC layout: drawn shapes on textured backgrounds, for demonstrations and tests.

Every image is drawn by its own generator, seeded by (seed, split, index): the same arguments write the same pixels,
and more images leave the earlier ones as they are. A box holds exactly the pixels of its shape that are seen.
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
"""Share of every shape that those drawn over it and the image's border must leave to be seen."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """One drawn image.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        boxes: (N, 4) float64, xyxy, 0-based, half-open.
        labels: (N,) int64, indices into SHAPE_NAMES.
        owners: (H, W) int16, which object is seen at each pixel, -1 for the background.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    owners: NDArray[np.int16]


def write_shapes(root: str | Path, *, train: int = 240, val: int = 80, seed: int = 0, size: int = 256) -> None:
    """Write the splits `train` and `val` with as many images as said, about size x size px, into a new folder.

    The folder appears once it is complete; one that exists already is refused.
    """
    root = Path(root)
    if root.exists():
        raise DataError(f"{root}: exists already: want a new folder for the generated dataset")
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
    canvas = _draw_background(generator, height, width)
    _draw_clutter(generator, canvas)
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
            _paint(generator, canvas, mask)
    boxes = [_measure(owners == number) for number in range(len(labels))]
    return Scene(
        _expose(generator, canvas),
        np.asarray(boxes, np.float64).reshape(-1, 4),
        np.asarray(labels, np.int64),
        owners,
    )


def _rays(turns: Points) -> Points:
    """Points on the unit circle, (N,) radians to (N, 2)."""
    return np.stack([np.cos(turns), np.sin(turns)], 1)


def _polygon(corners: int, waist: float = 1.0) -> Points:
    """A regular polygon; with a waist, a point between every two corners is drawn in to that radius."""
    radii = np.tile([1.0] if waist == 1.0 else [1.0, waist], corners)
    return radii[:, None] * _rays(2 * np.pi * np.arange(len(radii)) / len(radii))


ARM, END = 0.33, 0.94
"""Half the width of a cross's arms, and their reach."""

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
    """A shape somewhere in the image, small ones more often: its mask, and its area as if nothing cut it off."""
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
    """The box that holds exactly the pixels of a mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def _draw_background(generator: Generator, height: int, width: int) -> Floats:
    """(H, W, 3) in 0..255: two or three colors mixed by noise, waves, bricks or a slope, with grain."""
    kind = generator.integers(4)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    turn = generator.uniform(0, np.pi)
    along = (np.cos(turn) * columns + np.sin(turn) * rows) / generator.uniform(5, 40)
    if kind == 0:
        mix = _noise(generator, height, width, generator.uniform(3, 30))
    elif kind == 1:
        mix = np.sin(along + 3 * _noise(generator, height, width, 40))
    elif kind == 2:
        brick = generator.uniform(12, 40)
        shift = np.floor(rows / brick) % 2 * brick
        mix = np.sin((columns + shift) * np.pi / brick / 2) * np.sin(rows * np.pi / brick)
        mix = np.clip(6 * mix, -1, 1) + 0.3 * _noise(generator, height, width, 4)
    else:
        mix = (along - along.mean()) / along.std() + 0.5 * _noise(generator, height, width, 12)
    mix = mix[..., None]
    near, far = generator.uniform(20, 235, (2, 3))
    far = near + generator.uniform(0.2, 0.6) * (far - near)
    canvas = (near + far) / 2 + mix * (far - near) / 2
    canvas += 12 * _noise(generator, height, width, 60)[..., None] * generator.uniform(-1, 1, 3)
    return np.asarray(canvas, np.float32)


def _noise(generator: Generator, height: int, width: int, grain: float) -> Floats:
    """Smooth noise of mean 0 and deviation 1 with two octaves; grain is its wavelength in px."""
    total = np.zeros((height, width), np.float32)
    for octave in (1, 2):
        shape = (max(2, int(height * octave / grain)), max(2, int(width * octave / grain)))
        coarse = generator.standard_normal(shape).astype(np.float32)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) / octave
    return np.asarray((total - total.mean()) / (total.std() + 1e-6), np.float32)


def _draw_clutter(generator: Generator, canvas: Floats) -> None:
    """Things that belong to no class: bars, blots and lines."""
    height, width = canvas.shape[:2]
    for _ in range(generator.integers(0, 7)):
        kind = generator.integers(3)
        mask = np.zeros((height, width), np.uint8)
        center = generator.uniform(0, (width, height))
        length = generator.uniform(0.05, 0.3) * width
        if kind == 0:
            box = (tuple(center), (length, length / generator.uniform(4, 10)), generator.uniform(0, 180))
            cv2.fillPoly(mask, [cv2.boxPoints(box).astype(np.int32)], 1)
        elif kind == 1:
            turns = np.sort(generator.uniform(0, 2 * np.pi, 9))
            radii = length / 2 * generator.uniform(0.35, 1, (9, 1))
            points = center + radii * _rays(turns)
            cv2.polylines(mask, [points.astype(np.int32)], True, 1, int(generator.integers(1, 4)))
        else:
            points = center + np.cumsum(generator.normal(0, length / 3, (6, 2)), 0)
            cv2.polylines(mask, [points.astype(np.int32)], False, 1, int(generator.integers(1, 4)))
        _paint(generator, canvas, mask.astype(bool))


def _paint(generator: Generator, canvas: Floats, mask: NDArray[np.bool_]) -> None:
    """Fill a mask with a shaded, perhaps striped or outlined color that differs from what it covers."""
    if not mask.any():
        return
    below = canvas[mask].mean(0)
    colors = generator.uniform(10, 245, (16, 3))
    color = colors[np.argmax(np.abs(colors - below).max(1) > generator.uniform(60, 120))]
    rows, columns = np.nonzero(mask)
    turn = generator.uniform(0, 2 * np.pi)
    along = np.cos(turn) * columns + np.sin(turn) * rows
    shade = (along - along.mean()) / max(np.ptp(along), 1) * generator.uniform(0, 60)
    if generator.random() < 0.3:
        shade = shade + 14 * np.sign(np.sin(along * generator.uniform(0.4, 1.2)))
    canvas[rows, columns] = color + shade[:, None]
    if generator.random() < 0.4:
        inside = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=1).astype(bool)
        canvas[mask & ~inside] = color * generator.uniform(0.2, 0.6)


def _expose(generator: Generator, canvas: Floats) -> NDArray[np.uint8]:
    """What a camera adds: light from one side, a soft lens, noise."""
    height, width = canvas.shape[:2]
    across, down = np.linspace(-0.5, 0.5, width), np.linspace(-0.5, 0.5, height)[:, None]
    light = 1 + generator.uniform(-0.4, 0.4) * across + generator.uniform(-0.4, 0.4) * down
    exposed = cv2.GaussianBlur(canvas, (0, 0), generator.uniform(0.4, 0.9)) * light[..., None]
    exposed = exposed + generator.uniform(1, 7) * generator.standard_normal(canvas.shape)
    return np.clip(exposed, 0, 255).round().astype(np.uint8)
