"""`centerdet evaluate`: AP by both VOC protocols, of a detector or of detections from a file, and diagnoses."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.table import Table

from ..data.coco import COCO_FILES
from ..data.formats import find_splits, read_dataset, recognize
from ..data.problems import Notes, Problem
from ..data.records import ReadOptions
from ..data.sample import Dataset
from ..evaluation.evaluation import Evaluation, evaluate_detections
from ..evaluation.evaluation import evaluate as run
from ..evaluation.files import is_results, read_results, write_results
from ..files import write_atomic
from ..metrics.statistics import Bootstrap, Comparison, Difference
from ..text import format_percent, format_table, plural
from .options import Device, Outside, Overlap, Rescale, Strict, Tile, follow_reading, in_a_folder, tiling
from .show import bar, console, errors

if TYPE_CHECKING:
    from ..detector import Detector

__all__ = ["evaluate"]

SUSPECTS = 20
Rows = Sequence[Sequence[str]]


def evaluate(
    weights: Annotated[
        str,
        typer.Argument(help="shipped name (voc), weights file, COCO results JSON, or folder of VOC comp4_det files"),
    ],
    data: Annotated[Path, typer.Option(help="folder or file of the dataset")],
    split: Annotated[list[str] | None, typer.Option(help="split to evaluate on, such as 2007:val (repeatable)")] = None,
    against: Annotated[
        str, typer.Option(help="a second detector, as WEIGHTS: test whether the difference is more than chance")
    ] = "",
    details: Annotated[
        bool, typer.Option("--details", help="also intervals, sizes, operating points, errors, likely label errors")
    ] = False,
    compare: Annotated[bool, typer.Option("--compare", help="explain why VOC and COCO AP differ")] = False,
    json_file: Annotated[
        str, typer.Option("--json", help="write the result as JSON; '-': print only the JSON", callback=in_a_folder)
    ] = "",
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="write the AP per class as CSV", callback=in_a_folder, dir_okay=False)
    ] = None,
    save_detections: Annotated[
        Path | None,
        typer.Option(
            help="write the detections: a .json file (COCO results), else a folder (VOC comp4)", callback=in_a_folder
        ),
    ] = None,
    annotations: Annotated[
        list[Path] | None,
        typer.Option(help="COCO JSON whose ids a results JSON uses, if the dataset has another format (repeatable)"),
    ] = None,
    score_threshold: Annotated[float, typer.Option(min=0, max=1, help="drop detections below; lowers AP")] = 0.0,
    tile: Tile = None,
    overlap: Overlap = None,
    device: Device = "",
    strict: Strict = False,
    rescale: Rescale = False,
    allow_outside: Outside = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="do not print progress")] = False,
) -> None:
    """Print AP per class and its mean by both VOC protocols."""
    splits, tiles = split or [], tiling(tile, overlap)
    if not splits and (known := find_splits(data)):
        raise typer.BadParameter(f"--split: expected one or more of {', '.join(known)}")
    sources = [_open(one, device) for one in (weights, against) if one]
    names = next((source.names for source in sources if not isinstance(source, Path)), None)

    def report(problem: Problem) -> None:
        known = f" ({weights} was not trained on it)" if names and problem.kind == "unknown class" else ""
        notes(replace(problem, what=problem.what + known))

    notes = Notes(strict)
    need_images = any(not isinstance(source, Path) for source in sources)
    options = ReadOptions("refuse", False, rescale, allow_outside, need_images, follow_reading(quiet))
    dataset = read_dataset(data, splits, names=names, report=report, options=options)
    notes.refuse_remains(len(dataset), sum(len(sample.boxes) for sample in dataset.samples))
    for line in notes.lines():
        errors.print(f"warning: {line}", markup=False, soft_wrap=True)
    ids = list(annotations or []) or _annotations(data, splits)
    results = []
    for source in sources:
        if isinstance(source, Path):
            detections = read_results(
                source, dataset, split=splits[0].rpartition(":")[2] if splits else None, annotations=ids
            )
            one = evaluate_detections(detections, dataset, score_threshold=score_threshold)
            exact = source.suffix == ".json" and not annotations and len(ids) == 1
            results.append(replace(one, coco_files=(ids[0], source)) if exact else one)
        else:
            results.append(_predict(source, dataset, quiet, score_threshold=score_threshold, **tiles))
    result = results[0]
    for name, one in zip((weights, against), results, strict=False):
        if one.warning:
            errors.print(f"warning: {name}: {one.warning}", markup=False, soft_wrap=True)
    if save_detections:
        word = "-".join(one.rpartition(":")[2] for one in splits) or "all"
        write_results(save_detections, result.results, dataset, split=word, annotations=ids)
    if csv_file:
        write_atomic(csv_file, result.to_csv().encode())
    if json_file:
        plain = result.to_dict(details=details, rules=compare, against=results[1] if against else None)
        text = json.dumps(plain, indent=1)
        if json_file == "-":
            console.print(text, markup=False, soft_wrap=True)
            return
        write_atomic(json_file, text.encode())
    _show_classes(result)
    if details:
        _show_details(result)
    if compare:
        _show_steps(result)
    if against:
        _show_comparison(result, results[1], weights, against)


def _open(weights: str, device: str) -> "Detector | Path":
    """A detector, or the path of detections."""
    path = Path(weights)
    if is_results(path):
        return path
    from ..detector import Detector

    return Detector.load(weights, device=device or None)


def _predict(detector: "Detector", dataset: Dataset, quiet: bool, **options: Any) -> Evaluation:
    with bar("evaluate", len(dataset), quiet) as (progress, task):
        return run(detector, dataset, progress=lambda done: progress.update(task, completed=done), **options)


def _annotations(data: Path, splits: Sequence[str]) -> list[Path]:
    """The JSON files of a COCO dataset, none of another format."""
    if recognize(data) != "coco":
        return []
    if data.is_file():
        return [data]
    tried = ([data / pattern.format(split) for pattern in COCO_FILES] for split in splits)
    return [next(file for file in files if file.is_file()) for files in tried]


def _show(title: str, columns: Sequence[str], rows: Rows, note: str = "") -> None:
    """A table: rich's on a terminal, plain text elsewhere."""
    if console.is_terminal:
        table = Table(title=title or None, title_justify="left")
        for number, column in enumerate(columns):
            table.add_column(column, justify="right" if number else "left", overflow="fold")
        for number, row in enumerate(rows, 1):
            table.add_row(*row, end_section=number == len(rows) - 1 and rows[-1][0] in ("mean", "all"))
        console.print(table, markup=False)
    else:
        text = format_table(columns, rows)
        console.print("\n".join(([f"\n{title}"] if title else []) + [text]), markup=False, soft_wrap=True)
    if note:
        console.print(note, markup=False, soft_wrap=True)


