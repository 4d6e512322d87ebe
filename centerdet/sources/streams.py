"""Every kind of source as one stream of `Found`, decoded ahead in the background.

Memory stays constant whatever the length: one thread decodes, a few images ahead. A broken image is yielded as its
error and the rest follows; an invalid source (an empty folder, a URL without permission) raises at once, but is yielded
as well where it comes out of an iterator. Images are RGB uint8 (H, W, 3), upright.
"""

import itertools
import re
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import CenterdetError, ConfigError, ImageError, MissingImageError
from ..images import Source, load, read_stream
from ..text import explain
from .paths import STANDARD_INPUT, VIDEO_SUFFIXES, list_files

__all__ = ["AHEAD", "Found", "Sources", "is_live", "is_url", "newest", "open_sources"]

AHEAD = 4
"""Images that are decoded in advance, but none of a webcam."""

Item = TypeVar("Item")
Sources: TypeAlias = Source | int | Iterable["Source | int"]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """One image of a stream, or the error in its place.

    Attributes:
        source: a path, a URL, "webcam 0", or "image 3", the fourth of images in memory.
        frame: number of a video's or webcam's frame, from 0; None for images.
        image: RGB uint8 (H, W, 3), or why there is none.
        is_file: whether `source` is the path of an image file.
    """

    source: str
    frame: int | None
    image: NDArray[np.uint8] | CenterdetError
    is_file: bool = False

    @property
    def where(self) -> str:
        """Source and frame, for a person."""
        return self.source if self.frame is None else f"{self.source} frame {self.frame}"


_Job: TypeAlias = Callable[[], Iterator[Found]]


def is_url(source: str) -> bool:
    """Whether this is an http(s) address, not a path."""
    return source.lower().startswith(("http://", "https://"))


def is_live(source: Sources) -> bool:
    """Whether a webcam is among the sources: its images must not wait for a batch."""
    several = source if isinstance(source, list | tuple) else [source]
    return any(isinstance(one, int) for one in several)


def open_sources(source: Sources, *, color: str = "rgb", allow_urls: bool = False) -> Generator[Found, None, None]:
    """A stream of `Found`.

    Args:
        source: an image as `images.load` takes it; a folder, whose images and videos come in natural order, without
            its subfolders; a glob pattern; a video file; a webcam's number; an http(s) URL of an image; "-" for an
            image from standard input; or an iterable of these.
        color: "bgr" where arrays have blue first.
        allow_urls: fetch URLs, also those in a list from elsewhere.

    Closing the stream, or dropping it, ends the thread.
    """
    plan = _Plan(color, allow_urls)
    jobs: Iterable[_Job]
    if isinstance(source, list | tuple):
        jobs = [job for number, one in enumerate(source) for job in plan.jobs(one, f"image {number}")]
    elif isinstance(source, Iterable) and not _is_image(source):
        jobs = (job for number, one in enumerate(source) for job in plan.try_jobs(one, f"image {number}"))
    else:
        jobs = plan.jobs(source, "image")
    stream = (item for job in jobs for item in job())
    return stream if is_live(source) else _decode_ahead(stream)


def _decode_ahead(stream: Generator[Found, None, None]) -> Generator[Found, None, None]:
    """Run a stream in a thread, at most AHEAD images before their reader."""
    with ThreadPoolExecutor(1, "centerdet-sources") as pool:
        try:
            waiting = deque(pool.submit(next, stream, None) for _ in range(AHEAD))
            while (item := waiting.popleft().result()) is not None:
                waiting.append(pool.submit(next, stream, None))
                yield item
        finally:
            pool.shutdown(cancel_futures=True)  # waits for the image in work
            stream.close()


def newest(stream: Iterable[Item]) -> Generator[Item, None, None]:
    """Run a stream in a thread and yield its newest item; those that arrived while the reader was busy are dropped."""
    arrived: deque[Item] = deque(maxlen=1)
    change, ended, stopped = threading.Condition(), False, False

    def capture() -> None:
        nonlocal ended
        try:
            for item in stream:
                with change:
                    if stopped:
                        return
                    arrived.append(item)
                    change.notify()
        finally:
            with change:
                ended = True
                change.notify()

    with ThreadPoolExecutor(1, "centerdet-sources") as pool:
        capturing = pool.submit(capture)
        try:
            while True:
                with change:
                    change.wait_for(lambda: arrived or ended)
                    if not arrived:
                        break
                    item = arrived.popleft()
                yield item
            capturing.result()  # raises what ended the stream
        finally:
            stopped = True


def _is_image(source: object) -> bool:
    one = str | Path | bytes | bytearray | memoryview | np.ndarray | Image.Image
    return isinstance(source, one) or any(hasattr(source, name) for name in ("permute", "read"))


