"""The contact sheet: what is on it, and that it is what a training draws."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from centerdet.data.sample import Dataset, Sample
from centerdet.data.shapes import write_shapes
from centerdet.data.voc import read_voc
from centerdet.draw import color_of
from centerdet.errors import DataError
from centerdet.inspection.contact_sheet import GAP, GRAY, HEAD, TILE, draw_sheet
from centerdet.training.augment import FILL
from centerdet.training.config import TrainConfig

BOX = (80.0, 80, 240, 240)  # the middle of 320 px, so that a mirrored image is the same


def config(**changes: Any) -> TrainConfig:
    return TrainConfig("", "", **{"sizes": (64, 320), **changes})


def draw_tiles(folder: Path, labels: tuple[int, ...], difficult: tuple[bool, ...], count: int = 1) -> np.ndarray:
    """The sheet of one gray image with objects in its middle, as it is."""
    Image.new("RGB", (320, 320), (FILL,) * 3).save(folder / "a.png")
    boxes = np.tile(BOX, (len(labels), 1)).reshape(-1, 4)
    sample = Sample(folder / "a.png", boxes, np.array(labels, np.int64), np.array(difficult, bool))
    return draw_sheet(Dataset([sample], ("cat", "dog")), config(zoom=(1.0, 1.0), aspect=1.0, color=0.0), count)


def paint(sheet: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    return np.argwhere((sheet[HEAD + GAP :, GAP : GAP + TILE] == color).all(-1))


def test_boxes_heat_and_cells_are_drawn_in_their_places(tmp_path: Path) -> None:
    sheet = draw_tiles(tmp_path, (1,), (False,))
    assert sheet.shape == (HEAD + 2 * GAP + TILE, 2 * GAP + TILE, 3)
    rows, columns = paint(sheet, color_of(1)).T
    assert (rows.max() + 1, columns.min(), columns.max() + 1) == (300, 100, 300)  # 240, 80 and 240 px of 320
    tile = sheet[HEAD + GAP :, GAP : GAP + TILE].astype(int)
    heat = np.abs(tile - FILL).sum(-1)
    assert (tile[2, 2] == FILL).all() and heat[205, 205] > heat[225, 225] > heat[235, 235] > 0
    cell = paint(sheet[: HEAD + GAP + TILE], (255, 255, 255))
    assert cell.min(0).tolist() == [200, 200] and cell.max(0).tolist() == [210, 210]


def test_ignored_objects_are_dashed_and_have_no_heat(tmp_path: Path) -> None:
    sheet = draw_tiles(tmp_path, (0,), (True,))
    assert len(paint(sheet, color_of(0))) == 0
    sides = sheet[HEAD + GAP + 120 : HEAD + GAP + 280, GAP + 100]
    assert 0.3 < (sides == GRAY).all(-1).mean() < 0.7
    assert (sheet[HEAD + GAP + 150 : HEAD + GAP + 250, GAP + 150 : GAP + 250] == FILL).all()


def test_it_is_drawn_by_the_seed_in_rows_of_four(tmp_path: Path) -> None:
    write_shapes(tmp_path / "shapes", train=6, val=1, size=96)
    data = read_voc(tmp_path / "shapes", ["train"])
    first, again, other = (draw_sheet(data, config(seed=seed), 5) for seed in (0, 0, 1))
    assert first.shape == (HEAD + GAP + 2 * (TILE + GAP), GAP + 4 * (TILE + GAP), 3)
    assert (first == again).all() and (first != other).any()
    assert (first[HEAD + TILE + 3 * GAP :, 2 * GAP + TILE :] == 255).all()  # after the fifth nothing follows


def test_images_without_objects_are_shown_and_no_images_are_an_error(tmp_path: Path) -> None:
    assert len(paint(draw_tiles(tmp_path, (), ()), (FILL,) * 3)) == TILE**2
    with pytest.raises(DataError, match="contact sheet: expected at least one"):
        draw_sheet(Dataset([], ("cat",)), config())
