"""Consoles of all commands: results on stdout, progress and errors on stderr, colors only on a terminal.

Text goes through their `out`, as it is; `print` would take brackets in a path for markup, and wrap lines.
"""

import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ..files import write_atomic

__all__ = ["bar", "console", "errors", "escape_unencodable", "warn", "write_json"]

console = Console(highlight=False, emoji=False)
errors = Console(stderr=True, highlight=False, emoji=False)


def escape_unencodable() -> None:
    """Make stdout and stderr print characters that they cannot encode as escapes (\\u732b) instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def warn(text: str) -> None:
    """Print a warning."""
    errors.out(f"warning: {text}")


def write_json(file: str, value: object) -> bool:
    """Write to the file of --json, if any; whether it was "-", for which the JSON is printed, and nothing else is."""
    text = json.dumps(value, indent=1)
    if file == "-":
        console.out(text)
    elif file:
        write_atomic(file, text.encode())
    return file == "-"


@contextmanager
def bar(
    description: str, total: int | None, quiet: bool = False, *, text: bool = False
) -> Iterator[tuple[Progress, TaskID]]:
    """A progress bar on stderr if that is a terminal: rich's `Progress` and the id of its one task.

    text: show only the count and the description, so that a long description fits into 80 columns.
    """
    label, count = TextColumn("{task.description}", markup=False), MofNCompleteColumn()
    columns = (count, label) if text else (label, BarColumn(), count, TimeRemainingColumn())
    with Progress(*columns, console=errors, disable=quiet or not errors.is_terminal) as progress:
        yield progress, progress.add_task(description, total=total)
