"""Evaluate weights on VOC splits for a model card: python scripts/evaluate_voc.py voc --data VOCdevkit

Prints a Markdown table of AP per class in both protocols with 95 % bootstrap intervals over images, and AP by size.
`--log` draws the losses of training logs.
"""

import csv
from pathlib import Path
from statistics import mean
from typing import Annotated

import typer

from centerdet import Detector, evaluate
from centerdet.cli.show import bar
from centerdet.data.voc import read_voc


def main(
    weights: str,
    data: Annotated[Path, typer.Option(help="VOCdevkit folder")],
    split: Annotated[list[str], typer.Option(help="split (repeatable)")] = ["2007:val"],  # noqa: B006
    log: Annotated[list[Path] | None, typer.Option(help="log.csv of a phase, in their order (repeatable)")] = None,
    curve: Annotated[Path, typer.Option(help="image to draw the logs into")] = Path("learning_curve.png"),
) -> None:
    """Print a model card's table."""
    detector = Detector.load(weights)
    dataset = read_voc(data, split, names=detector.names)
    with bar("evaluate", len(dataset)) as (progress, task):
        result = evaluate(detector, dataset, progress=lambda done: progress.update(task, completed=done))
    print(f"{', '.join(split)}: {result.protocol}; 95 % intervals of 1000 bootstrap resamples of the images\n")
    print("| class | objects | voc-area | voc07-11pt |\n|---|--:|--:|--:|")
    intervals = result.bootstrap()
    columns = [intervals.ap, intervals.ap_11pt], [intervals.mean_ap, intervals.mean_ap_11pt]
    for row, (name, count, *numbers) in enumerate(result.rows()):
        cells = []
        for number, single, overall in zip(numbers, *columns, strict=True):
            low, high = (overall.low, overall.high) if name == "mean" else (single.low[row], single.high[row])
            cells.append(f"{number:.1f} ({100 * float(low):.1f} to {100 * float(high):.1f})")
        print(f"| {name} | {count} | {' | '.join(cells)} |")
    print(f"\nAP by size: {result.by_size().to_dict()}")
    if log:
        _draw(log, curve)


def _draw(logs: list[Path], out: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    start = 0
    for path in logs:
        rows = list(csv.DictReader(path.read_text().splitlines()))
        steps = [start + int(row["step"]) for row in rows]
        for color, name in (("C0", "heatmap_loss"), ("C1", "box_loss")):
            losses = [float(row[name]) for row in rows]
            means = [mean(losses[max(0, end - 10) : end]) for end in range(1, len(losses) + 1)]
            axes.plot(steps, means, color=color, label=None if start else name)
        start = steps[-1]
        axes.axvline(start, color="0.8", linewidth=0.8)
    axes.set(xlabel="step", ylabel="loss (mean of 10 lines of the log)", ylim=(0, None))
    axes.legend()
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    typer.run(main)
