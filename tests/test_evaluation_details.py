"""Results: the numbers of the metrics under their names, the steps from VOC to COCO, and the diagnoses."""

import csv
import io
import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_sets import NAMES, make_set

from centerdet.data.sample import Dataset, Sample
from centerdet.detections import Detections
from centerdet.errors import DataError
from centerdet.evaluation.evaluation import evaluate_detections
from centerdet.evaluation.files import Results
from centerdet.metrics import coco_evaluate, voc_evaluate
from centerdet.metrics.arrays import Arrays
from centerdet.metrics.coco import evaluate as evaluate_coco
from centerdet.metrics.voc import match_detections
from centerdet.text import format_table

Scene = tuple[Dataset, Results]
Rows = list[tuple[list[float], float, int]]


def one_image(objects: list[tuple[list[float], int]], detections: Rows, difficult: list[bool] | None = None) -> Scene:
    """Objects (box, label) and detections (box, score, label) of one image."""
    boxes, labels = (np.array(part) for part in zip(*objects, strict=True))
    marks: Any = None if difficult is None else np.array(difficult)
    sample = Sample(Path("one.jpg"), boxes.astype(float), labels, marks)
    det_boxes, scores, det_labels = (np.array(part) for part in zip(*detections, strict=True))
    zeros = np.zeros(len(detections), np.int64)
    return Dataset([sample], NAMES), Results(det_boxes.astype(float), scores, det_labels, zeros)


@pytest.mark.parametrize("seed", range(4))
def test_the_numbers_are_those_of_the_metrics(tmp_path: Path, seed: int) -> None:
    dataset, detections = make_set(tmp_path, seed)
    result = evaluate_detections(detections, dataset)
    truth = (
        np.concatenate([sample.boxes for sample in dataset.samples]),
        np.concatenate([sample.labels for sample in dataset.samples]),
        np.repeat(np.arange(12), [len(sample.labels) for sample in dataset.samples]),
    )
    crowd = np.concatenate([sample.crowd for sample in dataset.samples])
    ignored = crowd | np.concatenate([sample.difficult for sample in dataset.samples])
    arrays = (detections.boxes, detections.scores, detections.labels, detections.images, *truth)
    voc = voc_evaluate(*arrays, gt_difficult=ignored, num_classes=3)
    columns = (NAMES, voc.num_positive.tolist(), (100 * voc.ap).tolist(), (100 * voc.ap_11pt).tolist())
    assert result.rows()[:3] == list(zip(*columns, strict=True))
    assert result.rows()[3] == ("mean", voc.num_positive.sum(), 100 * voc.mean_ap, 100 * voc.mean_ap_11pt)
    assert np.array_equal(result.coco().stats, coco_evaluate(*arrays, gt_crowd=crowd, num_classes=3).stats)


def test_names_of_detections_must_be_those_of_the_data_set(tmp_path: Path) -> None:
    dataset, _ = make_set(tmp_path, images=1)
    nothing = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64), NAMES[::-1], (200, 200))
    with pytest.raises(DataError, match="detections: names"):
        evaluate_detections([nothing], dataset)


def test_it_prints_both_numbers_with_their_protocol() -> None:
    dataset, detections = one_image([([0, 0, 10, 10], 0)], [([0, 0, 10, 10], 0.01, 0)])
    result = evaluate_detections(detections, dataset)
    assert str(result).splitlines() == [
        "class    objects  voc-area  voc07-11pt",
        "cat            1     100.0       100.0",
        "big_cat        0         -           -",
        "dog            0         -           -",
        "mean           1     100.0       100.0",
        result.protocol,
    ]
    for words in ("1 image,", "IoU >= 0.5", "difficult ignored", "at most 100 detections", "no score threshold"):
        assert words in result.protocol
    assert format_table(("a", "b"), []) == "a  b"


def test_a_score_threshold_is_reported(tmp_path: Path) -> None:
    dataset, detections = make_set(tmp_path)
    whole, cut = evaluate_detections(detections, dataset), evaluate_detections(detections, dataset, score_threshold=0.5)
    assert whole.warning is None
    assert cut.warning is not None and "a score threshold of 0.5 was applied before AP" in cut.warning
    assert "score threshold 0.5;" in cut.protocol and f"warning: {cut.warning}" in str(cut)
    assert cut.results.scores.min() >= 0.5
    assert all(np.nan_to_num(cut.voc.ap) <= np.nan_to_num(whole.voc.ap))
    foreign = evaluate_detections(detections.keep(detections.scores >= 0.3), dataset)
    assert foreign.warning is not None
    assert foreign.warning.startswith(f"the lowest of {len(foreign.results.scores)} scores is 0.3")
    assert evaluate_detections(Results.join([]), Dataset([], NAMES)).warning is None


