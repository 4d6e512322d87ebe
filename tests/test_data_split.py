from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from centerdet.data.sample import Dataset, Sample
from centerdet.data.split import split
from centerdet.data.voc import read_voc
from centerdet.errors import DataError


def make_dataset(count: int, cameras: int = 1, seed: int = 0) -> Dataset:
    """Images cam<k>/<number>.jpg; class 0 is common, class 3 is rare."""
    generator = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        labels = generator.choice(4, int(generator.integers(0, 5)), p=[0.7, 0.2, 0.08, 0.02])
        boxes = np.tile([0.0, 0, 5, 5], (len(labels), 1))
        path = Path(f"cam{generator.integers(cameras)}", f"{number // 3:03d}_{number % 3}.jpg")
        samples.append(Sample(path, boxes, labels.astype(np.int64)))
    return Dataset(samples, ("a", "b", "c", "d"))


def paths(part: Dataset) -> list[Path]:
    return [sample.path for sample in part.samples]


def count(part: Dataset) -> np.ndarray:
    return np.bincount(np.concatenate([sample.labels for sample in part.samples]), minlength=len(part.names))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(3, 60), st.integers(1, 9), st.integers(0, 5), st.sampled_from([None, "folder", r"/(\d+)_", "by_hand"])
)
def test_parts_cover_everything_once_and_no_group_straddles(size: int, cameras: int, seed: int, by: str | None) -> None:
    data = make_dataset(size, cameras, seed)
    group_by = (lambda path: path.stem[-1]) if by == "by_hand" else by
    fractions = {"train": 0.5, "val": 0.3, "test": 0.2}
    keys = {
        None: lambda path: str(path),
        "folder": lambda path: path.parent.name,
        r"/(\d+)_": lambda path: path.stem[:3],
        "by_hand": lambda path: path.stem[-1],
    }
    of = {path: keys[by](path) for path in paths(data)}
    if len(set(of.values())) < 3:
        with pytest.raises(DataError, match="expected at least 3 groups of images"):
            split(data, fractions, group_by=group_by)
        return
    parts = split(data, fractions, seed=seed, group_by=group_by)
    assert list(parts) == list(fractions) and all(part.names == data.names for part in parts.values())
    assert sorted(path for part in parts.values() for path in paths(part)) == sorted(paths(data))
    held = [{of[path] for path in paths(part)} for part in parts.values()]
    assert all(held) and sum(map(len, held)) == len(set(of.values()))
    order = {path: number for number, path in enumerate(paths(data))}
    assert all(paths(part) == sorted(paths(part), key=order.__getitem__) for part in parts.values())


def test_the_seed_alone_decides() -> None:
    data = make_dataset(200)
    fractions = {"train": 0.8, "val": 0.2}
    first, again, other = (paths(split(data, fractions, seed=seed)["val"]) for seed in (1, 1, 2))
    assert first == again and first != other


def test_images_and_classes_have_their_shares() -> None:
    data = make_dataset(1000)
    for seed in range(3):
        parts = split(data, {"train": 0.7, "val": 0.2, "test": 0.1}, seed=seed)
        for share, part in zip((0.7, 0.2, 0.1), parts.values(), strict=True):
            assert abs(len(part) - 1000 * share) <= 10
            assert (np.abs(count(part) - count(data) * share) <= 3 + 0.02 * count(data)).all()


def test_large_groups_still_leave_their_shares() -> None:
    data = make_dataset(600, cameras=25)
    parts = split(data, {"train": 0.8, "val": 0.2}, group_by="folder")
    assert abs(len(parts["val"]) - 120) <= 20


def test_what_cannot_be_split_is_named() -> None:
    data = make_dataset(9, cameras=2)
    for fractions in ({}, {"train": 0.8, "val": 0.1}, {"train": 1.5, "val": -0.5}, {"train": float("nan")}):
        with pytest.raises(DataError, match="expected positive ones that sum to 1"):
            split(data, fractions)
    with pytest.raises(DataError, match="expected a regular expression"):
        split(data, {"train": 1}, group_by="(")
    with pytest.raises(DataError, match=r"'x\+' does not match cam"):
        split(data, {"train": 1}, group_by="x+")
    with pytest.raises(DataError, match="expected at least 1 group of images"):
        split(Dataset([], ("a",)), {"train": 1})


@pytest.mark.soak
def test_on_real_data(voc_root: Path) -> None:
    data = read_voc(voc_root, ["2007:train"])
    parts = split(data, {"train": 0.9, "val": 0.1}, seed=3)
    assert abs(len(parts["val"]) - 250) <= 5
    assert (np.abs(count(parts["val"]) / count(data) - 0.1) <= 0.01).all()
