"""Training states: all that the next step depends on, so that a run goes on exactly as if it had not stopped.

Law: what is written at step k and read again gives the same step k + 1, bit for bit; a state is there whole or not at
all, and a damaged one is passed over with a message.
"""

import signal
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, nn

from ..errors import ConfigError, WeightsError
from ..runtimes.weights import read_tensors, write_tensors
from .config import TrainConfig

__all__ = ["Interrupt", "find_states", "load_state", "save_state"]

KEPT = 2  # the newest, and one before it should the newest be damaged


def find_states(out: str | Path) -> list[Path]:
    """The states in a run's folder, the newest last."""
    return sorted(Path(out).glob("state-*.safetensors"))


def save_state(
    config: TrainConfig,
    network: nn.Module,
    averaged: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    best: float,
    waited: int,
) -> None:
    """Write all that the step after `step` depends on to the run's folder, then forget older states.

    best: the best validation so far, -1 before any. waited: validations since.
    """
    tensors: dict[str, Tensor] = {f"network.{key}": value for key, value in network.state_dict().items()}
    tensors |= {f"averaged.{key}": value for key, value in averaged.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in values.items() if isinstance(value, Tensor)}
    fields = {"step": step, "best": best, "waited": waited, "config": asdict(config)}
    write_tensors(Path(config.out, f"state-{step:08d}.safetensors"), tensors, fields)
    for old in find_states(config.out)[:-KEPT]:
        old.unlink()


def load_state(
    config: TrainConfig,
    network: nn.Module,
    averaged: nn.Module,
    optimizer: torch.optim.Optimizer,
    notice: Callable[[str], object],
) -> tuple[int, float, int]:
    """Load the newest whole state of the run's folder: its step, best and waited, see `save_state`.

    A damaged one that is passed over is told of through `notice` and in resumed.txt.
    """
    out = Path(config.out)
    problems: list[str] = []
    for path in reversed(find_states(out)):
        try:
            tensors, held = read_tensors(path)
            break
        except WeightsError as error:
            problems.append(str(error))
    else:
        raise ConfigError("; ".join([f"resume: no whole training state in {out}", *problems]))
    for name, before, now in config.changed_from(held["config"]):
        raise ConfigError(f"{name}: {path} was trained with {before}, now {now}: resume with the same options")

    parts: dict[str, dict[str, Tensor]] = {"network": {}, "averaged": {}, "optimizer": {}}
    for key, value in tensors.items():
        part, name = key.split(".", 1)
        parts[part][name] = value
    network.load_state_dict(parts["network"])
    averaged.load_state_dict(parts["averaged"])
    state = optimizer.state_dict()
    state["state"] = {}
    for key, value in parts["optimizer"].items():
        index, name = key.split(".", 1)
        state["state"].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(state)

    for problem in problems:
        text = f"resumed at step {held['step']}: {problem}"
        notice(text)
        with (out / "resumed.txt").open("a") as file:
            file.write(text + "\n")
    for unfinished in out.glob(".*.part"):  # what was being written when the run was killed
        unfinished.unlink()
    return held["step"], held["best"], held["waited"]


class Interrupt:
    """While it is entered, the first Ctrl-C is noted in `pressed`, for the step to be ended; a second stops at once.

    Only where Ctrl-C would raise KeyboardInterrupt here: in the main thread, with Python's own handler.
    """

    def __init__(self, notice: Callable[[str], object]) -> None:
        self.pressed, self._notice, self._told, self._held = False, notice, False, False

    def __enter__(self) -> "Interrupt":
        main = threading.current_thread() is threading.main_thread()
        self._held = main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._held:
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._held:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def tell(self, *_: object) -> None:
        """Say, once, that a long validation comes to its end first."""
        if self.pressed and not self._told:
            self._told = True
            self._notice("Ctrl-C: the validation is finished first, then the state is saved; once more stops at once")

    def _note(self, _signal: int, _frame: FrameType | None) -> None:
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True
