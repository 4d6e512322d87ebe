"""How sure an AP is: bootstrap over images, and the paired comparison of two detectors on the same images.

Random numbers of resample k come from a generator seeded with (seed, k) alone.

Shapes: C classes, P images, B resamples.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .arrays import Problem
from .ranking import (
    Array,
    Floats,
    Ranking,
    Result,
    average_precisions,
    match_arrays,
    number_images,
    rank,
    whole_number,
)
from .voc import voc_match

__all__ = ["Bootstrap", "Comparison", "Difference", "Interval", "bootstrap_ap", "compare_models"]

CHUNK = 2**22  # weights gathered at a time: 16 MB


@dataclass(frozen=True, slots=True, eq=False)
class Interval(Result):
    """A number or (C,) of them with the percentile interval and the standard error of its resamples.

    A class without ground truth is NaN; one that some resamples miss is summed up over the others.
    """

    estimate: Floats
    low: Floats
    high: Floats
    standard_error: Floats


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
class Difference(Result):
    """second - first, a number or (C,) of them: its bootstrap interval, and the p-value of the permutation test."""

    first: Floats
    second: Floats
    difference: Floats
    low: Floats
    high: Floats
    p_value: Floats


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
    det_boxes: Any,
    det_scores: Any,
    det_labels: Any,
    det_images: Any,
    gt_boxes: Any,
    gt_labels: Any,
    gt_images: Any,
    *,
    gt_difficult: Any = None,
    num_classes: int,
    iou_threshold: float = 0.5,
    num_images: int | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Bootstrap:
    """The percentile interval of VOC AP when the images are drawn again with replacement.

    num_images counts the images evaluated; by default those that a detection or a ground truth names, which leaves
    out images that have neither. A resample's mean is over the classes that have ground truth in it.
    """
    _check_options(resamples, confidence, seed)
    problem, match = match_arrays(
        det_boxes, det_scores, det_labels, det_images, gt_boxes, gt_labels, gt_images,
        gt_difficult, num_classes, iou_threshold,
    )  # fmt: skip
    det_images, gt_images, num_images = number_images(problem, num_images)
    rows = match.order[~match.ignored[match.order]]
    real = ~problem.gt_flag
    ranking = rank(
        problem.det_labels[rows], match.true_positive[rows], det_images[rows],
        problem.gt_labels[real], gt_images[real], num_classes,
    )  # fmt: skip
    point = average_precisions(ranking, np.ones((1, num_images), np.int32))
    samples = _resample(ranking, partial(_draw, seed, num_images), num_images, resamples)
    area, eleven, mean_area, mean_eleven = (
        _interval(value[0], sample, confidence) for value, sample in zip(point, samples, strict=True)
    )
    return Bootstrap(
        area, eleven, mean_area, mean_eleven, num_images, float(iou_threshold), resamples, confidence, seed
    )


def compare_models(
    first: tuple[Any, Any, Any, Any],
    second: tuple[Any, Any, Any, Any],
    gt_boxes: Any,
    gt_labels: Any,
    gt_images: Any,
    *,
    gt_difficult: Any = None,
    num_classes: int,
    iou_threshold: float = 0.5,
    num_images: int | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Whether the second detector's VOC AP differs from the first's by more than chance.

    Each detector is (boxes, scores, labels, images). The interval: both are evaluated on the same drawn images. The
    p-value: if the detectors were alike, their detections in any image could change sides; it is (1 + the number of
    random swaps whose difference is at least as large in absolute value) / (1 + resamples). In a swap, equal scores
    keep the first's rows before the second's.
    """
    _check_options(resamples, confidence, seed)
    truths = (gt_boxes, gt_labels, gt_images)
    flag = ("gt_difficult", gt_difficult)
    pair = []
    for name, detections in (("first", first), ("second", second)):
        try:
            pair.append(Problem.check(*detections, *truths, num_classes, flag=flag))
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
    both = Problem.check(
        np.concatenate([one.det_boxes for one in pair]),
        np.concatenate([one.det_scores for one in pair]),
        np.concatenate([one.det_labels for one in pair]),
        np.concatenate([_host(first[3]), _host(second[3])]),
        *truths, num_classes, flag=flag,
    )  # fmt: skip
    det_images, gt_images, num_images = number_images(both, num_images)
    split = len(pair[0].det_boxes)
    matches = [
        voc_match(*detections, *truths, gt_difficult=gt_difficult, num_classes=num_classes, iou_threshold=iou_threshold)
        for detections in (first, second)
    ]
    real = ~both.gt_flag
    gt_labels, gt_images = both.gt_labels[real], gt_images[real]
    rankings = []
    for match, start in zip(matches, (0, split), strict=True):
        order = match.order[~match.ignored[match.order]]
        rows = order + start
        rankings.append(
            rank(both.det_labels[rows], match.true_positive[order], det_images[rows], gt_labels, gt_images, num_classes)
        )
    one = np.ones((1, num_images), np.int32)
    points = [average_precisions(ranking, one) for ranking in rankings]
    drawn = [_resample(ranking, partial(_draw, seed, num_images), num_images, resamples) for ranking in rankings]

    # For the swaps the second's images are numbered after the first's, and all ground truth lies in one more.
    correct, ignored = (
        np.concatenate([getattr(match, name) for match in matches]) for name in ("true_positive", "ignored")
    )
    side = det_images + num_images * (np.arange(len(det_images)) >= split)
    rows = np.lexsort((-both.det_scores, both.det_labels))
    rows = rows[~ignored[rows]]
    swapped = rank(
        both.det_labels[rows], correct[rows], side[rows],
        gt_labels, np.full(len(gt_labels), 2 * num_images), num_classes,
    )  # fmt: skip
    sides = [
        _resample(swapped, partial(_swap, seed, num_images, other), 2 * num_images + 1, resamples)
        for other in (False, True)
    ]
    parts = zip(*points, *drawn, *sides, strict=True)
    area, eleven, mean_area, mean_eleven = (_difference(confidence, *part) for part in parts)
    return Comparison(
        area, eleven, mean_area, mean_eleven, num_images, float(iou_threshold), resamples, confidence, seed
    )


