"""Speed and memory on this machine: python scripts/benchmark.py VOCdevkit [--threads 2]

Training ms per image (batch 16, 320 px, data included) with several options; predict ms for one image in memory, and
for its network alone; evaluation seconds for 4952 images x 100 detections x 20 classes; peak memory of each.
"""

import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Any

import typer


def training(data: str, threads: int, steps: int, **options: Any) -> str:
    """Median ms per image between the reports of progress, without the last one, which waits for a checkpoint."""
    from centerdet import TrainConfig, train

    marks: list[tuple[int, float]] = []
    with tempfile.TemporaryDirectory() as out:
        base = {"train": ("2012:extra",), "val": (), "sizes": (320,), "epochs": steps * 16 / 170, "threads": threads}
        options = {"checkpoint_every": 10**6, "backbone_weights": "none", **base, **options}
        config = TrainConfig(data=(data,), out=out, **options)
        train(config, progress=lambda now: marks.append((now.step, time.perf_counter())))
    gaps = [(end - start) / (last - first) for (first, start), (last, end) in pairwise(marks[:-1])]
    return f"{1000 * statistics.median(gaps) / config.batch:.1f} ms an image"


def prediction(data: str, threads: int, steps: int) -> str:
    """Median ms of `predict` of one image in memory and of its bare folded network, in turns; growth of the process."""
    import numpy as np

    from centerdet import Detector
    from centerdet.data.voc import read_voc
    from centerdet.images import load

    detector = Detector.load("voc", device="cpu", threads=threads)
    images = [load(sample.path) for sample in read_voc(data, ["2012:extra"]).samples[:50]]
    batch = np.zeros((1, detector.size, detector.size, 3), np.uint8)
    times: dict[str, list[float]] = {"predict": [], "network": []}
    for number in range(steps):
        for name, values in times.items():
            start = time.perf_counter()
            detector.predict(images[number % 50]) if name == "predict" else detector.runtime.run(batch)
            values.append(time.perf_counter() - start)
        if number == 50:
            before = peak()
    medians = {name: 1000 * statistics.median(values) for name, values in times.items()}
    grown = f"{steps} images grew the process by {peak() - before:.0f} MB"
    return f"{medians['predict']:.1f} ms, of which network {medians['network']:.1f} ms; {grown}"


def evaluation(data: str, threads: int, steps: int) -> str:
    """Median seconds of `voc_evaluate` on made-up detections."""
    import numpy as np

    from centerdet.metrics import voc_evaluate

    rng = np.random.default_rng(0)

    def boxes(count: int) -> Any:
        corner = rng.uniform(0, 400, (count, 2))
        return np.concatenate([corner, corner + rng.uniform(10, 200, (count, 2))], 1)

    detections, objects = 4952 * 100, 14976
    arrays = (
        boxes(detections), rng.random(detections), rng.integers(0, 20, detections), np.repeat(np.arange(4952), 100),
        boxes(objects), rng.integers(0, 20, objects), rng.integers(0, 4952, objects),
    )  # fmt: skip
    times = []
    for _ in range(5):
        start = time.perf_counter()
        voc_evaluate(*arrays, num_classes=20)
        times.append(time.perf_counter() - start)
    return f"{statistics.median(times):.3f} s"


def peak() -> float:
    """Largest memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _report(name: str, task: Callable[..., str], arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    print(f"{name:<42} {task(*arguments, **options)}; peak memory {peak():.0f} MB", flush=True)


def main(
    data: str, threads: int = 2, steps: Annotated[int, typer.Option(help="training steps, at least 30")] = 40
) -> None:
    """Measure each in a process of its own."""
    tasks: list[tuple[str, Callable[..., str], int, dict[str, Any]]] = [
        ("train, freeze 3 (the recipe)", training, steps, {}),
        ("train, freeze 2", training, steps, {"freeze": 2}),
        ("train, freeze 4", training, steps, {"freeze": 4}),
        ("train, freeze 3, one loader process", training, steps, {"workers": 1}),
        ("predict", prediction, 1000, {}),
        ("evaluate 4952 x 100 x 20", evaluation, 5, {}),
    ]
    for name, task, count, options in tasks:
        process = multiprocessing.get_context("spawn").Process(
            target=_report, args=(name, task, (data, threads, count), options)
        )
        process.start()
        process.join()
        if process.exitcode:
            raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
