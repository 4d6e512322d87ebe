"""Sizes, operating points, curves and confusions: against plain rules, by hand, and by law."""

import json
from typing import Any

import numpy as np
import pytest
from metric_problems import EMPTY, Problem, crowd_of_images, matched, near_problem, only
from reference_metrics import area_under, voc_outcomes, voc_overlap

from centerdet.metrics import voc_evaluate
from centerdet.metrics.arrays import Arrays
from centerdet.metrics.diagnose import ConfusionMatrix, ap_by_size, confusion_matrix, operating_points
from centerdet.metrics.voc import VocMatch

SEEDS = range(150)


def confusions(arrays: Arrays, match: VocMatch, **options: Any) -> ConfusionMatrix:
    return confusion_matrix(arrays, **options)


EVERY = [ap_by_size, confusions, operating_points]


def square(side: float, at: float = 0.0) -> list[float]:
    return [at, at, at + side, at + side]


def problem_of(detections: list[tuple[Any, ...]], truths: list[tuple[Any, ...]], classes: int = 1) -> Problem:
    """Rows of (box, score, label, image) and of (box, label, image, difficult)."""
    boxes, scores, labels, images = zip(*detections, strict=True) if detections else ([], [], [], [])
    gt_boxes, gt_labels, gt_images, difficult = zip(*truths, strict=True) if truths else ([], [], [], [])
    return {
        "det_boxes": np.reshape(np.array(boxes, float), (-1, 4)), "det_scores": np.array(scores, float),
        "det_labels": np.array(labels, int), "det_images": np.array(images, int),
        "gt_boxes": np.reshape(np.array(gt_boxes, float), (-1, 4)), "gt_labels": np.array(gt_labels, int),
        "gt_images": np.array(gt_images, int), "gt_difficult": np.array(difficult, bool), "num_classes": classes,
    }  # fmt: skip


# By size


@pytest.mark.parametrize("seed", SEEDS)
def test_ap_by_size_follows_its_rule(seed: int) -> None:
    problem = near_problem(seed)
    for key in ("det_boxes", "gt_boxes"):
        problem[key] = problem[key] * 8  # sides of 32, 64 and 96: on the bounds
    result = ap_by_size(*matched(problem))
    outcome, where = voc_outcomes(problem)

    def area(box: Any) -> float:
        return float((box[2] - box[0]) * (box[3] - box[1]))

    for size, (low, high) in enumerate([(0, 1024), (1024, 9216), (9216, 1e10)]):
        inside = np.array([low <= area(box) <= high for box in problem["gt_boxes"]], bool)
        for label in range(problem["num_classes"]):
            scored = []
            for d in np.flatnonzero(problem["det_labels"] == label):
                goes = where[d] >= 0 and voc_overlap(problem["det_boxes"][d], problem["gt_boxes"][where[d]]) >= 0.5
                counts = inside[where[d]] if goes else low <= area(problem["det_boxes"][d]) <= high
                if outcome[d] != "ignored" and counts:
                    scored.append((problem["det_scores"][d], outcome[d] == "true"))
            real = (problem["gt_labels"] == label) & ~problem["gt_difficult"] & inside
            assert result.num_positive[size, label] == real.sum()
            np.testing.assert_allclose(result.ap[size, label], area_under(scored, int(real.sum())), rtol=0, atol=1e-12)


def test_bounds_of_size_are_inclusive_and_areas_may_be_given() -> None:
    problem = problem_of([(square(32), 0.9, 0, 0)], [(square(32), 0, 0, False)])
    assert ap_by_size(*matched(problem)).num_positive[:, 0].tolist() == [1, 1, 0]
    assert ap_by_size(*matched({**problem, "gt_area": [9216]})).num_positive[:, 0].tolist() == [0, 1, 1]
    assert ap_by_size(*matched(problem)).bounds.tolist() == [[0, 1024], [1024, 9216], [9216, 1e10]]


def test_strays_count_in_their_own_size_and_duplicates_in_that_of_the_object() -> None:
    truth = (square(40), 0, 0, False)
    stray, second = (
        (square(20, 500), 0.95, 0, 0),
        (square(30), 0.97, 0, 0),
    )  # both small; `second` detects the object
    assert ap_by_size(*matched(problem_of([(square(40), 0.9, 0, 0), stray], [truth]))).ap[1, 0] == 1
    assert ap_by_size(*matched(problem_of([(square(40), 0.9, 0, 0), second], [truth]))).ap[1, 0] == 1
    late = (square(30), 0.8, 0, 0)
    twice = problem_of([(square(40), 0.9, 0, 0), late, (square(40), 0.7, 0, 1)], [truth, (square(40), 0, 1, False)])
    assert ap_by_size(*matched(twice)).ap[1, 0] == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)


