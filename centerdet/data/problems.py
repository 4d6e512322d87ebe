"""What can be wrong in a data set's files, told in one way: readers raise the first problem, `check` collects all.

A reader gets a `Report` function. `fail` raises, so that nothing wrong is read; a list's `append` goes on without the
object or picture concerned. Notes are no errors: what they are about is read either way.
"""

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..errors import AnnotationError, CenterdetError, DataError, ImageError

__all__ = ["KINDS", "NOTES", "Problem", "Report", "fail", "leads_out", "nearest", "plural"]

KINDS: dict[str, type[CenterdetError]] = {
    "broken annotation": AnnotationError,
    "broken picture": ImageError,
    "missing annotation": DataError,
    "missing picture": DataError,
    "listed twice": DataError,
    "refused path": DataError,
    "empty split": DataError,
    "duplicate id": AnnotationError,
    "dangling id": AnnotationError,
    "unknown class": AnnotationError,
    "not a number": AnnotationError,
    "inverted box": AnnotationError,
    "box outside": AnnotationError,
}
"""Every kind of problem that a reader finds, and the error that it raises then."""

NOTES = (
    "tiny box",
    "duplicate box",
    "repeated picture",
    "near-duplicate",
    "no label file",
    "unpaired file",
    "class left out",
)
"""Kinds that ask for a look."""

FEW = 20
"""Names that a message lists at most."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: its kind, where (file, file:line or file: object n) and what exactly."""

    kind: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


Report = Callable[[Problem], None]


def fail(problem: Problem) -> None:
    """Report a problem by raising it; a note passes."""
    if problem.kind not in NOTES:
        raise KINDS[problem.kind](str(problem))


def plural(number: int, what: str) -> str:
    """A number of things in words: 1 picture, 2 pictures."""
    return f"{number} {what}{'s' * (number != 1)}"


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that an unknown one was meant for, as the end of a message; the first few where none is alike."""
    known = list(known)
    if found := difflib.get_close_matches(name, known, 1):
        return f"the nearest known is {found[0]!r}"
    return f"known are {', '.join(map(repr, known[:FEW])) or 'none'}{', …' * (len(known) > FEW)}"


def leads_out(text: str) -> bool:
    """Whether a name from a file could lead out of its folder: absolute, with a drive, or through `..`."""
    parts = re.split(r"[/\\]", text)
    return ".." in parts or not parts[0] or "\0" in text or re.match(r"[A-Za-z]:[/\\]", text) is not None
