"""`Detector`: from weights to boxes of a picture.

Everything that predicts goes through here: validation while training, `evaluate`, the command line. Pictures are RGB
uint8 (H, W, 3), boxes xyxy px of the original picture.
"""

from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import batched_nms

from . import images
from .boxes import clip
from .checkpoint import read_tensors, write_tensors
from .codec import decode
from .detections import Detections
from .errors import CenterdetError, WeightsError
from .models import Network
from .sources import Sources, open_sources

__all__ = ["SHIPPED", "Detector", "weights_path"]

SHIPPED = {"voc": "voc_efficientnet_lite0.safetensors"}
MAX_DETECTIONS = 100


class Detector:
    """A network with the names of its classes and the input size that it was trained for.

    Args:
        network: its `Network`; taken over, in evaluation mode.
        names: of the classes, in the order of its heatmaps.
        size: side of the square input, px.
        device: "cpu", "cuda", …; by default CUDA where there is one.
        nms_iou: of two boxes of a class that overlap more, only the better one stays.
    """

    def __init__(
        self,
        network: Network,
        names: Iterable[str],
        size: int,
        *,
        device: str | torch.device | None = None,
        nms_iou: float = 0.6,
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.network = network.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.names = tuple(names)
        self.size, self.nms_iou = size, nms_iou

    @classmethod
    def load(cls, weights: str | Path, *, device: str | torch.device | None = None) -> "Detector":
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
        return cls(network, names, fields["size"], device=device)

    def predict(self, picture: images.Source, *, score_threshold: float = 0.3, color: str = "rgb") -> Detections:
        """The objects of one picture, best first, at most 100.

        Args:
            picture: path, bytes, PIL image, uint8 array (H, W, 3) or uint8 tensor (3, H, W).
            score_threshold: leave out what scores lower, 0 to 1.
            color: "bgr" for arrays that OpenCV read.
        """
        return self.predict_batch([picture], score_threshold=score_threshold, color=color)[0]

    def predict_batch(
        self, pictures: Iterable[images.Source], *, score_threshold: float = 0.3, color: str = "rgb"
    ) -> list[Detections]:
        """`predict` of several pictures; on a CPU the same numbers as single calls, to the last bit."""
        found, waiting = [], []
        whole = 32 if self.device.type == "cuda" else 1  # a CPU gains nothing from larger batches
        for picture in pictures:
            image = images.load(picture, color=color)
            geometry = images.Geometry(image.shape[0], image.shape[1], self.size)
            source = str(picture) if isinstance(picture, str | Path) else None
            waiting.append((geometry.forward_image(image), geometry, source))
            if len(waiting) == whole:
                found += self._detect(waiting, score_threshold)
                waiting = []
        return found + self._detect(waiting, score_threshold)

    def stream(
        self, source: Sources, *, score_threshold: float = 0.3, color: str = "rgb", allow_urls: bool = False
    ) -> Iterator[tuple[str, Detections | CenterdetError]]:
        """(where, detections) of each picture of a folder, glob, list, video, webcam number or URL: `open_sources`.

        Pictures are decoded ahead in the background, in constant memory; a broken one is yielded as its error.
        """
        for where, picture in open_sources(source, color=color, allow_urls=allow_urls):
            if isinstance(picture, CenterdetError):
                yield where, picture
            else:
                yield where, self.predict(picture, score_threshold=score_threshold)

    def run(self, batch: NDArray[np.uint8]) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs (B, size, size, 3) to boxes (B, K, 4) px of the input, scores (B, K) and labels (B, K)."""
        with torch.inference_mode():
            outputs = self.network(torch.from_numpy(batch).to(self.device).permute(0, 3, 1, 2))
            return decode(*outputs, stride=self.network.stride, top_k=2 * MAX_DETECTIONS)

    def _detect(
        self, inputs: list[tuple[NDArray[np.uint8], images.Geometry, str | None]], threshold: float
    ) -> list[Detections]:
        if not inputs:
            return []
        found = []
        outputs = self.run(np.stack([image for image, _, _ in inputs]))
        for boxes, scores, labels, (_, geometry, source) in zip(*outputs, inputs, strict=True):
            good = scores >= threshold
            boxes, scores, labels = boxes[good], scores[good], labels[good]
            keep = batched_nms(boxes, scores, labels, self.nms_iou)[:MAX_DETECTIONS]
            inverse = clip(geometry.inverse(boxes[keep].cpu().numpy()), geometry.height, geometry.width)
            inverse[:, 2:] = np.maximum(inverse[:, 2:], inverse[:, :2])
            found.append(
                Detections(
                    inverse, scores[keep].cpu().numpy(), labels[keep].cpu().numpy(), self.names,
                    (geometry.height, geometry.width), source=source,
                )
            )  # fmt: skip
        return found


def weights_path(weights: str | Path) -> Path:
    """Where a shipped name's weights lie (in the package, or in the clone beside it), or the path itself."""
    if str(weights) not in SHIPPED:
        return Path(weights)
    inside = Path(str(files(__package__)), "weights", SHIPPED[str(weights)])
    return inside if inside.is_file() else Path(__file__).parents[1] / "weights" / SHIPPED[str(weights)]


def save_weights(
    path: Path, state: dict[str, Tensor], model: dict[str, Any], names: Iterable[str], size: int, **more: Any
) -> None:
    """Write detector weights, in half precision, with what rebuilds the network and any `more` JSON fields."""
    halves = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    write_tensors(path, halves, {"model": model, "names": list(names), "size": size, **more})
