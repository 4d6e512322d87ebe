"""A tiny detector and its exported files, made once for all processes of a test run."""

import json
import os
import tempfile
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from tiny import tiny_detector

from centerdet.export import Differences, export


@cache
def exported(suffix: str = ".onnx", half: bool = False) -> Path:
    """`tiny.onnx` or `tiny.xml` in a folder of their own, beside `tiny.safetensors`."""
    return _export(suffix, half)[0]


@cache
def differences(suffix: str = ".onnx", half: bool = False) -> Differences:
    """What `export` returned for it."""
    return _export(suffix, half)[1]


@cache
def _export(suffix: str, half: bool) -> tuple[Path, Differences]:
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    folder = Path(tempfile.gettempdir(), f"exported-{run}", f"{suffix[1:]}{'-half' * half}")
    path, weights, result = folder / f"tiny{suffix}", folder / "tiny.safetensors", folder / "differences.json"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if not result.exists():
            tiny_detector().save(weights)
            form = "openvino" if suffix == ".xml" else "onnx"
            result.write_text(json.dumps(asdict(export(weights, path, form=form, half=half))))
    return path, Differences(**json.loads(result.read_text()))


def noise(count: int, size: int = 64) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
