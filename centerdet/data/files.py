"""Files of a dataset: finding images, and writing so that nothing is ever half there.

A writer lists what it wants to write, the index of the split (list, JSON, YAML) last; everything is checked before the
first byte, each file appears whole under its name, and until the index stands nothing refers to the files before it.
"""

import filecmp
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import DataError
from ..files import write_atomic
from ..images import read_size
from .problems import leads_out
from .sample import Dataset, Sample

__all__ = [
    "IMAGES",
    "Entry",
    "Placing",
    "find_images",
    "prepare",
    "read_lines",
    "read_text",
    "write_files",
]

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

Placing = Literal["copy", "link"]
Entry = tuple[str, bytes | Path]
"""A path relative to the dataset's folder, and its content or the image to place there."""


def find_images(folder: Path) -> list[Path]:
    """Every image below a folder, by its path."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders.sort()
        found += [Path(parent, file) for file in sorted(files) if os.path.splitext(file)[1].lower() in IMAGES]
    return found


def read_text(path: Path) -> str:
    """The content of a UTF-8 text file."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: want UTF-8 text: {error}") from error


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file, without the spaces around them."""
    return [line.strip() for line in read_text(path).split("\n")]


def prepare(dataset: Dataset, split: str, *, real_size: bool = False) -> list[tuple[Sample, str, tuple[int, int]]]:
    """Check that a dataset can be written; each sample with the name of its image there and its (height, width).

    A name that several images share gets its parent folder's name before it. The size is the annotation's where it
    states one, unless `real_size` asks for the image's own.
    """
    if not split or split != split.strip() or leads_out(split) or any(sign in split for sign in "/\\:\n"):
        raise DataError(f"split: want a plain word for file names, got {split!r}")
    if not dataset.samples:
        raise DataError(f"split {split!r}: want at least one image")
    for name in dataset.names:
        if not name or name != name.strip() or not name.isprintable():
            raise DataError(f"names: want printable text without spaces around it, got {name!r}")
    paths = [sample.path for sample in dataset.samples]
    stems = _drop_repeats([path.stem for path in paths], [f"{path.parent.name}_{path.stem}" for path in paths])
    prepared = []
    for sample, stem in zip(dataset.samples, stems, strict=True):
        if not sample.path.is_file():
            raise DataError(f"{sample.path}: no such image")
        if sample.path.suffix.lower() not in IMAGES:
            raise DataError(f"{sample.path}: want a image called *{', *'.join(IMAGES)}, as readers look for")
        boxes, labels = sample.boxes, sample.labels
        if not (np.isfinite(boxes).all() and (boxes[:, 2:] > boxes[:, :2]).all()):
            raise DataError(f"{sample.path}: boxes: want finite numbers and x2 > x1, y2 > y1")
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(dataset.names):
            raise DataError(f"{sample.path}: labels: want 0 to {len(dataset.names) - 1}, got {labels.tolist()}")
        size = read_size(sample.path) if real_size or sample.size is None else sample.size
        prepared.append((sample, stem + sample.path.suffix, size))
    return prepared


def write_files(root: Path, entries: Sequence[Entry], placing: Placing, add: bool, replace: Sequence[str] = ()) -> None:
    """Write entries below root in their order, after checking that none of them meets a different file there.

    root must be missing or empty unless `add` says that it may hold something already, or the images are in place.
    """
    if placing not in ("copy", "link"):
        raise DataError(f"placing: want 'copy' or 'link', got {placing!r}")
    if root.exists() and not root.is_dir():
        raise DataError(f"{root}: want a folder, it is a file")
    in_place = all(root / name == content for name, content in entries if isinstance(content, Path))
    if not (add or in_place) and root.is_dir() and any(root.iterdir()):
        raise DataError(f"{root}: the folder is not empty: choose another one, or add to it on purpose (add=True)")
    missing = []
    for name, content in entries:
        path = root / name
        if name in replace or not path.exists():
            missing.append((path, content))
        elif not _same(path, content):
            raise DataError(f"{path}: another file of this name is there already")
    for number, (path, content) in enumerate(missing, 1):
        path.parent.mkdir(parents=True, exist_ok=True)
        if placing == "link" and isinstance(content, Path):
            try:
                os.link(content, path)
            except OSError as error:
                raise DataError(f"{path}: cannot link {content} ({error.strerror}): copy the images") from error
        else:
            whole = content.read_bytes() if isinstance(content, Path) else content
            write_atomic(path, whole, sync=number == len(missing))


def _same(path: Path, content: bytes | Path) -> bool:
    if not path.is_file():
        return False
    if isinstance(content, bytes):
        return path.read_bytes() == content
    return path.samefile(content) or filecmp.cmp(path, content, shallow=False)


def _drop_repeats(names: list[str], longer: list[str]) -> list[str]:
    """Each name, or its longer form where several are equal."""
    count = Counter(names)
    chosen = [name if count[name] == 1 else long for name, long in zip(names, longer, strict=True)]
    twice = [name for name, times in Counter(chosen).items() if times > 1]
    if twice:
        raise DataError(f"several images would be called {twice[0]!r}: rename all but one")
    return chosen
