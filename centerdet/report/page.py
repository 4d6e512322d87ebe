"""The HTML file of a report: one file that contains its script, style, and images, and loads nothing else.

A Content Security Policy allows only this script and style, by their hashes, and images from data: URIs.
"""

import base64
import hashlib
import io
import json
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..errors import CenterdetError, WriteError, requires
from ..files import new_folder, write_atomic
from ..images import load, resize
from ..text import plural

__all__ = ["check_folder", "render", "write_report"]

FILES = ("report.html", "report.json")
SIDE = 224, 144  # px: maximum and minimum of a crop's longer side
MARGIN = 0.25  # around the boxes, as a share of their longer side
QUALITY = 60


class Crop(NamedTuple):
    """A region of an image: its origin in the image, its scale, its size (height, width), and its data: URI."""

    left: int
    top: int
    scale: float
    size: tuple[int, int]
    address: str


def check_folder(folder: str | Path) -> None:
    """Refuse a folder with anything but an earlier report, and a missing jinja2."""
    if Path(folder).exists() and not Path(folder).is_dir():
        raise WriteError(f"{folder}: expected a folder, got a file")
    strangers = sorted({entry.name for entry in Path(folder).glob("*")} - {*FILES})
    if strangers:
        raise WriteError(f"{folder}: expected a new or empty folder, or an earlier report; got {strangers[0]} in it")
    with requires("centerdet[report]", "the report"):
        import jinja2  # noqa: F401


def write_report(folder: str | Path, report: dict[str, Any]) -> None:
    """Write report.html and report.json into a new folder, or replace an earlier report.

    report: of `build_report`. The page lists images that cannot be read.
    """
    check_folder(folder)
    earlier = any(Path(folder, name).exists() for name in FILES)
    contents = render(report), json.dumps(report, indent=1)
    with nullcontext(Path(folder)) if earlier else new_folder(folder) as place:
        for name, content in zip(FILES, contents, strict=True):
            write_atomic(place / name, content.encode())


def render(report: dict[str, Any]) -> str:
    """The HTML page of a `build_report` dict; reads and embeds the images of its galleries."""
    import jinja2

    parts = files(__package__)
    script, style = (parts.joinpath("page", name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"percent": _percent, "number": _number, "plural": plural}
    template = environment.from_string(parts.joinpath("page", "page.html").read_text(encoding="utf-8"))
    crops, unread = crop_items([item for gallery in report["galleries"].values() for item in gallery["items"]])
    cards = iter(crops)
    galleries = {
        key: {**gallery, "cards": [(item, next(cards)) for item in gallery["items"]]}
        for key, gallery in report["galleries"].items()
    }
    charts = {key: value for key, value in report.items() if key != "galleries"}
    return template.render(
        report=report, galleries=galleries, unread=unread, script=script, style=style,
        hashes={name: _hash(text) for name, text in (("script", script), ("style", style))},
        data=json.dumps(charts).replace("<", "\\u003c"),
    )  # fmt: skip


def crop_items(items: Sequence[dict[str, Any]]) -> tuple[list[Crop | None], list[str]]:
    """The crop of each item (None: unreadable), and the error of each image that cannot be read."""
    by_image: dict[str, list[int]] = {}
    for number, item in enumerate(items):
        by_image.setdefault(item["image"], []).append(number)

    def crop_image(path: str) -> list[Crop] | str:
        try:
            pixels = load(path)
        except CenterdetError as error:
            return str(error)
        return [_crop(pixels, items[number]["boxes"]) for number in by_image[path]]

    crops: list[Crop | None] = [None] * len(items)
    unread = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for path, result in zip(by_image, pool.map(crop_image, by_image), strict=True):
            if isinstance(result, str):
                unread.append(result)
                continue
            for number, crop in zip(by_image[path], result, strict=True):
                crops[number] = crop
    return crops, unread


def _crop(pixels: np.ndarray, boxes: Sequence[dict[str, Any]]) -> Crop:
    """The image around the main boxes of an item; its shorter side is at least 3/4 of the boxes' longer side."""
    height, width = pixels.shape[:2]
    main = np.array([box["box"] for box in boxes if box["main"]]).reshape(-1, 4)
    low, high = np.append(main[:, :2].min(0), main[:, 2:].max(0)).reshape(2, 2)
    side = np.maximum(high - low, 0.75 * (high - low).max() + 16) + 2 * MARGIN * (high - low).max()
    middle = (low + high) / 2
    left, top = (int(edge) for edge in np.clip(np.floor(middle - side / 2), 0, [width - 1, height - 1]))
    right, bottom = (int(edge) for edge in np.clip(np.ceil(middle + side / 2), [left + 1, top + 1], [width, height]))
    region = np.ascontiguousarray(pixels[top:bottom, left:right])
    longer = max(region.shape[:2])
    scale = min(1.0, SIDE[0] / longer) if longer > SIDE[1] else SIDE[1] / longer
    size = max(1, round(region.shape[0] * scale)), max(1, round(region.shape[1] * scale))
    file = io.BytesIO()
    Image.fromarray(resize(region, size[1], size[0])).save(file, "WEBP", quality=QUALITY, method=2)
    return Crop(left, top, scale, size, f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}")


def _hash(text: str) -> str:
    """The CSP source expression that allows an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}".replace("-0.0", "0.0")  # noqa: RUF001


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"  # noqa: RUF001
