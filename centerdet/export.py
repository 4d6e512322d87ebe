"""From weights to a file that runs without PyTorch: ONNX, or an OpenVINO pair; compared with PyTorch before it appears.

The graph is `Graph`, what the PyTorch runtime runs: uint8 images (N, S, S, 3) to boxes (N, K, 4) px of the input,
scores and labels (N, K), with N free and S fixed. NMS stays outside, one code for all runtimes.
"""

import hashlib
import io
import json
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from . import __version__
from .errors import ConfigError, WeightsError
from .files import write_atomic
from .images import Source, load, resize
from .runtimes import Runtime, open_runtime
from .runtimes.contract import FORMAT
from .runtimes.onnx_header import seal
from .runtimes.pytorch import Graph, PyTorchRuntime
from .runtimes.weights import SHIPPED, read_tensors, weights_path

__all__ = ["Differences", "Format", "compare", "export", "find_photographs"]

Format = Literal["onnx", "openvino"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "openvino": ".xml"}

OPSET = 20
"""Of ONNX: the one that PyTorch's exporter recommends, and that the quantizer and OpenVINO read."""
MAX_BATCH = 4096
BOX_TOLERANCE, SCORE_TOLERANCE = 0.05, 1e-4  # px of the input, and of 1
LOW_SCORE = 1e-3  # below it peaks are ties, in any order
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png")


@dataclass(frozen=True, slots=True)
class Differences:
    """The largest differences between two runtimes on the same images.

    Attributes:
        boxes: px of the input. scores: of 1. images, detections: what was compared.
    """

    boxes: float
    scores: float
    images: int
    detections: int

    def __str__(self) -> str:
        return (
            f"{self.boxes:.2g} px and {self.scores:.2g} of score at most, over {self.detections} boxes of "
            f"{self.images} images"
        )


def export(
    weights: str | Path,
    out: str | Path,
    *,
    form: Format = "onnx",
    half: bool = False,
    images: Sequence[Source] = (),
    license_name: str = "",
) -> Differences:
    """Write `out` (.onnx, or .xml with a .bin beside it) and return how it differs from PyTorch on real images.

    Beyond 0.05 px or 1e-4 of score nothing is written, and that is a `WeightsError`.

    Args:
        weights: a shipped name or a .safetensors file.
        half: store the weights in half precision; arithmetic stays float. They are compared with PyTorch's, rounded.
        images: to compare on; three photographs of scikit-image if there are none.
        license_name: of the weights, for the file's metadata; by default the one that the weights file states.
    """
    out = Path(out)
    if form not in get_args(Format):
        raise ConfigError(f"format: expected one of {', '.join(get_args(Format))}, got {form!r:.60}")
    if out.suffix != SUFFIXES[form]:
        raise ConfigError(f"out: expected a name that ends in {SUFFIXES[form]} for {form}, got {out}")
    path = weights_path(weights)
    if path.suffix in SUFFIXES.values():
        raise ConfigError(f"{path}: is exported already: expected the .safetensors weights")
    runtime = PyTorchRuntime.load(path, device="cpu")
    if half:
        for parameter in runtime.graph.parameters():
            parameter.copy_(parameter.half())
    fields = _describe(weights, path, runtime, license_name)
    model = convert(runtime.graph, runtime.size)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder, out.name)
        if form == "onnx":
            if half:
                _store_halves(model)
            draft.write_bytes(seal(model.SerializeToString(), fields))
        else:
            _write_openvino(model, draft, fields, half)
        batch = make_batch(images or find_photographs(), runtime.size)
        differences = compare(runtime, open_runtime(draft, device="cpu"), batch)
        if not (differences.boxes <= BOX_TOLERANCE and differences.scores <= SCORE_TOLERANCE):
            raise WeightsError(
                f"{out}: not written: {differences}; expected at most {BOX_TOLERANCE} px and {SCORE_TOLERANCE}: "
                "the exported graph differs from PyTorch's"
            )
        for file in sorted(Path(folder).iterdir()):  # .bin before .xml, which is what is opened
            write_atomic(out.with_name(file.name), file.read_bytes())
    return differences


