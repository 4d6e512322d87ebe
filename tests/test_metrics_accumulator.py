"""Image by image gives the numbers of the flat arrays, in any order and through any merging."""

import pickle
import sys
from typing import Any

import numpy as np
import pytest
from metric_problems import Problem, small_problem

from centerdet.data.sample import Sample
from centerdet.metrics import Accumulator, coco_evaluate, voc_evaluate
from centerdet.metrics.arrays import Arrays

PROBLEMS = [small_problem(seed, "gt_difficult") for seed in range(40)]
DET, TRUTH = ("boxes", "scores", "labels"), ("boxes", "labels", "difficult")


def images(problem: Problem) -> dict[int, tuple[dict[str, Any], dict[str, Any]]]:
    parts = {}
    for image in np.unique(np.append(problem["det_images"], problem["gt_images"])).tolist():
        det, truth = problem["det_images"] == image, problem["gt_images"] == image
        parts[image] = (
            {name: problem[f"det_{name}"][det] for name in DET},
            {name: problem[f"gt_{name}"][truth] for name in TRUTH},
        )
    return parts


def assert_same(accumulator: Accumulator, problem: Problem) -> None:
    by_image = {
        kind: np.argsort(problem[f"{kind}_images"], kind="stable") for kind in ("det", "gt")
    }  # file order is by image here
    ordered = {
        name: value[by_image[name.partition("_")[0]]] if isinstance(value, np.ndarray) else value
        for name, value in problem.items()
    }
    result, expected = accumulator.compute(), voc_evaluate(**ordered)
    np.testing.assert_array_equal(result.ap, expected.ap)
    np.testing.assert_array_equal(result.ap_11pt, expected.ap_11pt)
    del ordered["gt_difficult"]
    np.testing.assert_array_equal(accumulator.compute_coco().stats, coco_evaluate(**ordered).stats)


def test_in_any_order() -> None:
    for seed, problem in enumerate(PROBLEMS):
        parts = list(images(problem).items())
        accumulator = Accumulator(problem["num_classes"])
        for at in np.random.default_rng(seed).permutation(len(parts)):
            accumulator.update(*parts[at][1], image=parts[at][0])
        assert len(accumulator) == len(parts)
        assert_same(accumulator, problem)


def test_merged_across_processes() -> None:
    for problem in PROBLEMS:
        numbered = [Accumulator(problem["num_classes"]) for _ in range(2)]
        for at, (image, part) in enumerate(images(problem).items()):
            numbered[at % 2].update(*part, image=image)
        sent = pickle.loads(pickle.dumps(numbered[0]))  # noqa: S301
        numbered[1].merge(sent)
        assert_same(numbered[1], problem)

        counted = [Accumulator(problem["num_classes"]) for _ in range(2)]
        for at, part in enumerate(images(problem).values()):
            counted[at > 0].update(*part)
        counted[0].merge(counted[1])
        assert_same(counted[0], problem)


def test_samples_crowds_and_areas() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10.0]])
    detections = {"boxes": boxes, "scores": [0.9, 0.8], "labels": [0, 0]}
    sample = Sample(path=None, boxes=boxes, labels=np.zeros(2, int), crowd=np.array([True, False]))  # type: ignore[arg-type]
    accumulator = Accumulator(1)
    accumulator.update(detections, sample)
    assert accumulator.compute().num_positive.tolist() == [2]
    assert accumulator.compute_coco(max_detections=[1, 2, 3]).stats[0] == pytest.approx(1)
    sized = Accumulator(1)
    sized.update(detections, {"boxes": boxes, "labels": [0, 0], "area": [100, 5000]})
    sized.update(detections, {"boxes": boxes, "labels": [0, 0]})
    area = [100, 5000, 100, 100]
    flat = {"det_boxes": np.tile(boxes, (2, 1)), "det_scores": [0.9, 0.8] * 2, "det_labels": [0] * 4}
    flat |= {"det_images": [0, 0, 1, 1], "gt_boxes": np.tile(boxes, (2, 1)), "gt_labels": [0] * 4}
    expected = coco_evaluate(**flat, gt_images=[0, 0, 1, 1], gt_area=area, num_classes=1)
    np.testing.assert_array_equal(sized.compute_coco().stats, expected.stats)


def test_an_image_is_checked_once() -> None:
    calls = 0

    def count(frame: Any, event: str, _: Any) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code is Arrays.check.__func__.__code__

    accumulator = Accumulator(PROBLEMS[0]["num_classes"])
    parts = list(images(PROBLEMS[0]).values())
    sys.setprofile(count)
    try:
        for part in parts:
            accumulator.update(*part)
    finally:
        sys.setprofile(None)
    assert calls == len(parts) > 1


def test_the_callers_arrays_are_copied() -> None:
    detections = {"boxes": np.array([[0, 0, 9, 9.0]]), "scores": np.array([0.5]), "labels": np.array([0])}
    accumulator = Accumulator(1)
    accumulator.update(detections, {"boxes": detections["boxes"].copy(), "labels": [0]})
    detections["boxes"][:] = 0
    assert accumulator.compute().ap[0] == 1


def test_nothing_yet() -> None:
    assert np.isnan(Accumulator(2).compute().ap).all()
    assert (Accumulator(2).compute_coco().stats == -1).all()


def test_what_is_refused() -> None:
    none = {"boxes": np.zeros((0, 4)), "scores": [], "labels": []}
    accumulator = Accumulator(1)
    accumulator.update(none, none, image=3)
    with pytest.raises(ValueError, match="image 3 "):
        accumulator.update(none, none, image=3)
    with pytest.raises(ValueError, match="a number for every image or for none"):
        accumulator.update(none, none)
    with pytest.raises(ValueError, match="from 0 to"):
        accumulator.update(none, none, image=-1)
    bad = {"boxes": [[0, 0, 1, 1], [2, 0, 1, 1]], "scores": [0.5, 0.4], "labels": [0, 0]}
    with pytest.raises(ValueError, match=r"^image 7: det_boxes\[1\]: expected "):
        accumulator.update(bad, none, image=7)
    assert len(accumulator) == 1
    other = Accumulator(1)
    other.update(none, none, image=3)
    with pytest.raises(ValueError, match="image 3 "):
        accumulator.merge(other)
    with pytest.raises(ValueError, match="num_classes: expected 1, got 2"):
        accumulator.merge(Accumulator(2))
    counted = Accumulator(1)
    counted.update(none, none)
    with pytest.raises(ValueError, match="a number for every image or for none"):
        accumulator.merge(counted)
