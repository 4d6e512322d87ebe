"""`centerdet check | convert | split`: what they print and write, their exit codes, and what bad input gets to hear."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from centerdet.cli import main
from centerdet.data.coco import read_coco
from centerdet.data.shapes import SHAPE_NAMES, write_shapes
from centerdet.data.voc import read_voc
from centerdet.images import load


class Done(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The program as the shell runs it."""

    def call(*words: object) -> Done:
        monkeypatch.setattr("sys.argv", ["centerdet", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        return Done(int(end.value.code or 0), *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(root, train=8, val=4, size=96)
    return root


def test_check_tells_statistics_and_the_ceiling(run: Run, shapes: Path) -> None:
    code, out, err = run("check", shapes)
    assert (code, err) == (0, "")
    assert "train: 8 images" in out and "val: 4 images" in out
    assert "ceiling at 320 px, stride 8: voc-area 100.0; of" in out and out.endswith("0 errors, 0 notes\n")
    plain = json.loads(run("check", shapes, "--json", "--split", "val", "--size", 64, "--stride", 4).out)
    assert plain["ok"] is True and list(plain["statistics"]) == ["val"]
    ceiling = plain["statistics"]["val"]["ceiling"]
    assert (ceiling["size"], ceiling["stride"]) == (64, 4)
    assert ceiling["objects"] == plain["statistics"]["val"]["objects"]
    assert run("check", shapes, "--quiet") == (0, "0 errors, 0 notes\n", "")


def test_check_names_splits_of_a_devkit_as_they_are(run: Run, tmp_path: Path) -> None:
    write_shapes(tmp_path / "VOC2007", train=3, val=2, size=64)
    names = [word for name in SHAPE_NAMES for word in ("--names", name)]
    assert "\n2007:train: 3 images" in "\n" + run("check", tmp_path, *names).out  # and no image of a tram


def test_check_compares_datasets(run: Run, shapes: Path, tmp_path: Path) -> None:
    assert run("convert", shapes, tmp_path / "copy", "--to", "coco", "--split", "train=train").code == 0
    code, out, _ = run("check", shapes, tmp_path / "copy", "--quiet")
    assert code == 0 and out == f"{shapes}\n0 errors, 0 notes\n\n{tmp_path / 'copy'}\n0 errors, 0 notes\n"
    file = tmp_path / "copy" / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"][2] /= 2
    file.write_text(json.dumps(content))
    code, out, _ = run("check", shapes, tmp_path / "copy", "--quiet")
    assert code == 1 and "ERROR: different labels: 1\n" in out
    plain = json.loads(run("check", shapes, tmp_path / "copy", "--json").out)
    assert list(plain) == [str(shapes), str(tmp_path / "copy")] and plain[str(shapes)]["ok"] is True
    assert plain[str(tmp_path / "copy")]["count"] == {"different labels": 1}


def test_check_writes_a_contact_sheet(run: Run, shapes: Path, tmp_path: Path) -> None:
    assert run("check", shapes, "--sheet", tmp_path / "sheet.jpg", "--size", 64, "--quiet").code == 0
    sheet = load(tmp_path / "sheet.jpg")
    assert sheet.shape[0] > sheet.shape[1] > 1600 and sheet.std() > 20


def test_convert_and_split_say_what_they_wrote(run: Run, shapes: Path, tmp_path: Path) -> None:
    words = ("--to", "yolo", "--split", "a=train", "--split", "a=val")
    assert run("convert", shapes, tmp_path / "one", *words) == (0, _count(shapes, "a"), "")
    assert run("convert", shapes, tmp_path / "two", *words, "--quiet") == (0, "", "")
    plain = json.loads(run("convert", shapes, tmp_path / "three", *words, "--json").out)
    assert plain["a"]["images"] == 12 and list(plain["a"]) == [
        "images", "objects", "difficult flags lost", "crowd regions left out",
    ]  # fmt: skip
    words = ("--source", "train", "--part", "a=0.5", "--part", "b=0.5")
    plain = json.loads(run("split", shapes, tmp_path / "parts", *words, "--json").out)
    assert sum(part["images"] for part in plain.values()) == 8 and list(plain) == ["a", "b"]
    assert run("split", shapes, tmp_path / "more", *words, "--quiet") == (0, "", "")
    again = run("split", shapes, tmp_path / "parts", *words)
    assert again.code == 1 and "expected a new or empty folder" in again.err


def _count(shapes: Path, split: str) -> str:
    objects = sum(len(sample.boxes) for sample in read_voc(shapes, ["train", "val"]).samples)
    return f"{split}: 12 images, {objects} objects, 0 difficult flags lost, 0 crowd regions left out\n"


def test_classes_that_are_not_chosen_are_left_out_and_counted(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "in"
    yolo(root, "0 .5 .5 .2 .2\n1 .5 .5 .4 .4\n0 .5 .5 .6 .6\n")
    words = ("--to", "coco", "--split", "new=train", "--names", "dog")
    said = "1 image, 1 object, 2 objects of cat left out"
    assert run("convert", root, tmp_path / "dogs", *words) == (0, f"new: {said}\n", "")
    words = ("--to", "yolo", "--source", "train", "--part", "all=1", "--names", "cat")
    said = "all: 1 image, 2 objects, 0 difficult flags lost, 0 crowd regions left out, 1 object of dog left out\n"
    assert run("split", root, tmp_path / "cats", *words) == (0, said, "")
    assert list(json.loads(run("split", root, tmp_path / "more", *words, "--json").out)) == ["all"]
    code, out, _ = run("check", root, "--names", "dog", "--quiet")
    assert (code, out) == (0, "note: class left out: 1\n  train: 2 objects of cat\n0 errors, 1 note\n")
    code, out, err = run("convert", root, tmp_path / "dgs", "--to", "coco", "--split", "new=train", "--names", "dg")
    assert (code, out) == (1, "") and "error: names: the dataset has no class 'dg', did you mean" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check", "DATA", "--sheet", "sheet.txt"], "sheet.txt: expected a file called"),
        (["check", "DATA", "--sheet", "none/sheet.jpg"], "Invalid value for '--sheet': no folder none"),
        (["check", "DATA", "--size", "100"], "multiples of 32"),
        (["check", "DATA", "--stride", "5"], "expected 4 or 8"),
        (["check", "DATA", "--spilt", "a"], "--split"),
        (["check"], "Missing argument"),
        (
            ["convert", "DATA", "out", "--to", "yolo", "--split", "train"],
            "expected NEW=SOURCE, such as train=2007:train",
        ),
        (["convert", "DATA", "out", "--to", "pascal", "--split", "a=train"], "'voc', 'coco', 'yolo'"),
        (["split", "DATA", "out", "--source", "train", "--part", "a=b"], "such as train=0.8"),
        (
            ["split", "DATA", "out", "--source", "train", "--part", "a=80"],
            "--part: expected shares above 0 that sum to 1",
        ),
    ],
)
def test_wrong_usage_exits_with_2(
    run: Run, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*(str(shapes) if word == "DATA" else word for word in words))
    assert (code, out) == (2, "") and said in " ".join(err.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []


def image(path: Path, value: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(value).integers(0, 255, (40, 60, 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path


def coco(root: Path, **changes: Any) -> None:
    """Category ids are sparse and fall."""
    for number in (7, 3):
        image(root / "train" / f"{number}.jpg", number)
    content = {
        "images": [{"id": number, "file_name": f"{number}.jpg", "width": 60, "height": 40} for number in (7, 3)],
        "categories": [{"id": 900, "name": "dog"}, {"id": 12, "name": "cat"}],
        "annotations": [
            {"id": 5, "image_id": 3, "category_id": 12, "bbox": [1, 2, 10, 20]},
            {"id": 2, "image_id": 7, "category_id": 900, "bbox": [3, 4, 30, 20]},
        ],
    }
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content | changes))


def yolo(root: Path, labels: str) -> None:
    image(root / "images" / "train" / "a.jpg")
    (root / "labels" / "train").mkdir(parents=True)
    (root / "labels" / "train" / "a.txt").write_text(labels)
    (root / "data.yaml").write_text("train: images/train\nnames: [cat, dog]\n")


def voc(root: Path, images: bool) -> None:
    write_shapes(root, train=2, val=1, size=64)
    for path in [] if images else (root / "JPEGImages").iterdir():
        path.unlink()


def test_sparse_unordered_category_ids_keep_their_classes(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    coco(tmp_path / "in")
    assert run("check", tmp_path / "in").code == 0
    assert run("convert", tmp_path / "in", tmp_path / "out", "--to", "voc", "--split", "train=train").code == 0
    data = read_voc(tmp_path / "out", ["train"])
    assert data.names == ("dog", "cat") == read_coco(tmp_path / "in", ["train"]).names
    found = {sample.path.stem: (data.names[sample.labels[0]], sample.boxes[0].tolist()) for sample in data.samples}
    assert found == {"7": ("dog", [3, 4, 33, 24]), "3": ("cat", [1, 2, 11, 22])}


ONE = {"id": 1, "image_id": 3, "category_id": 12}
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "a key is missing": (
        lambda root: coco(root, annotations=[ONE]),
        "instances_train.json: annotations[0].bbox: expected a list, the key is missing",
    ),
    "a section is missing": (lambda root: coco(root, images=None), "instances_train.json: images: expected a list"),
    "no such category": (
        lambda root: coco(root, annotations=[ONE | {"category_id": 13, "bbox": [1, 2, 3, 4]}]),
        "instances_train.json: annotations[0].category_id: no category has the id 13",
    ),
    "lines of four": (
        lambda root: yolo(root, "0 .5 .5 .2\n1 .5 .5 .2\n"), "labels/train/a.txt:1: expected five numbers",
    ),
    "a class too many": (lambda root: yolo(root, "2 .5 .5 .2 .2\n"), "a.txt:1: class 2: expected one of 0 to 1"),
    "a class below": (lambda root: yolo(root, "-1 .5 .5 .2 .2\n"), "a.txt:1: class -1: expected one of 0 to 1"),
    "an empty folder": (lambda root: None, "expected a dataset of one format"),
    "images alone": (lambda root: image(root / "a.jpg"), "expected a dataset of one format"),
    "no images": (
        lambda root: (yolo(root, ""), (root / "images/train/a.jpg").unlink()), "the split has no image",
    ),
    "annotations alone": (lambda root: (root.rmdir(), voc(root, images=False)), "train.txt:1: no image"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_nothing_is_left(run: Run, tmp_path: Path, case: str) -> None:
    make, said = BAD[case]
    root = tmp_path / "in"
    root.mkdir()
    make(root)
    checked = run("check", root)
    assert checked.code == 1 and said in checked.out + checked.err
    for words in (
        ("convert", root, tmp_path / "out", "--to", "coco", "--split", "train=train"),
        ("split", root, tmp_path / "out", "--source", "train", "--part", "a=1"),
    ):
        code, out, err = run(*words)
        assert (code, out) == (1, "") and err.startswith("error: ") and said in err
    assert os.listdir(tmp_path) == ["in"]


def test_check_goes_on_after_the_first_problem(run: Run, tmp_path: Path) -> None:
    yolo(tmp_path, "0 .5 .5 .2\n7 .5 .5 .2 .2\n1 .5 .5 .2 .2\n0 .5 .5 .9 1.9\n")
    (tmp_path / "images" / "train" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    code, out, _ = run("check", tmp_path, "--sheet", tmp_path / "sheet.jpg")
    assert code == 1 and out.endswith("4 errors, 1 note\n")
    for words in ("a.txt:1: expected five", "a.txt:2: class 7", "a.txt:4: box", "broken.jpg", "train: 2 images"):
        assert words in out
    assert (tmp_path / "sheet.jpg").is_file()


def test_a_failed_split_leaves_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    images = [{"id": number, "file_name": f"{folder}/1.jpg"} for number, folder in enumerate("ab")]
    for number, one in enumerate(images):
        image(tmp_path / "in" / "train" / one["file_name"], number)
    coco(tmp_path / "in", images=images, annotations=[])
    words = ("--source", "train", "--part", "a=0.5", "--part", "b=0.5")
    code, out, err = run("split", tmp_path / "in", tmp_path / "out", *words)
    assert (code, out) == (1, "") and "1.jpg: another file has this name" in err
    assert os.listdir(tmp_path) == ["in"]
    assert run("split", tmp_path / "in", tmp_path / "out", *words, "--to", "yolo").code == 0


@pytest.mark.parametrize("command", ["train", "evaluate", "check", "convert", "split"])
def test_every_command_that_reads_has_the_options_of_readers(run: Run, command: str) -> None:
    words = run(command, "--help").out.split()
    assert {"--rescale", "--allow-outside"} <= set(words) and ("--strict" in words) == (command != "check")


@pytest.mark.parametrize("command", ["convert", "split"])
def test_what_is_repaired_or_left_out_is_a_warning_and_strict_an_error(run: Run, tmp_path: Path, command: str) -> None:
    yolo(tmp_path / "in", "0 .5 .5 .2 .2\n1 .5 .5 .2 0\n1 .2 .2 .1 .1 7\n")
    words = [
        "--to",
        "voc",
        *(["--split", "new=train"] if command == "convert" else ["--source", "train", "--part", "new=1"]),
    ]
    code, out, err = run(command, tmp_path / "in", tmp_path / "out", *words)
    assert (code, out) == (0, "new: 1 image, 2 objects\n")
    assert err.startswith("warning: extra column: 1 noted, such as ") and "warning: inverted box: 1 left out" in err
    assert err.count("\n") == 2
    code, out, err = run(command, tmp_path / "in", tmp_path / "strict", *words, "--strict")
    assert (code, out) == (1, "") and err.startswith("error: ") and "a.txt:3: the sixth column" in err
    assert sorted(os.listdir(tmp_path)) == ["in", "out"]


@pytest.mark.parametrize("command", ["convert", "split"])
def test_classes_are_renamed_boxes_rescaled_and_outside_files_read_on_request(
    run: Run, tmp_path: Path, command: str
) -> None:
    coco(tmp_path)
    with Image.open(tmp_path / "train" / "3.jpg") as opened:
        opened.resize((120, 80)).save(tmp_path / "train" / "3.jpg")
    words = [
        "--to",
        "voc",
        *(["--split", "new=train"] if command == "convert" else ["--source", "train", "--part", "new=1"]),
    ]
    code, _, err = run(command, tmp_path, tmp_path / "a", *words)
    assert code == 1 and "states 60 x 40 px, the upright image has 120 x 80" in err and "--rescale" in err
    code, _, err = run(command, tmp_path, tmp_path / "a", *words, "--rescale", "--rename", "dog=wolf")
    assert code == 0 and err.startswith("warning: rescaled boxes: 1 repaired")
    data = read_voc(tmp_path / "a", ["new"])
    assert data.names == ("wolf", "cat")
    boxes = {sample.path.stem: sample.boxes.tolist() for sample in data.samples}
    assert boxes == {"7": [[3, 4, 33, 24]], "3": [[2, 4, 22, 44]]}
    assert run(command, tmp_path, tmp_path / "b", *words, "--rename", "dog").code == 2
    root = tmp_path / "yolo"
    root.mkdir()
    (root / "data.yaml").write_text("train: ../train\nnames: [cat]\n")
    assert run("check", root, "--split", "train").code == 1
    outside = run(command, root, tmp_path / "c", *words)
    assert outside.code == 1 and "outside the dataset's folder" in outside.err and "--allow-outside" in outside.err
    (tmp_path / "train" / "3.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    assert run(command, root, tmp_path / "c", *words, "--allow-outside").code == 0
    assert run("check", root, "--split", "train", "--allow-outside", "--quiet").code == 0
