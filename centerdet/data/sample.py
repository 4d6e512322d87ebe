"""One image's annotation, and a dataset of them: what every reader yields and every writer takes.

Boxes are xyxy, 0-based, half-open, float64 pixels of the upright image (EXIF orientation applied).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import AnnotationError, DataError

if TYPE_CHECKING:
    from .pack import Pack

__all__ = ["Dataset", "Sample"]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One image and its objects; an image without objects is normal.

    Attributes:
        path: the image's file.
        boxes: (N, 4) float64.
        labels: (N,) int64, indices into the dataset's names.
        difficult: (N,) bool.
        crowd: (N,) bool; COCO's iscrowd.
        size: (height, width), or None where nothing states it.
        areas: (N,) float64 square pixels as COCO states them (of masks), or None: those of the boxes.
        left_out: the class of each object that a choice of classes left out.
        lost: other facts that the file states of the objects, each a class and a word: ("cat", "poses").
        packed: pack and number of the image as training reads it; path, boxes and size are those of the original.
    """

    path: Path
    boxes: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))
    labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    difficult: NDArray[np.bool_] = None  # type: ignore[assignment]
    crowd: NDArray[np.bool_] = None  # type: ignore[assignment]
    size: tuple[int, int] | None = None
    areas: NDArray[np.float64] | None = None
    left_out: Sequence[str] = ()
    lost: Sequence[tuple[str, str]] = ()
    packed: "tuple[Pack, int] | None" = None

    @property
    def ignored(self) -> NDArray[np.bool_]:
        """(N,): difficult or crowd, so neither an object nor background in training; VOC evaluation ignores both."""
        return self.difficult | self.crowd

    def __post_init__(self) -> None:
        count = len(self.boxes)
        for name in ("difficult", "crowd"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, np.zeros(count, bool))
        if self.boxes.shape != (count, 4):
            raise AnnotationError(f"{self.path}: boxes: expected shape (N, 4), got {self.boxes.shape}")
        for name in ("labels", "difficult", "crowd", "areas"):
            value = getattr(self, name)
            if value is not None and value.shape != (count,):
                raise AnnotationError(f"{self.path}: {name}: expected shape ({count},), got {value.shape}")


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Samples and the class names that their labels index, in the order of the source.

    `names` are the classes that are labeled in these images: any other class may be present without a box.
    Of names that were asked for, the source's own list of classes does not have the `unlabeled`.
    """

    samples: Sequence[Sample]
    names: tuple[str, ...]
    unlabeled: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names):
            raise DataError(f"names: expected each class once, got {list(self.names)}")

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def left_out(self) -> Counter[str]:
        """Class -> number of its objects that a choice of classes left out."""
        return Counter(name for sample in self.samples for name in sample.left_out)

    @property
    def lost(self) -> Counter[str]:
        """Other facts that the files state of objects, such as poses -> their number."""
        return Counter(what for sample in self.samples for _, what in sample.lost)
