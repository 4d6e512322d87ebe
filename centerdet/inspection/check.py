"""Validate a dataset and summarize its contents before training.

Every problem that the readers report is listed. Every image is decoded, to detect broken images, sizes that contradict
the annotation, and images that are repeated, in one split or in two.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..data.formats import find_splits, keep_classes, read_dataset, recognize
from ..data.problems import NOTES, Problem
from ..data.records import PLAIN, ReadOptions, describe_mismatch
from ..data.sample import Dataset, Sample
from ..data.voc_layout import list_voc_unpaired
from ..data.yolo import list_yolo_unpaired
from ..errors import CenterdetError, DataError, ImageError
from ..images import load
from ..text import as_tuple, plural

__all__ = ["NEAR", "CheckReport", "check", "compare_labels", "hash_image"]

NEAR = 20
"""Two images are near-duplicates if at most this many of 256 bits differ. Among 6 million pairs of different
photographs, the fewest were 27, for similar skies. Strong compression, half the size, or another brightness changes 2
to 8 bits."""

UNPAIRED = {"voc": list_voc_unpaired, "yolo": list_yolo_unpaired}

SMALL, LARGE = 32.0**2, 96.0**2  # square pixels, COCO's bounds


@dataclass(frozen=True, slots=True)
class CheckReport:
    """Every problem of a dataset; per split, statistics and the decodable samples with their image sizes.

    images: digest of the pixels -> the first sample with them and the dataset's classes.
    """

    problems: tuple[Problem, ...]
    statistics: dict[str, dict[str, Any]]
    sets: dict[str, Dataset] = field(default_factory=dict)
    images: dict[bytes, tuple[Sample, tuple[str, ...]]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether all problems are notes."""
        return all(problem.kind in NOTES for problem in self.problems)

    def count(self) -> dict[str, int]:
        """Kind -> number of problems, in descending order."""
        return dict(Counter(problem.kind for problem in self.problems).most_common())

    def to_dict(self) -> dict[str, Any]:
        """The report except `sets` and `images`, as plain values for JSON."""
        problems = [asdict(problem) for problem in self.problems]
        return {"ok": self.ok, "count": self.count(), "problems": problems, "statistics": self.statistics}

    def lines(
        self, limit: int = 10, *, statistics: bool = True, remarks: Mapping[str, str] = MappingProxyType({})
    ) -> list[str]:
        """The report as lines of text, with at most `limit` problems of each kind; remarks: split -> an extra line."""
        lines = self._statistics_lines(remarks) if statistics and self.statistics else []
        for kind, number in self.count().items():
            rows = [problem for problem in self.problems if problem.kind == kind]
            lines.append(f"{'note' if kind in NOTES else 'ERROR'}: {kind}: {number}")
            lines += [f"  {problem}" for problem in rows[:limit]]
            lines += [f"  and {number - limit} more"] if number > limit else []
        notes = sum(problem.kind in NOTES for problem in self.problems)
        return [*lines, f"{plural(len(self.problems) - notes, 'error')}, {plural(notes, 'note')}"]

    def _statistics_lines(self, remarks: Mapping[str, str]) -> list[str]:
        lines = []
        for split, values in self.statistics.items():
            lines.append(
                f"{split}: {plural(values['images'], 'image')}, {values['without objects']} without objects; "
                f"{plural(values['objects'], 'object')}, {values['difficult']} difficult, {values['crowd']} crowd"
            )
            for what in ("image height", "image width", "box height", "box width"):
                low, middle, high = values[what]
                lines.append(f"  {what}: {low:.5g} to {high:.5g} px, median {middle:.5g}")
            lines.append("  boxes: " + ", ".join(f"{number} {size}" for size, number in values["box sizes"].items()))
            lines += [f"  {remarks[split]}"] if split in remarks else []
        names = dict.fromkeys(name for values in self.statistics.values() for name in values["classes"])
        width = max(map(len, [*names, "objects"]))
        lines.append("  ".join(["objects".ljust(width), *(split.rjust(10) for split in self.statistics)]))
        for name in names:
            numbers = [str(values["classes"][name]["objects"]).rjust(10) for values in self.statistics.values()]
            lines.append("  ".join([name.ljust(width), *numbers]))
        return lines

    def __str__(self) -> str:
        return "\n".join(self.lines())


