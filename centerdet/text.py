"""Words for messages and tables: plurals, the nearest known name, aligned columns."""

import difflib
import math
from collections.abc import Iterable, Sequence

__all__ = ["as_tuple", "explain", "format_percent", "format_table", "nearest", "plural"]

FEW = 20
"""Names that a message lists at most."""


def as_tuple(names: str | Iterable[str]) -> tuple[str, ...]:
    """Names as a tuple; a single string is one name."""
    return (names,) if isinstance(names, str) else tuple(names)


def explain(error: Exception) -> str:
    """The text of an error, without the path that an `OSError` repeats."""
    return str(getattr(error, "strerror", None) or error)


def plural(number: int, noun: str) -> str:
    """A count with its noun: 1 image, 2 images, 1,000 boxes, 2 classes."""
    ending = "" if number == 1 else "es" if noun.endswith(("s", "x", "ch")) else "s"
    return f"{number:,} {noun}{ending}"


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the most similar known one, else the first few."""
    known = list(known)
    if matches := difflib.get_close_matches(name, known, 1):
        return f"did you mean {matches[0]!r}?"
    return f"known are {', '.join(map(repr, known[:FEW])) or 'none'}{', …' * (len(known) > FEW)}"


def format_percent(value: float) -> str:
    """A number in percent to one digit, "-" for NaN."""
    return "-" if math.isnan(value) else f"{value:.1f}"


def format_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Plain text in aligned columns, the first aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    lines = []
    for first, *others in (columns, *rows):
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([f"{first:<{widths[0]}}", *cells]).rstrip())
    return "\n".join(lines)
