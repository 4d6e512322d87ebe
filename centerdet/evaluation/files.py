"""Detections of any detector on a dataset, from and to COCO's results JSON and VOC's comp4_det_<split>_<class>.txt.

Numbers are read in double precision and written with as many digits as give them back; row order is kept, since it
settles ties. A VOC line holds "image score xmin ymin xmax ymax", 1-based and inclusive; a COCO bbox is x, y, width,
height, from 0. Shapes: D detections, P images.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.files import read_text
from ..data.problems import leads_out
from ..data.sample import Dataset
from ..detections import Detections
from ..errors import AnnotationError, DataError
from ..files import write_atomic
from ..text import nearest

__all__ = [
    "Results",
    "read_coco_results",
    "read_results",
    "read_voc_results",
    "write_coco_results",
    "write_results",
    "write_voc_results",
]

Id = int | str


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
    def join(cls, found: Sequence[Detections]) -> "Results":
        """Those of one `Detections` a sample."""
        return cls(
            np.concatenate([np.zeros((0, 4)), *(one.boxes for one in found)]),
            np.concatenate([np.zeros(0), *(one.scores for one in found)]),
            np.concatenate([np.zeros(0, np.int64), *(one.labels for one in found)]),
            np.repeat(np.arange(len(found)), [len(one.scores) for one in found]),
        )

    def reaching(self, score_threshold: float) -> "Results":
        """Those that score at least so much."""
        kept = self.scores >= score_threshold
        return replace(
            self, boxes=self.boxes[kept], scores=self.scores[kept], labels=self.labels[kept], images=self.images[kept]
        )


def read_results(
    path: str | Path, dataset: Dataset, *, split: str | None = None, annotations: Sequence[str | Path] = ()
) -> Results:
    """A COCO results JSON, or a folder of VOC files: `read_coco_results` or `read_voc_results`."""
    if Path(path).is_dir():
        return read_voc_results(path, dataset, split)
    return read_coco_results(path, dataset, annotations)


def write_results(
    path: str | Path, results: Results, dataset: Dataset, *, split: str, annotations: Sequence[str | Path] = ()
) -> None:
    """Write a COCO results JSON if the path ends so, else a folder of VOC files."""
    if Path(path).suffix == ".json":
        write_coco_results(path, results, dataset, annotations)
    else:
        write_voc_results(path, results, dataset, split)


def read_coco_results(file: str | Path, dataset: Dataset, annotations: Sequence[str | Path] = ()) -> Results:
    """Read a COCO results JSON: a list of objects with image_id, category_id, bbox and score.

    annotations: the COCO JSON whose ids the results use. Without it an image_id is a image's file name, with or
    without its suffix, or the number that this is ("000005" is 5); category ids then count from 1 in names' order.
    """
    file = Path(file)
    content = _load(file)
    if not isinstance(content, list):
        raise DataError(f"{file}: want a list of detections as COCO results are, got {type(content).__name__}")
    ids, categories = _ids(dataset, annotations)
    index: dict[Id, int] = {}
    if not annotations:
        index |= {sample.path.name: number for number, sample in enumerate(dataset.samples)}
        index |= {sample.path.stem: number for number, sample in enumerate(dataset.samples)}
    index |= {key: number for number, key in enumerate(ids)}
    label: dict[Id, int] = {key: number for number, key in enumerate(categories)}
    rows = [_coco_row(record, index, label, f"{file}: [{number}]") for number, record in enumerate(content)]
    numbers = np.array(ids, np.int64) if annotations and all(isinstance(key, int) and key >= 0 for key in ids) else None
    return replace(_arrays(rows), image_ids=numbers)


def write_coco_results(
    file: str | Path, results: Results, dataset: Dataset, annotations: Sequence[str | Path] = ()
) -> None:
    """Write a COCO results JSON, with the ids of the annotations' JSON, or those that `read_coco_results` takes."""
    ids, categories = _ids(dataset, annotations)
    bboxes = np.concatenate([results.boxes[:, :2], results.boxes[:, 2:] - results.boxes[:, :2]], axis=1)
    rows = zip(results.images.tolist(), results.labels.tolist(), bboxes.tolist(), results.scores.tolist(), strict=True)
    records = [
        {"image_id": ids[image], "category_id": categories[label], "bbox": bbox, "score": score}
        for image, label, bbox, score in rows
    ]
    write_atomic(file, json.dumps(records).encode())


