"""Train the shipped VOC detector, one phase at a time: python scripts/train_voc.py 1 --data ../shared/VOCdevkit

Phases 2 and 3 begin from the weights of the phase before. Another core can do them meanwhile, drawing other images:
    python scripts/train_voc.py 2 --data ... --seed 1 --out runs/voc-1 --start runs/voc/phase1/final.safetensors
The mean of what phases 2 and 3 made is the detector (average_weights.py). `--resume` goes on after a stop; the same
commands serve a GPU. Nothing is tuned to the number of images: phases are counted in epochs.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from centerdet import TrainConfig
from centerdet.cli.train import follow

AGAIN = {"epochs": 8, "sizes": (320, 384), "lr": 2e-3, "backbone_lr": 8e-4}
PHASES: dict[int, dict[str, Any]] = {1: {"epochs": 24, "sizes": (192, 256, 256, 320)}, 2: AGAIN, 3: AGAIN}


def main(
    phase: int,
    data: Annotated[str, typer.Option(help="VOCdevkit folder")],
    train: Annotated[list[str], typer.Option(help="split to train on; again for more")] = ["2007:train", "2012:extra"],  # noqa: B006
    out: Annotated[Path, typer.Option(help="folder of the runs, one below it for each phase")] = Path("runs/voc"),
    start: Annotated[str, typer.Option(help="weights to begin from; by default those of the phase before")] = "",
    seed: int = 0,
    threads: Annotated[int, typer.Option(help="of torch")] = 2,
    workers: Annotated[int, typer.Option(help="processes that prepare images; a GPU waits for a single one")] = 0,
    resume: bool = False,
) -> None:
    """Train one phase."""
    before = "" if phase == 1 else str(out / f"phase{phase - 1}" / "final.safetensors")
    config = TrainConfig(
        data=data,
        out=str(out / f"phase{phase}"),
        train=tuple(train),
        val=(),
        seed=10 * seed + phase - 1,  # so that no phase draws the images of another again
        threads=threads,
        workers=workers,
        start=start or before,
        **PHASES[phase],
    )
    follow(config, resume=resume)


if __name__ == "__main__":
    typer.run(main)
