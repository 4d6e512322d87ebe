"""PASCAL VOC: Annotations/*.xml, JPEGImages/, ImageSets/Main/*.txt, read and written.

A `bndbox` is 1-based and inclusive; a box here is 0-based and half-open: (xmin - 1, ymin - 1, xmax, ymax), and back.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

from ..errors import DataError
from ..text import as_tuple
from .files import Entry, Placing, find_images, prepare, read_lines, write_files
from .problems import Problem, Report, fail, leads_out
from .records import Record, build_sample
from .sample import Dataset, Sample
from .voc_xml import SIDES, annotation_xml

__all__ = ["VOC_NAMES", "list_voc_splits", "read_voc", "write_voc"]

VOC_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The twenty classes in the devkit's order."""

NO_ANNOTATION, NO_IMAGE = "no annotation {}.xml", "no image {}.jpg"
"""What is said of one of a pair that is missing; `check` tells by it what `read_voc` has told already."""

LOST = {"pose": "poses", "truncated": "truncated flags", "occluded": "occluded flags", "part": "parts"}
"""Elements of an object that samples do not hold, and what they are called where they are counted."""


def read_voc(
    root: str | Path, splits: Sequence[str], names: Sequence[str] | None = None, *, report: Report = fail
) -> Dataset:
    """Read splits of a dataset in VOC layout.

    root: a devkit, whose splits are written "2007:train" (year:list), or one folder in VOC layout, whose splits are
        the lists of its ImageSets/Main, written "train"; "all" is every annotation by name where no such list exists.
    names: the classes in their order. Else the lines of classes.txt or labels.txt in root; else every class of
        Annotations/ in the order of its first appearance, files taken by name, whatever the split, so that all splits
        agree. Folders called VOC<year> that hold no others have the twenty of `VOC_NAMES`.
    report: gets each problem; reading goes on without the object or image concerned. By default the first one raises.

    An annotation needs only `name` and `bndbox` in each object. A image without objects is normal. A box may stick
    out of its image by 1 px and is clipped then.
    """
    root = Path(root)
    lists = [_open_split(root, split) for split in as_tuple(splits)]
    if not lists:
        raise DataError(f"{root}: want at least one split")
    parsed: dict[Path, _Annotation] = {}
    order = _find_names(root, [folder for folder, _ in lists], parsed) if names is None else as_tuple(names)
    index = {name: label for label, name in enumerate(order)}
    images: dict[Path, list[Path]] = {}  # without suffix -> the files
    for path in (path for folder in {folder for folder, _ in lists} for path in find_images(folder / "JPEGImages")):
        images.setdefault(path.with_suffix(""), []).append(path)
    samples: list[Sample] = []
    seen: set[Path] = set()
    for folder, list_file in lists:
        stems = _read_list(folder, list_file, report)
        if not stems:
            report(Problem("empty split", str(list_file), "the split names no image"))
        for where, stem in stems:
            path = folder / "Annotations" / f"{stem}.xml"
            if path in seen:
                report(Problem("listed twice", where, f"{stem!r} is in the splits already"))
                continue
            seen.add(path)
            if not path.is_file():
                report(Problem("missing annotation", where, NO_ANNOTATION.format(folder / "Annotations" / stem)))
                continue
            annotation = parsed.get(path) or _parse(path, report)
            image = _find_image(folder / "JPEGImages" / stem, images, annotation, where, report)
            if annotation is not None and image is not None:
                sample = build_sample(image, annotation.size, annotation.objects, index, report)
                samples += [sample] if sample is not None else []
    return Dataset(samples, order)


