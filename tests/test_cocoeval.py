"""`cocoeval` beside pycocotools: the same files give the same bits, and other people's code runs on it."""

import contextlib
import copy
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_problems import coco_problem, run, write
from pycocotools.coco import COCO as THEIR_COCO
from pycocotools.cocoeval import COCOeval as THEIR_EVAL

from centerdet.errors import AnnotationError, DataError, MissingDataError
from centerdet.metrics.cocoeval import COCO, COCOeval, Params, init_as_pycocotools

CURVES = ("precision", "recall", "scores")
BOX = [10, 20, 30, 40]


def dataset(*annotations: dict[str, Any], images: Any = (1, 2), categories: Any = (1,)) -> dict[str, Any]:
    return {
        "images": [{"id": one, "width": 100, "height": 100, "file_name": f"{one}.jpg"} for one in images],
        "categories": [{"id": one, "name": f"name{one}", "supercategory": "all"} for one in categories],
        "annotations": [
            {"id": place, "image_id": 1, "category_id": 1, "bbox": BOX, "area": 1200, "iscrowd": 0, **one}
            for place, one in enumerate(annotations, 1)
        ],
    }


def result(**more: Any) -> dict[str, Any]:
    return {"image_id": 1, "category_id": 1, "bbox": BOX, "score": 0.5, **more}


def stats(truth: Any, results: Any) -> np.ndarray:
    return np.asarray(run((COCO, COCOeval), truth, results).stats)


def assert_equal_runs(folder: Path, seed: int) -> None:
    """A problem through files: numbers, printed table, entries, IoUs; every second one with other parameters."""
    files, other = write(folder, *coco_problem(seed)), seed if seed % 2 else None
    try:
        theirs = run((THEIR_COCO, THEIR_EVAL), *files, other)
    except IndexError:  # its table fails where a limit is given twice
        return
    ours = run((COCO, COCOeval), *files, other)
    fast = [ours.eval[name] for name in CURVES]
    assert ours.eval["counts"] == theirs.eval["counts"]
    for name, curve in zip(CURVES, fast, strict=True):
        np.testing.assert_array_equal(curve, theirs.eval[name], err_msg=f"{seed} {name}")
    np.testing.assert_array_equal(ours.stats, theirs.stats)
    assert ours.printed == theirs.printed
    assert len(ours.evalImgs) == len(theirs.evalImgs)
    for mine, entry in zip(ours.evalImgs, theirs.evalImgs, strict=True):
        assert (mine is None) == (entry is None)
        for key in entry or ():
            np.testing.assert_array_equal(mine[key], entry[key], err_msg=f"{seed} {key}")
    assert ours.ious.keys() == theirs.ious.keys()
    for cell, iou in theirs.ious.items():
        np.testing.assert_array_equal(ours.ious[cell], iou)
    ours.accumulate()  # from the entries now
    for name, curve in zip(CURVES, fast, strict=True):
        np.testing.assert_array_equal(ours.eval[name], curve)


@pytest.mark.parametrize("start", range(0, 60, 10))
def test_files_give_the_bits_of_pycocotools(tmp_path: Path, start: int) -> None:
    for seed in range(start, start + 10):
        assert_equal_runs(tmp_path, seed)


@pytest.mark.soak
@pytest.mark.parametrize("start", range(100, 2100, 100))
def test_two_thousand_files_give_the_bits_of_pycocotools(tmp_path: Path, start: int) -> None:
    for seed in range(start, start + 100):
        assert_equal_runs(tmp_path, seed)


def test_lists_arrays_and_dicts_are_files() -> None:
    for seed in range(400, 420):
        truth, results = coco_problem(seed)
        if not all(isinstance(one["image_id"], int) and isinstance(one["category_id"], int) for one in results):
            continue
        rows = [[one["image_id"], *one["bbox"], one["score"], one["category_id"]] for one in results]
        from_list = run((COCO, COCOeval), truth, json.loads(json.dumps(results)))
        from_array = run((COCO, COCOeval), truth, np.array(rows, np.float64))
        for name in CURVES:
            np.testing.assert_array_equal(from_list.eval[name], from_array.eval[name])


