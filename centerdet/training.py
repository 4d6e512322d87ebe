"""Training: one loop, readable from top to bottom, with all its knobs in `TrainConfig`.

Everything random follows from (seed, step), so a run that is resumed goes on exactly as if it had not stopped.
"""

import csv
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .checkpoint import read_tensors, write_tensors
from .codec import encode
from .data.augment import Augment
from .data.formats import read_dataset
from .data.loader import TrainingPictures, picture_weights, training_loader
from .detector import Detector, save_weights, weights_path
from .errors import CenterdetError, ConfigError, WeightsError
from .evaluation import Evaluation, evaluate
from .files import write_whole
from .losses import detection_loss
from .models import Network, Outputs

__all__ = ["Progress", "TrainConfig", "train"]

KEPT_STATES = 2  # training states that stay on disk: the newest, and one before it should the newest be damaged


@dataclass(frozen=True)
class TrainConfig:
    """Every knob of a training, with its unit or its why: the command line's options, the Python call and the JSON in
    the weights file are all made from these fields."""

    data: Annotated[str, "folder or file of the data set, in any format that is read"]
    out: Annotated[str, "folder of the run"]
    train: Annotated[tuple[str, ...], "splits to train on"] = ("train",)
    val: Annotated[tuple[str, ...], "splits to validate on; none: no validation"] = ("val",)
    names: Annotated[tuple[str, ...], "classes in their order; empty: the data set's own"] = ()

    backbone: Annotated[str, "one of models.BACKBONES"] = "efficientnet_lite0"
    backbone_weights: Annotated[str, "'imagenet' (on this machine), 'download', 'none', or a file"] = "imagenet"
    start: Annotated[str, "detector weights to begin from (a name or a file) instead of the backbone's alone"] = ""
    freeze: Annotated[int, "stages that stay as they are, the stem first: early ones hold what every picture needs"] = 3
    stride: Annotated[int, "px between the cells of the output"] = 8
    channels: Annotated[int, "of neck and heads"] = 96

    epochs: Annotated[float, "passes through the training pictures"] = 60.0
    batch: Annotated[int, "pictures a step"] = 16
    sizes: Annotated[tuple[int, ...], "input px, each for an equal share of the steps; small is fast"] = (
        192,
        256,
        320,
        320,
    )
    optimizer: Annotated[str, "'adamw', 'adam', or 'sgd' (with momentum)"] = "adamw"
    lr: Annotated[float, "of neck and heads"] = 2.5e-3
    backbone_lr: Annotated[float, "of the backbone: it knows much already"] = 1e-3
    weight_decay: Annotated[float, "of convolution weights"] = 0.02
    warmup: Annotated[int, "steps of rising rate, while the heads are still random"] = 200
    clip: Annotated[float, "largest norm of the gradient"] = 10.0
    ema: Annotated[float, "decay a step of the averaged weights, which are the ones that are kept"] = 0.9995

    zoom: Annotated[tuple[float, float], "scales that a picture is shown at; 1 is whole"] = (0.5, 1.8)
    aspect: Annotated[float, "stretch of width against height"] = 1.3
    colour: Annotated[float, "strength of colour changes"] = 0.4
    mosaic: Annotated[float, "share of inputs made of four pictures …"] = 0.3
    plain_end: Annotated[float, "… which ends for this last share of the steps"] = 0.15
    balance: Annotated[float, "how much more often pictures with rare classes are drawn, 0 (not) to 1"] = 0.5

    validate: Annotated[int, "epochs between validations"] = 10
    patience: Annotated[int, "validations without a better one before stopping early; 0: never"] = 0
    save: Annotated[int, "steps between training states"] = 250
    seed: Annotated[int, "of every random draw"] = 0
    workers: Annotated[int, "processes that prepare pictures"] = 0
    keep: Annotated[bool, "keep decoded pictures in memory"] = True
    threads: Annotated[int, "of torch; 0: as many as it likes"] = 0
    device: Annotated[str, "'cpu', 'cuda'; empty: CUDA where there is one"] = ""

    def __post_init__(self) -> None:
        ranges = {
            **dict.fromkeys(("ema", "mosaic", "plain_end", "colour"), (0, 1)),
            **dict.fromkeys(("batch", "validate", "save", "aspect"), (1, math.inf)),
            **dict.fromkeys(("epochs", "lr", "backbone_lr", "balance"), (0, math.inf)),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name}: want {low} to {high}, got {getattr(self, name)}")
        if not self.sizes or any(size < 32 or size % 32 for size in self.sizes):
            raise ConfigError(f"sizes: want multiples of 32 px, got {list(self.sizes)}")
        if self.optimizer not in ("adamw", "adam", "sgd"):
            raise ConfigError(f'optimizer: want "adamw", "adam" or "sgd", got {self.optimizer!r}')

    @classmethod
    def of(cls, **options: Any) -> "TrainConfig":
        """A config from options; one that does not exist is an error that names the nearest."""
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                near = get_close_matches(name, known, 1)
                raise ConfigError(
                    f"{name}: no such option" + (f"; did you mean {near[0]}?" if near else f" of {', '.join(known)}")
                )
        values: dict[str, Any] = {key: _row(value) for key, value in options.items()}
        return cls(**values)

    @property
    def model(self) -> dict[str, Any]:
        """What rebuilds the network, beside its classes."""
        return {"backbone": self.backbone, "stride": self.stride, "channels": self.channels, "freeze": self.freeze}


