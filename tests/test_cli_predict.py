"""`centerdet predict` on real files: every source, what is written where, and what broken ones leave behind."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from local_server import QuietHandler, serve
from PIL import Image
from tiny import NAMES, tiny_detector
from typer.testing import CliRunner, Result

from centerdet.cli import app
from centerdet.detector import Detector
from centerdet.errors import CenterdetError, ConfigError, DataError

runner = CliRunner()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    tiny_detector().save(path)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three images and a broken one."""
    root = tmp_path / "naïve images"
    root.mkdir()
    for number in (1, 2, 10):
        noise = np.random.default_rng(number).integers(0, 256, (40, 60, 3), np.uint8)
        Image.fromarray(noise).save(root / f"{number}.png")
    (root / "9.jpg").write_bytes((root / "1.png").read_bytes()[:200])
    return root


def call(weights: Path, *words: object, threshold: float = 0.01) -> Result:
    arguments = ["predict", "--score", str(threshold), str(weights), *map(str, words)]
    return runner.invoke(app, arguments, catch_exceptions=False)


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def write_clip(path: Path) -> None:
    """A video of 12 frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for noise in np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode())


def test_a_folder_with_a_broken_image(weights: Path, images: Path, tmp_path: Path) -> None:
    result = call(weights, images, "--out", tmp_path / "found", "--json", tmp_path / "found.jsonl")
    assert result.exit_code == 1
    assert "9.jpg: broken" in result.stderr and "objects in 3 images, 1 could not be read" in result.stderr
    assert files(tmp_path / "found") == ["1.jpg", "10.jpg", "2.jpg"]
    with Image.open(tmp_path / "found" / "1.jpg") as drawn:
        assert drawn.size == (60, 40)
    rows = lines((tmp_path / "found.jsonl").read_text())
    assert [row["source"] for row in rows] == [str(images / name) for name in ("1.png", "2.png", "9.jpg", "10.png")]
    assert "broken" in str(rows[2]["error"])
    detector = Detector.load(weights, device="cpu")
    assert rows[0] == detector.predict(images / "1.png", score_threshold=0.01).to_dict()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_is_printed(weights: Path, images: Path) -> None:
    result = call(weights, f"{images}/1*.png")
    assert result.exit_code == 0
    shown = result.stdout.splitlines()
    assert shown[0].startswith(f"{images}/1.png: ") and any(name in shown[0] for name in NAMES)
    assert len(shown) == 2
    assert call(weights, images / "1.png", threshold=1).stdout == f"{images}/1.png: nothing\n"
    quiet = call(weights, images / "1.png", "--quiet")
    assert (quiet.stdout, quiet.stderr) == ("", "")
    (row,) = lines(call(weights, images / "1.png", "--json", "-", "--threads", 1).stdout)
    assert row["height"] == 40 and row["objects"]


def test_names_are_shown_as_they_are(weights: Path, images: Path) -> None:
    odd = images / "[bold] :car: \udcff.png"  # markup, an emoji's name, a byte that is no UTF-8
    (images / "1.png").rename(odd)
    result = call(weights, odd, "--json", "-")
    assert lines(result.stdout)[0]["source"] == str(odd)
    assert call(weights, odd).stdout.startswith(f"{images}/[bold] :car: ?.png: ")
    odd.write_bytes(b"broken")
    assert "[bold] :car: " in call(weights, odd).stderr


def test_sources_of_one_name_do_not_overwrite_each_other(weights: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    for name in ("1.bmp", "1_2.bmp"):
        Image.new("RGB", (30, 20)).save(tmp_path / "more" / name)
    result = call(weights, images / "1.png", tmp_path / "more", "--out", tmp_path / "found")
    assert result.exit_code == 0
    assert files(tmp_path / "found") == ["1.jpg", "1_2.jpg", "1_2_2.jpg"]


def test_the_frames_of_a_video_and_where_it_breaks(weights: Path, images: Path, tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    write_clip(path)
    Image.new("RGB", (30, 20)).save(tmp_path / "clip.png")
    result = call(weights, path, tmp_path / "clip.png", "--out", tmp_path / "found")
    assert result.exit_code == 0
    frames = [f"clip/{number:06}.jpg" for number in range(12)]
    assert files(tmp_path / "found") == [*frames, "clip_2.jpg"]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    result = call(weights, path, "--out", tmp_path / "some")
    assert result.exit_code == 1
    assert "clip.mkv: " in result.stderr
    made = files(tmp_path / "some")
    assert 0 < len(made) < 12 and made == frames[: len(made)]


def test_no_source_is_written_over(weights: Path, images: Path, tmp_path: Path) -> None:
    """Neither by a copy beside it, nor through a link, nor by a video's frames, nor by the lines of JSON."""
    photo = images / "photo.jpg"
    Image.new("RGB", (60, 40)).save(photo)
    (tmp_path / "link").symlink_to(images)
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "photo.jpg").hardlink_to(photo)
    (images / "clip").mkdir()
    write_clip(images / "clip" / "clip.mkv")
    frame = images / "clip" / "000001.jpg"
    Image.new("RGB", (60, 40)).save(frame)
    before = {path: path.read_bytes() for path in images.rglob("*.*")}
    refused = {
        (images, "--out", images): f"--out: {images} is the folder of the source {images}/",
        (f"{images}/*.jpg", "--out", tmp_path / "link"): f"--out: {tmp_path}/link is the folder of the source ",
        (photo, "--out", tmp_path / "found"): f"{tmp_path}/found/photo.jpg: would overwrite the source {photo}",
        (frame.with_name("clip.mkv"), frame, "--out", images): f"{frame}: would overwrite the source {frame}",
        (photo, "--json", photo): f"--json: {photo} is the source {photo}",
    }
    for words, message in refused.items():
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}.*: choose another"):
            call(weights, *words)
    assert before == {path: path.read_bytes() for path in before}


