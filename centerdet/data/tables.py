"""Tables (CSV) with one box a row, read only: Open Images, VoTT, TensorFlow's and others that have titles."""

import csv
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

from ..errors import AnnotationError
from ..files import walk_files
from .coco_records import to_size
from .files import Finder, find_images, read_text
from .problems import Report
from .records import Item, Record, to_number

__all__ = ["list_tables", "read_tables"]

COLUMNS = {
    "image": ("image", "filename", "file_name", "imageid", "image_id", "path"),
    "label": ("label", "class", "labelname", "class_name", "name"),
    "xmin": ("xmin", "x1", "left"), "ymin": ("ymin", "y1", "top"),
    "xmax": ("xmax", "x2", "right"), "ymax": ("ymax", "y2", "bottom"),
}  # fmt: skip
"""The columns of a table of boxes, and what tools call them (in lower case)."""


def _columns(path: Path) -> dict[str, str] | None:
    """Column -> its title in a table; None where it is no table of boxes."""
    with path.open("rb") as file:
        start = file.read(4096).decode("utf-8-sig", "replace")
    first = next(iter(start.splitlines()), "")
    titles = {title.strip().casefold(): title for title in next(_rows(path, first), [])}
    columns = {column: titles[name] for column, names in COLUMNS.items() for name in names[::-1] if name in titles}
    return columns if len(columns) == len(COLUMNS) else None


def _rows(path: Path, text: str) -> Iterator[list[str]]:
    try:
        lines = text.splitlines()
        delimiter = max(",;\t", key=lines[0].count) if lines else ","
        yield from csv.reader(lines, delimiter=delimiter)
    except csv.Error as error:
        raise AnnotationError(f"{path}: broken table: {error}") from error


def list_tables(root: Path) -> dict[str, list[Path]]:
    """The tables of boxes: by folder, or by the words of their names before "-annotations-bbox" (Open Images)."""
    if root.is_file():
        return {"all": [root]}
    tables = [path for path in walk_files(root, (".csv",)) if _columns(path) is not None]
    splits: dict[str, list[Path]] = {}
    for path in tables:
        folder = path.relative_to(root).parts[0] if path.parent != root else ""
        word = path.stem.partition("-annotations-bbox")[0].removeprefix("oidv6-").removeprefix("oidv7-")
        name = word if word != path.stem else folder or ("all" if len(tables) == 1 else path.stem)
        splits.setdefault(name, []).append(path)
    return splits


def read_tables(paths: Sequence[Path], finder: Finder, report: Report) -> Iterator[Item]:
    """One row a box. Open Images' (ImageID, LabelName, fractions) have names in class-descriptions-boxable.csv."""
    for path in paths:
        titles = _columns(path)
        if titles is None:
            wanted = ", ".join(COLUMNS)
            raise AnnotationError(f"{path}: expected a table with the columns {wanted}, got other titles")
        described = titles["label"].casefold() == "labelname"
        names = _read_descriptions(finder.root) if described else {}
        stems = {image.stem: image for image in find_images(finder.root, report)} if described else {}
        images: dict[str, list[Record]] = {}
        sizes: dict[str, tuple[int, int] | None] = {}
        head, *rows = _rows(path, read_text(path))
        for number, values in enumerate(rows, 2):
            row = dict(zip_longest(head, values[: len(head)], fillvalue=""))
            where, records = f"{path}:{number}", images.setdefault(row[titles["image"]], [])
            sizes[row[titles["image"]]] = to_size({name.strip().casefold(): value for name, value in row.items()})
            sides = [row[titles[key]] for key in ("xmin", "ymin", "xmax", "ymax")]
            if not any(sides):  # a row without a box is an image without objects
                continue
            left, top, right, bottom = (to_number(side, where, lambda problem: None) for side in sides)
            name = row[titles["label"]]
            lost = [key[2:].lower() + " flags" for key in ("IsOccluded", "IsTruncated") if row.get(key) == "1"]
            crowd = row.get("IsGroupOf") == "1"
            box = (left, top, right, bottom)
            records.append(Record(where, names.get(name, name), box, sides, crowd=crowd, lost=lost))
        for name, records in images.items():
            where = f"{path}: {name}"
            image = stems.get(name) if described else finder.find(name, [path.parent, finder.root], where)
            yield Item(where, image or path.parent / name, sizes[name], records, fractions=described)


def _read_descriptions(root: Path) -> dict[str, str]:
    """Open Images' class codes -> names."""
    for file in walk_files(root, (".csv",)):
        if "class" in file.stem and _columns(file) is None:
            rows = _rows(file, read_text(file))
            return {row[0]: row[1] for row in rows if len(row) == 2 and row[0].startswith("/")}
    return {}
