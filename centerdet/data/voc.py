"""PASCAL VOC, read and written: one XML file an image, image folders, lists of splits.

The devkit has Annotations/, JPEGImages/ and ImageSets/Main/<split>.txt; exporters also put XML beside the images, a
folder for each split, or other names; `read_voc` says which are read.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..errors import DataError, MissingDataError
from ..files import walk_files
from ..text import as_tuple
from .files import Finder, find_images, leads_out, read_lines, read_text
from .problems import Problem, Report, fail
from .records import PLAIN, Item, ReadOptions, assemble, report_similar
from .sample import Dataset
from .voc_xml import Annotation, annotation_xml, from_corners, parse_annotation, to_corners
from .writing import Entry, Placing, prepare, write_files

__all__ = [
    "VOC_NAMES",
    "annotation_xml",
    "find_voc_folders",
    "from_corners",
    "list_voc_splits",
    "list_voc_unpaired",
    "read_voc",
    "to_corners",
    "write_voc",
]

VOC_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The twenty classes in the devkit's order."""

NOTES = ("Annotations", "annotations", "annotations/xmls", "labels", "Labels", "xml", "xmls", ".")
IMAGES = ("JPEGImages", "images", "Images", "data", "imgs", "img", "PNGImages")
"""Where XML files and images are looked for below a folder, in this order."""

CLASS_FILES = ("classes.txt", "labels.txt", "predefined_classes.txt", "labelmap.txt", "pascal_label_map.pbtxt")
"""Lists of classes: one a line; CVAT's label:color:parts:actions; VoTT's items with name: '...'."""

OF_CLASS = re.compile(r"(.*\S)\s+(-?[01])")
"""A line of a list of one class: an image, and whether the class is in it."""


