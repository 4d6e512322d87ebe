"""Several processes, as `torchrun` starts them: each trains on its part of every batch, and all have the same weights.

Law: 2 processes x batch 8 = 1 process x batch 16, to float tolerance. Losses are divided by the number of objects in
all processes. BatchNorm uses the mean and variance over all processes: those of 8 images alone are noisier.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ..codec import Targets
from ..errors import ConfigError
from ..models import Network
from ..runtimes.pytorch import find_device

__all__ = ["Group", "process_group"]

TIMEOUT = timedelta(minutes=10)  # the others wait while the first process reads a checkpoint


@dataclass(frozen=True)
class Group:
    """The rank of this process and the number of processes; with one process, every method returns its argument."""

    rank: int = 0
    world_size: int = 1

    def parallel(self, network: Network) -> nn.Module:
        """The module to call in a training step, which averages gradients over processes."""
        if self.world_size == 1:
            return network
        _synchronize_batchnorm(network, self.world_size)
        return DistributedDataParallel(network, broadcast_buffers=False)

    def share(self, targets: Targets) -> Targets:
        """Targets with both divisors averaged over processes, so that averaged gradients equal those of one batch."""
        objects, weight = self.mean(torch.stack([targets.num_objects, targets.total_weight]))
        return targets._replace(num_objects=objects, total_weight=weight)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over processes, of any shape."""
        if self.world_size > 1:
            values = values.clone()
            distributed.all_reduce(values)
            values /= self.world_size
        return values

    def any(self, value: bool) -> bool:
        """Whether it is true in any process."""
        return bool(self.mean(torch.tensor(float(value))) > 0)

    def wait(self) -> None:
        """Block until every process has called it."""
        if self.world_size > 1:
            distributed.barrier()

    def gather(self, rows: Sequence[Tensor]) -> list[list[Tensor]]:
        """The rows of every process, in the order of ranks: tensors (N, …), where N may differ between processes."""
        if self.world_size == 1:
            return [list(rows)]
        counts = [torch.zeros(1, dtype=torch.long) for _ in range(self.world_size)]
        distributed.all_gather(counts, torch.tensor([len(rows[0])]))
        most = max(int(count) for count in counts)
        everyone: list[list[Tensor]] = [[] for _ in counts]
        for tensor in rows:
            padded = torch.cat([tensor, tensor.new_zeros(most - len(tensor), *tensor.shape[1:])])
            parts = [torch.zeros_like(padded) for _ in counts]
            distributed.all_gather(parts, padded)
            for place, part, count in zip(everyone, parts, counts, strict=True):
                place.append(part[: int(count)])
        return everyone


@contextmanager
def process_group(device: str) -> Iterator[tuple[Group, torch.device]]:
    """The group from torchrun's environment variables, or a group of one process, and the device of this process."""
    world_size, rank = (int(os.environ.get(name, default)) for name, default in (("WORLD_SIZE", "1"), ("RANK", "0")))
    if world_size == 1:
        yield Group(), find_device(device)
        return
    if not distributed.is_available():
        raise ConfigError("torchrun: this build of PyTorch has no torch.distributed")
    chosen = find_device(device)
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", rank)))
        torch.cuda.set_device(chosen)
    # Gathering uses CPU tensors, gradients the device's tensors.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield Group(rank, world_size), chosen
    finally:
        distributed.destroy_process_group()


class _GlobalBatchNorm(nn.BatchNorm2d):
    """BatchNorm with the mean and variance over the batches of all processes, which are equally large."""

    world_size = 1

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        if not self.training:
            return super().forward(x)
        count = self.world_size * x.numel() // x.shape[1]
        wide = x.float()
        mean = cast(Tensor, _Sum.apply(wide.sum((0, 2, 3)))) / count
        centered = wide - mean[:, None, None]
        variance = cast(Tensor, _Sum.apply((centered**2).sum((0, 2, 3)))) / count
        with torch.no_grad():
            cast(Tensor, self.num_batches_tracked).add_(1)
            momentum = self.momentum or 0.1
            cast(Tensor, self.running_mean).lerp_(mean, momentum)
            cast(Tensor, self.running_var).lerp_(variance * count / (count - 1), momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centered * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


class _Sum(torch.autograd.Function):
    """The sum over processes; its gradient is the sum of the gradients over processes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        values = values.clone()
        distributed.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradients[0])


def _synchronize_batchnorm(network: nn.Module, world_size: int) -> None:
    """Replace every BatchNorm by a `_GlobalBatchNorm` with the same parameter and statistics tensors."""
    for parent in list(network.modules()):
        for name, old in parent.named_children():
            if type(old) is nn.BatchNorm2d:
                new = _GlobalBatchNorm(old.num_features, old.eps, old.momentum)
                new.weight, new.bias, new.world_size = old.weight, old.bias, world_size
                new.running_mean, new.running_var, new.num_batches_tracked = (
                    old.running_mean, old.running_var, old.num_batches_tracked,
                )  # fmt: skip
                setattr(parent, name, new.train(old.training))
