"""`centerdet evaluate RESULTS.json --data TRUTH.json`: the COCO numbers are those of pycocotools on the same files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_problems import run, write
from pycocotools.coco import COCO as THEIR_COCO
from pycocotools.cocoeval import COCOeval as THEIR_EVAL
from typer.testing import CliRunner

from centerdet.cli import app


def files(folder: Path, seed: int) -> tuple[str, str]:
    """Areas of masks, crowds, boxes beyond the border and without height, an unlisted image, sparse category ids."""
    rng = np.random.default_rng(seed)
    images = [{"id": n, "file_name": f"{n:012}.jpg", "width": 200, "height": 150} for n in (139, 285, 632, 7)]
    categories = [{"id": n, "name": name} for n, name in ((90, "brush"), (1, "person"), (18, "dog"))]
    annotations: list[dict[str, Any]] = []
    for number in range(1, 40):
        box = [*rng.uniform(-20, 150, 2), *rng.uniform(5, 120, 2)]
        if number % 13 == 0:
            box[3] = 0.0
        annotations.append({
            "id": number, "image_id": int(rng.choice([139, 285, 632])), "category_id": int(rng.choice([1, 18, 90])),
            "bbox": [round(side, 2) for side in box], "area": round(box[2] * box[3] * rng.uniform(0.3, 1), 3),
            "iscrowd": int(rng.random() < 0.1), "segmentation": [],
        })  # fmt: skip
    annotations.append({**annotations[0], "id": 99, "image_id": 5})
    results = []
    for one in annotations[:-1] * 2:
        box = np.array(one["bbox"]) + rng.normal(0, 8, 4)
        results.append({key: one[key] for key in ("image_id", "category_id")} | {
            "bbox": box.tolist(), "score": float(np.float32(rng.random())),
        })  # fmt: skip
    return write(folder, {"images": images, "categories": categories, "annotations": annotations}, results)


@pytest.mark.parametrize("seed", range(6))
def test_the_command_prints_the_numbers_of_pycocotools(tmp_path: Path, seed: int) -> None:
    truth, results = files(tmp_path, seed)
    output = tmp_path / "output.json"
    done = CliRunner().invoke(app, ["evaluate", results, "--data", truth, "--json", str(output)])
    assert done.exit_code == 0, done.output
    assert "AP_small" in done.output
    theirs = run((THEIR_COCO, THEIR_EVAL), truth, results)
    ours = json.loads(output.read_text())["coco"]
    assert list(ours["stats"].values()) == theirs.stats.tolist()
    categories = [one["id"] for one in json.loads(Path(truth).read_text())["categories"]]
    for place, category in enumerate(categories):  # in the order of the file
        known = theirs.eval["precision"][:, :, sorted(categories).index(category), 0, -1]
        assert ours["ap"][place] == pytest.approx(known[known > -1].mean(), abs=1e-12)