def queries(images: list[Any], categories: list[Any]) -> list[Any]:
    return [
        lambda coco: coco.getImgIds(),
        lambda coco: sorted(coco.getImgIds(catIds=categories[:1]), key=str),
        lambda coco: sorted(coco.getImgIds(imgIds=images, catIds=categories[-1:]), key=str),
        lambda coco: coco.getCatIds(),
        lambda coco: coco.getCatIds(catNms=[f"class {categories[0]}"]),
        lambda coco: coco.getCatIds(catIds=categories[:2]),
        lambda coco: coco.getAnnIds(),
        lambda coco: coco.getAnnIds(imgIds=images[:1]),
        lambda coco: coco.getAnnIds(imgIds=images[:2], catIds=categories[:1], areaRng=[0, 1e4]),
        lambda coco: coco.getAnnIds(iscrowd=False),
        lambda coco: coco.loadAnns(coco.getAnnIds(catIds=categories[:1])),
        lambda coco: coco.loadImgs(images),
        lambda coco: coco.loadCats(categories),
    ]


@pytest.mark.parametrize("seed", range(500, 510))
def test_queries(seed: int, tmp_path: Path) -> None:
    files = write(tmp_path, *coco_problem(seed))
    with contextlib.redirect_stdout(io.StringIO()):
        theirs, ours = THEIR_COCO(files[0]), COCO(files[0])
        pairs = [(theirs, ours), (theirs.loadRes(files[1]), ours.loadRes(files[1]))]
    for other, mine in pairs:
        assert mine.dataset == other.dataset
        for name in ("anns", "imgs", "cats", "imgToAnns", "catToImgs"):
            assert dict(getattr(mine, name)) == dict(getattr(other, name)), name
        for call in queries(list(other.imgs), list(other.cats)):
            assert call(mine) == call(other)


def test_one_id_is_a_list_of_one() -> None:
    coco = COCO(dataset({}))
    assert coco.loadAnns(1) == coco.loadAnns([1]) == coco.loadAnns(np.int64(1)) == [coco.anns[1]]
    assert coco.getAnnIds(imgIds=1, catIds=1) == [1]
    assert coco.getCatIds(catNms="name1") == [1]


def test_area_and_iscrowd_may_be_missing() -> None:
    """pycocotools stops with a KeyError."""
    truth = dataset({})
    for key in ("area", "iscrowd"):
        del truth["annotations"][0][key]
    assert stats(truth, [result()])[4] > 0.999


