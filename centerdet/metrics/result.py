"""The parent of all results: their form as JSON, and the mean that they share."""

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Result", "mean_over"]


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """A frozen record of numbers and arrays. A field with metadata {"json": False} is left out of `to_dict`."""

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers for JSON; NaN becomes None."""
        names = [field.name for field in fields(self) if field.metadata.get("json", True)]
        return {name: _plain(getattr(self, name)) for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, Result):
        return value.to_dict()
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def mean_over(values: NDArray[np.float64]) -> float:
    """The mean of the numbers that are not NaN; NaN if there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
