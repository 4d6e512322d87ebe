"""Time the evaluators on generated data beside every installed peer: seconds, ratios, peak memory, agreement, growth.

Peers get a dict of annotations and one array of results, made before the clock starts. With --files, all get two JSON
files, each in a process of its own, and the clock runs from the first read to the twelve numbers; peak memory is that
of the whole process, on Linux. Set RAYON_NUM_THREADS=2.
"""

import contextlib
import importlib
import io
import json
import re
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter
from timeit import timeit
from typing import Any

import numpy as np

from centerdet.metrics import coco_evaluate, voc_evaluate

OURS = "centerdet.metrics.cocoeval"
PEERS = {"ultrafast_pycocotools": "COCOeval", "hotcoco": "COCOeval", "faster_coco_eval": "COCOeval_faster"}


def make(images: int, classes: int, truths: int, detections: int, seed: int = 0) -> dict[str, Any]:
    """Images of 640 x 480, skewed classes, a fifth of the objects beside another; half of the detections near one."""
    rng = np.random.default_rng(seed)
    gt_images = np.sort(rng.integers(0, images, truths))
    gt_labels = (classes * rng.random(truths) ** 2).astype(int)
    sides = rng.lognormal(4, 0.9, (truths, 2)).clip(4, 400)
    corners = rng.random((truths, 2)) * ((640, 480) - sides)
    beside = np.flatnonzero((rng.random(truths) < 0.2)[1:] & (gt_images[1:] == gt_images[:-1])) + 1
    gt_labels[beside], sides[beside] = gt_labels[beside - 1], sides[beside - 1]
    corners[beside] = corners[beside - 1] + sides[beside] * rng.normal(0, 0.3, (len(beside), 2))
    gt_boxes = np.concatenate([corners, corners + sides], 1).round(2)

    det_images = np.arange(detections) * images // detections
    starts = np.searchsorted(gt_images, np.arange(images + 1))
    count = np.diff(starts)[det_images]
    owner = np.minimum(starts[det_images] + (rng.random(detections) * count).astype(int), truths - 1)
    near = rng.random(detections) < 0.5 * (count > 0)
    spread = rng.lognormal(-2.5, 1, (detections, 1))
    boxes = gt_boxes[owner] + spread * np.tile(sides[owner], 2) * rng.normal(0, 0.7, (detections, 4))
    boxes[~near] = gt_boxes[rng.integers(0, truths, np.count_nonzero(~near))]
    boxes.reshape(-1, 2, 2).sort(1)
    same = near | (rng.random(detections) < 0.3)
    det_labels = np.where(same, gt_labels[owner], rng.integers(0, classes, detections))
    scores = rng.random(detections) ** np.where(near, 1 + 4 * spread[:, 0], 6)
    det = {"det_boxes": boxes.astype(np.float32), "det_scores": scores.astype(np.float32), "det_labels": det_labels}
    truth = {"gt_boxes": gt_boxes, "gt_labels": gt_labels, "gt_images": gt_images}
    return {**det, "det_images": det_images, **truth, "num_classes": classes}


