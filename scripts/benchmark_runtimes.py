"""The bars of exported detectors on this machine: latency, cold start and mAP as ratios, float32 and int8.

    python scripts/benchmark_runtimes.py VOCdevkit --split 2007:val --images 500

Detectors take turns, so that other work on the machine slows all of them alike.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from centerdet import Detector, evaluate
from centerdet.bench import COLUMNS, Timing, bench
from centerdet.data.formats import read_dataset
from centerdet.data.sample import Dataset
from centerdet.export import export
from centerdet.images import load
from centerdet.quantization import quantize
from centerdet.text import format_table


def main(
    weights: str,
    data: Path,
    split: str,
    *,
    calibrate: str,
    images: int,
    calibration: int,
    runs: int,
    threads: list[int],
) -> None:
    with TemporaryDirectory() as folder:
        files = {name: str(Path(folder, name)) for name in ("float.onnx", "int8.onnx", "float.xml")}
        for name, form in (("float.onnx", "onnx"), ("float.xml", "openvino")):
            print(f"{name}: differs from PyTorch by {export(weights, files[name], form=form)}")  # type: ignore[arg-type]
        names = Detector.load(weights, device="cpu").names
        quantize(files["float.onnx"], files["int8.onnx"], _paths(read(data, calibrate, names, calibration)))
        dataset = read(data, split, names, images)
        every = [weights, *files.values()]
        timings = bench(every, load(dataset.samples[0].path), threads=threads, device="cpu", runs=runs)
        print(format_table(COLUMNS, [one.row() for one in timings]).replace(f"{folder}/", ""))
        by_file = {(one.weights, one.threads): one for one in timings}
        for count in threads:
            torch, onnx, int8, openvino = (by_file[name, count] for name in every)
            print_ratio(f"ONNX float / PyTorch, {count} threads", onnx, torch, 0.60)
            print_ratio(f"OpenVINO / PyTorch, {count} threads", openvino, torch, 0.60)
            print_ratio(f"ONNX int8 / float, {count} threads", int8, onnx, 0.70)
        torch, onnx = by_file[weights, threads[0]], by_file[files["float.onnx"], threads[0]]
        print(
            f"cold start: {onnx.cold_start_s:.2f} s (bar 1.5), "
            f"{onnx.cold_start_s / torch.cold_start_s:.2f} x PyTorch's (bar 0.4)"
        )
        results = {name: evaluate(Detector.load(name, device="cpu"), dataset).voc.mean_ap * 100 for name in every}
        for name, mean_ap in results.items():
            bar = 1.0 if name == files["int8.onnx"] else 0.02
            print(f"voc-area of {Path(name).name}: {mean_ap:.2f}, {mean_ap - results[weights]:+.3f} (bar {bar})")


def read(data: Path, split: str, names: tuple[str, ...], count: int) -> Dataset:
    """A split, at most so many images of it, evenly spaced."""
    samples = read_dataset(data, [split], names=names, notice=lambda line: None).samples
    count = min(count, len(samples))
    return Dataset([samples[number * len(samples) // count] for number in range(count)], names)


def _paths(dataset: Dataset) -> list[Path]:
    return [sample.path for sample in dataset.samples]


def print_ratio(label: str, one: Timing, other: Timing, bar: float) -> None:
    whole, model = one.median_ms / other.median_ms, one.model_ms / other.model_ms
    print(f"{label}: {whole:.2f} image to detections, {model:.2f} network alone (bar {bar})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of a dataset")
    parser.add_argument("--weights", default="voc")
    parser.add_argument("--split", default="2007:val", help="to evaluate on")
    parser.add_argument("--calibrate", default="2007:train", help="split for int8")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--calibration", type=int, default=100, help="images")
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    main(**vars(arguments))
