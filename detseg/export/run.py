"""From a checkpoint to an exported file that has proven itself."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import nn

from detseg.atomic_write import check_writable, write_text
from detseg.checkpoint import ModelCheckpoint, run_checkpoint, run_dir_of
from detseg.checkpoint.provenance import read_run_file
from detseg.config.schema.experiment import ExperimentConfig
from detseg.data.build import Split, resolve_data
from detseg.errors import ConfigError, DetsegError, MissingExtraError
from detseg.evaluation.run import evaluation_config, open_split_for
from detseg.export.certificate import Certificate, certify
from detseg.export.files import ProgramEngine, onnx_model, with_precision, write_openvino, write_program
from detseg.factory import load_model
from detseg.messages import console, messages_on_console
from detseg.models.acceleration import fuse
from detseg.models.rcnn.detector import RCNNDetector
from detseg.models.yolo.detector import YoloDetector
from detseg.predict import load_predictor
from detseg.predict.interface import preprocess
from detseg.predict.runtime.description import Description
from detseg.predict.runtime.engines import Engine, open_engine
from detseg.predict.runtime.predictor import ExportedPredictor, ExportedSegmentationPredictor, as_floats
from detseg.tasks import AnyDataset, kind_of

logger = logging.getLogger("detseg")

Format = Literal["onnx", "openvino", "torch"]
Precision = Literal["fp32", "fp16", "int8"]
SUFFIX: dict[Format, str] = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
PRECISIONS: dict[Format, tuple[Precision, ...]] = {
    "onnx": ("fp32",),
    "openvino": ("fp32", "fp16", "int8"),
    "torch": ("fp32",),
}
_PACKAGES: dict[Format, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "torch": (),
}


class ExportError(DetsegError):
    """An export differs from its checkpoint by more than it may."""


@messages_on_console()
def export_checkpoint(
    checkpoint: Path,
    form: Format,
    out: Path | None = None,
    *,
    precision: Precision = "fp32",
    static_hw: tuple[int, int] | None = None,
    any_size: bool = False,
    nms: bool = True,
    split: Split = "val",
    overrides: Sequence[str] = (),
    tolerance: float = 0.01,
    num_calibration: int = 100,
) -> Path:
    """Export a model, and compare the file with the checkpoint on the images of a split.

    Args:
        checkpoint: a run directory, whose best one counts, or a file.
        form: ``onnx``, ``openvino`` or ``torch`` (a program of ``torch.export``).
        out: the file to write; None: ``export/`` in the run directory.
        precision: ``fp16`` and ``int8`` of OpenVINO alone.
        static_hw: take one image of this size at a time alone; None: images of the run's size, as many as come, of
            R-CNN one at a time.
        any_size: of a segmentation model: take images of any size.
        nms: of YOLO: whether NMS is inside the file; it always is of R-CNN.
        split: the images of the comparison, and of the calibration for ``int8`` (its first ``num_calibration``).
        overrides: of ``data`` and ``evaluation``.
        tolerance: how much of AP or mIoU may be lost.

    Returns:
        The file. Beside it is a certificate of the same name with ``.json``.

    Raises:
        ExportError: more than ``tolerance`` is lost; the file is deleted, the certificate stays.
        DetsegError: the format cannot hold this, a package is missing, or the data.
    """
    _check(form, precision)
    model, trained, contents = load_model(checkpoint)
    if not isinstance(model, YoloDetector | RCNNDetector) and kind_of(trained.model).finds_objects:
        raise ConfigError(f"{checkpoint}: a module of your own cannot be exported; see torch.onnx.export")
    config = resolve_data(evaluation_config(contents.config, str(checkpoint), overrides))
    dataset = open_split_for(config, split, contents.classes, checkpoint)
    precise = run_checkpoint(checkpoint)
    path = out or _default_path(precise, form, precision)
    if path.suffix != SUFFIX[form]:
        raise ConfigError(f"--out {path}: expected a name that ends in {SUFFIX[form]}, by which it is recognised")
    check_writable(path.parent, "--out")
    folded = fuse(model, "cpu")
    description = describe(folded, config, contents, precise, static_hw, nms and form != "torch", any_size)
    path.parent.mkdir(parents=True, exist_ok=True)
    logger.info(f"exporting {checkpoint} as {form}, {precision}")
    _write(folded, with_precision(description, precision), form, path, dataset, num_calibration)
    engine = ProgramEngine(path) if form == "torch" else open_engine(path, "cpu", torch.get_num_threads())
    _judge(path, _certified(path, engine, precise, config, dataset), precise, split, tolerance)
    return path


def _default_path(checkpoint: Path, form: Format, precision: Precision) -> Path:
    suffix = "" if precision == "fp32" else f"_{precision}"
    return run_dir_of(checkpoint) / "export" / f"{checkpoint.stem}{suffix}{SUFFIX[form]}"


def _judge(path: Path, found: Certificate, checkpoint: Path, split: Split, tolerance: float) -> None:
    """Write and say the certificate; ExportError, and the file is deleted, where too much is lost."""
    certificate = path.with_suffix(".json")
    origin = {"file": path.name, "checkpoint": str(checkpoint), "split": split, "tolerance": tolerance}
    size = sum(file.stat().st_size for file in _files(path))
    write_text(certificate, json.dumps({**origin, "bytes": size, **found.to_dict()}, indent=1))
    console.print(found.table())
    for line in found.lines():
        logger.info(line)
    if not found.change >= -tolerance:
        for file in _files(path):
            file.unlink()
        lost = f"{found.metric} changes by {found.change:+.4f}, and may by -{tolerance:g}"
        raise ExportError(f"{path}: {lost}; it was deleted; see {certificate}, or allow more with --tolerance")
    logger.info(f"written: {path} ({size / 1e6:.1f} MB), {certificate.name}")


def describe(
    model: nn.Module,
    config: ExperimentConfig,
    contents: ModelCheckpoint,
    checkpoint: Path,
    static_hw: tuple[int, int] | None = None,
    nms: bool = True,
    any_size: bool = False,
) -> Description:
    """What a file says of a model; arguments as of ``export_checkpoint``. ConfigError: a size that it does not take."""
    kind, parts = kind_of(config.model), cast(Any, model)
    task: Any = "instance" if kind.finds_masks else "detection" if kind.finds_objects else "semantic"
    stride = int(max(parts.neck.strides) if kind.finds_objects else parts.stride)
    hw = static_hw or config.data.input_hw
    if any_size and (static_hw or task != "semantic"):
        raise ConfigError("--any-size: is for segmentation models, without --static; leave it out")
    if static_hw and any(side < stride or side % stride for side in hw):
        raise ConfigError(f"--static {hw[0]} {hw[1]}: expected multiples of {stride}, the model's coarsest stride")
    limits: dict[str, Any] = {}
    if isinstance(model, YoloDetector):
        limits = {"nms": nms, "score_threshold": model.score_threshold, "nms_iou": model.nms_iou}
        limits["max_detections"] = model.max_detections
    elif isinstance(model, RCNNDetector):
        heads = model.roi_heads
        limits = {"nms": True, "score_threshold": heads.score_threshold, "nms_iou": heads.nms_iou}
        limits |= {"max_detections": heads.max_detections, "mask_threshold": heads.mask_threshold}
    return Description(
        task,
        config.model.name,
        contents.classes,
        hw,
        batch=1 if static_hw or isinstance(model, RCNNDetector) else None,
        any_size=any_size,
        stride=stride,
        padding=tuple(parts.normalize.mean.flatten().tolist()),
        value_range=config.data.value_range,
        origin=_origin(contents, checkpoint),
        **limits,
    )


def _origin(contents: ModelCheckpoint, checkpoint: Path) -> dict[str, Any]:
    starts = read_run_file(run_dir_of(checkpoint))["starts"]
    return {
        "detseg": version("detseg"),
        "torch": torch.__version__,
        "checkpoint": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "epoch": contents.epoch,
        "data": starts[-1].get("data") if starts else None,
    }


def _check(form: Format, precision: Precision) -> None:
    if precision not in PRECISIONS[form]:
        able = ", ".join(name for name, precisions in PRECISIONS.items() if precision in precisions)
        raise ConfigError(f"--precision {precision}: --format {form} has no such; take --format {able}")
    needed = (*_PACKAGES[form], *(("nncf",) if precision == "int8" else ()))
    if missing := [name for name in needed if find_spec(name) is None]:
        raise MissingExtraError(f'--format {form} needs {", ".join(missing)}: pip install "detseg[export]"')


def _write(
    model: nn.Module, description: Description, form: Format, path: Path, dataset: AnyDataset, num_calibration: int
) -> None:
    if form == "torch":
        write_program(model, description, path)
        return
    source = path if form == "onnx" else path.with_suffix(".onnx.tmp")
    source.write_bytes(onnx_model(model, description).SerializeToString())
    if form == "openvino":
        try:
            write_openvino(source, description, path, _calibration(description, dataset, num_calibration))
        finally:
            source.unlink()


def _calibration(description: Description, dataset: AnyDataset, number: int) -> list[Any]:
    if description.precision != "int8":
        return []
    images = (np.asarray(dataset[index].image) for index in range(min(number, len(dataset))))
    return [as_floats(preprocess([image], description.input_hw)[0]) for image in images]


def _certified(
    path: Path, engine: Engine, checkpoint: Path, config: ExperimentConfig, dataset: AnyDataset
) -> Certificate:
    kind = kind_of(config.model)
    read = Description.from_metadata(engine.metadata, str(path))  # as whoever loads the file will
    original: Any = load_predictor(checkpoint, "cpu", 0.0 if kind.finds_objects else None)
    original.input_hw = read.input_hw
    exported: Any = (
        ExportedPredictor(engine, read, 0.0) if kind.finds_objects else ExportedSegmentationPredictor(engine, read)
    )
    evaluators: Any = tuple(kind.evaluator(read.classes, config.evaluation) for _ in range(2))
    return certify(original, exported, dataset, evaluators)


def _files(path: Path) -> list[Path]:
    return [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
