"""Detections of any detector on a dataset, from and to COCO's results JSON and VOC's comp4_det_<split>_<class>.txt.

Numbers are read in double precision and written with as many digits as give them back; row order is kept, since it
settles ties. A VOC line holds "image score xmin ymin xmax ymax"; a COCO bbox is x, y, width, height, from 0.
Shapes: D detections, P images.
"""

import json
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.coco import to_bbox
from ..data.coco_records import Id, as_id
from ..data.files import leads_out, load_json, read_text
from ..data.sample import Dataset
from ..data.voc_xml import from_corners, to_corners
from ..detections import Detections
from ..errors import AnnotationError, DataError
from ..files import write_atomic
from ..metrics.arrays import Arrays, box_area
from ..text import nearest
from .ids import index_names, list_ids, list_stems

__all__ = [
    "Results",
    "is_results",
    "make_arrays",
    "read_coco_results",
    "read_results",
    "read_voc_results",
    "write_coco_results",
    "write_results",
    "write_voc_results",
]

Notice = Callable[[str], object]


@dataclass(frozen=True, slots=True, eq=False)
class Results:
    """Detections on a dataset as flat arrays, in file order.

    boxes (D, 4) and scores (D,) float64; labels (D,) int64; images (D,) int64, indices of the dataset's samples.
    image_ids (P,) int64 or None: COCO's ids of the samples, whose order settles ties in COCO's protocol.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    images: NDArray[np.int64]
    image_ids: NDArray[np.int64] | None = None

    @classmethod
    def join(cls, detections: Sequence[Detections]) -> "Results":
        """The results of one `Detections` a sample."""
        return cls(
            np.concatenate([np.zeros((0, 4)), *(one.boxes for one in detections)]),
            np.concatenate([np.zeros(0), *(one.scores for one in detections)]),
            np.concatenate([np.zeros(0, np.int64), *(one.labels for one in detections)]),
            np.repeat(np.arange(len(detections)), [len(one.scores) for one in detections]),
        )

    def keep(self, kept: NDArray[np.bool_]) -> "Results":
        """The detections of a mask (D,)."""
        return replace(
            self, boxes=self.boxes[kept], scores=self.scores[kept], labels=self.labels[kept], images=self.images[kept]
        )


def make_arrays(results: Results, dataset: Dataset) -> Arrays:
    """Detections and the objects of a dataset as the metrics take them."""
    samples = dataset.samples
    areas = [box_area(sample.boxes) if sample.areas is None else sample.areas for sample in samples]
    return Arrays.check(
        results.boxes, results.scores, results.labels, results.images,
        np.concatenate([np.zeros((0, 4)), *(sample.boxes for sample in samples)]),
        np.concatenate([np.zeros(0, np.int64), *(sample.labels for sample in samples)]),
        np.repeat(np.arange(len(samples)), [len(sample.boxes) for sample in samples]),
        gt_difficult=np.concatenate([np.zeros(0, bool), *(sample.ignored for sample in samples)]),
        gt_crowd=np.concatenate([np.zeros(0, bool), *(sample.crowd for sample in samples)]),
        gt_area=np.concatenate([np.zeros(0), *areas]),
        num_classes=len(dataset.names),
    )  # fmt: skip


def is_results(path: str | Path) -> bool:
    """Whether a path holds detections: a JSON file, or a folder of VOC's files (any other folder may be named like a
    shipped detector)."""
    path = Path(path)
    return path.suffix == ".json" or (path.is_dir() and next(path.glob("comp*_det_*.txt"), None) is not None)


def read_results(
    path: str | Path,
    dataset: Dataset,
    *,
    split: str | None = None,
    annotations: Sequence[str | Path] = (),
    notice: Notice = warnings.warn,
) -> Results:
    """A COCO results JSON, or a folder of VOC files: `read_coco_results` or `read_voc_results`."""
    if Path(path).is_dir():
        return read_voc_results(path, dataset, split)
    return read_coco_results(path, dataset, annotations, notice)


def write_results(
    path: str | Path, results: Results, dataset: Dataset, *, split: str, annotations: Sequence[str | Path] = ()
) -> None:
    """Write a COCO results JSON if the path ends in .json, else a folder of VOC files."""
    if Path(path).suffix == ".json":
        write_coco_results(path, results, dataset, annotations)
    else:
        write_voc_results(path, results, dataset, split)


def read_coco_results(
    file: str | Path, dataset: Dataset, annotations: Sequence[str | Path] = (), notice: Notice = warnings.warn
) -> Results:
    """Read a COCO results JSON: a list of objects with image_id, category_id, bbox and score.

    annotations: the COCO JSON whose ids the results use. Without it an image_id is an image's file name, or its path
    below the images' common folder, with or without suffix, or the number that the name is ("000005" is 5); category
    ids then count from 1 in names' order. Ids may be numbers as text or with a fraction of 0.
    notice: called where category ids count from 0 although the annotations' do not, as YOLOv5 writes them.
    """
    file = Path(file)
    content = load_json(file)
    if not isinstance(content, list):
        raise DataError(f"{file}: expected a list of detections as COCO results are, got {type(content).__name__}")
    ids, categories = list_ids(dataset, annotations)
    index: dict[Id, int] = {}
    if not annotations:
        index.update(index_names(dataset))
    index |= {key: number for number, key in enumerate(ids)}
    label: dict[Id, int] = {key: number for number, key in enumerate(categories)}
    used = {as_id(record.get("category_id")) for record in content if isinstance(record, dict)}
    from_zero: dict[Id, int] = {number: number for number in range(len(categories))}
    if 0 in used and 0 not in label and used <= from_zero.keys():
        known = ", ".join(map(str, categories[:3])) + ", …" * (len(categories) > 3)
        notice(f"{file}: category ids count from 0 here and are {known} in the annotations: read in the classes' order")
        label = from_zero
    rows = [_coco_row(record, index, label, f"{file}: [{number}]") for number, record in enumerate(content)]
    numbers = np.array(ids, np.int64) if annotations and all(isinstance(key, int) and key >= 0 for key in ids) else None
    return replace(_arrays(rows), image_ids=numbers)


def write_coco_results(
    file: str | Path, results: Results, dataset: Dataset, annotations: Sequence[str | Path] = ()
) -> None:
    """Write a COCO results JSON, with the ids of the annotations' JSON, or those that `read_coco_results` takes."""
    ids, categories = list_ids(dataset, annotations)
    bboxes = to_bbox(results.boxes).tolist()
    rows = zip(results.images.tolist(), results.labels.tolist(), bboxes, results.scores.tolist(), strict=True)
    records = [
        {"image_id": ids[image], "category_id": categories[label], "bbox": bbox, "score": score}
        for image, label, bbox, score in rows
    ]
    write_atomic(file, json.dumps(records).encode())


