"""Boxes to training targets and network outputs to boxes: `encode` and `decode`, inverse to each other.

Only this file defines the grid: cell (row, column) covers the input's pixels from stride * column to
stride * (column + 1), and its reference point is its center, stride * (column + 0.5). An object belongs to the cell
that contains the center of its box. Gaussians are as in TTFNet (Liu et al. 2020, eq. 1-2): elliptic, with a sigma of a
sixth of the side.

Shapes: M objects in a batch of B images, C classes, a grid of G x G cells, K detections per image.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

__all__ = ["Targets", "cell_centers", "decode", "encode"]

SPREAD = 0.54  # share of a box's side that its Gaussian covers (TTFNet's alpha)


class Targets(NamedTuple):
    """Training targets of a batch.

    heatmap: (B, C, G, G), 1 at an object's center cell. valid_mask: (B, C, G, G) bool, False where the heatmap loss
    ignores the cell. boxes: (B, G, G, 4) xyxy px of the input. weights: (B, G, G) of the box loss, 0 for cells without
    a box. num_objects, total_weight: () float, the divisors of the heatmap loss and the box loss.
    """

    heatmap: Tensor
    valid_mask: Tensor
    boxes: Tensor
    weights: Tensor
    num_objects: Tensor
    total_weight: Tensor


class _Windows(NamedTuple):
    """The T cells of rectangular windows, window by window: object (T,), row (T,), and column (T,) of each cell."""

    owner: Tensor
    row: Tensor
    column: Tensor


def cell_centers(grid: int, stride: int, device: torch.device | None = None) -> Tensor:
    """The x coordinates of the columns' centers in px of the input, (G,); equal to the y coordinates of the rows'."""
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
    labeled: Tensor | None = None,
) -> Targets:
    """Targets of a batch; computed only on cells that a Gaussian or an ignored box covers.

    Args:
        boxes: (M, 4) float xyxy px of the input.
        labels: (M,) int.
        ignore: (M,) bool, objects that are neither trained on nor background.
        image_index: (M,) int, index of the object's image in the batch.
        batch: B. num_classes: C. grid: G. stride: px of the input between cells.
        labeled: (B, C) bool, the classes that are annotated on each image; the others are ignored there. None: all.

    A cell's box is that of the object centered there, else of the smallest object whose Gaussian reaches it. If two
    objects are centered in one cell, the smaller one is used.
    """
    cells = grid * grid
    plane = image_index * num_classes + labels  # index of the object's heatmap, of B * C
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    area = sides[:, 0] * sides[:, 1]
    center = ((boxes[:, :2] + boxes[:, 2:]) / (2 * stride)).floor().clamp(0, grid - 1).long()  # (M, 2) column, row
    radius = (sides / (2 * stride) * SPREAD).floor().long()
    variance = ((2 * radius + 1) / 6) ** 2

    def gaussian(owner: Tensor, row: Tensor, column: Tensor) -> Tensor:
        offset = torch.stack([column, row], 1) - center[owner]
        return torch.exp(-(offset**2 / (2 * variance[owner])).sum(1))

    rows = (~ignore).nonzero()[:, 0]
    covered = _windows(rows, (center - radius).clamp(min=0), (center + radius).clamp(max=grid - 1))
    value = gaussian(*covered)
    cell = covered.row * grid + covered.column
    heatmap = torch.zeros(batch * num_classes * cells)
    heatmap.scatter_reduce_(0, plane[covered.owner] * cells + cell, value, "amax")

    # The heatmap loss ignores the cells whose centers an ignored box covers, and the cell of the box's center.
    first = ((boxes[:, :2] / stride - 0.5).floor().long() + 1).clamp(min=0)
    last = ((boxes[:, 2:] / stride - 0.5).ceil().long() - 1).clamp(max=grid - 1)
    hiding = _windows(ignore.nonzero()[:, 0], torch.minimum(first, center), torch.maximum(last, center))
    valid = torch.ones(batch, num_classes, cells, dtype=torch.bool) if labeled is None else labeled[..., None]
    valid = valid.repeat(1, 1, cells // valid.shape[2]).flatten()
    valid[plane[hiding.owner] * cells + hiding.row * grid + hiding.column] = False

    # The owner of a cell is the object with the highest priority there. Objects are ranked from the largest (0) to the
    # smallest (M - 1), and M is added for an object that is centered in the cell. Example with M = 3: the middle object
    # has priority 1 where its Gaussian reaches and 1 + 3 in its center cell, above every rank. Rank = priority % M.
    order = torch.argsort(area, descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    priority = rank[covered.owner] + len(order) * (cell == (center[:, 1] * grid + center[:, 0])[covered.owner])
    best = torch.full((batch * cells,), -1, dtype=torch.long)
    best.scatter_reduce_(0, image_index[covered.owner] * cells + cell, priority, "amax")
    owned = (best >= 0).nonzero()[:, 0]
    owner = order[best[owned] % max(1, len(order))]

    # TTFNet's weight of a box (eq. 6): log(area), distributed over the object's cells in proportion to its Gaussian.
    total = torch.zeros(len(boxes)).index_add_(0, covered.owner, value)
    share = gaussian(owner, owned % cells // grid, owned % grid) / total[owner]
    weights = torch.zeros(batch * cells)
    weights[owned] = area[owner].clamp(min=2).log() * share
    targets = torch.zeros(batch * cells, 4)
    targets[owned] = boxes[owner].float()

    shape = (batch, num_classes, grid, grid)
    heatmap = heatmap.view(shape)
    num_objects = torch.tensor(float(len(rows)))
    return Targets(
        heatmap,
        valid.view(shape) | (heatmap == 1),
        targets.view(batch, grid, grid, 4),
        weights.view(batch, grid, grid),
        num_objects,
        weights.sum(),
    )


def _windows(objects: Tensor, first: Tensor, last: Tensor) -> _Windows:
    """The cells from first (M, 2) to last (M, 2), both (column, row) and inclusive, for the object indices (N,)."""
    first, sides = first[objects], last[objects] - first[objects] + 1
    count = sides.prod(1)
    position = torch.repeat_interleave(count)  # row of `objects` that each cell belongs to
    number = torch.arange(len(position)) - (count.cumsum(0) - count)[position]
    width = sides[position, 0]
    return _Windows(objects[position], first[position, 1] + number // width, first[position, 0] + number % width)


def decode(heatmap: Tensor, distances: Tensor, *, stride: int, top_k: int = 100) -> tuple[Tensor, Tensor, Tensor]:
    """The K highest peaks as boxes (B, K, 4) xyxy px of the input, descending scores (B, K), and labels (B, K).

    heatmap: (B, C, G, G) logits. distances: (B, 4, G, G) px. A peak is a cell without a higher neighbor in its class
    (Zhou et al. 2019, section 4); K = min(top_k, C * G * G).
    """
    grid = heatmap.shape[-1]
    peaks = torch.where(max_pool2d(heatmap, 3, 1, 1) == heatmap, heatmap, float("-inf")).flatten(1)
    logits, index = peaks.topk(min(top_k, peaks.shape[1]))
    labels, cell = index // (grid * grid), index % (grid * grid)
    sides = distances.flatten(2).gather(2, cell[:, None].expand(-1, 4, -1)).transpose(1, 2)  # (B, K, 4)
    centers = cell_centers(grid, stride, heatmap.device)
    x, y = centers[cell % grid], centers[cell // grid]
    boxes = torch.stack([x, y, x, y], -1) + sides * sides.new_tensor([-1, -1, 1, 1])
    return boxes, logits.sigmoid(), labels