@dataclass(frozen=True)
class VocFolder:
    """A folder in VOC layout: where its XML files are, and where its images are looked for."""

    root: Path
    notes: Path
    images: tuple[Path, ...]

    def list_annotations(self) -> list[Path]:
        """Its XML files, by path."""
        deep = self.notes != self.root  # XML beside images: not those of the folders below, which are other splits
        return [path for path in walk_files(self.notes, (".xml",)) if deep or path.parent == self.root]


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
    report: gets each problem; reading goes on without the object or image concerned. By default the first one raises.

    An annotation needs only `name` and `bndbox` in each object. An image without objects is normal.
    """
    root = Path(root)
    lists = [_open_split(root, split) for split in as_tuple(splits)]
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


def find_voc_folders(root: Path) -> dict[str, VocFolder]:
    """The folders in VOC layout of a dataset, by the prefix of their splits' names: "2007:", "" or "train/".

    A folder for each split has its XML beside the images; a folder with Annotations is a dataset of its own.
    """
    root = root / "VOCdevkit" if (root / "VOCdevkit").is_dir() else root
    if (folder := _find_folder(root)) is not None:
        return {"": folder}
    years = {f"{place.name[3:]}:": _find_folder(place) for place in sorted(root.glob("VOC*/"))}
    if any(years.values()):
        return {prefix: folder for prefix, folder in years.items() if folder is not None}
    below = {f"{place.name}/": _find_folder(place) for place in sorted(root.glob("[!.]*/"))}
    return {prefix: folder for prefix, folder in below.items() if folder is not None and folder.notes == folder.root}


def list_voc_splits(root: Path) -> list[str]:
    """The lists of a devkit or folder, without those of single classes and without trainval beside train and val."""
    splits = []
    for prefix, folder in find_voc_folders(root).items():
        named = []
        for file in sorted((folder.root / "ImageSets" / "Main").glob("[!.]*.txt")):
            if not all(map(OF_CLASS.fullmatch, read_lines(file, lenient=True)[:1])):
                named.append(file.stem)
        named = [stem for stem in named if stem != "trainval" or not {"train", "val"} <= set(named)]
        if prefix.endswith("/"):
            splits += [prefix[:-1]]
        else:
            splits += [prefix + stem for stem in named or ["all"]]
    return splits


def list_voc_unpaired(root: Path, splits: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """(file, what) of each annotation without an image, or image without one, that the splits do not name."""
    lists = [_open_split(root, split) for split in splits]
    for folder in dict.fromkeys(folder for folder, _ in lists):
        named = {stem for place, file in lists if place == folder for _, stem in _read_list(place, file, _ignore)}
        place = folder.images[0]
        images = {path.relative_to(place).with_suffix("").as_posix(): path for path in find_images(place)}
        notes = {path.relative_to(folder.notes).with_suffix("").as_posix(): path for path in folder.list_annotations()}
        for stem in sorted((images.keys() ^ notes.keys()) - named):
            yield images.get(stem) or notes[stem], "no annotation" if stem in images else "no image"


def _ignore(problem: Problem) -> None:
    pass


def _find_folder(root: Path) -> VocFolder | None:
    for name in NOTES:
        notes = root / name if name != "." else root
        depth = "*.xml" if name == "." else "**/*.xml"
        if notes.is_dir() and next(notes.glob(depth), None) is not None:
            places = [root / image for image in IMAGES if (root / image).is_dir()]
            return VocFolder(root, notes, (*places, *([] if places and notes != root else [notes]), root))
    if (root / "Annotations").is_dir() and (root / "JPEGImages").is_dir():  # nothing is labeled yet
        return VocFolder(root, root / "Annotations", (root / "JPEGImages", root))
    return None


def _open_split(root: Path, split: str) -> tuple[VocFolder, Path | None]:
    """The VOC folder that a split names, and its list: None for all of its annotations."""
    if not root.is_dir():
        raise MissingDataError(f"{root}: no such folder")
    year, _, name = split.rpartition(":")
    if leads_out(name) or (year and leads_out(year)):
        raise DataError(f"{root}: split {split!r} leads out of the folder")
    folders = find_voc_folders(root)
    if f"{name}/" in folders and not year:
        return folders[f"{name}/"], None
    folder = folders.get(f"{year}:" if year else "")
    known = list_voc_splits(root)
    hint = f"; known are {known}" if known else ""
    hint += ": pass --val '' to train without validation" if split == "val" else ""
    if folder is None:
        raise MissingDataError(f"{root}: no folder Annotations (VOC layout) for split {split!r}{hint}")
    file = folder.root / "ImageSets" / "Main" / f"{name}.txt"
    if file.is_file():
        return folder, file
    if name != "all":
        raise MissingDataError(f"{file}: no such split{hint or '; known are none'}, and 'all'")
    return folder, None


def _read_list(folder: VocFolder, file: Path | None, report: Report) -> Iterator[tuple[str, str]]:
    """(file:line, image's name without suffix) of each line of a split."""
    if file is None:
        for path in folder.list_annotations():
            yield str(path), path.relative_to(folder.notes).as_posix()[:-4]
        return
    empty = True
    lines = read_lines(file, lenient=True)
    of_class = all(
        OF_CLASS.fullmatch(line) and not (folder.notes / f"{line}.xml").is_file() for line in lines[:9] if line
    )
    for number, line in enumerate(lines, 1):
        stem, flag = match.groups() if of_class and (match := OF_CLASS.fullmatch(line)) else (line, "1")
        if stem and leads_out(stem):
            report(Problem("refused path", f"{file}:{number}", f"{stem!r} leads out of the folder"))
        elif stem and flag != "-1":
            empty = False
            yield f"{file}:{number}", stem
    if empty:
        report(Problem("empty split", str(file), "the split names no image"))


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
        for where, stem in _read_list(folder, file, report):
            path = folder.notes / f"{stem}.xml"
            if not path.is_file():
                other = finder.find(f"{stem}.xml", [folder.notes], where) or finder.find(
                    str(Path(stem).with_suffix(".xml")), [folder.notes], where
                )
                if other is None:
                    report(Problem("missing annotation", where, f"no annotation {path}"))
                    continue
                path, stem = other, other.relative_to(folder.notes).as_posix()[:-4]
            annotation = parsed.get(path) or parse_annotation(path, report)
            if annotation is None:
                continue
            found: list[str] = []
            for place in folder.images:
                if found := images_below(place).get(str(place / stem), []):
                    break
            if len(found) > 1:
                found = [one for one in found if Path(one).name == annotation.filename] or found
            if len(found) > 1:
                names = [Path(one).name for one in found]
                report(Problem("missing image", where, f"several images of one name: {names}"))
                continue
            image = Path(found[0]) if found else _find_named(stem, annotation, folder, finder, where)
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
        if annotation is not None and not problems:
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
