"""Perfect predictions reach everything but what a cell, NMS or the limit of 100 cannot hold."""

from pathlib import Path

import numpy as np
import pytest

from centerdet.data.formats import read_dataset
from centerdet.data.sample import Dataset, Sample
from centerdet.errors import ConfigError
from centerdet.inspection.ceiling import measure_ceiling

NAMES = ("cat", "dog", "cow")
BIG, INSIDE = (8.0, 8, 56, 56), (26.0, 26, 38, 38)  # of one center


def make(*objects: tuple[tuple[float, ...], int], difficult: tuple[int, ...] = (), size: int = 64) -> Dataset:
    boxes = np.array([box for box, _ in objects], np.float64).reshape(-1, 4)
    labels = np.array([label for _, label in objects], np.int64)
    hard = np.isin(np.arange(len(objects)), difficult)
    return Dataset([Sample(Path("a.jpg"), boxes, labels, hard, size=(size, size))], NAMES)


def measure(data: Dataset, size: int = 64, stride: int = 8) -> tuple[float | None, int, int, int]:
    found = measure_ceiling(data, size=size, stride=stride)
    assert (found["size"], found["stride"]) == (size, stride)
    return found["voc-area"], found["objects"], found["without own cell"], found["lost"]


@pytest.mark.parametrize("stride", [4, 8])
def test_objects_apart_are_all_found_whatever_the_images_size(stride: int) -> None:
    random = np.random.default_rng(0)
    samples = []
    for number in range(20):
        height, width = (int(side) for side in random.integers(30, 900, 2))
        cells = random.permutation(16)[: number % 9]  # of 4 x 4: no box leaves its own
        centers = (np.stack([cells % 4, cells // 4], 1) + random.uniform(0.45, 0.55, (len(cells), 2))) / 4
        sides = random.uniform(0.02, 0.11, (len(cells), 2))
        boxes = np.concatenate([centers - sides, centers + sides], 1) * [width, height, width, height]
        samples.append(Sample(Path(f"{number}.jpg"), boxes, random.integers(0, 3, len(cells)), size=(height, width)))
    objects = sum(len(sample.boxes) for sample in samples)
    assert measure(Dataset(samples, NAMES), 128, stride) == (1.0, objects, 0, 0)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (make(), (None, 0, 0, 0)),
        (make((BIG, 0), (INSIDE, 0)), (0.5, 2, 1, 1)),
        (make((BIG, 0), (INSIDE, 1)), (0.5, 2, 1, 1)),  # the cat's peak says the dog's box
        (make((BIG, 0), (INSIDE, 1), difficult=(1,)), (1.0, 1, 0, 0)),
        (make((BIG, 0), (BIG, 0)), (0.5, 2, 1, 1)),
        (make((BIG, 0), (BIG, 1)), (1.0, 2, 1, 0)),
        (make((BIG, 0), ((16.0, 8, 64, 56), 0)), (0.5, 2, 0, 1)),  # NMS, IoU 0.71
        (make((BIG, 0), ((16.0, 8, 64, 56), 1)), (1.0, 2, 0, 0)),
    ],
)
def test_what_is_lost_and_why(data: Dataset, expected: tuple[float | None, int, int, int]) -> None:
    assert measure(data) == expected


def test_more_than_a_hundred_objects_are_too_many() -> None:
    places = [(16.0 * x, 16.0 * y, 16.0 * x + 12, 16.0 * y + 12) for x in range(11) for y in range(11)]
    area, objects, crowded, lost = measure(make(*((place, 0) for place in places), size=192), 192)
    assert (objects, crowded, lost) == (121, 0, 21) and area == pytest.approx(100 / 121)


def test_a_size_that_the_stride_does_not_divide_is_refused() -> None:
    for size, stride in ((60, 8), (64, 0), (4, 8)):
        with pytest.raises(ConfigError, match="multiple of the stride"):
            measure_ceiling(make((BIG, 0)), size=size, stride=stride)


def test_photographs_are_not_crowded(voc_root: Path) -> None:
    seen = []

    def progress(samples: object) -> object:
        for sample in samples:  # type: ignore[attr-defined]
            seen.append(sample)
            yield sample

    found = measure_ceiling(read_dataset(voc_root, ["2012:extra"]), size=320, stride=8, progress=progress)
    assert len(seen) == 170 and found["voc-area"] > 0.98 and found["lost"] < 0.01 * found["objects"]
