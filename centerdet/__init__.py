"""One-stage, anchor-free object detection: predict, train, evaluate.

Importing this package is cheap: what needs torch is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .errors import CenterdetError

if TYPE_CHECKING:
    from .detections import Detections
    from .detector import Detector
    from .evaluation.evaluation import evaluate
    from .training.config import TrainConfig
    from .training.loop import train

__all__ = ["CenterdetError", "Detections", "Detector", "TrainConfig", "__version__", "evaluate", "train"]

__version__ = "0.1.0"

_HOMES = {
    "Detections": "detections",
    "Detector": "detector",
    "TrainConfig": "training.config",
    "evaluate": "evaluation.evaluation",
    "train": "training.loop",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
