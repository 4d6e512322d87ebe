"""`centerdet evaluate`: AP by both VOC protocols and diagnoses, of a detector or of detections from a file."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..data.coco import find_annotations
from ..data.formats import find_packed, find_splits, read_dataset, recognize
from ..data.problems import Notes, Problem
from ..data.records import ReadOptions
from ..data.sample import Dataset
from ..evaluation.evaluation import Evaluation, evaluate_detections
from ..evaluation.evaluation import evaluate as run
from ..evaluation.files import is_results, read_results, write_results
from ..evaluation.suspects import check_place, write_suspects
from ..files import write_atomic
from .evaluation_tables import show_classes, show_comparison, show_details, show_steps
from .options import Device, Json, Outside, Overlap, Rescale, Strict, Tile, follow_reading, in_a_folder, tiling
from .show import bar, errors, warn, write_json

if TYPE_CHECKING:
    from ..detector import Detector

__all__ = ["evaluate", "evaluate_detector"]


def evaluate(
    weights: Annotated[
        str,
        typer.Argument(help="shipped name (voc), weights file, COCO results JSON, or folder of VOC comp4_det files"),
    ],
    data: Annotated[Path, typer.Option(help="folder or file of the dataset")],
    split: Annotated[list[str] | None, typer.Option(help="split to evaluate on, such as 2007:val (repeatable)")] = None,
    against: Annotated[
        str, typer.Option(help="a second detector, as WEIGHTS: test whether the difference is significant")
    ] = "",
    details: Annotated[
        bool, typer.Option("--details", help="also print intervals, sizes, operating points, errors, label errors")
    ] = False,
    compare: Annotated[bool, typer.Option("--compare", help="explain why VOC and COCO AP differ")] = False,
    json_file: Json = "",
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="write the AP per class as CSV", callback=in_a_folder, dir_okay=False)
    ] = None,
    save_detections: Annotated[
        Path | None,
        typer.Option(
            help="write the detections: a .json file (COCO results), or a folder (VOC comp4)", callback=in_a_folder
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="write an HTML report (report.html) and its numbers (report.json)"),
    ] = None,
    suspects: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="write likely label errors: a .json file (list), or a folder (list; COCO, VOC, YOLO proposals)",
            callback=in_a_folder,
        ),
    ] = None,
    annotations: Annotated[
        list[Path] | None,
        typer.Option(help="COCO JSON with the ids of a results JSON, if the dataset has another format (repeatable)"),
    ] = None,
    score_threshold: Annotated[
        float, typer.Option(min=0, max=1, help="drop detections that score below this; lowers AP")
    ] = 0.0,
    tile: Tile = None,
    overlap: Overlap = None,
    device: Device = "",
    strict: Strict = False,
    rescale: Rescale = False,
    allow_outside: Outside = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="do not print progress")] = False,
) -> None:
    """Print the AP of each class and the mean AP, by both VOC protocols."""
    data, splits, tiles = Path(find_packed(data)), split or [], tiling(tile, overlap)
    if report:
        from ..report.page import check_folder

        check_folder(report)
    if suspects:
        check_place(suspects)
    if not splits and (known := find_splits(data)):
        raise typer.BadParameter(f"--split: expected one or more of {', '.join(known)}")
    sources = [_open(one, device) for one in (weights, against) if one]
    names = next((source.names for source in sources if not isinstance(source, Path)), None)
    need_images = any(not isinstance(source, Path) for source in sources)
    options = ReadOptions(
        clip=False, rescale=rescale, allow_outside=allow_outside, need_images=need_images,
        progress=follow_reading(quiet),
    )  # fmt: skip
    dataset = _read(data, splits, names, weights, Notes(strict), options)
    ids = list(annotations or []) or _annotations(data, splits)
    results = []
    for source in sources:
        if isinstance(source, Path):
            split_name = splits[0].rpartition(":")[2] if splits else None
            detections = read_results(source, dataset, split=split_name, annotations=ids, notice=warn)
            one = evaluate_detections(detections, dataset, score_threshold=score_threshold)
            exact = source.suffix == ".json" and not annotations and len(ids) == 1
            results.append(replace(one, coco_files=(ids[0], source)) if exact else one)
        else:
            results.append(evaluate_detector(source, dataset, quiet, score_threshold=score_threshold, **tiles))
    result, other = results[0], results[1] if against else None
    for name, one in zip((weights, against), results, strict=False):
        if one.warning:
            warn(f"{name}: {one.warning}")
    if save_detections:
        word = "-".join(one.rpartition(":")[2] for one in splits) or "all"
        write_results(save_detections, result.results, dataset, split=word, annotations=ids)
    if suspects:
        write_suspects(suspects, result.suspects(), dataset, annotations=ids)
    if report:
        from ..report.numbers import build_report
        from ..report.page import write_report

        where = ", ".join([data.resolve().name, *splits])
        write_report(report, build_report(result, detector=weights, dataset=where, against=other, second=against))
        errors.out(f"report: {report / 'report.html'}")
    if csv_file:
        write_atomic(csv_file, result.to_csv().encode())
    if json_file and write_json(json_file, result.to_dict(details=details, rules=compare, against=other)):
        return
    show_classes(result)
    if details:
        show_details(result)
    if compare:
        show_steps(result)
    if other:
        show_comparison(result, other, weights, against)


def _read(
    data: Path, splits: Sequence[str], names: Sequence[str] | None, weights: str, notes: Notes, options: ReadOptions
) -> Dataset:
    """The dataset, with the detector's classes if it has names; prints what was repaired or left out."""

    def note(problem: Problem) -> None:
        known = f" ({weights} was not trained on it)" if names and problem.kind == "unknown class" else ""
        notes(replace(problem, what=problem.what + known))

    dataset = read_dataset(data, splits, names=names, report=note, options=options)
    notes.refuse_remains(len(dataset), sum(len(sample.boxes) for sample in dataset.samples))
    for line in notes.lines():
        warn(line)
    return dataset


def _open(weights: str, device: str) -> "Detector | Path":
    """A detector, or the path of a detections file."""
    path = Path(weights)
    if is_results(path):
        return path
    from ..detector import Detector

    return Detector.load(weights, device=device or None)


def evaluate_detector(detector: "Detector", dataset: Dataset, quiet: bool, **options: Any) -> Evaluation:
    """`evaluation.evaluate`, with a progress bar."""
    with bar("evaluate", len(dataset), quiet) as (progress, task):
        return run(detector, dataset, progress=lambda done: progress.update(task, completed=done), **options)


def _annotations(data: Path, splits: Sequence[str]) -> list[Path]:
    """The JSON files of a COCO dataset; an empty list for other formats."""
    if recognize(data) != "coco":
        return []
    return [data] if data.is_file() else [find_annotations(data, split) for split in splits]
