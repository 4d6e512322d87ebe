"""Datasets in any of the formats: recognized, read, written, and converted into one another."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import DataError
from ..files import new_folder
from ..text import as_tuple, nearest
from .coco import COCO_FILES, read_coco, write_coco
from .files import Placing
from .problems import Report, fail
from .sample import Dataset
from .voc import list_voc_splits, read_voc, write_voc
from .yolo import YOLO_FILES, list_yolo_splits, read_yolo, write_yolo

__all__ = ["FORMATS", "Format", "convert", "find_splits", "keep_classes", "read_dataset", "recognize", "write_dataset"]

Format = Literal["voc", "coco", "yolo"]
FORMATS: tuple[Format, ...] = ("voc", "coco", "yolo")

READERS: dict[Format, Callable[..., Dataset]] = {"voc": read_voc, "coco": read_coco, "yolo": read_yolo}
SUFFIXES: dict[Format, tuple[str, ...]] = {"coco": (".json",), "yolo": (".yaml", ".yml")}
WRITERS: dict[Format, Callable[..., dict[str, int]]] = {"voc": write_voc, "coco": write_coco, "yolo": write_yolo}


def read_dataset(
    root: str | Path, splits: Sequence[str], *, names: Sequence[str] | None = None, report: Report = fail
) -> Dataset:
    """Read splits of a dataset of whatever format: `read_voc`, `read_coco` or `read_yolo`, as `recognize` says.

    splits, names: a single string is one of them.
    names: the classes in their order; else the dataset's own. An object of another class is an error.
    """
    return READERS[recognize(root)](root, splits, names, report=report)


def keep_classes(sets: Sequence[Dataset], names: Sequence[str]) -> list[Dataset]:
    """The datasets with a choice of their classes, in the order of names; without names as they are.

    Objects of the other classes are left out, which makes them background in training, and counted in `left_out`. A
    name that none of the datasets has is an error.
    """
    if not names:
        return list(sets)
    order, known = as_tuple(names), dict.fromkeys(name for data in sets for name in data.names)
    if unknown := [name for name in order if name not in known]:
        raise DataError(f"names: the dataset has no class {unknown[0]!r}, {nearest(unknown[0], known)}")
    return [_keep(data, order) for data in sets]


def _keep(data: Dataset, order: tuple[str, ...]) -> Dataset:
    new_label = np.array([order.index(name) if name in order else -1 for name in data.names], np.int64)
    samples = []
    for sample in data.samples:
        labels = new_label[sample.labels]
        kept = labels >= 0
        samples.append(
            replace(
                sample,
                boxes=sample.boxes[kept],
                labels=labels[kept],
                difficult=sample.difficult[kept],
                crowd=sample.crowd[kept],
                left_out=[*sample.left_out, *(data.names[label] for label in sample.labels[~kept])],
                lost=[(name, what) for name, what in sample.lost if name in order],
            )
        )
    return Dataset(samples, order)


def write_dataset(
    dataset: Dataset, root: str | Path, split: str, form: Format, *, placing: Placing = "copy", add: bool = False
) -> dict[str, int]:
    """Write a dataset as a split in a format; what was written, and what was left out or lost, in numbers."""
    if form not in WRITERS:
        raise DataError(f"format: want one of {list(FORMATS)}, got {form!r}")
    written = WRITERS[form](dataset, root, split, placing=placing, add=add)
    written |= {f"objects of {name} left out": number for name, number in dataset.left_out.items()}
    return written | {f"{what} lost": number for what, number in dataset.lost.items()}


def convert(
    root: str | Path,
    destination: str | Path,
    form: Format,
    splits: Mapping[str, Sequence[str]],
    *,
    names: Sequence[str] | None = None,
    placing: Placing = "copy",
) -> dict[str, dict[str, int]]:
    """Write splits of a dataset into a new folder in another format; the numbers of `write_dataset` by split.

    splits: the new split -> those of the source, such as {"train": ["2007:train", "2012:extra"], "val": ["2007:val"]}.
    names: the classes to keep, in their order, as `keep_classes` does; else all of the first split.

    Everything is read before anything is written, and the folder appears once it is complete.
    """
    if not splits:
        raise DataError(f"{root}: want at least one split")
    sets: list[Dataset] = []
    for sources in splits.values():
        sets.append(read_dataset(root, sources, names=sets[0].names if sets and not names else None))
    sets = keep_classes(sets, names or ())
    with new_folder(destination) as draft:
        return {
            split: write_dataset(data, draft, split, form, placing=placing, add=True)
            for split, data in zip(splits, sets, strict=True)
        }


def recognize(root: str | Path) -> Format:
    """The format of a folder (or of one file, .json or .yaml) by what lies in it."""
    root = Path(root)
    if root.is_file():
        found = [form for form, suffixes in SUFFIXES.items() if root.suffix in suffixes]
    elif root.is_dir():
        signs: dict[Format, list[str]] = {
            "voc": ["Annotations/*.xml", "VOC*/Annotations/*.xml", "VOCdevkit/VOC*/Annotations/*.xml"],
            "coco": [pattern.format("*") for pattern in COCO_FILES[:-1]],
            "yolo": list(YOLO_FILES),
        }
        found = [form for form in FORMATS if any(next(root.glob(sign), None) is not None for sign in signs[form])]
        if not found and next(root.glob("*.json"), None) is not None:  # the weakest sign: any folder may hold one
            found = ["coco"]
    else:
        raise DataError(f"{root}: no such file or folder")
    if len(found) != 1:
        wanted = "Annotations/ with XML (VOC), annotations/*.json (COCO) or data.yaml (YOLO)"
        raise DataError(f"{root}: want a dataset of one format, {wanted}; found {found or 'none'}")
    return found[0]


def find_splits(root: str | Path) -> list[str]:
    """The splits that a dataset has by its files; none of one JSON file, which needs none."""
    root = Path(root)
    form = recognize(root)
    if form == "voc":
        return list_voc_splits(root)
    if form == "yolo":
        return list_yolo_splits(root)
    for pattern in COCO_FILES if root.is_dir() else ():
        before, after = pattern.split("{}")
        found = [path.relative_to(root).as_posix() for path in root.glob(f"{before}*{after}")]
        if found:
            return sorted(name[len(before) : len(name) - len(after)] for name in found)
    return []
