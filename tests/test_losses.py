"""The losses equal a plain loop over cells, stay finite at the extremes, and have the gradients they claim."""

import math

import pytest
import torch
from torch import Tensor

from centerdet.codec import Targets, encode
from centerdet.training.losses import BOX_WEIGHT, box_loss, detection_loss, heatmap_loss

CLASSES, GRID, STRIDE = 2, 6, 8


def _targets(boxes: list[list[float]], ignore: tuple[int, ...] = (), batch: int = 1) -> Targets:
    count = len(boxes)
    return encode(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.arange(count) % CLASSES,
        torch.tensor([number in ignore for number in range(count)], dtype=torch.bool),
        torch.arange(count) % batch,
        batch=batch,
        num_classes=CLASSES,
        grid=GRID,
        stride=STRIDE,
    )


SCENES = {
    "two": [[4.0, 6.0, 30.0, 22.0], [20.0, 20.0, 44.0, 46.0]],
    "border": [[-5.0, -3.0, 9.0, 12.0], [40.0, 40.0, 60.0, 70.0], [0.0, 0.0, 48.0, 48.0]],
    "tiny": [[10.0, 10.0, 10.1, 10.1], [33.0, 17.0, 33.0, 17.0]],
    "none": [],
}


def _plain_heatmap(logits: Tensor, targets: Targets) -> float:
    total = 0.0
    for index in torch.cartesian_prod(*(torch.arange(side) for side in logits.shape)).tolist():
        logit, wanted = logits[tuple(index)].item(), targets.heatmap[tuple(index)].item()
        if not targets.valid_mask[tuple(index)]:
            continue
        chance = 1 / (1 + math.exp(-logit))
        if wanted == 1:
            total -= (1 - chance) ** 2 * math.log(chance)
        else:
            total -= (1 - wanted) ** 4 * chance**2 * math.log(1 - chance)
    return total / max(1.0, targets.num_objects.item())


def _plain_giou(first: list[float], second: list[float]) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    union = sum(areas) - shared
    hull = (max(first[2], second[2]) - min(first[0], second[0])) * (max(first[3], second[3]) - min(first[1], second[1]))
    return 1 - (shared / union - (hull - union) / hull)


def _plain_box(distances: Tensor, targets: Targets) -> float:
    total = weights = 0.0
    for image, row, column in torch.cartesian_prod(*(torch.arange(side) for side in targets.weights.shape)).tolist():
        weight = targets.weights[image, row, column].item()
        if weight == 0:
            continue
        x, y = (column + 0.5) * STRIDE, (row + 0.5) * STRIDE
        left, top, right, bottom = distances[image, :, row, column].tolist()
        predicted = [x - left, y - top, max(x + right, x - left), max(y + bottom, y - top)]
        total += weight * _plain_giou(predicted, targets.boxes[image, row, column].tolist())
        weights += weight
    return total / weights if weights else 0.0


