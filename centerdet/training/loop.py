"""Training: one loop, readable from top to bottom; its knobs are in `TrainConfig`.

Everything random follows from (seed, step), so a run that is resumed goes on exactly as if it had not stopped.
"""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..codec import encode
from ..data.formats import keep_classes, read_dataset
from ..data.sample import Dataset
from ..detector import Detector, find_device, weights_path
from ..errors import CenterdetError, ConfigError, WeightsError
from ..evaluation.evaluation import evaluate
from ..models import Network, Outputs
from ..runtimes.weights import read_tensors
from ..text import plural
from .augment import Augment
from .checkpoints import Interrupt, find_states, load_state, save_state
from .config import TrainConfig
from .loader import TrainingImages, image_weights, training_loader
from .losses import detection_loss
from .progress import Progress, cut_log, find_tensorboard, write_log, write_tensorboard

__all__ = ["Progress", "TrainConfig", "train", "training_images"]


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    notice: Callable[[str], object] = warnings.warn,
) -> Detector:
    """Train, validate, keep the best; the detector with the final averaged weights.

    The folder `out` receives `log.csv`, `best.safetensors` (by voc-area on the validation splits), `final.safetensors`
    and training states. Ctrl-C ends the step, saves a state and raises KeyboardInterrupt; a second one stops at once.

    Args:
        resume: go on from the newest whole state; an error where there is none.
        progress: called after every step. notice: called with what the user should know, such as a damaged state.
    """
    out = Path(config.out)
    if find_states(out) and not resume:
        raise ConfigError(f"out: {out} holds a training already: resume it (--resume), or name another folder (--out)")
    writer = find_tensorboard() if config.tensorboard else None
    device = find_device(config.device)
    if config.threads:
        torch.set_num_threads(config.threads)

    # data
    sets = [read_dataset(config.data, config.train)]
    if config.val:
        sets.append(read_dataset(config.data, config.val, names=None if config.names else sets[0].names))
    sets = keep_classes(sets, config.names)
    dataset, val = sets[0], sets[1] if config.val else None
    for splits, data in zip((config.train, config.val), sets, strict=False):
        if data.left_out:
            others = ", ".join(f"{plural(number, 'object')} of {name}" for name, number in data.left_out.items())
            notice(f"{' + '.join(splits)}: not among names, so background: {others}")
    images = training_images(dataset, config)
    steps = max(1, round(config.epochs * len(dataset) / config.batch))

    def size_at(step: int) -> int:
        return config.sizes[min(step * len(config.sizes) // steps, len(config.sizes) - 1)]

    def mosaic_at(step: int) -> float:
        full = config.augment == "full" and step < steps * (1 - config.plain_end)
        return config.mosaic if full else 0.0

    # model
    torch.manual_seed(config.seed)
    weights = None if config.start or config.backbone_weights == "none" else config.backbone_weights
    network = Network(len(dataset.names), **config.model, weights=weights)
    if config.start:
        _start_from(network, weights_path(config.start), dataset.names)
    network = network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    averaged = AveragedModel(network, use_buffers=True)
    optimizer = _optimizer(network, config)
    peaks = [group["lr"] for group in optimizer.param_groups]
    first, best, waited = 0, -1.0, 0
    if resume:
        first, best, waited = load_state(config, network, averaged, optimizer, notice)
    out.mkdir(parents=True, exist_ok=True)
    cut_log(out / "log.csv", first)
    stopped = config.patience > 0 and waited >= config.patience

    loader = training_loader(
        images, image_weights(dataset, config.balance), batch=config.batch, seed=config.seed,
        first=first, last=first if stopped else steps,
        size_at=size_at, mosaic_at=mosaic_at, workers=config.workers, pin=device.type == "cuda",
    )  # fmt: skip
    half = device.type == "cuda" and torch.cuda.is_bf16_supported()
    between = max(1, round(config.validate * len(dataset) / config.batch))
    work = [0, *accumulate(size_at(step) ** 2 for step in range(steps))]  # of the steps before: it grows as pixels do
    board = writer(str(out / "tensorboard"), purge_step=first + 1) if writer else None
    done, clock = first, time.perf_counter()

    with Interrupt(notice) as interrupt, board or nullcontext(), _flush_denormals():
        for step, batch in enumerate(loader, first):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * _rate(step, steps, config.warmup)
            tensors = [tensor.to(device, non_blocking=True) for tensor in batch]
            size = size_at(step)
            with torch.no_grad():
                targets = encode(
                    *tensors[1:],
                    batch=config.batch,
                    num_classes=len(dataset.names),
                    grid=size // config.stride,
                    stride=config.stride,
                )
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                outputs: Outputs = network(tensors[0])
            heatmap, box = detection_loss(outputs.heatmap, outputs.distances, targets, config.stride)
            loss = heatmap + box
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(network.parameters(), config.clip)
            if not torch.isfinite(loss + norm):
                shown = {str(dataset.samples[i].path) for draw in loader.batch_sampler.at(step) for i in draw.samples}  # type: ignore[union-attr]
                raise CenterdetError(
                    f"step {step}: the loss is {loss.item()}, its gradient's norm {norm.item()}: lower lr, or look at "
                    f"this step's images: {', '.join(sorted(shown))}"
                )
            optimizer.step()
            # Early weights are far from the final ones: the average forgets faster while it is young.
            averaged.multi_avg_fn = get_ema_multi_avg_fn(min(config.ema, (1 + step) / (10 + step)))  # type: ignore[no-untyped-call]
            averaged.update_parameters(network)

            done, validation = step + 1, None
            if val is not None and (done % between == 0 or done == steps):
                detector = _detector(averaged, config, dataset.names, size, device)
                validation = evaluate(detector, val, progress=interrupt.tell)
                waited += 1
                if validation.voc.mean_ap > best:
                    best, waited = validation.voc.mean_ap, 0
                    detector.save(out / "best.safetensors", config=asdict(config), step=done, **{"voc-area": best})
            passed = time.perf_counter() - clock
            now = Progress(
                done, steps, done * config.batch / len(dataset), size,
                heatmap.item(), box.item(), optimizer.param_groups[-1]["lr"],
                images_per_second=(done - first) * config.batch / passed,
                eta=passed * (work[steps] - work[done]) / (work[done] - work[first]),
                validation=validation,
            )  # fmt: skip
            if done % 10 == 0 or validation or done == steps:
                write_log(out / "log.csv", now)
                if board:
                    write_tensorboard(board, now)
            stopping = interrupt.pressed and done < steps
            if done % config.save == 0 or validation or done == steps or stopping:
                save_state(config, network, averaged, optimizer, done, best, waited)
            if progress:
                progress(now)
            if config.patience and waited >= config.patience:
                if done < steps:
                    notice(f"stopped early at step {done} of {steps}: nothing since beats best.safetensors (patience)")
                break
            if stopping:
                raise KeyboardInterrupt

    detector = _detector(averaged, config, dataset.names, size_at(done - 1), device)
    detector.save(out / "final.safetensors", config=asdict(config), step=done)
    return detector


@contextmanager
def _flush_denormals() -> Iterator[None]:
    """Numbers too small to matter are slow on a CPU; while training, they are 0."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def training_images(dataset: Dataset, config: TrainConfig) -> TrainingImages:
    """The dataset's images as training augments them."""
    full = config.augment == "full"
    augment = Augment(config.zoom, config.aspect, config.color) if full else Augment((1, 1), 1, 0, flip=False)
    return TrainingImages(dataset, augment, keep_size=max(config.sizes) * 5 // 4, keep=config.keep)


def _rate(step: int, steps: int, warmup: int) -> float:
    """The share of the peak rate: linear warm-up, then a cosine down to a hundredth."""
    warmup = min(warmup, steps // 5)
    if step < warmup:
        return (step + 1) / warmup
    return 0.01 + 0.99 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2


def _optimizer(network: Network, config: TrainConfig) -> torch.optim.Optimizer:
    """Two rates, and weight decay for convolution weights alone."""
    groups: list[dict[str, Any]] = []
    inner = {id(parameter) for parameter in network.backbone.parameters()}
    for is_inner, lr in ((True, config.backbone_lr), (False, config.lr)):
        chosen = [p for p in network.parameters() if p.requires_grad and (id(p) in inner) == is_inner]
        groups.append({"params": [p for p in chosen if p.ndim > 1], "lr": lr, "weight_decay": config.weight_decay})
        groups.append({"params": [p for p in chosen if p.ndim <= 1], "lr": lr, "weight_decay": 0.0})
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, nesterov=True)
    return (torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam)(groups, fused=True)


def _start_from(network: Network, path: Path, names: Sequence[str]) -> None:
    """Take a detector's weights; where the classes differ, its class outputs start anew."""
    tensors, held = read_tensors(path)
    own = network.state_dict()
    if list(held.get("names", ())) != list(names):
        last = f"heatmap_head.{len(network.heatmap_head) - 1}."
        tensors = {key: value for key, value in tensors.items() if not key.startswith(last)}
        own = {key: value for key, value in own.items() if not key.startswith(last)}
    wrong = [
        key
        for key in own.keys() | tensors.keys()
        if key not in own or key not in tensors or own[key].shape != tensors[key].shape
    ]
    if wrong:
        raise WeightsError(f"{path}: made for another network: {len(wrong)} tensors do not fit, such as {min(wrong)}")
    network.load_state_dict(tensors, strict=False)


def _detector(
    averaged: AveragedModel, config: TrainConfig, names: Sequence[str], size: int, device: torch.device
) -> Detector:
    network = Network(len(names), **config.model)
    network.load_state_dict(averaged.module.state_dict())
    return Detector(network, names, size, device=device)
