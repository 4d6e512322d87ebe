from pathlib import Path

import pytest

from centerdet.errors import DataError
from centerdet.files import new_folder


def fail_halfway(path: Path) -> None:
    with new_folder(path) as draft:
        (draft / "half").write_text("")
        raise ZeroDivisionError


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        fail_halfway(tmp_path / "in" / "out")
    assert list((tmp_path / "in").iterdir()) == []
    (tmp_path / "in" / "out").mkdir()
    with new_folder(tmp_path / "in" / "out") as draft:
        (draft / "whole").write_text("")
        assert list((tmp_path / "in" / "out").iterdir()) == []
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["in", "in/out", "in/out/whole"]
    for place in (tmp_path / "in" / "out", tmp_path / "in" / "out" / "whole"):
        with pytest.raises(DataError, match="want a new or empty folder"), new_folder(place):
            pass
