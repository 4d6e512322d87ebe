"""Tiles cover the image, small objects are found in them whole and once, and no half of an object is reported."""

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny import tiny_detector

from centerdet import Detections, Detector
from centerdet.boxes import iou_matrix
from centerdet.data.sample import Dataset, Sample
from centerdet.data.shapes import SHAPE_NAMES, draw_scene, write_shapes
from centerdet.errors import ConfigError
from centerdet.runtimes import Outputs, Runtime
from centerdet.tiles import MARGIN, Rows, Tiling, is_cut, merge

SIZES = st.tuples(st.integers(1, 900), st.integers(1, 900))
TILES = st.integers(32, 500)
OVERLAPS = st.floats(0, 0.9)


class _Red(Runtime):
    """Detects plain red rectangles of at least 3 x 3 px of its input, exactly."""

    names, size = ("red",), 64

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        boxes, scores = np.zeros((len(images), 50, 4), np.float32), np.zeros((len(images), 50), np.float32)
        for row, image in enumerate(images):
            red = ((image[..., 0] > 240) & (image[..., 1] < 15)).astype(np.uint8)
            _, _, parts, _ = cv2.connectedComponentsWithStats(red, connectivity=8)
            parts = parts[1:][(parts[1:, 2:4] >= 3).all(1)]
            boxes[row, : len(parts)] = np.hstack([parts[:, :2], parts[:, :2] + parts[:, 2:4]])
            scores[row, : len(parts)] = 0.9
        return boxes, scores, np.zeros(scores.shape, np.int64)


def red_finder() -> Detector:
    return Detector(_Red())


def _paint(size: tuple[int, int], boxes: NDArray[np.int64]) -> NDArray[np.uint8]:
    image = np.full((*size, 3), 120, np.uint8)
    for left, top, right, bottom in boxes.tolist():
        image[top:bottom, left:right] = (255, 0, 0)
    return image


def _scatter(size: tuple[int, int], side: int, seed: int) -> NDArray[np.int64]:
    """Small rectangles that do not touch, at any place, borders included."""
    rng, boxes = np.random.default_rng(seed), np.zeros((0, 4), np.int64)
    for _ in range(150):
        sides = rng.integers(5, side, 2, endpoint=True)
        corner = rng.integers(0, np.array(size[::-1]) - sides, endpoint=True)
        box = np.concatenate([corner, corner + sides])
        apart = (box[:2] > boxes[:, 2:] + 1).any(1) | (box[2:] < boxes[:, :2] - 1).any(1)
        if apart.all():
            boxes = np.vstack([boxes, box])
    return boxes


def _sorted(boxes: NDArray[np.generic]) -> list[list[float]]:
    return sorted(boxes.tolist())


@given(SIZES, TILES, OVERLAPS)
def test_tiles_cover_the_image_and_share_their_sides(size: tuple[int, int], tile: int, overlap: float) -> None:
    if tile < 60 and overlap > 0.7:
        overlap = 0.7  # thousands of tiles
    whole, *tiles = Tiling(tile, overlap).cut(size)
    assert whole == (0, 0, size[1], size[0])
    assert bool(tiles) == (tile < max(size))
    for axis in (0, 1):
        spans = sorted({(window[axis], window[axis + 2]) for window in tiles})
        side = size[1 - axis]
        if spans:
            assert spans[0][0] == 0 and spans[-1][1] == side
            assert {end - start for start, end in spans} == {min(tile, side)}
            for (_, end), (start, _) in pairwise(spans):
                assert end - start >= int(tile * overlap)
    assert len(tiles) == len(set(tiles))


@given(SIZES, st.integers(50, 500), st.floats(0.1, 0.8), st.tuples(*[st.floats(0, 1)] * 4))
def test_what_fits_the_overlap_is_seen_uncut_by_a_tile(
    size: tuple[int, int], tile: int, overlap: float, shares: tuple[float, ...]
) -> None:
    whole, *tiles = Tiling(tile, overlap).cut(size)
    sides = np.minimum(np.array(size[::-1]), max(0.0, tile * (overlap - 2 * MARGIN) - 2)) * shares[:2]
    corner = (np.array(size[::-1]) - sides) * shares[2:]
    box = np.concatenate([corner, corner + sides]).astype(np.float32)
    seen = []
    for window in tiles or [whole]:
        left, top, right, bottom = window
        inside = (box[:2] >= (left - 1e-3, top - 1e-3)).all() and (box[2:] <= (right + 1e-3, bottom + 1e-3)).all()
        seen.append(inside and not is_cut(box[None] - np.float32([left, top] * 2), window, whole)[0])
    assert any(seen)


def test_only_inner_borders_cut() -> None:
    whole, window = (0, 0, 300, 100), (100, 0, 200, 100)  # its left and right borders are inner ones
    boxes = np.float32([[0, 20, 30, 40], [3, 20, 30, 40], [60, 20, 99, 40], [40, 0, 60, 100], [40, 40, 60, 60]])
    assert is_cut(boxes, window, whole).tolist() == [True, False, True, False, False]
    assert not is_cut(boxes, whole, whole).any()


def test_one_tile_that_covers_the_image_is_the_plain_prediction() -> None:
    detector, image = tiny_detector(), draw_scene(np.random.default_rng(0), 90).image
    plain = detector.predict(image, score_threshold=0)
    assert len(plain) > 10
    assert detector.predict(image, score_threshold=0, tile=max(image.shape)) == plain
    assert detector.predict_batch([image] * 2, score_threshold=0, tile=2000) == [plain, plain]


