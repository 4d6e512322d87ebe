"""A pack: the images of a training set, shrunk and decoded, one after another in a memory-mapped file.

    PACK/images.bin         RGB uint8 pixels, image after image
    PACK/pack.safetensors   sizes, objects, checksums and paths, written when `images.bin` is complete

Law: training from a pack gives the same bits as from the files, if training shrinks images to the pack's size. Where an
image lies in `images.bin` is not stored, since it follows from the sizes.
"""

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import CenterdetError, DataError, MissingDataError, WriteError
from ..files import lock_folder, open_atomic
from ..images import load, resize
from ..text import as_tuple, explain
from .fingerprint import dataset_fingerprint
from .problems import Report
from .records import PLAIN, ReadOptions
from .sample import Dataset, Sample

__all__ = ["Pack", "is_pack", "read_pack", "read_sample", "write_pack"]

FORMAT, LARGEST = "centerdet pack 1", 65_535  # px of a packed side
IMAGES, LABELS, DRAFT, JOURNAL = "images.bin", "pack.safetensors", ".images.bin", ".journal"
TENSORS: dict[str, tuple[str, tuple[int, ...], str]] = {  # dtype, shape of a row, and what has a row
    "sizes": ("<u4", (2,), "image"), "checksums": ("<u4", (), "image"), "counts": ("<u4", (), "image"),
    "boxes": ("<f8", (4,), "object"), "labels": ("<i8", (), "object"), "difficult": ("?", (), "object"),
    "crowd": ("?", (), "object"), "paths": ("u1", (), "byte"),
}  # fmt: skip
OBJECTS = ("boxes", "labels", "difficult", "crowd")
TOGETHER = 64  # images that are decoded, then stated in the journal
ROW = struct.Struct("<3I")  # of the journal: height and width of the original image, CRC-32 of the packed pixels
Rows = list[tuple[int, int, int]]


