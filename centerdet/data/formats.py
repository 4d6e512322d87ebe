"""Data sets in any of the formats: recognised, read, written, and converted into one another."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from ..errors import DataError
from .coco import COCO_FILES, read_coco, write_coco
from .files import Placing
from .folders import new_folder
from .problems import Report, fail
from .sample import DataSet
from .voc import list_voc_splits, read_voc, write_voc
from .yolo import YOLO_FILES, list_yolo_splits, read_yolo, write_yolo

__all__ = ["FORMATS", "Format", "convert", "count_lost", "find_splits", "read_dataset", "recognise", "write_dataset"]

Format = Literal["voc", "coco", "yolo"]
FORMATS: tuple[Format, ...] = ("voc", "coco", "yolo")

READERS: dict[Format, Callable[..., DataSet]] = {"voc": read_voc, "coco": read_coco, "yolo": read_yolo}
SUFFIXES: dict[Format, tuple[str, ...]] = {"coco": (".json",), "yolo": (".yaml", ".yml")}
WRITERS: dict[Format, Callable[..., dict[str, int]]] = {"voc": write_voc, "coco": write_coco, "yolo": write_yolo}


def read_dataset(
    root: str | Path,
    splits: Sequence[str],
    *,
    names: Sequence[str] | None = None,
    choose: bool = False,
    report: Report = fail,
) -> DataSet:
    """Read splits of a data set of whatever format: `read_voc`, `read_coco` or `read_yolo`, as `recognise` says.

    splits, names: a single string is one of them.
    names: the classes in their order; else the data set's own. An object of another class is an error.
    choose: names are a choice of the data set's classes: objects of its others are left out, which makes them
        background in training, and counted in `left_out`. A name that the data set lacks is an error then, unless the
        names hold all of its classes.
    """
    return READERS[recognise(root)](root, splits, names, choose=choose, report=report)


def write_dataset(
    dataset: DataSet, root: str | Path, split: str, form: Format, *, pictures: Placing = "copy", add: bool = False
) -> dict[str, int]:
    """Write a data set as a split in a format; what was written, and what was left out or lost, in numbers."""
    if form not in WRITERS:
        raise DataError(f"format: want one of {list(FORMATS)}, got {form!r}")
    return WRITERS[form](dataset, root, split, pictures=pictures, add=add) | count_lost(dataset)


def count_lost(dataset: DataSet) -> dict[str, int]:
    """What the data set's source holds and the data set does not, in numbers."""
    left_out = {f"objects of {name} left out": number for name, number in dataset.left_out.items()}
    return left_out | {f"{what} lost": number for what, number in dataset.lost.items()}


def convert(
    root: str | Path,
    destination: str | Path,
    form: Format,
    splits: Mapping[str, Sequence[str]],
    *,
    names: Sequence[str] | None = None,
    pictures: Placing = "copy",
) -> dict[str, dict[str, int]]:
    """Write splits of a data set into a new folder in another format; the numbers of `write_dataset` by split.

    splits: the new split -> those of the source, such as {"train": ["2007:train", "2012:extra"], "val": ["2007:val"]}.
    names: the classes to keep, in their order, chosen as in `read_dataset`; else all of the first split.

    Everything is read before anything is written, and the folder appears once it is complete.
    """
    if not splits:
        raise DataError(f"{root}: want at least one split")
    sets: dict[str, DataSet] = {}
    choose = names is not None
    for split, sources in splits.items():
        sets[split] = read_dataset(root, sources, names=names, choose=choose)
        names = sets[split].names
    with new_folder(destination) as draft:
        return {
            split: write_dataset(data, draft, split, form, pictures=pictures, add=True) for split, data in sets.items()
        }


def recognise(root: str | Path) -> Format:
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
        raise DataError(f"{root}: want a data set of one format, {wanted}; found {found or 'none'}")
    return found[0]


def find_splits(root: str | Path) -> list[str]:
    """The splits that a data set has by its files; none of one JSON file, which needs none."""
    root = Path(root)
    form = recognise(root)
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
