"""Workers that are forked or spawned after a detector was loaded answer, or say why not; none hangs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import tiny_detector

SCRIPT = """
import multiprocessing, sys
import cv2, numpy as np, torch
from centerdet import CenterdetError, Detector

image = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), np.uint8)

def work(queue, detector, weights, threads):
    if detector is None:
        detector = Detector.load(weights, device="cpu", threads=threads)
    try:
        for found in (detector.predict(image, score_threshold=0), *detector.predict_batch([image], score_threshold=0)):
            queue.put(found.to_json())
    except CenterdetError as error:
        queue.put(f"error: {error}")
        queue.put("")

def main(weights, method, given):
    context = multiprocessing.get_context(method)
    torch.set_num_threads(2), cv2.setNumThreads(2)
    for threads in (None, 1, 2):
        detector = Detector.load(weights, device="cpu", threads=threads)
        expected = detector.predict(image, score_threshold=0).to_json()
        queue = context.Queue()
        arguments = (queue, detector if given == "inherited" else None, weights, threads)
        workers = [context.Process(target=work, args=arguments, daemon=True) for _ in range(2)]
        for worker in workers:
            worker.start()
        answers = [queue.get(timeout=60) for _ in range(4)]
        for worker in workers:
            worker.join(20)
        assert [worker.exitcode for worker in workers] == [0, 0]
        assert torch.get_num_threads() == 2 and cv2.getNumThreads() == 2
        print(threads, *(("same" if answer == expected else answer[:300]) for answer in answers), flush=True)
        if method == "spawn":
            break

if __name__ == "__main__":
    main(*sys.argv[1:])
"""


def _run(tmp_path: Path, weights: Path, method: str, given: str) -> list[str]:
    script = tmp_path / "server.py"
    script.write_text(SCRIPT)
    environment = {key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    command = [sys.executable, "-W", "ignore", str(script), str(weights), method, given]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.soak
@pytest.mark.parametrize("given", ["inherited", "loaded in the child"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_answer_as_their_parent_does(tmp_path: Path, method: str, given: str) -> None:
    if method == "fork" and sys.platform != "linux":
        pytest.skip("forking is unsafe here")
    weights = tmp_path / "tiny.safetensors"
    tiny_detector().save(weights)
    lines = _run(tmp_path, weights, method, given)
    same = " same" * 4
    assert lines == [f"{threads}{same}" for threads in ((None, 1, 2) if method == "fork" else (None,))]
