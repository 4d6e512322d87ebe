"""Weights and training states as safetensors: atomic to write, checked to read, never unpickled.

A file describes itself: its metadata holds JSON fields, and a checksum of these and the tensors, so that a file that
was cut off or damaged is noticed and never half-loaded.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from ..errors import WeightsError
from ..files import write_atomic

__all__ = ["read_tensors", "write_tensors"]


def write_tensors(path: Path, tensors: Mapping[str, Tensor], fields: Mapping[str, Any]) -> None:
    """Write named tensors and JSON fields as one safetensors file."""
    named = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    texts = {key: json.dumps(value) for key, value in fields.items()}
    checksum = _checksum(*_split(safetensors.torch.save(named, texts)))
    write_atomic(path, safetensors.torch.save(named, {**texts, "crc32": str(checksum)}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the JSON fields of a file that `write_tensors` wrote."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    content = path.read_bytes()
    try:
        header, payload = _split(content)
        tensors = safetensors.torch.load(content)
        texts: dict[str, str] = json.loads(header).get("__metadata__") or {}
    except (SafetensorError, ValueError) as error:
        raise WeightsError(f"{path}: not a whole safetensors file (pickles are never read): {error}") from error
    if "crc32" not in texts:
        raise WeightsError(f"{path}: its metadata has no crc32: not written by centerdet")
    if texts.pop("crc32") != str(_checksum(header, payload)):
        raise WeightsError(f"{path}: damaged: its content does not have the checksum that was stored with it")
    return tensors, {key: json.loads(value) for key, value in texts.items()}


def _checksum(header: bytes, payload: bytes) -> int:
    """Of the tensors and all of the header but the checksum itself; the order of its entries is not fixed."""
    entries = json.loads(header)
    fields = {key: value for key, value in entries.pop("__metadata__", {}).items() if key != "crc32"}
    return zlib.crc32(payload, zlib.crc32(json.dumps([fields, entries], sort_keys=True).encode()))


def _split(content: bytes) -> tuple[bytes, bytes]:
    """Header and payload: a safetensors file is the header's length (8 bytes, little-endian), it, and the tensors."""
    end = 8 + int.from_bytes(content[:8], "little")
    return content[8:end], content[end:]
