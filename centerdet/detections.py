"""`Detections`: the objects detected in one image, as aligned arrays, and the formats that other programs read.

Law: arrays are checked once, read-only and best first; a selection of a `Detections` is a `Detections`. It contains no
image, so a million of them fit in memory. Boxes are xyxy px of the original image, 0-based, half-open.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from .boxes import convert
from .errors import ConfigError, DataError, requires
from .files import write_atomic
from .text import as_tuple, nearest

if TYPE_CHECKING:
    import pandas

    from .data.sample import Sample
    from .images import Source

__all__ = ["Detection", "Detections"]


class Detection(NamedTuple):
    """One object: box (x1, y1, x2, y2), score, label and the label's name."""

    box: tuple[float, float, float, float]
    score: float
    label: int
    name: str


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Detections:
    """The objects detected in one image, best first.

    Attributes:
        boxes: (N, 4) float32.
        scores: (N,) float32.
        labels: (N,) int64, indices into names.
        names: of all classes.
        size: (height, width) of the image.
        source: the image's path, if it was read from a file; ignored by `==`.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    size: tuple[int, int]
    source: str | None = None

    def __post_init__(self) -> None:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity, which is refused below
            boxes, scores = np.array(self.boxes, np.float32), np.array(self.scores, np.float32)
        labels, names = np.asarray(self.labels), as_tuple(self.names)
        boxes = boxes.reshape(-1, 4) if boxes.size == 0 else boxes
        if boxes.shape != (len(boxes), 4):
            raise DataError(f"boxes: expected shape (N, 4), got {boxes.shape}")
        for field, array in (("scores", scores), ("labels", labels)):
            if array.shape != (len(boxes),):
                raise DataError(f"{field}: expected shape ({len(boxes)},) to match boxes, got {array.shape}")
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise DataError("boxes, scores: expected finite numbers, got NaN or infinity")
        if (boxes[:, 2:] < boxes[:, :2]).any():
            raise DataError("boxes: expected xyxy with x1 <= x2 and y1 <= y2")
        if len(labels) and not (labels.dtype.kind in "iu" and 0 <= labels.min() <= labels.max() < len(names)):
            raise DataError(f"labels: expected integers from 0 to {len(names) - 1} (names), got {labels}")
        height, width = (int(side) for side in self.size)
        if min(height, width) < 1:
            raise DataError(f"size: expected (height, width) of at least 1 px, got {self.size}")
        order = np.argsort(-scores, kind="stable")
        arrays: dict[str, NDArray[Any]] = {"boxes": boxes[order], "scores": scores[order]}
        arrays["labels"] = labels.astype(np.int64)[order]
        for array in arrays.values():
            array.setflags(write=False)
        for field, value in {**arrays, "names": names, "size": (height, width)}.items():
            object.__setattr__(self, field, value)

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        rows = zip(_shortest(self.boxes), _shortest(self.scores), self.labels.tolist(), strict=True)
        return (Detection(tuple(box), score, label, self.names[label]) for box, score, label in rows)

    @overload
    def __getitem__(self, index: int) -> Detection: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | NDArray[Any]) -> "Detections": ...
    def __getitem__(self, index: int | slice | Sequence[int] | NDArray[Any]) -> "Detection | Detections":
        """One `Detection` by its number, or the `Detections` of a slice, a mask (N,) or an array of numbers."""
        if isinstance(index, int | np.integer):
            return next(iter(self[[int(index)]]))
        chosen = index if isinstance(index, slice) else np.asarray(index)
        if isinstance(chosen, np.ndarray) and not chosen.size:
            chosen = chosen.astype(np.int64)  # an empty list has no dtype of its own
        return replace(self, boxes=self.boxes[chosen], scores=self.scores[chosen], labels=self.labels[chosen])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Detections):
            return NotImplemented
        return (self.names, self.size) == (other.names, other.size) and all(
            np.array_equal(getattr(self, field), getattr(other, field)) for field in ("boxes", "scores", "labels")
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        objects = ", ".join(f"{one.name} {one.score:.2f}" for one in self[:5])
        return f"<Detections {len(self)} in {self.size[0]} x {self.size[1]} px: {objects}{', …' * (len(self) > 5)}>"

    @property
    def label_names(self) -> list[str]:
        """The name of each object's class, N of them."""
        return [self.names[label] for label in self.labels.tolist()]

    def filter(self, *, score: float | None = None, names: str | Sequence[str] | None = None) -> "Detections":
        """Those with at least this score, of these classes."""
        keep = np.ones(len(self), bool) if score is None else self.scores >= score
        if names is not None:
            chosen = as_tuple(names)
            for name in chosen:
                if name not in self.names:
                    raise ConfigError(f"names: no class {name!r}; {nearest(name, self.names)}")
            keep = keep & np.isin(self.labels, [self.names.index(name) for name in chosen])
        return self[keep]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; numbers have as many digits as float32 needs to be exact."""
        rows = zip(_shortest(self.boxes), _shortest(self.scores), self.labels.tolist(), self.label_names, strict=True)
        objects = [{"box": box, "score": score, "label": label, "name": name} for box, score, label, name in rows]
        return {"source": self.source, "height": self.size[0], "width": self.size[1], "objects": objects}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], names: Sequence[str]) -> "Detections":
        """The inverse of `to_dict` (or of `to_json`, parsed); names: of all classes, in the detector's order."""
        try:
            boxes, scores, labels, stated = (
                [row[key] for row in values["objects"]] for key in ("box", "score", "label", "name")
            )
            size, source = (values["height"], values["width"]), values["source"]
            detections = cls(boxes, scores, labels, as_tuple(names), size, source)  # type: ignore[arg-type]
        except KeyError as error:
            raise DataError(f"expected the keys of to_dict(), {error} is missing") from error
        except DataError:
            raise
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(f"expected the values of to_dict(): {error}") from error
        for row, (label, name) in enumerate(zip(labels, stated, strict=True)):
            if (expected := detections.names[label]) != name:
                raise DataError(
                    f"objects[{row}].name: expected {expected!r}, the name of label {label}, got {name!r}: pass the "
                    "names of the detector, in its order"
                )
        return detections

    def to_json(self) -> str:
        """`to_dict` as one line."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def to_pandas(self) -> "pandas.DataFrame":
        """A table with columns x1, y1, x2, y2, score, label, name."""
        with requires("centerdet[pandas]", "to_pandas()"):
            import pandas
        columns = {side: self.boxes[:, place] for place, side in enumerate(("x1", "y1", "x2", "y2"))}
        return pandas.DataFrame({**columns, "score": self.scores, "label": self.labels, "name": self.label_names})

    def to_supervision(self) -> Any:
        """A `supervision.Detections`, with the names of the classes under "class_name" for its annotators."""
        try:
            supervision = import_module("supervision")
        except ImportError as error:  # it, or a package that it imports, is missing
            raise ConfigError(f"to_supervision() needs supervision: pip install supervision ({error})") from error
        names = {"class_name": np.array(self.label_names, dtype=str)}
        return supervision.Detections(
            xyxy=self.boxes.copy(), confidence=self.scores.copy(), class_id=self.labels.copy(), data=names
        )

    def boxes_as(self, fmt: str) -> NDArray[np.float32]:
        """The boxes (N, 4) in another form: "xywh", "cxcywh" or "xyxy"; see `boxes.convert`."""
        return np.asarray(convert(self.boxes, "xyxy", fmt), np.float32)

    def to_sample(self, path: str | Path | None = None) -> "Sample":
        """An annotation of the image at `path`, else at `source`, for the writers in `centerdet.data`."""
        from .data.sample import Sample

        if path is None and self.source is None:
            raise ConfigError("path: expected the image's path, since these detections have no source")
        file = Path(path if path is not None else str(self.source))
        return Sample(file, self.boxes.astype(np.float64), self.labels.copy(), size=self.size)

    def to_yolo_txt(self, *, scores: bool = False) -> str:
        """Lines "label cx cy width height" in fractions of the image's sides; `scores` adds a column."""
        from .data.yolo import label_lines

        return label_lines(self.boxes, self.labels, self.size, self.scores if scores else None)

    def to_coco(self, image_id: int | str, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Records in COCO's format of results; `category_ids`: one for each of names, by default 1, 2, …"""
        from .data.coco import to_bbox

        ids = range(1, len(self.names) + 1) if category_ids is None else category_ids
        if len(ids) != len(self.names):
            raise ConfigError(f"category_ids: expected one for each of {len(self.names)} names, got {len(ids)}")
        rows = zip(to_bbox(self.boxes).tolist(), _shortest(self.scores), self.labels.tolist(), strict=True)
        return [
            {"image_id": image_id, "category_id": ids[label], "bbox": box, "score": score} for box, score, label in rows
        ]

    def save_voc_xml(self, path: str | Path, *, filename: str | None = None) -> None:
        """Write a VOC annotation to correct by hand: whole pixels, at least 1 x 1; `filename`: the image's, by default
        that of `source`."""
        from .data.voc_xml import annotation_xml

        height, width = self.size
        sample = self.to_sample(filename or self.source or f"{Path(path).stem}.jpg")
        low = np.clip(np.rint(sample.boxes[:, :2]), 0, [width - 1, height - 1])
        high = np.clip(np.rint(sample.boxes[:, 2:]), low + 1, [width, height])
        write_atomic(path, annotation_xml(replace(sample, boxes=np.hstack([low, high])), self.names))

    def crop(self, image: "Source | None" = None, *, color: str = "rgb") -> list[NDArray[np.uint8]]:
        """Each box's part of the image, RGB (h, w, 3); of `image`, else of source's file."""
        from .draw import crop

        return crop(self, image, color=color)

    def plot(
        self, out: str | Path | None = None, image: "Source | None" = None, *, color: str = "rgb"
    ) -> NDArray[np.uint8]:
        """The image with its boxes, RGB (H, W, 3), also written to `out`; on `image`, else on source's file."""
        from .draw import plot

        if not isinstance(out, str | Path | None):
            raise ConfigError(f"out: expected a path to write to, got {type(out).__name__} (an image goes to image=)")

        return plot(self, out, image, color=color)


def _shortest(values: NDArray[np.float32]) -> Any:
    """Nested lists of the shortest decimals that round to these float32 numbers."""
    return values.astype(str).astype(np.float64).tolist()
