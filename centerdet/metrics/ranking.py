"""What the other results of this folder stand on: checked arrays with their VOC matching, and AP of weighted images.

Matches stay within a image, so drawing images again changes none: a resample is a whole weight for each image,
and its AP is that of a dataset which holds every row of the image so many times.

Shapes: D detections, G ground truths, C classes, P images, B sets of weights, S pairs of rows.
"""

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .arrays import Problem
from .overlaps import find_cells, overlapping_pairs
from .voc import VocMatch, voc_match

__all__ = [
    "Ranking", "Result", "average_precisions", "count_truths", "finite_number", "match_arrays", "number_images",
    "pairs_of_any_class", "point_average", "rank", "reaches", "whole_number",
]  # fmt: skip

Array = NDArray[Any]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

LEVELS = np.arange(0, 1.1, 0.1)  # the 11 recalls


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """Parent of the results of this folder."""

    def to_dict(self) -> dict[str, Any]:
        """Everything as the lists and numbers of JSON; NaN becomes None."""
        kept = (field.name for field in fields(self) if field.metadata.get("json", True))
        return {name: _plain(getattr(self, name)) for name in kept}


def _plain(value: Any) -> Any:
    if isinstance(value, Result):
        return value.to_dict()
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def match_arrays(
    det_boxes: Any,
    det_scores: Any,
    det_labels: Any,
    det_images: Any,
    gt_boxes: Any,
    gt_labels: Any,
    gt_images: Any,
    gt_difficult: Any,
    num_classes: int,
    iou_threshold: float,
    gt_area: Any = None,
) -> tuple[Problem, VocMatch]:
    """The checked arrays and what VOC's rules make of the detections."""
    arrays = (det_boxes, det_scores, det_labels, det_images, gt_boxes, gt_labels, gt_images)
    problem = Problem.check(*arrays, num_classes, flag=("gt_difficult", gt_difficult), gt_area=gt_area)
    match = voc_match(*arrays, gt_difficult=gt_difficult, num_classes=num_classes, iou_threshold=iou_threshold)
    return problem, match


def number_images(problem: Problem, num_images: int | None) -> tuple[Array, Array, int]:
    """Images that have rows numbered 0 ... in the order of their ids, and the count of all images, at least 1."""
    split = len(problem.det_images)
    ids = np.concatenate([problem.det_images.astype(np.int64), problem.gt_images.astype(np.int64)])
    present, number = np.unique(ids, return_inverse=True)
    if num_images is None:
        num_images = len(present)
    whole_number("num_images", num_images, len(present))
    return number[:split], number[split:], max(1, int(num_images))


@dataclass(frozen=True, slots=True, eq=False)
class RankedClass:
    """One class that has ground truth: its detections, best first, up to the last true positive.

    images (K,), positions (M,) of the true positives, gt_images (N,).
    """

    label: int
    images: Array
    positions: Array
    gt_images: Array


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """The ranked classes; those without ground truth are left out."""

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


def average_precisions(ranking: Ranking, weights: NDArray[np.int32]) -> tuple[Floats, Floats, Floats, Floats]:
    """VOC AP by area and by 11 points (B, C), and their means (B,), with every image weights (B, P) times."""
    area, eleven = np.full((2, len(weights), ranking.num_classes), np.nan)
    for part in ranking.classes:
        positives = weights[:, part.gt_images].sum(1, dtype=np.int64)[:, None]  # (B, 1)
        gathered = weights.take(part.images, axis=1)  # (B, K)
        found = gathered[:, part.positions].cumsum(1, dtype=np.int64)  # (B, M)
        starts = np.concatenate([[0], part.positions[:-1] + 1])
        counted = np.add.reduceat(gathered, starts, axis=1).cumsum(1, dtype=np.int64) if len(part.positions) else found
        # A true positive of weight 0 is a point with the recall of the one before it and no more precision: harmless.
        precision = found / np.maximum(counted, 1)
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        recall = found / np.maximum(positives, 1)
        steps = np.diff(recall, axis=1, prepend=0) * envelope
        zero = np.zeros((len(weights), 1))
        whole = (found[:, -1:] == positives)[:, 0] if len(part.positions) else False
        some = positives[:, 0] > 0
        # The same sums in the same order as voc_evaluate, so that weights of 1 give its very bits.
        sums = np.where(whole, steps.sum(1), np.concatenate([steps, zero], axis=1).sum(1))
        area[some, part.label] = sums[some]
        shares = np.concatenate([envelope, zero], axis=1) / 11
        points = [np.take_along_axis(shares, (recall < level).sum(1)[:, None], 1)[:, 0] for level in LEVELS]
        eleven[some, part.label] = sum(points, start=zero[:, 0])[some]
    return area, eleven, _means(area), _means(eleven)


def _means(values: Floats) -> Floats:
    """Mean over the classes that are not NaN, (B, C) -> (B,)."""
    kept = ((row, ~np.isnan(row)) for row in values)
    return np.array([row[some].mean() if some.any() else np.nan for row, some in kept])


def point_average(
    problem: Problem, order: Ints, counted: Mask, correct: Mask, real: Mask
) -> tuple[Floats, Floats, Any, Any]:
    """AP by area and by 11 points (C,), and their means, of the detections that count and the real ground truths."""
    rows = order[counted[order]]
    nowhere = np.zeros(max(len(rows), len(real)), np.intp)
    ranking = rank(
        problem.det_labels[rows], correct[rows], nowhere[: len(rows)],
        problem.gt_labels[real], nowhere[: np.count_nonzero(real)], problem.num_classes,
    )  # fmt: skip
    area, eleven, mean_area, mean_eleven = average_precisions(ranking, np.ones((1, 1), np.int32))
    return area[0], eleven[0], mean_area[0], mean_eleven[0]


def pairs_of_any_class(
    problem: Problem, floor: float, dets: Ints, truths: Ints | None = None
) -> tuple[Ints, Ints, Floats]:
    """Pairs of these rows in one image, whatever their classes, with IoU >= floor (> 0 for floor 0), each (S,)."""
    truths = np.arange(len(problem.gt_boxes)) if truths is None else truths
    part = replace(
        problem, num_classes=1,
        det_boxes=problem.det_boxes[dets], det_scores=problem.det_scores[dets],
        det_labels=np.zeros(len(dets), np.int64), det_images=problem.det_images[dets],
        gt_boxes=problem.gt_boxes[truths], gt_labels=np.zeros(len(truths), np.int64),
        gt_images=problem.gt_images[truths], gt_flag=np.zeros(len(truths), np.bool_), gt_area=None,
    )  # fmt: skip
    det, truth, iou = overlapping_pairs(part, find_cells(part), floor)
    return dets[det], truths[truth], iou


def reaches(scores: Array, threshold: Any) -> Mask:
    """Scores at or above the threshold; 0.7 means the scores' own 0.7, which in float32 is less."""
    return np.asarray(scores >= np.asarray(threshold, scores.dtype))


def count_truths(problem: Problem, rows: Mask) -> Ints:
    """How many of these ground truths each class has, (C,)."""
    return np.bincount(problem.gt_labels[rows], minlength=problem.num_classes)


def finite_number(name: str, value: float) -> float:
    """The value as a float; DataError names the option."""
    if not abs(value) < float("inf"):
        raise DataError(f"{name}: want a finite number, got {value!r}")
    return float(value)


def whole_number(name: str, value: object, lowest: int) -> None:
    """Refuse anything but a whole number >= lowest; DataError names the option."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < lowest:
        raise DataError(f"{name}: want a whole number from {lowest}, got {value!r}")