def check(
    root: str | Path,
    splits: Mapping[str, Sequence[str]] | None = None,
    *,
    names: Sequence[str] | None = None,
    progress: Callable[[Sequence[Sample]], Iterable[Sample]] = iter,
    options: ReadOptions = PLAIN,
) -> CheckReport:
    """Report every problem of a dataset.

    splits: name -> the source splits that it joins, as in `convert`; by default each split of `find_splits`.
    names: the classes to keep, in order, as in `keep_classes`; by default all of the first split.
    progress: receives the samples of a split and yields them, to show the progress of decoding.
    options: of the readers.
    """
    form = recognize(root)
    if splits is None:
        splits = {split: [split] for split in find_splits(root)} or {"all": []}
    problems: list[Problem] = []
    read: list[str] = []
    sets: dict[str, Dataset] = {}
    decoded: dict[str, Dataset] = {}
    hashes: dict[str, dict[Path, NDArray[np.bool_]]] = {}
    statistics: dict[str, dict[str, Any]] = {}
    images: dict[bytes, tuple[Sample, tuple[str, ...]]] = {}
    for split, sources in splits.items():
        first_names = next((data.names for data in sets.values()), None)
        try:
            sets[split] = read_dataset(
                root, sources, names=None if names else first_names, report=problems.append, options=options
            )
            read += as_tuple(sources)
        except CenterdetError as error:
            problems.append(Problem("unreadable split", split, str(error)))
    try:
        sets = dict(zip(sets, keep_classes(list(sets.values()), names or ()), strict=True))
    except DataError as error:
        problems.append(Problem("no such class", str(root), str(error)))
        sets = {}
    for split, data in sets.items():
        problems += [
            Problem("class left out", split, f"{plural(number, 'object')} of {name}")
            for name, number in data.left_out.items()
        ]
        hashes[split], sizes, whole = {}, [], []
        firsts: dict[bytes, Path] = {}
        for sample in progress(data.samples):
            try:
                image = load(sample.path)
            except ImageError as error:
                problems.append(Problem("broken image", str(sample.path), str(error).removeprefix(f"{sample.path}: ")))
                continue
            hashes[split][sample.path] = hash_image(image)
            digest = _digest(image)
            images.setdefault(digest, (sample, data.names))
            first = firsts.setdefault(digest, sample.path)
            if first != sample.path:
                problems.append(Problem("repeated image", str(sample.path), f"is identical to {first}"))
            size = image.shape[0], image.shape[1]
            sizes.append(size)
            whole.append(replace(sample, size=size))
            if sample.size is not None and sample.size != size:
                kind, what = describe_mismatch(sample.size, size)
                problems.append(Problem(kind, str(sample.path), what))
        statistics[split] = _describe(data, sizes)
        decoded[split] = Dataset(whole, data.names)
    if read and form in UNPAIRED:
        problems += [Problem("unpaired file", str(path), what) for path, what in UNPAIRED[form](Path(root), read)]
    for number, one in enumerate(hashes):
        for other in list(hashes)[number + 1 :]:
            problems += _find_alike(hashes[one], hashes[other], other)
    return CheckReport(tuple(dict.fromkeys(problems)), statistics, decoded, images)  # a shared image is reported once


def compare_labels(one: CheckReport, other: CheckReport) -> list[Problem]:
    """The images that two datasets label differently in the classes that both have, by more than a pixel."""
    problems = []
    for digest in one.images.keys() & other.images.keys():
        (first, names), (second, other_names) = one.images[digest], other.images[digest]
        shared = set(names) & set(other_names)
        before, now = _list_objects(first, names, shared), _list_objects(second, other_names, shared)
        near = [[a == b and np.abs(box - another).max() <= 1 for b, another in now] for a, box in before]
        if len(before) != len(now) or not all(map(any, near)) or not all(map(any, zip(*near, strict=True))):
            what = f"has the pixels of {first.path}, which has other objects ({len(before)}, here {len(now)})"
            problems.append(Problem("different labels", str(second.path), what))
    return sorted(problems, key=str)


