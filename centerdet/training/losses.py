"""The two losses: penalty-reduced focal loss on the heatmap, weighted GIoU on the boxes.

Each is a sum divided by a total from the targets, so that several processes can divide by the total of all of them.
Nothing here waits for a GPU: no count is read. Every cell is computed, with weight 0 where it is ignored.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from torchvision.ops import generalized_box_iou_loss

from ..codec import Targets, cell_centers

__all__ = ["box_loss", "detection_loss", "heatmap_loss"]

BOX_WEIGHT = 5.0  # of the box loss relative to the heatmap loss (TTFNet)


def heatmap_loss(logits: Tensor, heatmap: Tensor, valid_mask: Tensor, num_objects: Tensor) -> Tensor:
    """Penalty-reduced focal loss (Zhou et al. 2019, eq. 1, alpha 2, beta 4), divided by the number of objects.

    logits, heatmap (B, C, G, G); valid_mask (B, C, G, G) bool, False for ignored cells; num_objects ().
    """
    prob = logits.sigmoid()
    pos_loss = (1 - prob) ** 2 * logsigmoid(logits)
    neg_loss = (1 - heatmap) ** 4 * prob**2 * logsigmoid(-logits)
    loss = torch.where(heatmap == 1, pos_loss, neg_loss)
    return -torch.where(valid_mask, loss, 0.0).sum() / num_objects.clamp(min=1)


def box_loss(distances: Tensor, boxes: Tensor, weights: Tensor, total_weight: Tensor, stride: int) -> Tensor:
    """Weighted mean of the GIoU loss over cells that have a box; 0 without objects.

    distances (B, 4, G, G) px from the cell's center to its sides; boxes (B, G, G, 4) px; weights (B, G, G);
    total_weight ().
    """
    left, top, right, bottom = distances.unbind(1)
    centers = cell_centers(weights.shape[-1], stride, distances.device)
    x, y = centers[None, None, :], centers[None, :, None]
    # Early predictions may be inverted boxes: an inverted side is set to length 0.
    x1, y1 = x - left, y - top
    predicted = torch.stack([x1, y1, torch.maximum(x + right, x1), torch.maximum(y + bottom, y1)], -1)
    predicted = torch.where(weights[..., None] > 0, predicted, boxes)  # other cells get no gradient
    loss: Tensor = generalized_box_iou_loss(predicted, boxes, reduction="none")
    return (loss * weights).sum() / total_weight.clamp(min=1e-6)


def detection_loss(heatmap: Tensor, distances: Tensor, targets: Targets, stride: int) -> tuple[Tensor, Tensor]:
    """The heatmap loss and the weighted box loss; training minimizes their sum."""
    return (
        heatmap_loss(heatmap, targets.heatmap, targets.valid_mask, targets.num_objects),
        BOX_WEIGHT * box_loss(distances, targets.boxes, targets.weights, targets.total_weight, stride),
    )
