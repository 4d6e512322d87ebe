"""What is exported equals PyTorch, carries its description, and does not appear where it differs."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exporting import differences, exported
from PIL import Image
from tiny import NAMES, tiny_detector
from typer.testing import CliRunner

import centerdet
from centerdet import Detector
from centerdet.cli import app
from centerdet.data.sample import Dataset, Sample
from centerdet.data.voc import write_voc
from centerdet.errors import ConfigError, WeightsError
from centerdet.export import Differences, compare, export, find_photographs
from centerdet.quantization import quantize
from centerdet.runtimes import Outputs, open_runtime
from centerdet.runtimes.onnx_header import read_fields
from centerdet.runtimes.pytorch import Graph, PyTorchRuntime
from centerdet.runtimes.weights import read_tensors, weights_path

runner = CliRunner()


@pytest.mark.soak
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_files_equal_pytorch_on_photographs(suffix: str, half: bool) -> None:
    off = differences(suffix, half)
    assert off.boxes <= 0.05 and off.scores <= 1e-4 and off.images == 3 and off.detections > 100


def test_the_model_is_checked_current_and_of_a_free_batch() -> None:
    model = onnx.load(exported())
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version >= 20
    [images] = model.graph.input
    batch, *sides = images.type.tensor_type.shape.dim
    assert batch.dim_param and [side.dim_value for side in sides] == [64, 64, 3]
    assert [output.name for output in model.graph.output] == ["boxes", "scores", "labels"]
    assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8


def test_metadata_describes_the_detector() -> None:
    path = exported()
    fields = read_fields(path, path.read_bytes())
    assert fields["names"] == list(NAMES) and fields["size"] == 64 and fields["nms_iou"] == 0.6
    assert fields["centerdet"] == centerdet.__version__
    assert fields["weights_sha256"] == hashlib.sha256(path.with_name("tiny.safetensors").read_bytes()).hexdigest()


@pytest.mark.soak
def test_calibration_and_license_travel(tmp_path: Path) -> None:
    calibration = read_tensors(weights_path("voc"))[1]["calibration"]
    Detector.load("voc", device="cpu").save(tmp_path / "a.safetensors", calibration=calibration, license="CC0-1.0")
    export(tmp_path / "a.safetensors", tmp_path / "a.onnx")
    fields = read_fields("a", (tmp_path / "a.onnx").read_bytes())
    assert (fields["calibration"], fields["license"]) == (calibration, "CC0-1.0")
    ours, theirs = (Detector.load(tmp_path / name, device="cpu") for name in ("a.safetensors", "a.onnx"))
    for threshold in (0.0, "best", "precision:0.8"):
        for image in find_photographs():
            first, second = (one.predict(image, score_threshold=threshold) for one in (ours, theirs))
            assert len(first) == len(second) > 0
            np.testing.assert_allclose(first.scores, second.scores, atol=1e-3)


def test_nothing_of_the_machine_is_in_the_file() -> None:
    for suffix in (".onnx", ".xml"):
        content = exported(suffix).read_bytes()
        for trace in (str(Path(centerdet.__file__).parent), str(Path(torch.__file__).parent), "stack_trace", ".py"):
            assert trace.encode() not in content


@pytest.mark.soak
def test_half_is_half_as_large() -> None:
    assert exported(half=True).stat().st_size < 0.6 * exported().stat().st_size
    whole, half = (exported(".xml", halved).with_suffix(".bin").stat().st_size for halved in (False, True))
    assert half < 0.6 * whole


@pytest.mark.parametrize("backbone", ["resnet18", "vgg16"])
@pytest.mark.soak
def test_other_backbones_export(backbone: str, tmp_path: Path) -> None:
    from tiny import tiny_network

    PyTorchRuntime(tiny_network(backbone=backbone), NAMES, 64, device="cpu").save(tmp_path / "a.safetensors")
    for form, name in (("onnx", "a.onnx"), ("openvino", "a.xml")):
        assert export(tmp_path / "a.safetensors", tmp_path / name, form=form).scores < 1e-4  # type: ignore[arg-type]
    quantize(tmp_path / "a.onnx", tmp_path / "b.onnx", find_photographs())
    assert len(Detector.load(tmp_path / "b.onnx").predict(find_photographs()[0], score_threshold=0)) > 0


class _Changed:
    """A runtime whose outputs differ a little from another's."""

    def __init__(self, runtime: PyTorchRuntime, pixels: float, score: float) -> None:
        self.runtime, self.pixels, self.score = runtime, pixels, score

    def run(self, images: "np.ndarray") -> Outputs:
        boxes, scores, labels = self.runtime.run(images)
        return boxes + np.float32(self.pixels), scores + np.float32(self.score), labels


