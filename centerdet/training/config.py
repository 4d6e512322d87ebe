"""`TrainConfig`: every knob of a training, and presets by the number of images. Needs no torch.

The command line's options, the Python call and the JSON in the weights file are all made from its fields.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Annotated, Any, get_args, get_type_hints

from ..errors import ConfigError

__all__ = ["PRESETS", "TrainConfig"]

PRESETS: dict[str, tuple[int, dict[str, Any]]] = {
    "small": (200, {"epochs": 40.0, "batch": 8, "freeze": 4, "mosaic": 0.5}),
    "medium": (2_000, {}),
    "large": (20_000, {"epochs": 15.0, "freeze": 2, "zoom": (0.4, 2.0), "validate": 3}),
}
"""For about how many training images, and the fields that differ from the defaults: starting points."""

FREE = {"out", "validate", "patience", "save", "workers", "keep", "threads", "device", "tensorboard"}
"""Fields that a resumed run may change: images, rates and what validation compares at a step do not follow from them
(with other threads or another device, sums are rounded otherwise, and weights are alike but not bit for bit)."""


@dataclass(frozen=True)
class TrainConfig:
    """Every knob of a training, with its unit or its why."""

    data: Annotated[str, "folder or file of the dataset, in any format that is read"]
    out: Annotated[str, "folder of the run"]
    train: Annotated[tuple[str, ...], "splits to train on"] = ("train",)
    val: Annotated[tuple[str, ...], "splits to validate on; an empty word, '': no validation"] = ("val",)
    names: Annotated[tuple[str, ...], "classes to keep, in their order; empty: all of the dataset's"] = ()

    backbone: Annotated[
        str, "efficientnet_lite0, resnet18, resnet34, resnet50, vgg16, vgg16_bn or mobilenet_v3_large"
    ] = "efficientnet_lite0"
    backbone_weights: Annotated[str, "'imagenet' (on this machine), 'download', 'none', or a file"] = "imagenet"
    start: Annotated[str, "detector weights to begin from (a name or a file) instead of the backbone's alone"] = ""
    freeze: Annotated[int, "stages that stay as they are, the stem first: early ones hold what every image needs"] = 3
    stride: Annotated[int, "px between the cells of the output"] = 8
    channels: Annotated[int, "of neck and heads"] = 96

    epochs: Annotated[float, "passes through the training images"] = 60.0
    batch: Annotated[int, "images a step"] = 16
    sizes: Annotated[tuple[int, ...], "input px, each for an equal share of the steps; small is fast"] = (
        192,
        256,
        320,
        320,
    )
    optimizer: Annotated[str, "'adamw', 'adam', or 'sgd' (with momentum)"] = "adamw"
    lr: Annotated[float, "of neck and heads"] = 2.5e-3
    backbone_lr: Annotated[float, "of the backbone: it knows much already"] = 1e-3
    weight_decay: Annotated[float, "of convolution weights"] = 0.02
    warmup: Annotated[int, "steps of rising rate, while the heads are still random"] = 200
    clip: Annotated[float, "largest norm of the gradient"] = 10.0
    ema: Annotated[float, "decay a step of the averaged weights, which are the ones that are kept"] = 0.9995

    augment: Annotated[str, "'full', or 'none': no crop, zoom, stretch, flip, color, mosaic, but as at prediction"] = (
        "full"
    )
    zoom: Annotated[tuple[float, float], "two numbers: the least and the largest scale; 1: as it is"] = (0.5, 1.8)
    aspect: Annotated[float, "stretch of width against height"] = 1.3
    color: Annotated[float, "strength of color changes"] = 0.4
    mosaic: Annotated[float, "share of inputs made of four images: many objects from few images, but small …"] = 0.0
    plain_end: Annotated[float, "… which ends for this last share of the steps"] = 0.15
    balance: Annotated[float, "how much more often images with rare classes are drawn, 0 (not) to 1"] = 0.5

    validate: Annotated[int, "epochs between validations"] = 10
    patience: Annotated[int, "validations without a better one before stopping early; 0: never"] = 0
    save: Annotated[int, "steps between training states"] = 250
    seed: Annotated[int, "of every random draw"] = 0
    workers: Annotated[int, "processes that prepare images"] = 0
    keep: Annotated[bool, "keep decoded images in memory"] = True
    threads: Annotated[int, "of torch; 0: as many as it likes"] = 0
    device: Annotated[str, "'cpu', 'cuda'; empty: CUDA where there is one"] = ""
    tensorboard: Annotated[bool, "write scalars, precision-recall curves and images to the folder tensorboard"] = False

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(TrainConfig).items():
            value, inner = getattr(self, name), get_args(kind)
            row, one = (value, inner[0]) if inner else ((value,), kind)
            wanted = (int, float) if one is float else one
            fits = isinstance(row, tuple | list) and all(isinstance(item, wanted) for item in row)
            if not fits or (inner and ... not in inner and len(row) != len(inner)):
                raise ConfigError(f"{name}: want {kind if inner else kind.__name__}, got {value!r}")
        ranges = {
            **dict.fromkeys(("ema", "mosaic", "plain_end", "color"), (0, 1)),
            **dict.fromkeys(("batch", "validate", "save", "aspect"), (1, math.inf)),
            **dict.fromkeys(("epochs", "lr", "backbone_lr", "balance"), (0, math.inf)),
            **dict.fromkeys(("workers", "threads", "warmup", "patience", "weight_decay", "clip"), (0, math.inf)),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name}: want {low} to {high}, got {getattr(self, name)}")
        if self.epochs == 0:
            raise ConfigError("epochs: want more than 0")
        if not 0 < self.zoom[0] <= self.zoom[1]:
            raise ConfigError(f"zoom: want the least scale above 0, then the largest, got {self.zoom}")
        if self.start and self.backbone_weights not in ("imagenet", "none"):
            raise ConfigError(f"backbone_weights: {self.backbone_weights} is not used beside start, which holds all")
        if not self.sizes or any(size < 32 or size % 32 for size in self.sizes):
            raise ConfigError(f"sizes: want multiples of 32 px, got {list(self.sizes)}")
        if self.optimizer not in ("adamw", "adam", "sgd"):
            raise ConfigError(f'optimizer: want "adamw", "adam" or "sgd", got {self.optimizer!r}')
        if self.augment not in ("full", "none"):
            raise ConfigError(f'augment: want "full" or "none", got {self.augment!r}')

    @classmethod
    def of(cls, *, preset: str = "medium", **options: Any) -> "TrainConfig":
        """A config from a preset ("small", "medium", "large", or "auto": that nearest to the number of training
        images) and options, which win over it; one that does not exist is an error that names the nearest."""
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                near = get_close_matches(name, known, 1)
                raise ConfigError(
                    f"{name}: no such option" + (f"; did you mean {near[0]}?" if near else f" of {', '.join(known)}")
                )
        values: dict[str, Any] = {key: _row(value) for key, value in options.items()}
        if preset == "auto":
            from ..data.formats import read_dataset

            plain = cls(**values)
            count = len(read_dataset(plain.data, plain.train))
            preset = min(PRESETS, key=lambda name: abs(math.log(max(1, count) / PRESETS[name][0])))
        if preset not in PRESETS:
            raise ConfigError(f"preset: want {', '.join(PRESETS)} or auto, got {preset!r}")
        return cls(**{**PRESETS[preset][1], **values})

    def changed_from(self, before: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
        """(field, before, now) where a stored config differs in what a resumed run depends on; a field that it does
        not know had its default."""
        held = {field.name: field.default for field in fields(self)} | dict(before)
        rows = ((name, held[name], now) for name, now in asdict(self).items() if name not in FREE)
        return [(name, old, now) for name, old, now in rows if _row(old) != _row(now)]

    @property
    def model(self) -> dict[str, Any]:
        """What rebuilds the network, beside its classes."""
        return {"backbone": self.backbone, "stride": self.stride, "channels": self.channels, "freeze": self.freeze}


def _row(value: Any) -> Any:
    """JSON and the command line know lists only; an empty word among their items says nothing."""
    return tuple(item for item in value if item != "") if isinstance(value, tuple | list) else value
