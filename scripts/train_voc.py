"""Train the shipped VOC detector, one phase at a time: python scripts/train_voc.py 1 --data VOCdevkit --coco coco_voc

Phase 2 starts from the weights of phase 1; `--seed 1 --out runs/voc-1 --init-from runs/voc/phase1/final.safetensors`
makes a second branch of it with other draws. The mean of weights is the detector (average_weights.py). Phase 3 adds the
validation images: `--base 2007:trainval,2012:extra --init-from voc`. `--resume` continues after a stop. Phases are
counted in draws, so that other datasets do not change their length.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from centerdet import TrainConfig
from centerdet.cli.train import follow
from centerdet.training.mixture import read_mixture

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
PHASES: dict[int, dict[str, Any]] = {
    1: {"draws": 190_000, "sizes": (320, 384, 416, 416), "batch": 64, "lr": 5e-3, "backbone_lr": 2e-3, "warmup": 300},
    2: {"draws": 18_000, "sizes": (384, 416), "batch": 16, "lr": 2e-3, "backbone_lr": 8e-4, "warmup": 100},
    3: {"draws": 13_000, "sizes": (384, 416), "batch": 16, "lr": 1.5e-3, "backbone_lr": 6e-4, "warmup": 100},
}


def main(
    phase: int,
    data: Annotated[str, typer.Option(help="VOCdevkit folder")],
    coco: Annotated[str, typer.Option(help="COCO dataset with VOC's class names; '' for none")] = "",
    base: Annotated[str, typer.Option(help="VOC splits beside the animals")] = "2007:train,2012:extra",
    animals: Annotated[str, typer.Option(help="VOC split of animals; '' for none")] = "2012:animals",
    out: Annotated[Path, typer.Option(help="folder of the runs, one below it for each phase")] = Path("runs/voc"),
    init_from: Annotated[str, typer.Option(help="weights to start from; by default those of the phase before")] = "",
    seed: int = 0,
    threads: Annotated[int, typer.Option(help="of PyTorch")] = 2,
    workers: Annotated[int, typer.Option(help="processes that prepare images; a GPU needs about 14")] = 0,
    resume: bool = False,
) -> None:
    """Train one phase."""
    options = dict(PHASES[phase])
    sources = {
        f"{data}={base}": 0.65,
        f"{data}={animals}" if animals else "": 0.3,
        f"{coco}=train" if coco else "": 0.05,
    }
    shares = {source: share for source, share in sources.items() if source}
    count = len(read_mixture(tuple(shares), (), CLASSES, notice=lambda _: None).samples)
    before = "" if phase == 1 else str(out / f"phase{phase - 1}" / "final.safetensors")
    config = TrainConfig(
        data=tuple(shares),
        shares=tuple(shares.values()),
        names=CLASSES,
        out=str(out / f"phase{phase}"),
        val=(),
        seed=10 * (seed + 1) + phase - 1,  # so that no phase draws the images of another again
        threads=threads,
        workers=workers,
        init_from=init_from or before,
        epochs=options.pop("draws") / count,
        **options,
    )
    follow(config, resume=resume)


if __name__ == "__main__":
    typer.run(main)
