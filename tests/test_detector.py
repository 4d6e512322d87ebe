"""One image gives one answer, whatever it comes as and whatever comes with it."""

import io
import os
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tiny import NAMES, tiny_detector

from centerdet import Detections, Detector
from centerdet.boxes import area, iou_matrix
from centerdet.errors import ConfigError, DataError, ImageError

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
    images = [_photo(60, 90, 0), _photo(40, 30, 1), _photo(200, 64, 2)]
    together = detector.predict_batch(images, score_threshold=0.0)
    assert len(together) == 3
    for image, found in zip(images, together, strict=True):
        _check_same(detector.predict(image, score_threshold=0.0), found)
    assert detector.predict_batch([]) == []
    assert detector.predict_batch(iter(images[:1]))[0].size == (60, 90)


def test_path_bytes_array_pil_and_tensor_are_one_image(detector: Detector, tmp_path: Path) -> None:
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
def test_a_image_and_its_exif_rotated_copy_agree(detector: Detector, orientation: int) -> None:
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
def test_images_of_any_shape(detector: Detector, height: int, width: int) -> None:
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


def test_bad_images_are_errors(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"none\.jpg"):
        detector.predict(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match="want uint8"):
        detector.predict(np.full((5, 5, 3), np.nan, np.float32))
    text = tmp_path / "text.jpg"
    text.write_text("not a image")
    with pytest.raises(ImageError, match=r"text\.jpg"):
        detector.predict_batch([_photo(), text])


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_thresholds_outside_of_scores_are_refused(detector: Detector, threshold: float) -> None:
    for call in (detector.predict_batch, detector.stream):
        with pytest.raises(ConfigError, match="score_threshold: want 0 to 1"):
            call([], score_threshold=threshold)  # type: ignore[operator]


def test_a_stream_gives_what_single_calls_give_and_errors_in_their_places(detector: Detector, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        Image.fromarray(_photo(40, 60, number)).save(path)
    for number in (0, 2, 4):
        paths[number].write_bytes(paths[number].read_bytes()[:100])
    found = list(detector.stream(tmp_path, score_threshold=0))
    assert [where for where, _ in found] == list(map(str, paths))
    for number, (path, (_, one)) in enumerate(zip(paths, found, strict=True)):
        if number % 2:
            assert isinstance(one, Detections)
            _check_same(one, detector.predict(path, score_threshold=0))
            assert one.source == str(path)
        else:
            assert isinstance(one, ImageError)
    (where, image, one), *_ = detector.stream_images([_photo()])
    assert where == "image 0" and isinstance(one, Detections) and one.source is None
    assert np.array_equal(image, _photo())


def test_sources_that_cannot_be_meant_are_raised_before_the_first_image(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images"):
        detector.stream(tmp_path)
    with pytest.raises(ConfigError, match="allow_urls"):
        detector.stream("http://127.0.0.1/a.jpg")


def test_views_go_through_the_network_together(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    hook = detector.network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    images: list[Any] = [_photo(seed=seed) for seed in range(5)]
    images.insert(2, b"broken")
    single = [one for _, one in detector.stream(images)]
    monkeypatch.setattr(detector, "_together", 3)  # as with CUDA
    together = [one for _, one in detector.stream(images)]
    hook.remove()
    assert sizes == [1, 1, 1, 1, 1, 3, 2]
    assert isinstance(single[2], ImageError) and isinstance(together[2], ImageError)
    for one, other in zip(single, together, strict=True):
        if isinstance(one, Detections) and isinstance(other, Detections):
            np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)


def _endless(taken: list[int]) -> Iterator[Pixels]:
    while True:
        taken.append(1)
        yield _photo(seed=len(taken) % 8)


def test_a_stream_is_read_little_ahead_and_ends_with_its_reader(detector: Detector) -> None:
    taken: list[int] = []
    for number, _ in enumerate(detector.stream(_endless(taken))):
        assert len(taken) <= number + 6  # four decoded, one in the network
        if number == 10:
            break
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("centerdet-sources")]


def test_threads_are_limited_while_predicting_and_put_back() -> None:
    limited = Detector(tiny_detector().network, NAMES, 64, device="cpu", threads=1)
    before = torch.get_num_threads(), cv2.getNumThreads()
    seen: list[tuple[int, int]] = []

    def note(*_: object) -> None:
        seen.append((torch.get_num_threads(), cv2.getNumThreads()))
        if len(seen) == 2:
            raise KeyError("on purpose")

    limited.network.register_forward_pre_hook(note)
    try:
        torch.set_num_threads(3)
        cv2.setNumThreads(2)
        limited.predict(_photo())
        with pytest.raises(KeyError, match="on purpose"):
            limited.predict(_photo())
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (3, 2)
        callers = [threading.Thread(target=limited.predict_batch, args=([_photo()] * 5,)) for _ in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert seen == [(1, 1)] * 22
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (3, 2)
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
    with pytest.raises(ConfigError, match="threads"):
        Detector(limited.network, NAMES, 64, device="cpu", threads=0)


@pytest.mark.soak
@pytest.mark.parametrize("tile", [None, 400])
def test_a_long_stream_does_not_grow_the_process(detector: Detector, tile: int | None) -> None:
    psutil = pytest.importorskip("psutil")
    process, resident = psutil.Process(os.getpid()), []
    stream = detector.stream((_photo(400, 600, seed % 8) for seed in range(10**9)), tile=tile)
    for number, _ in enumerate(islice(stream, 1000)):
        if number in (200, 999):
            resident.append(process.memory_info().rss)
    assert resident[1] - resident[0] < 8 * 2**20


@pytest.mark.soak
def test_a_thousand_predictions_do_not_grow_the_process(detector: Detector) -> None:
    psutil = pytest.importorskip("psutil")
    process, images = psutil.Process(os.getpid()), [_photo(400, 600, seed) for seed in range(8)]
    found, resident = [], []
    for number in range(1200):
        found.append(detector.predict(images[number % 8], score_threshold=0.0))
        if number in (200, 1199):
            resident.append(process.memory_info().rss)
    kept = sum(one.boxes.nbytes + one.scores.nbytes + one.labels.nbytes for one in found)
    assert kept < 4 * 2**20
    assert resident[1] - resident[0] < kept + 8 * 2**20
