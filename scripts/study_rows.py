"""What the study changes, row by row, for study.py: fields of the training, or a patch by its name in `PATCHES`."""

from typing import Any

ROWS: dict[str, dict[str, Any]] = {
    "the recipe": {},
    "box loss: L1 on offset and size at the center cell": {"patch": "l1"},
    "freeze 2": {"freeze": 2},
    "freeze 4": {"freeze": 4},
    "both rates x 2": {"lr": 5e-3, "backbone_lr": 2e-3},
    "both rates x 0.5": {"lr": 1.25e-3, "backbone_lr": 5e-4},
    "backbone rate = head rate": {"backbone_lr": 2.5e-3},
    "backbone rate x 0.4": {"backbone_lr": 4e-4},
    "SGD, 0.02 and 0.008": {"optimizer": "sgd", "lr": 0.02, "backbone_lr": 0.008, "weight_decay": 1e-4},
    "no mosaic": {"mosaic": 0.0},
    "no class balance": {"balance": 0.0},
    "zoom 0.7 to 1.4": {"zoom": (0.7, 1.4)},
    "zoom 0.35 to 2.5": {"zoom": (0.35, 2.5)},
    "no color": {"color": 0.0},
    "Gaussian over 0.3 of a side": {"patch": "narrow"},
    "Gaussian over 0.8 of a side": {"patch": "wide"},
    "freeze 0": {"freeze": 0},
    "freeze 1": {"freeze": 1},
    "stride 4": {"stride": 4},
    "no averaging of the weights": {"ema": 0.0},
    "sizes 128, 192, 192": {"sizes": (128, 192, 192)},
    "5 x 5 depthwise in neck and heads": {"patch": "five"},
    "letterbox": {"patch": "letterbox"},
    "copy-paste instead of mosaics": {"patch": "paste"},
    "half of the inputs mixed of two images instead of mosaics": {"patch": "mix", "mosaic": 0.5},
}
