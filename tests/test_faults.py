"""Faults on purpose: killed processes, full disks, two processes in one folder, clocks that jump.

After each, what has its final name is complete, the exit code is not 0, and the same command run again ends as if
nothing had happened. Commands run in forks of this process, which saves their start.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_training import _check_same
from tiny import tiny_config, tiny_detector

import centerdet.cli
from centerdet.data.formats import read_dataset
from centerdet.data.sample import Dataset, Sample
from centerdet.data.shapes import SHAPE_NAMES, write_shapes
from centerdet.data.voc import write_voc
from centerdet.errors import CenterdetError, WriteError
from centerdet.files import lock_folder, new_folder
from centerdet.training.checkpoints import RunState, load_checkpoint, save_checkpoint
from centerdet.training.loop import train

psutil = pytest.importorskip("psutil")
resource = pytest.importorskip("resource")
soak = pytest.mark.soak
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")


# --- fast ---------------------------------------------------------------------------------------------------------

LOCK = """
import sys, time
from centerdet.files import lock_folder
with lock_folder(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, which has locked the folder `locked`."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", LOCK, tmp_path / "locked"], text=True, **pipes) as process:
        assert process.stdout is not None and process.stdout.readline() == "locked\n"
        yield process
        process.kill()


@pytest.mark.parametrize("end", ["ended", "killed"])
def test_a_folder_is_locked_until_its_process_ends(other: subprocess.Popen[str], tmp_path: Path, end: str) -> None:
    folder = tmp_path / "locked"
    with pytest.raises(WriteError, match="locked: another process is writing into this folder"), lock_folder(folder):
        pass
    with pytest.raises(WriteError, match="another process"):
        train(tiny_config(tmp_path, folder))
    assert os.listdir(folder) == [".lock"]
    other.kill() if end == "killed" else other.communicate("")
    other.wait()
    with lock_folder(folder):
        (folder / "new").write_text("")
    assert os.listdir(folder) == ["new"]