def read_voc_results(folder: str | Path, dataset: Dataset, split: str | None = None) -> Results:
    """Read a folder of VOC's comp<n>_det_<split>_<class>.txt; a class without detections has an empty file.

    split: the split to read, if the folder holds files of several.
    """
    folder = Path(folder)
    files: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.glob("comp*_det_*.txt")):
        rest = re.sub(r"^comp\d+_det_", "", path.stem)
        name = max((name for name in dataset.names if rest.endswith(f"_{name}")), key=len, default=None)
        if name is None:
            raise DataError(
                f"{path}: expected comp4_det_<split>_<class>.txt with one of the classes {list(dataset.names)}"
            )
        key = (rest.removesuffix(f"_{name}"), name)
        if key in files:
            raise DataError(f"{path}: {files[key].name} has that split and class too: keep one")
        files[key] = path
    splits = sorted({key[0] for key in files})
    if not splits:
        raise DataError(f"{folder}: expected files comp4_det_<split>_<class>.txt, got none")
    chosen = split if split in splits else splits[0]
    if len(splits) > 1 and split not in splits:
        raise DataError(f"{folder}: has the splits {splits}: expected one of them, got {split!r}")
    if missing := [name for name in dataset.names if (chosen, name) not in files]:
        raise DataError(
            f"{folder}: no comp4_det_{chosen}_{missing[0]}.txt: a class without detections needs an empty file"
        )
    index = index_names(dataset)
    rows = []
    for label, name in enumerate(dataset.names):
        path = files[chosen, name]
        for number, line in enumerate(read_text(path).splitlines(), 1):
            if line.strip():
                rows.append(_voc_row(line, index, label, f"{path}:{number}"))
    return _arrays(rows)


