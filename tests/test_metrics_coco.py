"""coco_evaluate: every rule by hand, and a search against pycocotools and a plain transcription, to the last bit.

Boxes of the hand-made cases lie on a line: (left, right) is 10 high, so IoUs can be done in the head.
"""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_problems import Problem, small_problem
from reference_metrics import coco_reference, pycocotools_run

from centerdet.metrics import CocoResult, coco_evaluate

ALL, SMALL, MEDIUM, LARGE = range(4)


def line(*spans: tuple[float, float]) -> Any:
    return np.array([[left, 0, right, 10] for left, right in spans], np.float64).reshape(-1, 4)


def case(dets: Any, scores: Any, truths: Any, **more: Any) -> Problem:
    """One class in one image, unless `more` says otherwise."""
    problem = {
        "det_boxes": line(*dets), "det_scores": scores, "det_labels": [0] * len(dets), "det_images": [0] * len(dets),
        "gt_boxes": line(*truths), "gt_labels": [0] * len(truths), "gt_images": [0] * len(truths), "num_classes": 1,
    }  # fmt: skip
    return {**problem, **more}


def checked(problem: Problem, limits: tuple[int, ...] = (1, 10, 100)) -> CocoResult:
    """Our result, equal to pycocotools in every number."""
    result, run = coco_evaluate(**problem, max_detections=limits), pycocotools_run(problem, limits)
    precision = run.eval["precision"][..., -1]
    np.testing.assert_array_equal(result.precision, precision)
    np.testing.assert_array_equal(result.recall, run.eval["recall"][..., -1])
    for label, ap in enumerate(result.ap):
        known = precision[:, :, label, 0][precision[:, :, label, 0] > -1]
        np.testing.assert_array_equal(ap, known.mean() if known.size else np.nan)
    if len(limits) == 3:
        stats = run.stats.copy()
        if limits[-1] != 100:  # pycocotools finds no number there and says -1
            known = precision[..., 0][precision[..., 0] > -1]
            stats[0] = known.mean() if known.size else -1
        np.testing.assert_array_equal(result.stats, stats)
    return result


def test_by_hand() -> None:
    problem = case([(0, 10), (50, 60), (20, 30)], [0.9, 0.8, 0.7], [(0, 10), (20, 30)])
    result = checked(problem)
    best = 1 / (1 + np.spacing(1))
    expected = np.where(np.arange(101) <= 50, best, 2 / 3)
    assert (result.precision[..., 0, ALL] == expected).all()
    assert result.stats[6:9].tolist() == [0.5, 1, 1]
    assert result.stats[4:6].tolist() == [-1, -1]
    assert result.recall.shape == (10, 1, 4)


def test_a_detection_moves_on_to_the_best_free_one() -> None:
    """VOC calls the second detection false (its best is taken); COCO lets it have the other object at 0.50."""
    problem = case([(0, 100), (2, 102)], [0.9, 0.8], [(0, 100), (30, 130)])
    assert checked(problem).recall[:, 0, ALL].tolist() == [1, 1] + [0.5] * 8


def test_the_last_of_equal_ious_wins() -> None:
    """Both objects are equally near to the first detection; the second detection reaches only the first object."""
    truths = [(-20, 80), (20, 120)]
    assert checked(case([(0, 100), (-20, 80)], [0.9, 0.8], truths)).recall[0, 0, ALL] == 1
    assert checked(case([(0, 100), (-20, 80)], [0.9, 0.8], truths[::-1])).recall[0, 0, ALL] == 0.5


def test_real_ones_before_ignored_ones() -> None:
    """The ignored object is nearer, but the real one is reached at 0.5, so the detection is a true positive there."""
    problem = case([(0, 100)], [0.9], [(0, 100), (0, 55)], gt_area=[2e10, 550])
    recall = checked(problem).recall[:, 0, ALL]
    assert recall.tolist() == [1, 1] + [0] * 8
    crowd = case([(0, 100)], [0.9], [(0, 100), (0, 55)], gt_crowd=[1, 0])
    assert checked(crowd).recall[:, 0, ALL].tolist() == [1, 1] + [0] * 8


def test_crowds_take_any_number_and_are_measured_by_the_detection() -> None:
    dets = [(0, 10), (5, 15), (90, 100), (200, 210), (300, 310)]
    problem = case(dets, [0.9, 0.8, 0.7, 0.6, 0.5], [(0, 100), (300, 310)], gt_crowd=[1, 0])
    result = checked(problem)
    assert result.precision[0, 0, 0, ALL] == 0.5  # one false before the true one; three were ignored
    assert result.precision[9, 0, 0, ALL] == 0.5


def test_ignored_ones_that_are_no_crowd_take_one() -> None:
    problem = case([(0, 10), (0, 10), (300, 310)], [0.9, 0.8, 0.7], [(0, 10), (300, 310)], gt_area=[2e10, 100])
    assert checked(problem).precision[0, 0, 0, ALL] == 0.5


