from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from centerdet.data.problems import Problem
from centerdet.data.sample import Dataset, Sample
from centerdet.data.voc import read_voc
from centerdet.data.yolo import read_yolo, write_yolo
from centerdet.errors import AnnotationError, CenterdetError, DataError, WriteError


def image(path: Path, height: int = 40, width: int = 60, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, len(path.name), 30)).save(path, **options)
    return path


YAML = "train: images/train\nval: images/val\nnames:\n  0: zebra\n  1: cat\n"


def yolo_folder(root: Path, labels: dict[str, str | None], yaml: str = YAML, split: str = "train") -> Path:
    """name -> the lines of its label file, None for no file."""
    for stem, lines in labels.items():
        image(root / "images" / split / f"{stem}.jpg")
        if lines is not None:
            (root / "labels" / split).mkdir(parents=True, exist_ok=True)
            (root / "labels" / split / f"{stem}.txt").write_text(lines)
    (root / "data.yaml").write_text(yaml)
    return root


GOOD = "1 0.5 0.5 0.5 0.5\n"


def test_labels_are_parts_of_the_sides(tmp_path: Path) -> None:
    yolo_folder(tmp_path, {"b": "1 0.5 0.5 0.5 0.25\n\n0 0.05 0.9 0.1 0.2", "a": None, "c": ""})
    for root in (tmp_path, tmp_path / "data.yaml"):
        data = read_yolo(root, ["train"])
        assert data.names == ("zebra", "cat")
        assert [sample.path.name for sample in data.samples] == ["a.jpg", "b.jpg", "c.jpg"]
        assert [len(sample.boxes) for sample in data.samples] == [0, 2, 0]
        sample = data.samples[1]
        np.testing.assert_allclose(sample.boxes, [[15, 15, 45, 25], [0, 32, 6, 40]], rtol=0, atol=1e-12)
        assert sample.labels.tolist() == [1, 0] and sample.size == (40, 60)
    assert read_yolo(tmp_path, ["train"], ["cat", "dog", "zebra"]).samples[1].labels.tolist() == [0, 2]


def test_sizes_are_those_of_the_upright_image(tmp_path: Path) -> None:
    yolo_folder(tmp_path, {"a": "1 0.5 0.5 1 1"})
    exif = Image.Exif()
    exif[274] = 6
    image(tmp_path / "images" / "train" / "a.jpg", exif=exif)
    [sample] = read_yolo(tmp_path, ["train"]).samples
    assert (sample.size, sample.boxes.tolist()) == ((60, 40), [[0, 0, 40, 60]])


@pytest.mark.parametrize(
    ("yaml", "names", "label"),
    [
        ("names: [zebra, cat]", ("zebra", "cat"), 1),
        ("names: {7: cow, 1: cat, 0: zebra}", ("zebra", "cat", "cow"), 1),
        ("names: {7: cow, 1: cat}", ("cat", "cow"), 0),
        ("nc: 2\nnames: [3, 4]", ("3", "4"), 1),
    ],
)
def test_names_keep_the_order_of_their_numbers(tmp_path: Path, yaml: str, names: tuple[str, ...], label: int) -> None:
    yolo_folder(tmp_path, {"a": GOOD}, f"train: images/train\n{yaml}\n")
    data = read_yolo(tmp_path, ["train"])
    assert (data.names, data.samples[0].labels.tolist()) == (names, [label])


def test_where_splits_may_lie(tmp_path: Path) -> None:
    yolo_folder(tmp_path, {"a": GOOD, "b": GOOD})
    yolo_folder(tmp_path, {"c": GOOD}, split="more")
    (tmp_path / "list.txt").write_text(f"./images/train/b.jpg\n\n{tmp_path}/images/more/c.jpg\n")
    for value, found in {
        "images/train": "ab",
        "../images/train": "ab",  # as a popular exporter writes it
        "[images/train, images/more]": "abc",
        "images": "cab",
        "list.txt": "bc",
        str(tmp_path / "images" / "more"): "c",
    }.items():
        for path in ("", "path: .\n", f"path: {tmp_path}\n", "path: ../elsewhere\n"):
            (tmp_path / "data.yaml").write_text(f"{path}train: {value}\nnames: [zebra, cat]\n")
            data = read_yolo(tmp_path, ["train"])
            assert "".join(sample.path.stem for sample in data.samples) == found
            assert all(len(sample.boxes) == 1 for sample in data.samples)


def test_labels_may_lie_beside_the_images(tmp_path: Path) -> None:
    root = tmp_path / "images" / "mine"  # this folder's name is not the dataset's
    image(root / "a.jpg")
    (root / "a.txt").write_text(GOOD)
    (root / "data.yaml").write_text("train: .\nnames: [zebra, cat]\n")
    assert len(read_yolo(root, ["train"]).samples[0].boxes) == 1


