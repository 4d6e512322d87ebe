"""Files that are there whole or not at all."""

import os
import secrets
from pathlib import Path

from .errors import DataError

__all__ = ["write_whole"]


def write_whole(path: str | Path, content: bytes, *, sync: bool = True) -> None:
    """Write a file under a temporary name in its folder, sync it (unless many follow) and rename it."""
    path = Path(path)
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
