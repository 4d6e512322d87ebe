"""Every script, run on tiny data: quick ones in this process, benchmarks and the whole demonstration in `make soak`."""

import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import skimage
import torch
from PIL import Image
from tiny import tiny_config, tiny_detector

from centerdet import Detector
from centerdet.data.sample import Dataset, Sample
from centerdet.data.shapes import write_shapes
from centerdet.data.voc import VOC_NAMES, write_voc
from centerdet.errors import ConfigError
from centerdet.models import build_backbone
from centerdet.runtimes.weights import read_tensors
from centerdet.training.loop import train

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def script(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script that a test's parameter names, imported."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module(request.param)


def script_is(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("script", [name], indirect=True)


@pytest.fixture(scope="module")
def devkit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VOCdevkit of one photograph, mirrored and darkened: 16 images of 375 x 500 px in 2007:val and in 2012:extra."""
    root = tmp_path_factory.mktemp("scripts") / "VOCdevkit"
    with Image.open(Path(skimage.__file__).parent / "data" / "chelsea.png") as image:
        photograph = np.asarray(image.resize((500, 375)))
    cat = VOC_NAMES.index("cat")
    for folder, split in (("VOC2007", "val"), ("VOC2012", "extra")):
        samples = []
        for number in range(16):
            path = root.parent / folder / f"{number:06d}.png"
            path.parent.mkdir(exist_ok=True)
            pixels = photograph[:, :: (1, -1)[number % 2]] // (1 + number // 8)
            Image.fromarray(pixels).save(path)
            samples.append(Sample(path, np.array([[20.0, 10, 480, 370]]), np.array([cat])))
        write_voc(Dataset(samples, VOC_NAMES), root / folder, split)
    return root


def run_script(name: str, *words: object) -> str:
    """The output of a script in a process of its own."""
    command = [sys.executable, "-W", "error", SCRIPTS / f"{name}.py", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.soak
def test_fuzz_coverage(tmp_path: Path) -> None:
    """It ends well without a finding, and at the first one."""
    pytest.importorskip("atheris")
    run_script("fuzz_coverage", "coco", "--cases", 300, "--out", tmp_path)
    assert not list(tmp_path.iterdir())
    code = f"""
import sys; sys.path.insert(0, {str(SCRIPTS)!r})
import fuzz, fuzz_coverage
fuzz._run = lambda *_: ("", "made up")
fuzz_coverage.main("log", 10, 1, fuzz_coverage.Path("."))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode and "FindingError: log: made up" in done.stdout + done.stderr
    assert len(list(tmp_path.iterdir())) == 1


def test_every_script_is_run_by_a_test() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    runs = ('script_is("{}")', 'run_script("{}"', "import {}\n", '"scripts" / "{}.py"')
    scripts = {path.stem for path in SCRIPTS.glob("*.py")}
    assert {name for name in scripts if not any(run.format(name) in text for run in runs)} == set()


@pytest.mark.soak
@script_is("demo")
def test_demo(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="1"):
        script.main(tmp_path / "demo", images=8, epochs=1, goal=1.1)
    made = {path.name for path in (tmp_path / "demo").iterdir()}
    assert made == {"photographs", "photographs.jpg", "shapes", "shapes_val", "shapes_val.jpg", "training"}
    assert "chelsea.png: cat" in capsys.readouterr().out


@pytest.mark.soak
def test_demo_reaches_its_goal(tmp_path: Path) -> None:
    assert "goal: 0.9" in run_script("demo", "--out", tmp_path / "demo")


@pytest.mark.soak
@script_is("evaluate_voc")
def test_evaluate_voc(script: ModuleType, devkit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log.csv").write_text("step,heatmap_loss,box_loss\n10,3.0,1.0\n20,2.0,0.5\n")
    script.main("voc", devkit, ["2007:val"], [tmp_path / "log.csv"] * 2, tmp_path / "curve.png")
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(VOC_NAMES) + 1
    assert rows[2 + VOC_NAMES.index("cat")].startswith("| cat | 16 | 100.0 (100.0 to 100.0) | 100.0")
    with Image.open(tmp_path / "curve.png") as curve:
        assert curve.size == (880, 440)


@script_is("prepare_backbone")
def test_prepare_backbone(script: ModuleType, tmp_path: Path) -> None:
    script.main("efficientnet_lite0", tmp_path / "backbone.safetensors")
    ours, report = build_backbone("efficientnet_lite0", str(tmp_path / "backbone.safetensors"))
    theirs, _ = build_backbone("efficientnet_lite0", "imagenet")
    assert report is not None and report.loaded and not report.missing and not report.unexpected
    assert all(torch.equal(tensor, theirs.state_dict()[key]) for key, tensor in ours.state_dict().items())


@script_is("average_weights")
def test_average_weights(script: ModuleType, tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.safetensors" for name in "abc"]
    for number, path in enumerate(paths):
        detector = tiny_detector()
        with torch.no_grad():
            for tensor in detector.runtime.network.parameters():
                tensor.mul_(number)
        detector.save(path, config={"seed": number, "data": ["private"], "out": "private", "init_from": "private"})
    script.main([str(path) for path in paths], tmp_path / "mean.safetensors")
    tensors = [read_tensors(path)[0] for path in paths]
    means, fields = read_tensors(tmp_path / "mean.safetensors")
    for key, mean in means.items():
        expected = torch.stack([one[key] for one in tensors]).float().mean(0)
        torch.testing.assert_close(mean.float(), expected, rtol=1e-3, atol=1e-3)
    assert fields["mean_of"] == [{"seed": number} for number in range(3)]
    assert Detector.load(tmp_path / "mean.safetensors").names == detector.names
    tiny_detector(size=96).save(paths[0])
    with pytest.raises(ConfigError, match="same classes"):
        script.average(paths)


@pytest.mark.soak
@script_is("train_voc")
def test_train_voc(script: ModuleType, devkit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for phase in (1, 2):
        monkeypatch.setitem(script.PHASES, phase, {"draws": 16, "sizes": (64,), "batch": 4})
        script.main(phase, str(devkit), base="2012:extra", animals="", out=tmp_path)
    config = read_tensors(tmp_path / "phase2" / "final.safetensors")[1]["config"]
    assert config["init_from"] == str(tmp_path / "phase1" / "final.safetensors")
    assert config["seed"] == 11


EXTRAS = ("backbone", "demo", "export", "heif", "openvino", "plot", "report", "serve", "video", "pandas", "tensorboard")


@script_is("list_licenses")
def test_what_is_installed_has_an_allowed_license(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    script.main(list(EXTRAS))
    assert re.search(r"^torchvision +\S+ +BSD", capsys.readouterr().out, re.MULTILINE)
    for expression, permissive in {
        "MIT": True, "Apache-2.0 WITH LLVM-exception AND BSD-3-Clause": True, "GPL-3.0-only OR MIT": True,
        "MIT AND LGPL-2.1": False, "GNU General Public License v3": False, "UNKNOWN": False,
    }.items():  # fmt: skip
        assert script.is_permissive(expression) == permissive, expression


@script_is("benchmark_evaluation")
def test_benchmark_evaluation(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    data = script.make(40, 3, 60, 400)
    assert script.measure("tiny", script.voc_evaluate, data) > 0
    assert "400 detections" in capsys.readouterr().out
    truths, results = script.as_coco(data)
    assert len(truths["annotations"]) == 60 and results.shape == (400, 7)


@script_is("fuzz")
def test_fuzz(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script.main(["log", "gif"], cases=3, out=tmp_path / "findings")
    assert "gif: 3 cases, 0 findings" in capsys.readouterr().out and not (tmp_path / "findings").exists()


@pytest.mark.soak
def test_long_runs() -> None:
    assert "pytorch" in run_script("long_runs", "--predictions", 1000)


@pytest.mark.soak
@script_is("half_precision")
def test_half_precision(script: ModuleType, tmp_path: Path) -> None:
    """On a network that has learned something: rounding to half precision costs less than 0.05 mAP."""
    write_shapes(tmp_path / "data", train=24, val=24, size=96, seed=2)
    changes = {"channels": 32, "epochs": 60, "batch": 8, "sizes": (96,), "lr": 4e-3, "backbone_weights": "imagenet"}
    train(tiny_config(tmp_path / "data", tmp_path / "run", **changes, checkpoint_every=1000))
    [checkpoint] = (tmp_path / "run").glob("checkpoint-*")
    single, half = script.measure(checkpoint, tmp_path / "data", ["train"])
    assert single > 20 and abs(half - single) < 0.05, (single, half)


@pytest.mark.soak
@script_is("tile_gain")
def test_tile_gain(script: ModuleType, devkit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script.main(devkit, collages=1, plain=2)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + 2 + 2 * (3 + 1)
    assert rows[1].startswith("| 2 of val | none | 100.0 | 1.0 |")


@pytest.mark.soak
def test_benchmark_training(devkit: Path) -> None:
    assert "the recipe" in run_script("benchmark_training", devkit, "--threads", 1, "--rounds", 1, "--size", 64)


@pytest.mark.soak
def test_benchmark_packing() -> None:
    shown = run_script("benchmark_packing", "--images", 40, "--rounds", 1, "--steps", 10)
    assert "pack: " in shown and " of memory" in shown


@pytest.mark.soak
def test_benchmark_serve() -> None:
    words = ("--threads", 1, "--requests", 4, "--rounds", 1, "--seconds", 0.5)
    assert "8 clients: " in run_script("benchmark_serve", *words)


@pytest.mark.soak
def test_benchmark_runtimes(devkit: Path) -> None:
    words = ("--calibrate", "2012:extra", "--images", 2, "--calibration", 2, "--runs", 1, "--threads", 1)
    assert "voc-area of int8.onnx" in run_script("benchmark_runtimes", devkit, *words)
