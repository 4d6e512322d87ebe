"""Box geometry: closed forms, inverses, pairs that touch or miss, and torchvision's NMS row for row."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.ops import batched_nms, box_convert
from torchvision.ops import nms as torchvision_nms

from centerdet.boxes import area, clip, convert, flip, iou_matrix, nms
from centerdet.errors import ConfigError

Boxes = NDArray[np.float64]


def _boxes(seed: int, count: int = 200) -> Boxes:
    """Boxes of whole pixels, inside, across and outside of an image of 60 x 100, some empty, some inverted."""
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


FORMS = ("xyxy", "xywh", "cxcywh")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("in_fmt", FORMS)
@pytest.mark.parametrize("out_fmt", FORMS)
def test_conversions_are_inverse_to_each_other_and_torchvisions(in_fmt: str, out_fmt: str, dtype: type) -> None:
    boxes = np.sort(_boxes(6).reshape(-1, 2, 2), axis=1).reshape(-1, 4).astype(dtype)
    boxes.setflags(write=False)
    given = convert(boxes, "xyxy", in_fmt)
    result = convert(given, in_fmt, out_fmt)
    assert result.dtype == dtype and result.base is None
    assert np.array_equal(convert(result, out_fmt, in_fmt), given)  # exact: whole pixels, and halves of them
    np.testing.assert_array_equal(result, box_convert(torch.from_numpy(given.copy()), in_fmt, out_fmt).numpy())
    broken = given + np.float32(1 / 3)
    np.testing.assert_allclose(convert(convert(broken, in_fmt, out_fmt), out_fmt, in_fmt), broken, atol=1e-4)
    assert convert(given[0], in_fmt, out_fmt).tolist() == result[0].tolist()
    assert convert(np.zeros((0, 4)), in_fmt, out_fmt).shape == (0, 4)


def test_unknown_forms_are_errors() -> None:
    for forms in (("xyxy", "yxyx"), ("", "xyxy")):
        with pytest.raises(ConfigError, match="boxes: expected the form xyxy, xywh, cxcywh, got"):
            convert(_boxes(0), *forms)


def _detections(seed: int, step: float) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], float]:
    """Boxes in clusters, on a grid of `step` px, so that many overlap; scores of a few values, many equal."""
    rng = np.random.default_rng(seed)
    count, classes = int(rng.integers(0, 260)), int(rng.integers(1, 21))
    centers = rng.uniform(0, 384, (8, 2))[rng.integers(0, 8, count)] + rng.normal(0, 6, (count, 2))
    sides = rng.uniform(-4, 120, (count, 2))  # some are inverted
    boxes = np.maximum(np.concatenate([centers - sides / 2, centers + sides / 2], 1), 0)
    boxes = np.round(boxes / step) * step
    scores = rng.random(count) if seed % 2 else rng.integers(0, 9, count) / 8
    iou = (0.3, 0.5, 0.6, 0.7, 0.0, 1.0)[seed % 6]
    return boxes.astype(np.float32), scores.astype(np.float32), rng.integers(0, classes, count), iou


@pytest.mark.parametrize("start", range(0, 1000, 100))
def test_nms_keeps_torchvisions_rows_on_a_thousand_sets(start: int) -> None:
    """In its order, equal scores included. On a grid of 1/8 px the offsets by which torchvision takes classes apart are
    exact in float32; elsewhere they round."""
    kept = 0
    for seed in range(start, start + 100):
        boxes, scores, labels, iou = _detections(seed, 1 / 8)
        expected = batched_nms(*map(torch.from_numpy, (boxes, scores, labels)), iou).tolist()
        assert nms(boxes, scores, labels, iou).tolist() == expected, seed
        kept += len(expected)
    assert kept > 1000


@pytest.mark.parametrize("seed", range(100))
def test_nms_is_torchvisions_class_by_class_for_any_numbers(seed: int) -> None:
    boxes, scores, labels, iou = _detections(seed, 1e-4)
    boxes -= 100
    rows = [
        index[torchvision_nms(torch.from_numpy(boxes[index]), torch.from_numpy(scores[index]), iou).numpy()]
        for index in (np.flatnonzero(labels == label) for label in np.unique(labels))
    ]
    expected = np.sort(np.concatenate([np.zeros(0, int), *rows]))
    assert nms(boxes, scores, labels, iou).tolist() == expected[np.argsort(-scores[expected], kind="stable")].tolist()


def test_nms_of_many_boxes_in_blocks() -> None:
    rng = np.random.default_rng(0)
    boxes = rng.integers(0, 300, (3000, 4)).astype(np.float32)
    boxes[:, 2:] = boxes[:, :2] + rng.integers(20, 60, (3000, 2))
    scores, labels = (rng.integers(0, 50, 3000) / 50).astype(np.float32), rng.integers(0, 2, 3000)
    expected = [
        index[torchvision_nms(torch.from_numpy(boxes[index]), torch.from_numpy(scores[index]), 0.5).numpy()]
        for index in (np.flatnonzero(labels == label) for label in (0, 1))
    ]
    assert sorted(nms(boxes, scores, labels, 0.5).tolist()) == sorted(np.concatenate(expected).tolist())


def test_nms_compares_with_the_threshold_itself() -> None:
    """0.6 is not a float32: the nearest one is larger, and an overlap equal to it exceeds 0.6."""
    boxes = np.asarray([[0, 0, 10, 10], [0, 0, 10, 6]], np.float32)
    overlap = iou_matrix(boxes, boxes)[0, 1]
    for iou in (0.6, float(overlap), np.nextafter(float(overlap), 0)):
        expected = torchvision_nms(torch.from_numpy(boxes), torch.tensor([0.9, 0.8]), iou).tolist()
        assert nms(boxes, np.asarray([0.9, 0.8], np.float32), np.zeros(2, int), iou).tolist() == expected


def test_of_equal_scores_the_earlier_row_stays() -> None:
    boxes = np.asarray([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 9, 10]], np.float32)
    assert nms(boxes, np.full(3, 0.5, np.float32), np.zeros(3, int), 0.5).tolist() == [0]
    assert nms(boxes, np.full(3, 0.5, np.float32), np.asarray([0, 1, 0]), 0.5).tolist() == [0, 1]
