"""What several tests share: a network, a detector and training options as small as they go."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from centerdet import Detector
from centerdet.metrics.score_map import Calibration
from centerdet.models import Network
from centerdet.runtimes.pytorch import PyTorchRuntime, halve

if TYPE_CHECKING:
    from centerdet import TrainConfig

NAMES = ("circle", "square", "triangle")
MODEL: dict[str, Any] = {"backbone": "efficientnet_lite0", "stride": 8, "channels": 16, "freeze": 2}


def tiny_network(num_classes: int = len(NAMES), **changes: Any) -> Network:
    """Random weights, the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Network(num_classes, **{**MODEL, **changes})


def tiny_detector(names: tuple[str, ...] = NAMES, size: int = 64, threads: int | None = None) -> Detector:
    """It detects a hundred things everywhere; its numbers fit in half precision."""
    network = halve(tiny_network(len(names)))
    return Detector(PyTorchRuntime(network, names, size, device="cpu", threads=threads))


def tiny_calibration(names: tuple[str, ...] = NAMES) -> Calibration:
    """A map of each class of its own: the n-th one raises scores to the power 1 / (n + 1), on 65 knots."""
    scores, levels = np.linspace(0, 1, 65), np.linspace(0, 1, 21)
    powers = 1 / (1 + np.arange(len(names)))[:, None]
    return Calibration(names, scores, scores**powers, np.linspace(0.1, 0.9, len(names)), levels**2 * powers, "drawn")


def tiny_config(data: Path, out: Path, **changes: Any) -> "TrainConfig":
    """A few steps of two images of 64 px, from random weights."""
    from centerdet import TrainConfig

    options: dict[str, Any] = {
        "data": str(data), "out": str(out), "val": (), "backbone_weights": "none", "channels": 16, "freeze": 3,
        "epochs": 1.0, "batch": 2, "sizes": (64,), "warmup": 2, "checkpoint_every": 2, "device": "cpu",
    }  # fmt: skip
    return TrainConfig.of(**{**options, **changes})


@contextmanager
def full_disk(largest: int) -> Iterator[None]:
    """No file can grow beyond `largest` bytes: as on a full disk, a part of it can be written."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
