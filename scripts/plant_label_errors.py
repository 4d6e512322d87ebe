"""Measure how well `evaluate --suspects` detects label errors: python scripts/plant_label_errors.py VOCdevkit

The script plants random errors in a copy of the annotations: 5 % of the boxes are removed, 3 % are shifted by 15 to
35 % of their width and height, and 2 % get another class. Difficult objects do not change. It prints precision and
recall of the first N suspects, where N is the number of planted errors. Errors that were already in the dataset count
as false suspects, so the precision is a lower bound.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from centerdet import Detector
from centerdet.boxes import iou_matrix
from centerdet.data.formats import read_dataset, write_dataset
from centerdet.data.sample import Dataset, Sample
from centerdet.evaluation.evaluation import Suspect, evaluate, evaluate_detections
from centerdet.evaluation.files import is_results, read_results
from centerdet.text import format_table

SHARES = {"missing": 0.05, "shifted": 0.03, "renamed": 0.02}


@dataclass(frozen=True)
class Planted:
    """A planted error: the true box (4,) and class, and the box (4,) in the changed annotations."""

    kind: str
    image: Path
    box: np.ndarray
    name: str
    planted_box: np.ndarray


def main(
    data: Path,
    split: str = "2007:val",
    detections: Annotated[str, typer.Option(help="weights, or a detections file of the split")] = "voc",
    seed: int = 0,
    out: Annotated[
        Path | None, typer.Option(help="also write the dataset with the planted errors (VOC, images linked)")
    ] = None,
) -> None:
    """Print recall and precision of the first N suspects, in total and for each kind."""
    clean = read_dataset(data, [split])
    dataset, planted = plant(clean, seed)
    if out:
        write_dataset(dataset, out, "planted", "voc", placing="link")
    if is_results(detections):
        results = read_results(detections, clean, split=split.rpartition(":")[2])
        evaluation = evaluate_detections(results, dataset)
    else:
        evaluation = evaluate(Detector.load(detections), dataset)
    suspects = evaluation.suspects()
    first = suspects[: len(planted)]
    by_image: dict[Path, list[Suspect]] = {}
    for suspect in first:
        by_image.setdefault(suspect.image, []).append(suspect)
    rows = []
    for kind in (*SHARES, "all"):
        errors = [error for error in planted if kind in (error.kind, "all")]
        same = [one for one in errors if any(shows(suspect, one) for suspect in by_image.get(one.image, ()))]
        exact = [
            one for one in errors if any(shows(x, one) and x.kind == one.kind for x in by_image.get(one.image, ()))
        ]
        listed = [suspect for suspect in first if kind in (suspect.kind, "all")]
        right = [x for x in listed if any(shows(x, one) for one in planted if one.image == x.image)]
        rows.append((
            kind, str(len(errors)), f"{len(same) / max(1, len(errors)):.3f}", f"{len(exact) / max(1, len(errors)):.3f}",
            str(len(listed)), f"{len(right) / max(1, len(listed)):.3f}",
        ))  # fmt: skip
    columns = ("kind", "planted", "recall", "with right kind", "suspects", "precision")
    print(f"the first {len(first)} of {len(suspects)} suspects, seed {seed}\n{format_table(columns, rows)}")


def plant(dataset: Dataset, seed: int) -> tuple[Dataset, list[Planted]]:
    """A copy of the dataset with planted errors, and the list of these errors."""
    draw = np.random.default_rng(seed)
    places = [(n, row) for n, sample in enumerate(dataset.samples) for row in np.flatnonzero(~sample.difficult)]
    order = iter(draw.permutation(len(places)).tolist())
    kinds = {places[next(order)]: kind for kind, share in SHARES.items() for _ in range(round(share * len(places)))}
    samples, planted = [], []
    for number, sample in enumerate(dataset.samples):
        boxes, labels = sample.boxes.copy(), sample.labels.copy()
        stays = np.ones(len(boxes), bool)
        for row in range(len(boxes)):
            kind = kinds.get((number, row))
            if kind == "missing":
                stays[row] = False
            elif kind == "shifted":
                side = boxes[row, 2:] - boxes[row, :2]
                step = draw.uniform(0.15, 0.35, 2) * draw.choice([-1, 1], 2) * side
                limits = [np.inf, np.inf] if sample.size is None else sample.size[::-1]
                out = (boxes[row, :2] + step < 0) | (boxes[row, 2:] + step > limits)
                boxes[row] += np.tile(np.where(out, -step, step), 2)  # the other way if it would leave the image
                boxes[row] = np.clip(boxes[row], 0, np.tile(limits, 2))
            elif kind == "renamed":
                labels[row] = (labels[row] + draw.integers(1, len(dataset.names))) % len(dataset.names)
            if kind:
                name = dataset.names[sample.labels[row]]
                planted.append(Planted(kind, sample.path, sample.boxes[row], name, boxes[row].copy()))
        difficult, crowd = sample.difficult[stays], sample.crowd[stays]
        samples.append(Sample(sample.path, boxes[stays], labels[stays], difficult, crowd, sample.size))
    return Dataset(samples, dataset.names), planted


def shows(suspect: Suspect, error: Planted) -> bool:
    """Whether a suspect shows an error: it has the changed box, or the true class and box (IoU >= 0.5)."""
    if error.kind != "missing" and suspect.existing_box and np.allclose(suspect.existing_box, error.planted_box):
        return True
    overlap = iou_matrix(np.array([suspect.box]), error.box[None])[0, 0]
    return bool(suspect.kind in ("missing", "shifted", "renamed") and suspect.name == error.name and overlap >= 0.5)


if __name__ == "__main__":
    typer.run(main)
