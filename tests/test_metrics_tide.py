"""Kinds of errors and likely label errors: against plain rules, by hand, and by law."""

import json
from typing import Any

import numpy as np
import pytest
from metric_problems import EMPTY, Problem, crowd_of_images, matched, near_problem, only
from reference_metrics import area_under, voc_outcomes, voc_overlap

from centerdet.metrics import voc_evaluate
from centerdet.metrics.label_errors import label_errors
from centerdet.metrics.tide import ErrorKind, error_kinds

SEEDS = range(200)
KINDS = tuple(kind.name.lower() for kind in ErrorKind)
BOX, FAR = [0.0, 0.0, 10.0, 10.0], [500.0, 500.0, 510.0, 510.0]
LOOSE = [0.0, 0.0, 10.0, 30.0]  # an IoU of 1/3 with BOX


def plain_kinds(problem: Problem) -> tuple[list[str], set[int], dict[str, list[float]]]:
    """The kind of each detection, the ground truths missed, and the AP by area of each class with each kind fixed."""
    boxes, scores, labels, images = (problem[f"det_{key}"] for key in ("boxes", "scores", "labels", "images"))
    truths, gt_labels, gt_images = (problem[f"gt_{key}"] for key in ("boxes", "labels", "images"))
    outcome, where = voc_outcomes(problem)
    real = [g for g in range(len(truths)) if not problem["gt_difficult"][g]]
    detected = {where[d] for d in range(len(outcome)) if outcome[d] == "true"}
    kinds, goals = [], {}
    for d in range(len(outcome)):
        ious = {g: voc_overlap(boxes[d], truths[g]) for g in real if gt_images[g] == images[d]}
        own = max((g for g in ious if gt_labels[g] == labels[d]), key=lambda g, ious=ious: (ious[g], -g), default=None)
        other = max(
            (g for g in ious if gt_labels[g] != labels[d]), key=lambda g, ious=ious: (ious[g], -g), default=None
        )
        own_iou, other_iou = ious.get(own, 0), ious.get(other, 0)
        if outcome[d] != "false":
            kinds.append(outcome[d])
        elif 0.1 <= own_iou < 0.5:
            kinds.append("localization")
            goals[d] = own
        elif other_iou >= 0.5:
            kinds.append("classification")
            goals[d] = other
        else:
            kinds.append("duplicate" if own_iou >= 0.5 else "both" if other_iou >= 0.1 else "background")
    missed = set(real) - detected - set(goals.values())

    def average(rows: list[tuple[float, bool, int]], counted: list[int]) -> list[float]:
        positives = [sum(gt_labels[g] == label for g in counted) for label in range(problem["num_classes"])]
        return [
            area_under([(score, right) for score, right, label in rows if label == c], positives[c])
            if positives[c]
            else 0.0
            for c in range(len(positives))
        ]

    kept = [d for d in range(len(kinds)) if kinds[d] != "ignored"]

    def row(d: int) -> tuple[float, bool, int]:
        return scores[d], kinds[d] == "true", labels[d]

    fixed = {"none": average([row(d) for d in kept], real)}
    used, chosen = set(detected), set()
    for d in sorted(goals, key=lambda d: -scores[d]):
        if goals[d] not in used:
            used.add(goals[d])
            chosen.add(d)
    for kind in ("classification", "localization"):
        rows = [
            (scores[d], True, gt_labels[goals[d]]) if d in chosen and kinds[d] == kind else row(d)
            for d in kept
            if kinds[d] != kind or d in chosen
        ]
        fixed[kind] = average(rows, real)
    for kind in ("both", "duplicate", "background"):
        fixed[kind] = average([row(d) for d in kept if kinds[d] != kind], real)
    fixed["missed"] = average([row(d) for d in kept], [g for g in real if g not in missed])
    fixed["false positives"] = average([row(d) for d in kept if kinds[d] == "true"], real)
    fixed["false negatives"] = average([row(d) for d in kept], sorted(detected))
    return kinds, missed, fixed


