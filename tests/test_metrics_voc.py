"""voc_evaluate and voc_match: every rule of the devkit by hand, and a search against a plain transcription.

Boxes of the hand-made cases lie on a line: (left, right) is 10 high, so IoUs can be done in the head.
"""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_problems import Problem, matched, small_problem
from reference_metrics import voc_reference

from centerdet.metrics import voc_evaluate, voc_match
from centerdet.metrics.voc import average


def line(*spans: tuple[float, float]) -> Any:
    return np.array([[left, 0, right, 10] for left, right in spans], np.float64).reshape(-1, 4)


def case(dets: Any, scores: Any, truths: Any, **more: Any) -> Problem:
    """One class in one image, unless `more` says otherwise."""
    problem = {
        "det_boxes": line(*dets), "det_scores": scores, "det_labels": [0] * len(dets), "det_images": [0] * len(dets),
        "gt_boxes": line(*truths), "gt_labels": [0] * len(truths), "gt_images": [0] * len(truths), "num_classes": 1,
    }  # fmt: skip
    return {**problem, **more}


def agrees(problem: Problem, threshold: float = 0.5) -> None:
    ap, ap_11pt, positive, outcomes = voc_reference(**problem, iou_threshold=threshold)
    result = voc_evaluate(**problem, iou_threshold=threshold)
    np.testing.assert_array_equal(result.ap, ap)
    np.testing.assert_array_equal(result.ap_11pt, ap_11pt)
    assert result.num_positive.tolist() == positive
    assert json.dumps(average(*matched(problem, threshold)).to_dict()) == json.dumps(result.to_dict())
    known = [value for value, count in zip(ap, positive, strict=True) if count]
    assert result.mean_ap == np.mean(known) if known else np.isnan(result.mean_ap)
    match = voc_match(**problem, iou_threshold=threshold)
    assert [kind for kind, _, _ in outcomes] == [
        "true" if true else "ignored" if ignored else "false"
        for true, ignored in zip(match.true_positive, match.ignored, strict=True)
    ]
    assert match.best_gt.tolist() == [where for _, where, _ in outcomes]
    assert match.best_iou.tolist() == [best for _, _, best in outcomes]
    labels, scores = np.asarray(problem["det_labels"]), np.asarray(problem["det_scores"], np.float64)
    assert match.order.tolist() == np.lexsort((-scores, labels)).tolist()
    for label in range(problem["num_classes"]):
        curve = result.curve(label)
        assert len(curve.recall) == sum(
            kind == "true" and where == label for (kind, _, _), where in zip(outcomes, labels, strict=True)
        )
        assert (np.diff(curve.scores) <= 0).all()
        assert (np.diff(curve.recall) > 0).all()


def test_by_hand() -> None:
    problem = case([(0, 10), (50, 60), (20, 30)], [0.9, 0.8, 0.7], [(0, 10), (20, 30)])
    result = voc_evaluate(**problem)
    assert result.ap[0] == 0.5 + 0.5 * 2 / 3
    assert result.ap_11pt[0] == pytest.approx((6 + 5 * 2 / 3) / 11)
    assert result.num_positive.tolist() == [2]
    curve = result.curve(0)
    assert curve.recall.tolist() == [0.5, 1]
    assert curve.precision.tolist() == [1, 2 / 3]
    assert curve.scores.tolist() == [0.9, 0.7]
    agrees(problem)


def test_taken_best_match_is_a_false_positive() -> None:
    """The second detection also reaches the other object, but its best is taken: VOC does not move on."""
    problem = case([(0, 100), (2, 102)], [0.9, 0.8], [(0, 100), (30, 130)])
    match = voc_match(**problem)
    assert match.best_gt.tolist() == [0, 0]
    assert match.best_iou[1] == 98 / 102
    assert match.true_positive.tolist() == [True, False]
    assert voc_evaluate(**problem).ap[0] == 0.5


def test_the_first_in_score_order_is_the_true_one_not_the_closest() -> None:
    match = voc_match(**case([(0, 100), (10, 110)], [0.8, 0.9], [(0, 100)]))
    assert match.true_positive.tolist() == [False, True]
    assert match.order.tolist() == [1, 0]


