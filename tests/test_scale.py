"""Prediction and evaluation with Ray: equal to the plain loop, and exactly one row per image whatever is killed.

A named pipe among the images stops a process at a known image, without a clock: who opens it for writing knows that
somebody reads.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from exporting import exported
from PIL import Image
from tiny import NAMES

from centerdet import Detector
from centerdet.data.sample import Dataset, Sample
from centerdet.data.shapes import draw_scene
from centerdet.detections import Detections
from centerdet.errors import CenterdetError, ConfigError, DataError
from centerdet.evaluation.evaluation import evaluate_detections
from centerdet.scale import Progress, evaluate_shards, predict_dataset

dataset = pytest.importorskip("pyarrow.dataset")
pytestmark = [
    pytest.mark.soak,
    # It is not imported here: an earlier import than that of `predict_dataset` would open ports to other machines.
    pytest.mark.skipif(find_spec("ray") is None, reason="no ray"),
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes"),
    pytest.mark.filterwarnings("default"),  # Ray's own
]

SCRIPT = Path(__file__).parents[1] / "scripts" / "predict_ray.py"
OPTIONS: dict[str, Any] = {"actors": 2, "shard_size": 4, "score_threshold": 0.0}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """20 images, of which two have no objects and one has a difficult one: what the random weights detect, shifted."""
    folder, samples, detector = tmp_path_factory.mktemp("images"), [], Detector.load(exported(), device="cpu")
    for number in range(20):
        path = folder / f"{number:02d}.png"
        Image.fromarray(draw_scene(np.random.default_rng(number), 64).image).save(path)
        one = detector.predict(path, score_threshold=0)[: 0 if number in (3, 17) else 30 : 7]
        boxes = one.boxes.astype(float) + np.array([0, 0, 3, 2])
        samples.append(Sample(path, boxes, one.labels, np.arange(len(one)) == (0 if number == 5 else -1)))
    return Dataset(samples, NAMES)


@pytest.fixture(scope="module")
def paths(images: Dataset) -> list[str]:
    """The images, a broken one among them, and one that does not exist."""
    listed = [str(sample.path) for sample in images.samples]
    broken = Path(listed[0]).with_name("broken.jpg")
    broken.write_bytes(b"\xff\xd8\xff\xe0")
    return [*listed[:6], str(broken), *listed[6:], str(broken.with_name("missing.jpg"))]


@pytest.fixture(scope="module")
def expected(paths: list[str]) -> list[dict[str, Any]]:
    """The rows of the plain loop."""
    detector, rows = Detector.load(exported(), device="cpu", threads=1), []
    columns = ("path", "height", "width", "error", "boxes", "scores", "labels", "names")
    for path in paths:
        row: dict[str, Any] = dict.fromkeys(columns) | {"path": path}
        try:
            one = detector.predict(path, score_threshold=0)
            row |= {"height": one.size[0], "width": one.size[1], "names": one.label_names}
            row |= {name: getattr(one, name).tolist() for name in ("boxes", "scores", "labels")}
        except CenterdetError as error:
            row["error"] = str(error)
        rows.append(row)
    assert len(rows[0]["scores"]) > 10 and [row["path"] for row in rows if row["error"]] == [paths[6], paths[-1]]
    return rows


@pytest.fixture(scope="module")
def predicted(paths: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two actors' shards, which nothing disturbed."""
    out = tmp_path_factory.mktemp("predicted") / "out"
    steps: list[Progress] = []
    done = predict_dataset(paths, exported(), out, **OPTIONS, progress=steps.append)
    assert done == steps[-1] == Progress(images=22, errors=2, shards=6, total=6) and len(steps) == 6
    return out


def read(out: Path) -> list[dict[str, Any]]:
    """The rows as any reader of Parquet folders finds them, in the order of the list."""
    files = sorted(out.glob("shard-*.parquet"))
    assert [one.name for one in files] == [f"shard-{number:08d}.parquet" for number in range(6)]
    assert sorted(dataset.dataset(out).files) == [str(one) for one in files]
    rows: list[dict[str, Any]] = dataset.dataset([str(one) for one in files]).to_table().to_pylist()
    return rows


def test_two_actors_give_the_rows_of_the_plain_loop(predicted: Path, expected: list[dict[str, Any]]) -> None:
    assert read(predicted) == expected


