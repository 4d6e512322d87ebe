"""Reports of a run: `Progress` for the caller, and log.csv."""

import csv
from dataclasses import dataclass
from pathlib import Path

from ..evaluation.evaluation import Evaluation
from ..files import write_atomic

__all__ = ["Progress", "cut_log", "write_log"]

COLUMNS = ("step", "epoch", "size", "heatmap_loss", "box_loss", "lr", "voc_area", "voc07_11pt")


@dataclass(frozen=True)
class Progress:
    """The state of a run, passed to the caller every ten steps and after each validation.

    size: px of the input. eta: estimated seconds to the end.
    """

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
    """Drop lines after `step` and a truncated last line: a run that resumes at `step` writes them again."""
    if path.exists():
        header, *rows = path.read_bytes().splitlines(keepends=True) or [b""]
        complete = (row for row in rows if row.endswith(b"\n") and row.count(b",") == len(COLUMNS) - 1)
        kept = [row for row in complete if row.split(b",")[0].isdigit() and int(row.split(b",")[0]) <= step]
        write_atomic(path, b"".join([header, *kept] if header.endswith(b"\n") else []))


def write_log(path: Path, now: Progress) -> None:
    """Append a line to the CSV."""
    new = not path.exists() or path.stat().st_size == 0
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(COLUMNS)
        voc = now.validation.voc if now.validation else None
        scores = [f"{value:.4f}" for value in (voc.mean_ap, voc.mean_ap_11pt)] if voc else ["", ""]
        losses = [f"{now.heatmap_loss:.4f}", f"{now.box_loss:.4f}", f"{now.lr:.6f}"]
        writer.writerow([now.step, f"{now.epoch:.2f}", now.size, *losses, *scores])
