"""Options that several commands have."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from ..data.records import Item
from .show import bar

__all__ = [
    "Device", "Json", "Outside", "Overlap", "Rescale", "Score", "Strict", "Tile",
    "follow_reading", "in_a_folder", "tiling",
]  # fmt: skip


def _read_score(text: str) -> float | str:
    """`Detector.predict`'s score_threshold: a number, or a name, which the detector checks."""
    try:
        score = float(text)
    except ValueError:
        return text
    if not 0 <= score <= 1:
        raise typer.BadParameter(f"{text} is not from 0 to 1")
    return score


Device = Annotated[str, typer.Option(help="'cpu' or 'cuda'; default: CUDA if available")]
Tile = Annotated[
    int | None,
    typer.Option(min=32, help="also predict square tiles with this side in px, for small objects in large images"),
]
Overlap = Annotated[
    float | None,
    typer.Option(min=0, max=0.9, help="overlap of neighboring tiles, as a share of their side; default: 0.2"),
]
Score = Annotated[
    Any,
    typer.Option(
        "--score-threshold", "--score", parser=_read_score, metavar="SCORE",
        help="drop detections that score lower: 0 to 1; with calibrated weights also 'best' (F1) or 'precision:0.9'",
    ),
]  # fmt: skip
Strict = Annotated[bool, typer.Option("--strict", help="refuse data that is otherwise repaired, left out or noted")]
Rescale = Annotated[
    bool, typer.Option("--rescale", help="adjust the boxes of images that were resized or rotated after labeling")
]
Outside = Annotated[bool, typer.Option("--allow-outside", help="also read files outside the dataset's folder")]
File = TypeVar("File", Path | None, str)


def in_a_folder(file: File) -> File:
    """The file that an option names, refused before any work if its folder does not exist.

    A `str` must be a file. A `Path` may be a folder if its option allows that (`dir_okay`).
    """
    if not file:
        return file
    if not Path(file).parent.is_dir():
        raise typer.BadParameter(f"no folder {Path(file).parent}")
    if Path(file).is_dir() and isinstance(file, str):
        raise typer.BadParameter(f"{file} is a folder: expected a file")
    return file


Json = Annotated[
    str, typer.Option("--json", help="write the result as JSON; '-': print only the JSON", callback=in_a_folder)
]


def tiling(tile: int | None, overlap: float | None) -> dict[str, Any]:
    """The tiling arguments of `Detector.predict`."""
    if overlap is not None and tile is None:
        raise typer.BadParameter("--overlap: needs --tile")
    return {"tile": tile} if overlap is None else {"tile": tile, "overlap": overlap}


def follow_reading(quiet: bool) -> Callable[[Iterable[Item]], Iterable[Item]]:
    """`ReadOptions.progress` that counts the images whose annotations are read, if stderr is a terminal."""

    def follow(items: Iterable[Item]) -> Iterator[Item]:
        with bar("images: reading annotations", None, quiet, text=True) as (progress, task):
            for item in items:
                progress.advance(task)
                yield item

    return follow
