"""What every task shares: one training step, one validation step, one evaluator.

Between ``trainer.fit`` and the network stand three frames of ours: ``training_step`` → ``losses`` → ``forward``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, cast

import lightning as L
import numpy as np
import torch
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from detseg.checkpoint import ENTRY, model_entry
from detseg.config.model import BackboneConfig
from detseg.config.training import AdamWConfig, CosineConfig, EvaluationConfig, OptimizerConfig, ScheduleConfig
from detseg.data.sampling import EpochBatchSampler
from detseg.errors import CheckpointError, DetsegError
from detseg.metrics.interface import Evaluator, Result
from detseg.ops.images import to_float
from detseg.structures import Batch, ClassTable, UInt8Array
from detseg.training.cursor import EpochCursor
from detseg.training.ema import WeightAverage
from detseg.training.freezing import NORMALIZATION, FrozenParts
from detseg.training.fresh_norms import FreshNorms
from detseg.training.loss_means import LossMeans
from detseg.training.optimizers import build_optimizer
from detseg.training.processes import Processes
from detseg.training.random_state import random_state, restore_random_state
from detseg.training.resume import check_resumable
from detseg.training.schedules import build_schedule

_CHECK_EVERY = 10
"""Batches from one look at the loss to the next; looking makes a GPU wait."""

_TOO_SMALL = "Expected more than 1 value per channel when training"
"""How PyTorch's batch normalisation begins its ValueError."""


