"""YOLO: label files with lines "class cx cy width height" in fractions of the image's sides, read and written.

A label file's path is its image's with the last folder `images` called `labels`, or it lies beside the image; without
one the image is empty. `yolo_layout` reads where a dataset states its classes and splits.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from ..errors import DataError, MissingDataError
from ..files import is_companion
from ..text import as_tuple, plural
from .files import Finder, find_images, read_lines, read_text
from .problems import Problem, Report, fail, val_hint
from .records import PLAIN, Item, ReadOptions, Record, assemble, report_similar
from .sample import Dataset
from .writing import Entry, Placing, prepare, write_files
from .yolo_layout import SPLITS, YOLO_FILES, Layout, read_layout

__all__ = ["label_lines", "list_yolo_splits", "list_yolo_unpaired", "read_yolo", "write_yolo"]

DIGITS = 8
"""Of a fraction of a side: 1e-4 px in an image of 10,000 px."""


def read_yolo(
    root: str | Path,
    splits: Sequence[str],
    names: Sequence[str] | None = None,
    *,
    report: Report = fail,
    options: ReadOptions = PLAIN,
) -> Dataset:
    """Read splits of a YOLO dataset.

    root: the file that describes it (data.yaml, obj.data), or the folder that holds it. Its `names` are a list, or
        numbers with names (taken by number, gaps allowed); `path` is the folder that the splits count from, else the
        file's own. Without such a file, classes.txt has one class a line, and folders are the splits.
    splits: keys such as "train" and "val", each a folder, a list of images (.txt), or several of these.
    names: the classes in their order; else the dataset's.
    report: called with each problem; the object or image concerned is left out. By default the first one raises.

    The header of each image with objects is read for its size. Of a polygon or keypoints the box is read, of a sixth
    column (a track or a confidence) nothing.
    """
    layout = read_layout(Path(root))
    order = tuple(layout.names.values()) if names is None else as_tuple(names)
    report_similar(layout.file, tuple(layout.names.values()), report)
    if not splits:
        raise DataError(f"{layout.file}: expected at least one split, such as train: images/train")
    finder = Finder(layout.root, options.allow_outside, report)
    splits = as_tuple(splits)

    def items() -> Iterator[Item]:
        for split in splits:
            images = _list_images(layout, split, finder, report)
            if not images:
                report(Problem("empty split", f"{layout.file}: {split}", "the split has no image"))
            bare: list[Path] = []
            before: tuple[Path, Path | None] | None = None  # the image before: two of one stem come one after the other
            for where, path in images:
                file = _find_label_file(path, layout, finder)
                if file is None:
                    bare.append(path)
                elif before is not None and file == before[1] and path != before[0]:
                    what = f"{path.name} has the labels of another image of this name: {file}"
                    report(Problem("shared label file", where, what))
                before = path, file
                records = _read_labels(file, layout, report) if file is not None else []
                if records is not None:
                    yield Item(where, path, None, records, fractions=True)
            if bare:
                what = f"{plural(len(bare), 'image')} of {len(images)} without label file, such as {bare[0]}"
                kind = "missing annotation" if len(bare) == len(images) else "no label file"
                report(Problem(kind, f"{layout.file}: {split}", what, "refused" if kind[0] == "m" else ""))

    return assemble(items(), order, options, report, layout.names.values())


def write_yolo(
    dataset: Dataset, root: str | Path, split: str, *, placing: Placing = "copy", add: bool = False
) -> dict[str, int]:
    """Write a dataset as images/<split>/, labels/<split>/ and its lines in data.yaml; count what was written and lost.

    The format has neither difficult objects nor crowds: the former become objects like others, the latter are left
    out, and both are counted. root must be new or empty, or `add`.
    """
    root, index_file = Path(root), YOLO_FILES[0]
    prepared = prepare(dataset, split, real_size=True)
    described: dict[str, Any] = {split: f"images/{split}"}
    if add and (root / index_file).exists():
        present = read_layout(root / index_file)
        if tuple(present.names.values()) != dataset.names:
            raise DataError(f"{present.file}: names: expected those of the new split, {list(dataset.names)}")
        described = yaml.safe_load(read_text(present.file)) | described
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


def list_yolo_splits(root: Path) -> list[str]:
    """The keys of a dataset's description that lead to images, or should."""
    layout = read_layout(root)
    finder = Finder(layout.root, False, lambda problem: None)
    return [
        key
        for key, sources in layout.sources.items()
        if key in SPLITS or any(_find_source(layout, finder, source, str(layout.file)) for source in sources)
    ]