@pytest.mark.parametrize("seed", range(3))
def test_small_objects_are_found_by_tiles_alone_whole_and_once(seed: int) -> None:
    size, detector = (320, 480), red_finder()
    boxes = _scatter(size, 14, seed)  # an overlap of 0.3 * 64 px, less two margins, is 16 px
    assert len(boxes) > 50
    image = _paint(size, boxes)
    assert len(detector.predict(image)) == 0
    found = detector.predict(image, tile=64, overlap=0.3)
    assert _sorted(found.boxes) == _sorted(boxes)
    assert found.size == size and found.source is None


def test_large_objects_come_from_the_whole_image_without_halves() -> None:
    size = (320, 480)
    large = np.array([[100, 60, 300, 260], [0, 200, 90, 320]])
    small = np.array([[400, 20, 410, 32], [330, 150, 340, 160], [470, 310, 480, 320]])
    found = red_finder().predict(_paint(size, np.vstack([large, small])), tile=64)
    assert len(found) == 5
    assert (iou_matrix(found.boxes, np.vstack([large, small]).astype(np.float32)).max(0) > 0.8).all()


def test_what_tiles_find_inside_a_large_object_is_a_part_of_it() -> None:
    whole, tiles = (0, 0, 400, 200), [(0, 0, 200, 200), (200, 0, 400, 200)]

    def rows(*table: tuple[float, ...]) -> Rows:
        values = np.array(table, np.float32).reshape(-1, 6)
        return Rows(values[:, :4], values[:, 4], values[:, 5].astype(np.int64))

    large, medium = (50, 10, 350, 190, 0.45, 0), (360, 10, 395, 190, 0.5, 0)
    parts = [
        rows(large, medium),
        rows((60, 20, 150, 120, 0.9, 0), (100, 20, 120, 60, 0.8, 1), (10, 20, 70, 120, 0.7, 0)),
        # inside the medium one, which is smaller than a tile, and inside the large one, but more than twice as sure
        rows((165, 20, 190, 90, 0.6, 0), (20, 20, 60, 90, 1, 0)),
    ]
    merged = merge(parts, [whole, *tiles], 0.6)
    assert _sorted(merged.boxes) == [
        [10, 20, 70, 120], [50, 10, 350, 190], [100, 20, 120, 60], [220, 20, 260, 90], [360, 10, 395, 190],
        [365, 20, 390, 90],
    ]  # fmt: skip


def test_a_batch_and_a_stream_of_tiled_images_are_single_calls(tmp_path: Path) -> None:
    detector = red_finder()
    images = [_paint(size, _scatter(size, 12, 1)) for size in ((200, 300), (50, 40), (100, 400))]
    single = [detector.predict(image, tile=64, overlap=0.4) for image in images]
    assert detector.predict_batch(images, tile=64, overlap=0.4) == single
    assert [found for _, found in detector.stream(images, tile=64, overlap=0.4)] == single


def test_evaluation_with_tiles_says_so(tmp_path: Path) -> None:
    from centerdet import evaluate

    samples = []
    for seed in range(2):
        boxes, path = _scatter((300, 200), 12, seed), tmp_path / f"{seed}.png"
        cv2.imwrite(str(path), _paint((300, 200), boxes)[..., ::-1])
        samples.append(Sample(path, boxes.astype(np.float64), np.zeros(len(boxes), np.int64)))
    dataset = Dataset(samples, ("red",))
    plain, tiled = evaluate(red_finder(), dataset), evaluate(red_finder(), dataset, tile=64, overlap=0.3)
    assert (plain.voc.mean_ap, tiled.voc.mean_ap) == (0, 1)
    assert "with tiles of 64 px" in tiled.protocol and "tile" not in plain.protocol


@pytest.mark.parametrize("options", [{"tile": 31}, {"tile": -64}, {"overlap": 0.95}, {"overlap": -0.1}])
def test_options_that_mean_nothing_are_refused(options: dict[str, float]) -> None:
    for call in (red_finder().predict_batch, red_finder().stream):
        with pytest.raises(ConfigError, match=next(iter(options))):
            call([], **options)  # type: ignore[operator]


@pytest.mark.soak
def test_a_trained_detector_finds_more_small_shapes_with_tiles(tmp_path: Path) -> None:
    from centerdet import TrainConfig, train

    write_shapes(tmp_path / "shapes", train=400, val=1, size=192)
    config = TrainConfig.of(
        data=str(tmp_path / "shapes"), out=str(tmp_path / "run"), val=(), init_from="voc", epochs=6, batch=8,
        sizes=(192,), zoom=(0.85, 1.3), device="cpu",
    )  # fmt: skip
    detector = train(config)
    scenes = [draw_scene(np.random.default_rng((7, number)), 192) for number in range(16)]
    large = np.full((960, 960, 3), 128, np.uint8)  # 4 x 4 scenes, each five times smaller in the input
    boxes, labels = [], []
    for number, scene in enumerate(scenes):
        corner = np.array([number % 4, number // 4]) * 240
        large[corner[1] : corner[1] + scene.image.shape[0], corner[0] : corner[0] + scene.image.shape[1]] = scene.image
        boxes.append(scene.boxes + np.tile(corner, 2))
        labels.append(scene.labels)

    def count(detections: Detections) -> int:
        same = np.concatenate(labels)[:, None] == detections.labels
        return int(((iou_matrix(np.concatenate(boxes), detections.boxes) > 0.5) & same).any(1).sum())

    plain, tiled = count(detector.predict(large)), count(detector.predict(large, tile=240, overlap=0.3))
    assert detector.names == SHAPE_NAMES
    assert tiled > 0.7 * sum(map(len, labels)) and plain < 0.5 * tiled, (plain, tiled)