def _list_objects(sample: Sample, names: Sequence[str], chosen: Collection[str]) -> list[tuple[str, NDArray[Any]]]:
    """The class and box of each object of the chosen classes."""
    pairs = zip(sample.labels.tolist(), sample.boxes, strict=True)
    return [(names[label], box) for label, box in pairs if names[label] in chosen]


def hash_image(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(256,) bool: whether each pixel of a 16 x 17 thumbnail is brighter than its left neighbor (dHash)."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(gray, (17, 16), interpolation=cv2.INTER_AREA)
    return np.asarray(small[:, 1:] > small[:, :-1]).ravel()


def _digest(image: NDArray[np.uint8]) -> bytes:
    """A digest that is equal only for identical images."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


def _describe(dataset: Dataset, sizes: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    """Counts by class and size; lists of three numbers are minimum, median, and maximum."""
    samples = dataset.samples
    classes = len(dataset.names)
    boxes = np.concatenate([np.zeros((0, 4)), *(sample.boxes for sample in samples)])
    labels = np.concatenate([np.zeros(0, np.int64), *(sample.labels for sample in samples)])
    difficult = np.concatenate([np.zeros(0, bool), *(sample.difficult for sample in samples)])
    images = np.concatenate([np.zeros(0, np.int64), *(np.unique(sample.labels) for sample in samples)])
    columns = [np.bincount(column, minlength=classes).tolist() for column in (labels, labels[difficult], images)]
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = sides.prod(1)
    measures = np.array(sizes, float).reshape(-1, 2)
    return {
        "images": len(samples),
        "without objects": sum(len(sample.boxes) == 0 for sample in samples),
        "objects": len(boxes),
        "difficult": int(difficult.sum()),
        "crowd": sum(int(sample.crowd.sum()) for sample in samples),
        "image height": _range(measures[:, 0]),
        "image width": _range(measures[:, 1]),
        "box height": _range(sides[:, 1]),
        "box width": _range(sides[:, 0]),
        "box sizes": {
            "small (under 32 x 32 px)": int((areas < SMALL).sum()),
            "medium": int(((areas >= SMALL) & (areas < LARGE)).sum()),
            "large (from 96 x 96 px)": int((areas >= LARGE).sum()),
        },
        "classes": {
            name: {"objects": objects, "difficult": hard, "images": shown}
            for name, objects, hard, shown in zip(dataset.names, *columns, strict=True)
        },
    }


def _range(values: NDArray[np.float64]) -> list[float]:
    return [float(value) for value in np.quantile(values, [0, 0.5, 1])] if len(values) else [0.0, 0.0, 0.0]


def _find_alike(
    first: Mapping[Path, NDArray[np.bool_]], second: Mapping[Path, NDArray[np.bool_]], split: str
) -> list[Problem]:
    """The images of one split that are also in the other, or are near-duplicates of one (the nearest is named)."""
    if not first or not second:
        return []
    problems = []
    others = list(second)
    signs = np.where(np.array(list(second.values())), np.float32(1), np.float32(-1))
    paths = list(first)
    for start in range(0, len(paths), 1024):
        rows = np.where(np.array([first[path] for path in paths[start : start + 1024]]), np.float32(1), np.float32(-1))
        different = (rows.shape[1] - rows @ signs.T) / 2  # (rows, others) bits
        nearest = different.argmin(1)
        for row, path in enumerate(paths[start : start + 1024]):
            other, bits = others[nearest[row]], int(different[row, nearest[row]])
            if path in second:
                problems.append(Problem("in two splits", str(path), f"is in {split} too"))
            elif bits <= NEAR:
                what = f"looks like {other} of {split} ({bits} of 256 bits differ)"
                problems.append(Problem("near-duplicate", str(path), what))
    return problems
