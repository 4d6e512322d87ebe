"""Folding: BatchNorm with fixed statistics is a scale and a shift per channel, so the preceding convolution takes both.

`fold` folds a whole network once, for prediction. `forward_folded` folds at each forward pass, for frozen stages during
training: a pass over the weights replaces one over the features, which are largest in the early stages.
"""

from collections.abc import Callable
from copy import copy
from itertools import pairwise
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from .efficientnet_lite import InvertedResidual

__all__ = ["fold", "forward_folded"]

Module = TypeVar("Module", bound=nn.Module)


def _folded_weights(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the single convolution that equals `norm(conv(x))` in evaluation mode."""
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    scale = norm.weight * (variance + norm.eps).rsqrt()
    shift = norm.bias - mean * scale
    return conv.weight * scale.view(-1, 1, 1, 1), shift if conv.bias is None else shift + conv.bias * scale


def _each(function: Callable[[Any], Any], members: dict[str, Any]) -> dict[str, Any]:
    """The results of a function by name; None stays None."""
    return {name: None if member is None else function(member) for name, member in members.items()}


def fold(module: Module) -> Module:
    """A copy in evaluation mode, without gradients, with every BatchNorm folded into the preceding convolution.

    A BatchNorm belongs to the convolution registered right before it in its parent, as in every backbone here.
    """
    folded = copy(module)  # shallow: a deep copy spends most of its time on the hooks of every layer
    folded.training = False
    folded._parameters = _each(lambda one: nn.Parameter(one.detach().clone(), False), module._parameters)
    folded._buffers = _each(torch.clone, module._buffers)
    folded._modules = _each(fold, module._modules)
    for (_, conv), (name, norm) in pairwise(list(folded.named_children())):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            weight, bias = _folded_weights(conv, norm)
            conv.weight, conv.bias = nn.Parameter(weight, False), nn.Parameter(bias, False)
            setattr(folded, name, nn.Identity())
    return folded


def forward_folded(module: nn.Module, x: Tensor) -> Tensor:
    """`module(x)` in evaluation mode, with BatchNorms folded in each `nn.Sequential`; without gradients."""
    with torch.no_grad():
        if not isinstance(module, nn.Sequential):
            result: Tensor = module(x)
            return result
        out, layers = x, list(module)
        for before, layer, after in zip([None, *layers], layers, [*layers[1:], None], strict=False):
            if isinstance(layer, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
                weight, bias = _folded_weights(layer, after)
                out = conv2d(out, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)
            elif not (isinstance(layer, nn.BatchNorm2d) and isinstance(before, nn.Conv2d)):
                out = forward_folded(layer, out)
        return x + out if isinstance(module, InvertedResidual) and module.shortcut else out
