"""Label files of detections, for correction in CVAT, Label Studio or labelImg."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..files import write_atomic

if TYPE_CHECKING:
    from ..detections import Detections

__all__ = ["LABELS", "LabelFiles"]

LABELS = ("voc", "yolo", "coco")
SUFFIXES = {"voc": ".xml", "yolo": ".txt"}


class LabelFiles:
    """Writes one file per image (voc, yolo) or one for all (coco).

    Args:
        form: one of LABELS.
        folder: folder for the files; None: beside each image, where existing files are never replaced.
        names: the detector's classes.
    """

    def __init__(self, form: str, folder: Path | None, names: Sequence[str]) -> None:
        self.form, self.folder, self.names = form, folder, names
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def check(self, sources: Sequence[str]) -> None:
        """Refuse to replace label files beside images."""
        from ..sources import VIDEO_SUFFIXES

        if self.folder is None:
            for source in sources:
                if source.lower().endswith(VIDEO_SUFFIXES) or not Path(source).is_file():
                    raise ConfigError(f"--labels: {source} is not an image file: pass --out")
                path = Path(source).with_suffix(SUFFIXES[self.form])
                if path.exists():
                    raise ConfigError(f"--labels: {path} exists: move it, or pass --out")

    def write(self, result: "Detections", source: str, name: str, frame: int | None) -> None:
        """Write the labels of an image or a frame; name: name of its file in the folder, without suffix."""
        file = Path(source).name
        if frame is not None:  # CVAT's names for the frames of a video
            name, file = f"{name}/frame_{frame:06}", f"frame_{frame:06}.PNG"
        if self.form == "coco":
            number = len(self._images) + 1
            height, width = result.size
            self._images.append({"id": number, "file_name": file, "height": height, "width": width})
            for record in result.to_coco(number):
                area = record["bbox"][2] * record["bbox"][3]
                self._annotations.append({"id": len(self._annotations) + 1, **record, "area": area, "iscrowd": 0})
            return
        suffix = SUFFIXES[self.form]
        path = self.folder / f"{name}{suffix}" if self.folder else Path(source).with_suffix(suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.form == "voc":
            result.save_voc_xml(path, filename=file)
            return
        write_atomic(path, result.to_yolo_txt().encode(), sync=False)
        classes = (self.folder or path.parent) / "classes.txt"
        if not classes.exists():
            write_atomic(classes, "".join(f"{name}\n" for name in self.names).encode())

    def close(self) -> None:
        """Write the COCO file, if the form is coco."""
        if self.form == "coco" and self.folder:
            categories = [{"id": number, "name": name} for number, name in enumerate(self.names, 1)]
            content = {"images": self._images, "categories": categories, "annotations": self._annotations}
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomic(self.folder / "instances.json", json.dumps(content).encode())
