"""Boxes and their labels on an image, readable on 100 px and on 6000 px.

Everything scales with the image, a class always has the same color, and no label leaves the image. Images are
RGB uint8 (H, W, 3); none is changed in place.
"""

import colorsys
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .errors import ConfigError, ImageError
from .files import write_atomic
from .fonts import Run, typeset
from .images import Source, load

if TYPE_CHECKING:
    from .detections import Detections

__all__ = ["color_of", "crop", "draw", "draw_boxes", "file_format", "plot", "write_image"]

Color = tuple[int, int, int]
Span = tuple[int, int, int, int]  # left, top, right, bottom, whole pixels, half-open

FORMATS = {
    ".bmp": "BMP", ".jpeg": "JPEG", ".jpg": "JPEG", ".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WEBP",
}  # fmt: skip

LINE, TEXT = 1 / 250, 1 / 38
"""Width of a line and height of letters, in fractions of the side of a square of the image's area."""


def draw(image: NDArray[np.uint8], detections: "Detections") -> NDArray[np.uint8]:
    """A copy of the image with the boxes, names and scores of its detections; the best are on top."""
    _check_size(image, detections)
    colors = [color_of(label) for label in detections.labels.tolist()]
    return draw_boxes(image, detections.boxes, [f"{one.name} {one.score:.2f}" for one in detections], colors)


def draw_boxes(
    image: NDArray[np.uint8],
    boxes: NDArray[np.floating],
    texts: Sequence[str],
    colors: Sequence[Color],
    dashed: Sequence[bool] | None = None,
) -> NDArray[np.uint8]:
    """A copy of the image with boxes (N, 4), a label and a color each; the first are on top."""
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    side = math.sqrt(canvas.width * canvas.height)
    line = max(1, round(side * LINE))
    spans = _to_spans(boxes, (canvas.height, canvas.width))
    for span, color, broken in reversed(list(zip(spans, colors, dashed or [False] * len(spans), strict=True))):
        left, top, right, bottom = span
        width = min(line, 1 + min(right - left, bottom - top) // 8)  # a small object stays visible
        if broken:
            _dash(pen, span, color, width)
        else:
            pen.rectangle((left, top, right - 1, bottom - 1), outline=color, width=width)
    taken: list[Span] = []
    labels = []
    for text, span, color in zip(texts, spans, colors, strict=True):
        runs, place = _place(text, span, side * TEXT, canvas.size, taken)
        taken.append(place)
        labels.append((runs, place, color))
    for runs, (left, top, right, bottom), color in reversed(labels):
        pen.rectangle((left, top, right - 1, bottom - 1), fill=color)
        across = float(left + _pad(runs))
        baseline = top + max(font.getmetrics()[0] for _, font in runs)
        for text, font in runs:
            pen.text((across, baseline), text, _ink(color), font, anchor="ls")
            across += font.getlength(text)
    return np.array(canvas)


def plot(
    detections: "Detections", out: str | Path | None = None, image: Source | None = None, *, color: str = "rgb"
) -> NDArray[np.uint8]:
    """`draw` on any kind of image, by default on the one at `detections.source`; `out`: a file to write as well."""
    if out is not None:
        file_format(out)
    drawn = draw(_open(detections, image, color), detections)
    if out is not None:
        write_image(out, drawn)
    return drawn


def file_format(path: str | Path) -> str:
    """The format that an image's file is written in, by its suffix."""
    kind = FORMATS.get(Path(path).suffix.lower())
    if kind is None:
        raise ConfigError(f"{path}: expected a file called *{', *'.join(FORMATS)}")
    return kind


def write_image(path: str | Path, image: NDArray[np.uint8]) -> None:
    """Write an image in its suffix's format."""
    kind = file_format(path)
    file = io.BytesIO()
    try:
        Image.fromarray(image).save(file, kind, **({"quality": 92} if kind in ("JPEG", "WEBP") else {}))
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: {kind} cannot hold {image.shape[0]} x {image.shape[1]} px: {error}") from error
    write_atomic(path, file.getvalue())


def crop(detections: "Detections", image: Source | None = None, *, color: str = "rgb") -> list[NDArray[np.uint8]]:
    """The part of the image under each box, to whole pixels outwards, RGB (h, w, 3), at least 1 x 1 px."""
    pixels = _open(detections, image, color)
    _check_size(pixels, detections)
    spans = _to_spans(detections.boxes, detections.size)
    return [pixels[top:bottom, left:right].copy() for left, top, right, bottom in spans]


def color_of(label: int) -> Color:
    """The color of a class: hues go round by the golden angle, so that neighboring labels differ most."""
    hue = (0.6 + label * (math.sqrt(5) - 1) / 2) % 1
    lightness = (0.52, 0.72, 0.36)[label % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.9)
    return round(255 * red), round(255 * green), round(255 * blue)


def _ink(color: Color) -> Color:
    """Black or white, whichever contrasts more (WCAG 2.2, relative luminance)."""
    linear = [part / 3294.6 if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in color]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)


