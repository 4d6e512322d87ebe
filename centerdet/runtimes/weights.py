"""Weights and training states as safetensors: atomic to write, checked to read, never unpickled.

A file describes itself: its metadata holds JSON fields, and a checksum of these and of the tensors, so that a file
that was cut off or damaged is refused. What the fields state is data: `check_header` bounds it, and nothing in a file
makes the reader open, fetch or import anything.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, MissingWeightsError, WeightsError
from ..files import open_atomic
from ..metrics.score_map import Calibration
from ..text import nearest

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "NMS_IOU",
    "SHIPPED",
    "Header",
    "check_header",
    "check_integer",
    "read_bytes",
    "read_tensors",
    "weights_path",
    "write_tensors",
]

NMS_IOU = 0.6
"""Of two boxes of a class that overlap more, only the better one stays; a file may state another IoU."""

SHIPPED = {"voc": "voc_efficientnet_lite0.safetensors", "voc-all": "voc_all_efficientnet_lite0.safetensors"}
"""Names of the detectors that the package ships, and their files."""

MAX_FILE, MAX_HEADER = 4 * 2**30, 8 * 2**20  # bytes; a training state of a ResNet-50 has 0.4 GiB and 0.2 MiB
MAX_CLASSES, MAX_NAME, MAX_SIZE = 10_000, 200, 4096  # classes, letters of a name, px of the input

DTYPES = {
    "torch.bool": "BOOL", "torch.uint8": "U8", "torch.int8": "I8", "torch.int16": "I16", "torch.int32": "I32",
    "torch.int64": "I64", "torch.float16": "F16", "torch.bfloat16": "BF16", "torch.float32": "F32",
    "torch.float64": "F64",
}  # fmt: skip


def weights_path(weights: str | Path) -> Path:
    """The file of a shipped name (in the package, or in the clone beside it), or the path itself."""
    if str(weights) not in SHIPPED:
        if not Path(weights).is_file():
            near = f"; {nearest(str(weights), SHIPPED)}" if "." not in str(weights) else ""
            raise MissingWeightsError(f"{weights}: no such weights file and no shipped name{near}")
        return Path(weights)
    inside = Path(str(files(__package__.partition(".")[0])), "weights", SHIPPED[str(weights)])
    return inside if inside.is_file() else Path(__file__).parents[2] / "weights" / SHIPPED[str(weights)]


@dataclass(frozen=True, slots=True)
class Header:
    """What every runtime reads from a detector's file: class names, side of the input in px, IoU of its NMS, and the
    calibration of its scores, if it has one."""

    names: tuple[str, ...]
    size: int
    nms_iou: float
    calibration: Calibration | None = None


def check_header(where: str | Path, fields: Mapping[str, Any]) -> Header:
    """The fields `names`, `size`, `nms_iou` (by default NMS_IOU) and `calibration` (by default none) of the file
    `where`, checked."""
    for field in ("names", "size"):
        if field not in fields:
            raise WeightsError(f"{where}: not detector weights: no {field} in its metadata")
    names = fields["names"]
    if not (isinstance(names, list) and 0 < len(names) <= MAX_CLASSES):
        raise WeightsError(f"{where}: names: expected a list of 1 to {MAX_CLASSES:,} names, got {_short(names)}")
    if wrong := [name for name in names if not (isinstance(name, str) and 0 < len(name) <= MAX_NAME)]:
        raise WeightsError(f"{where}: names: expected texts of 1 to {MAX_NAME} letters, got {_short(wrong[0])}")
    if len(set(names)) < len(names):
        raise WeightsError(f"{where}: names: expected each name once, got {_short(names)}")
    size = check_integer(where, "size", fields["size"], 32, MAX_SIZE)
    if size % 32:
        raise WeightsError(f"{where}: size: expected a multiple of 32 px, got {size}")
    iou = fields.get("nms_iou", NMS_IOU)
    if isinstance(iou, bool) or not (isinstance(iou, int | float) and 0 <= iou <= 1):
        raise WeightsError(f"{where}: nms_iou: expected a number from 0 to 1, got {_short(iou)}")
    try:
        calibration = Calibration.from_dict(fields["calibration"], names) if "calibration" in fields else None
    except DataError as error:
        raise WeightsError(f"{where}: {error}") from error
    return Header(tuple(names), size, float(iou), calibration)


def check_integer(where: str | Path, field: str, value: object, low: int, high: int) -> int:
    """The value of a file's field, an integer within bounds."""
    if isinstance(value, bool) or not (isinstance(value, int) and low <= value <= high):
        raise WeightsError(f"{where}: {field}: expected an integer from {low} to {high}, got {_short(value)}")
    return value


