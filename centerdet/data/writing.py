"""Writing a dataset so that nothing is ever half written.

A writer lists its files, the index of the split (list, JSON, YAML) last; everything is checked before the
first byte, each file is written atomically, and until the index exists nothing refers to the files before it.
"""

import filecmp
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import numpy as np

from ..errors import DataError, ImageError, MissingImageError, WriteError
from ..files import write_atomic
from ..images import IMAGE_SUFFIXES, read_size
from ..text import explain
from .files import leads_out
from .sample import Dataset, Sample

__all__ = ["Entry", "Placing", "prepare", "write_files"]

Placing = Literal["copy", "link"]
Entry = tuple[str, bytes | Path]
"""A path relative to the dataset's folder, and its content or the image to place there."""


def prepare(dataset: Dataset, split: str, *, real_size: bool = False) -> list[tuple[Sample, str, tuple[int, int]]]:
    """Check that a dataset can be written; each sample with the name of its image there and its (height, width).

    A name that several images share gets its parent folder's name before it; one that no list or XML can hold (line
    breaks, bytes that are no UTF-8, spaces around it) is percent-encoded. The size is the sample's where it has one,
    unless `real_size` asks for the image's own.
    """
    if not split or split != split.strip() or leads_out(split) or any(sign in split for sign in "/\\:\n"):
        raise DataError(f"split: expected a plain word for file names, got {split!r}")
    if not dataset.samples:
        raise DataError(f"split {split!r}: expected at least one image")
    for name in dataset.names:
        if not name or name != name.strip() or not name.isprintable():
            what = f"expected printable text without spaces around it, got {name!r}"
            raise DataError(f"names: {what}: change it with rename (convert --rename)")
    paths = [sample.path for sample in dataset.samples]
    stems = _drop_repeats(
        [_encode(path.stem) for path in paths], [_encode(f"{path.parent.name}_{path.stem}") for path in paths]
    )
    prepared = []
    for sample, stem in zip(dataset.samples, stems, strict=True):
        if not sample.path.is_file():
            raise MissingImageError(f"{sample.path}: no such image")
        if sample.path.suffix.lower() not in IMAGE_SUFFIXES:
            what = f"expected an image called *{', *'.join(IMAGE_SUFFIXES)}, as readers look for"
            raise ImageError(f"{sample.path}: {what}")
        boxes, labels = sample.boxes, sample.labels
        if not (np.isfinite(boxes).all() and (boxes[:, 2:] > boxes[:, :2]).all()):
            raise DataError(f"{sample.path}: boxes: expected finite numbers and x2 > x1, y2 > y1")
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(dataset.names):
            raise DataError(f"{sample.path}: labels: expected 0 to {len(dataset.names) - 1}, got {labels.tolist()}")
        size = read_size(sample.path) if real_size or sample.size is None else sample.size
        prepared.append((sample, stem + sample.path.suffix, size))
    return prepared


def write_files(root: Path, entries: Sequence[Entry], placing: Placing, add: bool, replace: Sequence[str] = ()) -> None:
    """Write entries below root in their order, after checking that none of them meets a different file there.

    root must be missing or empty unless `add` allows other files in it, or the images are in place.
    Of a link to an image, its target is copied or linked.
    """
    if placing not in ("copy", "link"):
        raise DataError(f"placing: expected 'copy' or 'link', got {placing!r}")
    if root.exists() and not root.is_dir():
        raise WriteError(f"{root}: expected a folder, got a file")
    in_place = all(root / name == content for name, content in entries if isinstance(content, Path))
    if not (add or in_place) and root.is_dir() and any(root.iterdir()):
        raise WriteError(f"{root}: the folder is not empty: choose another one, or add to it on purpose (add=True)")
    missing = []
    for name, content in entries:
        path = root / name
        if name in replace or not path.exists():
            missing.append((path, content))
        elif not _same(path, content):
            raise WriteError(f"{path}: another file has this name already")
    for number, (path, content) in enumerate(missing, 1):
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            write_atomic(path, content, sync=number == len(missing))
            continue
        target = os.path.realpath(content)
        try:
            if placing == "link":
                os.link(target, path)
            else:
                write_atomic(path, Path(target).read_bytes(), sync=number == len(missing))
        except FileNotFoundError:
            raise MissingImageError(f"{content}: no such image") from None
        except WriteError:
            raise
        except OSError as error:
            hint = ": copy the images" if placing == "link" else ""
            raise WriteError(f"{path}: cannot {placing} {content} ({explain(error)}){hint}") from error


def _same(path: Path, content: bytes | Path) -> bool:
    if not path.is_file():
        return False
    if isinstance(content, bytes):
        return path.read_bytes() == content
    return path.samefile(content) or filecmp.cmp(path, content, shallow=False)


def _encode(stem: str) -> str:
    """A file name that UTF-8 text of one line can hold."""
    plain = stem.isprintable() and stem == stem.strip() and "\\" not in stem
    return stem if plain else quote(stem, safe=" ()[]{}+,;=@!#$&'~", errors="surrogateescape").strip()


def _drop_repeats(names: list[str], longer: list[str]) -> list[str]:
    """Each name, or its longer form where several are equal but for case, which some file systems ignore."""
    count = Counter(name.casefold() for name in names)
    chosen = [name if count[name.casefold()] == 1 else long for name, long in zip(names, longer, strict=True)]
    twice = [name for name, times in Counter(name.casefold() for name in chosen).items() if times > 1]
    if twice:
        raise DataError(f"several images would be called {twice[0]!r}: rename all but one")
    return chosen
