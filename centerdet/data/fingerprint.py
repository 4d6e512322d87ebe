"""A dataset's contents, wherever it lies: whether a resumed training continues with the data that it began with."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..text import plural
from .sample import Dataset, Sample

__all__ = ["dataset_fingerprint", "describe_changes"]

NAMED = 3
"""Images that a description of changes names at most."""


def dataset_fingerprint(dataset: Dataset) -> dict[str, Any]:
    """The classes, and each image's name below the images' common folder with a digest of its file size and objects.

    JSON's types alone. A dataset that was moved, renamed or is named by another path has the same; the order of the
    images counts, since draws follow from it. Pixels are not read: an image that was edited to the same number of
    bytes is not noticed.
    """
    paths = [os.path.abspath(sample.path) for sample in dataset.samples]
    folder = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
    images = [  # os.path.relpath would take as long as the digest
        [path[len(folder) :].lstrip(os.sep).replace(os.sep, "/"), _digest(sample)]
        for path, sample in zip(paths, dataset.samples, strict=True)
    ]
    return {"names": list(dataset.names), "images": images}


def describe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two fingerprints, in one line with numbers and examples; empty if nothing does."""
    changes = []
    if list(before["names"]) != list(now["names"]):
        old_names, new_names = str(list(before["names"])), str(list(now["names"]))
        changes.append(f"classes {old_names:.1000} are now {new_names:.1000}")
    old, new = (dict(map(tuple, one["images"])) for one in (before, now))
    kinds = {
        "removed": [name for name in old if name not in new],
        "added": [name for name in new if name not in old],
        "changed": [name for name in new if name in old and new[name] != old[name]],
    }
    if sorted(old.values()) == sorted(new.values()) and not kinds["changed"]:  # renamed files, no more
        kinds = {}
    for what, names in kinds.items():
        if names:
            more = ", …" * (len(names) > NAMED)
            changes.append(f"{plural(len(names), 'image')} {what} ({', '.join(names[:NAMED])}{more})")
    if not changes and [digest for _, digest in before["images"]] != [digest for _, digest in now["images"]]:
        changes.append("the images are in another order, or repeated otherwise")
    return "; ".join(changes)


def _digest(sample: Sample) -> str:
    """16 hexadecimal digits of the file's size, the boxes to 0.01 px, labels and flags."""
    try:
        size = os.path.getsize(sample.path)
    except OSError:
        size = -1
    digest = hashlib.sha256(str(size).encode())
    arrays: Sequence[np.ndarray[Any, Any]] = (
        np.round(sample.boxes * 100), sample.labels, sample.difficult, sample.crowd,
    )  # fmt: skip
    for array in arrays:
        digest.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
    return digest.hexdigest()[:16]
