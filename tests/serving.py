"""Servers for the tests of `serve`: in a thread of this process, or the command in a process of its own."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import skimage

from centerdet import Detector
from centerdet.runtimes import Outputs, Runtime
from centerdet.serve.app import create_app
from centerdet.serve.limits import Limits
from centerdet.serve.server import listen, make_server

PHOTOGRAPHS = Path(skimage.__file__).parent / "data"
CAT = (PHOTOGRAPHS / "chelsea.png").read_bytes()


class GatedRuntime(Runtime):
    """A runtime that waits for `gate`, counts its batches, and has one object in each image.

    The server's own first call neither waits nor counts.
    """

    names, size, nms_iou, batch_size, threads = ("thing", "other thing"), 32, 0.6, 4, None

    def __init__(self) -> None:
        self.gate, self.batches, self.started = threading.Event(), list[int](), False

    def run(self, images: Any) -> Outputs:
        if self.started:
            self.batches.append(len(images))
            assert self.gate.wait(30)
            if (images == 0).all():
                raise RuntimeError("a failure of the library")
        self.started = True
        count = len(images)
        boxes = np.tile(np.array([4, 4, 28, 28], np.float32), (count, 1, 1))
        return boxes, np.full((count, 1), 0.9, np.float32), np.zeros((count, 1), np.int64)


@contextmanager
def serve(detector: Detector, *, limits: Limits | None = None, **options: Any) -> Iterator[str]:
    """The address of a server in this process."""
    limits = limits or Limits()
    listener = listen("127.0.0.1", 0)
    server = make_server(create_app(detector, limits=limits, **options), limits)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def start_command(*words: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """(address, process) of `centerdet serve voc` on a free port."""
    command = [sys.executable, "-m", "centerdet", "serve", "voc", "--port", "0", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            found = re.search(r"at (http://\S+)", line)
            assert found, line + process.stdout.read()
            yield found[1], process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(60)


def wait_until(condition: Any, seconds: float = 20) -> None:
    """Until it is true; fails when that takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
