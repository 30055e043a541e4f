"""What computes an exported network: ONNX Runtime or OpenVINO; both give the same arrays by name.

Nothing is loaded but the file itself: an ONNX file that points to others is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np

from detseg.errors import CheckpointError, ConfigError, MissingExtraError
from detseg.messages import one_line
from detseg.predict.runtime.description import KEY
from detseg.structures import Float32Array

SUFFIXES = (".onnx", ".xml")
Outputs = Mapping[str, np.ndarray[Any, Any]]


class Engine(Protocol):
    """A network that is ready to compute.

    Attributes:
        metadata: what the file says of itself.
        name, place: what computes where.
    """

    metadata: Mapping[str, str]
    name: str
    place: str

    def __call__(self, images: Float32Array, score_threshold: float | None = None) -> Outputs:
        """(B, 3, h, w) float32 RGB in [0, 1] → outputs by name; ``score_threshold``: of detections, above the model's
        own, where the network can leave out what is below."""


def open_engine(path: Path, device: str = "auto", threads: int | None = None) -> Engine:
    """The engine of a file by its suffix.

    Args:
        path: ``.onnx``, or ``.xml`` beside its ``.bin``.
        device: ``auto`` (a CUDA GPU if the installed ONNX Runtime has one, else the CPU), ``cpu`` or ``cuda``.
        threads: how many compute; None: as the engine chooses.

    Raises:
        CheckpointError: the file is missing, damaged, or no network.
        ConfigError: no such device.
        MissingExtraError: the engine is not installed.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    return OnnxEngine(path, device, threads) if path.suffix == ".onnx" else OpenvinoEngine(path, device, threads)


class OnnxEngine:
    """ONNX Runtime."""

    name = "ONNX Runtime"

    def __init__(self, path: Path, device: str, threads: int | None) -> None:
        if find_spec("onnxruntime") is None:
            raise MissingExtraError(f'{path}: needs onnxruntime: pip install "detseg[onnx]"')
        import onnxruntime

        there = onnxruntime.get_available_providers()
        wanted = "CUDAExecutionProvider"
        gpu = re.fullmatch(r"cuda(?::(\d+))?", device if device != "auto" else "cuda")
        if device not in ("auto", "cpu") and not (gpu and wanted in there):
            known = ", cuda, cuda:1, ..." if wanted in there else ""
            raise ConfigError(f"device: expected auto, cpu{known}, got {device!r}")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        providers: list[Any] = [(wanted, {"device_id": int(gpu[1] or 0)})] if gpu and wanted in there else []
        try:
            # Bytes have no folder, in which there might be other files that they point to.
            session = onnxruntime.InferenceSession(path.read_bytes(), options, [*providers, "CPUExecutionProvider"])
        except Exception as error:  # what it raises on damaged bytes is not a closed list
            raise CheckpointError(f"{path}: damaged, or not an ONNX file ({one_line(error)})") from error
        self._session = session
        self.place = "cuda" if wanted in session.get_providers() else "cpu"
        self.metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._thresholds = {item.name for item in self._session.get_overridable_initializers()}

    def __call__(self, images: Float32Array, score_threshold: float | None = None) -> Outputs:
        """See ``Engine``."""
        given: dict[str, Any] = {"images": images}
        if score_threshold is not None and "score_threshold" in self._thresholds:
            given["score_threshold"] = np.array([np.nextafter(np.float32(score_threshold), np.float32(-1))])
        return dict(zip(self._outputs, self._session.run(None, given), strict=True))


@cache
def _core() -> Any:
    """OpenVINO, which is never unloaded: its CPU plugin gives signals a stack and takes that away when it goes, so that
    the next signal, such as SIGTERM, would crash the process."""
    import openvino

    return openvino.Core()


class OpenvinoEngine:
    """OpenVINO, on the CPU."""

    name = "OpenVINO"
    place = "cpu"

    def __init__(self, path: Path, device: str, threads: int | None) -> None:
        if find_spec("openvino") is None:
            raise MissingExtraError(f'{path}: needs openvino: pip install "detseg[openvino]"')
        if device not in ("auto", "cpu"):
            raise ConfigError(f"device: OpenVINO files are computed on the CPU here, got {device!r}; leave it out")
        if not path.with_suffix(".bin").is_file():
            raise CheckpointError(f"{path}: its weights, {path.with_suffix('.bin').name}, are not beside it; copy both")
        self._settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            self._settings["INFERENCE_NUM_THREADS"] = threads
        try:
            self._network: Any = _core().read_model(path)
            has = self._network.has_rt_info([KEY])
            said = str(self._network.get_rt_info([KEY]).astype(str)) if has else ""
            if '"precision": "fp32"' in said:  # else OpenVINO takes bfloat16 where the CPU computes with it
                self._settings["INFERENCE_PRECISION_HINT"] = "f32"
            batch, *others = self._network.inputs[0].get_partial_shape()
            self._is_for_batches = batch.is_dynamic and not any(size.is_dynamic for size in others)
            self._compiled = {True: self._compile(True)}
        except Exception as error:  # what it raises on damaged bytes is not a closed list
            raise CheckpointError(f"{path}: damaged, or not an OpenVINO file ({one_line(error)})") from error
        self.metadata: Mapping[str, str] = {KEY: said} if has else {}
        self._outputs = [next(iter(output.names)) for output in self._network.outputs]
        self._lock = Lock()

    def _compile(self, for_one_image: bool) -> Any:
        """The network; for one image it is a tenth faster where all sizes are known."""
        network = self._network
        if for_one_image and self._is_for_batches:
            network = network.clone()
            shape = network.inputs[0].get_partial_shape()
            shape[0] = 1
            network.reshape({network.inputs[0]: shape})
        return _core().compile_model(network, "CPU", self._settings)

    def __call__(self, images: Float32Array, score_threshold: float | None = None) -> Outputs:
        """See ``Engine``; all detections are computed."""
        kind = len(images) == 1 or not self._is_for_batches
        with self._lock:  # one request serves all calls, and two at once would be an error
            if kind not in self._compiled:
                self._compiled[kind] = self._compile(kind)
            found = self._compiled[kind]({"images": images}, share_outputs=False)
        return {name: found[index] for index, name in enumerate(self._outputs)}
