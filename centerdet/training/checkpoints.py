"""Training checkpoints: everything that the next step depends on, so that a run resumes exactly.

Law: a run resumed from the checkpoint of step k computes the same step k + 1, bit for bit. Writing is atomic. A damaged
checkpoint is set aside with a notice, so that it does not count as one of the `KEPT` good ones.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.fingerprint import dataset_fingerprint, describe_changes
from ..data.sample import Dataset
from ..errors import ConfigError, WeightsError
from ..files import write_atomic
from ..runtimes.weights import read_tensors, write_tensors
from .config import TrainConfig

__all__ = ["RunState", "check_data", "list_checkpoints", "load_checkpoint", "save_checkpoint"]

KEPT = 2  # the newest, and one before it should the newest be damaged


@dataclass(frozen=True)
class RunState:
    """The state of a run: steps done, best voc-area so far (-1: none yet), validations without improvement, and number
    of processes."""

    step: int = 0
    best: float = -1.0
    validations_without_improvement: int = 0
    world_size: int = 1


def list_checkpoints(out: str | Path) -> list[Path]:
    """The checkpoints in a run's folder, the newest last."""
    return sorted(Path(out).glob("checkpoint-*.safetensors"))


def save_checkpoint(
    config: TrainConfig, network: nn.Module, averaged: nn.Module, optimizer: torch.optim.Optimizer, state: RunState
) -> None:
    """Write a checkpoint to the run's folder, then delete all but the newest `KEPT`."""
    tensors: dict[str, Tensor] = {f"network.{key}": value for key, value in network.state_dict().items()}
    tensors |= {f"averaged.{key}": value for key, value in averaged.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in values.items() if isinstance(value, Tensor)}
    path = Path(config.out, f"checkpoint-{state.step:08d}.safetensors")
    write_tensors(path, tensors, {"state": asdict(state), "config": asdict(config)})
    for old in list_checkpoints(config.out)[:-KEPT]:
        old.unlink()


def load_checkpoint(
    config: TrainConfig,
    network: nn.Module,
    averaged: nn.Module,
    optimizer: torch.optim.Optimizer,
    world_size: int,
    notice: Callable[[str], object],
) -> RunState:
    """Load the newest complete checkpoint of the run's folder.

    The number of processes may differ, but not the total batch. Newer checkpoints that are damaged get the suffix
    .damaged and are reported through `notice` and in resumed.txt.
    """
    out = Path(config.out)
    damaged: dict[Path, str] = {}
    for path in reversed(list_checkpoints(out)):
        try:
            tensors, fields = read_tensors(path)
            state = _state(path, fields)
            break
        except WeightsError as error:
            damaged[path] = str(error)
    else:
        raise ConfigError("; ".join([f"resume: no complete checkpoint in {out}", *damaged.values()]))
    batches = (fields["config"]["batch"] * state.world_size, config.batch * world_size)
    for name, before, now in [*config.changed_from(fields["config"]), ("batch", *batches)]:
        if before != now:
            raise ConfigError(f"{name}: {path} was trained with {before}, now {now}: resume with the same options")

    try:
        _load_tensors(tensors, network, averaged, optimizer)
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{path}: its tensors do not fit the network that is trained: {reason:.300}") from error

    for path, problem in damaged.items():
        path.rename(path.with_suffix(".damaged"))
        text = f"resumed at step {state.step}: {problem}"
        notice(text)
        with (out / "resumed.txt").open("a") as file:
            file.write(text + "\n")
    for unfinished in out.glob(".*.part"):  # left over from a killed run
        unfinished.unlink()
    return replace(state, world_size=world_size)


def _state(path: Path, fields: Mapping[str, Any]) -> RunState:
    """The state in a checkpoint's fields."""
    try:
        state = RunState(**fields["state"])
        numbers = {**asdict(state), "batch": fields["config"]["batch"]}
    except (KeyError, TypeError) as error:
        raise WeightsError(f"{path}: expected a checkpoint with the fields state and config: {error}") from error
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int if name != "best" else int | float):
            raise WeightsError(f"{path}: {name}: expected a number, got {value!r:.60}")
    return state


def _load_tensors(
    tensors: Mapping[str, Tensor], network: nn.Module, averaged: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "averaged": {}, "optimizer": {}}
    for key, value in tensors.items():
        part, name = key.split(".", 1)
        parts[part][name] = value
    network.load_state_dict(parts["network"])
    averaged.load_state_dict(parts["averaged"])
    saved = optimizer.state_dict()
    saved["state"] = {}
    for key, value in parts["optimizer"].items():
        index, name = key.split(".", 1)
        saved["state"].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(saved)


def check_data(out: str | Path, datasets: Sequence[Dataset], *, accept_changes: bool = False) -> None:
    """Raise a ConfigError if images, objects or classes differ from those in the run's data.json.

    The location of the data does not matter. Writes data.json if it is missing or changes are accepted.
    """
    file = Path(out, "data.json")
    now = [dataset_fingerprint(dataset) for dataset in datasets]
    before = _read_fingerprints(file) if file.is_file() else None
    if before is not None and not accept_changes:
        if len(before) != len(now):
            raise ConfigError(f"data: {out} was trained on {len(before)} datasets, got {len(now)}: pass the same")
        changes = [describe_changes(*pair) for pair in zip(before, now, strict=True)]
        if any(changes):
            raise ConfigError(
                f"data: changed since {out} was started: {'; '.join(filter(None, changes))}: restore the data, or pass "
                "--accept-changes to continue with it as it is now"
            )
    if before != now:
        write_atomic(file, json.dumps(now).encode())


def _read_fingerprints(file: Path) -> list[dict[str, Any]]:
    """The content of a data.json."""
    try:
        content = json.loads(file.read_bytes())
        valid = isinstance(content, list) and all(
            set(one) == {"names", "images"}
            and all(isinstance(name, str) for name in one["names"])
            and all(isinstance(name, str) and isinstance(digest, str) for name, digest in one["images"])
            for one in content
        )
        if not valid:
            raise ValueError("expected names and images")
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"{file}: broken: {error}: delete it to continue without comparing the data") from error
    fingerprints: list[dict[str, Any]] = content
    return fingerprints
