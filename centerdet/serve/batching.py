"""The queue before the detector: bounded, in order of arrival, and in batches where those are faster.

One thread predicts, so a machine's cores serve one batch at a time and memory holds the pixels of one batch. Images
wait as the bytes that were uploaded.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ..detections import Detections
from ..detector import Detector
from ..errors import CenterdetError, ConfigError
from ..images import load
from .limits import Limits
from .prometheus import Metrics

__all__ = ["Batcher"]


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    content: bytes
    score: float
    tile: int | None
    is_gone: Callable[[], Awaitable[bool]]
    result: "asyncio.Future[Detections]"


class Batcher:
    """Predictions for many requests at once, so many of them together as the detector's runtime gains from."""

    def __init__(self, detector: Detector, limits: Limits, metrics: Metrics) -> None:
        self._detector, self._limits, self._metrics = detector, limits, metrics
        self._jobs: deque[_Job] = deque()
        self._arrived = asyncio.Event()

    @property
    def length(self) -> int:
        """Images that wait."""
        return len(self._jobs)

    async def predict(
        self, content: bytes, score: float, tile: int | None, is_gone: Callable[[], Awaitable[bool]]
    ) -> Detections:
        """The objects of an encoded image.

        is_gone: whether nobody waits for the result any more; asked when the image's turn comes.

        Raises `ImageError` or `ConfigError` for what cannot be predicted, status 503 where the queue is full.
        """
        if len(self._jobs) >= self._limits.queue:
            seconds = math.ceil(len(self._jobs) * self._metrics.mean("predict"))
            raise HTTPException(503, "the queue is full: try again later", {"retry-after": str(max(1, seconds))})
        job = _Job(content, score, tile, is_gone, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._arrived.set()
        return await job.result

    @contextmanager
    def thread(self) -> Iterator[None]:
        """Predict in the background while the block runs."""
        with ThreadPoolExecutor(1, "centerdet-predict") as pool:
            # The first call is slow. This thread must make it: if two threads have run PyTorch on all cores, each is
            # half as fast, since the worker threads of both then sleep between operations.
            pool.submit(self._detector.predict, np.zeros((32, 32, 3), np.uint8))
            task = asyncio.get_running_loop().create_task(self._work(pool))
            try:
                yield
            finally:
                task.cancel()

    async def _work(self, pool: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._arrived.clear()
            if not self._jobs:
                await self._arrived.wait()
            jobs = [job for job in self._take() if not await self._drop(job)]
            if not jobs:
                continue
            start = time.monotonic()
            # A failure that is no user's mistake is the answer to this batch; the next one gets its chance.
            [results] = await asyncio.gather(loop.run_in_executor(pool, self._predict, jobs), return_exceptions=True)
            self._metrics.observe("predict", (time.monotonic() - start) / len(jobs))
            for number, job in enumerate(jobs):
                result = results if isinstance(results, BaseException) else results[number]
                if job.result.done():
                    continue
                if isinstance(result, BaseException):
                    job.result.set_exception(result)
                else:
                    self._metrics.images += 1
                    self._metrics.objects += len(result)
                    job.result.set_result(result)

    def _take(self) -> list[_Job]:
        """The first image and others like it, without a change of the order among the rest."""
        first = self._jobs.popleft()
        alike = [job for job in self._jobs if (job.score, job.tile) == (first.score, first.tile)]
        alike = alike[: self._detector.runtime.batch_size - 1]
        for job in alike:
            self._jobs.remove(job)
        return [first, *alike]

    async def _drop(self, job: _Job) -> bool:
        """Whether nobody waits for an image any more, as its request then learns."""
        if job.result.done():  # by the cancellation of its request
            return True
        if gone := await job.is_gone():
            job.result.set_exception(ClientDisconnect())
        return gone

    def _predict(self, jobs: list[_Job]) -> list[Detections | CenterdetError]:
        """In the thread: each image's objects or error."""
        results: list[Detections | CenterdetError | None] = []
        images = []
        for job in jobs:
            try:
                image = load(job.content, max_pixels=self._limits.pixels)
                self._check_tiles(image.shape[0], image.shape[1], job.tile)
            except CenterdetError as error:
                results.append(error)
            else:
                images.append(image)
                results.append(None)
        score, tile = jobs[0].score, jobs[0].tile
        detections = iter(self._detector.predict_batch(images, score_threshold=score, tile=tile) if images else ())
        return [next(detections) if result is None else result for result in results]

    def _check_tiles(self, height: int, width: int, tile: int | None) -> None:
        """Refuse tiles that would keep the detector busy for minutes; neighbors overlap by a fifth."""
        if tile is None:
            return
        step = 0.8 * max(1, tile)
        number = math.ceil(height / step) * math.ceil(width / step)
        if number > self._limits.tiles:
            raise ConfigError(
                f"tile: {tile} px makes about {number} tiles of {height} x {width} px, expected at most "
                f"{self._limits.tiles}: choose a larger side"
            )
