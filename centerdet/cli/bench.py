"""`centerdet bench`: latency, memory and cold start of weights files, side by side."""

from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer

from ..text import format_table
from .options import Device, Json
from .show import bar, console, write_json

__all__ = ["bench"]


def bench(
    weights: Annotated[
        list[str], typer.Argument(help="shipped name (voc, voc-all), weights file or exported file (repeatable)")
    ],
    image: Annotated[
        Path | None, typer.Option(help="image to predict; default: a generated one", dir_okay=False)
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option(min=1, help="CPU threads (repeatable); default: 1 and the number of CPUs")
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="timed predictions per detector")] = 50,
    export: Annotated[
        bool, typer.Option("--export/--no-export", help="also export weights for the other installed runtimes")
    ] = True,
    json_file: Json = "",
    device: Device = "",
    quiet: Annotated[bool, typer.Option("--quiet", help="do not print progress")] = False,
) -> None:
    """Measure the speed and memory of detectors on this machine, in every installed runtime.

    Prints the latency from an image in memory to its detections, the latency of the network alone, the peak memory, and
    the time from the start of a process to its first detections. Detectors take turns, so other work on the machine
    slows all of them alike.
    """
    from ..bench import COLUMNS, describe_machine
    from ..bench import bench as measure
    from ..images import load

    counts = list(dict.fromkeys(threads or [1, _count_cpus()]))
    if image is None:
        from ..data.shapes import draw_scene

        pixels = draw_scene(np.random.default_rng(1), 480).image
    else:
        pixels = load(image)
    with TemporaryDirectory() as folder:
        every = list(weights)
        for one in weights if export else ():
            every += _export(one, Path(folder), quiet)
        with bar("bench", runs + len(every) * len(counts), quiet) as (progress, task):
            timings = measure(
                every,
                pixels,
                threads=counts,
                device=device or None,
                runs=runs,
                progress=lambda: progress.advance(task),
            )
    result = {
        "machine": describe_machine(),
        "image": list(pixels.shape[:2]),
        "runs": runs,
        "timings": [{**one.to_dict(), "weights": _strip(one.weights, folder)} for one in timings],
    }
    if write_json(json_file, result):
        return
    rows = [(_strip(one.weights, folder), *one.row()[1:]) for one in timings]
    console.out(format_table(COLUMNS, rows))
    console.out(f"image of {pixels.shape[1]} x {pixels.shape[0]} px, {runs} runs in turns")


def _count_cpus() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _export(weights: str, folder: Path, quiet: bool) -> list[str]:
    """Export weights for each installed runtime other than PyTorch."""
    if Path(weights).suffix in (".onnx", ".xml") or any(find_spec(one) is None for one in ("onnx", "onnxscript")):
        return []
    from ..export import export

    paths = []
    for form, suffix, package in (("onnx", ".onnx", "onnxruntime"), ("openvino", ".xml", "openvino")):
        if find_spec(package) is not None:
            path = folder / f"{Path(weights).stem}{suffix}"
            with bar(f"export {path.name}", 1, quiet) as (progress, task):
                export(weights, path, form=form)  # type: ignore[arg-type]
                progress.advance(task)
            paths.append(str(path))
    return paths


def _strip(weights: str, folder: str) -> str:
    """The name of a temporarily exported file, without its folder."""
    return weights.removeprefix(folder).lstrip("/\\") if weights.startswith(folder) else weights
