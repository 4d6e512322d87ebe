"""Reports of a run: `Progress` for the caller, and log.csv."""

import csv
import math
import re
import time
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from ..evaluation.evaluation import Evaluation
from ..files import write_atomic
from .distributed import Group
from .loader import Schedule

__all__ = ["Meter", "Progress", "cut_log", "write_log"]

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
        kept = [row for row in complete if (number := re.match(rb"(\d{1,12}),", row)) and int(number[1]) <= step]
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


class Meter:
    """The losses since the last reading, and the speed of the run."""

    def __init__(self, first: int, schedule: Schedule, batch: int, images: int, group: Group) -> None:
        self.first, self.schedule, self.batch, self.images, self.group = first, schedule, batch, images, group
        # Pixels of all steps before each one: time is proportional to them.
        self.pixels = [0, *accumulate(schedule.size_at(step) ** 2 for step in range(schedule.steps))]
        self.unread: list[Tensor] = []
        self.losses: list[list[float]] = []
        self.start = time.perf_counter()

    def add(self, heatmap: Tensor, box: Tensor, norm: Tensor) -> None:
        self.unread.append(torch.stack([heatmap.detach(), box.detach(), norm.detach()]))

    def read(self, done: int, lr: float, validation: Evaluation | None) -> Progress:
        """The progress after `done` steps, with the losses of the last one."""
        self.losses, self.unread = self.group.mean(torch.stack(self.unread)).tolist(), []
        seconds = max(time.perf_counter() - self.start, 1e-9)  # whatever the clock does
        heatmap, box, _ = self.losses[-1]
        return Progress(
            done, self.schedule.steps, done * self.batch / self.images, self.schedule.size_at(done - 1),
            heatmap, box, lr,
            images_per_second=(done - self.first) * self.batch / seconds,
            eta=seconds * (self.pixels[-1] - self.pixels[done]) / (self.pixels[done] - self.pixels[self.first]),
            validation=validation,
        )  # fmt: skip

    def first_not_finite(self, done: int) -> tuple[int, list[float]] | None:
        """The first step of the last reading whose losses or gradient norm are not finite, and these numbers."""
        bad = (number for number, row in enumerate(self.losses) if not all(map(math.isfinite, row)))
        return next(((done - len(self.losses) + number, self.losses[number]) for number in bad), None)