def write_voc(
    dataset: Dataset, root: str | Path, split: str, *, placing: Placing = "copy", add: bool = False
) -> dict[str, int]:
    """Write a dataset in VOC layout, as the list ImageSets/Main/<split>.txt; count what was written.

    `read_voc` gives integer boxes back exactly, sides within `SNAP` of an integer as that integer, and others to the
    last bit that "+ 1" leaves; the order of names is kept in classes.txt. A crowd region gets an element `crowd`, which
    others ignore. root must be new or empty, or `add`.
    """
    root = Path(root)
    prepared = prepare(dataset, split)
    entries: list[Entry] = []
    for sample, name, size in prepared:
        stem = Path(name).stem
        entries.append((f"JPEGImages/{name}", sample.path))
        entries.append((f"Annotations/{stem}.xml", annotation_xml(sample, dataset.names, filename=name, size=size)))
    entries.append(("classes.txt", "".join(f"{name}\n" for name in dataset.names).encode()))
    stems = "".join(f"{Path(name).stem}\n" for _, name, _ in prepared)
    entries.append((f"ImageSets/Main/{split}.txt", stems.encode()))
    write_files(root, entries, placing, add)
    return {"images": len(prepared), "objects": sum(len(sample.boxes) for sample, _, _ in prepared)}


def list_voc_splits(root: Path) -> list[str]:
    """The lists of a devkit or folder, without those of single classes and without trainval beside train and val."""
    root = root / "VOCdevkit" if (root / "VOCdevkit").is_dir() else root
    plain = (root / "Annotations").is_dir()
    splits = []
    for folder in [root] if plain else sorted(root.glob("VOC*/")):
        files = sorted((folder / "ImageSets" / "Main").glob("*.txt"))
        named = [file.stem for file in files if not re.fullmatch(r"\S+ +-?[01]", read_lines(file)[0])]
        named = [stem for stem in named if stem != "trainval" or not {"train", "val"} <= set(named)]
        splits += [stem if plain else f"{folder.name[3:]}:{stem}" for stem in named or ["all"]]
    return splits


@dataclass(frozen=True, slots=True)
class _Annotation:
    filename: str
    size: tuple[int, int] | None
    objects: list[Record]


