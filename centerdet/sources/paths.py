"""Paths, folders and patterns to the files that they stand for, by the same rules as datasets: see `files`."""

import glob
import re
from collections.abc import Callable
from pathlib import Path

from ..errors import DataError
from ..files import is_companion
from ..images import IMAGE_SUFFIXES
from ..text import explain

__all__ = ["STANDARD_INPUT", "VIDEO_SUFFIXES", "list_files"]

VIDEO_SUFFIXES = (
    ".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ts", ".webm", ".wmv",
)  # fmt: skip
STANDARD_INPUT = "-"


def list_files(source: str, passed_over: Callable[[Path, str], object] = lambda path, why: None) -> list[str]:
    """The files that a path stands for: those of a folder, those that fit a pattern, or the one itself.

    passed_over: called with each path that is left out and the reason, as `files.walk_files` does.
    """
    if source == STANDARD_INPUT:
        return [source]
    path = Path(source)
    foreign = re.match(r"\w[\w+.-]+://", source)
    reason = "of URLs only http and https are read" if foreign else "no file fits the pattern"
    try:
        if path.is_dir():
            files, folders = _list_folder(path, passed_over)
            hint = f"; '{path}/**/*.jpg' searches its subfolders" * folders
            reason = f"the folder has no images (*{', *'.join(IMAGE_SUFFIXES)}) and no videos{hint}"
        elif not (foreign or re.search(r"[*?[]", source)) or path.exists():
            return [source]
        else:
            files = _list_pattern(source, passed_over)
    except (OSError, ValueError) as error:
        raise DataError(f"{source}: cannot be read: {explain(error)}") from error
    if not files:
        raise DataError(f"{source}: {reason}")
    return sorted(files, key=_natural)


def _list_folder(folder: Path, passed_over: Callable[[Path, str], object]) -> tuple[list[str], bool]:
    """The images and videos of a folder, and whether it has subfolders."""
    files, folders = [], False
    for path in sorted(folder.iterdir()):
        if is_companion(path.name):
            passed_over(path, "hidden")
        elif path.is_dir():
            folders = True
        elif not path.name.lower().endswith((*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)):
            passed_over(path, "other suffix")
        elif not path.exists():
            passed_over(path, "dangling link")
        else:
            files.append(str(path))
    return files, folders


def _list_pattern(pattern: str, passed_over: Callable[[Path, str], object]) -> list[str]:
    """The files that fit a pattern; hidden ones only where the pattern names them."""
    parts = Path(pattern).parts
    start = next((number for number, part in enumerate(parts) if glob.has_magic(part)), 0)
    files = []
    for name in glob.glob(pattern, recursive=True):
        if any(is_companion(part) and part not in parts[start:] for part in Path(name).parts[start:]):
            passed_over(Path(name), "hidden")
        elif Path(name).is_file():
            files.append(name)
    return files


def _natural(name: str) -> tuple[list[str | int], str]:
    """Sorts frame2 before frame10."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name
