"""`centerdet export`: weights to ONNX or OpenVINO, verified against PyTorch; or to int8, evaluated before and after."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from ..errors import MissingDataError, requires
from ..text import format_percent, format_table, plural
from .options import in_a_folder
from .show import bar, console

if TYPE_CHECKING:
    from ..data.sample import Dataset, Sample

__all__ = ["export"]

CALIBRATED = 100  # images at most: more hardly change the ranges


def export(
    weights: Annotated[str, typer.Argument(help="shipped name (voc, voc-all) or .safetensors weights")],
    out: Annotated[
        Path, typer.Option(help="file to write: NAME.onnx, or NAME.xml with NAME.bin beside it", callback=in_a_folder)
    ],
    form: Annotated[str, typer.Option("--format", help="onnx or openvino; default: by the suffix of --out")] = "",
    half: Annotated[bool, typer.Option("--half", help="store the weights in half precision")] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="8-bit weights and activations (ONNX); needs --calibrate")
    ] = False,
    calibrate: Annotated[
        str,
        typer.Option(metavar="DATA[:SPLIT]", help="calibration dataset for --int8, such as VOCdevkit:2007:train"),
    ] = "",
    evaluate: Annotated[
        str,
        typer.Option(metavar="DATA[:SPLIT]", help="dataset for mAP before and after; default: that of --calibrate"),
    ] = "",
    max_images: Annotated[
        int,
        typer.Option(min=1, help="maximum number of images to evaluate on, evenly spaced; calibration uses 100"),
    ] = 500,
    images: Annotated[
        list[Path] | None,
        typer.Option("--image", help="image to verify the file on (repeatable); default: three photographs"),
    ] = None,
    license_name: Annotated[
        str, typer.Option("--license", help="license of the weights, for the metadata of the file")
    ] = "",
    quiet: Annotated[bool, typer.Option("--quiet", help="print only errors")] = False,
) -> None:
    """Export a detector to ONNX Runtime or OpenVINO, which run it without PyTorch.

    The file is verified against PyTorch on real images. If a box differs by more than 0.05 px or a score by more than
    0.0001, the command fails and writes no file.
    """
    form = form or ("openvino" if out.suffix == ".xml" else "onnx")
    if int8 != bool(calibrate):
        raise typer.BadParameter("--int8 and --calibrate: expected both or none")
    if int8 and (half or form != "onnx"):
        raise typer.BadParameter("--int8: expected --format onnx without --half")
    if evaluate and not int8:
        raise typer.BadParameter("--evaluate: needs --int8")
    with requires("centerdet[export]", "export"):
        from ..export import export as write

    options = {"form": form, "images": images or (), "license_name": license_name}
    if not int8:
        differences = write(weights, out, half=half, **options)  # type: ignore[arg-type]
        if not quiet:
            console.out(f"{out}: differs from PyTorch by {differences}")
        return
    from ..quantization import quantize
    from ..runtimes import open_runtime

    names = open_runtime(weights, device="cpu").names
    chosen = _read(calibrate, "--calibrate", names)
    tested = _read(evaluate, "--evaluate", names) if evaluate else chosen
    with TemporaryDirectory() as folder:
        source = Path(folder, "float.onnx")
        differences = write(weights, source, **options)  # type: ignore[arg-type]
        few = _space(chosen.samples, CALIBRATED)
        quantize(source, out, [sample.path for sample in few])
        if not quiet:
            console.out(f"float: differs from PyTorch by {differences}")
            console.out(f"{out}: calibrated on {plural(len(few), 'image')}")
            _compare({"float": source, "int8": out}, replace(tested, samples=_space(tested.samples, max_images)))


def _compare(files: dict[str, Path], dataset: "Dataset") -> None:
    """Print mAP and latency of two files."""
    from ..bench import time_in_turns
    from ..detector import Detector
    from ..evaluation.evaluation import evaluate
    from ..images import load

    detectors = {name: Detector.load(path, device="cpu") for name, path in files.items()}
    results = []
    for name, detector in detectors.items():
        with bar(f"evaluate {name}", len(dataset)) as (progress, task):
            results.append(evaluate(detector, dataset, progress=lambda done: progress.update(task, completed=done)))
    image = load(dataset.samples[0].path)
    calls = [lambda detector=detector: detector.predict(image) for detector in detectors.values()]
    latencies = np.median(time_in_turns(calls, 30), 1) * 1000
    rows = [
        (name, *(format_percent(100 * ap) for ap in (result.voc.mean_ap, result.voc.mean_ap_11pt)), f"{latency:.1f}")
        for name, result, latency in zip(files, results, latencies.tolist(), strict=True)
    ]
    console.out(format_table(("", "voc-area", "voc07-11pt", "median ms"), rows))
    console.out(results[0].protocol)


def _read(named: str, option: str, names: Sequence[str]) -> "Dataset":
    """Read the dataset DATA[:SPLIT] with the detector's classes; its path may contain colons."""
    from ..data.formats import find_splits, read_dataset

    parts = named.split(":")
    paths = [":".join(parts[:end]) for end in range(len(parts), 0, -1)]
    path = next((one for one in paths if Path(one).exists()), None)
    if path is None:
        raise MissingDataError(f"{option}: {named}: no such dataset")
    splits = [named[len(path) + 1 :]] if len(path) < len(named) else []
    if not splits and (known := find_splits(path)):
        raise typer.BadParameter(f"{option}: expected {path}:SPLIT, with SPLIT one of {', '.join(known)}")
    return read_dataset(path, splits, names=names, notice=lambda line: None)


def _space(samples: "Sequence[Sample]", count: int) -> "list[Sample]":
    """At most `count` of the samples, evenly spaced."""
    chosen = min(count, len(samples))
    return [samples[number * len(samples) // chosen] for number in range(chosen)]
