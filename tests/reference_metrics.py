"""The rules of VOC and COCO written down plainly, one detection at a time: what the fast evaluators are tested against.

A problem is a dict of the evaluators' arguments; a flag is difficult (VOC) or crowd (COCO).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

Problem = dict[str, Any]


def voc_overlap(a: Sequence[float], b: Sequence[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union


def voc_reference(
    det_boxes: Any, det_scores: Any, det_labels: Any, det_images: Any, gt_boxes: Any, gt_labels: Any, gt_images: Any,
    *, gt_difficult: Any = None, num_classes: int, iou_threshold: float = 0.5, eleven_points: str = "arange",
) -> tuple[list[float], list[float], list[int], list[tuple[str, int, float]]]:  # fmt: skip
    """(ap, ap_11pt, positives, [(what became of it, best gt, best iou)] per detection), as VOCevaldet.m has it."""
    boxes = np.asarray(det_boxes, np.float64).reshape(-1, 4).tolist()
    truths = np.asarray(gt_boxes, np.float64).reshape(-1, 4).tolist()
    scores = np.asarray(det_scores, np.float64).tolist()
    difficult = [False] * len(truths) if gt_difficult is None else [bool(x) for x in gt_difficult]
    fate: list[tuple[str, int, float]] = [("", -1, 0.0)] * len(boxes)
    aps, elevens, positives = [], [], []
    for c in range(num_classes):
        npos = sum(1 for g in range(len(truths)) if gt_labels[g] == c and not difficult[g])
        mine = [d for d in range(len(boxes)) if det_labels[d] == c]
        mine.sort(key=lambda d: -scores[d])  # stable
        taken = set()
        tp, fp = [], []
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
        ap = 0.0
        for i, t in enumerate(np.arange(0, 1.1, 0.1)):
            reached = rec >= t if eleven_points == "arange" else 10 * tps >= i * npos
            ap += (np.max(prec[reached]) if reached.any() else 0.0) / 11
        elevens.append(float(ap))
        mrec = np.concatenate([[0.0], rec, [1.0]])
        mpre = np.concatenate([[0.0], prec, [0.0]])
        for i in range(len(mpre) - 2, -1, -1):
            mpre[i] = max(mpre[i], mpre[i + 1])
        steps = np.where(mrec[1:] != mrec[:-1])[0]
        aps.append(float(np.sum((mrec[steps + 1] - mrec[steps]) * mpre[steps + 1])))
    return aps, elevens, positives, fate
