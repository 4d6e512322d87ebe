"""The shell's commands on real files: what they print, write and exit with."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from centerdet.cli import app
from centerdet.data.shapes import SHAPE_NAMES, write_shapes
from centerdet.detector import Detector

runner = CliRunner()
TINY = ["--sizes", "64", "--channels", "16", "--backbone-weights", "none", "--val", "val"]
TINY += ["--epochs", "1", "--batch", "4", "--validate", "1"]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cli") / "shapes"
    write_shapes(root, train=8, val=4, size=96)
    return root


@pytest.fixture(scope="module")
def run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "a"
    result = call("train", "--data", shapes, "--out", out, *TINY)
    assert result.exit_code == 0, result.output
    return out


def call(*words: object) -> Result:
    return runner.invoke(app, [str(word) for word in words], catch_exceptions=False)


def test_train_leaves_weights_states_and_a_log(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert {"best.safetensors", "final.safetensors", "log.csv", "state-00000002.safetensors"} <= names
    assert Detector.load(run / "final.safetensors").names == SHAPE_NAMES
    assert (run / "log.csv").read_text().startswith("step,")


def test_evaluate_prints_both_protocols_and_json(run: Path, shapes: Path) -> None:
    arguments = ("evaluate", run / "best.safetensors", "--data", shapes, "--split", "val")
    shown = call(*arguments)
    assert shown.exit_code == 0
    assert "voc-area" in shown.stdout and "voc07-11pt" in shown.stdout and "4 pictures" in shown.stdout
    plain = json.loads(call(*arguments, "--json", "-").stdout)
    assert [row["name"] for row in plain["classes"]] == list(SHAPE_NAMES)
    assert 0 <= plain["mean"]["voc-area"] <= 1


def test_predict_goes_on_after_a_broken_picture(run: Path, shapes: Path, tmp_path: Path) -> None:
    picture = next((shapes / "JPEGImages").iterdir())
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(picture.read_bytes()[:100])
    weights, out = run / "final.safetensors", tmp_path / "found"
    result = call("predict", weights, broken, picture, "--out", out, "--score-threshold", 0.001)
    assert result.exit_code == 1
    assert "broken.jpg" in result.stderr
    assert [path.name for path in out.iterdir()] == [f"{picture.stem}.jpg"]
    line = json.loads(call("predict", weights, picture, "--json", "--score-threshold", 0).stdout)
    assert line["picture"] == str(picture)


def test_check_convert_and_split(shapes: Path, tmp_path: Path) -> None:
    assert call("check", shapes).exit_code == 0
    for form in ("coco", "yolo"):
        made = call("convert", shapes, tmp_path / form, "--to", form, "--split", "train=train", "--split", "val=val")
        assert made.exit_code == 0, made.output
        assert call("check", tmp_path / form).exit_code == 0
    parts = call("split", shapes, tmp_path / "parts", "--part", "a=0.5", "--part", "b=0.5", "--source", "train")
    assert parts.exit_code == 0, parts.output
    lists = [(tmp_path / "parts/ImageSets/Main" / f"{part}.txt").read_text().split() for part in "ab"]
    assert len({*lists[0], *lists[1]}) == len(lists[0]) + len(lists[1]) == 8


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["train", "--epoch", "3"], 2, "--epochs"),
        (["train", "--data", "no/such/folder", "--out", "runs/none"], 1, "no/such/folder"),
        (["predict", "no/such/weights", "a.jpg"], 1, "no/such/weights"),
        (["predict", "--help"], 0, "Find objects"),
    ],
)
def test_exit_codes(words: list[str], code: int, said: str) -> None:
    done = subprocess.run([sys.executable, "-m", "centerdet", *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
