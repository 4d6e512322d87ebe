"""What HTTP costs over `predict`: python scripts/benchmark_serve.py [--threads 2]

One client: predictions in this process and requests to `centerdet serve` take turns on the same images; the medians'
difference is the overhead. Eight clients: their images per second beside a bare loop's, in alternating rounds.
"""

import http.client
import io
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle
from typing import Annotated

import typer

CLIENTS = 8


def photographs() -> list[bytes]:
    """Four of scikit-image's photographs as JPEG files."""
    import skimage.data
    from PIL import Image

    files = []
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        file = io.BytesIO()
        Image.fromarray(getattr(skimage.data, name)()).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


@contextmanager
def start_server(weights: str, threads: int) -> Iterator[int]:
    """The port of `centerdet serve` in a process of its own."""
    command = [sys.executable, "-m", "centerdet", "serve", weights, "--port", "0", "--threads", str(threads)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline() if process.stdout else ""
        port = re.search(r":(\d+) ", line)
        if port is None:
            raise typer.Exit(1)
        yield int(port[1])
        process.terminate()


class Client:
    """One connection to the server."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port)

    def detect(self, image: bytes) -> object:
        """The answer to an image; an error ends the benchmark."""
        self.connection.request("POST", "/detect", image)
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {content.decode()}")
        return content


def seconds_of(action: Callable[[bytes], object], image: bytes) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    action(image)
    return time.perf_counter() - start


def rate(action: Callable[[bytes], object], images: list[bytes], seconds: float) -> float:
    """Calls per second in a loop."""
    start, count = time.perf_counter(), 0
    for image in cycle(images):
        action(image)
        count += 1
        if time.perf_counter() - start > seconds:
            break
    return count / (time.perf_counter() - start)


def main(
    weights: str = "voc",
    threads: Annotated[int, typer.Option(help="CPU threads of each")] = 2,
    requests: Annotated[int, typer.Option(help="of the one client")] = 200,
    rounds: Annotated[int, typer.Option(help="of the eight clients")] = 5,
    seconds: Annotated[float, typer.Option(help="of a round")] = 5.0,
) -> None:
    """Measure both."""
    from centerdet import Detector

    detector = Detector.load(weights, device="cpu", threads=threads)
    images = photographs()
    with start_server(weights, threads) as port, ThreadPoolExecutor(CLIENTS) as pool:
        client, clients = Client(port), [Client(port) for _ in range(CLIENTS)]
        for image in images:  # the first calls are slower
            detector.predict(image)
            client.detect(image)
        pairs = [
            (seconds_of(detector.predict, image), seconds_of(client.detect, image))
            for _, image in zip(range(requests), cycle(images), strict=False)
        ]
        bare, served = (1000 * statistics.median(times) for times in zip(*pairs, strict=True))
        print(f"one client: predict {bare:.1f} ms, request {served:.1f} ms: {served - bare:+.1f} ms", flush=True)
        ratios = []
        for _ in range(rounds):
            loop = rate(detector.predict, images, seconds)
            many = sum(pool.map(lambda one: rate(one.detect, images, seconds), clients))
            ratios.append(many / loop)
            print(f"bare loop {loop:.1f} images/s, {CLIENTS} clients {many:.1f}: {ratios[-1]:.2f}", flush=True)
        print(f"{CLIENTS} clients: {statistics.median(ratios):.2f} x the bare loop (median of {rounds} rounds)")


if __name__ == "__main__":
    typer.run(main)
