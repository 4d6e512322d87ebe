"""Confidence intervals of AP by bootstrap over images, and the paired comparison of two detectors on the same images.

Matches stay within an image, so drawing images changes none: a resample is a whole weight for each image, and its AP is
that of a dataset which holds every row of the image so many times. The random numbers of resample k come from a
generator seeded with (seed, k) alone.

Shapes: C classes, P images, B resamples; of one class: K detections, M true positives, N ground truths.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .arrays import Array, Arrays, check_whole, number_images
from .result import Result, mean_over
from .voc import RECALLS, VocMatch

__all__ = [
    "Bootstrap", "Comparison", "Difference", "Interval", "Ranking",
    "average_precisions", "bootstrap_ap", "check_options", "compare_models", "draw_images", "percentiles", "rank",
]  # fmt: skip

Floats = NDArray[np.float64]

CHUNK = 2**22  # weights gathered at a time: 16 MB


@dataclass(frozen=True, slots=True, eq=False)
class Interval(Result):
    """A number or (C,) of them with the percentile interval and the standard error of its resamples.

    A class without ground truth is NaN; for a class without ground truth in some resamples the others are used.
    """

    estimate: Floats
    low: Floats
    high: Floats
    standard_error: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Difference(Result):
    """second - first, a number or (C,) of them: its bootstrap interval, and the p-value of the permutation test."""

    first: Floats
    second: Floats
    difference: Floats
    low: Floats
    high: Floats
    p_value: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Bootstrap(Result):
    """The AP per class (C,) and its mean in both VOC protocols, each with its interval."""

    ap: Interval
    ap_11pt: Interval
    mean_ap: Interval
    mean_ap_11pt: Interval
    num_images: int
    iou_threshold: float
    resamples: int
    confidence: float
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class Comparison(Result):
    """Two detectors on the same images: AP per class (C,) and its mean in both VOC protocols."""

    ap: Difference
    ap_11pt: Difference
    mean_ap: Difference
    mean_ap_11pt: Difference
    num_images: int
    iou_threshold: float
    resamples: int
    confidence: float
    seed: int


def bootstrap_ap(
    arrays: Arrays,
    match: VocMatch,
    *,
    num_images: int | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Bootstrap:
    """The percentile interval of VOC AP when the images are drawn with replacement.

    num_images: the number of images evaluated; by default those that have a detection or a ground truth. The mean of a
    resample is over the classes that have ground truth in it.
    """
    check_options(resamples, confidence, seed)
    det_images, gt_images, num_images = number_images(arrays, num_images)
    ranking = _rank_match(arrays, match, det_images, gt_images)
    point = average_precisions(ranking, np.ones((1, num_images), np.int32))
    samples = _resample(ranking, partial(draw_images, seed, num_images), num_images, resamples)
    area, eleven, mean_area, mean_eleven = (
        _interval(value[0], sample, confidence) for value, sample in zip(point, samples, strict=True)
    )
    return Bootstrap(area, eleven, mean_area, mean_eleven, num_images, match.iou_threshold, resamples, confidence, seed)


def compare_models(
    first: tuple[Arrays, VocMatch],
    second: tuple[Arrays, VocMatch],
    *,
    num_images: int | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Whether the second detector's VOC AP differs from the first's by more than chance.

    Each detector comes with the same ground truth. The interval: both are evaluated on the same drawn images. The
    p-value: if the detectors were alike, their detections in any image could change sides; it is (1 + the number of
    random swaps whose difference is at least as large in absolute value) / (1 + resamples). In a swap, equal scores
    keep the first's rows before the second's.
    """
    check_options(resamples, confidence, seed)
    (one, first_match), (two, second_match) = first, second
    if one.num_classes != two.num_classes or any(
        not np.array_equal(getattr(one, name), getattr(two, name))
        for name in ("gt_boxes", "gt_labels", "gt_images", "gt_difficult")
    ):
        raise DataError("second: expected the ground truth of the first")
    names = ("det_boxes", "det_scores", "det_labels", "det_images")
    columns: Any = {name: np.concatenate([getattr(one, name), getattr(two, name)]) for name in names}
    both = replace(one, **columns)
    det_images, gt_images, num_images = number_images(both, num_images)
    split = len(one.det_boxes)
    rankings = [
        _rank_match(one, first_match, det_images[:split], gt_images),
        _rank_match(two, second_match, det_images[split:], gt_images),
    ]
    points = [average_precisions(ranking, np.ones((1, num_images), np.int32)) for ranking in rankings]
    drawn = [_resample(ranking, partial(draw_images, seed, num_images), num_images, resamples) for ranking in rankings]

    # For the swaps the second's images are numbered after the first's, and all ground truth lies in one more.
    correct = np.concatenate([first_match.true_positive, second_match.true_positive])
    ignored = np.concatenate([first_match.ignored, second_match.ignored])
    side = det_images + num_images * (np.arange(len(det_images)) >= split)
    rows = np.lexsort((-both.det_scores, both.det_labels))
    rows, gt_labels = rows[~ignored[rows]], both.gt_labels[~both.gt_difficult]
    swapped = rank(
        both.det_labels[rows], correct[rows], side[rows],
        gt_labels, np.full(len(gt_labels), 2 * num_images), both.num_classes,
    )  # fmt: skip
    swaps = (partial(_swap, seed, num_images, other) for other in (False, True))
    sides = [_resample(swapped, swap, 2 * num_images + 1, resamples) for swap in swaps]
    parts = zip(*points, *drawn, *sides, strict=True)
    area, eleven, mean_area, mean_eleven = (_difference(confidence, *part) for part in parts)
    return Comparison(
        area, eleven, mean_area, mean_eleven, num_images, first_match.iou_threshold, resamples, confidence, seed
    )


