"""The galleries of a report: the worst errors of each class, each a region of an image with its boxes.

Shapes: D detections, G ground truths.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..evaluation.evaluation import Evaluation
from ..metrics.arrays import box_area
from ..metrics.tide import ErrorKind, ErrorKinds

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


def list_galleries(
    result: Evaluation, kinds: ErrorKinds, against: Evaluation | None = None
) -> dict[str, dict[str, Any]]:
    """The galleries by key: title, note, total (before the limit of CARDS), and items.

    An item has an image, classes (to filter by), text, reason, score, and boxes. A box has a kind (object or
    detection), label, box, score, and main: whether it is the subject of the item or a neighbor.
    """
    arrays, match, names = result.arrays, result.match, result.names
    scores = arrays.det_scores.astype(np.float64)
    seen = _seen(result)
    place = _Place(result)

    def detection(row: int, text: str, reason: str, gt: int = -1, *, both: bool = False) -> dict[str, Any]:
        classes = [int(arrays.det_labels[row])] + ([int(arrays.gt_labels[gt])] if both else [])
        boxes = place.boxes(int(arrays.det_images[row]), [row], [gt] if gt >= 0 else [])
        return _item(result, int(arrays.det_images[row]), classes, text, reason, scores[row], boxes)

    def truth(gt: int, reason: str) -> dict[str, Any]:
        image, label = int(arrays.gt_images[gt]), int(arrays.gt_labels[gt])
        return _item(result, image, [label], names[label], reason, None, place.boxes(image, [], [gt]))

    best = np.argsort(-scores, kind="stable")
    wrong = [kind for kind in ErrorKind if kind not in (ErrorKind.CLASSIFICATION, ErrorKind.MISSED)]
    false = best[np.isin(kinds.detection_kind[best], wrong) & (scores[best] >= LOWEST)]
    confused = best[(kinds.detection_kind[best] == ErrorKind.CLASSIFICATION) & (scores[best] >= LOWEST)]
    threshold = result.operating_points().best_overall.score_threshold
    area = box_area(arrays.gt_boxes)
    missed = np.flatnonzero(~arrays.gt_difficult & ~(seen >= threshold))
    missed = missed[np.argsort(-(area * (1 - np.clip(seen, 0, 1)))[missed], kind="stable")]
    suspects = result.suspects()
    other = kinds.other_gt

    def of_false(row: int) -> dict[str, Any]:
        kind = ErrorKind(kinds.detection_kind[row])
        gt = int(other[row] if kind == ErrorKind.BOTH else match.best_gt[row])
        iou = float(kinds.other_iou[row] if kind == ErrorKind.BOTH else match.best_iou[row])
        return detection(row, names[arrays.det_labels[row]], REASONS[kind].format(iou), gt)

    def of_confused(row: int) -> dict[str, Any]:
        pair = f"{names[arrays.gt_labels[other[row]]]} predicted as {names[arrays.det_labels[row]]}"
        return detection(row, pair, f"IoU {kinds.other_iou[row]:.2f}", int(other[row]), both=True)

    def of_missed(gt: int) -> dict[str, Any]:
        best_score = f"best score {seen[gt]:.2f}" if seen[gt] > 0 else "no detection at all"
        return truth(gt, f"{best_score}, threshold {threshold:.2f}")

    index = {path: number for number, path in enumerate(result.paths)}
    label_of = {name: label for label, name in enumerate(names)}

    def of_suspect(number: int) -> dict[str, Any]:
        one = suspects[number]
        image = index[one.image]
        labels = [label_of[name] for name in dict.fromkeys((one.name, one.existing or one.name))]
        boxes = []
        if one.kind not in ("spurious", "duplicate"):
            boxes.append(_box("detection", one.name, one.box, None, main=True))
        if one.existing_box is not None and one.existing is not None:
            boxes.append(_box("object", one.existing, one.existing_box, None, main=True))
        boxes += place.neighbors(image, [box["box"] for box in boxes], detections=False)
        text = f"{one.kind}: {one.name}" if len(labels) < 2 else f"{one.kind}: {one.existing}, likely {one.name}"
        return _item(result, image, labels, text, one.reason, one.score, boxes)

    numbers = np.array([label_of[one.name] for one in suspects], np.int64)
    galleries = {
        "false_positives": ("False positives", "the most confident detections without an object",
                            false, arrays.det_labels[false], of_false),
        "misses": ("Misses", "the largest objects without a detection, at the threshold with the best F1",
                   missed, arrays.gt_labels[missed], of_missed),
        "confusions": ("Confusions", "the most confident detections with the wrong class",
                       confused, arrays.det_labels[confused], of_confused),
        "suspects": ("Likely label errors", "annotations that contradict confident detections",
                     np.arange(len(suspects)), numbers, of_suspect),
    }  # fmt: skip
    if against is not None:
        limit = against.operating_points().best_overall.score_threshold
        first, second = seen >= threshold, _seen(against) >= limit
        sides = (("lost", "the first detector", first & ~second), ("gained", "the second detector", second & ~first))
        for key, who, chosen in sides:
            rows = np.flatnonzero(chosen & ~arrays.gt_difficult)
            rows = rows[np.argsort(-area[rows], kind="stable")]
            galleries[key] = (f"Detected only by {who}", "objects, each detector at its threshold with the best F1",
                              rows, arrays.gt_labels[rows], lambda gt: truth(gt, ""))  # fmt: skip
    return {
        key: {"title": title, "note": note, "total": len(rows), "items": [make(int(rows[k])) for k in _choose(labels)]}
        for key, (title, note, rows, labels, make) in galleries.items()
    }


def _seen(result: Evaluation) -> NDArray[np.float64]:
    """The best score of a detection that matches each ground truth, (G,), 0 without one."""
    seen, match = np.zeros(len(result.arrays.gt_boxes)), result.match
    fits = match.best_iou >= match.iou_threshold
    np.maximum.at(seen, match.best_gt[fits], result.arrays.det_scores[fits].astype(np.float64))
    return seen


def _choose(labels: Ints) -> list[int]:
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


def _item(
    result: Evaluation, image: int, classes: list[int], text: str, reason: str, score: float | None, boxes: list[Any]
) -> dict[str, Any]:
    score = None if score is None else round(float(score), 4)
    path = result.paths[image]
    return {"image": str(path), "classes": classes, "text": text, "reason": reason, "score": score, "boxes": boxes}


def _box(kind: str, label: str, box: Sequence[float], score: float | None, *, main: bool) -> dict[str, Any]:
    rounded = [round(float(side), 1) for side in box]
    score = None if score is None else round(score, 3)
    return {"kind": kind, "label": label, "box": rounded, "score": score, "main": main}


class _Place:
    """The boxes of each image."""

    def __init__(self, result: Evaluation) -> None:
        self.arrays, self.names = result.arrays, result.names
        images = len(result.paths)
        shown = np.flatnonzero(result.arrays.det_scores >= LOWEST)
        self.detections = _by_image(result.arrays.det_images, shown, images)
        self.truths = _by_image(result.arrays.gt_images, np.arange(len(result.arrays.gt_images)), images)

    def boxes(self, image: int, detections: list[int], truths: list[int]) -> list[dict[str, Any]]:
        """The main boxes of a card, and their neighbors of both kinds."""
        main = [self._detection(row, main=True) for row in detections] + [self._truth(gt, main=True) for gt in truths]
        return main + self.neighbors(image, [box["box"] for box in main], without=(detections, truths))

    def neighbors(
        self,
        image: int,
        around: list[list[float]],
        *,
        detections: bool = True,
        without: tuple[list[int], list[int]] = ((), ()),  # type: ignore[assignment]
    ) -> list[dict[str, Any]]:
        """Boxes that overlap one of the boxes in `around`."""
        near = np.array(around).reshape(-1, 4)

        def touching(rows: Ints, boxes: NDArray[Any], left_out: list[int]) -> list[int]:
            rows = rows[~np.isin(rows, left_out)]
            low = np.maximum(near[:, None, :2], boxes[rows][None, :, :2])
            high = np.minimum(near[:, None, 2:], boxes[rows][None, :, 2:])
            touch = (high > low).all(2).any(0)
            same = (np.abs(near[:, None] - boxes[rows][None]) < 0.06).all(2).any(0)  # a suspect's own boxes
            return [int(row) for row in rows[touch & ~same][:NEIGHBORS]]

        shown = [self._truth(gt, main=False) for gt in touching(self.truths[image], self.arrays.gt_boxes, without[1])]
        if detections:
            rows = touching(self.detections[image], self.arrays.det_boxes, without[0])
            shown += [self._detection(row, main=False) for row in rows]
        return shown

    def _detection(self, row: int, *, main: bool) -> dict[str, Any]:
        arrays, name = self.arrays, self.names[self.arrays.det_labels[row]]
        return _box("detection", name, arrays.det_boxes[row].tolist(), float(arrays.det_scores[row]), main=main)

    def _truth(self, gt: int, *, main: bool) -> dict[str, Any]:
        arrays = self.arrays
        return _box("object", self.names[arrays.gt_labels[gt]], arrays.gt_boxes[gt].tolist(), None, main=main)


def _by_image(images: NDArray[Any], rows: Ints, count: int) -> list[Ints]:
    """The rows, split by image."""
    rows = rows[np.argsort(images[rows], kind="stable")]
    return np.split(rows, np.searchsorted(images[rows], np.arange(1, count)))
