"""What an ONNX file states of itself, read from its bytes alone: before any library opens it, and without one.

`seal` and `read_fields` are inverse: JSON fields go into the file's metadata, and at its end a checksum of all bytes
before it, so that a file that was cut off or damaged is refused. Nothing in an accepted file leads out of it: tensors
that lie in other files, operators of other libraries, functions and control flow are refused. The field numbers are
those of ONNX's `onnx.proto` and of the protocol buffers' encoding.
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import WeightsError
from .contract import FORMAT, check_format

__all__ = ["read_fields", "seal"]

MODEL_GRAPH, MODEL_METADATA = 7, 14
REFUSED = {20: "training_info", 25: "functions"}  # of a model
NODE, INITIALIZER = 1, 5  # of a graph
REFUSED_IN_GRAPH = {15: "sparse_initializer"}
OP_TYPE, ATTRIBUTE, DOMAIN = 4, 5, 7  # of a node
TENSOR, TENSORS = 5, 10  # of an attribute
REFUSED_IN_ATTRIBUTE = {6: "g (control flow)", 11: "graphs (control flow)", 22: "sparse_tensor", 23: "sparse_tensors"}
REFUSED_IN_TENSOR = {13: "external_data", 14: "data_location"}

Value: TypeAlias = int | memoryview


def seal(content: bytes, fields: Mapping[str, Any]) -> bytes:
    """A serialized model with JSON fields and the checksum added to its metadata."""
    content += b"".join(_entry(name, json.dumps(value)) for name, value in {"format": FORMAT, **fields}.items())
    return content + _entry("crc32", str(zlib.crc32(content)))


def read_fields(path: str | Path, content: bytes) -> dict[str, Any]:
    """The JSON fields of a file that `seal` wrote, its graph checked."""
    texts: dict[str, str] = {}
    try:
        for number, value in _fields(memoryview(content)):
            if number in REFUSED:
                raise WeightsError(f"{path}: {REFUSED[number]}: expected none")
            if number == MODEL_GRAPH:
                _check_graph(path, _bytes(value))
            elif number == MODEL_METADATA:
                entry = dict(_fields(_bytes(value)))
                texts[_text(entry.get(1, memoryview(b"")))] = _text(entry.get(2, memoryview(b"")))
    except (ValueError, UnicodeDecodeError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{path}: incomplete or not an ONNX file: {error}") from error
    if "crc32" not in texts:
        raise WeightsError(f"{path}: crc32: none in its metadata: cut off, or not written by centerdet export")
    last = _entry("crc32", texts.pop("crc32"))
    if not content.endswith(last) or last != _entry("crc32", str(zlib.crc32(content[: -len(last)]))):
        raise WeightsError(f"{path}: crc32: damaged: its content does not match the checksum stored with it")
    try:
        fields = {name: json.loads(text) for name, text in texts.items()}
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: its metadata is not JSON: {error}") from error
    check_format(path, fields)
    return fields


def _check_graph(path: str | Path, graph: memoryview) -> None:
    for number, value in _fields(graph):
        if number in REFUSED_IN_GRAPH:
            raise WeightsError(f"{path}: graph.{REFUSED_IN_GRAPH[number]}: expected none")
        if number == INITIALIZER:
            _check_tensor(path, _bytes(value))
        elif number == NODE:
            _check_node(path, list(_fields(_bytes(value))))


def _check_node(path: str | Path, node: list[tuple[int, Value]]) -> None:
    for number, value in node:
        if number == DOMAIN and (domain := _text(value)) not in ("", "ai.onnx"):
            kind = next((_text(other) for key, other in node if key == OP_TYPE), "")
            raise WeightsError(f"{path}: node {kind:.60}: domain: expected ONNX's own operators, got {domain:.60}")
        if number == ATTRIBUTE:
            for key, part in _fields(_bytes(value)):
                if key in REFUSED_IN_ATTRIBUTE:
                    raise WeightsError(f"{path}: attribute.{REFUSED_IN_ATTRIBUTE[key]}: expected none")
                if key in (TENSOR, TENSORS):
                    _check_tensor(path, _bytes(part))


def _check_tensor(path: str | Path, tensor: memoryview) -> None:
    for number, value in _fields(tensor):
        if number in REFUSED_IN_TENSOR and value != 0:
            raise WeightsError(f"{path}: tensor.{REFUSED_IN_TENSOR[number]}: expected all data in this one file")


def _fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """(number, value) of each field of a message: an integer, or the bytes of what is longer."""
    position = 0
    while position < len(message):
        key, position = _integer(message, position)
        kind = key & 7
        if kind == 0:
            value, position = _integer(message, position)
            yield key >> 3, value
            continue
        if kind == 2:
            length, position = _integer(message, position)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of unknown kind {kind}")
        if position + length > len(message):
            raise ValueError(f"a field of {length:,} bytes where {len(message) - position:,} are left")
        yield key >> 3, message[position : position + length]
        position += length


def _integer(message: memoryview, position: int) -> tuple[int, int]:
    """A varint and the position behind it: seven bits a byte, the lowest first, until one is below 128."""
    value = 0
    for shift, byte in enumerate(message[position : position + 10]):
        value |= (byte & 127) << (7 * shift)
        if byte < 128:
            return value, position + shift + 1
    raise ValueError("an integer that does not end")


def _entry(name: str, text: str) -> bytes:
    """A field `metadata_props` of a model."""

    def field(number: int, content: bytes) -> bytes:
        length, digits = len(content), []
        while length > 127:
            digits.append(length & 127 | 128)
            length >>= 7
        return bytes([number << 3 | 2, *digits, length]) + content

    return field(MODEL_METADATA, field(1, name.encode()) + field(2, text.encode()))


def _bytes(value: Value) -> memoryview:
    if isinstance(value, int):
        raise ValueError(f"the integer {value} where a message belongs")
    return value


def _text(value: Value) -> str:
    return str(_bytes(value), "utf-8")
