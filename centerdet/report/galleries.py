"""The galleries of a report: the worst errors of each class, each a region of an image with its boxes.

Shapes: D detections, G ground truths.
"""

from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..evaluation.evaluation import Evaluation
from ..metrics.arrays import box_area
from ..metrics.tide import ErrorKind
from ..metrics.voc import best_scores

__all__ = ["list_galleries"]

Ints = NDArray[np.int64]

CARDS = 240
"""Maximum number of cards per gallery, which keeps all galleries of a page below 15 MB."""
FEWEST = 6  # cards per class, if they fit
NEIGHBORS = 8  # maximum number of neighboring boxes of each kind on a card
LOWEST = 0.3  # minimum score of the detections that are shown

REASONS = {
    ErrorKind.LOCALIZATION: "poor localization: IoU {:.2f} with its object",
    ErrorKind.BOTH: "wrong class and poor localization: IoU {:.2f}",
    ErrorKind.DUPLICATE: "duplicate of a better detection",
    ErrorKind.BACKGROUND: "no object here",
}


def list_galleries(result: Evaluation, against: Evaluation | None = None) -> dict[str, dict[str, Any]]:
    """The galleries by key: title, note, total (before the limit of CARDS), and items.

    An item has an image, classes (to filter by), text, reason, score, and boxes. A box has a kind (object or
    detection), label, box, score, and main: whether it is the subject of the item or a neighbor.
    """
    arrays, match, names, kinds = result.arrays, result.match, result.names, result.error_kinds()
    scores = arrays.det_scores.astype(np.float64)
    card = _Cards(result).make

    best = np.argsort(-scores, kind="stable")
    best = best[(scores[best] >= LOWEST) & (kinds.detection_kind[best] >= 0)]
    confusion = kinds.detection_kind[best] == ErrorKind.CLASSIFICATION
    false, confused = best[~confusion], best[confusion]
    threshold = result.operating_points().best_overall.score_threshold
    seen, area = best_scores(arrays, match), box_area(arrays.gt_boxes)
    missed = np.flatnonzero(~arrays.gt_difficult & ~(seen >= threshold))
    missed = missed[np.argsort(-(area * (1 - np.clip(seen, 0, 1)))[missed], kind="stable")]
    likely, suspects = result.label_errors(), result.suspects()

    def of_false(row: int) -> dict[str, Any]:
        kind = ErrorKind(kinds.detection_kind[row])
        gt, iou = (kinds.other_gt, kinds.other_iou) if kind == ErrorKind.BOTH else (match.best_gt, match.best_iou)
        text = names[arrays.det_labels[row]]
        return card(text, REASONS[kind].format(iou[row]), scores[row], detection=row, gt=gt[row])

    def of_confused(row: int) -> dict[str, Any]:
        gt = kinds.other_gt[row]
        text = f"{names[arrays.gt_labels[gt]]} predicted as {names[arrays.det_labels[row]]}"
        return card(text, f"IoU {kinds.other_iou[row]:.2f}", scores[row], detection=row, gt=gt)

    def of_truth(gt: int, reason: str = "") -> dict[str, Any]:
        return card(names[arrays.gt_labels[gt]], reason, gt=gt)

    def of_missed(gt: int) -> dict[str, Any]:
        detected = np.isfinite(seen[gt])
        return of_truth(
            gt, f"best score {seen[gt]:.2f}, threshold {threshold:.2f}" if detected else "no detection at all"
        )

    def of_suspect(number: int) -> dict[str, Any]:
        one = suspects[number]
        text = f"{one.existing}, likely {one.name}" if one.existing not in (None, one.name) else one.name
        gt = -1 if one.existing is None else likely.gt[number]
        return card(f"{one.kind}: {text}", one.reason, one.score, detection=likely.detection[number], gt=gt)

    galleries: dict[str, tuple[str, str, Ints, NDArray[Any], Callable[[int], dict[str, Any]]]] = {
        "false_positives": ("False positives", "The most confident detections without an object",
                            false, arrays.det_labels[false], of_false),
        "misses": ("Misses", "The largest objects without a detection, at the threshold with the best F1",
                   missed, arrays.gt_labels[missed], of_missed),
        "confusions": ("Confusions", "The most confident detections with the wrong class",
                       confused, arrays.det_labels[confused], of_confused),
        "suspects": ("Likely label errors", "Annotations that contradict confident detections",
                     np.arange(len(suspects)), np.array([names.index(one.name) for one in suspects]), of_suspect),
    }  # fmt: skip
    if against is not None:
        limit = against.operating_points().best_overall.score_threshold
        first, second = seen >= threshold, best_scores(against.arrays, against.match) >= limit
        for key, who, chosen in (("lost", "first", first & ~second), ("gained", "second", second & ~first)):
            rows = np.flatnonzero(chosen & ~arrays.gt_difficult)
            rows = rows[np.argsort(-area[rows], kind="stable")]
            note = f"Objects detected only by the {who} detector, each detector at its threshold with the best F1"
            galleries[key] = (key.capitalize(), note, rows, arrays.gt_labels[rows], of_truth)
    return {
        key: {"title": title, "note": note, "total": len(rows), "items": [make(int(rows[k])) for k in _choose(labels)]}
        for key, (title, note, rows, labels, make) in galleries.items()
    }


