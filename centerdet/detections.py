"""`Detections`: what was found in one picture, as aligned arrays; it holds no picture."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Detections"]


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """boxes (N, 4) float32 xyxy px, scores (N,) float32 falling, labels (N,) int64, size (height, width)."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    size: tuple[int, int]
    source: str | None = None
