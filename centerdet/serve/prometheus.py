"""What `GET /metrics` reports, in Prometheus' text format: counters, gauges and latency histograms."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping

__all__ = ["Metrics"]

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the latency buckets, seconds."""


class Metrics:
    """Everything counted since the start; changed by the event loop alone, so without a lock."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.images = 0
        self.objects = 0
        self._seconds = {"request": _Histogram(), "predict": _Histogram()}

    def observe(self, name: str, seconds: float) -> None:
        """Add a duration to the histogram of "request" (an answered one, as its client sees it) or "predict"."""
        self._seconds[name].add(seconds)

    def mean(self, name: str) -> float:
        """Seconds that one has taken on average, 0 before the first."""
        histogram = self._seconds[name]
        return histogram.total / max(1, sum(histogram.counts))

    def text(self, gauges: Mapping[str, float]) -> str:
        """The page of metrics; `gauges` are values of this moment, by name."""
        lines = ["# HELP centerdet_requests_total Requests by path and status."]
        lines += ["# TYPE centerdet_requests_total counter"]
        lines += [
            f'centerdet_requests_total{{path="{path}",status="{status}"}} {count}'
            for (path, status), count in sorted(self.requests.items())
        ]
        for name, value in (("images", self.images), ("objects", self.objects)):
            lines += [f"# HELP centerdet_{name}_total Number of {name} that predictions had."]
            lines += [f"# TYPE centerdet_{name}_total counter", f"centerdet_{name}_total {value}"]
        for name, histogram in self._seconds.items():
            lines += [f"# HELP centerdet_{name}_seconds Latency of a {name}."]
            lines += [f"# TYPE centerdet_{name}_seconds histogram", *histogram.lines(f"centerdet_{name}_seconds")]
        for name, gauge in gauges.items():
            lines += [f"# HELP centerdet_{name} Value of this moment.", f"# TYPE centerdet_{name} gauge"]
            lines += [f"centerdet_{name} {gauge:g}"]
        return "\n".join(lines) + "\n"


class _Histogram:
    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1  # a bucket includes its upper bound
        self.total += seconds

    def lines(self, name: str) -> list[str]:
        lines, below = [], 0
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self.counts, strict=True):
            below += count
            lines.append(f'{name}_bucket{{le="{bound}"}} {below}')
        return [*lines, f"{name}_sum {self.total:.6f}", f"{name}_count {below}"]