def test_what_is_named_twice_is_looked_at_once(weights: Path, images: Path) -> None:
    again = f"{images}/../{images.name}/2.png"
    result = call(weights, f"{images}/10.*", images / "2.png", images, f"{images}/*.png", again, "--json", "-")
    assert [Path(str(row["source"])).name for row in lines(result.stdout)] == ["10.png", "2.png", "1.png", "9.jpg"]


def test_images_that_are_called_like_frames(weights: Path, images: Path, tmp_path: Path) -> None:
    for name in ("walk frame 3", "a.mp4 frame 3.png"):
        shutil.copy(images / "1.png", images / name)
    result = call(weights, images / "walk frame 3", images / "a.mp4 frame 3.png", "--out", tmp_path / "found")
    assert result.exit_code == 0
    assert files(tmp_path / "found") == ["a.mp4 frame 3.jpg", "walk frame 3.jpg"]


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["{}/empty"], DataError, "has no images"),
        (["{}/1.png", "{}/*.gif"], DataError, "no file fits"),
        (["{}/1.png", "http://127.0.0.1:9/cat.jpg"], ConfigError, "--allow-urls"),
    ],
)
def test_what_cannot_be_meant_leaves_nothing(
    weights: Path, images: Path, words: list[str], error: type[CenterdetError], message: str
) -> None:
    (images / "empty").mkdir()
    with pytest.raises(error, match=message):
        call(weights, *(word.format(images) for word in words), "--out", images / "found")
    assert not (images / "found").exists()


def test_a_webcam_that_is_not_there(weights: Path) -> None:
    result = call(weights, 97)
    assert result.exit_code == 1
    assert "webcam 97: cannot be opened" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--tile", 5],
        ["--overlap", 2],
        ["--overlap", 0.2],
        ["--threads", 0],
        ["--score-threshold", 7],
        ["--json", "none/a"],
        ["--json", "."],
    ],
)
def test_wrong_usage(weights: Path, words: list[object]) -> None:
    result = call(weights, "a.png", *words)
    assert result.exit_code == 2 and str(words[0]) in result.stderr


def test_ctrl_c_keeps_what_was_found(weights: Path, tmp_path: Path) -> None:
    for number in range(300):
        Image.new("RGB", (640, 480), (number % 256, 0, 0)).save(tmp_path / f"{number:03}.png")
    command = [
        sys.executable,
        "-m",
        "centerdet",
        "predict",
        str(weights),
        str(tmp_path),
        "--json",
        str(tmp_path / "found"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(5):
            assert "nothing" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    rows = lines((tmp_path / "found").read_text())
    assert process.returncode == 130 and re.fullmatch(r"0 objects in \d+ images, stopped\n", told)
    assert 5 <= len(rows) < 300 and not list(tmp_path.glob(".*"))


def test_tiles(weights: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 200, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    (row,) = lines(call(weights, tmp_path / "a.png", "--json", "-", "--tile", 64, "--overlap", 0.5).stdout)
    detector = Detector.load(weights, device="cpu")
    assert row == detector.predict(tmp_path / "a.png", score_threshold=0.01, tile=64, overlap=0.5).to_dict()


class _Server(QuietHandler):
    """An image at /cat.png, a text at every other address."""

    content = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.content if self.path.startswith("/cat.png") else b"no image")


@pytest.fixture
def server(images: Path) -> Iterator[str]:
    handler = type("Handler", (_Server,), {"content": (images / "1.png").read_bytes()})
    with serve(handler) as address:
        yield address


def test_urls(weights: Path, server: str, tmp_path: Path) -> None:
    urls = [f"{server}/cat.png?of=a/b", f"{server}/text", f"{server}/cat.png"]
    result = call(weights, *urls, "--allow-urls", "--out", tmp_path / "found")
    assert result.exit_code == 1
    assert f"{server}/text: " in result.stderr
    assert files(tmp_path / "found") == ["cat.jpg", "cat_2.jpg"]
