"""What Ray costs over a plain loop: python scripts/benchmark_ray.py voc photos/ --actors 1 --actors 2

A loop of `Detector.predict` with one thread, before each number of actors, and actors with one thread each on the same
images. The first and the last shard of each actor are left out, with the start and end of Ray. CPU time is that of all
processes, those of Ray included; unlike the images per second, it also counts on a machine that is not idle.
"""

import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated

import psutil
import typer

from centerdet import Detector
from centerdet.scale import Progress, predict_dataset
from centerdet.sources import list_files
from centerdet.text import format_table


def main(
    weights: Annotated[str, typer.Argument(help="a shipped name, or a weights file")],
    folder: Annotated[Path, typer.Argument(help="of images")],
    actors: Annotated[list[int], typer.Option(help="processes (repeatable)")] = [1, 2],  # noqa: B006
    shards: Annotated[int, typer.Option(min=3, help="per actor")] = 12,
    shard_size: Annotated[int, typer.Option(min=1, help="images per shard")] = 50,
) -> None:
    """Measure, and print a table."""
    paths = list(islice(cycle(list_files(str(folder))), shards * shard_size))
    loops, rows = [], []
    for number in actors:
        loops.append(measure_loop(weights, paths))
        rows.append((number, *measure_actors(weights, paths, number, shard_size)))
    wall, cpu = (min(values) for values in zip(*loops, strict=True))
    table = [("plain loop", f"{1 / wall:.1f}", f"{1 / wall:.1f}", "", f"{1000 * cpu:.1f}", "", "")]
    for number, seconds, busy, start in rows:
        rates = (f"{1 / seconds:.1f}", f"{1 / seconds / number:.1f}")
        slower, dearer = (f"{100 * (ratio - 1):+.1f} %" for ratio in (number * seconds / wall, busy / cpu))
        table.append((f"{number} actors", *rates, slower, f"{1000 * busy:.1f}", dearer, f"{start:.1f}"))
    head = ("", "images/s", "per actor", "overhead", "CPU ms/image", "overhead", "first shards, s")
    typer.echo(format_table(head, table))


def measure_loop(weights: str, paths: Sequence[str]) -> tuple[float, float]:
    """Seconds and CPU seconds per image."""
    detector = Detector.load(weights, device="cpu", threads=1)
    for path in paths[:5]:
        detector.predict(path)
    start, busy = time.perf_counter(), time.process_time()
    for path in paths:
        detector.predict(path)
    return (time.perf_counter() - start) / len(paths), (time.process_time() - busy) / len(paths)


def measure_actors(weights: str, paths: Sequence[str], actors: int, shard_size: int) -> tuple[float, float, float]:
    """Seconds and CPU seconds per image, and seconds until the first shards; each actor predicts all paths."""
    start, marks = time.perf_counter(), []

    def mark(done: Progress) -> None:
        if done.shards in (actors, done.total - actors):
            marks.append((done.images, time.perf_counter() - start, cpu_time()))

    with tempfile.TemporaryDirectory() as out:
        predict_dataset([*paths] * actors, weights, out, actors=actors, shard_size=shard_size, progress=mark)
    (images, first, busy), (images_last, last, busy_last) = marks
    count = images_last - images
    return (last - first) / count, (busy_last - busy) / count, first


def cpu_time() -> float:
    """Seconds of this process and its descendants."""
    seconds, me = 0.0, psutil.Process(os.getpid())
    for process in (me, *me.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # it has ended
            seconds += sum(process.cpu_times()[:2])
    return seconds


if __name__ == "__main__":
    typer.run(main)
