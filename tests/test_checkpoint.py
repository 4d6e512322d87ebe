"""A file comes back exactly or is refused with the reason; a write that fails leaves what was there."""

import json
import os
import pickle
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from tiny import MODEL, NAMES, tiny_detector

from centerdet import Detector
from centerdet.errors import CenterdetError, WeightsError
from centerdet.runtimes.weights import read_tensors, write_tensors

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
    frozen = [parameter.requires_grad for parameter in loaded.network.parameters()]
    assert frozen == [parameter.requires_grad for parameter in detector.network.parameters()] and not all(frozen)


def test_a_truncated_file_is_refused(weights: Path, tmp_path: Path) -> None:
    content, path = _small(tmp_path).read_bytes(), tmp_path / "cut.safetensors"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError, match=r"cut\.safetensors: not a whole safetensors file"):
            read_tensors(path)
    content = weights.read_bytes()
    for share in (0.001, 0.5, 0.999999):
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(WeightsError, match="not a whole safetensors file"):
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
    with pytest.raises(WeightsError, match=r"notes\.safetensors: not a whole safetensors file"):
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
    with pytest.raises(WeightsError, match="not detector weights: no model in its metadata"):
        Detector.load(path)


@pytest.mark.parametrize("names", [NAMES[:2], (*NAMES, "star")])
def test_another_class_count_is_refused(weights: Path, tmp_path: Path, names: tuple[str, ...]) -> None:
    tensors, fields = read_tensors(weights)
    path = tmp_path / "other.safetensors"
    write_tensors(path, tensors, {**fields, "names": list(names)})
    with pytest.raises(WeightsError, match=rf"other\.safetensors: its tensors do not fit {len(names)} classes"):
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
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # as on a full disk, part of the file can be written
    try:
        with pytest.raises((OSError, CenterdetError), match="large"):
            write_tensors(path, {"weight": torch.zeros(100_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_the_metadata_can_be_read_by_any_safetensors_reader(weights: Path) -> None:
    with safetensors.safe_open(weights, "numpy") as file:
        metadata = file.metadata()
    assert json.loads(metadata["names"]) == list(NAMES) and json.loads(metadata["model"]) == MODEL
