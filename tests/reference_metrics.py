"""The rules of VOC and COCO written down plainly, one detection at a time: what the fast evaluators are tested against.

A problem is a dict of the evaluators' arguments. `small_problem` draws one where everything ties with everything.
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
    *, gt_difficult: Any = None, num_classes: int, iou_threshold: float = 0.5, eleven_points: str = "arange",
) -> tuple[list[float], list[float], list[int], list[tuple[str, int, float]]]:  # fmt: skip
    """(ap, ap_11pt, positives, [(what became of it, best gt, best IoU)] per detection), as VOCevaldet.m has it."""
    boxes, truths = boxes_of(det_boxes), boxes_of(gt_boxes)
    scores = np.asarray(det_scores, np.float64).tolist()
    difficult = [False] * len(truths) if gt_difficult is None else [bool(flag) for flag in gt_difficult]
    fate: list[tuple[str, int, float]] = [("", -1, 0.0)] * len(boxes)
    aps, elevens, positives = [], [], []
    for c in range(num_classes):
        npos = sum(1 for g in range(len(truths)) if gt_labels[g] == c and not difficult[g])
        mine = sorted((d for d in range(len(boxes)) if det_labels[d] == c), key=lambda d: -scores[d])  # stable
        taken, tp, fp = set(), [], []
        for d in mine:
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
            fate[d] = (kind, where, best)
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
        for i, t in enumerate(np.arange(0, 1.1, 0.1)):
            reached = rec >= t if eleven_points == "arange" else 10 * tps >= i * npos
            eleven += float(np.max(prec[reached]) if reached.any() else 0.0) / 11
        elevens.append(eleven)
        mrec = np.concatenate([[0.0], rec, [1.0]])
        mpre = np.concatenate([[0.0], prec, [0.0]])
        for i in range(len(mpre) - 2, -1, -1):
            mpre[i] = max(mpre[i], mpre[i + 1])
        steps = np.where(mrec[1:] != mrec[:-1])[0]
        aps.append(float(np.sum((mrec[steps + 1] - mrec[steps]) * mpre[steps + 1])))
    return aps, elevens, positives, fate


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
                fate = {}
                for gts, dets, overlap in cells:
                    taken: set[int] = set()
                    for d in dets:
                        able = [g for g in gts if overlap[d, g] >= threshold and (crowd[g] or g not in taken)]
                        best = max(able, key=lambda g: (g in real, overlap[d, g], g), default=None)
                        if best is not None:
                            taken.add(best)
                            fate[d] = "true" if best in real else "ignored"
                        else:
                            size = (boxes[d][2] - boxes[d][0]) * (boxes[d][3] - boxes[d][1])
                            fate[d] = "false" if low <= size <= high else "ignored"
                true = np.cumsum([fate[d] == "true" for d in everyone]).astype(float)
                false = np.cumsum([fate[d] == "false" for d in everyone]).astype(float)
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
        found = zip(det_images, det_labels, dets.tolist(), scores, strict=True)
        dt.dataset = {**shared, "annotations": [
            {"id": i + 1, "image_id": p, "category_id": c, "bbox": b, "score": s, "area": b[2] * b[3], "iscrowd": 0}
            for i, (p, c, b, s) in enumerate(found)
        ]}  # fmt: skip
        dt.createIndex()
        run = COCOeval(gt, dt, "bbox")
        run.params.maxDets = list(limits)
        run.evaluate()
        run.accumulate()
        if len(limits) == 3:
            run.summarize()
    return run


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
