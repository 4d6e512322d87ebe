"""`Detections`: checked once, best first, selected by anything, and read back by what others read."""

import io
import json
import pickle
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from centerdet.data.coco import read_coco
from centerdet.data.sample import Dataset
from centerdet.data.voc import read_voc
from centerdet.data.yolo import read_yolo, write_yolo
from centerdet.detections import Detection, Detections
from centerdet.errors import CenterdetError, ConfigError, DataError

NAMES = ("cat", "dog", "traffic light")
BOXES = [[10, 20, 30, 45], [0.25, 0, 50.1, 60], [3, 3, 3, 9], [5, 6, 90, 60]]
SCORES = [0.3, 0.9, 0.3, 0.55]
LABELS = [2, 0, 1, 0]


@pytest.fixture
def found() -> Detections:
    return Detections(np.array(BOXES, np.float32), np.array(SCORES, np.float32), np.array(LABELS), NAMES, (60, 90))


@pytest.fixture
def nothing() -> Detections:
    return Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0), NAMES, (60, 90))


def test_arrays_are_best_first_typed_and_read_only(found: Detections) -> None:
    assert found.labels.tolist() == [0, 0, 2, 1]  # of equal scores the first given stays first
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    assert (found.boxes.dtype, found.scores.dtype, found.labels.dtype) == (np.float32, np.float32, np.int64)
    assert found.boxes[:, 0].tolist() == [0.25, 5, 10, 3]
    for array in (found.boxes, found.scores, found.labels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(AttributeError):
        found.size = (1, 1)  # type: ignore[misc]


def test_arguments_are_left_alone_and_not_shared() -> None:
    boxes, scores, labels = np.array(BOXES, np.float32), np.array(SCORES, np.float32), np.array(LABELS)
    found = Detections(boxes, scores, labels, list(NAMES), [60, 90])  # type: ignore[arg-type]
    np.testing.assert_array_equal(boxes, np.array(BOXES, np.float32))
    boxes[:], scores[:], labels[:] = 0, 0, 0
    assert found.scores[0] == np.float32(0.9)
    assert (found.names, found.size) == (NAMES, (60, 90))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": np.zeros((4, 5))}, r"boxes: expected shape \(N, 4\), got \(4, 5\)"),
        ({"boxes": np.zeros(4)}, r"boxes: expected shape"),
        ({"scores": [0.5]}, r"scores: expected shape \(4,\) to match boxes"),
        ({"labels": [[0, 0, 0, 0]]}, r"labels: expected shape \(4,\) to match boxes"),
        ({"labels": [0, 1, 2, 3]}, "labels: expected integers from 0 to 2"),
        ({"labels": [0, 1, 2, -1]}, "labels: expected integers from 0 to 2"),
        ({"labels": [0.0, 1.0, 2.0, 0.0]}, "labels: expected integers"),
        ({"scores": [0.5, np.nan, 0.1, 0.1]}, "finite"),
        ({"boxes": [[0, 0, np.inf, 1]] * 4}, "finite"),
        ({"boxes": [[0, 0, 1e300, 1]] * 4}, "finite"),
        ({"boxes": [[5, 0, 4, 1]] * 4}, "x1 <= x2"),
        ({"size": (0, 90)}, "size: expected"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], message: str) -> None:
    fields = {"boxes": BOXES, "scores": SCORES, "labels": LABELS, "names": NAMES, "size": (60, 90)}
    with pytest.raises(DataError, match=message):
        Detections(**{**fields, **change})  # type: ignore[arg-type]


def test_length_iteration_and_number(found: Detections, nothing: Detections) -> None:
    assert len(found) == 4
    assert list(found) == [found[0], found[1], found[2], found[3]]
    assert found[0] == Detection((0.25, 0.0, 50.1, 60.0), 0.9, 0, "cat")  # the decimals that were given
    assert found[-1] == found[np.int64(3)] == (((3.0, 3.0, 3.0, 9.0)), 0.3, 1, "dog")
    assert [one.name for one in found] == found.label_names == ["cat", "cat", "traffic light", "dog"]
    with pytest.raises(IndexError):
        found[4]
    assert not nothing
    assert list(nothing) == []


