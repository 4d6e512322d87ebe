"""`Detector`: from weights to the boxes of an image.

Everything that predicts goes through this class: validation while training, `evaluate`, the command line. It is NumPy
and OpenCV over a `Runtime`. Images are RGB uint8 (H, W, 3), boxes xyxy px of the original image.
"""

from collections.abc import Iterable, Iterator
from copy import copy
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from .boxes import clip, nms
from .detections import Detections
from .errors import CenterdetError, ConfigError
from .images import Geometry, Source, load
from .metrics.arrays import reaches
from .runtimes import Runtime, open_runtime
from .runtimes.process import is_forked, limit_threads
from .sources import Found, Sources, is_live, open_sources
from .tiles import Rows, Tiling, merge

__all__ = ["Detector"]

MAX_DETECTIONS = 100

Pixels: TypeAlias = NDArray[np.uint8]
Thresholds: TypeAlias = NDArray[np.float64]
Item = TypeVar("Item")

_LIMITED = Lock()


class Detector:
    """Detects objects in images: a `Runtime`, and what all runtimes share (resizing, NMS, calibration, tiles, streams).

    Args:
        runtime: the network; see `open_runtime`, or `PyTorchRuntime` for a `Network` in memory.
        nms_iou: IoU above which NMS drops the worse of two boxes of a class; None: the runtime's.

    `calibration` is that of the runtime, or None. It is applied after NMS and the limit of 100 detections.
    """

    def __init__(self, runtime: Runtime, *, nms_iou: float | None = None) -> None:
        is_forked()  # remembers the process
        self.runtime = runtime
        self.names, self.size, self.calibration = runtime.names, runtime.size, runtime.calibration
        self.nms_iou = runtime.nms_iou if nms_iou is None else nms_iou
        if not 0 <= self.nms_iou <= 1:
            raise ConfigError(f"nms_iou: expected 0 to 1, got {self.nms_iou}")

    @classmethod
    def load(
        cls,
        weights: str | Path,
        *,
        device: str | None = None,
        threads: int | None = None,
        nms_iou: float | None = None,
    ) -> "Detector":
        """Load a shipped detector by name ("voc"), or a weights file: .safetensors, or an exported .onnx or .xml.

        Args:
            device: "cpu", "cuda", …; by default CUDA if available.
            threads: maximum number of CPU threads, for resizing and the network; None: no limit.
            nms_iou: IoU above which NMS drops the worse of two boxes of a class; None: that of the file.
        """
        return cls(open_runtime(weights, device=device, threads=threads), nms_iou=nms_iou)

    def save(self, path: str | Path, **fields: Any) -> None:
        """Write a weights file in half precision, with everything that `load` needs, and any other JSON `fields`."""
        save = getattr(self.runtime, "save", None)
        if save is None:
            raise ConfigError(f"{path}: only detectors loaded from .safetensors weights can be saved")
        stored = {} if self.calibration is None else {"calibration": self.calibration.to_dict()}
        save(path, nms_iou=self.nms_iou, **{**stored, **fields})

    def uncalibrated(self) -> "Detector":
        """This detector with the network's raw scores."""
        other = copy(self)
        other.calibration = None
        return other

    def predict(
        self,
        image: Source,
        *,
        score_threshold: float | str = 0.3,
        color: str = "rgb",
        tile: int | None = None,
        overlap: float = 0.2,
    ) -> Detections:
        """Detect the objects of one image, best first: at most 100, or with tiles at most 100 per tile.

        Args:
            image: path, bytes, PIL image, uint8 array (H, W, 3) or uint8 tensor (3, H, W).
            score_threshold: detections that score lower are dropped, 0 to 1. With calibrated weights also "best", the
                threshold of each class with the best F1 on the calibration images, or "precision:0.9", the lowest
                threshold of each class with an expected precision of 90 %.
            color: "bgr" for arrays from OpenCV.
            tile: side in px of square tiles that are predicted as well as the whole image, for small objects in large
                images. Each tile costs as much time as an image.
            overlap: minimum overlap of neighboring tiles as a share of their side, 0 to 0.9. Detections at an inner
                border of a tile are dropped, so make it about as large as the objects that need tiles.
        """
        options: dict[str, Any] = {"score_threshold": score_threshold, "tile": tile, "overlap": overlap}
        return self.predict_batch([image], color=color, **options)[0]

    def predict_batch(self, images: Iterable[Source], *, color: str = "rgb", **options: Any) -> list[Detections]:
        """`predict` for several images, with the same options; on a CPU, equal to single calls bit for bit.

        An image that cannot be read raises an `ImageError`.
        """
        checked = self._check(**options)
        stream = (
            Found(str(image), None, load(image, color=color), is_file=True)
            if isinstance(image, str | Path)
            else Found("image", None, load(image, color=color))
            for image in images
        )
        flow = self._flow(stream, *checked, together=self.runtime.batch_size)
        return [result for _, result in flow if isinstance(result, Detections)]

    def stream(
        self,
        source: Sources,
        *,
        score_threshold: float | str = 0.3,
        color: str = "rgb",
        allow_urls: bool = False,
        tile: int | None = None,
        overlap: float = 0.2,
    ) -> Iterator[tuple[str, Detections | CenterdetError]]:
        """(where, detections) of each image of a folder, glob, list, video, webcam number or URL: `open_sources`.

        Images are decoded ahead in the background, in constant memory. A broken image is yielded as its error. Invalid
        sources, such as an empty folder, raise immediately; those from an iterator are yielded as errors. Closing or
        deleting the stream stops the background threads.
        """
        options: dict[str, Any] = {"score_threshold": score_threshold, "tile": tile, "overlap": overlap}
        flow = self.stream_images(source, color=color, allow_urls=allow_urls, **options)
        return ((item.where, result) for item, result in flow)

    def stream_images(
        self, source: Sources, *, color: str = "rgb", allow_urls: bool = False, **options: Any
    ) -> Iterator[tuple[Found, Detections | CenterdetError]]:
        """`stream`, with the same options, that also yields each image, to draw on: (`Found`, detections or error)."""
        checked = self._check(**options)
        opened = open_sources(source, color=color, allow_urls=allow_urls)
        return self._flow(opened, *checked, together=1 if is_live(source) else self.runtime.batch_size)

    def _flow(
        self, stream: Iterable[Found], thresholds: Thresholds, tiling: Tiling, *, together: int
    ) -> Iterator[tuple[Found, Detections | CenterdetError]]:
        """Each image with its detections or its error, in order, `together` at a time."""
        for chunk in _chunks(stream, together):
            images = [item.image for item in chunk if not isinstance(item.image, CenterdetError)]
            rows = self._detect(images, thresholds, tiling)
            for item in chunk:
                if isinstance(item.image, CenterdetError):
                    yield item, item.image
                else:
                    source = item.source if item.is_file else None
                    yield item, Detections(*next(rows), self.names, item.image.shape[:2], source)

    def _detect(self, images: list[Pixels], thresholds: Thresholds, tiling: Tiling) -> Iterator[Rows]:
        """The detections of each image: it is cut into views, which run in batches and are merged."""
        windows = [tiling.cut(image.shape[:2]) for image in images]
        views = (
            image[top:bottom, left:right]
            for image, cut in zip(images, windows, strict=True)
            for left, top, right, bottom in cut
        )
        rows = self._run(views, thresholds)
        for cut in windows:
            merged = merge(list(islice(rows, len(cut))), cut, self.nms_iou)
            yield merged._replace(scores=self._calibrate(merged))

    def _run(self, views: Iterator[Pixels], thresholds: Thresholds) -> Iterator[Rows]:
        """The detections of each view in its pixels, best first, with raw scores, which NMS needs."""
        lowest = float(thresholds.min()) if self.calibration is None else self.calibration.lowest(thresholds)
        for chunk in _chunks(views, self.runtime.batch_size):
            geometries = [Geometry(view.shape[0], view.shape[1], self.size) for view in chunk]
            threads = None if is_forked() else self.runtime.threads
            with limit_threads(threads, cv2.getNumThreads, cv2.setNumThreads, _LIMITED):
                batch = np.stack([one.forward_image(view) for one, view in zip(geometries, chunk, strict=True)])
            for geometry, *outputs in zip(geometries, *self.runtime.run(batch), strict=True):
                rows = Rows(*outputs)
                rows = rows.select(rows.scores >= lowest)  # saves time; does not change the result
                rows = rows.select(nms(*rows, self.nms_iou)[:MAX_DETECTIONS])
                rows = rows.select(reaches(self._calibrate(rows), thresholds[rows.labels]))
                boxes = clip(geometry.inverse(rows.boxes), geometry.height, geometry.width)
                boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
                yield rows._replace(boxes=boxes)

    def _calibrate(self, rows: Rows) -> NDArray[np.float32]:
        if self.calibration is None:
            return rows.scores
        return self.calibration.apply(rows.scores, rows.labels).astype(np.float32)

    def _check(
        self, score_threshold: float | str = 0.3, tile: int | None = None, overlap: float = 0.2
    ) -> tuple[Thresholds, Tiling]:
        """The threshold of each class (C,), and the tiling."""
        tiling = Tiling(tile, overlap)
        if isinstance(score_threshold, str):
            if self.calibration is None:
                raise ConfigError(
                    f"score_threshold: expected a number from 0 to 1 for weights without calibration, got "
                    f"{score_threshold!r}: run centerdet calibrate on them first"
                )
            return self.calibration.thresholds(score_threshold), tiling
        if not 0 <= score_threshold <= 1:
            raise ConfigError(f"score_threshold: expected 0 to 1, got {score_threshold}")
        return np.full(len(self.names), score_threshold, np.float64), tiling


def _chunks(items: Iterable[Item], length: int) -> Iterator[list[Item]]:
    rest = iter(items)
    while chunk := list(islice(rest, length)):
        yield chunk
