"""A detector, or detections from a file, and a dataset to a result: the numbers, with their protocol beside them.

Validation while training goes through the same function, so what is reported is what users get. The two numbers are
called voc-area and voc07-11pt everywhere: in percent in tables, as fractions in JSON and CSV.
"""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.sample import Dataset
from ..detections import Detections
from ..errors import DataError
from ..files import write_atomic
from ..metrics import CocoResult, VocResult, coco_evaluate, voc_evaluate
from ..metrics.diagnose import ConfusionMatrix, OperatingPoints, SizeAP, ap_by_size, confusion_matrix, operating_points
from ..metrics.protocols import Step, from_voc_to_coco
from ..metrics.statistics import Bootstrap, Comparison, bootstrap_ap, compare_models
from ..metrics.tide import ErrorKinds, error_kinds, label_errors
from ..text import format_percent, format_table, plural
from .files import Results

if TYPE_CHECKING:
    from ..detector import Detector

__all__ = [
    "Evaluation",
    "Suspect",
    "evaluate",
    "evaluate_detections",
    "ground_truth",
]

USUAL_LIMIT = 100
SUSPICIOUS_SCORE = 0.05  # detectors that keep everything score their worst far below
NAMES = {"ap": "voc-area", "ap_11pt": "voc07-11pt", "mean_ap": "mean voc-area", "mean_ap_11pt": "mean voc07-11pt"}