@pytest.mark.parametrize("seed", SEEDS)
def test_kinds_and_costs_follow_the_plain_rules(seed: int) -> None:
    problem = near_problem(seed)
    result = error_kinds(*matched(problem))
    kinds, missed, fixed = plain_kinds(problem)
    assert [KINDS[k] if k >= 0 else "" for k in result.detection_kind] == [k if k in KINDS else "" for k in kinds]
    assert set(np.flatnonzero(result.missed)) == missed
    count = [
        [
            sum(k == kind and problem["det_labels"][d] == c for d, k in enumerate(kinds))
            for c in range(problem["num_classes"])
        ]
        for kind in KINDS[:5]
    ]
    count.append(np.bincount(problem["gt_labels"][sorted(missed)], minlength=problem["num_classes"]).tolist())
    np.testing.assert_array_equal(result.count, count)
    there = voc_evaluate(**problem).num_positive > 0
    costs = {**dict(zip(KINDS, result.cost, strict=True)),
             "false positives": result.false_positive_cost, "false negatives": result.false_negative_cost}  # fmt: skip
    for kind, cost in costs.items():
        wanted = np.where(there, np.subtract(fixed[kind], fixed["none"]), np.nan)
        np.testing.assert_allclose(cost, wanted, rtol=0, atol=1e-12, err_msg=kind)
        assert (cost[there] >= -1e-12).all(), kind
    means = [cost[there].mean() if there.any() else np.nan for cost in costs.values()]
    got = [*result.mean_cost, result.mean_false_positive_cost, result.mean_false_negative_cost]
    np.testing.assert_array_equal(got, means)


@pytest.mark.parametrize("seed", range(5))
def test_costs_start_from_the_ap_of_voc(seed: int) -> None:
    problem = crowd_of_images(seed)
    result, whole = error_kinds(*matched(problem)), voc_evaluate(**problem)
    np.testing.assert_array_equal(result.ap, whole.ap)
    assert result.mean_ap == whole.mean_ap
    positive = np.bincount(problem["gt_labels"][~problem["gt_difficult"]], minlength=3) > 0
    assert positive.all()
    last = [whole.curve(label).recall[-1] for label in range(3)]
    np.testing.assert_allclose(result.ap + result.false_positive_cost, last, rtol=0, atol=1e-12)


def example(rows: list[tuple[list[float], float, int]], truths: list[tuple[list[float], int]]) -> Problem:
    return {
        "det_boxes": np.array([row[0] for row in rows]), "det_scores": np.array([row[1] for row in rows]),
        "det_labels": np.array([row[2] for row in rows]), "det_images": np.zeros(len(rows), int),
        "gt_boxes": np.array([row[0] for row in truths]), "gt_labels": np.array([row[1] for row in truths]),
        "gt_images": np.zeros(len(truths), int), "gt_difficult": np.zeros(len(truths), bool), "num_classes": 2,
    }  # fmt: skip


TRUE = (BOX, 0.5, 0)


@pytest.mark.parametrize(
    ("kind", "rows", "truths", "cost"),
    [
        # The wrong name for the only object of class 0, and class 1 has none: 0 becomes 1.
        ("classification", [(BOX, 0.9, 1)], [(BOX, 0)], [1, np.nan]),
        ("localization", [(LOOSE, 0.9, 0)], [(BOX, 0)], [1, np.nan]),
        # The others lie before the true positive: AP 1/2 becomes 1.
        ("both", [(LOOSE, 0.9, 1), (FAR, 0.5, 1)], [(BOX, 0), (FAR, 1)], [0, 0.5]),
        ("duplicate", [(BOX, 0.9, 0), (BOX, 0.8, 0), (FAR, 0.7, 0)], [(BOX, 0), (FAR, 0)], [1 / 6, np.nan]),
        ("background", [(FAR, 0.9, 0), TRUE], [(BOX, 0)], [0.5, np.nan]),
        # One of two objects is detected: AP 1/2 becomes 1.
        ("missed", [TRUE], [(BOX, 0), (FAR, 0)], [0.5, np.nan]),
    ],
)
def test_each_kind_by_hand(kind: str, rows: Any, truths: Any, cost: list[float]) -> None:
    result = error_kinds(*matched(example(rows, truths)))
    index = KINDS.index(kind)
    assert result.count[index].sum() == 1
    np.testing.assert_allclose(result.cost[index], cost)
    np.testing.assert_allclose(result.mean_cost[index], np.nanmean(cost))


