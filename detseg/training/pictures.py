"""Sample pictures of a run: what the network is shown, and what it finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback

from detseg.draw import contact_sheet, draw_boxes
from detseg.errors import DataError
from detseg.ops.images import to_float
from detseg.structures import Batch, UInt8Array
from detseg.training.task import DetectionTask


class SamplePictures(Callback):
    """Leaves ``train_batch.jpg`` (augmented images with their targets, from the first epoch) and, after every
    validation, ``val_targets.jpg`` and ``val_detections.jpg`` in a folder.

    Args:
        folder: where to write.
        num_pictures: images of each sheet.
        score_threshold: detections below it are not drawn.
    """

    def __init__(self, folder: Path, num_pictures: int, score_threshold: float = 0.3) -> None:
        self.folder = folder
        self.num_pictures = num_pictures
        self.score_threshold = score_threshold
        self._train: list[UInt8Array] = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Collects the first images of the run."""
        wanted = self.num_pictures - len(self._train)
        if wanted <= 0 or not trainer.is_global_zero or not isinstance(pl_module, DetectionTask):
            return
        self._train += target_pictures(batch, pl_module.classes.names, wanted)
        write_picture(self.folder / "train_batch.jpg", _sheet(self._train))

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
        if batch_idx or not self.num_pictures or not trainer.is_global_zero or not isinstance(pl_module, DetectionTask):
            return
        names = pl_module.classes.names
        found = pl_module.evaluated_model.predict(to_float(batch.images[: self.num_pictures]))
        pictures = []
        for image, detections in zip(_arrays(batch), found, strict=False):
            shown = detections.cpu()[detections.cpu().scores >= self.score_threshold]
            pictures.append(draw_boxes(image, shown.boxes, shown.labels, names, shown.scores))
        write_picture(self.folder / "val_targets.jpg", _sheet(target_pictures(batch, names, self.num_pictures)))
        write_picture(self.folder / "val_detections.jpg", _sheet(pictures))


def target_pictures(batch: Batch, names: tuple[str, ...], limit: int) -> list[UInt8Array]:
    """The first ``limit`` images of a batch with their targets drawn."""
    return [
        draw_boxes(image, target.boxes.cpu(), target.labels.cpu(), names)
        for image, target in zip(_arrays(batch), batch.targets[:limit], strict=False)
    ]


def write_picture(path: Path, picture: UInt8Array) -> None:
    """Write an (H, W, 3) uint8 RGB picture.

    Raises:
        DataError: it could not be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise DataError(f"{path}: the picture could not be written; is there space, and the right to write?")


def _arrays(batch: Batch) -> list[UInt8Array]:
    """(B, 3, H, W) uint8 → B times (H, W, 3)."""
    return list(np.ascontiguousarray(batch.images.permute(0, 2, 3, 1).cpu().numpy()))


def _sheet(pictures: list[UInt8Array]) -> UInt8Array:
    return contact_sheet(pictures, columns=4, cell=max(pictures[0].shape[:2]))