class Suspect(NamedTuple):
    """A confident detection without an object of its class: `overlaps` names the object it overlaps most, if any."""

    image: Path
    name: str
    score: float
    box: tuple[float, float, float, float]
    overlaps: str | None
    iou: float


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """AP per class and its mean by both VOC protocols; what else there is to know is computed when asked for.

    Attributes:
        voc: the result of `metrics.voc_evaluate`. names: of the classes. paths: of the images.
        results: the detections. truth: the objects, see `ground_truth`.
        score_threshold: what scored lower was left out; 0: nothing was. tile: side in px of tiles, if any.
    """

    voc: VocResult
    names: tuple[str, ...]
    paths: tuple[Path, ...]
    results: Results
    truth: dict[str, NDArray[Any]]
    score_threshold: float = 0.0
    tile: int | None = None

    @property
    def num_images(self) -> int:
        """How many."""
        return len(self.paths)

    @property
    def protocol(self) -> str:
        """How the numbers came about, in one line."""
        most = int(np.bincount(self.results.images).max(initial=0))
        limit = f"at most {USUAL_LIMIT}" if most <= USUAL_LIMIT else f"up to {most}"
        threshold = f"score threshold {self.score_threshold:g}" if self.score_threshold > 0 else "no score threshold"
        threshold += f", with tiles of {self.tile} px" if self.tile else ""
        return (
            f"{plural(self.num_images, 'image')}, {limit} detections each, {threshold}; "
            f"IoU >= {self.voc.iou_threshold:g}, best object taken or not, difficult ignored; "
            "voc-area: area under the curve (devkit of 2010 on), voc07-11pt: 11 points (2007)"
        )

    @property
    def warning(self) -> str | None:
        """Why the AP may be too low: a score threshold before it, asked for, or likely by the lowest score."""
        scores = self.results.scores
        if self.score_threshold > 0:
            return f"a score threshold of {self.score_threshold:g} was applied before AP, which can only lower it"
        lowest = scores.min(initial=np.inf)
        if SUSPICIOUS_SCORE < lowest < np.inf:
            return f"the lowest of {len(scores)} scores is {lowest:.3g}: if a threshold was applied, AP is lower for it"
        return None

    def rows(self) -> list[tuple[str, int, float, float]]:
        """(class, objects, voc-area AP, voc07-11pt AP), AP in percent, NaN without objects; the mean comes last."""
        voc = self.voc
        columns = (self.names, voc.num_positive.tolist(), (100 * voc.ap).tolist(), (100 * voc.ap_11pt).tolist())
        mean = ("mean", int(voc.num_positive.sum()), 100 * voc.mean_ap, 100 * voc.mean_ap_11pt)
        return [*zip(*columns, strict=True), mean]

    def by_size(self) -> SizeAP:
        """AP of small, medium and large objects."""
        return ap_by_size(**self._arrays())

    def operating_points(self, score_threshold: float = 0.3) -> OperatingPoints:
        """Precision, recall, F1 and false positives per image at a score, and at the best F1 of each class."""
        return operating_points(**self._arrays(), score_threshold=score_threshold, num_images=self.num_images)

    def confusion_matrix(self, score_threshold: float = 0.3) -> ConfusionMatrix:
        """Which class was taken for which, with a row and a column for the background."""
        return confusion_matrix(**self._arrays(), score_threshold=score_threshold)

    def error_kinds(self) -> ErrorKinds:
        """What goes wrong, and what each kind costs."""
        return error_kinds(**self._arrays())

    def bootstrap(self, resamples: int = 1000) -> Bootstrap:
        """How sure the numbers are, given these images."""
        return bootstrap_ap(**self._arrays(), num_images=self.num_images, resamples=resamples)

    def suspects(self, limit: int | None = None) -> list[Suspect]:
        """Detections that may show errors of the labels, the most confident first."""
        found, results, labels = label_errors(**self._arrays()), self.results, self.truth["labels"]
        rows = zip(found.detections.tolist(), found.detection_gt.tolist(), found.detection_iou.tolist(), strict=True)
        return [
            Suspect(
                self.paths[results.images[row]], self.names[results.labels[row]], float(results.scores[row]),
                tuple(results.boxes[row].tolist()), self.names[labels[other]] if other >= 0 else None, iou,
            )
            for row, other, iou in list(rows)[:limit]
        ]  # fmt: skip

    def coco(self, max_detections: Sequence[int] = (1, 10, 100)) -> CocoResult:
        """The COCO numbers, as pycocotools computes them: crowds ignored, difficult objects not; size by the box."""
        arrays = self._coco_arrays()
        del arrays["gt_difficult"]
        return coco_evaluate(**arrays, gt_crowd=self.truth["crowd"], max_detections=max_detections)

    def compare(self, other: "Evaluation", resamples: int = 1000) -> Comparison:
        """This evaluation against another detector's on the same images: intervals and p-values of the difference."""
        if (self.names, self.paths) != (other.names, other.paths):
            raise DataError("other: want an evaluation of the same classes on the same images")
        arrays, theirs = self._arrays(), other._arrays()
        columns = ("det_boxes", "det_scores", "det_labels", "det_images")
        first, second = (tuple(one.pop(column) for column in columns) for one in (arrays, theirs))
        return compare_models(first, second, **arrays, num_images=self.num_images, resamples=resamples)

    def from_voc_to_coco(self) -> list[Step]:
        """The same detections from VOC's to COCO's rules, one change at a time."""
        return from_voc_to_coco(**self._coco_arrays(), gt_crowd=self.truth["crowd"])

    def to_dict(
        self, *, details: bool = False, rules: bool = False, against: "Evaluation | None" = None
    ) -> dict[str, Any]:
        """Plain values for JSON, AP as fractions, None where there is none; with what else is asked for.

        details: what the methods tell. rules: the steps from VOC to COCO. against: the comparison with another one.
        """
        voc = self.voc.to_dict()
        columns = (self.names, voc["num_positive"], voc["ap"], voc["ap_11pt"])
        keys = ("name", "objects", "voc-area", "voc07-11pt")
        plain: dict[str, Any] = {
            "protocol": self.protocol,
            "warning": self.warning,
            "images": self.num_images,
            "detections": len(self.results.scores),
            "score_threshold": self.score_threshold,
            "mean": {"voc-area": voc["mean_ap"], "voc07-11pt": voc["mean_ap_11pt"]},
            "classes": [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)],
        }
        if details:
            named = [{**one._asdict(), "image": str(one.image)} for one in self.suspects()]
            names = ("by_size", "operating_points", "confusion_matrix", "error_kinds", "bootstrap")
            plain |= {name: _renamed(getattr(self, name)().to_dict()) for name in names}
            plain |= {"suspects": named, "coco": self.coco().to_dict()}
        if rules:
            steps = self.from_voc_to_coco()
            plain["from_voc_to_coco"] = [{**one._asdict(), "ap": None if np.isnan(one.ap) else one.ap} for one in steps]
        if against is not None:
            plain["against"] = _renamed(self.compare(against).to_dict())
        return plain

    def to_csv(self) -> str:
        """One line a class, the mean last; AP as fractions, empty where there is none."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("class", "objects", "voc-area", "voc07-11pt"))
        plain = self.to_dict()
        writer.writerows(one.values() for one in plain["classes"])
        writer.writerow(("mean", int(self.voc.num_positive.sum()), *plain["mean"].values()))
        return text.getvalue()

    def save(self, path: str | Path, *, details: bool = False) -> None:
        """Write `to_dict()` as JSON."""
        write_atomic(path, json.dumps(self.to_dict(details=details), indent=1).encode())

    def __str__(self) -> str:
        rows = [(name, str(count), *map(format_percent, values)) for name, count, *values in self.rows()]
        table = format_table(("class", "objects", "voc-area", "voc07-11pt"), rows)
        return "\n".join([table, self.protocol, *([f"warning: {self.warning}"] if self.warning else [])])

    def _arrays(self) -> dict[str, Any]:
        """The arguments of the functions of `metrics`."""
        results, truth = self.results, self.truth
        return {
            "det_boxes": results.boxes, "det_scores": results.scores,
            "det_labels": results.labels, "det_images": results.images,
            "gt_boxes": truth["boxes"], "gt_labels": truth["labels"], "gt_images": truth["images"],
            "gt_difficult": truth["difficult"], "num_classes": len(self.names),
        }  # fmt: skip

    def _coco_arrays(self) -> dict[str, Any]:
        """The same, with COCO's image ids where they are known."""
        arrays, ids = self._arrays(), self.results.image_ids
        return arrays if ids is None else arrays | {key: ids[arrays[key]] for key in ("det_images", "gt_images")}