def test_no_results_are_no_error(tmp_path: Path) -> None:
    (tmp_path / "empty.json").write_text("[]")
    assert stats(dataset({}), str(tmp_path / "empty.json"))[0] == 0
    with contextlib.redirect_stdout(io.StringIO()):
        empty = COCOeval(COCO(dataset({})), COCO(), "bbox")  # as torchvision's references have it
        empty.evaluate(), empty.accumulate(), empty.summarize()
    assert empty.stats[0] == 0
    assert (stats(dataset(images=[], categories=[]), []) == -1).all()


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([result(image_id=7)], "not in the ground truth, such as 7"),
        ([result(score=float("nan"))], r"results\[0\].score: expected a finite number, got nan"),
        ([result(bbox=[1, 2, 3])], r"results\[0\].bbox: expected \[x, y, width, height\]"),
        ([result(), result(bbox=[1, 2, 3, float("inf")])], r"results\[1\].bbox"),
        ([result(), {"image_id": 1, "category_id": 1, "bbox": BOX}], r"results\[1\].score: .*key is missing"),
        ([{"image_id": 1, "category_id": 1, "segmentation": {}, "score": 1}], "keep pycocotools"),
        ([{"image_id": 1, "caption": "a cat"}], "keep pycocotools"),
        ([result(), result(image_id=[1])], r"results\[1\].image_id: expected a value, got \[1\]"),
        ([result(), result(category_id={})], r"results\[1\].category_id: expected a value, got {}"),
        ([result(), 3], r"results\[1\].image_id: expected a value, got 3"),
        ([result(), result(score=None)], r"results\[1\].score: expected a finite number, got None"),
        ({"annotations": []}, "expected a list of detections"),
        (np.zeros((3, 6)), r"shape \(N, 7\)"),
    ],
)
def test_unusable_results(results: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stats(dataset({}), results)


def test_unusable_files(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError):
        COCO(tmp_path / "no.json")
    for text in ("", "[1, 2", "\0"):
        (tmp_path / "broken.json").write_text(text)
        with pytest.raises(AnnotationError, match="broken JSON"):
            COCO(tmp_path / "broken.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(AnnotationError, match="expected an object"):
        COCO(tmp_path / "list.json")
    for name, content in (("images", "abc"), ("annotations", None), ("categories", {})):
        (tmp_path / "truth.json").write_text(json.dumps({**dataset({}), name: content}))
        with pytest.raises(AnnotationError, match=rf"truth.json: {name}: expected a list, got"):
            COCO(tmp_path / "truth.json")
    (tmp_path / "truth.json").write_text(json.dumps(dataset({}, {"bbox": [1, 2]})))
    with pytest.raises(AnnotationError, match=r"truth.json: annotations\[1\].bbox: expected"):
        stats(tmp_path / "truth.json", [result()])
    for text in ("NaN", '"high"', "null"):
        (tmp_path / "results.json").write_text(json.dumps([result(), result(score="S")]).replace('"S"', text))
        with pytest.raises(AnnotationError, match=r"results.json\[1\].score: expected a finite number"):
            stats(dataset({}), tmp_path / "results.json")
    with pytest.raises(AnnotationError, match=r"annotations\[0\].id: .*key is missing"):
        stats({**dataset(), "annotations": [{"image_id": 1, "category_id": 1, "bbox": BOX}]}, [result()])


def test_only_boxes() -> None:
    for kind in ("segm", "keypoints", None):
        with pytest.raises(DataError, match="keep pycocotools"):
            COCOeval(iouType=kind)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="keep pycocotools"):
        COCOeval()
    with pytest.raises(DataError, match="keep pycocotools"):
        COCO(dataset({})).annToMask({})
    assert vars(Params("bbox")).keys() >= {"imgIds", "catIds", "iouThrs", "recThrs", "maxDets", "areaRng", "areaRngLbl"}


def test_steps_in_the_wrong_order() -> None:
    one = COCOeval(COCO(dataset({})), COCO(dataset({})).loadRes([result()]), "bbox")
    with pytest.raises(DataError, match=r"evaluate\(\) first"):
        one.accumulate()
    with pytest.raises(DataError, match=r"accumulate\(\) first"):
        one.summarize()
    one.params.maxDets = [0, 1]
    with pytest.raises(DataError, match="maxDets"):
        one.evaluate()


def test_other_parameters_for_accumulate() -> None:
    """Also where pycocotools takes the entries of other categories for those asked for."""
    for seed in range(600, 640):
        truth, results = coco_problem(seed)
        ours = run((COCO, COCOeval), *map(json.loads, map(json.dumps, (truth, results))))
        with contextlib.redirect_stdout(io.StringIO()):
            annotations = THEIR_COCO()
            annotations.dataset = truth
            annotations.createIndex()
            theirs = THEIR_EVAL(annotations, annotations.loadRes(results), "bbox")
            theirs.evaluate()
            for one in (ours, theirs):
                other = Params("bbox")
                other.imgIds, other.catIds = one.params.imgIds[:2], one.params.catIds[-1:]
                other.areaRng, other.maxDets = one.params.areaRng[:2], [10, 100]
                one.accumulate(other)
        for name in CURVES:
            np.testing.assert_array_equal(ours.eval[name], theirs.eval[name])


def test_in_the_place_of_pycocotools(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pycocotools", "pycocotools.coco", "pycocotools.cocoeval", "pycocotools.mask"):
        monkeypatch.setitem(sys.modules, name, sys.modules.get(name))
    package = sys.modules["pycocotools"]
    for name in ("coco", "cocoeval", "mask"):
        monkeypatch.setattr(package, name, getattr(package, name, None), raising=False)
    init_as_pycocotools()
    import pycocotools.coco
    import pycocotools.cocoeval
    from pycocotools import mask

    assert pycocotools.coco.COCO is COCO and pycocotools.cocoeval.COCOeval is COCOeval
    assert mask.__name__ == "pycocotools.mask"


def test_entries_of_many_evaluations_in_one() -> None:
    """As torchvision's detection references do: evaluate image by image, join the entries, accumulate."""
    for seed in range(700, 720):
        truth, results = coco_problem(seed)
        numbers = []
        for coco, evaluator in ((COCO, COCOeval), (THEIR_COCO, THEIR_EVAL)):
            with contextlib.redirect_stdout(io.StringIO()):
                annotations = coco()
                annotations.dataset = json.loads(json.dumps(truth))
                annotations.createIndex()
                one, entries = evaluator(annotations, iouType="bbox"), []
                images = list(np.unique(one.params.imgIds))
                for image in images:
                    some = [dict(row) for row in results if row["image_id"] == image]
                    one.cocoDt = annotations.loadRes(some) if some else coco()
                    one.params.imgIds = [image]
                    one.evaluate()
                    entries.append(np.asarray(one.evalImgs).reshape(-1, len(one.params.areaRng), 1))
                one.evalImgs = list(np.concatenate(entries, 2).flatten())
                one.params.imgIds = images
                one._paramsEval = copy.deepcopy(one.params)
                one.accumulate()
                one.summarize()
            numbers.append(one)
        np.testing.assert_array_equal(numbers[0].stats, numbers[1].stats)
        for name in CURVES:
            np.testing.assert_array_equal(numbers[0].eval[name], numbers[1].eval[name])


METRIC = """
import sys
import torch
if sys.argv[1] == "ours":
    from centerdet.metrics.cocoeval import COCO, init_as_pycocotools
    init_as_pycocotools()
    from pycocotools.coco import COCO as installed
    assert installed is COCO
from torchmetrics.detection import MeanAveragePrecision
draw = torch.Generator().manual_seed(0)
metric = MeanAveragePrecision(class_metrics=True, extended_summary=True, backend="pycocotools")
for _ in range(30):
    count = int(torch.randint(0, 6, (1,), generator=draw))
    truth = torch.rand(count, 4, generator=draw) * 100
    truth[:, 2:] += truth[:, :2]
    boxes = truth.repeat(2, 1) + torch.randn(2 * count, 4, generator=draw) * 4
    labels = [torch.randint(0, 3, (number,), generator=draw) for number in (2 * count, count)]
    crowd = (torch.rand(count, generator=draw) < 0.1).int()
    metric.update(
        [dict(boxes=boxes, scores=torch.rand(2 * count, generator=draw), labels=labels[0])],
        [dict(boxes=truth, labels=labels[1], iscrowd=crowd)],
    )
torch.set_printoptions(threshold=10**9, precision=17)
print({key: value for key, value in metric.compute().items()})
"""


@pytest.mark.soak
def test_torchmetrics_runs_on_it() -> None:
    """Its metric asks pycocotools' names of whoever has them; this needs torchmetrics, which is no requirement here."""
    pytest.importorskip("torchmetrics")
    outputs = [
        subprocess.run([sys.executable, "-W", "ignore", "-c", METRIC, who], capture_output=True, text=True, check=True)
        for who in ("ours", "theirs")
    ]
    assert outputs[0].stdout == outputs[1].stdout != ""
