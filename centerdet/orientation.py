"""EXIF orientation: which side of an image is up, read of a file and applied to its pixels and to boxes in them."""

import struct
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Box", "read_orientation", "turn_box", "turn_pixels"]

Box: TypeAlias = tuple[float, float, float, float]

ORIENTATION = 0x0112  # the EXIF tag

FROM_BELOW, FROM_RIGHT = (3, 4, 7, 8), (2, 3, 6, 7)
"""Orientations with which the upright image's first row, or first column, is the last one; from 5 on, both swap."""


def read_orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where the EXIF data is missing or broken."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, LookupError, TypeError, struct.error):
        return 1
    return value if value in range(1, 9) else 1


def turn_pixels(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Stored pixels (H, W, 3) as upright ones; EXIF's orientation names the sides of row 0 and column 0."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in FROM_BELOW:
        pixels = pixels[::-1]
    if orientation in FROM_RIGHT:
        pixels = pixels[:, ::-1]
    return pixels


def turn_box(box: Box, orientation: int, size: tuple[int, int]) -> Box:
    """A box in stored pixels as that in the upright image of (height, width)."""
    left, top, right, bottom = (box[1], box[0], box[3], box[2]) if orientation >= 5 else box
    if orientation in FROM_BELOW:
        top, bottom = size[0] - bottom, size[0] - top
    if orientation in FROM_RIGHT:
        left, right = size[1] - right, size[1] - left
    return left, top, right, bottom
