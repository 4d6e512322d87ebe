"""ONNX Runtime gives PyTorch's results without importing it, and refuses every file that is not ours."""

import json
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from importlib.metadata import requires
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from exporting import exported, noise
from onnx import TensorProto, helper, numpy_helper
from packaging.requirements import Requirement
from tiny import NAMES, tiny_detector

from centerdet import Detector
from centerdet.errors import CenterdetError, ConfigError, MissingWeightsError, WeightsError
from centerdet.export import compare, find_photographs
from centerdet.runtimes import open_runtime
from centerdet.runtimes.onnx import OnnxRuntime
from centerdet.runtimes.onnx_header import read_fields, seal

FIELDS = {"centerdet": "0.1.0", "names": list(NAMES), "size": 64, "nms_iou": 0.6}

WITHOUT_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ImportError(f"{{name}} is blocked", name=name)
sys.meta_path.insert(0, Refuse())
from centerdet import Detector
detector = Detector.load({weights!r}, threads=1)
detections = detector.predict({image!r}, score_threshold=0.0)
list(detector.stream([{image!r}]))
assert not [name for name in sys.modules if name.partition(".")[0] in {blocked}]
print(len(detections), detections.scores.max())
"""
BLOCKED = {
    "albumentations", "av", "defusedxml", "onnx", "onnxscript", "pandas", "rich", "safetensors", "scipy", "skimage",
    "torch", "torchvision", "typer", "yaml",
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".onnx", pytest.param(".xml", marks=pytest.mark.soak)])
def test_no_torch_is_needed_nor_anything_else(suffix: str) -> None:
    image = str(find_photographs()[1])
    code = WITHOUT_TORCH.format(blocked=BLOCKED, weights=str(exported(suffix)), image=image)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = tiny_detector().predict(image, score_threshold=0.0)
    count, best = done.stdout.split()
    assert int(count) > 0 and float(best) == pytest.approx(float(expected.scores.max()), abs=1e-4)


def test_the_smallest_requirements_are_what_is_imported_and_as_in_pyproject(repo_root: Path) -> None:
    listed = [Requirement(line) for line in (repo_root / "docs" / "requirements-onnx.txt").read_text().splitlines()[1:]]
    code = (
        "import sys\nfrom importlib.metadata import distributions\nbefore = set(sys.modules)\n"
        "from centerdet import Detector\n"
        f"Detector.load({str(exported())!r}).predict({str(find_photographs()[1])!r})\n"
        "new = set(sys.modules) - before\n"  # packages_distributions() of Python 3.10 leaves out NumPy
        "tops = lambda one: {file.parts[0].partition('.')[0] for file in one.files or ()}\n"
        "print(*{one.name.lower() for one in distributions() if tops(one) & new})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    needed = {Requirement(text).name for one in listed for text in requires(one.name) or () if "extra" not in text}
    names = {one.name for one in listed}
    optional = {"centerdet", "defusedxml"}  # some versions of Pillow import the latter if it is installed
    assert names <= set(done.stdout.split()) <= names | needed | optional
    project = (repo_root / "pyproject.toml").read_text()
    assert [str(one) for one in listed if f'"{one}"' not in project] == []


def test_weights_that_need_torch_say_so() -> None:
    code = (
        "import sys\nsys.modules['torch'] = None\n"
        "from centerdet import Detector\nfrom centerdet.errors import ConfigError\n"
        "try:\n    Detector.load('voc')\nexcept ConfigError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "needs torch: pip install 'centerdet'" in done.stdout


def test_results_are_pytorchs_for_any_batch() -> None:
    off = compare(tiny_detector().runtime, open_runtime(exported()), noise(3))
    assert off.boxes <= 0.05 and off.scores <= 1e-4 and off.detections


def test_the_detector_is_the_same_class_with_the_same_results() -> None:
    ours, theirs = Detector.load(exported(), threads=1), tiny_detector()
    assert (ours.names, ours.size, ours.nms_iou) == (theirs.names, theirs.size, theirs.nms_iou)
    for image in find_photographs():
        mine, other = (one.predict(image, score_threshold=0.0) for one in (ours, theirs))
        np.testing.assert_allclose(mine.scores[:10], other.scores[:10], atol=1e-4)  # later ones tie
    with pytest.raises(ConfigError, match=r"only detectors loaded from \.safetensors"):
        ours.save("nowhere.safetensors")


def test_images_may_be_read_only_and_strided() -> None:
    runtime, images = open_runtime(exported()), noise(2)
    images.setflags(write=False)
    for one, two in zip(runtime.run(images), runtime.run(images[:, :, ::-1].copy()[:, :, ::-1]), strict=True):
        assert np.array_equal(one, two)


def test_limited_threads_neither_spin_nor_change_results() -> None:
    runtime = OnnxRuntime.load(exported(), threads=1)
    options = runtime.session.get_session_options()
    assert options.intra_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    expected, results = runtime.run(noise(1)), []
    threads = [threading.Thread(target=lambda: results.append(runtime.run(noise(1)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(np.array_equal(a, b) for result in results for a, b in zip(result, expected, strict=True))


def test_providers_go_by_name() -> None:
    assert OnnxRuntime.load(exported(), device="cpu").provider == "CPUExecutionProvider"
    for device in ("tpu", "directml", "coreml", "cuda"):
        provider = {"directml": "Dml", "coreml": "CoreML", "cuda": "CUDA"}.get(device, device)
        if f"{provider}ExecutionProvider" not in onnxruntime.get_available_providers():
            with pytest.raises(ConfigError, match=rf"device: {device} cannot be used: expected one of .*cpu"):
                open_runtime(exported(), device=device)


# ---- files that are not ours


def refuse(folder: Path, content: bytes, message: str) -> None:
    path = folder / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"bad\.onnx: {message}"):
        Detector.load(path)


def changed(change: Callable[[onnx.ModelProto], object], **fields: object) -> bytes:
    """The exported model, changed, with right checksum and other fields."""
    model = onnx.load(exported())
    del model.metadata_props[:]
    change(model)
    return seal(model.SerializeToString(), {**FIELDS, **fields})


def nothing(model: onnx.ModelProto) -> None: ...


def test_seal_and_read_fields_are_inverse() -> None:
    fields = {"names": ["ä", "b" * 200], "size": 64, "nothing": None, "list": [1, {"a": 0.5}]}
    model = onnx.load(exported())
    del model.metadata_props[:]
    assert read_fields("a", seal(model.SerializeToString(), fields)) == {"format": 1, **fields}
    read_by_onnx = onnx.load_from_string(seal(model.SerializeToString(), fields)).metadata_props
    assert {one.key: json.loads(one.value) for one in read_by_onnx if one.key != "crc32"} == {"format": 1, **fields}


@pytest.mark.parametrize("number", [10, pytest.param(40, marks=pytest.mark.soak)])
def test_every_truncation_and_flipped_bit_is_refused(tmp_path: Path, number: int) -> None:
    content = exported().read_bytes()
    for length in [0, 1, 7, *range(8, len(content), len(content) // number), len(content) - 1]:
        refuse(tmp_path, content[:length], "")
    generator = np.random.default_rng(0)
    for position in generator.integers(0, len(content), 3 * number // 2).tolist():
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(generator.integers(8))
        refuse(tmp_path, bytes(damaged), "")


def test_random_bytes_never_escape_as_other_errors(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    for _ in range(200):
        with pytest.raises(CenterdetError):
            read_fields("a", generator.bytes(int(generator.integers(0, 200))))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "crc32: none in its metadata"),
        (b"not an onnx file at all", "incomplete or not an ONNX file"),
        (b"\x80\x04\x95pickle", "incomplete or not an ONNX file"),
    ],
)
def test_other_kinds_of_files(content: bytes, message: str, tmp_path: Path) -> None:
    refuse(tmp_path, content, message)


def test_a_model_of_someone_else(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "theirs",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    refuse(
        tmp_path, model.SerializeToString(), "crc32: none in its metadata: cut off, or not written by centerdet export"
    )
    refuse(tmp_path, seal(model.SerializeToString(), FIELDS), r"images: expected tensor\(uint8\)")


def test_newer_versions(tmp_path: Path) -> None:
    refuse(
        tmp_path,
        changed(nothing, format=2, centerdet="9.9"),
        "format: expected 1, got 2, written by centerdet 9.9: upgrade",
    )

    def newer(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = 999

    refuse(tmp_path, changed(newer), "onnxruntime .* cannot run it: .*upgrade onnxruntime")

    def newest(model: onnx.ModelProto) -> None:
        model.ir_version = 999

    refuse(tmp_path, changed(newest), "onnxruntime .* cannot run it")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 96}, r"images: expected tensor\(uint8\) \['any', 96, 96, 3\] for the size 96"),
        ({"size": "64"}, "size: expected an integer"),
        ({"size": 65}, "size: expected a multiple of 32"),
        ({"names": ["a", "a", "b"]}, "names: expected each name once"),
        ({"names": 3}, "names: expected a list"),
        ({"nms_iou": 2}, "nms_iou: expected a number from 0 to 1"),
    ],
)
def test_metadata_that_lies(fields: dict[str, object], message: str, tmp_path: Path) -> None:
    refuse(tmp_path, changed(nothing, **fields), message)


def test_too_few_names_are_noticed_when_a_label_has_none(tmp_path: Path) -> None:
    path = tmp_path / "few.onnx"
    path.write_bytes(changed(nothing, names=["circle"]))
    with pytest.raises(
        WeightsError, match=r"few\.onnx: names: the graph returns label \d, and its metadata has 1 names"
    ):
        Detector.load(path).predict(noise(1)[0], score_threshold=0.0)


def test_metadata_that_is_not_json(tmp_path: Path) -> None:
    model = onnx.load(exported())
    del model.metadata_props[:]
    helper.set_model_props(model, {"names": "[" * 100_000})
    content = model.SerializeToString()
    refuse(tmp_path, seal(content, {}), "its metadata is not JSON")


def external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../secret.bin")


def external_in_attribute(model: onnx.ModelProto) -> None:
    tensor = numpy_helper.from_array(np.zeros(3, np.float32))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret.bin")
    model.graph.node.insert(0, helper.make_node("Constant", [], ["unused"], value=tensor))


def custom(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "evil.library"


def loop(model: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.insert(0, helper.make_node("If", ["x"], ["y"], then_branch=body, else_branch=body))


def function(model: onnx.ModelProto) -> None:
    model.functions.append(helper.make_function("here", "f", [], [], [], []))


def sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (external, r"tensor\.(external_data|data_location): expected all data in this one file"),
        (external_in_attribute, r"tensor\.(external_data|data_location): expected all data in this one file"),
        (custom, r"node \w+: domain: expected ONNX's own operators, got evil\.library"),
        (loop, r"attribute\.g \(control flow\): expected none"),
        (function, "functions: expected none"),
        (sparse, r"graph\.sparse_initializer: expected none"),
    ],
)
def test_nothing_leads_out_of_the_file(
    change: Callable[[onnx.ModelProto], object], message: str, tmp_path: Path
) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(1000))
    refuse(tmp_path, changed(change), message)


def test_missing_and_oversized_files(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match=r"none\.onnx: no such weights file"):
        Detector.load(tmp_path / "none.onnx")
    with (tmp_path / "huge.onnx").open("wb") as file:
        file.truncate(2**33)  # holes only
    with pytest.raises(WeightsError, match=r"huge\.onnx: expected at most 4 GiB, got 8\.0"):
        Detector.load(tmp_path / "huge.onnx")


def test_the_checksum_covers_all_before_it() -> None:
    content = exported().read_bytes()
    start = content.rfind(b"crc32") - 4
    assert str(zlib.crc32(content[:start])).encode() in content[start:]
