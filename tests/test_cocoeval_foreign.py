"""COCO files in the ways that labeling tools write them: numbers, entries and tables are those of pycocotools.

Typed after what the exporters write, each with its own habits: ids from 0, text as ids, areas of masks, missing keys.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_problems import run, write
from pycocotools.coco import COCO as THEIR_COCO
from pycocotools.cocoeval import COCOeval as THEIR_EVAL

from centerdet.metrics.cocoeval import COCO, COCOeval

Truth = dict[str, Any]

CVAT = {
    "licenses": [{"name": "", "id": 0, "url": ""}],
    "info": {"contributor": "", "date_created": "", "description": "", "url": "", "version": "", "year": ""},
    "categories": [{"id": 1, "name": "car", "supercategory": ""}, {"id": 2, "name": "truck", "supercategory": ""}],
    "images": [
        {"id": 1, "width": 1280, "height": 720, "file_name": "a/frame_000000.PNG", "license": 0, "flickr_url": "",
         "coco_url": "", "date_captured": 0},
        {"id": 2, "width": 1280, "height": 720, "file_name": "a/frame_000001.PNG", "license": 0, "flickr_url": "",
         "coco_url": "", "date_captured": 0},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [], "area": 11904.0288, "bbox":
         [231.08, 342.5, 148.23, 80.31], "iscrowd": 0, "attributes": {"occluded": False, "rotation": 0.0}},
        {"id": 2, "image_id": 1, "category_id": 2, "segmentation": [[612.1, 300.0, 700.9, 300.0, 690.0, 355.2]],
         "area": 2451.0, "bbox": [612.1, 300.0, 88.8, 55.2], "iscrowd": 0, "attributes": {"occluded": True}},
        {"id": 3, "image_id": 2, "category_id": 1, "segmentation": {"counts": [40, 3], "size": [720, 1280]},
         "area": 630, "bbox": [900.0, 10.0, 60.0, 20.0], "iscrowd": 1, "attributes": {"occluded": False}},
        {"id": 4, "image_id": 2, "category_id": 1, "segmentation": [], "area": 0.0, "bbox": [1279.5, 20.0, 0.0, 9.0],
         "iscrowd": 0, "attributes": {"occluded": False, "track_id": 7, "keyframe": True}},
    ],
}  # fmt: skip

FIFTYONE = {
    "info": {"year": "", "version": "", "description": "Exported from a dataset", "contributor": "", "url": "",
             "date_created": "2026-01-05T10:11:12"},
    "licenses": [],
    "categories": [{"id": 0, "name": "bird", "supercategory": None}, {"id": 1, "name": "cat", "supercategory": "pet"}],
    "images": [
        {"id": 1, "file_name": "000001.jpg", "height": 480, "width": 640, "license": None, "coco_url": None},
        {"id": 2, "file_name": "000002.jpg", "height": 640, "width": 427, "license": None, "coco_url": None},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 0, "bbox": [97.24, 16.27, 223.6, 143.91], "area": 32178.276,
         "iscrowd": 0, "score": 0.98},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [-3.5, 400.0, 90.0, 90.0], "area": 8100.0, "iscrowd": 0,
         "truncated": True},
        {"id": 3, "image_id": 2, "category_id": 0, "bbox": [12.0, 12.0, 20.0, 18.0], "area": 360.0, "iscrowd": 0},
    ],
}  # fmt: skip

LABEL_STUDIO = {
    "images": [
        {"width": 800, "height": 600, "id": 0, "file_name": "images/8f2b-street.jpg"},
        {"width": 800, "height": 600, "id": 1, "file_name": "images/91aa-street.jpg"},
    ],
    "categories": [{"id": 0, "name": "Airplane"}, {"id": 1, "name": "Car"}],
    "annotations": [
        {"id": 0, "image_id": 0, "category_id": 0, "segmentation": [], "bbox":
         [100.00000000000001, 49.99999999999999, 200.0, 100.0], "ignore": 0, "iscrowd": 0, "area": 20000.0},
        {"id": 1, "image_id": 0, "category_id": 1, "segmentation": [], "bbox": [400.0, 300.0, 31.0, 31.0],
         "ignore": 1, "iscrowd": 0, "area": 961.0},
        {"id": 2, "image_id": 1, "category_id": 1, "segmentation": [], "bbox": [10.5, 10.5, 120.0, 80.0],
         "ignore": 0, "iscrowd": 0, "area": 9600.0},
    ],
    "info": {"year": 2026, "version": "1.0", "description": "", "contributor": "Label Studio", "url": ""},
}  # fmt: skip

ROBOFLOW = {
    "info": {"year": "2026", "version": "3", "description": "", "contributor": "", "date_created": ""},
    "licenses": [{"id": 1, "url": "https://creativecommons.org/licenses/by/4.0/", "name": "CC BY 4.0"}],
    "categories": [
        {"id": 0, "name": "pieces", "supercategory": "none"}, {"id": 1, "name": "king", "supercategory": "pieces"},
        {"id": 2, "name": "queen", "supercategory": "pieces"},
    ],
    "images": [{"id": 0, "license": 1, "file_name": "a_jpg.rf.0f1e.jpg", "height": 416, "width": 416,
                "date_captured": "2026-01-01T00:00:00+00:00"}],
    "annotations": [
        {"id": 0, "image_id": 0, "category_id": 1, "bbox": [170, 96, 32, 32], "area": 1024, "segmentation": [],
         "iscrowd": 0},
        {"id": 1, "image_id": 0, "category_id": 2, "bbox": [225.5, 60, 96.0, 96.0], "area": 9216.0,
         "segmentation": [], "iscrowd": 0},
        {"id": 2, "image_id": 0, "category_id": 2, "bbox": [225.5, 60, 96.0, 96.0], "area": 9216.0,
         "segmentation": [], "iscrowd": 0},
    ],
}  # fmt: skip

VIA = {  # numbers as text
    "info": {"year": 2026, "version": "1.0"},
    "images": [{"id": "0", "width": 640, "height": 480, "file_name": "a.jpg", "license": 0},
               {"id": "1", "width": 640, "height": 480, "file_name": "b.jpg", "license": 0}],
    "annotations": [
        {"id": "0", "image_id": "0", "category_id": 1, "segmentation": [[10, 10, 90, 10, 90, 80]], "area": 2800,
         "bbox": [10, 10, 80, 70], "iscrowd": 0},
        {"id": "1", "image_id": "1", "category_id": 1, "segmentation": [[5, 5, 30, 5, 30, 33]], "area": 350,
         "bbox": [5, 5, 25, 28], "iscrowd": 0},
    ],
    "licenses": [{"id": 0, "name": "Unknown", "url": ""}],
    "categories": [{"supercategory": "type", "id": 1, "name": "tree"}],
}  # fmt: skip


def lvis(seed: int = 0) -> Truth:
    """1,203 categories, most without an object; no `iscrowd`, and lists of categories in the images."""
    rng = np.random.default_rng(seed)
    images = [
        {"id": 10 + n, "height": 480, "width": 640, "neg_category_ids": [3, 9], "not_exhaustive_category_ids": [7],
         "coco_url": f"http://images.cocodataset.org/val2017/{n:012}.jpg"}
        for n in range(8)
    ]  # fmt: skip
    categories = [
        {"id": n, "synset": f"thing.n.{n}", "synonyms": [f"thing_{n}"], "name": f"thing_{n}", "def": "a thing",
         "frequency": "rcf"[n % 3], "image_count": n, "instance_count": 2 * n}
        for n in range(1, 1204)
    ]  # fmt: skip
    annotations = []
    for number in range(1, 61):
        left, top, width, height = rng.uniform([0, 0, 4, 4], [400, 300, 240, 180]).round(2).tolist()
        annotations.append({
            "id": number, "image_id": int(rng.integers(10, 18)), "category_id": int(1203 * rng.random() ** 3) + 1,
            "bbox": [left, top, width, height], "area": round(width * height * 0.6, 2),
            "segmentation": [[left, top, left + width, top, left, top + height]],
        })  # fmt: skip
    return {"images": images, "categories": categories, "annotations": annotations, "licenses": [], "info": {}}


def detect(truth: Truth, seed: int = 0) -> list[dict[str, Any]]:
    """Three results beside each annotation, some of another category, with scores of two digits."""
    rng = np.random.default_rng(seed)
    categories = [one["id"] for one in truth["categories"]]
    return [
        {
            "image_id": one["image_id"],
            "category_id": one["category_id"] if rng.random() < 0.8 else categories[rng.integers(len(categories))],
            "bbox": (np.array(one["bbox"]) + rng.normal(0, spread, 4)).round(2).tolist(),
            "score": round(float(rng.random()), 2),
        }
        for one in truth["annotations"]
        for spread in (0.5, 3, 9)
    ]


def assert_equal(ours: Any, theirs: Any) -> None:
    np.testing.assert_array_equal(ours.stats, theirs.stats)
    assert ours.stats[0] > 0
    assert ours.printed == theirs.printed
    for name in ("precision", "recall", "scores"):
        np.testing.assert_array_equal(ours.eval[name], theirs.eval[name])
    for mine, other in zip(ours.evalImgs, theirs.evalImgs, strict=True):
        assert (mine is None) == (other is None)
        for key in other or ():
            np.testing.assert_array_equal(mine[key], other[key], err_msg=key)


TOOLS = {"cvat": CVAT, "fiftyone": FIFTYONE, "label studio": LABEL_STUDIO, "roboflow": ROBOFLOW, "via": VIA}


@pytest.mark.parametrize("truth", TOOLS.values(), ids=TOOLS)
def test_labeling_tools(truth: Truth, tmp_path: Path) -> None:
    for seed in range(4):
        files = write(tmp_path, truth, detect(truth, seed))
        assert_equal(run((COCO, COCOeval), *files), run((THEIR_COCO, THEIR_EVAL), *files))


@pytest.mark.soak
def test_lvis(tmp_path: Path) -> None:
    """pycocotools needs the `iscrowd` that these files lack."""
    truth = lvis()
    ours = run((COCO, COCOeval), *write(tmp_path, truth, detect(truth)))
    for one in truth["annotations"]:
        one["iscrowd"] = 0
    assert_equal(ours, run((THEIR_COCO, THEIR_EVAL), *write(tmp_path, truth, detect(truth))))


@pytest.mark.soak
def test_supervision(tmp_path: Path) -> None:
    sv = pytest.importorskip("supervision")
    import cv2

    rng, annotations = np.random.default_rng(0), {}
    for number in range(8):
        name = str(tmp_path / f"{number}.jpg")
        cv2.imwrite(name, np.zeros((200, 300, 3), np.uint8))
        low = rng.uniform(-10, 250, (number, 2))
        boxes = np.concatenate([low, low + rng.uniform(5, 150, (number, 2))], 1)
        annotations[name] = sv.Detections(xyxy=boxes, class_id=rng.integers(0, 3, number))
    dataset = sv.DetectionDataset(classes=["dog", "cat", "bird"], images=list(annotations), annotations=annotations)
    dataset.as_coco(annotations_path=str(tmp_path / "written.json"))
    files = write(tmp_path, truth := json.loads((tmp_path / "written.json").read_text()), detect(truth))
    assert_equal(run((COCO, COCOeval), *files), run((THEIR_COCO, THEIR_EVAL), *files))
