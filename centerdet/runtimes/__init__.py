"""Runtimes: a weights file and the library that runs its network, behind one small protocol.

`open_runtime` chooses by the file's suffix and imports only what that file needs.
"""

from importlib import import_module
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, requires
from ..metrics.score_map import Calibration
from .weights import NMS_IOU, weights_path

__all__ = ["TOP_K", "Outputs", "Runtime", "open_runtime"]

RUNTIMES = {
    ".onnx": ("onnx", "OnnxRuntime", "centerdet[onnx]"),
    ".xml": ("openvino", "OpenVinoRuntime", "centerdet[openvino]"),
}
"""Module, class and requirement by a file's suffix; PyTorch runs the others."""
TOP_K = 200
"""Peaks that the network returns per image, K; less on a small grid."""

Outputs: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]
"""Boxes (B, K, 4) xyxy px of the input, scores (B, K) falling, labels (B, K); before NMS."""


class Runtime(Protocol):
    """A detector's network: images in, the best peaks of each out.

    Attributes:
        names: of the classes, in the order of the labels.
        size: S, side of the square input in px.
        nms_iou: what `Detector` uses unless it is given another one.
        batch_size: images that are worth running together: 1 on a CPU, which gains nothing from more.
        threads: CPU threads that the caller allowed, also for resizing; None: no limit.
        calibration: of the scores, which `Detector` applies; None: the scores stay as they are.
    """

    names: tuple[str, ...]
    size: int
    nms_iou: float = NMS_IOU
    batch_size: int = 1
    threads: int | None = None
    calibration: Calibration | None = None

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """RGB images (B, S, S, 3) to `Outputs`; may be called from several threads."""
        ...


def open_runtime(weights: str | Path, *, device: str | None = None, threads: int | None = None) -> Runtime:
    """The runtime of a shipped name ("voc") or of a weights file: .safetensors, or exported to .onnx or .xml.

    Args:
        device: "cpu", "cuda", … as the runtime names them; by default CUDA where it is available.
        threads: CPU threads at most; None: the library's own choice.
    """
    if threads is not None and threads < 1:
        raise ConfigError(f"threads: expected None or at least 1, got {threads}")
    path = weights_path(weights)
    module, name, requirement = RUNTIMES.get(path.suffix.lower(), ("pytorch", "PyTorchRuntime", "centerdet"))
    with requires(requirement, f"{path}:"):
        runtime = getattr(import_module(f".{module}", __package__), name)
    opened: Runtime = runtime.load(path, device=device, threads=threads)
    return opened
