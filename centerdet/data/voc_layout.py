"""Where a dataset in VOC layout has its XML files, images and lists of splits."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError, MissingDataError
from ..files import walk_files
from .files import find_images, leads_out, read_lines
from .problems import Problem, Report, val_hint

__all__ = ["VocFolder", "find_voc_folders", "list_voc_splits", "list_voc_unpaired", "open_split", "read_list"]

NOTES = ("Annotations", "annotations", "annotations/xmls", "labels", "Labels", "xml", "xmls", ".")
IMAGES = ("JPEGImages", "images", "Images", "data", "imgs", "img", "PNGImages")
"""Where XML files and images are looked for below a folder, in this order."""

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
    lists = [open_split(root, split) for split in splits]
    for folder in dict.fromkeys(folder for folder, _ in lists):
        files = [file for place, file in lists if place == folder]
        named = {stem for file in files for _, stem in read_list(folder, file, lambda problem: None)}
        place = folder.images[0]
        images = {path.relative_to(place).with_suffix("").as_posix(): path for path in find_images(place)}
        notes = {path.relative_to(folder.notes).with_suffix("").as_posix(): path for path in folder.list_annotations()}
        for stem in sorted((images.keys() ^ notes.keys()) - named):
            yield images.get(stem) or notes[stem], "no annotation" if stem in images else "no image"


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


def open_split(root: Path, split: str) -> tuple[VocFolder, Path | None]:
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
    hint = (f"; known are {known}" if known else "") + val_hint(split)
    if folder is None:
        raise MissingDataError(f"{root}: no folder Annotations (VOC layout) for split {split!r}{hint}")
    file = folder.root / "ImageSets" / "Main" / f"{name}.txt"
    if file.is_file():
        return folder, file
    if name != "all":
        raise MissingDataError(f"{file}: no such split{hint or '; known are none'}, and 'all'")
    return folder, None


def read_list(folder: VocFolder, file: Path | None, report: Report) -> Iterator[tuple[str, str]]:
    """(file:line, image's name without suffix) of each line of a split."""
    if file is None:
        for path in folder.list_annotations():
            yield str(path), path.relative_to(folder.notes).as_posix()[:-4]
        return
    empty = True
    lines = read_lines(file, lenient=True)
    of_class = all(
        OF_CLASS.fullmatch(line) and not os.path.isfile(folder.notes / f"{line}.xml") for line in lines[:9] if line
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
