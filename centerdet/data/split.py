"""Splitting a dataset: every group of images whole in one part, every class in every part's share of it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..text import plural
from .sample import Dataset

__all__ = ["split"]


def split(
    dataset: Dataset,
    fractions: Mapping[str, float],
    *,
    seed: int = 0,
    group_by: Callable[[Path], str] | str | None = None,
) -> dict[str, Dataset]:
    """Divide a dataset, such as by {"train": 0.8, "val": 0.2}; the same seed and images give the same parts.

    group_by: what images must share to stay together: "folder" (the one they lie in), a regular expression searched
        in the path (its first group, or the whole match), or a function of the path. By default each stands alone.

    Groups are dealt one by one, large ones and those with rare classes first, to the part whose counts of images and
    of objects by class the group brings nearest to its share (least chi-square).
    """
    names, shares = list(fractions), np.array(list(fractions.values()), float)
    if not names or not (shares > 0).all() or abs(shares.sum() - 1) > 1e-6:
        raise DataError(f"fractions: expected positive ones that sum to 1, got {dict(fractions)}")
    groups: dict[str, list[int]] = {}
    for number, sample in enumerate(dataset.samples):
        groups.setdefault(_find_group(sample.path, group_by), []).append(number)
    if len(groups) < len(names):
        raise DataError(f"expected at least {plural(len(names), 'group')} of images for {names}, got {len(groups)}")
    of_image = np.zeros((len(dataset), len(dataset.names) + 1))  # objects by class, and 1 for the image itself
    for number, sample in enumerate(dataset.samples):
        of_image[number, :-1] = np.bincount(sample.labels, minlength=len(dataset.names))
    of_image[:, -1] = 1
    counts = np.array([of_image[members].sum(0) for members in groups.values()])  # (groups, C + 1)
    totals = np.maximum(counts.sum(0), 1)
    rarest = np.where(counts > 0, totals, np.inf).min(1)
    shuffled = np.random.default_rng(seed).permutation(len(groups))
    order = shuffled[np.lexsort((rarest[shuffled], -counts[shuffled, -1]))]
    dealt = np.zeros((len(names), counts.shape[1]))
    part_of = np.zeros(len(dataset), np.int64)
    members = list(groups.values())
    for left, group in zip(range(len(order), 0, -1), order, strict=True):
        cost = ((dealt + counts[group] / 2) * counts[group] / totals).sum(1) / shares
        empty = dealt[:, -1] == 0
        if empty.sum() == left:  # as many groups as parts that have none yet
            cost[~empty] = np.inf
        part = int(cost.argmin())
        dealt[part] += counts[group]
        part_of[members[group]] = part
    return {
        name: replace(dataset, samples=[dataset.samples[number] for number in np.flatnonzero(part_of == part).tolist()])
        for part, name in enumerate(names)
    }


def _find_group(path: Path, group_by: Callable[[Path], str] | str | None) -> str:
    if group_by is None:
        return str(path)
    if callable(group_by):
        return group_by(path)
    if group_by == "folder":
        return str(path.parent)
    try:
        match = re.search(group_by, path.as_posix())
    except re.error as error:
        raise DataError(f"group_by: expected a regular expression, got {group_by!r}: {error}") from error
    if match is None:
        raise DataError(f"group_by: {group_by!r} does not match {path}")
    return match[1] if match.re.groups else match[0]
