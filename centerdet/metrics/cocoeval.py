"""pycocotools' `COCO` and `COCOeval` for boxes, over this package's matching: change the import, keep the code.

    from centerdet.metrics.cocoeval import COCO, COCOeval

Every number equals that of pycocotools 2.0.11 bit for bit. The table of `summarize` goes to standard output; progress
is not printed. `evalImgs`, `ious` and the dicts of a results file are made when they are read. Masks and keypoints are
not covered: keep pycocotools for these.
"""

import copy
import datetime
import importlib
import sys
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from itertools import product
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import DataError
from .coco_curves import RECALLS, THRESHOLDS, Rules, draw_curves, match_detections
from .coco_entries import Evaluated, curves_of_entries, list_entries, list_ious
from .coco_index import COCO, KEEP
from .coco_records import Columns, Table, select, to_arrays

__all__ = ["COCO", "COCOeval", "Params", "init_as_pycocotools"]

PROTOCOL = (
    (1, None, "all", None), (1, 0.5, "all", 2), (1, 0.75, "all", 2), (1, None, "small", 2), (1, None, "medium", 2),
    (1, None, "large", 2), (0, None, "all", 0), (0, None, "all", 1), (0, None, "all", 2), (0, None, "small", 2),
    (0, None, "medium", 2), (0, None, "large", 2),
)  # fmt: skip
"""The twelve numbers: precision (1) or recall (0), IoU threshold, area range, place among the limits (None: 100)."""


class Params:
    """The parameters of an evaluation; change them before `evaluate`."""

    def __init__(self, iouType: str = "bbox") -> None:
        _only_boxes(iouType)
        self.iouType = iouType
        self.useSegm: Any = None
        self.setDetParams()

    def setDetParams(self) -> None:
        """Set those of boxes."""
        self.imgIds: Any = []
        self.catIds: Any = []
        self.iouThrs: Any = THRESHOLDS.copy()
        self.recThrs: Any = RECALLS.copy()
        self.maxDets: Any = [1, 10, 100]
        self.areaRng: Any = [[0**2, 1e5**2], [0**2, 32**2], [32**2, 96**2], [96**2, 1e5**2]]
        self.areaRngLbl: Any = ["all", "small", "medium", "large"]
        self.useCats: Any = 1

    def setKpParams(self) -> None:
        """Refuse."""
        _only_boxes("keypoints")


