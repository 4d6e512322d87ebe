"""EfficientNet-Lite (Tan & Le 2019; the Lite variants: no squeeze-and-excite, ReLU6, a fixed stem).

Layers are in the order of the TensorFlow weights that were ported to PyTorch, so the weights are assigned by position.
"""

import math

from torch import Tensor, nn
from torch.nn.functional import pad

from ..errors import WeightsError
from .depthwise import Depthwise

__all__ = ["LITE", "STEM", "InvertedResidual", "lite_stages", "lite_table", "name_by_order"]

STEM = 32  # channels, in every variant
LITE = (  # of Lite0: repeats, channels, kernel, stride, expansion
    (1, 16, 3, 1, 1),
    (2, 24, 3, 2, 6),
    (2, 40, 5, 2, 6),
    (3, 80, 3, 2, 6),
    (3, 112, 5, 1, 6),
    (4, 192, 5, 2, 6),
    (1, 320, 3, 1, 6),
)


def lite_table(width: float = 1.0, depth: float = 1.0) -> list[tuple[int, ...]]:
    """`LITE` scaled: channels rounded to multiples of 8, repeats rounded up except in the first and the last stage."""
    ends = (0, len(LITE) - 1)
    return [
        (repeats if row in ends else math.ceil(repeats * depth), int(channels * width + 4) // 8 * 8, *others)
        for row, (repeats, channels, *others) in enumerate(LITE)
    ]


def lite_stages(table: list[tuple[int, ...]]) -> list[nn.Module]:
    """The stem, then one module per row of the table."""
    stages: list[nn.Module] = [nn.Sequential(*_conv(3, STEM, 3, 2))]
    inputs = STEM
    for repeats, channels, kernel, stride, expansion in table:
        blocks = [InvertedResidual(inputs, channels, kernel, stride, expansion)]
        blocks += [InvertedResidual(channels, channels, kernel, 1, expansion) for _ in range(repeats - 1)]
        stages.append(nn.Sequential(*blocks))
        inputs = channels
    return stages


def _conv(
    inputs: int, outputs: int, kernel: int, stride: int, depthwise: bool = False, act: bool = True
) -> list[nn.Module]:
    """Convolution, BatchNorm and activation. At stride 2, TensorFlow's SAME padding is only at the right and bottom. A
    kernel with a zero row on top and a zero column at the left (3 to 4, 5 to 6) gives the same numbers without a padded
    copy of the image."""
    kernel, padding = (kernel + 1, kernel // 2) if stride == 2 else (kernel, kernel // 2)
    layers: list[nn.Module] = [
        Depthwise(outputs, kernel, stride, padding)
        if depthwise
        else nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01),
    ]
    return [*layers, nn.ReLU6(inplace=True)] if act else layers


class InvertedResidual(nn.Sequential):
    """Expand, depthwise, project; with a shortcut if the shape does not change."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        hidden = inputs * expansion
        expand = _conv(inputs, hidden, 1, 1) if expansion > 1 else []
        super().__init__(
            *expand, *_conv(hidden, hidden, kernel, stride, depthwise=True), *_conv(hidden, outputs, 1, 1, act=False)
        )
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return x + out if self.shortcut else out


def name_by_order(state: dict[str, Tensor], model: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename ported TensorFlow weights, which are in forward order, to the model's keys; the classifier after the last
    stage is left out."""
    named: dict[str, Tensor] = {}
    for (key, value), (name, target) in zip(state.items(), model.items(), strict=False):
        if key.rsplit(".", 1)[1] != name.rsplit(".", 1)[1]:
            raise WeightsError(f"EfficientNet-Lite weights: expected {name}, got {key}")
        if value.ndim == 4 and value.shape[-1] + 1 == target.shape[-1]:
            value = pad(value, (1, 0, 1, 0))  # see _conv
        named[name] = value
    return named
