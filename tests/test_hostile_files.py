"""Damaged files of every kind: a reader returns a result or raises a `CenterdetError` that names the file.

`scripts/fuzz.py` damages and watches; here are 500 of its cases for each kind, and what it has found. What each kind
of file may hold is in the tests of its reader.
"""

import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import pytest
import torch
from tiny import tiny_config

from centerdet.data.sample import Dataset
from centerdet.detections import Detections
from centerdet.errors import ConfigError, DataError, ImageError, WeightsError
from centerdet.images import load, read_header
from centerdet.runtimes.weights import read_tensors, write_tensors
from centerdet.training.checkpoints import RunState, check_data, load_checkpoint, save_checkpoint
from centerdet.training.progress import COLUMNS, cut_log


def _load_script() -> ModuleType:
    path = Path(__file__).parents[1] / "scripts" / "fuzz.py"
    spec = importlib.util.spec_from_file_location("fuzz", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


fuzz = _load_script()
IMAGES = ("jpeg", "png", "webp", "tiff", "gif")


@pytest.mark.parametrize("name", fuzz.READERS)
def test_damaged_files_are_read_or_named(name: str) -> None:
    assert fuzz.fuzz(name, 500, seed=1).findings == []


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # Pillow's, of odd metadata
@pytest.mark.parametrize("name", IMAGES)
def test_images_cut_at_every_byte_and_flipped_in_every_third(name: str) -> None:
    with tempfile.TemporaryDirectory(dir=fuzz.PLACE) as folder:
        fuzz.READERS[name].make(Path(folder))
        [path] = Path(folder).iterdir()
        content = path.read_bytes()
        cut = [content[:length] for length in range(len(content))]
        flipped = [
            content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :] for at in range(0, len(content), 3)
        ]
        for damaged in (*cut, *flipped):
            path.write_bytes(damaged)
            for read in (load, read_header):
                try:
                    read(path)
                except ImageError as error:
                    if str(path) not in str(error):
                        raise


