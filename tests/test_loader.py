"""The stream of batches follows from (seed, step) alone: not from workers, nor from where a run begins."""

from pathlib import Path

import numpy as np
import pytest
import torch

from centerdet.data.formats import read_dataset
from centerdet.data.sample import Dataset, Sample
from centerdet.data.shapes import write_shapes
from centerdet.training.augment import Augment
from centerdet.training.loader import Batch, TrainingImages, image_weights, training_loader

IMAGES = 7


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("loader") / "shapes"
    write_shapes(root, train=IMAGES, val=1, size=64)
    return read_dataset(root, ("train",))


def _loader(
    dataset: Dataset, first: int, last: int, *, workers: int = 0, seed: int = 5, keep: bool = True, balance: float = 0.5
) -> torch.utils.data.DataLoader:
    return training_loader(
        TrainingImages(dataset, Augment(), keep_size=80, keep=keep),
        image_weights(dataset, balance),
        batch=3,
        seed=seed,
        first=first,
        last=last,
        size_at=lambda step: 32 if step < 4 else 64,
        mosaic_at=lambda step: 0.5 if step < 5 else 0.0,
        workers=workers,
        pin=False,
    )


def _check_same(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def stream(dataset: Dataset) -> list[Batch]:
    return list(_loader(dataset, 0, 7))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_the_stream(dataset: Dataset, stream: list[Batch], workers: int) -> None:
    _check_same(list(_loader(dataset, 0, 7, workers=workers)), stream)


@pytest.mark.parametrize("first", [1, 4, 6, 7])
def test_a_stream_begun_later_goes_on_the_same(dataset: Dataset, stream: list[Batch], first: int) -> None:
    loader = _loader(dataset, first, 7)
    assert len(loader) == 7 - first
    _check_same(list(loader), stream[first:])


def test_reading_anew_gives_what_is_kept(dataset: Dataset, stream: list[Batch]) -> None:
    _check_same(list(_loader(dataset, 2, 4, keep=False)), stream[2:4])


def test_another_seed_is_another_stream_and_no_batch_repeats(dataset: Dataset, stream: list[Batch]) -> None:
    other = list(_loader(dataset, 0, 2, seed=6))
    assert not any(torch.equal(a.images, b.images) for a, b in zip(other, stream, strict=False))
    images = [image.numpy().tobytes() for batch in stream for image in batch.images]
    assert len(set(images)) == len(images)


def test_batches_have_the_shapes_that_encode_takes(stream: list[Batch]) -> None:
    for step, batch in enumerate(stream):
        size = 32 if step < 4 else 64
        assert batch.images.shape == (3, 3, size, size) and batch.images.dtype == torch.uint8
        count = len(batch.boxes)
        assert batch.boxes.shape == (count, 4) and batch.boxes.dtype == torch.float32
        assert batch.labels.shape == batch.ignore.shape == batch.images.shape == (count,)
        assert (batch.labels.dtype, batch.ignore.dtype, batch.images.dtype) == (torch.int64, torch.bool, torch.int64)
        assert (batch.images.diff() >= 0).all() and set(batch.images.tolist()) <= {0, 1, 2}
        assert (batch.boxes >= 0).all() and (batch.boxes <= size).all()
    assert sum(len(batch.boxes) for batch in stream) > 10


def test_every_epoch_shows_each_image_once_without_balance(dataset: Dataset) -> None:
    draws = [draw for draws in _loader(dataset, 0, IMAGES * 10, balance=0.0).batch_sampler for draw in draws]
    shown = np.asarray([draw.samples[0] for draw in draws]).reshape(-1, IMAGES)  # a row an epoch
    assert len(shown) == 30
    assert (np.sort(shown, axis=1) == np.arange(IMAGES)).all()
    assert len({tuple(row) for row in shown.tolist()}) > 20  # in ever another order


def test_balanced_epochs_show_images_by_their_weights(dataset: Dataset) -> None:
    weights = image_weights(dataset, 1.0)
    draws = [draw for draws in _loader(dataset, 0, IMAGES * 10, balance=1.0).batch_sampler for draw in draws]
    shown = np.asarray([draw.samples[0] for draw in draws]).reshape(-1, IMAGES)
    counts = np.stack([np.bincount(row, minlength=IMAGES) for row in shown])
    assert (np.abs(counts - weights * IMAGES) < 1).all()  # in each epoch the expected number, rounded up or down
    np.testing.assert_allclose(counts.mean(0), weights * IMAGES, atol=0.35)


def test_image_weights_follow_the_rarest_class() -> None:
    rows = [[0]] * 10 + [[0, 1]] + [[]] + [[1]]  # class 0 in 11 images, class 1 in one that counts
    samples = [
        Sample(
            Path(f"{number}.jpg"),
            np.tile([0.0, 0.0, 9.0, 9.0], (len(row), 1)),
            np.asarray(row, np.int64),
            np.full(len(row), number == 12),  # difficult: not trained on
        )
        for number, row in enumerate(rows)
    ]
    dataset = Dataset(samples, ("common", "rare"))
    assert image_weights(dataset, 0.0) == pytest.approx(1 / 13)
    expected = np.asarray([1.0] * 10 + [11.0, 1.0, 1.0])
    assert image_weights(dataset, 1.0) == pytest.approx(expected / expected.sum())
    assert image_weights(dataset, 0.5) == pytest.approx(expected**0.5 / (expected**0.5).sum())
    alike = image_weights(Dataset(samples[11:12], ("common", "rare")), 1.0)  # a image without objects
    assert alike.tolist() == [1.0]
