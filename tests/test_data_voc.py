import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from centerdet.data.problems import Problem
from centerdet.data.sample import Dataset, Sample
from centerdet.data.voc import VOC_NAMES, read_voc, write_voc
from centerdet.errors import AnnotationError, CenterdetError, DataError, ImageError, WriteError


def image(path: Path, height: int = 40, width: int = 60) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(len(path.name)).integers(0, 255, (height, width, 3), np.uint8)).save(path)
    return path


def thing(name: str = "cat", box: tuple[object, ...] = (1, 1, 60, 40), more: str = "") -> str:
    left, top, right, bottom = box
    corners = f"<xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
    return f"<object><name>{name}</name>{more}<bndbox>{corners}</bndbox></object>"


SIZE = "<size><width>60</width><height>40</height></size>"


def voc_folder(root: Path, annotations: dict[str, str], split: str = "train", lines: str | None = None) -> Path:
    """A folder in VOC layout: name -> what stands inside its <annotation>."""
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for stem, inside in annotations.items():
        image(root / "JPEGImages" / f"{stem}.jpg")
        (root / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{inside}</annotation>")
    text = "".join(f"{stem}\n" for stem in annotations) if lines is None else lines
    (root / "ImageSets" / "Main" / f"{split}.txt").write_text(text)
    return root


def same(first: Dataset, second: Dataset) -> None:
    assert first.names == second.names
    assert [sample.path.name for sample in first.samples] == [sample.path.name for sample in second.samples]
    for one, other in zip(first.samples, second.samples, strict=True):
        for field in ("boxes", "labels", "difficult", "crowd"):
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
            assert getattr(one, field).dtype == getattr(other, field).dtype


def test_a_box_counts_from_zero_and_ends_after_its_last_pixel(tmp_path: Path) -> None:
    root = voc_folder(tmp_path, {"a": SIZE + thing("cat", (11, 6, 20, 40)) + thing("dog", (1, 1, 1, 1))})
    [sample] = read_voc(root, ["train"]).samples
    assert sample.boxes.tolist() == [[10, 5, 20, 40], [0, 0, 1, 1]] and sample.boxes.dtype == np.float64
    assert sample.labels.tolist() == [0, 1] and sample.size == (40, 60)
    assert not sample.difficult.any() and not sample.crowd.any()


def test_only_name_and_box_are_needed(tmp_path: Path) -> None:
    root = voc_folder(tmp_path, {"a": thing(), "b": "<size><width>0</width><height>0</height></size>" + thing()})
    for sample in read_voc(root, ["train"]).samples:
        assert (sample.boxes.tolist(), sample.size) == ([[0, 0, 60, 40]], (40, 60))


def test_parts_and_difficult_and_images_without_objects(tmp_path: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>9</xmin></bndbox></part>"
    root = voc_folder(tmp_path, {"a": SIZE + thing(more=f"<difficult>1</difficult>{part}") + thing(), "b": SIZE})
    data = read_voc(root, ["train"])
    assert data.names == ("cat",) and len(data) == 2
    assert data.samples[0].difficult.tolist() == [True, False]
    assert data.samples[1].boxes.shape == (0, 4) and data.samples[1].size == (40, 60)


def test_a_devkit_has_years_and_the_order_of_its_twenty_classes(tmp_path: Path) -> None:
    voc_folder(tmp_path / "VOCdevkit" / "VOC2007", {"a": SIZE + thing("person")})
    voc_folder(tmp_path / "VOCdevkit" / "VOC2012", {"2012_a": SIZE + thing("cow")}, "extra")
    both = read_voc(tmp_path / "VOCdevkit", ["2007:train", "2012:extra"])
    assert both.names == VOC_NAMES and len(set(VOC_NAMES)) == 20
    assert [sample.labels.tolist() for sample in both.samples] == [[14], [9]]
    same(both, read_voc(tmp_path, ["2007:train", "2012:extra"]))
    assert read_voc(tmp_path / "VOCdevkit" / "VOC2007", ["train"]).names == VOC_NAMES
    with pytest.raises(DataError, match=r"known are \['2007:train', '2012:extra'\]"):
        read_voc(tmp_path / "VOCdevkit", ["train"])
    with pytest.raises(DataError, match=r"known are \['2007:train', '2012:extra'\]"):
        read_voc(tmp_path / "VOCdevkit", ["2007:test"])
    voc_folder(tmp_path / "VOCdevkit" / "VOC2007", {"b": SIZE + thing("helmet")}, "val")  # a layout that others borrow
    assert read_voc(tmp_path, ["2007:train"]).names == ("person", "helmet")


def test_names_come_from_the_caller_then_a_file_then_the_first_appearance(tmp_path: Path) -> None:
    root = voc_folder(tmp_path, {"a": SIZE + thing("zebra"), "b": SIZE + thing("cat") + thing("zebra")}, lines="b\n")
    (root / "ImageSets" / "Main" / "val.txt").write_text("a\n")
    for split, labels in (("train", [1, 0]), ("val", [0])):
        data = read_voc(root, [split])
        assert (data.names, data.samples[0].labels.tolist()) == (("zebra", "cat"), labels)
    (root / "classes.txt").write_text("cat\n\nzebra\n")
    assert read_voc(root, ["train"]).names == ("cat", "zebra")
    assert read_voc(root, ["train"], ["ant", "zebra", "cat"]).samples[0].labels.tolist() == [2, 1]


def test_all_stands_for_every_annotation_where_there_is_no_list(tmp_path: Path) -> None:
    root = voc_folder(tmp_path, {"b": SIZE, "a": SIZE, "c": SIZE}, lines="a\n")
    assert [sample.path.stem for sample in read_voc(root, ["all"]).samples] == ["a", "b", "c"]


def test_images_of_other_kinds_and_names(tmp_path: Path) -> None:
    root = voc_folder(tmp_path, {"a": SIZE, "größe 1": SIZE, "v1.2": SIZE})
    (root / "JPEGImages" / "a.jpg").unlink()
    image(root / "JPEGImages" / "a.PNG")
    names = [sample.path.name for sample in read_voc(root, ["train"]).samples]
    assert names == ["a.PNG", "größe 1.jpg", "v1.2.jpg"]
    image(root / "JPEGImages" / "a.jpg")
    with pytest.raises(DataError, match="several images of one name"):
        read_voc(root, ["train"])
    (root / "Annotations" / "a.xml").write_text(f"<annotation><filename>a.PNG</filename>{SIZE}</annotation>")
    assert read_voc(root, ["train"]).samples[0].path.name == "a.PNG"


def test_a_box_may_stick_out_by_a_pixel(tmp_path: Path) -> None:
    root = voc_folder(tmp_path, {"a": SIZE + thing(box=(0, 0.5, 61, 40.25))})
    assert read_voc(root, ["train"]).samples[0].boxes.tolist() == [[0, 0, 60, 40]]


DOCTYPE = '<!DOCTYPE a [<!ENTITY b "c">]>'
BAD = {
    "broken XML": ("<annotation><object></annotation>", AnnotationError, r"b\.xml: broken XML: mismatched tag"),
    "not XML": ("", AnnotationError, r"b\.xml: broken XML"),
    "another kind": ("<html></html>", AnnotationError, r"b\.xml: expected the element annotation, got 'html'"),
    "entities": (f"{DOCTYPE}<annotation>&b;</annotation>", AnnotationError, "DOCTYPE and ENTITY are refused"),
    "unknown class": (
        thing() + "\n" + thing("catt"),
        AnnotationError,
        r"b\.xml:2: object 2: unknown class 'catt', .* 'cat'",
    ),
    "no name": (thing(""), AnnotationError, "object 1: expected a name"),
    "inverted": (thing(box=(30, 1, 20, 40)), AnnotationError, r"object 1: box \(30.0, 1.0, 20.0, 40.0\) has no width"),
    "outside": (thing(box=(30, 1, 62, 40)), AnnotationError, "object 1: .* outside the image of 60 x 40 px"),
    "just beside": (thing(box=(61, 1, 61, 40)), AnnotationError, "object 1: .* outside"),
    "negative": (thing(box=(-1, 1, 6, 40)), AnnotationError, "object 1: .* outside"),
    "NaN": (thing(box=("nan", 1, 6, 40)), AnnotationError, "object 1: .* is not finite"),
    "infinite": (thing(box=(1, 1, "inf", 40)), AnnotationError, "object 1: .* is not finite"),
    "comment": ("<!-- <object> -->" + thing("catt"), AnnotationError, r"b\.xml: object 1: unknown class 'catt'"),
    "words": (thing(box=(1, 1, "six", 40)), AnnotationError, "object 1: bndbox/xmax: expected a number, got 'six'"),
    "no box": (
        "<object><name>cat</name></object>",
        AnnotationError,
        "object 1: bndbox/xmin: expected a number, got no such element",
    ),
    "difficult": (thing(more="<difficult>maybe</difficult>"), AnnotationError, "object 1: difficult: expected 0 or 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_annotations_are_named(tmp_path: Path, case: str) -> None:
    inside, error, message = BAD[case]
    root = voc_folder(tmp_path, {"a": SIZE + thing(), "b": SIZE, "c": SIZE + thing()})
    text = (
        inside
        if case in ("broken XML", "not XML", "another kind", "entities")
        else f"<annotation>{SIZE}{inside}</annotation>"
    )
    (root / "Annotations" / "b.xml").write_text(text)
    with pytest.raises(error, match=message):
        read_voc(root, ["train"], ["cat"])
    problems: list[Problem] = []
    data = read_voc(root, ["train"], ["cat"], report=problems.append)
    assert len(problems) == 1 and {"a.jpg", "c.jpg"} <= {sample.path.name for sample in data.samples}


def test_bad_splits_and_missing_files_are_named(tmp_path: Path) -> None:
    root = voc_folder(tmp_path, {"a": SIZE, "b": SIZE})
    lists = root / "ImageSets" / "Main"
    for line in ("../a", "/etc/passwd", "x\\..\\..\\a", "C:\\a"):
        (lists / "train.txt").write_text(f"a\n{line}\n")
        with pytest.raises(DataError, match=r"train.txt:2: .* leads out of the folder"):
            read_voc(root, ["train"])
    for split in ("../train", "..:train", "/train", ""):
        with pytest.raises(DataError, match="leads out of the folder"):
            read_voc(root, [split])
    (lists / "train.txt").write_text("\n  \n")
    with pytest.raises(DataError, match=r"train\.txt: the split names no image"):
        read_voc(root, ["train"])
    (lists / "train.txt").write_text("a\nb\na\n")
    with pytest.raises(DataError, match=r"train\.txt:3: 'a' is in the splits already"):
        read_voc(root, ["train"])
    (lists / "train.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="expected UTF-8 text"):
        read_voc(root, ["train"])
    (lists / "train.txt").write_text("a\nb\n")
    (root / "JPEGImages" / "b.jpg").unlink()
    with pytest.raises(DataError, match=r"train\.txt:2: no image .*b\.jpg"):
        read_voc(root, ["train"])
    (root / "Annotations" / "a.xml").unlink()
    with pytest.raises(DataError, match=r"train\.txt:1: no annotation .*a\.xml"):
        read_voc(root, ["train"])
    with pytest.raises(DataError, match="no such folder"):
        read_voc(root / "nowhere", ["train"])
    with pytest.raises(DataError, match="no folder Annotations"):
        read_voc(lists, ["train"])
    with pytest.raises(DataError, match="at least one split"):
        read_voc(root, [])


def test_a_broken_image_is_named_where_its_size_is_needed(tmp_path: Path) -> None:
    root = voc_folder(tmp_path, {"a": thing()})
    (root / "JPEGImages" / "a.jpg").write_text("no image")
    with pytest.raises(ImageError, match=r"a\.jpg"):
        read_voc(root, ["train"])


side = st.integers(0, 50)
boxes = st.lists(
    st.tuples(side, side, side, side, st.integers(0, 2), st.booleans(), st.booleans()).map(
        lambda row: (row[0], row[1], row[0] + row[2] + 1, row[1] + row[3] + 1, *row[4:])
    ),
    max_size=6,
)


@settings(max_examples=25, deadline=None)
@given(st.lists(boxes, min_size=1, max_size=4))
def test_what_is_written_is_read_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[tuple]]
) -> None:  # type: ignore[type-arg]
    root = tmp_path_factory.mktemp("round")
    samples = []
    for number, row in enumerate(rows):
        columns = np.array(row, float).reshape(-1, 7)
        path = image(root / "source" / f"{number} ä&.png", 102, 102)
        flags = columns[:, 5:].astype(bool)
        samples.append(
            Sample(path, columns[:, :4], columns[:, 4].astype(np.int64), flags[:, 0], flags[:, 1], (102, 102))
        )
    data = Dataset(samples, ("b<", "a & b", "ç"))
    written = write_voc(data, root / "copy", "train")
    assert written == {"images": len(rows), "objects": sum(map(len, rows))}
    same(data, read_voc(root / "copy", ["train"]))


def test_fractions_are_written_with_their_decimals(tmp_path: Path) -> None:
    path = image(tmp_path / "a.jpg")
    given = np.array([[0.125, 3.3, 10.7, 39.99], [1 / 3, 2 / 3, 59.5, 39.123456789]])
    write_voc(Dataset([Sample(path, given, np.zeros(2, np.int64))], ("cat",)), tmp_path / "copy", "train")
    once = read_voc(tmp_path / "copy", ["train"])
    np.testing.assert_allclose(once.samples[0].boxes, given, rtol=0, atol=1e-14)
    write_voc(once, tmp_path / "again", "train")
    same(once, read_voc(tmp_path / "again", ["train"]))


def test_sides_next_to_an_integer_are_written_as_it(tmp_path: Path) -> None:
    given = np.array([[0.9995, 2, 10.0009, 39.99999], [7, 7, 9.998, 8]])
    sample = Sample(image(tmp_path / "a.jpg"), given, np.zeros(2, np.int64))
    write_voc(Dataset([sample], ("cat",)), tmp_path / "out", "train")
    text = (tmp_path / "out" / "Annotations" / "a.xml").read_text()
    assert "<xmin>2</xmin><ymin>3</ymin><xmax>10</xmax><ymax>40</ymax>" in text
    [sample] = read_voc(tmp_path / "out", ["train"]).samples
    np.testing.assert_allclose(sample.boxes, [[1, 2, 10, 40], *given[1:]], rtol=0, atol=1e-14)


def test_a_writer_refuses_before_it_writes(tmp_path: Path) -> None:
    path = image(tmp_path / "in" / "a.jpg")
    good = Sample(path, np.array([[1.0, 1, 5, 5]]), np.zeros(1, np.int64))
    bad = {
        r"a\.xyz: expected an image called \*\.avif, ": [Sample(Path(shutil.copy(path, tmp_path / "a.xyz")))],
        "no such image": [good, Sample(tmp_path / "b.jpg")],
        "finite numbers": [Sample(path, np.array([[1.0, 1, np.nan, 5]]), np.zeros(1, np.int64))],
        "x2 > x1": [Sample(path, np.array([[5.0, 1, 1, 5]]), np.zeros(1, np.int64))],
        "labels: expected 0 to 0": [Sample(path, np.array([[1.0, 1, 5, 5]]), np.ones(1, np.int64))],
        "several images would be called 'in_a'": [good, good],
        "at least one image": [],
    }
    for message, samples in bad.items():
        with pytest.raises(CenterdetError, match=message):
            write_voc(Dataset(samples, ("cat",)), tmp_path / "out", "train")
    for name in ("", " cat", "a\nb", "a\x00"):
        with pytest.raises(DataError, match="names: expected printable text"):
            write_voc(Dataset([good], (name,)), tmp_path / "out", "train")
    for split in ("", "../train", "a/b", "2007:train"):
        with pytest.raises(DataError, match="split: expected a plain word"):
            write_voc(Dataset([good], ("cat",)), tmp_path / "out", split)
    (tmp_path / "text").write_text("a file")
    with pytest.raises(WriteError, match="expected a folder, got a file"):
        write_voc(Dataset([good], ("cat",)), tmp_path / "text", "train")
    with pytest.raises(DataError, match="expected 'copy' or 'link'"):
        write_voc(Dataset([good], ("cat",)), tmp_path / "out", "train", placing="move")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_full_folder_is_added_to_only_on_purpose_and_never_overwritten(tmp_path: Path) -> None:
    first = Sample(image(tmp_path / "one" / "a.jpg"), np.array([[1.0, 1, 5, 5]]), np.zeros(1, np.int64))
    second = Sample(image(tmp_path / "two" / "bb.jpg"))
    other = Sample(image(tmp_path / "two" / "a.jpg", 20, 20))
    root = tmp_path / "out"
    write_voc(Dataset([first], ("cat",)), root, "train")
    with pytest.raises(WriteError, match="the folder is not empty"):
        write_voc(Dataset([second], ("cat",)), root, "val")
    before = {path: path.read_bytes() for path in root.rglob("*.*")}
    with pytest.raises(WriteError, match=r"a\.jpg: another file has this name"):
        write_voc(Dataset([second, other], ("cat",)), root, "val", add=True)
    with pytest.raises(WriteError, match=r"classes\.txt: another file has this name"):
        write_voc(Dataset([second], ("dog",)), root, "val", add=True)
    assert {path: path.read_bytes() for path in root.rglob("*.*")} == before
    write_voc(Dataset([second], ("cat",)), root, "val", add=True)
    write_voc(Dataset([first, second], ("cat",)), root, "trainval", add=True)
    write_voc(Dataset([second], ("cat",)), root, "val", add=True)  # once more changes nothing
    assert len(read_voc(root, ["trainval"])) == 2
    assert {path: path.read_bytes() for path in before} == before


def test_images_are_linked_on_request_and_equal_names_told_apart(tmp_path: Path) -> None:
    samples = [Sample(image(tmp_path / folder / "a.jpg")) for folder in ("one", "two")]
    write_voc(Dataset(samples, ("cat",)), tmp_path / "out", "train", placing="link")
    written = read_voc(tmp_path / "out", ["train"]).samples
    assert [sample.path.name for sample in written] == ["one_a.jpg", "two_a.jpg"]
    assert [os.path.samefile(a.path, b.path) for a, b in zip(samples, written, strict=True)] == [True, True]
    assert not list((tmp_path / "out").rglob(".*"))


def test_images_that_are_in_place_are_annotated_there(tmp_path: Path) -> None:
    samples = [Sample(image(tmp_path / "JPEGImages" / f"{name}.jpg")) for name in "ab"]
    write_voc(Dataset(samples[:1], ("cat",)), tmp_path, "train")
    write_voc(Dataset(samples[1:], ("cat",)), tmp_path, "val")
    assert len(read_voc(tmp_path, ["train", "val"])) == 2


COUNTS = {"2007:train": (2500, 7843, 1543), "2007:val": (2508, 7812, 1511), "2012:extra": (170, 649, 77)}


@pytest.mark.soak
def test_the_real_devkit(voc_root: Path, tmp_path: Path) -> None:
    for split, counts in COUNTS.items():
        samples = read_voc(voc_root, [split]).samples
        objects = sum(len(sample.boxes) for sample in samples)
        assert (len(samples), objects, sum(int(sample.difficult.sum()) for sample in samples)) == counts
    train = read_voc(voc_root, ["2007:train"])
    labels = np.concatenate([sample.labels[~sample.difficult] for sample in train.samples])
    count = dict(zip(train.names, np.bincount(labels, minlength=20).tolist(), strict=True))
    assert count["person"] == 2358 and count["car"] == 624 and count["chair"] == 400
    assert count["bus"] == 115 and count["diningtable"] == 103
    part = Dataset(train.samples[::50], train.names)
    write_voc(part, tmp_path / "copy", "train")
    same(part, read_voc(tmp_path / "copy", ["train"]))
