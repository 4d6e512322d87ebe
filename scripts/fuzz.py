"""Damage valid files and read them: python scripts/fuzz.py --cases 20000 [READER ...]

Each case changes one file of a small valid example, repairs its checksums in half of the cases, and reads it in this
process. Allowed are a result, and a `CenterdetError` that names the file. Other exceptions, more than 2 s of CPU time,
more than 1 GiB of additional memory, connections, processes, and files opened or written outside of the example's
folder are printed, kept in --out, and make the exit code 1. What causes a new message is damaged further. The same seed
and number of cases give the same cases. A crash leaves the files that caused it in a folder called fuzz-* in /dev/shm
or /tmp.
"""

import faulthandler
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import onnx
import safetensors.numpy
import torch
import typer
from PIL import Image

from centerdet import Detector
from centerdet.cli.journal import Journal
from centerdet.data.formats import convert, find_splits, read_dataset
from centerdet.data.pack import _checksum, read_pack, read_sample, write_pack
from centerdet.data.sample import Dataset
from centerdet.data.shapes import SHAPE_NAMES, write_shapes
from centerdet.detections import Detections
from centerdet.errors import CenterdetError
from centerdet.evaluation.files import Results, read_coco_results, read_voc_results, write_results
from centerdet.images import load, read_header
from centerdet.metrics.cocoeval import COCO
from centerdet.models import Network
from centerdet.runtimes.onnx import OnnxRuntime
from centerdet.runtimes.onnx_header import seal
from centerdet.runtimes.pytorch import PyTorchRuntime
from centerdet.text import format_table
from centerdet.training.checkpoints import RunState, check_data, load_checkpoint, save_checkpoint
from centerdet.training.config import TrainConfig
from centerdet.training.progress import cut_log

SECONDS, MEMORY = 2.0, 2**30  # CPU time and bytes of a case
PLACE = "/dev/shm" if Path("/dev/shm").is_dir() else None  # memory, if there is such a folder: a case writes files
ODD = (
    b"nan", b"-inf", b"Infinity", b"1e308", b"1e400", b"-1", b"0", b"2147483648", b"9" * 5000, b"\0", b"\xff\xfe",
    b"\xef\xbb\xbf", b"\xfe\xff", b"\r\n", b"\n\n", b'"', b"'", b"[" * 3000, b"{" * 3000, b"../outside/secret.jpg",
    b"/etc/hosts", b"..", b" ", b"\xc3\xa9", b"\xf0\x9f\x98\x80", b"\xff" * 9, b"\x7f\xff\xff\xff", b"-", b",", b":",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 3.5, 1e308, float("nan"), float("inf"), 10**20, 10**400, "", "\ud800", "cat",
    "../outside/secret.jpg", "/etc/hosts", "http://192.0.2.1/a.jpg", [], {}, [[]], [1, 2, 3, 4], "x" * 5000,
    {"a": {"b": []}},
)  # fmt: skip
XML = (
    b'<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;">]>', b"&c;", b"&#0;", b"&#x110000;", b"<object>" * 3000,
    b"<![CDATA[", b'<?xml version="1.0" encoding="utf-7"?>', b'<?xml version="1.0" encoding="utf-16"?>', b"</object>",
    b'<!ENTITY x SYSTEM "file:///etc/hosts">', b"<bndbox>", b"<name/>", b"<!--",
)  # fmt: skip
YAML = (
    b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
        b"%c: &%c [%s]\n" % (letter, letter, b", ".join([b"*%c" % (letter - 1)] * 9)) for letter in range(98, 107)
    ) + b"names: *j\n",
    b"a: &a {x: 1}\n" + b"".join(
        b"%c: &%c {<<: [%s]}\n" % (letter, letter, b", ".join([b"*%c" % (letter - 1)] * 9)) for letter in range(98, 107)
    ),
    b"nc: *a\n", b"path: &a [*a]\n", b"&a ", b"*a ", b"!!python/object:os.system ", b"!!timestamp x", b"!!int ''",
    b"2001-99-99", b"? [a]\n: b\n", b"!!bool x", b"!!float _", b"0b_", b"- " * 2000, b"!!set {a}", b"<<: *a\n", b"\t",
)  # fmt: skip