class RankedClass(NamedTuple):
    """One class that has ground truth: its detections, best first, up to the last true positive."""

    label: int
    images: Array  # (K,) of the detections
    positions: Array  # (M,) of the true positives among them
    gt_images: Array  # (N,)


class Ranking(NamedTuple):
    """The classes with ground truth, ranked."""

    classes: list[RankedClass]
    num_classes: int


def rank(labels: Array, correct: Array, images: Array, gt_labels: Array, gt_images: Array, num_classes: int) -> Ranking:
    """Rank detections that count, sorted by class and falling score, against the ground truths that count."""
    order = np.argsort(gt_labels, kind="stable")
    gt_sorted = gt_labels[order]
    classes = []
    for label in np.unique(gt_sorted).tolist():
        start, stop = np.searchsorted(labels, [label, label + 1])
        positions = np.flatnonzero(correct[start:stop])
        used = start + (positions[-1] + 1 if len(positions) else 0)
        truths = order[slice(*np.searchsorted(gt_sorted, [label, label + 1]))]
        classes.append(RankedClass(label, images[start:used], positions, gt_images[truths]))
    return Ranking(classes, num_classes)


def _rank_match(arrays: Arrays, match: VocMatch, det_images: Array, gt_images: Array) -> Ranking:
    rows, real = match.order[~match.ignored[match.order]], ~arrays.gt_difficult
    return rank(
        arrays.det_labels[rows], match.true_positive[rows], det_images[rows],
        arrays.gt_labels[real], gt_images[real], arrays.num_classes,
    )  # fmt: skip


