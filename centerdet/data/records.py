"""From what a file states of images and objects to `Sample`s, with the same rules for every format."""

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import ImageError, MissingImageError
from ..images import read_header, read_size
from ..orientation import Box, turn_box
from ..text import nearest
from .problems import Problem, Report
from .sample import Dataset, Sample

__all__ = [
    "PLAIN",
    "Item",
    "ReadOptions",
    "Record",
    "assemble",
    "describe_mismatch",
    "report_similar",
    "to_flag",
    "to_number",
]

OVERHANG = 1.0
"""Pixels that a box may overhang its image without a word: tools that count from 0 and from 1 differ by one."""

TINY = 4.0
"""Pixels of a side below which a box gets a note: less than a detector sees after any shrinking."""

LARGEST = 1e9
"""Pixels beyond which a coordinate is no number that an image has."""


class Unreadable(Exception):
    """Why an object cannot be read; for `Problem`s, never for callers."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How a dataset is read.

    Attributes:
        repeats: an image that the splits list twice is an error ("refuse"), read as often ("keep"), which is repeated
            sampling in training, or read once ("drop").
        clip: cut boxes at the image's border; pycocotools and the VOC devkit evaluate them as they are.
        rescale: where the stated size is another than the image's, by one factor or the EXIF rotation, fit the boxes
            instead of refusing.
        allow_outside: read files that the dataset names outside its folder.
        need_images: leave out images that do not exist; else take their size from the annotations.
        progress: gets the images with their objects and yields them, to show how far the reading is.
    """

    repeats: Literal["refuse", "keep", "drop"] = "refuse"
    clip: bool = True
    rescale: bool = False
    allow_outside: bool = False
    need_images: bool = True
    progress: Callable[[Iterable["Item"]], Iterable["Item"]] = iter


PLAIN = ReadOptions()


@dataclass(frozen=True, slots=True)
class Record:
    """One object: where the file states it, its class, its box (0-based, half-open) and that in the file's numbers.

    area: as COCO states it. lost: what else the file states of it, as in `Dataset.lost`. hint: the end of a message
    that the box lies outside.
    """

    where: str
    name: str
    box: Box
    given: Sequence[object]
    difficult: bool = False
    crowd: bool = False
    area: float | None = None
    lost: Sequence[str] = ()
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """One image: where the file names it, its path, stated (height, width) and objects.

    fractions: boxes are in fractions of the image's sides, not in pixels.
    """

    where: str
    path: Path
    size: tuple[int, int] | None
    records: Sequence[Record]
    fractions: bool = False


def assemble(
    items: Iterable[Item],
    names: Sequence[str],
    options: ReadOptions,
    report: Report,
    listed: Iterable[str] | None = None,
) -> Dataset:
    """The dataset of these images, without those and the objects reported as left out; listed: the source's classes."""
    index = {name: label for label, name in enumerate(names)}
    samples: list[Sample] = []
    seen: dict[str, Sample | None] = {}
    for item in options.progress(items):
        if (path := os.path.normcase(item.path)) in seen:
            kind = "listed twice" if options.repeats == "refuse" else "repeated in list"
            once = ", and read once" if options.repeats == "drop" else ""
            report(Problem(kind, item.where, f"{item.path.stem!r} is in the splits already{once}"))
            again = seen[path]
            samples += [again] if options.repeats == "keep" and again is not None else []
            continue
        sample = _build(item, index, options, report)
        seen[path] = sample
        samples += [sample] if sample is not None else []
    labeled = set(names if listed is None else listed)
    return Dataset(samples, tuple(names), tuple(name for name in names if name not in labeled))


def _build(item: Item, index: Mapping[str, int], options: ReadOptions, report: Report) -> Sample | None:
    """An image's sample without the objects that are left out; None where the image cannot be used.

    The image's header is read only where there are boxes to hold against it.
    """
    path, size, records = item.path, item.size, item.records
    try:
        if records and (options.need_images or size is None):
            size = read_size(path)
        elif options.need_images and not os.path.isfile(path):
            raise MissingImageError(f"{path}: no such image")
    except ImageError as error:
        if isinstance(error, MissingImageError):
            report(Problem("missing image", item.where, f"no image {path}"))
        else:
            report(Problem("broken image", str(path), str(error).removeprefix(f"{path}: ")))
        return None
    if records and item.fractions:
        height, width = size or (1, 1)
        records = [replace(one, box=_scale(one.box, width, height)) for one in records]
    elif item.size is not None and size != item.size and size is not None:
        records = _rescale(item, size, options, report)
        if not records:
            return None
    kept: list[tuple[Record, Box]] = []
    seen = set()
    for record in records:
        if record.name not in index:
            what = f"unknown class {record.name!r}, {nearest(record.name, index)}"
            report(Problem("unknown class", record.where, what))
            continue
        box = _check_box(record, size or (0, 0), options.clip, report)
        if box is not None:
            across, down = box[2] - box[0], box[3] - box[1]
            if across < TINY or down < TINY:
                report(Problem("tiny box", record.where, f"{record.name} of {across:.4g} x {down:.4g} px"))
            if (record.name, box) in seen:
                report(Problem("duplicate box", record.where, f"{record.name} has the box of another {record.name}"))
            seen.add((record.name, box))
            kept.append((record, box))
    areas = None
    if any(record.area is not None for record, _ in kept):
        areas = np.array([
            (right - left) * (bottom - top) if record.area is None else record.area
            for record, (left, top, right, bottom) in kept
        ])  # fmt: skip
    return Sample(
        path,
        np.array([box for _, box in kept], np.float64).reshape(-1, 4),
        np.array([index[record.name] for record, _ in kept], np.int64),
        np.array([record.difficult for record, _ in kept], bool),
        np.array([record.crowd for record, _ in kept], bool),
        size,
        areas=areas,
        lost=[_pair(record.name, what) for record, _ in kept for what in record.lost] or (),
    )


