import hashlib
from pathlib import Path

import cv2
import defusedxml.ElementTree
import numpy as np
import pytest

from centerdet.data.shapes import SHAPE_NAMES, Scene, draw_scene, write_shapes
from centerdet.data.voc import read_voc
from centerdet.errors import DataError
from centerdet.images import load


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes") / "new" / "data"
    write_shapes(root, train=24, val=8, seed=3, size=128)
    return root


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(np.random.default_rng((7, index))) for index in range(150)]


def digests(root: Path) -> dict[str, str]:
    paths = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_boxes_hold_exactly_the_pixels_that_are_seen(scenes: list[Scene]) -> None:
    for scene in scenes:
        height, width = scene.owners.shape
        assert scene.image.shape == (height, width, 3) and scene.image.dtype == np.uint8
        assert set(np.unique(scene.owners)) - {-1} == set(range(len(scene.boxes)))
        for number, (left, top, right, bottom) in enumerate(scene.boxes):
            pixels = np.argwhere(scene.owners == number)
            assert pixels.min(0).tolist() == [top, left]
            assert (pixels.max(0) + 1).tolist() == [bottom, right]


def test_xml_counts_from_one_and_includes_the_last_pixel(folder: Path) -> None:
    for number, (split, count) in enumerate((("train", 24), ("val", 8))):
        stems = (folder / "ImageSets" / "Main" / f"{split}.txt").read_text().split()
        assert len(stems) == count
        for index, stem in enumerate(stems):
            scene = draw_scene(np.random.default_rng((3, number, index)), 128)
            tree = defusedxml.ElementTree.parse(folder / "Annotations" / f"{stem}.xml")
            written = [
                [int(box.findtext(side, "")) for side in ("xmin", "ymin", "xmax", "ymax")]
                for box in tree.iter("bndbox")
            ]
            measured = []
            for owner in range(len(scene.boxes)):
                rows, columns = np.nonzero(scene.owners == owner)
                measured.append([columns.min() + 1, rows.min() + 1, columns.max() + 1, rows.max() + 1])
            assert written == measured
            assert [name.text for name in tree.iterfind("object/name")] == [SHAPE_NAMES[n] for n in scene.labels]


def test_reader_returns_what_was_drawn(folder: Path) -> None:
    dataset = read_voc(folder, ["val"])
    assert dataset.names == SHAPE_NAMES
    for index, sample in enumerate(dataset.samples):
        scene = draw_scene(np.random.default_rng((3, 1, index)), 128)
        assert sample.size == scene.owners.shape
        np.testing.assert_array_equal(sample.boxes, scene.boxes)
        np.testing.assert_array_equal(sample.labels, scene.labels)
        image = load(sample.path).astype(int)
        assert np.abs(image - scene.image).mean() < (8 if sample.path.suffix == ".jpg" else 1e-9)


def test_same_arguments_write_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_shapes(tmp_path / "again", train=24, val=8, seed=3, size=128)
    assert digests(tmp_path / "again") == digests(folder)
    write_shapes(tmp_path / "more", train=25, val=1, seed=3, size=128)
    more = digests(tmp_path / "more")
    images = {name: digest for name, digest in digests(folder).items() if "train_" in name}
    assert images.items() <= more.items()
    write_shapes(tmp_path / "other", train=2, val=1, seed=4, size=128)
    assert not set(digests(tmp_path / "other").values()) & set(images.values())


def test_scenes_hold_what_makes_detection_hard(scenes: list[Scene]) -> None:
    counts = np.asarray([len(scene.boxes) for scene in scenes])
    assert 0.03 < (counts == 0).mean() < 0.2
    assert counts.max() >= 6
    per_class = np.bincount(np.concatenate([scene.labels for scene in scenes]), minlength=len(SHAPE_NAMES))
    assert per_class.min() > 0.6 * per_class.mean()
    boxes = np.concatenate([scene.boxes for scene in scenes])
    sides = boxes[:, 2:] - boxes[:, :2]
    assert (sides.max(1) < 32).mean() > 0.1  # small by COCO's bound
    assert (sides.min(1) > 80).mean() > 0.05
    aspects = np.asarray([np.divide(*scene.owners.shape) for scene in scenes])
    assert aspects.min() < 0.75 and aspects.max() > 1.33
    overlaps = sum(len(np.unique(scene.owners[_inner(box)])) > 2 for scene in scenes for box in scene.boxes)
    assert overlaps > 0.1 * len(boxes)


def _inner(box: np.ndarray) -> tuple[slice, slice]:
    left, top, right, bottom = box.astype(int)
    return slice(top, bottom), slice(left, right)


def test_every_object_can_be_seen(scenes: list[Scene]) -> None:
    for scene in scenes[:60]:
        for number, box in enumerate(scene.boxes):
            mask = scene.owners == number
            assert mask.sum() > 0.12 * np.prod(box[2:] - box[:2])  # a star fills a third of its box, 3/5 of it are seen
            ring = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool) & ~mask
            contrast = np.abs(scene.image[mask].mean(0) - scene.image[ring].mean(0)).max()
            assert contrast > 15


def test_an_existing_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(DataError, match="exists already"):
        write_shapes(tmp_path, train=1, val=1)
    assert digests(tmp_path).keys() == {"note.txt"}


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        write_shapes(tmp_path / "data", train=1, val=0, size=64)
    assert list(tmp_path.iterdir()) == []
