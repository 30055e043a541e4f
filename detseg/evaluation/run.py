"""Evaluation of a trained model on a split of a data set, with the evaluator that training uses."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import nn

from detseg.atomic_write import write_text
from detseg.checkpoint import BEST, run_checkpoint, run_dir_of
from detseg.config.load import Settings, config_from_dict, without_download
from detseg.config.schema.data import DataSection
from detseg.config.schema.experiment import ExperimentConfig
from detseg.data.build import Split, resolve_data
from detseg.data.datasets.contract import EvalSource, check_source, check_truth
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.formats.coco_writer import coco_ground_truth, coco_results, result_files
from detseg.data.loading.loader import eval_loader
from detseg.data.loading.processes import leave_if_starting, loader_errors
from detseg.errors import CheckpointError, ClassTableError, ConfigError, check_type, path_of
from detseg.evaluation.details import report
from detseg.factory import load_model
from detseg.memory import MemoryErrors, describe_batch
from detseg.messages import console, listed, messages_on_console
from detseg.metrics.interface import Evaluator, Result
from detseg.metrics.segmentation import SegmentationEvaluator
from detseg.models.acceleration import fuse
from detseg.ops.tensors import to_float
from detseg.predict import find_device
from detseg.structures import Batch, ClassTable
from detseg.tasks import AnyDataset, kind_of

logger = logging.getLogger("detseg")

EVALUATION_ADVICE = (
    "lower, in this order: data.batch_size, which changes no number; for main memory data.num_workers; "
    "data.image_size, which changes the numbers; or take a device with more memory (--device)"
)


@messages_on_console()
def evaluate(
    checkpoint: str | Path,
    dataset: EvalSource,
    *,
    model: nn.Module | None = None,
    settings: Mapping[str, Any] | None = None,
    device: str = "auto",
) -> Result:
    """Evaluate a checkpoint on a data set, as training's validation and the command `detseg evaluate` do.

    Args:
        checkpoint: a ``.ckpt`` or ``.safetensors`` file of a run.
        dataset: what ``detseg.read_voc`` and its like return, or anything that keeps the contract of
            ``detseg.data.datasets.contract``; with the classes that the model was trained on.
        model: a module of your own, whose weights the checkpoint holds; None: the model that its settings describe.
        settings: other settings of ``data`` and ``evaluation`` than those of the run, by their dotted names.
        device: ``auto``, ``cpu``, ``cuda``, ...

    Returns:
        The result, with ``headline`` (the metrics by name), ``explain()``, ``table()`` and ``to_dict()``.

    Raises:
        DetsegError: the checkpoint or the data is missing or wrong, or they have different classes.
    """
    leave_if_starting()
    check_source("dataset", dataset)
    check_type("settings", settings, Mapping | None, 'a mapping, such as {"data.batch_size": 4}')
    path, target = path_of("checkpoint", checkpoint), find_device(device)
    trained, _, contents = load_model(path, model)
    config = evaluation_config(contents.config, str(path), settings or {})
    names, others = contents.classes.names, dataset.classes.names
    if names != others:
        what = f"was trained on the classes {listed(names)}, the data set has {listed(others)}"
        raise CheckpointError(f"{path}: {what}; read it with classes={names}")
    kind = kind_of(config.model)
    check_truth("dataset", dataset, kind.finds_objects, kind.finds_masks)
    return evaluated(trained, dataset, config, contents.classes, target).compute()


@messages_on_console()
def evaluate_checkpoint(
    checkpoint: Path,
    split: Split,
    config: ExperimentConfig | None = None,
    device: str = "auto",
    coco_dir: Path | None = None,
) -> Result:
    """The command: evaluate a split of a checkpoint's data, and say issues, numbers and what they mean.

    Args:
        checkpoint, device: as in ``evaluate``.
        split: which images.
        config: settings of data and evaluation; None: those of the training.
        coco_dir: where to leave ``ground_truth.json`` and ``detections.json`` in COCO's form (detectors only), and of a
            model of masks ``detections_masks.json``, the same without boxes, to score as ``segm``; None: nowhere.

    Returns:
        The result; also written to ``evaluation_<split>.json`` in the run directory, or a warning where that fails.

    Raises:
        DetsegError: the checkpoint or the data is missing or wrong, or they have different classes.
    """
    target, checkpoint = find_device(device), run_checkpoint(checkpoint)
    model, trained_config, contents = load_model(checkpoint)
    config = resolve_data(config or trained_config)
    kind = kind_of(config.model)
    if coco_dir is not None and not kind.finds_objects:
        raise ConfigError(f"--save-coco: is for detectors; {checkpoint} holds a {config.model.name}")
    dataset = open_split_for(config, split, contents.classes, checkpoint)
    for line in dataset.report.lines():
        logger.info(f"{dataset.name}: {line}")
    entries = list[dict[str, object]]()

    def keep(batch: Batch, found: Any) -> None:
        for image_id, detections in zip(batch.image_ids, batch.to_original(found), strict=True):
            there = detections.cpu()
            columns = (there.boxes.numpy(), there.labels.numpy(), there.scores.numpy())
            entries.extend(coco_results(image_id, *columns, there.masks, contents.classes))

    also = None if coco_dir is None else keep
    evaluator = evaluated(model, dataset, config, contents.classes, target, keep_images=True, also=also)
    result = evaluator.compute()
    origin = {"checkpoint": checkpoint.name, "split": split}
    settings = config.model_dump(mode="json", include={"data", "evaluation"})
    report(evaluator, result, report_file(checkpoint, split, "evaluation"), origin, settings, result.explain())
    if coco_dir is not None and isinstance(dataset, DetectionDataset):
        written = _write_coco(coco_dir, dataset, entries, kind.finds_masks)
        logger.info(f"written: {coco_dir}/{written}")
    return result


def evaluated(
    model: nn.Module,
    dataset: EvalSource,
    config: ExperimentConfig,
    classes: ClassTable,
    device: torch.device,
    keep_images: bool = False,
    also: Callable[[Batch, Any], None] | None = None,
) -> Evaluator:
    """The evaluator that has seen the predictions for a data set; of label maps with the counts of each image where
    ``keep_images``. ``also`` sees each batch, and what the model's ``predict`` returned for it."""
    evaluator = kind_of(config.model).evaluator(classes, config.evaluation)
    if keep_images and isinstance(evaluator, SegmentationEvaluator):
        evaluator.keep_images()
    with loader_errors(), MemoryErrors(EVALUATION_ADVICE) as errors:
        for batch, found in predictions(model, dataset, config, device, errors):
            evaluator.update_batch(batch, found)
            if also is not None:
                also(batch, found)
        return evaluator


