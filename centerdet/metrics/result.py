"""Means that leave out what is missing, and results as JSON can say them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["mean_over", "plain"]


def mean_over(values: NDArray[np.float64]) -> float:
    """The mean of those that are there; NaN if none is."""
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if len(kept) else float("nan")


def plain(value: Any) -> Any:
    """Arrays as lists, NumPy's numbers as Python's, NaN as None."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list):
        return [plain(item) for item in value]
    return None if value != value else value
