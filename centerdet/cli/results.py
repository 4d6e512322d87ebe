"""The outputs of `predict`: copies with boxes, and the rows of JSON Lines and CSV."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import CenterdetError
from ..files import open_atomic
from .annotated import AnnotatedVideo, video_name
from .show import console

if TYPE_CHECKING:
    from ..detections import Detections
    from ..sources import Found

__all__ = ["Copies", "Row", "is_video", "open_rows"]

Row: TypeAlias = dict[str, Any]

INTERNAL = ("path", "frame", "video")  # of a row: for the journal and the table
COLUMNS = ("source", "frame", "name", "label", "score", "x1", "y1", "x2", "y2")


def is_video(item: "Found") -> bool:
    """Whether this is a frame of a video file, or the error of one."""
    from ..sources import VIDEO_SUFFIXES, is_url

    return item.source.lower().endswith(VIDEO_SUFFIXES) and not (item.is_file or is_url(item.source))


class Copies:
    """Copies with boxes: JPEG files for images and webcam frames, videos for videos.

    Args:
        place: a function from a file name to the path to write.
    """

    def __init__(self, place: Callable[[str], Path]) -> None:
        self._place = place
        self._source = ""
        self._video: AnnotatedVideo | None = None

    def __enter__(self) -> "Copies":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._video is not None:
            self._video.__exit__(kind, error, at)
            self._video = None

    def write(self, item: "Found", result: "Detections", name: str) -> None:
        """One image, or the next frame of a video."""
        if isinstance(item.image, CenterdetError):
            raise item.image
        if not is_video(item):
            frame = "" if item.frame is None else f"/{item.frame:06}"
            result.plot(self._place(f"{name}{frame}.jpg"), item.image)
            return
        if self._video is None or self._source != item.source:
            self.finish()
            self._source = item.source
            self._video = AnnotatedVideo(item.source, self._place(f"{name}{video_name(item.source)}"))
        self._video.write(result.plot(None, item.image))

    def finish(self) -> None:
        """Finish the current video."""
        self.__exit__(None, None, None)


@contextmanager
def open_rows(json_file: str, csv_file: str) -> Iterator[Callable[[Row], None]]:
    """A function that writes a row to JSON Lines (stdout for "-") and to a CSV file; both files appear at the end."""
    lines = open_atomic(json_file) if json_file not in ("", "-") else nullcontext()
    with lines as file, open_atomic(csv_file) if csv_file else nullcontext() as table:

        def write(row: Row) -> None:
            shown = json.dumps({key: value for key, value in row.items() if key not in INTERNAL})
            if file is not None:
                file.write(shown.encode() + b"\n")
            elif json_file:
                console.out(shown)
            if table is not None:
                table.write(_table_rows([_cells(row, one) for one in row.get("objects", ())]))

        if table is not None:
            table.write(_table_rows([COLUMNS]))
        yield write


def _cells(row: Row, one: Row) -> tuple[object, ...]:
    frame = "" if row["frame"] is None else row["frame"]
    return (row["path"], frame, one["name"], one["label"], one["score"], *one["box"])


def _table_rows(rows: list[tuple[object, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode(errors="surrogateescape")
