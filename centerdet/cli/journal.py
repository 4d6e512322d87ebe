"""What a run of `predict` has finished, kept under --out until it ends, so that --resume redoes and loses nothing.

A file of JSON Lines: the options, then one row per image or frame, and `{"complete": source}` behind the last frame of
a video. A row is written after all that belongs to its image, so what has a row is done.
"""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from io import RawIOBase
from pathlib import Path
from types import TracebackType, UnionType
from typing import Any, TypeAlias

from ..errors import ConfigError
from ..files import lock_folder, write_atomic, writing

__all__ = ["Journal"]

NAME = ".predict.jsonl"

Row: TypeAlias = dict[str, Any]


class Journal:
    """The rows of a run.

    Attributes:
        rows: of the earlier run, without those of a video that it did not complete.
        finished: the sources that need not be read again.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any], *, resume: bool) -> None:
        self.path = folder / NAME
        self.rows: list[Row] = []
        self.finished: set[str] = set()
        if resume and self.path.is_file():
            self._read(options)
        complete = sorted({row["path"] for row in self.rows if row["video"]})
        self._content = [{"options": options}, *self.rows, *({"complete": source} for source in complete)]
        self._file: RawIOBase
        self._opened: ExitStack

    def add(self, row: Row) -> None:
        """Append a row to the entered journal."""
        with writing(self.path):
            self._file.write(json.dumps(row).encode() + b"\n")

    def complete(self, source: str) -> None:
        """Note that every frame of a video is done."""
        self.add({"complete": source})

    def __enter__(self) -> "Journal":
        with ExitStack() as opened:
            opened.enter_context(lock_folder(self.path.parent))
            write_atomic(self.path, "".join(f"{json.dumps(row)}\n" for row in self._content).encode())
            self._file = opened.enter_context(self.path.open("ab", buffering=0))
            self._opened = opened.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._opened.__exit__(kind, error, at)

    def remove(self) -> None:
        """Nothing is left to resume."""
        self.path.unlink()
        self._opened.close()

    def _read(self, options: Mapping[str, Any]) -> None:
        entries: list[Any] = []
        for line in self.path.read_bytes().splitlines():
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):  # the last one, cut off
                break
            if not (_is_row(entry) or (isinstance(entry, dict) and isinstance(entry.get("complete"), str))) and entries:
                break
            entries.append(entry)
        first = entries[0] if entries else {"options": options}
        before = first.get("options") if isinstance(first, dict) else None
        before = before if isinstance(before, dict) else {}
        for name in options:
            if before.get(name) != options[name]:
                raise ConfigError(
                    f"--resume: {name} was {before.get(name)!r} in the stopped run, and is {options[name]!r} now: use "
                    f"the same, or start anew without --resume ({self.path})"
                )
        rows = [entry for entry in entries[1:] if "source" in entry]
        complete = {entry["complete"] for entry in entries[1:] if "complete" in entry}
        self.rows = [row for row in rows if not row["video"] or row["path"] in complete]
        self.finished = {row["path"] for row in self.rows} | complete


def _is_row(entry: object) -> bool:
    """Whether an entry has what a run reads of a row."""
    kinds: dict[str, type | UnionType] = {"source": str, "path": str, "video": bool, "frame": int | None}
    return (
        isinstance(entry, dict)
        and all(key in entry and isinstance(entry[key], kind) for key, kind in kinds.items())
        and isinstance(entry.get("error", entry.get("objects")), str | list)
    )