@dataclass(frozen=True)
class Reader:
    """A kind of file.

    make: writes an example into a folder. files: pattern of those to damage. read: reads the example. tokens: what is
    inserted. repair: makes checksums fit again.
    """

    make: Callable[[Path], object]
    files: str
    read: Callable[[Path], object]
    tokens: tuple[bytes, ...] = ()
    repair: Callable[[bytes], bytes] | None = None


@dataclass
class Outcome:
    """Of one reader: the numbers of results and of errors by type, the findings, time (s) and memory (bytes)."""

    kinds: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    memory: int = 0


class Hang(BaseException):
    """A case has used `SECONDS`; no reader may catch it."""


def _ignore(_: object) -> None: ...


def _stop(*_: object) -> None:
    raise Hang


# --- examples -----------------------------------------------------------------------------------------------------


def make_image(kind: str, **options: Any) -> Callable[[Path], object]:
    def make(root: Path) -> None:
        pixels = cv2.resize(np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8), (20, 16))
        Image.fromarray(pixels).save(root / f"image.{kind}", **options)

    return make


def read_image(root: Path) -> None:
    [path] = root.glob("image.*")
    read_header(path)
    load(path)


def make_dataset(root: Path, form: Any = "voc") -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_shapes(Path(folder, "voc"), train=2, val=1, size=32, seed=3)
        splits = {"train": ["train"], "val": ["val"]}
        convert(Path(folder, "voc"), Path(folder, "new"), form, splits, notice=_ignore)
        shutil.copytree(Path(folder, "new"), root, dirs_exist_ok=True)


def make_yolo_lists(root: Path) -> None:
    make_dataset(root, "yolo")
    for split in ("train", "val"):
        lines = [f"./images/{split}/{path.name}\n" for path in sorted((root / "images" / split).iterdir())]
        (root / f"{split}.txt").write_text("".join(lines))
    (root / "data.yaml").write_text(f"names: {list(SHAPE_NAMES)}\ntrain: train.txt\nval: val.txt\n")


def read_splits(root: Path) -> None:
    for split in find_splits(root) or ["all"]:
        read_dataset(root, [split], notice=_ignore)


def make_results(root: Path, file: str = "results.json") -> None:
    make_dataset(root / "data", "coco")
    dataset = read_dataset(root / "data", ["train"], notice=_ignore)
    boxes = np.concatenate([sample.boxes for sample in dataset.samples])
    labels = np.concatenate([sample.labels for sample in dataset.samples])
    images = np.repeat(np.arange(len(dataset)), [len(sample.boxes) for sample in dataset.samples])
    results = Results(boxes, np.linspace(0.1, 0.9, len(boxes)), labels, images)
    write_results(root / file, results, dataset, split="train", annotations=list((root / "data").rglob("*train*.json")))


def read_results(root: Path) -> None:
    annotations = sorted((root / "data").rglob("*train*.json"))
    dataset = read_dataset(root / "data", ["train"], notice=_ignore)
    read_coco_results(root / "results.json", dataset, annotations, notice=_ignore)
    COCO(annotations[0]).loadRes(root / "results.json")


def pack(root: Path, out: str, progress: Callable[[int], object] = _ignore) -> None:
    data = root / "data"
    write_pack(read_dataset(data, ["train"], notice=_ignore), data, ["train"], root / out, 24, progress=progress)


def make_pack(root: Path) -> None:
    make_dataset(root / "data")
    pack(root, "pack")


def read_packed(root: Path) -> None:
    for sample in read_pack(root / "pack", ["train"]).samples:
        read_sample(sample, 20)


def make_draft(root: Path) -> None:
    """A complete pack, and one that was stopped."""
    make_pack(root)
    (root / "pack").rename(root / "whole")
    with suppress(Hang):
        pack(root, "pack", _stop)


def continue_draft(root: Path) -> None:
    pack(root, "pack")
    for path in (root / "whole").iterdir():
        if (root / "pack" / path.name).read_bytes() != path.read_bytes():
            raise ValueError(f"{path.name} differs from that of a pass without a stop")


def network() -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Network(len(SHAPE_NAMES), backbone="efficientnet_lite0", stride=8, channels=16, freeze=2)


def make_weights(root: Path) -> None:
    Detector(PyTorchRuntime(network(), SHAPE_NAMES, 64, device="cpu")).save(root / "weights.safetensors")


