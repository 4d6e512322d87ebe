"""Whether prediction grows in memory or open files: python scripts/long_runs.py --predictions 100000

A network of 64 px with random weights, or one from --weights, predicts JPEG, PNG and broken files, arrays, and bytes of
several sizes, in PyTorch and in ONNX Runtime. Exit code 1: resident memory at the end is 2 % above that after a tenth
of the predictions, or more files are open. Not on Windows.
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import torch
import typer
from PIL import Image

from centerdet import Detector
from centerdet.data.shapes import draw_scene
from centerdet.errors import ImageError
from centerdet.export import export
from centerdet.models import Network
from centerdet.runtimes.pytorch import PyTorchRuntime
from centerdet.text import format_table

GROWTH = 0.02


def main(
    predictions: Annotated[int, typer.Option(min=100, help="of each runtime")] = 100_000,
    runtime: Annotated[list[str], typer.Option(help="pytorch or onnx (repeatable)")] = ["pytorch", "onnx"],  # noqa: B006
    weights: Annotated[str, typer.Option(help="file, or name of shipped weights; default: a small network")] = "",
) -> None:
    """Predict, measure, and print a table."""
    torch.set_num_threads(1)
    rows, failed = [], False
    with tempfile.TemporaryDirectory() as folder:
        if not weights:
            weights = os.path.join(folder, "tiny.safetensors")
            network = Network(3, backbone="efficientnet_lite0", stride=8, channels=16, freeze=2)
            Detector(PyTorchRuntime(network, ("a", "b", "c"), 64, device="cpu")).save(weights)
        sources = make_sources(Path(folder))
        if "onnx" in runtime:
            export(weights, Path(folder, "model.onnx"))
        for name in runtime:
            path = weights if name == "pytorch" else Path(folder, "model.onnx")
            memory, files, seconds = measure(Detector.load(path, device="cpu", threads=1), sources, predictions)
            failed |= memory[1] > memory[0] * (1 + GROWTH) or files[1] > files[0]
            change = f"{100 * (memory[1] / memory[0] - 1):+.2f} %"
            shown = [f"{size / 2**20:.1f}" for size in memory]
            rows.append((name, f"{predictions}", *shown, change, *map(str, files), f"{seconds:.0f}"))
    head = ("runtime", "predictions", "MiB at a tenth", "at the end", "change", "open files", "at the end", "s")
    typer.echo(format_table(head, rows))
    if failed:
        raise typer.Exit(1)


def make_sources(folder: Path) -> list[Any]:
    """Images in every form that `predict` takes, and two that cannot be read."""
    sources: list[Any] = []
    for number, size in enumerate((40, 64, 100, 160)):
        pixels = draw_scene(np.random.default_rng(number), size).image
        for suffix in ("jpg", "png"):
            path = folder / f"{number}.{suffix}"
            Image.fromarray(pixels).save(path)
            sources += [path, path.read_bytes()]
        sources += [pixels, Image.fromarray(pixels)]
    (folder / "broken.jpg").write_bytes((folder / "3.jpg").read_bytes()[:500])
    return [*sources, folder / "broken.jpg", folder / "missing.jpg"]


def measure(detector: Detector, sources: list[Any], predictions: int) -> tuple[list[int], list[int], float]:
    """Resident memory (bytes) and number of open files after a tenth and at the end, and the CPU time (s)."""
    process, memory, files, start = psutil.Process(os.getpid()), [], [], time.process_time()
    for number in range(1, predictions + 1):
        try:
            detector.predict(sources[number % len(sources)], score_threshold=0.1)
        except ImageError:
            if number % len(sources) < len(sources) - 2:  # not one of the two that cannot be read
                raise
        if number in (predictions // 10, predictions):
            memory.append(process.memory_info().rss)
            files.append(process.num_fds())
    return memory, files, time.process_time() - start


if __name__ == "__main__":
    typer.run(main)
