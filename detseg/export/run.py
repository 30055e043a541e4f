"""From a checkpoint to an exported file that has proven itself."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from detseg.atomic_write import check_writable, write_text
from detseg.checkpoint import ModelCheckpoint, run_checkpoint, run_dir_of
from detseg.checkpoint.provenance import machine, read_run_file
from detseg.config.schema.experiment import ExperimentConfig
from detseg.data.build import Split, resolve_data
from detseg.data.datasets.fingerprint import fingerprint
from detseg.errors import ConfigError, DetsegError
from detseg.evaluation.run import evaluation_config, open_split_for
from detseg.export.certificate import Certificate, certify, has_truth
from detseg.export.files import MOST_CELLS, ProgramEngine, network_hw, onnx_model, write_openvino, write_program
from detseg.export.options import SUFFIX, Format, Precision, check_options, packages
from detseg.factory import load_model
from detseg.messages import console, messages_on_console
from detseg.models.acceleration import fuse
from detseg.models.rcnn.detector import RCNNDetector
from detseg.models.yolo.detector import YoloDetector
from detseg.predict import load_predictor
from detseg.predict.interface import preprocess
from detseg.predict.runtime.description import Description
from detseg.predict.runtime.engines import Engine, open_engine
from detseg.predict.runtime.predictor import as_floats, predictor_of
from detseg.tasks import AnyDataset, kind_of

logger = logging.getLogger("detseg")


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
        out: the file to write; None: in ``export/`` of the run directory, under a name that tells the options.
        precision: ``fp16`` and ``int8`` of OpenVINO alone.
        static_hw: take one image of this size at a time alone; None: images of the run's size, as many as come, of
            R-CNN one at a time.
        any_size: of YOLO and segmentation models: take images of any size, in multiples of the stride.
        nms: of YOLO: whether NMS is inside the file; it always is of R-CNN, and never in a program of YOLO.
        split: the images of the comparison, and of the calibration for ``int8`` (its first ``num_calibration``).
        overrides: of ``data`` and ``evaluation``.
        tolerance: how much of AP or mIoU may be lost.

    Returns:
        The file. Beside it is its certificate, whose name has ``.json`` behind that of the file. Both are there once
        the file has been compared; before, and after any error, what was there stays.

    Raises:
        ExportError: more than ``tolerance`` is lost; no file is written but the certificate, as ``.failed.json``.
        DetsegError: the format cannot hold this, a package is missing, or the data.
    """
    check_options(form, precision, out)
    precise = run_checkpoint(checkpoint)
    path = _place(out, precise, form, _options(precision, static_hw, any_size, nms))
    model, trained, contents = load_model(checkpoint)
    if not isinstance(model, YoloDetector | RCNNDetector) and kind_of(trained.model).finds_objects:
        raise ConfigError(f"{checkpoint}: a module of your own cannot be exported; see torch.onnx.export")
    config = resolve_data(evaluation_config(contents.config, str(checkpoint), overrides))
    dataset = open_split_for(config, split, contents.classes, checkpoint)
    if not has_truth(dataset):
        raise ConfigError(f"--split {split}: has nothing annotated to compare by; take another --split")
    folded = fuse(model, "cpu")
    description = describe(folded, config, contents, precise, form, precision, static_hw, nms, any_size)
    path.parent.mkdir(parents=True, exist_ok=True)
    logger.info(f"exporting {checkpoint} as {form}, {precision}")
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        draft = Path(folder) / path.name
        _write(folded, description, form, draft, dataset, num_calibration)
        found = _certified(draft, form, precise, config, dataset)
        origin: dict[str, Any] = {"file": path.name, "checkpoint": str(precise), "format": form, "precision": precision}
        origin |= {"split": split, "overrides": list(overrides), "data": fingerprint(dataset)}
        _judge(draft, path, found, origin | _where(form, precision), tolerance)
    return path


def _where(form: Format, precision: Precision) -> dict[str, Any]:
    """What the numbers and times of a certificate depend on besides model and data."""
    here = machine()
    versions = {name: version(name) for name in ("torch", *packages(form, precision))}
    where = {"processor": here["processor"], "instructions": here["instructions"], "threads": torch.get_num_threads()}
    return where | {"packages": versions}


def _options(precision: Precision, static_hw: tuple[int, int] | None, any_size: bool, nms: bool) -> str:
    """What tells an export of a run from others, for its name."""
    size = "any_size" if any_size else f"{static_hw[0]}x{static_hw[1]}" if static_hw else ""
    parts = ("" if nms else "without_nms", size, "" if precision == "fp32" else precision)
    return "".join(f"_{part}" for part in parts if part)


