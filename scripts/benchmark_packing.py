"""What packing a large training set saves: python scripts/benchmark_packing.py [--images 100000 --side 64]

Drawn images are packed. One process prepares batches from the pack, from images in memory, and from files, in turns:
the ratio of the medians is what counts. Then a training from each, in a process of its own: time until the tenth step,
without imports, and anonymous memory, which excludes the pages of mapped files. All seconds are CPU time. Linux only.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import cv2
import torch
import typer

from centerdet import TrainConfig, train
from centerdet.data.formats import read_dataset
from centerdet.data.pack import write_pack
from centerdet.data.records import ReadOptions
from centerdet.data.shapes import write_shapes
from centerdet.training.augment import Augment
from centerdet.training.loader import Schedule, TrainingImages, training_loader
from centerdet.training.mixture import read_mixture

BATCH = 16
SOURCES = {"pack": ("pack", True), "memory": ("data", True), "files": ("data", False)}  # folder, cache_images


def measure_memory() -> float:
    """Anonymous memory of this process in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def run_pack(data: Path, out: Path, side: int) -> tuple[float, float]:
    """CPU seconds, and MiB at the end."""
    start = time.process_time()
    dataset = read_dataset(data, ["train"], options=ReadOptions("keep"))
    write_pack(dataset, data, ["train"], out, side * 5 // 4)
    return time.process_time() - start, measure_memory()


def run_training(data: Path, cache: bool, epochs: float, side: int) -> tuple[float, float, float]:
    """CPU seconds until the tenth step, and MiB then and at the end."""
    seen: list[tuple[float, float]] = []

    def follow(_: object) -> None:
        seen.append((time.process_time() - start, measure_memory()))

    with tempfile.TemporaryDirectory() as out:
        config = TrainConfig.of(
            data=data, out=out, val=(), sizes=(side,), batch=BATCH, threads=1, device="cpu", backbone_weights="none",
            channels=16, freeze=3, epochs=epochs, cache_images=cache, checkpoint_every=10**6,
        )  # fmt: skip
        start = time.process_time()
        train(config, progress=follow)
    return seen[0][0], seen[0][1], seen[-1][1]


def run_loaders(folder: Path, side: int, rounds: int) -> dict[str, float]:
    """Median CPU seconds of ten batches."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    times: dict[str, list[float]] = {}
    loaders = {}
    mixtures = {name: read_mixture([str(folder / name)], ["train"], notice=print) for name in ("data", "pack")}
    for name, (source, cache) in SOURCES.items():
        mixture = mixtures[source]
        images = TrainingImages(mixture, Augment(), side * 5 // 4, cache)
        options = {"batch": BATCH, "seed": 0, "stride": 8}
        loaders[name] = iter(training_loader(images, mixture, Schedule(1, (side,)), steps=range(10**6), **options))  # type: ignore[arg-type]
    for _ in range(1 + rounds):
        for name, loader in loaders.items():
            start = time.process_time()
            for _ in range(10):
                next(loader)
            times.setdefault(name, []).append(time.process_time() - start)
    return {name: statistics.median(seconds[1:]) for name, seconds in times.items()}


def run_alone(function: Callable[..., Any], *arguments: object) -> Any:
    """A function's result from a new process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def main(
    images: int = 100_000,
    side: Annotated[int, typer.Option(help="px of images and input, a multiple of 32")] = 64,
    rounds: Annotated[int, typer.Option(help="of ten batches from each source")] = 100,
    steps: Annotated[int, typer.Option(help="of each training")] = 500,
    folder: Annotated[Path | None, typer.Option(help="keep images and pack here, and reuse them")] = None,
) -> None:
    """Print memory, seconds and ratios."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = folder or Path(temporary)
        if not (folder / "data").exists():
            write_shapes(folder / "data", train=images, val=1, size=side)
        if not (folder / "pack").exists():
            seconds, memory = run_alone(run_pack, folder / "data", folder / "pack", side)
            size = (folder / "pack" / "images.bin").stat().st_size / 2**20
            print(f"packing: {seconds:.0f} s, {memory:.0f} MiB of memory; {size:.0f} MiB on disk", flush=True)
        medians = run_alone(run_loaders, folder, side, rounds)
        for name, seconds in medians.items():
            rate = f"{10 * BATCH / seconds:.0f} images per second prepared"
            print(f"{name}: {rate}, {medians['memory'] / seconds:.2f} of memory", flush=True)
        for name, (source, cache) in SOURCES.items():
            seconds, first, last = run_alone(run_training, folder / source, cache, steps * BATCH / images, side)
            after = f"{first:.0f} MiB there, {last:.0f} MiB at step {steps}"
            print(f"{name}: {seconds:.1f} s to step 10, {after}", flush=True)


if __name__ == "__main__":
    typer.run(main)
