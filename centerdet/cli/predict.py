"""`centerdet predict`: `Detector.stream` over any source; writes annotated copies, JSON, CSV, or label files."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias
from urllib.parse import urlsplit

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ..errors import CenterdetError, ConfigError, ImageError
from ..runtimes.weights import weights_path
from ..text import nearest, plural
from .journal import Journal
from .labels import LABELS, LabelFiles
from .options import Device, Overlap, Score, Tile, in_a_folder, tiling
from .results import Copies, Row, is_video, open_rows
from .show import console, errors

if TYPE_CHECKING:
    from ..detections import Detections
    from ..sources import Found

__all__ = ["predict"]

Identity: TypeAlias = tuple[int, int] | None
Originals: TypeAlias = dict[Identity | int | str, int | str]


def predict(
    weights: Annotated[str, typer.Argument(help="a shipped name (voc, voc-all) or a weights file")],
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE", help="image, folder, 'glob', video, webcam number, - (stdin), or URL with --allow-urls"
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help="folder for copies with boxes: NAME.jpg for an image, NAME.mp4 (.mkv, ...) for a video, "
            "NAME/000000.jpg, ... for a webcam; duplicate names get a number; must not be the folder of a source",
        ),
    ] = None,
    json_file: Annotated[
        str,
        typer.Option(
            "--json",
            help="write JSON Lines, one per image: source, height, width and objects, or source and error; "
            "written when the run ends; '-': print only the JSON",
            callback=in_a_folder,
        ),
    ] = "",
    score_threshold: Score = "0.3",
    classes: Annotated[list[str] | None, typer.Option("--classes", help="keep only this class (repeatable)")] = None,
    nms_iou: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="IoU above which NMS drops the worse of two boxes; default: that of the weights"
        ),
    ] = None,
    max_detections: Annotated[int | None, typer.Option(min=1, help="maximum number of detections per image")] = None,
    csv_file: Annotated[
        str,
        typer.Option("--csv", help="write a table, one row per object, when the run ends", callback=in_a_folder),
    ] = "",
    labels: Annotated[
        str, typer.Option(help="voc, yolo or coco: also write label files, to --out/labels or beside the images")
    ] = "",
    resume: Annotated[
        bool, typer.Option("--resume", help="skip images that a stopped run with the same --out finished")
    ] = False,
    tile: Tile = None,
    overlap: Overlap = None,
    device: Device = "",
    threads: Annotated[int | None, typer.Option(min=1, help="maximum number of CPU threads")] = None,
    allow_urls: Annotated[bool, typer.Option("--allow-urls", help="download images from http(s) URLs")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="print only errors")] = False,
) -> None:
    """Detect objects in images, folders and videos.

    A source that is given twice is read once. Broken images are reported, the rest are processed, and the exit code is
    1. Ctrl-C keeps the results so far.
    """
    from ..detections import Detections
    from ..detector import Detector

    if labels and (labels not in LABELS or not (out or labels != "coco")):
        raise typer.BadParameter(f"--labels: expected one of {', '.join(LABELS)}, and --out for coco")
    if resume and not out:
        raise typer.BadParameter("--resume: needs --out, the folder of the stopped run")
    tiles = tiling(tile, overlap)
    passed: dict[str, list[Path]] = {}
    originals = _list_all(sources, lambda path, why: passed.setdefault(why, []).append(path))
    _check_places(originals, out, {"--json": json_file, "--csv": csv_file})
    if resume and any(isinstance(source, int) for source in originals.values()):
        raise ConfigError("--resume: expected images and videos, got a webcam")
    detector = Detector.load(weights, device=device or None, threads=threads, nms_iou=nms_iou)
    for name in classes or ():
        if name not in detector.names:
            raise ConfigError(f"--classes: no class {name!r}; {nearest(name, detector.names)}")
    options = {
        "weights": hashlib.sha256(weights_path(weights).read_bytes()).hexdigest(), "score_threshold": score_threshold,
        "classes": classes, "nms_iou": nms_iou, "max_detections": max_detections, "labels": labels, **tiles,
    }  # fmt: skip
    name_of = _names()
    counts: Counter[str] = Counter()
    stopped = False
    with ExitStack() as stack:
        files = LabelFiles(labels, out / "labels" if out else None, detector.names) if labels else None
        if files:
            files.check([str(source) for source in originals.values()])
        write = stack.enter_context(open_rows(json_file, csv_file))
        journal = Journal(out, options, resume=resume) if out else None
        rest = [source for source in originals.values() if not (journal and str(source) in journal.finished)]
        stream = detector.stream_images(rest, score_threshold=score_threshold, allow_urls=allow_urls, **tiles)
        if journal:
            stack.enter_context(journal)
        for row in journal.rows if journal else ():
            write(row)
            counts += _count(row)
            if "objects" in row:
                name = name_of(row["path"])
                if files:
                    files.write(Detections.from_dict(row, detector.names), row["path"], name, row["frame"])
        copies = stack.enter_context(Copies(_places(out, originals))) if out else None
        advance = stack.enter_context(_progress(quiet))
        before: Found | None = None
        try:
            for item, result in stream:
                if journal and copies and before is not None and before.source != item.source and is_video(before):
                    copies.finish()
                    journal.complete(before.source)
                before = item
                if isinstance(result, Detections):
                    result = result.filter(names=classes or None)[:max_detections]
                row = _write(item, result, name_of, copies, files)
                write(row)
                if journal:
                    journal.add(row)
                counts += _count(row)
                if "error" in row:
                    errors.out(f"error: {row['error']}")
                elif not quiet and json_file != "-":
                    shown = ", ".join(f"{one['name']} {one['score']:.2f}" for one in row["objects"]) or "nothing"
                    console.out(f"{item.where}: {shown}".encode(errors="backslashreplace").decode())
                advance()
        except KeyboardInterrupt:
            stopped = True
        if copies:
            copies.finish()
        if files:
            files.close()
        if journal and not stopped:
            journal.remove()
    if not quiet:
        for why, paths in passed.items():
            errors.out(f"passed over: {plural(len(paths), 'file')} ({why}), such as {paths[0]}")
        shown = f"{plural(counts['objects'], 'object')} in {plural(counts['images'], 'image')}"
        unread = f", {counts['errors']} could not be read" if counts["errors"] else ""
        skipped = f", {len(journal.rows)} finished before" if journal and journal.rows else ""
        errors.out(f"{shown}{unread}{skipped}{', stopped' * stopped}")
    if counts["errors"] or stopped:
        raise typer.Exit(130 if stopped else 1)


def _write(
    item: "Found",
    result: "Detections | CenterdetError",
    name_of: Callable[[str], str],
    copies: Copies | None,
    files: LabelFiles | None,
) -> Row:
    """Write the copy and the labels of an image; its row, with an error if it, or its copy, is impossible."""
    row = {"source": item.where, "path": item.source, "frame": item.frame, "video": is_video(item)}
    try:
        if isinstance(result, CenterdetError):
            raise result
        name = name_of(item.source)
        if copies:
            copies.write(item, result, name)
        if files:
            files.write(result, item.source, name, item.frame)
    except ImageError as error:  # also if a copy is too large for JPEG
        return {**row, "error": str(error)}
    return {**result.to_dict(), **row}


def _count(row: Row) -> Counter[str]:
    return Counter(errors=1) if "error" in row else Counter(images=1, objects=len(row["objects"]))


def _list_all(sources: list[str], passed_over: Callable[[Path, str], object]) -> Originals:
    """Every file, webcam and URL of the sources, once, by its identity on disk, or else by its name."""
    from ..sources import is_url, list_files

    originals: Originals = {}
    for source in sources:
        if source.isdecimal() and not Path(source).exists():
            originals[int(source)] = int(source)
        else:
            for one in [source] if is_url(source) else list_files(source, passed_over):
                originals.setdefault(_identity(one) or one, one)
    return originals


def _check_places(originals: Originals, out: Path | None, files: dict[str, str]) -> None:
    """Refuse to overwrite a source, or to write into the folder of one."""
    for option, file in files.items():
        if file and (source := originals.get(_identity(file))):
            raise ConfigError(f"{option}: {file} is the source {source}: choose another file")
    named = (source for key, source in originals.items() if isinstance(key, tuple))
    for folder, source in {Path(str(source)).parent: source for source in named}.items():
        if out and out.exists() and _identity(folder) == _identity(out):
            raise ConfigError(f"--out: {out} is the folder of the source {source}: choose another folder")


def _identity(path: str | Path) -> Identity:
    """Device and inode of a file, the same for every path to it; None if it does not exist."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _names() -> Callable[[str], str]:
    """A function from a source to the name of its output files, which is unique."""
    from ..sources import is_url

    names: dict[str, str] = {}
    taken = set()

    def name_of(source: str) -> str:
        if source not in names:
            path = urlsplit(source).path if is_url(source) else source
            stem = Path(path).stem[:100] or "image"
            several = (f"{stem}_{number}" if number > 1 else stem for number in count(1))
            names[source] = next(name for name in several if name.casefold() not in taken)
            taken.add(names[source].casefold())
        return names[source]

    return name_of


def _places(out: Path, originals: Originals) -> Callable[[str], Path]:
    """A function from a file name to its path in the folder, which is created; the path of a source is refused."""

    def place(name: str) -> Path:
        copy = Path(out, name)
        if original := originals.get(_identity(copy)):
            raise ConfigError(f"{copy}: would overwrite the source {original}: choose another folder for --out")
        copy.parent.mkdir(parents=True, exist_ok=True)
        return copy

    return place


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[], None]]:
    """A function to call after each image; the total is unknown."""
    columns = (SpinnerColumn(), TextColumn("{task.completed} images"), TimeElapsedColumn())
    shown = errors.is_terminal and not quiet
    with Progress(*columns, console=errors, disable=not shown, transient=True) as progress:
        task = progress.add_task("predict", total=None)
        yield lambda: progress.advance(task)
