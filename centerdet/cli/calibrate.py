"""`centerdet calibrate`: turn a detector's scores into probabilities, fitted on annotated images."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from ..data.formats import find_splits, read_dataset
from ..errors import ConfigError, WriteError
from ..evaluation.evaluation import Evaluation
from ..metrics.calibration import BINS, calibration_error
from ..metrics.score_map import fit_calibration
from ..text import format_percent, format_table, plural
from .evaluate import evaluate_detector
from .options import Device, in_a_folder
from .show import console, warn

__all__ = ["calibrate"]

FLOORS = (0.0, 0.05, 0.3)


def calibrate(
    weights: Annotated[str, typer.Argument(help="shipped name (voc, voc-all) or .safetensors weights")],
    data: Annotated[Path, typer.Option(help="folder or file of the dataset")],
    split: Annotated[
        list[str] | None, typer.Option(help="split to fit on; not used in training the detector (repeatable)")
    ] = None,
    test_split: Annotated[
        list[str] | None, typer.Option(help="split to measure the errors on; no images of --split (repeatable)")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="file to write; default: NAME_calibrated.safetensors", callback=in_a_folder, dir_okay=False),
    ] = None,
    device: Device = "",
    quiet: Annotated[bool, typer.Option("--quiet", help="print only errors")] = False,
) -> None:
    """Calibrate scores: 70 % of the detections that score 0.7 are then correct, on images like those of --split.

    Writes a copy of the weights with a score map per class, and thresholds for `predict --score best` and `--score
    precision:0.9`. Boxes and the AP of each class do not change. An existing calibration is replaced.
    """
    from ..detector import Detector
    from ..runtimes.pytorch import PyTorchRuntime, load_network
    from ..runtimes.weights import SHIPPED, check_header, read_tensors, weights_path, write_tensors

    path = weights_path(weights)
    if path.suffix in (".onnx", ".xml"):
        raise ConfigError(f"{path}: is exported: expected .safetensors weights: calibrate these, then export them")
    if not split and (known := find_splits(data)):
        raise typer.BadParameter(f"--split: expected one or more of {', '.join(known)}")
    if out is None:
        out = Path(f"{weights}_calibrated.safetensors")
        if weights not in SHIPPED:
            out = path.with_name(f"{path.stem}_calibrated.safetensors")
        if out.exists():
            raise WriteError(f"{out}: exists already: pass --out {out} to replace it")
    tensors, fields = read_tensors(path)
    fields.pop("calibration", None)  # not checked: it may be for other classes
    header = check_header(path, fields)
    network = load_network(path, tensors, fields)
    runtime = PyTorchRuntime(network, header.names, header.size, device=device or None, nms_iou=header.nms_iou)
    detector = Detector(runtime)
    dataset, *others = (
        read_dataset(data, splits, names=header.names, notice=warn)
        for splits in (split or [], test_split)
        if splits is not None
    )
    used = {sample.path.resolve() for sample in dataset.samples}
    for other in others:
        if shared := sum(sample.path.resolve() in used for sample in other.samples):
            raise typer.BadParameter(f"--test-split: {plural(shared, 'image')} also in --split: expected other images")

    result = evaluate_detector(detector, dataset, quiet)
    source = f"{', '.join(split or [data.stem])}: {plural(result.num_images, 'image')}"
    fit = fit_calibration(result.arrays, result.match, header.names, source=source[-200:])
    rows = _rows("--split, cross-fitted", result, fit.cross_fitted)
    for other in others:
        test = evaluate_detector(detector, other, quiet)
        arrays = test.arrays
        rows += _rows("--test-split", test, fit.calibration.apply(arrays.det_scores, arrays.det_labels))
    write_tensors(out, tensors, {**fields, "calibration": fit.calibration.to_dict()})
    if quiet:
        return
    classes = zip(
        header.names, np.bincount(result.arrays.det_labels[result.match.true_positive], minlength=len(header.names)),
        fit.methods, fit.weights, fit.calibration.best_f1, fit.calibration.thresholds("precision:0.9"), strict=True,
    )  # fmt: skip
    columns = ("class", "detected", "map", "weight", "best F1 at", "precision 0.9 at")
    cells = [(name, f"{n}", kind, *(f"{one:.2f}" for one in numbers)) for name, n, kind, *numbers in classes]
    console.out(format_table(columns, cells))
    columns = ("calibration error (%)", "min score", "D-ECE before", "after", "class mean before", "after")
    console.out(format_table(columns, rows))
    console.out(f"IoU >= 0.5, difficult ignored, {BINS} bins of equal width; before: raw scores")
    console.out(f"{out}: calibrated on {source}")


def _rows(name: str, result: Evaluation, calibrated: NDArray[np.float64]) -> list[tuple[str, ...]]:
    """Calibration errors before and after, for each minimum score."""
    both = (result.arrays, replace(result.arrays, det_scores=calibrated))
    rows = []
    for floor in FLOORS:
        before, after = (calibration_error(arrays, result.match, min_score=floor) for arrays in both)
        values = (before.d_ece, after.d_ece, before.class_mean, after.class_mean)
        rows.append((name, f"{floor:g}", *(format_percent(100 * one) for one in values)))
    return rows
