"""Speed and memory of detectors on this machine, measured as they are used.

Latencies are measured in turns, so that whatever else the machine does meets all of them alike; memory and the cold
start in processes of their own.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .detector import Detector
from .errors import CenterdetError, ConfigError
from .images import resize

__all__ = ["COLUMNS", "Timing", "bench", "describe_machine", "time_in_turns"]

WARM_UP, COLD_STARTS = 3, 3
PACKAGES = {"PyTorchRuntime": "torch", "OnnxRuntime": "onnxruntime", "OpenVinoRuntime": "openvino"}
COLUMNS = ("weights", "runtime", "threads", "median ms", "95 % ms", "model ms", "memory MB", "cold start s")

CHILD = """
import json, sys, time
from centerdet import Detector
weights, device, threads, height, width = json.loads(sys.argv[1])
import numpy as np
image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
detector = Detector.load(weights, device=device, threads=threads)
detector.predict(image)
done = time.time()
for _ in range(9):
    detector.predict(image)
memory = None
try:
    with open("/proc/self/status") as file:  # Linux: its getrusage counts the process that started this one, too
        memory = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))
except OSError:
    if sys.platform == "darwin":
        import resource
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([done, memory]))
"""


@dataclass(frozen=True, slots=True)
class Timing:
    """One detector at one thread count.

    Attributes:
        weights: as named. runtime: library and version. threads: None: the library's own choice.
        median_ms, p95_ms: from an image in memory to its detections.
        model_ms: median of the network alone, with peaks and top-k.
        memory_mb: peak resident memory of a process that predicts ten images; None where the system does not report it.
        cold_start_s: median from the start of a process to its first detections.
    """

    weights: str
    runtime: str
    threads: int | None
    median_ms: float
    p95_ms: float
    model_ms: float
    memory_mb: float | None
    cold_start_s: float

    def row(self) -> tuple[str, ...]:
        """The cells of a table, in the order of COLUMNS."""
        memory = "-" if self.memory_mb is None else f"{self.memory_mb:.0f}"
        times = (f"{value:.1f}" for value in (self.median_ms, self.p95_ms, self.model_ms))
        return (self.weights, self.runtime, str(self.threads or "any"), *times, memory, f"{self.cold_start_s:.2f}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def bench(
    weights: Sequence[str | Path],
    image: NDArray[np.uint8],
    *,
    threads: Sequence[int | None] = (None,),
    device: str | None = None,
    runs: int = 50,
    progress: Callable[[], object] = lambda: None,
) -> list[Timing]:
    """Measure every weights file at every thread count on one image (H, W, 3).

    runs: of each. progress: called `runs` times in all, and once for each of the pairs.
    """
    if not weights or runs < 1:
        raise ConfigError(f"weights, runs: expected at least one of each, got {len(weights)} and {runs}")
    pairs = [(str(one), count) for one in weights for count in threads]
    detectors = [Detector.load(one, device=device, threads=count) for one, count in pairs]
    calls: list[Callable[[], object]] = []
    for detector in detectors:
        batch = resize(image, detector.size, detector.size)[None]
        calls += [
            lambda detector=detector: detector.predict(image),  # type: ignore[misc]
            lambda detector=detector, batch=batch: detector.runtime.run(batch),  # type: ignore[misc]
        ]
    times = time_in_turns(calls, runs, progress) * 1000
    timings = []
    for number, ((one, count), detector) in enumerate(zip(pairs, detectors, strict=True)):
        seconds, memory = _start_cold(one, device, count, image.shape[:2])
        whole, model = times[2 * number], times[2 * number + 1]
        timings.append(
            Timing(
                one, _name(detector), count, float(np.median(whole)), float(np.percentile(whole, 95)),
                float(np.median(model)), memory, seconds,
            )
        )  # fmt: skip
        progress()
    return timings


def time_in_turns(
    calls: Sequence[Callable[[], object]], runs: int, progress: Callable[[], object] = lambda: None
) -> NDArray[np.float64]:
    """Seconds (len(calls), runs) of calls that take turns, after a few to warm up."""
    times = np.zeros((len(calls), runs))
    for run in range(-WARM_UP, runs):
        for number, call in enumerate(calls):
            start = time.perf_counter()
            call()
            times[number, max(run, 0)] = time.perf_counter() - start
        if run >= 0:
            progress()
    return times


def describe_machine() -> dict[str, Any]:
    """What the numbers depend on, for JSON."""
    packages = {}
    for name in ("centerdet", "numpy", "opencv-python-headless", *PACKAGES.values()):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "system": platform.platform(), "processor": platform.processor() or platform.machine(), "cpus": os.cpu_count(),
        "load": load, "python": platform.python_version(), "packages": packages,
    }  # fmt: skip


def _name(detector: Detector) -> str:
    package = PACKAGES.get(type(detector.runtime).__name__, "")
    return f"{package} {version(package)}" if package else type(detector.runtime).__name__


def _start_cold(
    weights: str, device: str | None, threads: int | None, size: Sequence[int]
) -> tuple[float, float | None]:
    """(seconds from the start of a process to its first detections, its peak memory in MB), medians."""
    results = []
    for _ in range(COLD_STARTS):
        start = time.time()
        command = [sys.executable, "-c", CHILD, json.dumps([weights, device, threads, *size])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CenterdetError(f"{weights}: a process that loads it failed: {done.stderr.strip()[-500:]}")
        finish, memory = json.loads(done.stdout)
        results.append((finish - start, memory))
    memories = [memory / 1e6 for _, memory in results if memory is not None]
    return statistics.median(seconds for seconds, _ in results), statistics.median(memories) if memories else None
