"""A contact sheet of augmented training images, with the boxes and heatmaps that the network is trained on."""

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ..data.sample import Dataset
from ..draw import color_of, draw_boxes
from ..errors import CenterdetError, DataError
from ..fonts import letters
from ..training.config import TrainConfig
from ..training.loader import Schedule, training_loader
from ..training.loop import training_images
from ..training.mixture import mix

__all__ = ["draw_sheet"]

COLUMNS = 4
TILE, GAP, HEAD = 400, 12, 64  # px
HEAT = 0.75  # opacity of a heatmap's peak
INK, GRAY = (40, 40, 40), (200, 200, 200)  # of text, and of objects that are neither trained on nor background


def draw_sheet(dataset: Dataset, config: TrainConfig, count: int = 16) -> NDArray[np.uint8]:
    """The first `count` images that training draws, at its last input size, with boxes and class heatmaps.

    They come from training's loader and codec with the config's seed. All tiles have the same size.
    """
    if not len(dataset):
        raise DataError("contact sheet: expected at least one readable image, got none")
    size, stride = config.sizes[-1], config.stride
    mixture = mix([dataset], balance=config.balance)
    images = training_images(mixture, replace(config, cache_images=False))
    [batch] = training_loader(
        images, mixture, Schedule(1, (size,)), batch=count, seed=config.seed, stride=stride, steps=range(1)
    )
    if isinstance(batch, CenterdetError):
        raise batch

    sides = [GAP + number * (TILE + GAP) for number in (min(count, COLUMNS), -(-count // COLUMNS))]
    sheet = Image.new("RGB", (sides[0], HEAD + sides[1]), "white")
    for number, (image, heatmap) in enumerate(zip(batch.images, batch.targets.heatmap, strict=True)):
        of_image = batch.image_index == number
        ignored, labels = batch.ignore[of_image].tolist(), batch.labels[of_image].tolist()
        tile = draw_boxes(
            _heat(image.permute(1, 2, 0).numpy(), heatmap.numpy()),
            batch.boxes[of_image].numpy() * (TILE / size),
            [dataset.names[label] for label in labels],
            [GRAY if ignore else color_of(label) for label, ignore in zip(labels, ignored, strict=True)],
            ignored,
        )
        row, column = divmod(number, COLUMNS)
        sheet.paste(Image.fromarray(tile), (GAP + column * (TILE + GAP), HEAD + GAP + row * (TILE + GAP)))
    words = (
        f"Training images at {size} x {size} px, cells of {stride} x {stride} px, seed {config.seed}",
        "color: class and its heatmap      white: the cell of an object      dashed: neither object nor background",
    )
    pen = ImageDraw.Draw(sheet)
    for line, text in enumerate(words):
        pen.text((GAP, GAP + 26 * line), text, INK, letters(20 - 2 * line), anchor="la")
    return np.array(sheet)


def _heat(image: NDArray[np.uint8], heatmap: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A tile of an image (S, S, 3), overlaid with its heatmap (C, G, G) in the classes' colors."""
    tile = cv2.resize(image, (TILE, TILE), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    for label in np.flatnonzero(heatmap.any((1, 2))).tolist():
        cells = cv2.resize(heatmap[label], (TILE, TILE), interpolation=cv2.INTER_NEAREST)[..., None] * HEAT
        tile += cells * (np.array(color_of(label), np.float32) - tile)
    step = TILE / heatmap.shape[-1]
    for row, column in np.argwhere((heatmap == 1).any(0)).tolist():
        start, stop = ((round(x * step), round(y * step)) for x, y in ((column, row), (column + 1, row + 1)))
        cv2.rectangle(tile, start, stop, (255.0, 255.0, 255.0))
    return tile.round().astype(np.uint8)
