import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from centerdet.data import formats
from centerdet.data.formats import (
    FORMATS,
    Format,
    convert,
    find_splits,
    keep_classes,
    read_dataset,
    recognize,
    write_dataset,
)
from centerdet.data.sample import Dataset, Sample
from centerdet.data.split import split as split_data
from centerdet.errors import AnnotationError, CenterdetError, DataError, WriteError
from centerdet.inspection.check import check


def make_dataset(folder: Path, count: int = 5, seed: int = 0) -> Dataset:
    """Images with 0 to 3 objects in whole pixels, one of them difficult."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        path = folder / f"{number:03d}.png"
        Image.fromarray(generator.integers(0, 255, (48, 64, 3), np.uint8)).save(path)
        objects = number % 4
        low = generator.integers(0, 20, (objects, 2))
        boxes = np.concatenate([low, low + generator.integers(1, 20, (objects, 2))], axis=1).astype(float)
        labels, difficult = generator.integers(0, 3, objects), np.arange(objects) == 2
        for array in (boxes, labels, difficult):
            array.setflags(write=False)
        samples.append(Sample(path, boxes, labels, difficult, size=(48, 64)))
    return Dataset(samples, ("zebra", "ant", "cat"))


def same(first: Dataset, second: Dataset, form: Format = "voc") -> None:
    assert first.names == second.names
    for one, other in zip(first.samples, second.samples, strict=True):
        np.testing.assert_allclose(one.boxes, other.boxes, rtol=0, atol=1e-3 if form == "yolo" else 0)
        np.testing.assert_array_equal(one.labels, other.labels)
        if form != "yolo":
            np.testing.assert_array_equal(one.difficult, other.difficult)
        assert one.path.read_bytes() == other.path.read_bytes()


@pytest.mark.parametrize("form", FORMATS)
def test_each_format_is_recognized_and_read(tmp_path: Path, form: Format) -> None:
    data = make_dataset(tmp_path / "images")
    write_dataset(data, tmp_path / "out", "train", form)
    write_dataset(data, tmp_path / "out", "val", form, add=True)
    assert recognize(tmp_path / "out") == form
    assert find_splits(tmp_path / "out") == ["train", "val"]
    same(data, read_dataset(tmp_path / "out", ["val"]), form)


@pytest.mark.parametrize("first", FORMATS)
@pytest.mark.parametrize("second", FORMATS)
def test_there_and_back_loses_nothing_that_both_can_hold(tmp_path: Path, first: Format, second: Format) -> None:
    data = make_dataset(tmp_path / "images")
    write_dataset(data, tmp_path / "a", "train", first)
    written = convert(tmp_path / "a", tmp_path / "b" / "new", second, {"val": ["train"]}, placing="link")
    assert written["val"]["images"] == 5 and written["val"]["objects"] == 6
    back = convert(tmp_path / "b" / "new", tmp_path / "c", first, {"train": ["val"]})
    assert back["train"]["objects"] == 6
    same(data, read_dataset(tmp_path / "c", ["train"]), "yolo" if "yolo" in (first, second) else first)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c", "images"]


def numbers(root: Path) -> list[str]:
    """What stands between the corners' tags of every annotation, in order."""
    files = sorted((root / "Annotations").glob("*.xml"))
    return [text for file in files for text in re.findall(r"<[xy]m(?:in|ax)>(.*?)<", file.read_text())]


@pytest.mark.parametrize("chain", [["coco", "yolo"], ["yolo", "coco"], ["yolo"], ["coco"]])
def test_a_chain_of_formats_ends_in_the_integers_it_began_with(tmp_path: Path, chain: list[Format]) -> None:
    (tmp_path / "images").mkdir()
    generator, samples = np.random.default_rng(0), []
    for height, width in [(1, 1), (7, 3001), (333, 499), (375, 500), (997, 613), (1201, 1999), (4321, 11)]:
        path = tmp_path / "images" / f"{height}x{width}.png"
        Image.new("L", (width, height)).save(path)
        low = generator.integers(0, [width, height], (40, 2))
        boxes = np.concatenate([low, generator.integers(low, [width, height]) + 1], axis=1).astype(float)
        boxes[0] = [0, 0, width, height]
        samples.append(Sample(path, boxes, np.zeros(40, np.int64), size=(height, width)))
    write_dataset(Dataset(samples, ("cat",)), tmp_path / "0", "train", "voc")
    for number, form in enumerate([*chain, "voc"]):
        convert(tmp_path / f"{number}", tmp_path / f"{number + 1}", form, {"train": ["train"]}, placing="link")
    before, after = numbers(tmp_path / "0"), numbers(tmp_path / f"{len(chain) + 1}")
    assert before == after and len(before) == 7 * 40 * 4 and all(map(str.isdecimal, before))


