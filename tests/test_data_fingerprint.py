"""A training goes on with the data that it began with, wherever that lies, and with no other."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from centerdet.data.fingerprint import dataset_fingerprint, describe_changes
from centerdet.data.formats import FORMATS, Format, read_dataset, write_dataset
from centerdet.data.sample import Dataset, Sample
from centerdet.data.shapes import write_shapes


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    write_shapes(tmp_path / "data", train=4, val=1, size=64)
    return read_dataset(tmp_path / "data", "train")


@pytest.mark.parametrize("form", FORMATS)
def test_another_path_to_the_same_data_is_no_change(
    tmp_path: Path, data: Dataset, form: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(data, tmp_path / "one", "train", form)
    before = json.loads(json.dumps(dataset_fingerprint(read_dataset(tmp_path / "one", "train"))))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "one")
    for path in ("one/", "./one", "../" + tmp_path.name + "/one", "link"):
        assert describe_changes(before, dataset_fingerprint(read_dataset(path, "train"))) == ""
    shutil.move(tmp_path / "one", tmp_path / "else" / "where")
    assert describe_changes(before, dataset_fingerprint(read_dataset(tmp_path / "else" / "where", "train"))) == ""


def change(sample: Sample, **fields: object) -> Sample:
    return Sample(**{name: getattr(sample, name) for name in ("path", "boxes", "labels")} | fields)  # type: ignore[arg-type]


def test_what_changed_is_named(tmp_path: Path, data: Dataset) -> None:
    before, first = dataset_fingerprint(data), data.samples[0]
    name = first.path.name
    boxes = np.array([[1.0, 1, 9, 9]])
    labeled = change(first, boxes=boxes, labels=np.zeros(1, np.int64))
    relabeled = change(first, boxes=boxes, labels=np.ones(1, np.int64))
    old = dataset_fingerprint(Dataset([labeled, *data.samples[1:]], data.names))
    rest = list(data.samples[1:])
    cases = {
        f"1 image removed ({name})": (before, Dataset(rest, data.names)),
        f"1 image changed ({name})": (old, Dataset([relabeled, *rest], data.names)),
        f"classes {list(data.names)} are now {list(data.names[::-1])}": (
            before,
            Dataset(data.samples, data.names[::-1]),
        ),
        "the images are in another order, or repeated otherwise": (before, Dataset([*rest, first], data.names)),
        "repeated otherwise": (before, Dataset([first, first, *rest], data.names)),
    }
    for message, (one, other) in cases.items():
        assert message in describe_changes(one, dataset_fingerprint(other))
    assert "1 image added" in describe_changes(dataset_fingerprint(Dataset(rest, data.names)), before)
    first.path.write_bytes(first.path.read_bytes() + b"more")
    assert describe_changes(before, dataset_fingerprint(data)) == f"1 image changed ({name})"
    many = dataset_fingerprint(Dataset([], data.names))
    assert describe_changes(before, many).endswith(", …)") and "4 images removed" in describe_changes(before, many)
