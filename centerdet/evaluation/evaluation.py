"""Evaluation of a detector, or of detections from a file, on a dataset: AP with its protocol, and diagnoses on demand.

Validation during training uses the same function, so it reports what users get. The two numbers are called voc-area and
voc07-11pt: in percent in tables, as fractions in JSON and CSV.
"""

import csv
import inspect
import io
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from ..data.sample import Dataset
from ..detections import Detections
from ..errors import CenterdetError, DataError
from ..metrics import CocoResult, VocMatch, VocResult
from ..metrics.arrays import Arrays
from ..metrics.coco import evaluate as evaluate_coco
from ..metrics.coco_curves import LIMITS
from ..metrics.coco_index import evaluate_files
from ..metrics.diagnose import ConfusionMatrix, OperatingPoints, SizeAP, ap_by_size, confusion_matrix, operating_points
from ..metrics.label_errors import LabelErrors, label_errors
from ..metrics.protocols import Step, from_voc_to_coco
from ..metrics.result import Result
from ..metrics.statistics import Bootstrap, Comparison, bootstrap_ap, compare_models
from ..metrics.tide import ErrorKinds, error_kinds
from ..metrics.voc import average, match_detections
from ..text import format_percent, format_table, plural
from .files import Results, make_arrays
from .suspects import Suspect, describe

if TYPE_CHECKING:
    from ..detector import Detector

__all__ = ["Evaluation", "Suspect", "evaluate", "evaluate_detections"]

USUAL_LIMIT = 100
SUSPICIOUS_SCORE = 0.05  # detectors without a threshold score their worst detections far below
NAMES = {"ap": "voc-area", "ap_11pt": "voc07-11pt", "mean_ap": "mean voc-area", "mean_ap_11pt": "mean voc07-11pt"}


P = ParamSpec("P")
T = TypeVar("T")


