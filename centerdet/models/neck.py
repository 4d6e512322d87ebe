"""Top-down neck: deep features are upsampled and added to shallower ones, up to the output stride."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import interpolate

__all__ = ["Neck", "separable"]


def separable(inputs: int, outputs: int) -> nn.Sequential:
    """Depthwise 3x3 and pointwise convolution, each with BatchNorm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Neck(nn.Module):
    """Features, each at half the resolution of the one before, to one feature at the first resolution."""

    def __init__(self, inputs: Sequence[int], channels: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(
            nn.Sequential(nn.Conv2d(count, channels, 1, bias=False), nn.BatchNorm2d(channels)) for count in inputs
        )
        self.smooth = nn.ModuleList(separable(channels, channels) for _ in inputs)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """[(B, C_i, H / 2^i, W / 2^i)] to (B, channels, H, W)."""
        sides = [lateral(feature) for lateral, feature in zip(self.laterals, features, strict=True)]
        x: Tensor = self.smooth[-1](sides[-1])
        for side, smooth in zip(sides[-2::-1], list(self.smooth)[-2::-1], strict=True):
            x = smooth(side + interpolate(x, scale_factor=2.0, mode="nearest"))
        return x
