"""What all commands print with: results on stdout, progress and errors on stderr, colors only on a terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

__all__ = ["bar", "console", "errors"]

console = Console(highlight=False, emoji=False)
errors = Console(stderr=True, highlight=False, emoji=False)


@contextmanager
def bar(what: str, total: int, quiet: bool = False, *, text: bool = False) -> Iterator[tuple[Progress, TaskID]]:
    """A progress bar on stderr, where that is a terminal: rich's `Progress` and the id of its one task.

    text: the number and the description alone, which then fit into 80 columns.
    """
    words, number = TextColumn("{task.description}"), MofNCompleteColumn()
    columns = (number, words) if text else (words, BarColumn(), number, TimeRemainingColumn())
    with Progress(*columns, console=errors, disable=quiet or not errors.is_terminal) as progress:
        yield progress, progress.add_task(what, total=total)
