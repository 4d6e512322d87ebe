"""Training: one loop, readable from top to bottom; its options are in `TrainConfig`.

Everything random depends only on (seed, step), so a resumed run gives the same weights as one without a stop. Losses
are read every ten steps, since reading a number makes a GPU wait.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..codec import Targets
from ..data.formats import keep_classes, read_dataset
from ..data.records import PLAIN, ReadOptions
from ..data.sample import Dataset
from ..detector import Detector
from ..errors import CenterdetError, ConfigError
from ..evaluation.evaluation import Evaluation, evaluate, evaluate_detections
from ..evaluation.files import Results
from ..files import lock_folder
from ..models import Network, Outputs
from ..runtimes.pytorch import PyTorchRuntime, halve
from .augment import Augment
from .checkpoints import RunState, check_data, list_checkpoints, load_checkpoint, save_checkpoint
from .config import TrainConfig
from .distributed import Group, process_group
from .initialize import build_network
from .interrupt import Interrupt
from .loader import Schedule, TrainingImages, training_loader
from .losses import detection_loss
from .mixture import Mixture, parse_source, read_mixture
from .process import training_process
from .progress import Meter, Progress, cut_log, write_log
from .tensorboard import find_tensorboard, write_tensorboard

__all__ = ["Progress", "TrainConfig", "train", "training_images"]

READ_EVERY = 10  # steps
WORKER_DIED = "a process that prepares images died, perhaps for lack of memory: lower workers ({})"


def train(
    config: TrainConfig,
    *,
    network: Network | None = None,
    resume: bool = False,
    accept_changes: bool = False,
    strict: bool = False,
    options: ReadOptions = PLAIN,
    progress: Callable[[Progress], None] | None = None,
    reading: Callable[[int, int], object] | None = None,
    notice: Callable[[str], object] = warnings.warn,
) -> Detector:
    """Train, validate, and save the best weights; return the detector with the final averaged weights.

    The folder `out` receives `log.csv`, `best.safetensors` (by voc-area on the validation splits), `final.safetensors`,
    and checkpoints. Ctrl-C finishes the step, saves a checkpoint, and raises KeyboardInterrupt; a second one stops at
    once.

    Args:
        network: a network to train instead of the config's, with one heatmap per class.
        resume: continue from the newest complete checkpoint; an error if there is none.
        accept_changes: continue even if images, objects or classes have changed since the run was started.
        strict: raise an error for data that would otherwise be repaired or left out.
        options: of the readers; images that a list repeats are drawn more often, and are an error in the validation.
        progress: called every ten steps and after each validation.
        reading: called with the number of images in memory and the number of all images.
        notice: called with each message for the user.
    """
    out = Path(config.out)
    if list_checkpoints(out) and not resume:
        raise ConfigError(f"out: {out} already contains a training run; pass --resume to continue it, or another --out")
    find_tensorboard() if config.tensorboard else None
    try:
        with (
            training_process(config.seed, config.threads),
            process_group(config.device) as (group, device),
            lock_folder(out) if group.rank == 0 else nullcontext(),
        ):
            if group.rank > 0:  # the first process reports for all
                progress = reading = None
                notice, options = lambda _: None, replace(options, progress=iter)
            return _train(
                config, group, device, network, resume, accept_changes, strict, options, progress, reading, notice
            )
    except torch.OutOfMemoryError as error:
        raise CenterdetError(
            f"batch {config.batch} of {max(config.sizes)} px does not fit in the GPU's memory: lower batch, sizes or "
            f"channels ({str(error).partition('.')[0]})"
        ) from error
    except RuntimeError as error:
        if any(word in str(error) for word in ("gloo", "NCCL", "Connection closed by peer")):
            raise CenterdetError(f"another process of this training has ended; see its error ({error})") from error
        if "DataLoader worker" not in str(error):
            raise
        raise CenterdetError(WORKER_DIED.format(error)) from error
    except (ConnectionError, EOFError) as error:  # it died while it handed over a batch
        if not config.workers:
            raise
        raise CenterdetError(WORKER_DIED.format(error)) from error


def _train(
    config: TrainConfig,
    group: Group,
    device: torch.device,
    network: Network | None,
    resume: bool,
    accept_changes: bool,
    strict: bool,
    options: ReadOptions,
    progress: Callable[[Progress], None] | None,
    reading: Callable[[int, int], object] | None,
    notice: Callable[[str], object],
) -> Detector:
    out, main, batch_size = Path(config.out), group.rank == 0, config.batch * group.world_size
    use_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported()

    # Quick checks come first: annotations, then the network, then the images.
    mixture = read_mixture(
        config.data, config.train, config.names, shares=config.shares, balance=config.balance,
        notice=notice, strict=strict, options=options,
    )  # fmt: skip
    val = _validation_set(config, mixture, notice, strict, options)
    if len(mixture.samples) < batch_size:
        count = len(mixture.samples)
        notice(f"batch: {batch_size} images a step, but the data has {count}: each is drawn several times")
    network = network or build_network(config, mixture.names, notice)
    network = network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    parallel = group.parallel(network)
    averaged = AveragedModel(network, use_buffers=True)
    averaged.n_averaged = averaged.n_averaged.cpu()  # read in every step
    optimizer = _optimizer(network, config)
    peak_rates = [group["lr"] for group in optimizer.param_groups]
    state = RunState(world_size=group.world_size)
    for turn in (main, not main) if resume else ():  # the first process sets damaged checkpoints aside
        if turn:
            state = load_checkpoint(config, network, averaged, optimizer, group.world_size, notice)
            check_data(out, mixture.datasets, accept_changes=accept_changes)
        group.wait()
    images = training_images(mixture, config, reading)

    steps = max(1, round(config.epochs * len(mixture.samples) / batch_size))
    schedule = Schedule(steps, config.sizes)
    val_every = max(1, round(config.val_every * len(mixture.samples) / batch_size))
    patient = not config.patience or state.validations_without_improvement < config.patience
    loader = training_loader(
        images, mixture, schedule, batch=config.batch, seed=config.seed, stride=config.stride,
        steps=range(state.step, steps if patient else state.step), workers=config.workers, pin=device.type == "cuda",
        rank=group.rank, world_size=group.world_size,
    )  # fmt: skip
    if main:
        check_data(out, mixture.datasets)
        cut_log(out / "log.csv", state.step)
    meter = Meter(state.step, schedule, batch_size, len(mixture.samples), group)
    board = main and config.tensorboard
    writer = find_tensorboard()(str(out / "tensorboard"), purge_step=state.step + 1) if board else None

    with Interrupt(notice) as interrupt, writer or nullcontext():
        for step, batch in enumerate(loader, state.step):
            if isinstance(batch, CenterdetError):
                raise batch
            for parameters, peak in zip(optimizer.param_groups, peak_rates, strict=True):
                parameters["lr"] = peak * _rate(step, steps, config.warmup)
            targets = group.share(Targets(*(tensor.to(device, non_blocking=True) for tensor in batch.targets)))
            with torch.autocast(device.type, torch.bfloat16, enabled=use_bfloat16):
                outputs: Outputs = parallel(batch.images.to(device, non_blocking=True))
            heatmap, box = detection_loss(outputs.heatmap, outputs.distances, targets, config.stride)
            optimizer.zero_grad()
            (heatmap + box).backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(network.parameters(), config.grad_clip or math.inf)
            optimizer.step()
            # Early weights are far from the final ones: the decay of the average starts low and rises to `ema`.
            averaged.multi_avg_fn = get_ema_multi_avg_fn(min(config.ema, (1 + step) / (10 + step)))  # type: ignore[no-untyped-call]
            averaged.update_parameters(network)
            meter.add(heatmap, box, norm)

            state, validation = replace(state, step=step + 1), None
            last = state.step == steps
            if val is not None and (state.step % val_every == 0 or last):
                detector = _detector(averaged, config, mixture.names, device)
                validation = _validate(detector, val, group, interrupt)
                state = replace(state, validations_without_improvement=state.validations_without_improvement + 1)
                score = float(np.nan_to_num(validation.voc.mean_ap))  # NaN if there are no objects
                if score > state.best:
                    state = replace(state, best=score, validations_without_improvement=0)
                    fields = {"config": asdict(config), "step": state.step, "voc-area": state.best}
                    if main:
                        detector.save(out / "best.safetensors", **fields)
            tenth = state.step % READ_EVERY == 0
            pressed = interrupt.pressed if group.world_size == 1 else tenth and group.any(interrupt.pressed)
            stopping = pressed and not last
            saving = state.step % config.checkpoint_every == 0 or validation is not None or last or stopping
            if tenth or saving:
                now = meter.read(state.step, optimizer.param_groups[-1]["lr"], validation)
                if bad := meter.first_not_finite(state.step):
                    draws = loader.batch_sampler.at(bad[0])  # type: ignore[union-attr]
                    paths = ", ".join(sorted({str(mixture.samples[draw.sample].path) for draw in draws}))
                    raise CenterdetError(
                        f"step {bad[0]}: the losses and the gradient's norm are {bad[1]}: lower lr, or look at this "
                        f"step's images: {paths}"
                    )
                if main and (tenth or validation or last):
                    write_log(out / "log.csv", now)
                    if writer:
                        write_tensorboard(writer, now)
                if main and saving:
                    save_checkpoint(config, network, averaged, optimizer, state)
                if progress:
                    progress(now)
            if config.patience and state.validations_without_improvement >= config.patience:
                if not last:
                    notice(f"early stopping at step {state.step}/{steps}: no improvement in `patience` validations")
                break
            if stopping:
                raise KeyboardInterrupt

    detector = _detector(averaged, config, mixture.names, device)
    if main:
        detector.save(out / "final.safetensors", config=asdict(config), step=state.step)
    return detector


def _validate(detector: Detector, val: Dataset, group: Group, interrupt: Interrupt) -> Evaluation:
    """The evaluation; each process predicts a part of the images, and all return the result of the whole."""
    part = replace(val, samples=val.samples[group.rank :: group.world_size])
    evaluation = evaluate(detector, part, progress=interrupt.announce)
    if group.world_size == 1:
        return evaluation
    results = evaluation.results
    images = results.images * group.world_size + group.rank
    parts = group.gather([torch.from_numpy(row) for row in (images, results.boxes, results.scores, results.labels)])
    images, boxes, scores, labels = (torch.cat(rows).numpy() for rows in zip(*parts, strict=True))
    order = np.argsort(images, kind="stable")
    return evaluate_detections(Results(boxes[order], scores[order], labels[order], images[order]), val)


def training_images(
    mixture: Mixture,
    config: TrainConfig,
    reading: Callable[[int, int], object] | None = None,
) -> TrainingImages:
    """The images as training augments them; `reading` is called with the number in memory and the number of all."""
    full = config.augment == "full"
    augment = Augment(config.zoom, config.aspect, config.color) if full else Augment((1, 1), 1, 0, flip=False)
    return TrainingImages(mixture, augment, max(config.sizes) * 5 // 4, config.cache_images, reading)


def _validation_set(
    config: TrainConfig, mixture: Mixture, notice: Callable[[str], object], strict: bool, options: ReadOptions
) -> Dataset | None:
    """The validation splits of the first dataset, with the trained classes."""
    if not config.val:
        return None
    path, _ = parse_source(config.data[0], config.train)
    names = None if config.names else mixture.names
    dataset = read_dataset(path, config.val, names=names, notice=notice, strict=strict, options=options)
    [kept] = keep_classes([dataset], mixture.names)
    return kept


def _optimizer(network: Network, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer: separate rates for backbone and heads, weight decay only for convolution weights."""
    groups: list[dict[str, Any]] = []
    backbone = {id(parameter) for parameter in network.backbone.parameters()}
    for in_backbone, lr in ((True, config.backbone_lr), (False, config.lr)):
        chosen = [p for p in network.parameters() if p.requires_grad and (id(p) in backbone) == in_backbone]
        groups.append({"params": [p for p in chosen if p.ndim > 1], "lr": lr, "weight_decay": config.weight_decay})
        groups.append({"params": [p for p in chosen if p.ndim <= 1], "lr": lr, "weight_decay": 0.0})
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, nesterov=True)
    return (torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam)(groups, fused=True)


def _rate(step: int, steps: int, warmup: int) -> float:
    """The factor of the peak rate: linear warm-up, then cosine decay to a hundredth."""
    warmup = min(warmup, steps // 5)
    if step < warmup:
        return (step + 1) / warmup
    return 0.01 + 0.99 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2


def _detector(averaged: AveragedModel, config: TrainConfig, names: Sequence[str], device: torch.device) -> Detector:
    """The detector with the averaged weights as saved: in half precision, at the final input size."""
    network = halve(cast(Network, averaged.module))
    return Detector(PyTorchRuntime(network, names, config.sizes[-1], device=device))
