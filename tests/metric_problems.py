"""Small problems for the evaluators' tests, and plain rules that several of them need.

Coordinates and scores come from few values, so that ties of IoU and score, an IoU of exactly 0.5, taken objects, empty
classes and empty images are common.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

Problem = dict[str, Any]


def small_problem(seed: int) -> Problem:
    """The arguments of `voc_evaluate`, of up to 4 images, 3 classes, 10 ground truths and 25 detections."""
    draw = np.random.default_rng(seed)
    classes, images = int(draw.integers(1, 4)), int(draw.integers(1, 5))
    truths, detections = int(draw.integers(0, 11)), int(draw.integers(0, 26))

    def boxes(count: int) -> np.ndarray:
        low = draw.choice([0, 4, 8, 12], (count, 2))
        return np.concatenate([low, low + draw.choice([4, 8, 8, 12], (count, 2))], axis=1).astype(float)

    gt_boxes, gt_labels, gt_images = (
        boxes(truths),
        draw.integers(classes, size=truths),
        draw.integers(images, size=truths),
    )
    det_boxes = boxes(detections)
    det_labels, det_images = draw.integers(classes, size=detections), draw.integers(images, size=detections)
    if truths:  # half of the detections sit on a ground truth, most of them under its name
        near = draw.random(detections) < 0.5
        source = draw.integers(truths, size=detections)
        det_boxes[near] = gt_boxes[source[near]] + draw.choice([0, 0, 2], (int(near.sum()), 1))
        det_images[near] = gt_images[source[near]]
        same = near & (draw.random(detections) < 0.7)
        det_labels[same] = gt_labels[source[same]]
    return {
        "det_boxes": det_boxes,
        "det_scores": draw.integers(1, 9, detections) / 8,
        "det_labels": det_labels,
        "det_images": det_images * 7,
        "gt_boxes": gt_boxes,
        "gt_labels": gt_labels,
        "gt_images": gt_images * 7,
        "gt_difficult": draw.random(truths) < 0.2,
        "num_classes": classes,
    }


def crowd_of_images(seed: int, images: int = 60, classes: int = 3) -> Problem:
    """A larger problem with real-valued boxes and distinct scores that tell true from false a little."""
    draw = np.random.default_rng(seed)
    truths = 3 * images
    low = draw.uniform(0, 200, (truths, 2))
    gt_boxes = np.concatenate([low, low + draw.uniform(20, 100, (truths, 2))], axis=1)
    gt_labels, gt_images = draw.integers(classes, size=truths), draw.integers(images, size=truths)
    source = draw.integers(truths, size=6 * images)
    shift = draw.exponential(12, (len(source), 1)) * draw.choice([-1, 1], (len(source), 2))
    return {
        "det_boxes": gt_boxes[source] + np.concatenate([shift, shift], axis=1),
        "det_scores": np.exp(-np.abs(shift).max(1) / 30) * draw.uniform(0.3, 1, len(source)),
        "det_labels": np.where(
            draw.random(len(source)) < 0.8, gt_labels[source], draw.integers(classes, size=len(source))
        ),
        "det_images": gt_images[source],
        "gt_boxes": gt_boxes,
        "gt_labels": gt_labels,
        "gt_images": gt_images,
        "gt_difficult": draw.random(truths) < 0.1,
        "num_classes": classes,
    }


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return float(shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared))


def fates(problem: Problem) -> tuple[list[str], list[int]]:
    """VOC's rules: "true", "false" or "ignored" for each detection, and its best ground truth or -1."""
    fate, where, taken = ["false"] * len(problem["det_boxes"]), [-1] * len(problem["det_boxes"]), set()
    for d in sorted(range(len(fate)), key=lambda d: -problem["det_scores"][d]):
        best = 0.0
        for g in range(len(problem["gt_boxes"])):
            alike = all(problem[f"det_{key}"][d] == problem[f"gt_{key}"][g] for key in ("labels", "images"))
            iou = overlap(problem["det_boxes"][d], problem["gt_boxes"][g]) if alike else 0.0
            if iou > best:
                best, where[d] = iou, g
        if best >= 0.5 and problem["gt_difficult"][where[d]]:
            fate[d] = "ignored"
        elif best >= 0.5 and where[d] not in taken:
            fate[d] = "true"
            taken.add(where[d])
    return fate, where


def area_under(scored: list[tuple[float, bool]], positives: int) -> float:
    """AP by area of (score, true) in the order of rows."""
    if not positives:
        return float("nan")
    points, true = [], 0
    for place, (_, right) in enumerate(sorted(scored, key=lambda pair: -pair[0]), start=1):
        true += right
        points.append((true, true / place))
    area = 0.0
    for level in range(1, true + 1):
        area += max(precision for reached, precision in points if reached >= level) / positives
    return area


EMPTY: Problem = {
    "det_boxes": np.zeros((0, 4)),
    "det_scores": np.zeros(0),
    "det_labels": np.zeros(0, int),
    "det_images": np.zeros(0, int),
    "gt_boxes": np.zeros((0, 4)),
    "gt_labels": np.zeros(0, int),
    "gt_images": np.zeros(0, int),
    "gt_difficult": np.zeros(0, bool),
    "num_classes": 2,
}


def only(problem: Problem, kind: str) -> Problem:
    """A problem with its detections ("det") or its ground truths ("gt") alone."""
    return {key: value if key.startswith(kind) or key == "num_classes" else value[:0] for key, value in problem.items()}