def as_coco(data: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """The same data as a COCO dict and an (N, 7) array of results."""
    det, boxes = data["det_boxes"].astype(np.float64), data["gt_boxes"].copy()
    det[:, 2:] -= det[:, :2]
    boxes[:, 2:] -= boxes[:, :2]
    columns = [data["gt_images"].tolist(), data["gt_labels"].tolist(), boxes.tolist(), boxes[:, 2:].prod(1).tolist()]
    truths = [
        {"id": row, "image_id": image, "category_id": label, "bbox": box, "area": area, "iscrowd": 0}
        for row, (image, label, box, area) in enumerate(zip(*columns, strict=True), 1)
    ]
    images = [{"id": number, "width": 640, "height": 480} for number in np.unique(data["det_images"]).tolist()]
    categories = [{"id": label, "name": str(label)} for label in range(data["num_classes"])]
    everything = {"images": images, "categories": categories, "annotations": truths}
    return everything, np.column_stack([data["det_images"], det, data["det_scores"], data["det_labels"]])


def run_peer(name: str, truths: dict[str, Any], results: Any) -> Any:
    """Build and evaluate; all of them have pycocotools' methods."""
    module = importlib.import_module(name)
    with contextlib.redirect_stdout(io.StringIO()):
        annotations = module.COCO()
        annotations.dataset = truths
        annotations.createIndex()
        run = getattr(module, PEERS[name])(annotations, annotations.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
    return run


def run_files(name: str, truth: str, results: str) -> None:
    """Print seconds, megabytes and the twelve numbers as JSON; for a process of its own."""
    module = importlib.import_module(name)
    start = perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        annotations = module.COCO(truth)
        run = getattr(module, PEERS.get(name, "COCOeval"))(annotations, annotations.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    taken, status = perf_counter() - start, Path("/proc/self/status").read_text()
    peak = int(re.search(r"VmHWM:\s*(\d+)", status)[1]) / 1e3  # type: ignore[index]
    print(json.dumps([taken, peak, list(map(float, run.stats[:12]))]))


def compare_files(data: dict[str, Any], rounds: int = 5) -> None:
    """All in turn, several times: median seconds, peak memory, what ours takes of each."""
    truths, results = as_coco(data)
    rows = results.tolist()
    records = [
        {"image_id": int(image), "category_id": int(label), "bbox": box, "score": score}
        for image, *box, score, label in rows
    ]
    names = [OURS, *filter(find_spec, PEERS)]
    with tempfile.TemporaryDirectory() as folder:
        files = [f"{folder}/truth.json", f"{folder}/results.json"]
        for file, content in zip(files, (truths, records), strict=True):
            Path(file).write_text(json.dumps(content))
            print(f"{Path(file).name:22} {Path(file).stat().st_size / 1e6:9.1f} MB")
        del truths, results, rows, records
        outputs: dict[str, list[Any]] = {name: [] for name in names}
        for _ in range(rounds):
            for name in names:
                call = [sys.executable, __file__, "--child", name, *files]
                outputs[name].append(json.loads(subprocess.run(call, check=True, capture_output=True).stdout))
    numbers = {name: (median(one[0] for one in some), max(one[1] for one in some)) for name, some in outputs.items()}
    for name, (taken, peak) in numbers.items():
        worst = np.abs(np.subtract(outputs[name][0][2], outputs[OURS][0][2])).max()
        ratios = f"ours takes {numbers[OURS][0] / taken:.3f} of it, memory {numbers[OURS][1] / peak:.3f}"
        print(f"{name:26} {taken:6.2f} s {peak:6.0f} MB; {ratios}; numbers within {worst:.1e}")


def clock(call: Callable[[], object]) -> float:
    """Median milliseconds of five calls, or of one that takes seconds."""
    times: list[float] = []
    while len(times) < 5 and sum(times) < 3000:
        times.append(timeit(call, number=1) * 1e3)
    return median(times)


def measure(name: str, evaluate: Callable[..., Any], data: dict[str, Any]) -> float:
    """Print and return the median; print the most memory taken beside the inputs, and the time by n log n."""
    tracemalloc.start()
    evaluate(**data)
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    taken, count = clock(partial(evaluate, **data)), len(data["det_scores"])
    scaled = taken * 1e6 / (count * np.log2(count))
    print(f"{name:22} {count:9,} detections {taken:8.1f} ms {peak:6.0f} MB {scaled:6.2f} ns per n log2 n")
    return taken


def compare_arrays() -> None:
    """The two scales beside the peers; with --growth also 10 thousand to 5 million detections."""
    measure("VOC scale", voc_evaluate, make(4952, 20, 15_000, 494_000))
    data = make(5000, 80, 36_800, 499_000)
    ours, taken = coco_evaluate(**data), measure("COCO scale", coco_evaluate, data)
    truths, results = as_coco(data)
    for name in filter(find_spec, PEERS):
        run = partial(run_peer, name, truths, results)
        worst, theirs = np.abs(run().eval["precision"][..., -1] - ours.precision).max(), clock(run)
        print(f"{name:22} {theirs:31.1f} ms, ours takes {taken / theirs:.3f} of it, precision within {worst:.1e}")
    for count in (10_000, 100_000, 1_000_000, 5_000_000) if "--growth" in sys.argv else ():
        data = make(count // 100, 80, count * 7 // 100, count)
        measure("VOC", voc_evaluate, data)
        measure("COCO", coco_evaluate, data)


def main() -> None:
    if "--child" in sys.argv:
        run_files(*sys.argv[2:])
    elif "--files" in sys.argv:
        compare_files(make(5000, 80, 36_800, 499_000))
    else:
        compare_arrays()


if __name__ == "__main__":
    main()
