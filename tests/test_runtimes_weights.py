"""A file comes back exactly or is refused with the reason; a write that fails leaves the old file."""

import json
import os
import pickle
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from tiny import MODEL, NAMES, full_disk, tiny_detector, tiny_network

from centerdet import Detector
from centerdet.errors import CenterdetError, ConfigError, MissingWeightsError, WeightsError
from centerdet.runtimes.pytorch import PyTorchRuntime, halve
from centerdet.runtimes.weights import read_tensors, weights_path, write_tensors

TENSORS = {
    "a.weight": torch.arange(6.0).reshape(2, 3),
    "half": torch.tensor([1.5, -0.0, 65504.0], dtype=torch.float16),
    "steps": torch.tensor(7),
    "flags": torch.tensor([True, False]),
    "empty": torch.zeros(0, 4),
}
FIELDS: dict[str, Any] = {"names": ["cat", "Kätzchen"], "size": 320, "model": {"stride": 8}, "nothing": None}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    tiny_detector().save(path)
    tiny_network(backbone="resnet18")  # old versions of torchvision, when imported, open a file of their own
    return path


def _small(folder: Path) -> Path:
    path = folder / "small.safetensors"
    write_tensors(path, TENSORS, FIELDS)
    return path


def test_tensors_and_fields_come_back_exactly(tmp_path: Path) -> None:
    path = _small(tmp_path)
    tensors, fields = read_tensors(path)
    assert fields == FIELDS
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype and torch.equal(tensors[name], tensor), name
    write_tensors(path, tensors, fields)
    again, same = read_tensors(path)
    assert same == fields and all(torch.equal(again[name], tensors[name]) for name in tensors)
    assert os.listdir(tmp_path) == [path.name]


def test_a_loaded_detector_predicts_the_same_bit_for_bit(weights: Path) -> None:
    detector, loaded = tiny_detector(), Detector.load(weights, device="cpu")
    assert (loaded.names, loaded.size) == (detector.names, detector.size)
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    first, second = (one.predict(image, score_threshold=0.0) for one in (detector, loaded))
    assert len(first.scores) > 10
    for name in ("boxes", "scores", "labels"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name


def test_a_truncated_file_is_refused(weights: Path, tmp_path: Path) -> None:
    content, path = _small(tmp_path).read_bytes(), tmp_path / "cut.safetensors"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError, match=r"cut\.safetensors: incomplete or not a safetensors file"):
            read_tensors(path)
    content = weights.read_bytes()
    for share in (0.001, 0.5, 0.999999):
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(WeightsError, match="incomplete or not a safetensors file"):
            Detector.load(path)


@pytest.mark.parametrize("flip", [1, 128])
def test_a_flipped_byte_is_refused(tmp_path: Path, flip: int) -> None:
    path = _small(tmp_path)
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :])
        with pytest.raises(WeightsError, match=r"small\.safetensors: "):
            read_tensors(path)