def _write_coco(folder: Path, dataset: DetectionDataset, entries: list[dict[str, object]], masks: bool) -> str:
    files = {"ground_truth.json": coco_ground_truth(dataset), **result_files(entries, masks)}
    for name, content in files.items():
        write_text(folder / name, json.dumps(content))
    return ", ".join(files) + (" (without boxes, to score as segm)" if masks else "")


def report_file(checkpoint: Path, split: Split, name: str) -> Path:
    """Where numbers of a checkpoint go: ``<name>_<split>.json`` of its run directory."""
    return run_dir_of(checkpoint) / f"{name}_{split}{_suffix(checkpoint)}.json"


def report_folder(checkpoint: Path, split: Split) -> Path:
    """Where the report of a checkpoint goes: ``report`` in its run directory, of other splits than val
    ``report_<split>``."""
    return run_dir_of(checkpoint) / f"report{'' if split == 'val' else f'_{split}'}{_suffix(checkpoint)}"


def _suffix(checkpoint: Path) -> str:
    # What is of another checkpoint of the run must not pass for that of the best.
    return "" if checkpoint.name == BEST else f"_{checkpoint.stem}"


def evaluation_config(trained: Mapping[str, Any], where: str, overrides: Settings) -> ExperimentConfig:
    """The settings of a checkpoint with overrides of ``data`` and ``evaluation``; errors begin with ``where``. Nothing
    is downloaded that these do not ask for. Where ``data.name=...`` is not the layout of the run, only what every
    layout has (image size, batch size, ...) is kept of its data section. ConfigError: an override is wrong, or of
    another section."""
    if other := [text for text in overrides if not text.startswith(("data.", "evaluation."))]:
        what = "setting" if isinstance(overrides, Mapping) else "override"
        raise ConfigError(f"{what} {other[0]}: the checkpoint decides; only data.* and evaluation.* can be changed")
    trained = without_download(trained)
    data = trained.get("data")
    layout = [text.partition("=")[2].strip() for text in overrides if text.partition("=")[0].strip() == "data.name"]
    if layout and isinstance(data, dict) and layout[-1] != data.get("name"):
        trained["data"] = {key: value for key, value in data.items() if key in DataSection.model_fields}
    return config_from_dict(trained, where, overrides)


def open_split_for(config: ExperimentConfig, split: Split, classes: ClassTable, checkpoint: Path) -> AnyDataset:
    """The split, labelled by the checkpoint's class table; CheckpointError: the data has other classes."""
    own = config.data.class_names
    if own is not None and own != classes.names:
        raise CheckpointError(
            f"{checkpoint}: was trained on the classes {list(classes.names)}, data.classes are {list(own)}; leave "
            f"data.classes out, or take the checkpoint that fits"
        )
    try:
        return kind_of(config.model).open_dataset(config.data, split, classes)
    except ClassTableError as error:
        raise CheckpointError(f"{error} (the table is that of {checkpoint}: {', '.join(classes.names)})") from error


@torch.no_grad()
def predictions(
    model: nn.Module, dataset: EvalSource, config: ExperimentConfig, device: torch.device, errors: MemoryErrors
) -> Iterator[tuple[Batch, Any]]:
    """Each batch of ``dataset`` with what ``model.predict`` returned for it; ``errors`` is told of each batch."""
    predict: Any = fuse(model, device).predict  # of a Detector or a Segmenter
    data = config.data
    workers: dict[str, Any] = {"num_workers": min(data.num_workers, 2), "timeout": data.loader_timeout}
    loader = eval_loader(dataset, input_hw=data.input_hw, batch_size=data.num_images, **workers)
    for number, batch in enumerate(track(loader, description="evaluating", transient=True, console=console), 1):
        errors.doing = f"batch {number} of the evaluation, {describe_batch(batch)}"
        batch = batch.to(device)
        yield batch, predict(to_float(batch.images))
        errors.doing = f"after batch {number} of the evaluation"
