"""From what a file says of a image's objects to a `Sample`, with the same rules for every format."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ImageError
from ..images import read_size
from ..text import nearest
from .problems import Problem, Report
from .sample import Sample

__all__ = ["OVERHANG", "TINY", "Record", "build_sample"]

OVERHANG = 1.0
"""Pixels that a box may stick out of its image: tools that count from 0 and from 1 differ by one. It is clipped."""

TINY = 4.0
"""Pixels of a side below which a box gets a note: less than a detector sees after any shrinking."""


@dataclass(frozen=True, slots=True)
class Record:
    """One object: where the file tells it, its class, its box (0-based, half-open) and that in the file's numbers.

    lost: what else the file states of it, as in `Dataset.lost`. hint: the end of a message that it lies outside.
    """

    where: str
    name: str
    box: tuple[float, float, float, float]
    given: Sequence[object]
    difficult: bool = False
    crowd: bool = False
    lost: Sequence[str] = ()
    hint: str = ""


def build_sample(
    path: Path, size: tuple[int, int] | None, records: Sequence[Record], index: Mapping[str, int], report: Report
) -> Sample | None:
    """A image's sample without the objects that get reported; None where the image cannot even tell its size.

    The image's header is read only where the annotation states no (height, width) and there are boxes to hold
    against it.
    """
    if size is None and records:
        try:
            size = read_size(path)
        except ImageError as error:
            report(Problem("broken image", str(path), str(error).removeprefix(f"{path}: ")))
            return None
    boxes: list[tuple[float, float, float, float]] = []
    rows: list[tuple[int, bool, bool]] = []
    lost: list[tuple[str, str]] = []
    seen = set()
    for record in records:
        if record.name not in index:
            what = f"unknown class {record.name!r}, {nearest(record.name, index)}"
            report(Problem("unknown class", record.where, what))
            continue
        box = _clip(record, size or (0, 0), report)
        if box is not None:
            sides = box[2] - box[0], box[3] - box[1]
            if min(sides) < TINY:
                what = f"{record.name} of {sides[0]:.4g} x {sides[1]:.4g} px"
                report(Problem("tiny box", record.where, what))
            if (record.name, box) in seen:
                report(Problem("duplicate box", record.where, f"{record.name} has the box of another {record.name}"))
            seen.add((record.name, box))
            boxes.append(box)
            rows.append((index[record.name], record.difficult, record.crowd))
            lost += [(record.name, what) for what in record.lost]
    columns = np.array(rows, np.int64).reshape(-1, 3)
    difficult, crowd = columns[:, 1:].astype(bool).T.copy()
    labels = columns[:, 0].copy()
    return Sample(path, np.array(boxes, np.float64).reshape(-1, 4), labels, difficult, crowd, size, lost=lost)


def _clip(record: Record, size: tuple[int, int], report: Report) -> tuple[float, float, float, float] | None:
    (left, top, right, bottom), (height, width) = record.box, size
    told = f"box ({', '.join(map(str, record.given))})"
    if not all(map(math.isfinite, record.box)):
        report(Problem("not a number", record.where, f"{told} is not finite"))
    elif right <= left or bottom <= top:
        report(Problem("inverted box", record.where, f"{told} has no width or no height"))
    else:
        clipped = (max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height)))
        overhang = max(-left, -top, right - width, bottom - height)
        if overhang <= OVERHANG and clipped[0] < clipped[2] and clipped[1] < clipped[3]:
            return clipped
        what = f"{told} lies outside the image of {width} x {height} px{record.hint}"
        report(Problem("box outside", record.where, what))
    return None