def average_precisions(ranking: Ranking, weights: NDArray[np.int32]) -> tuple[Floats, Floats, Floats, Floats]:
    """VOC AP by area and by 11 points (B, C), and their means (B,), with every image weights (B, P) times.

    The sums are those of `voc.average` in the same order, so that weights of 1 give the same bits.
    """
    area, eleven = np.full((2, len(weights), ranking.num_classes), np.nan)
    zero = np.zeros((len(weights), 1))
    for part in ranking.classes:
        positives = weights[:, part.gt_images].sum(1, dtype=np.int64)[:, None]  # (B, 1)
        some = positives[:, 0] > 0
        if not len(part.positions):
            area[some, part.label] = eleven[some, part.label] = 0
            continue
        repeats = weights.take(part.images, axis=1)  # (B, K)
        true = repeats[:, part.positions].cumsum(1, dtype=np.int64)  # (B, M)
        starts = np.concatenate([[0], part.positions[:-1] + 1])
        detected = np.add.reduceat(repeats, starts, axis=1).cumsum(1, dtype=np.int64)
        # A true positive of weight 0 is a point with the recall of the one before it and no more precision: harmless.
        precision = true / np.maximum(detected, 1)
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        recall = true / np.maximum(positives, 1)
        steps = np.diff(recall, axis=1, prepend=0) * envelope
        complete = true[:, -1] == positives[:, 0]
        sums = np.where(complete, steps.sum(1), np.concatenate([steps, zero], axis=1).sum(1))
        area[some, part.label] = sums[some]
        shares = np.concatenate([envelope, zero], axis=1) / 11
        points = [np.take_along_axis(shares, (recall < level).sum(1)[:, None], 1)[:, 0] for level in RECALLS]
        eleven[some, part.label] = sum(points, start=zero[:, 0])[some]
    mean_area, mean_eleven = (np.array([mean_over(row) for row in values]) for values in (area, eleven))
    return area, eleven, mean_area, mean_eleven


def _resample(ranking: Ranking, draw: Callable[[int], NDArray[np.int32]], width: int, resamples: int) -> list[Floats]:
    """average_precisions of `resamples` drawn weights, (resamples, C) twice and (resamples,) twice."""
    longest = max((len(part.images) for part in ranking.classes), default=0)
    step = max(1, CHUNK // max(longest, width))
    chunks = [
        average_precisions(ranking, np.stack([draw(k) for k in range(start, min(start + step, resamples))]))
        for start in range(0, resamples, step)
    ]
    return [np.concatenate(parts) for parts in zip(*chunks, strict=True)]


def draw_images(seed: int, num_images: int, resample: int) -> NDArray[np.int32]:
    """How often each image is drawn, (P,)."""
    drawn = np.random.default_rng((seed, resample)).integers(num_images, size=num_images)
    return np.bincount(drawn, minlength=num_images).astype(np.int32)


def _swap(seed: int, num_images: int, other: bool, resample: int) -> NDArray[np.int32]:
    """Weights (2 P + 1,) that give each image the detections of one detector at random; `other`: of the other one."""
    first = np.random.default_rng((seed, resample)).integers(2, size=num_images, dtype=np.int32) ^ other
    return np.concatenate([first, 1 - first, [1]]).astype(np.int32)


def _columns(samples: Floats) -> Iterator[Floats]:
    """The resamples of each class without NaN; of a mean (B,) as if it were one class."""
    for column in samples.reshape(len(samples), -1).T:
        yield column[~np.isnan(column)]


def percentiles(samples: Floats, confidence: float) -> tuple[Floats, Floats]:
    """The bounds of the middle of the resamples (B, ...) that are not NaN; NaN where all are."""
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    bounds = [np.quantile(column, ends) if len(column) else np.full(2, np.nan) for column in _columns(samples)]
    low, high = np.reshape(bounds, (*samples.shape[1:], 2)).T
    return low, high


def _interval(estimate: Floats, samples: Floats, confidence: float) -> Interval:
    errors = [column.std(ddof=1) if len(column) > 1 else np.nan for column in _columns(samples)]
    return Interval(estimate, *percentiles(samples, confidence), np.reshape(errors, samples.shape[1:])[()])


def _difference(
    confidence: float,
    first: Floats,
    second: Floats,
    drawn_first: Floats,
    drawn_second: Floats,
    stayed: Floats,
    swapped: Floats,
) -> Difference:
    difference = (second - first)[0]
    with np.errstate(invalid="ignore"):
        extreme = np.abs(swapped - stayed) >= np.abs(difference) - 1e-12  # rounding is no evidence
    p_value = np.where(np.isnan(difference), np.nan, (1 + extreme.sum(0)) / (1 + len(extreme)))[()]
    low, high = percentiles(drawn_second - drawn_first, confidence)
    return Difference(first[0], second[0], difference, low, high, p_value)


def check_options(resamples: int, confidence: float, seed: int) -> None:
    check_whole("resamples", resamples, 1)
    check_whole("seed", seed, 0)
    if not 0 < confidence < 1:
        raise DataError(f"confidence: expected a number in (0, 1), got {confidence!r}")
