"""Processes started by torchrun: together they compute what one process with the whole batch computes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from centerdet.data.shapes import write_shapes
from centerdet.runtimes.weights import read_tensors

RUN = """
import sys, json
from pathlib import Path
sys.path.insert(0, {tests!r})
from tiny import tiny_config
from centerdet.training.loop import train
from centerdet.errors import CenterdetError
changes = json.loads(sys.argv[3])
resume = changes.pop("resume", False)
try:
    config = tiny_config(Path(sys.argv[1]), Path(sys.argv[2]), **changes)
    train(config, resume=resume, progress=lambda now: print(now.step, flush=True))
except CenterdetError as error:
    sys.exit(f"error: {{error}}")
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("distributed") / "shapes"
    write_shapes(root, train=16, val=5, size=64)
    return root


def _start(data: Path, out: Path, processes: int, changes: str) -> subprocess.Popen[str]:
    script = out.parent / "run.py"
    script.write_text(RUN.format(tests=str(Path(__file__).parent)))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(torchrun if processes > 1 else []), str(script), str(data), str(out), changes]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def _train(data: Path, out: Path, processes: int, changes: str) -> str:
    process = _start(data, out, processes, changes)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


def _tensors(out: Path, file: str) -> dict[str, Tensor]:
    return read_tensors(out / file)[0]


# SGD: Adam divides by the gradient, so that rounding alone moves weights whose gradient is next to nothing. At a rate
# of 1e-4, differences of rounding grow 400-fold from step 4 to step 16.
COMMON = '"val": ["val"], "val_every": 1, "checkpoint_every": 1, "optimizer": "sgd", "lr": 1e-5, "backbone_lr": 1e-5'


def _check_same(data: Path, folder: Path, steps: int, relative: float, absolute: float) -> None:
    run = f'"epochs": {steps / 2}, {COMMON}'
    _train(data, folder / "one", 1, f'{{"batch": 8, {run}}}')
    output = _train(data, folder / "two", 2, f'{{"batch": 4, {run}}}')
    assert output.split().count(str(steps)) == 1  # the first process alone reports
    one, two = (_tensors(folder / name, f"checkpoint-{steps:08d}.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        if steps == 1 or not name.startswith("optimizer."):
            np.testing.assert_allclose(two[name], one[name], rtol=relative, atol=absolute, err_msg=name)
    logs = [(folder / name / "log.csv").read_text().splitlines() for name in ("one", "two")]
    assert len(logs[0]) == len(logs[1])
    for first, second in zip(logs[0][1:], logs[1][1:], strict=True):
        numbers = [[float(cell or 0) for cell in line.split(",")] for line in (first, second)]
        np.testing.assert_allclose(numbers[1], numbers[0], rtol=1e-2, atol=5e-3)


@pytest.mark.soak
def test_two_processes_are_one_with_the_whole_batch(data: Path, tmp_path: Path) -> None:
    _check_same(data, tmp_path, 1, 1e-3, 1e-4)
    # The run continues with another number of processes, but not with another whole batch.
    _train(data, tmp_path / "two", 1, f'{{"resume": true, "batch": 8, "epochs": 0.5, {COMMON}}}')
    process = _start(data, tmp_path / "two", 1, f'{{"resume": true, "batch": 4, "epochs": 0.5, {COMMON}}}')
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 1 and "error: batch: " in output and "was trained with 8, now 4" in output


@pytest.mark.soak
def test_two_processes_stay_one_over_50_steps(data: Path, tmp_path: Path) -> None:
    _check_same(data, tmp_path, 50, 5e-3, 1e-3)


@pytest.mark.soak
def test_a_killed_process_ends_the_others_and_the_run_continues(data: Path, tmp_path: Path) -> None:
    changes = '"batch": 2, "epochs": 40, "checkpoint_every": 5'
    process = _start(data, tmp_path / "run", 2, f"{{{changes}}}")
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "20":
            break
    workers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(workers[-1]), signal.SIGKILL)
    start = time.monotonic()
    process.communicate(timeout=120)
    assert process.returncode != 0 and time.monotonic() - start < 60
    _train(data, tmp_path / "run", 2, f'{{"resume": true, {changes}}}')
    _train(data, tmp_path / "whole", 2, f"{{{changes}}}")
    whole = _tensors(tmp_path / "whole", "final.safetensors")
    for name, tensor in _tensors(tmp_path / "run", "final.safetensors").items():
        np.testing.assert_allclose(tensor.float(), whole[name].float(), rtol=2e-2, atol=5e-3, err_msg=name)
