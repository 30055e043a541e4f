"""What a benchmark times: data, task and loaders of a configuration, put together as training does.

Nothing is downloaded, and no published weights are fetched: they do not change how long a step takes.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from detseg.benchmark.results import Results
from detseg.checkpoint import read_model_checkpoint
from detseg.config.schema.data import CocoConfig, DataSection, ShapesConfig, VocConfig
from detseg.config.schema.experiment import ExperimentConfig
from detseg.config.schema.model import SegmenterConfig
from detseg.data.build import resolve_data
from detseg.data.datasets.contract import EvalSource
from detseg.data.formats.coco_writer import CocoWriter
from detseg.data.shapes import Split, render_scene
from detseg.errors import CheckpointError, DataError
from detseg.predict.load import find_device
from detseg.structures import Batch
from detseg.training.setup.build import build_data, build_task, open_data
from detseg.training.setup.trainer import resolve_precision
from detseg.training.task import Task

_NUM_SCENES, _NUM_TRAIN, _NUM_VAL = 24, 120, 24
"""Synthetic images that differ (the others are copies), and those of the two sets."""


@dataclass(frozen=True)
class Setup:
    """The parts of a training, ready to be run; ``folder`` is empty and removed afterwards."""

    config: ExperimentConfig
    train_set: EvalSource
    val_set: EvalSource
    task: Task
    device: torch.device
    folder: Path

    @property
    def precision(self) -> str:
        """What the training's matrix products are computed in."""
        return resolve_precision(self.config.trainer.precision, self.device.type)

    @contextmanager
    def batches(self, num_workers: int, validation: bool = False) -> Iterator[Iterator[Batch]]:
        """The batches of the first epoch, again and again, or of a validation; the loader's processes end with the
        block."""
        section = self.config.data.model_copy(update={"num_workers": num_workers})
        data = build_data(self.config.model_copy(update={"data": section}), self.train_set, self.val_set)
        loader = data.val_dataloader() if validation else data.train_dataloader()
        del data  # it keeps the loader
        batches = iter(loader) if validation else chain.from_iterable(repeat(loader))
        try:
            yield batches
        finally:
            del batches, loader
            gc.collect()  # ends the processes, also where a reference cycle holds them

    def first_batches(self, number: int) -> list[Batch]:
        """The first batches of the training, loaded by this process."""
        with self.batches(0) as batches:
            return list(islice(batches, number))


@contextmanager
def open_setup(config: ExperimentConfig, synthetic: bool, checkpoint: Path | None, results: Results) -> Iterator[Setup]:
    """Put together what a configuration describes, arguments as for ``benchmark``; ``results`` gets how long that
    takes, as the stage ``start``, and facts. DetsegError: settings, data or checkpoint are missing or wrong."""
    accelerator, _ = config.trainer.accelerator, config.data.num_images  # `auto` is an error here
    device = find_device("cuda" if accelerator == "gpu" else accelerator)
    trained = None if checkpoint is None else read_model_checkpoint(checkpoint).weights  # an error before data is read
    with TemporaryDirectory(prefix="detseg-benchmark-") as name:
        folder = Path(name)
        config = with_synthetic_data(config, folder) if synthetic else resolve_data(_without_download(config, folder))
        begin = time.perf_counter()
        try:
            config, train_set, val_set = open_data(config)
        except DataError as error:
            raise DataError(f"{error}; or use synthetic images: --synthetic") from error
        results.add("start", "opening the data", "s", [time.perf_counter() - begin])
        begin = time.perf_counter()
        task = build_task(config, train_set.classes, load_pretrained=False)
        results.add("start", "building the model", "s", [time.perf_counter() - begin])
        if checkpoint is not None and trained is not None:
            _load_weights(task, trained, checkpoint)
        del trained
        setup = Setup(config, train_set, val_set, task, device, folder)
        num_parameters, (height, width) = sum(p.numel() for p in task.model.parameters()), config.data.input_hw
        weights = "random weights" if checkpoint is None else f"weights of {checkpoint}"
        computed = f"on {device.type} in {setup.precision} (trainer.precision={config.trainer.precision})"
        model = f"{config.model.name}, {num_parameters / 1e6:.2f} M parameters, {weights}; {computed}"
        sizes = f"{len(train_set)} training and {len(val_set)} validation images, {len(train_set.classes)} classes"
        data = f"{'synthetic' if synthetic else config.data.name}, {sizes}; {height} x {width} pixels"
        results.facts |= {
            "device": device.type,
            "synthetic": synthetic,
            "model": f"{model}, CPU threads: {torch.get_num_threads()}",
            "data": f"{data}, batches of {config.data.num_images}",
        }
        yield setup


def with_synthetic_data(config: ExperimentConfig, root: Path) -> ExperimentConfig:
    """Write shapes in COCO layout for the model to learn; returns the settings that read them.

    The classes are ``data.classes``, or as many as there are class weights, else 80 for ``coco`` and 20 for others.
    Image size, batch, workers and augmentation stay; ``root`` is an empty folder.
    """
    model, longest = config.model, max(config.data.input_hw)
    number = 80 if isinstance(config.data, CocoConfig) else 20
    if isinstance(model, SegmenterConfig):
        weights = model.loss.class_weights
        number = 2 if model.binary else len(weights) if isinstance(weights, tuple) else number + 1
    names = config.data.class_names or tuple(f"class{i}" for i in range(number))
    objects = names[1:] if isinstance(model, SegmenterConfig) else names  # the background is no category
    writer = CocoWriter(root, objects)
    numbers: dict[Split, int] = {"train": max(_NUM_TRAIN, config.data.num_images), "val": _NUM_VAL}
    for split in numbers:
        scenes = [render_scene(0, split, i, max(min(640, 4 * longest), longest), 12) for i in range(_NUM_SCENES)]
        for i in range(numbers[split]):
            scene = scenes[i % _NUM_SCENES]
            writer.add(split, f"{i:06d}", scene.image, scene.boxes, (scene.labels + i) % len(objects), scene.masks)
    writer.finish()
    common = {key: getattr(config.data, key) for key in DataSection.model_fields} | {"classes": names}
    folders = {f"{split}_images": Path(split) for split in numbers}
    files = {f"{split}_annotations": Path(f"annotations/instances_{split}.json") for split in numbers}
    data = CocoConfig.model_validate(common | folders | files | {"name": "coco", "root": root})
    return config.model_copy(update={"data": data})


def _without_download(config: ExperimentConfig, folder: Path) -> ExperimentConfig:
    """The settings changed so that opening the data neither downloads anything nor leaves files behind."""
    data = config.data
    if isinstance(data, ShapesConfig) and not data.root.exists():
        data = data.model_copy(update={"root": folder / "shapes"})
    elif isinstance(data, VocConfig):
        data = data.model_copy(update={"download": False})
    return config.model_copy(update={"data": data})


def _load_weights(task: Task, weights: Mapping[str, torch.Tensor], checkpoint: Path) -> None:
    try:
        for model in (task.model, task.evaluated_model):
            model.load_state_dict(weights)
    except RuntimeError as error:
        what = "its weights do not fit the model of this configuration and data"
        raise CheckpointError(f"{checkpoint}: {what}") from error