def write_voc_results(folder: str | Path, results: Results, dataset: Dataset, split: str) -> None:
    """Write comp4_det_<split>_<class>.txt for every class into a folder.

    The corners of float32 boxes come back exactly (those below a millionth of a pixel aside).
    """
    stems = list_stems(dataset)
    for word in (split, *dataset.names):
        if leads_out(word) or "/" in word or "\\" in word:
            raise DataError(f"{word!r}: expected a word for file names")
    Path(folder).mkdir(parents=True, exist_ok=True)
    corners = to_corners(results.boxes)
    for label, name in enumerate(dataset.names):
        rows = np.flatnonzero(results.labels == label)
        parts = zip(results.images[rows].tolist(), results.scores[rows].tolist(), corners[rows].tolist(), strict=True)
        lines = [" ".join([stems[image], repr(score), *map(repr, box)]) + "\n" for image, score, box in parts]
        write_atomic(Path(folder, f"comp4_det_{split}_{name}.txt"), "".join(lines).encode())


Row = tuple[int, int, float, float, float, float, float]
"""Sample, label, score, x1, y1, x2, y2."""


def _arrays(rows: list[Row]) -> Results:
    table = np.array(rows, np.float64).reshape(len(rows), 7)  # indices are exact below 2**53
    return Results(table[:, 3:].copy(), table[:, 2].copy(), table[:, 1].astype(np.int64), table[:, 0].astype(np.int64))


def _coco_row(record: Any, index: Mapping[Id, int], label: Mapping[Id, int], where: str) -> Row:
    if not isinstance(record, dict):
        raise AnnotationError(f"{where}: expected an object, got {record!r:.50}")
    for key in ("image_id", "category_id", "bbox", "score"):
        if key not in record:
            raise AnnotationError(f"{where}.{key}: the key is missing")
    places: list[int] = []
    for key, known in (("image_id", index), ("category_id", label)):
        value = record[key] if isinstance(record[key], str) and record[key] in known else as_id(record[key])
        if value is None or value not in known:
            some = ", ".join(map(repr, list(known)[-3:]))
            raise AnnotationError(f"{where}.{key}: unknown {key} {record[key]!r:.50} (known include {some})")
        places.append(known[value])
    bbox, score = record["bbox"], record["score"]
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(_is_finite, bbox)):
        raise AnnotationError(f"{where}.bbox: expected [x, y, width, height], finite numbers, got {bbox!r:.80}")
    if not _is_finite(score):
        raise AnnotationError(f"{where}.score: expected a finite number, got {score!r:.50}")
    left, top, width, height = map(float, bbox)
    width, height = max(width, 0), max(height, 0)  # in COCO's protocol such boxes are valid and overlap nothing
    return places[0], places[1], score, left, top, left + width, top + height


def _voc_row(line: str, index: Mapping[str, int], label: int, where: str) -> Row:
    parts = line.strip().rsplit(maxsplit=5)
    try:
        score, left, top, right, bottom = map(float, parts[1:])
    except ValueError:
        raise AnnotationError(f"{where}: expected 'image score xmin ymin xmax ymax', got {line!r:.80}") from None
    if not all(map(math.isfinite, (score, left, top, right, bottom))):
        raise AnnotationError(f"{where}: expected finite numbers, got {line!r:.80}")
    if right < left - 1 or bottom < top - 1:
        raise AnnotationError(f"{where}: expected xmin <= xmax and ymin <= ymax, got {line!r:.80}")
    if parts[0] not in index:
        raise AnnotationError(f"{where}: the dataset has no image {parts[0]!r}; {nearest(parts[0], index)}")
    return index[parts[0]], label, score, *from_corners(left, top, right, bottom)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e150
