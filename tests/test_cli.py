"""The shell's commands on real files: what they print, write and exit with."""

import contextlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import sysconfig
import time
from dataclasses import fields
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from centerdet import __version__
from centerdet.cli import app, main
from centerdet.cli.show import bar
from centerdet.data.shapes import SHAPE_NAMES, write_shapes
from centerdet.detector import Detector
from centerdet.runtimes.weights import read_tensors
from centerdet.training.config import PRESETS, TrainConfig

runner = CliRunner()
COMMANDS = (
    "train", "evaluate", "calibrate", "predict", "export", "bench", "serve", "check", "convert", "split", "pack",
    "download",
)  # fmt: skip
TINY = ["--sizes", "64", "--channels", "16", "--backbone-weights", "none", "--val", "val"]
TINY += ["--epochs", "1", "--batch", "4", "--val-every", "1"]


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


def program(*words: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    """The installed program, in a process of its own."""
    found = Path(sysconfig.get_path("scripts"), "centerdet")
    return subprocess.run(
        [found, *map(str, words)], capture_output=True, text=True, timeout=300, env={**os.environ, **environment}
    )


def test_train_writes_weights_checkpoints_and_a_log(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert {"best.safetensors", "final.safetensors", "log.csv", "checkpoint-00000002.safetensors"} <= names
    assert Detector.load(run / "final.safetensors").names == SHAPE_NAMES
    assert (run / "log.csv").read_text().startswith("step,")


@pytest.mark.soak
def test_early_stopping_is_reported(shapes: Path, tmp_path: Path) -> None:
    rest = ["--epochs", "9", "--patience", "1", "--lr", "0", "--backbone-lr", "0"]
    done = call("train", "--data", shapes, "--out", tmp_path / "run", *TINY, *rest)
    assert done.exit_code == 0
    assert re.search(r"early stopping at step \d+/18: no improvement", done.stderr)


def test_evaluate_asks_for_a_split_where_there_are_several(run: Path, shapes: Path) -> None:
    asked = call("evaluate", run / "best.safetensors", "--data", shapes)
    assert asked.exit_code == 2 and "train, val" in asked.stderr


def test_evaluate_prints_both_protocols_and_json(run: Path, shapes: Path) -> None:
    arguments = ("evaluate", run / "best.safetensors", "--data", shapes, "--split", "val")
    shown = call(*arguments)
    assert shown.exit_code == 0
    assert "voc-area" in shown.stdout and "voc07-11pt" in shown.stdout and "4 images" in shown.stdout
    plain = json.loads(call(*arguments, "--json", "-").stdout)
    assert [row["name"] for row in plain["classes"]] == list(SHAPE_NAMES)
    assert 0 <= plain["mean"]["voc-area"] <= 1


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
    ("words", "code", "text"),
    [
        (["train", "--epoch", "3"], 2, "--epochs"),
        (["train", "--data", "a", "--out", "b", "--epochs", "-1"], 2, "epochs: expected"),
        (["train", "--data", "a", "--out", "b", "--preset", "tiny"], 2, "'small',"),
        (["train", "--data", "a", "--out", "b", "--workers", "-1"], 2, "workers: expected"),
        (["trian"], 2, "'train'"),
        (["--version"], 0, __version__),
        (["train", "-h"], 0, "Usage: centerdet train"),
        (["predict", "voc", "a.jpg", "--device", "nonsense"], 1, "device: "),
        (["train", "--data", "no/such/folder", "--out", "runs/none"], 1, "no/such/folder"),
        (["predict", "no/such/weights", "a.jpg"], 1, "no/such/weights"),
        (["predict", "--help"], 0, "Usage: centerdet predict"),
    ],
)
def test_exit_codes(
    words: list[str], code: int, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["centerdet", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == code
    printed = capsys.readouterr()
    assert text in (printed.err if code else printed.out)


def test_module_and_program_are_the_same_command() -> None:
    module = subprocess.run([sys.executable, "-m", "centerdet", "trian"], capture_output=True, text=True, timeout=120)
    installed = program("trian")
    assert module.returncode == installed.returncode == 2
    assert module.stderr == installed.stderr and "Traceback" not in module.stderr


# --- the program --------------------------------------------------------------------------------------------------


def test_help_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from centerdet.cli import main\n"
        f"for words in ([], *([command] for command in {COMMANDS})):\n"
        "    sys.argv = ['centerdet', *words, '--help']\n"
        "    try:\n        main()\n    except SystemExit as done:\n        assert done.code == 0, words\n"
        "assert not {'torch', 'albumentations', 'matplotlib', 'pandas'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [f"Usage: centerdet {command}" in done.stdout for command in COMMANDS] == [True] * len(COMMANDS)


def test_every_command_is_in_the_overview() -> None:
    listed = re.findall(r"^[\W]*(\w+)  ", call("--help").stdout.partition("Commands")[2], re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS)


def test_every_field_of_the_config_is_an_option_with_its_help() -> None:
    shown = " ".join(re.sub(r"[│\s]+", " ", call("train", "--help").stdout).split())
    for field in fields(TrainConfig):
        assert f"--{field.name.replace('_', '-')} " in shown, field.name
    for name, (images, _) in PRESETS.items():
        assert f"{images:,} images ({name})" in shown


def test_the_shell_completes_commands_and_options() -> None:
    def ask(**environment: str) -> str:
        return runner.invoke(app, [], prog_name="centerdet", env=environment).stdout

    def complete(line: str) -> list[str]:
        words = line.split(" ")
        asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
        return ask(_CENTERDET_COMPLETE="complete_bash", **asked).split()

    assert set(complete("centerdet ")) >= set(COMMANDS)
    assert complete("centerdet ev") == ["evaluate"]
    assert {"--epochs", "--ema"} <= set(complete("centerdet train --e")) <= {"--epochs", "--ema"}
    named = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # the shell is the one that is named
    assert "_CENTERDET_COMPLETE=complete_bash" in program("--show-completion", "bash", **named).stdout
    assert "--preset" in ask(_CENTERDET_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="centerdet train --pres")


def test_labels_of_progress_bars_are_shown_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr("centerdet.cli.show.errors", Console(file=shown, force_terminal=True, width=99))
    for text in (False, True):
        with bar("export [/data]/[bold].onnx", 1, text=text):
            pass
    assert shown.getvalue().count("export [/data]/[bold].onnx") >= 2


def test_colors_are_for_terminals() -> None:
    def on_terminal(**environment: str) -> str:
        ours, theirs = os.openpty()
        known = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | {"TERM": "xterm"}
        command = [sys.executable, "-m", "centerdet", "trian"]
        process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env={**known, **environment})
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the terminal is gone when the program ends
            while part := os.read(ours, 1000):
                shown += part
        os.close(ours)
        assert process.wait() == 2
        return shown.decode()

    color = re.compile(r"\x1b\[(\d;)*3\d")
    assert color.search(on_terminal()) and not color.search(on_terminal(NO_COLOR="1"))
    assert "\x1b" not in program("trian").stderr


# --- training -----------------------------------------------------------------------------------------------------


def test_train_prints_json_and_progress(shapes: Path, tmp_path: Path) -> None:
    done = call("train", "--data", shapes, "--out", tmp_path / "a", *TINY, "--json", "-", "--preset", "auto")
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert printed["final"]["step"] == 2 and printed["final"]["names"] == list(SHAPE_NAMES)
    assert printed["best"]["weights"] == str(tmp_path / "a" / "best.safetensors")
    assert 0 <= printed["best"]["voc-area"] <= 1
    assert "preset: small" in done.stderr
    line = next(line for line in done.stderr.splitlines() if line.startswith("step 2/2"))
    for words in ("64 px", "heatmap", "box", "lr", "images/s", "eta 0:00:00"):
        assert words in line
    quiet = call("train", "--data", shapes, "--out", tmp_path / "b", *TINY, "--quiet", "--json", tmp_path / "b.json")
    assert quiet.stderr == "" and quiet.exit_code == 0
    assert json.loads((tmp_path / "b.json").read_text())["best"]["step"] == 2


def test_a_damaged_checkpoint_is_reported_on_the_terminal(run: Path, shapes: Path) -> None:
    newest = sorted(run.glob("checkpoint-*"))[-1]
    content = newest.read_bytes()
    (run / "checkpoint-00000003.safetensors").write_bytes(content[:100])
    done = call("train", "--data", shapes, "--out", run, *TINY, "--resume", "--quiet")
    assert done.exit_code == 0
    assert "warning: " in done.stderr and "checkpoint-00000003" in done.stderr


@pytest.mark.soak
def test_ctrl_c_saves_and_prints_how_to_continue(shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "a b"
    words = ["train", "--data", str(shapes), "--out", str(out), "--sizes", "64", "--channels", "16"]
    words += ["--backbone-weights", "none", "--val", "", "--freeze", "6", "--epochs", "10", "--batch", "2"]
    words += ["--device", "cpu", "--checkpoint-every", "1000", "--workers", "1"]
    command = [sys.executable, "-m", "centerdet", *words]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not (out / "log.csv").exists():  # ten steps are done
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to the loader's process as well
    _, complaints = process.communicate()
    assert process.returncode == 130
    [checkpoint] = out.glob("checkpoint-*")
    assert 10 <= int(checkpoint.stem[-8:]) < 40
    *_, saved, command_line = complaints.splitlines()
    assert checkpoint.name in saved and "Traceback" not in complaints
    assert shlex.split(command_line) == ["centerdet", *words, "--resume"]
    assert call(*shlex.split(command_line)[1:]).exit_code == 0
    assert read_tensors(out / "final.safetensors")[1]["step"] == 40
