"""`cocoeval` for code that goes through images itself: `_prepare`, `computeIoU`, `evaluateImg`, and subclasses."""

import contextlib
import inspect
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_problems import change, coco_problem, write
from pycocotools.coco import COCO as THEIR_COCO
from pycocotools.cocoeval import COCOeval as THEIR_EVAL
from pycocotools.cocoeval import Params as THEIR_PARAMS

from centerdet.errors import DataError
from centerdet.metrics.cocoeval import COCO, COCOeval, Params

OURS, THEIRS = (COCO, COCOeval), (THEIR_COCO, THEIR_EVAL)


def evaluation(classes: tuple[Any, Any], files: tuple[str, str], seed: int | None = None) -> Any:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = classes[0](files[0])
        one = classes[1](truth, truth.loadRes(files[1]), "bbox")
    if seed is not None:
        change(one.params, seed)
    one.params.imgIds, one.params.maxDets = list(np.unique(one.params.imgIds)), sorted(one.params.maxDets)
    if one.params.useCats:
        one.params.catIds = list(np.unique(one.params.catIds))
    return one


def assert_equal_entries(mine: Any, other: Any) -> None:
    assert (mine is None) == (other is None)
    for key in other or ():
        np.testing.assert_array_equal(mine[key], other[key], err_msg=key)


@pytest.mark.parametrize("seed", range(800, 812))
def test_image_by_image(seed: int, tmp_path: Path) -> None:
    """As DETR and older torchvision references do; also with ranges and limits that `params` does not have."""
    files, other = write(tmp_path, *coco_problem(seed)), seed if seed % 2 else None
    ours, theirs = (evaluation(classes, files, other) for classes in (OURS, THEIRS))
    p = theirs.params
    cells = [(image, one) for image in p.imgIds for one in (p.catIds if p.useCats else [-1])]
    for one in (ours, theirs):
        one._prepare()
        one.ious = {cell: one.computeIoU(*cell) for cell in cells}
    for name in ("_gts", "_dts"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        assert {cell: some for cell, some in mine.items() if some} == {c: some for c, some in other.items() if some}
        assert mine["no", "such"] == []
    for cell in cells:
        np.testing.assert_array_equal(ours.ious[cell], theirs.ious[cell])
    for area in [*p.areaRng, [5, 5000]]:
        for limit in (p.maxDets[-1], 2):
            for cell in cells:
                assert_equal_entries(*(one.evaluateImg(*cell, area, limit) for one in (ours, theirs)))


def test_subclasses_decide_image_by_image(tmp_path: Path) -> None:
    def first_only(parent: Any) -> Any:
        class Evaluation(parent):  # type: ignore[misc]
            def evaluateImg(self, imgId: Any, catId: Any, aRng: Any, maxDet: Any) -> Any:
                entry = super().evaluateImg(imgId, catId, aRng, maxDet)
                if entry is not None:
                    entry["gtIgnore"] = np.ones_like(entry["gtIgnore"]) if imgId % 2 else entry["gtIgnore"]
                return entry

        return Evaluation

    compared = 0
    for seed in range(900, 920):
        truth, results = coco_problem(seed)
        if not isinstance(truth["images"][0]["id"], int):
            continue
        files, numbers = write(tmp_path, truth, results), []
        for coco, parent in (OURS, THEIRS):
            one = evaluation((coco, first_only(parent)), files)
            with contextlib.redirect_stdout(io.StringIO()):
                one.evaluate(), one.accumulate(), one.summarize()
            numbers.append(one)
        for name in ("precision", "recall", "scores"):
            np.testing.assert_array_equal(numbers[0].eval[name], numbers[1].eval[name])
        compared += 1
    assert compared > 3


def test_other_overlaps_are_refused(tmp_path: Path) -> None:
    class Evaluation(COCOeval):
        def computeIoU(self, imgId: Any, catId: Any) -> Any:
            return []

    with pytest.raises(DataError, match=r"computeIoU.*keep pycocotools"):
        evaluation((COCO, Evaluation), write(tmp_path, *coco_problem(1))).evaluate()


@pytest.mark.parametrize(("mine", "other"), [(COCO, THEIR_COCO), (COCOeval, THEIR_EVAL), (Params, THEIR_PARAMS)])
def test_no_name_and_no_parameter_is_missing(mine: Any, other: Any) -> None:
    for name, one in inspect.getmembers(other, callable):
        if not name.startswith("__"):
            missing = inspect.signature(one).parameters.keys() - inspect.signature(getattr(mine, name)).parameters
            assert not missing, (name, missing)


def test_before_evaluate() -> None:
    one = COCOeval(COCO({"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1}]}), COCO(), "bbox")
    assert one.evaluateImg(1, 1, [0, 1e10], 100) is None
    assert one.computeIoU(1, 1) == []
    with pytest.raises(DataError, match="keep pycocotools"):
        one.computeOks(1, 1)
    with pytest.raises(DataError, match="keep pycocotools"):
        one.params.setKpParams()


def test_assertions_of_pycocotools_are_assertions(tmp_path: Path) -> None:
    coco = COCO({"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1}]})
    (tmp_path / "list.json").write_text("[]")
    box = {"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}
    for call in (lambda: coco.loadRes([box]), lambda: coco.loadRes({}), lambda: COCO(tmp_path / "list.json")):
        with pytest.raises(AssertionError, match=r"expected|not in the ground truth") as caught:
            call()
        assert isinstance(caught.value, DataError)
    array = np.array([[1, 1, 2, 3, 4, 0.5, 1]])
    with contextlib.redirect_stdout(io.StringIO()):
        assert coco.loadNumpyAnnotations(array) == THEIR_COCO().loadNumpyAnnotations(array)