def test_an_iou_of_exactly_the_threshold_counts() -> None:
    assert checked(case([(0, 10)], [0.9], [(0, 5)])).recall[:, 0, ALL].tolist() == [1] + [0] * 9
    assert checked(case([(0, 10)], [0.9], [(0, np.nextafter(5, 0))])).recall[0, 0, ALL] == 0
    for number, threshold in enumerate(np.linspace(0.5, 0.95, 10)):
        for edge in (threshold, np.nextafter(threshold, 0), np.nextafter(threshold, 1)):
            recall = checked(case([(0, 1)], [0.9], [(0, edge)])).recall[:, 0, ALL]
            assert recall.sum() == number + (edge >= threshold)


def test_areas_have_inclusive_bounds() -> None:
    for area, ranges in (
        (1024, [SMALL, MEDIUM]), (np.nextafter(1024, 9e9), [MEDIUM]), (9216, [MEDIUM, LARGE]),
        (9215.999999999998, [MEDIUM]), (np.nextafter(9216, 9e9), [LARGE]), (0, [SMALL]), (1e10, [LARGE]), (2e10, []),
    ):  # fmt: skip
        result = checked(case([(0, 10)], [0.9], [(0, 10)], gt_area=[area]))
        assert np.flatnonzero(result.recall[0, 0, 1:] == 1).tolist() == [area_range - 1 for area_range in ranges]


def test_the_area_is_that_of_the_widened_box() -> None:
    """A float32 box that is 96 x 96 but for a rounding: medium, not large."""
    box = np.array([[0.1, 0.1, 96.1, 96.1]], np.float32)
    wide = box.astype(float)
    area = (wide[0, 2] - wide[0, 0]) * (wide[0, 3] - wide[0, 1])
    assert area < 9216
    assert (box[0, 2] - box[0, 0]) * (box[0, 3] - box[0, 1]) == 9216
    problem = case([], [], [], det_boxes=box, det_scores=[0.9], det_labels=[0], det_images=[0])
    result = checked({**problem, "gt_boxes": box, "gt_labels": [0], "gt_images": [0]})
    assert result.stats[3:6].tolist() == [-1, result.stats[0], -1]


def test_unmatched_detections_outside_of_the_range_are_ignored() -> None:
    """The unmatched ones lie on the bounds of the ranges: 32 x 32 is small and medium, 96 x 96 medium and large."""
    dets = np.array([[500, 0, 532, 32], [600, 0, 696, 96], [700, 0, 701, 1], [0, 0, 50, 50.0]])
    problem = case([], [], [], det_boxes=dets, det_scores=[0.9, 0.8, 0.7, 0.6], det_labels=[0] * 4, det_images=[0] * 4)
    for truth, area_range, precision in (([0, 0, 50, 50], MEDIUM, 1 / 3), ([0, 0, 50, 50], ALL, 1 / 4)):
        result = checked({**problem, "gt_boxes": [truth], "gt_labels": [0], "gt_images": [0]})
        assert result.precision[0, 0, 0, area_range] == precision


def test_the_right_edge_is_the_rounded_sum() -> None:
    """0.2 + (0.9 - 0.2) is not 0.9; by VOC's rule, which takes 0.9, it is the other way round."""
    assert checked(case([(0.2, 0.9)], [0.9], [(0.5, 1.0)])).recall[0, 0, ALL] == 0
    assert checked(case([(0.3, 0.9)], [0.9], [(0.5, 1.1)])).recall[0, 0, ALL] == 1


def test_equal_scores_go_by_image_then_row() -> None:
    truths = [(0, 10)]
    problem = case([(0, 10), (50, 60)], [0.5, 0.5], truths, det_images=[1, 0])
    problem["gt_images"] = [1]
    assert checked(problem).precision[0, 0, 0, ALL] == 0.5
    problem["det_images"] = problem["gt_images"] = [0, 1][:1] * 2
    problem["gt_images"] = [0]
    assert checked(problem).precision[0, 0, 0, ALL] == 1 / (1 + np.spacing(1))


def test_one_detection_alone_is_not_quite_precise() -> None:
    assert checked(case([(0, 10)], [0.9], [(0, 10)])).stats[0] == 1 / (1 + np.spacing(1)) < 1


def test_limits_are_for_a_class_and_image() -> None:
    """150 detections of which the best hundred are wrong: none that counts detects the object."""
    dets = [(1000, 1010)] * 100 + [(0, 10)] * 50
    problem = case(dets, np.linspace(1, 0.1, 150), [(0, 10)])
    assert checked(problem).recall[0, 0, ALL] == 0
    assert checked(problem, (1, 10, 101)).recall[0, 0, ALL] == 1
    moved = {**problem, "det_images": [0] * 90 + [1] * 10 + [0] * 50, "gt_images": [0]}
    assert checked(moved).recall[0, 0, ALL] == 1
    two = {**problem, "det_labels": [0] * 120 + [1] * 30, "gt_labels": [1], "num_classes": 2}
    assert checked(two).recall[0, 1, ALL] == 1
    spans = [(1000, 1010)] * 75 + [(0, 10)] + [(1000, 1010)] * 74
    both = {**problem, "det_boxes": line(*spans), "det_images": [0] * 75 + [1] * 75, "gt_images": [1]}
    assert checked(both, (1, 10, 60)).recall[0, 0, ALL] == 1


