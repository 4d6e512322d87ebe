"""Which files are a dataset's images, and which file a name means: the same for every format and command."""

import json
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from centerdet.data.formats import FORMATS, Format, convert, read_dataset, write_dataset
from centerdet.data.records import ReadOptions
from centerdet.data.sample import Dataset, Sample
from centerdet.errors import DataError
from centerdet.files import walk_files
from centerdet.images import IMAGE_SUFFIXES, load
from centerdet.inspection.check import check

JUNK = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        \xb0\xff"
COMPANIONS = ["._{}", ".{}", ".ipynb_checkpoints/{}", "__MACOSX/{}", ".git/{}", "@eaDir/{}", "Thumbs.db", ".DS_Store"]


def image(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((60, 40), 20 + seed).convert("RGB").save(path)
    return path


def make(root: Path, form: Format, names: tuple[str, ...] = ("a", "b", "c")) -> Path:
    folder = root.parent / f"{root.name}-images"
    samples = []
    for number, name in enumerate(names):
        box = [[10.0 + number, 5, 30, 25]]
        samples.append(Sample(image(folder / f"{name}.jpg", number), np.array(box), np.zeros(1, np.int64)))
    write_dataset(Dataset(samples, ("cat",)), root, "train", form)
    return root


def read(root: Path, **options: object) -> tuple[list[str], list[str]]:
    """The names of the images, and the notices."""
    notices: list[str] = []
    data = read_dataset(root, "train", notice=notices.append, options=ReadOptions(**options))  # type: ignore[arg-type]
    assert all(len(sample.boxes) == 1 for sample in data.samples)
    return [sample.path.name for sample in data.samples], notices


@pytest.mark.parametrize("companion", COMPANIONS)
@pytest.mark.parametrize("form", FORMATS)
def test_companions_of_every_file_are_passed_over(tmp_path: Path, form: Format, companion: str) -> None:
    root = make(tmp_path / "data", form)
    for path in [path for path in root.rglob("*") if path.is_file()]:
        other = path.parent / companion.format(path.name)
        other.parent.mkdir(exist_ok=True)
        other.write_bytes(JUNK if "{}" not in companion or companion.startswith("._") else path.read_bytes())
    names, notices = read(root)
    assert names == ["a.jpg", "b.jpg", "c.jpg"] and all(notice.startswith("hidden file") for notice in notices)
    assert read_dataset(root, "train", strict=True, notice=lambda text: None).names == ("cat",)
    report = check(root)
    assert report.ok and report.statistics["train"]["images"] == 3
    written = convert(root, tmp_path / "out", "coco", {"new": "train"}, notice=lambda text: None)
    assert written["new"]["images"] == 3


@pytest.mark.parametrize("suffix", [*IMAGE_SUFFIXES, ".JPG", ".JfIf", ".Png"])
@pytest.mark.parametrize("form", FORMATS)
def test_every_suffix_that_is_predicted_on_is_read(tmp_path: Path, form: Format, suffix: str) -> None:
    if suffix == ".avif":
        pytest.importorskip("PIL._avif")
    root = make(tmp_path / "data", form)
    [old] = root.rglob("b.jpg")
    with Image.open(old) as opened:
        content = opened.copy()
    old.unlink()
    content.save(old.with_suffix(suffix), format="JPEG" if suffix.lower().startswith((".j", ".he")) else None)
    for file in (*root.glob("annotations/*.json"), *root.glob("Annotations/b.xml")):
        file.write_text(file.read_text().replace("b.jpg", f"b{suffix}"))
    names, notices = read(root)
    assert names == ["a.jpg", f"b{suffix}", "c.jpg"] and notices == []
    load(root / next(root.rglob(f"b{suffix}")))


SPELLINGS: dict[str, tuple[str, str]] = {
    "composed, decomposed": (unicodedata.normalize("NFC", "größe é"), unicodedata.normalize("NFD", "größe é")),
    "percent-encoded on disk": ("my cat (1)", "my%20cat%20%281%29"),
    "percent-encoded in annotations": ("my%20cat%20%281%29", "my cat (1)"),
    "case": ("IMG_1", "img_1"),
}


@pytest.mark.parametrize("case", SPELLINGS)
@pytest.mark.parametrize("form", FORMATS)
def test_names_are_found_in_another_spelling(tmp_path: Path, form: Format, case: str) -> None:
    stated, on_disk = SPELLINGS[case]
    root = make(tmp_path / "data", form, ("a", stated))
    [path] = root.rglob(f"{stated}.jpg")
    path.rename(path.with_name(f"{on_disk}.jpg"))
    names, notices = read(root)
    assert names == ["a.jpg", f"{on_disk}.jpg"]
    assert all(notice.startswith("moved path: 1 noted") for notice in notices)


def test_a_spelling_that_two_files_have_is_no_match(tmp_path: Path) -> None:
    root = make(tmp_path / "data", "coco", ("a", "b", "IMG_1"))
    [path] = root.rglob("IMG_1.jpg")
    for name in ("img_1.jpg", "Img_1.jpg"):
        image(path.with_name(name))
    path.unlink()
    names, notices = read(root)
    assert names == ["a.jpg", "b.jpg"] and [notice.partition(":")[0] for notice in notices] == ["missing image"]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("placing", ["copy", "link"])
def test_links_to_files_and_folders_are_followed_and_copied_as_files(
    tmp_path: Path, form: Format, placing: str
) -> None:
    root = make(tmp_path / "data", form)
    store = tmp_path / "store"
    store.mkdir()
    for number, path in enumerate(sorted(root.rglob("*.jpg"))):
        path.rename(store / f"{number}.bin")
        path.symlink_to(os.path.relpath(store / f"{number}.bin", path.parent))
    folder = next(root.rglob("a.jpg")).parent
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    for path in (tmp_path / "moved").iterdir():  # relative links count from where they lie
        path.unlink()
        path.symlink_to(store / f"{'abc'.index(path.stem)}.bin")
    names, notices = read(root)
    assert names == ["a.jpg", "b.jpg", "c.jpg"] and notices == []
    convert(root, tmp_path / "out", "yolo", {"new": "train"}, placing=placing)  # type: ignore[arg-type]
    files = sorted((tmp_path / "out").rglob("*.jpg"))
    assert len(files) == 3 and not any(path.is_symlink() for path in files)
    assert [path.read_bytes() for path in files] == [(store / f"{number}.bin").read_bytes() for number in range(3)]


def test_cycles_and_dangling_links_are_counted(tmp_path: Path) -> None:
    root = make(tmp_path / "data", "yolo")
    folder = root / "images" / "train"
    (folder / "again").symlink_to(folder)
    (folder / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (folder / "notes.docx").write_text("")
    names, notices = read(root)
    assert names == ["a.jpg", "b.jpg", "c.jpg"]
    assert len(notices) == 1 and notices[0].startswith("file passed over: 3 noted, such as ")
    with pytest.raises(DataError, match=r"gone\.jpg"):
        read_dataset(root, "train", strict=True)
    reasons: dict[str, str] = {}
    list(walk_files(root, (".jpg",), lambda path, why: reasons.setdefault(path.name, why)))
    assert reasons["again"] == "link cycle" and reasons["gone.jpg"] == "dangling link"


@pytest.mark.parametrize("name", [b"\xff\xfe raw", b"line\nbreak", b" spaces ", b"tab\t", b"back\\slash", b"100%25"])
@pytest.mark.parametrize("to", FORMATS)
def test_any_name_that_a_file_system_holds_is_read_and_converted(tmp_path: Path, name: bytes, to: Format) -> None:
    root = make(tmp_path / "data", "yolo", ("a", "b"))
    for folder, suffix in (("images", ".jpg"), ("labels", ".txt")):
        old = root / folder / "train" / f"b{suffix}"
        try:
            os.rename(os.fsencode(old), os.path.join(os.fsencode(old.parent), name + suffix.encode()))
        except OSError:
            pytest.skip("this file system does not hold the name")
    names, notices = read(root)
    assert sorted(map(os.fsencode, names)) == sorted([b"a.jpg", name + b".jpg"]) and notices == []
    convert(root, tmp_path / "out", to, {"train": "train"})
    again, notices = read(tmp_path / "out")
    assert len(again) == 2 and all("left out" not in notice for notice in notices)


OUTSIDE: dict[str, Callable[[Path, Path], tuple[str, str]]] = {
    "split ..": lambda root, out: ("train: ../private/images", ""),
    "split absolute": lambda root, out: (f"train: {out}/images", ""),
    "path ..": lambda root, out: ("path: ../private\ntrain: images", ""),
    "path absolute": lambda root, out: (f"path: {out}\ntrain: images", ""),
    "list ..": lambda root, out: ("train: list.txt", "../private/images/x.jpg\n"),
    "list absolute": lambda root, out: ("train: list.txt", f"{out}/images/x.jpg\n"),
    "list through a folder": lambda root, out: ("train: list.txt", "sub/../../private/images/x.jpg\n"),
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_files_outside_the_folder_are_read_only_if_asked_for(tmp_path: Path, case: str) -> None:
    root, private = tmp_path / "data", tmp_path / "private"
    image(private / "images" / "x.jpg")
    (private / "labels").mkdir()
    (private / "labels" / "x.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (root / "sub").mkdir(parents=True)
    description, lines = OUTSIDE[case](root, private)
    (root / "data.yaml").write_text(f"{description}\nnames: [cat]\n")
    (root / "list.txt").write_text(lines)
    with pytest.raises(DataError, match=r"outside the dataset's folder .*--allow-outside"):
        convert(root, tmp_path / "out", "coco", {"train": "train"})
    assert not (tmp_path / "out").exists()
    names, _ = read(root, allow_outside=True)
    assert names == ["x.jpg"]


@pytest.mark.parametrize("name", ["../private/x.jpg", "/etc/x.jpg", "a/../../private/x.jpg", "..\\private\\x.jpg"])
def test_names_of_coco_files_do_not_lead_out(tmp_path: Path, name: str) -> None:
    root = make(tmp_path / "data", "coco")
    image(tmp_path / "private" / "x.jpg")
    file = root / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    content["images"][0]["file_name"] = name if name[0] != "/" else f"{tmp_path}/private/x.jpg"
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"outside the dataset's folder|leads out"):
        read_dataset(root, "train", strict=True)
