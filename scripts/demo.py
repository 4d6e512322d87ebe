"""The whole loop in a few minutes: `make run`, or python scripts/demo.py

Finds objects in photographs with the shipped weights; then draws a dataset of shapes, trains a detector on it,
evaluates it and finds shapes. Everything goes to runs/demo/, which is made anew. Exit code 1 if it learnt too little.
"""

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from centerdet import CenterdetError, Detections, Detector, TrainConfig, evaluate
from centerdet.cli.show import bar, console, errors
from centerdet.cli.train import follow
from centerdet.data.shapes import write_shapes
from centerdet.data.voc import read_voc

OUT = Path(__file__).parents[1] / "runs" / "demo"
PHOTOGRAPHS = ("chelsea.png", "astronaut.png", "camera.png", "coffee.png")  # CC0 or public domain, in scikit-image
GOAL = 0.9
CONFIG = TrainConfig(
    data=str(OUT / "shapes"),
    out=str(OUT / "training"),
    val=(),  # evaluated once, below
    start="voc",  # few images: begin from the shipped detector
    epochs=5,
    batch=8,
    sizes=(192, 256, 256),
    zoom=(0.85, 1.3),
)


def main() -> None:
    """Run the parts one after another and say what was made."""
    started = time.perf_counter()
    shutil.rmtree(OUT, ignore_errors=True)

    console.rule("Photographs, with the shipped weights")
    found = predict(Detector.load("voc"), find_photographs(), "photographs")
    for one in found:
        objects = ", ".join(f"{thing.name} {thing.score:.2f}" for thing in one)
        console.print(f"{Path(str(one.source)).name}: {objects or 'nothing'}")

    console.rule("A dataset of drawn shapes")
    with console.status("drawing"):
        write_shapes(CONFIG.data, train=640, val=100)
    val = read_voc(CONFIG.data, ["val"])
    console.print(f"640 images to train on and {len(val)} to evaluate on, of {', '.join(val.names)}")

    console.rule("Training on it, from the shipped weights")
    follow(CONFIG)
    detector = Detector.load(Path(CONFIG.out, "final.safetensors"))

    console.rule(f"Evaluation on the {len(val)} images")
    with bar("evaluate", len(val)) as (progress, task):
        result = evaluate(detector, val, progress=lambda done: progress.update(task, completed=done))
    console.print(str(result), soft_wrap=True)
    predict(detector, [sample.path for sample in val.samples[:12]], "shapes_found")

    console.rule("Made")
    console.print(f"{OUT}/")
    for name, what in {
        "photographs.jpg": "objects found in photographs, each also in photographs/",
        "shapes/": "the generated dataset, in VOC layout",
        "training/": "log.csv and the trained detector, final.safetensors",
        "shapes_found.jpg": "shapes found in images it was not trained on, each also in shapes_found/",
    }.items():
        console.print(f"  {name:18}{what}", soft_wrap=True)
    mean = result.voc.mean_ap
    console.print(f"voc-area mAP {mean:.3f} (want {GOAL}) in {time.perf_counter() - started:.0f} s")
    if mean < GOAL:
        sys.exit(1)


def find_photographs() -> list[Path]:
    """The files of the photographs inside scikit-image."""
    try:
        import skimage
    except ImportError:
        raise CenterdetError("the demonstration's photographs: pip install 'centerdet[demo]'") from None
    return [Path(skimage.__file__).parent / "data" / name for name in PHOTOGRAPHS]


def predict(detector: Detector, paths: Sequence[Path], name: str) -> list[Detections]:
    """Write each image with what was found in it to the folder `name`, and all of them to `name`.jpg."""
    (OUT / name).mkdir(parents=True)
    found = detector.predict_batch(paths)
    drawn = [one.plot(OUT / name / f"{path.stem}.jpg") for one, path in zip(found, paths, strict=True)]
    rows = [_in_a_row(drawn[start : start + 4]) for start in range(0, len(drawn), 4)]
    Image.fromarray(np.concatenate(rows)).save(OUT / f"{name}.jpg", quality=90)
    return found


def _in_a_row(images: Sequence[NDArray[np.uint8]], height: int = 300, width: int = 1600) -> NDArray[np.uint8]:
    """Images side by side at one height, the row then scaled to a width."""
    scaled = [Image.fromarray(one).resize((round(height * one.shape[1] / one.shape[0]), height)) for one in images]
    row = Image.fromarray(np.concatenate([np.asarray(one) for one in scaled], 1))
    return np.asarray(row.resize((width, round(height * width / row.width))))


if __name__ == "__main__":
    try:
        main()
    except CenterdetError as error:
        errors.print(f"error: {error}", markup=False, soft_wrap=True)
        sys.exit(1)