class _Trap:
    """Unpickling it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


def test_a_pickle_is_refused_and_not_opened(tmp_path: Path) -> None:
    path, sprung = tmp_path / "weights.safetensors", tmp_path / "sprung"
    path.write_bytes(pickle.dumps(_Trap(sprung)))
    with pytest.raises(WeightsError, match="pickles are never read"):
        Detector.load(path)
    torch.save({"weight": torch.zeros(3), "trap": _Trap(sprung)}, path)
    with pytest.raises(WeightsError, match="pickles are never read"):
        Detector.load(path)
    assert not sprung.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 8, b"these are not weights, they are a text\n" * 9, b"\xff" * 64, b"\x02\0\0\0\0\0\0\0[]"],
    ids=["empty", "zeros", "text", "ones", "list"],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"notes\.safetensors: incomplete or not a safetensors file"):
        Detector.load(path)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(WeightsError, match="no such weights file"):
            Detector.load(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_weights_of_other_programs_are_refused(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(safetensors.torch.save({"weight": torch.zeros(3)}, metadata))
    with pytest.raises(WeightsError, match="not written by centerdet"):
        Detector.load(path)


def test_a_file_of_ours_that_is_no_detector_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    write_tensors(path, TENSORS, {"names": list(NAMES), "size": 64})
    with pytest.raises(
        WeightsError, match=r"state\.safetensors: model: expected backbone, stride, channels and freeze"
    ):
        Detector.load(path)
    write_tensors(path, TENSORS, {"model": MODEL, "names": list(NAMES)})
    with pytest.raises(WeightsError, match=r"state\.safetensors: not detector weights: no size in its metadata"):
        Detector.load(path)


LIES: list[tuple[dict[str, Any], str]] = [
    ({"names": 5}, "names: expected a list of 1 to 10,000 names, got 5"),
    ({"names": "cat"}, "names: expected a list"),
    ({"names": []}, "names: expected a list"),
    ({"names": ["a"] * 20_000}, "names: expected a list"),
    ({"names": ["a", "a", "b"]}, "names: expected each name once"),
    ({"names": ["a", "b", 3]}, "names: expected texts of 1 to 200 letters, got 3"),
    ({"names": ["a", "b", "c" * 10**6]}, "names: expected texts of 1 to 200 letters, got 'ccc"),
    ({"size": 10**9}, "size: expected an integer from 32 to 4096"),
    ({"size": 100}, "size: expected a multiple of 32 px, got 100"),
    ({"size": 64.0}, "size: expected an integer"),
    ({"size": True}, "size: expected an integer"),
    ({"nms_iou": 2}, "nms_iou: expected a number from 0 to 1, got 2"),
    ({"nms_iou": float("nan")}, "nms_iou: expected a number"),
    ({"nms_iou": "0.5"}, "nms_iou: expected a number"),
    ({"model": None}, "model: expected backbone, stride, channels and freeze, got None"),
    ({"model": [1]}, "model: expected backbone"),
    ({"model": {**MODEL, "weights": "download"}}, "model: expected backbone"),
    ({"model": {**MODEL, "weights": "/etc/passwd"}}, "model: expected backbone"),
    ({"model": {**MODEL, "num_classes": 7}}, "model: expected backbone"),
    ({"model": {"backbone": "resnet18"}}, "model: expected backbone"),
    ({"model": {**MODEL, "backbone": "../../evil"}}, "model.backbone: expected one of efficientnet_lite0"),
    ({"model": {**MODEL, "backbone": ["resnet18"]}}, "model.backbone: expected one of"),
    ({"model": {**MODEL, "backbone": "resnet18"}}, "of its tensors do not fit"),
    ({"model": {**MODEL, "channels": 10**9}}, "model.channels: expected an integer from 1 to 2048, got 1000000000"),
    ({"model": {**MODEL, "channels": -1}}, "model.channels: expected an integer"),
    ({"model": {**MODEL, "channels": 2048}}, "of its tensors do not fit"),
    ({"model": {**MODEL, "channels": "16"}}, "model.channels: expected an integer"),
    ({"model": {**MODEL, "stride": 5}}, "model.stride: expected 4 or 8, got 5"),
    ({"model": {**MODEL, "stride": 10**18}}, "model.stride: expected an integer from 4 to 8"),
    ({"model": {**MODEL, "freeze": 50}}, "model.freeze: expected 0 to 8 stages"),
    ({"model": {**MODEL, "freeze": None}}, "model.freeze: expected an integer"),
]


@pytest.mark.parametrize(("lie", "message"), LIES, ids=[str(number) for number in range(len(LIES))])
def test_a_file_that_lies_is_refused_without_any_access_that_it_asks_for(
    weights: Path, tmp_path: Path, lie: dict[str, Any], message: str
) -> None:
    """The error names file and field; no other file is opened, nothing is fetched."""
    tensors, fields = read_tensors(weights)
    path = tmp_path / "lying.safetensors"
    write_tensors(path, tensors, {**fields, **lie})
    with (
        reached() as events,
        pytest.raises(WeightsError, match=rf"lying\.safetensors: .*{re.escape(message)}") as caught,
    ):
        Detector.load(path, device="cpu")
    assert len(str(caught.value)) < 600
    assert [event for event in events if event != ("open", str(path))] == []


@contextmanager
def reached() -> Iterator[list[tuple[str, str]]]:
    """Files opened outside Python's library, and connections, while the block runs."""
    library = (sys.prefix, sys.base_prefix, str(Path(os.__file__).parent), str(Path(__file__).parents[1] / "centerdet"))
    events: list[tuple[str, str]] = []
    _LISTENERS.append(
        lambda event, arguments: (
            events.append((event, str(arguments[0])))
            if event.startswith(("socket.", "urllib.", "subprocess."))
            or (event == "open" and not str(arguments[0]).startswith(library))
            else None
        )
    )
    try:
        yield events
    finally:
        _LISTENERS.pop()


_LISTENERS: list[Callable[[str, tuple[Any, ...]], object]] = []


@pytest.fixture(scope="module", autouse=True)
def _audit() -> None:
    """An audit hook cannot be removed: this one is silent without listeners."""
    sys.addaudithook(lambda event, arguments: [listen(event, arguments) for listen in _LISTENERS] and None)


