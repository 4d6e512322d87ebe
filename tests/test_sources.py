"""Every kind of source as one stream: order, errors in their places, a thread that ends, little memory."""

import io
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from local_server import QuietHandler, serve
from numpy.typing import NDArray
from PIL import Image

from centerdet.errors import CenterdetError, ConfigError, DataError, ImageError, MissingImageError
from centerdet.images import load
from centerdet.sources import VIDEO_SUFFIXES, Found, Sources, is_live, list_files, open_sources
from centerdet.sources.streams import AHEAD, newest
from centerdet.sources.urls import download

SIZE = (48, 64)
INVALID = "Invalid data found when processing input"  # FFmpeg's message


def _image(number: int) -> NDArray[np.uint8]:
    return np.full((*SIZE, 3), number, np.uint8)


def _encode(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(_image(number)).save(file, "PNG")
    return file.getvalue()


def _write_video(path: Path, images: list[NDArray[np.uint8]], codec: str = "mpeg4", rate: int = 10) -> bytes:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


def _values(stream: Iterator[Found]) -> list[int | str]:
    """Each image's middle value, each error's class."""
    images = (found.image for found in stream)
    return [type(one).__name__ if isinstance(one, CenterdetError) else int(one[24, 32, 0]) for one in images]


def _pixels(found: Found) -> NDArray[np.uint8]:
    assert not isinstance(found.image, CenterdetError), found.image
    return found.image


def _messages(source: Path) -> list[str]:
    return [str(found.image) for found in open_sources(source)]


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("centerdet-sources")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "naïve images"
    (root / "below").mkdir(parents=True)
    for number in (10, 9, 1, 100, 2):
        (root / f"Frame{number}.PNG").write_bytes(_encode(number))
    (root / "below" / "3.png").write_bytes(_encode(3))
    (root / "notes.txt").write_text("not meant")
    (root / "._Frame1.png").write_text("what some systems leave beside images")
    return root


def test_folders_in_natural_order(folder: Path) -> None:
    found = list(open_sources(folder))
    assert [one.source for one in found] == [str(folder / f"Frame{number}.PNG") for number in (1, 2, 9, 10, 100)]
    assert all(one.is_file and one.frame is None and one.where == one.source for one in found)
    assert _values(iter(found)) == [1, 2, 9, 10, 100]
    assert _values(open_sources(str(folder))) == [1, 2, 9, 10, 100]


def test_patterns(folder: Path) -> None:
    assert _values(open_sources(f"{folder}/Frame1*")) == [1, 10, 100]
    assert _values(open_sources(f"{folder}/**/*.[pP][nN][gG]")) == [3, 1, 2, 9, 10, 100]  # by whole path
    (folder / "below" / "camera.JFIF").write_bytes(_encode(4))
    assert _values(open_sources(folder / "below")) == [3, 4]
    (folder / "a[1].png").write_bytes(_encode(77))
    assert _values(open_sources(folder / "a[1].png")) == [77]  # a path that exists is no pattern


COMPANIONS = ("._1.png", ".hidden.jpg", "__MACOSX/1.png", ".ipynb_checkpoints/1-checkpoint.png", "@eaDir/1.png")


def test_companion_files_are_passed_over_and_reported(tmp_path: Path) -> None:
    root = tmp_path / ".cache" / "__MACOSX"  # of the folder that is named, only what is below counts
    for name in COMPANIONS:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(_encode(3))
    for name in ("Thumbs.db", "desktop.ini", "notes.txt", "1.png"):
        (root / name).write_bytes(_encode(1))
    (root / "2.png").symlink_to(root / "1.png")
    (root / "3.png").symlink_to(root / "none.png")
    reasons: dict[str, str] = {}
    assert list_files(str(root), lambda path, why: reasons.update({path.name: why})) == [
        f"{root}/1.png", f"{root}/2.png",
    ]  # fmt: skip
    hidden = {name.partition("/")[0] for name in COMPANIONS} | {"Thumbs.db", "desktop.ini"}
    assert reasons == {**dict.fromkeys(hidden, "hidden"), "notes.txt": "other suffix", "3.png": "dangling link"}
    assert _values(open_sources(f"{root}/**/*.png")) == [1, 1]
    assert _values(open_sources(f"{root}/__MACOSX/*.png")) == [3]  # named on purpose
    assert _values(open_sources(root / "._1.png")) == [3]


@pytest.mark.parametrize("suffix", [".JFIF", ".Png", ".heic", ".HEIF", ".3gp", ".MTS", ".ts", ".webm"])
def test_folders_have_every_kind_of_image_and_video(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"one{suffix}"
    path.write_text("no image")
    assert list_files(str(tmp_path)) == [str(path)]
    [message] = _messages(tmp_path)
    video = suffix.lower() in VIDEO_SUFFIXES
    assert message.startswith(f"{path}: expected {'a video' if video else 'an image'}")


@pytest.mark.parametrize(
    ("suffix", "codec"), [("ts", "mpeg2video"), ("mts", "mpeg2video"), ("3gp", "mpeg4"), ("MP4", "mpeg4")]
)
def test_a_folder_of_videos(suffix: str, codec: str, tmp_path: Path) -> None:
    made = tmp_path / f"made.{'ts' if suffix == 'mts' else suffix.lower()}"
    rate = 25 if codec == "mpeg2video" else 10
    _write_video(made, [_image(10 * number) for number in range(10)], codec, rate)
    made.rename(tmp_path / f"clip.{suffix}")
    (tmp_path / "photo.png").write_bytes(_encode(200))
    found = list(open_sources(tmp_path))
    assert [one.frame for one in found] == [*range(10), None]
    np.testing.assert_allclose(_values(iter(found)), [*range(0, 100, 10), 200], atol=6)


def _run_with_input(code: str, content: bytes) -> str:
    done = subprocess.run([sys.executable, "-c", code], input=content, capture_output=True, check=True, timeout=60)
    return done.stdout.decode().strip()


@pytest.mark.parametrize("name", ["-", "/dev/stdin", "/dev/fd/0"])
def test_standard_input(name: str) -> None:
    if name != "-" and not Path(name).exists():
        pytest.skip("no such device")
    code = f"""
from centerdet.sources import open_sources
for found in open_sources([{name!r}]):
    print(found.where, found.image.shape if hasattr(found.image, "shape") else found.image)
"""
    assert _run_with_input(code, _encode(5)) == f"{name} (48, 64, 3)"
    shown = "standard input" if name == "-" else name
    assert _run_with_input(code, b"") == f"{name} {shown}: the file is empty"
    assert _run_with_input(code, b"x" * 100_000).startswith(f"{name} {shown}: expected an image (")


def test_one_image_of_every_kind() -> None:
    pixels = _image(7)
    for source in (pixels, _encode(7), Image.fromarray(pixels), torch.from_numpy(pixels).permute(2, 0, 1)):
        (found,) = open_sources(source)
        assert (found.source, found.where, found.is_file) == ("image", "image", False)
        np.testing.assert_array_equal(_pixels(found), pixels)
    blue = _image(0)
    blue[..., 0] = 255
    (found,) = open_sources([blue], color="bgr")
    np.testing.assert_array_equal(_pixels(found), blue[..., ::-1])


def test_mixed_kinds_and_broken_images_among_good_ones(folder: Path, tmp_path: Path) -> None:
    (folder / "Frame5.png").write_bytes(_encode(5)[:60])
    (tmp_path / "text.jpg").write_text("no image")
    sources: list[Any] = [folder, _image(50), tmp_path / "text.jpg", tmp_path / "missing.jpg", _encode(51), None]
    found = list(open_sources(sources))
    assert _values(iter(found)) == [
        1,
        2,
        "ImageError",
        9,
        10,
        100,
        50,
        "ImageError",
        "MissingImageError",
        51,
        "ImageError",
    ]
    assert [found[place].source for place in (2, 6, 9, 10)] == [
        str(folder / "Frame5.png"), "image 1", "image 4", "image 5",
    ]  # fmt: skip
    assert "missing.jpg: no such image" in str(found[8].image) and isinstance(found[8].image, FileNotFoundError)
    assert _values(open_sources(iter(sources))) == _values(iter(found))


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("{}/below", DataError, r"has no images .*; '.*below/\*\*/\*\.jpg' searches its subfolders"),
        ("{}/below/deeper", DataError, "has no images [^;]*$"),
        ("{}/*.gif", DataError, "no file fits"),
        (["{}/Frame1.PNG", "{}/below"], DataError, "has no images"),
        ("https://example.org/cat.jpg", ConfigError, "allow_urls=True"),
        ("Ftp://example.org/cat.jpg", DataError, "only http and https"),
    ],
)
def test_sources_that_cannot_be_meant_are_refused_at_once(
    folder: Path, source: str | list[str], error: type[CenterdetError], message: str
) -> None:
    (folder / "below" / "3.png").rename(folder / "3.png")
    (folder / "below" / "deeper").mkdir()
    filled = [one.format(folder) for one in ([source] if isinstance(source, str) else source)]
    with pytest.raises(error, match=message):
        open_sources(filled[0] if isinstance(source, str) else filled)
    found = list(open_sources(iter([*filled, _image(8)])))  # an iterator's items are not known before
    assert _values(iter(found[-2:])) == [error.__name__, 8]
    assert found[-2].source == filled[-1] and re.search(message, str(found[-2].image))
    assert _threads() == []


