"""The PyTorch runtime: loads and saves weights, folds every BatchNorm once, owns device and threads."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..codec import decode
from ..errors import ConfigError, WeightsError
from ..metrics.score_map import Calibration
from ..models import BACKBONES, Network
from ..models.folding import fold
from ..text import as_tuple
from . import TOP_K, Outputs, Runtime
from .process import is_forked, limit_threads
from .weights import NMS_IOU, check_header, check_integer, read_tensors, write_tensors

__all__ = ["Graph", "PyTorchRuntime", "find_device", "halve", "load_network"]

MODEL = {"stride": (4, 8), "channels": (1, 2048), "freeze": (0, 100)}
"""Bounds of a file's integers; the network's own checks are narrower."""

_LIMITED = Lock()


class Graph(nn.Module):
    """What is run and exported: uint8 images (N, S, S, 3) to boxes (N, K, 4) px of the input, scores and labels (N, K).

    Normalization, the folded network, peaks and top-k; NMS is the same NumPy code for every runtime.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = fold(network)
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        outputs = self.network(images.permute(0, 3, 1, 2))
        return decode(*outputs, stride=self.network.stride, top_k=TOP_K)


class PyTorchRuntime(Runtime):
    """A network with the names of its classes and the input size that it was trained for.

    Args:
        network: copied; later changes to it have no effect on `run`.
        names: of the classes, in the order of its heatmaps.
        size: side of the square input, px.
        device: "cpu", "cuda", …; by default CUDA where it is available.
        threads: CPU threads that the network may use; calls then share one limit and are serialized. PyTorch's count
            belongs to the process: it is changed for the call and restored; a thread that first uses PyTorch meanwhile
            keeps the smaller count. A process that was forked from one that used PyTorch has one thread.
        nms_iou: the default of a `Detector` that uses this runtime; saved with the weights.
        calibration: of the scores; likewise.
    """

    def __init__(
        self,
        network: Network,
        names: Sequence[str],
        size: int,
        *,
        device: str | torch.device | None = None,
        threads: int | None = None,
        nms_iou: float = NMS_IOU,
        calibration: Calibration | None = None,
    ) -> None:
        _limit_forked()
        if threads is not None and threads < 1:
            raise ConfigError(f"threads: expected None or at least 1, got {threads}")
        self.names, self.size, self.nms_iou, self.threads = as_tuple(names), size, nms_iou, threads
        self.device, self.calibration = find_device(device), calibration
        self.network = network
        self.graph = Graph(network).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.batch_size = 16 if self.device.type == "cuda" else 1

    @classmethod
    def load(
        cls, path: str | Path, *, device: str | torch.device | None = None, threads: int | None = None
    ) -> "PyTorchRuntime":
        """The runtime of a weights file; the file chooses backbone, stride, channels, freeze, names, size, NMS IoU and
        the calibration of scores within bounds, and nothing else."""
        with _limit(1):  # a thread that only loads starts no worker threads, which would slow those of `run`
            tensors, fields = read_tensors(path)
            header = check_header(path, fields)
            network = load_network(path, tensors, fields)
            return cls(
                network, header.names, header.size, device=device, threads=threads, nms_iou=header.nms_iou,
                calibration=header.calibration,
            )  # fmt: skip

    def save(self, path: str | Path, **fields: Any) -> None:
        """Write the weights in half precision, with all that `load` needs and any JSON `fields` beside it."""
        if wrong := fields.keys() & {"model", "names", "size", "crc32"}:
            raise ConfigError(f"{min(wrong)}: is written by save itself: choose another name for the field")
        header = {"model": self.network.options, "names": self.names, "size": self.size, "nms_iou": self.nms_iou}
        write_tensors(path, _halves(self.network), {**header, **fields})

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """See `Runtime`."""
        with torch.inference_mode(), _limit(self.threads):
            boxes, scores, labels = self.graph(torch.tensor(images, device=self.device))
            return boxes.cpu().numpy(), scores.cpu().numpy(), labels.cpu().numpy()


def load_network(path: str | Path, tensors: Mapping[str, Tensor], fields: Mapping[str, Any]) -> Network:
    """The network that a weights file describes, with its tensors; every one must fit."""
    model, names = fields.get("model"), fields["names"]
    if not (isinstance(model, dict) and model.keys() == {"backbone", *MODEL}):
        raise WeightsError(f"{path}: model: expected backbone, stride, channels and freeze, got {model!r:.100}")
    backbone = model["backbone"]
    if not (isinstance(backbone, str) and backbone in BACKBONES):
        raise WeightsError(f"{path}: model.backbone: expected one of {', '.join(BACKBONES)}, got {backbone!r:.60}")
    for field, (low, high) in MODEL.items():
        check_integer(path, f"model.{field}", model[field], low, high)
    try:
        with torch.random.fork_rng(devices=[]):  # its first weights are random
            network = Network(len(names), **model)
    except ConfigError as error:
        raise WeightsError(f"{path}: model.{error}") from error
    expected = network.state_dict()
    wrong = [
        name
        for name in sorted(expected.keys() | tensors.keys())
        if name not in tensors or name not in expected or tensors[name].shape != expected[name].shape
    ]
    if wrong:
        shapes = [list(state[wrong[0]].shape) if wrong[0] in state else "none" for state in (expected, tensors)]
        raise WeightsError(
            f"{path}: {len(wrong)} of its tensors do not fit {len(names)} classes and {model}; "
            f"{wrong[0]}: expected {shapes[0]}, got {shapes[1]}"
        )
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise WeightsError(f"{path}: {name}: expected finite numbers, got NaN or infinity")
    network.load_state_dict(tensors)
    return network


def halve(network: Network) -> Network:
    """A copy with every number rounded to half precision, as a weights file has them: evaluate this one."""
    network = deepcopy(network)
    network.load_state_dict(_halves(network))
    return network


def _halves(network: Network) -> dict[str, Tensor]:
    halves = {}
    for name, tensor in network.state_dict().items():
        halves[name] = tensor.half() if tensor.is_floating_point() else tensor
        if not torch.isfinite(halves[name]).all():
            peak = tensor.abs().max().item()
            raise WeightsError(f"{name}: expected finite numbers up to 65,504 (half precision), got {peak:g}")
    return halves


def find_device(device: str | torch.device | None = None) -> torch.device:
    """The device of that name, by default CUDA where it is available; a ConfigError where it cannot be used."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        result = torch.device(device)
        torch.empty(0, device=result)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise ConfigError(f"device: {device} cannot be used on this machine: {reason}") from error
    return result


def _limit(threads: int | None) -> AbstractContextManager[None]:
    threads = None if _limit_forked() else threads
    return limit_threads(threads, torch.get_num_threads, torch.set_num_threads, _LIMITED)


def _limit_forked() -> bool:
    """Use one thread in a forked process; whether this is one."""
    if forked := is_forked():
        torch.set_num_threads(1)
    return forked