def _once(method: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], T]:
    """Compute a method's result once for each set of arguments."""
    signature = inspect.signature(method)

    @wraps(method)
    def remember(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        results: dict[Any, T] = self.__dict__.setdefault("_results", {})
        key = (method.__name__, *bound.args[1:], *bound.kwargs.values())
        if key not in results:
            results[key] = method(self, *args, **kwargs)
        return results[key]

    return remember


@dataclass(frozen=True, eq=False)
class Evaluation:
    """AP per class and its mean by both VOC protocols; the methods compute the rest on demand, and once.

    Attributes:
        voc: the result of `metrics.voc_evaluate`. names: of the classes. paths: of the images.
        results: the detections. arrays: the same with the ground truth, checked. match: by VOC's rules.
        score_threshold: detections below it were left out; 0: none were. tile: side in px of tiles, if any.
        coco_files: ground truth and results, if both are COCO files: `coco` reads them as pycocotools does.
        unlabeled: classes that are not labeled in the dataset; their detections were left out.
    """

    voc: VocResult
    names: tuple[str, ...]
    paths: tuple[Path, ...]
    results: Results
    arrays: Arrays
    match: VocMatch
    score_threshold: float = 0.0
    tile: int | None = None
    coco_files: tuple[Path, Path] | None = None
    unlabeled: tuple[str, ...] = ()

    @property
    def num_images(self) -> int:
        """The number of images."""
        return len(self.paths)

    @property
    def protocol(self) -> str:
        """The rules behind the numbers, in one line."""
        most = int(np.bincount(self.results.images).max(initial=0))
        limit = f"at most {USUAL_LIMIT}" if most <= USUAL_LIMIT else f"up to {most}"
        threshold = f"score threshold {self.score_threshold:g}" if self.score_threshold > 0 else "no score threshold"
        threshold += f", with tiles of {self.tile} px" if self.tile else ""
        return (
            f"{plural(self.num_images, 'image')}, {limit} detections each, {threshold}; "
            f"IoU >= {self.voc.iou_threshold:g}, best object even if taken, difficult ignored; "
            "voc-area: area under the curve (devkit of 2010 on), voc07-11pt: 11 points (2007)"
            + (f"; not labeled in this dataset, so not counted: {', '.join(self.unlabeled)}" if self.unlabeled else "")
        )

    @property
    def warning(self) -> str | None:
        """Why the AP may be too low: a score threshold before it, given or likely by the lowest score."""
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

    @_once
    def by_size(self) -> SizeAP:
        """AP of small, medium and large objects."""
        return ap_by_size(self.arrays, self.match)

    @_once
    def operating_points(self, score_threshold: float = 0.3) -> OperatingPoints:
        """Precision, recall, F1 and false positives per image at a score, and at the best F1 of each class."""
        return operating_points(self.arrays, self.match, score_threshold=score_threshold, num_images=self.num_images)

    @_once
    def confusion_matrix(self, score_threshold: float = 0.3) -> ConfusionMatrix:
        """Which class was predicted for which, with a row and a column for the background."""
        return confusion_matrix(self.arrays, score_threshold=score_threshold)

    @_once
    def error_kinds(self) -> ErrorKinds:
        """Errors by kind, and the AP that each kind costs."""
        return error_kinds(self.arrays, self.match)

    @_once
    def bootstrap(self, resamples: int = 1000) -> Bootstrap:
        """Confidence intervals of AP over the choice of images."""
        return bootstrap_ap(self.arrays, self.match, num_images=self.num_images, resamples=resamples)

    @_once
    def label_errors(self) -> LabelErrors:
        """Likely label errors as rows of `arrays`, the most likely first."""
        return label_errors(self.arrays, self.match)

    def suspects(self, limit: int | None = None) -> list[Suspect]:
        """The label errors with their images, boxes and reasons."""
        return describe(self.label_errors(), self.arrays, self.names, self.paths)[:limit]

    def coco(self, max_detections: Sequence[int] = LIMITS) -> CocoResult:
        """The COCO numbers, as pycocotools computes them: crowds ignored, difficult objects not; size by the area."""
        return self._coco(tuple(max_detections))

    @_once
    def _coco(self, max_detections: tuple[int, ...]) -> CocoResult:
        if self.coco_files is not None:
            with suppress(CenterdetError):  # pycocotools refuses what the readers repair, such as ids spelled otherwise
                return evaluate_files(*self.coco_files, self.names, max_detections, self.score_threshold)
        return evaluate_coco(self.arrays.by_image(self.results.image_ids), max_detections)

    @_once
    def compare(self, other: "Evaluation", resamples: int = 1000) -> Comparison:
        """This evaluation against another detector's on the same images: intervals and p-values of the difference."""
        if (self.names, self.paths) != (other.names, other.paths):
            raise DataError("other: expected an evaluation of the same classes on the same images")
        pair = (self.arrays, self.match), (other.arrays, other.match)
        return compare_models(*pair, num_images=self.num_images, resamples=resamples)

    def from_voc_to_coco(self) -> list[Step]:
        """The same detections from VOC's to COCO's rules, one change at a time."""
        return from_voc_to_coco(self.arrays, self.match, self.coco)

    def to_dict(
        self, *, details: bool = False, rules: bool = False, against: "Evaluation | None" = None
    ) -> dict[str, Any]:
        """Plain values for JSON, AP as fractions, None for classes without objects.

        details: add the results of the methods. rules: add the steps from VOC to COCO. against: add the comparison.
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
            names = ("by_size", "operating_points", "confusion_matrix", "error_kinds", "bootstrap")
            plain |= {name: _to_dict(getattr(self, name)()) for name in names}
            plain["suspects"] = [one.to_dict() for one in self.suspects()]
        if details or self.coco_files:
            plain["coco"] = self.coco().to_dict()
        if rules:
            steps = self.from_voc_to_coco()
            plain["from_voc_to_coco"] = [{**one._asdict(), "ap": None if np.isnan(one.ap) else one.ap} for one in steps]
        if against is not None:
            plain["against"] = _to_dict(self.compare(against))
        return plain

    def to_csv(self) -> str:
        """One line per class, the mean last; AP as fractions, empty for classes without objects."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("class", "objects", "voc-area", "voc07-11pt"))
        plain = self.to_dict()
        writer.writerows(one.values() for one in plain["classes"])
        writer.writerow(("mean", int(self.voc.num_positive.sum()), *plain["mean"].values()))
        return text.getvalue()

    def __str__(self) -> str:
        rows = [(name, str(count), *map(format_percent, values)) for name, count, *values in self.rows()]
        table = format_table(("class", "objects", "voc-area", "voc07-11pt"), rows)
        return "\n".join([table, self.protocol, *([f"warning: {self.warning}"] if self.warning else [])])


def evaluate(
    detector: "Detector",
    dataset: Dataset,
    *,
    score_threshold: float = 0.0,
    progress: Callable[[int], None] | None = None,
    tile: int | None = None,
    overlap: float = 0.2,
) -> Evaluation:
    """Predict every image of the dataset, decoded ahead, and evaluate; an image that cannot be read is raised.

    Calibrated scores are those of `Calibration.apply` in double precision, so that AP is that of the raw scores.
    progress: called with the number of images done.
    """
    if tuple(dataset.names) != detector.names:
        raise DataError(f"names: the detector has {list(detector.names)}, the dataset has {list(dataset.names)}")
    paths = [sample.path for sample in dataset.samples]
    detections: list[Detections] = []
    calibration, raw = detector.calibration, detector.uncalibrated()
    lowest = 0.0 if calibration else score_threshold
    for _, result in raw.stream(paths, score_threshold=lowest, tile=tile, overlap=overlap):
        if isinstance(result, CenterdetError):
            raise result
        detections.append(result)
        if progress:
            progress(len(detections))
    results = Results.join(detections)
    if calibration:
        results = replace(results, scores=calibration.apply(results.scores, results.labels))
    return replace(evaluate_detections(results, dataset, score_threshold=score_threshold), tile=tile)


def evaluate_detections(
    detections: Sequence[Detections] | Results, dataset: Dataset, *, score_threshold: float = 0.0
) -> Evaluation:
    """Evaluate one `Detections` per sample in the order of the samples, or the `Results` of a file."""
    if not isinstance(detections, Results):
        if len(detections) != len(dataset):
            raise DataError(f"detections: expected one for each of {len(dataset)} images, got {len(detections)}")
        if wrong := [one.names for one in detections if one.names != tuple(dataset.names)]:
            raise DataError(f"detections: names {list(wrong[0])}, the dataset has {list(dataset.names)}")
        detections = Results.join(detections)
    if score_threshold > 0:
        detections = detections.keep(detections.scores >= score_threshold)
    if dataset.unlabeled:
        unlabeled = [dataset.names.index(name) for name in dataset.unlabeled]
        detections = detections.keep(~np.isin(detections.labels, unlabeled))
    arrays = make_arrays(detections, dataset)
    match = match_detections(arrays)
    paths = tuple(sample.path for sample in dataset.samples)
    columns = average(arrays, match), tuple(dataset.names), paths, detections, arrays, match, score_threshold
    return Evaluation(*columns, unlabeled=dataset.unlabeled)


def _to_dict(result: Result) -> dict[str, Any]:
    """A result for JSON, under the names that tables use."""
    return {NAMES.get(key, key): value for key, value in result.to_dict().items()}