def test_images_are_decoded_ahead_but_not_far() -> None:
    taken = 0

    def endless() -> Iterator[NDArray[np.uint8]]:
        nonlocal taken
        while True:
            taken += 1
            yield _image(taken % 256)

    stream = open_sources(endless())
    assert taken == 0  # nothing happens before the first is asked for
    for number in range(1, 20):
        assert _pixels(next(stream))[0, 0, 0] == number
        deadline = time.monotonic() + 60
        while taken < number + AHEAD and time.monotonic() < deadline:
            time.sleep(0.001)
        assert taken == number + AHEAD
    assert len(_threads()) == 1
    stream.close()
    assert _threads() == []
    assert list(stream) == []


def test_dropping_a_stream_ends_its_thread(folder: Path) -> None:
    for _ in open_sources(folder):
        break
    assert _threads() == []


def test_errors_of_a_callers_iterator_reach_the_caller() -> None:
    def failing() -> Iterator[NDArray[np.uint8]]:
        yield _image(1)
        raise KeyError("theirs")

    stream = open_sources(failing())
    assert next(stream).source == "image 0"
    with pytest.raises(KeyError, match="theirs"):
        next(stream)
    assert _threads() == []


def test_videos(tmp_path: Path) -> None:
    path = tmp_path / "Straße.mp4"
    _write_video(path, [_image(10 * number) for number in range(20)])
    found = list(open_sources(path))
    assert [one.where for one in found[:2]] == [f"{path} frame 0", f"{path} frame 1"]
    assert [(one.source, one.frame) for one in found] == [(str(path), number) for number in range(20)]
    np.testing.assert_allclose(_values(iter(found)), np.arange(0, 200, 10), atol=4)
    assert len(list(open_sources([_image(1), path]))) == 21
    stream = open_sources(path)
    next(stream)
    stream.close()
    path.unlink()  # it is closed


