"""Encode and decode are inverse: every box whose center cell is its own comes back, whatever else is around."""

import pytest
import torch
from torch import Tensor

from centerdet.codec import Targets, cell_centers, decode, encode

CLASSES, GRID, STRIDE = 3, 20, 8
SIZE = GRID * STRIDE


def _encode(
    boxes: Tensor, labels: Tensor, ignore: Tensor | None = None, images: Tensor | None = None, batch: int = 1
) -> Targets:
    return encode(
        boxes,
        labels,
        torch.zeros(len(boxes), dtype=torch.bool) if ignore is None else ignore,
        torch.zeros(len(boxes), dtype=torch.long) if images is None else images,
        batch=batch,
        num_classes=CLASSES,
        grid=GRID,
        stride=STRIDE,
    )


def _perfect(targets: Targets) -> tuple[Tensor, Tensor]:
    """What a network that has learnt the targets says: heatmap logits and distances."""
    x = cell_centers(GRID, STRIDE)
    points = torch.stack([x.expand(GRID, GRID), x[:, None].expand(GRID, GRID)], -1)
    distances = torch.cat([points - targets.boxes[..., :2], targets.boxes[..., 2:] - points], -1)
    return (targets.heatmap * 30 - 15), distances.permute(0, 3, 1, 2).contiguous()


def _decode(targets: Targets, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    return decode(*_perfect(targets), stride=STRIDE, top_k=top_k)


def _random(count: int, seed: int, smallest: float = 0.5, largest: float = SIZE) -> tuple[Tensor, Tensor]:
    """Boxes with their centers in the image, some reaching over its borders, and labels."""
    random = torch.Generator().manual_seed(seed)
    sides = torch.exp(
        torch.empty(count, 2).uniform_(torch.tensor(smallest).log(), torch.tensor(largest).log(), generator=random)
    )
    centers = torch.rand(count, 2, generator=random) * SIZE
    boxes = torch.cat([centers - sides / 2, centers + sides / 2], 1)
    return boxes, torch.randint(CLASSES, (count,), generator=random)


def _cells(boxes: Tensor) -> Tensor:
    column, row = ((boxes[:, :2] + boxes[:, 2:]) / 2 / STRIDE).floor().clamp(0, GRID - 1).long().unbind(1)
    return row * GRID + column


def _alone(boxes: Tensor) -> Tensor:
    """Which boxes have their center cell for themselves."""
    cells = _cells(boxes)
    return (cells[:, None] == cells).sum(1) == 1


def _sorted(boxes: Tensor, labels: Tensor) -> Tensor:
    rows = torch.cat([labels[:, None].to(boxes), boxes], 1).double()
    order = _cells(boxes) * CLASSES + labels
    return rows[order.argsort()]


@pytest.mark.parametrize("seed", range(20))
def test_every_box_with_a_cell_of_its_own_returns(seed: int) -> None:
    boxes, labels = _random(24, seed)
    boxes, labels = boxes[_alone(boxes)], labels[_alone(boxes)]
    found, scores, classes = _decode(_encode(boxes, labels), len(boxes))
    assert (scores > 0.99).all()
    torch.testing.assert_close(_sorted(found[0], classes[0]), _sorted(boxes, labels), atol=1e-4, rtol=0)


@pytest.mark.parametrize("seed", range(10))
def test_neighbors_in_shared_cells_do_not_disturb_the_others(seed: int) -> None:
    boxes, labels = _random(60, 100 + seed, largest=60)
    targets = _encode(boxes, labels)
    alone = _alone(boxes)
    owned = targets.boxes.view(-1, 4)[_cells(boxes)]
    assert torch.equal(owned[alone], boxes[alone])
    assert (targets.heatmap.view(CLASSES, -1)[labels, _cells(boxes)] == 1).all()


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 0.25, 0.25),  # tiny, in the corner
        (159.75, 159.75, 160, 160),
        (0, 0, 160, 160),  # the whole image
        (0, 70, 1, 90),  # thin, at a border
        (100, 159, 140, 160),
        (77.3, 77.3, 77.3, 77.3),  # no area
        (-40, -40, 30, 30),  # its center lies outside: the nearest cell is its own
        (150, 20, 190, 60),
    ],
)
def test_extreme_boxes_return(box: tuple[float, ...]) -> None:
    boxes = torch.tensor([box], dtype=torch.float32)
    targets = _encode(boxes, torch.tensor([1]))
    found, _, classes = _decode(targets, 1)
    torch.testing.assert_close(found[0], boxes, atol=1e-4, rtol=0)
    assert classes.item() == 1
    assert all(torch.isfinite(tensor).all() for tensor in targets)
    assert targets.weights.sum() > 0


@pytest.mark.parametrize("first_is_small", [True, False])
def test_of_two_objects_in_one_cell_the_smaller_survives(first_is_small: bool) -> None:
    small, large = (41.0, 41.0, 47.0, 46.0), (20.0, 20.0, 70.0, 70.0)
    boxes = torch.tensor([small, large] if first_is_small else [large, small])
    found, _, _ = _decode(_encode(boxes, torch.tensor([2, 2])), 1)
    torch.testing.assert_close(found[0, 0], torch.tensor(small), atol=1e-4, rtol=0)
    both = _encode(boxes, torch.tensor([0, 2]))  # of two classes, both are seen and share one box
    assert (both.heatmap[0, [0, 2], 5, 5] == 1).all()
    assert both.boxes[0, 5, 5].tolist() == list(small)


