"""One bad record does not stop the others, and nothing that is repaired, left out or doubted passes in silence."""

import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from centerdet.data.formats import convert, read_dataset, rename_classes
from centerdet.data.records import ReadOptions
from centerdet.data.sample import Dataset
from centerdet.data.voc import write_voc
from centerdet.data.yolo import read_yolo
from centerdet.errors import CenterdetError, DataError
from centerdet.images import load
from centerdet.inspection.check import check

SIZE = "<size><width>60</width><height>40</height></size>"


def image(path: Path, width: int = 60, height: int = 40) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.stem)).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def thing(name: str = "cat", box: tuple[Any, ...] = (11, 6, 30, 25), more: str = "") -> str:
    sides = "".join(
        f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object><name>{name}</name>{more}<bndbox>{sides}</bndbox></object>"


def voc(root: Path, inside: str) -> None:
    """Three images with a cat each; in that of b there is something more."""
    for stem in "abc":
        image(root / "JPEGImages" / f"{stem}.jpg")
        text = f"<annotation>{SIZE}{thing()}{inside if stem == 'b' else ''}</annotation>"
        (root / "Annotations").mkdir(exist_ok=True)
        (root / "Annotations" / f"{stem}.xml").write_text(text)
    (root / "classes.txt").write_text("cat\ndog\n")


def coco(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Three images with a cat each, ids 1 to 3; `change` changes the content."""
    content: dict[str, Any] = {
        "images": [{"id": n, "file_name": f"{s}.jpg", "width": 60, "height": 40} for n, s in enumerate("abc", 1)],
        "annotations": [cat(number) for number in (1, 2, 3)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    change(content)
    for stem in "abc":
        image(root / "all" / f"{stem}.jpg")
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_all.json").write_text(json.dumps(content))


def cat(number: int, **changes: Any) -> dict[str, Any]:
    row = {"id": number, "image_id": number, "category_id": 1, "bbox": [10, 5, 20, 20], "area": 400, "iscrowd": 0}
    return {**row, **changes}


def table(root: Path) -> None:
    for stem in "abc":
        image(root / f"{stem}.jpg")
    rows = "".join(f"{stem}.jpg,60,40,cat,10,5,30,25\n" for stem in "abc")
    (root / "all.csv").write_text(f"filename,width,height,class,xmin,ymin,xmax,ymax\n{rows}")


def yolo(root: Path, line: str) -> None:
    for stem in "abc":
        image(root / "images" / "all" / f"{stem}.jpg")
        (root / "labels" / "all").mkdir(parents=True, exist_ok=True)
        text = f"0 0.5 0.5 0.5 0.5\n{line if stem == 'b' else ''}\n"
        (root / "labels" / "all" / f"{stem}.txt").write_text(text)
    (root / "data.yaml").write_text("all: images/all\nnames: [cat, dog]\n")


def add(**changes: Any) -> Callable[[Path], None]:
    return lambda root: coco(root, lambda content: content["annotations"].append(cat(9, **{"image_id": 2, **changes})))


def alter(section: str, key: str, value: Any) -> Callable[[Path], None]:
    return lambda root: coco(root, lambda content: content[section][1].update({key: value}))


DOG = "<object><name>dog</name>{}<bndbox><xmin>31</xmin><ymin>6</ymin><xmax>50</xmax><ymax>25</ymax></bndbox></object>"

# what is wrong -> how to make it, the objects of image b that are read, the kind and effect of the one notice
CASES: dict[str, tuple[Callable[[Path], None], int, str]] = {
    "voc: no height": (lambda root: voc(root, thing(box=(5, 9, 20, 8))), 1, "inverted box: 1 left out"),
    "voc: not finite": (lambda root: voc(root, thing(box=(5, "nan", 20, 8))), 1, "not a number: 1 left out"),
    "voc: no number": (lambda root: voc(root, thing(box=(5, "?", 20, 8))), 1, "broken annotation: 1 left out"),
    "voc: huge": (lambda root: voc(root, thing(box=(5, 5, "1e300", 8))), 1, "not a number: 1 left out"),
    "voc: no name": (lambda root: voc(root, thing("")), 1, "broken annotation: 1 left out"),
    "voc: no box": (lambda root: voc(root, "<object><name>cat</name></object>"), 1, "broken annotation: 1 left out"),
    "voc: difficult Unspecified": (
        lambda root: voc(root, DOG.format("<difficult>Unspecified</difficult>")), 2, "odd value: 1 repaired",
    ),
    "voc: difficult true": (
        lambda root: voc(root, DOG.format("<difficult>True</difficult>")), 2, "odd value: 1 repaired",
    ),
    "voc: difficult what": (
        lambda root: voc(root, DOG.format("<difficult>what</difficult>")), 1, "broken annotation: 1 left out",
    ),
    "voc: foreign file name": (lambda root: voc(root, "<filename>/elsewhere/other.png</filename>"), 1, ""),
    "voc: overhang": (lambda root: voc(root, thing("dog", (41, 6, 70, 25))), 2, "box outside: 1 repaired"),
    "voc: outside": (lambda root: voc(root, thing("dog", (71, 6, 90, 25))), 1, "box outside: 1 left out"),
    "coco: no height": (add(bbox=[46.65, 38.33, 1.03, 0.0]), 1, "inverted box: 1 left out"),
    "coco: iscrowd null": (add(iscrowd=None), 2, "odd value: 1 repaired"),
    "coco: iscrowd text": (add(iscrowd="1"), 2, ""),
    "coco: numbers as text": (add(bbox=["30", "5", 20, 20]), 2, "odd value: 2 repaired"),
    "coco: words": (add(bbox=["x", 5, 20, 20]), 1, "broken annotation: 1 left out"),
    "coco: nulls": (add(bbox=[None, 5, 20, 20]), 1, "broken annotation: 1 left out"),
    "coco: polygon alone": (add(bbox=None, segmentation=[[30, 5, 50, 5, 50, 25]]), 2, "box of a polygon: 1 noted"),
    "coco: no box at all": (add(bbox=[], segmentation=[]), 1, "broken annotation: 1 left out"),
    "coco: mask alone": (add(bbox=None, segmentation={"counts": "x", "size": [40, 60]}), 1, "no box: 1 left out"),
    "coco: image id as text": (add(image_id="2"), 2, "odd value: 1 repaired"),
    "coco: image id as fraction": (add(image_id=2.0), 2, "odd value: 1 repaired"),
    "coco: category id as text": (add(category_id="2"), 2, "odd value: 1 repaired"),
    "coco: no such image": (add(image_id=77), 1, "unlisted image: 1 left out"),
    "coco: no such category": (add(category_id=77), 1, "dangling id: 1 left out"),
    "coco: same id twice": (add(id=1), 2, "duplicate id: 1 repaired"),
    "coco: image ids as text": (alter("images", "id", "2"), 1, "odd value: 1 repaired"),
    "coco: category ids as text": (alter("categories", "id", "2"), 1, "odd value: 1 repaired"),
    "coco: two ids of one class": (
        lambda root: coco(root, lambda content: (
            content["categories"].append({"id": 7, "name": "cat"}),
            content["annotations"].append(cat(9, image_id=2, category_id=7, bbox=[30, 5, 20, 20])),
        )), 2, "duplicate id: 1 repaired",
    ),
    "coco: size as text": (alter("images", "width", "60"), 1, ""),
    "yolo: no height": (lambda root: yolo(root, "1 0.5 0.5 0.2 0"), 1, "inverted box: 1 left out"),
    "yolo: four": (lambda root: yolo(root, "1 0.5 0.5 0.2"), 1, "broken annotation: 1 left out"),
    "yolo: words": (lambda root: yolo(root, "dog 0.5 0.5 0.2 0.2"), 1, "broken annotation: 1 left out"),
    "yolo: not finite": (lambda root: yolo(root, "1 nan 0.5 0.2 0.2"), 1, "not a number: 1 left out"),
    "yolo: pixels": (lambda root: yolo(root, "1 30 20 10 10"), 1, "not a number|box outside: 1 left out"),
    "yolo: confidence": (lambda root: yolo(root, "1 0.5 0.5 0.2 0.2 0.87"), 2, "extra column: 1 noted"),
    "yolo: count of classes as text": (
        lambda root: (yolo(root, ""), (root / "data.yaml").write_text("all: images/all\nnc: '2'\nnames: [cat, dog]\n")),
        1, "",
    ),
    "yolo: remarks and quotes in a list": (
        lambda root: (
            yolo(root, ""), (root / "data.yaml").write_text("all: list.txt\nnames: [cat, dog]\n"),
            (root / "list.txt").write_text('# mine\nimages/all/a.jpg\r\n\n"images/all/b.jpg"\n./images/all/c.jpg \n'),
        ), 1, "",
    ),
    "yolo: track": (lambda root: yolo(root, "1 0.5 0.5 0.2 0.2 7"), 2, "extra column: 1 noted"),
    "yolo: polygon": (lambda root: yolo(root, "1 .1 .1 .9 .1 .9 .9"), 2, "box of a polygon: 1 noted"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_one_bad_record_is_repaired_or_left_out_and_counted(tmp_path: Path, case: str) -> None:
    make, objects, notice = CASES[case]
    make(tmp_path / "data")
    notices: list[str] = []
    data = read_dataset(tmp_path / "data", "all", notice=notices.append)
    assert [len(sample.boxes) for sample in data.samples] == [1, objects, 1] and data.names == ("cat", "dog")
    assert len(notices) == bool(notice) and all(re.match(notice, line) for line in notices)
    if notice:
        with pytest.raises(CenterdetError):
            read_dataset(tmp_path / "data", "all", strict=True)
        assert check(tmp_path / "data", {"all": ["all"]}).problems
    written: list[str] = []
    counts = convert(tmp_path / "data", tmp_path / "out", "yolo", {"new": "all"}, notice=written.append)
    assert counts["new"]["images"] == 3 and written == notices
    if notice:
        with pytest.raises(CenterdetError):
            convert(tmp_path / "data", tmp_path / "strict", "yolo", {"new": "all"}, strict=True)
        assert not (tmp_path / "strict").exists()


def test_lines_count_each_kind_with_one_example(tmp_path: Path) -> None:
    yolo(tmp_path, "1 0.5 0.5 0.2 0\n" * 2 + "1 0.5 0.5 0.2 0.2 7\n")
    for stem in "ac":
        with (tmp_path / "labels" / "all" / f"{stem}.txt").open("a") as file:
            file.write("0 0.25 0.25 0.5 0.5\n")
    notices: list[str] = []
    read_dataset(tmp_path, "all", notice=notices.append)
    assert len(notices) == 2
    example = tmp_path / "labels" / "all" / "b.txt"
    assert notices[0] == f"extra column: 1 noted, such as {example}:4: the sixth column, 7, is not read: a track?"
    what = "box (0.5, 0.5, 0.2, 0) has no width or no height"
    assert notices[1] == f"inverted box: 2 left out, such as {example}:2: {what}"


@pytest.mark.parametrize("case", ["images", "objects"])
def test_a_dataset_of_which_most_is_left_out_is_refused(tmp_path: Path, case: str) -> None:
    yolo(tmp_path, "")
    if case == "images":
        for stem in "ab":
            (tmp_path / "images" / "all" / f"{stem}.jpg").write_bytes(b"text")
    else:
        for stem in "abc":
            (tmp_path / "labels" / "all" / f"{stem}.txt").write_text("0 30 20 10 10\n")
    with pytest.raises(CenterdetError, match=r"are these pixels\?" if case == "objects" else r"a\.jpg"):
        read_dataset(tmp_path, "all")


def test_a_file_may_list_a_part_of_the_images_that_it_annotates(tmp_path: Path) -> None:
    coco(tmp_path, lambda content: content.update(images=content["images"][:1]))
    notices: list[str] = []
    data = read_dataset(tmp_path, "all", notice=notices.append)
    assert [len(sample.boxes) for sample in data.samples] == [1] and notices[0].startswith("unlisted image: 2 left out")


def test_images_without_label_file_are_counted_aloud(tmp_path: Path) -> None:
    yolo(tmp_path, "")
    (tmp_path / "labels" / "all" / "b.txt").unlink()
    notices: list[str] = []
    data = read_dataset(tmp_path, "all", notice=notices.append)
    assert [len(sample.boxes) for sample in data.samples] == [1, 0, 1]
    assert len(notices) == 1 and "1 image of 3 without label file" in notices[0]
    (tmp_path / "labels" / "all" / "b.txt").write_text("")  # background on purpose
    assert len(read_dataset(tmp_path, "all", strict=True)) == 3


SIZES = [(30, 20), (120, 80), (59, 39), (45, 30), (40, 60), (60, 60), (100, 40)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("form", ["voc", "coco", "csv"])
def test_a_size_that_the_image_contradicts_is_refused_or_explained(
    tmp_path: Path, form: str, size: tuple[int, int]
) -> None:
    {
        "voc": lambda: voc(tmp_path, ""),
        "coco": lambda: coco(tmp_path, lambda content: None),
        "csv": lambda: table(tmp_path),
    }[form]()
    width, height = size
    [path] = tmp_path.rglob("b.jpg")
    image(path, width, height)
    message = f"b.jpg: the annotation states 60 x 40 px, the upright image has {width} x {height}"
    with pytest.raises(DataError, match=message):
        read_dataset(tmp_path, "all")
    notices: list[str] = []
    data = read_dataset(tmp_path, "all", notice=notices.append, options=ReadOptions(rescale=True))
    resized = abs(width / 60 - height / 40) < 0.03
    assert len(notices) == 1 and message in notices[0]
    assert len(data) == 2 + resized
    if resized:
        expected = np.array([10 * width / 60, 5 * height / 40, 30 * width / 60, 25 * height / 40])
        np.testing.assert_allclose(data.samples[1].boxes, [expected], atol=1e-9)
        assert data.samples[1].size == (height, width)
    problems = [problem for problem in check(tmp_path, {"all": ["all"]}).problems if "size" in problem.kind]
    assert [problem.kind for problem in problems] == ["transposed size" if size == (40, 60) else "wrong size"]


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("orientation", range(5, 9))
@pytest.mark.parametrize("form", ["voc", "coco"])
def test_boxes_of_images_that_were_labeled_without_their_exif_rotation(
    tmp_path: Path, form: str, orientation: int, scale: int
) -> None:
    voc(tmp_path, "") if form == "voc" else coco(tmp_path, lambda content: None)
    [path] = tmp_path.rglob("b.jpg")
    pixels = np.zeros((40 * scale, 60 * scale), np.uint8)
    pixels[5 * scale : 25 * scale, 10 * scale : 30 * scale] = 255  # the box as it is labeled
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).save(path, exif=exif, quality=95)
    upright = f"states 60 x 40 px, the upright image has {40 * scale} x {60 * scale}: .* EXIF rotation, pass rescale"
    with pytest.raises(DataError, match=upright):
        read_dataset(tmp_path, "all")
    notices: list[str] = []
    data = read_dataset(tmp_path, "all", notice=notices.append, options=ReadOptions(rescale=True))
    rows, columns = np.nonzero(load(path)[..., 0] > 127)
    assert data.samples[1].boxes.tolist() == [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]
    assert data.samples[1].size == (60 * scale, 40 * scale)
    assert len(notices) == 1 and notices[0].startswith("rescaled boxes: 1 repaired")


@pytest.mark.parametrize("content", [b"", b"text", b"\xff\xd8\xff"])
@pytest.mark.parametrize("form", ["voc", "coco", "yolo"])
def test_an_image_without_a_readable_header_is_left_out(tmp_path: Path, form: str, content: bytes) -> None:
    {"voc": voc, "coco": lambda root, _: coco(root, lambda content: None), "yolo": yolo}[form](tmp_path / "in", "")
    [path] = (tmp_path / "in").rglob("b.jpg")
    path.write_bytes(content)
    notices: list[str] = []
    written = convert(tmp_path / "in", tmp_path / "out", "yolo", {"new": "all"}, notice=notices.append)
    assert written["new"]["images"] == 2
    assert len(notices) == 1 and notices[0].startswith(f"broken image: 1 left out, such as {path}: ")


def test_strict_refuses_a_dataset_without_objects(tmp_path: Path) -> None:
    yolo(tmp_path, "")
    for path in (tmp_path / "labels" / "all").iterdir():
        path.write_text("")
    notices: list[str] = []
    assert len(read_dataset(tmp_path, "all", notice=notices.append)) == 3
    assert notices == [f"{tmp_path}: no image has an object: 3 images"]
    with pytest.raises(DataError, match="no image has an object: 3 images"):
        read_dataset(tmp_path, "all", strict=True)


def test_two_images_of_one_label_file_are_named(tmp_path: Path) -> None:
    yolo(tmp_path, "")
    image(tmp_path / "images" / "all" / "b.png")
    notices: list[str] = []
    assert len(read_dataset(tmp_path, "all", notice=notices.append)) == 4
    assert len(notices) == 1 and notices[0].startswith("shared label file: 1 noted") and "b.png" in notices[0]


@pytest.mark.parametrize("form", ["voc", "yolo"])
def test_a_folder_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """A share that vanishes while it is read leaves no part of a dataset for the whole."""
    voc(tmp_path, "") if form == "voc" else yolo(tmp_path, "")
    place = "JPEGImages" if form == "voc" else "images/all"
    (tmp_path / place / "more").mkdir()
    scandir = os.scandir

    def vanish(path: str) -> object:
        if os.path.basename(path) == "more":
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", vanish)
    with pytest.raises(DataError, match=r"more: unreadable"):
        read_dataset(tmp_path, "all", notice=lambda text: None)


def test_a_line_that_is_repeated(tmp_path: Path) -> None:
    yolo(tmp_path, "")
    (tmp_path / "list.txt").write_text("".join(f"images/all/{stem}.jpg\n" for stem in "abbbc"))
    (tmp_path / "data.yaml").write_text("all: list.txt\nnames: [cat, dog]\n")
    with pytest.raises(DataError, match=r"list\.txt:3: 'b' is in the splits already"):  # in an evaluation
        read_dataset(tmp_path, "all")
    notices: list[str] = []
    kept = read_dataset(tmp_path, "all", notice=notices.append, options=ReadOptions(repeats="keep"))
    assert [sample.path.stem for sample in kept.samples] == list("abbbc")  # in a training
    assert notices[0].startswith("repeated in list: 2 noted")
    written = convert(tmp_path, tmp_path / "out", "voc", {"new": "all"}, notice=notices.append)
    assert written["new"]["images"] == 3 and notices[1].startswith("repeated in list: 2 noted")


@pytest.mark.parametrize(
    "names", [("cat", "Cat"), ("cat", "cat "), ("traffic light", "traffic  light"), (" cat", "dog")]
)
def test_similar_classes_are_named_and_can_be_renamed(tmp_path: Path, names: tuple[str, str]) -> None:
    yolo(tmp_path, "1 0.5 0.5 0.2 0.2")
    (tmp_path / "data.yaml").write_text(f"all: images/all\nnames: {list(names)}\n")
    notices: list[str] = []
    data = read_dataset(tmp_path, "all", notice=notices.append)
    assert len(notices) == 1 and notices[0].startswith("similar classes: 1 noted") and "--rename" in notices[0]
    rename = {names[1]: names[0]} if names[1] != "dog" else {" cat": "cat"}
    written = convert(tmp_path, tmp_path / "out", "voc", {"new": "all"}, rename=rename, notice=notices.append)
    assert written["new"]["objects"] == 4
    [renamed] = rename_classes([data], rename)
    expected = ["cat", "dog"] if names[1] == "dog" else [names[0]]
    assert list(renamed.names) == expected == list(read_dataset(tmp_path / "out", "new").names)
    with pytest.raises(DataError, match="rename: the dataset has no class 'cow'"):
        rename_classes([data], {"cow": "cat"})


def test_stated_areas_are_kept_and_boxes_only_clipped_if_asked_for(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["annotations"][0].update(area=123.5, bbox=[-3, 5, 30.25, 20])
        del content["annotations"][1]["area"]

    coco(tmp_path, change)
    notices: list[str] = []
    data = read_dataset(tmp_path, "all", notice=notices.append)
    assert data.samples[0].areas.tolist() == [123.5] and data.samples[1].areas is None  # type: ignore[union-attr]
    assert data.samples[0].boxes.tolist() == [[0, 5, 27.25, 25]]
    data = read_dataset(tmp_path, "all", notice=notices.append, options=ReadOptions(clip=False))
    assert data.samples[0].boxes.tolist() == [[-3, 5, 27.25, 25]]


@pytest.mark.parametrize("form", ["voc", "coco"])
def test_images_need_not_exist_where_sizes_are_stated(tmp_path: Path, form: str) -> None:
    voc(tmp_path, "") if form == "voc" else coco(tmp_path, lambda content: None)
    for path in tmp_path.rglob("*.jpg"):
        path.unlink()
    with pytest.raises(DataError, match="no image"):
        read_dataset(tmp_path, "all")
    data = read_dataset(tmp_path, "all", options=ReadOptions(need_images=False))
    assert [sample.path.stem for sample in data.samples] == ["a", "b", "c"]
    assert [sample.size for sample in data.samples] == [(40, 60)] * 3


def test_progress_sees_every_image_and_missing_splits_lead_on(tmp_path: Path) -> None:
    yolo(tmp_path, "")
    seen: list[str] = []

    def progress(items: Any) -> Any:
        for item in items:
            seen.append(item.path.stem)
            yield item

    read_yolo(tmp_path, "all", options=ReadOptions(progress=progress))
    assert seen == ["a", "b", "c"]
    with pytest.raises(DataError, match=r"known are \['all'\]: pass --val '' to train without validation"):
        read_dataset(tmp_path, "val")
    write_voc(Dataset(read_yolo(tmp_path, "all").samples, ("cat", "dog")), tmp_path / "voc", "train")
    with pytest.raises(DataError, match="pass --val '' to train without validation"):
        read_dataset(tmp_path / "voc", "val")


def test_a_dataset_without_any_object_and_class_says_so(tmp_path: Path) -> None:
    voc(tmp_path, "")
    (tmp_path / "classes.txt").unlink()
    for path in (tmp_path / "Annotations").iterdir():
        path.write_text(f"<annotation>{SIZE}</annotation>")
    with pytest.raises(DataError, match=r"no object in any annotation, and no list of classes such as classes\.txt"):
        read_dataset(tmp_path, "all")
    (tmp_path / "classes.txt").write_text("cat\n")
    with pytest.warns(UserWarning, match="no image has an object: 3 images"):
        assert len(read_dataset(tmp_path, "all")) == 3
