"""TensorBoard's files of a run: scalars, precision-recall curves and validation images."""

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from ..detections import Detections
from ..errors import ConfigError
from ..evaluation.evaluation import Evaluation
from ..images import load
from .progress import Progress

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["find_tensorboard", "write_tensorboard"]

IMAGES, LONGEST, DRAWN_SCORE = 4, 512, 0.3  # of validation: number, px of the longer side, lowest score drawn
THRESHOLDS = np.linspace(0, 1, 127)  # TensorBoard's own number


def find_tensorboard() -> "type[SummaryWriter]":
    """PyTorch's writer of TensorBoard files, which needs the package tensorboard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError("tensorboard: not installed: pip install 'centerdet[tensorboard]'") from None
    return SummaryWriter


def write_tensorboard(writer: "SummaryWriter", now: Progress) -> None:
    """Write scalars; after a validation also AP and precision-recall of each class, and images with detections."""
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
                _add_curve(writer, now.validation, label, now.step)
        paths = now.validation.paths
        for index in np.linspace(0, len(paths) - 1, min(IMAGES, len(paths))).astype(int).tolist():
            drawn = _draw(now.validation, index)
            writer.add_image(f"validation/{paths[index].name}", drawn, now.step, dataformats="HWC")
    for tag, value in scalars.items():
        writer.add_scalar(tag, value, now.step)
    writer.flush()


def _add_curve(writer: "SummaryWriter", validation: Evaluation, label: int, step: int) -> None:
    """The evaluation's curve, which has a point per true positive, at TensorBoard's score thresholds."""
    curve, positives = validation.voc.curve(label), int(validation.voc.num_positive[label])
    true = np.searchsorted(-curve.scores, -THRESHOLDS, side="right")  # true positives at or above each threshold
    precision = np.append(1.0, curve.precision)[true]
    wrong = true / precision - true
    nothing = np.zeros(len(true))  # a detector has no true negatives
    writer.add_pr_curve_raw(
        f"precision and recall/{validation.names[label]}",
        true, wrong, nothing, positives - true, precision, true / positives, step, len(THRESHOLDS),
    )  # fmt: skip


def _draw(validation: Evaluation, index: int) -> NDArray[np.uint8]:
    """An image of the validation, shrunk, with its detections."""
    image, results = load(validation.paths[index]), validation.results
    scale = min(1.0, LONGEST / max(image.shape[:2]))
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    chosen = (results.images == index) & (results.scores >= DRAWN_SCORE)
    boxes, scores, labels = results.boxes[chosen] * scale, results.scores[chosen], results.labels[chosen]
    return Detections(boxes, scores, labels, validation.names, image.shape[:2]).plot(image=image)