def test_one_size_alone_is_voc_bit_for_bit() -> None:
    for seed in range(5):
        problem = crowd_of_images(seed)
        for key in ("det_boxes", "gt_boxes"):
            problem[key] = problem[key] * 20
        whole, large = voc_evaluate(**problem), ap_by_size(*matched(problem))
        np.testing.assert_array_equal(large.ap[2], whole.ap)
        np.testing.assert_array_equal(large.ap_11pt[2], whole.ap_11pt)
        assert (large.mean_ap[2], large.mean_ap_11pt[2]) == (whole.mean_ap, whole.mean_ap_11pt)
        assert np.isnan(large.mean_ap[:2]).all()


# Operating points


@pytest.mark.parametrize("seed", SEEDS)
def test_operating_points_count_plainly(seed: int) -> None:
    problem = near_problem(seed)
    result = operating_points(*matched(problem), score_threshold=0.5)
    outcome, _ = voc_outcomes(problem)
    real = problem["gt_labels"][~problem["gt_difficult"]]

    def counts(threshold: float, label: int | None) -> tuple[int, int, int]:
        rows = [d for d in range(len(outcome)) if label in (None, problem["det_labels"][d])]
        rows = [d for d in rows if problem["det_scores"][d] >= threshold]
        positive = len(real) if label is None else int((real == label).sum())
        return sum(outcome[d] == "true" for d in rows), sum(outcome[d] == "false" for d in rows), positive

    for label in [*range(problem["num_classes"]), None]:
        rates, best = (
            (result.overall, result.best_overall) if label is None else (result.per_class, result.best_per_class)
        )
        at = () if label is None else label
        true, false, positive = counts(0.5, label)
        got = [np.asarray(column)[at] for column in (rates.true_positives, rates.false_positives, rates.num_positive)]
        assert got == [true, false, positive]
        wanted = [
            true / (true + false) if true + false else np.nan,
            true / positive if positive else np.nan,
            2 * true / (true + false + positive) if true + false + positive else np.nan,
            false / result.num_images,
        ]
        columns = (rates.precision, rates.recall, rates.f1, rates.false_positives_per_image)
        np.testing.assert_array_equal([np.asarray(column)[at] for column in columns], wanted)

        choices = []
        for score in sorted({float(s) for s in problem["det_scores"]}, reverse=True):
            if any(outcome[d] != "ignored" and s == score and label in (None, problem["det_labels"][d])
                   for d, s in enumerate(problem["det_scores"])):  # fmt: skip
                true, false, positive = counts(score, label)
                choices.append((2 * true / (true + false + positive), score))
        threshold = np.asarray(best.score_threshold)[at]
        if not choices or not positive:
            assert np.isnan(threshold)
        else:
            f1, score = max(choices)
            assert (threshold, np.asarray(best.f1)[at]) == (score, f1)


def test_threshold_is_the_scores_own() -> None:
    problem = problem_of([(square(9), 0.7, 0, 0)], [(square(9), 0, 0, False)])
    problem["det_scores"] = problem["det_scores"].astype(np.float32)
    assert operating_points(*matched(problem), score_threshold=0.7).overall.recall == 1
    assert confusion_matrix(matched(problem)[0], score_threshold=0.7).matrix[0, 0] == 1


def test_false_positives_are_per_image_evaluated() -> None:
    problem = problem_of([(square(9), 0.9, 0, 4), (square(9), 0.9, 0, 8)], [])
    assert operating_points(*matched(problem)).overall.false_positives_per_image == 1
    assert operating_points(*matched(problem), num_images=8).per_class.false_positives_per_image.tolist() == [0.25]
    with pytest.raises(ValueError, match="num_images: expected a whole number from 2, got 1"):
        operating_points(*matched(problem), num_images=1)


# Confusions


