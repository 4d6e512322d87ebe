"""Files of detections: there and back exactly, the same numbers as pycocotools from them, and clear errors."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_sets import NAMES, make_set
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from centerdet.data.coco import read_coco, write_coco
from centerdet.data.sample import Dataset, Sample
from centerdet.detections import Detections
from centerdet.errors import AnnotationError, CenterdetError, DataError
from centerdet.evaluation.evaluation import evaluate_detections
from centerdet.evaluation.files import (
    Results,
    is_results,
    read_coco_results,
    read_results,
    read_voc_results,
    write_coco_results,
    write_results,
    write_voc_results,
)


def same(first: Results, second: Results) -> bool:
    return all(
        np.array_equal(getattr(first, field), getattr(second, field))
        for field in ("boxes", "scores", "labels", "images")
    )


def by_class(results: Results) -> Results:
    order = np.argsort(results.labels, kind="stable")
    return Results(results.boxes[order], results.scores[order], results.labels[order], results.images[order])


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    (tmp_path / "images").mkdir()
    return make_set(tmp_path / "images")[0]


@pytest.mark.parametrize("seed", range(5))
def test_voc_files_give_the_same_detections_and_numbers(tmp_path: Path, seed: int) -> None:
    dataset, found = make_set(tmp_path, seed, stem="2008_{:06d}")
    write_results(tmp_path / "results", found, dataset, split="val")
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == sorted(
        f"comp4_det_val_{name}.txt" for name in NAMES
    )
    again = read_results(tmp_path / "results", dataset)
    assert same(again, by_class(found))
    direct, read = evaluate_detections(found, dataset), evaluate_detections(again, dataset)
    assert direct.rows() == read.rows()
    assert np.array_equal(direct.coco().precision, read.coco().precision)


def test_a_voc_line_counts_from_1_and_includes_its_last_pixel(tmp_path: Path) -> None:
    (tmp_path / "a b.jpg").touch()
    dataset = Dataset([Sample(tmp_path / "a b.jpg")], ("cat",))
    (tmp_path / "comp3_det_test_cat.txt").write_text("a b 0.5 1 2 10 20\n\na b 1e-3 4 4 3 3\n")
    found = read_voc_results(tmp_path, dataset)
    assert found.boxes.tolist() == [[0, 1, 10, 20], [3, 3, 3, 3]]
    assert found.scores.tolist() == [0.5, 1e-3]


@pytest.mark.parametrize("stem", ["{:06d}", "2008_{:06d}"])
@pytest.mark.parametrize("with_ids", [False, True])
def test_coco_results_give_the_same_detections(tmp_path: Path, stem: str, with_ids: bool) -> None:
    dataset, found = make_set(tmp_path, stem=stem)
    write_coco(dataset, tmp_path / "coco", "val")
    ids = [tmp_path / "coco" / "annotations" / "instances_val.json"] if with_ids else []
    target = read_coco(tmp_path / "coco", ["val"]) if with_ids else dataset
    write_results(tmp_path / "results.json", found, target, split="val", annotations=ids)
    assert same(read_results(tmp_path / "results.json", target, annotations=ids), found)
    first = json.loads((tmp_path / "results.json").read_text())[0]
    assert first["image_id"] == (1 if with_ids else 5 if stem == "{:06d}" else "2008_000005")


@pytest.mark.parametrize("key", ["000008", "000008.jpg", 8])
def test_images_are_known_by_file_name_without_annotations(tmp_path: Path, dataset: Dataset, key: Any) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps([{"image_id": key, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 1}]))
    found = read_coco_results(file, dataset)
    assert (found.images.tolist(), found.labels.tolist(), found.boxes.tolist()) == ([1], [2], [[1, 2, 4, 6]])


@pytest.mark.parametrize("seed", range(5))
def test_pycocotools_finds_the_same_numbers_in_our_files(tmp_path: Path, seed: int) -> None:
    """Also where the order of ids is not that of the file, which settles ties of score."""
    dataset, found = make_set(tmp_path, seed)
    write_coco(dataset, tmp_path / "coco", "val")
    truths = tmp_path / "coco" / "annotations" / "instances_val.json"
    content = json.loads(truths.read_text())
    new = {image["id"]: int(number) for image, number in zip(content["images"], _shuffled(seed), strict=True)}
    for image in content["images"]:
        image["id"] = new[image["id"]]
    for annotation in content["annotations"]:
        annotation["image_id"] = new[annotation["image_id"]]
    for category in content["categories"]:
        category["id"] += 10
    for annotation in content["annotations"]:
        annotation["category_id"] += 10
    truths.write_text(json.dumps(content))

    target = read_coco(tmp_path / "coco", ["val"])
    write_coco_results(tmp_path / "results.json", found, target, [truths])
    ours = evaluate_detections(read_coco_results(tmp_path / "results.json", target, [truths]), target).coco()
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        peer = COCO(str(truths))
        run = COCOeval(peer, peer.loadRes(str(tmp_path / "results.json")), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    assert ours.stats.tolist() == run.stats.tolist()
    assert np.array_equal(ours.precision, run.eval["precision"][..., -1])


def _shuffled(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(12) + 100


GOOD = {"image_id": 5, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 6}, r"\[1\]\.image_id: unknown image_id 6 \(known include "),
        ({"image_id": None}, r"\[1\]\.image_id: unknown image_id None"),
        ({"image_id": [5]}, r"\[1\]\.image_id: unknown image_id \[5\]"),
        ({"category_id": -1}, r"\[1\]\.category_id: unknown category_id -1"),
        ({"category_id": 4}, r"\[1\]\.category_id: unknown category_id 4"),
        ({"bbox": [0, 0, 5]}, r"\[1\]\.bbox: expected \[x, y, width, height\]"),
        ({"bbox": [0, 0, float("nan"), 5]}, r"\[1\]\.bbox: expected .* finite numbers, got \[0, 0, nan, 5\]"),
        ({"bbox": [0, 0, "5", 5]}, r"\[1\]\.bbox: expected"),
        ({"score": float("nan")}, r"\[1\]\.score: expected a finite number, got nan"),
        ({"score": float("inf")}, r"\[1\]\.score: expected a finite number, got inf"),
        ({"score": True}, r"\[1\]\.score: expected a finite number"),
    ],
)
def test_a_broken_record_is_named(tmp_path: Path, dataset: Dataset, change: dict[str, Any], message: str) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps([GOOD, GOOD | change]))
    with pytest.raises(AnnotationError, match=rf"results\.json: {message}"):
        read_coco_results(file, dataset)


@pytest.mark.parametrize("key", list(GOOD))
def test_a_missing_key_is_named(tmp_path: Path, dataset: Dataset, key: str) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps([{name: value for name, value in GOOD.items() if name != key}]))
    with pytest.raises(AnnotationError, match=rf"results\.json: \[0\]\.{key}: the key is missing"):
        read_coco_results(file, dataset)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", r"\[0\]: expected an object, got 1"),
        ('{"images": []}', "expected a list of detections as COCO results are, got dict"),
        ('[\n{"a":}]', "broken JSON: .*line 2"),
        ("", "broken JSON"),
    ],
)
def test_no_results_json(tmp_path: Path, dataset: Dataset, text: str, message: str) -> None:
    file = tmp_path / "results.json"
    file.write_text(text)
    with pytest.raises(CenterdetError, match=rf"results\.json: {message}"):
        read_coco_results(file, dataset)


def test_results_are_told_from_other_folders(tmp_path: Path, dataset: Dataset) -> None:
    (tmp_path / "voc").mkdir()
    assert not is_results(tmp_path / "voc") and not is_results("voc") and not is_results("a.safetensors")
    write_results(tmp_path / "voc", Results.join([]), dataset, split="val")
    assert is_results(tmp_path / "voc") and is_results("results.json")


def test_no_detections_are_fine(tmp_path: Path, dataset: Dataset) -> None:
    nothing = Results(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64))
    for path in (tmp_path / "results.json", tmp_path / "results"):
        write_results(path, nothing, dataset, split="val")
        found = read_results(path, dataset)
        assert same(found, nothing)
        assert evaluate_detections(found, dataset).voc.mean_ap == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("000005 0.5 1 1 5", "expected 'image score xmin ymin xmax ymax', got '000005 0.5 1 1 5'"),
        ("000005 high 1 1 5 5", "expected 'image score"),
        ("000006 0.5 1 1 5 5", "the dataset has no image '000006'; did you mean '0000"),
        ("000005 nan 1 1 5 5", "expected finite numbers"),
        ("000005 0.5 1 1 inf 5", "expected finite numbers"),
        ("000005 0.5 6 1 4 5", "expected xmin <= xmax"),
        ("000005", "expected 'image score"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, dataset: Dataset, line: str, message: str) -> None:
    for name in NAMES:
        (tmp_path / f"comp4_det_val_{name}.txt").write_text(f"000005 0.5 1 1 5 5\n\n{line}\n" if name == "dog" else "")
    with pytest.raises(AnnotationError, match=rf"comp4_det_val_dog\.txt:3: {message}"):
        read_voc_results(tmp_path, dataset)


def test_a_folder_must_hold_one_file_for_every_class(tmp_path: Path, dataset: Dataset) -> None:
    with pytest.raises(DataError, match="expected files comp4_det_<split>_<class>"):
        read_voc_results(tmp_path, dataset)
    for name in NAMES[:2]:
        (tmp_path / f"comp4_det_val_{name}.txt").touch()
    with pytest.raises(DataError, match=r"no comp4_det_val_dog\.txt: a class without detections needs an empty file"):
        read_voc_results(tmp_path, dataset)
    (tmp_path / "comp4_det_val_bird.txt").touch()
    with pytest.raises(DataError, match=r"comp4_det_val_bird\.txt: expected .* one of the classes"):
        read_voc_results(tmp_path, dataset)


def test_of_several_splits_one_is_asked_for(tmp_path: Path, dataset: Dataset) -> None:
    for split in ("val", "my_test"):
        for name in NAMES:
            (tmp_path / f"comp4_det_{split}_{name}.txt").write_text("000005 1 1 1 5 5\n" * (split == "val"))
    with pytest.raises(DataError, match=r"has the splits \['my_test', 'val'\]: expected one of them, got None"):
        read_voc_results(tmp_path, dataset)
    assert len(read_voc_results(tmp_path, dataset, "val").scores) == 3
    assert len(read_voc_results(tmp_path, dataset, "my_test").scores) == 0
    (tmp_path / "comp3_det_val_cat.txt").touch()
    with pytest.raises(DataError, match=r"comp3_det_val_cat\.txt has that split and class too"):
        read_voc_results(tmp_path, dataset, "val")


@pytest.mark.parametrize("suffix", ["", ".jpg"])
def test_equal_names_of_two_folders_are_told_apart_by_their_paths(tmp_path: Path, suffix: str) -> None:
    dataset = Dataset([Sample(tmp_path / camera / "1.jpg") for camera in ("left", "right")], ("cat",))
    record = {"category_id": 1, "bbox": [0, 0, 5, 5], "score": 1}
    file = tmp_path / "results.json"
    file.write_text(json.dumps([record | {"image_id": f"{camera}/1{suffix}"} for camera in ("right", "left")]))
    found = read_coco_results(file, dataset)
    assert found.images.tolist() == [1, 0]
    for path in (tmp_path / "again.json", tmp_path / "comp4"):
        if path.suffix:
            write_results(path, found, dataset, split="val")
            assert read_results(path, dataset).images.tolist() == [1, 0]
    file.write_text(json.dumps([record | {"image_id": f"1{suffix}"}]))
    with pytest.raises(AnnotationError, match=r"unknown image_id '1(\.jpg)?' \(known include 'right/1'"):
        read_coco_results(file, dataset)
    annotations = tmp_path / "truths.json"
    images = [{"id": number, "file_name": f"{camera}/1.jpg"} for number, camera in ((7, "right"), (3, "left"))]
    annotations.write_text(json.dumps({"images": images, "categories": [{"id": 1, "name": "cat"}]}))
    file.write_text(json.dumps([record | {"image_id": number} for number in (7, 3)]))
    assert read_coco_results(file, dataset, [annotations]).images.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("given", "labels"), [((0, 1, 2), [0, 1, 2]), ((1, 2, 3), [0, 1, 2]), ((1.0, "2", 3), [0, 1, 2])]
)
@pytest.mark.parametrize("sparse", [False, True])
def test_categories_that_count_from_zero_are_noticed(
    tmp_path: Path, dataset: Dataset, given: tuple[object, ...], labels: list[int], sparse: bool
) -> None:
    ids = [1, 7, 90] if sparse else [1, 2, 3]
    images = [{"id": number, "file_name": sample.path.name} for number, sample in enumerate(dataset.samples)]
    categories = [{"id": number, "name": name} for number, name in zip(ids, NAMES, strict=True)]
    truths, file = tmp_path / "truths.json", tmp_path / "results.json"
    truths.write_text(json.dumps({"images": images, "categories": categories}))
    if sparse and given[0] != 0:
        given = (1, 7.0, "90")
    row = {"image_id": 0.0, "bbox": [0, 0, 5, 5], "score": 1}
    file.write_text(json.dumps([row | {"category_id": number} for number in given]))
    notices: list[str] = []
    assert read_coco_results(file, dataset, [truths], notices.append).labels.tolist() == labels
    assert len(notices) == (given[0] == 0) and all("count from 0" in notice for notice in notices)


def test_annotations_must_be_those_of_the_data_set(tmp_path: Path, dataset: Dataset) -> None:
    (tmp_path / "results.json").write_text("[]")
    truths = tmp_path / "truths.json"

    def read(images: list[tuple[int, str]], categories: list[str]) -> None:
        content = {
            "images": [{"id": number, "file_name": name} for number, name in images],
            "categories": [{"id": number, "name": name} for number, name in enumerate(categories)],
        }
        truths.write_text(json.dumps(content))
        read_coco_results(tmp_path / "results.json", dataset, [truths])

    images = [(number, sample.path.name) for number, sample in enumerate(dataset.samples)]
    read(images, list(NAMES))
    with pytest.raises(DataError, match=r"000005\.jpg: the annotations .* have no such image"):
        read([(number, f"other_{name}") for number, name in images], list(NAMES))
    with pytest.raises(DataError, match="two images have one id"):
        read([(1, name) for _, name in images], list(NAMES))
    with pytest.raises(DataError, match="several images or ids"):
        read([*images, (99, images[0][1])], list(NAMES))
    with pytest.raises(DataError, match="no category 'big_cat'; did you mean 'cat'"):
        read(images, ["cat", "dog"])
    truths.write_text("[]")
    with pytest.raises(AnnotationError, match="expected COCO annotations with images and categories"):
        read_coco_results(tmp_path / "results.json", dataset, [truths])


def test_classes_must_be_words_for_file_names(tmp_path: Path) -> None:
    dataset = Dataset([Sample(tmp_path / "a.jpg")], ("cat/dog",))
    with pytest.raises(DataError, match="'cat/dog': expected a word for file names"):
        write_voc_results(tmp_path / "results", Results.join([]), dataset, "val")
    assert not (tmp_path / "results").exists()


def test_what_is_not_there_is_named(tmp_path: Path, dataset: Dataset) -> None:
    with pytest.raises(DataError, match=r"nowhere\.json: no such file"):
        read_results(tmp_path / "nowhere.json", dataset)


def test_joining_and_thresholds() -> None:
    boxes = np.array([[0, 0, 5.3, 5.7], [1, 1, 2, 2]], np.float32)
    one = Detections(boxes, np.array([0.9, 0.1], np.float32), np.array([1, 0]), NAMES, (9, 9))
    none = Detections(boxes[:0], np.zeros(0, np.float32), np.zeros(0, np.int64), NAMES, (9, 9))
    found = Results.join([none, one, none, one])
    assert found.images.tolist() == [1, 1, 3, 3]
    assert np.array_equal(found.boxes[:2].astype(np.float32), boxes) and found.boxes.dtype == np.float64
    assert found.keep(found.scores >= 0.5).images.tolist() == [1, 3]
    assert len(Results.join([]).scores) == 0