def _place(out: Path | None, checkpoint: Path, form: Format, options: str) -> Path:
    path = out or run_dir_of(checkpoint) / "export" / f"{checkpoint.stem}{options}{SUFFIX[form]}"
    check_writable(path.parent, "--out")
    return path


def certificate_of(path: Path) -> Path:
    """The JSON file beside an export."""
    return path.with_name(f"{path.name}.json")


def _judge(draft: Path, path: Path, found: Certificate, origin: Mapping[str, Any], tolerance: float) -> None:
    """Say the certificate, and put the export and it in their place; ExportError where too much is lost."""
    certificate, failed = certificate_of(path), path.with_name(f"{path.name}.failed.json")
    size = sum(file.stat().st_size for file in _files(draft))
    text = json.dumps({**origin, "tolerance": tolerance, "bytes": size, **found.to_dict()}, indent=1)
    console.print(found.table())
    for line in found.lines():
        logger.info(line)
    lost = [f"{one.metric} changes by {one.change:+.4f}" for one in found.changes if not one.change >= -tolerance]
    if lost:
        write_text(failed, text)
        what = f"{', '.join(lost)}, and may by -{tolerance:g}"
        raise ExportError(f"{path}: {what}; it was not written; see {failed}, or allow more with --tolerance")
    write_text(certificate_of(draft), text)
    for file, place in zip(_files(draft), _files(path), strict=True):
        os.replace(file, place)
    os.replace(certificate_of(draft), certificate)
    failed.unlink(missing_ok=True)  # of an earlier try
    logger.info(f"written: {path} ({size / 1e6:.1f} MB), {certificate.name}")


def describe(
    model: nn.Module,
    config: ExperimentConfig,
    contents: ModelCheckpoint,
    checkpoint: Path,
    form: Format,
    precision: Precision,
    static_hw: tuple[int, int] | None,
    nms: bool,
    any_size: bool,
) -> Description:
    """What a file says of a model; arguments as of ``export_checkpoint``. ConfigError: a size that it does not take."""
    kind, parts = kind_of(config.model), cast(Any, model)
    task: Any = "instance" if kind.finds_masks else "detection" if kind.finds_objects else "semantic"
    stride = int(max(parts.neck.strides) if kind.finds_objects else parts.stride)
    hw = static_hw or config.data.input_hw
    if any_size and (static_hw or isinstance(model, RCNNDetector)):
        raise ConfigError("--any-size: is for YOLO and segmentation models, without --static; leave it out")
    if not nms and not isinstance(model, YoloDetector):
        raise ConfigError(f"--without-nms: is for YOLO, this is a {config.model.name}; leave it out")
    if static_hw and any(side % stride or not stride <= side <= stride * MOST_CELLS for side in hw):
        what = f"expected multiples of {stride}, the model's coarsest stride, up to {stride * MOST_CELLS}"
        raise ConfigError(f"--static {hw[0]} {hw[1]}: {what}")
    limits: dict[str, Any] = {}
    if isinstance(model, YoloDetector):
        inside = nms and form != "torch"
        limits = {"nms": inside, "score_threshold": model.score_threshold, "nms_iou": model.nms_iou}
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
        precision=precision,
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


def _write(
    model: nn.Module, description: Description, form: Format, path: Path, dataset: AnyDataset, num_calibration: int
) -> None:
    if form == "torch":
        write_program(model, description, path)
        return
    source = path.with_suffix(".onnx")
    source.write_bytes(onnx_model(model, description).SerializeToString())
    if form == "openvino":
        write_openvino(source, description, path, _calibration(description, dataset, num_calibration))


def _calibration(description: Description, dataset: AnyDataset, number: int) -> list[Any]:
    if description.precision != "int8":
        return []
    images = (np.asarray(dataset[index].image) for index in range(min(number, len(dataset))))
    return [as_floats(preprocess([image], network_hw(description))[0]) for image in images]


def _certified(
    path: Path, form: Format, checkpoint: Path, config: ExperimentConfig, dataset: AnyDataset
) -> Certificate:
    kind, threads = kind_of(config.model), torch.get_num_threads()
    engine: Engine = ProgramEngine(path) if form == "torch" else open_engine(path, "cpu", threads)
    read = Description.from_metadata(engine.metadata, str(path))  # as whoever loads the file will
    original: Any = load_predictor(checkpoint, "cpu", 0.0 if kind.finds_objects else None)
    original.input_hw = read.input_hw
    exported: Any = predictor_of(engine, read, 0.0)
    evaluators: Any = tuple(kind.evaluator(read.classes, config.evaluation) for _ in range(2))
    return certify(original, exported, dataset, evaluators)


def _files(path: Path) -> list[Path]:
    return [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
