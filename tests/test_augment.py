"""Augmented images and their boxes still agree, nothing that is seen is lost, and a seed says it all."""

import os

import numpy as np
import pytest
from numpy.typing import NDArray

from centerdet.training.augment import FILL, REMNANT, SMALLEST, Augment, Example

BACKGROUND = 20
LABELED = np.ones(4, bool)
COLORS = np.asarray([(255, 20, 20), (20, 255, 20), (20, 20, 255), (255, 255, 20)], np.uint8)


def _example(
    label: int, box: tuple[int, int, int, int], height: int = 70, width: int = 90, ignore: bool = False
) -> Example:
    """A dark image with one rectangle in its label's color; nothing of it can be written to."""
    image = np.full((height, width, 3), BACKGROUND, np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = COLORS[label]
    example = Example(
        image, np.asarray([box], np.float32), np.asarray([label], np.int64), np.asarray([ignore]), LABELED
    )
    for array in example:
        array.setflags(write=False)
    return example


def _seen(image: NDArray[np.uint8], label: int) -> NDArray[np.bool_]:
    """The pixels that are more than half of the label's color."""
    return np.abs(image.astype(int) - COLORS[label]).max(-1) < (255 - BACKGROUND) / 2


def _check(example: Example, labels: tuple[int, ...]) -> None:
    size = len(example.image)
    assert example.image.shape == (size, size, 3) and example.image.dtype == np.uint8
    assert example.boxes.dtype == np.float32 and example.labels.dtype == np.int64 and example.ignore.dtype == np.bool_
    assert len(example.boxes) == len(example.labels) == len(example.ignore)
    assert (example.boxes >= 0).all() and (example.boxes <= size).all()
    assert (example.boxes[:, 2:] > example.boxes[:, :2]).all()
    for label in labels:
        rows, columns = np.nonzero(_seen(example.image, label))
        boxes = example.boxes[example.labels == label]
        assert len(boxes) <= 1
        if len(rows):  # what is seen has a box, and to a pixel the right one
            assert len(boxes) == 1
            extent = np.asarray([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            np.testing.assert_allclose(boxes[0], extent, atol=1.0)
        elif len(boxes):
            assert (boxes[0, 2:] - boxes[0, :2]).min() < 1.5


@pytest.mark.parametrize("size", [64, 96])
def test_a_rectangle_and_its_box_agree_to_a_pixel(size: int) -> None:
    augment, random = Augment(color=0), np.random.default_rng(size)
    flipped = 0
    for seed in range(100):
        x, y = random.integers(0, 60), random.integers(0, 45)
        box = (int(x), int(y), int(x + random.integers(6, 30)), int(y + random.integers(6, 25)))
        done = augment(_example(seed % 4, box), size, np.random.default_rng(seed))
        _check(done, (seed % 4,))
        flipped += len(done.boxes)
    assert flipped > 60


def test_whole_images_and_their_mirror_images_are_exact() -> None:
    augment = Augment(zoom=(1, 1), aspect=1, color=0)
    example = _example(0, (3, 10, 64, 33), 64, 64)
    found = set()
    for seed in range(12):
        done = augment(example, 64, np.random.default_rng(seed))
        x1, y1, x2, y2 = done.boxes[0].tolist()
        assert (y1, y2) == (10, 33)
        mask = np.zeros((64, 64), bool)
        mask[10:33, int(x1) : int(x2)] = True
        assert np.array_equal(_seen(done.image, 0), mask)
        found.add((x1, x2))
    assert found == {(3.0, 64.0), (0.0, 61.0)}


def test_remnants_are_ignored_but_not_lost() -> None:
    augment = Augment(zoom=(1.8, 1.8), aspect=1, color=0)
    example = _example(1, (40, 20, 88, 66))
    whole = 48 * 46 * (96 / 90 * 1.8) * (96 / 70 * 1.8)
    shares = []
    for seed in range(150):
        done = augment(example, 96, np.random.default_rng(seed))
        _check(done, (1,))
        if not len(done.boxes):
            continue
        sides = done.boxes[0, 2:] - done.boxes[0, :2]
        share = sides.prod() / whole
        shares.append(share)
        if share < REMNANT - 0.03 or sides.min() < SMALLEST:
            assert done.ignore[0]
        elif share > REMNANT + 0.03:
            assert not done.ignore[0]
    assert min(shares) < REMNANT - 0.05 and max(shares) > REMNANT + 0.3


def test_small_objects_are_ignored_and_ignored_ones_stay_so() -> None:
    augment = Augment(zoom=(0.5, 0.5), aspect=1, color=0)
    small = augment(_example(0, (10, 10, 14, 40)), 64, np.random.default_rng(1))
    assert small.ignore.tolist() == [True] and (small.boxes[0, 2] - small.boxes[0, 0]) < SMALLEST
    for ignore in (False, True):
        large = augment(_example(0, (10, 10, 60, 60), ignore=ignore), 64, np.random.default_rng(1))
        assert large.ignore.tolist() == [ignore]


def test_around_a_small_image_lies_plain_gray() -> None:
    done = Augment(zoom=(0.5, 0.5), aspect=1, color=0)(_example(0, (0, 0, 90, 70)), 64, np.random.default_rng(0))
    assert (done.image[~_seen(done.image, 0)] == FILL).all()
    assert _seen(done.image, 0).sum() == 32 * 32


def test_the_seed_defines_everything_and_inputs_stay() -> None:
    example = _example(0, (5, 8, 50, 40))
    before = [array.copy() for array in example]
    first, again, other = (Augment()(example, 64, np.random.default_rng((7, seed))) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first.image, other.image)
    augment = Augment()
    augment(example, 64, np.random.default_rng(9))  # earlier draws have no effect
    later = augment(example, 64, np.random.default_rng((7, 1)))
    assert all(np.array_equal(a, b) for a, b in zip(first, later, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(example, before, strict=True))


def test_color_changes_pixels_alone() -> None:
    example = _example(0, (5, 8, 50, 40))
    plain, colored = (Augment(color=color)(example, 64, np.random.default_rng(3)) for color in (0.0, 0.4))
    assert not np.array_equal(plain.image, colored.image)
    ends = plain.boxes[:, [0, 2]]
    assert any(np.allclose(colored.boxes[:, [0, 2]], columns) for columns in (ends, 64 - ends[:, ::-1]))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (500, 2)])
def test_images_of_any_shape_and_without_objects(height: int, width: int) -> None:
    image = np.full((height, width, 3), 200, np.uint8)
    empty = Example(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool), LABELED)
    for seed in range(10):
        done = Augment()(empty, 64, np.random.default_rng(seed))
        assert done.image.shape == (64, 64, 3) and done.boxes.shape == (0, 4)
        assert done.labels.shape == done.ignore.shape == (0,)


def test_albumentations_is_told_not_to_ask_the_network() -> None:
    assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"
