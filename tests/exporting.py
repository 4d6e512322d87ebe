"""A tiny detector and its exported files, made once for all tests of a process."""

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
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
    folder = Path(tempfile.mkdtemp(prefix="exported-"))
    tiny_detector().save(folder / "tiny.safetensors")
    path = folder / f"tiny{suffix}"
    form = "openvino" if suffix == ".xml" else "onnx"
    return path, export(folder / "tiny.safetensors", path, form=form, half=half)


def noise(count: int, size: int = 64) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
