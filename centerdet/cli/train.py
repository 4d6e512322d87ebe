"""`centerdet train`: its options are the fields of `TrainConfig`."""

import inspect
from dataclasses import MISSING, fields
from types import GenericAlias
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from ..training import Progress, TrainConfig
from ..training import train as run
from .show import bar, console, errors

__all__ = ["follow", "train"]


def train(resume: bool, quiet: bool, **options: Any) -> None:
    """Train a detector on your own pictures; data in VOC, COCO or YOLO format."""
    config = TrainConfig.of(**options)
    follow(config, resume=resume, quiet=quiet)
    console.print(f"{config.out}/final.safetensors" + (f", {config.out}/best.safetensors" if config.val else ""))


def follow(config: TrainConfig, *, resume: bool = False, quiet: bool = False) -> None:
    """Train with a progress line on a terminal, or a line every 50 steps where there is none."""
    with bar("train", 1, quiet) as (progress, task):

        def show(now: Progress) -> None:
            text = (
                f"{now.size} px  heatmap {now.heatmap_loss:.2f}  box {now.box_loss:.2f}  "
                f"lr {now.lr:.1e}  {now.images_per_second:.0f} pictures/s"
            )
            progress.update(task, total=now.steps, completed=now.step, description=text)
            if progress.disable and not quiet and (now.step % 50 == 0 or now.step == now.steps):
                errors.print(f"step {now.step}/{now.steps}  {text}")
            if now.validation and not quiet:
                area, eleven = 100 * now.validation.voc.mean_ap, 100 * now.validation.voc.mean_ap_11pt
                errors.print(f"step {now.step}: voc-area {area:.1f}, voc07-11pt {eleven:.1f}")

        try:
            run(config, resume=resume, progress=show)
        except KeyboardInterrupt:
            progress.stop()
            errors.print(f"stopped; the same command with --resume goes on from the newest state in {config.out}")
            raise typer.Exit(1) from None


def _options() -> list[inspect.Parameter]:
    """A keyword parameter for each field of the config, with its help, as typer reads them from a signature."""
    hints = get_type_hints(TrainConfig, include_extras=True)
    rows: list[tuple[str, Any, Any, str]] = []
    for field in fields(TrainConfig):
        kind, text = get_args(hints[field.name])
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        if get_origin(kind) is tuple and get_args(kind)[1] is ...:  # a row of any length: the option again and again
            kind, default = GenericAlias(list, get_args(kind)[:1]), list(getattr(TrainConfig, field.name))
        rows.append((field.name, kind, default, text))
    rows.append(("resume", bool, False, "go on from the newest state in --out"))
    rows.append(("quiet", bool, False, "print no progress"))
    parameters = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=Annotated[kind, typer.Option(*_flags(name, default), help=text)],
        )
        for name, kind, default, text in rows
    ]
    return sorted(parameters, key=lambda parameter: parameter.default is not inspect.Parameter.empty)


def _flags(name: str, default: object) -> tuple[str, ...]:
    flag = "--" + name.replace("_", "-")
    return (f"{flag}/--no-{flag[2:]}",) if default is True else (flag,)


train.__signature__ = inspect.Signature(_options())  # type: ignore[attr-defined]