def test_a_complete_run_starts_nothing_and_refuses_other_options(
    predicted: Path, paths: list[str], tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in predicted.glob("shard-*")}
    assert predict_dataset(paths, exported(), predicted, **OPTIONS) == Progress(0, 0, 6, 6)
    tiny = exported().with_suffix(".safetensors")
    others: list[tuple[str, Any, Any, dict[str, Any]]] = [
        ("images", paths[:-1], exported(), {}),
        ("list_sha256", [*paths[:-1], "other.jpg"], exported(), {}),
        ("weights_sha256", paths, tiny, {}),
        ("score_threshold", paths, exported(), {"score_threshold": 0.1}),
        ("tile", paths, exported(), {"tile": 64}),
        ("shard_size", paths, exported(), {"shard_size": 5}),
    ]
    for name, listed, weights, options in others:
        with pytest.raises(ConfigError, match=f"out: {name} was .* when the run was started, and is .* now"):
            predict_dataset(listed, weights, predicted, **{**OPTIONS, **options})
    for wrong in ({"actors": 0}, {"shard_size": 0}, {"score_threshold": 2}, {"tile": -1}):
        with pytest.raises(ConfigError):
            predict_dataset(paths, exported(), tmp_path / "new", **{**OPTIONS, **wrong})
    assert {path: path.stat().st_mtime_ns for path in predicted.glob("shard-*")} == before
    assert not (tmp_path / "new").exists()


