"""Reading a dataset's files: text, JSON, and the images that annotations name, wherever they were written."""

import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import AnnotationError, DataError
from ..files import is_companion, read_file, walk_files
from ..images import IMAGE_SUFFIXES
from .problems import Problem, Report

__all__ = ["Finder", "find_images", "leads_out", "load_json", "read_lines", "read_text"]

QUIET = {".cache", ".csv", ".json", ".md", ".names", ".npy", ".pbtxt", ".txt", ".xml", ".yaml", ".yml"}
"""Suffixes of annotations and descriptions, which often lie beside images."""

MAX_PARTS = 64
"""Folders of a path, beyond which it is looked for as it is written alone."""


def find_images(folder: Path, report: Report = lambda problem: None) -> Iterator[Path]:
    """Every image below a folder, by its path; files that are passed over are reported."""

    def passed_over(path: Path, why: str) -> None:
        if why == "hidden":
            report(Problem("hidden file", str(path), "is hidden or a system's own"))
        elif why != "other suffix":  # what cannot be read may hold any number of images
            report(Problem("file passed over", str(path), why, "refused" if why == "unreadable" else ""))
        elif path.suffix.lower() not in QUIET:
            report(Problem("file passed over", str(path), f"expected *{', *'.join(IMAGE_SUFFIXES)}"))

    return walk_files(folder, IMAGE_SUFFIXES, passed_over)


def read_text(path: Path, *, lenient: bool = False) -> str:
    """The content of a text file in UTF-8, or in UTF-16 with its mark; lenient: other bytes as file names hold them."""
    content = read_file(path)
    try:
        if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return content.decode("utf-16")
        return content.decode("utf-8-sig", "surrogateescape" if lenient else "strict")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected UTF-8 text: {error}") from error


def read_lines(path: Path, *, lenient: bool = False) -> list[str]:
    """The lines of a text file, without the spaces around them: see `read_text`."""
    return [line.strip() for line in read_text(path, lenient=lenient).split("\n")]


def load_json(path: Path, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The content of a JSON file; object_hook: as of `json.loads`, called with each object as soon as it is read."""
    content = read_file(path)
    try:
        text = content.decode(json.detect_encoding(content), "surrogatepass")
        del content  # large files have no place twice
        return json.loads(text, object_hook=object_hook)
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{path}: broken JSON: {error}") from error


def leads_out(text: str) -> bool:
    """Whether a name could lead out of its folder: absolute, with a drive, or through `..`."""
    parts = re.split(r"[/\\]", text)
    return ".." in parts or not parts[0] or "\0" in text or re.match(r"[A-Za-z]:[/\\]", text) is not None


class Finder:
    """Finds the files that annotations name: exactly, else by the end of the path, else by a similar spelling.

    Exporters write paths of another machine ("C:\\\\data\\\\a.jpg", "/data/upload/a.jpg", a URL), with a prefix
    ("data/images/a.jpg") or with the dataset's own folder before them; file systems change the Unicode form of names,
    and tools encode their spaces ("a%20b.jpg"). What is found in one of these ways is reported as "moved path".

    Nothing outside `root` is found unless `allow_outside`: a name that leads there is reported as "refused path".
    """

    def __init__(self, root: Path, allow_outside: bool, report: Report) -> None:
        self.root, self.allow_outside, self.report = root, allow_outside, report
        self._inside = (os.path.abspath(root), os.path.realpath(root))
        self._skip = 0  # leading parts of a name that were no part of the last file's path
        self._names: dict[str, dict[str, list[str]]] = {}  # folder -> spelling -> names

    def find(
        self, name: str, folders: Sequence[Path], where: str, *, test: Callable[[str], bool] = os.path.isfile
    ) -> Path | None:
        """The file (or what `test` accepts) that a name means below one of the folders; None where there is none."""
        for folder in folders:
            path = os.path.join(folder, name)
            if "\0" not in name and test(path):
                if self.is_inside(path):
                    return Path(path)
                what = f"{name!r} lies outside the dataset's folder {self.root}"
                self.report(Problem("refused path", where, f"{what}; pass allow_outside (--allow-outside) to read it"))
                return None
        parts = _split(name)
        if len(parts) > MAX_PARTS:  # each start would be spelled out below each folder
            return None
        starts = sorted(range(len(parts)), key=lambda start: (start != self._skip, start))
        for spelled in (False, True):
            for start in starts:
                for folder in folders:
                    path = os.path.join(folder, *parts[start:])
                    match = path if test(path) else self.spelled(path) if spelled else None
                    if match is not None and test(match):
                        self._skip = start
                        self.report(Problem("moved path", where, f"{name!r} is read as {match}"))
                        return Path(match)
        return None

    def is_inside(self, path: str) -> bool:
        """Whether a path may be read: it lies below the dataset's folder, links aside."""
        if self.allow_outside:
            return True
        ways = (os.path.abspath(path), os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path)))
        return any((way + os.sep).startswith(top.rstrip(os.sep) + os.sep) for way in ways for top in self._inside)

    def spelled(self, path: str) -> str | None:
        """The one file or folder whose name is this one but for case, Unicode form and percent signs."""
        if path.count(os.sep) > 2 * MAX_PARTS:
            return None
        folder, name = os.path.split(path)
        if not os.path.isdir(folder):
            if folder in ("", path) or (other := self.spelled(folder)) is None:
                return None
            folder = other
        if folder not in self._names:
            names: dict[str, list[str]] = {}
            with suppress(OSError):
                for one in os.listdir(folder):
                    if not is_companion(one):
                        names.setdefault(_spelling(one), []).append(one)
            self._names[folder] = names
        matches = self._names[folder].get(_spelling(name), [])
        return os.path.join(folder, matches[0]) if len(matches) == 1 else None


def _split(name: str) -> list[str]:
    """The parts of a path or URL from any system, without drive and dots."""
    if "://" in name:
        name = unquote(urlsplit(name).path)
    parts = re.split(r"[/\\]", name.replace("\0", ""))
    return [part for part in parts if part not in ("", ".", "..") and not re.fullmatch(r"[A-Za-z]:", part)]


def _spelling(name: str) -> str:
    return unicodedata.normalize("NFC", unquote(name, errors="surrogateescape")).casefold().strip()
