"""`Detector`: from weights to boxes of a image.

Everything that predicts goes through here: validation while training, `evaluate`, the command line. Images are RGB
uint8 (H, W, 3), boxes xyxy px of the original image.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import files
from itertools import chain, islice
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import batched_nms

from .boxes import clip
from .codec import decode
from .detections import Detections
from .errors import CenterdetError, ConfigError, WeightsError
from .images import Geometry, Source, load
from .models import Network
from .runtimes.weights import read_tensors, write_tensors
from .sources import Found, Sources, open_sources
from .tiles import Window, check_tiling, cut, merge

__all__ = ["SHIPPED", "Detector", "find_device", "weights_path"]

SHIPPED = {"voc": "voc_efficientnet_lite0.safetensors"}
MAX_DETECTIONS = 100

Pixels: TypeAlias = NDArray[np.uint8]

_LIMITED = Lock()


class _Begun(NamedTuple):
    """A image, or its error, whose views are on their way through the network."""

    where: str
    image: Pixels | None
    windows: list[Window]
    error: CenterdetError | None


class Detector:
    """A network with the names of its classes and the input size that it was trained for.

    Args:
        network: its `Network`; taken over, in evaluation mode.
        names: of the classes, in the order of its heatmaps.
        size: side of the square input, px.
        device: "cpu", "cuda", …; by default CUDA where there is one.
        nms_iou: of two boxes of a class that overlap more, only the better one stays.
        threads: CPU threads that resizing and the network may use, all predictions so limited together: they wait for
            each other. PyTorch's and OpenCV's counts are the process's, so they are changed for that time and put
            back; a thread that first uses PyTorch meanwhile keeps the smaller count. None: the counts as they are.
    """

    def __init__(
        self,
        network: Network,
        names: Iterable[str],
        size: int,
        *,
        device: str | torch.device | None = None,
        nms_iou: float = 0.6,
        threads: int | None = None,
    ) -> None:
        if threads is not None and threads < 1:
            raise ConfigError(f"threads: want None or at least 1, got {threads}")
        self.device = find_device(device)
        self.network = network.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.names = tuple(names)
        self.size, self.nms_iou, self.threads = size, nms_iou, threads
        self._together = 16 if self.device.type == "cuda" else 1  # a CPU gains nothing from larger batches

    @classmethod
    def load(
        cls, weights: str | Path, *, device: str | torch.device | None = None, threads: int | None = None
    ) -> "Detector":
        """A detector from a shipped name ("voc") or from a weights file."""
        path = weights_path(weights)
        tensors, fields = read_tensors(path)
        if missing := {"model", "names", "size"} - fields.keys():
            raise WeightsError(f"{path}: not detector weights: no {', '.join(sorted(missing))} in its metadata")
        names: list[str] = fields["names"]
        network = Network(len(names), **fields["model"])
        try:
            network.load_state_dict(
                {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
            )
        except RuntimeError as error:
            raise WeightsError(
                f"{path}: its tensors do not fit {len(names)} classes and {fields['model']}: {error}"
            ) from error
        return cls(network, names, fields["size"], device=device, threads=threads)

    def save(self, path: str | Path, **fields: Any) -> None:
        """Write weights in half precision, with all that `load` needs and any JSON `fields` beside it."""
        state = self.network.state_dict()
        halves = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
        about = {"model": self.network.options, "names": self.names, "size": self.size}
        write_tensors(Path(path), halves, {**about, **fields})

    def predict(
        self,
        image: Source,
        *,
        score_threshold: float = 0.3,
        color: str = "rgb",
        tile: int | None = None,
        overlap: float = 0.2,
    ) -> Detections:
        """The objects of one image, best first, at most 100; with tiles at most 100 of each view.

        Args:
            image: path, bytes, PIL image, uint8 array (H, W, 3) or uint8 tensor (3, H, W).
            score_threshold: leave out what scores lower, 0 to 1.
            color: "bgr" for arrays that OpenCV read.
            tile: side in px of square tiles to look at beside the whole image, each at the cost of a image: for
                small objects in large images.
            overlap: least share of a tile's side that the next one shows too, 0 to 0.9. What an inner border of a tile
                cuts is dropped, so make it about as large as the objects that need tiles.
        """
        return self.predict_batch([image], score_threshold=score_threshold, color=color, tile=tile, overlap=overlap)[0]

    def predict_batch(
        self,
        images: Iterable[Source],
        *,
        score_threshold: float = 0.3,
        color: str = "rgb",
        tile: int | None = None,
        overlap: float = 0.2,
    ) -> list[Detections]:
        """`predict` of several images; on a CPU the same numbers as single calls, to the last bit."""
        _check(score_threshold, tile, overlap)
        opened = ((str(one) if isinstance(one, str | Path) else "", load(one, color=color)) for one in images)
        flow = self._flow(opened, score_threshold, tile, overlap)
        return [found for _, _, found in flow if isinstance(found, Detections)]

    def stream(
        self,
        source: Sources,
        *,
        score_threshold: float = 0.3,
        color: str = "rgb",
        allow_urls: bool = False,
        tile: int | None = None,
        overlap: float = 0.2,
    ) -> Iterator[tuple[str, Detections | CenterdetError]]:
        """(where, detections) of each image of a folder, glob, list, video, webcam number or URL: `open_sources`.

        Images are decoded ahead in the background, in constant memory; a broken one is yielded as its error. Sources
        that cannot be meant, such as an empty folder, are raised at once, those out of an iterator yielded. Closing or
        dropping it ends the background.
        """
        flow = self.stream_images(
            source, score_threshold=score_threshold, color=color, allow_urls=allow_urls, tile=tile, overlap=overlap
        )
        return ((where, found) for where, _, found in flow)

    def stream_images(
        self,
        source: Sources,
        *,
        score_threshold: float = 0.3,
        color: str = "rgb",
        allow_urls: bool = False,
        tile: int | None = None,
        overlap: float = 0.2,
    ) -> Iterator[tuple[str, Pixels | None, Detections | CenterdetError]]:
        """`stream` with each image as well, to draw on: (where, RGB (H, W, 3) or None, detections or error)."""
        _check(score_threshold, tile, overlap)
        live = any(isinstance(one, int) for one in (source if isinstance(source, list | tuple) else [source]))
        opened = open_sources(source, color=color, allow_urls=allow_urls)
        return self._flow(opened, score_threshold, tile, overlap, together=1 if live else None)

    def run(self, batch: Pixels) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs (B, size, size, 3) to boxes (B, K, 4) px of the input, scores (B, K) and labels (B, K)."""
        with torch.inference_mode():
            outputs = self.network(torch.from_numpy(batch).to(self.device).permute(0, 3, 1, 2))
            return decode(*outputs, stride=self.network.stride, top_k=2 * MAX_DETECTIONS)

    def _flow(
        self,
        opened: Iterable[Found],
        threshold: float,
        tile: int | None,
        overlap: float,
        *,
        together: int | None = None,
    ) -> Iterator[tuple[str, Pixels | None, Detections | CenterdetError]]:
        """Images to what they show, in their order, while `together` views at a time go through the network."""
        begun: deque[_Begun] = deque()

        def cut_all() -> Iterator[Pixels]:
            for where, image in opened:
                if isinstance(image, CenterdetError):
                    begun.append(_Begun(where, None, [], image))
                    continue
                windows = cut(image.shape[:2], tile, overlap)
                begun.append(_Begun(where, image, windows, None))
                yield from (image[top:bottom, left:right] for left, top, right, bottom in windows)

        parts: list[Detections] = []
        for part in chain(self._detect(cut_all(), threshold, together or self._together), [None]):
            while begun and (error := begun[0].error):
                yield begun.popleft().where, None, error
            if part is not None:
                parts.append(part)
                if len(parts) == len(begun[0].windows):
                    where, image, windows, _ = begun.popleft()
                    source = where if os.path.isfile(where) else None
                    yield where, image, replace(merge(parts, windows, self.nms_iou), source=source)
                    parts = []

    def _detect(self, views: Iterator[Pixels], threshold: float, together: int) -> Iterator[Detections]:
        """What each view shows, in its pixels."""
        while chunk := list(islice(views, together)):
            geometries = [Geometry(view.shape[0], view.shape[1], self.size) for view in chunk]
            with _limit(self.threads):
                batch = [one.forward_image(view) for one, view in zip(geometries, chunk, strict=True)]
                outputs = self.run(np.stack(batch))
            for boxes, scores, labels, geometry in zip(*outputs, geometries, strict=True):
                good = scores >= threshold
                boxes, scores, labels = boxes[good], scores[good], labels[good]
                keep = batched_nms(boxes, scores, labels, self.nms_iou)[:MAX_DETECTIONS]
                inverse = clip(geometry.inverse(boxes[keep].cpu().numpy()), geometry.height, geometry.width)
                inverse[:, 2:] = np.maximum(inverse[:, 2:], inverse[:, :2])
                size = (geometry.height, geometry.width)
                yield Detections(inverse, scores[keep].cpu().numpy(), labels[keep].cpu().numpy(), self.names, size)