def test_what_a_crafted_header_claims_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "crafted.safetensors"
    huge = {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    for header in (json.dumps(huge).encode(), b"[" * 100_000, b'{"a": ' * 50_000, b" " * (9 * 2**20)):
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
        with pytest.raises(
            WeightsError, match=r"crafted\.safetensors: (incomplete|expected a header of at most 8 MiB)"
        ):
            read_tensors(path)
    with path.open("wb") as file:
        file.truncate(5 * 2**30)  # a sparse file
    with pytest.raises(WeightsError, match=r"expected at most 4 GiB, got 5\.0"):
        read_tensors(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(weights: Path, tmp_path: Path, value: float) -> None:
    tensors, fields = read_tensors(weights)
    tensors["box_head.2.bias"][1] = value
    path = tmp_path / "other.safetensors"
    write_tensors(path, tensors, fields)
    with pytest.raises(WeightsError, match=r"other\.safetensors: box_head\.2\.bias: expected finite numbers"):
        Detector.load(path)


def test_numbers_beyond_half_precision_are_not_saved(tmp_path: Path) -> None:
    network = tiny_network()
    name, variance = next((name, value) for name, value in network.named_buffers() if name.endswith("running_var"))
    variance[0] = 65_600
    path = tmp_path / "large.safetensors"
    for call in (lambda: halve(network), lambda: PyTorchRuntime(network, NAMES, 64, device="cpu").save(path)):
        with pytest.raises(
            WeightsError, match=rf"{re.escape(name)}: expected finite numbers up to 65,504 .* got 65600"
        ):
            call()
    assert not path.exists()
    variance[0] = 65_504
    Detector(PyTorchRuntime(network, NAMES, 64, device="cpu")).save(path)


def test_what_is_saved_is_what_halve_gives(tmp_path: Path) -> None:
    """So training evaluates the file's numbers, not those that it rounds."""
    network, path = tiny_network(), tmp_path / "a.safetensors"
    PyTorchRuntime(network, NAMES, 64, device="cpu").save(path, step=7)
    tensors, fields = read_tensors(path)
    assert fields["step"] == 7
    for name, value in halve(network).state_dict().items():
        assert torch.equal(tensors[name].to(value.dtype), value), name
    with pytest.raises(ConfigError, match="names: is written by save itself"):
        PyTorchRuntime(network, NAMES, 64, device="cpu").save(path, names=["a"])


def test_nms_iou_travels_in_the_file_and_can_be_set(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    runtime = tiny_detector().runtime
    assert Detector(runtime).nms_iou == 0.6
    Detector(runtime, nms_iou=0.35).save(path)
    assert Detector.load(path).nms_iou == 0.35
    assert Detector.load(path, nms_iou=0.7).nms_iou == 0.7
    with pytest.raises(ConfigError, match=r"nms_iou: expected 0 to 1, got 1\.5"):
        Detector.load(path, nms_iou=1.5)


def test_a_file_without_an_nms_iou_has_the_usual_one(weights: Path, tmp_path: Path) -> None:
    tensors, fields = read_tensors(weights)
    path = tmp_path / "before.safetensors"
    write_tensors(path, tensors, {key: value for key, value in fields.items() if key != "nms_iou"})
    assert Detector.load(path).nms_iou == 0.6


def test_loading_leaves_the_random_state_alone(weights: Path) -> None:
    before = torch.get_rng_state()
    Detector.load(weights)
    assert torch.equal(torch.get_rng_state(), before)


def test_shipped_names() -> None:
    assert weights_path("voc").is_file()
    with pytest.raises(MissingWeightsError, match="vox: no such weights file and no shipped name; did you mean 'voc'"):
        weights_path("vox")


@pytest.mark.parametrize("names", [NAMES[:2], (*NAMES, "star")])
def test_another_class_count_is_refused(weights: Path, tmp_path: Path, names: tuple[str, ...]) -> None:
    tensors, fields = read_tensors(weights)
    path = tmp_path / "other.safetensors"
    write_tensors(path, tensors, {**fields, "names": list(names)})
    with pytest.raises(WeightsError, match=rf"other\.safetensors: [12] of its tensors do not fit {len(names)} classes"):
        Detector.load(path)


@pytest.mark.parametrize("change", ["missing", "unexpected", "renamed"])
def test_another_set_of_tensors_is_refused(weights: Path, tmp_path: Path, change: str) -> None:
    tensors, fields = read_tensors(weights)
    name = "box_head.2.bias"
    taken = torch.zeros(4) if change == "unexpected" else tensors.pop(name)
    if change != "missing":
        tensors["box_head.9.bias"] = taken
    path = tmp_path / "other.safetensors"
    write_tensors(path, tensors, fields)
    with pytest.raises(WeightsError, match=r"box_head\.[29]\.bias"):
        Detector.load(path)


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = _small(tmp_path)
    before = path.read_bytes()
    with full_disk(4096), pytest.raises((OSError, CenterdetError), match="large"):
        write_tensors(path, {"weight": torch.zeros(100_000)}, {})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_the_metadata_can_be_read_by_any_safetensors_reader(weights: Path) -> None:
    with safetensors.safe_open(weights, "numpy") as file:
        metadata = file.metadata()
    assert json.loads(metadata["names"]) == list(NAMES) and json.loads(metadata["model"]) == MODEL
