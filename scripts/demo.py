"""The whole loop in a few minutes: `make run`, or python scripts/demo.py

Predicts on photographs with the shipped weights; then draws a dataset of shapes, trains a detector on it, evaluates it
and predicts on images of the validation split. Everything goes to runs/demo/, which is replaced. Exit code 1 if the
mAP is below the goal.
"""

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from centerdet import CenterdetError, Detections, Detector, TrainConfig, evaluate
from centerdet.cli.show import bar, console, errors
from centerdet.cli.train import follow
from centerdet.data.shapes import write_shapes
from centerdet.data.voc import read_voc

PHOTOGRAPHS = ("chelsea.png", "astronaut.png", "camera.png", "coffee.png")  # CC0 or public domain, in scikit-image
GOAL = 0.9


def main(
    out: Annotated[Path, typer.Option(help="folder that is replaced")] = Path(__file__).parents[1] / "runs" / "demo",
    images: Annotated[int, typer.Option(help="shapes images to train on")] = 640,
    epochs: float = 5,
    goal: Annotated[float, typer.Option(help="voc-area mAP to reach")] = GOAL,
) -> None:
    """Run the parts one after another and list the files written."""
    started = time.perf_counter()
    shutil.rmtree(out, ignore_errors=True)

    console.rule("Photographs, with the shipped weights")
    for detections in predict(Detector.load("voc"), find_photographs(), out / "photographs", "best"):
        objects = ", ".join(f"{one.name} {one.score:.2f}" for one in detections)
        console.print(f"{Path(str(detections.source)).name}: {objects or 'nothing'}")

    console.rule("A dataset of drawn shapes")
    with console.status("drawing"):
        write_shapes(out / "shapes", train=images, val=max(12, images // 6))
    val = read_voc(out / "shapes", ["val"])
    console.print(f"{images} images to train on and {len(val)} to evaluate on, of {', '.join(val.names)}")

    console.rule("Training on it, from the shipped weights")
    config = TrainConfig(
        data=(str(out / "shapes"),),
        out=str(out / "training"),
        val=(),  # evaluated once, below
        init_from="voc",  # few images: start from the shipped detector
        epochs=epochs,
        batch=8,
        sizes=(192, 256, 256),
        zoom=(0.85, 1.3),
    )
    follow(config)
    detector = Detector.load(Path(config.out, "final.safetensors"))

    console.rule(f"Evaluation on the {len(val)} images")
    with bar("evaluate", len(val)) as (progress, task):
        result = evaluate(detector, val, progress=lambda done: progress.update(task, completed=done))
    console.print(str(result), soft_wrap=True)
    predict(detector, [sample.path for sample in val.samples[:12]], out / "shapes_val")

    console.rule("Files")
    console.print(f"{out}/")
    for name, content in {
        "photographs.jpg": "detections in photographs, each also in photographs/",
        "shapes/": "the generated dataset, in VOC layout",
        "training/": "log.csv and the trained detector, final.safetensors",
        "shapes_val.jpg": "detections in images of the val split, each also in shapes_val/",
    }.items():
        console.print(f"  {name:18}{content}", soft_wrap=True)
    mean = result.voc.mean_ap
    console.print(f"voc-area mAP {mean:.3f} (goal: {goal}) in {time.perf_counter() - started:.0f} s")
    if mean < goal:
        sys.exit(1)


def find_photographs() -> list[Path]:
    """The files of the photographs inside scikit-image."""
    try:
        import skimage
    except ImportError:
        raise CenterdetError("the demonstration's photographs: pip install 'centerdet[demo]'") from None
    return [Path(skimage.__file__).parent / "data" / name for name in PHOTOGRAPHS]


def predict(
    detector: Detector, paths: Sequence[Path], folder: Path, score_threshold: float | str = 0.3
) -> list[Detections]:
    """Write each image with its detections to a folder, and all of them beside it to one .jpg."""
    folder.mkdir(parents=True)
    results = detector.predict_batch(paths, score_threshold=score_threshold)
    drawn = [one.plot(folder / f"{path.stem}.jpg") for one, path in zip(results, paths, strict=True)]
    rows = [_in_a_row(drawn[start : start + 4]) for start in range(0, len(drawn), 4)]
    Image.fromarray(np.concatenate(rows)).save(folder.with_suffix(".jpg"), quality=90)
    return results


def _in_a_row(images: Sequence[NDArray[np.uint8]], height: int = 300, width: int = 1600) -> NDArray[np.uint8]:
    """Images side by side at one height, the row then scaled to a width."""
    scaled = [Image.fromarray(one).resize((round(height * one.shape[1] / one.shape[0]), height)) for one in images]
    row = Image.fromarray(np.concatenate([np.asarray(one) for one in scaled], 1))
    return np.asarray(row.resize((width, round(height * width / row.width))))


if __name__ == "__main__":
    try:
        typer.run(main)
    except CenterdetError as error:
        errors.print(f"error: {error}", markup=False, soft_wrap=True)
        sys.exit(1)
