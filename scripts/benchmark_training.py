"""What the recipe's training step costs: python scripts/benchmark_training.py VOCdevkit [--threads 2]

`train` itself, data included, at 320 px and batch 16, with the recipe's network and with the same network written
plainly: BatchNorms of frozen stages as they are, padded copies for SAME padding, 5 x 5 depthwise convolutions in neck
and heads, PyTorch's weight gradients. Both take turns; what counts is the median of ten steps and their ratio. Then
where a step's time goes, and how far its convolutions are from the processor's matrix product in the same precision.
"""

import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from typing import Annotated

import torch
import typer
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.profiler import ProfilerActivity, profile

from centerdet import TrainConfig, train
from centerdet.models import Network
from centerdet.models.depthwise import Depthwise
from centerdet.training.mixture import read_mixture

KINDS = {
    "backward of convolutions": ("convolution_backward", "_ConvolutionBackward"),
    "forward of convolutions": ("mkldnn_convolution", "_slow_conv2d_forward", "thnn_conv2d"),
    "BatchNorm": ("batch_norm",),
    "activations and sums": ("hardtanh", "clamp", "relu", "threshold", "add"),
    "optimizer and average": ("adamw", "foreach", "lerp"),
}


class Plain(nn.Module):
    def __init__(self, stage: nn.Module) -> None:  # hides the stage from the folding of frozen ones
        super().__init__()
        self.stage = stage

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.stage(x)
        return out


class Padded(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:  # TensorFlow's SAME padding by a copy of the input; stride 2
        low, high = (self.kernel_size[0] - 2) // 2, (self.kernel_size[0] - 1) // 2
        return super().forward(pad(x, (low, high, low, high)))


def write_plainly(network: Network) -> Network:
    """The same network without the recipe's levers."""
    for layer in [*network.neck.modules(), *network.heatmap_head.modules(), *network.box_head.modules()]:
        if isinstance(layer, nn.Sequential) and isinstance(layer[0], nn.Conv2d) and layer[0].groups > 1:
            layer[0] = nn.Conv2d(layer[0].groups, layer[0].groups, 5, padding=2, groups=layer[0].groups, bias=False)
    for parent in list(network.backbone.modules()):
        for name, old in parent.named_children():
            if isinstance(old, nn.Conv2d) and old.stride == (2, 2):
                kernel = old.kernel_size[0] - 1
                setattr(parent, name, Padded(old.in_channels, old.out_channels, kernel, 2, 0, 1, old.groups, False))
            elif isinstance(old, Depthwise):
                side = old.kernel_size[0]
                setattr(parent, name, nn.Conv2d(old.groups, old.groups, side, 1, side // 2, 1, old.groups, False))
    network.backbone.stages = nn.ModuleList(Plain(stage) for stage in network.backbone.stages)
    network.backbone.freeze(network.backbone.frozen)
    return network


def ten_steps(config: TrainConfig, plain: bool, classes: int) -> float:
    """Seconds per image of a run's second ten steps."""
    times: list[float] = []
    network = Network(classes, **config.model)
    with tempfile.TemporaryDirectory() as out:
        train(
            replace(config, out=out),
            network=write_plainly(network) if plain else network,
            progress=lambda _: times.append(time.perf_counter()),
        )
    return (times[1] - times[0]) / (10 * config.batch)


def main(
    data: Annotated[str, typer.Argument(help="dataset; VOCdevkit for the published figures")],
    train_split: str = "2012:extra",
    threads: int = 2,
    rounds: int = 3,
    size: int = 320,
) -> None:
    """Print medians, their ratio, and where a step's time goes."""
    mixture = read_mixture((data,), (train_split,), notice=lambda _: None)
    config = TrainConfig.of(
        data=data, out="", train=(train_split,), val=(), names=mixture.names, sizes=(size,), threads=threads,
        epochs=20 * 16 / len(mixture.samples), device="cpu", backbone_weights="none", checkpoint_every=10**6,
    )  # fmt: skip
    runs: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(rounds):
        for plain, seconds in runs.items():
            seconds.append(1000 * ten_steps(config, plain, len(mixture.names)))
    recipe, plainly = (statistics.median(seconds) for seconds in runs.values())
    print(f"{threads} threads, {size} px: the recipe {recipe:.1f} ms an image, written plainly {plainly:.1f}")
    print(f"ratio {recipe / plainly:.2f}")

    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        ten_steps(config, False, len(mixture.names))
    shares: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        kind = next((kind for kind, words in KINDS.items() if any(word in event.key for word in words)), "the rest")
        shares[kind] += event.self_cpu_time_total
    total = sum(shares.values())
    for kind, microseconds in sorted(shares.items(), key=lambda item: -item[1]):
        print(f"{kind:<26} {100 * microseconds / total:4.1f} %")
    torch.set_num_threads(threads)
    matrix, start = torch.rand(2048, 2048), time.perf_counter()
    [matrix @ matrix for _ in range(5)]
    print(f"matrix product, float32: {5 * 2 * 2048**3 / (time.perf_counter() - start) / 1e9:.0f} GFLOP/s")


if __name__ == "__main__":
    typer.run(main)