def test_selections_are_detections_again(found: Detections, nothing: Detections) -> None:
    mask = found.labels == 0
    for index in (slice(0, 2), mask, mask.tolist(), [1, 0], np.array([0, 1]), (0, 1), torch.tensor([0, 1])):
        chosen = found[index]  # type: ignore[index]
        assert isinstance(chosen, Detections)
        np.testing.assert_array_equal(chosen.boxes, found.boxes[:2])
        assert (chosen.names, chosen.size) == (NAMES, (60, 90))
    assert found[:] == found
    assert found[[0]] != found
    assert found[:0] == found[[]] == found[np.zeros(4, bool)] == nothing == nothing[:] == nothing[np.zeros(0, bool)]
    with pytest.raises(IndexError):
        found[np.array([True, False])]
    with pytest.raises(IndexError):
        found[[0.5]]  # type: ignore[list-item]


def test_filter(found: Detections) -> None:
    assert found.filter() == found
    assert found.filter(score=0.3) == found  # at least, in float32
    assert len(found.filter(score=0.55)) == 2
    assert found.filter(names="cat") == found.filter(names=["cat"]) == found[:2]
    assert found.filter(score=0.6, names=("cat", "dog")) == found[:1]
    assert len(found.filter(names=[])) == 0
    with pytest.raises(ConfigError, match=r"no class 'trafic light'; did you mean 'traffic light'\?"):
        found.filter(names=["cat", "trafic light"])


def test_repr_lists_the_objects(found: Detections, nothing: Detections) -> None:
    assert repr(found) == "<Detections 4 in 60 x 90 px: cat 0.90, cat 0.55, traffic light 0.30, dog 0.30>"
    assert "0 in 60 x 90" in repr(nothing)


def test_dict_and_json_give_float32_back_exactly(found: Detections, nothing: Detections) -> None:
    content = json.loads(found.to_json())
    assert content == found.to_dict()
    assert (content["source"], content["height"], content["width"]) == (None, 60, 90)
    assert content["objects"][0] == {"box": [0.25, 0.0, 50.1, 60.0], "score": 0.9, "label": 0, "name": "cat"}
    exact = np.random.default_rng(0).uniform(0, 90, (500, 1)).astype(np.float32) + np.zeros((1, 4), np.float32)
    many = Detections(exact, np.full(500, 0.1), np.zeros(500, int), NAMES, (90, 90))
    again = np.array([one["box"] for one in json.loads(many.to_json())["objects"]], np.float32)
    np.testing.assert_array_equal(again, many.boxes)
    assert nothing.to_dict()["objects"] == []
    for one in (found, many, nothing):
        assert Detections.from_dict(json.loads(one.to_json()), one.names) == one
    with pytest.raises(DataError, match="'score' is missing"):
        Detections.from_dict({**content, "objects": [{"box": [0, 0, 1, 1], "label": 0}]}, NAMES)
    with pytest.raises(
        DataError, match=r"objects\[0\]\.name: expected 'traffic light', the name of label 0, got 'cat'"
    ):
        Detections.from_dict(content, NAMES[::-1])
    first, *_, last = content["objects"]
    for one, other in ((first, last), (last, first)):  # the right names, but exchanged
        changed = [{**row, "label": other["label"]} if row is one else row for row in content["objects"]]
        changed = [{**row, "label": one["label"]} if row is other else row for row in changed]
        with pytest.raises(DataError, match=r"objects\[0\]\.name: expected"):
            Detections.from_dict({**content, "objects": changed}, NAMES)
    assert Detections.from_dict({**content, "objects": content["objects"][::-1]}, NAMES).labels.tolist()[0] == 0


def test_a_single_name_is_one_class() -> None:
    single = Detections([[0, 0, 5, 5]], [0.5], [0], "cat", (60, 90))  # type: ignore[arg-type]
    assert single.names == ("cat",) and single.label_names == ["cat"]
    assert Detections.from_dict(single.to_dict(), "cat") == single


