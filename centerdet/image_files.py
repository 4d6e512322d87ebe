"""Files of images that Pillow alone refuses: HEIF, and PNGs with large texts or color profiles."""

import io
import struct
import zlib
from importlib import import_module
from typing import BinaryIO, cast

from PIL import Image

from .errors import ImageError

__all__ = ["drop_texts", "open_heif"]

HEIF_BRANDS = {b"heic", b"heim", b"heis", b"heix", b"hevc", b"hevm", b"hevs", b"hevx", b"mif1", b"msf1"}

MAX_TEXT, MAX_TEXTS = 1 << 20, 32 << 20
"""Bytes of one compressed text in a PNG, and of all: beyond them Pillow refuses the image, so the texts are dropped."""


def open_heif(file: BinaryIO, where: str) -> Image.Image | None:
    """The header of a HEIF image, by pillow-heif; None for other files."""
    file.seek(0)
    start = file.read(1024)
    size = int.from_bytes(start[:4], "big")
    brands = {start[place : place + 4] for place in (8, *range(16, min(size, 1024), 4))}
    if start[4:8] != b"ftyp" or brands & {b"avif", b"avis"} or not brands & HEIF_BRANDS:
        return None
    try:
        heif = import_module("pillow_heif")
    except ImportError:
        raise ImageError(f"{where}: HEIC images need pillow-heif: pip install 'centerdet[heif]'") from None
    file.seek(0)
    try:
        return cast(Image.Image, heif.HeifImageFile(file, ""))
    except Exception as error:  # decoders raise anything on broken files
        raise ImageError(f"{where}: broken HEIF image: {error}") from error


def drop_texts(content: bytes) -> BinaryIO | None:
    """A PNG without its color profile and its large texts, None where it has neither: limits are on pixels alone."""
    kept, place, total = [content[:8]], 8, 0
    while place + 8 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, place)
        chunk = content[place : place + 12 + size]
        length = _text_length(kind, chunk[8:-4])
        if kind != b"iCCP" and total + length <= MAX_TEXTS:
            kept.append(chunk)
            total += length
        place += 12 + size
    smaller = b"".join(kept)
    return io.BytesIO(smaller) if len(smaller) < len(content) else None


def _text_length(kind: bytes, content: bytes) -> int:
    """Bytes of the text of a PNG's chunk, more than MAX_TEXTS where it is compressed and too large."""
    _key, _, rest = content.partition(b"\0")
    if kind == b"tEXt" or (kind == b"iTXt" and rest[:1] == b"\0"):
        return len(content)
    if kind not in (b"zTXt", b"iTXt"):
        return 0
    deflated = rest[1:] if kind == b"zTXt" else rest[2:].split(b"\0", 2)[-1]
    try:
        length = len(zlib.decompressobj().decompress(deflated, MAX_TEXT + 1))
        return length if length <= MAX_TEXT else MAX_TEXTS + 1
    except zlib.error:
        return 0
