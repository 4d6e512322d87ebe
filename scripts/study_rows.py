"""What the study changes, row by row, for study.py: fields of the training, or a patch of the package."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from centerdet import codec, images, losses, models, training
from centerdet.boxes import iou_matrix
from centerdet.data.augment import FILL, Augment, Example
from centerdet.models.depthwise import Depthwise
from centerdet.models.neck import separable
from centerdet.models.network import Network, Outputs

ROWS: dict[str, dict[str, Any]] = {
    "the recipe": {},
    "box loss: L1 on offset and size at the centre cell": {"patch": "l1"},
    "freeze 2": {"freeze": 2},
    "freeze 4": {"freeze": 4},
    "both rates x 2": {"lr": 5e-3, "backbone_lr": 2e-3},
    "both rates x 0.5": {"lr": 1.25e-3, "backbone_lr": 5e-4},
    "backbone rate = head rate": {"backbone_lr": 2.5e-3},
    "backbone rate x 0.4": {"backbone_lr": 4e-4},
    "SGD, 0.02 and 0.008": {"optimizer": "sgd", "lr": 0.02, "backbone_lr": 0.008, "weight_decay": 1e-4},
    "no mosaic": {"mosaic": 0.0},
    "no class balance": {"balance": 0.0},
    "zoom 0.7 to 1.4": {"zoom": (0.7, 1.4)},
    "zoom 0.35 to 2.5": {"zoom": (0.35, 2.5)},
    "no colour": {"colour": 0.0},
    "Gaussian over 0.3 of a side": {"patch": "narrow"},
    "Gaussian over 0.8 of a side": {"patch": "wide"},
    "freeze 0": {"freeze": 0},
    "freeze 1": {"freeze": 1},
    "stride 4": {"stride": 4},
    "no averaging of the weights": {"ema": 0.0},
    "sizes 128, 192, 192": {"sizes": (128, 192, 192)},
    "5 x 5 depthwise in neck and heads": {"patch": "five"},
    "letterbox": {"patch": "letterbox"},
    "copy-paste instead of mosaics": {"patch": "paste"},
}


class Flipped(Network):
    def forward(self, pictures: Tensor) -> Outputs:  # the mean of what is said of pictures and of their mirror images
        plain, mirror = super().forward(pictures), super().forward(pictures.flip(3))
        heatmap = torch.logit((plain.heatmap.sigmoid() + mirror.heatmap.flip(3).sigmoid()) / 2)
        return Outputs(heatmap, (plain.distances + mirror.distances.flip(3)[:, [2, 1, 0, 3]]) / 2)


def widen() -> None:
    def five(inputs: int, outputs: int) -> nn.Sequential:
        layers = separable(inputs, outputs)
        layers[0] = Depthwise(inputs, 5, padding=2)
        return layers

    for module in (models.network, models.neck):
        vars(module)["separable"] = five


def letterbox() -> None:
    """Every picture grows to a square to the right and below, so that resizing keeps its proportions."""
    load = images.load

    def load_square(*source: Any, **options: Any) -> NDArray[np.uint8]:
        picture = load(*source, **options)
        missing = max(picture.shape[:2]) - np.array(picture.shape[:2])
        return np.pad(picture, [(0, missing[0]), (0, missing[1]), (0, 0)], constant_values=FILL)

    images.load = load_square


class Pasting(Augment):
    def __call__(self, examples: Sequence[Example], size: int, rng: np.random.Generator) -> Example:
        """Instead of a mosaic: the first picture with an object of each other one, box and all, at a free place."""
        whole, *others = examples
        image, rows = whole.image.copy(), [whole]
        for other in others:
            if not len(other.boxes):
                continue
            which = rng.integers(len(other.boxes))
            left, top, right, bottom = np.rint(other.boxes[which]).astype(int)
            part = other.image[top:bottom, left:right]
            room = np.array(image.shape[:2]) - part.shape[:2]
            if min(*part.shape[:2], *room) < 1:
                continue
            y, x = rng.integers(0, room)
            box = np.array([[x, y, x + part.shape[1], y + part.shape[0]]], np.float32)
            if iou_matrix(box, np.concatenate([row.boxes for row in rows])).max(initial=0) < 0.1:
                image[y : y + part.shape[0], x : x + part.shape[1]] = part
                rows.append(Example(part, box, other.labels[which : which + 1], other.ignore[which : which + 1]))
        boxes, labels, ignore = (np.concatenate([row[field] for row in rows]) for field in (1, 2, 3))
        return super().__call__([Example(image, boxes, labels, ignore)], size, rng)


def l1_loss(heatmap: Tensor, distances: Tensor, targets: codec.Targets, stride: int) -> tuple[Tensor, Tensor]:
    """CenterNet's box loss, weights 1 and 0.1, with offset and size taken from the four distances."""
    image, row, column = (targets.heatmap == 1).any(1).nonzero(as_tuple=True)
    grid = heatmap.shape[-1]
    x, y = (codec.cell_centres(grid, stride)[i] for i in (column, row))
    left, top, right, bottom = distances[image, :, row, column].unbind(1)
    x1, y1, x2, y2 = targets.boxes[image, row, column].unbind(1)
    error = torch.stack([x - left - x1, y - top - y1, x + right - x2, y + bottom - y2]).view(2, 2, -1)  # px
    offset, size = error.sum(0) / 2, error[1] - error[0]
    box = (offset.abs().sum() + 0.1 * size.abs().sum()) / stride / max(1, len(image))
    return losses.heatmap_loss(heatmap, targets.heatmap, targets.counted, targets.num_objects), box


PATCHES: dict[str, Callable[[], None]] = {
    "l1": lambda: setattr(training, "detection_loss", l1_loss),
    "five": widen,
    "letterbox": letterbox,
    "paste": lambda: setattr(training, "Augment", Pasting),
    "narrow": lambda: setattr(codec, "SPREAD", 0.3),
    "wide": lambda: setattr(codec, "SPREAD", 0.8),
}
