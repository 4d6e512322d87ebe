"""What can be wrong in a dataset's files, told in one way: readers raise the first problem, `check` collects all.

A reader gets a `Report` function. `fail` raises, so that nothing wrong is read; a list's `append` goes on without the
object or image concerned. Notes are no errors: what they are about is read either way.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import AnnotationError, CenterdetError, DataError, ImageError

__all__ = ["KINDS", "NOTES", "Problem", "Report", "fail", "leads_out"]

KINDS: dict[str, type[CenterdetError]] = {
    "broken annotation": AnnotationError,
    "broken image": ImageError,
    "missing annotation": DataError,
    "missing image": DataError,
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
    "repeated image",
    "near-duplicate",
    "no label file",
    "unpaired file",
    "class left out",
)
"""Kinds that ask for a look."""


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


def leads_out(text: str) -> bool:
    """Whether a name from a file could lead out of its folder: absolute, with a drive, or through `..`."""
    parts = re.split(r"[/\\]", text)
    return ".." in parts or not parts[0] or "\0" in text or re.match(r"[A-Za-z]:[/\\]", text) is not None
