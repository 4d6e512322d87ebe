"""The stream of batches follows from (seed, number of the draw) alone: not from workers, nor where it begins."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from centerdet.codec import encode
from centerdet.data.formats import keep_classes, read_dataset
from centerdet.data.shapes import write_shapes
from centerdet.errors import ImageError
from centerdet.training import loader as loader_module
from centerdet.training.augment import Augment
from centerdet.training.loader import Batch, Schedule, TrainingImages, training_loader
from centerdet.training.mixture import Mixture, mix

IMAGES = 7


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Mixture:
    root = tmp_path_factory.mktemp("loader") / "shapes"
    write_shapes(root, train=IMAGES, val=1, size=64)
    return mix([read_dataset(root, ("train",))], balance=0.5)


def _loader(mixture: Mixture, steps: range, *, batch: int = 3, seed: int = 5, cache: bool = True, **options: int):
    images = TrainingImages(mixture, Augment(), cache_size=80, cache=cache)
    return training_loader(
        images, mixture, Schedule(7, (32, 64)), batch=batch, seed=seed, stride=8, steps=steps, **options
    )


def _tensors(batch: Batch) -> Iterator[Tensor]:
    for value in batch:
        yield from [value] if isinstance(value, Tensor) else value


def _check_same(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(_tensors(one), _tensors(other), strict=True))


@pytest.fixture(scope="module")
def stream(mixture: Mixture) -> list[Batch]:
    return list(_loader(mixture, range(7)))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_the_stream(mixture: Mixture, stream: list[Batch], workers: int) -> None:
    _check_same(list(_loader(mixture, range(7), workers=workers)), stream)


@pytest.mark.parametrize("first", [1, 4, 6, 7])
def test_a_stream_begun_later_continues_the_same(mixture: Mixture, stream: list[Batch], first: int) -> None:
    loader = _loader(mixture, range(first, 7))
    assert len(loader) == 7 - first
    _check_same(list(loader), stream[first:])


def test_processes_share_the_draws_of_a_step(mixture: Mixture) -> None:
    together = list(_loader(mixture, range(3), batch=4))
    parts = [list(_loader(mixture, range(3), batch=2, rank=rank, world_size=2)) for rank in (0, 1)]
    for step, batch in enumerate(together):
        for rank in (0, 1):
            assert torch.equal(batch.images[rank::2], parts[rank][step].images)


@pytest.mark.parametrize("share", [1e-12, 0.5])
def test_reading_again_gives_what_is_cached(
    mixture: Mixture, stream: list[Batch], share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader_module, "SHARE_OF_MEMORY", share)  # 1e-12: no room for a single image
    calls: list[tuple[int, int]] = []
    images = TrainingImages(mixture, Augment(), 80, True, lambda done, total: calls.append((done, total)))
    assert calls == [(done, IMAGES) for done in range(1, 1 + (IMAGES if share == 0.5 else 0))]
    loader = training_loader(images, mixture, Schedule(7, (32, 64)), batch=3, seed=5, stride=8, steps=range(2, 4))
    _check_same(list(loader), stream[2:4])
    _check_same(list(_loader(mixture, range(2, 4), cache=False)), stream[2:4])


def test_another_seed_is_another_stream_and_no_batch_repeats(mixture: Mixture, stream: list[Batch]) -> None:
    other = list(_loader(mixture, range(2), seed=6))
    assert not any(torch.equal(a.images, b.images) for a, b in zip(other, stream, strict=False))
    images = [image.numpy().tobytes() for batch in stream for image in batch.images]
    assert len(set(images)) == len(images)


def test_batches_hold_images_objects_and_their_targets(mixture: Mixture, stream: list[Batch]) -> None:
    for step, batch in enumerate(stream):
        size = 32 if step < 4 else 64
        assert batch.images.shape == (3, 3, size, size) and batch.images.dtype == torch.uint8
        count = len(batch.boxes)
        assert batch.boxes.shape == (count, 4) and batch.boxes.dtype == torch.float32
        assert batch.labels.shape == batch.ignore.shape == batch.image_index.shape == (count,)
        assert (batch.image_index.diff() >= 0).all() and set(batch.image_index.tolist()) <= {0, 1, 2}
        assert (batch.boxes >= 0).all() and (batch.boxes <= size).all()
        targets = encode(
            batch.boxes, batch.labels, batch.ignore, batch.image_index,
            batch=3, num_classes=len(mixture.names), grid=size // 8, stride=8,
        )  # fmt: skip
        assert all(torch.equal(a, b) for a, b in zip(targets, batch.targets, strict=True))
    assert sum(len(batch.boxes) for batch in stream) > 10


@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_epochs_show_images_by_their_weights(mixture: Mixture, balance: float) -> None:
    mixture = mix(mixture.datasets, balance=balance)
    loader = _loader(mixture, range(IMAGES * 10), cache=False)
    draws = [draw for draws in loader.batch_sampler for draw in draws]
    shown = np.asarray([draw.sample for draw in draws]).reshape(-1, IMAGES)  # a row per epoch
    counts = np.stack([np.bincount(row, minlength=IMAGES) for row in shown])
    assert len(shown) == 30
    assert (np.abs(counts - mixture.weights * IMAGES) < 1).all()  # the expected number, rounded up or down
    np.testing.assert_allclose(counts.mean(0), mixture.weights * IMAGES, atol=0.35)
    assert len({tuple(row) for row in shown.tolist()}) > 15  # each in another order


def test_what_a_dataset_does_not_label_is_masked_on_its_images_alone(mixture: Mixture) -> None:
    [part] = keep_classes(mixture.datasets, mixture.names[:1])
    both = mix([mixture.datasets[0], part])
    for batch, draws in zip(loader := _loader(both, range(4)), loader.batch_sampler, strict=True):
        for number, draw in enumerate(draws):
            mask = batch.targets.valid_mask[number]
            assert mask[0].any() and mask[1:].any() == (draw.sample < IMAGES)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_its_error_in_one_line(mixture: Mixture, tmp_path: Path, workers: int) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(mixture.samples[0].path.read_bytes()[:200])
    samples = [type(sample)(broken, sample.boxes, sample.labels) for sample in mixture.samples]
    sad = mix([type(mixture.datasets[0])(samples, mixture.names)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        [error] = _loader(sad, range(1), cache=False, workers=workers)
    assert isinstance(error, ImageError) and str(broken) in str(error) and "\n" not in str(error)