def _show_classes(result: Evaluation) -> None:
    rows = [(name, str(count), *map(format_percent, values)) for name, count, *values in result.rows()]
    _show("", ("class", "objects", "voc-area", "voc07-11pt"), rows, result.protocol)
    if result.coco_files:
        coco = result.coco()
        _show("COCO", coco.stat_names, [_percents(np.where(coco.stats < 0, np.nan, coco.stats))], coco.protocol)


def _show_details(result: Evaluation) -> None:
    names = (*result.names, "mean")

    intervals = result.bootstrap()
    columns = [
        np.append(getattr(per_class, side), getattr(mean, side))
        for per_class, mean in ((intervals.ap, intervals.mean_ap), (intervals.ap_11pt, intervals.mean_ap_11pt))
        for side in ("estimate", "low", "high")
    ]
    _show(
        "Confidence intervals",
        ("class", "voc-area", "from", "to", "voc07-11pt", "from", "to"),
        [(name, *_percents(values)) for name, *values in zip(names, *columns, strict=True)],
        _bootstrap_note(intervals),
    )

    sizes = result.by_size()
    areas = np.concatenate([sizes.ap, sizes.mean_ap[:, None]], axis=1).T
    counts = np.concatenate([sizes.num_positive, sizes.num_positive.sum(1, keepdims=True)], axis=1).T
    _show(
        "voc-area by size (number of objects)",
        ("class", *sizes.sizes),
        [
            (name, *(f"{ap} ({count})" for ap, count in zip(_percents(line), number.tolist(), strict=True)))
            for name, line, number in zip(names, areas, counts, strict=True)
        ],
        "by COCO's areas: up to 32 x 32 px, up to 96 x 96 px, larger",
    )

    best, all_best = (getattr(result.operating_points(), name) for name in ("best_per_class", "best_overall"))
    keys = ("score_threshold", "precision", "recall", "f1", "false_positives_per_image")
    columns = [np.append(getattr(best, key), getattr(all_best, key)) for key in keys]
    _show(
        "Operating points with the best F1",
        ("class", "score", "precision", "recall", "F1", "false positives per image"),
        [
            (name, *("-" if np.isnan(score) else f"{score:.3f}" for score in values[:1]), *_percents(values[1:4]),
             "-" if np.isnan(values[4]) else f"{values[4]:.3f}")
            for name, *values in zip((*result.names, "all"), *columns, strict=True)
        ],
        "all: one score threshold for all classes",
    )  # fmt: skip

    confusion = result.confusion_matrix()
    counts, names = confusion.matrix.copy(), (*result.names, "background")
    np.fill_diagonal(counts, 0)
    frequent = np.argsort(-counts, axis=None, kind="stable")[:SUSPECTS]
    pairs = [divmod(int(place), len(names)) for place in frequent if counts.flat[place]]
    _show(
        "Most frequent confusions",
        ("object", "predicted as", "times"),
        [(names[truth], names[predicted], str(counts[truth, predicted])) for truth, predicted in pairs],
        f"at a score of {confusion.score_threshold:g}; background: missed, or no object; the whole matrix is in --json",
    )

    kinds = result.error_kinds()
    rows = list(zip(kinds.kinds, map(str, kinds.count.sum(1).tolist()), _percents(kinds.mean_cost), strict=True))
    special = _percents([kinds.mean_false_positive_cost, kinds.mean_false_negative_cost])
    rows += [("all false positives", "", special[0]), ("all false negatives", "", special[1])]
    _show("Errors, and the voc-area that each kind costs (TIDE)", ("kind", "number", "cost"), rows)

    suspects = result.suspects(SUSPECTS)
    _show(
        f"Likely label errors, the {len(suspects)} most confident",
        ("image", "class", "score", "box", "overlaps"),
        [
            (
                one.image.name, one.name, f"{one.score:.3f}", " ".join(f"{side:.0f}" for side in one.box),
                f"{one.overlaps} (IoU {one.iou:.2f})" if one.overlaps else "-",
            )
            for one in suspects
        ],
        "detections without an object of their class: the annotations may lack an object or have a wrong class",
    )  # fmt: skip


