"""Atomic writes: a file or a folder is complete under its name, or absent, even after a power failure."""

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .errors import CenterdetError, WriteError

__all__ = ["new_folder", "open_atomic", "write_atomic"]


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
        with part.open("xb") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        part.replace(path)
        if sync:
            _sync_folder(path.parent)
    except CenterdetError:  # of the block: some are OSErrors as well
        raise
    except OSError as error:
        raise WriteError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            part.unlink()


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A folder to fill beside `path`, which must be missing or empty and becomes it when the block ends well."""
    path = Path(path).absolute()
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise WriteError(f"{path}: expected a new or empty folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        place = tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent)
    except OSError as error:
        raise WriteError(f"{path}: cannot be written: {error.strerror or error}") from error
    with place as folder:
        draft = Path(folder, path.name)
        draft.mkdir()
        yield draft
        if path.exists():
            path.rmdir()
        os.rename(draft, path)
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename in a folder durable, where folders can be opened (not on Windows)."""
    with suppress(OSError):  # some network shares cannot: the file itself is synced
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
