"""A checkpoint comes back as it was, and Ctrl-C waits for one. Whole runs are in test_training.py."""

import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_config
from torch import Tensor, nn

from centerdet.data.formats import read_dataset
from centerdet.data.sample import Dataset
from centerdet.data.shapes import write_shapes
from centerdet.errors import ConfigError
from centerdet.training.checkpoints import RunState, check_data, list_checkpoints, load_checkpoint, save_checkpoint
from centerdet.training.config import TrainConfig
from centerdet.training.interrupt import Interrupt


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


def test_a_checkpoint_comes_back_bit_for_bit(config: TrainConfig) -> None:
    for step in (1, 2, 3):
        save_checkpoint(config, *_network(step), RunState(step, step / 10, step + 5))
    assert [path.name for path in list_checkpoints(config.out)] == [
        "checkpoint-00000002.safetensors",
        "checkpoint-00000003.safetensors",
    ]
    other, notices = _network(9), list[str]()
    assert load_checkpoint(config, *other, 1, notices.append) == RunState(3, 0.3, 8)
    assert notices == []
    for mine, theirs in zip(other, _network(3), strict=True):
        pairs = zip(_tensors(mine.state_dict()), _tensors(theirs.state_dict()), strict=True)
        assert all(torch.equal(*pair) for pair in pairs)


def test_a_damaged_checkpoint_is_set_aside_and_two_good_ones_are_kept(config: TrainConfig) -> None:
    for step in (1, 2):
        save_checkpoint(config, *_network(step), RunState(step))
    newest = list_checkpoints(config.out)[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    notices: list[str] = []
    assert load_checkpoint(config, *_network(9), 1, notices.append).step == 1
    assert len(notices) == 1 and notices[0].startswith("resumed at step 1: ") and str(newest) in notices[0]
    assert Path(config.out, "resumed.txt").read_text() == notices[0] + "\n"
    assert newest.with_suffix(".damaged").is_file() and not newest.exists()
    for step in (2, 3):
        save_checkpoint(config, *_network(step), RunState(step))
    for path in list_checkpoints(config.out):  # both are good: any of them may be lost
        content = path.read_bytes()
        path.unlink()
        assert load_checkpoint(config, *_network(9), 1, notices.append).step in (2, 3)
        path.write_bytes(content)
    assert len(list_checkpoints(config.out)) == 2
    for path in list_checkpoints(config.out):
        path.write_bytes(b"")
    with pytest.raises(ConfigError, match=r"no complete checkpoint in .*checkpoint-00000003.*checkpoint-00000002"):
        load_checkpoint(config, *_network(9), 1, notices.append)


def test_a_run_continues_with_the_same_data_wherever_it_lies(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write_shapes(tmp_path / "a", train=4, val=1, size=32)
    check_data(out, [read_dataset(tmp_path / "a", ("train",))])
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    moved = read_dataset(tmp_path / "b", ("train",))
    check_data(out, [moved])
    first = moved.samples[0]
    changes = {
        "1 image removed": moved.samples[1:],
        "1 image changed": [replace(first, boxes=first.boxes + np.array([1.0, 0, 0, 0])), *moved.samples[1:]],
        "1 image added": [*moved.samples, *read_dataset(tmp_path / "b", ("val",), notice=lambda _: None).samples],
    }
    for what, samples in changes.items():
        changed = Dataset(samples, moved.names)
        with pytest.raises(ConfigError, match=rf"data: changed since .*{what} .*--accept-changes"):
            check_data(out, [changed])
        check_data(out, [changed], accept_changes=True)
        check_data(out, [changed])
        check_data(out, [moved], accept_changes=True)
    with pytest.raises(ConfigError, match="trained on 1 datasets, got 2"):
        check_data(out, [moved, moved])


CTRL_C = """
import signal
from centerdet.training.interrupt import Interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)
notices = []
with Interrupt(notices.append) as interrupt:
    interrupt.announce()
    print(interrupt.pressed, len(notices))
    signal.raise_signal(signal.SIGINT)
    interrupt.announce()
    interrupt.announce()
    print(interrupt.pressed, len(notices))
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        print("raised")
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


def test_ctrl_c_is_noted_once_and_raises_the_second_time() -> None:
    done = subprocess.run([sys.executable, "-c", CTRL_C], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["False 0", "True 1", "raised", "True"], done.stderr


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
