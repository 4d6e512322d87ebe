"""Study of the recipe on held-out images of VOC2007 train: python scripts/study.py VOCdevkit --row "no mosaic"

Every row changes one thing of the same short run. Every fifth image of `2007:train` is held out and never trained
on; `val` is not looked at. A row that is done is not run again, so the study goes on where it was stopped.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from average_weights import average
from study_patches import PATCHES, Flipped
from study_rows import ROWS

from centerdet import Detector, TrainConfig, evaluate, train
from centerdet.cli.show import console
from centerdet.data.formats import read_dataset
from centerdet.data.sample import Dataset
from centerdet.files import write_atomic

SIZE = 192


def main(
    data: Annotated[str, typer.Argument(help="VOCdevkit folder")],
    out: Annotated[Path, typer.Option(help="folder of the study")] = Path("runs/study"),
    row: Annotated[str, typer.Option(help="run this row alone")] = "",
    epochs: Annotated[int, typer.Option(help="of 2000 images")] = 4,
    start: Annotated[str, typer.Option(help="weights to go on from, such as another row's final.safetensors")] = "",
    seed: int = 0,
    threads: int = 1,
) -> None:
    """Run one row, or print the table of what was run."""
    if not row:
        for path in sorted(out.glob("*.json"), key=lambda path: (len(path.name), path.name)):
            run = json.loads(path.read_text(encoding="utf-8"))
            name = f"{run.pop('row')}, seed {run.pop('seed')}, {run.pop('epochs', 4)} epochs"
            console.out(f"{name}: " + ", ".join(f"{key} {100 * value:.1f}" for key, value in run.items()))
        return
    place = out / f"{list(ROWS).index(row):02}-{seed}{f'-{epochs}' * (epochs != 4)}{'-on' * bool(start)}"
    if place.with_suffix(".json").exists():
        return
    kit = held_out(Path(data), out)
    changes = dict(ROWS[row])
    if patch := changes.pop("patch", None):
        PATCHES[patch]()
    options: dict[str, Any] = {"sizes": (SIZE,), "epochs": epochs, "ema": 0.998, "mosaic": 0.3, "save": 10**9} | changes
    config = TrainConfig(
        data=str(kit), out=str(place), train=("2007:fit",), val=(), start=start, seed=seed, threads=threads, **options
    )
    detector = train(config)
    held = read_dataset(str(kit), ("2007:held",), names=detector.names)
    fit = read_dataset(str(kit), ("2007:fit",), names=detector.names)
    seen = Dataset(fit.samples[: len(held)], fit.names)
    scores = {
        "voc-area": evaluate(detector, held).voc.mean_ap,
        "on seen images": evaluate(detector, seen).voc.mean_ap,
    }
    if start:
        both = average([start, place / "final.safetensors"])
        scores |= {
            "before": evaluate(Detector.load(start), held).voc.mean_ap,
            "mean of both": evaluate(both, held).voc.mean_ap,
        }
    if row in ("the recipe", "no mosaic"):
        whole = Detector(detector.network, detector.names, SIZE, nms_iou=1.0)
        scores["no NMS"] = evaluate(whole, held).voc.mean_ap
        for size in (256, 320):
            scores[f"input {size}"] = evaluate(Detector(detector.network, detector.names, size), held).voc.mean_ap
        detector.network.__class__ = Flipped
        scores["flip"] = evaluate(detector, held).voc.mean_ap
    write_atomic(place.with_suffix(".json"), json.dumps({"row": row, "seed": seed, "epochs": epochs, **scores}).encode())


def held_out(data: Path, out: Path) -> Path:
    """A devkit of links whose splits are `2007:fit` and `2007:held`."""
    year = out / "VOCdevkit" / "VOC2007"
    lists = year / "ImageSets" / "Main"
    if not lists.is_dir():
        lists.mkdir(parents=True)
        for folder in ("Annotations", "JPEGImages"):
            (year / folder).symlink_to((data / "VOC2007" / folder).resolve())
        names = (data / "VOC2007/ImageSets/Main/train.txt").read_text().split()
        write_atomic(lists / "fit.txt", "".join(f"{name}\n" for i, name in enumerate(names) if i % 5).encode())
        write_atomic(lists / "held.txt", "".join(f"{name}\n" for name in names[::5]).encode())
    return year.parent


if __name__ == "__main__":
    typer.run(main)