LINES = {
    "four": ("0 0.5 0.5 0.5", r"a\.txt:2: expected five numbers, class cx cy width height, got 4: '0 0.5 0.5 0.5'"),
    "seven": ("0 0 0 1 1 0 1 0", r"a\.txt:2: expected five numbers, .* got 8"),
    "words": ("cat 0.5 0.5 0.5 0.5", r"a\.txt:2: expected five numbers"),
    "class": ("2 0.5 0.5 0.5 0.5", r"a\.txt:2: class 2: expected one of 0 to 1"),
    "negative": ("-1 0.5 0.5 0.5 0.5", r"a\.txt:2: class -1: expected one of 0 to 1"),
    "fraction": ("0.5 0.5 0.5 0.5 0.5", r"a\.txt:2: class 0.5: expected one of"),
    "NaN": ("0 nan 0.5 0.5 0.5", r"a\.txt:2: box \(nan, 0.5, 0.5, 0.5\) is not finite"),
    "inverted": ("0 0.5 0.5 -0.5 0.5", r"a\.txt:2: box .* has no width"),
    "pixels": ("0 30 20 10 10", r"a\.txt:2: box .* outside the image of 60 x 40 px: .*are these pixels\?"),
    "outside": ("0 0.5 0.5 2.1 1", r"a\.txt:2: box .* lies outside the image of 60 x 40 px"),
    "infinite": ("0 0.5 inf 0.5 0.5", r"a\.txt:2: box .* is not finite"),
}


@pytest.mark.parametrize("case", LINES)
def test_bad_lines_are_named(tmp_path: Path, case: str) -> None:
    line, message = LINES[case]
    yolo_folder(tmp_path, {"a": f"{GOOD}{line}\n0 0.5 0.5 0.2 0.2\n", "b": GOOD})
    with pytest.raises(AnnotationError, match=message):
        read_yolo(tmp_path, ["train"])
    problems: list[Problem] = []
    data = read_yolo(tmp_path, ["train"], report=problems.append)
    assert len(problems) == 1 and [len(sample.boxes) for sample in data.samples] == [2, 1]


YAMLS = {
    "broken": ("names: [", r"data\.yaml: broken YAML: .* line 2"),
    "deep": ("names: " + "[" * 2000, "broken YAML"),
    "text": ("hello", "expected keys and values, got str"),
    "no names": ("train: images/train", "names: expected a list, or numbers with names, got None"),
    "empty names": ("names: []", "names: expected a list"),
    "a word": ("names: cat", "names: expected a list"),
    "keys": ("names: {a: cat}", "names: expected numbers from 0, each once, got 'a'"),
    "no in quotes": ("names: [yes, no]", r"names\[0\]: expected text, each once \(in quotes where needed\), got True"),
    "twice": ("names: [cat, cat]", r"names\[1\]: expected text, each once"),
    "count": ("nc: 3\nnames: [zebra, cat]", "nc is 3, but names has 2"),
    "no split": (
        "val: images\nnames: [cat]",
        r"train: expected the path of a folder or list, got None; known are \['val'\]",
    ),
    "no folder": ("train: nowhere\nnames: [cat]", "train: no such folder or list .*nowhere"),
    "leading out": ("train: list.txt\nnames: [cat]", r"list\.txt:1: '../a.jpg' leads out of the folder"),
    "missing": ("train: other.txt\nnames: [a, cat]", r"other\.txt:2: no image .*x\.jpg"),
    "twice listed": ("train: [images/train, images]\nnames: [a, cat]", r"a\.jpg: 'a' is in the splits already"),
    "empty": ("train: labels\nnames: [cat]", "train: the split has no image"),
    "unlabeled": ("train: images/bare\nnames: [cat]", r"1 image of 1 without label file, such as .*bare.z\.jpg"),
}


@pytest.mark.parametrize("case", YAMLS)
def test_bad_descriptions_are_named(tmp_path: Path, case: str) -> None:
    yaml, message = YAMLS[case]
    yolo_folder(tmp_path, {"a": GOOD}, yaml + "\n")
    (tmp_path / "list.txt").write_text("../a.jpg\n")
    (tmp_path / "other.txt").write_text("images/train/a.jpg\nimages/train/x.jpg\n")
    image(tmp_path / "images" / "bare" / "z.jpg")
    with pytest.raises(CenterdetError, match=message):
        read_yolo(tmp_path, ["train"])


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file: expected one of data\.yaml"):
        read_yolo(tmp_path, ["train"])
    yolo_folder(tmp_path, {"a": GOOD, "b": GOOD, "c": GOOD})
    with pytest.raises(DataError, match="at least one split"):
        read_yolo(tmp_path, [])
    with pytest.raises(AnnotationError, match=r"a\.txt:1: unknown class 'cat', did you mean 'cats'"):
        read_yolo(tmp_path, ["train"], ["zebra", "cats"])
    (tmp_path / "labels" / "train" / "b.txt").write_bytes(b"\xff\xfe0 0")
    with pytest.raises(AnnotationError, match=r"b\.txt: expected UTF-8"):
        read_yolo(tmp_path, ["train"])
    (tmp_path / "images" / "train" / "a.jpg").write_text("text")
    problems: list[Problem] = []
    data = read_yolo(tmp_path, ["train"], report=problems.append)
    assert [problem.kind for problem in problems] == ["broken image", "broken annotation"]
    assert [sample.path.stem for sample in data.samples] == ["c"]


