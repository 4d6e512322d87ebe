"""What half precision costs: python scripts/half_precision.py runs/a/checkpoint-00001000.safetensors DATA --split val

A checkpoint has the averaged weights of a run in single precision. These are evaluated, and then the same weights
rounded to half precision, as a weights file has them.
"""

from pathlib import Path
from typing import Annotated, cast

import typer
from torch.optim.swa_utils import AveragedModel

from centerdet import Detector, TrainConfig, evaluate
from centerdet.data.formats import read_dataset
from centerdet.errors import ConfigError
from centerdet.models import Network
from centerdet.runtimes.pytorch import PyTorchRuntime, halve
from centerdet.runtimes.weights import read_tensors


def main(
    checkpoint: Path, data: Path, split: Annotated[list[str], typer.Option(help="to evaluate on (repeatable)")]
) -> None:
    """Print both mAPs and their difference."""
    single, half = measure(checkpoint, data, split)
    typer.echo(f"voc-area: {single:.3f} in single precision, {half:.3f} in half, {half - single:+.3f}")


def measure(checkpoint: Path, data: Path, split: list[str]) -> tuple[float, float]:
    """voc-area in % in single and in half precision."""
    tensors, fields = read_tensors(checkpoint)
    known = set(TrainConfig.__dataclass_fields__)
    config = TrainConfig(**{key: value for key, value in fields["config"].items() if key in known})
    dataset = read_dataset(data, split, names=config.names or None)
    averaged = AveragedModel(Network(len(dataset.names), **config.model), use_buffers=True)
    part = {key.removeprefix("averaged."): value for key, value in tensors.items() if key.startswith("averaged.")}
    try:
        averaged.load_state_dict(part)
    except RuntimeError as error:
        raise ConfigError(f"{checkpoint}: does not fit the classes {list(dataset.names)} of {data}") from error
    scores = []
    network = cast(Network, averaged.module)
    for one in (network, halve(network)):
        runtime = PyTorchRuntime(one, dataset.names, config.sizes[-1], device="cpu")
        scores.append(100 * evaluate(Detector(runtime), dataset).voc.mean_ap)
    return scores[0], scores[1]


if __name__ == "__main__":
    typer.run(main)
