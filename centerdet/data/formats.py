"""Datasets in any of the formats: recognized, read, written, and converted into one another."""

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import DataError, MissingDataError
from ..files import new_folder
from ..text import as_tuple, nearest, plural
from .coco import COCO_FILES, read_coco, write_coco
from .exports import EXPORTS, list_export_splits, read_export, recognize_export
from .pack import Pack, is_pack, read_pack
from .problems import Notes, Report
from .records import PLAIN, ReadOptions
from .sample import Dataset
from .voc import read_voc, write_voc
from .voc_layout import find_voc_folders, list_voc_splits
from .writing import Placing
from .yolo import list_yolo_splits, read_yolo, write_yolo
from .yolo_layout import CLASS_FILES, find_layout

__all__ = [
    "FORMATS",
    "Format",
    "convert",
    "find_packed",
    "find_splits",
    "keep_classes",
    "read_dataset",
    "recognize",
    "rename_classes",
    "write_dataset",
]

Format = Literal["voc", "coco", "yolo"]
FORMATS: tuple[Format, ...] = ("voc", "coco", "yolo")

READERS: dict[str, Callable[..., Dataset]] = {
    "voc": read_voc, "coco": read_coco, "yolo": read_yolo, "pack": read_pack,
    **dict.fromkeys(EXPORTS, read_export),
}  # fmt: skip
ONCE = ReadOptions(repeats="drop")

SUFFIXES: dict[Format, tuple[str, ...]] = {"coco": (".json",), "yolo": (".yaml", ".yml", ".data")}
WRITERS: dict[Format, Callable[..., dict[str, int]]] = {"voc": write_voc, "coco": write_coco, "yolo": write_yolo}


def read_dataset(
    root: str | Path,
    splits: Sequence[str],
    *,
    names: Sequence[str] | None = None,
    report: Report | None = None,
    notice: Callable[[str], object] = warnings.warn,
    strict: bool = False,
    options: ReadOptions = PLAIN,
) -> Dataset:
    """Read splits of a dataset of whatever format: `read_voc`, `read_coco` and so on, see `recognize`.

    splits, names: a single string is one of them.
    names: the classes in their order; else the dataset's own. An object of another class is an error.
    notice: called with a line for each kind of thing that was repaired, left out or doubted, with count and example.
    strict: raise the first of these instead.
    report: called with each problem instead of `notice`; the object or image concerned is left out.

    What leaves out more images or objects than it reads is an error. Of a pack, only training, which keeps repeats,
    reads the packed images; others read the dataset that was packed.
    """
    notes = Notes(strict)
    root = root if options.repeats == "keep" else find_packed(root)
    dataset = READERS[recognize(root)](root, splits, names, report=report or notes, options=options)
    if not dataset.names:
        raise DataError(f"{root}: no object in any annotation, and no list of classes such as classes.txt")
    if report is None:
        objects = sum(len(sample.boxes) for sample in dataset.samples)
        notes.refuse_remains(len(dataset), objects)
        empty = f"{root}: no image has an object: {plural(len(dataset), 'image')}"
        if strict and not objects:
            raise DataError(empty)
        for line in [*notes.lines(), *([] if objects else [empty])]:
            notice(line)
    return dataset


def keep_classes(sets: Sequence[Dataset], names: Sequence[str]) -> list[Dataset]:
    """The datasets with a choice of their classes, in the order of names; without names as they are.

    Objects of the other classes are left out, which makes them background in training, and counted in `left_out`. A
    name that none of the datasets has is an error.
    """
    if not names:
        return list(sets)
    order = as_tuple(names)
    _check_known("names", order, sets)
    return [_keep(data, order) for data in sets]


def _check_known(what: str, names: Iterable[str], sets: Sequence[Dataset]) -> None:
    """Refuse a name that none of the datasets has."""
    known = dict.fromkeys(name for data in sets for name in data.names)
    if unknown := [name for name in names if name not in known]:
        raise DataError(f"{what}: the dataset has no class {unknown[0]!r}, {nearest(unknown[0], known)}")


def _keep(data: Dataset, order: tuple[str, ...]) -> Dataset:
    if order == data.names:
        return data
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
                areas=None if sample.areas is None else sample.areas[kept],
                left_out=[*sample.left_out, *(data.names[label] for label in sample.labels[~kept])],
                lost=[(name, what) for name, what in sample.lost if name in order],
            )
        )
    return Dataset(samples, order)


