"""A training state comes back as it was, and Ctrl-C waits for one. Whole runs are in test_training.py."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_config
from torch import Tensor, nn

from centerdet.errors import ConfigError
from centerdet.training.checkpoints import Interrupt, find_states, load_state, save_state
from centerdet.training.config import TrainConfig


def _network(seed: int) -> tuple[nn.Module, nn.Module, torch.optim.Optimizer]:
    """A trained layer, its double, and an optimizer that has moments."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network, averaged = nn.Linear(3, 2), nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    network(torch.ones(3)).sum().backward()
    optimizer.step()
    return network, averaged, optimizer


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [tensor for key in sorted(value) for tensor in _tensors(value[key])] if isinstance(value, dict) else []


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return tiny_config(tmp_path, tmp_path)


def test_a_state_comes_back_bit_for_bit(config: TrainConfig) -> None:
    for step in (1, 2, 3):
        save_state(config, *_network(step), step, step / 10, step + 5)
    assert [path.name for path in find_states(config.out)] == [
        "state-00000002.safetensors",
        "state-00000003.safetensors",
    ]
    other, notices = _network(9), list[str]()
    assert load_state(config, *other, notices.append) == (3, 0.3, 8)
    assert notices == []
    for mine, theirs in zip(other, _network(3), strict=True):
        pairs = zip(_tensors(mine.state_dict()), _tensors(theirs.state_dict()), strict=True)
        assert all(torch.equal(*pair) for pair in pairs)


def test_a_damaged_state_is_told_of_and_one_before_it_taken(config: TrainConfig) -> None:
    for step in (1, 2):
        save_state(config, *_network(step), step, 0.0, 0)
    newest = find_states(config.out)[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    notices: list[str] = []
    assert load_state(config, *_network(9), notices.append)[0] == 1
    assert len(notices) == 1 and notices[0].startswith("resumed at step 1: ") and str(newest) in notices[0]
    assert Path(config.out, "resumed.txt").read_text() == notices[0] + "\n"
    find_states(config.out)[0].write_bytes(b"")
    with pytest.raises(ConfigError, match=r"no whole training state in .*state-00000002.*state-00000001"):
        load_state(config, *_network(9), notices.append)


def test_ctrl_c_is_noted_once_and_raises_the_second_time() -> None:
    notices: list[str] = []
    with Interrupt(notices.append) as interrupt:
        interrupt.tell()
        assert not interrupt.pressed and notices == []
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.pressed
        interrupt.tell()
        interrupt.tell()
        assert len(notices) == 1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_another_and_other_threads_are_left_alone() -> None:
    def enter() -> None:
        with Interrupt(print):
            seen.append(signal.getsignal(signal.SIGINT))

    seen: list[Any] = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a shell's background job
    try:
        enter()
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_IGN, signal.default_int_handler]
