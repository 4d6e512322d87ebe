"""PASCAL VOC from its home: the one thing in the package that fetches a dataset."""

from collections.abc import Sequence
from pathlib import Path

from ..errors import DataError

__all__ = ["download_voc"]


def download_voc(root: str | Path, year: str, splits: Sequence[str]) -> Path:
    """Fetch a year of VOC through torchvision, which checks the archives' sums; the devkit's folder, for `read_voc`.

    splits: of "train", "val", "trainval" and, in 2007, "test". Archives hold several splits and are fetched once.
    """
    from torchvision.datasets import VOCDetection

    archives = {split == "test": split for split in splits}
    try:
        for split in archives.values():
            VOCDetection(str(root), year=year, image_set=split, download=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"VOC{year}: cannot fetch {list(splits)} into {root}: {error}") from error
    return Path(root, "TrainVal" if year == "2011" else "", "VOCdevkit")
