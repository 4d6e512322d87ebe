"""Prediction by many processes with Ray, and what it costs: see docs/scale.md. Needs centerdet[ray].

python scripts/predict_ray.py predict voc images.parquet predictions/
python scripts/predict_ray.py benchmark voc photos/ --actors 1 --actors 2
"""

import os
import tempfile
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated

import typer

from centerdet import Detector
from centerdet.errors import CenterdetError
from centerdet.scale import Progress, predict_dataset
from centerdet.sources import list_files
from centerdet.text import format_table

app = typer.Typer(no_args_is_help=True)
Weights = Annotated[str, typer.Argument(help="a shipped name, or a weights file")]
ShardSize = Annotated[int, typer.Option(min=1, help="images per shard")]


@app.command()
def predict(
    weights: Weights,
    images: Annotated[
        str, typer.Argument(help="Parquet with a column `path` (a file or a folder), or .txt with a path per line")
    ],
    out: Annotated[Path, typer.Argument(help="folder of the shards; a stopped run continues")],
    actors: Annotated[int | None, typer.Option(help="processes; by default one per core")] = None,
    shard_size: ShardSize = 1000,
    score_threshold: Annotated[float, typer.Option(help="0 to 1")] = 0.3,
    num_gpus: Annotated[float, typer.Option(help="each actor's share of a GPU")] = 0,
    address: Annotated[str | None, typer.Option(help="of a Ray cluster, such as auto")] = None,
) -> None:
    """Predict a list of images, and print the throughput after each shard."""
    if address is not None:
        import ray

        ray.init(address)
    start = time.perf_counter()

    def show(done: Progress) -> None:
        rate = done.images / (time.perf_counter() - start)
        typer.echo(
            f"{done.shards}/{done.total} shards, {done.images} images, {done.errors} errors, {rate:.1f} images/s"
        )

    lines = Path(images).read_text(encoding="utf-8").splitlines() if images.endswith(".txt") else None
    try:
        done = predict_dataset(
            lines or images, weights, out, actors=actors, shard_size=shard_size, score_threshold=score_threshold,
            num_gpus=num_gpus, progress=show,
        )  # fmt: skip
    except CenterdetError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{out}: {done.shards} shards are complete; {done.images} images now, {done.errors} of them errors")


@app.command()
def benchmark(
    weights: Weights,
    folder: Annotated[Path, typer.Argument(help="of images")],
    actors: Annotated[list[int], typer.Option(help="processes (repeatable)")] = [1, 2],  # noqa: B006
    shards: Annotated[int, typer.Option(min=2, help="per actor")] = 10,
    shard_size: ShardSize = 50,
) -> None:
    """Compare actors with a plain loop of `Detector.predict` over the same images, on one thread each.

    The first shard of each actor is left out: it includes the start of Ray. CPU time is that of all processes, so it
    includes what Ray itself computes, and it is comparable on a machine that is not idle.
    """
    files = list_files(str(folder))
    rows, plain = [], []
    for number in actors:
        plain.append(measure_loop(weights, list(islice(cycle(files), shards * shard_size))))
        seconds, busy, start = measure_actors(weights, files, number, shards, shard_size)
        rows.append((f"{number} actors", number, seconds, busy, f"{start:.1f}"))
    wall, cpu = (min(values) for values in zip(*plain, strict=True))
    head = ("", "images/s", "per core", "overhead", "CPU ms/image", "overhead", "start, s")
    table = [("plain loop", f"{1 / wall:.1f}", f"{1 / wall:.1f}", "", f"{1000 * cpu:.1f}", "", "")]
    for name, number, seconds, busy, begin in rows:
        slower, dearer = f"{100 * (seconds * number / wall - 1):+.1f} %", f"{100 * (busy / cpu - 1):+.1f} %"
        rates = f"{1 / seconds:.1f}", f"{1 / seconds / number:.1f}"
        table.append((name, *rates, slower, f"{1000 * busy:.1f}", dearer, begin))
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


def measure_actors(
    weights: str, files: Sequence[str], actors: int, shards: int, shard_size: int
) -> tuple[float, float, float]:
    """Seconds and CPU seconds per image after the first shards, and the seconds until these are complete."""
    import psutil

    me, start = psutil.Process(os.getpid()), time.perf_counter()
    marks: list[tuple[int, float, float]] = []

    def mark(done: Progress) -> None:
        if done.shards not in (actors, actors * shards):
            return
        times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
        marks.append((done.images, time.perf_counter() - start, sum(one.user + one.system for one in times)))

    with tempfile.TemporaryDirectory() as out:
        paths = list(islice(cycle(files), actors * shards * shard_size))
        predict_dataset(paths, weights, out, actors=actors, shard_size=shard_size, progress=mark)
    (before, first, busy), (images, last, busy_last) = marks
    return (last - first) / (images - before), (busy_last - busy) / (images - before), first


if __name__ == "__main__":
    app()