def test_boxes_in_other_forms(found: Detections, nothing: Detections) -> None:
    assert found.boxes_as("xywh")[2].tolist() == [10, 20, 20, 25]
    assert found.boxes_as("cxcywh")[2].tolist() == [20, 32.5, 20, 25]
    np.testing.assert_array_equal(found.boxes_as("xyxy"), found.boxes)
    assert found.boxes_as("cxcywh").dtype == np.float32 and nothing.boxes_as("xywh").shape == (0, 4)
    with pytest.raises(ConfigError, match="expected the form xyxy, xywh, cxcywh, got 'whxy'"):
        found.boxes_as("whxy")


def test_samples_for_the_writers(found: Detections, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="path: expected the image's path"):
        found.to_sample()
    Image.new("RGB", (90, 60)).save(tmp_path / "a.png")
    sample = found[found.boxes[:, 2] > found.boxes[:, 0]].to_sample(tmp_path / "a.png")
    assert (sample.size, sample.path) == ((60, 90), tmp_path / "a.png")
    write_yolo(Dataset([sample], NAMES), tmp_path / "yolo", split="train")
    again = read_yolo(tmp_path / "yolo", ["train"]).samples[0]
    np.testing.assert_allclose(again.boxes, sample.boxes, atol=1e-5)
    assert again.labels.tolist() == sample.labels.tolist()


def test_pandas(found: Detections, nothing: Detections) -> None:
    table = found.to_pandas()
    assert list(table.columns) == ["x1", "y1", "x2", "y2", "score", "label", "name"]
    np.testing.assert_array_equal(table[["x1", "y1", "x2", "y2"]].to_numpy(), found.boxes)
    assert table["name"].tolist() == found.label_names
    table.loc[0, "score"] = 0.0  # the table is the caller's own
    assert found.scores[0] > 0
    assert len(pandas.concat([table, nothing.to_pandas()])) == 4


def test_supervision(found: Detections, nothing: Detections) -> None:
    supervision = pytest.importorskip("supervision")
    theirs = found.to_supervision()
    assert len(theirs) == 4
    np.testing.assert_array_equal(theirs.xyxy, found.boxes)
    assert theirs["class_name"].tolist() == found.label_names
    image = np.zeros((60, 90, 3), np.uint8)
    assert supervision.BoxAnnotator().annotate(image.copy(), theirs).any()
    assert supervision.LabelAnnotator().annotate(image.copy(), theirs).any()
    assert len(nothing.to_supervision()) == 0


@pytest.mark.parametrize(
    ("method", "package", "line"),
    [("to_pandas", "pandas", "pip install 'centerdet[pandas]'"), ("to_supervision", "supervision", "pip install sup")],
)
def test_a_missing_package_prints_the_pip_line(
    found: Detections, method: str, package: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(CenterdetError) as caught:
        getattr(found, method)()
    assert line in str(caught.value)


def test_yolo_lines_are_read_back(found: Detections, nothing: Detections, tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    whole = found[found.boxes[:, 2] > found.boxes[:, 0]]
    Image.new("RGB", (90, 60)).save(tmp_path / "images" / "a.png")
    (tmp_path / "labels" / "a.txt").write_text(whole.to_yolo_txt())
    (tmp_path / "data.yaml").write_text(f"train: images\nnames: {list(NAMES)}\n")
    sample = read_yolo(tmp_path, ["train"]).samples[0]
    np.testing.assert_allclose(sample.boxes, whole.boxes, atol=1e-5)
    assert sample.labels.tolist() == whole.labels.tolist()
    assert found.to_yolo_txt(scores=True).split()[5] == "0.89999998"
    assert nothing.to_yolo_txt() == ""


def test_coco_records_are_read_by_pycocotools_and_by_us(found: Detections, nothing: Detections, tmp_path: Path) -> None:
    Image.new("RGB", (90, 60)).save(tmp_path / "a.png")
    whole = found[found.boxes[:, 2] > found.boxes[:, 0]]
    records = whole.to_coco(7)
    assert [set(record) for record in records] == [{"image_id", "category_id", "bbox", "score"}] * 3
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES, 1)]
    images = [{"id": 7, "file_name": "a.png", "height": 60, "width": 90}]
    (tmp_path / "a.json").write_text(json.dumps({"images": images, "annotations": [], "categories": categories}))
    with redirect_stdout(io.StringIO()):
        results = COCO(str(tmp_path / "a.json")).loadRes(json.loads(json.dumps(records)))
    assert len(results.getAnnIds(imgIds=[7], catIds=[1])) == 2
    content = {"images": images, "annotations": records, "categories": categories}
    (tmp_path / "b.json").write_text(json.dumps(content))
    sample = read_coco(tmp_path / "b.json").samples[0]
    np.testing.assert_allclose(sample.boxes, whole.boxes, atol=1e-5)
    assert sample.labels.tolist() == whole.labels.tolist()
    assert [record["category_id"] for record in found.to_coco("a", [18, 3, 90])] == [18, 18, 90, 3]
    with pytest.raises(ConfigError, match="3 names, got 2"):
        found.to_coco(7, [1, 2])
    assert nothing.to_coco(7) == []


