"""What the codec alone allows: a dataset's annotations encoded, decoded and evaluated as if perfectly predicted.

A cell holds one box, and NMS takes two boxes of a class that overlap much for one: crowded images cap mAP before any
training. Everything after the network is the Detector's own.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..codec import cell_centers, encode
from ..data.sample import Dataset, Sample
from ..detector import Detector
from ..errors import ConfigError
from ..evaluation.evaluation import evaluate_detections
from ..images import Geometry, read_size
from ..models import Network, Outputs

__all__ = ["measure_ceiling"]

SURE = 20.0  # logit of a score of 1; targets between rise with it, so that peaks are where they are


def measure_ceiling(
    dataset: Dataset,
    *,
    size: int,
    stride: int,
    progress: Callable[[Sequence[Sample]], Iterable[Sample]] = iter,
) -> dict[str, Any]:
    """Evaluate perfect outputs on inputs of `size` px with a cell every `stride` px; no image is decoded.

    `voc-area` is mAP, a fraction, None without objects; `without own cell` counts objects in whose cell another one
    (the smaller of two) is centered, `lost` those without a detection of IoU >= 0.5. Difficult ones do not count.
    """
    if stride < 1 or size < stride or size % stride:
        raise ConfigError(f"size, stride: want a size that is a multiple of the stride, got {size} and {stride}")
    samples = [_shrink(sample, size) for sample in dataset.samples]  # IoU is the same on the input
    cells = 0

    def outputs() -> Iterator[Outputs]:
        nonlocal cells
        for sample in progress(samples):
            said = _perfect_outputs(sample, len(dataset.names), size // stride, stride)
            cells += int((said.heatmap == SURE).any(1).sum())
            yield said

    detector = Detector(cast(Network, _Perfect(outputs(), stride)), dataset.names, size, device="cpu")
    found = detector.predict_batch([np.zeros((size, size, 3), np.uint8)] * len(samples), score_threshold=0.5)
    voc = evaluate_detections(found, Dataset(samples, dataset.names)).voc
    objects = int(voc.num_positive.sum())
    hits = sum(len(voc.curve(label).recall) for label in range(len(dataset.names)))
    return {
        "size": size, "stride": stride, "voc-area": voc.to_dict()["mean_ap"],
        "objects": objects, "without own cell": objects - cells, "lost": objects - hits,
    }  # fmt: skip


class _Perfect(nn.Module):
    """Stands in for a network: whatever the image, it says the next of the given outputs."""

    def __init__(self, outputs: Iterator[Outputs], stride: int) -> None:
        super().__init__()
        self.outputs, self.stride = outputs, stride

    def forward(self, images: Tensor) -> Outputs:
        return next(self.outputs)


def _shrink(sample: Sample, size: int) -> Sample:
    """The sample in pixels of the input."""
    geometry = Geometry(*(sample.size or read_size(sample.path)), size)
    return replace(sample, boxes=np.asarray(geometry.forward(sample.boxes), np.float64), size=(size, size))


def _perfect_outputs(sample: Sample, num_classes: int, grid: int, stride: int) -> Outputs:
    """What training would want of an input: its targets as logits and distances, difficult objects left out."""
    boxes, labels = torch.from_numpy(sample.boxes).float(), torch.from_numpy(sample.labels)
    ignore, image_index = torch.from_numpy(sample.difficult | sample.crowd), torch.zeros_like(labels)
    targets = encode(boxes, labels, ignore, image_index, batch=1, num_classes=num_classes, grid=grid, stride=stride)
    rows, columns = torch.meshgrid(cell_centers(grid, stride), cell_centers(grid, stride), indexing="ij")
    centers = torch.stack([columns, rows, columns, rows])  # (4, G, G)
    signs = torch.tensor([-1.0, -1, 1, 1]).view(4, 1, 1)
    return Outputs((2 * targets.heatmap - 1) * SURE, (targets.boxes.movedim(-1, 1) - centers) * signs)
