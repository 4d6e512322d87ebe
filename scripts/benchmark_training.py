"""What each lever of the training path gives: python scripts/benchmark_training.py VOCdevkit [--threads 2]

The recipe's network beside the same network written plainly (padded copies for SAME padding, 5 x 5 depthwise
convolutions in neck and heads, PyTorch's weight gradients, frozen BatchNorms as they are), and with one lever less at
a time. Whole steps, data included: batch 16, 320 px, stem and two stages frozen; all variants take turns step by step.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.optim.swa_utils import AveragedModel

from centerdet.codec import encode
from centerdet.data.formats import read_dataset
from centerdet.models import Network
from centerdet.models.depthwise import Depthwise
from centerdet.training.augment import Augment
from centerdet.training.loader import Batch, TrainingImages, image_weights, training_loader
from centerdet.training.losses import detection_loss

BATCH, SIZE = 16, 320


class Whole(nn.ModuleList):
    def forward(self, x: Tensor) -> Any:  # a stage whose BatchNorms are not folded
        return self[0](x)


class Padded(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:  # TensorFlow's SAME padding by a copy of the input; stride 2
        low, high = (self.kernel_size[0] - 2) // 2, (self.kernel_size[0] - 1) // 2
        return super().forward(pad(x, (low, high, low, high)))


def unfolded(network: Network) -> None:
    network.backbone.stages = nn.ModuleList(Whole([stage]) for stage in network.backbone.stages)


def pytorch_gradients(network: Network) -> None:
    for layer in network.modules():
        if isinstance(layer, Depthwise):
            layer.__class__ = nn.Conv2d  # type: ignore[assignment]


def padded(network: Network) -> None:
    for parent in list(network.backbone.modules()):
        for name, old in parent.named_children():
            if isinstance(old, nn.Conv2d) and old.stride == (2, 2):
                kernel = old.kernel_size[0] - 1
                setattr(parent, name, Padded(old.in_channels, old.out_channels, kernel, 2, 0, 1, old.groups, False))


def wide(network: Network) -> None:
    for layer in [*network.neck.modules(), *network.heatmap_head.modules(), *network.box_head.modules()]:
        if isinstance(layer, nn.Sequential) and isinstance(layer[0], nn.Conv2d) and layer[0].groups > 1:
            layer[0] = Depthwise(layer[0].groups, 5, padding=2)


VARIANTS: dict[str, tuple[Callable[[Network], None], ...]] = {
    "the recipe": (),
    "frozen BatchNorms not folded": (unfolded,),
    "weight gradients of 5 x 5 by PyTorch": (pytorch_gradients,),
    "SAME padding by padded copies": (padded,),
    "5 x 5 depthwise in neck and heads": (wide,),
    "all four: written plainly": (unfolded, padded, wide, pytorch_gradients),
}


def steps_of(changes: tuple[Callable[[Network], None], ...], batches: Iterator[Batch]) -> Iterator[float]:
    """Seconds of one training step after another."""
    network = Network(20, freeze=3)
    for change in changes:
        change(network)
    network.backbone.freeze(3)
    network.to(memory_format=torch.channels_last).train()
    averaged = AveragedModel(network, use_buffers=True)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], 1e-3, fused=True)
    while True:
        start = time.perf_counter()
        images, *objects = next(batches)
        targets = encode(*objects, batch=BATCH, num_classes=20, grid=SIZE // 8, stride=8)
        outputs = network(images)
        heatmap, box = detection_loss(outputs.heatmap, outputs.distances, targets, 8)
        optimizer.zero_grad()
        (heatmap + box).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
        averaged.update_parameters(network)
        yield time.perf_counter() - start


def main(data: Annotated[str, typer.Argument(help="VOCdevkit")], threads: int = 2, rounds: int = 15) -> None:
    """Print medians and their ratio to the recipe's."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    dataset = read_dataset(data, ("2012:extra",))
    loader: Any = training_loader(
        TrainingImages(dataset, Augment(), SIZE * 5 // 4), image_weights(dataset, 0.5), batch=BATCH, seed=0,
        first=0, last=10**6, size_at=lambda _: SIZE, mosaic_at=lambda _: 0.0, workers=0, pin=False,
    )  # fmt: skip
    batches = iter(loader)
    runs = {name: steps_of(changes, batches) for name, changes in VARIANTS.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for name, run in [*runs.items()] * rounds:
        times[name].append(next(run))
    medians = {name: 1000 * statistics.median(seconds[3:]) / BATCH for name, seconds in times.items()}
    print(f"{threads} threads, {rounds - 3} steps each")
    for name, median in medians.items():
        print(f"{name:<38} {median:5.1f} ms a image, {median / medians['the recipe']:.2f} x")


if __name__ == "__main__":
    typer.run(main)
