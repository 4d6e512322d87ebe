"""Forked workers: which processes have the threads that PyTorch and OpenCV started.

Threads do not survive a fork. In the child, a PyTorch operation that waits for them never ends, and OpenCV, which copes
by itself, crashes when its number of threads is set.
"""

import os

__all__ = ["is_forked"]

_USED_IN: list[int] = []
"""The id of the process that predicted first; forked children inherit it, spawned ones do not."""


def is_forked() -> bool:
    """Whether this process was forked from one that called this before; call it before threads are used."""
    if not _USED_IN:
        _USED_IN.append(os.getpid())
    return _USED_IN[0] != os.getpid()
