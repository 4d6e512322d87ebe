"""Folders that are there whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DataError

__all__ = ["new_folder"]


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
