"""The files of exports: ONNX, OpenVINO's representation, and programs of torch.export."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detseg.export.networks import network_of, with_fixed_padding
from detseg.models.yolo.detector import YoloDetector
from detseg.predict.runtime.description import KEY, Description
from detseg.predict.runtime.engines import Outputs
from detseg.structures import Float32Array

OPSET = 18
_MOST_IMAGES = 4096  # bound of what is dynamic, which the exporter wants
MOST_CELLS = 1024
"""Of the coarsest map, on a side: the bound of inputs of any size, and of those of a fixed one."""


def export_program(model: nn.Module, description: Description) -> torch.export.ExportedProgram:
    """The network as a program of ``torch.export``; ``model``: folded, on the CPU, in evaluation mode."""
    network = network_of(with_fixed_padding(model) if description.any_size else model)
    stride = description.stride
    # Two images, since the exporter takes a size of 1 for a constant.
    example = torch.zeros(description.batch or 2, 3, *network_hw(description))
    dynamic: dict[int, Any] = {} if description.batch else {0: torch.export.Dim("batch", min=1, max=_MOST_IMAGES)}
    if description.any_size:
        sides = {2: "rows", 3: "columns"}
        dynamic |= {axis: stride * torch.export.Dim(name, min=1, max=MOST_CELLS) for axis, name in sides.items()}
    with _quiet():
        program = torch.export.export(network, (example,), dynamic_shapes=(dynamic,) if dynamic else None, strict=False)
    # The exporter believes that NMS keeps two boxes at least, and has the program raise an error for fewer.
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if str(node.target) == "aten._assert_scalar.default":
            graph.erase_node(node)
    graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program


def write_program(model: nn.Module, description: Description, path: Path) -> None:
    """A ``.pt2`` file for ``torch.export.load``, with the description as the extra file ``detseg``."""
    program = export_program(model, description)
    with _quiet():
        torch.export.save(program, path, extra_files={KEY: description.to_json()})


class ProgramEngine:
    """What a program that was just written computes, to compare it with its checkpoint (an ``Engine``).

    No predictor loads such files: torch unpickles what is in them, so that a file of a stranger could run any code.

    Args:
        path: the ``.pt2`` file.
    """

    name, place = "torch.export", "cpu"

    def __init__(self, path: Path) -> None:
        extra_files = {KEY: ""}
        self._network = torch.export.load(path, extra_files=extra_files).module()
        self.metadata: Mapping[str, str] = extra_files
        self._outputs = Description.from_metadata(extra_files, str(path)).outputs

    @torch.no_grad()
    def __call__(self, images: Float32Array, score_threshold: float | None = None) -> Outputs:
        """See ``Engine``; all detections are computed."""
        found = self._network(torch.from_numpy(images))
        found = (found,) if isinstance(found, torch.Tensor) else found
        return {name: values.numpy() for name, values in zip(self._outputs, found, strict=True)}


def onnx_model(model: nn.Module, description: Description) -> Any:
    """The network as an ONNX model that holds its weights and the description, checked.

    Of YOLO with ``description.nms`` the operator ``NonMaxSuppression`` follows: exact, for each class and image. Its
    threshold is an input that may be left out.
    """
    import onnx

    append_nms = isinstance(model, YoloDetector) and description.nms
    names = replace(description, nms=False).outputs if append_nms else description.outputs
    program = export_program(model, description)
    with _quiet():
        exported = torch.onnx.export(
            program,
            (),
            dynamo=True,
            input_names=["images"],
            output_names=list(names),
            opset_version=OPSET,
            verbose=False,
        )
    assert exported is not None
    proto = exported.model_proto
    if append_nms:
        _append_nms(proto.graph, description)
    onnx.helper.set_model_props(proto, {KEY: description.to_json(), "classes": ", ".join(description.classes.names)})
    proto.producer_name = "detseg"
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _append_nms(graph: Any, description: Description) -> None:
    """Candidates (B, P, 4) and (B, C, P) → ``boxes`` (N, 4), ``scores``, ``labels``, and ``image_indices``,
    positions in the batch, of N detections, image after image."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    own = {"boxes": "candidate_boxes", "scores": "candidate_scores"}
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = own.get(name, name)
    below = np.nextafter(np.float32(description.score_threshold), np.float32(-1))  # the operator wants more than this
    constants: dict[str, np.ndarray[Any, Any]] = {
        "score_threshold": np.array([below], dtype=np.float32),
        "most_of_class": np.array([description.max_detections], dtype=np.int64),
        "nms_iou": np.array([description.nms_iou], dtype=np.float32),
        "image_and_box": np.array([0, 2], dtype=np.int64),
        "first": np.array(0, dtype=np.int64),
        "second": np.array(1, dtype=np.int64),
    }
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    graph.input.append(helper.make_tensor_value_info("score_threshold", TensorProto.FLOAT, [1]))
    limits = ["most_of_class", "nms_iou", "score_threshold"]
    graph.node.extend(
        [
            helper.make_node("NonMaxSuppression", [*own.values(), *limits], ["kept"]),  # N rows: image, class, box
            helper.make_node("Gather", ["kept", "first"], ["image_indices"], axis=1),
            helper.make_node("Gather", ["kept", "second"], ["labels"], axis=1),
            helper.make_node("GatherND", [own["scores"], "kept"], ["scores"]),
            helper.make_node("Gather", ["kept", "image_and_box"], ["kept_boxes"], axis=1),
            helper.make_node("GatherND", [own["boxes"], "kept_boxes"], ["boxes"]),
        ]
    )
    del graph.output[:]
    outputs: list[tuple[str, int, list[str | int | None]]] = [
        ("boxes", TensorProto.FLOAT, ["detections", 4]),
        ("scores", TensorProto.FLOAT, ["detections"]),
        ("labels", TensorProto.INT64, ["detections"]),
        ("image_indices", TensorProto.INT64, ["detections"]),
    ]
    for name, kind, shape in outputs:
        graph.output.append(helper.make_tensor_value_info(name, kind, shape))


def write_openvino(
    source: Path, description: Description, path: Path, calibration: Sequence[Float32Array] = ()
) -> None:
    """OpenVINO's ``.xml`` and ``.bin`` of an ONNX file.

    Args:
        source: the ONNX file.
        description: its ``precision`` says how weights are kept: ``fp32``, ``fp16`` (computed as the CPU does best, in
            bfloat16 where it can), or ``int8``, where activations are integers, too (NNCF, post-training quantisation).
        path: the ``.xml`` to write.
        calibration: (1, 3, h, w) inputs for ``int8``.
    """
    import openvino

    network = openvino.convert_model(source)
    if description.precision == "int8":
        import nncf

        with _quiet():
            network = nncf.quantize(network, nncf.Dataset(calibration), subset_size=len(calibration))
    network.set_rt_info(description.to_json(), [KEY])
    openvino.save_model(network, path, compress_to_fp16=description.precision == "fp16")


def network_hw(description: Description) -> tuple[int, int]:
    """Height and width of an input that the network itself takes: of one for any size in whole cells, for which the
    exporter can prove that maps of all strides fit together."""
    if not description.any_size:
        return description.input_hw
    height, width = (-(-side // description.stride) * description.stride for side in description.input_hw)
    return height, width


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters say of their own insides."""
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir", "nncf")]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