def test_splits_are_joined_and_share_the_names_of_the_first(tmp_path: Path) -> None:
    for number, split in enumerate(("one", "two", "three")):
        data = make_dataset(tmp_path / split, 3, number)
        samples = [
            Sample(one.path.rename(one.path.with_stem(split + one.path.stem)), one.boxes, one.labels)
            for one in data.samples
        ]
        write_dataset(Dataset(samples, data.names), tmp_path / "voc", split, "voc", add=True)
    splits = {"train": ["one", "three"], "val": ["two"]}
    written = convert(tmp_path / "voc", tmp_path / "yolo", "yolo", splits, names=["cat", "ant", "zebra"])
    assert {split: numbers["images"] for split, numbers in written.items()} == {"train": 6, "val": 3}
    assert read_dataset(tmp_path / "yolo", ["val"]).names == ("cat", "ant", "zebra")


@pytest.mark.parametrize("form", FORMATS)
def test_what_voc_states_and_samples_do_not_hold_is_counted(tmp_path: Path, form: Format) -> None:
    make_chosen(tmp_path, "voc")
    said = {
        "cat": "<pose>Left</pose><truncated>1</truncated><occluded>1</occluded>",
        "ant": "<pose>Unspecified</pose><truncated>0</truncated><occluded> </occluded>",
        "zebra": "<pose>Rear</pose><part><name>head</name></part><part><name>foot</name></part>",
    }
    for path in (tmp_path / "in" / "Annotations").iterdir():
        text = re.sub(r"<name>(.*?)</name>", lambda found: found[0] + said[found[1]], path.read_text())
        path.write_text(text)
    written = convert(tmp_path / "in", tmp_path / "all", form, {"a": ["train"]})["a"]
    lost = {what: number for what, number in written.items() if number and "lost" in what}
    assert lost == {"poses lost": 3, "truncated flags lost": 1, "occluded flags lost": 1, "parts lost": 4}
    chosen = convert(tmp_path / "in", tmp_path / "ants", form, {"a": ["train"]}, names="ant")["a"]
    assert not any("lost" in what and number for what, number in chosen.items())


def make_chosen(folder: Path, form: Format) -> None:
    """Two splits in a folder `in`; in each one image with a cat, a zebra and an ant, and one with a zebra."""
    data = make_dataset(folder / "images", 2)
    boxes = np.array([[1.0, 2, 20, 30], [5, 5, 30, 20], [8, 8, 16, 40]])
    objects = [(boxes, np.array([2, 0, 1])), (boxes[:1], np.array([0]))]
    samples = [Sample(one.path, *both) for one, both in zip(data.samples, objects, strict=True)]
    for split in ("train", "val"):
        write_dataset(Dataset(samples, data.names), folder / "in", split, form, add=True)


@pytest.mark.parametrize("form", FORMATS)
def test_a_choice_of_the_classes_leaves_the_others_out_and_counts_them(tmp_path: Path, form: Format) -> None:
    make_chosen(tmp_path, form)
    for root in (tmp_path / "in", *([tmp_path / "in" / "data.yaml"] if form == "yolo" else [])):
        own = read_dataset(root, "val")
        assert keep_classes([own, own], ()) == [own, own] and own.names == ("zebra", "ant", "cat")
        [data] = keep_classes([own], ["ant", "cat"])
        assert data.names == ("ant", "cat") and data.left_out == {"zebra": 2} and own.left_out == {}
        assert [sample.labels.tolist() for sample in data.samples] == [[1, 0], []]
        np.testing.assert_allclose(data.samples[0].boxes, [[1, 2, 20, 30], [8, 8, 16, 40]], rtol=0, atol=1e-4)
        assert split_data(data, {"a": 0.5, "b": 0.5})["a"].left_out == {"zebra": 1}
        [once_more] = keep_classes([data], "cat")
        assert once_more.left_out == {"zebra": 2, "ant": 1} and len(once_more.samples[0].boxes) == 1
    written = convert(tmp_path / "in", tmp_path / "out", "coco", {"a": ["train"], "b": "val"}, names="cat")
    counts = {"images": 2, "objects": 1, "objects of zebra left out": 2, "objects of ant left out": 1}
    assert written == {"a": counts, "b": counts}
    assert read_dataset(tmp_path / "out", "b").names == ("cat",)


