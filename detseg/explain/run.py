"""Misses of a trained detector, in one image or in a split of its data."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from detseg.checkpoint import read_model_checkpoint
from detseg.config.schema.experiment import ExperimentConfig
from detseg.data.annotations.model import training_boxes
from detseg.data.annotations.report import sizes_in_input
from detseg.data.build import Split, resolve_data
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.loading.loader import eval_loader
from detseg.data.loading.processes import loader_errors
from detseg.errors import CheckpointError, ConfigError, DataError, DetsegError, MissingSplitError
from detseg.evaluation.run import EVALUATION_ADVICE, evaluation_config, open_split_for
from detseg.explain.advice import Adviser
from detseg.explain.misses import ImageMisses, explain_misses
from detseg.explain.summary import MissSummary
from detseg.explain.trace import traces
from detseg.factory import load_model
from detseg.memory import MemoryErrors, describe_batch
from detseg.messages import console, counted, messages_on_console
from detseg.models.acceleration import fuse
from detseg.ops.letterbox import Letterbox
from detseg.ops.tensors import to_float
from detseg.predict import find_device
from detseg.structures import SCORE_THRESHOLD, Batch, BoxTargets, ClassTable, FloatArray, ImageAnnotations
from detseg.tasks import kind_of

logger = logging.getLogger("detseg")

_SPLITS: tuple[Split, ...] = ("val", "test", "train")  # in which an image is looked for, the smallest first


@dataclass(frozen=True, eq=False)
class _Explained:
    """A detector whose misses are explained."""

    checkpoint: Path
    model: Any  # the folded copy, as everything that gives numbers computes with it
    config: ExperimentConfig
    classes: ClassTable
    device: torch.device
    score_threshold: float

    @property
    def adviser(self) -> Adviser:
        return Adviser(self.config, self.model)

    def open_split(self, split: Split) -> DetectionDataset:
        dataset = open_split_for(self.config, split, self.classes, self.checkpoint)
        assert isinstance(dataset, DetectionDataset)
        return dataset

    def misses(self, dataset: DetectionDataset) -> Iterator[ImageMisses]:
        """Of one image after the other."""
        data = self.config.data
        workers: dict[str, Any] = {"num_workers": min(data.num_workers, 2), "timeout": data.loader_timeout}
        with loader_errors(), MemoryErrors(EVALUATION_ADVICE) as errors:
            loader = eval_loader(dataset, input_hw=data.input_hw, batch_size=data.num_images, **workers)
            for batch in loader:
                errors.doing = f"explaining {describe_batch(batch)}"
                yield from self._of_batch(batch)

    def _of_batch(self, batch: Batch) -> Iterator[ImageMisses]:
        rows = list(zip(batch.annotations, batch.letterboxes, strict=True))
        targets = [targets_in_input(truth, letterbox).to(self.device) for truth, letterbox in rows]
        found = traces(self.model, to_float(batch.images.to(self.device)), targets)
        for trace, (truth, letterbox) in zip(found, rows, strict=True):
            objects = BoxTargets(
                torch.from_numpy(truth.boxes.astype(np.float32)),
                torch.from_numpy(truth.labels),
                torch.from_numpy(truth.ignore),
            )
            yield explain_misses(trace, objects, letterbox, self.classes, self.score_threshold)


@messages_on_console()
def explain_split(
    checkpoint: Path,
    split: Split = "val",
    overrides: Sequence[str] = (),
    score_threshold: float = SCORE_THRESHOLD,
    device: str = "auto",
) -> MissSummary:
    """Explain the misses in a split of a checkpoint's data.

    Args:
        checkpoint: of a detector.
        split: which images.
        overrides: of ``data``, as of `detseg evaluate`.
        score_threshold: from which on detections count, in [0, 1].
        device: ``auto``, ``cpu``, ``cuda``, ...

    Raises:
        DetsegError: the checkpoint or the data is missing or wrong, or the model finds no objects.
    """
    explained = _explained(checkpoint, overrides, score_threshold, device)
    dataset = explained.open_split(split)
    misses, num_objects = [], 0
    scores = [(np.zeros(0), np.zeros(0))]
    progress: Any = {"total": len(dataset), "description": "explaining", "transient": True, "console": console}
    for index, of_image in enumerate(track(explained.misses(dataset), **progress)):
        num_objects += len(of_image.found) + len(of_image.misses)
        misses += [(dataset.packed.path(index), miss) for miss in of_image.misses]
        scores.append((of_image.right, of_image.wrong))
    right, wrong = map(np.concatenate, zip(*scores, strict=True))
    return MissSummary.of(len(dataset), num_objects, score_threshold, tuple(misses), explained.adviser, right, wrong)


@messages_on_console()
def explain_image(
    checkpoint: Path,
    image: Path,
    split: Split | None = None,
    overrides: Sequence[str] = (),
    score_threshold: float = SCORE_THRESHOLD,
    device: str = "auto",
) -> tuple[ImageMisses, Adviser]:
    """Explain the misses in one image of a checkpoint's data, whose annotations say what is in it.

    Args:
        image: the file of an image of a split, or its path in the data.
        split: which one; None: that which has the image.
        checkpoint, overrides, score_threshold, device: as in ``explain_split``.

    Returns:
        What became of its objects, and the adviser, who knows what to try against each miss.

    Raises:
        DetsegError: as ``explain_split``, or no split has the image.
    """
    explained = _explained(checkpoint, overrides, score_threshold, device)
    looked_at = []
    for name in _SPLITS if split is None else (split,):
        try:
            dataset = explained.open_split(name)
        except MissingSplitError:
            if split is not None:
                raise
            continue
        wanted = image.resolve()
        for index in range(len(dataset)):
            path = dataset.path(index)
            if path.name == image.name and (path.resolve() == wanted or Path(dataset.packed.path(index)) == image):
                (found,) = explained.misses(dataset.subset([index]))
                return found, explained.adviser
        looked_at.append(f"{name} ({counted(len(dataset), 'image')}, such as {dataset.path(0)})")
    raise DataError(
        f"{image}: is not in the data of {checkpoint}, so what is in it is not known: looked in "
        f"{', '.join(looked_at)}; name an image of these, or other data with data.root=..."
    )


def object_sizes(checkpoint: Path) -> FloatArray | None:
    """(T,) the square roots of the areas of the boxes in the val split of a run, pixels of the network input; None, and
    a line in the log, where that is not there; None of a model that finds no objects."""
    contents = read_model_checkpoint(checkpoint)
    try:
        config = resolve_data(evaluation_config(contents.config, str(checkpoint), ()))
        if not kind_of(config.model).finds_objects:
            return None
        dataset = open_split_for(config, "val", contents.classes, checkpoint)
    except DetsegError as error:
        logger.info(f"how large objects are is not known: {error}")
        return None
    assert isinstance(dataset, DetectionDataset)
    sizes, _ = sizes_in_input(dataset.packed, config.data.input_hw)
    return np.asarray(np.sqrt(sizes.prod(axis=1)), dtype=np.float64)


def _explained(checkpoint: Path, overrides: Sequence[str], score_threshold: float, device: str) -> _Explained:
    target = find_device(device)
    if not 0 <= score_threshold <= 1:
        raise ConfigError(f"score_threshold: expected a number from 0 to 1, got {score_threshold!r}")
    model, trained, contents = load_model(checkpoint)
    if not kind_of(trained.model).finds_objects:
        name = trained.model.name
        raise CheckpointError(
            f"{checkpoint}: is a {name}, which gives every pixel a class; only detectors miss objects"
        )
    config = resolve_data(evaluation_config(contents.config, str(checkpoint), overrides))
    return _Explained(checkpoint, fuse(model, target), config, contents.classes, target, score_threshold)


def targets_in_input(truth: ImageAnnotations, letterbox: Letterbox) -> BoxTargets:
    """The objects of an image as training would see them, in pixels of the network input; all of them, in their order.
    What training leaves out, boxes without area inside the image, is to be ignored."""
    stated = truth.boxes if truth.masks is None else truth.masks.boxes
    boxes, has_area = training_boxes(stated, letterbox.original_hw)
    ignore = torch.from_numpy(truth.ignore | ~has_area)
    return BoxTargets(letterbox.to_input(torch.from_numpy(boxes)), torch.from_numpy(truth.labels), ignore)