def test_other_limits() -> None:
    problem = case([(50, 60), (0, 10), (20, 30)], [0.9, 0.8, 0.7], [(0, 10), (20, 30)])
    result = checked(problem, (3, 1, 2))
    assert result.max_detections == (1, 2, 3)
    assert result.stats[6:9].tolist() == [0, 0.5, 1]
    assert result.stats[0] > 0
    single = coco_evaluate(**problem, max_detections=[2])
    assert single.stats.shape == (10,)
    assert single.stats[6] == 0.5
    assert single.stat_names[6] == "AR2"


@pytest.mark.parametrize("limits", [(), (0, 1), (1, 1), (1.5,), 100, ("1",)])
def test_unusable_limits(limits: Any) -> None:
    with pytest.raises(ValueError, match="max_detections"):
        coco_evaluate(**case([], [], []), max_detections=limits)


@pytest.mark.parametrize("dets", [[], [(0, 10)], [(5, 5)]])
@pytest.mark.parametrize("truths", [[], [(0, 10)], [(5, 5)]])
@pytest.mark.parametrize("crowd", [0, 1])
def test_little_or_nothing(dets: Any, truths: Any, crowd: int) -> None:
    result = checked(case(dets, [0.5] * len(dets), truths, gt_crowd=[crowd] * len(truths), num_classes=2))
    assert np.isnan(result.ap[1])
    if not truths or crowd:
        assert (result.stats == -1).all()
        assert np.isnan(result.ap[0])


def test_recalls_are_compared_as_floats() -> None:
    """Of 25 objects, 7 are 0.28, but 0.28 * 25 is above 7; of 20, 19 are below linspace's 0.95, and 0.95 * 20 is 19."""
    for count in (20, 25, 50, 100):
        spans, images = [(0, 10), (50, 60)] * count, np.repeat(np.arange(count), 2)  # a true one, a false one
        problem = case(spans, np.linspace(1, 0, 2 * count), spans[::2], det_images=images)
        checked({**problem, "gt_images": np.arange(count)})


def test_chains_of_displaced_detections() -> None:
    """Every detection reaches many objects, so that each choice pushes the next detection further."""
    rng = np.random.default_rng(7)
    for _ in range(5):
        center = rng.integers(0, 12, (60, 1)) + rng.integers(0, 2, (60, 1)) * 0.5
        spans = np.concatenate([center, center + 40], 1).tolist()
        scores = rng.permutation(30) / 30
        checked(
            case(spans[:30], scores, spans[30:], gt_crowd=rng.random(30) < 0.1, gt_area=rng.choice([9, 2e3, 2e4], 30))
        )


def test_many_chunks() -> None:
    rng = np.random.default_rng(3)
    corners = rng.integers(0, 40, (400, 2))
    truths = np.concatenate([corners, corners + rng.integers(5, 50, (400, 2))], 1).astype(float)
    problem = {
        "det_boxes": truths[rng.integers(0, 400, 300)] + rng.integers(0, 2, (300, 4)) * [0, 0, 1, 1],
        "det_scores": rng.random(300).astype(np.float32), "det_labels": np.zeros(300, int),
        "det_images": rng.integers(0, 3, 300), "gt_boxes": truths, "gt_labels": np.zeros(400, int),
        "gt_images": rng.integers(0, 3, 400), "gt_crowd": rng.random(400) < 0.05, "num_classes": 1,
    }  # fmt: skip
    checked(problem)


def test_result_has_its_protocol_and_goes_to_json() -> None:
    result = coco_evaluate(**case([(0, 10)], [0.9], [(0, 10)], num_classes=2))
    assert "pycocotools" in result.protocol and "at most 100 detections" in result.protocol
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["ap"][1] is None
    assert list(plain["stats"])[:3] == ["AP", "AP50", "AP75"]


def search(seeds: range) -> None:
    """Most problems by their curves; every fifth with all twelve numbers; every third by the transcription too."""
    for seed in seeds:
        problem = small_problem(seed, "gt_crowd")
        limit = (100, 100, 2)[seed % 3]
        checked(problem, (1, 2, 3) if seed % 10 == 9 else (1, 10, 100) if seed % 5 == 4 else (limit,))
        if seed % 3 == 0:
            precision, recall = coco_reference(**problem, limit=limit)
            result = coco_evaluate(**problem, max_detections=[limit])
            np.testing.assert_array_equal(result.precision, precision)
            np.testing.assert_array_equal(result.recall, recall)


@settings(max_examples=2, deadline=None)
@given(st.integers(0, 2**32))
def test_search_for_disagreements(start: int) -> None:
    search(range(start * 50, start * 50 + 50))


@pytest.mark.soak
def test_long_search_for_disagreements() -> None:
    search(range(20_000))
