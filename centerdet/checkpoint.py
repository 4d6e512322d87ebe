"""Weights and training states as safetensors: atomic to write, checked to read, never unpickled.

A file describes itself: its metadata holds JSON fields, and a checksum of its tensors, so that a file that was cut
off or damaged is noticed and never half-loaded.
"""

import json
import os
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from .errors import WeightsError

__all__ = ["read_tensors", "write_bytes", "write_tensors"]


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file or none: under a temporary name in its folder, synced, then renamed."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_tensors(path: Path, tensors: Mapping[str, Tensor], fields: Mapping[str, Any]) -> None:
    """Write named tensors and JSON fields as one safetensors file."""
    named = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    checksum = zlib.crc32(_split(safetensors.torch.save(named))[1])
    texts = {key: json.dumps(value) for key, value in {**fields, "crc32": checksum}.items()}
    write_bytes(path, safetensors.torch.save(named, texts))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the JSON fields of a file that `write_tensors` wrote."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    content = path.read_bytes()
    try:
        header, payload = _split(content)
        fields = {key: json.loads(value) for key, value in json.loads(header).get("__metadata__", {}).items()}
        tensors = safetensors.torch.load(content)
    except (SafetensorError, ValueError, AttributeError) as error:
        raise WeightsError(f"{path}: not a whole safetensors file (pickles are never read): {error}") from error
    if "crc32" not in fields:
        raise WeightsError(f"{path}: its metadata has no crc32: not written by centerdet")
    if fields.pop("crc32") != zlib.crc32(payload):
        raise WeightsError(f"{path}: damaged: its tensors do not have the checksum that was stored with them")
    return tensors, fields


def _split(content: bytes) -> tuple[bytes, bytes]:
    """Header and payload: a safetensors file is the header's length (8 bytes, little-endian), it, and the tensors."""
    end = 8 + int.from_bytes(content[:8], "little")
    return content[8:end], content[end:]