def test_voc_xml_is_one_based_inclusive_and_read_back(tmp_path: Path) -> None:
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    boxes = [[0, 0, 90, 60], [9, 19, 30, 45], [4.4, 5.6, 7.4, 8.6], [89.8, 3, 90, 3.1]]
    names = ("cat", "dog & <cow>")
    found = Detections(boxes, [0.9, 0.8, 0.7, 0.6], [0, 1, 1, 0], names, (60, 90), source="some/where/a b.png")  # type: ignore[arg-type]
    Image.new("RGB", (90, 60)).save(tmp_path / "JPEGImages" / "a b.png")
    path = tmp_path / "Annotations" / "a b.xml"
    found.save_voc_xml(path)
    tree = ElementTree.parse(path)  # noqa: S314
    assert tree.findtext("filename") == "a b.png"
    assert [tree.findtext(f"size/{side}") for side in ("height", "width", "depth")] == ["60", "90", "3"]
    corners = [[int(side.text or "") for side in box] for box in tree.iter("bndbox")]
    assert corners == [[1, 1, 90, 60], [10, 20, 30, 45], [5, 7, 7, 9], [90, 4, 90, 4]]
    sample = read_voc(tmp_path, ["all"], names).samples[0]
    assert sample.boxes.tolist() == [[0, 0, 90, 60], [9, 19, 30, 45], [4, 6, 7, 9], [89, 3, 90, 4]]
    assert sample.labels.tolist() == [0, 1, 1, 0]
    assert sample.size == (60, 90)
    assert sorted(file.name for file in path.parent.iterdir()) == ["a b.xml"]


def test_nothing_is_half_written(found: Detections, tmp_path: Path) -> None:
    with pytest.raises(CenterdetError, match=r"none[/\\]a.xml: cannot be written: No such file"):
        found.save_voc_xml(tmp_path / "none" / "a.xml")
    (tmp_path / "a.xml").mkdir()
    with pytest.raises(CenterdetError, match=r"a.xml: cannot be written"):
        found.save_voc_xml(tmp_path / "a.xml")
    assert [path.name for path in tmp_path.iterdir()] == ["a.xml"]


def test_results_are_small_and_travel_between_processes(found: Detections) -> None:
    assert pickle.loads(pickle.dumps(found)) == found  # noqa: S301
    owned = sum(array.nbytes for array in (found.boxes, found.scores, found.labels))
    assert all(array.base is None for array in (found.boxes, found.scores, found[:2].boxes))
    assert owned == 4 * (16 + 4 + 8)


def test_importing_results_is_cheap() -> None:
    code = "import sys, centerdet.detections as _; assert not {'torch', 'cv2', 'PIL', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