part = st.floats(0, 1, allow_subnormal=False)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(part, part, part, part, st.integers(0, 1)), min_size=1, max_size=9), st.booleans())
def test_what_is_written_is_read_back_to_a_thousandth(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], large: bool
) -> None:
    root = tmp_path_factory.mktemp("round")
    height, width = (10, 10_000) if large else (150, 200)
    columns = np.array(rows)
    low = columns[:, :2] * [width - 1, height - 1]
    high = low + 1 + columns[:, 2:4] * ([width - 1, height - 1] - low)
    boxes = np.concatenate([low, high], axis=1)
    sample = Sample(image(root / "ä.png", height, width), boxes, columns[:, 4].astype(np.int64))
    write_yolo(Dataset([sample], ("no", "ç: 1")), root / "copy", "train")
    data = read_yolo(root / "copy", ["train"])
    assert data.names == ("no", "ç: 1")
    np.testing.assert_allclose(data.samples[0].boxes, boxes, rtol=0, atol=1e-3)
    np.testing.assert_array_equal(data.samples[0].labels, sample.labels)


def test_what_the_format_cannot_hold_is_counted(tmp_path: Path) -> None:
    boxes = np.array([[0.0, 0, 6, 4], [1, 1, 7, 5], [2, 2, 8, 6]])
    flags = np.array([True, False, False]), np.array([False, True, False])
    sample = Sample(image(tmp_path / "a.png"), boxes, np.array([0, 0, 1]), *flags)
    written = write_yolo(Dataset([sample], ("zebra", "cat")), tmp_path / "out", "train")
    assert written == {"images": 1, "objects": 2, "difficult flags lost": 1, "crowd regions left out": 1}
    [read] = read_yolo(tmp_path / "out", ["train"]).samples
    np.testing.assert_allclose(read.boxes, boxes[[0, 2]], rtol=0, atol=1e-6)
    assert read.labels.tolist() == [0, 1]


def test_splits_are_added_to_the_description(tmp_path: Path) -> None:
    root = tmp_path / "out"
    for split in ("train", "val"):
        data = Dataset([Sample(image(tmp_path / f"{split}.png"), np.array([[0.0, 0, 6, 4]]), np.array([0]))], ("cat",))
        write_yolo(data, root, split, add=True)
    assert [sample.path.stem for sample in read_yolo(root, ["train", "val"]).samples] == ["train", "val"]
    before = (root / "data.yaml").read_bytes()
    with pytest.raises(DataError, match="names: expected those of the new split"):
        write_yolo(Dataset(data.samples, ("dog",)), root, "test", add=True)
    with pytest.raises(WriteError, match="the folder is not empty"):
        write_yolo(data, root, "test")
    assert (root / "data.yaml").read_bytes() == before and not (root / "images" / "test").exists()


def test_a_copy_of_real_data_is_what_supervision_reads(voc_root: Path, tmp_path: Path) -> None:
    data = read_voc(voc_root, ["2012:extra"])
    part = Dataset(data.samples[:60], data.names)
    written = write_yolo(part, tmp_path / "copy", "train")
    again = read_yolo(tmp_path / "copy", ["train"])
    assert written["objects"] == sum(len(sample.boxes) for sample in part.samples)
    for one, other in zip(part.samples, again.samples, strict=True):
        assert one.size == other.size
        np.testing.assert_allclose(one.boxes, other.boxes, rtol=0, atol=1e-4)
        np.testing.assert_array_equal(one.labels, other.labels)
    supervision = pytest.importorskip("supervision")
    root = tmp_path / "copy"
    theirs = supervision.DetectionDataset.from_yolo(
        str(root / "images" / "train"), str(root / "labels" / "train"), str(root / "data.yaml")
    )
    assert tuple(theirs.classes) == data.names and len(theirs) == 60
    for sample in again.samples:
        found = theirs.annotations[str(sample.path)]
        np.testing.assert_allclose(found.xyxy, sample.boxes, rtol=0, atol=0.01)
        np.testing.assert_array_equal(found.class_id, sample.labels)


def test_a_folder_longer_than_a_file_system_allows_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text(f'path: "{"9" * 400}"\ntrain: images/train\nnames: [a]\n')
    with pytest.raises(DataError, match="no such folder or list"):
        read_yolo(tmp_path, ["train"])
