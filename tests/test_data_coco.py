import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from centerdet.data.coco import read_coco, write_coco
from centerdet.data.problems import Problem
from centerdet.data.sample import Dataset, Sample
from centerdet.data.voc import read_voc, write_voc
from centerdet.errors import AnnotationError, CenterdetError, DataError


def image(path: Path, height: int = 40, width: int = 60) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, len(path.name), 30)).save(path)
    return path


def content() -> dict[str, list[dict[str, Any]]]:
    return {
        "images": [
            {"id": 70, "file_name": "b.jpg", "height": 40, "width": 60},
            {"id": 3, "file_name": "a.jpg", "height": 40, "width": 60},
        ],
        "categories": [{"id": 90, "name": "zebra"}, {"id": 2, "name": "ant"}, {"id": 17, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 17, "bbox": [10, 5, 10.5, 20], "iscrowd": 0},
            {"id": 2, "image_id": 3, "category_id": 90, "bbox": [0, 0, 60, 40], "iscrowd": 1},
        ],
    }


def coco_folder(root: Path, given: Any, file: str = "annotations/instances_train.json", images: str = "train") -> Path:
    for name in ("a.jpg", "b.jpg"):
        image(root / images / name)
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(given if isinstance(given, str) else json.dumps(given))
    return root


def test_sparse_ids_become_labels_in_the_order_of_the_file(tmp_path: Path) -> None:
    data = read_coco(coco_folder(tmp_path, content()), ["train"])
    assert data.names == ("zebra", "ant", "cat")
    empty, full = data.samples
    assert (empty.path.name, empty.boxes.shape, empty.size) == ("b.jpg", (0, 4), (40, 60))
    assert full.boxes.tolist() == [[10, 5, 20.5, 25], [0, 0, 60, 40]] and full.boxes.dtype == np.float64
    assert full.labels.tolist() == [2, 0] and full.labels.dtype == np.int64
    assert full.crowd.tolist() == [False, True] and full.difficult.tolist() == [False, False]
    own = read_coco(tmp_path, ["train"], ["cat", "zebra"])
    assert own.samples[1].labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("file", "images"),
    [
        ("annotations/instances_train.json", "train"),
        ("annotations/instances_train.json", "images/train"),
        ("annotations/train.json", "images"),
        ("train/_annotations.coco.json", "train"),
        ("train.json", "."),
    ],
)
def test_layouts_that_are_met_in_the_wild(tmp_path: Path, file: str, images: str) -> None:
    coco_folder(tmp_path, content(), file, images)
    for data in (read_coco(tmp_path, ["train"]), read_coco(tmp_path / file)):
        assert data.samples[0].path == tmp_path / images / "b.jpg"
    assert len(read_coco(tmp_path / file, image_dir=tmp_path / images)) == 2


def test_splits_share_the_names_of_the_first(tmp_path: Path) -> None:
    coco_folder(tmp_path, content())
    other = content()
    other["categories"] = [{"id": 1, "name": "cat"}, {"id": 2, "name": "zebra"}]
    other["images"][1]["file_name"] = "c.jpg"
    other["annotations"] = [{"image_id": 3, "category_id": 2, "bbox": [0, 0, 1, 1]}]
    coco_folder(tmp_path, other, "annotations/instances_val.json", "val")
    image(tmp_path / "val" / "c.jpg")
    data = read_coco(tmp_path, ["train", "val"])
    assert data.names == ("zebra", "ant", "cat") and len(data) == 4
    assert data.samples[3].labels.tolist() == [0]


def test_what_may_be_missing(tmp_path: Path) -> None:
    given = content()
    for image in given["images"]:
        del image["height"], image["width"]
    for annotation in given["annotations"]:
        del annotation["id"], annotation["iscrowd"]
    given["annotations"][0]["bbox"] = [-0.5, 0, 61, 40.75]  # less than a pixel outside
    sample = read_coco(coco_folder(tmp_path, given), ["train"]).samples[1]
    assert sample.size == (40, 60) and not sample.crowd.any()
    assert sample.boxes[0].tolist() == [0, 0, 60, 40]


def change(where: str, key: str, value: Any) -> Any:
    given = content()
    section, _, number = where.partition(" ")
    target: Any = given[section][int(number)] if number else given
    key = key or section
    if value is None:
        del target[key]
    else:
        target[key] = value
    return given


