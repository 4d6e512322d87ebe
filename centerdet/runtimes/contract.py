"""What every exported file promises, whatever runs it: a version, inputs and outputs, labels within its names."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import WeightsError

__all__ = ["FORMAT", "check_contract", "check_format", "check_labels"]

FORMAT = 1
"""Version of the graph's inputs, outputs and fields; a file of a newer one is refused."""


def check_format(path: str | Path, fields: Mapping[str, Any]) -> None:
    """Refuse an exported file of a newer package."""
    if fields.get("format") != FORMAT:
        raise WeightsError(
            f"{path}: format: expected {FORMAT}, got {fields.get('format')!r:.60}, written by centerdet "
            f"{fields.get('centerdet', 'unknown')!s:.60}: upgrade centerdet, or export the weights with this version"
        )


def check_contract(path: str | Path, size: int, tensors: Sequence[tuple[str, str, Sequence[Any]]]) -> None:
    """Refuse a graph whose (name, type, shape) of inputs and outputs are not those of `Runtime.run`.

    A dimension that is not an integer is free.
    """
    expected: list[tuple[str, str, Sequence[int | None]]] = [
        ("images", "tensor(uint8)", [None, size, size, 3]),
        ("boxes", "tensor(float)", [None, None, 4]),
        ("scores", "tensor(float)", [None, None]),
        ("labels", "tensor(int64)", [None, None]),
    ]
    for (name, kind, shape), got in zip(expected, [*tensors, *[("nothing", "", [])] * 4], strict=False):
        fits = len(shape) == len(got[2]) and all(
            side in (None, other) if isinstance(other, int) else side is None
            for side, other in zip(shape, got[2], strict=True)
        )
        if len(tensors) != len(expected) or got[:2] != (name, kind) or not fits:
            shown = ["any" if side is None else side for side in shape]
            raise WeightsError(
                f"{path}: {name}: expected {kind} {shown} for the size {size} in its metadata, "
                f"got {got[0]:.60} {got[1]} {list(got[2])}"
            )


def check_labels(path: str | Path, labels: NDArray[np.int64], names: Sequence[str]) -> None:
    """Refuse labels beyond the names of a file, whose metadata is wrong then."""
    if labels.size and not 0 <= labels.min() <= labels.max() < len(names):
        wrong = labels.max() if labels.min() >= 0 else labels.min()
        raise WeightsError(f"{path}: names: the graph returns label {wrong}, and its metadata has {len(names)} names")
