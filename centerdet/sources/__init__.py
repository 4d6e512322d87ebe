"""Anything that holds images as one stream of (where, image or its error), decoded ahead in the background.

Memory stays constant whatever the length: one thread decodes, a few images ahead. A broken image is yielded as its
error and the rest goes on; a source that cannot be meant (an empty folder, a URL unasked for) is raised at once, but
yielded as well where it comes out of an iterator. Images are RGB uint8 (H, W, 3), upright.
"""

import glob
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import CenterdetError, ConfigError, DataError, ImageError
from ..images import Source, load
from .urls import download, is_url

__all__ = ["IMAGES", "VIDEOS", "Found", "is_url", "list_files", "open_sources"]

IMAGES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".avif")
VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv")

Found: TypeAlias = tuple[str, NDArray[np.uint8] | CenterdetError]
Sources: TypeAlias = Source | int | Iterable["Source | int"]

_Job: TypeAlias = Callable[[], Iterator[Found]]


def open_sources(
    source: Sources,
    *,
    color: str = "rgb",
    allow_urls: bool = False,
    ahead: int = 4,
    timeout: float = 10.0,
    max_bytes: int = 50_000_000,
) -> Generator[Found, None, None]:
    """A stream of (where, image or `CenterdetError`).

    Args:
        source: a image as `images.load` takes it; a folder, whose images come in natural order, its folders left
            out; a glob pattern; a video file; a webcam's number; an http(s) URL of a image; or an iterable of these.
        color: "bgr" where arrays have blue first.
        allow_urls: fetch URLs, also those that a list from elsewhere may hold.
        ahead: images decoded in advance.
        timeout: seconds that a URL may take in all, its redirects included.
        max_bytes: largest image that is fetched.

    Closing the stream, or dropping it, ends the thread. `where` is a path, a URL, or says which image or frame.
    """
    if ahead < 1 or timeout <= 0 or max_bytes < 1:
        raise ConfigError(f"want ahead >= 1, timeout > 0, max_bytes >= 1, got {(ahead, timeout, max_bytes)}")
    plan = _Plan(color, allow_urls, timeout, max_bytes)
    jobs: Iterable[_Job]
    if isinstance(source, list | tuple):
        jobs = [job for number, one in enumerate(source) for job in plan.jobs(one, f"image {number}")]
    elif isinstance(source, Iterable) and not _is_image(source):
        jobs = (job for number, one in enumerate(source) for job in plan.try_jobs(one, f"image {number}"))
    else:
        jobs = plan.jobs(source, "image")
    return _decode_ahead((found for job in jobs for found in job()), ahead)


def _decode_ahead(stream: Generator[Found, None, None], ahead: int) -> Generator[Found, None, None]:
    """Run a stream in one thread of its own, at most `ahead` images before their reader."""
    with ThreadPoolExecutor(1, "centerdet-sources") as pool:
        try:
            waiting = deque(pool.submit(next, stream, None) for _ in range(ahead))
            while (found := waiting.popleft().result()) is not None:
                waiting.append(pool.submit(next, stream, None))
                yield found
        finally:
            pool.shutdown(cancel_futures=True)  # waits for the image in work
            stream.close()


def _is_image(source: object) -> bool:
    one = str | Path | bytes | bytearray | memoryview | np.ndarray | Image.Image
    return isinstance(source, one) or any(hasattr(source, name) for name in ("permute", "read"))


@dataclass(frozen=True, slots=True)
class _Plan:
    color: str
    allow_urls: bool
    timeout: float
    max_bytes: int

    def jobs(self, source: Any, where: str) -> list[_Job]:
        """What one source consists of, each part to be opened when its turn comes."""
        if isinstance(source, int) and not isinstance(source, bool):
            return [partial(_read_webcam, source)]
        if isinstance(source, str) and is_url(source):
            if not self.allow_urls:
                raise ConfigError(f"{source}: URLs are fetched with allow_urls=True (--allow-urls) only")
            return [partial(self._fetch, source)]
        if isinstance(source, str | Path):
            return [self._open(path) for path in list_files(str(source))]
        return [partial(self._load, source, where)]

    def try_jobs(self, source: Any, where: str) -> list[_Job]:
        """`jobs`, or one that yields why there are none."""
        try:
            return self.jobs(source, where)
        except CenterdetError as error:
            found = (str(source) if isinstance(source, str | Path) else where), error
            return [lambda: iter([found])]

    def _open(self, path: str) -> _Job:
        if not path.lower().endswith(VIDEOS):
            return partial(self._load, path, path)
        try:
            import_module("av")
        except ImportError:
            raise ConfigError(f"{path}: videos need PyAV: pip install 'centerdet[video]'") from None
        return partial(_read_video, path)

    def _load(self, image: Source, where: str) -> Iterator[Found]:
        try:
            yield where, load(image, color=self.color)
        except CenterdetError as error:
            yield where, error

    def _fetch(self, url: str) -> Iterator[Found]:
        try:
            content, kind = download(url, self.timeout, self.max_bytes)
        except (OSError, HTTPException, ValueError) as error:
            yield url, ImageError(f"{url}: cannot be fetched: {' '.join(str(error).split())}")
            return
        try:
            yield url, load(content)
        except ImageError as error:
            what = str(error).removeprefix("image from bytes: ")
            yield url, ImageError(f"{url}: {what} (Content-Type: {kind!r:.80})")


