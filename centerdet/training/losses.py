"""The two losses: penalty-reduced focal loss on the heatmap, weighted GIoU on the boxes."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from torchvision.ops import generalized_box_iou_loss

from ..codec import Targets, cell_centers

__all__ = ["box_loss", "detection_loss", "heatmap_loss"]

BOX_WEIGHT = 5.0  # of the box loss beside the heatmap's (TTFNet)


def heatmap_loss(logits: Tensor, heatmap: Tensor, counted: Tensor, num_objects: Tensor) -> Tensor:
    """Penalty-reduced focal loss (Zhou et al. 2019, eq. 1, alpha 2, beta 4), a sum divided by the objects.

    logits, heatmap (B, C, G, G); counted (B, C, G, G) bool, cells that take part; num_objects ().
    """
    chance = logits.sigmoid()
    positive = heatmap == 1
    hit = (1 - chance) ** 2 * logsigmoid(logits)
    miss = (1 - heatmap) ** 4 * chance**2 * logsigmoid(-logits)
    return -(torch.where(positive, hit, miss) * counted).sum() / num_objects.clamp(min=1)


def box_loss(distances: Tensor, boxes: Tensor, weights: Tensor, stride: int) -> Tensor:
    """GIoU loss of the cells that own an object, averaged by their weights; 0 without objects.

    distances (B, 4, G, G) px from the cell's center to its sides; boxes (B, G, G, 4) px; weights (B, G, G).
    """
    image, row, column = weights.nonzero(as_tuple=True)
    centers = cell_centers(weights.shape[-1], stride, distances.device)
    left, top, right, bottom = distances[image, :, row, column].unbind(1)
    x, y = centers[column], centers[row]
    # A prediction may be inverted while it learns: its sides are then taken as one point.
    x1, y1 = x - left, y - top
    predicted = torch.stack([x1, y1, torch.maximum(x + right, x1), torch.maximum(y + bottom, y1)], 1)
    weight = weights[image, row, column]
    loss: Tensor = generalized_box_iou_loss(predicted, boxes[image, row, column], reduction="none")
    return (loss * weight).sum() / weight.sum().clamp(min=1e-6)


def detection_loss(heatmap: Tensor, distances: Tensor, targets: Targets, stride: int) -> tuple[Tensor, Tensor]:
    """The heatmap part and the weighted box part; what is minimized is their sum."""
    return (
        heatmap_loss(heatmap, targets.heatmap, targets.counted, targets.num_objects),
        BOX_WEIGHT * box_loss(distances, targets.boxes, targets.weights, stride),
    )