def test_json_and_csv_hold_fractions(tmp_path: Path) -> None:
    dataset, detections = make_set(tmp_path)
    result = evaluate_detections(detections, dataset)
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["mean"] == {"voc-area": result.voc.mean_ap, "voc07-11pt": result.voc.mean_ap_11pt}
    assert [one["voc-area"] for one in plain["classes"]] == result.voc.ap.tolist()
    header, *rows = csv.reader(io.StringIO(result.to_csv()))
    assert header == ["class", "objects", "voc-area", "voc07-11pt"]
    assert [row[0] for row in rows] == [*NAMES, "mean"]
    assert [float(row[2]) for row in rows] == [*result.voc.ap, result.voc.mean_ap]


def test_nothing_is_computed_twice(tmp_path: Path) -> None:
    dataset, detections = make_set(tmp_path)
    result, other = (evaluate_detections(detections, dataset) for _ in range(2))
    assert result.bootstrap() is result.bootstrap(1000) is result.bootstrap(resamples=1000) is not result.bootstrap(10)
    assert result.coco() is result.coco([1, 10, 100]) is not other.coco()
    assert result.compare(other, 10) is result.compare(other, resamples=10) is not result.compare(result, 10)


def test_everything_else_is_json_too(tmp_path: Path) -> None:
    dataset, detections = make_set(tmp_path)
    result = evaluate_detections(detections, dataset)
    plain = json.loads(json.dumps(result.to_dict(details=True, rules=True, against=result), allow_nan=False))
    assert plain["bootstrap"]["mean voc-area"]["estimate"] == pytest.approx(result.voc.mean_ap)
    assert plain["error_kinds"]["mean voc-area"] == pytest.approx(result.voc.mean_ap)
    matrix = np.asarray(plain["confusion_matrix"]["matrix"])
    assert matrix.shape == (len(result.names) + 1,) * 2
    assert matrix[:-1].sum() == result.voc.num_positive.sum()
    assert len(plain["by_size"]["voc-area"]) == 3
    assert plain["operating_points"]["num_images"] == 12
    assert plain["coco"]["stats"]["AP50"] == result.coco().stats[1]
    assert plain["against"]["mean voc-area"]["difference"] == 0
    assert '"ap_11pt"' not in json.dumps(plain)


@pytest.mark.parametrize("seed", range(4))
def test_the_way_from_voc_to_coco_ends_at_both(tmp_path: Path, seed: int) -> None:
    dataset, detections = make_set(tmp_path, seed)
    result = evaluate_detections(detections, dataset)
    steps = result.from_voc_to_coco()
    average, at_half = result.coco().stats[:2]
    assert [step.ap for step in steps[:2]] == [result.voc.mean_ap_11pt, result.voc.mean_ap]
    assert [step.ap for step in steps[-2:]] == [at_half, average]


def changed(dataset: Dataset, detections: Results) -> dict[str, float]:
    """The steps that change the AP by more than what 101 points make of a curve, in percent."""
    steps = evaluate_detections(detections, dataset).from_voc_to_coco()
    changes = {step.rules: 100 * (step.ap - before.ap) for before, step in pairwise(steps)}
    return {rules: round(change) for rules, change in changes.items() if abs(change) > 1}


def test_each_step_changes_one_rule() -> None:
    first, near, far = [0.0, 0, 100, 100], [0.0, 20, 100, 120], [300.0, 300, 400, 400]
    # Every object is detected exactly: nothing to change.
    assert changed(*one_image([(first, 0), (far, 0)], [(first, 0.9, 0), (far, 0.8, 0)])) == {}
    # A difficult object that is not detected.
    missed = one_image([(first, 0), (far, 0)], [(first, 0.9, 0)], [False, True])
    assert changed(*missed) == {"difficult objects count": -50}
    assert "1 more object to detect" in evaluate_detections(missed[1], missed[0]).from_voc_to_coco()[2].why
    # Two detections overlap one object most; the second overlaps its neighbor enough.
    twice = one_image([(first, 0), (near, 0)], [([0, 0, 100, 101], 0.9, 0), ([0, 9, 100, 109], 0.8, 0)])
    coarse = {"VOC from 2010 on (voc-area)"}  # half of the recall is 6 of 11 points
    assert changed(*twice).keys() - coarse == {"next best object", "IoU 0.50:0.95 (COCO AP)"}
    # The 101st detection of its class detects the object.
    crowd = one_image([(first, 0)], [*([(far, 0.9, 0)] * 100), (first, 0.8, 0)])
    result = evaluate_detections(crowd[1], crowd[0])
    steps = result.from_voc_to_coco()
    assert "1 of 101 detections are dropped" in steps[5].why
    assert [round(1000 * step.ap) for step in steps[4:6]] == [10, 0]
    assert "up to 101 detections each" in result.protocol
    # A box that is correct at IoU 0.5, but not at most other thresholds.
    loose = one_image([(first, 0)], [([0, 0, 100, 61], 0.9, 0)])
    assert changed(*loose) == {"IoU 0.50:0.95 (COCO AP)": -70}


