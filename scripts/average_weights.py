"""The mean of several detectors' weights: python scripts/average_weights.py A.safetensors B.safetensors --out C

Of training runs with the same initial detector, the mean is often better than each (Wortsman et al. 2022, "model
soups") and costs no more to run.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer

from centerdet import Detector
from centerdet.errors import ConfigError
from centerdet.runtimes.pytorch import PyTorchRuntime
from centerdet.runtimes.weights import read_tensors, weights_path

PLACES = ("data", "out", "init_from")  # paths of the machine that trained: of no use elsewhere


def average(paths: Sequence[str | Path]) -> Detector:
    """The mean of weights and batch statistics, as a detector of the first file's classes, input size and NMS IoU."""
    runtimes = [PyTorchRuntime.load(weights_path(path), device="cpu") for path in paths]
    first = runtimes[0]
    for other in runtimes[1:]:
        if (other.names, other.size, other.network.options) != (first.names, first.size, first.network.options):
            raise ConfigError("expected detectors of the same classes, input size and network")
    states = [runtime.network.state_dict() for runtime in runtimes]
    means = {
        key: torch.stack([state[key] for state in states]).mean(0) if value.is_floating_point() else value
        for key, value in states[0].items()
    }
    first.network.load_state_dict(means)
    return Detector(PyTorchRuntime(first.network, first.names, first.size, device="cpu", nms_iou=first.nms_iou))


def main(
    weights: Annotated[list[str], typer.Argument(help="weights files, equally weighted")],
    out: Annotated[Path, typer.Option(help="weights file to write")],
) -> None:
    """Write the mean of weights."""
    configs = [read_tensors(weights_path(path))[1].get("config", {}) for path in weights]
    trained = [{key: value for key, value in config.items() if key not in PLACES} for config in configs]
    average(weights).save(out, mean_of=trained)


if __name__ == "__main__":
    typer.run(main)
