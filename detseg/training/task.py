"""What every task shares: one training step, one validation step, one evaluator.

A training step is ``training_step`` (batch → losses) and ``optimizer_step`` (backward → guard → step → moving average);
Lightning has put the batch on the device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from detseg.checkpoint import ENTRY, model_entry
from detseg.config.schema.experiment import AdamWConfig, CosineConfig, EvaluationConfig, OptimizerConfig, ScheduleConfig
from detseg.config.schema.model import BackboneConfig
from detseg.errors import DetsegError
from detseg.messages import shown
from detseg.metrics.interface import Result
from detseg.models.acceleration import fuse, settling
from detseg.ops.tensors import to_float
from detseg.structures import Batch, ClassTable
from detseg.tasks import TaskKind
from detseg.training.distributed import Processes, score_together, take_buffers_of_first
from detseg.training.nan import StepBatch, StepContext, StepGuard, check_weights
from detseg.training.optim.averages import BatchNormWarmup, WeightAverage
from detseg.training.optim.freezing import NORMALIZATION, FrozenParts
from detseg.training.optim.optimizers import build_optimizer, build_schedule
from detseg.training.resume import DataGuard, LossMeans, RunState, check_resumable
from detseg.training.seeding import seed_batch

_TOO_SMALL = "Expected more than 1 value per channel when training"
"""How PyTorch's batch normalisation begins its ValueError."""


