"""Maps from a detector's scores to probabilities: one strictly increasing map per class, fitted to matched detections.

Law: in double precision, single-precision scores of a class keep their order and their ties, so the AP of each class
does not change, bit for bit. Shapes: C classes, D detections, K knots, L levels of precision.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from ..text import plural
from .arrays import Array, Arrays, check_probabilities, number_images
from .diagnose import operating_points
from .voc import VocMatch

__all__ = ["METHODS", "Calibration", "Fit", "fit_calibration"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

METHODS = ("isotonic", "Platt")
KNOTS = np.round([0, *1 / (1 + np.exp(-np.linspace(-6, 6, 25))), 1], 6)  # dense where scores are almost 0 or 1
LEVELS = np.linspace(0, 1, 21)
RAMP = 0.005  # share of the raw score in each map: a minimum slope, so that isotonic regression makes no ties
SHRINKAGE = 50  # true positives at which the map of a class and the map of all classes have equal weights
FOLDS = 5
MIN_OBJECTS = 50  # true positives: with 50, the standard error of a probability of 0.5 is 0.07
TINY = 1e-7  # scores are clipped to [TINY, 1 - TINY] before the logit
MAX_LENGTH, MAX_SOURCE = 1000, 200  # in a file: numbers in a list, characters of the source


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """The score map of each class, and thresholds for calibrated scores.

    Attributes:
        names: the classes.
        scores: raw scores at the knots, (K,), from 0 to 1.
        precision: the calibrated scores at the knots, (C, K); linear between knots.
        best_f1: the threshold of each class with the best F1 on the images of the fit, (C,).
        at_precision: the lowest threshold of each class at which the expected precision reaches 0, 1 / (L - 1), ..., 1,
            (C, L). The expected precision is the mean calibrated score above the threshold, on the images of the fit.
        source: a description of the images of the fit.
    """

    names: tuple[str, ...]
    scores: Floats
    precision: Floats
    best_f1: Floats
    at_precision: Floats
    source: str = ""

    def apply(self, scores: Array, labels: Array) -> Floats:
        """The probability that each detection is correct, (D,), from its raw score and its label."""
        return _interpolate(self.scores, self.precision, scores, labels)

    def thresholds(self, name: str) -> Floats:
        """The threshold of each class for calibrated scores, (C,).

        "best": the one with the best F1. "precision:0.9": the lowest one with an expected precision of 0.9, exact at
        the stored levels and interpolated between them.
        """
        if name == "best":
            return self.best_f1
        try:
            precision = float(name.removeprefix("precision:"))
        except ValueError:
            precision = -1.0
        if not (name.startswith("precision:") and 0 <= precision <= 1):
            raise ConfigError(
                f"score_threshold: expected a number from 0 to 1, 'best' or 'precision:0.9', got {name!r}"
            )
        levels = np.linspace(0, 1, self.at_precision.shape[1])
        return np.array([np.interp(precision, levels, row) for row in self.at_precision])

    def lowest(self, thresholds: Floats) -> float:
        """A raw score below which no calibrated score reaches its class's threshold (C,)."""
        margin = 1 - 1e-6  # more than single precision rounds by
        pairs = zip(thresholds * margin, self.precision, strict=True)
        return margin * min(float(np.interp(threshold, row, self.scores)) for threshold, row in pairs)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        keys = ("precision", "best_f1", "at_precision")
        columns = (getattr(self, key).tolist() for key in keys)
        classes = {name: dict(zip(keys, row, strict=True)) for name, *row in zip(self.names, *columns, strict=True)}
        return {"source": self.source, "scores": self.scores.tolist(), "classes": classes}

    @classmethod
    def from_dict(cls, value: object, names: Sequence[str]) -> "Calibration":
        """The inverse of `to_dict`, for a detector with these classes; a DataError names the invalid field."""
        fields = _mapping("calibration", value, ("source", "scores", "classes"))
        source = fields["source"]
        if not (isinstance(source, str) and len(source) <= MAX_SOURCE):
            raise DataError(f"calibration.source: expected at most {MAX_SOURCE} characters, got {source!r:.60}")
        scores = _numbers("calibration.scores", fields["scores"])
        if len(scores) < 2 or scores[0] != 0 or scores[-1] != 1 or (np.diff(scores) <= 0).any():
            raise DataError(f"calibration.scores: expected numbers that rise from 0 to 1, got {scores.tolist()!r:.60}")
        classes = _mapping("calibration.classes", fields["classes"], names)
        rows: list[tuple[Floats, Any, Floats]] = []
        for name in names:
            field = f"calibration.classes.{name}"
            parts = _mapping(field, classes[name], ("precision", "best_f1", "at_precision"))
            precision = _numbers(f"{field}.precision", parts["precision"], len(scores))
            if precision[0] != 0 or (np.diff(precision) <= 0).any():
                raise DataError(f"{field}.precision: expected numbers that rise from 0, got {precision.tolist()!r:.60}")
            [best] = _numbers(f"{field}.best_f1", [parts["best_f1"]])
            reached = _numbers(f"{field}.at_precision", parts["at_precision"], len(rows[0][2]) if rows else None)
            if len(reached) < 2 or (np.diff(reached) < 0).any():
                raise DataError(
                    f"{field}.at_precision: expected 2 or more that do not fall, got {reached.tolist()!r:.60}"
                )
            rows.append((precision, best, reached))
        precisions, thresholds, levels = (np.array(column) for column in zip(*rows, strict=True))
        return cls(tuple(names), scores, precisions, thresholds, levels, source)


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A `Calibration` and how it was fitted.

    Attributes:
        calibration: fitted to all images.
        cross_fitted: calibrated scores, (D,), from maps that were fitted without the detection's image.
        methods: the method of each class, one of `METHODS`.
        weights: the weight of each class's own map, (C,); the map of all classes has the rest.
    """

    calibration: Calibration
    cross_fitted: Floats
    methods: tuple[str, ...]
    weights: Floats


def fit_calibration(arrays: Arrays, match: VocMatch, names: Sequence[str], *, source: str = "", seed: int = 0) -> Fit:
    """Fit the maps to raw scores from 0 to 1, matched by VOC's rules; ignored detections are left out.

    The map of a class is isotonic (pool adjacent violators, linear between the centers of the blocks: Oron and
    Flournoy, "Centered Isotonic Regression", 2017) or logistic (Platt, "Probabilistic Outputs for Support Vector
    Machines", 1999), whichever has the higher likelihood in five-fold cross-validation over images. It is averaged with
    the map of all classes: with n true positives, the class's own map has the weight n / (n + 50). Fewer than 50 true
    positives in total are a DataError.
    """
    check_probabilities(arrays)
    images, _, num_images = number_images(arrays, None)
    if (right := int(match.true_positive.sum())) < MIN_OBJECTS or num_images < FOLDS:
        raise DataError(
            f"calibration: expected at least {MIN_OBJECTS} detected objects on {FOLDS} images, got {right:,} on "
            f"{plural(num_images, 'image')}: use more images, or weights that detect more"
        )
    scores, labels = arrays.det_scores.astype(np.float64), arrays.det_labels.astype(np.int64)
    correct, used, classes = match.true_positive, ~match.ignored, arrays.num_classes
    fold = np.random.default_rng(seed).permutation(num_images)[images] % FOLDS
    trials = np.zeros((len(METHODS), len(scores)))
    for number in range(FOLDS):
        rows, rest = used & (fold != number), fold == number
        for trial, maps in zip(trials, _fit(scores[rows], correct[rows], labels[rows], classes)[0], strict=True):
            trial[rest] = _interpolate(KNOTS, maps, scores[rest], labels[rest])
    prob = np.where(correct, trials, 1 - trials)[:, used]
    likelihood = [np.bincount(labels[used], np.log(np.maximum(row, TINY)), classes) for row in prob]
    best = np.argmax(likelihood, axis=0)

    both, weights = _fit(scores[used], correct[used], labels[used], classes)
    maps = both[best, np.arange(classes)]
    calibrated = _interpolate(KNOTS, maps, scores, labels)
    points = operating_points(replace(arrays, det_scores=calibrated), match)
    best_f1 = points.best_per_class.score_threshold
    best_f1 = np.where(np.isnan(best_f1), points.best_overall.score_threshold, best_f1)
    reached = np.stack([_reach_levels(calibrated[used & (labels == label)]) for label in range(classes)])
    calibration = Calibration(tuple(names), KNOTS, maps, _shorten(best_f1), _shorten(reached), source)
    return Fit(calibration, trials[best[labels], np.arange(len(labels))], tuple(METHODS[one] for one in best), weights)


def _interpolate(knots: Floats, values: Floats, scores: Array, labels: Array) -> Floats:
    """Each score (D,) mapped by the line of its label: knots (K,), values at the knots (C, K)."""
    scores = scores.astype(np.float64)
    right = np.clip(np.searchsorted(knots, scores, "right"), 1, len(knots) - 1)
    start, end = values[labels, right - 1], values[labels, right]
    return np.asarray(start + (scores - knots[right - 1]) / (knots[right] - knots[right - 1]) * (end - start))


def _fit(scores: Floats, correct: Mask, labels: Ints, classes: int) -> tuple[Floats, Floats]:
    """The maps of each method at the knots, (2, C, K), and the weight of each class's own fit, (C,)."""
    positive = np.bincount(labels[correct], minlength=classes)
    weights = positive / (positive + SHRINKAGE)
    maps = np.zeros((len(METHODS), classes, len(KNOTS)))
    for number, fit in enumerate((_fit_isotonic, _fit_platt)):
        pooled = fit(scores, correct)
        for label in range(classes):
            rows = labels == label
            separate = fit(scores[rows], correct[rows]) if positive[label] else pooled
            maps[number, label] = weights[label] * separate + (1 - weights[label]) * pooled
    maps = _shorten((1 - RAMP) * maps + RAMP * KNOTS)
    maps[..., 0] = 0
    return maps, weights


def _fit_isotonic(scores: Floats, correct: Mask) -> Floats:
    """Isotonic regression at the knots, (K,); the identity without detections."""
    if not len(scores):
        return KNOTS
    group = np.unique(scores, return_inverse=True)[1]
    table = np.stack([np.bincount(group), np.bincount(group, correct), np.bincount(group, scores)], axis=1)
    some = table[:, 1] > 0
    table = np.add.reduceat(table, np.flatnonzero(some | np.append(True, some[:-1])))  # pools what is wrong in a row
    blocks: list[Floats] = []  # count, correct, sum of scores
    for block in table:
        while blocks and blocks[-1][1] * block[0] >= block[1] * blocks[-1][0]:
            block = block + blocks.pop()
        blocks.append(block)
    count, true, total = np.array(blocks).T
    heights = [0, *true / count, true[-1] / count[-1]]
    return np.asarray(np.interp(KNOTS, [0, *total / count, 1], heights), np.float64)


def _fit_platt(scores: Floats, correct: Mask) -> Floats:
    """Logistic regression on the logit of the score, by Newton's method, at the knots, (K,); never decreasing."""
    positive = correct.sum()
    target = np.where(correct, (positive + 1) / (positive + 2), 1 / (len(correct) - positive + 2))  # Platt, section 2.2
    inputs = _logits(scores)

    def loss(line: Floats) -> float:
        return float((np.logaddexp(0, inputs @ line) - target * (inputs @ line)).sum())

    line = np.array([1.0, 0.0])
    for _ in range(50):
        prob = _sigmoid(inputs @ line)
        hessian = (inputs * (prob * (1 - prob))[:, None]).T @ inputs
        step = np.linalg.solve(hessian + TINY * np.eye(2), inputs.T @ (prob - target))
        while np.abs(step).max() > 1e-6 and loss(line - step) > loss(line):
            step /= 2
        line = line - step
        if np.abs(step).max() <= 1e-6:
            break
    return _sigmoid(_logits(KNOTS) @ np.maximum(line, [0, -np.inf]))


def _logits(scores: Floats) -> Floats:
    """(N, 2): the logit of each score, and 1."""
    inside = np.clip(scores, TINY, 1 - TINY)
    return np.stack([np.log(inside / (1 - inside)), np.ones(len(scores))], axis=1)


def _sigmoid(values: Floats) -> Floats:
    return np.asarray((1 + np.tanh(values / 2)) / 2)


def _reach_levels(scores: Floats) -> Floats:
    """The lowest threshold above which the mean score reaches each level, at most the level itself, (L,)."""
    falling = np.sort(scores)[::-1]
    mean = np.cumsum(falling) / np.arange(1, len(falling) + 1)
    whole = np.diff(falling, append=-1) < 0  # a threshold takes all of a tie
    count = np.searchsorted(-mean[whole], -LEVELS, "right")
    return np.asarray(np.minimum(np.append(np.inf, falling[whole])[count], LEVELS))


def _shorten(values: Floats) -> Floats:
    """Round down to six decimals, so that a threshold still includes the score that it came from."""
    return np.asarray(np.floor(values * 1e6) / 1e6)


def _mapping(field: str, value: object, keys: Collection[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{field}: expected an object, got {value!r:.60}")
    if wrong := sorted(value.keys() ^ set(keys)):
        state = "is missing" if wrong[0] in keys else "is unknown"
        raise DataError(f"{field}: {wrong[0]!r:.60} {state}: run centerdet calibrate on these weights")
    return value


def _numbers(field: str, value: object, length: int | None = None) -> Floats:
    """A list of numbers from 0 to 1."""
    if not (isinstance(value, list) and len(value) <= MAX_LENGTH and length in (None, len(value))):
        got = plural(len(value), "value") if isinstance(value, list) else f"{value!r:.60}"
        raise DataError(f"{field}: expected a list of {length or f'at most {MAX_LENGTH}'} numbers, got {got}")
    for one in value:
        if isinstance(one, bool) or not (isinstance(one, int | float) and 0 <= one <= 1):
            raise DataError(f"{field}: expected numbers from 0 to 1, got {one!r:.60}")
    return np.array(value, np.float64)
