"""The rules of VOC and COCO as plain loops over detections: the reference for the fast evaluators.

A problem is a dict of the evaluators' arguments; metric_problems.py draws some.
"""

import contextlib
import io
from typing import Any

import numpy as np

Problem = dict[str, Any]

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
RANGES = ((0, 1e10), (0, 1024), (1024, 9216), (9216, 1e10))


def boxes_of(values: Any) -> list[list[float]]:
    return np.asarray(values, np.float64).reshape(-1, 4).tolist()


def voc_overlap(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height)


def voc_reference(
    det_boxes: Any, det_scores: Any, det_labels: Any, det_images: Any, gt_boxes: Any, gt_labels: Any, gt_images: Any,
    *, gt_difficult: Any = None, num_classes: int, iou_threshold: float = 0.5,
) -> tuple[list[float], list[float], list[int], list[tuple[str, int, float]]]:  # fmt: skip
    """(ap, ap_11pt, positives, [(outcome, best gt, best IoU)] per detection), as VOCevaldet.m has it."""
    boxes, truths = boxes_of(det_boxes), boxes_of(gt_boxes)
    scores = np.asarray(det_scores, np.float64).tolist()
    difficult = [False] * len(truths) if gt_difficult is None else [bool(flag) for flag in gt_difficult]
    outcomes: list[tuple[str, int, float]] = [("", -1, 0.0)] * len(boxes)
    aps, elevens, positives = [], [], []
    for c in range(num_classes):
        npos = sum(1 for g in range(len(truths)) if gt_labels[g] == c and not difficult[g])
        rows = sorted((d for d in range(len(boxes)) if det_labels[d] == c), key=lambda d: -scores[d])  # stable
        taken, tp, fp = set(), [], []
        for d in rows:
            best, where = 0.0, -1
            for g in range(len(truths)):
                if gt_labels[g] == c and gt_images[g] == det_images[d]:
                    overlap = voc_overlap(boxes[d], truths[g])
                    if overlap > best:
                        best, where = overlap, g
            if best >= iou_threshold and difficult[where]:
                kind = "ignored"
            elif best >= iou_threshold and where not in taken:
                kind = "true"
                taken.add(where)
            else:
                kind = "false"
            outcomes[d] = (kind, where, best)
            tp.append(kind == "true")
            fp.append(kind == "false")
        positives.append(npos)
        if npos == 0:
            aps.append(float("nan"))
            elevens.append(float("nan"))
            continue
        tps, fps = np.cumsum(tp).astype(float), np.cumsum(fp).astype(float)
        rec = tps / npos
        prec = tps / np.maximum(tps + fps, np.finfo(float).eps)
        eleven = 0.0
        for t in np.arange(0, 1.1, 0.1):
            reached = rec >= t
            eleven += float(np.max(prec[reached]) if reached.any() else 0.0) / 11
        elevens.append(eleven)
        mrec = np.concatenate([[0.0], rec, [1.0]])
        mpre = np.concatenate([[0.0], prec, [0.0]])
        for i in range(len(mpre) - 2, -1, -1):
            mpre[i] = max(mpre[i], mpre[i + 1])
        steps = np.where(mrec[1:] != mrec[:-1])[0]
        aps.append(float(np.sum((mrec[steps + 1] - mrec[steps]) * mpre[steps + 1])))
    return aps, elevens, positives, outcomes


def voc_outcomes(problem: Problem) -> tuple[list[str], list[int]]:
    """ "true", "false" or "ignored" for each detection, and its best ground truth or -1."""
    outcomes = voc_reference(**problem)[3]
    return [kind for kind, _, _ in outcomes], [where for _, where, _ in outcomes]


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