def _resample(ranking: Ranking, draw: Callable[[int], NDArray[np.int32]], width: int, resamples: int) -> list[Floats]:
    """average_precisions of `resamples` drawn weights, (resamples, C) twice and (resamples,) twice."""
    longest = max((len(part.images) for part in ranking.classes), default=0)
    step = max(1, CHUNK // max(longest, width))
    chunks = [
        average_precisions(ranking, np.stack([draw(k) for k in range(start, min(start + step, resamples))]))
        for start in range(0, resamples, step)
    ]
    return [np.concatenate(parts) for parts in zip(*chunks, strict=True)]


def _draw(seed: int, num_images: int, resample: int) -> NDArray[np.int32]:
    """How often each image is drawn, (P,)."""
    drawn = np.random.default_rng((seed, resample)).integers(num_images, size=num_images)
    return np.bincount(drawn, minlength=num_images).astype(np.int32)


def _swap(seed: int, num_images: int, other: bool, resample: int) -> NDArray[np.int32]:
    """Weights (2 P + 1,) that give each image one detector's detections; `other`: those left over."""
    keep = np.random.default_rng((seed, resample)).integers(2, size=num_images, dtype=np.int32)
    return np.concatenate([1 - keep, keep, [1]] if other else [keep, 1 - keep, [1]]).astype(np.int32)


def _columns(samples: Floats) -> Iterator[Floats]:
    """The resamples of each class without NaN; of a mean (B,) as if it were one class."""
    for column in samples.reshape(len(samples), -1).T:
        yield column[~np.isnan(column)]


def _percentiles(samples: Floats, confidence: float) -> tuple[Floats, Floats]:
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    found = [np.quantile(column, ends) if len(column) else np.full(2, np.nan) for column in _columns(samples)]
    low, high = np.reshape(found, (*samples.shape[1:], 2)).T
    return low, high


def _interval(estimate: Floats, samples: Floats, confidence: float) -> Interval:
    errors = [column.std(ddof=1) if len(column) > 1 else np.nan for column in _columns(samples)]
    return Interval(estimate, *_percentiles(samples, confidence), np.reshape(errors, samples.shape[1:])[()])


def _difference(
    confidence: float,
    first: Floats,
    second: Floats,
    drawn_first: Floats,
    drawn_second: Floats,
    kept: Floats,
    given: Floats,
) -> Difference:
    difference = (second - first)[0]
    with np.errstate(invalid="ignore"):
        extreme = np.abs(given - kept) >= np.abs(difference) - 1e-12  # rounding is no evidence
    p_value = np.where(np.isnan(difference), np.nan, (1 + extreme.sum(0)) / (1 + len(extreme)))[()]
    low, high = _percentiles(drawn_second - drawn_first, confidence)
    return Difference(first[0], second[0], difference, low, high, p_value)


def _host(values: Any) -> Array:
    """Checked image ids as an array, also from a tensor on another device."""
    return np.asarray(values.cpu() if hasattr(values, "cpu") else values)


def _check_options(resamples: int, confidence: float, seed: int) -> None:
    whole_number("resamples", resamples, 1)
    whole_number("seed", seed, 0)
    if not 0 < confidence < 1:
        raise DataError(f"confidence: want a number in (0, 1), got {confidence!r}")