def make_onnx(root: Path) -> None:
    """A graph with the inputs and outputs of a detector, and few nodes."""
    node, info, kinds = onnx.helper.make_node, onnx.helper.make_tensor_value_info, onnx.TensorProto
    one, two = (onnx.numpy_helper.from_array(np.array(axes), name) for name, axes in (("one", [1]), ("two", [1, 2])))
    pads = onnx.numpy_helper.from_array(np.array([0, 0, 0, 0, 0, 1]), "pads")
    nodes = [
        node("Cast", ["images"], ["x"], to=kinds.FLOAT), node("ReduceMean", ["x", "two"], ["mean"], keepdims=0),
        node("Unsqueeze", ["mean", "one"], ["wide"]), node("Pad", ["wide", "pads"], ["boxes"]),
        node("ReduceMean", ["mean", "one"], ["scores"]), node("Cast", ["scores"], ["labels"], to=kinds.INT64),
    ]  # fmt: skip
    outputs = [info("boxes", kinds.FLOAT, ["n", 1, 4]), info("scores", kinds.FLOAT, ["n", 1])]
    outputs.append(info("labels", kinds.INT64, ["n", 1]))
    inputs = [info("images", kinds.UINT8, ["n", 64, 64, 3])]
    graph = onnx.helper.make_graph(nodes, "tiny", inputs, outputs, [one, two, pads])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    fields = {"names": list(SHAPE_NAMES), "size": 64, "nms_iou": 0.5}
    (root / "model.onnx").write_bytes(seal(model.SerializeToString(), fields))


def layers() -> tuple[torch.nn.Module, torch.nn.Module, torch.optim.Optimizer]:
    """A network, its average and its optimizer, for checkpoints."""
    network, averaged = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.ones(3)).sum().backward()
    optimizer.step()
    return network, averaged, optimizer


def make_checkpoint(root: Path) -> None:
    save_checkpoint(TrainConfig(("data",), str(root), val=()), *layers(), RunState(1))


def read_checkpoint(root: Path) -> None:
    load_checkpoint(TrainConfig(("data",), str(root), val=()), *layers(), 1, _ignore)


def make_log(root: Path) -> None:
    head = "step,epoch,size,heatmap_loss,box_loss,lr,voc_area,voc07_11pt\n"
    (root / "log.csv").write_text(head + "".join(f"{step},1.00,64,3.1,1.0,0.001,,\n" for step in range(10, 50, 10)))
    check_data(root, [Dataset([], SHAPE_NAMES)])


def read_log(root: Path) -> None:
    cut_log(root / "log.csv", 30)
    check_data(root, [Dataset([], SHAPE_NAMES)])


def make_journal(root: Path) -> None:
    one = Detections(np.array([[1.0, 2, 3, 4]]), np.array([0.5]), np.array([1]), SHAPE_NAMES, (9, 9), "a.jpg")
    with Journal(root, {"labels": "", "tile": None}, resume=False) as journal:
        for number in range(3):
            journal.add({**one.to_dict(), "path": f"{number}.jpg", "frame": None, "video": False})


def read_journal(root: Path) -> None:
    with Journal(root, {"labels": "", "tile": None}, resume=True) as journal:
        for row in journal.rows:
            with suppress(CenterdetError):  # which name no file
                Detections.from_dict(row, SHAPE_NAMES)


# --- repairs ------------------------------------------------------------------------------------------------------


def repair_png(content: bytes) -> bytes:
    """The file with right checksums of its chunks."""
    parts, place = [content[:8]], 8
    while place + 12 <= len(content):
        end = place + 8 + int.from_bytes(content[place : place + 4], "big")
        parts += [content[place:end], zlib.crc32(content[place + 4 : end]).to_bytes(4, "big")]
        place = end + 4
    return b"".join(parts)


def repair_tensors(content: bytes) -> bytes:
    """The file with the right length of its header and checksum, where its header is JSON."""
    end = content.rfind(b"}}", 0, 200_000) + 2
    try:
        entries = json.loads(content[8:end])
        texts = entries.pop("__metadata__")
        texts.pop("crc32", None)
        checksum = zlib.crc32(json.dumps([texts, entries], sort_keys=True).encode())
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError):
        return content
    tensors = content[end:].lstrip(b" ")
    header = json.dumps({"__metadata__": {**texts, "crc32": str(zlib.crc32(tensors, checksum))}, **entries}).encode()
    return len(header).to_bytes(8, "little") + header + tensors


