"""The OpenVINO runtime: a pair of files `NAME.xml` and `NAME.bin` of `centerdet export`.

`seal` and `check_seal` are inverse: the last line of the .xml is a comment with the checksum of both files, so that a
damaged or mixed pair is refused.
"""

import json
import zlib
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from ..errors import ConfigError, WeightsError
from . import Outputs, Runtime
from .contract import check_contract, check_format, check_labels
from .weights import Header, check_header, read_bytes

__all__ = ["OpenVinoRuntime", "check_seal", "seal"]

FIELDS = "centerdet"  # of the model's rt_info: JSON
TYPES = {"u8": "tensor(uint8)", "f32": "tensor(float)", "i64": "tensor(int64)"}


class OpenVinoRuntime(Runtime):
    """A compiled model; calls are serialized, since they share one request.

    Args:
        path: for messages.
        model: with the inputs and outputs of `Runtime.run`.
        header: of the file.
        device: "cpu", "gpu", "npu", …; by default the CPU.
        threads: CPU threads at most; None: OpenVINO's own choice.
    """

    def __init__(
        self,
        path: str | Path,
        model: openvino.Model,
        header: Header,
        *,
        device: str | None = None,
        threads: int | None = None,
    ) -> None:
        self.names, self.size, self.nms_iou, self.threads = header.names, header.size, header.nms_iou, threads
        self.path, self.calibration = path, header.calibration
        tensors = [*model.inputs, *model.outputs]
        check_contract(path, self.size, [_describe(one) for one in tensors])
        core = _core()
        name = (device or "cpu").upper()
        if name not in core.available_devices:
            known = ", ".join(one.lower() for one in core.available_devices)
            raise ConfigError(f"device: {device} cannot be used on this machine: expected one of {known}")
        options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if name == "CPU":
            # bfloat16, its default where the CPU has it, changes the results
            options |= {"INFERENCE_PRECISION_HINT": "f32"} | (
                {} if threads is None else {"INFERENCE_NUM_THREADS": threads}
            )
        try:
            self.request = core.compile_model(model, name, options).create_infer_request()
        except RuntimeError as error:
            raise WeightsError(f"{path}: openvino {openvino.__version__} cannot run it: {_reason(error)}") from error
        self.batch_size = 1
        self._serialized = Lock()

    @classmethod
    def load(cls, path: str | Path, *, device: str | None = None, threads: int | None = None) -> "OpenVinoRuntime":
        """The runtime of a file that `centerdet export` wrote; any other is a `WeightsError`."""
        path = Path(path)
        xml, weights = read_bytes(path), read_bytes(path.with_suffix(".bin"))
        check_seal(path, xml, weights)
        try:
            model = _core().read_model(xml, openvino.Tensor(np.frombuffer(weights, np.uint8)))
            fields = json.loads(str(model.get_rt_info(FIELDS).value))
        except (RuntimeError, ValueError, RecursionError) as error:
            raise WeightsError(
                f"{path}: openvino {openvino.__version__} cannot read it: {_reason(error)}: upgrade openvino, or "
                "export the weights anew"
            ) from error
        check_format(path, fields)
        return cls(path, model, check_header(path, fields), device=device, threads=threads)

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """See `Runtime`."""
        with self._serialized:
            results = self.request.infer([images])
            outputs = results["boxes"].copy(), results["scores"].copy(), results["labels"].copy()
        check_labels(self.path, outputs[2], self.names)
        return outputs


@cache
def _core() -> openvino.Core:
    """One for the whole process.

    On Linux, a core sets the stack on which signals are handled and frees it when it is deleted. Where two of them are
    deleted in the order of their creation, the freed stack of the first remains set, and the next Ctrl-C crashes.
    """
    return openvino.Core()


def seal(xml: bytes, weights: bytes) -> bytes:
    """The .xml of a pair, with the checksum of both."""
    return xml + _comment(xml, weights)


def check_seal(path: Path, xml: bytes, weights: bytes) -> None:
    """Refuse a pair that `seal` did not close."""
    start = xml.rfind(b"<!-- crc32 ")
    if start < 0:
        raise WeightsError(f"{path}: crc32: none at its end: cut off, or not written by centerdet export")
    if xml[start:] != _comment(xml[:start], weights):
        raise WeightsError(f"{path}: crc32: damaged, or {path.with_suffix('.bin').name} belongs to another file")


def _comment(xml: bytes, weights: bytes) -> bytes:
    return f"<!-- crc32 {zlib.crc32(weights, zlib.crc32(xml))} -->\n".encode()


def _describe(tensor: Any) -> tuple[str, str, list[Any]]:
    """Name, type and shape as ONNX Runtime states them."""
    shape = [side.get_length() if side.is_static else None for side in tensor.get_partial_shape()]
    kind = tensor.get_element_type().get_type_name()
    return tensor.get_any_name(), TYPES.get(kind, kind), shape


def _reason(error: Exception) -> str:
    """The last line of OpenVINO's message, which begins with places in its source."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{lines[-1] if lines else error!r:.200}"
