"""Predict a list of images on many cores or machines: python scripts/predict_ray.py voc images.parquet predictions/

The same command continues a run that was killed. It prints the throughput after each shard, Ray's start included. Needs
centerdet[ray]; see docs/scale.md.
"""

import time
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from centerdet.errors import CenterdetError
from centerdet.scale import Progress, predict_dataset


def main(
    weights: Annotated[str, typer.Argument(help="a shipped name, or a weights file")],
    images: Annotated[str, typer.Argument(help="Parquet with a column `path`, or .txt with a path per line")],
    out: Annotated[Path, typer.Argument(help="folder of the shards")],
    actors: Annotated[int | None, typer.Option(help="processes; by default one per core")] = None,
    shard_size: Annotated[int, typer.Option(help="images per shard")] = 1000,
    score_threshold: Annotated[float, typer.Option(help="0 to 1")] = 0.3,
    num_gpus: Annotated[float, typer.Option(help="each actor's share of a GPU")] = 0,
    address: Annotated[str | None, typer.Option(help="of a Ray cluster, such as auto")] = None,
) -> None:
    """Predict a list of images into Parquet files."""
    if address is not None:
        import_module("ray").init(address)
    start = time.perf_counter()

    def show(done: Progress) -> None:
        rate = done.images / (time.perf_counter() - start)
        typer.echo(f"{done.shards} of {done.total} shards; {done.images} images, {rate:.1f}/s; {done.errors} errors")

    lines = Path(images).read_text(encoding="utf-8").splitlines() if images.endswith(".txt") else None
    try:
        done = predict_dataset(
            images if lines is None else lines, weights, out, actors=actors, shard_size=shard_size,
            score_threshold=score_threshold, num_gpus=num_gpus, progress=show,
        )  # fmt: skip
    except CenterdetError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{out}: {done.shards} shards are complete; {done.images} images now, {done.errors} of them errors")


if __name__ == "__main__":
    typer.run(main)
