"""The threads of PyTorch and OpenCV: their number, and the processes that have them, which forked workers do not.

Threads do not survive a fork. In the child, a PyTorch operation that waits for them never ends, and OpenCV, which copes
by itself, crashes when its number of threads is set.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

__all__ = ["is_forked", "limit_threads"]

_USED_IN: list[int] = []
"""The id of the process that predicted first; forked children inherit it, spawned ones do not."""


def is_forked() -> bool:
    """Whether this process was forked from one that called this before; call it before threads are used."""
    if not _USED_IN:
        _USED_IN.append(os.getpid())
    return _USED_IN[0] != os.getpid()


@contextmanager
def limit_threads(
    threads: int | None, get: Callable[[], int], limit: Callable[[int], object], lock: Lock
) -> Iterator[None]:
    """At most so many threads of a library, one caller at a time, so that each restores the original number."""
    if threads is None:
        yield
        return
    with lock:
        before = get()
        try:
            limit(threads)
            yield
        finally:
            limit(before)
