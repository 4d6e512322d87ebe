"""Where a YOLO dataset states its classes and splits: data.yaml, Darknet's obj.data, or folders beside classes.txt."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from ..errors import AnnotationError, MissingDataError
from .files import Finder, read_lines, read_text

__all__ = ["CLASS_FILES", "SPLITS", "YOLO_FILES", "Layout", "find_layout", "read_layout"]

YOLO_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml", "data_config.yaml", "obj.data")
"""Names of the file that describes a dataset, in this order."""

CLASS_FILES = ("classes.txt", "obj.names", "labels/classes.txt", "data/obj.names", "predefined_classes.txt")
"""Lists of classes of datasets without such a file, one a line: the numbers of classes are those of the lines."""

SPLITS = ("train", "val", "valid", "test")
"""Keys that are splits even if they lead nowhere, and folders that are; other keys may state anything."""

MAX_YAML = 1_000_000
"""Characters of a description, which take seconds to parse; ten thousand classes need a fifth."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a YOLO dataset states of itself.

    file: what describes it, for messages. root: its folder. top: the folder that its splits count from.
    names: class number -> name. sources: split -> folders, or lists of images (.txt). keypoints: numbers of a line
    that are keypoints' and not a box's.
    """

    file: Path
    root: Path
    top: Path
    names: Mapping[int, str]
    sources: Mapping[str, Sequence[str]]
    keypoints: int = 0


def find_layout(root: Path) -> Path | None:
    """The file that describes a dataset: root itself, or the one in it; of a folder with classes alone, their list."""
    if root.is_file():
        return root
    for name in (*YOLO_FILES, *CLASS_FILES):
        if (root / name).is_file():
            return root / name
    others = [
        path for path in sorted(root.glob("*.y*ml")) if re.search(r"(?m)^names\s*:", read_text(path, lenient=True))
    ]
    return others[0] if len(others) == 1 else None


def read_layout(root: Path) -> Layout:
    """What a dataset's folder, or the file that describes it, states."""
    file = find_layout(root)
    if file is None or not file.is_file():
        tried = ", ".join((*YOLO_FILES[:1], *YOLO_FILES[-1:], *CLASS_FILES[:2]))
        hint = f": expected one of {tried}" if root.is_dir() else ""
        raise MissingDataError(f"{root}: no such file{hint}")
    if file.suffix in (".yaml", ".yml"):
        return _read_yaml(file)
    if file.suffix == ".data":
        return _read_darknet(file)
    names = dict(enumerate(filter(None, read_lines(file))))
    return Layout(file, root, root, _check_names(file, names), _find_folders(root))


class _Loader(yaml.SafeLoader):
    """Without aliases of lists and mappings: ten lines of these are a billion items."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if alias and isinstance(node, yaml.CollectionNode):
            raise yaml.YAMLError(f"an alias of a list or mapping: expected it written out{node.start_mark}")
        return node


def _read_yaml(file: Path) -> Layout:
    text = read_text(file)
    if len(text) > MAX_YAML:
        raise AnnotationError(f"{file}: expected at most {MAX_YAML:,} characters, got {len(text):,}")
    try:
        described = yaml.load(text, _Loader)
    # PyYAML raises other errors on values such as "2001-99-99", and on a wrong value behind a tag such as "!!int".
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise AnnotationError(f"{file}: broken YAML: {' '.join(str(error).split())}") from error
    if not isinstance(described, dict):
        raise AnnotationError(f"{file}: expected keys and values, got {type(described).__name__}")
    names = _check_names(file, described.get("names"))
    if "nc" in described and str(described["nc"]) != str(len(names)):
        raise AnnotationError(f"{file}: nc is {described['nc']!r}, but names has {len(names)}")
    top = file.parent / str(described.get("path") or "")
    sources: dict[str, list[str]] = {}
    for key, value in described.items():
        row = value if isinstance(value, list) else [value]
        if key not in ("path", "names", "nc") and row and all(isinstance(one, str) and one for one in row):
            sources[str(key)] = row
    shape = described.get("kpt_shape")
    sides = shape if isinstance(shape, list) and len(shape) == 2 else [0, 0]
    keypoints = sides[0] * sides[1] if all(type(side) is int and side > 0 for side in sides) else 0
    return Layout(file, file.parent, top if os.path.isdir(top) else file.parent, names, sources, keypoints)


def _read_darknet(file: Path) -> Layout:
    """obj.data: lines "classes = 2", "train = data/train.txt", "valid = ...", "names = data/obj.names"."""
    pairs = (line.partition("=") for line in read_lines(file))
    described = {key.strip(): value.strip() for key, _, value in pairs if value.strip()}
    root = file.parent
    finder = Finder(root, False, lambda problem: None)
    listed = finder.find(described.get("names", "obj.names"), [root], str(file))
    if listed is None:
        raise MissingDataError(f"{file}: names: no such file {described.get('names')!r}")
    names = _check_names(listed, dict(enumerate(filter(None, read_lines(listed)))))
    sources = {key: [value] for key, value in described.items() if key in SPLITS}
    return Layout(file, root, root, names, sources)


def _find_folders(root: Path) -> dict[str, list[str]]:
    """The splits of a dataset that has none written down: folders called train and so on, else "all"."""
    splits: dict[str, list[str]] = {}
    for top in (".", "images"):
        for name in SPLITS:
            if os.path.isdir(root / top / name):
                splits.setdefault(name, []).append(os.path.normpath(os.path.join(top, name)))
        for name in SPLITS:
            if os.path.isfile(root / top / f"{name}.txt"):
                splits.setdefault(name, []).append(os.path.normpath(os.path.join(top, f"{name}.txt")))
    lists = [name for name in ("images.txt",) if (root / name).is_file()]
    whole = lists or (["images"] if (root / "images").is_dir() else ["."])
    return splits or {"all": whole}


def _check_names(file: Path, names: object) -> dict[int, str]:
    """Class number -> name, by number."""
    pairs = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(pairs, dict) or not pairs:
        raise AnnotationError(f"{file}: names: expected a list, or numbers with names, got {names!r:.80}")
    classes: dict[int, str] = {}
    for key, name in pairs.items():
        number = int(key) if isinstance(key, str) and key.isdecimal() else key
        if type(number) is not int or number < 0 or number in classes:
            raise AnnotationError(f"{file}: names: expected numbers from 0, each once, got {key!r}")
        if type(name) not in (str, int) or str(name) in classes.values():
            what = f"expected text, each once (in quotes where needed), got {name!r}"
            raise AnnotationError(f"{file}: names[{number}]: {what}")
        classes[number] = str(name)
    return dict(sorted(classes.items()))
