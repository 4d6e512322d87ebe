"""Do scores mean what they state? Of detections that score 0.7, 70 % should be right.

A detection is right if it is a true positive of VOC's match; ignored detections are left out. All functions take
`Arrays` with scores from 0 to 1 and its `VocMatch`.

Shapes: B bins, C classes, T thresholds, P images.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .arrays import Array, Arrays, check_finite, check_probabilities, check_whole, number_images, reaches
from .result import Result, mean_over
from .statistics import check_options, draw_images, percentiles
from .voc import VocMatch

__all__ = [
    "BINS", "CalibrationError", "PrecisionCurve", "ReliabilityCurve", "calibration_error", "precision_curve",
    "reliability_curve",
]  # fmt: skip

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BINS = 10  # as netcal has them; LaECE was defined with 25, which need ten times as many detections of each class


@dataclass(frozen=True, slots=True, eq=False)
class ReliabilityCurve(Result):
    """The detections by score: edges (B + 1,), count (B,), and of each bin the mean score and the precision (B,).

    Bins include their lower edge, the last one also its upper edge; an empty bin is NaN.
    """

    edges: Floats
    count: Ints
    score: Floats
    precision: Floats


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationError(Result):
    """Expected calibration errors, as fractions: the mean distance of score and precision, weighted by detections.

    Attributes:
        d_ece: of all detections together (Küppers et al., "Multivariate Confidence Calibration for Object Detection",
            2020, with the score alone), as netcal computes it.
        per_class: the same for the detections of each class, (C,); NaN without detections.
        class_mean: the mean of per_class.
        la_ece: the class-wise mean where a detection should score its IoU if it is right, else 0 (Oksuz et al.,
            "Towards Building Self-Aware Object Detectors", 2023: precision times mean IoU of each bin).
        count: detections of each class, (C,).
    """

    d_ece: float
    class_mean: float
    la_ece: float
    per_class: Floats
    count: Ints
    bins: int
    equal_count: bool
    min_score: float
    iou_threshold: float


@dataclass(frozen=True, slots=True, eq=False)
class PrecisionCurve(Result):
    """Precision of the detections that score at least each of `scores` (T,), with its interval over the choice of
    images; NaN without detections. num_detections (T,)."""

    scores: Floats
    precision: Floats
    low: Floats
    high: Floats
    num_detections: Ints
    resamples: int
    confidence: float
    seed: int


def reliability_curve(
    arrays: Arrays,
    match: VocMatch,
    *,
    label: int | None = None,
    bins: int = BINS,
    equal_count: bool = False,
    min_score: float = 0.0,
) -> ReliabilityCurve:
    """Mean score and precision in bins of equal width from 0 to 1, or of an equal count of detections.

    label: only the detections of this class. min_score: leave out what scores lower.
    """
    rows = _select(arrays, match, min_score, label)
    scores = arrays.det_scores[rows].astype(np.float64)
    edges = _edges(scores, bins, equal_count)
    count, (score, precision) = _means(scores, edges, scores, match.true_positive[rows])
    return ReliabilityCurve(edges, count, score, precision)


def calibration_error(
    arrays: Arrays, match: VocMatch, *, bins: int = BINS, equal_count: bool = False, min_score: float = 0.0
) -> CalibrationError:
    """D-ECE, its class-wise mean and LaECE; bins and min_score as for `reliability_curve`, for each class anew.

    Detectors without a threshold have mostly detections that score almost 0 and are wrong, which makes every error
    look small: state min_score beside the number.
    """
    rows = _select(arrays, match, min_score, None)
    scores, labels = arrays.det_scores[rows].astype(np.float64), arrays.det_labels[rows]
    right, fit = match.true_positive[rows], (match.true_positive * match.best_iou)[rows]
    parts = [np.flatnonzero(labels == label) for label in range(arrays.num_classes)]
    per_class, localized = (
        np.array([_error(scores[part], target[part], bins, equal_count) for part in parts]) for target in (right, fit)
    )
    return CalibrationError(
        _error(scores, right, bins, equal_count), mean_over(per_class), mean_over(localized), per_class,
        np.array([len(part) for part in parts]), bins, equal_count, float(min_score), match.iou_threshold,
    )  # fmt: skip


def precision_curve(
    arrays: Arrays,
    match: VocMatch,
    *,
    label: int | None = None,
    points: int = 101,
    num_images: int | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> PrecisionCurve:
    """Precision at evenly spaced thresholds from 0 to 1, with percentile intervals of images drawn with replacement.

    num_images: the number of images evaluated; by default those that have a detection or a ground truth.
    """
    check_options(resamples, confidence, seed)
    check_whole("points", points, 2)
    rows = _select(arrays, match, 0.0, label)
    images, _, num_images = number_images(arrays, num_images)
    thresholds = np.linspace(0, 1, points)
    place = np.searchsorted(thresholds.astype(arrays.det_scores.dtype), arrays.det_scores[rows], "right") - 1
    cell = images[rows] * points + place
    # Per image and threshold: how many reach it, and how many of these are right, (P, 2 T).
    counts = [np.bincount(cell, weights, num_images * points) for weights in (None, match.true_positive[rows])]
    reached = [np.reshape(one, (num_images, points))[:, ::-1].cumsum(1)[:, ::-1] for one in counts]
    table = np.concatenate(reached, axis=1).astype(np.float64)
    drawn = np.stack([draw_images(seed, num_images, number) @ table for number in range(resamples)])
    total = table.sum(0)
    with np.errstate(invalid="ignore"):
        precision = total[points:] / total[:points]
        low, high = percentiles(drawn[:, points:] / drawn[:, :points], confidence)
    detections = total[:points].astype(np.int64)
    return PrecisionCurve(thresholds, precision, low, high, detections, resamples, confidence, seed)


def _select(arrays: Arrays, match: VocMatch, min_score: float, label: int | None) -> Ints:
    """Rows of the detections that count."""
    check_probabilities(arrays)
    chosen = ~match.ignored & reaches(arrays.det_scores, check_finite("min_score", min_score))
    if label is not None:
        chosen &= arrays.det_labels == check_whole("label", label, 0, arrays.num_classes - 1)
    return np.flatnonzero(chosen)


def _edges(scores: Floats, bins: int, equal_count: bool) -> Floats:
    edges = np.linspace(0, 1, check_whole("bins", bins, 1) + 1)
    if equal_count and len(scores):
        edges[1:-1] = np.quantile(scores, edges[1:-1])
    return edges


def _means(scores: Floats, edges: Floats, *values: Array) -> tuple[Ints, list[Floats]]:
    """Count of each bin, (B,), and the means of values in it, (B,) each."""
    bins = len(edges) - 1
    place = np.minimum(np.searchsorted(edges, scores, "right") - 1, bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        return count, [np.bincount(place, one, bins) / count for one in values]


def _error(scores: Floats, target: Array, bins: int, equal_count: bool) -> float:
    """The distance of mean score and mean target of each bin, weighted by its detections."""
    if not len(scores):
        return float("nan")
    count, (score, mean) = _means(scores, _edges(scores, bins, equal_count), scores, target)
    return float(np.nansum(count * np.abs(score - mean)) / len(scores))
