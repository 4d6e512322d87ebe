"""COCO files for the tests of `cocoeval`: pairs of a ground-truth dict and a list of results, drawn from a seed.

They hold what tools write and what they should not: overhanging and degenerate boxes, ids of every type, areas that are
no box's, crowds, repeated ids, records of unlisted images and categories, ties of score, image and IoU.
"""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

Truth = dict[str, Any]
Results = list[dict[str, Any]]


def coco_problem(seed: int) -> tuple[Truth, Results]:
    rng = np.random.default_rng(seed)
    images, classes = int(rng.integers(1, 5)), int(rng.integers(1, 4))
    truths, dets = int(rng.integers(0, 16)), int(rng.integers(1, 30))
    numbers = rng.permutation(50)[: images + 2].tolist()
    image_ids: list[Any] = [numbers, [f"im{n}" for n in numbers], [float(n) for n in numbers]][rng.integers(3)]
    numbers = rng.permutation(90)[: classes + 2].tolist()
    category_ids: list[Any] = [numbers, numbers, [f"c{n}" for n in numbers]][rng.integers(3)]
    unit, kind = float(rng.choice([1, 8, 32, 96, 1e5])), int(rng.integers(0, 6))

    def boxes(count: int) -> list[list[Any]]:
        low = rng.integers(-2, 5, (count, 2))
        sides = rng.integers(rng.integers(-1, 2), 6, (count, 2))
        table = np.concatenate([low, sides], 1) * unit
        if kind == 1:
            table = table * 0.37 + np.append(rng.normal(0, 0.1, 2), [0, 0])
        elif kind == 2:
            table = (table * 0.7).astype(np.float32).astype(np.float64)
        elif kind == 3:
            return table.astype(int).tolist()
        elif kind == 4:
            table[:, 2:] = np.where(rng.random((count, 2)) < 0.2, 1e-13, table[:, 2:])
        return table.tolist()

    ids: list[Any] = list(range(1, truths + 1))
    id_kind = rng.integers(8)
    if id_kind == 0:
        ids = list(range(truths))  # pycocotools takes a match with the id 0 for none
    elif id_kind == 1:
        ids = [str(n) for n in ids]
    elif id_kind == 2:
        ids = [n - 5 for n in ids]
    elif id_kind == 3 and truths:
        ids = rng.integers(1, truths + 1, truths).tolist()  # repeated
    extra = rng.random() < 0.4  # records of images and categories that are not listed
    some_images, some_classes = image_ids[: images + extra], category_ids[: classes + extra]
    areas = [None, [0, 500, 1024, float(np.nextafter(1024, 9e9)), 9216, 9215.999999999998, 1e10, 2e10]][rng.integers(2)]
    annotations = []
    for row, box in enumerate(boxes(truths)):
        one = {
            "id": ids[row], "image_id": some_images[rng.integers(len(some_images))], "bbox": box,
            "category_id": some_classes[rng.integers(len(some_classes))],
            "area": box[2] * box[3] if areas is None else areas[rng.integers(len(areas))],
            "iscrowd": [0, 0, 0, 0, 1, True, False][rng.integers(7)],
        }  # fmt: skip
        if rng.random() < 0.2:
            one |= {"ignore": 1, "segmentation": [[1, 2, 3, 4, 5, 6]], "attributes": {"occluded": True}}
        annotations.append(one)
    scores = [
        rng.integers(0, 4, dets) / 4, rng.random(dets), rng.random(dets).astype(np.float32).astype(float),
        rng.normal(size=dets), rng.integers(0, 2, dets), -rng.integers(0, 2, dets) * 0.0,
    ][rng.integers(6)].tolist()  # fmt: skip
    results = []
    for row, box in enumerate(boxes(dets)):
        image, category = image_ids[rng.integers(images)], some_classes[rng.integers(len(some_classes))]
        if annotations and rng.random() < 0.6:
            near = annotations[rng.integers(len(annotations))]
            if near["image_id"] in image_ids[:images]:
                box, image, category = list(near["bbox"]), near["image_id"], near["category_id"]
                box[rng.integers(4)] += unit * float(rng.choice([0, 0, 0.5, 1]))
        results.append({"image_id": image, "category_id": category, "bbox": box, "score": scores[row]})
    truth = {
        "info": {"year": 2026},
        "images": [{"id": one, "width": 99, "height": 99, "file_name": f"{one}.jpg"} for one in image_ids[:images]],
        "categories": [{"id": one, "name": f"class {one}"} for one in category_ids[:classes]],
        "annotations": annotations,
    }
    return truth, results


def change(params: Any, seed: int) -> None:
    """Other parameters than the default, the same for the same seed."""
    rng = np.random.default_rng(seed)
    if rng.random() < 0.4:
        params.maxDets = [[1, 2, 3], [100, 10, 1], [1, 10, 50, 100], [2, 2, 100]][rng.integers(4)]
    if rng.random() < 0.3:
        params.iouThrs = [
            np.array([0.5, 0.75]), np.array([0.75, 0.5]), np.array([0.3]), np.linspace(0.05, 1, 20),
            np.array([0.0, 0.5]),
        ][rng.integers(5)]  # fmt: skip
    if rng.random() < 0.3:
        params.recThrs = [np.array([0.5]), np.array([0.9, 0.1, 0.0]), np.linspace(0, 1, 11), np.linspace(0.2, 1.2, 6)][
            rng.integers(4)
        ]
    if rng.random() < 0.3:
        params.areaRng, params.areaRngLbl = [
            ([[0, 1e10], [0, 100], [100, 1e10]], ["all", "tiny", "rest"]),
            ([[0, 1024], [1024, 9216]], ["small", "medium"]),
            ([[0, float("inf")]], ["all"]),
            ([[1024, 1e10], [0, 1024]], ["large", "small"]),
        ][rng.integers(4)]
    if rng.random() < 0.25:
        params.useCats = 0
    if rng.random() < 0.2:
        params.imgIds = params.imgIds[::2]
    if rng.random() < 0.2:
        params.catIds = params.catIds[::-1][:2]


def run(classes: tuple[Any, Any], truth: Any, results: Any, seed: int | None = None) -> Any:
    """Load, evaluate, accumulate; and summarize where there are three limits."""
    coco, evaluator = classes
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        annotations = coco(truth)
        one = evaluator(annotations, annotations.loadRes(results), "bbox")
        if seed is not None:
            change(one.params, seed)
        one.evaluate()
        one.accumulate()
        if len(one.params.maxDets) >= 3:
            one.summarize()
    one.printed = [line for line in printed.getvalue().splitlines() if "Average" in line]
    return one


def write(folder: Path, truth: Truth, results: Results) -> tuple[str, str]:
    files = str(folder / "truth.json"), str(folder / "results.json")
    for file, content in zip(files, (truth, results), strict=True):
        Path(file).write_text(json.dumps(content))
    return files
