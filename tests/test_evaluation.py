"""Evaluating a detector on a dataset: perfect detections reach AP 1, and evaluating is predicting every image."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_detector

from centerdet import Detections
from centerdet.data.coco import write_coco
from centerdet.data.formats import keep_classes, read_dataset
from centerdet.data.sample import Dataset, Sample
from centerdet.data.shapes import SHAPE_NAMES, write_shapes
from centerdet.data.yolo import write_yolo
from centerdet.errors import DataError, ImageError
from centerdet.evaluation.evaluation import evaluate, evaluate_detections
from centerdet.evaluation.files import Results, make_arrays


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("evaluation") / "shapes"
    write_shapes(root, train=1, val=6, size=96)
    return read_dataset(root, ("val",))


def _perfect(dataset: Dataset) -> list[Detections]:
    return [
        Detections(
            sample.boxes.astype(np.float32),
            np.full(len(sample.boxes), 0.9, np.float32),
            sample.labels,
            dataset.names,
            sample.size or (1, 1),
        )
        for sample in dataset.samples
    ]


def test_perfect_detections_score_one(dataset: Dataset) -> None:
    result = evaluate_detections(_perfect(dataset), dataset)
    assert result.voc.mean_ap == 1.0 and result.voc.mean_ap_11pt == pytest.approx(1)
    assert result.num_images == result.to_dict()["images"] == 6
    *classes, mean = result.rows()
    assert [row[0] for row in classes] == list(SHAPE_NAMES)
    assert mean[0] == "mean" and mean[1] == sum(row[1] for row in classes) == sum(len(s.boxes) for s in dataset.samples)
    assert mean[2:] == pytest.approx((100, 100))


@pytest.mark.parametrize("write", [write_yolo, write_coco])
def test_classes_that_the_dataset_does_not_label_are_not_counted(
    write: Callable[..., object], dataset: Dataset, tmp_path: Path
) -> None:
    """Streets where only vehicles have boxes: a person who is found there is no false positive."""
    labeled = SHAPE_NAMES[1:]
    write(keep_classes([dataset], labeled)[0], tmp_path, "val")
    partly = read_dataset(tmp_path, ("val",), names=SHAPE_NAMES)
    assert partly.unlabeled == SHAPE_NAMES[:1]
    result = evaluate_detections(_perfect(dataset), partly)
    assert f"not labeled in this dataset, so not counted: {SHAPE_NAMES[0]}" in result.protocol
    assert len(result.results.labels) == len(result.arrays.gt_labels) > 0
    assert result.voc.mean_ap == 1 and not result.confusion_matrix().matrix[-1].any()
    assert read_dataset(tmp_path, ("val",)).unlabeled == ()


def test_no_detections_score_zero_and_the_protocol_is_printed(dataset: Dataset) -> None:
    nothing = [
        Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), dataset.names, (9, 9))
        for _ in dataset.samples
    ]
    result = evaluate_detections(nothing, dataset)
    assert result.voc.mean_ap == 0.0
    for words in ("6 images", "difficult", "voc-area", "voc07-11pt"):
        assert words in result.protocol
    assert result.protocol in str(result) and all(name in str(result) for name in SHAPE_NAMES)
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["protocol"] == result.protocol


def test_missing_one_object_costs_its_class(dataset: Dataset) -> None:
    detections = _perfect(dataset)
    number = next(index for index, sample in enumerate(dataset.samples) if len(sample.boxes))
    first = detections[number]
    label = int(first.labels[0])
    detections[number] = Detections(first.boxes[1:], first.scores[1:], first.labels[1:], first.names, first.size)
    result = evaluate_detections(detections, dataset)
    total = int(result.voc.num_positive[label])
    assert result.voc.ap[label] == pytest.approx((total - 1) / total)
    others = np.delete(result.voc.ap, label)
    assert (others[~np.isnan(others)] == 1).all()


def test_difficult_objects_count_neither_way(dataset: Dataset) -> None:
    hard = [Sample(s.path, s.boxes, s.labels, np.arange(len(s.boxes)) == 0, size=s.size) for s in dataset.samples]
    marked = Dataset(hard, dataset.names)
    arrays = make_arrays(Results.join([]), marked)
    assert arrays.gt_difficult.sum() == sum(len(sample.boxes) > 0 for sample in hard)
    for detections in (_perfect(dataset), [_without_first(one) for one in _perfect(dataset)]):
        assert evaluate_detections(detections, marked).voc.mean_ap == 1.0


def _without_first(one: Detections) -> Detections:
    return Detections(one.boxes[1:], one.scores[1:], one.labels[1:], one.names, one.size)


def test_evaluating_is_predicting_every_image(dataset: Dataset) -> None:
    detector = tiny_detector(SHAPE_NAMES)
    done: list[int] = []
    result = evaluate(detector, dataset, progress=done.append)
    assert done[-1] == len(dataset)
    paths = [sample.path for sample in dataset.samples]
    same = evaluate_detections(detector.predict_batch(paths, score_threshold=0.0), dataset)
    np.testing.assert_array_equal(result.voc.ap, same.voc.ap)
    assert str(result) == str(same)


def test_names_with_pattern_characters_are_files(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "a[1]*.jpg"
    shutil.copy(dataset.samples[0].path, path)
    (tmp_path / "a1.jpg").touch()
    renamed = Dataset([replace(dataset.samples[0], path=path)], dataset.names)
    detector = tiny_detector(SHAPE_NAMES)
    first = Dataset(dataset.samples[:1], dataset.names)
    assert str(evaluate(detector, renamed)) == str(evaluate(detector, first))


def test_an_image_that_cannot_be_read_is_raised(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    for path in (tmp_path / "broken.jpg", tmp_path / "missing.jpg"):
        broken = Dataset([*dataset.samples[:2], replace(dataset.samples[0], path=path)], dataset.names)
        with pytest.raises(ImageError, match=path.name):
            evaluate(tiny_detector(SHAPE_NAMES), broken)


def test_an_empty_dataset_has_no_ap(dataset: Dataset) -> None:
    result = evaluate(tiny_detector(SHAPE_NAMES), Dataset([], dataset.names))
    assert result.num_images == 0 and np.isnan(result.voc.mean_ap)


def test_what_does_not_fit_is_an_error(dataset: Dataset) -> None:
    with pytest.raises(DataError, match="names: the detector has"):
        evaluate(tiny_detector(SHAPE_NAMES[::-1]), dataset)
    with pytest.raises(DataError, match="expected one for each of 6 images, got 5"):
        evaluate_detections(_perfect(dataset)[1:], dataset)
