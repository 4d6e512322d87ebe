"""pycocotools' `evalImgs`: what was matched in each image, category and area range; and curves from such entries.

Shapes: D detections, G ground truths, T thresholds. `Evaluated` is what `COCOeval.evaluate` knows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .coco_curves import Curves, Matched, Rules
from .coco_records import Columns

__all__ = ["Evaluated", "curves_of_entries", "list_entries", "list_ious"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Entry = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluated:
    """Matches, the records behind them, and the ids that stand for the numbers of images and categories."""

    matched: Matched
    rules: Rules
    detections: Columns
    truths: Columns
    gt_numbers: Floats
    images: Sequence[Any]
    categories: Sequence[Any]
    ranges: Sequence[Any]


def _cells(labels: Ints, images: Ints, count: int, rows: Ints) -> dict[int, Ints]:
    """Cell -> its rows, in the order of `rows`."""
    cell = labels[rows].astype(np.int64) * count + images[rows]
    order = np.argsort(cell, kind="stable")
    keys, starts = np.unique(cell[order], return_index=True)
    return dict(zip(keys.tolist(), np.split(np.arange(len(rows))[order], starts[1:]), strict=True)) if len(rows) else {}


def list_entries(state: Evaluated) -> list[Entry | None]:
    """One entry per category, area range and image; None where there is neither detection nor ground truth."""
    matched, arrays, rules = state.matched, state.matched.arrays, state.rules
    images, ranges, thresholds = len(state.images), len(state.ranges), len(rules.thresholds)
    entries: list[Entry | None] = [None] * (len(state.categories) * ranges * images)
    dets = _cells(arrays.det_labels, arrays.det_images, images, matched.order)  # by rank
    truths = _cells(arrays.gt_labels, arrays.gt_images, images, np.arange(len(arrays.gt_boxes)))
    rows = matched.rows[matched.order]
    det_ids = np.asarray(state.detections.ids, dtype=object)[rows]
    det_numbers = det_ids.astype(np.float64)
    gt_ids = np.asarray([*state.truths.ids, None], dtype=object)[:-1]
    det_scores = arrays.det_scores[matched.order]
    det_area = state.detections.area[rows]
    nothing = np.zeros(0, np.int64)
    for a, (low, high) in enumerate(rules.ranges):
        det_match, det_ignored = np.zeros((thresholds, len(rows))), np.zeros((thresholds, len(rows)), np.bool_)
        gt_match = np.zeros((thresholds, len(arrays.gt_boxes)))
        ignored = ~matched.real[a]
        for numbers, matches in matched.parts:
            for bit, t in enumerate(numbers.tolist()):
                won = (matches.bits[a] & (1 << bit)).astype(np.bool_)
                rank, truth = matches.rank[won], matches.truth[won]
                det_match[t, rank], det_ignored[t, rank] = state.gt_numbers[truth], ignored[truth]
                gt_match[t, truth] = det_numbers[rank]  # of a crowd's the last in score order
        det_ignored |= (det_match == 0) & ((det_area < low) | (det_area > high))
        for cell in dets.keys() | truths.keys():
            det, truth = dets.get(cell, nothing), truths.get(cell, nothing)
            truth = truth[np.argsort(ignored[truth], kind="stable")]
            label, image = divmod(cell, images)
            entries[(label * ranges + a) * images + image] = {
                "image_id": state.images[image],
                "category_id": state.categories[label],
                "aRng": state.ranges[a],
                "maxDet": rules.limits[-1],
                "dtIds": det_ids[det].tolist(),
                "gtIds": gt_ids[truth].tolist(),
                "dtMatches": det_match[:, det],
                "gtMatches": gt_match[:, truth],
                "dtScores": det_scores[det].tolist(),
                "gtIgnore": ignored[truth].astype(np.int64),
                "dtIgnore": det_ignored[:, det],
            }
    return entries


def list_ious(state: Evaluated) -> dict[tuple[Any, Any], Any]:
    """(image, category) -> the IoUs of its detections, the best first, with its ground truths in file order."""
    arrays, images = state.matched.arrays, len(state.images)
    dets = _cells(arrays.det_labels, arrays.det_images, images, state.matched.order)
    truths = _cells(arrays.gt_labels, arrays.gt_images, images, np.arange(len(arrays.gt_boxes)))
    rows = state.matched.rows[state.matched.order]
    ious: dict[tuple[Any, Any], Any] = {}
    for image, image_id in enumerate(state.images):
        for label, category in enumerate(state.categories):
            cell = label * images + image
            pair = cell in dets and cell in truths
            ious[image_id, category] = _iou(state, rows[dets[cell]], truths[cell]) if pair else []
    return ious


def _iou(state: Evaluated, dets: Ints, truths: Ints) -> Floats:
    det, truth = state.detections.bbox[dets][:, None], state.truths.bbox[truths][None]
    ends = np.minimum(det[..., :2] + det[..., 2:], truth[..., :2] + truth[..., 2:])
    sides = ends - np.maximum(det[..., :2], truth[..., :2])
    shared = sides[..., 0] * sides[..., 1]
    area = det[..., 2] * det[..., 3]
    union = np.where(state.truths.crowd[truths], area, area + truth[..., 2] * truth[..., 3] - shared)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((sides > 0).all(-1), shared / union, 0.0)


def curves_of_entries(entries: Sequence[Entry | None], params: Any, evaluated: Any) -> Curves:
    """Curves from entries that may be anyone's; the places in `params` are taken for those in `evaluated`.

    params, evaluated: have imgIds, catIds, areaRng, maxDets, useCats, recThrs and iouThrs, as pycocotools' have.
    """
    categories = [-1] if not params.useCats else params.catIds
    known = set([-1] if not evaluated.useCats else evaluated.catIds)
    ranges, limits = set(map(tuple, evaluated.areaRng)), set(evaluated.maxDets)
    images = set(evaluated.imgIds)
    k_list = [place for place, one in enumerate(categories) if one in known]
    a_list = [place for place, one in enumerate(map(tuple, params.areaRng)) if one in ranges]
    m_list = [limit for limit in params.maxDets if limit in limits]
    i_list = [place for place, one in enumerate(params.imgIds) if one in images]
    per_range, per_category = len(evaluated.imgIds), len(evaluated.areaRng) * len(evaluated.imgIds)
    recalls = np.asarray(params.recThrs, np.float64)
    shape = len(params.iouThrs), len(recalls), len(categories), len(params.areaRng), len(params.maxDets)
    precision, scores, recall = np.full(shape, -1.0), np.full(shape, -1.0), np.full((shape[0], *shape[2:]), -1.0)
    if (
        i_list
        and len(entries) < max(k_list, default=0) * per_category + max(a_list, default=0) * per_range + i_list[-1]
    ):
        raise DataError("evalImgs: expected one entry per category, area range and image; run evaluate() first")
    for k, k0 in enumerate(k_list):
        for a, a0 in enumerate(a_list):
            start = k0 * per_category + a0 * per_range
            cell = [one for place in i_list if (one := entries[start + place]) is not None]
            positive = sum(int(np.count_nonzero(np.asarray(one["gtIgnore"]) == 0)) for one in cell)
            if not positive:
                continue
            for m, limit in enumerate(m_list):
                score = np.concatenate([one["dtScores"][:limit] for one in cell])
                order = np.argsort(-score, kind="mergesort")
                match = np.concatenate([one["dtMatches"][:, :limit] for one in cell], axis=1)[:, order]
                ignored = np.concatenate([one["dtIgnore"][:, :limit] for one in cell], axis=1)[:, order].astype(bool)
                true = np.cumsum((match != 0) & ~ignored, axis=1).astype(np.float64)
                false = np.cumsum((match == 0) & ~ignored, axis=1).astype(np.float64)
                recall[:, k, a, m] = true[:, -1] / positive if len(score) else 0
                values = true / (false + true + np.spacing(1))
                values = np.maximum.accumulate(values[:, ::-1], axis=1)[:, ::-1]
                precision[:, :, k, a, m] = scores[:, :, k, a, m] = 0
                for t in range(shape[0]):
                    place = np.searchsorted(true[t] / positive, recalls, side="left")
                    place = place[np.logical_and.accumulate(place < len(score))]
                    precision[t, : len(place), k, a, m] = values[t, place]
                    scores[t, : len(place), k, a, m] = score[order][place]
    return Curves(precision, recall, scores)