def _open_split(root: Path, split: str) -> tuple[Path, Path]:
    """The VOC folder and the list file that a split names; of "all", the list file need not exist."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    year, _, name = split.rpartition(":")
    if leads_out(name) or (year and leads_out(year)):
        raise DataError(f"{root}: split {split!r} leads out of the folder")
    if year and (root / "VOCdevkit").is_dir():
        root = root / "VOCdevkit"
    folder = root / f"VOC{year}" if year else root
    if not (folder / "Annotations").is_dir():
        known = list_voc_splits(root)
        hint = f"; known are {known}" if known else ""
        raise DataError(f"{folder}: no folder Annotations (VOC layout) for split {split!r}{hint}")
    file = folder / "ImageSets" / "Main" / f"{name}.txt"
    if not file.is_file() and name != "all":
        known = sorted(path.stem for path in file.parent.glob("*.txt"))
        raise DataError(f"{file}: no such split; known are {known or 'none'}, and 'all'")
    return folder, file


def _read_list(folder: Path, file: Path, report: Report) -> list[tuple[str, str]]:
    """(file:line, image's name without suffix) of each line of a split."""
    if not file.is_file():
        folder = folder / "Annotations"
        return [(str(path), path.relative_to(folder).as_posix()[:-4]) for path in sorted(folder.rglob("*.xml"))]
    stems = []
    for number, stem in enumerate(read_lines(file), 1):
        if stem and leads_out(stem):
            report(Problem("refused path", f"{file}:{number}", f"{stem!r} leads out of the folder"))
        elif stem:
            stems.append((f"{file}:{number}", stem))
    return stems


def _find_image(
    stem: Path, images: dict[Path, list[Path]], annotation: _Annotation | None, where: str, report: Report
) -> Path | None:
    found = images.get(stem, [])
    if len(found) > 1 and annotation is not None:
        found = [path for path in found if path.name == annotation.filename] or found
    if len(found) == 1:
        return found[0]
    what = f"several images of one name: {[path.name for path in found]}" if found else NO_IMAGE.format(stem)
    report(Problem("missing image", where, what))
    return None


def _find_names(root: Path, folders: list[Path], parsed: dict[Path, _Annotation]) -> tuple[str, ...]:
    """The classes of the dataset; annotations that had to be read for it are left in `parsed`."""
    for file in (root / "classes.txt", root / "labels.txt"):
        if file.is_file():
            names = tuple(filter(None, read_lines(file)))
            if not names:
                raise DataError(f"{file}: want one class a line, it is empty")
            return names
    found: dict[str, None] = {}
    for path in (path for folder in dict.fromkeys(folders) for path in sorted((folder / "Annotations").rglob("*.xml"))):
        problems: list[Problem] = []
        annotation = _parse(path, problems.append)
        found |= dict.fromkeys(one.name for one in (annotation.objects if annotation else []))
        if annotation is not None and not problems:
            parsed[path] = annotation
    twenty = all(re.fullmatch(r"VOC\d{4}", folder.resolve().name) for folder in folders)
    return VOC_NAMES if twenty and found.keys() <= set(VOC_NAMES) else tuple(found)


def _parse(path: Path, report: Report) -> _Annotation | None:
    """An annotation as its file has it; None where it cannot be used at all."""
    content = path.read_bytes()
    try:
        tree = defusedxml.ElementTree.fromstring(content, forbid_dtd=True)
    except (ParseError, ValueError, LookupError) as error:
        cause = "DOCTYPE and ENTITY are refused" if isinstance(error, DefusedXmlException) else f"broken XML: {error}"
        report(Problem("broken annotation", str(path), cause))
        return None
    if tree.tag != "annotation":
        report(Problem("broken annotation", str(path), f"want the element annotation, got {tree.tag!r:.50}"))
        return None
    filename = (tree.findtext("filename") or "").strip()
    if filename and leads_out(filename):
        report(Problem("refused path", str(path), f"filename {filename!r} leads out of the folder"))
        return None
    objects, elements = [], tree.findall("object")
    lines = [content.count(b"\n", 0, found.start()) + 1 for found in re.finditer(rb"<object[\s>]", content)]
    known = len(lines) == len(elements)  # not in UTF-16, nor with an object in a comment
    for number, element in enumerate(elements, 1):
        where = f"{path}:{lines[number - 1]}: object {number}" if known else f"{path}: object {number}"
        try:
            objects.append(_parse_object(element, where))
        except ValueError as error:
            report(Problem("broken annotation", where, str(error)))
    return _Annotation(filename.replace("\\", "/").rpartition("/")[2], _parse_size(tree), objects)


def _parse_size(tree: Element) -> tuple[int, int] | None:
    """(height, width); None where it is missing, unreadable or zero, as some tools write it."""
    try:
        height, width = (int(tree.findtext(f"size/{name}") or 0) for name in ("height", "width"))
    except ValueError:
        return None
    return (height, width) if height > 0 and width > 0 else None


def _parse_object(element: Element, where: str) -> Record:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise ValueError("want a name, there is none")
    corners = []
    for side in SIDES:
        text = element.findtext(f"bndbox/{side}")
        try:
            corners.append(float(text or ""))
        except ValueError:
            raise ValueError(f"bndbox/{side}: want a number, got {text!r}") from None
    flags = []
    for flag in ("difficult", "crowd"):
        text = (element.findtext(flag) or "0").strip()
        if text not in ("0", "1"):
            raise ValueError(f"{flag}: want 0 or 1, got {text!r}")
        flags.append(text == "1")
    left, top, right, bottom = corners
    lost = [LOST[tag] for tag in LOST for found in element.findall(tag) if _says_something(found)]
    return Record(where, name, (left - 1, top - 1, right, bottom), corners, flags[0], flags[1], lost)


def _says_something(element: Element) -> bool:
    return len(element) > 0 or (element.text or "").strip().casefold() not in ("", "0", "unspecified")
