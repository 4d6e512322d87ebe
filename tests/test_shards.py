"""The files of a run with Ray, without Ray: what goes into a list of images and its shards."""

import io
import json
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from tiny import tiny_detector

from centerdet.data.shapes import write_shapes
from centerdet.errors import CenterdetError, ConfigError, DataError
from centerdet.shards import check_options, list_shards, predict_rows, read_rows, write_list, write_rows

pyarrow = pytest.importorskip("pyarrow")
pytest.importorskip("fsspec")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("images") / "drawn"
    write_shapes(root, train=5, val=1, size=64, seed=4)
    return sorted((root / "JPEGImages").iterdir())


def read_list(paths: object, size: int = 2) -> tuple[int, list[str]]:
    file = io.BytesIO()
    count, _ = write_list(paths, file, size)  # type: ignore[arg-type]
    read = parquet.ParquetFile(file)
    assert [read.metadata.row_group(k).num_rows for k in range(read.num_row_groups)][:-1] == [size] * (
        (count - 1) // size
    )
    return count, read.read().column("path").to_pylist()


def test_a_list_is_written_in_its_order_whatever_it_came_from(tmp_path: Path) -> None:
    paths = [f"{number}.jpg" for number in (3, 1, 2, 5, 4)]
    assert read_list(paths) == read_list([Path(path) for path in paths]) == (5, paths)
    for name, part in (("b.parquet", paths[3:]), ("a.parquet", paths[:3])):
        parquet.write_table(pyarrow.table({"size": [0] * len(part), "path": part}), tmp_path / name)
    (tmp_path / "_hidden.parquet").write_bytes(b"")
    assert read_list(tmp_path) == read_list(f"file://{tmp_path}") == (5, paths)
    assert read_list(tmp_path / "a.parquet") == (3, paths[:3])


def test_lists_that_are_none_are_named(tmp_path: Path) -> None:
    for name, column in (("other", "name"), ("nulls", "path")):
        parquet.write_table(pyarrow.table({column: ["a", None]}), tmp_path / f"{name}.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    for paths in (tmp_path / "other.parquet", tmp_path / "broken.parquet", tmp_path / "missing", "unknown://host/a"):
        with pytest.raises(DataError, match="expected Parquet with a column `path`"):
            read_list(paths)
    for paths in (tmp_path / "nulls.parquet", ["a.jpg", 3], ["\udcff.jpg"]):
        with pytest.raises(DataError, match="paths: expected paths in UTF-8 from row 0 on"):
            read_list(paths)
    with pytest.raises(DataError, match="at least one image"):
        read_list([])


def test_rows_are_the_detections_or_the_error_of_each_image(images: list[Path], tmp_path: Path) -> None:
    """Files and URLs of fsspec; the errors of files are those of `predict`."""
    detector = tiny_detector()
    (tmp_path / "broken.jpg").write_bytes(images[0].read_bytes()[:200])
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(images[1], "in.jpg")
        archive.write(tmp_path / "broken.jpg", "broken.jpg")
    Image.open(images[0]).save(tmp_path / "[a] *.mp4", "PNG")  # is neither a pattern nor a video
    inside = [f"zip://{name}::{tmp_path}/all.zip" for name in ("in.jpg", "broken.jpg", "missing.jpg")]
    files = [*images, tmp_path / "broken.jpg", tmp_path / "missing.jpg", tmp_path, tmp_path / "[a] *.mp4"]
    paths = [*map(str, files), f"file://{images[2]}", *inside, "unknown://host/a.jpg"]
    write_rows(tmp_path / "shard.parquet", predict_rows(detector, paths, {"score_threshold": 0.0}))
    columns = ["path", "height", "width", "boxes", "scores", "labels", "names", "error"]
    rows = read_rows(tmp_path / "shard.parquet", columns)
    assert [row["path"] for row in rows] == paths
    for row, source in zip(rows, [*files, images[2], images[1]], strict=False):
        if row["error"] is not None:
            with pytest.raises(CenterdetError) as refused:
                detector.predict(source)
            assert row == dict.fromkeys(columns) | {"path": str(source), "error": str(refused.value)}
            continue
        one = detector.predict(source, score_threshold=0)
        assert len(one) and (row["height"], row["width"]) == one.size
        assert row["boxes"] == one.boxes.tolist() and row["scores"] == one.scores.tolist()
        assert row["labels"] == one.labels.tolist() and row["names"] == one.label_names
    broken = [number for number, row in enumerate(rows) if row["error"] is not None]
    assert broken == [6, 7, 8, 12, 13, 14]
    for row in rows[-3:]:
        assert row["error"].startswith(row["path"])


def test_other_options_are_refused_and_named(tmp_path: Path) -> None:
    options = {"names": ["a", "b"], "images": 5, "shard_size": 2, "score_threshold": 0.3}
    with pytest.raises(DataError, match=r"_options\.json: cannot be read: expected a folder of predict_dataset"):
        list_shards(tmp_path)
    check_options(tmp_path, options)
    check_options(tmp_path, json.loads(json.dumps(options)))
    shards, names = list_shards(tmp_path)
    assert [one.name for one in shards] == [f"shard-0000000{number}.parquet" for number in range(3)]
    assert names == ("a", "b")
    for name, value in {"names": ["a"], "images": 6, "shard_size": 3, "score_threshold": 0.2, "new": 1}.items():
        with pytest.raises(ConfigError, match=f": {name} was .* when the run was started, and is .* now"):
            check_options(tmp_path, {**options, name: value})
    check_options(tmp_path, options)


GOOD = {"images": 5, "shard_size": 2, "names": ["a"]}
WRONG = [
    json.dumps({**GOOD, **wrong}).encode()
    for wrong in (
        {"images": "5"},
        {"images": 0},
        {"shard_size": 0},
        {"shard_size": True},
        {"names": [1]},
        {"names": "a"},
    )
]


@pytest.mark.parametrize("content", [b"", b"{", b"5", b"[]", b"{}", b'{"images": 5, "names": []}', b"\xff", *WRONG])
def test_a_file_of_options_that_is_none_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "_options.json").write_bytes(content)
    for read in (lambda: list_shards(tmp_path), lambda: check_options(tmp_path, {"images": 5})):
        with pytest.raises(DataError, match=r"_options\.json: cannot be read: expected a folder of predict_dataset"):
            read()