@dataclass(frozen=True)
class Progress:
    """Where a training stands, given to the caller after every step."""

    step: int
    steps: int
    size: int
    heatmap_loss: float
    box_loss: float
    lr: float
    images_per_second: float
    validation: Evaluation | None = None


def train(config: TrainConfig, *, resume: bool = False, progress: Callable[[Progress], None] | None = None) -> Detector:
    """Train, validate, keep the best; the detector with the final averaged weights.

    The folder `out` receives `log.csv`, `best.safetensors` (by voc-area on the validation splits), `final.safetensors`
    and training states. `resume` goes on from the newest whole state, and is an error where there is none.
    """
    out = Path(config.out)
    states = sorted(out.glob("state-*.safetensors"))
    if states and not resume:
        raise ConfigError(f"out: {out} holds a training already: resume it, or name another folder")
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.set_flush_denormal(True)

    # data
    dataset = read_dataset(config.data, config.train, names=config.names or None)
    val = read_dataset(config.data, config.val, names=dataset.names) if config.val else None
    out.mkdir(parents=True, exist_ok=True)
    pictures = TrainingPictures(
        dataset,
        Augment(config.zoom, config.aspect, config.colour),
        keep_size=max(config.sizes) * 5 // 4,
        keep=config.keep,
    )
    steps = max(1, round(config.epochs * len(dataset) / config.batch))

    def size_at(step: int) -> int:
        return config.sizes[min(step * len(config.sizes) // steps, len(config.sizes) - 1)]

    def mosaic_at(step: int) -> float:
        return config.mosaic if step < steps * (1 - config.plain_end) else 0.0

    # model
    device = torch.device(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
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
        first, best, waited = _resume(states, network, averaged, optimizer, out, config)
    _cut_log(out / "log.csv", first)
    stopped = config.patience > 0 and waited >= config.patience

    loader = training_loader(
        pictures, picture_weights(dataset, config.balance), batch=config.batch, seed=config.seed,
        first=first, last=first if stopped else steps,
        size_at=size_at, mosaic_at=mosaic_at, workers=config.workers, pin=device.type == "cuda",
    )  # fmt: skip
    half = device.type == "cuda" and torch.cuda.is_bf16_supported()
    between = max(1, round(config.validate * len(dataset) / config.batch))
    clock, drawn = time.perf_counter(), 0

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
                f"this step's pictures: {', '.join(sorted(shown))}"
            )
        optimizer.step()
        # Early weights are far from the final ones: the average forgets faster while it is young.
        averaged.multi_avg_fn = get_ema_multi_avg_fn(min(config.ema, (1 + step) / (10 + step)))  # type: ignore[no-untyped-call]
        averaged.update_parameters(network)

        done, lr = step + 1, optimizer.param_groups[-1]["lr"]
        drawn += config.batch
        validation = None
        if val is not None and (done % between == 0 or done == steps):
            detector = _detector(averaged, config, dataset.names, size, device)
            validation = evaluate(detector, val)
            waited += 1
            if validation.voc.mean_ap > best:
                best, waited = validation.voc.mean_ap, 0
                _save(out / "best.safetensors", averaged, config, dataset.names, size, done)
        if done % 10 == 0 or validation or done == steps:
            _log(out / "log.csv", done, size, heatmap.item(), box.item(), lr, validation)
        if done % config.save == 0 or done == steps or validation:
            _save_state(out, done, network, averaged, optimizer, config, best, waited)
        if progress:
            report = Progress(
                done, steps, size, heatmap.item(), box.item(), lr, drawn / (time.perf_counter() - clock), validation,
            )  # fmt: skip
            progress(report)
        if config.patience and waited >= config.patience:
            break

    _save(out / "final.safetensors", averaged, config, dataset.names, config.sizes[-1], steps)
    return _detector(averaged, config, dataset.names, config.sizes[-1], device)


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


def _save(path: Path, averaged: AveragedModel, config: TrainConfig, names: Sequence[str], size: int, step: int) -> None:
    save_weights(path, averaged.module.state_dict(), config.model, names, size, config=asdict(config), step=step)


def _save_state(
    out: Path,
    step: int,
    network: Network,
    averaged: AveragedModel,
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
    best: float,
    waited: int,
) -> None:
    """Write all that the next step depends on, then forget older states."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {f"network.{key}": value for key, value in network.state_dict().items()}
    tensors |= {f"averaged.{key}": value for key, value in averaged.state_dict().items()}
    for index, values in state["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in values.items() if isinstance(value, Tensor)}
    write_tensors(
        out / f"state-{step:08d}.safetensors",
        tensors,
        {"step": step, "best": best, "waited": waited, "config": asdict(config)},
    )
    for old in sorted(out.glob("state-*.safetensors"))[:-KEPT_STATES]:
        old.unlink()


def _resume(
    states: list[Path],
    network: Network,
    averaged: AveragedModel,
    optimizer: torch.optim.Optimizer,
    out: Path,
    config: TrainConfig,
) -> tuple[int, float, int]:
    """Load the newest whole state: its step, the best validation, and how many have passed since."""
    problems = []
    for path in reversed(states):
        try:
            tensors, held = read_tensors(path)
        except WeightsError as error:
            problems.append(str(error))
            continue
        before, now = dict(held["config"], out=""), dict(asdict(config), out="")
        if changed := [key for key in now if _row(before.get(key)) != _row(now[key])]:
            raise ConfigError(
                f"{changed[0]}: {path} was trained with {before.get(changed[0])}, now {now[changed[0]]}: "
                "resume with the same options"
            )
        parts: dict[str, dict[str, Tensor]] = {"network": {}, "averaged": {}, "optimizer": {}}
        for key, value in tensors.items():
            part, name = key.split(".", 1)
            parts[part][name] = value
        network.load_state_dict(parts["network"])
        averaged.load_state_dict(parts["averaged"])
        state = optimizer.state_dict()
        state["state"] = {}
        for key, value in parts["optimizer"].items():
            index, name = key.split(".", 1)
            state["state"].setdefault(int(index), {})[name] = value
        optimizer.load_state_dict(state)
        if problems:
            with (out / "resumed.txt").open("a") as file:
                file.writelines(f"resumed at step {held['step']}: {problem}\n" for problem in problems)
        return held["step"], held["best"], held["waited"]
    raise ConfigError(f"resume: no whole training state in {out}" + "".join(f"; {problem}" for problem in problems))


def _row(value: Any) -> Any:
    """JSON and the command line know lists only; an empty word among their items says nothing."""
    return tuple(item for item in value if item != "") if isinstance(value, tuple | list) else value


def _cut_log(path: Path, step: int) -> None:
    """Forget what was logged after `step`: a training that begins there logs it anew."""
    if path.exists():
        rows = path.read_bytes().splitlines(keepends=True)
        write_whole(path, b"".join(rows[:1] + [row for row in rows[1:] if int(row.split(b",")[0]) <= step]))


def _log(
    path: Path, step: int, size: int, heatmap: float, box: float, lr: float, validation: Evaluation | None
) -> None:
    new = not path.exists() or path.stat().st_size == 0
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["step", "size", "heatmap_loss", "box_loss", "lr", "voc_area", "voc07_11pt"])
        scores = [f"{v:.4f}" for v in (validation.voc.mean_ap, validation.voc.mean_ap_11pt)] if validation else ["", ""]
        writer.writerow([step, size, f"{heatmap:.4f}", f"{box:.4f}", f"{lr:.6f}", *scores])