def write_tensors(path: str | Path, tensors: Mapping[str, "Tensor"], fields: Mapping[str, Any]) -> None:
    """Write named tensors and JSON fields as one safetensors file."""
    import torch

    arrays = {
        name: (str(tensor.dtype), list(tensor.shape), tensor.detach().cpu().contiguous().flatten().view(torch.uint8))
        for name, tensor in tensors.items()
    }
    # The format needs no holes between tensors and each at a multiple of its item's size: large items come first.
    order = sorted(arrays, key=lambda name: (-tensors[name].element_size(), name))
    entries, chunks, end = {}, [], 0
    for name in order:
        dtype, shape, values = arrays[name]
        start, end = end, end + len(values)
        entries[name] = {"dtype": DTYPES[dtype], "shape": shape, "data_offsets": [start, end]}
        chunks.append(values.numpy().data)
    texts = {field: json.dumps(value) for field, value in fields.items()}
    checksum = _checksum(texts, entries, chunks)
    header = json.dumps({"__metadata__": {**texts, "crc32": str(checksum)}, **entries}).encode()
    header += b" " * (-len(header) % 8)
    with open_atomic(path) as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.writelines(chunks)


def read_tensors(path: str | Path) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """The tensors and the JSON fields of a file that `write_tensors` wrote."""
    import safetensors.torch
    from safetensors import SafetensorError

    size = _check_file(path)
    with Path(path).open("rb") as file:
        if (length := int.from_bytes(file.read(8), "little")) > MAX_HEADER and length <= size:
            raise WeightsError(f"{path}: expected a header of at most {MAX_HEADER / 2**20:g} MiB, got {length} bytes")
        file.seek(0)
        content = file.read()
    try:
        tensors = safetensors.torch.load(content)
        entries = json.loads(content[8 : 8 + length])
        texts: dict[str, str] = entries.pop("__metadata__", None) or {}
    except (SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise WeightsError(f"{path}: incomplete or not a safetensors file (pickles are never read): {error}") from error
    if "crc32" not in texts:
        raise WeightsError(f"{path}: its metadata has no crc32: not written by centerdet")
    if texts.pop("crc32") != str(_checksum(texts, entries, [memoryview(content)[8 + length :]])):
        raise WeightsError(f"{path}: damaged: its content does not match the checksum stored with it")
    try:
        return tensors, {field: json.loads(text) for field, text in texts.items()}
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: its metadata is not JSON: {error}") from error


def read_bytes(path: str | Path) -> bytes:
    """The content of an exported file."""
    _check_file(path)
    return Path(path).read_bytes()


def _check_file(path: str | Path) -> int:
    """The size in bytes of a weights file, which must exist and be of bearable size."""
    if not Path(path).is_file():
        raise MissingWeightsError(f"{path}: no such weights file")
    if (size := Path(path).stat().st_size) > MAX_FILE:
        raise WeightsError(f"{path}: expected at most {MAX_FILE / 2**30:g} GiB, got {size / 2**30:.1f}")
    return size


def _checksum(texts: Mapping[str, str], entries: Mapping[str, Any], chunks: list[memoryview]) -> int:
    """CRC-32 of the header, in an order that no serializer changes, and of the tensors' bytes."""
    value = zlib.crc32(json.dumps([texts, entries], sort_keys=True).encode())
    for chunk in chunks:
        value = zlib.crc32(chunk, value)
    return value


def _short(value: object) -> str:
    """A value of a file for a message, whatever its length."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