def repair_pack(content: bytes) -> bytes:
    """The labels of a pack with the right length of their header and checksum, where they can be read."""
    end = content.rfind(b"}}", 0, 200_000) + 2
    try:
        fields = json.loads(json.loads(content[8:end])["__metadata__"]["pack"])
        fields.pop("crc32", None)
        tensors = safetensors.numpy.load((end - 8).to_bytes(8, "little") + content[8:end] + content[end:].lstrip(b" "))
        fields["crc32"] = _checksum(fields, tensors)
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError, safetensors.SafetensorError):
        return content
    return safetensors.numpy.save(tensors, {"pack": json.dumps(fields)})


def repair_onnx(content: bytes) -> bytes:
    """The file with the right checksum in its last entry."""
    return seal(content[: max(0, content.rfind(b"crc32") - 4)], {})


JPEG = (b"\xff\xd8", b"\xff\xd9", b"\xff\xc0", b"\xff\xda", b"\xff\xe1", b"Exif\0\0", b"\xff\xff\xff\xff")
META = (b'"crc32"', b'"F64"', b'"BOOL"', b'"shape": [1099511627776]', b'"data_offsets": [0, 8]', b'\\"', b'"state"')
READERS = {
    "jpeg": Reader(make_image("jpg"), "*.jpg", read_image, JPEG),
    "png": Reader(make_image("png"), "*.png", read_image, (b"IHDR", b"tEXt", b"iCCP", b"acTL"), repair_png),
    "webp": Reader(make_image("webp"), "*.webp", read_image, (b"VP8L", b"VP8X", b"ANMF", b"EXIF")),
    "tiff": Reader(make_image("tiff", compression="tiff_lzw"), "*.tiff", read_image, (b"II*\0", b"MM\0*")),
    "gif": Reader(make_image("gif"), "*.gif", read_image, (b"\x2c", b"\x21\xf9\x04")),
    "voc": Reader(make_dataset, "Annotations/*.xml", read_splits, XML),
    "coco": Reader(lambda root: make_dataset(root, "coco"), "**/*.json", read_splits),
    "yolo": Reader(lambda root: make_dataset(root, "yolo"), "labels/*/*.txt", read_splits),
    "yaml": Reader(lambda root: make_dataset(root, "yolo"), "data.yaml", read_splits, YAML),
    "lists": Reader(make_dataset, "ImageSets/Main/*.txt", read_splits),
    "yolo-lists": Reader(make_yolo_lists, "*.txt", read_splits),
    "results": Reader(make_results, "results.json", read_results),
    "voc-results": Reader(
        lambda root: make_results(root, "results"), "results/*.txt",
        lambda root: read_voc_results(root / "results", read_dataset(root / "data", ["train"], notice=_ignore)),
    ),
    "weights": Reader(
        make_weights, "*.safetensors", lambda root: Detector.load(root / "weights.safetensors", device="cpu"), META,
        repair_tensors,
    ),
    "onnx": Reader(make_onnx, "*.onnx", lambda root: OnnxRuntime.load(root / "model.onnx", threads=1), (), repair_onnx),
    "checkpoint": Reader(make_checkpoint, "*.safetensors", read_checkpoint, META, repair_tensors),
    "pack": Reader(make_pack, "pack/*", read_packed, META, repair_pack),
    "draft": Reader(make_draft, "pack/.*", continue_draft),
    "log": Reader(make_log, "*", read_log, (b"step,", b"10,,,,,,,\n")),
    "journal": Reader(make_journal, ".predict.jsonl", read_journal, (b"{}\n", b"[]\n", b'{"source": 1}\n', b"1\n")),
}  # fmt: skip


# --- damage -------------------------------------------------------------------------------------------------------