def _choose(labels: NDArray[Any]) -> list[int]:
    """Indices of at most CARDS rows, in ascending order, with room for every class."""
    if len(labels) <= CARDS:
        return list(range(len(labels)))
    each = max(FEWEST, CARDS // len(np.unique(labels)))
    counts: dict[int, int] = {}
    chosen: list[int] = []
    rest: list[int] = []
    for place, label in enumerate(labels.tolist()):
        counts[label] = counts.get(label, 0) + 1
        (chosen if counts[label] <= each else rest).append(place)
    return sorted(islice([*chosen, *rest], CARDS))


class _Cards:
    """Items of galleries: the boxes that they are about, and those of either kind that touch these."""

    def __init__(self, result: Evaluation) -> None:
        arrays = self.arrays = result.arrays
        self.names, self.paths = result.names, result.paths
        images, shown = len(result.paths), np.flatnonzero(arrays.det_scores >= LOWEST)
        self.columns = {  # boxes, labels, rows by image
            "object": (arrays.gt_boxes, arrays.gt_labels,
                       _by_image(arrays.gt_images, np.arange(len(arrays.gt_images)), images)),
            "detection": (arrays.det_boxes, arrays.det_labels, _by_image(arrays.det_images, shown, images)),
        }  # fmt: skip

    def make(
        self, text: str, reason: str, score: float | None = None, *, detection: int = -1, gt: int = -1
    ) -> dict[str, Any]:
        """An item about a detection, a ground truth (-1: none), or both."""
        image = int(self.arrays.det_images[detection] if detection >= 0 else self.arrays.gt_images[gt])
        main = {kind: row for kind, row in (("detection", detection), ("object", gt)) if row >= 0}
        boxes = [self._box(kind, row, main=True) for kind, row in main.items()]
        around = np.array([self.columns[kind][0][row] for kind, row in main.items()])[:, None]
        for kind, (every, _, rows_by_image) in self.columns.items():
            rows = rows_by_image[image]
            rows = rows[rows != main.get(kind, -1)]
            low, high = np.maximum(around[..., :2], every[rows, :2]), np.minimum(around[..., 2:], every[rows, 2:])
            rows = rows[(high > low).all(2).any(0)]
            boxes += [self._box(kind, row, main=False) for row in rows[:NEIGHBORS].tolist()]
        labels = dict.fromkeys(int(self.columns[kind][1][row]) for kind, row in main.items())
        score = None if score is None else round(float(score), 4)
        return {
            "image": str(self.paths[image]), "classes": [*labels], "text": text, "reason": reason, "score": score,
            "boxes": boxes,
        }  # fmt: skip

    def _box(self, kind: str, row: int, *, main: bool) -> dict[str, Any]:
        boxes, labels, _ = self.columns[kind]
        score = round(float(self.arrays.det_scores[row]), 3) if kind == "detection" else None
        sides = [round(side, 1) for side in boxes[row].tolist()]
        return {"kind": kind, "label": self.names[labels[row]], "box": sides, "score": score, "main": main}


def _by_image(images: NDArray[Any], rows: Ints, count: int) -> list[Ints]:
    """The rows, split by image."""
    rows = rows[np.argsort(images[rows], kind="stable")]
    return np.split(rows, np.searchsorted(images[rows], np.arange(1, count)))
