"""The tables that `centerdet evaluate` prints."""

from collections.abc import Sequence

import numpy as np
from rich.table import Table

from ..evaluation.evaluation import Evaluation
from ..metrics.statistics import Bootstrap, Comparison, Difference
from ..text import format_percent, format_table, plural
from .show import console

__all__ = ["show_classes", "show_comparison", "show_details", "show_steps"]

SUSPECTS = 20
Rows = Sequence[Sequence[str]]


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
        console.out("\n".join(([f"\n{title}"] if title else []) + [text]))
    if note:
        console.out(note)


def show_classes(result: Evaluation) -> None:
    rows = [(name, str(count), *map(format_percent, values)) for name, count, *values in result.rows()]
    _show("", ("class", "objects", "voc-area", "voc07-11pt"), rows, result.protocol)
    if result.coco_files:
        coco = result.coco()
        _show("COCO", coco.stat_names, [_percents(np.where(coco.stats < 0, np.nan, coco.stats))], coco.protocol)


def show_details(result: Evaluation) -> None:
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
        "COCO's size ranges: up to 32 x 32 px, up to 96 x 96 px, larger",
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
        f"score >= {confusion.score_threshold:g}; background: missed object, or no object; --json has the whole matrix",
    )

    kinds = result.error_kinds()
    rows = list(zip(kinds.kinds, map(str, kinds.count.sum(1).tolist()), _percents(kinds.mean_cost), strict=True))
    special = _percents([kinds.mean_false_positive_cost, kinds.mean_false_negative_cost])
    rows += [("all false positives", "", special[0]), ("all false negatives", "", special[1])]
    _show("Errors, and the voc-area that each kind costs (TIDE)", ("kind", "number", "cost"), rows)

    suspects = result.suspects(SUSPECTS)
    _show(
        f"Likely label errors (first {len(suspects)})",
        ("image", "kind", "score", "box", "reason"),
        [
            (one.image.name, one.kind, f"{one.score:.3f}", " ".join(f"{side:.0f}" for side in one.box), one.reason)
            for one in suspects
        ],
        "annotations that contradict confident detections; --suspects writes all of them",
    )


def show_steps(result: Evaluation) -> None:
    steps = result.from_voc_to_coco()
    changes = np.diff([step.ap for step in steps], prepend=np.nan) * 100
    _show(
        "From VOC's rules to COCO's, one change per row",
        ("rules", "mean AP", "change"),
        [
            (step.rules, format_percent(100 * step.ap), "" if np.isnan(change) else f"{change:+.1f}")
            for step, change in zip(steps, changes.tolist(), strict=True)
        ],
    )
    for step in steps:
        console.out(f"{step.rules}: {step.why}.")


def show_comparison(result: Evaluation, other: Evaluation, first: str, second: str) -> None:
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
        f"{_bootstrap_note(comparison)}; p: how often equally good detectors would differ at least as much",
    )
    p_value = float(comparison.mean_ap.p_value)
    if not np.isnan(p_value):
        verdict = "more than chance" if p_value < 1 - comparison.confidence else "not significant"
        text = f"The difference in mean voc-area is {verdict} on these images (p = {p_value:.3f})."
        console.out(text)


def _bootstrap_note(result: Bootstrap | Comparison) -> str:
    samples = f"{result.resamples:,} resamples of {plural(result.num_images, 'image')}"
    return f"{100 * result.confidence:g} % bootstrap intervals, {samples}"


def _percents(values: Sequence[float] | np.ndarray) -> list[str]:
    return [format_percent(100 * float(value)) for value in values]
