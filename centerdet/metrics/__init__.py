"""Average precision, exact to the official definitions; pure NumPy."""

from .accumulator import Accumulator
from .coco import CocoResult, coco_evaluate
from .voc import VocCurve, VocMatch, VocResult, voc_evaluate, voc_match

__all__ = [
    "Accumulator",
    "CocoResult",
    "VocCurve",
    "VocMatch",
    "VocResult",
    "coco_evaluate",
    "voc_evaluate",
    "voc_match",
]
