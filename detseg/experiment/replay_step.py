"""A step of a run, made once more on the CPU from what its bundle holds: as a whole, and sample by sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from rich.console import Console
from torch import Tensor, nn

from detseg.config.load import config_from_dict, without_download
from detseg.config.renamed import rename_settings
from detseg.config.schema.experiment import ExperimentConfig
from detseg.data.loading.loader import TrainLoader
from detseg.data.loading.sampling import EpochBatchSampler, SampleRequest
from detseg.errors import CheckpointError, ConfigError, DataError
from detseg.experiment.assembly import build_data, build_task
from detseg.experiment.preparation import open_training_set
from detseg.ops.images import to_float
from detseg.structures import Batch, ClassTable, UInt8Array
from detseg.training.detection_task import DetectionTask
from detseg.training.freezing import NORMALIZATION
from detseg.training.lightning_noise import quiet_lightning
from detseg.training.nan_bundle import JSON, BundleBatch, BundleTensors, NanBundle, join_random_state
from detseg.training.nan_report import Norms, gradient_norms
from detseg.training.random_state import restore_random_state, seed_batch
from detseg.training.task import TOO_SMALL, Task

_MAX_THREADS = 256


@dataclass(frozen=True)
class Outcome:
    """What a forward and a backward pass gave.

    Attributes:
        terms: the sum of the loss terms, ``loss``, and the terms.
        norms: parameters and the norms of their gradients, those that are not finite first.
        module: the first module whose output is not finite; None: there is none.
        bad_slopes: where the loss is finite and the gradient is not, the terms whose gradient is not.
    """

    terms: dict[str, float]
    norms: Norms
    module: str | None
    bad_slopes: list[str]

    @property
    def norm(self) -> float:
        """Of the whole gradient."""
        return math.sqrt(sum(norm**2 for _, norm in self.norms))

    @property
    def at_fault(self) -> bool:
        """Whether a term or the gradient is not finite."""
        return not (math.isfinite(self.terms["loss"]) and math.isfinite(self.norm))


@dataclass(frozen=True)
class SampleOutcome:
    """What a sample gave as a batch of its own.

    Attributes:
        batch: number of the batch that it was in, within the epoch.
        index: position in the data set.
        path: of its image, if the data set knows.
        outcome: its terms and gradient.
        recorded_statistics: whether batch normalisation went by the statistics in the bundle, since a sample this small
            has none of its own.
        picture: the image as the network saw it with its targets, (H, W, 3) uint8 RGB; None where nothing is at fault.
    """

    batch: int
    index: int
    path: str | None
    outcome: Outcome
    recorded_statistics: bool
    picture: UInt8Array | None


class ReplayedStep:
    """The model, the data and the place in the run of a bundle.

    Args:
        folder: where the bundle lies, for messages.
        bundle: what it says.
        tensors: what it holds.
        overrides: ``data.key=value`` each, over the settings of the run.

    Raises:
        CheckpointError: the bundle cannot be replayed, or does not fit the data or itself.
        ConfigError: an override is wrong, or the settings in the bundle are.
        DataError: the data is missing or wrong.
    """

    def __init__(self, folder: Path, bundle: NanBundle, tensors: BundleTensors, overrides: Sequence[str] = ()) -> None:
        self.folder, self.bundle, self.weights = folder, bundle, tensors.weights
        own = any(batch.rank == bundle.rank and batch.samples for batch in bundle.batches)
        if not (own and bundle.config and bundle.num_samples and tensors.weights):
            raise CheckpointError(
                f"{folder}: cannot be replayed, as its run had no settings (a task made in Python), a loader that is "
                f"none of ours, or weights sharded over processes; read its {JSON}"
            )
        config = self._settings(overrides)
        self.loader = self._open(config)
        self.task = self._build(config)
        if isinstance(self.task, DetectionTask):
            self.task.draws_of = bundle.epoch
        # The last bits of a sum depend on the number of threads.
        torch.set_num_threads(min(bundle.num_threads, _MAX_THREADS))
        try:
            restore_random_state(join_random_state(bundle, tensors.random))
        except (OverflowError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(f"{folder}: its random state is damaged") from error

    @property
    def bad_weights(self) -> list[str]:
        """Names of the weights and statistics that were not finite before the step."""
        return [name for name, weight in self.weights.items() if not bool(weight.isfinite().all())]

    def run(self, entry: BundleBatch) -> Outcome:
        """What a whole batch gives."""
        return self._pass(self._batch(entry), entry)

    def run_alone(self, entry: BundleBatch) -> list[SampleOutcome]:
        """What each sample of a batch gives; normalisation goes by the statistics of the sample."""
        return [self._alone(entry, _part(self._batch(entry), i), i) for i in range(len(entry.samples))]

    def _alone(self, entry: BundleBatch, batch: Batch, i: int) -> SampleOutcome:
        recorded = False
        try:
            outcome = self._pass(batch, entry)
        except ValueError as error:
            if not str(error).startswith(TOO_SMALL):
                raise
            recorded = True
            outcome = self._pass(batch, entry, recorded_statistics=True)
        picture = self.task.draw_targets(batch, 1)[0] if outcome.at_fault else None
        sample = entry.samples[i]
        return SampleOutcome(entry.number, sample.index, sample.path, outcome, recorded, picture)

    def _pass(self, batch: Batch, entry: BundleBatch, recorded_statistics: bool = False) -> Outcome:
        """Forward and backward from the weights of the bundle, as ``Task.training_step`` does it."""
        task, bundle = self.task, self.bundle
        self._load()
        task.train()
        for module in task.model.modules():
            if recorded_statistics and isinstance(module, NORMALIZATION):
                module.eval()
        task.model.zero_grad(set_to_none=True)
        seed_batch(bundle.seed, bundle.epoch, entry.number, entry.rank)
        lowered = bundle.precision == "bf16-mixed"
        with _FirstBadOutput(task.model) as watch, torch.autocast("cpu", torch.bfloat16, lowered, cache_enabled=False):
            terms: dict[str, Tensor] = task.model.losses(to_float(batch.images), task.targets(batch))
            total = torch.stack(list(terms.values())).sum()
        torch.autograd.backward(total / bundle.accumulate_batches, retain_graph=True)
        numbers = {name: float(value.detach()) for name, value in {"loss": total, **terms}.items()}
        norms = gradient_norms(task.model)
        slopes = []
        if math.isfinite(numbers["loss"]) and norms and not math.isfinite(norms[0][1]):
            slopes = [name for name, term in terms.items() if not _finite_slope(term, task.model)]
        return Outcome(numbers, norms, watch.name, slopes)

    def _batch(self, entry: BundleBatch) -> Batch:
        """The very batch, from the data set.

        Raises:
            CheckpointError: the settings and the data deal no such samples.
        """
        sampler = cast(EpochBatchSampler, self.loader.batch_sampler)
        if entry.number >= len(sampler):
            raise CheckpointError(
                f"{self.folder}: an epoch of its settings has {len(sampler)} batches, it says {entry.number + 1}"
            )
        hw = sampler.batch_hw(self.bundle.epoch, entry.number)
        requests = [SampleRequest(self.bundle.epoch, s.index, s.height, s.width, s.mix) for s in entry.samples]
        fits = all(r.index < sampler.num_samples and (r.height, r.width) == hw for r in requests)
        if not requests or len(requests) > sampler.batch_size or not fits:
            raise CheckpointError(f"{self.folder}: its samples are not those that its own settings deal")
        examples = cast(Any, self.loader.dataset).__getitems__(requests)
        packed = cast(Any, self.loader.collate_fn)(examples)
        if isinstance(packed, DataError):
            raise packed
        return cast(Batch, packed.unpack())

    def _settings(self, overrides: Sequence[str]) -> ExperimentConfig:
        for override in overrides:
            if not override.startswith("data."):
                raise ConfigError(f"override {override}: the bundle decides; only data.* can be changed")
        fixed = ("data.num_workers=0", "trainer.compile=false", "trainer.sync_batchnorm=false")  # one CPU process
        return config_from_dict(
            without_download(rename_settings(self.bundle.config)), str(self.folder / JSON), (*overrides, *fixed)
        )

    def _open(self, config: ExperimentConfig) -> TrainLoader:
        train_set = open_training_set(config)
        if list(train_set.classes.names) != self.bundle.class_names:
            raise CheckpointError(
                f"{self.folder}: its classes are {self.bundle.class_names}, the data's are "
                f"{list(train_set.classes.names)}; set data.root to the data that the run was trained on"
            )
        if len(train_set) != self.bundle.num_samples:
            raise CheckpointError(
                f"{self.folder}: the run had {self.bundle.num_samples} training images, the data has {len(train_set)}; "
                f"set data.root to the data that the run was trained on"
            )
        return cast(TrainLoader, build_data(config, train_set, train_set).train_dataloader())

    def _build(self, config: ExperimentConfig) -> Task:
        try:
            classes = ClassTable(tuple(self.bundle.class_names), tuple(self.bundle.source_ids))
        except ValueError as error:
            raise CheckpointError(f"{self.folder / JSON}: {error}") from error
        self.task = build_task(config, classes, Console(quiet=True), load_pretrained=False)
        self.task.trainer = _trainer_in(self.bundle.epoch)
        if self.task.frozen is not None:
            self.task.frozen.release(self.bundle.epoch + 1)
        self._load()
        return self.task

    def _load(self) -> None:
        try:
            self.task.model.load_state_dict(self.weights)
        except RuntimeError as error:
            first = (str(error).splitlines()[1:] or [str(error)])[0].strip()
            raise CheckpointError(f"{self.folder}: its weights do not fit its own settings ({first})") from error


def _trainer_in(epoch: int) -> L.Trainer:
    """A trainer that does nothing but say which epoch it is: what a model draws follows from it."""
    quiet_lightning()
    trainer = L.Trainer(accelerator="cpu", devices=1, barebones=True)
    trainer.fit_loop.epoch_progress.current.completed = epoch
    return trainer


class _FirstBadOutput:
    """Notes which module is the first to give what is not finite, while it is entered."""

    def __init__(self, model: nn.Module) -> None:
        self.name: str | None = None
        self._model = model
        self._handles: list[Any] = []

    def __enter__(self) -> _FirstBadOutput:
        for name, module in self._model.named_modules():
            self._handles.append(module.register_forward_hook(self._hook(name)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str) -> Any:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            if self.name is None and not all(bool(t.isfinite().all()) for t in _tensors(output)):
                self.name = name or type(module).__name__

        return look


def _tensors(output: Any) -> list[Tensor]:
    """The floating tensors in a module's output, however nested."""
    if isinstance(output, Tensor):
        return [output.detach()] if output.is_floating_point() else []
    inner = list(output.values()) if isinstance(output, dict) else output
    return [tensor for item in inner for tensor in _tensors(item)] if isinstance(inner, list | tuple) else []


def _finite_slope(term: Tensor, model: nn.Module) -> bool:
    """Whether the gradient of one term is finite in all parameters."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not term.requires_grad:
        return True
    slopes = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    return all(bool(slope.isfinite().all()) for slope in slopes if slope is not None)


def _part(batch: Batch, i: int) -> Batch:
    """One sample of a batch as a batch."""
    semantic = None if batch.semantic is None else batch.semantic[i : i + 1]
    return replace(
        batch,
        images=batch.images[i : i + 1],
        targets=batch.targets[i : i + 1],
        indices=batch.indices[i : i + 1],
        semantic=semantic,
    )
