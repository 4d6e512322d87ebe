"""Intervals and comparisons: resamples are what evaluating drawn images gives, and the laws of the tests."""

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from metric_problems import EMPTY, Problem, crowd_of_images, matched, near_problem, only

from centerdet.metrics import statistics, voc_evaluate
from centerdet.metrics.arrays import number_images
from centerdet.metrics.statistics import bootstrap_ap, compare_models

DETECTIONS = ("det_boxes", "det_scores", "det_labels", "det_images")
PARTS = ("ap", "ap_11pt", "mean_ap", "mean_ap_11pt")


def repeated(problem: Problem, weights: np.ndarray) -> Problem:
    """The rows of every image as often as its weight, each copy as another image."""
    present = np.unique(np.concatenate([problem["det_images"], problem["gt_images"]]))
    copy = {}
    for key, value in problem.items():
        if key == "num_classes":
            copy[key] = value
            continue
        images = np.searchsorted(present, problem["det_images" if key.startswith("det") else "gt_images"])
        times = weights[images]
        numbers = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
        copy[key] = (
            np.repeat(images, times) * 1000 + numbers if key.endswith("images") else np.repeat(value, times, axis=0)
        )
    return copy


def ranked(problem: Problem) -> tuple[statistics.Ranking, int]:
    arrays, match = matched(problem)
    det_images, gt_images, count = number_images(arrays, None)
    rows, real = match.order[~match.ignored[match.order]], ~arrays.gt_difficult
    made = statistics.rank(
        arrays.det_labels[rows], match.true_positive[rows], det_images[rows],
        arrays.gt_labels[real], gt_images[real], arrays.num_classes,
    )  # fmt: skip
    return made, count


@pytest.mark.parametrize("seed", range(300))
def test_estimates_are_voc_bit_for_bit(seed: int) -> None:
    problem = near_problem(seed) if seed < 200 else crowd_of_images(seed)
    whole, result = voc_evaluate(**problem), bootstrap_ap(*matched(problem), resamples=2)
    for part in PARTS:
        np.testing.assert_array_equal(getattr(result, part).estimate, getattr(whole, part))


@pytest.mark.parametrize("seed", range(150))
def test_weights_are_repeated_images(seed: int) -> None:
    problem = near_problem(seed)
    made, count = ranked(problem)
    weights = np.random.default_rng(seed).integers(0, 4, (5, count)).astype(np.int32)
    averages = statistics.average_precisions(made, weights)
    for k in range(len(weights)):
        whole = voc_evaluate(**repeated(problem, weights[k]))
        np.testing.assert_array_equal(averages[1][k], whole.ap_11pt)
        np.testing.assert_array_equal(averages[3][k], whole.mean_ap_11pt)
        # Here the area is summed up copy by copy, which rounds otherwise.
        np.testing.assert_allclose(averages[0][k], whole.ap, rtol=0, atol=1e-13)
        np.testing.assert_allclose(averages[2][k], whole.mean_ap, rtol=0, atol=1e-13)


def test_interval_is_that_of_evaluating_the_drawn_images() -> None:
    problem = crowd_of_images(0, images=25)
    count, samples = 25, []
    for k in range(40):
        drawn = np.random.default_rng((5, k)).integers(count, size=count)
        samples.append(voc_evaluate(**repeated(problem, np.bincount(drawn, minlength=count))))
    result = bootstrap_ap(*matched(problem), resamples=40, seed=5, confidence=0.8)
    assert result.num_images == count
    for part in PARTS:
        values, interval = np.array([getattr(sample, part) for sample in samples]), getattr(result, part)
        np.testing.assert_allclose(interval.low, np.quantile(values, 0.1, axis=0), rtol=0, atol=1e-12)
        np.testing.assert_allclose(interval.high, np.quantile(values, 0.9, axis=0), rtol=0, atol=1e-12)
        np.testing.assert_allclose(interval.standard_error, values.std(0, ddof=1), rtol=0, atol=1e-12)


def test_interval_holds_the_estimate_and_shrinks_with_the_images() -> None:
    widths = []
    for images in (20, 80, 320):
        mean = bootstrap_ap(*matched(crowd_of_images(1, images)), resamples=200).mean_ap
        assert mean.low < mean.estimate < mean.high
        widths.append(float(mean.high - mean.low))
    assert all(1.3 < wide / narrow < 3.2 for wide, narrow in pairwise(widths))  # about the root of 4