def _pad(runs: list[Run]) -> int:
    return max(1, round(runs[0][1].size / 5))


def _place(text: str, box: Span, letters: float, size: tuple[int, int], taken: list[Span]) -> tuple[list[Run], Span]:
    """The label's text, without its score where it would cross half the image, and where it stands inside it.

    Above the box, else inside it at the top, else below: the first that hides no better object's label.
    """
    width, height = size
    runs, across = _measure(text, letters)
    if across > width / 2 and " " in text:
        runs, across = _measure(text.rpartition(" ")[0], letters)
    down = max(sum(font.getmetrics()) for _, font in runs)
    left = max(0, min(box[0], width - across))
    tops = [top for top in (box[1] - down, box[1], box[3]) if 0 <= top <= height - down]
    tops = tops or [max(0, min(box[1], height - down))]
    places = [(left, top, min(left + across, width), min(top + down, height)) for top in tops]
    return runs, next((place for place in places if not any(_meet(place, other) for other in taken)), places[0])


def _measure(text: str, letters: float) -> tuple[list[Run], int]:
    """A label's text of letters of so many px, and its width, px."""
    runs = typeset(text, letters)
    return runs, math.ceil(sum(font.getlength(part) for part, font in runs)) + 2 * _pad(runs)


def _meet(one: Span, other: Span) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _to_spans(boxes: NDArray[np.floating], size: tuple[int, int]) -> list[Span]:
    """The boxes to whole pixels outwards, clipped to the image of (height, width), at least 1 x 1 px."""
    limits = np.array(size[::-1])
    low = np.clip(np.floor(boxes[:, :2]), 0, limits - 1).astype(int)
    high = np.clip(np.ceil(boxes[:, 2:]), low + 1, limits).astype(int)
    return [(left, top, right, bottom) for left, top, right, bottom in np.hstack([low, high]).tolist()]


def _dash(pen: ImageDraw.ImageDraw, span: Span, color: Color, width: int) -> None:
    """A rectangle of broken lines, whose dashes begin at its corners."""
    left, top, right, bottom = span
    dash = 4 * width
    for x in range(left, right, 2 * dash):
        for y in (top, bottom - width):
            pen.rectangle((x, y, min(x + dash, right) - 1, y + width - 1), fill=color)
    for y in range(top, bottom, 2 * dash):
        for x in (left, right - width):
            pen.rectangle((x, y, x + width - 1, min(y + dash, bottom) - 1), fill=color)


def _open(detections: "Detections", image: Source | None, color: str) -> NDArray[np.uint8]:
    if image is None and detections.source is None:
        raise ImageError("no image to draw on: these detections were not read from a file: pass image=")
    return load(detections.source if image is None else image, color=color)  # type: ignore[arg-type]


def _check_size(image: NDArray[np.uint8], detections: "Detections") -> None:
    if image.shape != (*detections.size, 3):
        raise ImageError(f"expected the image of these detections, of {detections.size} px, got {image.shape}")