def rename_classes(sets: Sequence[Dataset], rename: Mapping[str, str]) -> list[Dataset]:
    """The datasets with classes renamed (old -> new); classes of one name are joined, at the place of the first.

    A name that none of the datasets has is an error.
    """
    _check_known("rename", rename, sets)
    if not rename:
        return list(sets)
    renamed = []
    for data in sets:
        new_names = [rename.get(name, name) for name in data.names]
        order = tuple(dict.fromkeys(new_names))
        label = np.array([order.index(name) for name in new_names], np.int64)
        samples = [
            replace(
                sample,
                labels=label[sample.labels],
                left_out=[rename.get(name, name) for name in sample.left_out],
                lost=[(rename.get(name, name), what) for name, what in sample.lost],
            )
            for sample in data.samples
        ]
        renamed.append(Dataset(samples, order))
    return renamed


def write_dataset(
    dataset: Dataset, root: str | Path, split: str, form: Format, *, placing: Placing = "copy", add: bool = False
) -> dict[str, int]:
    """Write a dataset as a split in a format; the numbers of what was written, left out and lost."""
    if form not in WRITERS:
        raise DataError(f"format: expected one of {list(FORMATS)}, got {form!r}")
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
    rename: Mapping[str, str] | None = None,
    placing: Placing = "copy",
    notice: Callable[[str], object] = warnings.warn,
    strict: bool = False,
    options: ReadOptions = ONCE,
) -> dict[str, dict[str, int]]:
    """Write splits of a dataset into a new folder in another format; the numbers of `write_dataset` by split.

    splits: the new split -> those of the source, such as {"train": ["2007:train", "2012:extra"], "val": ["2007:val"]}.
    rename: old -> new name of classes, before any are chosen, as `rename_classes` does.
    names: the classes to keep, in their order, as `keep_classes` does; else all of the first split.
    notice, strict, options: as of `read_dataset`.

    Everything is read before anything is written, and the folder appears once it is complete.
    """
    if not splits:
        raise DataError(f"{root}: expected at least one split")
    sets: list[Dataset] = []
    for sources in splits.values():
        first = sets[0].names if sets and not names else None
        sets.append(read_dataset(root, sources, names=first, notice=notice, strict=strict, options=options))
    sets = keep_classes(rename_classes(sets, rename or {}), names or ())
    with new_folder(destination) as draft:
        return {
            split: write_dataset(data, draft, split, form, placing=placing, add=True)
            for split, data in zip(splits, sets, strict=True)
        }


def recognize(root: str | Path) -> str:
    """The format of a folder, or of one file, by its files: "voc", "coco", "yolo", "pack", or a key of `EXPORTS`."""
    root = Path(root)
    if is_pack(root):
        return "pack"
    if root.is_file():
        if (form := recognize_export(root)) is not None:
            return form
        forms: list[str] = [form for form, suffixes in SUFFIXES.items() if root.suffix in suffixes]
    elif root.is_dir():
        layout = find_layout(root)
        described = layout is not None and layout.name not in map(os.path.basename, CLASS_FILES)
        listed = [path for pattern in COCO_FILES[:-1] for path in sorted(root.glob(pattern.format("*")))[:1]]
        coco = (recognize_export(listed[0]) or "coco") if listed else ""
        signs = {"voc": bool(find_voc_folders(root)), coco: bool(coco), "yolo": described}
        forms = [form for form, there in signs.items() if there]
        if not forms and (weak := recognize_export(root)) is not None:
            forms = [weak]
        elif not forms and layout is not None:
            forms = ["yolo"]
        elif not forms and next(root.glob("*.json"), None) is not None:  # the weakest sign: any folder may hold one
            forms = ["coco"]
    else:
        raise MissingDataError(f"{root}: no such file or folder")
    if len(forms) != 1:
        wanted = (
            "Annotations/ with XML (VOC), annotations/*.json (COCO), data.yaml or classes.txt (YOLO), or a tool's own"
        )
        hint = "; pass the one file that describes it" if forms else ""
        raise DataError(f"{root}: expected a dataset of one format, {wanted}; got {forms or 'none'}{hint}")
    return forms[0]


def find_splits(root: str | Path) -> list[str]:
    """The splits that a dataset has by its files; none of one JSON file, which needs none."""
    root = Path(find_packed(root))
    form = recognize(root)
    if form == "voc":
        return list_voc_splits(root)
    if form == "yolo":
        return list_yolo_splits(root)
    if form != "coco":
        return list_export_splits(root)
    for pattern in COCO_FILES if root.is_dir() else ():
        before, after = pattern.split("{}")
        names = [path.relative_to(root).as_posix() for path in root.glob(f"{before}*{after}") if path.name[0] != "."]
        if names:
            return sorted(name[len(before) : len(name) - len(after)] for name in names)
    return []


def find_packed(root: str | Path) -> str | Path:
    """The dataset that a pack was made of; any other dataset is itself."""
    if not is_pack(root):
        return root
    if not (source := Pack(root).source).exists():
        raise MissingDataError(f"{source}: no such file or folder: the dataset of {root}, which is for training alone")
    return source
