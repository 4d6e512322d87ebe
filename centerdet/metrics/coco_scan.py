"""A results file read straight into arrays, a part at a time, so that its dicts are never in memory together.

This holds for lists of records with image_id, category_id, bbox and score alone and with whole numbers as ids. A file
that differs anywhere is left to the reader of whole files, which also has the messages for broken ones.
"""

import os
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CenterdetError
from .arrays import COORDINATE_LIMIT
from .coco_records import Table, json_loader, uncollected

__all__ = ["scan_results"]

Part = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]

CHUNK = 1 << 17  # its records fit the cache of a processor
SPACE = b" \t\r\n"


class Irregular(Exception):
    """The file is not as regular as it has to be here."""


def scan_results(path: str | os.PathLike[str]) -> Table | None:
    """Read a results JSON; None if it is not one of plain detections."""
    decode = _typed_decoder() or _decode
    try:
        with uncollected():
            parts = [decode(text) for text in _parts(Path(path))]
    except (Irregular, OSError):
        return None
    images, categories, bbox, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Table(images, categories, bbox, scores)


def _parts(path: Path) -> Iterator[bytes]:
    """Lists of the records of a list, each of about CHUNK bytes, cut after a closing brace.

    A brace within a record cuts it, which no decoder accepts.
    """
    with path.open("rb") as file:
        rest = file.read(CHUNK).lstrip(SPACE)
        if rest[:1] != b"[":
            raise Irregular
        rest = b"," + rest[1:]
        while True:
            end = rest.rfind(b"}") + 1
            if end:
                head, part = rest[:1], rest[1:end]
                if head != b",":
                    raise Irregular
                yield b"[" + part + b"]"
            more = file.read(CHUNK)
            if not more:
                break
            rest = rest[end:].lstrip(SPACE) + more
            if len(rest) > 4 * CHUNK:
                raise Irregular
        if not end or rest[end:].strip(SPACE) != b"]":
            raise Irregular


def _typed_decoder() -> Callable[[bytes], Part] | None:
    """A decoder that makes no dicts, by msgspec where it is installed."""
    try:
        import msgspec
    except ImportError:
        return None
    fields = [("image_id", int), ("category_id", int), ("bbox", tuple[float, float, float, float]), ("score", float)]
    record: Any = msgspec.defstruct("Detection", fields, gc=False, forbid_unknown_fields=True)
    decoder = msgspec.json.Decoder(list[record])

    def decode(text: bytes) -> Part:
        try:
            records = decoder.decode(text)
            images = np.array([one.image_id for one in records], np.int64)
            categories = np.array([one.category_id for one in records], np.int64)
        except (msgspec.MsgspecError, OverflowError):
            raise Irregular from None
        bbox = np.fromiter(chain.from_iterable([one.bbox for one in records]), np.float64, 4 * len(records))
        return _finite((images, categories, bbox.reshape(-1, 4), np.array([one.score for one in records], np.float64)))

    return decode


def _decode(text: bytes) -> Part:
    """By any other JSON library."""
    try:
        records = json_loader()(text)
        if not all(isinstance(one, dict) and len(one) == 4 for one in records):
            raise Irregular
        table = Table.from_records(records, "results")
    except (ValueError, RecursionError, CenterdetError):
        raise Irregular from None
    if {*map(type, table.images), *map(type, table.categories)} != {int}:
        raise Irregular
    try:
        ids = np.array(table.images, np.int64), np.array(table.categories, np.int64)
    except OverflowError:
        raise Irregular from None
    return _finite((*ids, table.bbox, table.scores))


def _finite(part: Part) -> Part:
    """The part, unless a number of it is none or beyond what the evaluators take."""
    if not (np.abs(part[2]) <= COORDINATE_LIMIT).all() or not np.isfinite(part[3]).all():
        raise Irregular
    return part
