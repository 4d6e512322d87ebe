"""Process settings that a training run changes and restores: threads, denormals, the global generator, malloc."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["training_process"]

# glibc's mallopt: parameter -> value while training, glibc's default. A training step allocates and frees large blocks.
# By default, glibc returns them to the system each time, and every page is then zeroed again.
MALLOPT = {
    -4: (0, 65536),  # M_MMAP_MAX: large blocks from the heap
    -1: (2**31 - 1, 128 << 10),  # M_TRIM_THRESHOLD: the heap does not shrink
    -2: (256 << 20, 128 << 10),  # M_TOP_PAD: and grows in large steps
}


@contextmanager
def training_process(seed: int, threads: int) -> Iterator[None]:
    """Seed PyTorch's generator, limit its threads (0: no change), flush denormals, keep freed memory; then restore all.

    Denormal numbers are slow on a CPU, so they are set to 0 while training.
    """
    before = torch.get_num_threads()
    flushed = not (torch.full((1,), 1e-38) * 1e-3).item()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            if threads:
                torch.set_num_threads(threads)
            torch.set_flush_denormal(True)
            _set_malloc(0)
            yield
        finally:
            torch.set_num_threads(before)
            torch.set_flush_denormal(flushed)
            _set_malloc(1)


def _set_malloc(which: int) -> None:
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for parameter, values in MALLOPT.items():
            libc.mallopt(parameter, values[which])
