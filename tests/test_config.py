"""Options of a training: what cannot be, presets, and what a resumed run may change."""

import math
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest

from centerdet.errors import ConfigError
from centerdet.training.config import PRESETS, TrainConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bacth": 3}, "bacth: no such option; did you mean 'batch'"),
        ({"learning": 3}, "learning: no such option"),
        ({"batch": 0}, "batch: expected 1 to .*, got 0"),
        ({"lr": math.nan}, "lr: expected 0 to .*, got nan"),
        ({"ema": 1.5}, "ema: expected 0 to 1, got 1.5"),
        ({"sizes": (100,)}, "sizes: expected multiples of 32 px"),
        ({"sizes": ()}, "sizes: expected multiples of 32 px"),
        ({"sizes": 320}, r"sizes: expected tuple\[int, ...\], got 320"),
        ({"epochs": "3"}, "epochs: expected float, got '3'"),
        ({"epochs": 0}, "epochs: expected more than 0"),
        ({"train": "train"}, r"train: expected tuple\[str, ...\], got 'train'"),
        ({"zoom": (1, "2")}, r"zoom: expected tuple\[float, float\], got \(1, '2'\)"),
        ({"zoom": (0.5,)}, r"zoom: expected tuple\[float, float\], got \(0.5,\)"),
        ({"zoom": (2, 1)}, "zoom: expected the smallest scale, above 0, then the largest"),
        ({"seed": -1}, "seed: expected 0 to .*, got -1"),
        ({"channels": 0}, "channels: expected 1 to 4096, got 0"),
        ({"channels": 10**9}, "channels: expected 1 to 4096"),
        ({"stride": 16}, "stride: expected 4 or 8, got 16"),
        ({"freeze": -1}, "freeze: expected 0 to"),
        ({"batch": True}, "batch: expected int, got True"),
        ({"data": ()}, "data: expected at least one dataset"),
        ({"data": 3}, "data: expected "),
        ({"workers": -1}, "workers: expected 0 to"),
        ({"init_from": "voc", "backbone_weights": "b.pth"}, "backbone_weights: b.pth is not used: init_from"),
        ({"optimizer": "adamm"}, "optimizer: expected"),
        ({"augment": "nonw"}, "augment: expected"),
        ({"preset": "smal"}, "preset: expected small, medium, large, got 'smal'"),
    ],
)
def test_options_that_cannot_be_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig.of(**{"data": "data", "out": "out", **options})


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_one_call_with_other_values_and_options_win(preset: str) -> None:
    values = PRESETS[preset][1]
    plain = TrainConfig("data", "out")
    assert TrainConfig.of(preset=preset, data="data", out="out") == TrainConfig("data", "out", **values)
    assert all(getattr(plain, name) != value for name, value in values.items())
    assert TrainConfig.of(preset=preset, data="data", out="out", epochs=7, batch=5).epochs == 7


def test_a_resumed_run_must_keep_what_its_weights_follow_from() -> None:
    config = TrainConfig("data", "out", sizes=(64, 96))
    stored: dict[str, Any] = {**asdict(config), "sizes": [64, 96]}
    del stored["augment"]  # written before there was this field
    free = {
        "out": "b",
        "workers": 3,
        "cache_images": False,
        "threads": 2,
        "checkpoint_every": 9,
        "val_every": 2,
        "patience": 1,
    }
    free |= {"device": "cpu", "tensorboard": True, "data": ("b",), "val": ("a",)}
    assert TrainConfig(**{**asdict(config), **free}).changed_from(stored) == []
    for name, value in {"lr": 1.0, "augment": "none", "seed": 1}.items():
        changed = TrainConfig(**{**asdict(config), name: value}).changed_from(stored)
        assert [(field, now) for field, _, now in changed] == [(name, value)]
    assert free.keys() < {field.name for field in fields(TrainConfig)}


def test_data_may_be_one_path_or_several() -> None:
    for data in ("a", Path("a"), ["a"], (Path("a"),)):
        assert TrainConfig.of(data=data, out=Path("out")).data == ("a",)
        assert TrainConfig.of(data=data, out=Path("out")).out == "out"


def test_the_options_need_no_torch() -> None:
    code = "import sys, centerdet.training.config; assert not {'torch', 'cv2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
