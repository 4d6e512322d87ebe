"""A detection function for CVAT's auto-annotation, in the process of its own client and without a server:

cvat-cli task auto-annotate 12 --function-module centerdet.serve.cvat -p weights=str:voc
"""

from functools import cached_property
from typing import Any

from ..detector import Detector
from ..errors import ConfigError
from .service import SCORE

__all__ = ["DetectionFunction", "create"]


class DetectionFunction:
    """What `cvat_sdk.auto_annotation.annotate_task` calls: `spec` names the labels, `detect` returns rectangles."""

    def __init__(self, detector: Detector, *, score: float = SCORE, tile: int | None = None) -> None:
        try:
            import cvat_sdk.auto_annotation
        except ImportError:
            raise ConfigError("CVAT's auto-annotation needs its client: pip install cvat-cli") from None
        self._detector, self._score, self._tile = detector, score, tile
        self._cvat = cvat_sdk.auto_annotation

    @cached_property
    def spec(self) -> Any:
        """The detector's classes as labels for rectangles; CVAT matches them by name with those of the task."""
        labels = [
            self._cvat.label_spec(name, number, type="rectangle") for number, name in enumerate(self._detector.names)
        ]
        return self._cvat.DetectionFunctionSpec(labels=labels)

    def detect(self, context: Any, image: Any) -> list[Any]:
        """The objects of a PIL image as CVAT's rectangles; the client's --conf-threshold goes before `score`."""
        score = self._score if context.conf_threshold is None else context.conf_threshold
        detections = self._detector.predict(image, score_threshold=score, tile=self._tile)
        return [self._cvat.rectangle(one.label, list(one.box)) for one in detections]


def create(
    weights: str = "voc", score: float = SCORE, tile: int | None = None, device: str = "", threads: int | None = None
) -> DetectionFunction:
    """The function with the parameters that `cvat-cli -p NAME=TYPE:VALUE` gives."""
    return DetectionFunction(Detector.load(weights, device=device or None, threads=threads), score=score, tile=tile)
