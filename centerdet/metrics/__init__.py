"""Average precision, exact to the official definitions; pure NumPy."""

from .voc import VocCurve, VocMatch, VocResult, voc_evaluate, voc_match

__all__ = ["VocCurve", "VocMatch", "VocResult", "voc_evaluate", "voc_match"]