def test_equal_scores_go_by_row_whatever_the_image() -> None:
    problem = case([(0, 10), (50, 60), (0, 10)], [0.5, 0.5, 0.5], [(0, 10), (0, 10)], det_images=[1, 0, 0])
    problem["gt_images"] = [0, 1]
    assert voc_evaluate(**problem).ap[0] == 0.5 + 0.5 * 2 / 3
    assert voc_match(**problem).order.tolist() == [0, 1, 2]
    reverse = {name: problem[name][::-1] for name in ("det_boxes", "det_images")}
    assert voc_evaluate(**{**problem, **reverse}).ap[0] == 0.5 + 0.5 * 2 / 3
    first_wrong = {**problem, "det_boxes": problem["det_boxes"][[1, 0, 2]], "det_images": [0, 1, 0]}
    assert voc_evaluate(**first_wrong).ap[0] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "scores",
    [
        [0.0, -0.0, 0.0, 0.5, -0.5],
        [-0.5, 0.25, -0.75, 0.5, -0.25],
        [0.0, -0.0, 0.0, 1 / 3, -1 / 3],
        [1 / 3, np.nextafter(1 / 3, 1), 1 / 3, -1e300, 1e300],
        [-1e-320, -0.0, 1e-320, 5e-324, 0.0],
        [3.0, 2**24 + 1.0, 2.0**24, -7.0, 3.0],
    ],
)
def test_any_scores_fall_in_the_order(scores: Any) -> None:
    """Zero has no sign, negative ones rise towards zero, and no two doubles are the same."""
    for values in (np.array(scores), np.array(scores[::-1])):
        order = voc_match(**case([(0, 1)] * 5, values, [])).order.tolist()
        assert order == sorted(range(5), key=lambda row: -values[row])


def test_equal_ious_go_to_the_first_ground_truth() -> None:
    problem = case([(0, 10)], [0.5], [(-2, 8), (2, 12)], gt_difficult=[0, 1])
    assert voc_match(**problem).best_gt.tolist() == [0]
    assert voc_evaluate(**problem).ap[0] == 1
    assert np.isnan(voc_evaluate(**case([(0, 10)], [0.5], [(-2, 8)], gt_difficult=[1])).ap[0])
    swapped = case([(0, 10)], [0.5], [(-2, 8), (2, 12)], gt_difficult=[1, 0])
    assert voc_match(**swapped).ignored.tolist() == [True]
    assert voc_evaluate(**swapped).ap[0] == 0


def test_an_iou_of_exactly_the_threshold_counts() -> None:
    assert voc_evaluate(**case([(0, 10)], [0.5], [(0, 5)])).ap[0] == 1
    assert voc_evaluate(**case([(0, 10)], [0.5], [(0, np.nextafter(5, 0))])).ap[0] == 0
    assert voc_evaluate(**case([(0, 10)], [0.5], [(0, 10)]), iou_threshold=1).ap[0] == 1
    assert voc_evaluate(**case([(0, 10)], [0.5], [(0, 4)]), iou_threshold=0.4).ap[0] == 1
    assert voc_evaluate(**case([(0, 10)], [0.5], [(0, 5)]), iou_threshold=0.6).ap[0] == 0


def test_difficult_ones_are_neither_and_take_any_number() -> None:
    dets = [(0, 10), (0, 10), (1, 11), (20, 30)]
    problem = case(dets, [0.9, 0.8, 0.7, 0.6], [(0, 10), (20, 30)], gt_difficult=[True, False])
    match = voc_match(**problem)
    assert match.ignored.tolist() == [True, True, True, False]
    assert match.true_positive.tolist() == [False, False, False, True]
    result = voc_evaluate(**problem)
    assert (result.ap[0], result.num_positive[0]) == (1, 1)
    assert voc_evaluate(**{**problem, "gt_difficult": None}).ap[0] == pytest.approx(0.5 + 0.5 * 0.5)


def test_difficult_below_the_threshold_is_a_false_positive() -> None:
    match = voc_match(**case([(6, 16)], [0.9], [(0, 10)], gt_difficult=[1]))
    assert not match.ignored[0]
    assert match.best_gt[0] == 0
    assert voc_match(**case([(10, 20)], [0.9], [(0, 10)])).best_gt[0] == -1  # touching is not meeting


def test_other_images_and_classes_do_not_match() -> None:
    two = {"num_classes": 2}
    assert voc_evaluate(**case([(0, 10)], [0.9], [(0, 10)], det_images=[1])).ap[0] == 0
    other = voc_evaluate(**case([(0, 10)], [0.9], [(0, 10)], det_labels=[1], **two))
    assert other.ap[0] == 0
    assert np.isnan(other.ap[1])


@pytest.mark.parametrize(
    ("dets", "truths", "difficult", "ap"),
    [
        ([], [], [], np.nan),
        ([(0, 10)], [], [], np.nan),
        ([], [(0, 10)], [0], 0),
        ([], [(0, 10)], [1], np.nan),
        ([(0, 10)], [(0, 10)], [1], np.nan),
        ([(0, 10)], [(0, 10), (20, 30)], [1, 0], 0),
        ([(5, 5)], [(5, 5)], [0], 0),
        ([(5, 5)], [(0, 10)], [0], 0),
    ],
    ids=["nothing", "no truth", "no detection", "only difficult", "all ignored, none counts", "all ignored",
         "both without area", "a detection without area"],
)  # fmt: skip
def test_little_or_nothing(dets: Any, truths: Any, difficult: Any, ap: float) -> None:
    problem = case(dets, [0.5] * len(dets), truths, gt_difficult=difficult)
    result = voc_evaluate(**problem)
    np.testing.assert_array_equal([result.ap[0], result.ap_11pt[0], result.mean_ap, result.mean_ap_11pt], ap)
    agrees(problem)


