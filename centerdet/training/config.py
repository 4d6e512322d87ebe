"""`TrainConfig`: every option of a training run, and presets by the number of images. Needs no torch.

Its fields define the options of the command line, the arguments in Python, and the JSON in the weights file.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import PurePath
from typing import Annotated, Any, get_args, get_type_hints

from ..errors import ConfigError
from ..text import nearest

__all__ = ["PRESETS", "TrainConfig"]

PRESETS: dict[str, tuple[int, dict[str, Any]]] = {
    "small": (200, {"epochs": 40.0, "batch": 8, "freeze": 4}),
    "medium": (2_000, {}),
    "large": (20_000, {"epochs": 15.0, "freeze": 2, "zoom": (0.4, 2.0), "val_every": 3}),
}
"""Starting points: the approximate number of training images, and the fields that differ from the defaults."""

FREE = {
    "batch", "cache_images", "checkpoint_every", "data", "device", "out", "patience", "tensorboard", "threads", "train",
    "val", "val_every", "workers",
}  # fmt: skip
"""Fields that a resumed run may change, since images, learning rates and validation scores do not depend on them.
(Other threads or another device change rounding, so weights are close but not equal bit for bit.) The location of the
data may change, but neither its content (data.json in the run's folder) nor the total batch of all processes."""


@dataclass(frozen=True)
class TrainConfig:
    """Every option of a training run, with its unit or reason."""

    data: Annotated[
        tuple[str, ...],
        "folder or file of a dataset in any supported format, PATH or PATH=SPLIT,SPLIT (repeatable)",
    ]
    out: Annotated[str, "folder of the run"]
    train: Annotated[tuple[str, ...], "splits to train on, for datasets given without splits (repeatable)"] = ("train",)
    val: Annotated[tuple[str, ...], "splits of the first dataset to validate on (repeatable); pass '' for none"] = (
        "val",
    )
    names: Annotated[tuple[str, ...], "classes in their order (repeatable); default: all classes"] = ()
    shares: Annotated[tuple[float, ...], "share of the draws per dataset (repeatable); default: by image count"] = ()

    backbone: Annotated[
        str,
        "efficientnet_lite0, efficientnet_lite2, resnet18, resnet34, resnet50, vgg16, vgg16_bn or mobilenet_v3_large",
    ] = "efficientnet_lite0"
    backbone_weights: Annotated[str, "'imagenet' (on this machine), 'download', 'none', or a file"] = "imagenet"
    init_from: Annotated[str, "detector weights to start from (name or file); default: backbone weights only"] = ""
    freeze: Annotated[int, "number of frozen stages, from the stem: early features are the same for all data"] = 3
    stride: Annotated[int, "px between cells of the output grid"] = 8
    channels: Annotated[int, "channels of neck and heads"] = 96

    epochs: Annotated[float, "passes through the training images"] = 60.0
    batch: Annotated[int, "images per step and process"] = 16
    sizes: Annotated[tuple[int, ...], "input px (repeatable), each for an equal part of the steps"] = (
        192,
        256,
        320,
        320,
    )
    optimizer: Annotated[str, "'adamw', 'adam', or 'sgd' (with momentum)"] = "adamw"
    lr: Annotated[float, "learning rate of neck and heads"] = 2.5e-3
    backbone_lr: Annotated[float, "learning rate of the backbone, lower since it is pretrained"] = 1e-3
    weight_decay: Annotated[float, "weight decay of convolution weights"] = 0.02
    warmup: Annotated[int, "steps with increasing learning rate, while the heads are still random"] = 200
    grad_clip: Annotated[float, "maximum norm of the gradient; 0: off"] = 10.0
    ema: Annotated[float, "decay per step of the averaged weights, which validation and saving use"] = 0.9995

    augment: Annotated[str, "'full', or 'none': no crop, zoom, stretch, flip or color, as in prediction"] = "full"
    zoom: Annotated[tuple[float, float], "two numbers: the smallest and largest scale; 1: unchanged"] = (0.5, 1.8)
    aspect: Annotated[float, "maximum stretch of width relative to height; 1: off"] = 1.3
    color: Annotated[float, "strength of color changes"] = 0.4
    balance: Annotated[float, "how much more often images with rare classes are drawn, 0 (off) to 1"] = 0.5

    val_every: Annotated[int, "epochs between validations"] = 10
    patience: Annotated[int, "validations without improvement before stopping early; 0: off"] = 0
    checkpoint_every: Annotated[int, "steps between checkpoints"] = 250
    seed: Annotated[int, "seed of every random draw"] = 0
    workers: Annotated[int, "processes that prepare images"] = 0
    cache_images: Annotated[bool, "keep decoded images in memory, up to half of the free memory"] = True
    threads: Annotated[int, "CPU threads of PyTorch; 0: its default"] = 0
    device: Annotated[str, "'cpu' or 'cuda'; default: CUDA if available"] = ""
    tensorboard: Annotated[bool, "write scalars, precision-recall curves and images to the folder tensorboard"] = False

    def __post_init__(self) -> None:
        for name in ("data", "out", "init_from", "backbone_weights"):
            value = getattr(self, name)
            if name == "data" and isinstance(value, str | PurePath):
                value = (value,)
            if isinstance(value, tuple | list):
                value = tuple(str(item) if isinstance(item, PurePath) else item for item in value)
            object.__setattr__(self, name, str(value) if isinstance(value, PurePath) else value)
        for name, kind in get_type_hints(TrainConfig).items():
            value, inner = getattr(self, name), get_args(kind)
            row, one = (value, inner[0]) if inner else ((value,), kind)
            wanted = (int, float) if one is float else one
            fits = isinstance(row, tuple | list) and all(
                isinstance(item, wanted) and (one is bool or not isinstance(item, bool)) for item in row
            )
            if not fits or (inner and ... not in inner and len(row) != len(inner)):
                raise ConfigError(f"{name}: expected {kind if inner else kind.__name__}, got {value!r}")
        ranges = {
            **dict.fromkeys(("ema", "color"), (0, 1)),
            **dict.fromkeys(("batch", "val_every", "checkpoint_every", "aspect"), (1, math.inf)),
            **dict.fromkeys(("epochs", "lr", "backbone_lr", "balance", "seed", "freeze"), (0, math.inf)),
            **dict.fromkeys(("workers", "threads", "warmup", "patience", "weight_decay", "grad_clip"), (0, math.inf)),
            "channels": (1, 4096),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name}: expected {low} to {high}, got {getattr(self, name)}")
        if self.epochs == 0:
            raise ConfigError("epochs: expected more than 0, got 0")
        if not self.data:
            raise ConfigError("data: expected at least one dataset, got none")
        if not 0 < self.zoom[0] <= self.zoom[1] < math.inf:
            raise ConfigError(f"zoom: expected the smallest scale, above 0, then the largest, got {self.zoom}")
        if self.init_from and self.backbone_weights not in ("imagenet", "none"):
            raise ConfigError(f"backbone_weights: {self.backbone_weights} is not used: init_from sets all weights")
        if not self.sizes or any(size < 32 or size % 32 for size in self.sizes):
            raise ConfigError(f"sizes: expected multiples of 32 px, got {list(self.sizes)}")
        for name, choices in (
            ("optimizer", ("adamw", "adam", "sgd")),
            ("augment", ("full", "none")),
            ("stride", (4, 8)),
        ):
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name}: expected {' or '.join(map(repr, choices))}, got {getattr(self, name)!r}")

    @classmethod
    def of(cls, *, preset: str = "medium", **options: Any) -> "TrainConfig":
        """A config from a preset ("small", "medium", "large") and options, which override the preset.

        An unknown option is an error that names the nearest known one.
        """
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise ConfigError(f"{name}: no such option; {nearest(name, known)}")
        if preset not in PRESETS:
            raise ConfigError(f"preset: expected {', '.join(PRESETS)}, got {preset!r}")
        return cls(**{**PRESETS[preset][1], **{key: _row(value) for key, value in options.items()}})

    def changed_from(self, before: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
        """(field, before, now) for each field that differs from a stored config and that a resumed run depends on; a
        field missing in the stored config has its default."""
        stored = {field.name: field.default for field in fields(self)} | dict(before)
        rows = ((name, stored[name], now) for name, now in asdict(self).items() if name not in FREE)
        return [(name, old, now) for name, old, now in rows if _row(old) != _row(now)]

    @property
    def model(self) -> dict[str, Any]:
        """The arguments that rebuild the network, except its classes."""
        return {"backbone": self.backbone, "stride": self.stride, "channels": self.channels, "freeze": self.freeze}


def _row(value: Any) -> Any:
    """A list (JSON and the command line have no tuples) as a tuple without empty strings; other values unchanged."""
    return tuple(item for item in value if item != "") if isinstance(value, tuple | list) else value
