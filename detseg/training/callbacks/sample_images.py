"""Sample images of a run: what the network is shown, and what it finds."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from detseg.draw import class_colors, contact_sheet, write_image
from detseg.structures import Batch, UInt8Array
from detseg.training.task import Task

logger = logging.getLogger("detseg")

_MOST_NAMED = 30
"""Classes of the legend; more would be larger than the images."""


class SampleImages(Callback):
    """Writes ``train_batch.jpg`` (augmented images with their targets, from the first epoch) and, after every
    validation, ``val_predictions.jpg`` (images with the truth, and beside each with what the model finds).

    Args:
        folder: where to write.
        num_images: images of each sheet.
    """

    def __init__(self, folder: Path, num_images: int) -> None:
        self.folder = folder
        self.num_images = num_images
        self._train: list[UInt8Array] = []
        self._has_told = False

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Collects the first images of the run."""
        wanted = self.num_images - len(self._train)
        if wanted <= 0 or not trainer.is_global_zero or not isinstance(pl_module, Task):
            return
        self._train += pl_module.draw_targets(batch, wanted)
        write_image(self.folder / "train_batch.jpg", _sheet(self._train, pl_module))

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draws the first validation batch."""
        if batch_idx or not self.num_images or not trainer.is_global_zero or not isinstance(pl_module, Task):
            return
        truth = pl_module.draw_targets(batch, self.num_images)
        found = pl_module.draw_predictions(batch, self.num_images)
        pairs = [picture for pair in zip(truth, found, strict=True) for picture in pair]
        file = self.folder / "val_predictions.jpg"
        write_image(file, _sheet(pairs, pl_module, ("truth", "prediction") * 2))
        if not self._has_told:
            logger.info(f"truth beside prediction, drawn after each validation: {file}")
            self._has_told = True


def _sheet(pictures: list[UInt8Array], task: Task, titles: tuple[str, ...] = ()) -> UInt8Array:
    names = task.classes.names
    rows = zip(names, class_colors(names), strict=True)
    legend = [(name, "", color) for name, color in rows if name != "background"][:_MOST_NAMED]
    return contact_sheet(pictures, 4, titles, legend)
