"""The mean of several detectors' weights: python scripts/average_weights.py A.safetensors B.safetensors --out C

Of trainings that began from the same detector, the mean is often better than each (Wortsman et al. 2022, "model soups")
and costs no more to run.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer

from centerdet import Detector
from centerdet.errors import ConfigError
from centerdet.runtimes.weights import read_tensors

PLACES = ("data", "out", "start")  # of the machine that trained: no matter of others


def average(paths: Sequence[str | Path]) -> Detector:
    """The mean of weights and batch statistics, as the first one's detector."""
    first, *others = (Detector.load(path, device="cpu") for path in paths)
    for other in others:
        if (other.names, other.size, other.network.options) != (first.names, first.size, first.network.options):
            raise ConfigError("want detectors of the same classes, input size and network")
    with torch.no_grad():
        for key, mean in first.network.state_dict().items():
            if mean.is_floating_point():
                mean.copy_(torch.stack([mean, *(other.network.state_dict()[key] for other in others)]).mean(0))
    return first


def main(
    weights: Annotated[list[str], typer.Argument(help="weights files, each counting alike")],
    out: Annotated[Path, typer.Option(help="weights file to write")],
) -> None:
    """Write the mean of weights."""
    configs = [read_tensors(Path(path))[1].get("config", {}) for path in weights]
    trained = [{key: value for key, value in config.items() if key not in PLACES} for config in configs]
    average(weights).save(out, mean_of=trained)


if __name__ == "__main__":
    typer.run(main)