def test_classes_without_ground_truth_are_left_out_of_the_mean() -> None:
    problem = case([(0, 10), (0, 10)], [0.9, 0.8], [(0, 10)], det_labels=[0, 2], num_classes=4)
    result = voc_evaluate(**problem)
    np.testing.assert_array_equal(result.ap, [1, np.nan, np.nan, np.nan])
    assert (result.mean_ap, result.mean_ap_11pt) == (1, np.cumsum([1 / 11] * 11)[-1])


def test_the_grid_of_eleven_points_is_numpys_arange() -> None:
    """3 of 10 objects are detected: the recall 0.3 is below arange's 0.30000000000000004."""
    truths = [(20 * i, 20 * i + 10) for i in range(10)]
    problem = case(truths[:3], [0.9, 0.8, 0.7], truths)
    assert voc_evaluate(**problem).ap_11pt[0] == pytest.approx(3 / 11)
    agrees(problem)


def test_precision_is_the_best_at_any_higher_recall() -> None:
    problem = case([(50, 60), (0, 10), (20, 30)], [0.9, 0.8, 0.7], [(0, 10), (20, 30)])
    assert voc_evaluate(**problem).ap[0] == pytest.approx(2 / 3)
    assert voc_evaluate(**problem).ap_11pt[0] == pytest.approx(2 / 3)


def test_pixels_of_a_voc_file() -> None:
    """(xmin, ymin, xmax, ymax) = (1, 1, 10, 10) holds 100 pixels, and (1, 1, 5, 10) shares 50 of them: IoU 0.5."""
    det, truth = ((xmin - 1, ymin - 1, xmax, ymax) for xmin, ymin, xmax, ymax in ((1, 1, 10, 10), (1, 1, 5, 10)))
    problem = case([], [], [], det_boxes=[det], det_scores=[1], det_labels=[0], det_images=[0])
    match = voc_match(**{**problem, "gt_boxes": [truth], "gt_labels": [0], "gt_images": [0]})
    assert match.best_iou[0] == 0.5


def test_the_corners_are_taken_as_given() -> None:
    """0.2 + (0.9 - 0.2) is not 0.9. By COCO's rule, which adds so, this IoU is below 0.5 and its mirror is not."""
    assert voc_evaluate(**case([(0.2, 0.9)], [0.9], [(0.5, 1.0)])).ap[0] == 1
    assert voc_evaluate(**case([(0.3, 0.9)], [0.9], [(0.5, 1.1)])).ap[0] == 0


def test_single_precision_is_widened_before_arithmetic() -> None:
    det, truth = np.array([[0.1, 0, 10.1, 10]], np.float32), np.array([[0.1, 0, 5.1, 10]], np.float32)
    problem = case([], [], [], det_boxes=det, det_scores=np.float32([1]), det_labels=[0], det_images=[0])
    problem |= {"gt_boxes": truth, "gt_labels": [0], "gt_images": [0]}
    wide = {**problem, "det_boxes": det.astype(float), "gt_boxes": truth.astype(float)}
    assert voc_match(**problem).best_iou[0] == voc_match(**wide).best_iou[0]
    agrees(problem)


def test_result_has_its_protocol_and_goes_to_json() -> None:
    result = voc_evaluate(**case([(0, 10)], [0.9], [(0, 10)], num_classes=2), iou_threshold=0.75)
    assert "IoU >= 0.75" in result.protocol
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["ap"] == [1.0, None]
    assert plain["num_positive"] == [1, 0]


def test_many_chunks_and_long_lists() -> None:
    """Enough pairs for several chunks, with cells of one and of hundreds of ground truths."""
    rng = np.random.default_rng(5)
    corners = rng.integers(0, 30, (400, 2))
    truths = np.concatenate([corners, corners + rng.integers(1, 30, (400, 2))], 1).astype(float)
    owner = rng.integers(0, 400, 300)
    problem = {
        "det_boxes": truths[owner] + rng.integers(0, 2, (300, 4)) * [0, 0, 1, 1], "det_scores": rng.random(300),
        "det_labels": rng.integers(0, 2, 300), "det_images": np.zeros(300, int), "gt_boxes": truths,
        "gt_labels": np.repeat([0, 1], 200), "gt_images": np.repeat([0, 1], [399, 1]), "num_classes": 2,
        "gt_difficult": rng.random(400) < 0.2,
    }  # fmt: skip
    agrees(problem)


def search(seeds: range) -> None:
    for seed in seeds:
        problem = small_problem(seed, "gt_difficult")
        agrees(problem, (0.5, 0.5, 0.3, 1.0, 0.01)[seed % 5])


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32))
def test_search_for_disagreements(start: int) -> None:
    search(range(start * 50, start * 50 + 50))


@pytest.mark.soak
def test_long_search_for_disagreements() -> None:
    search(range(50_000))