def test_a_forked_process_does_not_keep_the_lock(tmp_path: Path) -> None:
    """Such as a worker that prepares images and outlives a killed training for some seconds."""
    with lock_folder(tmp_path):
        if not (child := os.fork()):
            time.sleep(60)
            os._exit(0)
    try:
        with lock_folder(tmp_path):
            assert psutil.pid_exists(child)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_failed_run_leaves_no_new_folder(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for name in ("old", "new", "deep/new"):
        with pytest.raises(CenterdetError):
            train(tiny_config(tmp_path / "nowhere", tmp_path / name))
    assert sorted(os.listdir(tmp_path)) == ["deep", "old"]


def test_of_two_folders_of_one_name_the_first_stays(tmp_path: Path) -> None:
    first = tmp_path / "out" / "first"
    with pytest.raises(WriteError, match="out: cannot be written"), new_folder(tmp_path / "out"):
        write_shapes(first, train=1, val=1, size=32)
    assert os.listdir(tmp_path) == ["out"] and os.listdir(tmp_path / "out") == ["first"]


def test_the_newest_checkpoint_is_the_last_step_whatever_the_clock_was(tmp_path: Path) -> None:
    import torch

    network = torch.nn.Linear(2, 2)
    parts = (network, torch.nn.Linear(2, 2), torch.optim.SGD(network.parameters()))
    config = tiny_config(tmp_path, tmp_path)
    for step in (1, 2):
        save_checkpoint(config, *parts, RunState(step))
        os.utime(tmp_path / f"checkpoint-{step:08d}.safetensors", (2e9 - step, 2e9 - step))
    assert load_checkpoint(config, *parts, 1, print).step == 2


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads and writes everything")
def test_files_without_permission_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "readonly"
    folder.mkdir(0o500)
    with pytest.raises(WriteError, match="readonly: cannot be written: Permission denied"), lock_folder(folder):
        pass
    path = tmp_path / "image.jpg"
    path.write_bytes(b"")
    path.chmod(0)
    with pytest.raises(CenterdetError, match=r"image\.jpg: cannot be read"):
        tiny_detector().predict(path)


# --- slow ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("faults") / "data"
    write_shapes(root, train=12, val=12, size=64, seed=4)
    detector = tiny_detector(SHAPE_NAMES)
    detector.save(root.parent / "tiny.safetensors")
    samples = []  # for calibration, which needs objects that are detected: what the random weights detect
    for sample in read_dataset(root, ["val"], notice=lambda _: None).samples:
        one = detector.predict(sample.path, score_threshold=0.0)[:20]
        boxes = one.boxes.clip(0, 48).astype(float)
        wide = (boxes[:, 2:] - boxes[:, :2] > 4).all(1)
        samples.append(Sample(sample.path, boxes[wide], one.labels[wide]))
    write_voc(Dataset(samples, SHAPE_NAMES), root.parent / "detected", "val")
    return root


def start(words: list[object], largest: int | None = None, log: str | Path = os.devnull) -> int:
    """The process of a command; largest: bytes that it may write to a file, as on a full disk."""
    if words[0] == "train":  # PyTorch does not train in a fork of a process that has trained
        command = [sys.executable, "-m", "centerdet", *map(str, words)]
        output = (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        return os.posix_spawn(command[0], command, os.environ, file_actions=[output, (os.POSIX_SPAWN_DUP2, 1, 2)])
    if child := os.fork():
        return child
    code: object = 70
    try:
        sys.stdout = sys.stderr = open(log, "w", buffering=1)  # noqa: SIM115
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
        sys.argv = ["centerdet", *map(str, words)]
        centerdet.cli.main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        os._exit(code if isinstance(code, int) else 1)


def wait(child: int) -> int:
    """The exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def read_tree(out: Path) -> dict[str, bytes]:
    """The files below a folder that have their final names."""
    paths = [path.relative_to(out) for path in sorted(out.rglob("*")) if path.is_file()]
    return {
        path.as_posix(): (out / path).read_bytes().replace(bytes(out), b"OUT")
        for path in paths
        if not any(part.startswith(".") for part in path.parts)
    }


def commands(data: Path) -> dict[str, list[object]]:
    """Commands that write into the folder OUT, by name."""
    weights, images = data.parent / "tiny.safetensors", data / "JPEGImages"
    files = ["--json", "OUT/result.json", "--csv", "OUT/result.csv", "--save-detections", "OUT/detections"]
    predict = ["predict", weights, images, "--out", "OUT/images", "--score-threshold", "0.3", "--labels", "coco"]
    return {
        "evaluate": ["evaluate", weights, "--data", data, "--split", "val", "--details", *files],
        "predict": [*predict, "--max-detections", 3, "--json", "OUT/rows.jsonl", "--csv", "OUT/rows.csv"],
        "calibrate": [
            "calibrate",
            weights,
            "--data",
            data.parent / "detected",
            "--split",
            "val",
            "--out",
            "OUT/calibrated.safetensors",
        ],
        "export": ["export", weights, "--out", "OUT/tiny.onnx"],
        "convert": ["convert", data, "OUT/new", "--to", "yolo", "--split", "train=train", "--split", "val=val"],
        "split": ["split", data, "OUT/new", "--source", "train", "--part", "a=0.5", "--part", "b=0.5"],
        "pack": ["pack", data, "--size", 48, "--out", "OUT/new"],
    }


def training(data: Path) -> list[object]:
    words = ["train", "--data", data, "--backbone-weights", "none", "--channels", 16, "--epochs", 4, "--batch", 2]
    return [*words, "--sizes", 64, "--val", "", "--checkpoint-every", 2, "--device", "cpu", "--quiet"]


def place(words: list[object], out: Path) -> list[object]:
    return [str(word).replace("OUT", str(out)) for word in words]


COMMANDS = ("evaluate", "predict", "calibrate", "export", "convert", "split", "pack")


@soak
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_killed_or_on_a_full_disk_leaves_complete_files(name: str, data: Path, tmp_path: Path) -> None:
    words = commands(data)[name]
    whole = tmp_path / "whole"
    whole.mkdir()
    began = time.monotonic()
    assert wait(start(place(words, whole))) == 0
    seconds, expected = time.monotonic() - began, read_tree(whole)
    assert expected
    draw = random.Random(name)
    slow = name == "export"
    moments = [draw.random() * seconds for _ in range(1 if slow else 8)]
    limits = [*(() if slow else (0, 100, 1500)), max(map(len, expected.values())) - 1]
    for number, fault in enumerate((*moments, *limits)):
        out = tmp_path / f"{number}"
        out.mkdir()
        child = start(place(words, out), fault if isinstance(fault, int) else None)
        if isinstance(fault, float):
            time.sleep(fault)
            os.kill(child, signal.SIGKILL)
        code, left = wait(child), read_tree(out)
        assert code in (0, 1 if isinstance(fault, int) else -signal.SIGKILL)
        assert left.items() <= expected.items() and (code or left == expected), (name, fault, code, [*left])
        if name in ("convert", "split"):
            assert left in ({}, expected)
        again = [*place(words, out), *(["--resume"] if name == "predict" else [])]
        if code and (name not in ("convert", "split", "pack") or left != expected):
            assert wait(start(again)) == 0
        assert read_tree(out) == expected, (name, fault)


@soak
@pytest.mark.parametrize("name", ["evaluate", "predict", "calibrate", "convert", "split", "pack"])
def test_of_two_processes_in_one_folder_one_refuses_or_both_complete(name: str, data: Path, tmp_path: Path) -> None:
    words, out = commands(data)[name], tmp_path / "both"
    (tmp_path / "whole").mkdir()
    assert wait(start(place(words, tmp_path / "whole"))) == 0
    out.mkdir()
    children = [start(place(words, out)) for _ in range(3)]
    codes = [wait(child) for child in children]
    assert 0 in codes and set(codes) <= {0, 1}
    assert read_tree(out) == read_tree(tmp_path / "whole")


@soak
def test_of_two_trainings_in_one_folder_one_refuses(data: Path, tmp_path: Path) -> None:
    words = [*training(data), "--out"]
    assert wait(start([*words, tmp_path / "alone"])) == 0
    children = [start([*words, tmp_path / "both"]) for _ in range(3)]
    assert sorted(wait(child) for child in children) == [0, 1, 1]
    _check_same(tmp_path / "alone", tmp_path / "both")
    assert read_tree(tmp_path / "alone").keys() == read_tree(tmp_path / "both").keys()


@soak
def test_a_killed_worker_is_named_and_the_run_continues(data: Path, tmp_path: Path) -> None:
    words = [*training(data), "--workers", 1, "--out"]
    assert wait(start([*words, tmp_path / "whole"])) == 0
    out, log = tmp_path / "killed", tmp_path / "log"
    child = start([*words, out], log=log)
    while not (list(out.glob("checkpoint-*")) and (workers := psutil.Process(child).children())):
        time.sleep(0.02)
    workers[0].kill()
    assert wait(child) == 1
    expected = "error: a process that prepares images died, perhaps for lack of memory: lower workers ("
    assert log.read_text().startswith(expected)
    assert wait(start([*words, out, "--resume"])) == 0
    _check_same(tmp_path / "whole", out)


@soak
def test_a_clock_that_stands_or_runs_backwards_changes_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tiny_config(data, tmp_path / "whole"))
    for number, step in enumerate((0.0, -1.0)):
        now = [1e9]

        def tick(step: float = step, now: list[float] = now) -> float:
            now[0] += step
            return now[0]

        with monkeypatch.context() as patch:
            patch.setattr(time, "perf_counter", tick)
            patch.setattr(time, "time", tick)
            train(tiny_config(data, tmp_path / f"{number}"))
        _check_same(tmp_path / "whole", tmp_path / f"{number}")


@soak
def test_a_full_disk_of_memory_is_an_error_with_the_file(data: Path) -> None:
    """A real file system that is full: 100 KiB of tmpfs, where this process may mount one."""
    script = (
        f"mount -t tmpfs -o size=100k tmpfs /mnt && cd /mnt && exec {sys.executable} -m centerdet split {data} new "
    )
    words = ["unshare", "--mount", "--map-root-user", "sh", "-c", script + "--source train --part a=0.5 --part b=0.5"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    if "error:" not in done.stderr:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr:.100}")
    assert done.returncode == 1 and "No space left on device" in done.stderr