def evaluate(
    detector: "Detector",
    dataset: Dataset,
    *,
    score_threshold: float = 0.0,
    progress: Callable[[int], None] | None = None,
    tile: int | None = None,
    overlap: float = 0.2,
) -> Evaluation:
    """Predict every image of the dataset and evaluate; `progress` is called with the number done."""
    if tuple(dataset.names) != detector.names:
        raise DataError(f"names: the detector knows {list(detector.names)}, the dataset has {list(dataset.names)}")
    found: list[Detections] = []
    for start in range(0, len(dataset), 32):
        paths = [sample.path for sample in dataset.samples[start : start + 32]]
        found += detector.predict_batch(paths, score_threshold=score_threshold, tile=tile, overlap=overlap)
        if progress:
            progress(len(found))
    return replace(evaluate_detections(found, dataset, score_threshold=score_threshold), tile=tile)


def evaluate_detections(
    found: Sequence[Detections] | Results, dataset: Dataset, *, score_threshold: float = 0.0
) -> Evaluation:
    """Evaluate what was found: one `Detections` a sample in the samples' order, or the `Results` of a file."""
    if not isinstance(found, Results):
        if len(found) != len(dataset):
            raise DataError(f"found: want one Detections for each of {len(dataset)} images, got {len(found)}")
        if wrong := [one.names for one in found if one.names != tuple(dataset.names)]:
            raise DataError(f"found: names {list(wrong[0])}, the dataset has {list(dataset.names)}")
        found = Results.join(found)
    if score_threshold > 0:
        found = found.reaching(score_threshold)
    truth = ground_truth(dataset)
    result = voc_evaluate(
        found.boxes, found.scores, found.labels, found.images, truth["boxes"], truth["labels"], truth["images"],
        gt_difficult=truth["difficult"], num_classes=len(dataset.names),
    )  # fmt: skip
    paths = tuple(sample.path for sample in dataset.samples)
    return Evaluation(result, tuple(dataset.names), paths, found, truth, score_threshold)


def ground_truth(dataset: Dataset) -> dict[str, NDArray[Any]]:
    """The objects as flat arrays: boxes (G, 4), labels, difficult (a crowd counts as such), crowd and images (G,)."""
    samples = dataset.samples
    return {
        "boxes": np.concatenate([np.zeros((0, 4)), *(sample.boxes for sample in samples)]),
        "labels": np.concatenate([np.zeros(0, np.int64), *(sample.labels for sample in samples)]),
        "difficult": np.concatenate([np.zeros(0, bool), *(sample.difficult | sample.crowd for sample in samples)]),
        "crowd": np.concatenate([np.zeros(0, bool), *(sample.crowd for sample in samples)]),
        "images": np.repeat(np.arange(len(samples)), [len(sample.boxes) for sample in samples]),
    }


def _renamed(value: Any) -> Any:
    return {NAMES.get(key, key): _renamed(one) for key, one in value.items()} if isinstance(value, dict) else value