class Task(L.LightningModule, ABC):
    """Trains a model; ``DetectionTask`` and ``SegmentationTask`` say on which targets, and by what it is measured.

    Args:
        model: an ``nn.Module`` with ``losses(images, targets)`` and ``losses_and_predictions(images, targets)``.
        classes: names of its labels.
        optimizer: settings of the optimiser.
        schedule: settings of the learning rate's course.
        evaluation: settings of the evaluator.
        ema_decay: decay of the averaged weights; 0: no average, the model itself is evaluated.
        ema_warmup_steps: see ``WeightAverage``.
        config: resolved settings as plain data, kept in every checkpoint; a Predictor needs them.
        freezing: what of ``model.backbone`` is not trained, and until when; None: all of it trains as it comes.

    Attributes:
        criterion: the metric by which the best checkpoint is chosen; the first of the results' ``headline``.
        shown: the metrics in the progress bar and in the line of an epoch.
    """

    criterion: str
    shown: tuple[str, ...]

    def __init__(
        self,
        model: nn.Module,
        classes: ClassTable,
        optimizer: OptimizerConfig | None = None,
        schedule: ScheduleConfig | None = None,
        evaluation: EvaluationConfig | None = None,
        ema_decay: float = 0.0,
        ema_warmup_steps: int = 0,
        config: dict[str, Any] | None = None,
        freezing: BackboneConfig | None = None,
    ) -> None:
        super().__init__()
        self.frozen = None if freezing is None else FrozenParts(cast(nn.Module, model.backbone), freezing)
        # Channels-last is how convolutions are computed fastest on CPUs and on tensor cores alike.
        self.model: Any = model.to(memory_format=torch.channels_last)
        self.average = WeightAverage(model, ema_decay, ema_warmup_steps) if ema_decay else None
        self.classes = classes
        self.evaluator = self.build_evaluator(evaluation or EvaluationConfig())
        self.optimizer_config = optimizer or AdamWConfig()
        self.schedule_config = schedule or CosineConfig()
        self.result: Result | None = None
        self.config = config or {}
        self.fresh_norms = FreshNorms(self.model)
        self.cursor = EpochCursor()
        self.train_means, self.val_means = LossMeans(), LossMeans()
        self._resumed_at: dict[str, int] = {"epoch": 0, "batch": 0}
        self._resumed_means: list[dict[str, Any]] | None = None
        self._seed = int(self.config.get("seed", torch.initial_seed()))

    @abstractmethod
    def build_evaluator(self, settings: EvaluationConfig) -> Evaluator:
        """What the predictions are scored by."""

    @abstractmethod
    def targets(self, batch: Batch) -> Any:
        """What of a batch the model's losses are computed against."""

    @abstractmethod
    def draw_targets(self, batch: Batch, limit: int) -> list[UInt8Array]:
        """The first ``limit`` images of a batch with their targets drawn, (H, W, 3) uint8 RGB each."""

    @abstractmethod
    def draw_predictions(self, batch: Batch, limit: int) -> list[UInt8Array]:
        """The first ``limit`` images of a batch with what the evaluated model finds."""

    @property
    def evaluated_model(self) -> Any:
        """The model that validation and checkpoints' users see: the average where there is one."""
        return self.average.model if self.average is not None else self.model

    def train(self, mode: bool = True) -> Task:
        """Training mode, except for frozen normalisation layers, whose statistics stay as they are."""
        super().train(mode)
        for module in self.model.modules():
            parameters = list(module.parameters(recurse=False))
            if isinstance(module, NORMALIZATION) and parameters and not any(p.requires_grad for p in parameters):
                module.eval()
        return self

    def on_fit_start(self) -> None:
        """Sets the modes, which Lightning leaves as they are: frozen normalisation must not begin in training mode."""
        self.processes = Processes()
        self.train()

    def on_train_start(self) -> None:
        """Has the loader begin where the run stood.

        Raises:
            CheckpointError: that is in the middle of an epoch, and the loader is none of ours.
        """
        sampler = getattr(self.trainer.train_dataloader, "batch_sampler", None)
        if isinstance(sampler, EpochBatchSampler):
            sampler.begin_at(self._resumed_at["epoch"], self._resumed_at["batch"])
        elif self._resumed_at["batch"]:
            raise CheckpointError(
                "the checkpoint is from the middle of an epoch, where only a loader of detseg.data.loader.train_loader "
                "can go on; take one from the end of an epoch"
            )

    def on_train_epoch_start(self) -> None:
        """Begins the epoch's means, where a resumed run left them, and lets what was held back train once its epoch has
        come."""
        self.cursor.begin_epoch(self.trainer)
        self.train_means.reset()
        if self._resumed_means is not None:
            self.train_means.load(self._resumed_means, self.processes.rank, self.processes.world_size)
            self._resumed_means = None
        if self.frozen is None or not self.frozen.release(self.current_epoch + 1):
            return
        self.train()
        if isinstance(self.trainer.strategy, DDPStrategy):
            # Gradients are averaged over the processes for those parameters only that trained when it was set up.
            self.trainer.strategy.model = self
            self.trainer.strategy.configure_ddp()

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The sum of the model's loss terms for a batch.

        Raises:
            DetsegError: the batch is too small for batch normalisation.
        """
        self._seed_step(batch_index)
        self.fresh_norms.prepare(self.global_step)
        try:
            terms = self.model.losses(to_float(batch.images), self.targets(batch))
        except ValueError as error:
            if not str(error).startswith(_TOO_SMALL):
                raise
            height, width = batch.images.shape[-2:]
            raise DetsegError(
                f"a training batch of {len(batch)} image of {height} x {width} pixels leaves a single value a channel, "
                f"which batch normalisation cannot train on; raise data.batch_size or data.image_size"
            ) from error
        total = torch.stack(list(terms.values())).sum()
        terms = {"loss": total, **terms}
        self.train_means.add(terms, len(batch))
        for name, value in terms.items():
            self.log(f"train/{name}_step", value.detach(), prog_bar=name == "loss")
        return total

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """One step, which the averaged weights follow."""
        super().optimizer_step(*arguments, **options)
        if self.average is not None:
            self.average.update(self.model, self.global_step + 1)  # Lightning counts the step when this returns

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Moves the rate on with the optimiser's steps; the batches that a resumed run had before make none."""
        if scheduler.last_epoch < self.global_step:
            scheduler.step()

    def on_train_batch_end(self, outputs: Any, batch: Batch | None, batch_index: int) -> None:
        """Stops a run whose loss is no number, and logs the means at the end of the epoch."""
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"], prog_bar=True)
        if batch is not None and (batch_index % _CHECK_EVERY == 0 or self.trainer.is_last_batch):
            self._check_finite(outputs["loss"])
        if self.trainer.is_last_batch:
            for name, mean in self.train_means.means(self.processes).items():
                self.log(f"train/{name}_epoch", mean, on_step=False, on_epoch=True, batch_size=1)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Losses of the evaluated model, and its predictions handed to the evaluator."""
        # Float32 whatever the training computes in, so that the number is the one that evaluation finds later.
        with torch.autocast(self.device.type, enabled=False):
            images = to_float(batch.images)
            terms, predictions = self.evaluated_model.losses_and_predictions(images, self.targets(batch))
        total = torch.stack(list(terms.values())).sum()
        self.val_means.add({"loss": total, **terms}, len(batch))
        self.evaluator.update_batch(batch, predictions)

    def on_validation_epoch_start(self) -> None:
        """Forgets the last validation."""
        self.evaluator.reset()
        self.val_means.reset()

    def on_validation_epoch_end(self) -> None:
        """Computes and logs the metrics; ``result`` keeps all of them."""
        self.result = self.evaluator.compute()
        # Batch-norm statistics are each process's own; the first one's are those that are saved, so its numbers count.
        numbers = self.trainer.strategy.broadcast(self.result.headline)
        for name, value in numbers.items():
            # As float64, which Lightning keeps: the very number that evaluation finds later.
            self.log(f"val/{name}", torch.tensor(value, dtype=torch.float64), prog_bar=name in self.shown)
        for name, mean in self.val_means.means(self.processes).items():
            self.log(f"val/{name}", mean, prog_bar=name == "loss")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser, with a schedule that moves every step."""
        held = [] if self.frozen is None else self.frozen.held
        optimizer = build_optimizer(self.optimizer_config, self.model, held)
        total_steps = int(self.trainer.estimated_stepping_batches)
        steps_per_epoch = total_steps / max(self.trainer.max_epochs or 1, 1)
        schedule = build_schedule(self.schedule_config, total_steps, steps_per_epoch)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, schedule), "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what a Predictor needs, and where the run stands."""
        self.cursor.rewrite(self.trainer, checkpoint)
        checkpoint[ENTRY] = model_entry(self.config, self.classes) | {
            "place": self.cursor.place(self.trainer),
            "means": self.train_means.state(self.processes),
            "fresh_norms": self.fresh_norms.names,
            "random": random_state(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses to go on from a run of other classes or settings, or one that is over."""
        check_resumable(checkpoint, self.classes, self.config, self.trainer.max_epochs)
        entry = checkpoint[ENTRY]
        if "place" in entry:  # else a checkpoint of an older version, from the end of an epoch
            self._resumed_at = entry["place"]
            self._resumed_means = entry["means"] if self._resumed_at["batch"] else None
            self.fresh_norms.keep(entry["fresh_norms"])
            restore_random_state(entry["random"])

    def _seed_step(self, batch_index: int) -> None:
        """Make what a model draws at random (which proposals to learn from) follow from where the run is, so that one
        that is resumed draws what the whole one would have drawn."""
        place = (self._seed, self.current_epoch, batch_index, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]))

    def _check_finite(self, loss: Tensor) -> None:
        """Stops a run that has diverged before its checkpoint is overwritten.

        Raises:
            DetsegError: the loss, or at the end of an epoch a weight, is NaN or infinite.
        """
        where = f"epoch {self.current_epoch + 1}, step {self.global_step}"
        mend = "lower optimizer.lr, or set trainer.precision=float32"
        if not bool(torch.isfinite(loss)):
            latest = self.trainer.callback_metrics
            terms = [f"{name[6:-5]} {float(latest[name]):.4g}" for name in sorted(latest) if name.endswith("_step")]
            raise DetsegError(f"{where}: the loss is not finite ({', '.join(terms)}); {mend}")
        if self.trainer.is_last_batch and not all(bool(p.isfinite().all()) for p in self.model.parameters()):
            raise DetsegError(f"{where}: a weight is not finite any more; {mend}")
