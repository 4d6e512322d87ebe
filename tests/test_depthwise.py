"""The depthwise convolution equals PyTorch's own, forward and backward."""

import pytest
import torch
from torch import nn

from centerdet.models.depthwise import Depthwise


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "side"), [(3, 1, 1, 8), (5, 1, 2, 9), (6, 2, 2, 12), (6, 2, 2, 11), (4, 2, 1, 9)]
)
def test_outputs_and_gradients_are_those_of_pytorch(kernel: int, stride: int, padding: int, side: int) -> None:
    torch.manual_seed(0)
    ours = Depthwise(6, kernel, stride, padding).double()
    theirs = nn.Conv2d(6, 6, kernel, stride, padding, groups=6, bias=False).double()
    theirs.load_state_dict(ours.state_dict())
    image = torch.randn(3, 6, side, side + 2, dtype=torch.double).contiguous(memory_format=torch.channels_last)
    results = []
    for layer in (ours, theirs):
        x = image.clone().requires_grad_()
        out = layer(x)
        out.backward(torch.linspace(-1, 1, out.numel(), dtype=torch.double).view_as(out))
        results.append((out.detach(), x.grad, layer.weight.grad))
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-10)


def test_a_frozen_kernel_gets_no_gradient() -> None:
    layer = Depthwise(4, 5, 1, 2).requires_grad_(False)
    x = torch.randn(1, 4, 8, 8, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None and x.grad is not None


def test_half_precision_has_gradients_too() -> None:
    layer = Depthwise(4, 5, 1, 2)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(torch.randn(2, 4, 8, 8))
    out.float().sum().backward()
    assert out.dtype == torch.bfloat16
    assert layer.weight.grad is not None and torch.isfinite(layer.weight.grad).all() and layer.weight.grad.any()