@dataclass(frozen=True, slots=True)
class _Plan:
    color: str
    allow_urls: bool

    def jobs(self, source: Any, where: str) -> list[_Job]:
        """The parts of one source, each to be opened when its turn comes."""
        if isinstance(source, int) and not isinstance(source, bool):
            return [partial(_read_webcam, source)]
        if isinstance(source, str) and is_url(source):
            if not self.allow_urls:
                raise ConfigError(f"{source}: URLs are fetched with allow_urls=True (--allow-urls) only")
            _require("httpx", source, "URLs need httpx", "url")
            return [partial(self._fetch, source)]
        if isinstance(source, str) and source == STANDARD_INPUT:
            return [self._read_standard_input]
        if isinstance(source, str | Path):
            return [self._open(path) for path in list_files(str(source))]
        return [partial(self._load, source, where)]

    def try_jobs(self, source: Any, where: str) -> list[_Job]:
        """`jobs`, or one that yields why there are none."""
        try:
            return self.jobs(source, where)
        except CenterdetError as error:
            item = Found(str(source) if isinstance(source, str | Path) else where, None, error)
            return [lambda: iter([item])]

    def _open(self, path: str) -> _Job:
        if not path.lower().endswith(VIDEO_SUFFIXES):
            return partial(self._load, path, path, is_file=True)
        _require("av", path, "videos need PyAV", "video")
        return partial(_read_video, path)

    def _load(self, image: Source, where: str, *, is_file: bool = False) -> Iterator[Found]:
        try:
            yield Found(where, None, load(image, color=self.color), is_file)
        except CenterdetError as error:
            yield Found(where, None, error, is_file)

    def _read_standard_input(self) -> Iterator[Found]:
        where = "standard input"
        try:
            if sys.stdin is None or sys.stdin.isatty():
                raise ImageError(f"{where}: expected the bytes of an image, got a terminal: pipe a file into it")
            yield Found(STANDARD_INPUT, None, load(read_stream(sys.stdin.buffer, where), where=where))
        except ImageError as error:
            yield Found(STANDARD_INPUT, None, error)

    def _fetch(self, url: str) -> Iterator[Found]:
        from .urls import download

        try:
            content, kind = download(url)
        except ImageError as error:
            yield Found(url, None, error)
            return
        try:
            yield Found(url, None, load(content, where=url))
        except ImageError as error:
            yield Found(url, None, ImageError(f"{error} (Content-Type: {kind!r:.80})"))


def _require(module: str, source: str, need: str, extra: str) -> None:
    try:
        import_module(module)
    except ImportError:
        raise ConfigError(f"{source}: {need}: pip install 'centerdet[{extra}]'") from None


def _read_video(path: str) -> Iterator[Found]:
    """Every frame, upright; a packet that cannot be decoded is an error, the frames after it follow."""
    import av

    number, start, end = 0, None, 0.0
    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise ImageError("it has no images")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except av.FFmpegError as error:
                    yield Found(path, None, ImageError(f"{path}: broken video, at frame {number}: {explain(error)}"))
                    continue
                for frame in frames:
                    start = (frame.time or 0.0) if start is None else start
                    end = (frame.time or 0.0) + 1 / float(stream.average_rate or 25)
                    pixels = np.rot90(frame.to_ndarray(format="rgb24"), round(getattr(frame, "rotation", 0) / 90))
                    yield Found(path, number, load(pixels))
                    number += 1
            missing = _stated_seconds(container.format.name, stream) - (end - (start or 0.0))
            if missing > 0.1 + 3 / float(stream.average_rate or 25):  # reordered frames make a difference of a few
                reason = f"ends early, {missing:.1f} s before the end that its header states"
                yield Found(path, None, ImageError(f"{path}: {reason}"))
    except FileNotFoundError:
        yield Found(path, None, MissingImageError(f"{path}: no such video"))
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = f"broken video, at frame {number}" if number else "expected a video, this cannot be read as one"
        yield Found(path, None, ImageError(f"{path}: {reason}: {explain(error)}"))


def _stated_seconds(kind: str, stream: Any) -> float:
    """How long the video lasts by its header; 0 where only its actual end shows it."""
    if kind == "avi":  # its duration follows the file's size
        return float(stream.frames / stream.average_rate) if stream.average_rate else 0.0
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    stated = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))  # Matroska's
    return sum(float(part) * unit for part, unit in zip(stated.groups(), (3600, 60, 1), strict=True)) if stated else 0.0


def _read_webcam(number: int) -> Iterator[Found]:
    """The newest frame each time, until the camera gives no more."""
    source = f"webcam {number}"
    try:
        for count, frame in newest(_capture(number)):
            yield Found(source, count, load(np.asarray(frame, np.uint8), color="bgr"))
    except ImageError as error:
        yield Found(source, None, ImageError(f"{source}: {error}"))


def _capture(number: int) -> Iterator[tuple[int, Any]]:
    """Every frame that the camera gives, numbered from 0, as fast as it gives them."""
    camera = cv2.VideoCapture(number)
    try:
        for count in itertools.count():
            good, frame = camera.read()
            if not good:
                raise ImageError(f"no image after frame {count - 1}" if count else "cannot be opened")
            yield count, frame
    finally:
        camera.release()
