"""Boxes to targets and outputs to detections: `encode` and `decode`, inverse to each other.

The one place that says where a cell lies: cell (row, column) covers the input's pixels from stride * column to
stride * (column + 1), and its point is its center, stride * (column + 0.5). An object belongs to the cell that its
box's center falls into. Gaussians follow TTFNet (Liu et al. 2020, eq. 1-2): elliptic, a sixth of the covered side.

Shapes: M objects of a batch of B images, C classes, a grid of G x G cells, K detections a image.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

__all__ = ["Targets", "cell_centers", "decode", "encode"]

SPREAD = 0.54  # of a box's side that its Gaussian covers (TTFNet's alpha)


class Targets(NamedTuple):
    """What the network should say.

    heatmap: (B, C, G, G), 1 at an object's own cell. counted: (B, C, G, G) bool, False where the heatmap loss must
    look away. boxes: (B, G, G, 4) xyxy px of the input. weights: (B, G, G) of the box loss, 0 where no object is.
    num_objects: () float, objects that are trained on.
    """

    heatmap: Tensor
    counted: Tensor
    boxes: Tensor
    weights: Tensor
    num_objects: Tensor


def cell_centers(grid: int, stride: int, device: torch.device | None = None) -> Tensor:
    """The x (or y) of each column's (or row's) cell centers in input pixels, (G,)."""
    return (torch.arange(grid, device=device) + 0.5) * stride


def encode(
    boxes: Tensor,
    labels: Tensor,
    ignore: Tensor,
    image_index: Tensor,
    *,
    batch: int,
    num_classes: int,
    grid: int,
    stride: int,
) -> Targets:
    """Targets of a batch.

    Args:
        boxes: (M, 4) float xyxy px of the input.
        labels: (M,) int.
        ignore: (M,) bool, objects that are neither trained on nor background.
        image_index: (M,) int, the image in the batch.
        batch: B. num_classes: C. grid: G. stride: px of the input between cells.

    A cell's box is that of the object centered there, else of the smallest object whose Gaussian reaches it. Of two
    objects centered in one cell the smaller one stays.
    """
    device, count = boxes.device, len(boxes)
    heatmap = torch.zeros(batch * num_classes, grid * grid, device=device)
    hidden = torch.zeros(batch * num_classes, grid * grid, device=device)
    owner = torch.full((batch, grid * grid), -1, dtype=torch.long, device=device)
    if count:
        sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)  # (M, 2) px
        area = sides[:, 0] * sides[:, 1]
        cell = ((boxes[:, :2] + boxes[:, 2:]) / (2 * stride)).floor().clamp(0, grid - 1)  # (M, 2)
        radius = (sides / (2 * stride) * SPREAD).floor()  # (M, 2) cells
        away = torch.arange(grid, device=device) - cell[..., None]  # (M, 2, G)
        sigma = (2 * radius + 1) / 6
        bell = torch.exp(-(away**2) / (2 * sigma[..., None] ** 2)) * (away.abs() <= radius[..., None])
        gaussian = (bell[:, 1, :, None] * bell[:, 0, None, :]).flatten(1)  # (M, G * G)

        slot = (image_index * num_classes + labels)[:, None].expand_as(gaussian)
        heatmap.scatter_reduce_(0, slot[~ignore], gaussian[~ignore], "amax")
        centers = cell_centers(grid, stride, device)
        inside = (centers > boxes[:, :2, None]) & (centers < boxes[:, 2:, None])  # (M, 2, G)
        inside |= away == 0
        covered = (inside[:, 1, :, None] & inside[:, 0, None, :]).flatten(1)
        hidden.scatter_reduce_(0, slot[ignore], covered[ignore].float(), "amax")

        rank = torch.empty(count, dtype=torch.long, device=device)
        order = torch.argsort(area, descending=True, stable=True)
        rank[order] = torch.arange(count, device=device)  # the smallest object has the highest rank
        claim = torch.where(gaussian > 0, rank[:, None] + count * (gaussian == 1), -1)
        owner.scatter_reduce_(0, image_index[:, None].expand_as(claim)[~ignore], claim[~ignore], "amax")
        owner = torch.where(owner >= 0, order[owner % count], -1)

        # TTFNet's weight of a box (eq. 6): log(area), shared out over the cells as the Gaussian falls.
        picked = owner.clamp(min=0)
        share = gaussian / gaussian.sum(1, keepdim=True)
        weights = area.clamp(min=2).log()[picked] * share.gather(0, picked) * (owner >= 0)
        target_boxes = boxes[picked]
    else:
        weights = torch.zeros(batch, grid * grid, device=device)
        target_boxes = torch.zeros(batch, grid * grid, 4, device=device)
    shape = (batch, num_classes, grid, grid)
    counted = (hidden == 0) | (heatmap == 1)
    return Targets(
        heatmap.view(shape),
        counted.view(shape),
        target_boxes.view(batch, grid, grid, 4),
        weights.view(batch, grid, grid),
        (~ignore).sum().float(),
    )


def decode(heatmap: Tensor, distances: Tensor, *, stride: int, top_k: int = 100) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (B, K, 4) xyxy px of the input, scores (B, K) falling, labels (B, K) of the K highest peaks.

    Args: heatmap: (B, C, G, G) logits. distances: (B, 4, G, G) px. A peak is a cell that no neighbor of its class
    exceeds (Zhou et al. 2019, section 4); K = min(top_k, C * G * G).
    """
    grid = heatmap.shape[-1]
    peaks = torch.where(max_pool2d(heatmap, 3, 1, 1) == heatmap, heatmap, float("-inf")).flatten(1)
    logits, index = peaks.topk(min(top_k, peaks.shape[1]))
    labels, cell = index // (grid * grid), index % (grid * grid)
    around = distances.flatten(2).gather(2, cell[:, None].expand(-1, 4, -1)).transpose(1, 2)  # (B, K, 4)
    centers = cell_centers(grid, stride, heatmap.device)
    x, y = centers[cell % grid], centers[cell // grid]
    boxes = torch.stack([x, y, x, y], -1) + around * around.new_tensor([-1, -1, 1, 1])
    return boxes, logits.sigmoid(), labels