@pytest.mark.parametrize("seed", SEEDS)
def test_confusion_matrix_is_greedy_by_score(seed: int) -> None:
    problem = near_problem(seed)
    classes = problem["num_classes"]
    wanted = np.zeros((classes + 1, classes + 1), int)
    free = {g for g in range(len(problem["gt_boxes"])) if not problem["gt_difficult"][g]}
    for d in sorted(range(len(problem["det_boxes"])), key=lambda d: -problem["det_scores"][d]):
        if problem["det_scores"][d] < 0.25:
            continue
        ious = {
            g: voc_overlap(problem["det_boxes"][d], box)
            for g, box in enumerate(problem["gt_boxes"])
            if problem["gt_images"][g] == problem["det_images"][d]
        }
        best = max((g for g in ious if g in free), key=lambda g: (ious[g], -g), default=-1)
        if best >= 0 and ious[best] >= 0.5:
            wanted[problem["gt_labels"][best], problem["det_labels"][d]] += 1
            free.remove(best)
        elif not any(ious[g] >= 0.5 and problem["gt_difficult"][g] for g in ious):
            wanted[classes, problem["det_labels"][d]] += 1
    for g in free:
        wanted[problem["gt_labels"][g], classes] += 1
    np.testing.assert_array_equal(confusion_matrix(matched(problem)[0], score_threshold=0.25).matrix, wanted)


def test_confusion_matrix_by_hand() -> None:
    truths = [(square(10), 0, 0, False), (square(10, 100), 1, 0, False), (square(10, 200), 1, 0, True)]
    detections = [
        (square(10), 0.9, 1, 0),  # takes the first ground truth, under the wrong name
        (square(10), 0.8, 0, 0),  # the right name, too late: background
        (square(10, 200), 0.7, 0, 0),  # on a difficult one: left out
        (square(10, 100), 0.2, 1, 0),  # below the score
    ]
    matrix = confusion_matrix(matched(problem_of(detections, truths, 2))[0]).matrix
    assert matrix.tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]


def test_greedy_matching_goes_through_long_chains() -> None:
    """Each detection prefers the object of the one before it, so that every round settles one."""
    count = 60
    truths = [(square(100, 10 * k), 0, 0, False) for k in range(count + 1)]
    detections = [(square(100, 10 * k + 4.9), 1 - k / 100, 0, 0) for k in range(count)]
    detections.insert(0, (square(100, 0), 1.0, 0, 0))
    matrix = confusion_matrix(matched(problem_of(detections, truths))[0], iou_threshold=0.6, score_threshold=0).matrix
    assert matrix.tolist() == [[count + 1, 0], [0, 0]]


@pytest.mark.parametrize("seed", range(5))
def test_rows_of_the_confusion_matrix_are_the_ground_truths(seed: int) -> None:
    problem = crowd_of_images(seed)
    matrix = confusion_matrix(matched(problem)[0], score_threshold=0.4).matrix
    real = problem["gt_labels"][~problem["gt_difficult"]]
    np.testing.assert_array_equal(matrix[:-1].sum(1), np.bincount(real, minlength=3))


# All of them


@pytest.mark.parametrize("function", EVERY)
def test_every_result_is_json_whatever_is_missing(function: Any) -> None:
    whole = near_problem(3)
    for problem in (whole, EMPTY, only(whole, "det"), only(whole, "gt")):
        json.dumps(function(*matched(problem)).to_dict(), allow_nan=False)


@pytest.mark.parametrize("function", EVERY)
def test_nothing_is_modified_and_narrow_types_do_not_overflow(function: Any) -> None:
    problem = crowd_of_images(1, images=200)
    wanted = function(*matched(problem)).to_dict()
    for key, value in problem.items():
        if key.endswith(("labels", "images")):
            problem[key] = value.astype(np.uint8)
        if key != "num_classes":
            problem[key].setflags(write=False)
    assert function(*matched(problem)).to_dict() == wanted


def test_an_iou_threshold_is_checked() -> None:
    with pytest.raises(ValueError, match="iou_threshold"):
        matched(EMPTY, 0)
    with pytest.raises(ValueError, match="iou_threshold"):
        confusion_matrix(matched(EMPTY)[0], iou_threshold=0)


@pytest.mark.parametrize("function", [confusions, operating_points])
def test_a_score_threshold_is_a_number(function: Any) -> None:
    with pytest.raises(ValueError, match="score_threshold: expected a finite number, got nan"):
        function(*matched(EMPTY), score_threshold=float("nan"))