def test_what_watches_the_cases_notices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another exception, an error without the file, an endless loop, a write and a read outside: each is a finding."""

    def loop(_: Path) -> None:
        while True:
            try:
                sum(range(1000))
            except Exception:  # noqa: BLE001
                raise AssertionError from None

    def fail(error: Exception) -> None:
        raise error

    monkeypatch.setattr(fuzz, "SECONDS", 0.2)
    for read, finding in (
        (lambda _: fail(KeyError("a")), "KeyError"),
        (lambda _: fail(DataError("a.xml: broken")), "names no file"),
        (loop, "of CPU time"),
        (lambda _: (tmp_path / "new").write_bytes(b""), "open "),
        (lambda _: (tmp_path / "new").read_bytes(), "open "),
    ):
        root = tmp_path / "root"
        root.mkdir(exist_ok=True)
        assert finding in fuzz._run(fuzz.Reader(lambda _: None, "*", read), root)[1]


def test_a_file_beside_an_example_is_outside() -> None:
    with fuzz.Example("gif") as example:
        secret = example.place / "outside" / "secret.jpg"
        finding = fuzz._run(fuzz.Reader(lambda _: None, "*", lambda _: secret.read_bytes()), example.root)[1]
    assert finding == f"open {secret}"


# --- what was found -----------------------------------------------------------------------------------------------

LETTERS = range(98, 107)
BOMBS = {
    "lists": "names: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{chr(n)}: &{chr(n)} [{', '.join([f'*{chr(n - 1)}'] * 9)}]\n" for n in LETTERS)
    + "path: *j\nnc: *j\n",
    "merges": "a: &a {x: 1}\n"
    + "".join(f"{chr(n)}: &{chr(n)} {{<<: [{', '.join([f'*{chr(n - 1)}'] * 9)}]}}\n" for n in LETTERS)
    + "names: *j\n",
    "itself": "names: &a [*a]\n",
}
SCALARS = (
    "2001-99-99",
    "!!timestamp x",
    "!!int ''",
    "!!bool x",
    "!!float _",
    "9" * 5000,
    "0b_",
    "!!set [a]",
    "!!omap 3",
)


@pytest.mark.parametrize("text", [*BOMBS.values(), *(f"names: [a]\nx: {scalar}\n" for scalar in SCALARS)])
def test_yaml_that_expands_or_holds_no_value(text: str) -> None:
    outcome = fuzz.fuzz("yaml", 1, only=text.encode())
    assert outcome.findings == [] and outcome.kinds["AnnotationError"] == 1, outcome


def test_yaml_may_repeat_a_value_by_its_anchor() -> None:
    text = f"names: {list(fuzz.SHAPE_NAMES)}\ntrain: &a images/train\nval: images/val\ntest: *a\n"
    assert fuzz.fuzz("yaml", 1, only=text.encode()).kinds == {"read": 1}


def test_large_yaml_is_refused_before_it_is_parsed() -> None:
    assert fuzz.fuzz("yaml", 1, only=b"names: [" + b"a, " * 400_000 + b"]").kinds == {"AnnotationError": 1}


@pytest.mark.parametrize("line", [".", "./", "a/.", "x/" * 900, "x/" * 9000, "\udcff/" * 900, " ", "%00", "a" * 5000])
@pytest.mark.parametrize("name", ["lists", "yolo-lists"])
def test_lists_of_odd_paths(name: str, line: str) -> None:
    outcome = fuzz.fuzz(name, 1, only=f"{line}\n".encode(errors="surrogateescape"))
    assert outcome.findings == [] and not outcome.kinds["read"], outcome


def test_names_in_an_onnx_file_that_are_no_text() -> None:
    with tempfile.TemporaryDirectory() as folder:
        fuzz.READERS["onnx"].make(Path(folder))
        content = Path(folder, "model.onnx").read_bytes()
    for word in (b"images", b"boxes", b"Cast", b"Unsqueeze", b"tiny", b"mean"):
        damaged = fuzz.repair_onnx(content.replace(word, b"\xe5" * len(word), 1))
        assert fuzz.fuzz("onnx", 1, only=damaged).findings == []


@pytest.mark.parametrize(
    "fields", [{}, {"state": {}, "config": 3}, {"state": {"steps": 1}, "config": {"batch": 1}},
               {"state": {"step": "1"}, "config": {"batch": 1}}, {"state": {"step": 1}, "config": {"batch": None}}],
)  # fmt: skip
def test_a_checkpoint_with_other_fields_is_set_aside(tmp_path: Path, fields: dict[str, object]) -> None:
    config = tiny_config(tmp_path, tmp_path)
    save_checkpoint(config, *fuzz.layers(), RunState(1))
    write_tensors(tmp_path / "checkpoint-00000002.safetensors", {"network.weight": torch.zeros(3)}, fields)
    notices: list[str] = []
    assert load_checkpoint(config, *fuzz.layers(), 1, notices.append).step == 1
    assert len(notices) == 1 and "checkpoint-00000002.safetensors: " in notices[0]


@pytest.mark.parametrize("name", ["network.wide", "network.weight", "optimizer.x.y", "nothing", "else.weight"])
def test_a_checkpoint_of_another_network_is_named(tmp_path: Path, name: str) -> None:
    config = tiny_config(tmp_path, tmp_path)
    save_checkpoint(config, *fuzz.layers(), RunState(1))
    [path] = tmp_path.glob("checkpoint-*")
    tensors, fields = read_tensors(path)
    write_tensors(path, {**tensors, name: torch.zeros(7)}, fields)
    with pytest.raises(WeightsError, match=r"checkpoint-00000001\.safetensors: its tensors do not fit the network"):
        load_checkpoint(config, *fuzz.layers(), 1, print)


@pytest.mark.parametrize(
    "text", ["", "[", "3", "[3]", '[{"names": []}]', '[{"names": [], "images": [3]}]', "\udcff", "[" * 9999]
)
def test_a_broken_data_json_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "data.json").write_text(text, errors="surrogateescape")
    with pytest.raises(ConfigError, match=r"data\.json: broken: .*: delete it to continue"):
        check_data(tmp_path, [Dataset([], ("a",))])


def test_log_lines_of_no_number_are_dropped(tmp_path: Path) -> None:
    head, good = ",".join(COLUMNS) + "\n", "10" + "," * 7 + "\n"
    (tmp_path / "log.csv").write_text(
        head + good + "9" * 5000 + "," * 7 + "\n" + "²" + "," * 7 + "\nx" + "," * 7 + "\n"
    )
    cut_log(tmp_path / "log.csv", 20)
    assert (tmp_path / "log.csv").read_text() == head + good


@pytest.mark.parametrize(
    "change", [{"height": "x"}, {"width": None}, {"objects": 3}, {"objects": [{"box": 1}]}, {"height": 1e400}]
)
def test_rows_of_detections_with_other_values_are_data_errors(change: dict[str, object]) -> None:
    row = {"objects": [], "height": 9, "width": 9, "source": None}
    assert len(Detections.from_dict(row, ("a",))) == 0
    with pytest.raises(DataError, match="expected"):
        Detections.from_dict(json.loads(json.dumps({**row, **change})), ("a",))
