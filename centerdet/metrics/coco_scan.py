"""A results file read straight into arrays: many times faster than dicts, in a small multiple of the arrays' memory.

Programs write every record alike: the same keys in the same order. So a record without its numbers is the same text
each time, which one comparison checks, and numbers are decoded many at a time. A file that differs anywhere is left to
a JSON parser. Law: the numbers are those of `float` and `int`, bit for bit.

Shapes: N numbers, R runs of digits: 1.25e-3 is three runs.
"""

import json
import os
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .coco_records import Table

__all__ = ["scan_results"]

Words = NDArray[np.uint64]
Part = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]

CHUNK = 1 << 18
PAD = b" " * 24  # so that 24 bytes before any run can be loaded
NUMERIC = b"0123456789+-.eE \t\r\n"
DOT, MINUS, PLUS, LETTER = b".-+e"
EXACT = 2**53  # such whole numbers are doubles
WIDE = np.finfo(np.longdouble).nmant == 63  # 80-bit floats: 64 bits of mantissa, exact powers of ten up to 27
POWERS = np.array([10**n for n in range(28)], dtype=object).astype(np.longdouble)
INT_POWERS = np.array([10**n for n in range(20)], np.uint64)


class Layout(NamedTuple):
    """A record without numbers, after a comma; the places of its numbers; and how many letters e its keys have."""

    skeleton: bytes
    images: int
    categories: int
    bbox: int
    scores: int
    letters: int


class Irregular(Exception):
    """The file is not as regular as it has to be here."""


def scan_results(path: str | os.PathLike[str]) -> Table | None:
    """Read a results JSON, if all of its records are alike and state image_id, category_id, bbox and score alone."""
    if sys.byteorder != "little" or not WIDE:
        return None
    try:
        with ThreadPoolExecutor(2) as pool:
            waiting: deque[Future[Part]] = deque()
            parts: list[Part] = []
            layout = None
            for chunk in _chunks(Path(path)):
                layout = layout or _layout(chunk)
                waiting.append(pool.submit(_decode, chunk, layout))
                if len(waiting) > 3:
                    parts.append(waiting.popleft().result())
            parts += [one.result() for one in waiting]
    except (Irregular, OSError):
        return None
    images, categories, bbox, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Table(images, categories, bbox, scores)


def _chunks(path: Path) -> Iterator[bytes]:
    """The records of a list, many at a time, each after a comma."""
    with path.open("rb") as file:
        rest = file.read(CHUNK).lstrip(b" \t\r\n")
        if rest[:1] != b"[":
            raise Irregular
        rest = b"," + rest[1:]
        while True:
            end = rest.rfind(b"}") + 1
            if end:
                yield rest[:end]
            more = file.read(CHUNK)
            if not more:
                break
            rest = rest[end:] + more
            if len(rest) > 4 * CHUNK:
                raise Irregular
        if not end or rest[end:].strip(b" \t\r\n") != b"]":
            raise Irregular


def _layout(chunk: bytes) -> Layout:
    first = chunk[1 : chunk.index(b"}") + 1]
    try:
        pairs = json.loads(first, object_pairs_hook=list)
        record = dict(pairs)
        ids, numbers = [record["image_id"], record["category_id"]], [record["score"], *record["bbox"]]
    except (ValueError, TypeError, KeyError):
        raise Irregular from None
    plain = {*map(type, ids)} == {int} and {*map(type, numbers)} <= {int, float}
    if not plain or len(pairs) != 4 or len(record) != 4 or len(numbers) != 5:
        raise Irregular
    place, places = 0, {}
    for key, _ in pairs:
        places[key] = place
        place += 4 if key == "bbox" else 1
    letters = "".join(record).count("e")
    skeleton = b"," + first.translate(None, NUMERIC)
    return Layout(skeleton, places["image_id"], places["category_id"], places["bbox"], places["score"], letters)