def test_nothing_to_find_is_nan_all_along() -> None:
    result = evaluate_detections(Results.join([]), Dataset([Sample(Path("empty.jpg"))], NAMES))
    assert all(np.isnan(step.ap) for step in result.from_voc_to_coco())
    assert result.to_dict(details=True, rules=True)["mean"] == {"voc-area": None, "voc07-11pt": None}
    assert result.suspects() == []


def test_data_is_checked_once_per_detector_and_matched_once_per_rule(tmp_path: Path) -> None:
    """Counted by the public functions' code, whoever calls them: 2 detectors; VOC, COCO, and COCO without a limit."""
    dataset, detections = make_set(tmp_path)
    columns = (detections.boxes, detections.scores, detections.labels, detections.images)
    busy = Results(*(np.repeat(column, 20, axis=0) for column in columns))  # beyond COCO's limit
    counted = {"check": Arrays.check.__func__, "VOC": match_detections, "COCO": evaluate_coco}
    codes = {function.__code__: name for name, function in counted.items()}
    calls = dict.fromkeys(counted, 0)

    def count(frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_code in codes:
            calls[codes[frame.f_code]] += 1

    sys.setprofile(count)
    try:
        first, second = (evaluate_detections(one, dataset) for one in (busy, detections))
        first.to_dict(details=True, rules=True, against=second)
    finally:
        sys.setprofile(None)
    assert calls == {"check": 2, "VOC": 2, "COCO": 2}


def test_coco_breaks_ties_by_its_own_image_ids(tmp_path: Path) -> None:
    """Two images with equal scores: which detection comes first is decided by the ids, not by the samples' order."""
    right, wrong = [0.0, 0, 50, 50], [100.0, 100, 150, 150]
    samples = [Sample(tmp_path / f"{name}.jpg", np.array([right]), np.array([0])) for name in "ab"]
    boxes, images = np.array([wrong, right]), np.array([0, 1])
    stats = []
    for ids in (None, np.array([7, 9]), np.array([9, 7])):
        results = Results(boxes, np.array([0.5, 0.5]), np.zeros(2, np.int64), images, ids)
        stats.append(evaluate_detections(results, Dataset(samples, NAMES)).coco().stats[1])
    assert stats[0] == stats[1] < stats[2]


def test_two_detectors_are_compared_on_the_same_images(tmp_path: Path) -> None:
    dataset, detections = make_set(tmp_path, images=30)
    result = evaluate_detections(detections, dataset)
    same = result.compare(result, resamples=50)
    assert (same.mean_ap.difference, same.mean_ap.p_value) == (0, 1)
    arrays = result.arrays
    scores = np.linspace(1, 0.01, len(arrays.gt_labels))
    perfect = Results(arrays.gt_boxes, scores, arrays.gt_labels, arrays.gt_images)
    better = result.compare(evaluate_detections(perfect, dataset), resamples=200)
    assert better.mean_ap.difference == pytest.approx(1 - result.voc.mean_ap)
    assert better.mean_ap.low > 0 and better.mean_ap.p_value < 0.05
    with pytest.raises(DataError, match="same classes on the same images"):
        result.compare(evaluate_detections(Results.join([]), Dataset(dataset.samples[:5], NAMES)))


def test_likely_label_errors_name_image_and_classes() -> None:
    box, other = [0.0, 0, 50, 50], [100.0, 100, 150, 150]
    dataset, detections = one_image([(box, 0)], [(box, 0.8, 2), (other, 0.95, 1), (other, 0.2, 1)])
    result = evaluate_detections(detections, dataset)
    found = [(one.image, one.kind, one.name, one.box, one.existing, one.overlaps, one.iou) for one in result.suspects()]
    assert found == [
        (Path("one.jpg"), "renamed", "dog", (0, 0, 50, 50), "cat", "cat", 1),
        (Path("one.jpg"), "missing", "big_cat", (100, 100, 150, 150), None, None, 0),
    ]
    assert len(result.suspects(1)) == 1
