"""`Detections`: what was found in one image, as aligned arrays, and the formats that others read.

Law: arrays are checked once, read-only and best first; every selection of a `Detections` is one again. It holds no
image, so a million of them fit in memory. Boxes are xyxy px of the original image, 0-based, half-open.
"""

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError, DataError
from .files import write_atomic

if TYPE_CHECKING:
    import pandas

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
    """The objects found in one image, best first.

    Attributes:
        boxes: (N, 4) float32.
        scores: (N,) float32.
        labels: (N,) int64, indices into names.
        names: of all classes.
        size: (height, width) of the image.
        source: the image's path, where it came from one; `==` takes no notice of it.
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
        labels, names = np.asarray(self.labels), tuple(self.names)
        boxes = boxes.reshape(-1, 4) if boxes.size == 0 else boxes
        if boxes.shape != (len(boxes), 4):
            raise DataError(f"boxes: want shape (N, 4), got {boxes.shape}")
        for field, array in (("scores", scores), ("labels", labels)):
            if array.shape != (len(boxes),):
                raise DataError(f"{field}: want shape ({len(boxes)},) as there are boxes, got {array.shape}")
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise DataError("boxes, scores: want finite numbers, got NaN or infinity")
        if (boxes[:, 2:] < boxes[:, :2]).any():
            raise DataError("boxes: want x1 <= x2 and y1 <= y2, as xyxy has it")
        if len(labels) and not (labels.dtype.kind in "iu" and 0 <= labels.min() <= labels.max() < len(names)):
            raise DataError(f"labels: want integers from 0 to {len(names) - 1} (names), got {labels}")
        height, width = (int(side) for side in self.size)
        if min(height, width) < 1:
            raise DataError(f"size: want (height, width) of at least 1 px, got {self.size}")
        order = np.argsort(-scores, kind="stable")
        arrays = (boxes[order], scores[order], labels.astype(np.int64)[order])
        for array in arrays:
            array.setflags(write=False)
        checked = dict(
            zip(("boxes", "scores", "labels", "names", "size"), (*arrays, names, (height, width)), strict=True)
        )
        for field, value in checked.items():
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
        """One `Detection` by its number, or those of a slice, a mask (N,) or an array of numbers, again best first."""
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
        found = ", ".join(f"{one.name} {one.score:.2f}" for one in self[:5])
        return f"<Detections {len(self)} in {self.size[0]} x {self.size[1]} px: {found}{', …' * (len(self) > 5)}>"

    @property
    def label_names(self) -> list[str]:
        """The name of each object's class, N of them."""
        return [self.names[label] for label in self.labels.tolist()]

    def filter(self, *, score: float | None = None, names: str | Iterable[str] | None = None) -> "Detections":
        """Those with at least this score, of these classes."""
        keep = np.ones(len(self), bool) if score is None else self.scores >= score
        if names is not None:
            wanted = [names] if isinstance(names, str) else list(names)
            for name in wanted:
                if name not in self.names:
                    near = difflib.get_close_matches(name, self.names, 1)
                    hint = f"did you mean {near[0]!r}?" if near else f"the classes are {', '.join(self.names)}"
                    raise ConfigError(f"names: no class {name!r}; {hint}")
            keep = keep & np.isin(self.labels, [self.names.index(name) for name in wanted])
        return self[keep]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; numbers have as many digits as float32 needs to be read back exactly."""
        rows = zip(_shortest(self.boxes), _shortest(self.scores), self.labels.tolist(), self.label_names, strict=True)
        objects = [{"box": box, "score": score, "label": label, "name": name} for box, score, label, name in rows]
        return {"source": self.source, "height": self.size[0], "width": self.size[1], "objects": objects}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], names: Iterable[str]) -> "Detections":
        """What `to_dict` made (or a line of `to_json`, parsed), again; names: of all classes, as the detector has."""
        try:
            boxes, scores, labels, told = (
                [row[key] for row in values["objects"]] for key in ("box", "score", "label", "name")
            )
            size, source = (values["height"], values["width"]), values["source"]
        except KeyError as error:
            raise DataError(f"want what to_dict() gives, the key {error} is missing") from error
        again = cls(boxes, scores, labels, tuple(names), size, source)  # type: ignore[arg-type]
        if sorted(told) != sorted(again.label_names):
            raise DataError(f"names: want those of the detector that found it, whose labels are named {told}")
        return again

    def to_json(self) -> str:
        """`to_dict` as one line."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def to_pandas(self) -> "pandas.DataFrame":
        """A table with columns x1, y1, x2, y2, score, label, name."""
        try:
            import pandas
        except ImportError:
            raise ConfigError("to_pandas() needs pandas: pip install 'centerdet[pandas]'") from None
        columns = {side: self.boxes[:, place] for place, side in enumerate(("x1", "y1", "x2", "y2"))}
        return pandas.DataFrame({**columns, "score": self.scores, "label": self.labels, "name": self.label_names})

    def to_supervision(self) -> Any:
        """A `supervision.Detections` with the classes' names under "class_name", as its annotators look for them."""
        try:
            supervision = import_module("supervision")
        except ImportError as error:  # its own absence, or that of something it imports
            raise ConfigError(f"to_supervision() needs supervision: pip install supervision ({error})") from error
        names = {"class_name": np.array(self.label_names, dtype=str)}
        return supervision.Detections(
            xyxy=self.boxes.copy(), confidence=self.scores.copy(), class_id=self.labels.copy(), data=names
        )

    def to_yolo_txt(self, *, scores: bool = False) -> str:
        """Lines "label cx cy width height" in parts of the image's sides; with the score behind, if asked for."""
        height, width = self.size
        boxes = self.boxes / np.array([width, height, width, height], np.float64)
        rows = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)
        rows = np.concatenate([rows, self.scores[:, None]], axis=1) if scores else rows
        lines = zip(self.labels.tolist(), rows.tolist(), strict=True)
        return "".join(f"{label} {' '.join(f'{part:.8f}' for part in row)}\n" for label, row in lines)

    def to_coco(self, image_id: int | str, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Records in COCO's format of results; `category_ids`: one for each of names, by default 1, 2, …"""
        ids = range(1, len(self.names) + 1) if category_ids is None else category_ids
        if len(ids) != len(self.names):
            raise ConfigError(f"category_ids: want one for each of {len(self.names)} names, got {len(ids)}")
        boxes = self.boxes.astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        rows = zip(boxes.tolist(), _shortest(self.scores), self.labels.tolist(), strict=True)
        return [
            {"image_id": image_id, "category_id": ids[label], "bbox": box, "score": score} for box, score, label in rows
        ]

    def save_voc_xml(self, path: str | Path, *, filename: str | None = None) -> None:
        """Write a VOC annotation: whole pixels, 1-based and inclusive; the image's file name is the source's own."""
        height, width = self.size
        named = filename or (Path(self.source).name if self.source else f"{Path(path).stem}.jpg")
        root = ElementTree.Element("annotation")
        ElementTree.SubElement(root, "filename").text = named
        size = ElementTree.SubElement(root, "size")
        for side, value in (("width", width), ("height", height), ("depth", 3)):
            ElementTree.SubElement(size, side).text = str(value)
        corners = np.rint(self.boxes).astype(np.int64) + np.array([1, 1, 0, 0])
        corners = np.clip(corners, 1, [width, height, width, height])
        corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2])
        for name, box in zip(self.label_names, corners.tolist(), strict=True):
            element = ElementTree.SubElement(root, "object")
            ElementTree.SubElement(element, "name").text = name
            ElementTree.SubElement(element, "difficult").text = "0"
            bounds = ElementTree.SubElement(element, "bndbox")
            for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True):
                ElementTree.SubElement(bounds, side).text = str(value)
        ElementTree.indent(root, "\t")
        write_atomic(path, ElementTree.tostring(root, encoding="utf-8") + b"\n")

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
            raise ConfigError(f"out: want a path to write to, got {type(out).__name__} (a image goes to image=)")

        return plot(self, out, image, color=color)


def _shortest(values: NDArray[np.float32]) -> Any:
    """Nested lists of the shortest decimals that are these float32 numbers again."""
    return values.astype(str).astype(np.float64).tolist()