class COCOeval:
    """An evaluation of detections against ground truth: `evaluate`, then `accumulate`, then `summarize`."""

    def __init__(self, cocoGt: Any = None, cocoDt: Any = None, iouType: str = "segm") -> None:
        self.cocoGt, self.cocoDt = cocoGt, cocoDt
        self.params = Params(iouType)
        self.eval: dict[str, Any] = {}
        self.stats: Any = []
        self._paramsEval: Any = {}
        self._evaluated: Evaluated | None = None
        self._entries: dict[tuple[Any, ...], dict[tuple[Any, Any], dict[str, Any] | None]] = {}
        if cocoGt is not None:
            try:
                self.params.imgIds, self.params.catIds = sorted(cocoGt.getImgIds()), sorted(cocoGt.getCatIds())
            except TypeError:
                raise DataError("ground truth: expected ids that are all numbers or all text, got both") from None

    @cached_property
    def evalImgs(self) -> Sequence[dict[str, Any] | None]:
        """One dict per category, area range and image; None where there is nothing."""
        return list_entries(self._evaluated) if self._evaluated else []

    @cached_property
    def ious(self) -> dict[tuple[Any, Any], Any]:
        """(image, category) -> IoUs of the detections by falling score with the ground truths."""
        return dict(self._ious)

    @cached_property
    def _ious(self) -> dict[tuple[Any, Any], Any]:
        return list_ious(self._evaluated) if self._evaluated else {}

    @cached_property
    def _gts(self) -> dict[tuple[Any, Any], list[dict[str, Any]]]:
        return self._group(self.cocoGt, crowds=True)

    @cached_property
    def _dts(self) -> dict[tuple[Any, Any], list[dict[str, Any]]]:
        return self._group(self.cocoDt, crowds=False)

    def evaluate(self) -> None:
        """Match the detections of every image and category."""
        p = self.params
        if p.useSegm is not None:
            p.iouType = "segm" if p.useSegm == 1 else "bbox"
        images_own = type(self).evaluateImg is not COCOeval.evaluateImg
        if type(self).computeIoU is not COCOeval.computeIoU and not images_own:
            raise DataError(f"COCOeval.computeIoU: expected this class's, or another evaluateImg, too: {KEEP}")
        p.imgIds = list(np.unique(p.imgIds))
        if p.useCats:
            p.catIds = list(np.unique(p.catIds))
        p.maxDets = sorted(p.maxDets)
        self._prepare()
        if images_own:  # a subclass decides image by image
            categories = p.catIds if p.useCats else [-1]
            self.ious = {(image, one): self.computeIoU(image, one) for image in p.imgIds for one in categories}
            cells = product(categories, p.areaRng, p.imgIds)
            self.evalImgs = [self.evaluateImg(image, one, area, p.maxDets[-1]) for one, area, image in cells]
        self._paramsEval = copy.deepcopy(p, {id(p.imgIds): list(p.imgIds)})  # ids are no objects that change

    def _prepare(self) -> None:
        """Match; code that calls this continues with `computeIoU` and `evaluateImg` or reads `_gts` and `_dts`."""
        p = self.params
        _only_boxes(p.iouType)
        if self.cocoGt is None or self.cocoDt is None:
            raise DataError("COCOeval: expected ground truth and detections, got None")
        truths = self._select(self.cocoGt, detections=False)
        detections = self._select(self.cocoDt, detections=True)
        for name in ("evalImgs", "ious", "_ious", "_gts", "_dts"):
            self.__dict__.pop(name, None)
        self.eval, self._entries = {}, {}
        self._evaluated = self._match(detections, truths, p.areaRng, p.maxDets)

    def _match(self, detections: Columns, truths: Columns, ranges: Sequence[Any], limits: Sequence[int]) -> Evaluated:
        p = self.params
        if not len(limits) or min(limits) < 1:
            raise DataError(f"params.maxDets: expected whole numbers > 0, got {limits!r}")
        thresholds = np.asarray(p.iouThrs, np.float64).reshape(-1)
        if not len(ranges) or not len(thresholds):
            raise DataError("params: expected at least one of areaRng and iouThrs")
        areas = tuple((float(low), float(high)) for low, high in ranges)
        rules = Rules(thresholds, np.asarray(p.recThrs, np.float64).reshape(-1), areas, tuple(limits))
        arrays = to_arrays(detections, truths, len(p.catIds) if p.useCats else 1)
        matched = match_detections(arrays, rules)
        categories = p.catIds if p.useCats else [-1]
        return Evaluated(matched, rules, detections, truths, truths.numbers(), p.imgIds, categories, ranges)

    def computeIoU(self, imgId: Any, catId: Any) -> Any:
        """IoUs (D, G) of an image and a category, as in `ious`."""
        return self._ious.get((imgId, catId if self.params.useCats else -1), [])

    def computeOks(self, imgId: Any, catId: Any) -> Any:
        """Refuse: this is for keypoints."""
        _only_boxes("keypoints")

    def evaluateImg(self, imgId: Any, catId: Any, aRng: Sequence[float], maxDet: int) -> dict[str, Any] | None:
        """The entry of `evalImgs` of an image, a category and an area range."""
        state, key = self._evaluated, (*aRng, maxDet)
        if state is None:
            return None
        if key not in self._entries:
            entries = list_entries(self._match(state.detections, state.truths, [aRng], [maxDet]))
            self._entries[key] = dict(zip(product(state.categories, state.images), entries, strict=True))
        entry = self._entries[key].get((catId, imgId))
        return dict(entry) if entry else None

    def _select(self, coco: Any, *, detections: bool) -> Columns:
        p, where = self.params, getattr(coco, "_where", "annotations")
        records = getattr(coco, "_results", None)
        if isinstance(records, list):
            records = Table.from_records(records, where)
        elif records is None:
            records = coco.dataset.get("annotations", [])
        return select(records, where, p.imgIds, p.catIds, use_cats=bool(p.useCats), detections=detections)

    def _group(self, coco: Any, *, crowds: bool) -> dict[tuple[Any, Any], list[dict[str, Any]]]:
        """(image, category) -> the dicts; those of the ground truth with `ignore`, as pycocotools decides it."""
        p, cells = self.params, defaultdict(list)
        for one in coco.loadAnns(coco.getAnnIds(p.imgIds, p.catIds if p.useCats else ())) if coco.dataset else ():
            if crowds:
                one["ignore"] = one.get("iscrowd", 0)
            cells[one["image_id"], one["category_id"]].append(one)
        return cells

    def accumulate(self, p: Any = None) -> None:
        """Draw the curves into `eval`: precision and scores [T, R, K, A, M], recall [T, K, A, M].

        p: other parameters than those of `evaluate`; they and a changed `evalImgs` are taken as pycocotools does.
        """
        p = self.params if p is None else p
        if p.useCats != 1:
            p.catIds = [-1]
        if "evalImgs" not in self.__dict__ and self._evaluated is not None and self._as_evaluated(p):
            state = self._evaluated
            rules = state.rules._replace(recalls=np.asarray(p.recThrs, np.float64).reshape(-1))
            precision, recall, scores = draw_curves(state.matched, rules, state.gt_numbers == 0)
        elif len(self.evalImgs):
            precision, recall, scores = curves_of_entries(self.evalImgs, p, self._paramsEval)
        else:
            raise DataError("accumulate: run evaluate() first")
        self.eval = {
            "params": p,
            "counts": list(precision.shape),
            "date": datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S"),
            "precision": precision,
            "recall": recall,
            "scores": scores,
        }

    def _as_evaluated(self, p: Any) -> bool:
        """Whether the parameters, recalls aside, are those of `evaluate`."""
        before = self._paramsEval
        names = ["imgIds", "areaRng", "maxDets", "iouThrs", *(["catIds"] if before.useCats else [])]
        return bool(p.useCats) == bool(before.useCats) and all(
            np.array_equal(np.asarray(getattr(p, name)), np.asarray(getattr(before, name))) for name in names
        )

    def summarize(self) -> None:
        """Print the twelve numbers and keep them as `stats`; -1 where nothing counts."""
        if not self.eval:
            raise DataError("summarize: run accumulate() first")
        if len(self.params.maxDets) < 3:
            raise DataError(f"params.maxDets: summarize() expects three limits, got {self.params.maxDets!r}")
        self.stats = np.array([self._summarize(*one) for one in PROTOCOL])

    def _summarize(self, precision: int, threshold: float | None, size: str, place: int | None) -> float:
        p = self.params
        limit = 100 if place is None else p.maxDets[place]
        values = self.eval["precision" if precision else "recall"]
        ends = f"{p.iouThrs[0]:0.2f}:{p.iouThrs[-1]:0.2f}" if threshold is None else f"{threshold:0.2f}"
        if threshold is not None:
            values = values[np.flatnonzero(np.asarray(p.iouThrs) == threshold)]
        a = [number for number, label in enumerate(p.areaRngLbl) if label == size]
        m = [number for number, one in enumerate(p.maxDets) if one == limit]
        values = values[..., a, m]
        known = values[values > -1]
        mean = float(np.mean(known)) if len(known) else -1.0
        title = "Average Precision  (AP)" if precision else "Average Recall     (AR)"
        sys.stdout.write(f" {title} @[ IoU={ends:<9} | area={size:>6s} | maxDets={limit:>3d} ] = {mean:0.3f}\n")
        return mean

    def __str__(self) -> str:
        return f"COCOeval({self.params.iouType}, stats={list(self.stats)})"


def init_as_pycocotools() -> None:
    """Put these classes in the place of pycocotools', for code that imports it from here on and cannot be changed."""
    module = sys.modules[__name__]
    try:
        package, mask = importlib.import_module("pycocotools"), importlib.import_module("pycocotools.mask")
    except ImportError:
        package, mask = ModuleType("pycocotools"), ModuleType("pycocotools.mask")
        mask.__getattr__ = _no_masks  # type: ignore[method-assign]
        package.__path__ = []
    for name, one in (("mask", mask), ("coco", module), ("cocoeval", module)):
        setattr(package, name, one)
        sys.modules[f"pycocotools.{name}"] = one
    sys.modules["pycocotools"] = package


def _no_masks(name: str) -> Any:
    raise AttributeError(f"pycocotools.mask.{name}: {KEEP} (pip install pycocotools)")


def _only_boxes(kind: object) -> None:
    if kind != "bbox":
        raise DataError(f'iouType: expected "bbox", got {kind!r}: {KEEP}')
