"""`centerdet predict`: boxes drawn into copies of pictures, or as JSON."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..detector import Detector
from ..errors import CenterdetError
from .show import bar, console, errors

__all__ = ["predict"]


def predict(
    weights: Annotated[str, typer.Argument(help="a shipped name (voc) or a weights file")],
    pictures: Annotated[list[str], typer.Argument(help="picture files")],
    out: Annotated[Path | None, typer.Option(help="folder for copies of the pictures with their boxes drawn")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object a picture")] = False,
    score_threshold: Annotated[float, typer.Option(min=0, max=1, help="leave out what scores lower")] = 0.3,
    device: Annotated[str, typer.Option(help="'cpu', 'cuda'; empty: CUDA where there is one")] = "",
    quiet: Annotated[bool, typer.Option("--quiet", help="print no progress")] = False,
) -> None:
    """Find objects in pictures. A broken picture is reported and the rest goes on; the exit code is then 1."""
    detector = Detector.load(weights, device=device or None)
    if out:
        out.mkdir(parents=True, exist_ok=True)
    broken = 0
    with bar("predict", len(pictures), quiet) as (progress, task):
        for picture in pictures:
            try:
                found = detector.predict(picture, score_threshold=score_threshold)
                if out:
                    found.plot(out / f"{Path(picture).stem}.jpg")
            except CenterdetError as error:
                broken += 1
                errors.print(f"error: {error}", markup=False)
                continue
            finally:
                progress.advance(task)
            if as_json:
                console.print(json.dumps({"picture": picture, **found.to_dict()}), markup=False, soft_wrap=True)
            elif not quiet:
                shown = ", ".join(
                    f"{found.names[label]} {score:.2f}" for label, score in zip(found.labels, found.scores, strict=True)
                )
                console.print(f"{picture}: {shown or 'nothing'}", markup=False, soft_wrap=True)
    if broken:
        raise typer.Exit(1)
