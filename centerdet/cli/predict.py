"""`centerdet predict`: `Detector.stream` over any source, to boxes drawn into copies, JSON, or lines of text."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias
from urllib.parse import urlsplit

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ..errors import CenterdetError, ConfigError, ImageError
from ..files import open_atomic
from ..text import plural
from .options import Device, Overlap, Tile, in_a_folder, tiling
from .show import console, errors

if TYPE_CHECKING:
    from ..sources import Found

__all__ = ["predict"]

Identity: TypeAlias = tuple[int, int] | None
Originals: TypeAlias = dict[Identity | int | str, int | str]


def predict(
    weights: Annotated[str, typer.Argument(help="a shipped name (voc) or a weights file")],
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE", help="image, folder, 'glob', video, webcam number, or URL with --allow-urls"),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help="folder for JPEG copies with boxes: NAME.jpg; of a video or webcam NAME/000000.jpg, ...; "
            "a name that another source has already gets a number; not the folder of a source",
        ),
    ] = None,
    json_file: Annotated[
        str,
        typer.Option(
            "--json",
            help="write JSON Lines, one per image: source, height, width and objects, or source and error; "
            "the file appears when all is done; '-': print them and nothing else",
            callback=in_a_folder,
        ),
    ] = "",
    score_threshold: Annotated[
        float, typer.Option("--score-threshold", "--score", min=0, max=1, help="leave out what scores lower")
    ] = 0.3,
    tile: Tile = None,
    overlap: Overlap = None,
    device: Device = "",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads at most")] = None,
    allow_urls: Annotated[bool, typer.Option("--allow-urls", help="fetch http(s) URLs")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="print errors alone")] = False,
) -> None:
    """Detect objects in images, folders and videos; a source that is named twice is read once.

    A broken image is reported and the rest follows; the exit code is then 1. Ctrl-C keeps the results so far.
    """
    from ..detector import Detector

    tiles = tiling(tile, overlap)
    originals = _list_all(sources)
    _check_places(originals, out, json_file)
    detector = Detector.load(weights, device=device or None, threads=threads)
    stream = detector.stream_images(
        list(originals.values()), score_threshold=score_threshold, allow_urls=allow_urls, **tiles
    )
    place = _places(out, originals)
    done = objects = broken = 0
    stopped = False
    with _open_lines(json_file) as write, _progress(quiet) as advance:
        try:
            for item, result in stream:
                try:
                    if isinstance(result, CenterdetError):
                        raise result
                    if out:
                        result.plot(place(item), item.image)  # type: ignore[arg-type]
                except ImageError as error:  # also of a copy that JPEG cannot hold
                    broken += 1
                    errors.print(f"error: {error}", markup=False, soft_wrap=True)
                    write({"source": item.where, "error": str(error)})
                else:
                    objects += len(result)
                    write({**result.to_dict(), "source": item.where})
                    if not quiet and json_file != "-":
                        shown = ", ".join(f"{one.name} {one.score:.2f}" for one in result) or "nothing"
                        console.out(f"{item.where}: {shown}".encode(errors="replace").decode())
                done += 1
                advance()
        except KeyboardInterrupt:
            stopped = True
    if not quiet:
        shown = f"{plural(objects, 'object')} in {plural(done - broken, 'image')}"
        errors.print(f"{shown}{f', {broken} could not be read' * (broken > 0)}{', stopped' * stopped}")
    if broken or stopped:
        raise typer.Exit(130 if stopped else 1)


def _list_all(sources: list[str]) -> Originals:
    """Every file, webcam and URL that the sources stand for, once, by its identity on disk, else by itself."""
    from ..sources import is_url, list_files

    originals: Originals = {}
    for source in sources:
        if source.isdecimal() and not Path(source).exists():
            originals[int(source)] = int(source)
        else:
            for one in [source] if is_url(source) else list_files(source):
                originals.setdefault(_identity(one) or one, one)
    return originals


def _check_places(originals: Originals, out: Path | None, json_file: str) -> None:
    """Refuse to write over a source, or among them."""
    if json_file and (source := originals.get(_identity(json_file))):
        raise ConfigError(f"--json: {json_file} is the source {source}: choose another file")
    files = (source for key, source in originals.items() if isinstance(key, tuple))
    for folder, source in {Path(str(source)).parent: source for source in files}.items():
        if out and out.exists() and _identity(folder) == _identity(out):
            raise ConfigError(f"--out: {out} is the folder of the source {source}: choose another folder")


def _identity(path: str | Path) -> Identity:
    """Device and number of a file, the same for every path to it; None where there is no file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _places(out: Path | None, originals: Originals) -> Callable[["Found"], Path]:
    """A function from an image or frame to its copy's path; sources of one name don't overwrite each other."""
    from ..sources import is_url

    names: dict[str, str] = {}
    taken = set()

    def place(item: "Found") -> Path:
        if item.source not in names:
            path = urlsplit(item.source).path if is_url(item.source) else item.source
            stem = Path(path).stem[:100] or "image"
            several = (f"{stem}_{number}" if number > 1 else stem for number in count(1))
            names[item.source] = next(name for name in several if name.casefold() not in taken)
            taken.add(names[item.source].casefold())
        name = names[item.source]
        copy = Path(out or "", f"{name}.jpg" if item.frame is None else f"{name}/{item.frame:06}.jpg")
        if original := originals.get(_identity(copy)):
            raise ConfigError(f"{copy}: would overwrite the source {original}: choose another folder for --out")
        copy.parent.mkdir(parents=True, exist_ok=True)
        return copy

    return place


@contextmanager
def _open_lines(name: str) -> Iterator[Callable[[dict[str, Any]], object]]:
    """A function that writes a JSON line: to stdout, or to a file that appears when all is done."""
    if name in ("", "-"):
        yield lambda fields: console.out(json.dumps(fields)) if name else None
        return
    with open_atomic(name) as file:
        yield lambda fields: file.write(json.dumps(fields).encode() + b"\n")


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[], None]]:
    """A function to call after each image; the total is unknown."""
    columns = (SpinnerColumn(), TextColumn("{task.completed} images"), TimeElapsedColumn())
    shown = errors.is_terminal and not quiet
    with Progress(*columns, console=errors, disable=not shown, transient=True) as progress:
        task = progress.add_task("predict", total=None)
        yield lambda: progress.advance(task)