def test_only_the_best_scored_error_of_an_object_is_fixed() -> None:
    loose = example([(LOOSE, 0.9, 0), (LOOSE, 0.8, 0), (LOOSE, 0.7, 0)], [(BOX, 0)])
    assert error_kinds(*matched(loose)).cost[KINDS.index("localization"), 0] == 1
    mixed = error_kinds(*matched(example([(LOOSE, 0.9, 0), (BOX, 0.8, 1)], [(BOX, 0)])))
    assert mixed.cost[:2, 0].tolist() == [0, 1]  # the classification error comes too late
    taken = example([(BOX, 0.9, 0), (LOOSE, 0.95, 0)], [(BOX, 0)])
    assert error_kinds(*matched(taken)).cost[KINDS.index("localization"), 0] == 0.5  # dropped, not fixed


def test_intervals_of_iou_are_half_open() -> None:
    half, tenth = [0.0, 0.0, 10.0, 5.0], [0.0, 0.0, 10.0, 1.0]
    rows = [(BOX, 0.9, 0), (half, 0.8, 0), (tenth, 0.7, 0), (half, 0.6, 1), (tenth, 0.5, 1)]
    kinds = [KINDS[k] for k in error_kinds(*matched(example(rows, [(BOX, 0)]))).detection_kind[1:]]
    assert kinds == ["duplicate", "localization", "classification", "both"]


def test_difficult_objects_take_no_part() -> None:
    problem = example([(BOX, 0.9, 0), (BOX, 0.8, 0), (BOX, 0.7, 1)], [(BOX, 0)])
    result = error_kinds(*matched({**problem, "gt_difficult": [True]}))
    assert result.detection_kind.tolist() == [-1, -1, KINDS.index("background")]
    assert not result.missed.any()
    assert np.isnan(result.cost).all()
    assert np.isnan(result.mean_ap)


# Both


@pytest.mark.parametrize("function", [error_kinds, label_errors])
def test_every_result_is_json_whatever_is_missing(function: Any) -> None:
    whole = near_problem(3)
    for problem in (whole, EMPTY, only(whole, "det"), only(whole, "gt")):
        json.dumps(function(*matched(problem)).to_dict(), allow_nan=False)


@pytest.mark.parametrize("function", [error_kinds, label_errors])
def test_nothing_is_modified_and_narrow_types_do_not_overflow(function: Any) -> None:
    problem = crowd_of_images(1, images=200)
    wanted = function(*matched(problem)).to_dict()
    for key, value in problem.items():
        if key.endswith(("labels", "images")):
            problem[key] = value.astype(np.uint8)
        if key != "num_classes":
            problem[key].setflags(write=False)
    assert function(*matched(problem)).to_dict() == wanted


def test_bad_options_are_named() -> None:
    with pytest.raises(ValueError, match=r"background_iou: expected a number in \(0, iou_threshold\], got 0.6"):
        error_kinds(*matched(EMPTY), background_iou=0.6)
    with pytest.raises(ValueError, match="iou_threshold"):
        error_kinds(*matched(EMPTY, iou_threshold=0))
    with pytest.raises(ValueError, match="background_iou"):
        label_errors(*matched(EMPTY), background_iou=0)
    with pytest.raises(ValueError, match="score_threshold"):
        label_errors(*matched(EMPTY), score_threshold=float("inf"))


def test_a_fixed_class_may_need_a_wider_label() -> None:
    """Labels of the detections fit one byte, those of the ground truths do not."""
    problem = {**example([(BOX, 0.9, 0)], [(BOX, 300)]), "num_classes": 301}
    problem["det_labels"] = problem["det_labels"].astype(np.uint8)
    assert error_kinds(*matched(problem)).cost[0, 300] == 1