def read_sample(sample: Sample, longest: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """An image, shrunk where its longer side is more than `longest` px, and its original (height, width)."""
    if sample.packed is None:
        image = load(sample.path)
        size = image.shape[0], image.shape[1]
    else:
        pack, number = sample.packed
        image, size = pack.read(number), pack.sizes[number]
        if pack.size <= longest:
            return image, size
    height, width = _shrink(size, longest).tolist()
    return resize(image, width, height), size


def _shrink(sizes: ArrayLike, longest: int) -> NDArray[np.int64]:
    """Sizes (..., 2) with a longer side of at most `longest`."""
    sizes = np.asarray(sizes, np.int64)
    scale = np.minimum(1.0, longest / sizes.max(-1, keepdims=True).clip(1))
    return np.asarray(np.maximum(1, np.rint(sizes * scale)), np.int64)


def is_pack(folder: str | Path) -> bool:
    """Whether a folder contains a pack, complete or not."""
    return any(Path(folder, name).is_file() for name in (LABELS, IMAGES, DRAFT))


class Pack:
    """An opened pack, whose files were checked.

    Attributes:
        source, splits, names: of the dataset that was packed.
        size: longer side in px to which larger images were shrunk.
        sizes: (N,) original (height, width). paths: (N,) of the original images.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder, self.file = Path(folder), Path(folder, IMAGES)
        fields, self.tensors = _read_labels(self.folder / LABELS)
        self.source, self.size = Path(fields["source"]), fields["size"]
        self.splits, self.names = tuple(fields["splits"]), tuple(fields["names"])
        self.paths = [os.fsdecode(path) for path in self.tensors["paths"].tobytes().split(b"\0")]
        self.sizes: list[tuple[int, int]] = list(map(tuple, self.tensors["sizes"].tolist()))
        self.shapes = _shrink(self.tensors["sizes"], self.size)
        self.ends = np.cumsum(3 * self.shapes.prod(1))
        self.verified = np.zeros(len(self.sizes), bool)
        try:
            self.pixels = np.asarray(np.memmap(self.file, np.uint8, "r"))
        except (OSError, ValueError) as error:  # ValueError: an empty file
            raise DataError(f"{self.file}: cannot be read: {explain(error)}; pack again") from error
        if len(self.pixels) != self.ends[-1]:
            expected = f"expected {self.ends[-1]:,} bytes by {LABELS}, got {len(self.pixels):,}"
            raise DataError(f"{self.file}: {expected}: incomplete, or of another pack; pack again")

    def __reduce__(self) -> tuple[type["Pack"], tuple[Path]]:  # a spawned process opens the files itself
        return Pack, (self.folder,)

    def read(self, number: int) -> NDArray[np.uint8]:
        """Image `number`, (H, W, 3) and read-only; its checksum is verified when it is first read."""
        (height, width), end = self.shapes[number].tolist(), int(self.ends[number])
        image = self.pixels[end - 3 * height * width : end].reshape(height, width, 3)
        if not self.verified[number]:
            if zlib.crc32(image.data) != self.tensors["checksums"][number]:
                what = f"image {number} ({self.paths[number]}): the pixels do not match the checksum in {LABELS}"
                raise DataError(f"{self.file}: {what}: damaged, or of another pack; pack again")
            self.verified[number] = True
        return image


def read_pack(
    root: str | Path,
    splits: Sequence[str],
    names: Sequence[str] | None = None,
    *,
    report: Report | None = None,
    options: ReadOptions = PLAIN,
) -> Dataset:
    """The packed images; problems of the dataset were reported when it was packed."""
    pack = Pack(root)
    for what, asked, packed in (("splits", splits, pack.splits), ("classes", names or pack.names, pack.names)):
        if as_tuple(asked) != packed:
            raise DataError(f"{root}: expected the packed {what} {list(packed)}, got {list(as_tuple(asked))}")
    boxes, labels, difficult, crowd = (pack.tensors[name] for name in OBJECTS)
    ends = np.cumsum(pack.tensors["counts"], dtype=np.int64).tolist()
    rows = zip(pack.paths, map(slice, [0, *ends[:-1]], ends), pack.sizes, strict=True)
    samples = [
        Sample(Path(path), boxes[part], labels[part], difficult[part], crowd[part], size, packed=(pack, number))
        for number, (path, part, size) in enumerate(rows)
    ]
    return Dataset(samples, pack.names)


def write_pack(
    dataset: Dataset,
    source: str | Path,
    splits: Sequence[str],
    out: str | Path,
    size: int,
    *,
    progress: Callable[[int], object] = lambda done: None,
) -> None:
    """Pack a dataset, as read from `splits` of `source`, into a folder; images are shrunk to a longer side of `size`.

    A stopped pass is verified and continued, and ends with the same bytes as one without a stop. progress: called with
    the number of packed images.
    """
    out = Path(out)
    if not (len(dataset) and 1 <= size <= LARGEST):
        raise DataError(
            f"{source}: expected images, and a size of 1 to {LARGEST} px; got {len(dataset)} images, {size} px"
        )
    fields = {
        "format": FORMAT, "source": os.path.abspath(source), "splits": as_tuple(splits), "names": dataset.names,
        "size": size,
    }  # fmt: skip
    with lock_folder(out):
        if (out / LABELS).exists():
            raise WriteError(f"{out}: already contains a pack: choose a new folder, or delete it")
        try:
            if (out / IMAGES).exists():  # stopped before the labels were written
                (out / IMAGES).replace(out / DRAFT)
            rows = _write_images(dataset, out, size, progress)
            (out / DRAFT).replace(out / IMAGES)
            with open_atomic(out / LABELS) as file:
                file.write(_labels(dataset, rows, fields))
            (out / JOURNAL).unlink()
        except CenterdetError:
            raise
        except OSError as error:
            hint = "the same command continues"
            raise WriteError(f"{out}: cannot be written: {explain(error)}; {hint}") from error


def _write_images(dataset: Dataset, out: Path, size: int, progress: Callable[[int], object]) -> Rows:
    """Write or complete the draft of `images.bin`; the journal's row of each image."""
    key = hashlib.sha256(json.dumps([FORMAT, size, dataset_fingerprint(dataset)]).encode()).digest()
    for name in (DRAFT, JOURNAL):
        (out / name).touch()
    with (
        (out / DRAFT).open("r+b") as pixels,
        (out / JOURNAL).open("r+b") as journal,
        ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool,
    ):
        rows = _verify_draft(pixels, journal, key, size)
        while len(rows) < len(dataset):
            samples = dataset.samples[len(rows) : len(rows) + TOGETHER]
            for image, (height, width) in pool.map(lambda sample: read_sample(sample, size), samples):
                pixels.write(image.data)
                rows.append((height, width, zlib.crc32(image.data)))
            pixels.flush()
            journal.write(b"".join(_seal(row) for row in rows[-len(samples) :]))
            journal.flush()
            progress(len(rows))
        os.fsync(pixels.fileno())
    return rows


def _verify_draft(pixels: BinaryIO, journal: BinaryIO, key: bytes, size: int) -> Rows:
    """The rows of a draft of the same data up to the first damaged image; what follows is cut off."""
    rows: Rows = []
    length, sealed = 0, ROW.size + 4
    if journal.read(len(key)) == key:
        while len(row := journal.read(sealed)) == sealed:
            height, width, checksum = ROW.unpack(row[: ROW.size])
            if row != _seal((height, width, checksum)):
                break
            image = pixels.read(3 * int(_shrink((height, width), size).prod()))
            if zlib.crc32(image) != checksum:
                break
            rows.append((height, width, checksum))
            length += len(image)
    pixels.truncate(length)
    pixels.seek(length)
    journal.seek(0)
    journal.write(key)
    journal.truncate(journal.seek(len(key) + sealed * len(rows)))
    return rows


def _seal(row: tuple[int, int, int]) -> bytes:
    """The journal's row, and its own CRC-32."""
    content = ROW.pack(*row)
    return content + zlib.crc32(content).to_bytes(4, "little")


def _labels(dataset: Dataset, rows: Rows, fields: dict[str, Any]) -> bytes:
    """The content of `pack.safetensors`."""
    from safetensors.numpy import save

    samples, table = dataset.samples, np.array(rows)
    paths = b"\0".join(os.fsencode(os.path.abspath(sample.path)) for sample in samples)
    columns: dict[str, NDArray[Any]] = {
        "sizes": table[:, :2], "checksums": table[:, 2], "paths": np.frombuffer(paths, np.uint8),
        "counts": np.array([len(sample.boxes) for sample in samples]),
        **{name: np.concatenate([getattr(sample, name) for sample in samples]) for name in OBJECTS},
    }  # fmt: skip
    tensors = {name: np.ascontiguousarray(columns[name], dtype) for name, (dtype, _, _) in TENSORS.items()}
    # One text, since safetensors writes several in random order.
    return save(tensors, {"pack": json.dumps({**fields, "crc32": _checksum(fields, tensors)})})


def _read_labels(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The fields and tensors of `pack.safetensors`, checked."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise MissingDataError(f"{path}: no such file: an unfinished pack; repeat `centerdet pack` to continue it")
    try:
        with safe_open(path, "np") as file:
            fields = json.loads(file.metadata()["pack"])
            tensors: dict[str, NDArray[Any]] = {name: file.get_tensor(name) for name in TENSORS}
        stated = fields.pop("crc32")
        texts = [fields["format"], fields["source"], *fields["splits"], *fields["names"]]
        size, names = fields["size"], fields["names"]
    except (SafetensorError, OSError, LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: damaged, or not of a pack: {type(error).__name__}: {error}") from error
    lengths: dict[str, int] = {}
    for name, (dtype, row, what) in TENSORS.items():
        tensor = tensors[name]
        shape = lengths.setdefault(what, len(tensor) if tensor.ndim else 0), *row
        if (tensor.dtype, tensor.shape) != (np.dtype(dtype), shape):
            expected = f"expected {np.dtype(dtype)} of shape {shape}, got {tensor.dtype} of shape {tensor.shape}"
            raise DataError(f"{path}: {name}: {expected}; pack again")
    labels, paths = tensors["labels"], tensors["paths"].tobytes().split(b"\0")
    for what, holds in {
        f"format: expected {FORMAT!r}": fields["format"] == FORMAT,
        "source, splits, names: expected texts": all(isinstance(text, str) for text in texts),
        "names: expected each class once": 0 < len(names) == len(set(map(str, names))),
        f"size: expected 1 to {LARGEST} px": type(size) is int and 1 <= size <= LARGEST,
        "sizes: expected 1 x 1 px or more": tensors["sizes"].min(initial=1) >= 1,
        "paths: expected one for each image, and at least one": all(paths) and len(paths) == lengths["image"],
        "counts: expected a sum of the number of boxes": tensors["counts"].sum(dtype=np.int64) == lengths["object"],
        "boxes: expected finite numbers": np.isfinite(tensors["boxes"]).all(),
        f"labels: expected 0 to {len(names) - 1}": ((labels >= 0) & (labels < len(names))).all(),
        "crc32: the content does not match it: damaged": stated == _checksum(fields, tensors),
    }.items():
        if not holds:
            raise DataError(f"{path}: {what}; pack again")
    return fields, tensors


def _checksum(fields: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> int:
    """CRC-32 of the fields and of the tensors with their shapes."""
    value = zlib.crc32(json.dumps([fields, [tensors[name].shape for name in TENSORS]]).encode())
    for name in TENSORS:
        value = zlib.crc32(np.ascontiguousarray(tensors[name]).data, value)
    return value
