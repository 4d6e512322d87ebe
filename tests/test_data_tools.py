"""What labeling tools and exporters write, laid out by hand after their documentation, each read as it comes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from centerdet.data.formats import FORMATS, convert, find_splits, read_dataset, recognize
from centerdet.data.sample import Dataset

WIDTH, HEIGHT = 60, 40
Objects = list[tuple[str, tuple[int, int, int, int]]]
SCENES: dict[str, Objects] = {
    "a": [("cat", (10, 5, 30, 25))],
    "b": [("dog", (0, 0, 20, 10)), ("cat", (5, 6, 15, 36))],
}
NAMES = ["cat", "dog"]


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.stem)).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def xml(stem: str, head: str = "", more: str = "", end: str = "") -> str:
    objects = "".join(
        f"<object><name>{name}</name>{more}<bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax>"
        f"<ymax>{y2}</ymax></bndbox>{end}</object>"
        for name, (x1, y1, x2, y2) in SCENES[stem]
    )
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    return f"<annotation>{head or f'<filename>{stem}.jpg</filename>'}{size}{objects}</annotation>"


def lines(stem: str, end: str = "") -> str:
    rows = [
        f"{NAMES.index(name)} {(x1 + x2) / 2 / WIDTH:.6f} {(y1 + y2) / 2 / HEIGHT:.6f} {(x2 - x1) / WIDTH:.6f} "
        f"{(y2 - y1) / HEIGHT:.6f}{end}"
        for name, (x1, y1, x2, y2) in SCENES[stem]
    ]
    return "\n".join(rows) + "\n"


def coco(name: Callable[[str], str], key: str = "file_name", first: int = 1, extra: Any = (), **more: Any) -> Any:
    """A COCO file; `name` makes the file name of a stem, `first` is the first category's id, `more` goes to objects."""
    images = [
        {"id": number, "width": WIDTH, "height": HEIGHT, key: name(stem)} for number, stem in enumerate(SCENES, first)
    ]
    annotations = [
        {
            "id": len(SCENES) * number + place, "image_id": number, "category_id": NAMES.index(label) + first,
            "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0, **more,
        }
        for number, stem in enumerate(SCENES, first)
        for place, (label, (x1, y1, x2, y2)) in enumerate(SCENES[stem])
    ]  # fmt: skip
    categories = [*extra, *({"id": NAMES.index(label) + first, "name": label} for label in NAMES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def cvat_voc(root: Path) -> None:
    for stem in SCENES:
        image(root / "JPEGImages" / f"{stem}.jpg")
        more = "<occluded>0</occluded><truncated>0</truncated><difficult>0</difficult>"
        attributes = "<attributes><attribute><name>track_id</name><value>3</value></attribute></attributes>"
        write(root / "Annotations" / f"{stem}.xml", xml(stem, more=more, end=attributes))
    write(root / "ImageSets" / "Main" / "train.txt", "".join(f"{stem}\n" for stem in SCENES))
    write(root / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:255,0,0::\ndog:0,255,0::\n")


def cvat_voc_of_a_job(root: Path) -> None:
    """Frames of a subset lie a folder deeper."""
    for stem in SCENES:
        image(root / "JPEGImages" / "camera 1" / f"{stem}.jpg")
        write(root / "Annotations" / "camera 1" / f"{stem}.xml", xml(stem, f"<filename>camera 1/{stem}.jpg</filename>"))
    write(root / "ImageSets" / "Main" / "default.txt", "".join(f"camera 1/{stem}\n" for stem in SCENES))


def cvat_coco(root: Path) -> None:
    for stem in SCENES:
        image(root / "images" / f"{stem}.jpg")
    more = {"segmentation": [], "attributes": {"occluded": False, "rotation": 0.0}}
    write(root / "annotations" / "instances_default.json", coco(lambda stem: f"{stem}.jpg", **more))


def cvat_yolo_1_1(root: Path) -> None:
    """Darknet's layout: every path starts with data/, which is no folder of the export."""
    for stem in SCENES:
        image(root / "obj_train_data" / f"{stem}.jpg")
        write(root / "obj_train_data" / f"{stem}.txt", lines(stem))
    write(root / "train.txt", "".join(f"data/obj_train_data/{stem}.jpg\n" for stem in SCENES))
    write(root / "obj.names", "cat\ndog\n")
    write(root / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")


def cvat_ultralytics(root: Path) -> None:
    """Paths start with data/, and lines of tracks end with the track's number."""
    for stem in SCENES:
        image(root / "images" / "train" / f"{stem}.jpg")
        write(root / "labels" / "train" / f"{stem}.txt", lines(stem, " 7"))
    write(root / "train.txt", "".join(f"data/images/train/{stem}.jpg\n" for stem in SCENES))
    write(root / "data.yaml", "names:\n  0: cat\n  1: dog\npath: .\ntrain: train.txt\n")


def label_studio_voc(root: Path) -> None:
    for stem in SCENES:
        image(root / "images" / f"{stem}.jpg")
        write(root / "Annotations" / f"{stem}.xml", xml(stem, f"<folder>images</folder><filename>{stem}</filename>"))


def label_studio_coco(root: Path) -> None:
    for stem in SCENES:
        image(root / "images" / f"{stem}.jpg")
    write(root / "result.json", coco(lambda stem: f"images\\{stem}.jpg", first=0, ignore=0, segmentation=[]))


def label_studio_coco_of_uploads(root: Path) -> None:
    for stem in SCENES:
        image(root / "images" / f"{stem}.jpg")
    write(root / "result.json", coco(lambda stem: f"../../label-studio/data/media/upload/1/{stem}.jpg", first=0))


def label_studio_yolo(root: Path) -> None:
    for stem in SCENES:
        image(root / "images" / f"{stem}.jpg")
        write(root / "labels" / f"{stem}.txt", lines(stem))
    write(root / "classes.txt", "cat\ndog")
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES)]
    write(root / "notes.json", {"categories": categories, "info": {"contributor": "Label Studio"}})


def roboflow_voc(root: Path) -> None:
    for stem in SCENES:
        image(root / "train" / f"{stem}.jpg")
        write(root / "train" / f"{stem}.xml", xml(stem, f"<folder></folder><filename>{stem}.jpg</filename>"))
    write(root / "README.roboflow.txt", "exported")


def roboflow_coco(root: Path) -> None:
    for stem in SCENES:
        image(root / "train" / f"{stem}.jpg")
    project = {"id": 0, "name": "animals", "supercategory": "none"}
    content = coco(lambda stem: f"{stem}.jpg", extra=[project], segmentation=[])
    content["categories"][1:] = [one | {"supercategory": "animals"} for one in content["categories"][1:]]
    write(root / "train" / "_annotations.coco.json", content)


def roboflow_yolo(root: Path) -> None:
    for stem in SCENES:
        image(root / "train" / "images" / f"{stem}.jpg")
        write(root / "train" / "labels" / f"{stem}.txt", lines(stem))
    yaml = f"train: {root.name}/train/images\nval: {root.name}/valid/images\ntest: ../test/images\nnc: 2\n"
    write(root / "data.yaml", yaml + "names: ['cat', 'dog']\n")


def labelimg_voc(root: Path) -> None:
    for stem in SCENES:
        image(root / f"{stem}.jpg")
        head = f"<folder>mine</folder><filename>{stem}.jpg</filename><path>C:\\Users\\me\\mine\\{stem}.jpg</path>"
        write(root / f"{stem}.xml", xml(stem, head, "<pose>Unspecified</pose><difficult>Unspecified</difficult>"))


def labelimg_yolo(root: Path) -> None:
    for stem in SCENES:
        image(root / f"{stem}.jpg")
        write(root / f"{stem}.txt", lines(stem))
    write(root / "classes.txt", "cat\ndog\n")


def labelme(root: Path) -> None:
    """A rectangle is two corners in any order."""
    for stem in SCENES:
        image(root / f"{stem}.jpg")
        shapes = [
            {"label": name, "points": [[x2, y1], [x1, y2]], "group_id": None, "shape_type": "rectangle", "flags": {}}
            for name, (x1, y1, x2, y2) in SCENES[stem]
        ]
        content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": f"..\\mine\\{stem}.jpg"}
        write(root / f"{stem}.json", content | {"imageData": None, "imageHeight": HEIGHT, "imageWidth": WIDTH})


def vott_json(root: Path) -> None:
    assets = {}
    for stem in SCENES:
        image(root / "vott-json-export" / f"{stem}.jpg")
        asset = {"format": "jpg", "id": stem, "name": f"{stem}.jpg", "path": f"file:C:/me/{stem}.jpg"}
        regions = [
            {"id": "x", "type": "RECTANGLE", "tags": [name],
             "boundingBox": {"left": x1, "top": y1, "width": x2 - x1, "height": y2 - y1}}
            for name, (x1, y1, x2, y2) in SCENES[stem]
        ]  # fmt: skip
        assets[stem] = {"asset": asset | {"size": {"width": WIDTH, "height": HEIGHT}}, "regions": regions}
    write(root / "vott-json-export" / "mine-export.json", {"name": "mine", "tags": [], "assets": assets})


def vott_csv(root: Path) -> None:
    rows = ['"image","xmin","ymin","xmax","ymax","label"']
    for stem in SCENES:
        image(root / "vott-csv-export" / f"{stem}.jpg")
        rows += [f'"{stem}.jpg",{x1},{y1},{x2},{y2},"{name}"' for name, (x1, y1, x2, y2) in SCENES[stem]]
    write(root / "vott-csv-export" / "mine-export.csv", "\n".join(rows))


def vott_voc(root: Path) -> None:
    """Lists of single classes alone, here of a class with a space in its name."""
    for stem in SCENES:
        image(root / "JPEGImages" / f"{stem}.jpg")
        write(root / "Annotations" / f"{stem}.xml", xml(stem))
    items = "".join(f"item {{\n id: {number}\n name: '{name}'\n}}\n" for number, name in enumerate(NAMES, 1))
    write(root / "pascal_label_map.pbtxt", items)
    write(root / "ImageSets" / "Main" / "traffic light_train.txt", "a.jpg -1\nb.jpg 1\n")


def open_images(root: Path) -> None:
    rows = ["ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf"]
    codes = {"cat": "/m/01yrx", "dog": "/m/0bt9lr"}
    for stem in SCENES:
        image(root / "train" / f"{stem}.jpg")
        rows += [
            f"{stem},xclick,{codes[name]},1,{x1 / WIDTH},{x2 / WIDTH},{y1 / HEIGHT},{y2 / HEIGHT},0,1,0"
            for name, (x1, y1, x2, y2) in SCENES[stem]
        ]
    write(root / "train-annotations-bbox.csv", "\n".join(rows))
    write(root / "class-descriptions-boxable.csv", "".join(f"{code},{name}\n" for name, code in codes.items()))


def lvis(root: Path) -> None:
    for stem in SCENES:
        image(root / "train" / f"{stem}.jpg")
    polygon = {"segmentation": [[1, 1, 9, 1, 9, 9]]}
    content = coco(lambda stem: f"http://images.example.org/train2017/{stem}.jpg", "coco_url", **polygon)
    content["images"] = [one | {"neg_category_ids": []} for one in content["images"]]
    write(root / "annotations" / "train.json", content)


def fiftyone_voc(root: Path) -> None:
    for stem in SCENES:
        image(root / "data" / f"{stem}.jpg")
        write(root / "labels" / f"{stem}.xml", xml(stem))


def fiftyone_coco(root: Path) -> None:
    for stem in SCENES:
        image(root / "data" / f"{stem}.jpg")
    write(root / "labels.json", coco(lambda stem: f"{stem}.jpg"))


def fiftyone_yolo(root: Path) -> None:
    for stem in SCENES:
        image(root / "images" / "val" / f"{stem}.jpg")
        write(root / "labels" / "val" / f"{stem}.txt", lines(stem))
    write(root / "dataset.yaml", f"path: {root}\nnames:\n- cat\n- dog\nnc: 2\nval: ./images/val/\n")


def fiftyone(root: Path) -> None:
    labels = {}
    for stem in SCENES:
        image(root / "data" / f"{stem}.jpg")
        labels[stem] = [
            {"label": NAMES.index(name),
             "bounding_box": [x1 / WIDTH, y1 / HEIGHT, (x2 - x1) / WIDTH, (y2 - y1) / HEIGHT]}
            for name, (x1, y1, x2, y2) in SCENES[stem]
        ]  # fmt: skip
    write(root / "labels.json", {"classes": NAMES, "labels": labels})


def supervisely(root: Path) -> None:
    """A rectangle includes its last pixels."""
    write(root / "meta.json", {"classes": [{"title": name, "shape": "rectangle"} for name in NAMES], "tags": []})
    for stem in SCENES:
        image(root / "set 1" / "img" / f"{stem}.jpg")
        objects = [
            {"classTitle": name, "geometryType": "rectangle",
             "points": {"exterior": [[x1, y1], [x2 - 1, y2 - 1]], "interior": []}}
            for name, (x1, y1, x2, y2) in SCENES[stem]
        ]  # fmt: skip
        content = {"description": "", "size": {"height": HEIGHT, "width": WIDTH}, "objects": objects}
        write(root / "set 1" / "ann" / f"{stem}.jpg.json", content)


def darknet(root: Path) -> None:
    for stem in SCENES:
        image(root / "data" / "obj" / f"{stem}.jpg")
        write(root / "data" / "obj" / f"{stem}.txt", lines(stem))
    write(root / "data" / "train.txt", "".join(f"data/obj/{stem}.jpg\n" for stem in SCENES))
    write(root / "data" / "obj.names", "cat\ndog\n")
    write(root / "obj.data", "classes= 2\ntrain  = data/train.txt\nvalid = data/train.txt\nnames = data/obj.names\n")


def polygons(root: Path) -> None:
    """YOLO's segmentation lines: a class and points."""
    for stem in SCENES:
        image(root / "images" / "train" / f"{stem}.jpg")
        rows = ""
        for name, (x1, y1, x2, y2) in SCENES[stem]:
            points = [(x1, y1), (x2, y1), (x2, y2), ((x1 + x2) / 2, y2), (x1, y2)]
            parts = " ".join(f"{x / WIDTH:.8f} {y / HEIGHT:.8f}" for x, y in points)
            rows += f"{NAMES.index(name)} {parts}\n"
        write(root / "labels" / "train" / f"{stem}.txt", rows)
    write(root / "data.yaml", "train: images/train\nnames: [cat, dog]\n")


def keypoints(root: Path) -> None:
    """YOLO's pose lines: a box, then two points of three numbers."""
    for stem in SCENES:
        image(root / "images" / "train" / f"{stem}.jpg")
        write(root / "labels" / "train" / f"{stem}.txt", lines(stem, " 0.1 0.2 2 0.3 0.4 2"))
    write(root / "data.yaml", "train: images/train\nnames: [cat, dog]\nkpt_shape: [2, 3]\n")


def windows_list(root: Path) -> None:
    for stem in SCENES:
        image(root / "images" / f"{stem}.jpg")
        write(root / "labels" / f"{stem}.txt", lines(stem))
    write(root / "train.txt", "".join(f"D:\\projects\\mine\\images\\{stem}.jpg\r\n" for stem in SCENES))
    write(root / "data.yaml", "train: train.txt\nnames: [cat, dog]\n")


def masks(root: Path) -> None:
    """COCO with masks alone: the box of the polygons is read."""
    for stem in SCENES:
        image(root / "train" / f"{stem}.jpg")
    content = coco(lambda stem: f"{stem}.jpg")
    for annotation in content["annotations"]:
        x, y, width, height = annotation.pop("bbox")
        annotation["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    write(root / "annotations" / "instances_train.json", content)


def cvat_coco_keypoints(root: Path) -> None:
    for stem in SCENES:
        image(root / "images" / "default" / f"{stem}.jpg")
    content = coco(lambda stem: f"{stem}.jpg", keypoints=[1, 2, 2] * 17, num_keypoints=17)
    write(root / "annotations" / "person_keypoints_default.json", content)


def signed_urls(root: Path) -> None:
    for stem in SCENES:
        image(root / "train" / f"{stem}.jpg")
    content = coco(lambda stem: f"https://bucket.example.org/a/{stem}.jpg?Expires=1&Signature=a%2Fb", "coco_url")
    write(root / "annotations" / "instances_train.json", content)


def labelme_beside_images(root: Path) -> None:
    """JSON in a folder of its own, with keys in order of the alphabet and the image's content before the shapes."""
    labelme(root / "json")
    for path in sorted((root / "json").iterdir()):
        if path.suffix == ".jpg":
            (root / "images").mkdir(exist_ok=True)
            path.rename(root / "images" / path.name)
        else:
            content = json.loads(path.read_text())
            content |= {"imagePath": f"..\\images\\{path.stem}.jpg", "imageData": "A" * 100_000}
            path.write_text(json.dumps(content, sort_keys=True))


def semicolon_csv(root: Path) -> None:
    tensorflow_csv(root)
    path = root / "train" / "_annotations.csv"
    path.write_text(path.read_text().replace(",", ";"))


def tensorflow_csv(root: Path) -> None:
    rows = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    for stem in SCENES:
        image(root / "train" / f"{stem}.jpg")
        rows += [f"{stem}.jpg,60,40,{name},{x1},{y1},{x2},{y2}" for name, (x1, y1, x2, y2) in SCENES[stem]]
    write(root / "train" / "_annotations.csv", "\n".join(rows))


TOOLS: dict[str, tuple[Callable[[Path], None], str, list[str]]] = {
    function.__name__: (function, form, splits)
    for function, form, splits in [
        (cvat_voc, "voc", ["train"]), (cvat_voc_of_a_job, "voc", ["default"]), (cvat_coco, "coco", ["default"]),
        (cvat_yolo_1_1, "yolo", ["train"]), (cvat_ultralytics, "yolo", ["train"]),
        (label_studio_voc, "voc", ["all"]), (label_studio_coco, "coco", ["result"]),
        (label_studio_coco_of_uploads, "coco", ["result"]), (label_studio_yolo, "yolo", ["all"]),
        (roboflow_voc, "voc", ["train"]), (roboflow_coco, "coco", ["train"]),
        (roboflow_yolo, "yolo", ["train", "val", "test"]), (labelimg_voc, "voc", ["all"]),
        (labelimg_yolo, "yolo", ["all"]), (labelme, "labelme", ["all"]), (vott_json, "vott", ["vott-json-export"]),
        (vott_csv, "csv", ["vott-csv-export"]), (vott_voc, "voc", ["all"]), (open_images, "csv", ["train"]),
        (lvis, "coco", ["train"]), (fiftyone_voc, "voc", ["all"]), (fiftyone_coco, "coco", ["labels"]),
        (fiftyone_yolo, "yolo", ["val"]), (fiftyone, "fiftyone", ["all"]), (supervisely, "supervisely", ["set 1"]),
        (darknet, "yolo", ["train", "valid"]), (polygons, "yolo", ["train"]), (keypoints, "yolo", ["train"]),
        (windows_list, "yolo", ["train"]), (masks, "coco", ["train"]), (tensorflow_csv, "csv", ["train"]),
        (semicolon_csv, "csv", ["train"]), (cvat_coco_keypoints, "coco", ["default"]), (signed_urls, "coco", ["train"]),
        (labelme_beside_images, "labelme", ["json"]),
    ]
}  # fmt: skip


def contents(data: Dataset) -> dict[str, Objects]:
    """Image -> its objects, sides rounded to 0.001 px."""
    return {
        sample.path.stem: [
            (data.names[label], tuple(float(side) for side in np.round(box, 3)))
            for label, box in zip(sample.labels, sample.boxes, strict=True)
        ]
        for sample in data.samples
    }


@pytest.mark.parametrize("tool", TOOLS)
def test_an_export_is_read_as_it_comes_and_converted_to_every_format_and_back(tmp_path: Path, tool: str) -> None:
    make, form, splits = TOOLS[tool]
    root = tmp_path / "export-1"
    make(root)
    assert (recognize(root), find_splits(root)) == (form, splits)
    notices: list[str] = []
    data = read_dataset(root, splits[:1], notice=notices.append)
    assert contents(data) == SCENES and sorted(data.names) == NAMES
    assert not any("left out" in notice and "class left out" not in notice for notice in notices)
    for number, to in enumerate([*FORMATS, "voc"]):
        source, source_split = (root, splits[0]) if number == 0 else (tmp_path / str(number - 1), "new")
        convert(source, tmp_path / str(number), to, {"new": [source_split]}, notice=notices.append)
        assert contents(read_dataset(tmp_path / str(number), "new")) == SCENES


def test_what_an_export_holds_beside_boxes_is_counted_as_lost(tmp_path: Path) -> None:
    expected = {
        "lvis": "masks",
        "keypoints": "keypoints",
        "cvat_coco_keypoints": "keypoints",
        "open_images": "truncated flags",
        "masks": "masks",
    }
    for tool, what in expected.items():
        make, _, splits = TOOLS[tool]
        make(tmp_path / tool)
        written = convert(
            tmp_path / tool, tmp_path / f"{tool}-out", "yolo", {"new": splits[:1]}, notice=lambda text: None
        )
        assert written["new"][f"{what} lost"] == 3


def test_lists_of_single_classes_name_their_images(tmp_path: Path) -> None:
    vott_voc(tmp_path)
    notices: list[str] = []
    data = read_dataset(tmp_path, "traffic light_train", notice=notices.append)
    assert [sample.path.stem for sample in data.samples] == ["b"]


def test_two_tools_in_one_folder_are_told_apart_by_the_file(tmp_path: Path) -> None:
    cvat_coco(tmp_path)
    label_studio_yolo(tmp_path)
    cvat_ultralytics(tmp_path)
    with pytest.raises(ValueError, match=r"got \['coco', 'yolo'\]; pass the one file that describes it"):
        recognize(tmp_path)
    notices: list[str] = []
    for file, splits in (("annotations/instances_default.json", []), ("data.yaml", ["train"])):
        assert contents(read_dataset(tmp_path / file, splits, notice=notices.append)) == SCENES