def coco_overlap(d: list[float], g: list[float], crowd: bool) -> float:
    dw, dh, gw, gh = d[2] - d[0], d[3] - d[1], g[2] - g[0], g[3] - g[1]
    width = min(d[0] + dw, g[0] + gw) - max(d[0], g[0])
    height = min(d[1] + dh, g[1] + gh) - max(d[1], g[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (dw * dh if crowd else dw * dh + gw * gh - width * height)


def coco_reference(
    det_boxes: Any, det_scores: Any, det_labels: Any, det_images: Any, gt_boxes: Any, gt_labels: Any, gt_images: Any,
    *, gt_crowd: Any = None, gt_area: Any = None, num_classes: int, limit: int = 100,
) -> tuple[Any, Any]:  # fmt: skip
    """(precision (T, R, C, A), recall (T, C, A)) at a limit of detections a class and image."""
    boxes, truths = boxes_of(det_boxes), boxes_of(gt_boxes)
    scores = np.asarray(det_scores, np.float64).tolist()
    crowd = [False] * len(truths) if gt_crowd is None else [bool(flag) for flag in gt_crowd]
    area = [(b[2] - b[0]) * (b[3] - b[1]) for b in truths] if gt_area is None else [float(x) for x in gt_area]
    images = sorted({int(i) for i in [*det_images, *gt_images]})
    precision, recall = np.full((10, 101, num_classes, 4), -1.0), np.full((10, num_classes, 4), -1.0)
    for c in range(num_classes):
        cells = []
        for image in images:
            gts = [g for g in range(len(truths)) if gt_labels[g] == c and gt_images[g] == image]
            dets = [d for d in range(len(boxes)) if det_labels[d] == c and det_images[d] == image]
            dets = sorted(dets, key=lambda d: -scores[d])[:limit]
            cells.append((gts, dets, {(d, g): coco_overlap(boxes[d], truths[g], crowd[g]) for d in dets for g in gts}))
        everyone = sorted((d for _, dets, _ in cells for d in dets), key=lambda d: -scores[d])
        for a, (low, high) in enumerate(RANGES):
            real = {g for gts, _, _ in cells for g in gts if not crowd[g] and low <= area[g] <= high}
            if not real:
                continue
            for t, threshold in enumerate(THRESHOLDS):
                outcome = {}
                for gts, dets, overlap in cells:
                    taken: set[int] = set()
                    for d in dets:
                        free = [g for g in gts if overlap[d, g] >= threshold and (crowd[g] or g not in taken)]
                        best = max(free, key=lambda g: (g in real, overlap[d, g], g), default=None)
                        if best is not None:
                            taken.add(best)
                            outcome[d] = "true" if best in real else "ignored"
                        else:
                            size = (boxes[d][2] - boxes[d][0]) * (boxes[d][3] - boxes[d][1])
                            outcome[d] = "false" if low <= size <= high else "ignored"
                true = np.cumsum([outcome[d] == "true" for d in everyone]).astype(float)
                false = np.cumsum([outcome[d] == "false" for d in everyone]).astype(float)
                reached = true / len(real)
                values = true / (false + true + np.spacing(1))
                recall[t, c, a] = reached[-1] if len(reached) else 0
                for r, level in enumerate(RECALLS):
                    after = values[reached >= level]
                    precision[t, r, c, a] = after.max() if len(after) else 0
    return precision, recall


def pycocotools_run(problem: Problem, limits: tuple[int, ...]) -> Any:
    """A pycocotools COCOeval that has evaluated and accumulated."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truths, dets = np.array(boxes_of(problem["gt_boxes"])), np.array(boxes_of(problem["det_boxes"]))
    truths, dets = truths.reshape(-1, 4), dets.reshape(-1, 4)
    for boxes in (truths, dets):
        boxes[:, 2:] -= boxes[:, :2]
    area, crowd = problem.get("gt_area"), problem.get("gt_crowd")
    area = (truths[:, 2] * truths[:, 3] if area is None else np.asarray(area, np.float64)).tolist()
    crowd = [0] * len(truths) if crowd is None else [int(flag) for flag in crowd]
    gt_images, gt_labels, det_images, det_labels = (
        [int(value) for value in problem[name]] for name in ("gt_images", "gt_labels", "det_images", "det_labels")
    )
    scores = np.asarray(problem["det_scores"], np.float64).tolist()
    with contextlib.redirect_stdout(io.StringIO()):
        gt, dt = COCO(), COCO()
        shared = {
            "images": [{"id": i} for i in sorted({*gt_images, *det_images, 0})],
            "categories": [{"id": c} for c in range(problem["num_classes"])],
        }
        columns = zip(gt_images, gt_labels, truths.tolist(), area, crowd, strict=True)
        gt.dataset = {**shared, "annotations": [
            {"id": i + 1, "image_id": p, "category_id": c, "bbox": box, "area": size, "iscrowd": flag}
            for i, (p, c, box, size, flag) in enumerate(columns)
        ]}  # fmt: skip
        gt.createIndex()
        detections = zip(det_images, det_labels, dets.tolist(), scores, strict=True)
        dt.dataset = {**shared, "annotations": [
            {"id": i + 1, "image_id": p, "category_id": c, "bbox": b, "score": s, "area": b[2] * b[3], "iscrowd": 0}
            for i, (p, c, b, s) in enumerate(detections)
        ]}  # fmt: skip
        dt.createIndex()
        run = COCOeval(gt, dt, "bbox")
        run.params.maxDets = list(limits)
        run.evaluate()
        run.accumulate()
        if len(limits) == 3:
            run.summarize()
    return run