def _outputs(batch: int, spread: float = 2.0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(4)
    logits = torch.randn(batch, CLASSES, GRID, GRID, generator=random, dtype=torch.float64) * spread
    distances = torch.randn(batch, 4, GRID, GRID, generator=random, dtype=torch.float64) * 6 + 9  # some are negative
    return logits, distances


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("batch", [1, 2])
def test_losses_equal_a_loop_over_cells(scene: str, batch: int) -> None:
    targets = _targets(SCENES[scene], ignore=(1,) if scene == "two" else (), batch=batch)
    logits, distances = _outputs(batch)
    heatmap, box = detection_loss(logits, distances, targets, STRIDE)
    assert heatmap.item() == pytest.approx(_plain_heatmap(logits, targets), rel=1e-6)
    assert box.item() == pytest.approx(BOX_WEIGHT * _plain_box(distances, targets), rel=1e-5)


def test_the_truth_costs_nothing() -> None:
    targets = _targets(SCENES["two"])
    points = (torch.arange(GRID) + 0.5) * STRIDE
    x, y = points.expand(GRID, GRID), points[:, None].expand(GRID, GRID)
    low, high = targets.boxes[0, ..., :2], targets.boxes[0, ..., 2:]
    distances = torch.stack([x - low[..., 0], y - low[..., 1], high[..., 0] - x, high[..., 1] - y])[None]
    assert box_loss(distances, targets.boxes, targets.weights, targets.total_weight, STRIDE) < 1e-5
    sure = torch.where(targets.heatmap == 1, 30.0, -30.0)
    assert heatmap_loss(sure, targets.heatmap, targets.valid_mask, targets.num_objects) < 1e-9


def test_what_is_ignored_costs_nothing() -> None:
    targets = _targets(SCENES["two"], ignore=(0, 1))
    logits, distances = (tensor.float().requires_grad_() for tensor in _outputs(1))
    heatmap, box = detection_loss(logits, distances, targets, STRIDE)
    (heatmap + box).backward()
    assert logits.grad is not None and not logits.grad[~targets.valid_mask].any()
    assert logits.grad[targets.valid_mask].any()
    assert box == 0


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("logit", [0.0, 90.0, -90.0, 1e4, -1e4, 1e30, -1e30])
@pytest.mark.parametrize("distance", [0.0, -1e3, 1e4])
def test_losses_and_gradients_are_finite(scene: str, logit: float, distance: float) -> None:
    targets = _targets(SCENES[scene])
    logits = torch.full((1, CLASSES, GRID, GRID), logit, requires_grad=True)
    distances = torch.full((1, 4, GRID, GRID), distance, requires_grad=True)
    heatmap, box = detection_loss(logits, distances, targets, STRIDE)
    (heatmap + box).backward()
    assert torch.isfinite(heatmap) and torch.isfinite(box) and heatmap >= 0 and box >= 0
    assert logits.grad is not None and torch.isfinite(logits.grad).all()
    assert distances.grad is not None and torch.isfinite(distances.grad).all()


def test_an_empty_image_still_teaches_background() -> None:
    targets = _targets([])
    logits, distances = (tensor.float().requires_grad_() for tensor in _outputs(1))
    heatmap, box = detection_loss(logits, distances, targets, STRIDE)
    (heatmap + box).backward()
    assert logits.grad is not None and (logits.grad > 0).all()
    assert box == 0


@pytest.mark.parametrize("scene", ["two", "border"])
def test_gradients_are_right(scene: str) -> None:
    targets = _targets(SCENES[scene])
    exact = targets._replace(
        heatmap=targets.heatmap.double(), boxes=targets.boxes.double(), weights=targets.weights.double()
    )
    logits, distances = (tensor.requires_grad_() for tensor in _outputs(1))
    torch.autograd.gradcheck(
        lambda values: heatmap_loss(values, exact.heatmap, exact.valid_mask, exact.num_objects.double()), logits
    )
    torch.autograd.gradcheck(
        lambda values: box_loss(values, exact.boxes, exact.weights, exact.total_weight, STRIDE), distances
    )


def test_a_class_that_is_not_labeled_on_an_image_gets_no_gradient_there() -> None:
    boxes = torch.tensor(SCENES["border"])
    labels, image_index = torch.tensor([0, 1, 0]), torch.tensor([0, 0, 1])
    labeled = torch.tensor([[True, True], [True, False]])
    targets = encode(
        boxes, labels, torch.zeros(3, dtype=torch.bool), image_index,
        batch=2, num_classes=2, grid=GRID, stride=STRIDE, labeled=labeled,
    )  # fmt: skip
    for spread in (2.0, 1e4):
        logits, distances = (tensor.requires_grad_() for tensor in _outputs(2, spread))
        heatmap, box = detection_loss(logits, distances, targets, STRIDE)
        (heatmap + box).backward()
        assert logits.grad is not None and torch.isfinite(logits.grad).all()
        assert (logits.grad[1, 1] == 0).all() and logits.grad[0, 1].any() and logits.grad[1, 0].any()


def test_boxes_elsewhere_get_no_gradient_whatever_is_there() -> None:
    targets = _targets(SCENES["two"])
    logits, distances = _outputs(1)
    distances[:, :, targets.weights[0] == 0] = 1e30
    distances.requires_grad_()
    sum(detection_loss(logits, distances, targets, STRIDE)).backward()
    assert distances.grad is not None and torch.isfinite(distances.grad).all()
    assert not distances.grad[:, :, targets.weights[0] == 0].any()
