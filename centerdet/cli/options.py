"""Options that several commands have."""

from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

__all__ = ["Device", "Overlap", "Tile", "in_a_folder", "tiling"]

Device = Annotated[str, typer.Option(help="'cpu', 'cuda'; empty: CUDA where it is available")]
Tile = Annotated[
    int | None, typer.Option(min=32, help="also predict square tiles of this side in px: small objects, large images")
]
Overlap = Annotated[
    float | None, typer.Option(min=0, max=0.9, help="share of a tile that the next one shows too; 0.2 if left out")
]
File = TypeVar("File", Path | None, str)


def in_a_folder(file: File) -> File:
    """An option's file to write, refused before any work where its folder does not exist.

    Text names a file; a `Path` may name a folder, too, where its option allows that (`dir_okay`).
    """
    if not file:
        return file
    if not Path(file).parent.is_dir():
        raise typer.BadParameter(f"no folder {Path(file).parent}")
    if Path(file).is_dir() and isinstance(file, str):
        raise typer.BadParameter(f"{file} is a folder: expected the name of a file")
    return file


def tiling(tile: int | None, overlap: float | None) -> dict[str, Any]:
    """Arguments for `Detector.predict` and its like."""
    if overlap is not None and tile is None:
        raise typer.BadParameter("--overlap: needs --tile")
    return {"tile": tile} if overlap is None else {"tile": tile, "overlap": overlap}
