"""`centerdet train`: its options are the fields of `TrainConfig`."""

import inspect
import shlex
import sys
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields, replace
from datetime import timedelta
from pathlib import Path
from types import GenericAlias
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from ..data.records import PLAIN, Item, ReadOptions
from ..errors import ConfigError
from ..training.config import PRESETS, TrainConfig
from .options import Json, Outside, Rescale, Strict, follow_reading
from .show import bar, console, errors, warn, write_json

if TYPE_CHECKING:
    from ..training.loop import Progress

__all__ = ["follow", "train"]

INTERRUPTED = 130  # 128 + SIGINT, as in shells
PANELS = {"data": "Data", "backbone": "Network", "epochs": "Schedule", "augment": "Augmentation", "val_every": "Run"}
"""The first field of each section of the help."""
PRESET = "defaults for " + "; ".join(
    f"{count:,} images ({name}): "
    + (", ".join(f"{key} {value}" for key, value in values.items()) or "those shown here")
    for name, (count, values) in PRESETS.items()
)


def train(
    ctx: typer.Context,
    preset: Annotated[
        Literal["small", "medium", "large", "auto"],
        typer.Option(
            help=PRESET + ". auto: the nearest to the number of your images. Options override the preset",
            rich_help_panel="Schedule",
        ),
    ] = "medium",
    resume: Annotated[bool, typer.Option("--resume", help="continue from the newest checkpoint in --out")] = False,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="resume even if images or labels have changed")
    ] = False,
    strict: Strict = False,
    rescale: Rescale = False,
    allow_outside: Outside = False,
    json_file: Json = "",
    quiet: Annotated[bool, typer.Option("--quiet", help="do not print progress")] = False,
    **options: Any,
) -> None:
    """Train a detector on your own images.

    The dataset is in VOC, COCO or YOLO format, or an export of a labeling tool. Ctrl-C saves a checkpoint, prints the
    command that continues the training, and exits with 130. A second Ctrl-C stops immediately.
    """
    given = {name: value for name, value in options.items() if ctx.get_parameter_source(name).name != "DEFAULT"}  # type: ignore[union-attr]
    reading = ReadOptions(rescale=rescale, allow_outside=allow_outside)
    try:
        if preset == "auto":
            from ..training.mixture import choose_preset

            config = TrainConfig.of(**given)
            preset = choose_preset(config.data, config.train, replace(reading, progress=follow_reading(quiet)))  # type: ignore[assignment]
            if not quiet:
                errors.out(f"preset: {preset}")
        config = TrainConfig.of(preset=preset, **given)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error
    follow(config, resume=resume, accept_changes=accept_changes, strict=strict, reading=reading, quiet=quiet)
    made = [path for name in ("final", "best") if (path := Path(config.out, f"{name}.safetensors")).is_file()]
    if not write_json(json_file, {path.stem: _describe(path) for path in made}):
        console.out(", ".join(map(str, made)))


def _describe(weights: Path) -> dict[str, Any]:
    from ..runtimes.weights import read_tensors

    metadata = read_tensors(weights)[1]
    return {"weights": str(weights), **{key: metadata.get(key) for key in ("step", "size", "names", "voc-area")}}


def follow(
    config: TrainConfig,
    *,
    resume: bool = False,
    accept_changes: bool = False,
    strict: bool = False,
    reading: ReadOptions = PLAIN,
    quiet: bool = False,
) -> None:
    """Train with a progress line on a terminal; elsewhere print a line every 50 steps. Ctrl-C raises `typer.Exit`."""
    from ..training.loop import train as run

    with bar("reading images", None, quiet, text=True) as (progress, task):

        def show(now: "Progress") -> None:
            text = (
                f"{now.size} px  heatmap {now.heatmap_loss:.2f}  box {now.box_loss:.2f}  lr {now.lr:.1e}  "
                f"{now.images_per_second:.0f} images/s  eta {timedelta(seconds=round(now.eta))}"
            )
            progress.update(task, total=now.steps, completed=now.step, description=text)
            if progress.disable and not quiet and (now.step % 50 == 0 or now.step == now.steps):
                errors.out(f"step {now.step}/{now.steps}  {text}")
            if now.validation and not quiet:
                area, eleven = 100 * now.validation.voc.mean_ap, 100 * now.validation.voc.mean_ap_11pt
                errors.out(f"step {now.step}: voc-area {area:.1f}, voc07-11pt {eleven:.1f}")

        def follow_annotations(items: Iterable[Item]) -> Iterator[Item]:
            for number, item in enumerate(items, 1):
                progress.update(task, completed=number)
                yield item

        def decoding(done: int, total: int) -> None:
            progress.update(task, total=total, completed=done)

        try:
            run(
                config, resume=resume, accept_changes=accept_changes, strict=strict,
                options=replace(reading, progress=follow_annotations),
                progress=show, reading=decoding, notice=warn,
            )  # fmt: skip
        except KeyboardInterrupt:
            progress.stop()
            errors.out(_how_to_continue(config))
            raise typer.Exit(INTERRUPTED) from None


def _how_to_continue(config: TrainConfig) -> str:
    from ..training.checkpoints import list_checkpoints

    if not (checkpoints := list_checkpoints(config.out)):
        return "stopped before the first checkpoint"
    saved = f"stopped; checkpoint: {checkpoints[-1]}"
    if len(sys.argv) == 1:  # called from a script without arguments, which has no --resume
        return saved
    program = Path(sys.argv[0])
    words = ["centerdet"] if program.stem in ("centerdet", "__main__") else ["python", str(program)]
    words += [*sys.argv[1:], *["--resume"] * ("--resume" not in sys.argv)]
    return f"{saved}. To continue:\n{shlex.join(words)}"


def _options() -> list[inspect.Parameter]:
    """A keyword parameter with help for each field of the config; typer turns a signature into options."""
    hints = get_type_hints(TrainConfig, include_extras=True)
    parameters, panel = [], ""
    for field in fields(TrainConfig):
        kind, text = get_args(hints[field.name])
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        if get_origin(kind) is tuple and get_args(kind)[1] is ...:  # a tuple of any length: a repeatable option
            kind = GenericAlias(list, get_args(kind)[:1])
            default = list(default) if isinstance(default, tuple) else default
        panel = PANELS.get(field.name, panel)
        option = typer.Option(*_flags(field.name, default), help=text, rich_help_panel=panel)
        parameters.append(
            inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
            )
        )
    return parameters


def _flags(name: str, default: object) -> tuple[str, ...]:
    flag = "--" + name.replace("_", "-")
    return (f"{flag}/--no-{flag[2:]}",) if default is True else (flag,)


_context, *_fixed = list(inspect.signature(train).parameters.values())[:-1]
train.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [_context, *_options(), *(one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in _fixed)]
)