BAD = {
    "no JSON": ("{", "instances_train.json: broken JSON: .* line 1"),
    "a list": ([], "expected an object with images"),
    "deep": ("[" * 100_000, "broken JSON"),
    "no section": (change("annotations", "", None), "annotations: expected a list, the key is missing"),
    "section": (change("images", "", {}), "images: expected a list, got dict"),
    "record": (change("images", "", [7]), r"images\[0\]: expected an object, got 7"),
    "no file name": (
        change("images 0", "file_name", None),
        r"images\[0\]\.file_name: expected text, the key is missing",
    ),
    "missing image": (change("images 1", "file_name", "c.jpg"), r"image 3: no image .*c\.jpg"),
    "twice": (change("images 1", "file_name", "b.jpg"), r"image 3: 'b' is in the splits already"),
    "no image id": (change("images 0", "id", None), r"images\[0\]\.id: expected a number or text, the key is missing"),
    "image id": (change("images 0", "id", 3), r"images\[1\]\.id: 3 is another image's"),
    "category id": (change("categories 1", "id", 90), r"categories\[1\]\.id: 90 is another category's"),
    "category name": (change("categories 1", "name", "zebra"), r"categories\[1\]\.name: 'zebra' is another category's"),
    "nameless": (change("categories 1", "name", 5), r"categories\[1\]\.name: expected text, got 5"),
    "annotation id": (change("annotations 1", "id", 1), r"annotations\[1\]\.id: 1 is another annotation's"),
    "dangling image": (change("annotations 0", "image_id", 4), r"annotations\[0\]\.image_id: no image has the id 4"),
    "dangling class": (change("annotations 0", "category_id", 0), r"annotations\[0\]\.category_id: no category has"),
    "no box": (change("annotations 0", "bbox", None), r"annotations\[0\]\.bbox: expected a list, the key is missing"),
    "three": (change("annotations 0", "bbox", [1, 2, 3]), r"annotations\[0\]\.bbox: expected \[x, y, width, height\]"),
    "words": (change("annotations 0", "bbox", [1, 2, 3, "four"]), r"annotations\[0\]\.bbox: expected \[x, y, width, "),
    "huge": (change("annotations 0", "bbox", [1, 2, 3, 10**400]), r"annotations\[0\]\.bbox: expected \[x, y, width"),
    "NaN": (change("annotations 0", "bbox", [1, 2, float("nan"), 4]), r"annotations\[0\]: box \(1, 2, nan, 4\) is not"),
    "inverted": (change("annotations 0", "bbox", [9, 2, -3, 4]), r"annotations\[0\]: box .* has no width"),
    "outside": (change("annotations 0", "bbox", [9, 2, 53, 4]), r"annotations\[0\]: box .* outside .* of 60 x 40"),
    "flag": (change("annotations 0", "iscrowd", "may be"), r"annotations\[0\]: iscrowd: expected 0 or 1"),
    "empty": (change("images", "", []), "images: the split has no image"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_named_with_the_field(tmp_path: Path, case: str) -> None:
    given, message = BAD[case]
    coco_folder(tmp_path, given)
    with pytest.raises(CenterdetError, match=message):
        read_coco(tmp_path, ["train"])
    if isinstance(given, dict) and all(isinstance(section, list) for section in given.values()) and len(given) == 3:
        problems: list[Problem] = []
        read_coco(tmp_path, ["train"], report=problems.append)
        assert problems


def test_a_class_that_the_caller_does_not_know(tmp_path: Path) -> None:
    coco_folder(tmp_path, content())
    with pytest.raises(AnnotationError, match=r"annotations\[1\]: unknown class 'zebra', did you mean 'zebras'"):
        read_coco(tmp_path, ["train"], ["cat", "zebras"])
    with pytest.raises(AnnotationError, match=r"annotations\[0\]: unknown class 'cat', known are 'person', 'cow'$"):
        read_coco(tmp_path, ["train"], ["person", "cow"])
    with pytest.raises(AnnotationError, match=r"unknown class 'cat', known are '0', .* '19', …$"):
        read_coco(tmp_path, ["train"], [str(number) for number in range(21)])


def test_splits_are_found_or_named(tmp_path: Path) -> None:
    coco_folder(tmp_path, content())
    with pytest.raises(DataError, match=r"no such split 'val': expected one of \['annotations/instances_val.json'"):
        read_coco(tmp_path, ["val"])
    with pytest.raises(DataError, match="leads out"):
        read_coco(tmp_path, ["../train"])
    with pytest.raises(DataError, match="expected splits"):
        read_coco(tmp_path)
    with pytest.raises(DataError, match="a JSON file without splits"):
        read_coco(tmp_path / "annotations" / "instances_train.json", ["train"])
    with pytest.raises(DataError, match=r"b\.json: no such file"):
        read_coco(tmp_path / "b.json")
    with pytest.raises(DataError, match="no such folder"):
        read_coco(tmp_path / "nowhere", ["train"])


number = st.integers(0, 400).map(lambda n: n / 4)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(number, number, number, number, st.integers(0, 1), st.booleans(), st.booleans()), max_size=9))
def test_what_is_written_is_read_back_exactly(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    root = tmp_path_factory.mktemp("round")
    columns = np.array(rows, float).reshape(-1, 7)
    boxes = np.concatenate([columns[:, :2], columns[:, :2] + columns[:, 2:4] + 0.25], axis=1)
    flags = columns[:, 5:].astype(bool)
    labels = columns[:, 4].astype(np.int64)
    sample = Sample(image(root / "ä.png", 210, 210), boxes, labels, flags[:, 0], flags[:, 1], (210, 210))
    written = write_coco(Dataset([sample], ("b<", "ç")), root / "copy", "train")
    assert written == {"images": 1, "objects": len(rows)}
    data = read_coco(root / "copy", ["train"])
    assert data.names == ("b<", "ç")
    for field in ("boxes", "labels", "difficult", "crowd"):
        np.testing.assert_array_equal(getattr(data.samples[0], field), getattr(sample, field))


def test_any_box_comes_back_to_the_last_bit_and_short_numbers_stay_short(tmp_path: Path) -> None:
    corners = np.random.default_rng(0).random((2000, 2, 2)) * [600, 400]
    boxes = np.concatenate([corners.min(1), corners.max(1) + 0.01], axis=1)
    boxes[0] = [473.07, 395.93, 473.07 + 38.65, 395.93 + 28.67]
    sample = Sample(image(tmp_path / "a.png"), boxes, np.zeros(2000, np.int64), size=(500, 700))
    image(sample.path, 500, 700)
    write_coco(Dataset([sample], ("cat",)), tmp_path / "copy", "train")
    read = read_coco(tmp_path / "copy", ["train"]).samples[0].boxes
    np.testing.assert_array_equal(read[:, :2], boxes[:, :2])
    assert (np.abs(read - boxes) <= np.spacing(boxes)).all()
    text = (tmp_path / "copy" / "annotations" / "instances_train.json").read_text()
    assert '"bbox": [473.07, 395.93, 38.65, 28.67]' in text


def test_through_voc_and_back(tmp_path: Path) -> None:
    data = read_coco(coco_folder(tmp_path, change("annotations 0", "bbox", [10, 5, 10, 20])), ["train"])
    write_voc(data, tmp_path / "voc", "train")
    voc = read_voc(tmp_path / "voc", ["train"])
    write_coco(voc, tmp_path / "coco", "val")
    again = read_coco(tmp_path / "coco", ["val"])
    assert again.names == data.names
    for one, other in zip(data.samples, again.samples, strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.crowd, other.crowd)


def test_a_copy_of_real_data_is_what_pycocotools_reads(voc_root: Path, tmp_path: Path) -> None:
    pycocotools = pytest.importorskip("pycocotools.coco")
    data = read_voc(voc_root, ["2012:extra"])
    write_coco(data, tmp_path / "copy", "extra", placing="copy")
    coco = pycocotools.COCO(str(tmp_path / "copy" / "annotations" / "instances_extra.json"))
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(data.names)
    ids = coco.getImgIds()
    assert len(ids) == len(data) == 170 and len(coco.getAnnIds()) == 649
    for sample, image in zip(data.samples, coco.loadImgs(ids), strict=True):
        assert (image["file_name"], image["height"], image["width"]) == (sample.path.name, *(sample.size or ()))
        rows = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        boxes = np.array([row["bbox"] for row in rows], float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_array_equal(boxes, sample.boxes)
        assert [row["category_id"] - 1 for row in rows] == sample.labels.tolist()
        assert [row.get("difficult", 0) for row in rows] == sample.difficult.tolist()
    again = read_coco(tmp_path / "copy", ["extra"])
    assert all((one.boxes == other.boxes).all() for one, other in zip(data.samples, again.samples, strict=True))
