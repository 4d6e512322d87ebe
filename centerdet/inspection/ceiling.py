"""The mAP ceiling of the codec: a dataset's annotations are encoded, decoded, and evaluated as perfect predictions.

A cell has one box, and NMS removes one of two boxes of a class that overlap strongly. So crowded images limit mAP even
for a perfect network. Everything after the network is the Detector's code.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..codec import cell_centers, decode, encode
from ..data.sample import Dataset, Sample
from ..detector import Detector
from ..errors import ConfigError
from ..evaluation.evaluation import evaluate_detections
from ..images import Geometry, read_size
from ..models import Outputs
from ..runtimes import TOP_K, Runtime
from ..runtimes import Outputs as Peaks

__all__ = ["measure_ceiling"]

SURE = 20.0  # logit of a target of 1; lower targets scale linearly, so that peaks do not move


def measure_ceiling(
    dataset: Dataset,
    *,
    size: int,
    stride: int,
    progress: Callable[[Sequence[Sample]], Iterable[Sample]] = iter,
) -> dict[str, Any]:
    """Evaluate perfect outputs on inputs of `size` px with a cell every `stride` px; no image is decoded.

    `voc-area` is mAP as a fraction, None without objects. `without own cell` counts objects whose cell belongs to a
    smaller object centered in it. `lost` counts objects without a detection of IoU >= 0.5. Difficult objects are not
    counted.
    """
    if stride < 1 or size < stride or size % stride:
        raise ConfigError(f"size, stride: expected a size that is a multiple of the stride, got {size} and {stride}")
    samples = [_shrink(sample, size) for sample in dataset.samples]  # IoU is the same on the input
    runtime = _Perfect(progress(samples), dataset.names, size, stride)
    blank = np.zeros((size, size, 3), np.uint8)
    detections = Detector(runtime).predict_batch([blank] * len(samples), score_threshold=0.5)
    voc = evaluate_detections(detections, Dataset(samples, dataset.names)).voc
    objects = int(voc.num_positive.sum())
    detected = sum(len(voc.curve(label).recall) for label in range(len(dataset.names)))
    return {
        "size": size, "stride": stride, "voc-area": voc.to_dict()["mean_ap"],
        "objects": objects, "without own cell": objects - runtime.cells, "lost": objects - detected,
    }  # fmt: skip


class _Perfect(Runtime):
    """A runtime in place of a trained network: for any image, it returns the objects of the next sample."""

    def __init__(self, samples: Iterable[Sample], names: tuple[str, ...], size: int, stride: int) -> None:
        self.samples, self.names, self.size, self.stride, self.cells = iter(samples), names, size, stride, 0

    def run(self, images: NDArray[np.uint8]) -> Peaks:
        outputs = _perfect_outputs(next(self.samples), len(self.names), self.size // self.stride, self.stride)
        self.cells += int((outputs.heatmap == SURE).any(1).sum())
        boxes, scores, labels = decode(*outputs, stride=self.stride, top_k=TOP_K)
        return boxes.numpy(), scores.numpy(), labels.numpy()


def _shrink(sample: Sample, size: int) -> Sample:
    """The sample in pixels of the input."""
    geometry = Geometry(*(sample.size or read_size(sample.path)), size)
    return replace(sample, boxes=np.asarray(geometry.forward(sample.boxes), np.float64), size=(size, size))


def _perfect_outputs(sample: Sample, num_classes: int, grid: int, stride: int) -> Outputs:
    """The training targets of a sample as logits and distances, without difficult objects."""
    boxes, labels = torch.from_numpy(sample.boxes).float(), torch.from_numpy(sample.labels)
    ignore, image_index = torch.from_numpy(sample.ignored), torch.zeros_like(labels)
    targets = encode(boxes, labels, ignore, image_index, batch=1, num_classes=num_classes, grid=grid, stride=stride)
    rows, columns = torch.meshgrid(cell_centers(grid, stride), cell_centers(grid, stride), indexing="ij")
    centers = torch.stack([columns, rows, columns, rows])  # (4, G, G)
    signs = torch.tensor([-1.0, -1, 1, 1]).view(4, 1, 1)
    return Outputs((2 * targets.heatmap - 1) * SURE, (targets.boxes.movedim(-1, 1) - centers) * signs)
