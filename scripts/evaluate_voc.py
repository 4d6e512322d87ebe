"""Evaluate weights on VOC splits and write what a model card needs: python scripts/evaluate_voc.py voc --data DEVKIT

Prints both protocols per class with the bootstrap interval of the means, and writes the same as JSON.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from centerdet import Detector, evaluate
from centerdet.cli.show import bar
from centerdet.data.voc import read_voc
from centerdet.files import write_whole


def main(
    weights: str,
    data: Annotated[Path, typer.Option(help="VOCdevkit folder")],
    split: Annotated[list[str], typer.Option(help="split; again for more")] = ["2007:val"],  # noqa: B006
    out: Annotated[Path | None, typer.Option(help="JSON file to write")] = None,
) -> None:
    """Evaluate a detector on VOC splits."""
    detector = Detector.load(weights)
    dataset = read_voc(data, split, names=detector.names)
    with bar("evaluate", len(dataset)) as (progress, task):
        result = evaluate(detector, dataset, progress=lambda done: progress.update(task, completed=done))
    print(result)
    if out:
        write_whole(out, json.dumps({"weights": weights, "splits": split, **result.to_dict()}, indent=1).encode())


if __name__ == "__main__":
    typer.run(main)
