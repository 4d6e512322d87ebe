"""What every test may use, and the one thing that none may do: reach another machine."""

import gc
import os
import signal
import sys
from pathlib import Path

import pytest

# Before anything imports torch, and for every process that a test starts: one thread each. Threads that wait for one
# another on a busy core spin, which made these tests ten times slower. pytest-xdist uses the other cores.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

# Collect garbage rarely: walking all objects of these libraries again and again took a tenth of the time.
gc.set_threshold(100_000, 20, 100)

LOCAL = {"", "0.0.0.0", "127.0.0.1", "::1", "localhost", None}


def _stay_local(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if isinstance(host, bytes):
        host = host.decode()
    if host not in LOCAL:
        raise PermissionError(f"tests do not reach the network: {event} {host}")


sys.addaudithook(_stay_local)


@pytest.fixture(scope="session")
def repo_root() -> Path:
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def voc_root(repo_root: Path) -> Path:
    """The folder of real photographs in VOC layout, where there is one."""
    root = repo_root.parent / "shared" / "VOCdevkit"
    if not root.is_dir():
        pytest.skip(f"no real photographs at {root}")
    return root


@pytest.fixture(scope="session", autouse=True)
def _listen_to_ctrl_c() -> None:
    """A background job ignores Ctrl-C, and so would every process that a test starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
