"""A training that runs out of memory says in which step, on which batch, and what to lower."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from detseg.config.schema.experiment import ExperimentConfig
from detseg.config.schema.model import TwoStageConfig
from detseg.memory import MemoryErrors, describe_batch
from detseg.structures import Batch


class NoteBatch(Callback):
    """Notes in the block around ``trainer.fit`` which batch is computed on: an error of the backward pass, or of a GPU,
    which computes behind the Python code's back, does not know it."""

    def __init__(self, errors: MemoryErrors) -> None:
        self.errors = errors

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch | None, batch_idx: int
    ) -> None:
        place = f"training step {trainer.global_step + 1} (epoch {trainer.current_epoch + 1}, batch {batch_idx + 1})"
        # It is None where a resumed run had it before.
        self.errors.doing = place if batch is None else f"{place}, {describe_batch(batch)}"

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.errors.doing = f"after training step {trainer.global_step} (epoch {trainer.current_epoch + 1})"

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int, *_: int
    ) -> None:
        place = f"validation after epoch {trainer.current_epoch + 1}, batch {batch_idx + 1}"
        self.errors.doing = f"{place}, {describe_batch(batch)}"

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.errors.doing = f"after the validation of epoch {trainer.current_epoch + 1}"


def training_memory_errors(trainer: L.Trainer, config: ExperimentConfig) -> MemoryErrors:
    """The block to put around ``trainer.fit``."""
    errors = MemoryErrors(training_advice(config, computes_float32=trainer.precision == "32-true"))
    trainer.callbacks.append(NoteBatch(errors))  # type: ignore[attr-defined]  # it is a list; declared in a connector
    return errors


def training_advice(config: ExperimentConfig, computes_float32: bool) -> str:
    """What to lower in a training, in this order, and what a resumed run may change; float32 can become bfloat16."""
    augmentation = config.data.augmentation
    two_stage = isinstance(config.model, TwoStageConfig)
    ways = {
        "data.batch_size (and raise trainer.accumulate_grad_batches as much)": config.data.batch_size != 1,
        "data.image_size": True,
        "the upper end of data.augmentation.multi_scale": augmentation.multi_scale is not None,
        "data.augmentation.mosaic": augmentation.mosaic > 0,
        "data.augmentation.mixup": augmentation.mixup > 0,
        "data.augmentation.copy_paste": augmentation.copy_paste > 0,
        "model.roi_heads.batch_size_per_image": two_stage,
        "model.rpn.post_nms_top_n_train": two_stage,
        "for main memory data.num_workers": config.data.num_workers > 0,
    }
    precision = "trainer.precision=bfloat16, " if computes_float32 else ""
    return (
        f"lower, in this order: {', '.join(way for way, applies in ways.items() if applies)}; --resume allows "
        f"{precision}fewer data.num_workers, and more devices with a smaller data.batch_size for each; any other "
        f"change needs a new run"
    )
