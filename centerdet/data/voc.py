"""PASCAL VOC, read and written: one XML file an image, image folders, lists of splits.

The devkit has Annotations/, JPEGImages/ and ImageSets/Main/<split>.txt; exporters also put XML beside the images, a
folder for each split, or other names: see `voc_layout`.
"""

import os
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from ..errors import DataError
from ..text import as_tuple
from .files import Finder, find_images, read_lines, read_text
from .problems import Problem, Report, fail
from .records import PLAIN, Item, ReadOptions, assemble, report_similar
from .sample import Dataset
from .voc_layout import VocFolder, find_voc_folders, open_split, read_list
from .voc_xml import Annotation, annotation_xml, parse_annotation
from .writing import Entry, Placing, prepare, write_files

__all__ = ["VOC_NAMES", "read_voc", "write_voc"]

VOC_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The twenty classes in the devkit's order."""

PARSED = 50_000
"""Annotations that are kept from the search for classes; those beyond are parsed again, in bounded memory."""

CLASS_FILES = ("classes.txt", "labels.txt", "predefined_classes.txt", "labelmap.txt", "pascal_label_map.pbtxt")
"""Lists of classes: one a line; CVAT's label:color:parts:actions; VoTT's items with name: '...'."""


def read_voc(
    root: str | Path,
    splits: Sequence[str],
    names: Sequence[str] | None = None,
    *,
    report: Report = fail,
    options: ReadOptions = PLAIN,
) -> Dataset:
    """Read splits of a dataset in VOC layout.

    root: a devkit, whose splits are written "2007:train" (year:list); or one folder in VOC layout, whose splits are
        the lists of its ImageSets/Main ("train") or its own folders; "all" is every annotation by name where no such
        list exists.
    names: the classes in their order. Else those of a file of `CLASS_FILES` in root; else every class of the
        annotations in the order of its first appearance, files taken by name, whatever the split, so that all splits
        agree. Folders called VOC<year> that hold no others have the twenty of `VOC_NAMES`.
    report: called with each problem; the object or image concerned is left out. By default the first one raises.

    An annotation needs only `name` and `bndbox` in each object. An image without objects is normal.
    """
    root = Path(root)
    lists = [open_split(root, split) for split in as_tuple(splits)]
    if not lists:
        raise DataError(f"{root}: expected at least one split")
    parsed: dict[Path, Annotation] = {}
    order = _find_names(root, [folder for folder, _ in lists], parsed) if names is None else as_tuple(names)
    report_similar(root, order, report)
    finder = Finder(root, options.allow_outside, report)
    return assemble(_read_items(lists, parsed, finder, report), order, options, report)


def write_voc(
    dataset: Dataset, root: str | Path, split: str, *, placing: Placing = "copy", add: bool = False
) -> dict[str, int]:
    """Write a dataset in VOC layout, as the list ImageSets/Main/<split>.txt; count what was written.

    `read_voc` gives integer boxes back exactly, sides within 0.001 of an integer as that integer, and others to the
    last bit that "+ 1" leaves; the order of names is kept in classes.txt. root must be new or empty, or `add`.
    """
    prepared = prepare(dataset, split)
    entries: list[Entry] = []
    for sample, name, size in prepared:
        entries.append((f"JPEGImages/{name}", sample.path))
        xml = annotation_xml(sample, dataset.names, filename=name, size=size)
        entries.append((f"Annotations/{Path(name).stem}.xml", xml))
    entries.append(("classes.txt", "".join(f"{name}\n" for name in dataset.names).encode()))
    stems = "".join(f"{Path(name).stem}\n" for _, name, _ in prepared)
    entries.append((f"ImageSets/Main/{split}.txt", stems.encode()))
    write_files(Path(root), entries, placing, add)
    return {"images": len(prepared), "objects": sum(len(sample.boxes) for sample, _, _ in prepared)}


def _read_items(
    lists: Sequence[tuple[VocFolder, Path | None]], parsed: dict[Path, Annotation], finder: Finder, report: Report
) -> Iterator[Item]:
    """Each image of the splits with its annotation."""

    @cache
    def images_below(place: Path) -> dict[str, list[str]]:
        """Path without suffix -> the files."""
        images: dict[str, list[str]] = {}
        for path in find_images(place, report):
            text = str(path)
            images.setdefault(text[: -len(path.suffix)], []).append(text)
        return images

    for folder, file in lists:
        for where, stem in read_list(folder, file, report):
            path = folder.notes / f"{stem}.xml"
            if not os.path.isfile(path):
                other = finder.find(f"{stem}.xml", [folder.notes], where) or finder.find(
                    f"{os.path.splitext(stem)[0]}.xml", [folder.notes], where
                )
                if other is None:
                    report(Problem("missing annotation", where, f"no annotation {path}"))
                    continue
                path, stem = other, other.relative_to(folder.notes).as_posix()[:-4]
            annotation = parsed.pop(path, None) or parse_annotation(path, report)
            if annotation is None:
                continue
            matches: list[str] = []
            for place in folder.images:
                if matches := images_below(place).get(str(place / stem), []):
                    break
            if len(matches) > 1:
                matches = [one for one in matches if Path(one).name == annotation.filename] or matches
            if len(matches) > 1:
                names = [Path(one).name for one in matches]
                report(Problem("missing image", where, f"several images of one name: {names}"))
                continue
            image = Path(matches[0]) if matches else _find_named(stem, annotation, folder, finder, where)
            yield Item(where, image, annotation.size, annotation.objects)


def _find_named(stem: str, annotation: Annotation, folder: VocFolder, finder: Finder, where: str) -> Path:
    """The image that an annotation names, where none is called like it; else the path that such a one would have."""
    beside = Path(stem).parent / annotation.filename
    for name in (str(beside), f"{stem}{Path(annotation.filename).suffix}") if annotation.filename else ():
        if (image := finder.find(name, folder.images, where)) is not None:
            return image
    return folder.images[0] / f"{stem}.jpg"


def _find_names(root: Path, folders: Sequence[VocFolder], parsed: dict[Path, Annotation]) -> tuple[str, ...]:
    """The classes of the dataset; annotations that had to be read for it are left in `parsed`."""
    for place in dict.fromkeys([root, *(folder.root for folder in folders)]):
        for file in (place / name for name in CLASS_FILES if (place / name).is_file()):
            if not (names := _read_names(file)):
                raise DataError(f"{file}: expected one class a line, it is empty")
            return names
    everywhere = find_voc_folders(root)
    if all(prefix.endswith("/") for prefix in everywhere):  # one folder for each split
        folders = list(everywhere.values()) or folders
    classes: dict[str, None] = {}
    for path in (path for folder in dict.fromkeys(folders) for path in folder.list_annotations()):
        problems: list[Problem] = []
        annotation = parse_annotation(path, problems.append)
        classes |= dict.fromkeys(one.name for one in (annotation.objects if annotation else []))
        if annotation is not None and not problems and len(parsed) < PARSED:
            parsed[path] = annotation
    twenty = all(re.fullmatch(r"VOC\d{4}", folder.root.resolve().name) for folder in folders)
    return VOC_NAMES if twenty and classes.keys() <= set(VOC_NAMES) else tuple(classes)


def _read_names(file: Path) -> tuple[str, ...]:
    if file.suffix == ".pbtxt":
        return tuple(re.findall(r"name:\s*['\"](.*?)['\"]", read_text(file)))
    lines = [line for line in read_lines(file) if line and not line.startswith("#")]
    if file.name == "labelmap.txt":
        lines = [name for name in (line.split(":")[0] for line in lines) if name != "background"]
    return tuple(lines)
