"""Batches for training: every step's images follow from (seed, step) alone.

So the stream is the same with any number of workers, and a run that is resumed at step k draws what it would have
drawn. Batches: images (B, 3, S, S) uint8, objects of all images in a row (see `codec.encode`).
"""

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import data as torch_data

from ..data.sample import Dataset, Sample
from ..images import load
from .augment import Augment, Example

__all__ = ["Batch", "TrainingImages", "image_weights", "training_loader"]


class Batch(NamedTuple):
    """images (B, 3, S, S) uint8; boxes (M, 4) float32 px, labels (M,), ignore (M,) bool, image_index (M,) int64."""

    images: Tensor
    boxes: Tensor
    labels: Tensor
    ignore: Tensor
    image_index: Tensor


class Draw(NamedTuple):
    """One training image to be made: which samples (one, or four for a mosaic), how large, from which seed."""

    samples: tuple[int, ...]
    size: int
    seed: tuple[int, ...]


class TrainingImages(torch_data.Dataset[Example]):
    """Samples as augmented training images, addressed by `Draw`.

    Args:
        keep_size: images are shrunk to this longer side (px) when read; with `keep`, they stay in memory so.
    """

    def __init__(self, dataset: Dataset, augment: Augment, keep_size: int, keep: bool = True) -> None:
        self.samples, self.augment, self.keep_size = dataset.samples, augment, keep_size
        self.kept = [_read(sample, keep_size) for sample in dataset.samples] if keep else None

    def __getitem__(self, draw: Draw) -> Example:
        examples = [self.kept[i] if self.kept else _read(self.samples[i], self.keep_size) for i in draw.samples]
        return self.augment(examples, draw.size, np.random.default_rng(draw.seed))


def _read(sample: Sample, longest: int) -> Example:
    image = load(sample.path)
    scale = min(1.0, longest / max(image.shape[:2]))
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in image.shape[1::-1])
        scales = np.array([width / image.shape[1], height / image.shape[0]] * 2)
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    else:
        scales = np.ones(4)
    boxes = (sample.boxes * scales).astype(np.float32)
    return Example(image, boxes, sample.labels, sample.difficult | sample.crowd)


def image_weights(dataset: Dataset, balance: float) -> NDArray[np.float64]:
    """How often each image is drawn, summing to 1: as its rarest class is rare, to the power of `balance`.

    0 draws all alike; with 1 a class of a tenth of the images of the commonest weighs ten times. Images
    without objects count as the commonest.
    """
    present = np.zeros((len(dataset), len(dataset.names)), bool)
    for row, sample in zip(present, dataset.samples, strict=True):
        row[sample.labels[~sample.difficult]] = True
    images = present.sum(0)
    rarity = (images.max(initial=1) / np.maximum(images, 1)) ** balance
    weights = np.where(present, rarity, 1.0).max(1, initial=1.0)
    return np.asarray(weights / weights.sum())


class _Steps(torch_data.Sampler[list[Draw]]):
    """The draws of steps first … last - 1."""

    def __init__(
        self,
        weights: NDArray[np.float64],
        batch: int,
        seed: int,
        first: int,
        last: int,
        size_at: Callable[[int], int],
        mosaic_at: Callable[[int], float],
    ) -> None:
        self.weights, self.batch, self.seed, self.first, self.last = weights, batch, seed, first, last
        self.size_at, self.mosaic_at = size_at, mosaic_at

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[Draw]]:
        return map(self.at, range(self.first, self.last))

    def at(self, step: int) -> list[Draw]:
        size, mosaic = self.size_at(step), self.mosaic_at(step)
        draws = []
        for number in range(step * self.batch, (step + 1) * self.batch):
            rng = np.random.default_rng((self.seed, number, 1))
            others = rng.choice(len(self.weights), 3, p=self.weights) if rng.random() < mosaic else ()
            draws.append(Draw((self._sample(number), *map(int, others)), size, (self.seed, number)))
        return draws

    def _sample(self, number: int) -> int:
        """The image of draw `number`: each epoch is one low-discrepancy pass through the weights, shuffled."""
        count = len(self.weights)
        epoch, place = divmod(number, count)
        if getattr(self, "_epoch", None) != epoch:
            rng = np.random.default_rng((self.seed, epoch, 2))
            points = (np.arange(count) + rng.random()) / count
            order = rng.permutation(count)
            picked = order[np.searchsorted(np.cumsum(self.weights[order]), points).clip(max=count - 1)]
            self._epoch, self._order = epoch, rng.permutation(picked)
        return int(self._order[place])


def _collate(examples: list[Example]) -> Batch:
    images = torch.from_numpy(np.stack([example.image for example in examples])).permute(0, 3, 1, 2)
    rows = [torch.from_numpy(np.concatenate([example[field] for example in examples])) for field in (1, 2, 3)]
    image_index = torch.repeat_interleave(torch.arange(len(examples)), torch.tensor([len(e.boxes) for e in examples]))
    return Batch(images, rows[0], rows[1], rows[2], image_index)


def _start_worker(_number: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches workers too; the loop ends them
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def training_loader(
    images: TrainingImages,
    weights: NDArray[np.float64],
    *,
    batch: int,
    seed: int,
    first: int,
    last: int,
    size_at: Callable[[int], int],
    mosaic_at: Callable[[int], float],
    workers: int,
    pin: bool,
) -> torch_data.DataLoader[Example]:
    """Batches of steps first … last - 1."""
    fork = workers > 0 and "fork" in multiprocessing.get_all_start_methods()
    return torch_data.DataLoader(
        images,
        batch_sampler=_Steps(weights, batch, seed, first, last, size_at, mosaic_at),
        collate_fn=_collate,
        num_workers=workers,
        pin_memory=pin,
        worker_init_fn=_start_worker,
        multiprocessing_context="fork" if fork else None,  # workers share the kept images
    )
