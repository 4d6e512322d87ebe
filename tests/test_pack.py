"""A pack trains like the files that it was made of, is the same however often it was stopped, and names its damage."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file
from test_loader import _check_same as check_streams
from test_training import _check_same as check_weights
from tiny import full_disk, tiny_config
from typer.testing import CliRunner

from centerdet.cli import app
from centerdet.data import pack as pack_module
from centerdet.data.formats import convert, find_splits, read_dataset, recognize
from centerdet.data.pack import Pack, read_pack, write_pack
from centerdet.data.shapes import write_shapes
from centerdet.errors import CenterdetError, ConfigError, DataError, MissingDataError, WriteError
from centerdet.training.augment import Augment
from centerdet.training.loader import Batch, Schedule, TrainingImages, training_loader
from centerdet.training.loop import train
from centerdet.training.mixture import read_mixture

IMAGES, SIZE = 10, 80  # px to which images of 72 to 120 px are shrunk; training at 64 px needs no more


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pack") / "shapes"
    write_shapes(root, train=IMAGES, val=2, size=96)
    return root


@pytest.fixture(scope="module")
def whole(data: Path) -> Path:
    """A pack that was written without a stop."""
    pack(data, data.parent / "whole")
    return data.parent / "whole"


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def pack(data: Path, out: Path, **options: Any) -> None:
    write_pack(read_dataset(data, ["train"]), data, ["train"], out, SIZE, **options)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def images(*sources: Path, cache: bool = True, size: int = SIZE) -> TrainingImages:
    mixture = read_mixture([*map(str, sources)], ["train"], balance=0.5, notice=pytest.fail)
    return TrainingImages(mixture, Augment(), size, cache)


def stream(images: TrainingImages, **options: int) -> list[Batch]:
    schedule = Schedule(6, (32, 64))
    return list(training_loader(images, images.mixture, schedule, batch=3, seed=5, stride=8, steps=range(6), **options))


# --- training -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_equal_those_of_the_files(data: Path, whole: Path, workers: int) -> None:
    packed = images(whole)
    assert packed.cached == {}
    check_streams(stream(packed, workers=workers), stream(images(data)))


@pytest.mark.parametrize("size", [64, 81, 500])
def test_batches_equal_those_of_the_files_at_any_size_of_the_pack(data: Path, tmp_path: Path, size: int) -> None:
    """As far as images are packed without being shrunk: else they are interpolated once more."""
    write_pack(read_dataset(data, ["train"]), data, ["train"], tmp_path, 500)
    check_streams(stream(images(tmp_path, size=size)), stream(images(data, size=size)))


def test_packs_and_files_in_one_mixture(data: Path, whole: Path, tmp_path: Path) -> None:
    convert(data, tmp_path / "other", "coco", {"train": ["val"]})
    mixed = images(whole, tmp_path / "other")
    assert mixed.cached.keys() == {IMAGES, IMAGES + 1}
    check_streams(stream(mixed), stream(images(data, tmp_path / "other", cache=False)))


def test_processes_and_readers_share_a_pack(data: Path, whole: Path) -> None:
    """Two loaders with a worker each, of two processes of a training, read it at the same time."""
    parts = [images(whole) for _ in range(2)]
    schedule, options = Schedule(6, (64,)), {"batch": 2, "seed": 1, "stride": 8, "steps": range(6), "world_size": 2}
    loaders = [
        training_loader(part, part.mixture, schedule, rank=rank, workers=1, **options)
        for rank, part in enumerate(parts)
    ]
    together = images(data)
    alone = training_loader(together, together.mixture, schedule, **(options | {"batch": 4, "world_size": 1}))
    for first, second, both in zip(*loaders, alone, strict=True):
        assert (first.images == both.images[::2]).all() and (second.images == both.images[1::2]).all()


def test_a_spawned_process_gets_the_path_and_not_the_pixels(whole: Path) -> None:
    packed = images(whole)
    message = bytes(ForkingPickler.dumps(packed))
    pixels = packed.mixture.samples[3].packed[0].read(3)
    assert pixels.tobytes() not in message
    check_streams(stream(ForkingPickler.loads(message)), stream(packed))


@pytest.mark.soak
def test_a_run_on_a_pack_ends_like_one_on_the_files(data: Path, whole: Path, tmp_path: Path) -> None:
    """Validation included, which reads the original images; and either continues the other."""
    options: dict[str, Any] = {"val": ("val",), "val_every": 1}
    train(tiny_config(data, tmp_path / "files", **options))
    train(tiny_config(whole, tmp_path / "pack", **options))
    check_weights(tmp_path / "files", tmp_path / "pack")
    assert (tmp_path / "files" / "log.csv").read_text() == (tmp_path / "pack" / "log.csv").read_text()
    train(tiny_config(data, tmp_path / "pack", **options), resume=True)


def test_a_pack_alone_is_enough_to_train(data: Path, copy: Path, tmp_path: Path) -> None:
    gone = Path(shutil.copytree(data, tmp_path / "gone"))
    pack(gone, tmp_path / "pack")
    shutil.rmtree(gone)
    check_streams(stream(images(tmp_path / "pack")), stream(images(copy)))
    for read in (find_splits, lambda root: read_dataset(root, ["val"]), lambda root: read_dataset(root, ["train"])):
        with pytest.raises(MissingDataError, match=r"gone: no such file or folder: the dataset of .*pack"):
            read(tmp_path / "pack")


def test_all_but_training_read_the_original_images(data: Path, whole: Path, tmp_path: Path) -> None:
    assert recognize(whole) == "pack" and find_splits(whole) == find_splits(data)
    for split in ("train", "val"):
        original = read_dataset(data, [split])
        for sample, other in zip(read_dataset(whole, [split]).samples, original.samples, strict=True):
            assert sample.packed is None and sample.path == other.path and (sample.boxes == other.boxes).all()
    run = CliRunner().invoke(app, ["check", str(whole)])
    assert run.exit_code == 0 and f"{IMAGES} images, all checksums correct" in run.stderr, run.output
    run = CliRunner().invoke(app, ["pack", str(whole), "--size", "40", "--out", str(tmp_path / "again")])
    assert run.exit_code == 0 and run.stdout == f"{tmp_path / 'again'}: {IMAGES} images\n", run.output
    assert Pack(tmp_path / "again").source == data and Pack(tmp_path / "again").shapes.max() == 40


def test_what_a_pack_does_not_have_is_named(data: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"up to 120 px .*whole has them at 80 px: .* pack again with --size 120"):
        images(whole, size=120)
    with pytest.raises(DataError, match=r"expected the packed splits \['train'\], got \['train', 'val'\]"):
        read_mixture([str(whole)], ["train", "val"], notice=pytest.fail)
    with pytest.raises(DataError, match=r"expected the packed classes .*, got \['cat'\]"):
        read_pack(whole, ["train"], ["cat"])
    for size, samples in ((0, 1), (70_000, 1), (80, 0)):
        dataset = read_dataset(data, ["train"])
        with pytest.raises(DataError, match=r"expected images, and a size of 1 to 65,?535 px"):
            write_pack(type(dataset)(dataset.samples[:samples], dataset.names), data, ["train"], tmp_path / "x", size)
    assert not (tmp_path / "x").exists()


# --- stopped passes -----------------------------------------------------------------------------------------------


class Stop(Exception):
    pass


def stop_after(count: int) -> Callable[[int], None]:
    def stop(done: int) -> None:
        if done >= count:
            raise Stop

    return stop


def edit(change: Callable[[bytes], bytes], *names: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        for name in names:
            (folder / name).write_bytes(change((folder / name).read_bytes()))

    return damage


DRAFTS: dict[str, tuple[Callable[[Path], object], int]] = {  # and the images that remain of six
    "as it was": (lambda folder: None, 6),
    "pixels cut off": (edit(lambda old: old[:-1], ".images.bin"), 5),
    "pixels not in the journal": (edit(lambda old: old + b"abc", ".images.bin"), 6),
    "a pixel changed": (edit(lambda old: old[:30000] + bytes([old[30000] ^ 1]) + old[30001:], ".images.bin"), 1),
    "journal cut off": (edit(lambda old: old[:-5], ".journal"), 5),
    "journal ends with zeros": (edit(lambda old: old[:-30] + bytes(30), ".journal"), 4),
    "both end with zeros": (edit(lambda old: old[:-30] + bytes(90), ".images.bin", ".journal"), 4),
    "journal with a row of zeros": (edit(lambda old: old + bytes(16), ".journal"), 6),
    "journal with another width": (edit(lambda old: old[:68] + bytes([old[68] ^ 1]) + old[69:], ".journal"), 2),
    "journal of other data": (edit(lambda old: b"x" + old[1:], ".journal"), 0),
    "no journal": (lambda folder: (folder / ".journal").unlink(), 0),
    "no pixels": (lambda folder: (folder / ".images.bin").unlink(), 0),
}


@pytest.mark.parametrize("name", DRAFTS)
def test_a_stopped_pass_ends_with_the_bytes_of_one_without_a_stop(
    data: Path, whole: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_module, "TOGETHER", 2)
    damage, remaining = DRAFTS[name]
    with pytest.raises(Stop):
        pack(data, tmp_path / "pack", progress=stop_after(6))
    assert content(tmp_path / "pack").keys() == {".images.bin", ".journal"}
    with pytest.raises(MissingDataError, match=r"pack\.safetensors: .* unfinished pack; repeat `centerdet pack`"):
        images(tmp_path / "pack")
    damage(tmp_path / "pack")
    read: list[Path] = []
    load = pack_module.load
    monkeypatch.setattr(pack_module, "load", lambda path: read.append(path) or load(path))
    pack(data, tmp_path / "pack")
    assert len(read) == IMAGES - remaining
    assert content(tmp_path / "pack") == content(whole)
    with pytest.raises(WriteError, match="pack: already contains a pack"):
        pack(data, tmp_path / "pack")


def test_a_pass_stopped_before_its_labels_were_written(data: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        pack(data, tmp_path / "pack", progress=stop_after(IMAGES))
    (tmp_path / "pack" / ".images.bin").rename(tmp_path / "pack" / "images.bin")
    with pytest.raises(MissingDataError, match="unfinished pack"):
        images(tmp_path / "pack")
    pack(data, tmp_path / "pack")
    assert content(tmp_path / "pack") == content(whole)


@pytest.mark.parametrize("limit", [0, 3000, 100_000])
def test_a_full_disk_is_named_and_the_same_command_continues(
    data: Path, whole: Path, tmp_path: Path, limit: int
) -> None:
    message = "pack: cannot be written: File too large; the same command continues"
    with full_disk(limit), pytest.raises(WriteError, match=message):
        pack(data, tmp_path / "pack")
    pack(data, tmp_path / "pack")
    assert content(tmp_path / "pack") == content(whole)


@pytest.mark.soak
def test_a_killed_pass_ends_with_the_bytes_of_one_without_a_kill(tmp_path: Path) -> None:
    write_shapes(tmp_path / "data", train=1500, val=1, size=64)
    words = [sys.executable, "-m", "centerdet", "pack", str(tmp_path / "data"), "--size", "64", "--out"]
    subprocess.run([*words, str(tmp_path / "whole")], check=True)
    expected, out = content(tmp_path / "whole"), tmp_path / "killed"
    draft = out / ".images.bin"
    for share in (0.01, 0.3, 0.6):
        with subprocess.Popen([*words, str(out)]) as process:
            while not (draft.exists() and draft.stat().st_size > share * len(expected["images.bin"])):
                assert process.poll() is None
                time.sleep(0.01)
            process.kill()
        assert content(out).keys() == {".lock", ".images.bin", ".journal"}
        assert 0 < draft.stat().st_size < len(expected["images.bin"])
    subprocess.run([*words, str(out)], check=True)
    assert content(out) == expected


# --- damage -------------------------------------------------------------------------------------------------------


def read_everything(folder: Path) -> None:
    samples = read_mixture([str(folder)], ["train"], notice=lambda _: None).samples
    for sample in samples:
        sample.packed[0].read(sample.packed[1])


def test_flipped_bytes_of_the_labels_are_named(copy: Path) -> None:
    file = copy / "pack.safetensors"
    good = file.read_bytes()
    for place in range(0, len(good), 5):
        if good[place : place + 1] in b" \n":  # between fields, some may change
            continue
        file.write_bytes(good[:place] + bytes([good[place] ^ 1 << place % 8]) + good[place + 1 :])
        with pytest.raises(DataError, match=r"copy/pack\.safetensors: "):
            Pack(copy)
    for length in range(0, len(good), 97):
        file.write_bytes(good[:length])
        with pytest.raises(DataError, match=r"copy/pack\.safetensors: damaged"):
            Pack(copy)


def test_damaged_pixels_are_named_when_they_are_read(copy: Path) -> None:
    good = (copy / "images.bin").read_bytes()
    for length in (0, 1, len(good) - 1, len(good) + 1):
        (copy / "images.bin").write_bytes((good + b"x")[:length])
        with pytest.raises(DataError, match=r"copy/images\.bin: (expected .* bytes .*, got|cannot be read)"):
            Pack(copy)
    (copy / "images.bin").unlink()
    with pytest.raises(DataError, match=r"copy/images\.bin: cannot be read: .*No such file"):
        Pack(copy)
    draw, ends = random.Random(0), None
    for _ in range(20):
        place = draw.randrange(len(good))
        (copy / "images.bin").write_bytes(good[:place] + bytes([good[place] ^ 16]) + good[place + 1 :])
        opened = Pack(copy)
        ends = opened.ends
        number = int(np.searchsorted(ends, place, "right"))
        name = Path(opened.paths[number]).name
        for other in range(IMAGES):
            if other != number:
                opened.read(other)
        expected = rf"copy/images\.bin: image {number} \(.*{name}\): the pixels do not match the checksum"
        with pytest.raises(DataError, match=expected):
            opened.read(number)
    for workers in (0, 1):
        damaged = images(copy)
        found = [batch for batch in stream(damaged, workers=workers) if isinstance(batch, CenterdetError)]
        assert found and f"image {number} " in str(found[0])
    run = CliRunner().invoke(app, ["check", str(copy)])
    assert run.exit_code == 1 and isinstance(run.exception, DataError) and "images.bin" in str(run.exception)


def test_labels_of_another_pack_are_noticed(data: Path, copy: Path, tmp_path: Path) -> None:
    """By the number of bytes, or at the first image by its checksum."""
    dataset = read_dataset(data, ["train"])
    for number, samples in enumerate((dataset.samples[1:], [*dataset.samples[1:], dataset.samples[0]])):
        other = tmp_path / f"{number}"
        write_pack(type(dataset)(samples, dataset.names), data, ["train"], other, SIZE)
        shutil.copy(other / "pack.safetensors", copy)
        with pytest.raises(DataError, match=r"copy/images\.bin: .* or of another pack"):
            read_everything(copy)


def change(name: str, value: Callable[[Any], Any]) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def apply(fields: dict[str, Any], tensors: dict[str, Any]) -> None:
        place = fields if name in fields else tensors
        place[name] = value(place[name])

    return apply


def put(value: Any, place: Any = 0) -> Callable[[Any], Any]:
    def apply(old: Any) -> Any:
        new = old.copy()
        new[place] = value
        return new

    return apply


LIES: dict[str, Callable[[dict[str, Any], dict[str, Any]], None]] = {
    "sizes: expected 1 x 1": change("sizes", put(0)),
    "sizes: expected uint32 of shape (10, 2), got int64": change("sizes", lambda old: old.astype(np.int64)),
    "checksums: expected uint32 of shape (10,)": change("checksums", lambda old: old[1:]),
    "counts: expected a sum": change("counts", put(1000)),
    "counts: expected uint32 of shape (10,)": change("counts", lambda old: np.append(old, old[:1])),
    "boxes: expected finite": change("boxes", put(np.nan)),
    "boxes: expected float64": change("boxes", lambda old: old.astype(np.float32)),
    "labels: expected 0 to 4": change("labels", put(5)),
    "labels: expected int64 of shape": change("labels", lambda old: old[:, None]),
    "difficult: expected bool of shape": change("difficult", lambda old: old[:0]),
    "paths: expected one for each image": change("paths", put(0, 5)),
    "format: expected": change("format", lambda _: "centerdet pack 2"),
    "size: expected 1 to 65535": change("size", lambda _: True),
    "source, splits, names: expected texts": change("splits", lambda _: [1]),
    "names: expected each class once": change("names", lambda old: [*old, old[0]]),
    "crc32: the content does not match": change("boxes", put(1.0)),
    "damaged, or not of a pack: TypeError": change("names", lambda _: None),
}


@pytest.mark.parametrize("expected", LIES)
def test_labels_that_lie_are_refused_with_the_field(copy: Path, expected: str) -> None:
    file = copy / "pack.safetensors"
    with safe_open(file, "np") as opened:
        fields = json.loads(opened.metadata()["pack"])
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    LIES[expected](fields, tensors)
    save_file(tensors, file, {"pack": json.dumps(fields)})
    with pytest.raises(DataError) as error:
        read_everything(copy)
    assert f"{copy}{os.sep}" in str(error.value) and expected in str(error.value)


@pytest.mark.parametrize("text", ["[]", "{}", "no JSON", "[" * 100_000, '{"crc32": 1, "format": {}}'])
def test_metadata_of_any_kind_is_refused(copy: Path, text: str) -> None:
    file = copy / "pack.safetensors"
    with safe_open(file, "np") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    for metadata in (None, {"pack": text}):
        save_file(tensors, file, metadata)
        with pytest.raises(DataError, match=r"copy/pack\.safetensors: "):
            Pack(copy)