def test_videos_of_phones_are_turned_upright(tmp_path: Path) -> None:
    path = tmp_path / "phone.mp4"
    pixels = _image(0)
    pixels[:, :32] = 255
    content = _write_video(path, [pixels] * 3)
    one, minus = (1 << 16).to_bytes(4, "big"), (-1 << 16).to_bytes(4, "big", signed=True)
    zero, last = bytes(4), (1 << 30).to_bytes(4, "big")
    plain = one + zero * 3 + one + zero * 3 + last
    place = content.index(plain, content.index(b"tkhd"))
    turned = zero + one + zero + minus + zero * 4 + last  # shown turned a quarter to the right
    path.write_bytes(content[:place] + turned + content[place + len(plain) :])
    upright = _pixels(next(open_sources(path)))
    assert upright.shape == (64, 48, 3)
    assert upright[:28].min() > 200 > 50 > upright[36:].max()


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_videos_that_end_early_or_are_none(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"cut.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (12, *SIZE, 3), np.uint8)
    content = _write_video(path, list(noise))
    for share in (0, 0.001, 0.5):
        path.write_bytes(content[: int(len(content) * share)])
        found = list(open_sources([path, _image(9)]))
        assert isinstance(found[-2].image, ImageError), found[-2]
        assert f"cut.{suffix}: " in str(found[-2].image)
        assert _values(iter(found[-1:])) == [9]
    path.write_text("no video")
    assert _messages(path) == [f"{path}: expected a video, this cannot be read as one: {INVALID}"]
    assert _messages(tmp_path / "missing.mp4") == [f"{tmp_path}/missing.mp4: no such video"]


def test_videos_without_images(tmp_path: Path) -> None:
    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux([*stream.encode(frame), *stream.encode()])
    assert _messages(path) == [f"{path}: expected a video, this cannot be read as one: it has no images"]


def test_a_missing_video_is_a_missing_file(tmp_path: Path) -> None:
    (found,) = open_sources(tmp_path / "missing.mp4")
    assert isinstance(found.image, MissingImageError)


@pytest.mark.parametrize(
    ("module", "source", "extra"), [("av", "a.mp4", "video"), ("httpx", "http://127.0.0.1:9/a.jpg", "url")]
)
def test_a_missing_package_prints_the_pip_line(
    module: str, source: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"{re.escape(source)}: .*: pip install 'centerdet\[{extra}\]'"):
        open_sources(source, allow_urls=True)


def test_of_a_live_stream_the_newest_frame_is_yielded() -> None:
    """A reader slower than the camera gets no old frame and no queue: it skips."""
    taken, arrived, read = (threading.Event() for _ in range(3))

    def camera() -> Iterator[int]:
        yield 0
        taken.wait(60)
        yield from range(1, 100)
        arrived.set()
        read.wait(60)
        yield 100

    stream = newest(camera())
    assert next(stream) == 0
    taken.set()
    assert arrived.wait(60) and next(stream) == 99
    read.set()
    assert list(stream) == [100] and _threads() == []


def test_a_live_stream_that_ends_or_fails_reaches_the_reader() -> None:
    assert list(newest(iter(()))) == []
    assert list(newest([1]))[-1:] == [1]

    def failing() -> Iterator[int]:
        yield 1
        raise KeyError("unplugged")

    with pytest.raises(KeyError, match="unplugged"):
        list(newest(failing()))
    assert _threads() == []


def test_a_webcam_is_read_without_decoding_ahead() -> None:
    assert is_live(0) and is_live(["a.jpg", 1]) and not is_live("0") and not is_live([_image(1)])
    (found,) = open_sources(97)
    assert (found.source, found.frame) == ("webcam 97", None)
    assert isinstance(found.image, ImageError) and "webcam 97: cannot be opened" in str(found.image)
    assert _threads() == []


class _Server(QuietHandler):
    """Plays good, slow, huge, wrong and redirecting servers, by path."""

    def do_GET(self) -> None:
        name = self.path.strip("/")
        if name.startswith("to-"):
            goals = {"to-file": "file:///etc/hostname", "to-ftp": "ftp://127.0.0.1/a", "to-loop": "/to-loop"}
            self.send_response(302)
            self.send_header("Location", goals.get(name, "/good"))
            self.send_header("Content-Length", str(10**15))  # must not be read
            self.end_headers()
            return
        if name in ("drip", "drip-chunk"):
            self.wfile.write(b"HTTP/1.0 200 OK\r\n")
            self.wfile.write(b"Transfer-Encoding: chunked\r\n\r\n5;" if name == "drip-chunk" else b"X-Drops: ")
            with suppress(OSError):
                while True:
                    self.wfile.write(b"o")
                    time.sleep(0.1)
            return
        content = _encode(33) if name in ("good", "slow", "cut") else b"<html>no image</html>"
        self.send_response(404 if name == "missing" else 200)
        self.send_header("Content-Type", "text/html" if name == "text" else "image/png")
        if name in ("good", "cut", "stated"):
            self.send_header("Content-Length", str({"stated": 10**12, "cut": len(content)}.get(name, len(content))))
        self.end_headers()
        with suppress(OSError):  # the client has seen enough
            if name == "huge":
                while True:
                    self.wfile.write(bytes(65536))
            for place in range(len(content) // 2 if name == "cut" else len(content)):
                self.wfile.write(content[place : place + 1])
                time.sleep(0.05 if name == "slow" else 0)


@pytest.fixture
def server() -> Iterator[str]:
    with serve(_Server) as address:
        yield address


def test_urls(server: str) -> None:
    sources: list[Sources] = [f"{server}/good", f"{server}/to-good", f"HTTP{server[4:]}/good", _image(1)]
    found = list(open_sources(sources, allow_urls=True))
    assert _values(iter(found)) == [33, 33, 33, 1]
    assert found[0].source == f"{server}/good" and not found[0].is_file
    with pytest.raises(ConfigError, match="allow_urls=True"):
        open_sources(sources)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "HTTP status 404"),
        ("cut", "(incomplete|truncated|closed)"),
        ("huge", "at most 100000 bytes"),
        ("stated", "at most 100000 bytes"),
        ("slow", "did not finish within 1 s"),
        ("drip", "did not finish within 1 s"),
        ("drip-chunk", "did not finish within 1 s"),
        ("to-loop", "more than 5 redirects"),
        ("to-file", "[Uu]nsupported"),
        ("to-ftp", "[Uu]nsupported"),
    ],
)
def test_urls_that_give_no_image(server: str, name: str, message: str) -> None:
    with pytest.raises(ImageError, match=rf"^{server}/{name}: cannot be fetched: .*{message}") as caught:
        download(f"{server}/{name}", seconds=1 if "within 1 s" in message else 60, max_bytes=100_000)
    assert "\n" not in str(caught.value)


def test_errors_of_urls_come_in_their_places(server: str) -> None:
    names = ("missing", "text", "good")
    found = list(open_sources([*(f"{server}/{name}" for name in names), _image(4)], allow_urls=True))
    assert _values(iter(found)) == ["ImageError", "ImageError", 33, 4]
    assert [one.source for one in found[:2]] == [f"{server}/{name}" for name in names[:2]]
    assert re.search(r"/text: expected an image.*Content-Type: 'text/html'", str(found[1].image))


def test_urls_that_do_not_answer() -> None:
    assert _values(open_sources("http://127.0.0.1:9/cat.jpg", allow_urls=True)) == ["ImageError"]
    assert _values(open_sources("http://[broken/cat.jpg", allow_urls=True)) == ["ImageError"]
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(ImageError, match=r"did not finish within 0\.5 s"),
    ):
        download(f"http://127.0.0.1:{silent.getsockname()[1]}/", seconds=0.5)


def test_streams_and_single_loads_agree(folder: Path) -> None:
    for found in open_sources(folder):
        np.testing.assert_array_equal(_pixels(found), load(found.source))
