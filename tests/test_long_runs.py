"""Runs that last, and results that depend on nothing but image and weights.

`scripts/long_runs.py` predicts a hundred thousand images; test_scripts.py runs it briefly.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from exporting import exported, noise
from numpy.typing import NDArray
from test_detector import _check_same
from tiny import tiny_config, tiny_detector

from centerdet import Detector
from centerdet.data.formats import read_dataset
from centerdet.data.sample import Dataset
from centerdet.data.shapes import SHAPE_NAMES, write_shapes
from centerdet.evaluation.evaluation import evaluate
from centerdet.training.loop import train
from centerdet.training.progress import Progress

IMAGES = list(noise(12, 80))


def load(kind: str, threads: int | None = None) -> Detector:
    return tiny_detector(threads=threads) if kind == "pytorch" else Detector.load(exported(), threads=threads)


KINDS = ("pytorch", pytest.param("onnx", marks=pytest.mark.soak))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threads", [None, pytest.param(1, marks=pytest.mark.soak)])
def test_eight_threads_get_the_results_of_one(kind: str, threads: int | None) -> None:
    detector = load(kind, threads)
    alone = [detector.predict(image) for image in IMAGES]

    def work(first: int) -> None:
        for number in range(first, first + len(IMAGES)):
            place = number % len(IMAGES)
            _check_same(detector.predict(IMAGES[place]), alone[place])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


@pytest.mark.parametrize("kind", KINDS)
def test_neither_batch_nor_order_nor_threads_change_results(kind: str) -> None:
    detector = load(kind)
    alone = [detector.predict(image) for image in IMAGES]
    order = np.random.default_rng(0).permutation(len(IMAGES))
    for size in (1, 3, len(IMAGES)):
        for start in range(0, len(IMAGES), size):
            chosen = order[start : start + size]
            for number, one in zip(chosen, detector.predict_batch([IMAGES[n] for n in chosen]), strict=True):
                _check_same(one, alone[number])
    for threads in (1, 2):
        for image, expected in zip(IMAGES[:4], alone, strict=False):
            _check_same(load(kind, threads).predict(image), expected)


def test_the_order_of_images_changes_no_ap(tmp_path: Path) -> None:
    write_shapes(tmp_path / "data", train=1, val=12, size=64)
    dataset = read_dataset(tmp_path / "data", ["val"], notice=lambda _: None)
    detector = tiny_detector(SHAPE_NAMES)

    def scores(samples: list[int]) -> NDArray[np.float64]:
        result = evaluate(detector, Dataset([dataset.samples[number] for number in samples], dataset.names))
        return np.array([*result.voc.ap, result.voc.mean_ap], float)

    numbers = list(range(len(dataset)))
    np.testing.assert_array_equal(scores(numbers), scores(numbers[::-1]))


@pytest.mark.soak
@pytest.mark.alone
def test_two_hundred_epochs_do_not_grow_the_process(tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    write_shapes(tmp_path / "data", train=8, val=4, size=64, seed=1)
    process, memory, files = psutil.Process(os.getpid()), [], []

    def measure(progress: Progress) -> None:
        if progress.step in (50, 200):
            memory.append(process.memory_info().rss)
            files.append(process.num_fds())

    changes = {"epochs": 200, "batch": 8, "val": ("val",), "val_every": 25, "checkpoint_every": 10, "workers": 0}
    torch.set_num_threads(1)
    train(tiny_config(tmp_path / "data", tmp_path / "run", **changes), progress=measure)
    assert len(memory) == 2 and memory[1] < 1.02 * memory[0], memory
    assert files[1] <= files[0], files