class Task(L.LightningModule):
    """Trains a model; its kind says on which targets, and by what it is measured.

    Args:
        kind: a kind of ``detseg.tasks``: ``Detection()``, ``InstanceSegmentation()``, ``SemanticSegmentation()``.
        model: an ``nn.Module`` with ``losses(images, targets)`` and ``losses_and_predictions(images, targets)``.
        classes: names of its labels.
        optimizer, schedule, evaluation: settings; None: the defaults.
        ema_decay, ema_warmup_steps: of ``WeightAverage``; a decay of 0: no average, the model itself is evaluated.
        config: resolved settings as plain data, kept in every checkpoint; a Predictor needs them.
        freezing: what of ``model.backbone`` is not trained, and until when; None: all of it trains as it comes.
        guard: what looks at every step before it is made; None: one that stops the run where numbers are not finite.

    Attributes:
        criterion: the metric that chooses the best checkpoint, the first of the kind's; may be set to another of these.
        shown: the kind's.
        data_guard: what the data is, kept in checkpoints and compared when the run is resumed; None: neither.
    """

    def __init__(
        self,
        kind: TaskKind,
        model: nn.Module,
        classes: ClassTable,
        optimizer: OptimizerConfig | None = None,
        schedule: ScheduleConfig | None = None,
        evaluation: EvaluationConfig | None = None,
        ema_decay: float = 0.0,
        ema_warmup_steps: int = 0,
        config: dict[str, Any] | None = None,
        freezing: BackboneConfig | None = None,
        guard: StepGuard | None = None,
    ) -> None:
        super().__init__()
        self.kind, self.criterion, self.shown = kind, kind.metrics[0], kind.shown
        self.frozen = None if freezing is None else FrozenParts(cast(nn.Module, model.backbone), freezing)
        # Channels-last is how convolutions are computed fastest on CPUs and on tensor cores alike.
        self.model: Any = model.to(memory_format=torch.channels_last)
        self.average = WeightAverage(model, ema_decay, ema_warmup_steps) if ema_decay else None
        self._fused: list[nn.Module] = []  # in a list it is no part of the task, and of no checkpoint
        self.classes = classes
        self.evaluator = kind.evaluator(classes, evaluation or EvaluationConfig())
        self.optimizer_config = optimizer or AdamWConfig()
        self.schedule_config = schedule or CosineConfig()
        self.result: Result | None = None
        self.config = config or {}
        self.data_guard: DataGuard | None = None
        self.warmup = BatchNormWarmup(self.model)
        self._accumulated = 1
        self.guard = guard or StepGuard()
        self.run_state = RunState(self.warmup, self.guard)
        self._step_batches: list[StepBatch] = []
        self.val_means = LossMeans()
        self.seed = int(self.config.get("seed", torch.initial_seed()))

    def targets(self, batch: Batch) -> Any:
        """What of a batch the model's losses are computed against."""
        return self.kind.targets(batch, (self.seed, self.current_epoch) if self.training else None)

    @property
    def evaluated_model(self) -> Any:
        """The model that checkpoints' users see: the average where there is one; during a validation its fused copy."""
        if self._fused:
            return self._fused[0]
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
        self.processes = Processes()
        self.train()  # Lightning leaves the modes: frozen normalisation must not begin in training mode

    def on_train_start(self) -> None:
        self._accumulated = self.trainer.accumulate_grad_batches
        self.run_state.begin_training(self.trainer)

    def on_train_epoch_start(self) -> None:
        self.run_state.begin_epoch(self.trainer, self.processes)
        self.guard.begin_epoch(self.model)
        self._step_batches = []
        if self.frozen is None or not self.frozen.release(self.current_epoch + 1):
            return
        self.train()
        if isinstance(self.trainer.strategy, DDPStrategy):
            # Gradients are averaged over the processes for those parameters only that trained when it was set up.
            self.trainer.strategy.model = self
            self.trainer.strategy.configure_ddp()

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Batch on the device → loss terms → their sum, which ``optimizer_step`` has Lightning differentiate;
        DetsegError: the batch is too small for batch normalisation."""
        num_steps = self.global_step - self.guard.num_skipped
        self.warmup.prepare(num_steps * self._accumulated + batch_index % self._accumulated)
        terms = self._losses(batch, batch_index, eager=bool(self.warmup.names))
        detached = {name: value.detach() for name, value in terms.items()}
        self._step_batches.append(StepBatch(batch_index, batch, detached))
        for name, value in detached.items():
            self.log(f"train/{name}_step", value, logger=False)  # `StepMonitors` writes it
        return terms["loss"]

    def _losses(self, batch: Batch, batch_index: int, eager: bool) -> dict[str, Tensor]:
        """The model's loss terms after their sum, ``loss``; ``eager``: without torch.compile."""
        seed_batch(self.seed, self.current_epoch, batch_index, self.global_rank)
        with settling(self.model, eager), _too_small_explained(batch):
            return _with_sum(self.model, self.model.losses(to_float(batch.images), self.targets(batch)))

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """``training_step`` and backward → guard → clipping and step → moving average.

        Of accumulated batches, Lightning runs all but the last before. A step that the guard skips has no gradients
        any more; it counts for the schedule alone.
        """
        optimizer_closure()  # training_step, zero_grad, backward
        batches, self._step_batches = self._step_batches, []
        is_made = self.guard.check(self._step_context(batches), optimizer)
        optimizer.step()  # Lightning clips before it
        if not is_made:
            return
        for seen in batches:
            self.run_state.train_means.add(seen.terms, len(seen.batch.indices))
        if self.average is not None:
            # Lightning counts the step, whether made or skipped, when this returns.
            self.average.update(self.model, self.global_step + 1 - self.guard.num_skipped)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Notes the rates that the step is made with: behind it the schedule has moved on."""
        rates = self.run_state.learning_rates = dict[str, float]()
        for group in optimizer.param_groups:
            rates.setdefault(group.get("name", "lr"), float(group["lr"]))

    @property
    def learning_rate(self) -> float:
        """The rate of the last step, of the first group; NaN before the first step."""
        return next(iter(self.run_state.learning_rates.values()), math.nan)

    def _losses_again(self, seen: StepBatch) -> dict[str, Tensor]:
        with self.trainer.precision_plugin.train_step_context():
            return self._losses(seen.batch, seen.number, eager=True)

    def _check_weights(self) -> None:
        check_weights(self.model, self.processes, f"epoch {self.current_epoch + 1}, step {self.global_step}")

    def _step_context(self, batches: list[StepBatch]) -> StepContext:
        """What the guard looks at, and what it needs to explain a step that it does not let be made."""
        trainer: Any = self.trainer
        source = getattr(getattr(trainer.train_dataloader, "dataset", None), "source", None)
        path = getattr(source, "path", None)
        return StepContext(
            epoch=self.current_epoch + 1,
            number=self.global_step + 1,
            batches=batches,
            model=self.model,
            processes=self.processes,
            losses=self._losses_again,
            draw=lambda batch: self.kind.draw_targets(batch, self.classes, 1)[0],
            path=lambda index: None if path is None else str(path(index)),
            run_dir=None if trainer.fast_dev_run else Path(trainer.default_root_dir),
            run={"precision": trainer.precision, "device": str(self.device), "seed": self.seed, "config": self.config},
        )

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Moves the rate on with the optimiser's steps; the batches that a resumed run had before make none."""
        if scheduler.last_epoch < self.global_step:
            scheduler.step()

    def on_train_batch_end(self, outputs: Any, batch: Batch | None, batch_index: int) -> None:
        if self.trainer.is_last_batch:
            self._check_weights()  # before the validation
            for name, mean in self.run_state.train_means.means(self.processes).items():
                self.log(f"train/{name}_epoch", mean, logger=False, on_step=False, on_epoch=True, batch_size=1)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Losses of the evaluated model, and its predictions handed to the evaluator."""
        if not len(batch):  # other processes have one more
            return
        # Float32 whatever the training computes in, so that the number is the one that evaluation finds later.
        with torch.autocast(self.device.type, enabled=False):
            images = to_float(batch.images)
            terms, predictions = self.evaluated_model.losses_and_predictions(images, self.targets(batch))
        self.val_means.add(_with_sum(self.model, terms), len(batch))
        self.evaluator.update_batch(batch, predictions)

    def on_validation_epoch_start(self) -> None:
        self.evaluator.reset()
        self.val_means.reset()
        take_buffers_of_first(self, self.processes)  # so that all validate the model that is saved
        self._fused = []
        # As evaluation and prediction do, or the last bits would differ.
        self._fused = [fuse(self.evaluated_model, self.device)]

    def on_validation_epoch_end(self) -> None:
        self._fused = []
        self.result, numbers = score_together(self.evaluator, self.processes)  # the result in the first process alone
        for name, value in numbers.items():
            # As float64, which Lightning keeps: the very number that evaluation finds later.
            self.log(f"val/{name}", torch.tensor(value, dtype=torch.float64), logger=False)  # `EpochNumbers` writes it
        for name, mean in self.val_means.means(self.processes).items():
            self.log(f"val/{name}", mean, logger=False)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser, with a schedule that moves every step."""
        held = [] if self.frozen is None else self.frozen.held
        optimizer = build_optimizer(self.optimizer_config, self.model, held)
        total_steps = int(self.trainer.estimated_stepping_batches)
        steps_per_epoch = total_steps / max(self.trainer.max_epochs or 1, 1)
        schedule = build_schedule(self.schedule_config, total_steps, steps_per_epoch)
        scheduler = LambdaLR(optimizer, schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what a Predictor needs, and where the run stands; DetsegError: a weight is not finite."""
        self._check_weights()
        checkpoint[ENTRY] = {
            **model_entry(self.config, self.classes),
            **self.run_state.save(self.trainer, self.processes, checkpoint),
            "data": None if self.data_guard is None else self.data_guard.fingerprints,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_resumable(checkpoint, self.classes, self.config, self.trainer.max_epochs, self.trainer.world_size)
        entry = checkpoint[ENTRY]
        if self.data_guard is not None:
            self.data_guard.check(entry.get("data"))
        self.run_state.load(entry)


def _with_sum(model: nn.Module, terms: Any) -> dict[str, Tensor]:
    """A model's loss terms after their sum, ``loss``. DetsegError: a module of the user's returned something else."""
    scalars = isinstance(terms, Mapping) and all(isinstance(term, Tensor) and not term.ndim for term in terms.values())
    if not scalars or not terms or "loss" in terms:
        what = "a dict of scalar tensors by name, none of them 'loss', which is their sum"
        raise DetsegError(f"{type(model).__name__}.losses: expected {what}, got {shown(terms)}")
    return {"loss": torch.stack(list(terms.values())).sum(), **terms}


@contextmanager
def _too_small_explained(batch: Batch) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        if not str(error).startswith(_TOO_SMALL):
            raise
        height, width = batch.images.shape[-2:]
        raise DetsegError(
            f"a training batch of {len(batch)} image of {height} x {width} pixels leaves a single value a channel, "
            f"which batch normalisation cannot train on; raise data.batch_size or data.image_size"
        ) from error
