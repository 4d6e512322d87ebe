"""One image gives one answer, whatever it comes as and whatever comes with it."""

import io
import os
import subprocess
import sys
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
from tiny import NAMES, tiny_detector, tiny_network

from centerdet import Detections, Detector
from centerdet.boxes import area, iou_matrix
from centerdet.errors import ConfigError, DataError, ImageError
from centerdet.images import Geometry
from centerdet.runtimes import Outputs, Runtime
from centerdet.runtimes.pytorch import PyTorchRuntime

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
    assert isinstance(detector.runtime, PyTorchRuntime)
    network, graph = detector.runtime.network, detector.runtime.graph
    before = {key: value.clone() for key, value in (network.state_dict() | graph.state_dict()).items()}
    random = torch.get_rng_state()
    detector.predict(_photo())
    assert not graph.training
    assert torch.equal(torch.get_rng_state(), random)
    after = network.state_dict() | graph.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_bad_images_are_errors(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"none\.jpg"):
        detector.predict(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match="expected uint8"):
        detector.predict(np.full((5, 5, 3), np.nan, np.float32))
    text = tmp_path / "text.jpg"
    text.write_text("not an image")
    with pytest.raises(ImageError, match=r"text\.jpg"):
        detector.predict_batch([_photo(), text])


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_thresholds_outside_of_scores_are_refused(detector: Detector, threshold: float) -> None:
    for call in (detector.predict_batch, detector.stream):
        with pytest.raises(ConfigError, match="score_threshold: expected 0 to 1"):
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
    ((found, one),) = detector.stream_images([_photo()])
    assert found.where == "image 0" and isinstance(one, Detections) and one.source is None
    assert np.array_equal(found.image, _photo())  # type: ignore[arg-type]


class _Counting(Runtime):
    """Notes how many images come together, and detects nothing."""

    names, size = ("thing",), 32

    def __init__(self, batch_size: int = 1) -> None:
        self.batch_size, self.sizes = batch_size, list[int]()

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        self.sizes.append(len(images))
        shape = (len(images), 0)
        return np.zeros((*shape, 4), np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.int64)


@pytest.mark.parametrize("batch_size", [1, 16])
def test_a_stream_of_broken_images_yields_each_at_once_in_constant_memory(batch_size: int) -> None:
    taken = 0

    def broken() -> Iterator[Any]:
        nonlocal taken
        for _ in range(5000):
            taken += 1
            yield b"broken"
        yield _photo()

    results = []
    for number, (_, result) in enumerate(Detector(_Counting(batch_size)).stream(broken())):
        assert taken <= number + 2 * batch_size + 5  # those decoded ahead, and those that wait for a batch
        results.append(type(result))
    assert results == [ImageError] * 5000 + [Detections]


def test_sources_that_cannot_be_meant_are_raised_before_the_first_image(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no images"):
        detector.stream(tmp_path)
    with pytest.raises(ConfigError, match="allow_urls"):
        detector.stream("http://127.0.0.1/a.jpg")


def test_views_go_through_the_runtime_together_where_it_pays() -> None:
    images: list[Any] = [_photo(seed=seed) for seed in range(5)]
    images.insert(2, b"broken")
    for batch_size, sizes in ((1, [1] * 5), (3, [2, 3]), (16, [5])):
        runtime = _Counting(batch_size)
        results = [result for _, result in Detector(runtime).stream(images)]
        assert runtime.sizes == sizes
        assert [isinstance(result, ImageError) for result in results] == [False, False, True, False, False, False]
    runtime = _Counting(4)
    Detector(runtime).predict_batch([_photo(60, 90)] * 2, tile=40, overlap=0)  # each image and its 2 x 3 tiles
    assert runtime.sizes == [4, 4, 4, 2]


def test_detections_are_checked_once_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[int] = []
    check = Detections.__post_init__
    monkeypatch.setattr(Detections, "__post_init__", lambda self: (checked.append(1), check(self))[1])
    detector = tiny_detector()
    detector.predict_batch([_photo(60, 90)] * 3, tile=40)
    assert len(checked) == 3


def test_a_single_name_is_one_class() -> None:
    runtime = PyTorchRuntime(tiny_network(1), "cat", 64, device="cpu")
    assert runtime.names == ("cat",) and Detector(runtime).predict(_photo()).names == ("cat",)


def test_prediction_needs_no_torch_but_in_the_runtime() -> None:
    code = (
        "import sys, numpy as np\n"
        "sys.modules['torch'] = sys.modules['torchvision'] = None\n"
        "from centerdet.detector import Detector\n"
        "from centerdet.runtimes import Runtime\n"
        "class Blind(Runtime):\n"
        "    names, size = ('thing',), 32\n"
        "    def run(self, images):\n"
        "        ones = np.ones((len(images), 1, 4), 'f4')\n"
        "        return ones, ones[..., 0], np.zeros((len(images), 1), 'i8')\n"
        "image = np.zeros((50, 70, 3), np.uint8)\n"
        "detector = Detector(Blind())\n"
        "assert len(detector.predict(image, tile=40)) >= 1\n"
        "assert [len(one) for _, one in detector.stream([image, image])] == [1, 1]\n"
        "try: detector.save('a.safetensors')\n"
        "except ValueError as error: assert 'only detectors loaded from .safetensors' in str(error)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


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


def test_threads_are_limited_while_predicting_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads(), cv2.getNumThreads()
    seen: list[tuple[str, int]] = []
    resize = Geometry.forward_image

    def note_resize(geometry: Geometry, image: Pixels) -> Pixels:
        seen.append(("opencv", cv2.getNumThreads()))
        return resize(geometry, image)

    limited = tiny_detector(threads=1)
    assert isinstance(limited.runtime, PyTorchRuntime)

    def note_run(*_: object) -> None:
        seen.append(("torch", torch.get_num_threads()))
        if len(seen) == 4:
            raise KeyError("on purpose")

    monkeypatch.setattr(Geometry, "forward_image", note_resize)
    limited.runtime.graph.register_forward_pre_hook(note_run)
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
        assert sorted(seen) == [("opencv", 1)] * 22 + [("torch", 1)] * 22
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (3, 2)
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
    for threads in (0, -1):
        with pytest.raises(ConfigError, match="threads: expected None or at least 1"):
            tiny_detector(threads=threads)
        with pytest.raises(ConfigError, match="threads: expected None or at least 1"):
            Detector.load("voc", threads=threads)


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
