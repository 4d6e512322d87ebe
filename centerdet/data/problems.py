"""What can be wrong in a dataset's files, reported in one way: some problems raise, the others are counted.

A reader calls a `Report` with each `Problem`. `Notes` raises errors and counts the rest, one line a kind; `fail` raises
the first of all but notes; a list's `append` collects them, as `check` does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ..errors import AnnotationError, CenterdetError, DataError, ImageError

__all__ = ["KINDS", "NOTES", "Effect", "Kind", "Notes", "Problem", "Report", "fail", "val_hint"]

Effect = Literal["refused", "left out", "repaired", "noted", "passed over", "listed by check"]
"""What a problem leads to: "refused" raises; an image or object that it concerns is "left out" or "repaired"; "noted"
is read as it is; "passed over" are hidden files and "listed by check" what may be right, both fine even when strict."""


class Kind(NamedTuple):
    """The error that a kind of problem raises, and its effect where it need not raise."""

    error: type[CenterdetError]
    effect: Effect


KINDS: dict[str, Kind] = {
    "refused path": Kind(DataError, "refused"),
    "empty split": Kind(DataError, "refused"),
    "listed twice": Kind(DataError, "refused"),
    "unknown class": Kind(AnnotationError, "refused"),
    "wrong size": Kind(DataError, "refused"),
    "transposed size": Kind(DataError, "refused"),
    "broken annotation": Kind(AnnotationError, "left out"),
    "broken image": Kind(ImageError, "left out"),
    "missing annotation": Kind(DataError, "left out"),
    "missing image": Kind(DataError, "left out"),
    "duplicate id": Kind(AnnotationError, "left out"),
    "dangling id": Kind(AnnotationError, "left out"),
    "unlisted image": Kind(AnnotationError, "left out"),
    "not a number": Kind(AnnotationError, "left out"),
    "inverted box": Kind(AnnotationError, "left out"),
    "no box": Kind(AnnotationError, "left out"),
    "box outside": Kind(AnnotationError, "repaired"),
    "odd value": Kind(AnnotationError, "repaired"),
    "rescaled boxes": Kind(DataError, "repaired"),
    "moved path": Kind(DataError, "noted"),
    "box of a polygon": Kind(AnnotationError, "noted"),
    "extra column": Kind(AnnotationError, "noted"),
    "foreign file name": Kind(AnnotationError, "noted"),
    "no label file": Kind(DataError, "noted"),
    "shared label file": Kind(DataError, "noted"),
    "repeated in list": Kind(DataError, "noted"),
    "similar classes": Kind(DataError, "noted"),
    "class left out": Kind(DataError, "noted"),
    "file passed over": Kind(DataError, "noted"),
    "hidden file": Kind(DataError, "passed over"),
    "tiny box": Kind(AnnotationError, "listed by check"),
    "duplicate box": Kind(AnnotationError, "listed by check"),
    "repeated image": Kind(DataError, "listed by check"),
    "near-duplicate": Kind(DataError, "listed by check"),
    "unpaired file": Kind(DataError, "listed by check"),
}
"""Every kind of problem that readers and `check` report; `check` has a few more, which are errors."""

NOTES = tuple(kind for kind, (_, effect) in KINDS.items() if effect in ("noted", "passed over", "listed by check"))
"""Kinds that are no errors for `check`: they ask for a look."""

IMAGES = ("broken image", "missing annotation", "missing image")
"""Kinds that leave out an image with all its objects."""

SUBSET = ("unlisted image",)
"""Kinds that leave out any number of objects for a good reason: the file lists a part of the images it annotates."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: its kind, where (file, file:line or file: object n), what exactly, and its effect."""

    kind: str
    where: str
    what: str
    effect: str = ""

    def __post_init__(self) -> None:
        if not self.effect:
            object.__setattr__(self, "effect", KINDS[self.kind].effect if self.kind in KINDS else "refused")

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"

    def to_error(self) -> CenterdetError:
        """The exception of its kind."""
        return KINDS[self.kind].error(str(self))


Report = Callable[[Problem], None]


def fail(problem: Problem) -> None:
    """Report a problem by raising it; notes pass."""
    if problem.kind not in NOTES:
        raise problem.to_error()


class Notes:
    """A report that raises what is refused and counts the rest, in constant memory.

    strict: raise notes as well, but for hidden files and what `check` lists.
    """

    def __init__(self, strict: bool = False) -> None:
        self.strict = strict
        self.counts: dict[tuple[str, str], int] = {}
        self.examples: dict[tuple[str, str], Problem] = {}

    def __call__(self, problem: Problem) -> None:
        if problem.effect == "refused" or (self.strict and problem.effect not in ("passed over", "listed by check")):
            raise problem.to_error()
        if problem.effect != "listed by check":
            key = problem.kind, problem.effect
            self.counts[key] = self.counts.get(key, 0) + 1
            self.examples.setdefault(key, problem)

    def lines(self) -> list[str]:
        """One line for each kind: its count and an example."""
        return [
            f"{kind}: {number:,} {effect}, such as {self.examples[kind, effect]}"
            for (kind, effect), number in self.counts.items()
        ]

    def refuse_remains(self, images: int, objects: int) -> None:
        """Raise the first problem again if more images or objects were left out than the given numbers that remain."""
        for of_images, remaining in ((True, images), (False, objects)):
            keys = [key for key in self.counts if key[1] == "left out" and (key[0] in IMAGES) == of_images]
            keys = [key for key in keys if key[0] not in SUBSET]
            if sum(self.counts[key] for key in keys) > remaining:
                raise self.examples[keys[0]].to_error()


def val_hint(split: str) -> str:
    """The end of a message that there is no such split."""
    return ": pass --val '' to train without validation" if split == "val" else ""
