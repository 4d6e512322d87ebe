"""Atomic writes: a file or a folder is complete under its name, or absent."""

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import DataError

__all__ = ["new_folder", "open_whole", "write_whole"]


def write_whole(path: str | Path, content: bytes, *, sync: bool = True) -> None:
    """Write a file: see `open_whole`."""
    with open_whole(path, sync=sync) as file:
        file.write(content)


@contextmanager
def open_whole(path: str | Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """A file under a temporary name in its folder, synced (unless many follow) and renamed when the block ends well."""
    path = Path(path)
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A folder to fill beside `path`, which must be missing or empty and becomes it when the block ends well."""
    path = Path(path).absolute()
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise DataError(f"{path}: want a new or empty folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        draft = Path(folder, path.name)
        draft.mkdir()
        yield draft
        if path.exists():
            path.rmdir()
        os.rename(draft, path)
