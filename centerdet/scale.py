"""Prediction and evaluation by many processes and machines, with Ray: a list of images becomes `shards`.

Law: each image has exactly one row. A shard that exists is not predicted again, so a run that was killed continues when
it is started anew; Ray restarts a process that was killed. Needs the extra `ray`.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import __version__
from .data.sample import Dataset, Sample
from .detector import Detector
from .errors import CenterdetError, ConfigError, DataError, WeightsError, WriteError, requires
from .files import lock_folder, open_atomic
from .metrics import Accumulator
from .runtimes.weights import weights_path
from .shards import LIST, Paths, check_options, list_shards, predict_rows, read_rows, write_list, write_rows
from .text import plural

__all__ = ["Progress", "evaluate_shards", "predict_dataset"]

TRIES = 3
"""Of a shard whose process was killed each time, perhaps by one of its images; then its images become errors."""
SHARED_MEMORY = 200_000_000
"""Bytes that processes share if Ray is started here: for numbers of shards, and for accumulators."""


class Progress(NamedTuple):
    """What a call has written (images, and errors among them), and how many of all shards are complete."""

    images: int
    errors: int
    shards: int
    total: int


def predict_dataset(
    paths: Paths,
    weights: str | Path,
    out: str | Path,
    *,
    actors: int | None = None,
    shard_size: int = 1000,
    score_threshold: float | str = 0.3,
    tile: int | None = None,
    overlap: float = 0.2,
    num_gpus: float = 0,
    progress: Callable[[Progress], object] = lambda done: None,
) -> Progress:
    """Predict every image of a list into Parquet files `out`/shard-*.parquet, one row per image.

    Columns: path, height, width, boxes (N, 4) xyxy px, scores, labels, names, error. An image that cannot be read is a
    row with the reason as its error. The same call continues a run that was stopped; other options are a ConfigError.

    Args:
        paths: of images, or a Parquet file or folder with a column `path`; each may be a URL that fsspec opens.
        weights: see `Detector.load`.
        out: a folder that every machine sees.
        actors: processes with a detector and one CPU thread each; by default as many as the cores or GPUs allow.
        shard_size: images per shard; a process that is killed loses at most as many.
        score_threshold: see `Detector.predict`, as for the next two.
        tile: side in px of tiles.
        overlap: of tiles.
        num_gpus: each actor's share of a GPU; 0: CPU only.
        progress: called after each shard.

    Uses the cluster to which `ray.init` has connected this process, else starts Ray on this machine until it returns.
    """
    if min(shard_size, 1 if actors is None else actors) < 1:
        raise ConfigError(f"shard_size, actors: expected at least 1, got {shard_size}, {actors}")
    ray = _import_ray()
    out, file, device = Path(out).absolute(), weights_path(weights).absolute(), "cuda" if num_gpus else "cpu"
    how: dict[str, Any] = {"score_threshold": score_threshold, "tile": tile, "overlap": overlap}
    detector = Detector.load(file, device=None if num_gpus else device, threads=1)  # this machine may have no GPU
    detector.predict_batch([], **how)  # checks the options
    with lock_folder(out):
        with open_atomic(out / LIST) as list_file:
            count, list_digest = write_list(paths, list_file, shard_size)
            digest = _digest(file)
            options = {
                "centerdet": __version__, "weights_sha256": digest, "names": list(detector.names), **how,
                "device": device, "shard_size": shard_size, "images": count, "list_sha256": list_digest,
            }  # fmt: skip
            check_options(out, options)
        for tries in out.glob(".tries-*"):
            tries.unlink()
        shards, _ = list_shards(out)
        missing = [number for number, shard in enumerate(shards) if not shard.exists()]
        done = Progress(0, 0, len(shards) - len(missing), len(shards))
        if missing:
            with _connect(ray, actors):
                for images, errors in _run_actors(ray, missing, (file, digest, out, device, how), actors, num_gpus):
                    done = Progress(done.images + images, done.errors + errors, done.shards + 1, done.total)
                    progress(done)
        if absent := sum(not shard.exists() for shard in shards):
            raise WriteError(f"{out}: {plural(absent, 'shard')} written by another machine: share the folder with it")
    return done


def evaluate_shards(out: str | Path, dataset: Dataset) -> Accumulator:
    """A dataset's images with their detections in a complete folder of `predict_dataset`, collected by Ray.

    `compute()` and `compute_coco()` of the result equal an evaluation of the same detections bit for bit. Images are
    matched by their paths as written: those in the folder alone are left out, one that it has twice counts once, and
    one with an error is a DataError. AP needs predictions with score_threshold=0.
    """
    ray = _import_ray()
    shards, names = list_shards(Path(out).absolute())
    if names != tuple(dataset.names):
        raise DataError(f"names: the shards have {list(names)}, the dataset has {list(dataset.names)}")
    if absent := sum(not shard.exists() for shard in shards):
        raise DataError(f"{out}: {absent} of {plural(len(shards), 'shard')} are missing: run the prediction again")
    samples = {str(one.path): (number, replace(one, packed=None)) for number, one in enumerate(dataset.samples)}
    if len(samples) < len(dataset):
        raise DataError(f"dataset: {plural(len(dataset) - len(samples), 'image')} listed twice")
    images = [[samples.pop(row["path"], None) for row in read_rows(shard, ["path"])] for shard in shards]
    if samples:
        raise DataError(
            f"{out}: {len(samples)} of the dataset's {len(dataset)} images are missing: {min(samples)}, ..."
        )
    collected = Accumulator(len(names))
    with _connect(ray, None):
        collect = ray.remote(_collect)
        for task in [collect.remote(*one, len(names)) for one in zip(shards, images, strict=True)]:
            collected.merge(ray.get(task))
    return collected


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # on Linux, too: listen on loopback only
    with requires("centerdet[ray]", "scale"):
        import ray.data
    return ray


@contextmanager
def _connect(ray: Any, actors: int | None) -> Iterator[None]:
    """Start Ray for the block unless it runs; an error of its tasks becomes the CenterdetError that caused it."""
    if new := not ray.is_initialized():
        quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        ray.init("local", num_cpus=actors, object_store_memory=SHARED_MEMORY, **quiet)
        logging.getLogger("ray.data").setLevel("ERROR")
        ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield
    except ray.exceptions.RayError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, CenterdetError):
            cause = getattr(cause, "cause", None) or cause.__cause__
        raise cause or CenterdetError(f"Ray: {error}") from error
    finally:
        if new:
            ray.shutdown()


def _run_actors(
    ray: Any, shards: list[int], arguments: tuple[Any, ...], actors: int | None, num_gpus: float
) -> Iterator[tuple[int, int]]:
    """The numbers of images and errors of each shard, as shards are completed."""
    present = ray.cluster_resources()
    actors = actors or int(present.get("GPU", 0) / num_gpus if num_gpus else present.get("CPU", 0))
    if not actors:
        raise ConfigError(f"num_gpus: expected a cluster with {num_gpus:g} or more, got {present.get('GPU', 0):g}")
    numbers = ray.data.from_items([{"shard": number} for number in shards], override_num_blocks=len(shards))
    counts = numbers.map_batches(
        _Predictor,
        fn_constructor_args=arguments,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(actors, len(shards)), max_tasks_in_flight_per_actor=1),
        num_cpus=1,
        num_gpus=num_gpus,
    )  # Ray Data restarts a killed actor, and runs its task again
    for row in counts.iter_rows():
        yield int(row["images"]), int(row["errors"])


class _Predictor:
    """An actor: a detector that reads, predicts, and writes whole shards."""

    def __init__(self, weights: Path, digest: str, out: Path, device: str, how: dict[str, Any]) -> None:
        from pyarrow.parquet import ParquetFile

        if _digest(weights) != digest:
            raise WeightsError(f"{weights}: differs from the file on the machine that started the run")
        self.detector = Detector.load(weights, device=device, threads=1)
        self.out, self.how, self.list, self.shards = out, how, ParquetFile(out / LIST), list_shards(out)[0]

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The number of a shard to the numbers of its images and errors; each an array of one, as Ray Data has it."""
        [number] = batch["shard"].tolist()
        if not self.shards[number].exists():  # else a process wrote it, and was killed before it returned
            self._write(number)
        errors = [row["error"] is not None for row in read_rows(self.shards[number], ["error"])]
        return {"images": np.array([len(errors)]), "errors": np.array([sum(errors)])}

    def _write(self, number: int) -> None:
        paths, tries = self.list.read_row_group(number).column("path").to_pylist(), self.out / f".tries-{number}"
        with tries.open("ab") as file:
            file.write(b".")
        if tries.stat().st_size > TRIES:
            error = f"not predicted: {TRIES} processes were killed while they predicted its shard"
            write_rows(self.shards[number], ({"path": path, "error": error} for path in paths))
        else:
            write_rows(self.shards[number], predict_rows(self.detector, paths, self.how))
        tries.unlink(missing_ok=True)


def _collect(shard: Path, images: list[tuple[int, Sample] | None], num_classes: int) -> Accumulator:
    """A task: those images of a shard that have a number and annotations."""
    collected = Accumulator(num_classes)
    for row, image in zip(read_rows(shard, ["boxes", "scores", "labels", "error"]), images, strict=True):
        if image is None:
            continue
        if row["error"] is not None:
            raise DataError(row["error"])
        number, sample = image
        objects = {name: getattr(sample, name) for name in ("boxes", "labels", "crowd")}
        objects |= {"difficult": sample.ignored, "area": sample.areas}
        collected.update(row | {"boxes": np.array(row["boxes"]).reshape(-1, 4)}, objects, number)
    return collected


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
