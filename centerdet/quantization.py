"""An exported ONNX file with 8-bit weights and activations, by ONNX Runtime's own tools; needs no PyTorch.

Weights are scaled per channel and use 7 bits, since the products of 8 overflow on CPUs without VNNI. What follows the
last convolution of each head stays float, and so do these two, whose outputs become logits and distances.
"""

import io
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    create_calibrator,
    quantize_static,
)

from .errors import ConfigError
from .files import write_atomic
from .images import Geometry, Source, load
from .runtimes.onnx import OnnxRuntime
from .runtimes.onnx_header import read_fields, seal
from .runtimes.weights import read_bytes

__all__ = ["quantize"]

QUANTIZED = ["Add", "Clip", "Conv", "Relu", "Resize"]
PERCENTILE = 99.999
"""Of an activation's values, those that its range covers: outliers would cost all others their precision."""


def quantize(exported: str | Path, out: str | Path, images: Sequence[Source]) -> None:
    """Write the int8 version `out` of a float .onnx file.

    images: some that are like those to come, for the ranges of activations; about 40 are enough, at some seconds each.
    """
    if not images:
        raise ConfigError("images: expected some to calibrate on, got none")
    content = read_bytes(exported)
    fields = read_fields(exported, content)
    if "int8" in fields:
        raise ConfigError(f"{exported}: is int8 already: expected a float file")
    size = OnnxRuntime.load(exported, device="cpu").size
    model = onnx.load_from_string(content)
    del model.metadata_props[:]
    normalization = _Normalization.find(model)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        onnx.save(model, source)
        with _quiet():
            ranges = _measure(source, Path(folder, "measured.onnx"), images, size)
            overrides = ranges | (normalization.override() if normalization else {})
            quantize_static(
                source,
                target,
                _Images(images[:1], size),  # the ranges are measured already
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=QUANTIZED,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=_float_nodes(model, first=normalization is None),
                extra_options={"TensorQuantOverrides": overrides},
            )
        model = onnx.load(target)
    del model.metadata_props[:], model.graph.value_info[:]
    if normalization:
        normalization.remove(model)
    onnx.checker.check_model(model, full_check=True)
    write_atomic(out, seal(model.SerializeToString(), {**fields, "int8": {"images": len(images)}}))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice that the quantizer logs and prints."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


class _Images(CalibrationDataReader):  # type: ignore[misc]
    """One resized image after another, as the graph takes it."""

    def __init__(self, images: Sequence[Source], size: int) -> None:
        self.images, self.size = iter(images), size

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        for source in self.images:
            image = load(source)
            return {"images": Geometry(image.shape[0], image.shape[1], self.size).forward_image(image)[None]}
        return None


def _measure(source: Path, measured: Path, images: Sequence[Source], size: int) -> dict[str, list[dict[str, Any]]]:
    """The range of every activation, as the quantizer takes it; one image after another, for memory's sake."""
    options = {"symmetric": False, "percentile": PERCENTILE}
    calibrator = create_calibrator(
        source, QUANTIZED, str(measured), calibrate_method=CalibrationMethod.Percentile, extra_options=options
    )
    for image in images:
        calibrator.collect_data(_Images([image], size))
    data = calibrator.compute_data().data
    ranges = {name: [np.float32(limit) for limit in value.range_value] for name, value in data.items()}
    return {name: [{"rmin": low, "rmax": high}] for name, (low, high) in ranges.items()}


def _float_nodes(model: onnx.ModelProto, *, first: bool) -> list[str]:
    """The convolutions that stay float: those whose output leaves the quantized operators, and the first if asked."""
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    last = [
        node.name
        for node in convolutions
        if any(node.output[0] in user.input and user.op_type not in QUANTIZED for user in model.graph.node)
    ]
    return last + [node.name for node in convolutions[:1] if first]


@dataclass(frozen=True, slots=True)
class _Normalization:
    """(image - mean) / std before the first convolution, where all channels share them and mean is an integer.

    Quantized with scale 1 / std and zero point mean, that is the image itself: the bytes go in without any arithmetic.
    """

    bytes_in: str
    floats_out: str
    mean: int
    std: float

    @classmethod
    def find(cls, model: onnx.ModelProto) -> "_Normalization | None":
        values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        nodes = []
        name = model.graph.input[0].name
        for kind in ("Transpose", "Cast", "Sub", "Div"):
            users = [node for node in model.graph.node if name in node.input]
            if len(users) != 1 or users[0].op_type != kind:
                return None
            nodes.append(users[0])
            name = users[0].output[0]
        mean, std = (np.unique(values.get(node.input[1], np.zeros(0))) for node in nodes[2:])
        if len(mean) != 1 or len(std) != 1 or mean[0] % 1 or not 0 <= mean[0] <= 255:
            return None
        return cls(nodes[0].output[0], name, int(mean[0]), float(std[0]))

    def override(self) -> dict[str, list[dict[str, Any]]]:
        """What the quantizer is to use for the normalized image."""
        return {
            self.floats_out: [
                {"scale": np.array(1 / self.std, np.float32), "zero_point": np.array(self.mean, np.uint8)}
            ]
        }

    def remove(self, model: onnx.ModelProto) -> None:
        """Replace the arithmetic of a quantized model by the bytes themselves."""
        name = self.bytes_in
        doomed = []
        for kind in ("Cast", "Sub", "Div", "QuantizeLinear"):
            doomed.append(next(node for node in model.graph.node if node.op_type == kind and name in node.input))
            name = doomed[-1].output[0]
        for node in model.graph.node:
            node.input[:] = [self.bytes_in if other == name else other for other in node.input]
        for node in doomed:
            model.graph.node.remove(node)
