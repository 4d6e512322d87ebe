import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from centerdet.data.files import load_json, read_text
from centerdet.errors import DataError, MissingDataError, MissingImageError, WriteError
from centerdet.files import new_folder, open_atomic, write_atomic
from centerdet.metrics.coco_records import read_json


def fail_halfway(path: Path) -> None:
    with new_folder(path) as draft:
        (draft / "half").write_text("")
        raise ZeroDivisionError


def test_a_folder_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        fail_halfway(tmp_path / "in" / "out")
    assert list((tmp_path / "in").iterdir()) == []
    (tmp_path / "in" / "out").mkdir()
    with new_folder(tmp_path / "in" / "out") as draft:
        (draft / "whole").write_text("")
        assert list((tmp_path / "in" / "out").iterdir()) == []
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["in", "in/out", "in/out/whole"]
    for place in (tmp_path / "in" / "out", tmp_path / "in" / "out" / "whole"):
        with pytest.raises(WriteError, match="expected a new or empty folder"), new_folder(place):
            pass


def fail_in_file(path: Path, error: Exception) -> None:
    with open_atomic(path) as file:
        file.write(b"ne")
        raise error


def test_a_file_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, b"old")
    for error in (ZeroDivisionError(), MissingImageError("b.jpg: no such image")):
        with pytest.raises(type(error)):  # an error of the block stays as it is
            fail_in_file(path, error)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    write_atomic(path, b"new", sync=False)
    assert path.read_bytes() == b"new"


def test_what_cannot_be_written_is_a_write_error_and_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for write in (lambda path: write_atomic(path, b""), lambda path: new_folder(path).__enter__()):
        with pytest.raises(WriteError, match=r"file/a: cannot be written: (Not a directory|File exists)") as caught:
            write(tmp_path / "file" / "a")
        assert isinstance(caught.value, OSError) and not isinstance(caught.value, DataError)


def test_file_and_folder_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda number: folders.append(stat.S_ISDIR(os.fstat(number).st_mode)))
    write_atomic(tmp_path / "a", b"")
    with new_folder(tmp_path / "b"):
        pass
    assert folders == [False, True, True]


@pytest.mark.parametrize("read", [read_text, load_json, read_json])
def test_a_file_that_cannot_be_read_is_named(read: Callable[[Path], object], tmp_path: Path) -> None:
    cases = {"none": (MissingDataError, "no such file"), ".": (DataError, "cannot"), "a\0b": (DataError, "cannot")}
    for name, (kind, reason) in cases.items():
        with pytest.raises(kind, match=re.escape(f"{tmp_path / name}: {reason}")):
            read(tmp_path / name)
