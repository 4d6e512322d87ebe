"""Batches for training: the images of every step depend only on (seed, draw index).

So the stream is the same with any number of workers and processes, and a run resumed at step k draws the same images
as a run without a stop. Batches: images (B, 3, S, S) uint8 and `codec.Targets`, both computed by the workers.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import data as torch_data

from ..codec import Targets, encode
from ..data.pack import read_sample
from ..errors import CenterdetError, ConfigError
from .augment import Augment, Example
from .mixture import Mixture

__all__ = ["Batch", "Schedule", "TrainingImages", "training_loader"]

SHARE_OF_MEMORY = 0.5  # largest part of the free memory for cached images


class Batch(NamedTuple):
    """images (B, 3, S, S) uint8 and targets, with the targets' source: boxes (M, 4) px, labels, ignore, image_index."""

    images: Tensor
    targets: Targets
    boxes: Tensor
    labels: Tensor
    ignore: Tensor
    image_index: Tensor


class Draw(NamedTuple):
    """A training image to compute: index of the sample, input size in px, and seed."""

    sample: int
    size: int
    seed: tuple[int, int]


@dataclass(frozen=True)
class Schedule:
    """The input size of every step: each of `sizes` for an equal part of `steps`."""

    steps: int
    sizes: tuple[int, ...]

    def size_at(self, step: int) -> int:
        """The input size of a step in px."""
        return self.sizes[min(step * len(self.sizes) // self.steps, len(self.sizes) - 1)]


class TrainingImages(torch_data.Dataset[Example | CenterdetError]):
    """Samples as augmented training images, addressed by `Draw`; a broken image is returned as its error.

    Args:
        cache_size: larger images are shrunk to this longer side (px) when read, and so are interpolated twice.
        cache: keep the shrunk images in up to half of the free memory; the others are read again for every draw, and so
            are packed images, which need no decoding.
        reading: called with the number of images in memory and the number of all images that are not packed.
    """

    def __init__(
        self,
        mixture: Mixture,
        augment: Augment,
        cache_size: int,
        cache: bool = True,
        reading: Callable[[int, int], object] | None = None,
    ) -> None:
        self.mixture, self.augment, self.cache_size = mixture, augment, cache_size
        self.cached: dict[int, Example] = {}
        for pack in {sample.packed[0] for sample in mixture.samples if sample.packed}:
            if pack.size < cache_size and max(map(max, pack.sizes)) > pack.size:
                raise ConfigError(
                    f"data: training reads images of up to {cache_size} px (1.25 times the largest of `sizes`), but "
                    f"{pack.folder} has them at {pack.size} px: lower sizes, or pack again with --size {cache_size}"
                )
        files = [number for number, sample in enumerate(mixture.samples) if not sample.packed] if cache else []
        if files:
            room = SHARE_OF_MEMORY * _free_memory()
            with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
                for number, example in zip(files, pool.map(self._read, files), strict=True):
                    room -= example.image.nbytes
                    if room < 0:
                        pool.shutdown(cancel_futures=True)
                        break
                    self.cached[number] = example
                    if reading:
                        reading(len(self.cached), len(files))

    def __getitem__(self, draw: Draw) -> Example | CenterdetError:
        try:
            example = self.cached.get(draw.sample) or self._read(draw.sample)
        except CenterdetError as error:  # an exception raised in a worker would contain its whole traceback
            return error
        return self.augment(example, draw.size, np.random.default_rng(draw.seed))

    def _read(self, number: int) -> Example:
        sample = self.mixture.samples[number]
        image, (height, width) = read_sample(sample, self.cache_size)
        boxes = sample.boxes * np.array([image.shape[1] / width, image.shape[0] / height] * 2)
        labeled = self.mixture.labeled[number]
        return Example(image, boxes.astype(np.float32), sample.labels, sample.ignored, labeled)


class _Steps(torch_data.Sampler[list[Draw]]):
    """For each of `steps`, the draws of this process."""

    def __init__(
        self,
        weights: NDArray[np.float64],
        schedule: Schedule,
        batch: int,
        seed: int,
        steps: range,
        rank: int,
        world_size: int,
    ) -> None:
        self.weights, self.schedule, self.batch, self.seed, self.steps = weights, schedule, batch, seed, steps
        self.rank, self.world_size = rank, world_size
        self.epoch, self.order = -1, np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[Draw]]:
        return map(self.at, self.steps)

    def at(self, step: int) -> list[Draw]:
        size, together = self.schedule.size_at(step), self.batch * self.world_size
        numbers = range(step * together + self.rank, (step + 1) * together, self.world_size)
        return [Draw(self._sample(number), size, (self.seed, number)) for number in numbers]

    def _sample(self, number: int) -> int:
        """The image of draw `number`; each epoch is one shuffled low-discrepancy sample of the weights.

        N equidistant points are looked up in the cumulative sum of the weights, with the images in random order. An
        image of weight w is drawn floor(w * N) or ceil(w * N) times in an epoch of N draws.
        """
        epoch, place = divmod(number, len(self.weights))
        if epoch != self.epoch:
            rng = np.random.default_rng((self.seed, epoch, 2))
            points = (np.arange(len(self.weights)) + rng.random()) / len(self.weights)
            order = rng.permutation(len(self.weights))
            drawn = order[np.searchsorted(np.cumsum(self.weights[order]), points).clip(max=len(order) - 1)]
            self.epoch, self.order = epoch, rng.permutation(drawn)
        return int(self.order[place])


class _Collate:
    """Examples to a `Batch`, or to the first error among them."""

    def __init__(self, stride: int) -> None:
        self.stride = stride

    def __call__(self, examples: Sequence[Example | CenterdetError]) -> Batch | CenterdetError:
        if broken := [one for one in examples if isinstance(one, CenterdetError)]:
            return broken[0]
        good = [one for one in examples if isinstance(one, Example)]
        images = torch.from_numpy(np.stack([example.image for example in good])).permute(0, 3, 1, 2)
        boxes, labels, ignore = (torch.from_numpy(np.concatenate([one[field] for one in good])) for field in (1, 2, 3))
        image_index = torch.repeat_interleave(torch.arange(len(good)), torch.tensor([len(one.boxes) for one in good]))
        labeled = torch.from_numpy(np.stack([example.labeled for example in good]))
        targets = encode(
            boxes, labels, ignore, image_index, batch=len(good), num_classes=labeled.shape[1],
            grid=images.shape[-1] // self.stride, stride=self.stride, labeled=labeled,
        )  # fmt: skip
        return Batch(images, targets, boxes, labels, ignore, image_index)


def training_loader(
    images: TrainingImages,
    mixture: Mixture,
    schedule: Schedule,
    *,
    batch: int,
    seed: int,
    stride: int,
    steps: range,
    workers: int = 0,
    pin: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> torch_data.DataLoader[Any]:
    """A loader that yields a `Batch`, or the error of a broken image, for each step.

    Each of `world_size` processes gets `batch` images per step.
    """
    return torch_data.DataLoader(
        images,
        batch_sampler=_Steps(mixture.weights, schedule, batch, seed, steps, rank, world_size),
        collate_fn=_Collate(stride),
        num_workers=workers,
        pin_memory=pin,
        worker_init_fn=_start_worker,
        # On Linux, forked workers share the cached images. On other systems, forking with other threads is unsafe.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
    )


def _start_worker(_number: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches workers too; the loop ends them
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def _free_memory() -> int:
    """Bytes available without swapping; 4 GiB on systems that do not report it."""
    file = Path("/proc/meminfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), 4 << 30)
