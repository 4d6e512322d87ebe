"""An annotated copy of a video: the same frame rate, upright, with the source's audio."""

import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import WriteError
from ..text import explain

__all__ = ["AnnotatedVideo", "video_name"]

FORMATS = {".m4v": "mp4", ".mkv": "matroska", ".mov": "mov", ".mp4": "mp4"}
"""Containers that copies keep; the others become Matroska, which takes any audio."""


def video_name(source: str) -> str:
    """The suffix of the annotated copy of a video."""
    suffix = Path(source).suffix.lower()
    return suffix if suffix in FORMATS else ".mkv"


class AnnotatedVideo:
    """A video file, written atomically: it appears when it is closed, and not after an error.

    Args:
        source: the video that the frame rate and audio are copied from.
        path: path of the copy; see `video_name`.
    """

    def __init__(self, source: str, path: Path) -> None:
        import av

        self._output: Any
        self._video: Any
        self._failures = (av.FFmpegError, OSError, ValueError)
        self.path, self._part = path, path.with_name(f".{secrets.token_hex(8)}.part")
        self._input = av.open(source)
        try:
            self._output = av.open(str(self._part), "w", format=FORMATS[path.suffix])
            rate = self._input.streams.video[0].average_rate or 25
            codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
            self._video = self._output.add_stream(codec, rate=rate)
            self._video.pix_fmt = "yuv420p"
            sounds = self._input.streams.audio
            self._audio = self._output.add_stream_from_template(sounds[0]) if sounds else None
        except self._failures as error:
            self._input.close()
            with suppress(OSError):
                self._part.unlink()
            raise self._error(error) from error
        self._packets: Iterator[Any] = self._input.demux(sounds[0]) if sounds else iter(())
        self._waiting: Any = next(self._packets, None)
        self._count = 0

    def __enter__(self) -> "AnnotatedVideo":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Finish the file; remove it after an error other than Ctrl-C."""
        try:
            if kind is None or issubclass(kind, KeyboardInterrupt | GeneratorExit):
                self._finish()
        finally:
            with suppress(*self._failures):
                self._output.close()
            self._input.close()
            with suppress(OSError):
                self._part.unlink()

    def write(self, image: NDArray[np.uint8]) -> None:
        """Append an RGB frame (H, W, 3); odd sides are padded by a pixel, as the codec requires."""
        import av

        height, width = image.shape[:2]
        padded = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24")
        try:
            if not self._count:
                self._video.height, self._video.width = padded.shape[:2]
            frame.pts, frame.time_base = self._count, 1 / self._video.average_rate
            self._mux_audio(self._count / float(self._video.average_rate))
            self._output.mux(self._video.encode(frame))
        except self._failures as error:
            raise self._error(error) from error
        self._count += 1

    def _finish(self) -> None:
        try:
            if self._count:
                self._output.mux(self._video.encode())
                self._mux_audio(self._count / float(self._video.average_rate))
            self._output.close()
            self._part.replace(self.path)
        except self._failures as error:
            raise self._error(error) from error

    def _mux_audio(self, seconds: float) -> None:
        """Copy the audio packets up to a time."""
        while self._waiting is not None and self._audio is not None:
            packet = self._waiting
            if packet.dts is not None:  # the last one is empty
                if float(packet.dts * packet.time_base) > seconds:
                    return
                packet.stream = self._audio
                self._output.mux(packet)
            self._waiting = next(self._packets, None)

    def _error(self, error: Exception) -> WriteError:
        return WriteError(f"{self.path}: cannot be written: {explain(error)}")