def damage(content: bytes, draw: random.Random, tokens: tuple[bytes, ...]) -> bytes:
    """The content with one to four changes; of large files mostly in the first 20,000 bytes."""
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        end = len(content) if draw.random() < 0.1 else min(len(content), 20_000)
        start = draw.randint(0, end)
        stop = min(len(content), start + draw.choice((0, 1, 2, 8, 60)))
        match draw.randrange(8):
            case 0:
                content = content[:start]
            case 1 | 2:
                flipped = bytes([content[start] ^ 1 << draw.randrange(8)]) if start < len(content) else b""
                content = content[:start] + flipped + content[start + 1 :]
            case 3:
                content = content[:start] + draw.choice((*tokens, *ODD)) + content[stop:]
            case 4:
                content = content[:start] + content[stop:]
            case 5:
                content = content[:stop] + content[start:stop] * draw.choice((1, 3, 100)) + content[stop:]
            case 6:
                content = _replace_number(content, draw)
            case 7:
                content = _replace_value(content, draw)
    return content


def _replace_number(content: bytes, draw: random.Random) -> bytes:
    """With another number in the place of one, in the first 20,000 bytes."""
    if matches := list(re.finditer(rb"-?\d+(\.\d+)?", content[:20_000])):
        match = draw.choice(matches)
        content = content[: match.start()] + draw.choice(ODD[:9]) + content[match.end() :]
    return content


def _replace_value(content: bytes, draw: random.Random) -> bytes:
    """With another value in the place of one, in JSON, a line of it, or the header of a file of tensors."""
    start, end = (8, content.rfind(b"}}", 0, 200_000) + 2) if content[8:9] == b"{" else (0, len(content))
    if content[:1] == b"{" and content.count(b"\n") > 1:
        lines = content.splitlines(keepends=True)
        number = draw.randrange(len(lines))
        start, end = sum(map(len, lines[:number])), sum(map(len, lines[: number + 1]))
    try:
        value = json.loads(content[start:end])
        places = _places(value)
        container, key = draw.choice(places)
        try:
            inner = json.loads(container[key]) if isinstance(container[key], str) else None
        except ValueError:
            inner = None
        if isinstance(inner, dict | list) and inner:  # a field of a weights file
            deep, inner_key = draw.choice(_places(inner))
            deep[inner_key] = draw.choice(VALUES)
            container[key] = json.dumps(inner)
        elif isinstance(container, dict) and draw.random() < 0.2:
            del container[key]
        else:
            container[key] = draw.choice(VALUES)
        return (
            content[:start]
            + json.dumps(value).encode()
            + b"\n" * (end > 0 and content[end - 1 : end] == b"\n")
            + content[end:]
        )
    except (ValueError, IndexError, RecursionError):
        return content


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in pairs for place in ((value, key), *_places(inner))]


# --- the run ------------------------------------------------------------------------------------------------------

