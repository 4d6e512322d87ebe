"""The ONNX Runtime runtime: a file of `centerdet export`, run by NumPy and onnxruntime alone."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from threading import Lock

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as failures

from ..errors import ConfigError, WeightsError
from . import Outputs, Runtime
from .contract import check_contract, check_labels
from .onnx_header import read_fields
from .weights import Header, check_header, read_bytes

__all__ = ["OnnxRuntime", "find_providers"]

PROVIDERS = {"cpu": "CPU", "cuda": "CUDA", "coreml": "CoreML", "directml": "Dml"}
"""Devices by the names that users know; any other provider goes by its own, such as "openvino"."""

FAILURES: tuple[type[Exception], ...] = (
    UnicodeDecodeError,  # a name that is no UTF-8, in a message
    *(
        getattr(failures, name)
        for name in (
            "EPFail", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "ModelLoaded", "NoModel",
            "NotImplemented", "RuntimeException",
        )
    ),
)  # fmt: skip


class OnnxRuntime(Runtime):
    """A session over the content of a checked file.

    Args:
        path: for messages.
        content: of the file; nothing else is read.
        header: of the file.
        device: "cpu", "cuda", "coreml", "directml" or the name of another execution provider that is installed; by
            default CUDA where it is available.
        threads: CPU threads of the session; calls are then serialized, and waiting threads sleep instead of spinning,
            so that a busy neighbor costs little. None: ONNX Runtime's own choice.
    """

    def __init__(
        self, path: str | Path, content: bytes, header: Header, *, device: str | None = None, threads: int | None = None
    ) -> None:
        self.names, self.size, self.nms_iou, self.threads = header.names, header.size, header.nms_iou, threads
        self.path, self.calibration = path, header.calibration
        onnxruntime.disable_telemetry_events()  # of the builds for Windows
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what fails is raised
        if threads is not None:
            options.intra_op_num_threads = options.inter_op_num_threads = threads
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = find_providers(device)
        try:
            self.session = onnxruntime.InferenceSession(content, options, providers=providers)
        except FAILURES as error:
            reason = str(error).partition(" : ")[2] or str(error)
            raise WeightsError(
                f"{path}: onnxruntime {onnxruntime.__version__} cannot run it: {reason:.200}: upgrade onnxruntime, or "
                "export the weights anew"
            ) from error
        self.provider = self.session.get_providers()[0]
        if device and self.provider != providers[0]:
            raise ConfigError(f"device: {device} cannot be used on this machine: {providers[0]} did not start")
        check_contract(
            path,
            self.size,
            [(one.name, one.type, one.shape) for one in (*self.session.get_inputs(), *self.session.get_outputs())],
        )
        self.batch_size = 16 if self.provider == "CUDAExecutionProvider" else 1
        self._serialized = nullcontext() if threads is None else Lock()

    @classmethod
    def load(cls, path: str | Path, *, device: str | None = None, threads: int | None = None) -> "OnnxRuntime":
        """The runtime of a file that `centerdet export` wrote; any other is a `WeightsError`."""
        content = read_bytes(path)
        header = check_header(path, read_fields(path, content))
        return cls(path, content, header, device=device, threads=threads)

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """See `Runtime`."""
        with self._serialized:
            outputs: Outputs = tuple(self.session.run(["boxes", "scores", "labels"], {"images": images}))
        check_labels(self.path, outputs[2], self.names)
        return outputs


def find_providers(device: str | None) -> list[str]:
    """The execution providers to ask for, the device's first; a ConfigError where it is not installed."""
    installed: list[str] = onnxruntime.get_available_providers()
    if device is None:
        return [one for one in ("CUDAExecutionProvider", "CPUExecutionProvider") if one in installed]
    wanted = f"{PROVIDERS.get(device.lower(), device)}ExecutionProvider".lower()
    chosen = [one for one in installed if one.lower() == wanted]
    if not chosen:
        raise ConfigError(
            f"device: {device} cannot be used: expected one of {', '.join(_devices(installed))} with the installed "
            "onnxruntime"
        )
    return list(dict.fromkeys([*chosen, "CPUExecutionProvider"]))


def _devices(installed: Sequence[str]) -> list[str]:
    known = {f"{provider}ExecutionProvider": device for device, provider in PROVIDERS.items()}
    return sorted(known.get(one, one.removesuffix("ExecutionProvider").lower()) for one in installed)
