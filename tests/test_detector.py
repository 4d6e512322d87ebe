"""One picture gives one answer, whatever it comes as and whatever comes with it."""

import io
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tiny import NAMES, tiny_detector

from centerdet import Detections, Detector
from centerdet.boxes import area, iou_matrix
from centerdet.errors import ImageError

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def detector() -> Detector:
    return tiny_detector()


def _photo(height: int = 60, width: int = 90, seed: int = 0) -> Pixels:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def _check_same(first: Detections, second: Detections) -> None:
    for name in ("boxes", "scores", "labels"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name
    assert (first.names, first.size) == (second.names, second.size)


def test_a_batch_gives_exactly_what_single_calls_give(detector: Detector) -> None:
    pictures = [_photo(60, 90, 0), _photo(40, 30, 1), _photo(200, 64, 2)]
    together = detector.predict_batch(pictures, score_threshold=0.0)
    assert len(together) == 3
    for picture, found in zip(pictures, together, strict=True):
        _check_same(detector.predict(picture, score_threshold=0.0), found)
    assert detector.predict_batch([]) == []
    assert detector.predict_batch(iter(pictures[:1]))[0].size == (60, 90)


def test_path_bytes_array_pil_and_tensor_are_one_picture(detector: Detector, tmp_path: Path) -> None:
    pixels = _photo()
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    expected = detector.predict(pixels, score_threshold=0.0)
    assert len(expected.scores) > 10
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    for source in (path, str(path), path.read_bytes(), Image.open(path), Image.fromarray(pixels), tensor):
        _check_same(detector.predict(source, score_threshold=0.0), expected)
    _check_same(detector.predict(pixels[..., ::-1].copy(), score_threshold=0.0, color="bgr"), expected)
    wrong = detector.predict(pixels[..., ::-1].copy(), score_threshold=0.0)
    assert not np.array_equal(wrong.scores, expected.scores)
    assert detector.predict(path).source == str(path) and detector.predict(pixels).source is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_and_its_exif_rotated_copy_agree(detector: Detector, orientation: int) -> None:
    pixels = _photo()
    stored = pixels  # undo what a viewer does for this orientation
    if orientation in (2, 3, 6, 7):
        stored = stored[:, ::-1]
    if orientation in (3, 4, 7, 8):
        stored = stored[::-1]
    if orientation >= 5:
        stored = stored.swapaxes(0, 1)
    image, file = Image.fromarray(np.ascontiguousarray(stored)), io.BytesIO()
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(file, "PNG", exif=exif)
    _check_same(detector.predict(file.getvalue(), score_threshold=0.0), detector.predict(pixels, score_threshold=0.0))


def test_inputs_may_be_read_only_and_stay(detector: Detector) -> None:
    pixels = _photo()
    before = pixels.copy()
    pixels.setflags(write=False)
    _check_same(detector.predict(pixels, score_threshold=0.0), detector.predict(before, score_threshold=0.0))
    detector.predict(pixels[:, ::-1], score_threshold=0.0)  # strides may be negative
    assert np.array_equal(pixels, before)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (8000, 50), (50, 8000), (2, 3)])
def test_pictures_of_any_shape(detector: Detector, height: int, width: int) -> None:
    found = detector.predict(_photo(height, width), score_threshold=0.0)
    assert found.size == (height, width)
    assert 0 < len(found.scores) <= 100
    assert (found.boxes >= 0).all() and (found.boxes <= [width, height, width, height]).all()
    assert (found.boxes[:, 2:] >= found.boxes[:, :2]).all()


def test_what_is_found_is_sorted_limited_and_without_doubles(detector: Detector) -> None:
    found = detector.predict(_photo(), score_threshold=0.0)
    assert (found.boxes.dtype, found.scores.dtype, found.labels.dtype) == (np.float32, np.float32, np.int64)
    assert (np.diff(found.scores) <= 0).all() and found.names == NAMES and found.labels.max() < len(NAMES)
    overlap = np.triu(iou_matrix(found.boxes, found.boxes), 1)
    clipped = (found.boxes <= 0) | (found.boxes >= [90, 60, 90, 60])  # overlap is judged before clipping
    inner = ~clipped.any(1) & (area(found.boxes) > 0)
    pairs = inner[:, None] & inner & (found.labels[:, None] == found.labels)
    assert (overlap[pairs] <= detector.nms_iou + 1e-4).all()


def test_the_threshold_selects_and_changes_nothing_else(detector: Detector) -> None:
    whole = detector.predict(_photo(), score_threshold=0.0)
    middle = float(whole.scores[len(whole.scores) // 2])
    some = detector.predict(_photo(), score_threshold=middle)
    count = int((whole.scores >= middle).sum())
    assert 0 < count < len(whole.scores)
    assert np.array_equal(some.boxes, whole.boxes[:count]) and np.array_equal(some.scores, whole.scores[:count])
    none = detector.predict(_photo(), score_threshold=1.0)
    assert none.boxes.shape == (0, 4) and none.scores.shape == none.labels.shape == (0,)


def test_predicting_leaves_the_network_and_the_random_state_alone(detector: Detector) -> None:
    before = {key: value.clone() for key, value in detector.network.state_dict().items()}
    random = torch.get_rng_state()
    detector.predict(_photo())
    assert not detector.network.training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[key]) for key, value in detector.network.state_dict().items())


def test_bad_pictures_are_errors(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"none\.jpg"):
        detector.predict(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match="want uint8"):
        detector.predict(np.full((5, 5, 3), np.nan, np.float32))
    text = tmp_path / "text.jpg"
    text.write_text("not a picture")
    with pytest.raises(ImageError, match=r"text\.jpg"):
        detector.predict_batch([_photo(), text])


@pytest.mark.soak
def test_a_thousand_predictions_do_not_grow_the_process(detector: Detector) -> None:
    psutil = pytest.importorskip("psutil")
    process, pictures = psutil.Process(os.getpid()), [_photo(400, 600, seed) for seed in range(8)]
    found, resident = [], []
    for number in range(1200):
        found.append(detector.predict(pictures[number % 8], score_threshold=0.0))
        if number in (200, 1199):
            resident.append(process.memory_info().rss)
    kept = sum(one.boxes.nbytes + one.scores.nbytes + one.labels.nbytes for one in found)
    assert kept < 4 * 2**20
    assert resident[1] - resident[0] < kept + 8 * 2**20
