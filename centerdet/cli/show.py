"""What all commands print with: results on stdout, progress and errors on stderr, colours only on a terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

__all__ = ["bar", "console", "errors"]

console = Console(highlight=False, emoji=False)
errors = Console(stderr=True, highlight=False, emoji=False)


@contextmanager
def bar(what: str, total: int, quiet: bool = False, *, eta: bool = True) -> Iterator[tuple[Progress, TaskID]]:
    """A progress bar on stderr, where that is a terminal: rich's `Progress` and the id of its one task."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns[: 4 if eta else 3], console=errors, disable=quiet or not errors.is_terminal) as progress:
        yield progress, progress.add_task(what, total=total)