def read_voc_results(folder: str | Path, dataset: Dataset, split: str | None = None) -> Results:
    """Read a folder of VOC's comp<n>_det_<split>_<class>.txt, one for every class; an empty file is one without any.

    split: which of them, where the folder holds files of several.
    """
    folder = Path(folder)
    files: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.glob("comp*_det_*.txt")):
        rest = re.sub(r"^comp\d+_det_", "", path.stem)
        name = max((name for name in dataset.names if rest.endswith(f"_{name}")), key=len, default=None)
        if name is None:
            raise DataError(f"{path}: want comp4_det_<split>_<class>.txt with one of the classes {list(dataset.names)}")
        key = (rest.removesuffix(f"_{name}"), name)
        if key in files:
            raise DataError(f"{path}: {files[key].name} holds that split and class too: keep one")
        files[key] = path
    splits = sorted({key[0] for key in files})
    if not splits:
        raise DataError(f"{folder}: no file comp4_det_<split>_<class>.txt in it")
    chosen = split if split in splits else splits[0]
    if len(splits) > 1 and split not in splits:
        raise DataError(f"{folder}: holds the splits {splits}: want one of them, got {split!r}")
    if missing := [name for name in dataset.names if (chosen, name) not in files]:
        raise DataError(
            f"{folder}: no comp4_det_{chosen}_{missing[0]}.txt: where nothing was found, want an empty file"
        )
    index = {stem: number for number, stem in enumerate(_stems(dataset))}
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
    stems = _stems(dataset)
    for word in (split, *dataset.names):
        if leads_out(word) or "/" in word or "\\" in word:
            raise DataError(f"{word!r}: want a word for file names")
    Path(folder).mkdir(parents=True, exist_ok=True)
    corners = results.boxes + np.array([1, 1, 0, 0])
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
        raise AnnotationError(f"{where}: want an object, got {record!r:.50}")
    for key in ("image_id", "category_id", "bbox", "score"):
        if key not in record:
            raise AnnotationError(f"{where}.{key}: the key is missing")
    for key, known in (("image_id", index), ("category_id", label)):
        value = record[key]
        if not isinstance(value, int | str) or value not in known:
            some = ", ".join(map(repr, list(known)[-3:]))
            raise AnnotationError(f"{where}.{key}: the dataset has no {value!r:.50}; it has such as {some}")
    bbox, score = record["bbox"], record["score"]
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(_is_finite, bbox)):
        raise AnnotationError(f"{where}.bbox: want [x, y, width, height], finite numbers, got {bbox!r:.80}")
    if min(bbox[2:]) < 0:
        raise AnnotationError(f"{where}.bbox: want width and height >= 0, got {bbox!r:.80}")
    if not _is_finite(score):
        raise AnnotationError(f"{where}.score: want a finite number, got {score!r:.50}")
    left, top, width, height = map(float, bbox)
    return index[record["image_id"]], label[record["category_id"]], score, left, top, left + width, top + height


def _voc_row(line: str, index: Mapping[str, int], label: int, where: str) -> Row:
    parts = line.strip().rsplit(maxsplit=5)
    try:
        score, left, top, right, bottom = map(float, parts[1:])
    except ValueError:
        raise AnnotationError(f"{where}: want 'image score xmin ymin xmax ymax', got {line!r:.80}") from None
    if not all(map(math.isfinite, (score, left, top, right, bottom))):
        raise AnnotationError(f"{where}: want finite numbers, got {line!r:.80}")
    if right < left - 1 or bottom < top - 1:
        raise AnnotationError(f"{where}: want xmin <= xmax and ymin <= ymax, got {line!r:.80}")
    if parts[0] not in index:
        raise AnnotationError(f"{where}: the dataset has no image {parts[0]!r}; {nearest(parts[0], index)}")
    return index[parts[0]], label, score, left - 1, top - 1, right, bottom


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e150


def _load(file: Path) -> Any:
    if not file.is_file():
        raise DataError(f"{file}: no such file")
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{file}: broken JSON: {error}") from error


def _stems(dataset: Dataset) -> list[str]:
    """The name of each sample's image without its suffix."""
    stems = [sample.path.stem for sample in dataset.samples]
    twice = [stem for stem, times in Counter(stems).items() if times > 1]
    if twice:
        raise DataError(f"several images of the dataset are called {twice[0]!r}: results cannot tell them apart")
    return stems


def _ids(dataset: Dataset, annotations: Sequence[str | Path]) -> tuple[list[Id], list[int]]:
    """The id of each sample and of each class: those of COCO annotations, or else by file name and from 1."""
    if not annotations:
        stems = _stems(dataset)
        numbers = [int(stem) for stem in stems if re.fullmatch(r"[0-9]{1,12}", stem)]
        ids: list[Id] = [*(numbers if len(set(numbers)) == len(stems) else stems)]
        return ids, list(range(1, len(dataset.names) + 1))
    by_name: dict[str, list[int]] = {}
    for number, sample in enumerate(dataset.samples):
        by_name.setdefault(sample.path.name, []).append(number)
    known: dict[int, Id] = {}
    categories: dict[str, int] = {}
    for file in map(Path, annotations):
        content = _load(file)
        try:
            images = [(image["id"], str(image["file_name"]).replace("\\", "/")) for image in content["images"]]
            classes = {category["name"]: category["id"] for category in content["categories"]}
        except (KeyError, TypeError) as error:
            raise AnnotationError(f"{file}: want COCO annotations with images and categories: {error!r}") from error
        for key, name in images:
            same = by_name.get(name.rpartition("/")[2], [])
            found = [number for number in same if f"/{dataset.samples[number].path.as_posix()}".endswith(f"/{name}")]
            if len(found) > 1 or any(known.get(number, key) != key for number in found):
                raise DataError(f"{file}: image {key!r}: several images or ids of the name {name!r}")
            known |= dict.fromkeys(found, key)
        if any(categories.get(name, key) != key for name, key in classes.items()):
            raise DataError(f"{file}: its category ids differ from those of the files before")
        categories |= classes
    if lost := [sample.path for number, sample in enumerate(dataset.samples) if number not in known]:
        raise DataError(f"{lost[0]}: the annotations {list(map(str, annotations))} have no such image")
    if len(set(known.values())) < len(known):
        raise DataError("annotations: two images have one id: read one split at a time")
    if unknown := [name for name in dataset.names if name not in categories]:
        raise DataError(f"annotations: no category {unknown[0]!r}; {nearest(unknown[0], categories)}")
    return [known[number] for number in range(len(dataset))], [categories[name] for name in dataset.names]