def _decode(chunk: bytes, layout: Layout) -> Part:
    """Image ids, category ids, boxes and scores of some records."""
    skeleton = chunk.translate(None, NUMERIC)
    count, odd = divmod(len(skeleton), len(layout.skeleton))
    if odd or skeleton != layout.skeleton * count:
        raise Irregular
    text = np.frombuffer(PAD + chunk, np.uint8)
    digit = (text - np.uint8(48)) < 10
    edges = np.flatnonzero(digit[1:] != digit[:-1]) + 1
    starts, ends = edges[::2], edges[1::2]
    lengths = ends - starts
    words = np.ndarray(len(text) - 7, np.uint64, text, strides=(1,))
    runs, short = _whole(words, ends, lengths)

    # A run is the whole part of a number, its fraction after a point, or its exponent.
    before, after = text[starts - 1], text[ends]
    adjacent = np.append(starts[1:] == ends[:-1] + 1, False)
    pointed = (after == DOT) & adjacent
    letter = (after | 32) == LETTER
    signed = np.append(False, letter[:-1] & (starts[1:] == ends[:-1] + 2)) & ((before == MINUS) | (before == PLUS))
    exponent = np.append(False, letter[:-1] & adjacent[:-1]) | signed
    fraction = np.append(False, pointed[:-1])
    heads = np.flatnonzero(~fraction & ~exponent)
    negative = before[heads] == MINUS
    if len(heads) != 7 * count:
        raise Irregular
    # Every point, sign and letter must be a part of a number that was understood.
    expected = {
        DOT: np.count_nonzero(fraction),
        MINUS: np.count_nonzero(negative) + np.count_nonzero(signed & (before == MINUS)),
        PLUS: np.count_nonzero(signed & (before == PLUS)),
    }
    letters = np.count_nonzero((text | 32) == LETTER) - layout.letters * count
    if letters != np.count_nonzero(exponent):
        raise Irregular
    if any(np.count_nonzero(text == one) != times for one, times in expected.items()):
        raise Irregular

    after_head = np.minimum(heads + 1, len(starts) - 1)
    has_fraction = fraction[after_head] & (after_head > heads)
    digits = np.where(has_fraction, lengths[after_head], 0)
    last = heads + has_fraction
    after_last = np.minimum(last + 1, len(starts) - 1)
    has_exponent = exponent[after_last] & (after_last > last)
    whole = runs[heads]
    # 19 digits fit, and a fraction of more that begins with zeros fits alone: 0.00012345678901234567.
    easy = short[heads] & (short[after_head] | ~has_fraction) & ((lengths[heads] + digits <= 19) | (whole == 0))
    scale = np.minimum(digits, 19)
    mantissa = whole * INT_POWERS[scale] + np.where(has_fraction, runs[after_head], 0).astype(np.uint64)
    power = digits
    if has_exponent.any():
        easy &= ~has_exponent | (lengths[after_last] <= 3)
        shift = np.where(has_exponent, runs[after_last], 0).astype(np.int64)
        power = digits - np.where(before[after_last] == MINUS, -shift, shift)
    easy &= (power >= 0) & (power < len(POWERS))
    values = _divide(mantissa, np.clip(power, 0, len(POWERS) - 1), easy)
    np.negative(values, out=values, where=negative)
    for number in np.flatnonzero(~easy).tolist():
        end = ends[after_last[number] if has_exponent[number] else last[number]]
        values[number] = float(bytes(text[starts[heads[number]] - negative[number] : end]))
    if not np.isfinite(values).all():
        raise Irregular

    table = values.reshape(count, 7)
    plain = (easy & ~has_fraction & ~has_exponent & (mantissa < EXACT)).reshape(count, 7)
    if not (plain[:, layout.images] & plain[:, layout.categories]).all():
        raise Irregular
    images, categories = (table[:, column].astype(np.int64) for column in (layout.images, layout.categories))
    return images, categories, table[:, layout.bbox : layout.bbox + 4].copy(), table[:, layout.scores].copy()


def _whole(words: Words, ends: NDArray[np.int64], lengths: NDArray[np.int64]) -> tuple[Words, NDArray[np.bool_]]:
    """The whole number of each run of digits, and whether it fits, (R,) both."""
    total = _eight(words[ends - 8], np.minimum(lengths, 8))
    fits = lengths <= 24
    for skipped in (8, 16):
        longer = np.flatnonzero(lengths > skipped)
        part = _eight(words[ends[longer] - skipped - 8], np.minimum(lengths[longer] - skipped, 8))
        total[longer] += part * np.uint64(10**skipped)
        if skipped == 16:
            fits[longer] &= part < 1000
    return total, fits


def _eight(word: Words, count: NDArray[np.int64]) -> Words:
    """The number that the last 1 to 8 characters of a word write: pairs, fours, then all eight at once.

    The first character is in the lowest byte. A multiplication by 10 * 2**8 + 1 adds to each digit ten times the one
    before it.
    """
    drop = (64 - 8 * count).astype(np.uint64)
    word = (word >> drop << drop) & np.uint64(0x0F0F0F0F0F0F0F0F)
    word = (word * np.uint64(10 * 2**8 + 1)) >> np.uint64(8) & np.uint64(0x00FF00FF00FF00FF)
    word = (word * np.uint64(100 * 2**16 + 1)) >> np.uint64(16) & np.uint64(0x0000FFFF0000FFFF)
    return (word * np.uint64(10000 * 2**32 + 1)) >> np.uint64(32)


def _divide(mantissa: Words, power: NDArray[np.int64], easy: NDArray[np.bool_]) -> NDArray[np.float64]:
    """mantissa / 10**power, correctly rounded; `easy` is cleared where that is not certain.

    Up to 2**53 and 10**22 both are doubles, and so one division rounds correctly. Beyond, both are 80-bit floats; that
    quotient is off by half of its last bit at most, which matters only if the 11 bits that a double lacks are exactly
    one half of a double's last bit.
    """
    values = mantissa.astype(np.float64)
    values /= POWERS.astype(np.float64)[power]
    long = np.flatnonzero((mantissa > EXACT) | (power > 22))
    if len(long):
        quotient = mantissa[long].astype(np.longdouble) / POWERS[power[long]]
        values[long] = quotient.astype(np.float64)
        low = quotient.view(np.uint64)[::2] & np.uint64(0x7FF)
        easy[long[low == 0x400]] = False
    return values
