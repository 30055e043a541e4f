"""A detector of one weight, whose training can be computed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader

from detseg.config.schema.experiment import CosineConfig, OptimizerConfig, ScheduleConfig, SgdConfig
from detseg.models.interface import LossTerms
from detseg.ops.letterbox import Letterbox
from detseg.structures import Batch, BoxTargets, ClassTable, DetectorOutput, ImageAnnotations
from detseg.tasks import Detection
from detseg.training.task import Task
from tests.metrics.builders import truth

CLASSES = ClassTable(("a", "b"))
PLAIN_SGD = SgdConfig(name="sgd", lr=0.5, momentum=0.0, weight_decay=0.0)
CONSTANT = CosineConfig(warmup_epochs=0, final_lr_fraction=1.0)
SILENT: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
"""Options of a Trainer that prints and writes nothing."""


Validated = tuple[LossTerms, list[DetectorOutput]]


class OneWeight(nn.Module):
    """Its loss is weight × mean of the images: the gradient is that mean.  Finds one box over the whole image."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.weight * images.mean()]

    def losses(self, images: Tensor, targets: list[BoxTargets]) -> LossTerms:
        half = self(images)[0] / 2
        return {"first": half, "second": half}

    def predict(self, images: Tensor) -> list[DetectorOutput]:
        side = float(images.shape[-1])
        box, label = torch.tensor([[0.0, 0.0, side, side]]), torch.zeros(1, dtype=torch.int64)
        return [DetectorOutput(box, torch.tensor([0.5]), label) for _ in images]

    def losses_and_predictions(self, images: Tensor, targets: list[BoxTargets]) -> Validated:
        return self.losses(images, targets), self.predict(images)


def batch_of(grey: int, image_id: int = 1) -> Batch:
    """One 8 x 8 image of one grey value with one object that fills it."""
    images = torch.full((1, 3, 8, 8), grey, dtype=torch.uint8)
    box = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    targets = [BoxTargets(box, torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.bool))]
    annotations: list[ImageAnnotations] = [truth([((0, 0, 8, 8), 0)])]
    return Batch(images, targets, [0], [Letterbox.fit((8, 8), (8, 8))], [image_id], annotations)


def loader_of(batches: list[Batch]) -> DataLoader[Batch]:
    """A loader that hands batches over as they are."""
    listed: Any = batches  # which has all that a loader wants of a data set
    return DataLoader(listed, batch_size=None)


def task_of(
    model: Any, schedule: ScheduleConfig = CONSTANT, optimizer: OptimizerConfig = PLAIN_SGD, **options: Any
) -> Task:
    """A task with plain gradient descent at a rate of 0.5."""
    return Task(Detection(), model, CLASSES, optimizer, schedule, **options)


def fit(
    task: L.LightningModule,
    batches: list[Batch],
    folder: Path,
    max_epochs: int = 1,
    callbacks: list[Callback] | None = None,
    **options: Any,
) -> L.Trainer:
    """Train on the batches, validate on the first of them, and write nothing."""
    options |= {"callbacks": callbacks, "default_root_dir": folder, **SILENT}
    trainer = L.Trainer(accelerator="cpu", max_epochs=max_epochs, num_sanity_val_steps=0, **options)
    trainer.fit(task, loader_of(batches), loader_of(batches[:1]))
    return trainer
