"""A depthwise convolution with a fast weight gradient on a CPU.

The gradient of a depthwise kernel is itself a depthwise convolution: the input is convolved with the output's gradient
as the kernel and the stride as its dilation. For kernels larger than 3 x 3, this takes a quarter to a half of PyTorch's
time, image by image (scripts/benchmark_training.py).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

__all__ = ["Depthwise"]


class Depthwise(nn.Conv2d):
    """A convolution per channel, with the same weights and output as
    `nn.Conv2d(channels, channels, kernel, stride, padding, groups=channels, bias=False)`."""

    def __init__(self, channels: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__(channels, channels, kernel, stride, padding, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H', W')."""
        quick = self.kernel_size[0] > 3 and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
        if quick and self.weight.requires_grad and torch.is_grad_enabled():
            out: Tensor = _Convolution.apply(x, self.weight, self.stride[0], self.padding[0])
            return out
        return super().forward(x)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return conv2d(x, weight, None, stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        into, *_ = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, [ctx.stride] * 2, [ctx.padding] * 2, [1, 1], False, [0, 0], len(weight),
            (ctx.needs_input_grad[0], False, False),
        )  # fmt: skip
        kernel = torch.zeros_like(weight)  # (C, 1, K, K)
        high, wide = kernel.shape[2:]  # a stride may leave the last rows and columns of x unused: they are cut off
        for image, change in zip(x.split(1), gradient, strict=True):
            part = conv2d(image, change[:, None], None, 1, ctx.padding, ctx.stride, len(weight))
            kernel += part.transpose(0, 1)[:, :, :high, :wide]
        return into, kernel, None, None
