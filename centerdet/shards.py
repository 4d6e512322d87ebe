"""A list of images and its shards: the Parquet files of `scale`, one row per image.

Law: shard k has the rows k * size, … of the list, in its order, and gets its name when it is complete. Needs pyarrow
and fsspec, which come with the extra `ray`.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from .detections import Detections
from .detector import Detector
from .errors import ConfigError, DataError, ImageError
from .files import open_atomic, write_atomic
from .images import load, read_stream
from .text import explain

__all__ = ["LIST", "Paths", "check_options", "list_shards", "predict_rows", "read_rows", "write_list", "write_rows"]

LIST, OPTIONS = "_images.parquet", "_options.json"  # readers of Parquet folders pass over names that begin with _
TOGETHER = 256
"""Rows that a writer collects in memory."""

Paths: TypeAlias = str | Path | Sequence[str | Path]
Row: TypeAlias = dict[str, Any]


def write_list(paths: Paths, file: BinaryIO, shard_size: int) -> tuple[int, str]:
    """Write a list, or the column `path` of Parquet, a shard per row group; its length and its hash."""
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    count, digest, schema = 0, hashlib.sha256(), pyarrow.schema({"path": pyarrow.string()})
    listed = _read_parquet(str(paths)) if isinstance(paths, str | Path) else paths
    rows = (os.fspath(path) for path in listed)
    try:
        with ParquetWriter(file, schema) as writer:
            while chunk := list(islice(rows, shard_size)):
                writer.write_table(pyarrow.table({"path": chunk}, schema), row_group_size=shard_size)
                digest.update(json.dumps(chunk).encode())
                count += len(chunk)
    except DataError:
        raise
    except (TypeError, ValueError) as error:
        raise DataError(f"paths: expected paths in UTF-8 from row {count} on: {error}") from error
    if not count:
        raise DataError("paths: expected at least one image")
    return count, digest.hexdigest()


def _read_parquet(source: str) -> Iterator[str]:
    """The column `path` of a file, or of a folder's files in the order of their names."""
    import fsspec
    from pyarrow import dataset

    try:
        system, root = fsspec.core.url_to_fs(source)
        files = dataset.dataset(root, filesystem=system, format="parquet")
        for batch in files.to_batches(columns=["path"], batch_readahead=2, fragment_readahead=1):
            yield from batch.column("path").to_pylist()
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise DataError(f"{source}: expected Parquet with a column `path`, or a list of images: {error}") from error


def check_options(out: Path, options: Mapping[str, Any]) -> None:
    """Write the options of a new run; for those of a stopped run, others are a ConfigError."""
    before = _read_options(out) if (out / OPTIONS).exists() else options
    for name, value in options.items():
        if before.get(name) != value:
            raise ConfigError(
                f"{out}: {name} was {before.get(name)!r:.80} when the run was started, and is {value!r:.80} now: "
                "use the same, or another folder"
            )
    write_atomic(out / OPTIONS, json.dumps(options).encode())


def list_shards(out: Path) -> tuple[list[Path], tuple[str, ...]]:
    """All shards of a run, of which some may not exist yet, and the names of the classes."""
    options = _read_options(out)
    total = -(-options["images"] // options["shard_size"])
    return [out / f"shard-{number:08d}.parquet" for number in range(total)], tuple(options["names"])


def _read_options(out: Path) -> dict[str, Any]:
    path = out / OPTIONS
    try:
        options: dict[str, Any] = dict(json.loads(path.read_bytes()))
        for name in ("images", "shard_size"):
            if type(options.get(name)) is not int or options[name] < 1:
                raise ValueError(f"{name}: got {options.get(name)!r:.80}")
        if not isinstance(options.get("names"), list) or not all(isinstance(name, str) for name in options["names"]):
            raise ValueError(f"names: got {options.get('names')!r:.80}")
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path}: cannot be read: expected a folder of predict_dataset: {error}") from error
    return options


def predict_rows(detector: Detector, paths: Sequence[str], options: Mapping[str, Any]) -> Iterator[Row]:
    """The row of each image; a thread reads and decodes ahead. options: those of `Detector.stream`."""
    errors: dict[int, str] = {}

    def read() -> Iterator[Any]:
        for number, path in enumerate(paths):
            try:
                yield _load(path)
            except ImageError as error:
                errors[number] = str(error)
                yield b""  # no image: the stream yields an error in its place

    for number, (_, result) in enumerate(detector.stream(read(), **options)):
        if isinstance(result, Detections):
            row = {"height": result.size[0], "width": result.size[1], "names": result.label_names}
            row |= {name: getattr(result, name).tolist() for name in ("boxes", "scores", "labels")}
        else:
            row = {"error": errors.pop(number)}
        yield {"path": paths[number], **row}


def _load(path: str) -> Any:
    """The pixels of a file, or of what fsspec finds at a URL."""
    if "://" not in path and "::" not in path:
        return load(path)
    import fsspec

    try:
        with fsspec.open(path) as file:
            content = read_stream(file, path)
    except ImportError as error:  # no image of this kind can be read
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except Exception as error:  # each file system raises its own kinds
        raise ImageError(f"{path}: cannot be read: {explain(error)}") from error
    return load(content, where=path)


def write_rows(shard: Path, rows: Iterator[Row]) -> None:
    """Write a shard; what a row lacks is null."""
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    real, whole, text = pyarrow.float32(), pyarrow.int64(), pyarrow.string()
    lists = {"boxes": pyarrow.list_(real, 4), "scores": real, "labels": whole, "names": text}
    columns = {"path": text, "height": whole, "width": whole, "error": text}
    schema = pyarrow.schema(columns | {name: pyarrow.list_(kind) for name, kind in lists.items()})
    with open_atomic(shard) as file, ParquetWriter(file, schema) as writer:
        while chunk := list(islice(rows, TOGETHER)):
            writer.write_table(pyarrow.Table.from_pylist(chunk, schema))


def read_rows(shard: Path, columns: Sequence[str]) -> list[Row]:
    """Some columns of a shard."""
    from pyarrow.parquet import ParquetFile

    with ParquetFile(shard) as file:
        rows: list[Row] = file.read(list(columns)).to_pylist()
    return rows
