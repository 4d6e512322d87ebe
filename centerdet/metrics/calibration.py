"""Calibration errors and curves: of the detections that score 0.7, 70 % should be correct.

A detection is correct if it is a true positive of the VOC match. Ignored detections are left out. All functions take
`Arrays` with scores from 0 to 1, and their `VocMatch`.

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

BINS = 10  # netcal's default; LaECE was defined with 25, which need ten times as many detections per class


@dataclass(frozen=True, slots=True, eq=False)
class ReliabilityCurve(Result):
    """The detections by score: edges (B + 1,), and the count, mean score, and precision of each bin (B,).

    A bin includes its lower edge; the last bin also includes its upper edge. Empty bins have NaN.
    """

    edges: Floats
    count: Ints
    score: Floats
    precision: Floats


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationError(Result):
    """Expected calibration errors, as fractions: the difference between mean score and precision, averaged over bins.

    Bins are weighted by their number of detections.

    Attributes:
        d_ece: D-ECE of all detections (Küppers et al., "Multivariate Confidence Calibration for Object Detection",
            2020, with the score as the only variable); equal to netcal.
        per_class: D-ECE of each class, (C,); NaN without detections.
        class_mean: mean of per_class.
        la_ece: LaECE, the class-wise mean where a correct detection should score its IoU and a wrong one 0 (Oksuz et
            al., "Towards Building Self-Aware Object Detectors", 2023: precision times mean IoU of each bin).
        count: number of detections of each class, (C,).
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
    """Precision of the detections at each score threshold in `scores` (T,), with its bootstrap interval over images.

    num_detections (T,): detections that reach the threshold. Without any, the precision is NaN.
    """

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
    """Mean score and precision in bins of equal width from 0 to 1, or with an equal number of detections.

    label: use only the detections of this class. min_score: use only detections with at least this score.
    """
    rows = _select(arrays, match, min_score, label)
    scores = arrays.det_scores[rows].astype(np.float64)
    edges = _edges(scores, bins, equal_count)
    count, (score, precision) = _means(scores, edges, scores, match.true_positive[rows])
    return ReliabilityCurve(edges, count, score, precision)


def calibration_error(
    arrays: Arrays, match: VocMatch, *, bins: int = BINS, equal_count: bool = False, min_score: float = 0.0
) -> CalibrationError:
    """D-ECE, its class-wise mean, and LaECE; bins and min_score as for `reliability_curve`, separately for each class.

    Without a threshold, most detections score almost 0 and are wrong, so every error looks small: report min_score with
    the numbers.
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
    """Precision at evenly spaced thresholds from 0 to 1, with bootstrap percentile intervals over images.

    num_images: number of evaluated images; by default, the images with a detection or a ground truth.
    """
    check_options(resamples, confidence, seed)
    check_whole("points", points, 2)
    rows = _select(arrays, match, 0.0, label)
    images, _, num_images = number_images(arrays, num_images)
    thresholds = np.linspace(0, 1, points)
    place = np.searchsorted(thresholds.astype(arrays.det_scores.dtype), arrays.det_scores[rows], "right") - 1
    cell = images[rows] * points + place
    # Per image and threshold: detections that reach it, and how many of these are correct, (P, 2 T).
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
    """Rows of the detections that are not ignored, reach min_score, and have the label."""
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
    """The count of each bin, (B,), and the mean of each of the values in it, (B,) each."""
    bins = len(edges) - 1
    place = np.minimum(np.searchsorted(edges, scores, "right") - 1, bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        return count, [np.bincount(place, one, bins) / count for one in values]


def _error(scores: Floats, target: Array, bins: int, equal_count: bool) -> float:
    """The difference between mean score and mean target, averaged over bins weighted by their detections."""
    if not len(scores):
        return float("nan")
    count, (score, mean) = _means(scores, _edges(scores, bins, equal_count), scores, target)
    return float(np.nansum(count * np.abs(score - mean)) / len(scores))