def convert(graph: Graph, size: int) -> onnx.ModelProto:
    """The ONNX model of a graph, checked; without any trace of the machine that made it."""
    graph = graph.to(memory_format=torch.contiguous_format)
    for module in graph.modules():
        if "inplace" in vars(module):
            vars(module)["inplace"] = False  # the exporter takes twice as long for activations in place
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's about its own parts
        program = torch.onnx.export(
            graph,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=({0: torch.export.Dim("N", min=1, max=MAX_BATCH)},),
            input_names=["images"],
            output_names=["boxes", "scores", "labels"],
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise WeightsError("PyTorch's exporter returned no program")
    model = onnx.load_from_string(program.model_proto.SerializeToString())
    # The exporter notes names of Python objects and paths of source files.
    del model.metadata_props[:], model.graph.value_info[:]
    for part in (model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    _trim_kernels(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def make_batch(images: Sequence[Source], size: int) -> NDArray[np.uint8]:
    """Images of any kind, resized as for prediction: (N, S, S, 3)."""
    return np.stack([resize(load(image), size, size) for image in images])


def compare(expected: Runtime, other: Runtime, batch: NDArray[np.uint8]) -> Differences:
    """How two runtimes differ on images (N, S, S, 3), together and one by one.

    Each of the expected detections is compared with the nearest of the same label, since scores that are almost equal
    may come in either order. Those below 0.001, or within the tolerance of the last, may be cut off and are left out.
    """
    singles = [other.run(image[None]) for image in batch]
    joined = tuple(np.concatenate(parts) for parts in zip(*singles, strict=True))
    pairs = [
        _pair(*rows)
        for outputs in (other.run(batch), joined)
        for rows in zip(*expected.run(batch), *outputs, strict=True)
    ]
    differences = np.concatenate([np.zeros((1, 2)), *pairs]).max(0)
    return Differences(
        float(differences[0]), float(differences[1]), images=len(batch), detections=sum(map(len, pairs)) // 2
    )


def _pair(
    boxes: NDArray[Any], scores: NDArray[Any], labels: NDArray[Any],
    boxes2: NDArray[Any], scores2: NDArray[Any], labels2: NDArray[Any],
) -> NDArray[np.float64]:  # fmt: skip
    """(M, 2): differences in px and in score between each detection and its counterpart in the other arrays."""
    sure = scores > max(LOW_SCORE, scores[-1] + SCORE_TOLERANCE)
    off = np.stack(
        [
            np.abs(boxes[sure, None] - boxes2[None]).max(-1, initial=0),
            np.abs(scores[sure, None] - scores2[None]),
        ],
        -1,
    )
    off[labels[sure, None] != labels2[None]] = np.inf
    nearest = (off / (BOX_TOLERANCE, SCORE_TOLERANCE)).max(-1).argmin(1)
    chosen: NDArray[np.float64] = off[np.arange(len(off)), nearest].astype(np.float64)
    return chosen


def find_photographs() -> list[Path]:
    """Three photographs inside scikit-image."""
    try:
        import skimage
    except ImportError:
        raise ConfigError(
            "images: none given, and those of scikit-image are missing: pip install scikit-image"
        ) from None
    return [Path(skimage.__file__).parent / "data" / name for name in PHOTOGRAPHS]


def _describe(weights: str | Path, path: Path, runtime: PyTorchRuntime, license_name: str) -> dict[str, Any]:
    """The fields of an exported file's metadata."""
    content = path.read_bytes()
    fields = read_tensors(path)[1]
    stated = fields.get("license") or ("Apache-2.0" if str(weights) in SHIPPED else "")
    described = {
        "centerdet": __version__,
        "names": runtime.names,
        "size": runtime.size,
        "nms_iou": runtime.nms_iou,
        "license": license_name or stated,
        "weights_sha256": hashlib.sha256(content).hexdigest(),
    }
    return described | {key: fields[key] for key in ("calibration",) if key in fields}


def _trim_kernels(model: onnx.ModelProto) -> None:
    """Cut off a first row and column of zeros, which only PyTorch needs for its symmetric padding (see `models`)."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "Conv":
            continue
        kernel = numpy_helper.to_array(tensors[node.input[1]])
        attributes = {attribute.name: attribute for attribute in node.attribute}
        pads = attributes["pads"].ints if "pads" in attributes else []
        if min([*pads[:2], *kernel.shape[2:]], default=0) > 0 and not (kernel[:, :, 0].any() or kernel[..., 0].any()):
            trimmed = np.ascontiguousarray(kernel[:, :, 1:, 1:])
            tensors[node.input[1]].CopyFrom(numpy_helper.from_array(trimmed, node.input[1]))
            pads[:2] = [side - 1 for side in pads[:2]]
            if "kernel_shape" in attributes:
                attributes["kernel_shape"].ints[:] = trimmed.shape[2:]


def _store_halves(model: onnx.ModelProto) -> None:
    """Weights as float16, each with a cast to float32, which a runtime computes once when it opens the file."""
    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if (values.dtype == np.float32 and values.ndim == 4) or tensor.name.endswith("bias"):
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
            casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)


def _write_openvino(model: onnx.ModelProto, path: Path, fields: dict[str, Any], half: bool) -> None:
    try:
        import openvino
    except ImportError:
        raise ConfigError("format: openvino needs its package: pip install 'centerdet[openvino]'") from None
    from .runtimes import openvino as runtime

    converted = openvino.Core().read_model(io.BytesIO(model.SerializeToString()))
    converted.set_rt_info(json.dumps({"format": FORMAT, **fields}), runtime.FIELDS)
    openvino.save_model(converted, path, compress_to_fp16=half)
    path.write_bytes(runtime.seal(path.read_bytes(), path.with_suffix(".bin").read_bytes()))
