"""YOLO: data.yaml, images/ and labels/*.txt with lines "class cx cy width height" in parts of the image's sides.

A label file's path is its image's with the last folder `images` called `labels`; without one the image is empty.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from ..errors import AnnotationError, DataError, ImageError
from ..images import read_size
from ..text import as_tuple, plural
from .files import Entry, Placing, find_images, prepare, read_lines, read_text, write_files
from .problems import Problem, Report, fail
from .records import Record, build_sample
from .sample import Dataset, Sample

__all__ = ["YOLO_FILES", "label_lines", "list_label_files", "list_yolo_splits", "read_yolo", "write_yolo"]

YOLO_FILES = ("data.yaml", "data.yml", "dataset.yaml")
"""How the file that describes a dataset is called, in this order."""

SPLITS = ("train", "val", "test")
"""Keys that are splits even if they lead nowhere; others may say anything."""

DIGITS = 8
"""Of a part of a side: 1e-4 px in a image of 10,000 px."""


def read_yolo(
    root: str | Path, splits: Sequence[str], names: Sequence[str] | None = None, *, report: Report = fail
) -> Dataset:
    """Read splits of a YOLO dataset.

    root: the YAML file, or the folder that holds it as data.yaml. Its `names` are a list, or numbers with names (taken
        by number, gaps allowed); `path` is the folder that the splits count from, else the file's own.
    splits: keys such as "train" and "val", each a folder, a list of images (.txt), or several of these.
    names: the classes in their order; else the file's.
    report: gets each problem; reading goes on without the object or image concerned. By default the first one raises.

    The header of each image with objects is read for its size. A box may stick out by 1 px and is clipped then.
    """
    file, top, described = _open(Path(root))
    classes = _read_names(file, described)
    order = tuple(classes.values()) if names is None else as_tuple(names)
    index = {name: label for label, name in enumerate(order)}
    if not splits:
        raise DataError(f"{file}: want at least one split, such as train: images/train")
    samples: dict[Path, Sample] = {}
    for split in as_tuple(splits):
        images = _list_images(file, top, described, split, report)
        if not images:
            report(Problem("empty split", f"{file}: {split}", "the split has no image"))
        label_files = [_find_label_file(path, top) for _, path in images]
        bare = [path for path in label_files if not path.is_file()]
        if bare:
            what = f"{plural(len(bare), 'image')} of {len(images)} without label file, such as {bare[0]}"
            kind = "missing annotation" if len(bare) == len(images) else "no label file"
            report(Problem(kind, f"{file}: {split}", what))
        for (where, path), label_file in zip(images, label_files, strict=True):
            if path in samples:
                report(Problem("listed twice", where, f"{path} is in the splits already"))
            elif not path.is_file():
                report(Problem("missing image", where, f"no image {path}"))
            else:
                sample = _read_sample(path, label_file, classes, index, report)
                samples |= {path: sample} if sample is not None else {}
    return Dataset(list(samples.values()), order)


def write_yolo(
    dataset: Dataset, root: str | Path, split: str, *, placing: Placing = "copy", add: bool = False
) -> dict[str, int]:
    """Write a dataset as images/<split>/, labels/<split>/ and its lines in data.yaml; count what was written and lost.

    The format knows neither difficult objects nor crowds: the former become objects like others, the latter are left
    out, and both are counted. root must be new or empty, or `add`.
    """
    root, index_file = Path(root), YOLO_FILES[0]
    prepared = prepare(dataset, split, real_size=True)
    described: dict[str, Any] = {split: f"images/{split}"}
    if add and (root / index_file).exists():
        file, _, present = _open(root / index_file)
        if tuple(_read_names(file, present).values()) != dataset.names:
            raise DataError(f"{file}: names: want those of the new split, {list(dataset.names)}")
        described = {**present, **described}
    described |= {"names": dict(enumerate(dataset.names))}
    entries: list[Entry] = []
    for sample, name, (height, width) in prepared:
        kept = ~sample.crowd
        lines = label_lines(sample.boxes[kept], sample.labels[kept], (height, width))
        entries.append((f"images/{split}/{name}", sample.path))
        entries.append((f"labels/{split}/{Path(name).stem}.txt", lines.encode()))
    text = yaml.safe_dump(described, sort_keys=False, allow_unicode=True)
    write_files(root, [*entries, (index_file, text.encode())], placing, add, replace=[index_file])
    crowds = sum(int(sample.crowd.sum()) for sample, _, _ in prepared)
    return {
        "images": len(prepared),
        "objects": sum(len(sample.boxes) for sample, _, _ in prepared) - crowds,
        "difficult flags lost": sum(int((sample.difficult & ~sample.crowd).sum()) for sample, _, _ in prepared),
        "crowd regions left out": crowds,
    }


def label_lines(
    boxes: NDArray[np.floating],
    labels: NDArray[np.int64],
    size: tuple[int, int],
    scores: NDArray[np.floating] | None = None,
) -> str:
    """Lines "class cx cy width height" of boxes (N, 4) in an image of (height, width); scores come last if given."""
    height, width = size
    fractions = boxes.astype(np.float64) / [width, height, width, height]
    columns = [(fractions[:, :2] + fractions[:, 2:]) / 2, fractions[:, 2:] - fractions[:, :2]]
    rows = np.concatenate(columns if scores is None else [*columns, scores[:, None]], axis=1).tolist()
    lines = zip(labels.tolist(), rows, strict=True)
    return "".join(f"{label} {' '.join(f'{part:.{DIGITS}f}' for part in row)}\n" for label, row in lines)


def _open(root: Path) -> tuple[Path, Path, Mapping[str, Any]]:
    """The YAML file of a dataset, the folder that its splits count from, and what it says."""
    file = root
    if root.suffix not in (".yaml", ".yml"):
        file = next((root / name for name in YOLO_FILES if (root / name).is_file()), root / YOLO_FILES[0])
    if not file.is_file():
        raise DataError(f"{file}: no such file")
    try:
        described = yaml.safe_load(read_text(file))
    except (yaml.YAMLError, RecursionError) as error:
        raise AnnotationError(f"{file}: broken YAML: {' '.join(str(error).split())}") from error
    if not isinstance(described, dict):
        raise AnnotationError(f"{file}: want keys and values, got {type(described).__name__}")
    top = file.parent / str(described.get("path") or "")
    return file, top if top.is_dir() else file.parent, described


def list_yolo_splits(root: Path) -> list[str]:
    """The keys of a dataset's YAML file that lead to images, or should."""
    _, top, described = _open(root)
    sources = {key: value if isinstance(value, list) else [value] for key, value in described.items() if value}
    return [
        key
        for key in sources
        if key in SPLITS or (key != "path" and any(_locate(top, source) for source in sources[key]))
    ]