def test_flags_follow_their_objects_into_a_choice(tmp_path: Path) -> None:
    boxes, flags = np.array([[1.0, 2, 20, 30], [5, 5, 30, 20], [8, 8, 16, 40]]), np.array([False, True, False])
    for array in (boxes, flags):
        array.setflags(write=False)
    sample = Sample(tmp_path / "a.png", boxes, np.array([0, 1, 0]), flags, ~flags, (48, 64), lost=[("ant", "poses")])
    [data] = keep_classes([Dataset([sample], ("cat", "ant"))], "ant")
    [kept] = data.samples
    assert (kept.boxes.tolist(), kept.labels.tolist(), kept.size) == ([[5, 5, 30, 20]], [0], (48, 64))
    assert (kept.difficult.tolist(), kept.crowd.tolist()) == ([True], [False])
    assert data.lost == {"poses": 1} and data.left_out == {"cat": 2}


@pytest.mark.parametrize("form", FORMATS)
def test_a_class_that_is_no_choice_stays_an_error(tmp_path: Path, form: Format) -> None:
    make_chosen(tmp_path, form)
    with pytest.raises(AnnotationError, match="unknown class 'zebra', known are 'ant', 'cat'"):
        read_dataset(tmp_path / "in", "val", names=["ant", "cat"])  # as a detector that knows no more
    for names in (["ant", "catt"], "catt", ["zebra", "ant", "cat", "catt"]):  # also where nothing is left out
        with pytest.raises(DataError, match=r"^names: .* no class 'catt', did you mean 'cat'"):
            convert(tmp_path / "in", tmp_path / "out", "voc", {"a": ["train"]}, names=names)


@pytest.mark.parametrize("order", [("train", "val"), ("val", "train")])
def test_a_chosen_class_may_be_missing_from_a_split(tmp_path: Path, order: tuple[str, ...]) -> None:
    images = [sample.path for sample in make_dataset(tmp_path / "images", 2).samples]
    own = {"train": ("cat", "dog", "bird"), "val": ("bird", "cat")}
    for path, (part, names) in zip(images, own.items(), strict=True):
        sample = Sample(path, np.array([[1.0, 1, 20, 30]]).repeat(len(names), 0), np.arange(len(names)))
        write_dataset(Dataset([sample], names), tmp_path / "in", part, "coco", add=True)
    splits = {part: [part] for part in order}
    written = convert(tmp_path / "in", tmp_path / "out", "voc", splits, names=["dog", "cat"])
    assert [written[part]["objects"] for part in ("train", "val")] == [2, 1]
    assert all(numbers["objects of bird left out"] == 1 for numbers in written.values())
    assert read_dataset(tmp_path / "out", "val").names == ("dog", "cat")
    assert read_dataset(tmp_path / "out", "val").samples[0].labels.tolist() == [1]
    report = check(tmp_path / "in", splits, names=["dog", "cat"])
    assert report.ok and report.statistics["val"]["classes"]["dog"]["objects"] == 0
    assert check(tmp_path / "in", splits).ok == (order[0] == "train")  # without a choice the first one's classes count


def test_an_object_of_a_class_that_the_data_set_does_not_declare_is_never_left_out(tmp_path: Path) -> None:
    make_chosen(tmp_path, "voc")
    (tmp_path / "in" / "classes.txt").write_text("cat\nant\n")
    with pytest.raises(AnnotationError, match="unknown class 'zebra', known are 'cat', 'ant'"):
        convert(tmp_path / "in", tmp_path / "out", "voc", {"a": "val"}, names="cat")
    (tmp_path / "in" / "classes.txt").unlink()  # then its classes are those of its annotations
    written = convert(tmp_path / "in", tmp_path / "out", "voc", {"a": "val"}, names="cat")["a"]
    assert written["objects of zebra left out"] == 2 and written["objects of ant left out"] == 1