def _check(score_threshold: float, tile: int | None, overlap: float) -> None:
    if not 0 <= score_threshold <= 1:
        raise ConfigError(f"score_threshold: want 0 to 1, got {score_threshold}")
    check_tiling(tile, overlap)


@contextmanager
def _limit(threads: int | None) -> Iterator[None]:
    """At most so many threads of PyTorch and OpenCV, one caller at a time, so that each finds the true counts."""
    if threads is None:
        yield
        return
    with _LIMITED:
        before = torch.get_num_threads(), cv2.getNumThreads()
        try:
            torch.set_num_threads(threads)
            cv2.setNumThreads(threads)
            yield
        finally:
            torch.set_num_threads(before[0])
            cv2.setNumThreads(before[1])


def find_device(device: str | torch.device | None = None) -> torch.device:
    """The device of that name, by default CUDA where there is one; a ConfigError where this machine has none such."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise ConfigError(f"device: {device} cannot be used on this machine: {reason}") from error
    return found


def weights_path(weights: str | Path) -> Path:
    """Where a shipped name's weights lie (in the package, or in the clone beside it), or the path itself."""
    if str(weights) not in SHIPPED:
        if not Path(weights).is_file():
            raise WeightsError(f"{weights}: no such weights file, nor a shipped name ({', '.join(SHIPPED)})")
        return Path(weights)
    inside = Path(str(files(__package__)), "weights", SHIPPED[str(weights)])
    return inside if inside.is_file() else Path(__file__).parents[1] / "weights" / SHIPPED[str(weights)]