def test_a_small_object_before_a_large_one_keeps_its_cells() -> None:
    boxes = torch.tensor([[10.0, 10.0, 150.0, 150.0], [50.0, 74.0, 62.0, 86.0]])
    targets = _encode(boxes, torch.tensor([0, 0]))
    assert torch.equal(targets.boxes[0, 10, 7], boxes[1]) and torch.equal(targets.boxes[0, 10, 10], boxes[0])


def test_a_batch_equals_its_images() -> None:
    parts = [_random(count, 7 + count) for count in (9, 0, 1, 17)]
    image_index = torch.repeat_interleave(torch.arange(4), torch.tensor([len(boxes) for boxes, _ in parts]))
    ignore = torch.arange(len(image_index)) % 5 == 3
    boxes, labels = (torch.cat(rows) for rows in zip(*parts, strict=True))
    together = _encode(boxes, labels, ignore, image_index, batch=4)
    heatmap, distances = _perfect(together)
    heatmap += torch.rand(heatmap.shape, generator=torch.Generator().manual_seed(0))  # no two cells tie
    decoded = decode(heatmap, distances, stride=STRIDE, top_k=30)
    for number, (own_boxes, own_labels) in enumerate(parts):
        alone = _encode(own_boxes, own_labels, ignore[image_index == number])
        for name in ("heatmap", "valid_mask", "boxes", "weights"):
            owned = alone.weights > 0 if name == "boxes" else slice(None)  # no object: the box is of no account
            assert torch.equal(getattr(together, name)[number : number + 1][owned], getattr(alone, name)[owned]), name
        single = decode(heatmap[number : number + 1], distances[number : number + 1], stride=STRIDE, top_k=30)
        for whole, part in zip(decoded, single, strict=True):
            torch.testing.assert_close(whole[number : number + 1], part, atol=1e-9, rtol=1e-6)
    assert together.num_objects == (~ignore).sum()


def test_the_order_of_boxes_does_not_matter() -> None:
    boxes, labels = _random(40, 3)
    ignore = torch.arange(40) % 4 == 0
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    first, second = _encode(boxes, labels, ignore), _encode(boxes[order], labels[order], ignore[order])
    owned = first.weights > 0
    for name in Targets._fields:
        one, other = getattr(first, name), getattr(second, name)
        if name == "boxes":
            one, other = one[owned], other[owned]
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_ignored_objects_are_masked_and_neither_objects_nor_background() -> None:
    boxes, labels = torch.tensor([[40.0, 40.0, 104.0, 88.0]]), torch.tensor([1])
    targets = _encode(boxes, labels, torch.tensor([True]))
    expected = torch.ones(CLASSES, GRID, GRID, dtype=torch.bool)
    expected[1, 5:11, 5:13] = False
    assert torch.equal(targets.valid_mask[0], expected)
    assert not targets.heatmap.any() and not targets.weights.any() and targets.num_objects == 0
    tiny = _encode(torch.tensor([[41.0, 41.0, 42.0, 42.0]]), labels, torch.tensor([True]))
    assert (~tiny.valid_mask).nonzero().tolist() == [[0, 1, 5, 5]]  # its own cell at least


def test_an_ignored_object_does_not_hide_a_positive_one() -> None:
    boxes = torch.tensor([[40.0, 40.0, 104.0, 104.0], [64.0, 64.0, 79.0, 79.0]])
    labels = torch.tensor([1, 1])
    with_ignored = _encode(boxes, labels, torch.tensor([True, False]))
    alone = _encode(boxes[1:], labels[1:])
    assert torch.equal(with_ignored.heatmap, alone.heatmap) and torch.equal(with_ignored.weights, alone.weights)
    assert torch.equal(with_ignored.boxes[with_ignored.weights > 0], alone.boxes[alone.weights > 0])
    assert with_ignored.valid_mask[0, 1, 8, 8] and not with_ignored.valid_mask[0, 1, 6, 6]
    assert with_ignored.num_objects == 1


def test_no_objects_are_background_everywhere() -> None:
    targets = _encode(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), batch=2)
    assert targets.heatmap.shape == (2, CLASSES, GRID, GRID) and not targets.heatmap.any()
    assert targets.valid_mask.all() and not targets.weights.any() and targets.num_objects == 0
    assert _decode(targets, 10)[1].max() < 1e-6


def test_scores_fall_and_only_peaks_are_found() -> None:
    random = torch.Generator().manual_seed(5)
    heatmap = torch.randn(2, CLASSES, GRID, GRID, generator=random)
    _, scores, labels = decode(heatmap, torch.zeros(2, 4, GRID, GRID), stride=STRIDE, top_k=20)
    assert (scores.diff(dim=1) <= 0).all() and labels.max() < CLASSES
    assert torch.equal(scores[:, 0], heatmap.flatten(1).max(1).values.sigmoid())
    padded = torch.nn.functional.pad(heatmap, (1, 1, 1, 1), value=float("-inf"))
    around = padded.unfold(2, 3, 1).unfold(3, 3, 1).amax((-1, -2))
    peaks = heatmap[0][heatmap[0] == around[0]].sigmoid().sort(descending=True).values[:20]
    assert torch.equal(scores[0], peaks)


def test_top_k_beyond_the_grid_gives_every_cell_once() -> None:
    heatmap = torch.randn(1, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    boxes, scores, labels = decode(heatmap, torch.ones(1, 4, 3, 3), stride=STRIDE, top_k=1000)
    assert boxes.shape == (1, 18, 4) and scores.shape == labels.shape == (1, 18)
    assert torch.isfinite(boxes).all()
    peaks = int((scores > 0).sum())
    assert 2 <= peaks < 18 and (scores[0, peaks:] == 0).all()  # what is no peak comes last, with score 0