@cache
def _pair(name: str, what: str) -> tuple[str, str]:
    """The pair, one object for all that are equal: most objects of a dataset lose the same."""
    return name, what


def _check_box(record: Record, size: tuple[int, int], clip: bool, report: Report) -> Box | None:
    """The box, clipped if asked for; None where it has no area or less than half of it lies in the image."""
    (left, top, right, bottom), (height, width) = record.box, size
    if left < right and top < bottom and left >= 0 and top >= 0 and right <= width and bottom <= height:
        return record.box
    stated = f"box ({', '.join(map(str, record.given))})"
    if not all(math.isfinite(side) and abs(side) < LARGEST for side in record.box):
        report(Problem("not a number", record.where, f"{stated} is not finite"))
        return None
    if right <= left or bottom <= top:
        report(Problem("inverted box", record.where, f"{stated} has no width or no height"))
        return None
    clipped = (max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height)))
    inside = max(0.0, clipped[2] - clipped[0]) * max(0.0, clipped[3] - clipped[1])
    usable = inside > 0 and 2 * inside >= (right - left) * (bottom - top)
    overhang = max(-left, -top, right - width, bottom - height)
    if overhang > OVERHANG or inside <= 0:
        what = f"{stated} lies outside the image of {width} x {height} px{record.hint}"
        report(Problem("box outside", record.where, what, "" if usable else "left out"))
    if inside <= 0 or (overhang > OVERHANG and not usable):
        return None
    return clipped if clip else record.box


def _scale(box: Box, across: float, down: float) -> Box:
    return box[0] * across, box[1] * down, box[2] * across, box[3] * down


def _rescale(item: Item, size: tuple[int, int], options: ReadOptions, report: Report) -> Sequence[Record]:
    """The objects in an image that has another size than the annotation states; none where that is not explained.

    An image that was resized after labeling has one factor for both sides, to the rounding of a pixel. One that was
    labeled without its EXIF rotation has it with the sides of the stored pixels.
    """
    kind, what = describe_mismatch(item.size or size, size)
    stated_height, stated_width = item.size or size
    explained = []
    for orientation in {1, read_header(item.path)[1]} - {2, 3, 4}:  # these leave the sides as they are
        height, width = size[::-1] if orientation >= 5 else size
        across, down = width / stated_width, height / stated_height
        if abs(stated_height * across - height) <= 1 or abs(stated_width * down - width) <= 1:
            explained.append((orientation, across, down))
    if len(explained) == 1:
        [(orientation, across, down)] = explained
        if options.rescale:
            report(Problem("rescaled boxes", str(item.path), what))
            boxes = [turn_box(_scale(one.box, across, down), orientation, size) for one in item.records]
            return [replace(one, box=box, area=None) for one, box in zip(item.records, boxes, strict=True)]
        cause = "labeled without their EXIF rotation" if orientation >= 5 else "resized after labeling"
        what += f": if the images were {cause}, pass rescale (--rescale)"
    report(Problem(kind, str(item.path), what, "left out" if options.rescale else ""))
    return () if options.rescale else item.records


def describe_mismatch(stated: tuple[int, int], size: tuple[int, int]) -> tuple[str, str]:
    """(kind, what) of the problem that an annotation states another (height, width) than the upright image has."""
    what = f"the annotation states {stated[1]} x {stated[0]} px, the upright image has {size[1]} x {size[0]}"
    return "transposed size" if stated == size[::-1] else "wrong size", what


def to_number(value: object, where: str, report: Report) -> float:
    """A number from a JSON file or text; one that is written as text in JSON is reported; NaN where it is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return math.nan
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return math.nan
    if isinstance(value, str):
        report(Problem("odd value", where, f"the text {value!r:.40} is read as {number:g}"))
    return number


FLAGS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False, "": False, "unspecified": False}


def to_flag(value: object, name: str, where: str, report: Report) -> bool:
    """A flag such as `difficult` or `iscrowd`; other spellings of yes and no than 1 and 0 are reported.

    Raises:
        Unreadable: its meaning is uncertain.
    """
    if value in (0, 1, "0", "1"):
        return value in (1, "1")
    text = "" if value is None else str(value).strip().casefold().removesuffix(".0")
    if text not in FLAGS:
        raise Unreadable(f"{name}: expected 0 or 1, got {value!r:.80}")
    if text not in ("0", "1"):
        report(Problem("odd value", where, f"{name} {value!r:.40} is read as {int(FLAGS[text])}"))
    return FLAGS[text]


def report_similar(where: Path, names: Sequence[str], report: Report) -> None:
    """Report classes whose names differ in case or spaces only, and names with spaces around them."""
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(" ".join(name.split()).casefold(), name)
        if other != name:
            what = f"the classes {other!r} and {name!r} differ in case or spaces only"
            report(Problem("similar classes", str(where), f"{what}: join them with convert --rename"))
        elif name != name.strip():
            what = f"the class {name!r} has spaces around it"
            report(Problem("similar classes", str(where), f"{what}: change it with convert --rename"))
