from pathlib import Path

import pytest

from centerdet.data.download import download_voc
from centerdet.errors import DataError


def test_what_cannot_be_fetched_is_named(tmp_path: Path) -> None:
    for year, split in (("1999", "train"), ("2012", "test")):
        with pytest.raises(DataError, match=rf"VOC{year}: cannot fetch \['{split}'\]"):
            download_voc(tmp_path, year, [split])
    assert list(tmp_path.iterdir()) == []