@pytest.mark.parametrize(("pixels", "score"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.01)])
def test_compare_measures_what_was_changed(pixels: float, score: float) -> None:
    runtime = tiny_detector().runtime
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    off = compare(runtime, _Changed(runtime, pixels, score), images)  # type: ignore[arg-type]
    # the nearest counterpart may be another detection of almost the same score, but none is nearer than the change
    assert (off.boxes > 0.05) == (pixels > 0) and (off.scores > 1e-4) == (score > 0)
    if not score:
        assert off.boxes == pytest.approx(pixels, abs=1e-4)


@pytest.mark.soak
def test_a_graph_that_differs_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_detector().save(tmp_path / "a.safetensors")
    forward = Graph.forward

    def other(self: Graph, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        boxes, scores, labels = forward(self, images)
        return (boxes + 1 if torch.compiler.is_exporting() else boxes), scores, labels

    monkeypatch.setattr(Graph, "forward", other)
    with pytest.raises(WeightsError, match=r"a\.onnx: not written: 1 px and .* expected at most 0\.05 px"):
        export(tmp_path / "a.safetensors", tmp_path / "a.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_wrong_options_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"format: expected one of onnx, openvino, got 'tflite'"):
        export("voc", tmp_path / "a.onnx", form="tflite")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"out: expected a name that ends in \.xml for openvino, got .*a\.onnx"):
        export("voc", tmp_path / "a.onnx", form="openvino")
    with pytest.raises(ConfigError, match=r"is exported already"):
        export(exported(), tmp_path / "a.onnx")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VOC dataset of three photographs."""
    root = tmp_path_factory.mktemp("export") / "VOC2007"
    samples = [
        Sample(path, np.array([[10.0, 10, 200, 200]]), np.array([number]))
        for number, path in enumerate(find_photographs())
    ]
    write_voc(Dataset(samples, NAMES), root, "val")
    return root


@pytest.mark.soak
def test_int8_is_small_and_close(data: Path, tmp_path: Path) -> None:
    quantize(exported(), tmp_path / "int8.onnx", find_photographs())
    model = onnx.load(tmp_path / "int8.onnx")
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("DequantizeLinear") > 100 and kinds.index("Conv") < kinds.index("QuantizeLinear")
    assert (tmp_path / "int8.onnx").stat().st_size < 0.6 * exported().stat().st_size
    batch = np.stack([np.asarray(Image.open(path).convert("RGB").resize((64, 64))) for path in find_photographs()])
    boxes, scores, _ = open_runtime(tmp_path / "int8.onnx").run(batch)
    expected = open_runtime(exported()).run(batch)
    assert boxes.shape == expected[0].shape and np.abs(scores - expected[1]).max() < 0.05
    with pytest.raises(ConfigError, match="is int8 already"):
        quantize(tmp_path / "int8.onnx", tmp_path / "b.onnx", find_photographs())
    with pytest.raises(ConfigError, match="expected some to calibrate on"):
        quantize(exported(), tmp_path / "b.onnx", [])


@pytest.mark.soak
def test_command(data: Path, tmp_path: Path) -> None:
    weights = exported().with_name("tiny.safetensors")
    done = runner.invoke(app, ["export", str(weights), "--out", str(tmp_path / "a.onnx")])
    assert done.exit_code == 0, done.output
    assert "differs from PyTorch by" in done.output and Detector.load(tmp_path / "a.onnx").names == NAMES
    words = ["export", str(weights), "--out", str(tmp_path / "b.onnx"), "--int8", "--calibrate", f"{data}:val"]
    done = runner.invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "calibrated on 3 images" in done.output and "median ms" in done.output and "3 images, at most" in done.output
    assert {path.name for path in tmp_path.iterdir()} == {"a.onnx", "b.onnx"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--int8"], "expected both or none"),
        (["--int8", "--calibrate", "DATA:val", "--half"], "without --half"),
        (["--evaluate", "DATA:val"], "needs --int8"),
        (["--int8", "--calibrate", "DATA"], "one of val"),
        (["--int8", "--calibrate", "nothing:val"], "no such dataset"),
        (["--format", "tflite"], "expected one of onnx, openvino"),
    ],
)
def test_command_refuses(words: list[str], message: str, data: Path, tmp_path: Path) -> None:
    weights = exported().with_name("tiny.safetensors")
    words = [word.replace("DATA", str(data)) for word in words]
    done = runner.invoke(app, ["export", str(weights), "--out", str(tmp_path / "a.onnx"), *words])
    shown = " ".join((done.output + str(done.exception)).split()).replace("│", "")
    assert done.exit_code != 0 and message in " ".join(shown.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.soak
def test_shipped_weights_equal_pytorch(tmp_path: Path) -> None:
    for form, name in (("onnx", "voc.onnx"), ("openvino", "voc.xml")):
        off: Differences = export("voc", tmp_path / name, form=form)  # type: ignore[arg-type]
        assert off.boxes < 0.05 and off.scores < 1e-4
    expected = Detector.load("voc").predict(find_photographs()[0])
    for name in ("voc.onnx", "voc.xml"):
        shown = Detector.load(tmp_path / name).predict(find_photographs()[0])
        np.testing.assert_allclose(shown.boxes, expected.boxes, atol=0.1)
