"""Box geometry: closed forms, inverses and what touches or misses."""

import numpy as np
import pytest
from numpy.typing import NDArray

from centerdet.boxes import area, clip, flip, iou_matrix

Boxes = NDArray[np.float64]


def _boxes(seed: int, count: int = 200) -> Boxes:
    """Boxes of whole pixels, inside, across and outside of a image of 60 x 100, some empty, some inverted."""
    return np.random.default_rng(seed).integers(-40, 140, (count, 4)).astype(np.float64)


def test_area_counts_pixels_and_inverted_boxes_have_none() -> None:
    boxes = _boxes(0)
    assert area(boxes).tolist() == [max(x2 - x1, 0) * max(y2 - y1, 0) for x1, y1, x2, y2 in boxes]


def test_clipping_keeps_what_is_inside() -> None:
    boxes = np.sort(_boxes(1).reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    seen = clip(boxes, 100, 60)
    assert (seen >= 0).all() and (seen <= [60, 100, 60, 100]).all()
    assert np.array_equal(clip(seen, 100, 60), seen)
    mask = np.zeros((180, 180), bool)
    mask[40:140, 40:100] = True  # the image, in coordinates that begin at -40
    for (x1, y1, x2, y2), kept in zip((boxes + 40).astype(int), area(seen), strict=True):
        assert mask[y1:y2, x1:x2].sum() == kept


def test_flipping_twice_is_the_identity() -> None:
    boxes = _boxes(2)
    assert np.array_equal(flip(flip(boxes, 60), 60), boxes)
    assert np.array_equal(area(flip(boxes, 60)), area(boxes))


def test_a_flipped_box_holds_the_flipped_pixels() -> None:
    mask = np.zeros((5, 9), bool)
    mask[1:3, 2:6] = True
    x1, y1, x2, y2 = flip(np.asarray([2.0, 1.0, 6.0, 3.0]), 9).astype(int)
    mirrored = np.zeros_like(mask)
    mirrored[y1:y2, x1:x2] = True
    assert np.array_equal(mirrored, mask[:, ::-1])


def test_iou_is_symmetric_and_between_0_and_1() -> None:
    first, second = _boxes(3, 50), _boxes(4, 30)
    iou = iou_matrix(first, second)
    assert np.array_equal(iou, iou_matrix(second, first).T)
    proper = np.ix_(area(first) > 0, area(second) > 0)
    assert (iou[proper] >= 0).all() and (iou[proper] <= 1).all()
    assert np.array_equal(iou_matrix(first, first).diagonal(), (area(first) > 0).astype(float))


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ((0, 0, 10, 10), 1.0),
        ((5, 0, 15, 10), 1 / 3),
        ((10, 0, 20, 10), 0.0),  # touching is not overlapping
        ((2, 2, 7, 7), 0.25),
        ((4, 4, 4, 9), 0.0),  # empty
    ],
)
def test_iou_of_known_pairs(other: tuple[int, ...], expected: float) -> None:
    assert iou_matrix(np.asarray([[0.0, 0, 10, 10]]), np.asarray([other], float)).item() == pytest.approx(expected)


def test_no_boxes_are_normal() -> None:
    none, some = np.zeros((0, 4)), _boxes(5, 3)
    assert area(none).shape == (0,) and clip(none, 5, 5).shape == flip(none, 5).shape == (0, 4)
    assert iou_matrix(none, some).shape == (0, 3) and iou_matrix(some, none).shape == (3, 0)


def test_inputs_stay_and_dtypes_are_kept() -> None:
    boxes = np.asarray([[-3, 2, 90, 8]], np.float32)
    boxes.setflags(write=False)
    for result in (area(boxes), clip(boxes, 10, 60), flip(boxes, 60), iou_matrix(boxes, boxes)):
        assert result.dtype == np.float32
    assert boxes.tolist() == [[-3, 2, 90, 8]]
