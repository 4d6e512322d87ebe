"""One annotation of PASCAL VOC, parsed and written; the one place that knows how VOC counts pixels.

A `bndbox` is 1-based and inclusive; a box here is 0-based and half-open: (xmin - 1, ymin - 1, xmax, ymax), and back.
"""

from collections.abc import Sequence
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .sample import Sample

__all__ = ["annotation_xml", "from_corners", "to_corners"]

SIDES = ("xmin", "ymin", "xmax", "ymax")

SNAP = 1e-3
"""Pixels from an integer within which a side is written as it: 113.9999 is 113 to readers that cut decimals off.
Rounding YOLO's fractions moves a side by 0.75 units of the last digit at most: with six digits this brings integers
back from images up to 1,333 px, with the eight that `write_yolo` has from those up to 133,333 px."""


def from_corners(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """VOC's (xmin, ymin, xmax, ymax) -> boxes, (N, 4)."""
    return corners - np.array([1.0, 1.0, 0.0, 0.0])


def to_corners(boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    """Boxes -> VOC's (xmin, ymin, xmax, ymax), (N, 4)."""
    return boxes + np.array([1.0, 1.0, 0.0, 0.0])


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
    return "\n".join([*lines, "</annotation>", ""]).encode()
