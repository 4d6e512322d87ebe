"""The network: uint8 images to `Outputs`; normalization, backbone, neck, and heads in one module.

Shapes: images (B, 3, S, S) uint8 RGB with S a multiple of 32; outputs on the grid G = S / stride.
"""

import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from .backbones import STRIDES, build_backbone
from .neck import Neck, separable

__all__ = ["Network", "Outputs"]


class Outputs(NamedTuple):
    """Raw outputs of every cell.

    heatmap: (B, C, G, G) logits. distances: (B, 4, G, G) px of the input from the cell's center to the left, top,
    right, and bottom side of the box; negative if the center is outside the box on that side.
    """

    heatmap: Tensor
    distances: Tensor


class Network(nn.Module):
    """Backbone, top-down neck, heatmap and box heads.

    Args:
        num_classes: C.
        backbone: a name in `BACKBONES`.
        stride: of the output grid, 4 or 8.
        channels: of the neck and the heads.
        freeze: number of frozen stages of the backbone, the stem first.
        weights: of the backbone, see `build_backbone`.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "efficientnet_lite0",
        stride: int = 8,
        channels: int = 96,
        freeze: int = 0,
        weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        if stride not in (4, 8):
            raise ConfigError(f"stride: expected 4 or 8, got {stride}")
        self.stride = stride
        self.options = {"backbone": backbone, "stride": stride, "channels": channels, "freeze": freeze}
        self.backbone, self.load_report = build_backbone(backbone, weights)
        used = STRIDES.index(stride)
        self.neck = Neck(self.backbone.channels[used:], channels)
        self.heatmap_head = nn.Sequential(
            separable(channels, channels), separable(channels, channels), nn.Conv2d(channels, num_classes, 1)
        )
        self.box_head = nn.Sequential(
            separable(channels, channels), separable(channels, channels), nn.Conv2d(channels, 4, 1)
        )
        # Start at a score of 0.01, so that the many empty cells do not dominate the first steps (Lin et al. 2017, 4.1),
        # and at boxes of 10 cells, near the middle of the range of log sizes.
        nn.init.constant_(self.heatmap_head[-1].bias, -math.log(99))  # type: ignore[arg-type]
        nn.init.constant_(self.box_head[-1].bias, math.log1p(5))  # type: ignore[arg-type]
        self.register_buffer("mean", torch.tensor(self.backbone.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(self.backbone.std).view(3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor
        self.backbone.freeze(freeze)

    def forward(self, images: Tensor) -> Outputs:
        """(B, 3, S, S) uint8 to `Outputs`."""
        x = (images.to(self.mean.dtype) - self.mean) / self.std
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.neck(self.backbone(x)[STRIDES.index(self.stride) :])
        # expm1 is linear for objects of a cell's size and exponential for large ones, where relative error matters.
        # It can be negative, for a box that does not contain its cell's center.
        distances = torch.expm1(self.box_head(x).float().clamp(max=7)) * self.stride
        return Outputs(self.heatmap_head(x).float(), distances)
