"""Bad arrays name the argument and the row; unusual ones that are right give the same numbers; none is modified."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from metric_problems import Problem, small_problem

from centerdet.errors import CenterdetError
from centerdet.metrics import coco_evaluate, voc_evaluate, voc_match

EVALUATORS = {"gt_difficult": (voc_evaluate, voc_match), "gt_crowd": (coco_evaluate,)}
ROWS = 7


def good() -> Problem:
    rng = np.random.default_rng(0)
    low = rng.random((2, ROWS, 2)) * 50
    boxes = np.concatenate([low, low + rng.random((2, ROWS, 2)) * 50], 2)
    return {
        "det_boxes": boxes[0], "det_scores": rng.random(ROWS), "det_labels": rng.integers(0, 3, ROWS),
        "det_images": rng.integers(0, 4, ROWS), "gt_boxes": boxes[1], "gt_labels": rng.integers(0, 3, ROWS),
        "gt_images": rng.integers(0, 4, ROWS), "num_classes": 3,
    }  # fmt: skip


def changed(values: Any, row: Any, value: Any, kind: Any = None) -> Any:
    copy = np.array(values, kind)
    copy[row] = value
    return copy


BOX = [(5, 0), (5, 3)]
BAD_ROWS = [
    *((name, changed(np.ones((ROWS, 4)), at, value)) for name in ("det_boxes", "gt_boxes") for at in BOX
      for value in (np.nan, np.inf, -np.inf, 1e200)),
    *((name, changed(np.tile([1.0, 1, 2, 2], (ROWS, 1)), at, value)) for name in ("det_boxes", "gt_boxes")
      for at, value in (((5, 0), 2.5), ((5, 1), 3), ((5, 2), 0.5), ((5, 3), np.nextafter(1, 0)))),
    ("det_boxes", changed(np.ones((ROWS, 4)), (5, 2), np.nan, np.float32)),
    ("det_boxes", changed(np.ones((ROWS, 4)), (5, 2), np.inf, np.float16)),
    ("det_boxes", changed(np.ones((ROWS, 4)), (5, 2), 0, np.int32)),
    *(("det_scores", changed(np.ones(ROWS), 5, value)) for value in (np.nan, np.inf, -np.inf)),
    ("det_scores", changed(np.ones(ROWS), 5, np.nan, np.float32)),
    *((name, changed(np.zeros(ROWS), 5, value)) for name in ("det_labels", "gt_labels", "det_images", "gt_images")
      for value in (-1, 0.5, np.nan, np.inf, 1e300)),
    *((name, changed(np.zeros(ROWS), 5, value, int)) for name in ("det_labels", "gt_labels") for value in (-1, 3)),
    ("det_labels", changed(np.zeros(ROWS), 5, 2**62, int)),
    *((name, changed(np.zeros(ROWS), 5, value, int)) for name in ("det_images", "gt_images") for value in (-1, 2**41)),
    ("gt_labels", changed(np.zeros(ROWS), 5, 2**64 - 1, np.uint64)),
    *(("flag", changed(np.zeros(ROWS), 5, value)) for value in (2, -1, 0.5, np.nan)),
]  # fmt: skip


@pytest.mark.parametrize("flag", EVALUATORS)
@pytest.mark.parametrize(
    ("name", "value"), BAD_ROWS, ids=lambda part: part if isinstance(part, str) else part.dtype.name
)
def test_a_bad_row_is_named(flag: str, name: str, value: Any) -> None:
    name = flag if name == "flag" else name
    for evaluate in EVALUATORS[flag]:
        with pytest.raises(ValueError, match=rf"^{name}\[5\]: expected ") as error:
            evaluate(**{**good(), name: value})
        assert isinstance(error.value, CenterdetError)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1])
def test_a_bad_area_is_named(value: float) -> None:
    with pytest.raises(ValueError, match=r"^gt_area\[2\]: expected "):
        coco_evaluate(**good(), gt_area=changed(np.ones(ROWS), 2, value))


BAD_ARRAYS = [
    ("det_boxes", np.ones((ROWS, 3))),
    ("det_boxes", np.ones(ROWS * 4)),
    ("det_boxes", np.ones((ROWS, 4, 1))),
    ("det_boxes", np.ones((0, 5))),
    ("gt_boxes", np.ones((ROWS, 5))),
    ("det_boxes", np.ones((ROWS, 4), object)),
    ("det_boxes", np.ones((ROWS, 4), complex)),
    ("det_boxes", np.ones((ROWS, 4), bool)),
    ("det_boxes", np.ones((ROWS, 4), np.longdouble)),
    ("det_boxes", [["a"] * 4] * ROWS),
    ("det_boxes", [[0, 0, 1, 1], [0, 0, 1]]),
    ("det_boxes", None),
    ("det_scores", np.ones(ROWS - 1)),
    ("det_scores", np.ones((ROWS, 1))),
    ("det_scores", np.float64(1)),
    ("det_scores", np.array(["0.5"] * ROWS)),
    ("det_labels", np.zeros(ROWS + 1, int)),
    ("det_labels", np.zeros(ROWS, bool)),
    ("det_labels", np.zeros(ROWS, object)),
    ("det_images", np.zeros(1, int)),
    ("det_images", np.zeros(ROWS, "datetime64[s]")),
    ("gt_labels", np.zeros((1, ROWS), int)),
    ("gt_images", np.zeros(0, int)),
    ("flag", np.zeros(ROWS - 1, bool)),
    ("flag", np.zeros(ROWS, object)),
    ("num_classes", 0),
    ("num_classes", 2.0),
    ("num_classes", True),
    ("num_classes", 2**21),
    ("num_classes", "3"),
]


@pytest.mark.parametrize("flag", EVALUATORS)
@pytest.mark.parametrize(("name", "value"), BAD_ARRAYS)
def test_a_bad_array_is_named(flag: str, name: str, value: Any) -> None:
    name = flag if name == "flag" else name
    for evaluate in EVALUATORS[flag]:
        with pytest.raises(ValueError, match=f"^{name}: expected "):
            evaluate(**{**good(), name: value})


@pytest.mark.parametrize("value", [0, -0.5, 1.5, np.nan, np.inf, True, "0.5", None])
def test_unusable_thresholds(value: Any) -> None:
    for evaluate in (voc_evaluate, voc_match):
        with pytest.raises(ValueError, match=r"^iou_threshold: expected "):
            evaluate(**good(), iou_threshold=value)


def numbers(problem: Problem) -> list[Any]:
    """Everything that is computed; plain flags where the problem has none."""
    count = len(problem["gt_labels"])
    voc = {**problem, "gt_difficult": problem.get("gt_difficult", np.arange(count) % 5 == 0)}
    coco = {name: value for name, value in voc.items() if name != "gt_difficult"}
    match, result = voc_match(**voc), voc_evaluate(**voc)
    other = coco_evaluate(**coco, gt_crowd=voc["gt_difficult"])
    return [
        result.ap, result.ap_11pt, match.best_gt, match.best_iou, match.true_positive, match.ignored, match.order,
        other.stats, other.precision, other.recall, other.ap,
    ]  # fmt: skip


def assert_same(first: Problem, second: Problem) -> None:
    for one, other in zip(numbers(first), numbers(second), strict=True):
        np.testing.assert_array_equal(one, other)


def crowded() -> Problem:
    problem = small_problem(41, "gt_difficult")
    assert problem["det_images"].max() == 2 < min(len(problem["det_boxes"]), len(problem["gt_boxes"]))
    return {**problem, "det_boxes": np.asarray(problem["det_boxes"], np.float64)}


def test_read_only_and_strided_arrays_are_taken_and_left_alone() -> None:
    problem = crowded()
    frozen, before = {}, {}
    for name, value in problem.items():
        if isinstance(value, np.ndarray):
            wide = np.repeat(value, 3, axis=0)
            wide = np.asfortranarray(wide) if wide.ndim == 2 else wide
            frozen[name] = wide[::3]
            frozen[name].flags.writeable = False
            before[name] = frozen[name].copy()
    assert_same(problem, {**problem, **frozen})
    for name, value in before.items():
        np.testing.assert_array_equal(frozen[name], value)
        backwards = np.ascontiguousarray(value[::-1])[::-1]
        assert_same(problem, {**problem, name: backwards})


def test_lists_and_other_types_of_number() -> None:
    problem = crowded()
    listed = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in problem.items()}
    assert_same(problem, listed)
    for kind in (np.int8, np.uint8, np.uint16, np.int32, np.uint64, ">i4", np.float32, np.float64):
        whole = ("det_labels", "det_images", "gt_labels", "gt_images", "gt_difficult")
        assert_same(problem, {**problem, **{name: problem[name].astype(kind) for name in whole}})
    swapped = {name: problem[name].astype(">f8") for name in ("det_boxes", "det_scores", "gt_boxes")}
    assert_same(problem, {**problem, **swapped})
    half = {name: problem[name].astype(np.float16) for name in swapped}
    assert_same({**problem, **{name: value.astype(np.float64) for name, value in half.items()}}, {**problem, **half})
    whole_boxes = {name: np.floor(problem[name]).astype(np.int64) for name in ("det_boxes", "gt_boxes")}
    floats = {name: value.astype(np.float64) for name, value in whole_boxes.items()}
    assert_same({**problem, **floats}, {**problem, **whole_boxes})


def test_empty_lists_are_no_rows() -> None:
    nothing = {name: [] for name in good() if name != "num_classes"}
    result = voc_evaluate(**nothing, num_classes=2)
    assert np.isnan(result.ap).all()
    assert (coco_evaluate(**nothing, num_classes=2).stats == -1).all()
    assert len(voc_match(**nothing, num_classes=2).order) == 0


def test_tensors() -> None:
    torch = pytest.importorskip("torch")
    problem = crowded()
    problem["det_boxes"] = problem["det_boxes"].astype(np.float32)
    tensors = {name: torch.from_numpy(value.copy()) for name, value in problem.items() if isinstance(value, np.ndarray)}
    tensors["det_boxes"].requires_grad_()
    assert_same(problem, {**problem, **tensors})
    short = problem["det_scores"].astype(np.float32).view(np.uint32) & 0xFFFF0000  # what bfloat16 can hold
    problem["det_scores"] = short.view(np.float32)
    tensors["det_scores"] = torch.from_numpy(problem["det_scores"].copy()).bfloat16()
    assert_same(problem, {**problem, **tensors})


def test_numbers_of_images_may_be_wide_and_many() -> None:
    problem = crowded()
    wide = {name: problem[name] * (2**40 // 3) for name in ("det_images", "gt_images")}
    assert max(value.max() for value in wide.values()) <= 2**40
    assert_same(problem, {**problem, **wide})
    count = 50_000
    boxes = np.tile([0.0, 0, 10, 10], (count, 1))
    problem = {"det_boxes": boxes, "det_scores": np.linspace(1, 0, count), "det_labels": np.arange(count) % 80,
               "det_images": np.arange(count)[::-1] * 2**20, "gt_boxes": boxes, "gt_labels": np.arange(count) % 80,
               "gt_images": np.arange(count)[::-1] * 2**20, "num_classes": 80}  # fmt: skip
    np.testing.assert_allclose(voc_evaluate(**problem).ap, 1)
    assert coco_evaluate(**problem).stats[0] == pytest.approx(1)
    assert (voc_evaluate(**{**problem, "num_classes": 2**20}).num_positive[80:] == 0).all()


@pytest.mark.parametrize("scale", [1e-160, 1e-30, 1.0, 2.0**40, 1e100, 1e149])
def test_huge_and_tiny_coordinates_overflow_nowhere(scale: float) -> None:
    boxes = np.array([[-1, -1, 1, 1], [0, 0, 1, 1], [-1, -1, 1, 0.5]]) * scale
    problem = {"det_boxes": boxes, "det_scores": [0.9, 0.8, 0.7], "det_labels": [0] * 3, "det_images": [0, 1, 2],
               "gt_boxes": boxes, "gt_labels": [0] * 3, "gt_images": [0, 1, 2], "num_classes": 1}  # fmt: skip
    result = voc_evaluate(**problem)
    assert result.ap[0] in ((1.0,) if scale > 1e-100 else (0.0, 1.0))


def test_importing_the_metrics_needs_neither_torch_nor_opencv() -> None:
    code = "import centerdet.metrics, sys; print(sorted({'torch', 'cv2', 'PIL', 'albumentations'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
