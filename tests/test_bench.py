"""Measurements are of the right kind and size, and take turns."""

import json
from pathlib import Path

import numpy as np
import pytest
from exporting import exported
from typer.testing import CliRunner

from centerdet.bench import COLUMNS, bench, time_in_turns
from centerdet.cli import app
from centerdet.errors import ConfigError

runner = CliRunner()


def test_calls_take_turns_after_a_warm_up() -> None:
    order: list[str] = []
    times = time_in_turns([lambda: order.append("a"), lambda: order.append("b")], 4)
    assert times.shape == (2, 4) and (times >= 0).all()
    assert order == ["a", "b"] * 7


@pytest.mark.soak
def test_command_measures_every_file_and_thread_count(tmp_path: Path) -> None:
    words = ["bench", str(exported()), str(exported(".xml")), "--threads", "1", "--threads", "2", "--runs", "3"]
    done = runner.invoke(app, [*words, "--json", str(tmp_path / "bench.json")])
    assert done.exit_code == 0, done.output
    assert all(column in done.output for column in COLUMNS) and "onnxruntime" in done.output
    result = json.loads((tmp_path / "bench.json").read_text())
    assert result["machine"]["cpus"] and result["machine"]["packages"]["onnxruntime"] and result["runs"] == 3
    assert [one["threads"] for one in result["timings"]] == [1, 2, 1, 2]
    for one in result["timings"]:
        assert one["model_ms"] > 0 and 0 < one["median_ms"] <= one["p95_ms"] and 0 < one["cold_start_s"] < 60
        assert one["memory_mb"] is None or 20 < one["memory_mb"] < 1000


@pytest.mark.soak
def test_weights_are_exported_for_every_runtime_here() -> None:
    weights = exported().with_name("tiny.safetensors")
    done = runner.invoke(app, ["bench", str(weights), "--threads", "1", "--runs", "2", "--json", "-"])
    assert done.exit_code == 0, done.output
    timings = json.loads(done.output)["timings"]
    assert [one["runtime"].split()[0] for one in timings] == ["torch", "onnxruntime", "openvino"]
    assert [Path(one["weights"]).name for one in timings] == ["tiny.safetensors", "tiny.onnx", "tiny.xml"]


def test_nothing_to_measure_is_an_error() -> None:
    with pytest.raises(ConfigError, match="expected at least one of each"):
        bench([], np.zeros((8, 8, 3), np.uint8))