def list_files(source: str) -> list[str]:
    """The files that a path stands for: those of a folder, those that fit a pattern, or the one itself."""
    path = Path(source)
    foreign = re.match(r"\w[\w+.-]+://", source)
    what = "of URLs only those of http and https are read" if foreign else "no file fits the pattern"
    try:
        if path.is_dir():
            names = [entry.name for entry in path.iterdir() if not entry.name.startswith(".")]
            files = [str(path / name) for name in names if name.lower().endswith(IMAGES)]
            below = not files and any((path / name).is_dir() for name in names)
            hint = f"; '{path}/**/*.jpg' looks into its folders" * below
            what = f"the folder holds no images (*{', *'.join(IMAGES)}){hint}"
        elif not (foreign or re.search(r"[*?[]", source)) or path.exists():
            return [source]
        else:
            files = [name for name in glob.glob(source, recursive=True) if Path(name).is_file()]
    except (OSError, ValueError) as error:
        raise DataError(f"{source}: cannot be read: {error}") from error
    if not files:
        raise DataError(f"{source}: {what}")
    return sorted(files, key=_natural)


def _natural(name: str) -> tuple[list[str | int], str]:
    """Sorts frame2 before frame10."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def _read_video(path: str) -> Iterator[Found]:
    """Every frame, upright; a packet that cannot be decoded is an error, the frames after it go on."""
    import av

    number, start, end = 0, None, 0.0
    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise ImageError("it holds no images")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except av.FFmpegError as error:
                    yield path, ImageError(f"{path}: broken video, at frame {number}: {error.strerror}")
                    continue
                for frame in frames:
                    start = (frame.time or 0.0) if start is None else start
                    end = (frame.time or 0.0) + 1 / float(stream.average_rate or 25)
                    pixels = np.rot90(frame.to_ndarray(format="rgb24"), round(getattr(frame, "rotation", 0) / 90))
                    yield f"{path} frame {number}", load(pixels)
                    number += 1
            missing = _stated_seconds(container.format.name, stream) - (end - (start or 0.0))
            if missing > 0.1 + 3 / float(stream.average_rate or 25):  # reordered frames make a difference of a few
                yield path, ImageError(f"{path}: ends early, {missing:.1f} s before the end that its header states")
    except FileNotFoundError:
        yield path, ImageError(f"{path}: no such video")
    except (av.FFmpegError, OSError, ValueError) as error:
        what = f"broken video, at frame {number}" if number else "want a video, this cannot be read as one"
        yield path, ImageError(f"{path}: {what}: {getattr(error, 'strerror', None) or error}")


def _stated_seconds(kind: str, stream: Any) -> float:
    """How long the video lasts by its header; 0 where nothing but its actual end tells."""
    if kind == "avi":  # its duration follows the file's size
        return float(stream.frames / stream.average_rate) if stream.average_rate else 0.0
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    stated = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))  # Matroska's
    return sum(float(part) * unit for part, unit in zip(stated.groups(), (3600, 60, 1), strict=True)) if stated else 0.0


def _read_webcam(number: int) -> Iterator[Found]:
    camera = cv2.VideoCapture(number)
    count = 0
    try:
        while True:
            good, frame = camera.read()
            if not good:
                yield f"webcam {number}", ImageError(f"webcam {number}: gives no image, after {count} of them")
                return
            yield f"webcam {number} frame {count}", load(np.asarray(frame, np.uint8), color="bgr")
            count += 1
    finally:
        camera.release()