_WATCHED: list[tuple[Path, list[str]]] = []
LIBRARY = tuple(
    {sys.prefix, sys.base_prefix, str(Path(os.__file__).parent), str(Path(__file__).parents[1] / "centerdet")}
)


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Note what reaches out of the watched folder."""
    if not _WATCHED:
        return
    root, noted = _WATCHED[-1]
    if event.startswith(("socket.connect", "socket.getaddrinfo", "urllib.", "subprocess.", "os.system", "os.exec")):
        noted.append(f"{event} {arguments!r:.100}")
    if event in ("open", "os.remove", "os.rename", "os.mkdir", "os.link", "os.symlink"):
        paths = [os.fspath(one) for one in arguments[:2] if isinstance(one, str | Path)]
        paths = paths[:1] if event == "open" else paths
        for path in paths:
            full = os.path.abspath(path)
            if not full.startswith((str(root), *LIBRARY, "/proc/", "/sys/", "/dev/null")):
                noted.append(f"{event} {full:.100}")


sys.addaudithook(_watch)


class Example:
    """A reader's valid files in a folder of their own; `read` puts another content in the place of one.

    targets: the files to damage.
    """

    def __init__(self, name: str) -> None:
        self.name, self.reader, self.place = name, READERS[name], Path(tempfile.mkdtemp(prefix="fuzz-", dir=PLACE))
        self.root = self.place / "root"
        self.root.mkdir()
        (self.place / "outside").mkdir()
        Image.new("RGB", (20, 16)).save(self.place / "outside" / "secret.jpg")
        self.reader.make(self.root)
        self.files = {path: path.read_bytes() for path in sorted(self.root.rglob("*")) if path.is_file()}
        self.targets = [path for path in sorted(self.root.glob(self.reader.files)) if path.is_file()]
        self.reader.read(self.root)  # imports, and the memory of a good file

    def __enter__(self) -> "Example":
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.place)

    def damage(self, content: bytes, draw: random.Random) -> bytes:
        """The content with some changes, in half of the cases with repaired checksums."""
        content = damage(content, draw, self.reader.tokens)
        return self.reader.repair(content) if self.reader.repair and draw.random() < 0.5 else content

    def read(self, path: Path, content: bytes) -> tuple[str, str]:
        """The message of an error, and what must not happen; empty for none."""
        if {one for one in self.root.rglob("*") if one.is_file()} != self.files.keys():
            shutil.rmtree(self.root)
        for one, original in self.files.items():
            if not one.is_file() or one in self.targets or self.name in ("log", "journal"):
                one.parent.mkdir(parents=True, exist_ok=True)
                one.write_bytes(content if one == path else original)
        return _run(self.reader, self.root)


def fuzz(name: str, cases: int, seed: int = 0, out: Path | None = None, only: bytes | None = None) -> Outcome:
    """Run cases of one reader; only: the content to read in all of them."""
    outcome, known, start = Outcome(), set[str](), time.process_time()
    with Example(name) as example:
        count = len(example.targets)
        corpus = [(path, example.files[path]) for path in example.targets]
        for number in range(cases):
            draw = random.Random(f"{seed} {name} {number}")
            path, content = draw.choice(corpus[:count] if draw.random() < 0.7 else corpus[-200:])
            content = example.damage(content, draw) if only is None else only
            message, finding = example.read(path, content)
            shown = re.sub(r"/\S*|\d+|'[^']*'", "", message)[:80]
            outcome.kinds[message.partition(":")[0] or "read"] += 1
            if finding:
                outcome.findings.append(f"{name} {number}: {finding}")
                if out:
                    out.mkdir(parents=True, exist_ok=True)
                    (out / f"{name}-{number}{path.suffix}").write_bytes(content)
            elif shown not in known and len(content) < 100_000:
                known.add(shown)
                corpus.append((path, content))
    outcome.seconds, outcome.memory = time.process_time() - start, _peak()
    return outcome


def _run(reader: Reader, root: Path) -> tuple[str, str]:
    """The message of an error, and what must not happen; empty for none."""
    noted: list[str] = []
    message = finding = ""
    memory = _peak()
    _WATCHED.append((root, noted))
    before = signal.signal(signal.SIGPROF, _stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(root)
    except CenterdetError as error:
        message = f"{type(error).__name__}: {error}"
        if str(root) not in str(error):
            finding = f"names no file: {message:.200}"
        elif len(str(error)) > 20_000:
            finding = f"a message of {len(str(error))} letters: {message:.200}"
    except Hang:
        finding = f"more than {SECONDS} s of CPU time"
    except Exception as error:  # noqa: BLE001
        message = finding = f"{type(error).__name__}: {error}"[:300]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        _WATCHED.pop()
    if _peak() - memory > MEMORY:
        finding = finding or f"{(_peak() - memory) / 2**20:.0f} MiB more memory"
    return message, "; ".join(filter(None, [finding, *noted[:3]]))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main(
    readers: Annotated[list[str] | None, typer.Argument(help=f"of {', '.join(READERS)}; all by default")] = None,
    cases: Annotated[int, typer.Option(min=1, help="per reader")] = 1000,
    seed: int = 0,
    out: Annotated[Path, typer.Option(help="folder for the files of findings")] = Path("fuzz"),
) -> None:
    """Run the cases of each reader and print a table."""
    torch.set_num_threads(1)
    rows, findings = [], []
    for name in readers or READERS:
        outcome = fuzz(name, cases, seed, out)
        findings += outcome.findings
        for line in outcome.findings[:20]:
            typer.echo(line)
        kinds = ", ".join(f"{count} {kind}" for kind, count in outcome.kinds.most_common(6))
        memory = f"{outcome.memory / 2**20:.0f}"
        rows.append((name, f"{cases}", f"{len(outcome.findings)}", f"{outcome.seconds:.0f}", memory, kinds))
        typer.echo(f"{name}: {cases} cases, {len(outcome.findings)} findings, {outcome.seconds:.0f} s: {kinds}")
    typer.echo(format_table(("reader", "cases", "findings", "s", "MiB", "outcomes"), rows))
    if findings:
        raise typer.Exit(1)


if __name__ == "__main__":
    faulthandler.enable()  # a crash of a library shows where
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    app()
