"""Other ways to do it, for study.py: patches of the package, by the names that `ROWS` calls them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from centerdet import codec, images, models
from centerdet.boxes import iou_matrix
from centerdet.models.depthwise import Depthwise
from centerdet.models.neck import separable
from centerdet.models.network import Network, Outputs
from centerdet.training import loop as training
from centerdet.training import losses
from centerdet.training.augment import FILL, Augment, Example


class Flipped(Network):
    def forward(self, images: Tensor) -> Outputs:  # the mean of what is said of images and of their mirror images
        plain, mirror = super().forward(images), super().forward(images.flip(3))
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
    """Every image grows to a square to the right and below, so that resizing keeps its proportions."""
    load = images.load

    def load_square(*source: Any, **options: Any) -> NDArray[np.uint8]:
        image = load(*source, **options)
        missing = max(image.shape[:2]) - np.array(image.shape[:2])
        return np.pad(image, [(0, missing[0]), (0, missing[1]), (0, 0)], constant_values=FILL)

    images.load = load_square


class Pasting(Augment):
    def __call__(self, examples: Sequence[Example], size: int, rng: np.random.Generator) -> Example:
        """Instead of a mosaic: the first image with an object of each other one, box and all, at a free place."""
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


class Mixing(Augment):
    def __call__(self, examples: Sequence[Example], size: int, rng: np.random.Generator) -> Example:
        """Instead of a mosaic: the mean, weighted about alike, of two images with the objects of both (mixup)."""
        one, *others = (super(Mixing, self).__call__([example], size, rng) for example in examples[:2])
        for other in others:
            share = rng.beta(8, 8)
            image = np.rint(share * one.image + (1 - share) * other.image).astype(np.uint8)
            boxes, labels, ignore = (np.concatenate([one[field], other[field]]) for field in (1, 2, 3))
            one = Example(image, boxes, labels, ignore)
        return one


def l1_loss(heatmap: Tensor, distances: Tensor, targets: codec.Targets, stride: int) -> tuple[Tensor, Tensor]:
    """CenterNet's box loss, weights 1 and 0.1, with offset and size taken from the four distances."""
    image, row, column = (targets.heatmap == 1).any(1).nonzero(as_tuple=True)
    grid = heatmap.shape[-1]
    x, y = (codec.cell_centers(grid, stride)[i] for i in (column, row))
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
    "mix": lambda: setattr(training, "Augment", Mixing),
    "narrow": lambda: setattr(codec, "SPREAD", 0.3),
    "wide": lambda: setattr(codec, "SPREAD", 0.8),
}
