"""Train the shipped VOC detector, one phase at a time: python scripts/train_voc.py 1 --data ../shared/VOCdevkit

Each phase begins from the averaged weights of the one before and is one command; `--resume` goes on after a stop.
The same commands serve a GPU. Nothing here is tuned to the number of pictures: phases are counted in epochs.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from centerdet import TrainConfig
from centerdet.cli.train import follow
from centerdet.files import write_whole

NAME = "voc_efficientnet_lite0.safetensors"
PHASES: dict[int, dict[str, Any]] = {
    1: {"epochs": 24, "sizes": (192, 256, 256, 320), "mosaic": 0.0},
    2: {"epochs": 28, "sizes": (256, 320, 320), "lr": 2e-3, "backbone_lr": 8e-4, "mosaic": 0.0},
}


def main(
    phase: int,
    data: Annotated[str, typer.Option(help="VOCdevkit folder")],
    train: Annotated[list[str], typer.Option(help="split to train on; again for more")] = ["2007:train", "2012:extra"],  # noqa: B006
    out: Annotated[Path, typer.Option(help="folder of the runs, one below it for each phase")] = Path("runs/voc"),
    seed: int = 0,
    threads: Annotated[int, typer.Option(help="of torch")] = 2,
    workers: Annotated[int, typer.Option(help="processes that prepare pictures; a GPU waits for a single one")] = 0,
    resume: bool = False,
) -> None:
    """Train one phase and put its weights into weights/."""
    before = "" if phase == 1 else str(out / f"phase{phase - 1}" / "final.safetensors")
    config = TrainConfig(
        data=data,
        out=str(out / f"phase{phase}"),
        train=tuple(train),
        val=(),
        seed=seed,
        threads=threads,
        workers=workers,
        start=before,
        **PHASES[phase],
    )
    follow(config, resume=resume)
    write_whole(Path(__file__).parents[1] / "weights" / NAME, Path(config.out, "final.safetensors").read_bytes())


if __name__ == "__main__":
    typer.run(main)
