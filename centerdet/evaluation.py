"""A detector and a data set to a result: the numbers, with the protocol that made them beside them.

Validation while training goes through the same function, so what is reported is what users get.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .checkpoint import write_bytes
from .data.sample import DataSet
from .detections import Detections
from .detector import Detector
from .errors import DataError
from .metrics import VocResult, voc_evaluate

__all__ = ["Evaluation", "evaluate", "evaluate_detections", "ground_truth"]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """AP per class and its mean by both VOC protocols, on named pictures.

    Attributes:
        voc: the result of `metrics.voc_evaluate`. names: of the classes. pictures: how many.
    """

    voc: VocResult
    names: tuple[str, ...]
    pictures: int

    @property
    def protocol(self) -> str:
        """How the numbers came about, in one line."""
        return f"{self.pictures} pictures, at most 100 detections each, no score threshold; {self.voc.protocol}"

    def rows(self) -> list[tuple[str, int, float, float]]:
        """(class, objects, voc-area AP, voc07-11pt AP), AP in percent, NaN without objects; the mean comes last."""
        voc = self.voc
        rows = list(zip(self.names, voc.num_positive.tolist(), (100 * voc.ap).tolist(), (100 * voc.ap_11pt).tolist(), strict=True))
        return [*rows, ("mean", int(voc.num_positive.sum()), 100 * voc.mean_ap, 100 * voc.mean_ap_11pt)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**self.voc.to_dict(), "protocol": self.protocol, "names": list(self.names), "pictures": self.pictures}

    def save(self, path: str | Path) -> None:
        """Write `to_dict()` as JSON."""
        write_bytes(Path(path), json.dumps(self.to_dict(), indent=1).encode())

    def __str__(self) -> str:
        width = max(len("class"), *(len(name) for name in self.names))
        lines = [f"{'class':<{width}}  objects  voc-area  voc07-11pt"]
        lines += [f"{name:<{width}}  {count:>7}  {area:>8.1f}  {eleven:>10.1f}" for name, count, area, eleven in self.rows()]
        return "\n".join([*lines, self.protocol])


def evaluate(detector: Detector, dataset: DataSet, *, progress: Callable[[int], None] | None = None) -> Evaluation:
    """Predict every picture of the data set and evaluate; `progress` is called with the number done."""
    if tuple(dataset.names) != detector.names:
        raise DataError(f"names: the detector knows {list(detector.names)}, the data set has {list(dataset.names)}")
    found = []
    for start in range(0, len(dataset), 32):
        paths = [sample.path for sample in dataset.samples[start : start + 32]]
        found += detector.predict_batch(paths, score_threshold=0.0)
        if progress:
            progress(len(found))
    return evaluate_detections(found, dataset)


def evaluate_detections(found: list[Detections], dataset: DataSet) -> Evaluation:
    """Evaluate what was found, one `Detections` a sample, in the samples' order."""
    if len(found) != len(dataset):
        raise DataError(f"found: want one Detections for each of {len(dataset)} pictures, got {len(found)}")
    images = np.repeat(np.arange(len(found)), [len(one.scores) for one in found])
    boxes, scores, labels = (
        np.concatenate([np.zeros((0, 4)[: 2 if field == "boxes" else 1]), *(getattr(one, field) for one in found)])
        for field in ("boxes", "scores", "labels")
    )
    truth = ground_truth(dataset)
    result = voc_evaluate(
        boxes, scores, labels.astype(np.int64), images, truth["boxes"], truth["labels"], truth["images"],
        gt_difficult=truth["difficult"], num_classes=len(dataset.names),
    )  # fmt: skip
    return Evaluation(result, tuple(dataset.names), len(dataset))


def ground_truth(dataset: DataSet) -> dict[str, NDArray[Any]]:
    """The samples' objects as flat arrays: boxes (G, 4), labels, difficult (a crowd counts as such) and images (G,)."""
    samples = dataset.samples
    return {
        "boxes": np.concatenate([np.zeros((0, 4)), *(sample.boxes for sample in samples)]),
        "labels": np.concatenate([np.zeros(0, np.int64), *(sample.labels for sample in samples)]),
        "difficult": np.concatenate([np.zeros(0, bool), *(sample.difficult | sample.crowd for sample in samples)]),
        "images": np.repeat(np.arange(len(samples)), [len(sample.boxes) for sample in samples]),
    }
