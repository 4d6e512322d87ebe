"""Likely label errors (suspects) with their reasons, as a list, and as annotations for labeling tools.

A proposal is the corrected annotation of an image: missing objects are added, boxes moved, classes changed, spurious
and duplicate boxes removed. Images without suspects are left out.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.coco import coco_annotations
from ..data.sample import Dataset, Sample
from ..data.voc_xml import annotation_xml
from ..data.yolo import label_lines
from ..errors import WriteError
from ..files import new_folder, write_atomic
from ..images import read_size
from ..metrics.arrays import Arrays
from ..metrics.label_errors import LabelErrorKind, LabelErrors
from ..orientation import Box
from .ids import list_ids, list_stems

__all__ = ["Suspect", "check_place", "correct", "describe", "write_suspects"]


class Suspect(NamedTuple):
    """A likely label error.

    Attributes:
        image: path of the image.
        kind: missing, renamed, shifted, spurious or duplicate.
        name: class of the detection; for a spurious or duplicate box, class of the annotation.
        score: confidence that the label is wrong, from 0 to 1.
        box: xyxy px of the detection; for a spurious or duplicate box, of the annotation.
        existing: class of the annotation in question; None if an object is missing.
        existing_box: its box.
        overlaps: class of the annotation with the highest IoU with the box, if any.
        iou: that IoU.
        reason: why the label is likely wrong, for people.
    """

    image: Path
    kind: str
    name: str
    score: float
    box: Box
    existing: str | None
    existing_box: Box | None
    overlaps: str | None
    iou: float
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: `proposal` is None if a box should be removed, `existing` if one should be added."""
        removes = self.kind in ("spurious", "duplicate")
        proposal = None if removes else {"label": self.name, "box": list(self.box)}
        existing = self.existing_box and {"label": self.existing, "box": list(self.existing_box)}
        return {
            "image": str(self.image), "kind": self.kind, "score": self.score, "reason": self.reason,
            "proposal": proposal, "existing": existing,
        }  # fmt: skip


def describe(likely: LabelErrors, arrays: Arrays, names: Sequence[str], paths: Sequence[Path]) -> list[Suspect]:
    """Label errors with their images, classes and reasons; `arrays`: the input of `label_errors`."""
    suspects = []
    columns = (likely.kind, likely.score, likely.detection, likely.gt, likely.iou)
    for number, score, detection, gt, iou in zip(*(column.tolist() for column in columns), strict=True):
        kind = LabelErrorKind(number).name.lower()
        overlaps = names[arrays.gt_labels[gt]] if gt >= 0 else None
        gt_box = _box(arrays.gt_boxes[gt]) if gt >= 0 else None
        if detection >= 0:
            image, name = arrays.det_images[detection], names[arrays.det_labels[detection]]
            box, confidence = _box(arrays.det_boxes[detection]), float(arrays.det_scores[detection])
        else:
            image, name = arrays.gt_images[gt], names[arrays.gt_labels[gt]]
            box, confidence = _box(arrays.gt_boxes[gt]), 0.0
        reason = {
            "missing": f"{name} detected with a score of {confidence:.2f}, but no {name} is labeled here",
            "renamed": f"labeled {overlaps}, predicted as {name} with a score of {confidence:.2f}",
            "shifted": f"{name} detected with a score of {confidence:.2f}; IoU with its labeled box: only {iou:.2f}",
            "spurious": f"no {name} detected here, although most {name} objects of this size are detected",
            "duplicate": f"marks the same object as another box of {name} (IoU {iou:.2f})",
        }[kind]
        missing = kind == "missing"
        suspects.append(Suspect(
            paths[image], kind, name, score, box, None if missing else overlaps, None if missing else gt_box,
            overlaps, iou, reason,
        ))  # fmt: skip
    return suspects


def _box(row: NDArray[Any]) -> Box:
    left, top, right, bottom = row.tolist()
    return left, top, right, bottom


def check_place(path: str | Path) -> None:
    """Refuse a path that `write_suspects` could not write."""
    path = Path(path)
    if path.suffix == ".json" or not path.exists():
        return
    if not path.is_dir() or any(path.iterdir()):
        raise WriteError(f"{path}: expected a file called *.json, or a new or empty folder")


