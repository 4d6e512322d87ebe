"""The names and ids by which files of detections refer to a dataset's images and classes."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..data.coco_records import Id, as_id, name_of
from ..data.files import load_json
from ..data.sample import Dataset
from ..errors import AnnotationError, DataError
from ..text import nearest

__all__ = ["index_names", "list_ids", "list_stems"]


def _paths(dataset: Dataset) -> list[str]:
    """The path of each sample's image below their common folder, without its suffix."""
    paths = [os.path.abspath(sample.path) for sample in dataset.samples]
    folder = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
    return [Path(os.path.relpath(path, folder)).with_suffix("").as_posix() for path in paths]


def list_stems(dataset: Dataset) -> list[str]:
    """The name of each sample's image without its suffix; where two are equal, the path below their common folder."""
    stems = [sample.path.stem for sample in dataset.samples]
    stems = stems if len(set(stems)) == len(stems) else _paths(dataset)
    if twice := [stem for stem, times in Counter(stems).items() if times > 1]:
        raise DataError(f"several images of the dataset are called {twice[0]!r}, so that results are ambiguous")
    return stems


def index_names(dataset: Dataset) -> dict[str, int]:
    """Every name that means one image alone -> its number: paths and file names, with and without suffix."""
    suffixes = [sample.path.suffix for sample in dataset.samples]
    columns = [_paths(dataset), [sample.path.stem for sample in dataset.samples]]
    columns += [[name + suffix for name, suffix in zip(names, suffixes, strict=True)] for names in columns]
    index: dict[str, int] = {}
    for names in columns:
        counts = Counter(names)
        index |= {name: number for number, name in enumerate(names) if counts[name] == 1 and name not in index}
    return index


def list_ids(dataset: Dataset, annotations: Sequence[str | Path]) -> tuple[list[Id], list[Id]]:
    """The id of each sample and of each class: those of COCO annotations, or else by file name and from 1."""
    if not annotations:
        stems = list_stems(dataset)
        numbers = [int(stem) for stem in stems if re.fullmatch(r"[0-9]{1,12}", stem)]
        ids: list[Id] = [*(numbers if len(set(numbers)) == len(stems) else stems)]
        return ids, list(range(1, len(dataset.names) + 1))
    by_name: dict[str, list[int]] = {}
    for number, sample in enumerate(dataset.samples):
        by_name.setdefault(sample.path.name, []).append(number)
    known: dict[int, Id] = {}
    categories: dict[str, Id | None] = {}
    for file in map(Path, annotations):
        content = load_json(file)
        try:
            images = [(as_id(image["id"]), str(name_of(image)).replace("\\", "/")) for image in content["images"]]
            classes = {category["name"]: as_id(category["id"]) for category in content["categories"]}
        except (KeyError, TypeError) as error:
            raise AnnotationError(f"{file}: expected COCO annotations with images and categories: {error!r}") from error
        for key, name in images:
            numbers = _find_samples(name, by_name, dataset)
            if key is None or len(numbers) > 1 or any(known.get(number, key) != key for number in numbers):
                raise DataError(f"{file}: image {key!r}: several images or ids of the name {name!r}")
            known |= dict.fromkeys(numbers, key)
        if any(categories.get(name, key) != key for name, key in classes.items()):
            raise DataError(f"{file}: its category ids differ from those of the files before")
        categories |= classes
    if lost := [sample.path for number, sample in enumerate(dataset.samples) if number not in known]:
        raise DataError(f"{lost[0]}: the annotations {list(map(str, annotations))} have no such image")
    if len(set(known.values())) < len(known):
        raise DataError("annotations: two images have one id: read one split at a time")
    if unknown := [name for name in dataset.names if name not in categories]:
        raise DataError(f"annotations: no category {unknown[0]!r}; {nearest(unknown[0], categories)}")
    return [known[number] for number in range(len(dataset))], [categories[name] or 0 for name in dataset.names]


def _find_samples(name: str, by_name: Mapping[str, Sequence[int]], dataset: Dataset) -> list[int]:
    """The samples whose path ends like a file name of annotations: by as many of its folders as any of them has."""
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    same = by_name.get(parts[-1] if parts else "", [])
    for start in range(len(parts)):
        end = "/" + "/".join(parts[start:])
        if numbers := [number for number in same if f"/{dataset.samples[number].path.as_posix()}".endswith(end)]:
            return numbers if start == 0 or len(same) == 1 else []
    return []
