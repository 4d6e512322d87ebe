"""Problems for the tests of the metrics: dicts of the evaluators' arguments, drawn from a seed.

Coordinates and scores come from few values, so that ties of IoU and score, an IoU of exactly 0.5, taken objects, empty
classes and empty images are common.
"""

from typing import Any

import numpy as np

from centerdet.metrics.arrays import Arrays
from centerdet.metrics.voc import VocMatch, match_detections

Problem = dict[str, Any]


def matched(problem: Problem, iou_threshold: float = 0.5) -> tuple[Arrays, VocMatch]:
    """A problem as the diagnoses take it."""
    arrays = Arrays.check(**problem)
    return arrays, match_detections(arrays, iou_threshold)


def near_problem(seed: int) -> Problem:
    """Up to 4 images, 3 classes, 10 ground truths and 25 detections, half of them on a ground truth, for VOC."""
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
    """A larger problem with real-valued boxes and distinct scores that are a little higher where boxes fit."""
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


def small_boxes(rng: np.random.Generator, count: int, unit: float, kind: int) -> Any:
    """Boxes on a coarse grid, so that IoUs, and areas at a range's bounds, come up again and again."""
    low = rng.integers(0, 5, (count, 2))
    boxes = np.concatenate([low, low + rng.integers(rng.integers(0, 3), 6, (count, 2))], 1) * unit
    if kind == 1:  # a shift and a scale that make every sum round
        boxes = boxes * 0.37 + np.tile(rng.normal(0, 0.1, 2), 2)
    elif kind == 2:
        boxes = (boxes * 0.7).astype(np.float32)
    elif kind == 3:
        boxes = boxes + np.tile(rng.integers(0, 2, (count, 2)) * 1e-7 * unit, 2)
    return boxes


def small_problem(seed: int, flag: str) -> Problem:
    """A few images and classes with ties in score, in IoU, in image and in row, and what else may go wrong."""
    rng = np.random.default_rng(seed)
    dets, truths = int(rng.integers(0, 26)), int(rng.integers(0, 13))
    images, classes = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    unit, kind = float(rng.choice([1, 8, 16, 32, 32, 1e5])), int(rng.integers(0, 6))
    scores = [
        rng.integers(0, 4, dets) / 4, rng.random(dets), rng.random(dets).astype(np.float32), rng.normal(size=dets),
        1 - rng.integers(0, 4, dets) * 2.0**-40, -rng.integers(0, 2, dets) * 0.0,
    ][rng.integers(6)]  # fmt: skip
    problem = {
        "det_boxes": small_boxes(rng, dets, unit, kind), "det_scores": scores,
        "det_labels": rng.integers(0, classes, dets), "det_images": rng.integers(0, images, dets),
        "gt_boxes": small_boxes(rng, truths, unit, kind), "gt_labels": rng.integers(0, classes, truths),
        "gt_images": rng.integers(0, images, truths), "num_classes": classes, flag: rng.random(truths) < 0.2,
    }  # fmt: skip
    if rng.random() < 0.1:  # numbers of images that no table can hold
        problem["det_images"], problem["gt_images"] = problem["det_images"] << 39, problem["gt_images"] << 39
    if flag == "gt_crowd" and rng.random() < 0.3:
        sizes = [
            0,
            500,
            1024,
            np.nextafter(1024, 9e9),
            5000,
            9216,
            np.nextafter(9216, 0),
            1e10,
            np.nextafter(1e10, 9e99),
        ]
        problem["gt_area"] = rng.choice(sizes, truths)
    return problem