def write_suspects(
    path: str | Path, suspects: Sequence[Suspect], dataset: Dataset, *, annotations: Sequence[str | Path] = ()
) -> None:
    """Write the list as JSON if the path ends in .json, else a new folder with the list and the proposals.

    The folder contains suspects.json, coco.json, voc/<image>.xml, and yolo/<image>.txt with yolo/classes.txt. In
    coco.json, changed boxes have the fields `suspect` (the kind) and `score`.

    annotations: the dataset's COCO files, so that coco.json uses their ids.
    """
    content = json.dumps([suspect.to_dict() for suspect in suspects], indent=1).encode()
    if Path(path).suffix == ".json":
        write_atomic(path, content)
        return
    by_image: dict[Path, list[Suspect]] = {}
    for suspect in suspects:
        by_image.setdefault(suspect.image, []).append(suspect)
    ids, categories = list_ids(dataset, annotations)
    stems = list_stems(dataset)
    numbers = [number if isinstance(number, int) else place for place, number in enumerate(categories, 1)]
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    with new_folder(path) as folder:
        for form in ("voc", "yolo"):
            (folder / form).mkdir()
        for sample, key, stem in zip(dataset.samples, ids, stems, strict=True):
            if sample.path not in by_image:
                continue
            proposal, sources = correct(sample, by_image[sample.path], dataset.names)
            size = sample.size or read_size(sample.path)
            images.append({"id": key, "file_name": stem + sample.path.suffix, "width": size[1], "height": size[0]})
            records = coco_annotations(proposal, image_id=key, first_id=len(objects) + 1, category_ids=numbers)
            for record, source in zip(records, sources, strict=True):
                marks = {"suspect": source.kind, "score": source.score} if source else {}
                objects.append(record | marks)
            whole = ~proposal.crowd  # YOLO has no crowds
            for form, text in (
                (f"voc/{stem}.xml", annotation_xml(proposal, dataset.names, size=size)),
                (f"yolo/{stem}.txt", label_lines(proposal.boxes[whole], proposal.labels[whole], size).encode()),
            ):
                (folder / form).parent.mkdir(parents=True, exist_ok=True)
                write_atomic(folder / form, text, sync=False)
        classes = [{"id": number, "name": name} for number, name in zip(numbers, dataset.names, strict=True)]
        coco = {"images": images, "annotations": objects, "categories": classes}
        write_atomic(folder / "yolo" / "classes.txt", "".join(f"{name}\n" for name in dataset.names).encode())
        write_atomic(folder / "coco.json", json.dumps(coco, ensure_ascii=False).encode())
        write_atomic(folder / "suspects.json", content)


def correct(sample: Sample, suspects: Sequence[Suspect], names: Sequence[str]) -> tuple[Sample, list[Suspect | None]]:
    """The sample with its suspects corrected, and the suspect of each of its boxes, if any."""
    index = {name: label for label, name in enumerate(names)}
    boxes, labels = sample.boxes.copy(), sample.labels.copy()
    sources: list[Suspect | None] = [None] * len(boxes)
    stays = np.ones(len(boxes), bool)
    added = [suspect for suspect in suspects if suspect.existing_box is None]
    for suspect in suspects:
        if suspect.existing_box is not None and suspect.existing is not None:
            same = (sample.boxes == suspect.existing_box).all(1) & (sample.labels == index[suspect.existing])
            [row, *_] = np.flatnonzero(same & stays).tolist()
            stays[row] = suspect.kind not in ("spurious", "duplicate")
            boxes[row], labels[row], sources[row] = suspect.box, index[suspect.name], suspect
    no = np.zeros(len(added), bool)
    boxes = np.concatenate([boxes[stays], np.array([one.box for one in added]).reshape(-1, 4)])
    labels = np.concatenate([labels[stays], np.array([index[one.name] for one in added], np.int64)])
    flags = (np.concatenate([flag[stays], no]) for flag in (sample.difficult, sample.crowd))
    difficult, crowd = flags
    corrected = replace(sample, boxes=boxes, labels=labels, difficult=difficult, crowd=crowd, areas=None)
    return corrected, [source for source, stay in zip(sources, stays, strict=True) if stay] + list(added)