def test_evaluation_of_shards_is_the_plain_one(
    predicted: Path, images: Dataset, expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Bit for bit, whatever the order of the dataset; images that are missing or broken are named."""
    rows = {row["path"]: row for row in expected}
    shuffled = Dataset([images.samples[number] for number in np.random.default_rng(0).permutation(20)], NAMES)
    detections = [
        Detections(row["boxes"], row["scores"], row["labels"], NAMES, (row["height"], row["width"]))
        for row in (rows[str(sample.path)] for sample in shuffled.samples)
    ]
    plain, merged = evaluate_detections(detections, shuffled), evaluate_shards(predicted, shuffled)
    assert 0 < plain.voc.mean_ap < 1
    assert merged.compute().to_dict() == plain.voc.to_dict()
    assert merged.compute_coco().to_dict() == plain.coco().to_dict()
    with pytest.raises(DataError, match="names: the shards have"):
        evaluate_shards(predicted, Dataset(images.samples, (*NAMES[:2], "other")))
    shutil.copytree(predicted, tmp_path / "part")
    (tmp_path / "part" / "shard-00000002.parquet").unlink()
    with pytest.raises(DataError, match="1 of 6 shards are missing: run the prediction again"):
        evaluate_shards(tmp_path / "part", images)


def test_ray_that_runs_already_is_used_and_continues(predicted: Path, images: Dataset, paths: list[str]) -> None:
    """Here to evaluate datasets that the shards do not cover."""
    import ray

    assert not ray.is_initialized()
    ray.init("local", num_cpus=1, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False)
    try:
        more = Dataset([*images.samples, Sample(Path("more.png"))], NAMES)
        with pytest.raises(DataError, match=r"1 of the dataset's 21 images are missing: more\.png"):
            evaluate_shards(predicted, more)
        with pytest.raises(DataError, match="dataset: 1 image listed twice"):
            evaluate_shards(predicted, Dataset([*images.samples, images.samples[0]], NAMES))
        broken = Dataset([*images.samples, Sample(Path(paths[-1]))], NAMES)
        with pytest.raises(DataError, match=r"missing\.jpg: no such image"):
            evaluate_shards(predicted, broken)
        assert ray.is_initialized()
    finally:
        ray.shutdown()


def start(paths: list[str], out: Path, actors: int = 2) -> "subprocess.Popen[str]":
    """The script in a process of its own."""
    (out.parent / "list.txt").write_text("".join(f"{path}\n" for path in paths))
    words = [exported(), out.parent / "list.txt", out, "--actors", actors, "--shard-size", 4, "--score-threshold", 0]
    command = [sys.executable, str(SCRIPT), *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@contextmanager
def caught(pipe: str, script: "subprocess.Popen[str]") -> Iterator[psutil.Process]:
    """The actor of a script that reads a pipe; it waits while the block runs, and should not survive it."""
    number = None
    while number is None:
        if script.poll() is not None:
            pytest.fail(script.communicate()[0])
        time.sleep(0.1)
        with suppress(OSError):  # nobody reads yet
            number = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    try:
        actors = []
        while not actors:
            for one in psutil.Process(script.pid).children(recursive=True):
                with suppress(OSError):
                    if pipe in [os.readlink(link) for link in Path(f"/proc/{one.pid}/fd").iterdir()]:
                        actors.append(one)
        yield actors[0]
    finally:
        os.close(number)


def test_a_killed_actor_and_a_killed_driver_lose_and_repeat_nothing(
    paths: list[str], expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    out, pipes = tmp_path / "out", {number: str(tmp_path / f"{number}.png") for number in (9, 14)}
    listed = [pipes.get(number, path) for number, path in enumerate(paths)]
    for pipe in pipes.values():
        os.mkfifo(pipe)

    def replace(number: int) -> None:
        shutil.copy(paths[number], tmp_path / "copy")
        os.replace(tmp_path / "copy", pipes[number])  # whoever has opened the pipe still reads it

    with start(listed, out) as script:
        with caught(pipes[9], script) as actor:
            replace(9)
            actor.kill()
            actor.wait()
        with caught(pipes[14], script) as actor:
            replace(14)
            script.kill()
            actor.wait(timeout=60)
    complete = {path: path.stat().st_mtime_ns for path in out.glob("shard-*")}
    assert out / "shard-00000003.parquet" not in complete
    rows = sum(dataset.dataset(path).count_rows() for path in complete)
    with start(listed, out) as script:
        output = script.communicate()[0]
    assert script.returncode == 0, output
    assert f"{22 - rows} images now" in output
    assert {path: path.stat().st_mtime_ns for path in complete} == complete
    assert [row["path"] for row in read(out)] == listed
    assert [row | {"path": path} for row, path in zip(read(out), paths, strict=True)] == expected


def test_images_that_kill_every_process_become_errors(
    paths: list[str], expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    """With the images of their shard, which can be predicted anew, each in a shard of its own."""
    pipe = str(tmp_path / "deadly.png")
    os.mkfifo(pipe)
    with start([*paths[:5], pipe], tmp_path / "out", actors=1) as script:
        for _ in range(3):
            with caught(pipe, script) as actor:
                actor.kill()
                actor.wait()
        output = script.communicate()[0]
    assert script.returncode == 0 and "6 images now, 2 of them errors" in output
    rows = dataset.dataset(tmp_path / "out").to_table().to_pylist()
    assert rows[:4] == expected[:4] and [row["path"] for row in rows[4:]] == [paths[4], pipe]
    for row in rows[4:]:
        assert row["error"] == "not predicted: 3 processes were killed while they predicted its shard"
    assert [path.name for path in (tmp_path / "out").iterdir() if "tries" in path.name] == []


def test_ray_listens_on_this_machine_only_and_ends_with_the_run(paths: list[str], tmp_path: Path) -> None:
    addresses: set[str] = set()
    me = psutil.Process()

    def look(_: Progress) -> None:
        for process in (me, *me.children(recursive=True)):
            with suppress(psutil.NoSuchProcess, FileNotFoundError):  # it has ended
                for one in process.net_connections("inet"):
                    addresses.update(end.ip.removeprefix("::ffff:") for end in (one.laddr, one.raddr) if end)

    predict_dataset(paths[:8], exported(), tmp_path / "out", **OPTIONS, progress=look)
    assert addresses == {"127.0.0.1"}
    _, alive = psutil.wait_procs(me.children(recursive=True), timeout=60)
    assert alive == []


def test_the_benchmark_compares_loop_and_actors(images: Dataset, tmp_path: Path) -> None:
    for sample in images.samples[:3]:
        shutil.copy(sample.path, tmp_path)
    script = Path(__file__).parents[1] / "scripts" / "benchmark_ray.py"
    command = [sys.executable, script, exported(), tmp_path, "--actors", "1", "--shards", "3", "--shard-size", "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "plain loop" in done.stdout and "1 actors" in done.stdout
