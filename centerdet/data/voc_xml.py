"""One annotation of PASCAL VOC, parsed and written; the one place that knows how VOC counts pixels.

A `bndbox` is 1-based and inclusive; a box here is 0-based and half-open: (xmin - 1, ymin - 1, xmax, ymax), and back.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, ParseError
from xml.sax.saxutils import escape

import defusedxml.ElementTree
import numpy as np
from defusedxml.common import DefusedXmlException
from numpy.typing import NDArray

from ..errors import DataError
from ..orientation import Box
from ..text import explain
from .problems import Problem, Report
from .records import Record, Unreadable, to_flag
from .sample import Sample

__all__ = ["Annotation", "annotation_xml", "from_corners", "parse_annotation", "to_corners"]

LOST = {
    "pose": "poses", "truncated": "truncated flags", "occluded": "occluded flags", "part": "parts",
    "polygon": "polygons", "attributes": "attributes", "actions": "actions",
}  # fmt: skip
"""Elements of an object that samples do not hold, and what they are called where they are counted."""

PLAIN = re.compile(rb"""\s*(<\?xml\s[^>]*?(encoding=["'](utf-8|us-ascii)["'])?\s*\?>)?\s*<annotation""", re.IGNORECASE)

SIDES = ("xmin", "ymin", "xmax", "ymax")

SNAP = 1e-3
"""Pixels from an integer within which a side is written as it: 113.9999 is 113 to readers that cut decimals off.
Rounding YOLO's fractions moves a side by 0.75 units of the last digit at most: with six digits this brings integers
back from images up to 1,333 px, with the eight that `write_yolo` has from those up to 133,333 px."""


def from_corners(xmin: float, ymin: float, xmax: float, ymax: float) -> Box:
    """VOC's corners as a box."""
    return xmin - 1, ymin - 1, xmax, ymax


def to_corners(boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    """Boxes as VOC's (xmin, ymin, xmax, ymax), (N, 4)."""
    return np.asarray(boxes + np.array([1.0, 1.0, 0.0, 0.0]), np.float64)


def annotation_xml(
    sample: Sample, names: Sequence[str], *, filename: str | None = None, size: tuple[int, int] | None = None
) -> bytes:
    """The annotation of a sample as a VOC file; sides within `SNAP` of an integer are written as that integer.

    filename: the image's, else the sample's. size: (height, width), else the sample's, which must then be known.
    A crowd region gets an element `crowd`, which others ignore.
    """
    if (size := size or sample.size) is None:
        raise DataError(f"{sample.path}: expected the image's size (height, width), got None")
    height, width = size
    lines = ["<annotation>", f"\t<filename>{escape(filename or sample.path.name)}</filename>"]
    lines.append(f"\t<size><width>{width}</width><height>{height}</height><depth>3</depth></size>")
    boxes = sample.boxes.astype(np.float64)
    nearest = np.round(boxes)
    corners = to_corners(np.where(np.abs(boxes - nearest) <= SNAP, nearest, boxes)).tolist()
    for box, label, difficult, crowd in zip(
        corners, sample.labels.tolist(), sample.difficult, sample.crowd, strict=True
    ):
        pairs = zip(SIDES, box, strict=True)
        sides = "".join(f"<{side}>{repr(value).removesuffix('.0')}</{side}>" for side, value in pairs)
        lines += ["\t<object>", f"\t\t<name>{escape(names[label])}</name>"]
        lines.append(f"\t\t<difficult>{int(difficult)}</difficult>")
        lines += ["\t\t<crowd>1</crowd>"] if crowd else []
        lines += [f"\t\t<bndbox>{sides}</bndbox>", "\t</object>"]
    text = "\n".join([*lines, "</annotation>", ""])
    return text.encode(errors="backslashreplace")  # XML holds no bytes that are not UTF-8; the stem finds the image


@dataclass(frozen=True, slots=True)
class Annotation:
    """One parsed file: the file name that it states, without folders, its (height, width) and objects."""

    filename: str
    size: tuple[int, int] | None
    objects: list[Record]


def parse_annotation(path: Path, report: Report) -> Annotation | None:
    """An annotation as its file states it; None where it cannot be used at all."""
    try:
        content = path.read_bytes()
        tree = _parse_xml(content)
    except (ParseError, ValueError, LookupError, OSError) as error:
        cause = f"{'cannot be read' if isinstance(error, OSError) else 'broken XML'}: {explain(error)}"
        cause = "DOCTYPE and ENTITY are refused" if isinstance(error, DefusedXmlException) else cause
        report(Problem("broken annotation", str(path), cause))
        return None
    if tree.tag != "annotation":
        report(Problem("broken annotation", str(path), f"expected the element annotation, got {tree.tag!r:.50}"))
        return None
    elements = tree.findall("object")
    lines = [content.count(b"\n", 0, match.start()) + 1 for match in re.finditer(rb"<object[\s>]", content)]
    known = len(lines) == len(elements)  # not in UTF-16, nor with an object in a comment
    objects = []
    for number, element in enumerate(elements, 1):
        where = f"{path}:{lines[number - 1]}: object {number}" if known else f"{path}: object {number}"
        try:
            objects.append(_parse_object(element, where, report))
        except Unreadable as error:
            report(Problem("broken annotation", where, str(error)))
    filename = (tree.findtext("filename") or "").strip().replace("\\", "/").rpartition("/")[2]
    return Annotation(filename, _parse_size(tree), objects)


def _parse_xml(content: bytes) -> Element:
    """The root element. Without `<!` there is no DOCTYPE and no entity, and the plain parser, twice as fast, is safe.

    That holds only where the bytes are read as ASCII: no UTF-16, and no declared encoding that maps others to `<!`.
    """
    if b"<!" not in content and b"\0" not in content and PLAIN.match(content):
        return ElementTree.fromstring(content)  # noqa: S314
    root: Element = defusedxml.ElementTree.fromstring(content, forbid_dtd=True)
    return root


def _parse_size(tree: Element) -> tuple[int, int] | None:
    """(height, width); None where it is missing, unreadable or zero, as some tools write it."""
    try:
        height, width = (int(float(tree.findtext(f"size/{name}") or 0)) for name in ("height", "width"))
    except (ValueError, OverflowError):
        return None
    return (height, width) if height > 0 and width > 0 else None


def _parse_object(element: Element, where: str, report: Report) -> Record:
    texts = {child.tag: child.text or "" for child in element}
    name = texts.get("name", "").strip()
    if not name:
        raise Unreadable("expected a name, got none")
    bounds = element.find("bndbox")
    sides = {} if bounds is None else {child.tag: child.text for child in bounds}
    corners = []
    for side in SIDES:
        try:
            corners.append(float(sides[side] or ""))
        except (KeyError, ValueError):
            got = repr(sides[side]) if side in sides else "no such element"
            raise Unreadable(f"bndbox/{side}: expected a number, got {got}") from None
    difficult, crowd = (to_flag(texts.get(flag, "0").strip(), flag, where, report) for flag in ("difficult", "crowd"))
    lost = [LOST[child.tag] for child in element if child.tag in LOST and _states_something(child)]
    return Record(where, name, from_corners(*corners), corners, difficult, crowd, lost=lost)


def _states_something(element: Element) -> bool:
    return len(element) > 0 or (element.text or "").strip().casefold() not in ("", "0", "unspecified")