@pytest.mark.parametrize("form", FORMATS)
def test_one_word_is_one_split_and_one_class(tmp_path: Path, form: Format) -> None:
    data = make_dataset(tmp_path / "images")
    write_dataset(Dataset([Sample(data.samples[0].path)], ("cat",)), tmp_path / "out", "train", form)
    read = formats.READERS[form](tmp_path / "out", "train", "cat")
    assert len(read) == 1 and read.names == ("cat",)
    notices: list[str] = []
    written = convert(tmp_path / "out", tmp_path / "copy", form, {"val": "train"}, names="cat", notice=notices.append)
    assert written["val"]["images"] == 1 and "no image has an object: 1 image" in notices[0]


def test_single_files_are_recognized(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "images")
    for form, file in (("coco", "annotations/instances_train.json"), ("yolo", "data.yaml")):
        write_dataset(data, tmp_path / form, "train", form)  # type: ignore[arg-type]
        path = tmp_path / form / file
        assert recognize(path) == form
        assert find_splits(path) == ([] if form == "coco" else ["train"])
        same(data, read_dataset(path, find_splits(path)), form)  # type: ignore[arg-type]
    (tmp_path / "file.json").write_bytes((tmp_path / "coco/annotations/instances_train.json").read_bytes())
    assert recognize(tmp_path) == "coco" and find_splits(tmp_path) == ["file"]
    convert(path, tmp_path / "voc", "voc", {"train": ["train"]})


def test_what_is_no_data_set_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path, message in {"empty": "got none", "nowhere": "no such file", "text.txt": "got none"}.items():
        (tmp_path / "text.txt").write_text("text")
        with pytest.raises(DataError, match=message):
            recognize(tmp_path / path)
    data = make_dataset(tmp_path / "images")
    write_dataset(data, tmp_path / "both", "train", "voc")
    write_dataset(data, tmp_path / "both", "train", "yolo", add=True)
    with pytest.raises(DataError, match=r"expected a dataset of one format, .* got \['voc', 'yolo'\]"):
        read_dataset(tmp_path / "both", ["train"])
    with pytest.raises(DataError, match=r"format: expected one of \['voc', 'coco', 'yolo'\], got 'pascal'"):
        write_dataset(data, tmp_path / "new", "train", "pascal")  # type: ignore[arg-type]


def test_a_devkit_lists_its_splits(tmp_path: Path) -> None:
    for year, lists in {"2007": ["train", "val", "trainval", "cat_train", "my_train"], "2012": []}.items():
        folder = tmp_path / "VOCdevkit" / f"VOC{year}"
        (folder / "ImageSets" / "Main").mkdir(parents=True)
        (folder / "Annotations").mkdir()
        (folder / "Annotations" / "a.xml").write_text("<annotation/>")
        for name in lists:
            (folder / "ImageSets" / "Main" / f"{name}.txt").write_text("a -1\n" if name == "cat_train" else "a\n")
    for root in (tmp_path, tmp_path / "VOCdevkit"):
        assert recognize(root) == "voc"
        assert find_splits(root) == ["2007:my_train", "2007:train", "2007:val", "2012:all"]
    assert find_splits(tmp_path / "VOCdevkit" / "VOC2007") == ["my_train", "train", "val"]


def test_a_failed_conversion_leaves_nothing(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "images")
    write_dataset(data, tmp_path / "voc", "train", "voc")
    before = sorted(tmp_path.rglob("*"))
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "at least one split"),
        ({"train": ["train"], "val": ["nothing"]}, "no such split"),
        ({"train": ["train"], "../val": ["train"]}, "expected a plain word"),
    ]
    for splits, message in cases:
        with pytest.raises(DataError, match=message):
            convert(tmp_path / "voc", tmp_path / "out", "coco", splits)
    with pytest.raises(WriteError, match="expected a new or empty folder"):
        convert(tmp_path / "voc", tmp_path / "images", "coco", {"train": ["train"]})
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "voc" / "Annotations" / "002.xml").write_text("<annotation>")
    with pytest.raises(AnnotationError, match=r"002\.xml"):
        convert(tmp_path / "voc", tmp_path / "out", "coco", {"train": ["train"]}, strict=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_splits_of_the_real_devkit(voc_root: Path) -> None:
    assert find_splits(voc_root) == ["2007:train", "2007:val", "2012:animals", "2012:extra"]
    assert recognize(voc_root) == "voc"


def test_every_error_is_the_packages_own(tmp_path: Path) -> None:
    for form in FORMATS:
        with pytest.raises(CenterdetError):
            formats.READERS[form](tmp_path / "nowhere", ["train"])
