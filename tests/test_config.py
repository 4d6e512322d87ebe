"""Options of a training: what cannot be, presets, and what a resumed run may change."""

import math
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest

from centerdet.data.shapes import write_shapes
from centerdet.errors import ConfigError
from centerdet.training.config import PRESETS, TrainConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bacth": 3}, "bacth: no such option; did you mean batch"),
        ({"learning": 3}, "learning: no such option"),
        ({"batch": 0}, "batch: want 1 to .*, got 0"),
        ({"lr": math.nan}, "lr: want 0 to .*, got nan"),
        ({"ema": 1.5}, "ema: want 0 to 1, got 1.5"),
        ({"sizes": (100,)}, "sizes: want multiples of 32 px"),
        ({"sizes": ()}, "sizes: want multiples of 32 px"),
        ({"sizes": 320}, r"sizes: want tuple\[int, ...\], got 320"),
        ({"epochs": "3"}, "epochs: want float, got '3'"),
        ({"epochs": 0}, "epochs: want more than 0"),
        ({"train": "train"}, r"train: want tuple\[str, ...\], got 'train'"),
        ({"zoom": (1, "2")}, r"zoom: want tuple\[float, float\], got \(1, '2'\)"),
        ({"zoom": (0.5,)}, r"zoom: want tuple\[float, float\], got \(0.5,\)"),
        ({"zoom": (2, 1)}, "zoom: want the least scale above 0, then the largest"),
        ({"workers": -1}, "workers: want 0 to"),
        ({"start": "voc", "backbone_weights": "b.pth"}, "backbone_weights: b.pth is not used beside start"),
        ({"optimizer": "adamm"}, "optimizer: want"),
        ({"augment": "nonw"}, "augment: want"),
        ({"preset": "smal"}, "preset: want small, medium, large or auto, got 'smal'"),
    ],
)
def test_options_that_cannot_be_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig.of(data="data", out="out", **options)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_one_call_with_other_values_and_options_win(preset: str) -> None:
    values = PRESETS[preset][1]
    plain = TrainConfig("data", "out")
    assert TrainConfig.of(preset=preset, data="data", out="out") == TrainConfig("data", "out", **values)
    assert all(getattr(plain, name) != value for name, value in values.items())
    assert TrainConfig.of(preset=preset, data="data", out="out", epochs=7, batch=5).epochs == 7


def test_the_small_preset_is_half_an_hour_of_a_laptop() -> None:
    images, values = PRESETS["small"]
    assert 6_000 <= images * values["epochs"] <= 10_000


def test_the_automatic_preset_counts_the_images(tmp_path: Path) -> None:
    root = str(tmp_path / "shapes")
    write_shapes(root, train=3, val=1, size=32)
    chosen = TrainConfig.of(preset="auto", data=root, out="out", epochs=5)
    assert chosen == TrainConfig.of(preset="small", data=root, out="out", epochs=5) and chosen.epochs == 5


def test_a_resumed_run_must_keep_what_its_weights_follow_from() -> None:
    config = TrainConfig("data", "out", sizes=(64, 96))
    stored: dict[str, Any] = {**asdict(config), "sizes": [64, 96]}
    del stored["augment"]  # written before there was this field
    free = {"out": "b", "workers": 3, "keep": False, "threads": 2, "save": 9, "validate": 2, "patience": 1}
    free |= {"device": "cpu", "tensorboard": True}
    assert TrainConfig(**{**asdict(config), **free}).changed_from(stored) == []
    for name, value in {"lr": 1.0, "augment": "none", "val": ("a",), "seed": 1}.items():
        changed = TrainConfig(**{**asdict(config), name: value}).changed_from(stored)
        assert [(field, now) for field, _, now in changed] == [(name, value)]
    assert free.keys() < {field.name for field in fields(TrainConfig)}


def test_the_options_need_no_torch() -> None:
    code = "import sys, centerdet.training.config; assert not {'torch', 'cv2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