def test_same_seed_same_interval_however_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = crowd_of_images(2)
    wanted = bootstrap_ap(*matched(problem), resamples=20, seed=3).to_dict()
    assert bootstrap_ap(*matched(problem), resamples=20, seed=4).to_dict()["mean_ap"]["low"] != wanted["mean_ap"]["low"]
    monkeypatch.setattr(statistics, "CHUNK", 1)
    assert bootstrap_ap(*matched(problem), resamples=20, seed=3).to_dict() == wanted


def test_images_without_rows_can_be_drawn() -> None:
    problem = crowd_of_images(3, images=10)
    with pytest.raises(ValueError, match="num_images: expected a whole number from 10, got 9"):
        bootstrap_ap(*matched(problem), num_images=9)
    few, many = bootstrap_ap(*matched(problem)), bootstrap_ap(*matched(problem), num_images=1000)
    assert many.num_images == 1000
    assert many.mean_ap.estimate == few.mean_ap.estimate
    assert many.mean_ap.standard_error > few.mean_ap.standard_error


def test_a_class_that_a_resample_misses_is_left_out_there() -> None:
    problem = near_problem(0) | {
        "det_boxes": np.array([[0.0, 0, 9, 9]] * 2), "det_scores": np.array([0.9, 0.8]),
        "det_labels": np.array([0, 1]), "det_images": np.array([0, 1]),
        "gt_boxes": np.array([[0.0, 0, 9, 9]] * 2), "gt_labels": np.array([0, 1]), "gt_images": np.array([0, 1]),
        "gt_difficult": np.zeros(2, bool), "num_classes": 3,
    }  # fmt: skip
    result = bootstrap_ap(*matched(problem), resamples=50)
    np.testing.assert_array_equal(result.ap.low, [1, 1, np.nan])
    assert (result.mean_ap.low, result.mean_ap.high) == (1, 1)


# Comparison


def versus(first: Problem, second: Problem, **options: Any) -> statistics.Comparison:
    """Compare two detectors on the first's ground truth."""
    truths = {key: value for key, value in first.items() if not key.startswith("det")}
    return compare_models(matched(first), matched({**second, **truths}), **options)


def other_detector(problem: Problem, seed: int, noise: float) -> Problem:
    scores = problem["det_scores"] + np.random.default_rng(seed).normal(0, noise, len(problem["det_scores"]))
    return {**problem, "det_scores": scores}


@pytest.mark.parametrize("seed", range(40))
def test_a_detector_does_not_differ_from_itself(seed: int) -> None:
    problem = near_problem(seed)
    result, whole = versus(problem, problem, resamples=20), voc_evaluate(**problem)
    for part in PARTS:
        difference = getattr(result, part)
        some = ~np.isnan(getattr(whole, part))
        np.testing.assert_array_equal(difference.first, getattr(whole, part))
        for column, value in (
            (difference.difference, 0),
            (difference.low, 0),
            (difference.high, 0),
            (difference.p_value, 1),
        ):
            np.testing.assert_array_equal(column, np.where(some, value, np.nan))


def test_exchanged_detectors_change_the_sign_alone() -> None:
    one = crowd_of_images(4)
    two = other_detector(one, 0, 0.1)
    there, back = versus(one, two, resamples=50), versus(two, one, resamples=50)
    for part in PARTS:
        a, b = getattr(there, part), getattr(back, part)
        np.testing.assert_array_equal(a.difference, -b.difference)
        np.testing.assert_allclose(a.low, -b.high, rtol=0, atol=1e-15)
        np.testing.assert_array_equal(a.p_value, b.p_value)


