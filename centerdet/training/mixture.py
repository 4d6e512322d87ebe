"""Several datasets as one training set: the union of classes, the labeled classes of each image, and its draw rate.

Datasets may label different classes. On an image, a class that its dataset does not label is neither object nor
background. This is similar to the federated loss of LVIS (Gupta et al. 2019).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data.formats import keep_classes, read_dataset
from ..data.records import PLAIN, ReadOptions
from ..data.sample import Dataset, Sample
from ..errors import ConfigError
from ..text import plural
from .config import PRESETS

__all__ = ["Mixture", "choose_preset", "mix", "parse_source", "read_mixture"]


@dataclass(frozen=True, eq=False)
class Mixture:
    """The images to train on.

    datasets: with labels that index `names`. samples: the N samples of all datasets. labeled: (N, C) bool, the classes
    that are annotated on each image. weights: (N,), the probability of drawing each image, with a sum of 1.
    """

    datasets: Sequence[Dataset]
    samples: Sequence[Sample]
    names: tuple[str, ...]
    labeled: NDArray[np.bool_]
    weights: NDArray[np.float64]


def parse_source(text: str, splits: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """PATH or PATH=SPLIT,SPLIT as a path and its splits; `splits` if none are given."""
    path, sign, named = text.rpartition("=")
    if not sign or Path(text).exists():
        return text, tuple(splits)
    return path, tuple(one for one in named.split(",") if one)


def read_mixture(
    sources: Sequence[str],
    splits: Sequence[str],
    names: Sequence[str] = (),
    *,
    shares: Sequence[float] = (),
    balance: float = 0.0,
    notice: Callable[[str], object],
    strict: bool = False,
    options: ReadOptions = PLAIN,
) -> Mixture:
    """Read datasets, each PATH or PATH=SPLIT,SPLIT, and `mix` them.

    notice: called with each message for the user. strict: raise an error for data that would otherwise be repaired or
    left out. options: of the readers, but that an image that a list repeats is drawn more often.
    """
    options = replace(options, repeats="keep")
    parsed = [parse_source(source, splits) for source in sources]
    places = [(Path(path).resolve(), split) for path, chosen in parsed for split in chosen]
    if twice := next((place for place in places if places.count(place) > 1), None):
        raise ConfigError(f"data: expected each dataset and split once, got {twice[0]} ({twice[1]}) twice")
    datasets = [read_dataset(path, chosen, notice=notice, strict=strict, options=options) for path, chosen in parsed]
    for path, dataset in zip(sources, datasets, strict=True):
        if not len(dataset):
            raise ConfigError(f"data: expected at least one image, got none in {path}")
    mixture = mix(datasets, names, shares=shares, balance=balance)
    for source, (_, chosen), dataset in zip(sources, parsed, mixture.datasets, strict=True):
        if dataset.left_out:
            others = ", ".join(f"{name} ({plural(number, 'object')})" for name, number in dataset.left_out.items())
            where = " + ".join(chosen) if len(sources) == 1 else source
            notice(f"{where}: classes not in `names` are treated as background: {others}")
    for source, dataset in zip(sources, datasets, strict=True):
        elsewhere = {name for other in datasets if other is not dataset for name in other.names}
        if elsewhere and not elsewhere & set(dataset.names):
            notice(f"{source}: shares no class with the other datasets: {list(dataset.names)}")
    folded: dict[str, str] = {}
    for name in dict.fromkeys(name for dataset in datasets for name in dataset.names):
        other = folded.setdefault(" ".join(name.casefold().split()), name)
        if other != name:
            notice(f"names: {other!r} and {name!r} are two classes; rename one if they are meant to be the same")
    return mixture


def mix(
    datasets: Sequence[Dataset], names: Sequence[str] = (), *, shares: Sequence[float] = (), balance: float = 0.0
) -> Mixture:
    """One training set from several datasets.

    Args:
        names: the classes in their order; by default all, in order of appearance.
        shares: relative number of draws of each dataset, in any unit; by default its number of images.
        balance: with 0, all images of a dataset are drawn equally often. With 1, an image whose rarest class is on a
            tenth as many images as the most common class is drawn ten times as often. Frequencies are counted on images
            where the class is labeled.
    """
    names = tuple(names) or tuple(dict.fromkeys(name for dataset in datasets for name in dataset.names))
    kept = keep_classes(datasets, names)
    samples = [sample for dataset in kept for sample in dataset.samples]
    source = np.repeat(np.arange(len(kept)), [len(dataset) for dataset in kept])
    labeled = np.array([[name in dataset.names for name in names] for dataset in datasets])[source]
    if not labeled.any(1).all():
        lacking = datasets[int(source[labeled.any(1).argmin()])]
        raise ConfigError(
            f"data: a dataset has none of the classes {list(names)}; its classes are {list(lacking.names)}"
        )
    share = np.bincount(source).astype(float)
    if shares:
        if len(shares) != len(datasets) or min(shares) < 0 or not 0 < sum(shares) < np.inf:
            expected = f"{plural(len(datasets), 'number')} of 0 or more, one for each dataset"
            raise ConfigError(f"shares: expected {expected}, got {list(shares)}")
        share = np.asarray(shares, float)

    present = np.zeros_like(labeled)
    for row, sample in zip(present, samples, strict=True):
        row[sample.labels[~sample.ignored]] = True
    frequency = present.sum(0) / np.maximum(labeled.sum(0), 1)
    rarity = (frequency.max(initial=0) / np.where(frequency > 0, frequency, np.inf)) ** balance
    weights = np.where(present, rarity, 1.0).max(1, initial=1.0)
    weights *= (share / share.sum() / np.bincount(source, weights))[source]
    return Mixture(kept, samples, names, labeled, weights / weights.sum())


def choose_preset(sources: Sequence[str], splits: Sequence[str], options: ReadOptions = PLAIN) -> str:
    """The preset whose number of images is nearest to that of these datasets, read without messages."""
    options = replace(options, repeats="keep")
    parsed = (parse_source(source, splits) for source in sources)
    count = sum(len(read_dataset(*one, notice=lambda _: None, options=options)) for one in parsed)
    return min(PRESETS, key=lambda name: abs(math.log(max(1, count) / PRESETS[name][0])))