def _show_steps(result: Evaluation) -> None:
    steps = result.from_voc_to_coco()
    changes = np.diff([step.ap for step in steps], prepend=np.nan) * 100
    _show(
        "From VOC's rules to COCO's, one change per line",
        ("rules", "mean AP", "change"),
        [
            (step.rules, format_percent(100 * step.ap), "" if np.isnan(change) else f"{change:+.1f}")
            for step, change in zip(steps, changes.tolist(), strict=True)
        ],
    )
    for step in steps:
        console.print(f"{step.rules}: {step.why}.", markup=False, soft_wrap=True)


def _show_comparison(result: Evaluation, other: Evaluation, first: str, second: str) -> None:
    comparison = result.compare(other)
    rows, columns = [], ("first", "second", "difference", "low", "high")
    lines: list[tuple[str, Difference, int | tuple[()]]] = [
        *((name, comparison.ap, number) for number, name in enumerate(result.names)),
        ("mean voc-area", comparison.mean_ap, ()),
        ("mean voc07-11pt", comparison.mean_ap_11pt, ()),
    ]
    for name, difference, place in lines:
        values = [float(np.asarray(getattr(difference, column))[place]) for column in (*columns, "p_value")]
        rows.append((name, *_percents(values[:5]), "-" if np.isnan(values[5]) else f"{values[5]:.3f}"))
    _show(
        f"{second} against {first}: voc-area of each class",
        ("class", "first", "second", "difference", "from", "to", "p"),
        rows,
        f"{_bootstrap_note(comparison)}; p: how often equal detectors would differ as much",
    )
    p_value = float(comparison.mean_ap.p_value)
    if not np.isnan(p_value):
        verdict = "is more than chance" if p_value < 1 - comparison.confidence else "may well be chance"
        text = f"The difference of the mean voc-area {verdict} on these images (p = {p_value:.3f})."
        console.print(text, markup=False, soft_wrap=True)


def _bootstrap_note(result: Bootstrap | Comparison) -> str:
    samples = f"{result.resamples:,} resamples of {plural(result.num_images, 'image')}"
    return f"{100 * result.confidence:g} % bootstrap intervals, {samples}"


def _percents(values: Sequence[float] | np.ndarray) -> list[str]:
    return [format_percent(100 * float(value)) for value in values]
