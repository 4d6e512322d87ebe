"""An exported ONNX file with 8-bit weights and activations, by ONNX Runtime's own tools; needs no PyTorch.

Weights are scaled per channel and use 7 bits, since products of 8 overflow on CPUs without VNNI. What would cost
accuracy stays float: the first convolutions, whose few channels carry the whole image, which are as fast in float; the
last convolution of each head, whose outputs become logits and distances; and sums.
"""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from .errors import ConfigError
from .files import write_atomic
from .images import Source, load, resize
from .runtimes.onnx import OnnxRuntime
from .runtimes.onnx_header import read_fields, seal
from .runtimes.weights import read_bytes

__all__ = ["quantize"]

QUANTIZED = ["Clip", "Conv", "Relu"]
FIRST = 3
"""Convolutions that stay float at the beginning; of EfficientNet-Lite the stem and the first block."""


def quantize(exported: str | Path, out: str | Path, images: Sequence[Source]) -> None:
    """Write the int8 version `out` of a float .onnx file.

    images: some that are like those to come, for the ranges of activations; about 100 are enough.
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
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        onnx.save(model, source)
        with _quiet():
            quantize_static(
                source,
                target,
                _Images(images, size),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=QUANTIZED,
                nodes_to_exclude=_float_nodes(model),
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        model = onnx.load(target)
    del model.metadata_props[:], model.graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    write_atomic(out, seal(model.SerializeToString(), {**fields, "int8": {"images": len(images)}}))


class _Images(CalibrationDataReader):  # type: ignore[misc]
    """One resized image after another, as the graph takes it."""

    def __init__(self, images: Sequence[Source], size: int) -> None:
        self.images, self.size = iter(images), size

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        for source in self.images:
            return {"images": resize(load(source), self.size, self.size)[None]}
        return None


def _float_nodes(model: onnx.ModelProto) -> list[str]:
    """The convolutions that stay float: the first ones, and those whose output leaves the quantized operators; each
    with its activation."""
    nodes = model.graph.node
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    chosen = convolutions[:FIRST]
    chosen += [
        node
        for node in convolutions
        if any(node.output[0] in user.input and user.op_type in ("MaxPool", "Min") for user in nodes)
    ]
    outputs = {name for node in chosen for name in node.output}
    activations = [node for node in nodes if node.op_type in ("Clip", "Relu") and node.input[0] in outputs]
    return [node.name for node in (*chosen, *activations)]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice that the quantizer logs to the root logger."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
