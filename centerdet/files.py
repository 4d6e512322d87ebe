"""Files and folders: walked by one rule everywhere, written atomically.

What is written is complete under its name, or absent, even after a power failure.
"""

import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .errors import CenterdetError, DataError, MissingDataError, WriteError
from .text import explain

__all__ = [
    "is_companion", "lock_folder", "new_folder", "open_atomic", "read_file", "walk_files", "write_atomic", "writing",
]  # fmt: skip

COMPANIONS = {
    "$recycle.bin",
    "@eadir",
    "__macosx",
    "desktop.ini",
    "lost+found",
    "system volume information",
    "thumbs.db",
}
"""Files and folders that systems and shares put beside a user's own."""


def is_companion(name: str) -> bool:
    """Whether a file or folder is hidden (`.x`, `._x`, `.ipynb_checkpoints`) or put there by a system (`Thumbs.db`)."""
    return name.startswith(".") or name.casefold() in COMPANIONS


def walk_files(
    folder: str | Path, suffixes: Sequence[str], passed_over: Callable[[Path, str], object] = lambda path, why: None
) -> Iterator[Path]:
    """Every file below a folder with one of the suffixes (lower case, with the dot), sorted by path.

    Links to files and folders are followed. passed_over: called with each path that is left out and the reason:
    "hidden" (see `is_companion`), "dangling link", "link cycle", "unreadable" or "other suffix".
    """
    yield from _walk(os.fspath(folder), frozenset(suffixes), passed_over, ())


def _walk(
    folder: str, suffixes: frozenset[str], passed_over: Callable[[Path, str], object], above: tuple[str, ...]
) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in above:
        passed_over(Path(folder), "link cycle")
        return
    try:
        with os.scandir(folder) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
    except OSError:
        passed_over(Path(folder), "unreadable")
        return
    files, folders = [], []
    for entry in entries:
        if is_companion(entry.name):
            passed_over(Path(entry.path), "hidden")
        elif entry.is_dir():
            folders.append(entry.path)
        elif os.path.splitext(entry.name)[1].lower() not in suffixes:
            passed_over(Path(entry.path), "other suffix")
        elif not entry.is_file():
            passed_over(Path(entry.path), "dangling link")
        else:
            files.append(Path(entry.path))
    yield from files
    for path in folders:
        yield from _walk(path, suffixes, passed_over, (*above, real))


def read_file(path: Path) -> bytes:
    """The content of a file of a dataset."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise MissingDataError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise DataError(f"{path}: cannot be read: {explain(error)}") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise what the system refuses as a `WriteError` of this path."""
    try:
        yield
    except CenterdetError:  # some are OSErrors as well
        raise
    except OSError as error:
        raise WriteError(f"{path}: cannot be written: {explain(error)}") from error


def write_atomic(path: str | Path, content: bytes, *, sync: bool = True) -> None:
    """Write a file: see `open_atomic`."""
    with open_atomic(path, sync=sync) as file:
        file.write(content)


@contextmanager
def open_atomic(path: str | Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """A file under a temporary name in the same folder, renamed to `path` when the block ends without an error.

    sync: wait until file and folder are on the disk; switch it off for all but the last of many files.
    """
    path = Path(path)
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with writing(path):
            with part.open("xb") as file:
                yield file
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            part.replace(path)
            if sync:
                _sync_folder(path.parent)
    finally:
        with suppress(OSError):
            part.unlink()


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A folder to fill beside `path`, which must be missing or empty and becomes it when the block ends well."""
    path = Path(path).absolute()
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise WriteError(f"{path}: expected a new or empty folder")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        place = tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent)
    with place as folder:
        draft = Path(folder, path.name)
        draft.mkdir()
        yield draft
        with writing(path):
            if path.exists():
                path.rmdir()  # fails where another process has put files into it
            os.rename(draft, path)
        _sync_folder(path.parent)


@contextmanager
def lock_folder(folder: str | Path) -> Iterator[None]:
    """Make a folder, and keep other processes from locking it while the block runs: for them, it is a WriteError.

    A killed process leaves the file `.lock`, which then locks nothing. Nothing is locked on Windows and on shares
    without locks. A folder that is new and empty when the block raises is removed.
    """
    folder = Path(folder)
    new = not folder.exists()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("wb")
    with file:
        try:
            import fcntl

            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock, not inherited by a forked process
        except (BlockingIOError, PermissionError) as error:
            hint = "wait until it ends, or choose another folder"
            raise WriteError(f"{folder}: another process is writing into this folder: {hint}") from error
        except (ImportError, OSError):
            pass
        failed = True
        try:
            yield
            failed = False
        finally:
            with suppress(OSError):  # on Windows, no open file can be removed
                (folder / ".lock").unlink()
                if new and failed:
                    folder.rmdir()


def _sync_folder(folder: Path) -> None:
    """Make a rename in a folder durable, where folders can be opened (not on Windows)."""
    with suppress(OSError):  # some network shares cannot: the file itself is synced
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
