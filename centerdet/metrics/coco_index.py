"""pycocotools' `COCO` for boxes: annotations or results with their indices, each made when it is read."""

import copy
import os
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import AnnotationError, DataError
from ..text import plural
from .coco import CocoResult, evaluate
from .coco_curves import LIMITS
from .coco_records import Table, column, find, read_json, select, to_arrays
from .coco_scan import scan_results

__all__ = ["COCO", "KEEP", "evaluate_files"]

KEEP = "keep pycocotools for masks and keypoints"
OTHER = f"this COCO is for boxes: {KEEP}, for drawing and for downloads"


class UnsuitableError(AnnotationError, DataError, AssertionError):
    """What pycocotools stops at with an assertion."""


class COCO:
    """Annotations or results: `dataset`, and the indices `anns`, `cats`, `imgs`, `imgToAnns` and `catToImgs`."""

    def __init__(self, annotation_file: str | os.PathLike[str] | Mapping[str, Any] | None = None) -> None:
        self._results: Table | list[Any] | None = None  # until `dataset` is read
        self._header: dict[str, Any] = {}
        self._where = "annotations"  # for messages
        if annotation_file is not None:
            given = annotation_file
            content = given if isinstance(given, Mapping) else read_json(given)
            if not isinstance(content, Mapping):
                raise UnsuitableError(f"{given}: expected an object with annotations, got {type(content).__name__}")
            if not isinstance(given, Mapping):
                self._where = f"{given}: annotations"
            for name in ("images", "annotations", "categories"):
                if not isinstance(content.get(name, []), list | tuple):
                    raise UnsuitableError(f"{given!s:.80}: {name}: expected a list, got {content[name]!r:.50}")
            self.dataset = dict(content) if not isinstance(content, dict) else content

    @cached_property
    def dataset(self) -> dict[str, Any]:
        """The content of the file, as one writes it."""
        if self._results is None:
            return self._header
        records = self._results.to_records() if isinstance(self._results, Table) else self._results
        self._results = None
        for number, one in enumerate(records, 1):
            left, top, width, height = one["bbox"]
            right, bottom = left + width, top + height
            one.setdefault("segmentation", [[left, top, left, bottom, right, bottom, right, top]])
            one |= {"area": width * height, "id": number, "iscrowd": 0}
        return {**self._header, "annotations": records}

    def createIndex(self) -> None:
        """Forget the indices; each is made from `dataset` when it is read next."""
        for name in ("anns", "cats", "imgs", "imgToAnns", "catToImgs"):
            self.__dict__.pop(name, None)

    @cached_property
    def anns(self) -> dict[Any, dict[str, Any]]:
        """Annotations by id."""
        return {one["id"]: one for one in self.dataset.get("annotations", ())}

    @cached_property
    def cats(self) -> dict[Any, dict[str, Any]]:
        """Categories by id."""
        return {one["id"]: one for one in self._part("categories")}

    @cached_property
    def imgs(self) -> dict[Any, dict[str, Any]]:
        """Images by id."""
        return {one["id"]: one for one in self._part("images")}

    @cached_property
    def imgToAnns(self) -> dict[Any, list[dict[str, Any]]]:
        """Annotations by image id."""
        index = defaultdict(list)
        for one in self.dataset.get("annotations", ()):
            index[one["image_id"]].append(one)
        return index

    @cached_property
    def catToImgs(self) -> dict[Any, list[Any]]:
        """The image id of each annotation by category id."""
        index = defaultdict(list)
        for one in self.dataset.get("annotations", ()) if "categories" in self.dataset else ():
            index[one["category_id"]].append(one["image_id"])
        return index

    def _part(self, name: str) -> Sequence[dict[str, Any]]:
        """A list of the dataset, without making the dicts of the results."""
        part: Sequence[dict[str, Any]] = (self._header if self._results is not None else self.dataset).get(name, ())
        for place, one in enumerate(part):
            if "id" not in one:
                raise AnnotationError(f"{name}[{place}].id: the key is missing")
        return part

    def info(self) -> None:
        """Print the dataset's info."""
        for key, value in self.dataset["info"].items():
            sys.stdout.write(f"{key}: {value}\n")

    def getAnnIds(
        self, imgIds: Any = (), catIds: Any = (), areaRng: Sequence[float] = (), iscrowd: bool | None = None
    ) -> list[Any]:
        """The ids of the annotations of these images and categories, within an open range of area."""
        imgIds, catIds = _listed(imgIds), _listed(catIds)
        anns: Iterable[dict[str, Any]] = self.dataset["annotations"] if len(imgIds) == 0 else ()
        if len(imgIds):
            anns = [one for image in imgIds if image in self.imgToAnns for one in self.imgToAnns[image]]
        return [
            one["id"]
            for one in anns
            if (len(catIds) == 0 or one["category_id"] in catIds)
            and (len(areaRng) == 0 or areaRng[0] < one["area"] < areaRng[1])
            and (iscrowd is None or one["iscrowd"] == iscrowd)
        ]

    def getCatIds(self, catNms: Any = (), supNms: Any = (), catIds: Any = ()) -> list[Any]:
        """The ids of the categories with these names, supercategories and ids."""
        wanted = (("name", _listed(catNms)), ("supercategory", _listed(supNms)), ("id", _listed(catIds)))
        filters = [(key, values) for key, values in wanted if len(values)]
        return [one["id"] for one in self._part("categories") if all(one[key] in values for key, values in filters)]

    def getImgIds(self, imgIds: Any = (), catIds: Any = ()) -> list[Any]:
        """The ids of the images, of those given, that have all of these categories."""
        imgIds, catIds = _listed(imgIds), _listed(catIds)
        if len(imgIds) == len(catIds) == 0:
            return list(self.imgs)
        ids = set(imgIds)
        for place, category in enumerate(catIds):
            with_it = set(self.catToImgs[category])
            ids = with_it if place == 0 and not ids else ids & with_it
        return list(ids)

    def loadAnns(self, ids: Any = ()) -> list[dict[str, Any]]:
        """The annotations of these ids, or of one."""
        return [self.anns[key] for key in _listed(ids)]

    def loadCats(self, ids: Any = ()) -> list[dict[str, Any]]:
        """The categories of these ids, or of one."""
        return [self.cats[key] for key in _listed(ids)]

    def loadImgs(self, ids: Any = ()) -> list[dict[str, Any]]:
        """The images of these ids, or of one."""
        return [self.imgs[key] for key in _listed(ids)]

    def loadRes(self, resFile: str | os.PathLike[str] | list[dict[str, Any]] | np.ndarray) -> "COCO":
        """The detections of a results file, of a list of dicts, or of an array (N, 7): image, x, y, w, h, score, class.

        Raises DataError for images that this dataset lacks, and for masks, keypoints and captions.
        """
        where = str(resFile) if isinstance(resFile, str | os.PathLike) else "results"
        results: Any = resFile
        if isinstance(resFile, str | os.PathLike):
            results = scan_results(resFile) or read_json(resFile)
        elif isinstance(resFile, np.ndarray):
            results = Table.from_array(resFile)
        if not isinstance(results, list | Table):
            raise UnsuitableError(f"{where}: expected a list of detections, got {type(results).__name__}")
        if isinstance(results, list) and results:
            first = results[0]
            if not isinstance(first, Mapping) or "caption" in first or not first.get("bbox"):
                raise AnnotationError(f"{where}[0]: expected a detection with a bbox, got {first!r:.80}; {KEEP}")
        images = results.images if isinstance(results, Table) else column(results, "image_id", where)
        if isinstance(images, np.ndarray):  # one of each run: results mostly stand image by image
            images = images[np.flatnonzero(np.append(True, images[1:] != images[:-1])[: len(images)])].tolist()
        if strange := set(images) - self.imgs.keys():
            raise UnsuitableError(
                f"{where}: {plural(len(strange), 'image id')} not in the ground truth, such as {next(iter(strange))!r}"
            )
        detections = type(self)()
        detections._results, detections._where = results, where
        detections._header = {
            "info": copy.deepcopy(self.dataset.get("info", {})),
            "images": list(self.dataset["images"]),
        }
        detections._header["categories"] = copy.deepcopy(self.dataset.get("categories", []))
        return detections

    def loadNumpyAnnotations(self, data: np.ndarray) -> list[dict[str, Any]]:
        """The dicts of an array of detections (N, 7)."""
        return Table.from_array(data).to_records()

    def annToRLE(self, ann: Any) -> Any:
        """Refuse."""
        raise DataError(OTHER)

    def annToMask(self, ann: Any) -> Any:
        """Refuse."""
        raise DataError(OTHER)

    def showAnns(self, anns: Any, draw_bbox: bool = False) -> Any:
        """Refuse."""
        raise DataError(OTHER)

    def download(self, tarDir: Any = None, imgIds: Any = ()) -> Any:
        """Refuse."""
        raise DataError(OTHER)


