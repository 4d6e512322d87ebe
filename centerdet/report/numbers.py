"""The numbers of a report as one dict for JSON: AP as fractions, None for undefined values.

Shapes: C classes.
"""

from typing import Any

import numpy as np

from ..errors import DataError
from ..evaluation.evaluation import Evaluation
from ..metrics.calibration import calibration_error, reliability_curve
from .galleries import list_galleries

__all__ = ["build_report"]

POINTS = 100  # maximum number of points of a precision-recall curve
STEPS = 100  # score bins from 0 to 1
LOWEST = 0.05
"""Minimum score for calibration errors: without a threshold, most detections score lower."""


def build_report(
    result: Evaluation,
    *,
    detector: str = "",
    dataset: str = "",
    against: Evaluation | None = None,
    second: str = "",
    resamples: int = 1000,
) -> dict[str, Any]:
    """Everything on the page except the images.

    detector, dataset: names for the heading. against, second: an evaluation of another detector on the same images, and
    its name. resamples: number of bootstrap resamples of the images, for intervals.
    """
    plain = result.to_dict()
    intervals, points = result.bootstrap(resamples).to_dict(), result.operating_points().to_dict()
    rates = points["best_per_class"]
    keys = ("score_threshold", "precision", "recall", "f1", "false_positives_per_image")
    classes = [
        {**row, "low": intervals["ap"]["low"][number], "high": intervals["ap"]["high"][number]}
        | {key: rates[key][number] for key in keys}
        for number, row in enumerate(plain["classes"])
    ]
    mean = {
        name: {"value": intervals[key]["estimate"], "low": intervals[key]["low"], "high": intervals[key]["high"]}
        for name, key in (("voc-area", "mean_ap"), ("voc07-11pt", "mean_ap_11pt"))
    }
    coco = dict(zip(result.coco().stat_names, result.coco().stats.tolist(), strict=True))
    return {
        "detector": detector, "dataset": dataset, "second": second,
        "protocol": plain["protocol"], "warning": plain["warning"],
        "images": result.num_images, "objects": int(result.voc.num_positive.sum()), "detections": plain["detections"],
        "names": list(result.names), "mean": mean, "resamples": intervals["resamples"],
        "coco": {name: None if value < 0 else value for name, value in coco.items()},
        "classes": classes, "best_overall": {key: points["best_overall"][key] for key in keys},
        "curves": [_curve(result, label) for label in range(len(result.names))],
        "scores": _scores(result),
        "calibration": _calibration(result),
        "confusion": result.confusion_matrix().to_dict(),
        "errors": result.error_kinds().to_dict(),
        "sizes": result.by_size().to_dict(),
        "galleries": list_galleries(result, against),
        "comparison": None if against is None else _comparison(result, against, resamples),
    }  # fmt: skip


def _curve(result: Evaluation, label: int) -> dict[str, list[float]]:
    """A precision-recall curve at some of its true positives, including the first and the last."""
    curve = result.voc.curve(label)
    some = np.unique(np.linspace(0, len(curve.recall) - 1, POINTS).round().astype(int))[: len(curve.recall)]
    return {key: np.round(getattr(curve, key)[some], 4).tolist() for key in ("recall", "precision", "scores")}


def _scores(result: Evaluation) -> dict[str, list[list[int]]]:
    """True and false positives of each class by score, (C, STEPS): bin k is [k, k + 1) / STEPS; the last includes 1."""
    arrays, match = result.arrays, result.match
    place = np.clip(np.floor(arrays.det_scores.astype(np.float64) * STEPS + 1e-9), 0, STEPS - 1).astype(np.int64)
    cell = np.multiply(arrays.det_labels, STEPS, dtype=np.int64) + place
    counts = (
        np.bincount(cell[part], minlength=arrays.num_classes * STEPS).reshape(-1, STEPS).tolist()
        for part in (match.true_positive, ~match.true_positive & ~match.ignored)
    )
    return dict(zip(("true", "false"), counts, strict=True))


def _calibration(result: Evaluation) -> dict[str, Any] | None:
    """Reliability of all detections and of each class; None if scores are not from 0 to 1."""
    labels = [None, *range(len(result.names))]
    try:
        curves = [
            reliability_curve(result.arrays, result.match, label=label, min_score=LOWEST).to_dict() for label in labels
        ]
    except DataError:
        return None
    error = calibration_error(result.arrays, result.match, min_score=LOWEST).to_dict()
    return {"error": error, "all": curves[0], "classes": curves[1:]}


def _comparison(result: Evaluation, other: Evaluation, resamples: int) -> dict[str, Any]:
    comparison = result.compare(other, resamples).to_dict()
    keys = ("first", "second", "difference", "low", "high", "p_value")
    means = (("mean voc-area", "mean_ap"), ("mean voc07-11pt", "mean_ap_11pt"))
    return {
        "confidence": comparison["confidence"], "resamples": comparison["resamples"],
        "classes": [{"name": name, **{key: comparison["ap"][key][number] for key in keys}}
                    for number, name in enumerate(result.names)],
        "means": [{"name": name, **{key: comparison[part][key] for key in keys}} for name, part in means],
    }  # fmt: skip