def list_label_files(root: Path, splits: Sequence[str]) -> set[Path]:
    """Where the labels of all images that splits name would stand."""
    file, top, described = _open(root)
    found = (_list_images(file, top, described, split, lambda problem: None) for split in splits)
    return {_find_label_file(path, top) for images in found for _, path in images}


def _find_label_file(image: Path, top: Path) -> Path:
    """Where the labels of a image stand."""
    folders = list(image.parent.parts)
    inside = len(top.parts) if image.is_relative_to(top) else 0
    places = [place for place, folder in enumerate(folders) if folder == "images" and place >= inside]
    if places:
        folders[places[-1]] = "labels"
    return Path(*folders, f"{image.stem}.txt")


def _read_names(file: Path, described: Mapping[str, Any]) -> dict[int, str]:
    """Class number -> name, by number."""
    names = described.get("names")
    pairs = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(pairs, dict) or not pairs:
        raise AnnotationError(f"{file}: names: want a list, or numbers with names, got {names!r:.80}")
    classes: dict[int, str] = {}
    for number, name in pairs.items():
        if type(number) is not int or number < 0:
            raise AnnotationError(f"{file}: names: want numbers from 0, got {number!r}")
        if type(name) not in (str, int) or str(name) in classes.values():
            raise AnnotationError(
                f"{file}: names[{number}]: want text, each once (in quotes where needed), got {name!r}"
            )
        classes[number] = str(name)
    if "nc" in described and described["nc"] != len(classes):
        raise AnnotationError(f"{file}: nc is {described['nc']!r}, but names has {len(classes)}")
    return dict(sorted(classes.items()))


def _list_images(
    file: Path, top: Path, described: Mapping[str, Any], split: str, report: Report
) -> list[tuple[str, Path]]:
    """(where it is named, path) of each image of a split."""
    value = described.get(split)
    sources: list[Any] = value if isinstance(value, list) else [value]
    if not all(isinstance(source, str) for source in sources):
        known = [
            key for key, other in described.items() if isinstance(other, str | list) and key not in ("path", "names")
        ]
        raise DataError(f"{file}: {split}: want the path of a folder or list, got {value!r}; known are {known}")
    images: list[tuple[str, Path]] = []
    for source in sources:
        path = _locate(top, source)
        if path is None:
            raise DataError(f"{file}: {split}: no such folder or list {top / source}")
        if path.is_dir():
            images += [(str(image), image) for image in find_images(path)]
        else:
            for number, line in enumerate(read_lines(path), 1):
                where = f"{path}:{number}"
                if ".." in line.replace("\\", "/").split("/"):
                    report(Problem("refused path", where, f"{line!r} leads out of the folder"))
                elif line:
                    images.append((where, path.parent / line))
    return images


def _locate(top: Path, source: object) -> Path | None:
    """The folder or list of images that a YAML file names; some exporters write ../ for the file's own folder."""
    if not isinstance(source, str) or not source:
        return None
    tried = [top / source, *([top / source[3:]] if source.startswith("../") else [])]
    return next((path for path in tried if path.is_dir() or (path.is_file() and path.suffix == ".txt")), None)


def _read_sample(
    image: Path, file: Path, classes: Mapping[int, str], index: Mapping[str, int], report: Report
) -> Sample | None:
    if not file.is_file():
        return Sample(image)
    try:
        lines = [(f"{file}:{number}", line) for number, line in enumerate(read_lines(file), 1) if line]
        height, width = read_size(image) if lines else (1, 1)
    except ImageError as error:
        report(Problem("broken image", str(image), str(error).removeprefix(f"{image}: ")))
        return None
    except DataError as error:
        report(Problem("broken annotation", str(file), str(error).removeprefix(f"{file}: ")))
        return None
    records = []
    for where, line in lines:
        words = line.split()
        try:
            number, x, y, across, down = map(float, words)
        except ValueError:
            what = f"want five numbers, class cx cy width height, got {len(words)}: {line!r:.80}"
            report(Problem("broken annotation", where, what))
            continue
        if number not in classes:
            report(
                Problem(
                    "unknown class", where, f"class {words[0]}: want one of 0 to {max(classes)}, as data.yaml names"
                )
            )
            continue
        box = (
            (x - across / 2) * width,
            (y - down / 2) * height,
            (x + across / 2) * width,
            (y + down / 2) * height,
        )
        hint = ": want parts of the sides, 0 to 1; are these pixels?" if max(x, y, across, down) > 2 else ""
        records.append(Record(where, classes[int(number)], box, words[1:], hint=hint))
    return build_sample(image, (height, width) if records else None, records, index, report)
