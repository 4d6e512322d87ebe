import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from centerdet.data.formats import FORMATS, Format, write_dataset
from centerdet.data.problems import KINDS, NOTES
from centerdet.data.sample import Dataset, Sample
from centerdet.errors import DataError
from centerdet.images import load
from centerdet.inspection.check import NEAR, CheckReport, check, compare_labels, hash_image


def draw(seed: int, height: int = 96, width: int = 128) -> np.ndarray:
    """A smooth random image: two of different seeds look nothing alike."""
    coarse = np.random.default_rng(seed).integers(0, 255, (7, 9, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def image(path: Path, image: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)
    return path


def make_dataset(folder: Path, seeds: range) -> Dataset:
    samples = [
        Sample(
            image(folder / f"{seed:03d}.jpg", draw(seed)),
            np.array([[8.0, 8, 48, 48], [50, 20, 120, 90]])[: seed % 3],
            np.array([0, 1])[: seed % 3],
            size=(96, 128),
        )
        for seed in seeds
    ]
    return Dataset(samples, ("cat", "dog"))


@pytest.mark.parametrize("form", FORMATS)
def test_a_good_data_set_has_no_problem(tmp_path: Path, form: Format) -> None:
    write_dataset(make_dataset(tmp_path / "a", range(6)), tmp_path / "out", "train", form)
    write_dataset(make_dataset(tmp_path / "b", range(6, 9)), tmp_path / "out", "val", form, add=True)
    report = check(tmp_path / "out")
    assert report.ok and report.problems == () and list(report.statistics) == ["train", "val"]
    train = report.statistics["train"]
    assert (train["images"], train["without objects"], train["objects"], train["difficult"]) == (6, 2, 6, 0)
    assert train["image height"] == [96] * 3 and train["image width"] == [128] * 3
    assert train["classes"] == {
        "cat": {"objects": 4, "difficult": 0, "images": 4},
        "dog": {"objects": 2, "difficult": 0, "images": 2},
    }
    assert list(train["box sizes"].values()) == [0, 6, 0]
    np.testing.assert_allclose(train["box width"], [40, 40, 70], rtol=0, atol=1e-4)
    assert report.lines()[-1] == "0 errors, 0 notes"
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True
    assert list(report.sets) == ["train", "val"] and len(report.sets["train"]) == 6
    assert report.lines(statistics=False) == ["0 errors, 0 notes"]


def xml(*things: tuple[str, int, int, int, int], width: int = 128, height: int = 96) -> str:
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox>"
        "</object>"
        for name, a, b, c, d in things
    )
    return f"<annotation><size><width>{width}</width><height>{height}</height></size>{objects}</annotation>"


CAT = ("cat", 9, 9, 40, 40)


def bad_folder(root: Path) -> Path:
    """One problem of every kind, each in its own image, and a good image at the end."""
    images, notes, lists = (root / name for name in ("JPEGImages", "Annotations", "ImageSets/Main"))
    for folder in (images, notes, lists):
        folder.mkdir(parents=True)
    (root / "classes.txt").write_text("cat\ndog\n")
    annotations = {
        "broken_xml": "<annotation>",
        "broken_image": xml(CAT),
        "unknown": xml(CAT, ("catt", 50, 9, 90, 40)),
        "inverted": xml(("cat", 40, 9, 9, 40), CAT),
        "outside": xml(CAT, ("cat", 50, 9, 140, 40)),
        "tiny": xml(CAT, ("dog", 50, 50, 52, 60)),
        "double": xml(CAT, ("dog", *CAT[1:]), CAT),
        "no_image": xml(CAT),
        "turned": xml(CAT, width=96, height=128),
        "other_size": xml(CAT, width=256, height=192),
        "twin": xml(CAT),
        "good": xml(CAT),
    }
    for number, (stem, text) in enumerate(annotations.items()):
        (notes / f"{stem}.xml").write_text(text)
        image(images / f"{stem}.jpg", draw(100 + number))
    good = (images / "broken_image.jpg").read_bytes()
    (images / "broken_image.jpg").write_bytes(good[: len(good) // 2])
    (images / "no_image.jpg").unlink()
    image(images / "alone.jpg", draw(50))
    train = [stem for stem in annotations if stem != "twin"]
    (lists / "train.txt").write_text("\n".join([*train, "no_annotation", "good", "../good"]) + "\n")
    image(images / "twin.jpg", draw(100 + train.index("good") + 1), quality=40)
    (lists / "val.txt").write_text("twin\ngood\n")
    return root


EXPECTED = {
    "broken annotation": ("Annotations/broken_xml.xml", "broken XML"),
    "broken image": ("JPEGImages/broken_image.jpg", ""),
    "unknown class": ("Annotations/unknown.xml:1: object 2", "unknown class 'catt', did you mean 'cat'"),
    "inverted box": ("Annotations/inverted.xml:1: object 1", "no width"),
    "box outside": ("Annotations/outside.xml:1: object 2", "outside the image of 128 x 96 px"),
    "tiny box": ("Annotations/tiny.xml:1: object 2", "dog of 3 x 11 px"),
    "duplicate box": ("Annotations/double.xml:1: object 3", "another cat"),
    "missing image": ("ImageSets/Main/train.txt:8", "no_image.jpg"),
    "missing annotation": ("ImageSets/Main/train.txt:12", "no_annotation.xml"),
    "listed twice": ("ImageSets/Main/train.txt:13", "'good'"),
    "refused path": ("ImageSets/Main/train.txt:14", "'../good'"),
    "transposed size": ("JPEGImages/turned.jpg", "96 x 128 px, the upright image has 128 x 96"),
    "wrong size": ("JPEGImages/other_size.jpg", "256 x 192 px"),
    "in two splits": ("JPEGImages/good.jpg", "is in val too"),
}


def test_everything_that_is_wrong_is_found_in_one_go(tmp_path: Path) -> None:
    root = bad_folder(tmp_path / "bad")
    report = check(root)
    assert not report.ok
    for kind, (where, what) in EXPECTED.items():
        [problem] = [problem for problem in report.problems if problem.kind == kind]
        assert problem.where.endswith(where) and what in problem.what
    unpaired = {Path(problem.where).name for problem in report.problems if problem.kind == "unpaired file"}
    assert unpaired == {"alone.jpg"}  # no_image.xml is told already
    assert set(report.count()) == {*EXPECTED, "unpaired file"}
    assert report.statistics["train"]["images"] == 9 and report.statistics["val"]["images"] == 2
    assert {sample.path.stem for sample in report.sets["val"].samples} == {"twin", "good"}
    sizes = {sample.path.stem: sample.size for sample in report.sets["train"].samples}  # the images' own
    assert len(sizes) == 8 and "broken_image" not in sizes and set(sizes.values()) == {(96, 128)}
    text = str(report)
    assert "ERROR: box outside: 1" in text and "note: tiny box: 1" in text
    assert report.lines()[-1] == "12 errors, 3 notes"
    assert json.loads(json.dumps(report.to_dict()))["count"]["unpaired file"] == 1


def test_an_exif_turned_image_with_the_size_of_its_file_is_told(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    data = make_dataset(tmp_path / "a", range(1, 3))
    image(tmp_path / "a" / "001.jpg", draw(1), exif=exif)
    write_dataset(data, tmp_path / "out", "train", "voc")
    [problem] = check(tmp_path / "out").problems
    assert (problem.kind, Path(problem.where).name) == ("transposed size", "001.jpg")
    assert "the annotation states 128 x 96 px, the upright image has 96 x 128" in problem.what
    upright = Dataset([Sample(data.samples[0].path, size=(128, 96))], data.names)
    write_dataset(upright, tmp_path / "right", "train", "voc")
    assert check(tmp_path / "right").problems == ()


def test_near_duplicates_across_splits(tmp_path: Path) -> None:
    train = make_dataset(tmp_path / "a", range(10, 18))
    copies = {
        "same": draw(10),
        "half": cv2.resize(draw(11), (64, 48), interpolation=cv2.INTER_AREA),
        "darker": (draw(12) * 0.7).astype(np.uint8),
        "other": draw(90),
    }
    val = Dataset([Sample(image(tmp_path / "b" / f"{name}.jpg", copies[name])) for name in copies], train.names)
    write_dataset(train, tmp_path / "out", "train", "yolo")
    write_dataset(val, tmp_path / "out", "val", "yolo", add=True)
    report = check(tmp_path / "out", {"learn": ["train"], "test": ["val"]})
    found = {Path(problem.where).stem: problem.what for problem in report.problems if problem.kind == "near-duplicate"}
    assert list(found) == ["010", "011", "012"] and report.ok
    assert "same.jpg of test" in found["010"] and "half.jpg of test" in found["011"]


def test_the_hash_tells_images_apart() -> None:
    signs = np.array([hash_image(draw(seed)) for seed in range(40)])
    assert signs.shape == (40, 256) and signs.dtype == bool
    different = (signs[:, None] != signs[None]).sum(-1)
    assert different[~np.eye(40, dtype=bool)].min() > 2 * NEAR


def test_what_is_missing_is_told_once(tmp_path: Path) -> None:
    write_dataset(make_dataset(tmp_path / "a", range(6)), tmp_path / "out", "train", "voc")
    (tmp_path / "out" / "Annotations" / "002.xml").unlink()
    (tmp_path / "out" / "JPEGImages" / "004.jpg").unlink()
    assert check(tmp_path / "out").count() == {"missing annotation": 1, "missing image": 1}
    lists = tmp_path / "out" / "ImageSets" / "Main"
    (lists / "train.txt").write_text("000\n001\n")  # a split says nothing of these files now
    assert check(tmp_path / "out").count() == {"unpaired file": 2}
    write_dataset(make_dataset(tmp_path / "a", range(6)), tmp_path / "yolo", "train", "yolo")
    (tmp_path / "yolo" / "images" / "train" / "002.jpg").write_bytes(b"\xff\xd8\xff")
    assert check(tmp_path / "yolo").count() == {"broken image": 1}


@pytest.mark.parametrize("form", FORMATS)
def test_a_problem_of_a_image_in_two_splits_is_told_once(tmp_path: Path, form: Format) -> None:
    data = make_dataset(tmp_path / "a", range(1, 4))
    tiny = Sample(data.samples[0].path, np.array([[1.0, 1, 3, 3]]), np.zeros(1, np.int64))
    write_dataset(Dataset([tiny, *data.samples[1:]], data.names), tmp_path / "out", "train", form)
    report = check(tmp_path / "out", {"one": ["train"], "two": "train"})
    assert report.count() == {"in two splits": 3, "tiny box": 1}


def test_equal_images_of_one_split_are_told(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "a", range(4))
    same = image(tmp_path / "b" / "same.png", load(data.samples[2].path))  # the pixels of a JPEG file
    near = image(tmp_path / "b" / "near.png", (load(data.samples[2].path) * 0.99).astype(np.uint8))
    flat = [image(tmp_path / "b" / f"{n}x{m}.png", np.zeros((n, m, 3), np.uint8)) for n, m in ((30, 40), (40, 30))]
    samples = [*data.samples, *(Sample(path) for path in (same, near, *flat))]
    write_dataset(Dataset(samples, data.names), tmp_path / "out", "train", "voc")
    report = check(tmp_path / "out")
    [problem] = report.problems
    assert report.ok and problem.kind == "repeated image"
    assert problem.where.endswith("same.png") and problem.what.endswith("002.jpg")


@pytest.mark.parametrize(
    ("box", "names", "different"),
    [
        ((10, 10, 40, 40), ("cat", "dog"), 0),
        ((10.5, 10, 40, 39.5), ("dog", "cat"), 0),  # a pixel is no difference
        ((10, 10, 50, 40), ("cat", "dog"), 1),
        ((10, 10, 40, 40), ("cow", "dog"), 0),  # no dog in either, and cows are labeled in one alone
        (None, ("cat",), 1),
        (None, ("cow",), 0),
    ],
)
def test_images_that_two_datasets_label_differently_are_named(
    tmp_path: Path, box: tuple[float, ...] | None, names: tuple[str, ...], different: int
) -> None:
    data = make_dataset(tmp_path / "a", range(3))
    samples = [Sample(one.path, np.array([[10.0, 10, 40, 40]]), np.zeros(1, np.int64)) for one in data.samples]
    write_dataset(Dataset(samples, ("cat", "dog")), tmp_path / "one", "train", "voc")
    copy = image(tmp_path / "b" / "copy.png", load(samples[1].path))
    boxes, label = np.array([box] if box else np.zeros((0, 4))), names.index("cat") if "cat" in names else 0
    sample = Sample(copy, boxes, np.full(len(boxes), label))
    write_dataset(Dataset([sample], names), tmp_path / "two", "train", "coco")
    problems = compare_labels(check(tmp_path / "one"), check(tmp_path / "two"))
    assert [problem.kind for problem in problems] == ["different labels"] * different
    if different:
        assert problems[0].where.endswith("copy.png") and samples[1].path.name in problems[0].what


def test_images_without_a_label_file_are_counted(tmp_path: Path) -> None:
    write_dataset(make_dataset(tmp_path / "a", range(6)), tmp_path / "out", "train", "yolo")
    for number in (1, 2):
        (tmp_path / "out" / "labels" / "train" / f"00{number}.txt").unlink()
    [problem] = check(tmp_path / "out").problems
    assert problem.kind == "no label file" and problem.where.endswith("data.yaml: train")
    assert problem.what.startswith("2 images of 6 without label file, such as ")


def test_a_split_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    write_dataset(make_dataset(tmp_path / "a", range(2)), tmp_path / "out", "train", "yolo")
    file = tmp_path / "out" / "data.yaml"
    file.write_text(file.read_text() + "val: images/nope\ntest:\nlicense: CC0\n")
    report = check(tmp_path / "out")
    assert not report.ok and list(report.statistics) == ["train"]
    [problem] = report.problems
    assert f"{file}: val: no such folder or list {tmp_path}" in problem.what and problem.where == "val"
    file.write_text(file.read_text().replace("images/train", "images/no"))
    assert [problem.where for problem in check(tmp_path / "out").problems] == ["train", "val"]
    file.write_text("names: [cat]\n")
    assert "expected at least one split, such as train: images/train" in str(check(tmp_path / "out"))


def test_leftover_label_files_are_told(tmp_path: Path) -> None:
    write_dataset(make_dataset(tmp_path / "a", range(3)), tmp_path / "out", "train", "yolo")
    (tmp_path / "out" / "labels" / "train" / "img_007.txt").write_text("")
    [problem] = check(tmp_path / "out").problems
    assert problem.kind == "unpaired file" and problem.where.endswith("img_007.txt")


def test_an_unreadable_split_leaves_the_others(tmp_path: Path) -> None:
    write_dataset(make_dataset(tmp_path / "a", range(3)), tmp_path / "out", "train", "coco")
    (tmp_path / "out" / "annotations" / "instances_val.json").write_text("{")
    report = check(tmp_path / "out")
    assert not report.ok and report.count() == {"unreadable split": 1}
    assert list(report.statistics) == ["train"]
    single = check(tmp_path / "out" / "annotations" / "instances_train.json")
    assert single.ok and single.statistics["all"]["images"] == 3
    with pytest.raises(DataError, match="no such file"):
        check(tmp_path / "nowhere")
    empty = check(tmp_path / "out" / "annotations" / "instances_val.json")
    assert "unreadable split" in str(empty)
    chosen = check(tmp_path / "out", names=["cat"])
    assert chosen.count() == {"unreadable split": 1, "class left out": 1} and list(chosen.statistics) == ["train"]
    lacking = check(tmp_path / "out", names=["dgo"])  # not even then is the split that cannot be read forgotten
    assert lacking.count() == {"unreadable split": 1, "no such class": 1} and not lacking.ok
    assert "names: the dataset has no class 'dgo', did you mean 'dog'" in str(lacking)


def test_long_lists_are_cut_and_progress_is_told(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "a", range(1, 30))
    small = [Sample(sample.path, np.array([[1.0, 1, 3, 3]]), np.zeros(1, np.int64)) for sample in data.samples]
    write_dataset(Dataset(small, data.names), tmp_path / "out", "train", "voc")
    seen = []

    def progress(samples: object) -> object:
        for sample in samples:  # type: ignore[attr-defined]
            seen.append(sample)
            yield sample

    report = check(tmp_path / "out", progress=progress)
    assert len(seen) == 29 and report.count() == {"tiny box": 29}
    assert report.lines(limit=3)[-2:] == ["  and 26 more", "0 errors, 29 notes"]


def test_kinds_are_either_errors_or_notes() -> None:
    assert set(NOTES) < set(KINDS)
    assert CheckReport((), {}).ok


@pytest.mark.soak
def test_real_data(voc_root: Path) -> None:
    report = check(voc_root, {"extra": ["2012:extra"], "again": ["2012:extra"]})
    assert report.count() == {"in two splits": 170}
    assert report.statistics["extra"]["objects"] == 649
    assert load(next((voc_root / "VOC2012" / "JPEGImages").iterdir())).dtype == np.uint8
