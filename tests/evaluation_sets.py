"""A small dataset of made-up objects and detections on it, for the tests of evaluation."""

from pathlib import Path

import numpy as np
from PIL import Image

from centerdet.data.sample import Dataset, Sample
from centerdet.evaluation.files import Results

NAMES = ("cat", "big_cat", "dog")  # one name ends as another does


def make_set(folder: Path, seed: int = 0, *, images: int = 12, stem: str = "{:06d}") -> tuple[Dataset, Results]:
    """Objects with whole corners, some difficult, some crowds; detections near them and anywhere, float32 numbers."""
    draw = np.random.default_rng(seed)
    samples, boxes, labels, numbers = [], [], [], []
    for number in range(images):
        path = folder / f"{stem.format(3 * number + 5)}.jpg"
        Image.new("RGB", (200, 200)).save(path)
        count = int(draw.integers(0, 6))
        low = draw.integers(0, 120, (count, 2))
        objects = np.concatenate([low, low + draw.integers(10, 80, (count, 2))], axis=1).astype(float)
        classes = draw.integers(0, len(NAMES), count)
        flags = draw.random((2, count)) < 0.15
        samples.append(Sample(path, objects, classes, flags[0], flags[1] & ~flags[0], (200, 200)))
        for box, label in zip(objects, classes, strict=True):
            for _ in range(3):
                corners = np.sort((box + draw.normal(0, 6, 4)).reshape(2, 2), axis=0).reshape(4)
                boxes.append(np.clip(corners, 0, 200))
                labels.append(int(label) if draw.random() < 0.8 else int(draw.integers(len(NAMES))))
                numbers.append(number)
        boxes.append(np.array([0, 0, *draw.uniform(1, 200, 2)]))
        labels.append(int(draw.integers(len(NAMES))))
        numbers.append(number)
    scores = np.round(draw.random(len(boxes)), 2).astype(np.float32)  # with ties
    results = Results(
        np.array(boxes, np.float32).astype(float), scores.astype(float), np.array(labels), np.array(numbers)
    )
    return Dataset(samples, NAMES), results