def test_interval_and_p_value_are_those_of_drawn_and_swapped_images() -> None:
    one = crowd_of_images(5, images=20)
    two = crowd_of_images(6, images=20) | {key: one[key] for key in one if key.startswith("gt")}
    two["det_boxes"], two["det_images"] = one["det_boxes"] + 3, one["det_images"]
    two["det_scores"] = np.round(two["det_scores"], 1)  # many ties
    one["det_scores"] = np.round(one["det_scores"], 1)
    one["gt_difficult"] = two["gt_difficult"] = np.random.default_rng(0).random(len(one["gt_labels"])) < 0.5
    count, resamples = 20, 30
    result = versus(one, two, resamples=resamples, seed=9)

    drawn, swapped = [], []
    for k in range(resamples):
        weights = np.bincount(np.random.default_rng((9, k)).integers(count, size=count), minlength=count)
        drawn.append([voc_evaluate(**repeated(problem, weights)) for problem in (one, two)])
        keep = np.random.default_rng((9, k)).integers(2, size=count, dtype=np.int32).astype(bool)
        sides = []
        for mine in (keep, ~keep):
            rows = np.concatenate([mine[one["det_images"]], ~mine[two["det_images"]]])
            joined = {key: np.concatenate([one[key], two[key]])[rows] for key in DETECTIONS}
            sides.append(voc_evaluate(**{**one, **joined}))
        swapped.append(sides)
    for part in PARTS:
        difference = getattr(result, part)
        changes = np.array([getattr(b, part) - getattr(a, part) for a, b in drawn])
        np.testing.assert_allclose(difference.low, np.quantile(changes, 0.025, axis=0), rtol=0, atol=1e-12)
        np.testing.assert_allclose(difference.high, np.quantile(changes, 0.975, axis=0), rtol=0, atol=1e-12)
        chance = np.array([getattr(b, part) - getattr(a, part) for a, b in swapped])
        extreme = np.abs(chance) >= np.abs(difference.difference) - 1e-12
        np.testing.assert_array_equal(difference.p_value, (1 + extreme.sum(0)) / (1 + resamples))


def test_a_much_better_detector_is_no_accident_and_an_equal_one_may_be() -> None:
    one = crowd_of_images(7, images=150)
    worse = versus(one, other_detector(one, 0, 2.0), resamples=200)
    assert worse.mean_ap.high < 0
    assert worse.mean_ap.p_value == 1 / 201
    p_values = [
        float(versus(other_detector(one, seed, 0.1), other_detector(one, seed + 99, 0.1), resamples=99).mean_ap.p_value)
        for seed in range(20)
    ]
    assert 0.25 < np.mean(p_values) < 0.75
    assert sum(p <= 0.05 for p in p_values) <= 4


def test_image_ids_may_be_large_and_differ_between_the_detectors() -> None:
    one = crowd_of_images(8, images=12)
    two = {key: value[:30] if key.startswith("det") else value for key, value in other_detector(one, 1, 0.2).items()}
    wanted = versus(one, two, resamples=10).to_dict()
    for problem in (one, two):
        for key in ("det_images", "gt_images"):
            problem[key] = problem[key].astype(np.int64) * 2**35
    assert versus(one, two, resamples=10).to_dict() == wanted


def test_detectors_may_come_as_tensors() -> None:
    torch = pytest.importorskip("torch")
    problem = crowd_of_images(9, images=5)
    wanted = versus(problem, problem, resamples=3).to_dict()
    tensors = {key: torch.as_tensor(value) if key != "num_classes" else value for key, value in problem.items()}
    assert versus(tensors, problem, resamples=3).to_dict() == wanted


# Both


def test_every_result_is_json_whatever_is_missing() -> None:
    whole = near_problem(3)
    for problem in (whole, EMPTY, only(whole, "det"), only(whole, "gt")):
        for result in (bootstrap_ap(*matched(problem), resamples=3), versus(problem, problem, resamples=3)):
            json.dumps(result.to_dict(), allow_nan=False)


def test_nothing_is_modified_and_narrow_types_do_not_overflow() -> None:
    problem = crowd_of_images(1, images=200)
    wanted = bootstrap_ap(*matched(problem), resamples=3).to_dict(), versus(problem, problem, resamples=3).to_dict()
    for key, value in problem.items():
        if key.endswith(("labels", "images")):
            problem[key] = value.astype(np.uint8)
        if key != "num_classes":
            problem[key].setflags(write=False)
    assert (
        bootstrap_ap(*matched(problem), resamples=3).to_dict(),
        versus(problem, problem, resamples=3).to_dict(),
    ) == wanted


def test_bad_options_and_rows_are_named() -> None:
    for name, value in (("resamples", 0), ("resamples", 2.5), ("seed", -1), ("confidence", 1), ("confidence", 0)):
        with pytest.raises(ValueError, match=name):
            bootstrap_ap(*matched(EMPTY), **{name: value})
        with pytest.raises(ValueError, match=name):
            versus(EMPTY, EMPTY, **{name: value})
    problem = near_problem(3)
    moved = {**problem, "gt_boxes": problem["gt_boxes"] + 1}
    with pytest.raises(ValueError, match="second: expected the ground truth of the first"):
        compare_models(matched(problem), matched(moved))
