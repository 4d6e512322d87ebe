"""Study of the recipe on held-out pictures of VOC2007 train: python scripts/study.py VOCdevkit --row "no mosaic"

Every row changes one thing of the same short run. Every fifth picture of `2007:train` is held out and never trained
on; `val` is not looked at. A row that is done is not run again, so the study goes on where it was stopped.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

from centerdet import Detector, TrainConfig, codec, evaluate, losses, models, train, training
from centerdet.cli.show import console
from centerdet.data.formats import read_dataset
from centerdet.files import write_whole
from centerdet.models.depthwise import Depthwise
from centerdet.models.neck import separable
from centerdet.models.network import Network, Outputs

SIZE = 192

ROWS: dict[str, dict[str, Any]] = {
    "the recipe": {},
    "box loss: L1 on offset and size at the centre cell": {"patch": "l1"},
    "freeze 2": {"freeze": 2},
    "freeze 4": {"freeze": 4},
    "both rates x 2": {"lr": 5e-3, "backbone_lr": 2e-3},
    "both rates x 0.5": {"lr": 1.25e-3, "backbone_lr": 5e-4},
    "backbone rate = head rate": {"backbone_lr": 2.5e-3},
    "backbone rate x 0.4": {"backbone_lr": 4e-4},
    "SGD, 0.02 and 0.008": {"optimizer": "sgd", "lr": 0.02, "backbone_lr": 0.008, "weight_decay": 1e-4},
    "no mosaic": {"mosaic": 0.0},
    "no class balance": {"balance": 0.0},
    "zoom 0.7 to 1.4": {"zoom": (0.7, 1.4)},
    "zoom 0.35 to 2.5": {"zoom": (0.35, 2.5)},
    "no colour": {"colour": 0.0},
    "Gaussian over 0.3 of a side": {"patch": "narrow"},
    "Gaussian over 0.8 of a side": {"patch": "wide"},
    "freeze 0": {"freeze": 0},
    "freeze 1": {"freeze": 1},
    "stride 4": {"stride": 4},
    "no averaging of the weights": {"ema": 0.0},
    "sizes 128, 192, 192": {"sizes": (128, 192, 192)},
    "5 x 5 depthwise in neck and heads": {"patch": "five"},
}


class Flipped(Network):
    def forward(self, pictures: Tensor) -> Outputs:  # the mean of what is said of pictures and of their mirror images
        plain, mirror = super().forward(pictures), super().forward(pictures.flip(3))
        heatmap = torch.logit((plain.heatmap.sigmoid() + mirror.heatmap.flip(3).sigmoid()) / 2)
        return Outputs(heatmap, (plain.distances + mirror.distances.flip(3)[:, [2, 1, 0, 3]]) / 2)


def widen() -> None:
    def five(inputs: int, outputs: int) -> nn.Sequential:
        layers = separable(inputs, outputs)
        layers[0] = Depthwise(inputs, 5, padding=2)
        return layers

    for module in (models.network, models.neck):
        vars(module)["separable"] = five


def l1_loss(heatmap: Tensor, distances: Tensor, targets: codec.Targets, stride: int) -> tuple[Tensor, Tensor]:
    """CenterNet's box loss, weights 1 and 0.1, with offset and size taken from the four distances."""
    image, row, column = (targets.heatmap == 1).any(1).nonzero(as_tuple=True)
    grid = heatmap.shape[-1]
    x, y = (codec.cell_centres(grid, stride)[i] for i in (column, row))
    left, top, right, bottom = distances[image, :, row, column].unbind(1)
    x1, y1, x2, y2 = targets.boxes[image, row, column].unbind(1)
    error = torch.stack([x - left - x1, y - top - y1, x + right - x2, y + bottom - y2]).view(2, 2, -1)  # px
    offset, size = error.sum(0) / 2, error[1] - error[0]
    box = (offset.abs().sum() + 0.1 * size.abs().sum()) / stride / max(1, len(image))
    return losses.heatmap_loss(heatmap, targets.heatmap, targets.counted, targets.num_objects), box


PATCHES: dict[str, Callable[[], None]] = {
    "l1": lambda: setattr(training, "detection_loss", l1_loss),
    "five": widen,
    "narrow": lambda: setattr(codec, "SPREAD", 0.3),
    "wide": lambda: setattr(codec, "SPREAD", 0.8),
}


def main(
    data: Annotated[str, typer.Argument(help="VOCdevkit folder")],
    out: Annotated[Path, typer.Option(help="folder of the study")] = Path("runs/study"),
    row: Annotated[str, typer.Option(help="run this row alone")] = "",
    epochs: Annotated[int, typer.Option(help="of 2000 pictures")] = 4,
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
    place = out / f"{list(ROWS).index(row):02}-{seed}{f'-{epochs}' * (epochs != 4)}"
    if place.with_suffix(".json").exists():
        return
    kit = held_out(Path(data), out)
    changes = dict(ROWS[row])
    if patch := changes.pop("patch", None):
        PATCHES[patch]()
    options: dict[str, Any] = {"sizes": (SIZE,), "epochs": epochs, "ema": 0.998, "save": 10**9} | changes
    config = TrainConfig(
        data=str(kit), out=str(place), train=("2007:fit",), val=(), seed=seed, threads=threads, **options
    )
    detector = train(config)
    held = read_dataset(str(kit), ("2007:held",), names=detector.names)
    scores = {"voc-area": evaluate(detector, held).voc.mean_ap}
    if row in ("the recipe", "no mosaic"):
        whole = Detector(detector.network, detector.names, SIZE, nms_iou=1.0)
        scores["no NMS"] = evaluate(whole, held).voc.mean_ap
        for size in (256, 320):
            scores[f"input {size}"] = evaluate(Detector(detector.network, detector.names, size), held).voc.mean_ap
        detector.network.__class__ = Flipped
        scores["flip"] = evaluate(detector, held).voc.mean_ap
    write_whole(place.with_suffix(".json"), json.dumps({"row": row, "seed": seed, "epochs": epochs, **scores}).encode())


def held_out(data: Path, out: Path) -> Path:
    """A devkit of links whose splits are `2007:fit` and `2007:held`."""
    year = out / "VOCdevkit" / "VOC2007"
    lists = year / "ImageSets" / "Main"
    if not lists.is_dir():
        lists.mkdir(parents=True)
        for folder in ("Annotations", "JPEGImages"):
            (year / folder).symlink_to((data / "VOC2007" / folder).resolve())
        names = (data / "VOC2007/ImageSets/Main/train.txt").read_text().split()
        write_whole(lists / "fit.txt", "".join(f"{name}\n" for i, name in enumerate(names) if i % 5).encode())
        write_whole(lists / "held.txt", "".join(f"{name}\n" for name in names[::5]).encode())
    return year.parent


if __name__ == "__main__":
    typer.run(main)
