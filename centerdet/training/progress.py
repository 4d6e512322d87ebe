"""What a training says while it runs: `Progress` to the caller, log.csv always, TensorBoard when asked for."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from .. import images
from ..detections import Detections
from ..errors import ConfigError
from ..evaluation.evaluation import Evaluation
from ..files import write_atomic

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["Progress", "cut_log", "find_tensorboard", "write_log", "write_tensorboard"]

IMAGES, LONGEST, DRAWN_SCORE = 4, 512, 0.3  # of validation: how many, px of the longer side, what is drawn
THRESHOLDS = np.linspace(0, 1, 127)  # TensorBoard's own number


@dataclass(frozen=True)
class Progress:
    """Where a training stands, given to the caller after every step; eta: seconds to the end, at this speed."""

    step: int
    steps: int
    epoch: float
    size: int
    heatmap_loss: float
    box_loss: float
    lr: float
    images_per_second: float
    eta: float
    validation: Evaluation | None = None


def cut_log(path: Path, step: int) -> None:
    """Forget what was logged after `step`: a training that begins there logs it anew."""
    if path.exists():
        rows = path.read_bytes().splitlines(keepends=True)
        write_atomic(path, b"".join(rows[:1] + [row for row in rows[1:] if int(row.split(b",")[0]) <= step]))


def write_log(path: Path, now: Progress) -> None:
    """Add a line to the CSV."""
    new = not path.exists() or path.stat().st_size == 0
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["step", "epoch", "size", "heatmap_loss", "box_loss", "lr", "voc_area", "voc07_11pt"])
        voc = now.validation.voc if now.validation else None
        scores = [f"{value:.4f}" for value in (voc.mean_ap, voc.mean_ap_11pt)] if voc else ["", ""]
        losses = [f"{now.heatmap_loss:.4f}", f"{now.box_loss:.4f}", f"{now.lr:.6f}"]
        writer.writerow([now.step, f"{now.epoch:.2f}", now.size, *losses, *scores])


def find_tensorboard() -> "type[SummaryWriter]":
    """PyTorch's writer of TensorBoard's files, which wants the package tensorboard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError("tensorboard: is not installed: pip install 'centerdet[tensorboard]'") from None
    return SummaryWriter


def write_tensorboard(board: "SummaryWriter", now: Progress) -> None:
    """Scalars; after a validation AP, precision and recall of each class, and images with what was found in them."""
    scalars = {
        "loss/heatmap": now.heatmap_loss, "loss/box": now.box_loss, "training/lr": now.lr, "training/size": now.size,
        "training/images per second": now.images_per_second,
    }  # fmt: skip
    if now.validation:
        voc, names = now.validation.voc, now.validation.names
        scalars |= {"mean/voc-area": voc.mean_ap, "mean/voc07-11pt": voc.mean_ap_11pt}
        for label, name in enumerate(names):
            if voc.num_positive[label]:
                scalars[f"voc-area/{name}"] = float(voc.ap[label])
                _add_curve(board, now.validation, label, now.step)
        paths = now.validation.paths
        for index in np.linspace(0, len(paths) - 1, min(IMAGES, len(paths))).astype(int).tolist():
            drawn = _draw(now.validation, index)
            board.add_image(f"validation/{paths[index].name}", drawn, now.step, dataformats="HWC")
    for tag, value in scalars.items():
        board.add_scalar(tag, value, now.step)
    board.flush()


def _add_curve(board: "SummaryWriter", validation: Evaluation, label: int, step: int) -> None:
    """The evaluation's own curve, known where a true positive is, at TensorBoard's score thresholds."""
    curve, positives = validation.voc.curve(label), int(validation.voc.num_positive[label])
    found = np.searchsorted(-curve.scores, -THRESHOLDS, side="right")  # true positives that score so much
    precision = np.append(1.0, curve.precision)[found]
    wrong = found / precision - found
    nothing = np.zeros(len(found))  # a detector has no true negatives
    board.add_pr_curve_raw(
        f"precision and recall/{validation.names[label]}",
        found, wrong, nothing, positives - found, precision, found / positives, step, len(THRESHOLDS),
    )  # fmt: skip


def _draw(validation: Evaluation, index: int) -> NDArray[np.uint8]:
    """A image of the validation, shrunk, with the boxes found in it."""
    image, results = images.load(validation.paths[index]), validation.results
    scale = min(1.0, LONGEST / max(image.shape[:2]))
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    chosen = (results.images == index) & (results.scores >= DRAWN_SCORE)
    boxes, scores, labels = results.boxes[chosen] * scale, results.scores[chosen], results.labels[chosen]
    return Detections(boxes, scores, labels, validation.names, image.shape[:2]).plot(image=image)
