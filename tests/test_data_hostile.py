"""Whatever stands in a file, a reader returns a dataset or raises one of the package's errors."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_data_tools import TOOLS

from centerdet.data.formats import find_splits, read_dataset
from centerdet.data.shapes import write_shapes
from centerdet.errors import CenterdetError

scalars = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=5)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


def places(content: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [place for key, inner in pairs for place in ((content, key), *places(inner))]


def read(root: Path) -> None:
    with contextlib.suppress(CenterdetError):
        for split in find_splits(root) or [""]:
            read_dataset(root, [split] if split else [], notice=lambda text: None)


JSON = [tool for tool, (_, form, _) in TOOLS.items() if form in ("coco", "labelme", "vott", "supervisely", "fiftyone")]
TEXT = [tool for tool, (_, form, _) in TOOLS.items() if form in ("voc", "yolo", "csv")]
slow = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("tool", JSON)
@slow
@given(data=st.data())
def test_any_value_in_any_place_of_a_json_file(tmp_path_factory: pytest.TempPathFactory, tool: str, data: Any) -> None:
    root = tmp_path_factory.mktemp("hostile") / "data"
    TOOLS[tool][0](root)
    file = data.draw(st.sampled_from(sorted(root.rglob("*.json"))))
    content = json.loads(file.read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(places(content) or [([0], 0)]))
        if data.draw(st.booleans()):
            container[key] = data.draw(values)
        elif isinstance(container, dict):
            container.pop(key, None)
    file.write_text(json.dumps(content))
    read(root)


@pytest.mark.parametrize("tool", TEXT)
@slow
@given(data=st.data())
def test_any_bytes_in_any_place_of_a_text_file(tmp_path_factory: pytest.TempPathFactory, tool: str, data: Any) -> None:
    root = tmp_path_factory.mktemp("hostile") / "data"
    TOOLS[tool][0](root)
    texts = [
        path for path in sorted(root.rglob("*")) if path.suffix in (".txt", ".xml", ".yaml", ".csv", ".data", ".names")
    ]
    file = data.draw(st.sampled_from(texts))
    content = file.read_bytes()
    start = data.draw(st.integers(0, len(content)))
    stop = data.draw(st.integers(start, min(len(content), start + 40)))
    odd = st.binary(max_size=6) | st.sampled_from(
        [b"nan", b"1e309", b"-1", b"../", b"\n", b"\0", b"<!DOCTYPE a>", b"9" * 5000]
    )
    file.write_bytes(content[:start] + data.draw(odd) + content[stop:])
    read(root)


@pytest.mark.parametrize("tool", TOOLS)
def test_empty_files_and_images_that_are_none(tmp_path: Path, tool: str) -> None:
    for number, suffixes in enumerate(((".jpg",), (".txt", ".xml", ".json", ".csv", ".yaml", ".data", ".names"))):
        root = tmp_path / str(number)
        TOOLS[tool][0](root)
        for path in [path for path in root.rglob("*") if path.suffix in suffixes]:
            path.write_bytes(b"")
        read(root)


@pytest.mark.parametrize("length", [255, 5000, 100_000])
def test_names_longer_than_a_file_system_allows_are_problems(tmp_path: Path, length: int) -> None:
    write_shapes(tmp_path / "data", train=2, val=1, size=32)
    file = tmp_path / "data" / "ImageSets" / "Main" / "train.txt"
    file.write_text(file.read_text() + "9" * length + "\n")
    with pytest.raises(CenterdetError, match="no annotation"):
        read_dataset(tmp_path / "data", ["train"], notice=lambda text: None, strict=True)