def evaluate_files(
    truth: str | os.PathLike[str],
    results: str | os.PathLike[str],
    names: Sequence[str],
    max_detections: Sequence[int] = LIMITS,
    score_threshold: float = 0.0,
) -> CocoResult:
    """COCO's AP and AR of a results file, as pycocotools reads both files; the classes in the order of `names`.

    Raises DataError for a result of an image or a category that the ground truth lacks.
    """
    where = str(results)
    annotations = COCO(truth)
    detections = annotations.loadRes(results)
    images, categories = sorted(annotations.getImgIds()), sorted(set(annotations.getCatIds()))
    table = detections._results
    if not isinstance(table, Table):
        table = Table.from_records(table or [], where)
    if len(unknown := np.flatnonzero(find(categories, table.categories) < 0)):
        raise DataError(
            f"{results}[{unknown[0]}].category_id: the ground truth has no {table.categories[unknown[0]]!r}"
        )
    records = annotations.dataset.get("annotations", [])
    truths = select(records, annotations._where, images, categories, detections=False)
    arrays = to_arrays(select(table, where, images, categories, detections=True), truths, len(categories))
    if score_threshold > 0:
        arrays = arrays.take(np.flatnonzero(arrays.det_scores >= score_threshold))
    result = evaluate(arrays, max_detections, truths.numbers() == 0)
    ids = {one.get("name"): one["id"] for one in reversed(annotations.dataset["categories"])}
    if missing := [name for name in names if name not in ids]:
        raise DataError(f"{truth}: categories: expected one called {missing[0]!r}")
    order = find(categories, [ids[name] for name in names])
    return replace(result, precision=result.precision[:, :, order], recall=result.recall[:, order], ap=result.ap[order])


def _listed(value: Any) -> Collection[Any]:
    """One value as a list; what has a length and can be iterated, as it is."""
    alone = isinstance(value, str) or not (hasattr(value, "__iter__") and hasattr(value, "__len__"))
    return [value] if alone else value