def list_yolo_unpaired(root: Path, splits: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """(file, what) of each label file, in the folders that the splits use, that has no image of the splits."""
    layout = read_layout(root)
    finder = Finder(layout.root, True, lambda problem: None)
    images = (path for split in splits for _, path in _list_images(layout, split, finder, lambda problem: None))
    used = {file for path in images if (file := _find_label_file(path, layout, finder)) is not None}
    for folder in sorted({path.parent for path in used}):
        for path in sorted(folder.glob("*.txt")):
            if path not in used and path.name != "classes.txt" and not is_companion(path.name):
                yield path, "no image of the splits"


def _find_source(layout: Layout, finder: Finder, source: str, where: str) -> Path | None:
    """The folder or list of images that a description names."""

    def test(path: str) -> bool:
        return os.path.isdir(path) or (path.endswith(".txt") and os.path.isfile(path))

    if not finder.is_inside(str(layout.top)) and os.path.exists(path := layout.root / source) and test(str(path)):
        return path  # `path:` is of another machine
    return finder.find(source, dict.fromkeys([layout.top, layout.root]), where, test=test)  # type: ignore[arg-type]


def _list_images(layout: Layout, split: str, finder: Finder, report: Report) -> list[tuple[str, Path]]:
    """(where it is named, path) of each image of a split."""
    file = layout.file
    if split not in layout.sources:
        known = f"; known are {list(layout.sources)}{val_hint(split)}"
        raise DataError(f"{file}: {split}: expected the path of a folder or list, got None{known}")
    images: list[tuple[str, Path]] = []
    for source in layout.sources[split]:
        path = _find_source(layout, finder, source, f"{file}: {split}")
        if path is None:
            raise MissingDataError(f"{file}: {split}: no such folder or list {layout.top / source}{val_hint(split)}")
        if os.path.isdir(path):
            images += [(str(image), image) for image in find_images(path, report)]
            continue
        folders = list(dict.fromkeys([path.parent, layout.top, layout.root]))
        for number, line in enumerate(read_lines(path, lenient=True), 1):
            where = f"{path}:{number}"
            line = line[1:-1] if line[:1] == line[-1:] == '"' else line
            image = finder.find(line, folders, where) if line else None
            if image is not None:
                images.append((where, Path(os.path.normpath(image))))
            elif ".." in line.replace("\\", "/").split("/"):
                report(Problem("refused path", where, f"{line!r} leads out of the folder"))
            elif line and line[0] != "#":
                images.append((where, path.parent / line))
    return images


def _find_label_file(image: Path, layout: Layout, finder: Finder) -> Path | None:
    """The file of an image's labels: in the folder labels for the last one called images, or beside the image."""
    parts = image.parent.parts
    inside = len(layout.top.parts) if image.is_relative_to(layout.top) else 0
    places = [place for place, part in enumerate(parts) if part.casefold() == "images" and place >= inside]
    tried = [image.parent]
    if places:
        changed = ("labels", "Labels") if parts[places[-1]] != "images" else ("labels",)
        tried[:0] = [Path(*parts[: places[-1]], one, *parts[places[-1] + 1 :]) for one in changed]
    for folder in tried:
        for name in (f"{image.stem}.txt", f"{image.name}.txt"):
            path = os.path.join(folder, name)
            if (match := path if os.path.isfile(path) else finder.spelled(path)) is not None:
                return Path(match)
    return None


def _read_labels(file: Path, layout: Layout, report: Report) -> list[Record] | None:
    try:
        lines = read_lines(file)
    except DataError as error:
        report(Problem("broken annotation", str(file), str(error).removeprefix(f"{file}: ")))
        return None
    records = []
    for row, line in enumerate(lines, 1):
        if words := line.split():
            where = f"{file}:{row}"
            try:
                number, *sides = map(float, words)
            except ValueError:
                sides = []
            if (given := _box_of(sides, words, layout.keypoints, where, report)) is None:
                what = f"expected five numbers, class cx cy width height, got {len(words)}: {line!r:.80}"
                report(Problem("broken annotation", where, what))
                continue
            x, y, across, down = given
            if number not in layout.names:
                what = f"class {words[0]}: expected one of 0 to {max(layout.names)}, as {layout.file.name} names them"
                report(Problem("unknown class", where, what))
                continue
            hint = ": expected fractions of the sides, 0 to 1; are these pixels?" if max(map(abs, sides)) > 2 else ""
            box = (x - across / 2, y - down / 2, x + across / 2, y + down / 2)
            lost = ["keypoints"] if layout.keypoints and len(sides) > 4 else []
            records.append(Record(where, layout.names[int(number)], box, words[1:], hint=hint, lost=lost))
    return records


def _box_of(sides: list[float], words: list[str], keypoints: int, where: str, report: Report) -> list[float] | None:
    """cx, cy, width and height of a line's numbers after the class; None where it has none."""
    if len(sides) == 4 or (keypoints and len(sides) == 4 + keypoints):
        return sides[:4]
    if len(sides) == 5:
        kind = "confidence" if 0 <= sides[4] <= 1 and not words[5].isdecimal() else "track"
        report(Problem("extra column", where, f"the sixth column, {words[5]}, is not read: a {kind}?"))
        return sides[:4]
    if len(sides) >= 6 and len(sides) % 2 == 0:
        report(Problem("box of a polygon", where, f"the box of {plural(len(sides) // 2, 'point')} is read"))
        left, top, right, bottom = min(sides[::2]), min(sides[1::2]), max(sides[::2]), max(sides[1::2])
        return [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    return None
