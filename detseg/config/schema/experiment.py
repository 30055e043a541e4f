"""Every setting of an experiment: name, type, range, default and, in its docstring, what docs/configuration.md says.

Here are those of optimiser, schedule, trainer and evaluation. The schema does not import torch, so that a wrong setting
is reported before torch loads.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from detseg.config.schema.data import DataConfig
from detseg.config.schema.model import ModelConfig, YoloConfig
from detseg.config.schema.section import (
    Count,
    Decay,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    Section,
)
from detseg.messages import quoted


class OptimizerSection(Section):
    """Settings of every optimiser."""

    lr: PositiveFloat = 1e-3
    """Learning rate after warm-up."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay of the weights; biases and normalisation layers have none."""
    backbone_lr_scale: PositiveFloat = 1.0
    """Multiple of `lr` for the backbone; below 1 where its weights are pretrained."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Layer-wise decay: the rate of a stage of the backbone is this multiple of that of the stage behind it, of the
    last stage that of the rest of the model (times `backbone_lr_scale`)."""


class SgdConfig(OptimizerSection):
    """Stochastic gradient descent with Nesterov momentum."""

    name: Literal["sgd"]
    lr: PositiveFloat = 0.01
    """Learning rate after warm-up."""
    momentum: Decay = 0.937
    """Momentum."""
    weight_decay: NonNegativeFloat = 5e-4
    """Weight decay of the weights; biases and normalisation layers have none."""


class AdamConfig(OptimizerSection):
    """Adam (Kingma, Ba 2015): weight decay is added to the gradient."""

    name: Literal["adam"]
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay of the running means."""


class AdamWConfig(OptimizerSection):
    """AdamW (Loshchilov, Hutter 2019): weight decay apart from the gradient."""

    name: Literal["adamw"] = "adamw"
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay of the running means."""
    weight_decay: NonNegativeFloat = 0.05
    """Weight decay of the weights; biases and normalisation layers have none."""


class RmspropConfig(OptimizerSection):
    """RMSprop (Hinton 2012)."""

    name: Literal["rmsprop"]
    momentum: Decay = 0.9
    """Momentum."""


OptimizerConfig = Annotated[SgdConfig | AdamConfig | AdamWConfig | RmspropConfig, Field(discriminator="name")]


class Warmup(Section):
    """Linear warm-up of the learning rate from near zero, for all schedules but one-cycle."""

    warmup_epochs: NonNegativeFloat = 3.0
    """Epochs of warm-up; may be a fraction."""


class CosineConfig(Warmup):
    """Half a cosine from the learning rate down to a fraction of it (Loshchilov, Hutter 2017)."""

    name: Literal["cosine"] = "cosine"
    final_lr_fraction: Probability = 0.01
    """Learning rate at the end, as a fraction of `lr`."""


class StepConfig(Warmup):
    """The learning rate is multiplied by `gamma` at given points of the training."""

    name: Literal["step"]
    milestones: tuple[Probability, ...] = (0.7, 0.9)
    """When, as fractions of the training."""
    gamma: Probability = 0.1
    """The factor."""


class InverseTimeConfig(Warmup):
    """The learning rate is divided by (1 + decay × fraction of the training done, from the end of the warm-up)."""

    name: Literal["inverse_time"]
    decay: NonNegativeFloat = 9.0
    """9: the learning rate ends at a tenth of `lr`."""


class OneCycleConfig(Section):
    """Up and down once by cosines (Smith, Topin 2018)."""

    name: Literal["one_cycle"]
    pct_start: Probability = 0.15
    """Fraction of the training in which the learning rate rises."""
    initial_lr_fraction: PositiveFloat = 0.04
    """Learning rate at the beginning, as a fraction of `lr`."""
    final_lr_fraction: Probability = 0.001
    """Learning rate at the end, as a fraction of `lr`."""


ScheduleConfig = Annotated[CosineConfig | StepConfig | InverseTimeConfig | OneCycleConfig, Field(discriminator="name")]


_LEAST_BUDGET = 60.0


def _seconds(time: str) -> float:
    """Of a time with its unit; 0 where it is none."""
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]+)?)([smh])", time)
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0


Diagnostic = Literal["gradient_norm", "update_ratio", "dead_activations", "histograms"]


class TrainerConfig(Section):
    """How the model is trained: length, devices, precision, averaging."""

    max_epochs: PositiveInt = 100
    """Passes over the training set."""
    budget: str | None = None
    """How long the training may take, in seconds, minutes or hours: `90s`, `30m`, `2.5h`, at least a minute. The speed
    is measured first, and `max_epochs`, whatever it says, replaced by what fits; for one process. null: `max_epochs`
    counts."""
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """What to run on."""
    devices: PositiveInt | Literal["auto"] = "auto"
    """How many devices of a node; auto: all GPUs, or one CPU process."""
    num_nodes: PositiveInt = 1
    """Nodes."""
    strategy: str = "auto"
    """Lightning's strategy name: `auto` (`ddp` where there are several devices), `ddp`, `ddp_spawn`, ..."""
    sync_batchnorm: bool = False
    """Batch normalisation over the batches of all GPUs together; for few images a GPU."""
    save_every_steps: PositiveInt | None = None
    """Optimiser steps from one checkpoint to the next within an epoch, besides that at each epoch's end; null: none. A
    killed run repeats the steps after its last checkpoint."""
    max_time: Annotated[str, Field(pattern=r"^[0-9]{1,4}:[0-5][0-9]:[0-5][0-9]$")] | None = None
    """Hours, minutes, seconds (`11:30:00`) after which the run finishes its step, saves and exits with code 75, to be
    resumed by --resume; null: never."""
    on_nan: Literal["stop", "skip"] = "stop"
    """When a loss or gradient is not finite: `stop` the run, or `skip` the step; either leaves a folder with
    the diagnosis in the run directory."""
    max_nan_steps: PositiveInt = 10
    """Most steps of a run that are skipped; one more stops it."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the training's matrix products; auto: bfloat16 where the CPU or GPU computes it natively, else float32.
    Evaluation and prediction always compute in float32, so that a number does not depend on where it was computed."""
    accumulate_grad_batches: PositiveInt = 1
    """Batches whose gradients are averaged for one step."""
    gradient_clip_norm: NonNegativeFloat = 10.0
    """Gradients are clipped to this norm; 0: no clipping."""
    ema_decay: Decay = 0.999
    """Decay of the moving average of the weights, by which evaluation and prediction go; 0: none."""
    ema_warmup_steps: NonNegativeInt = 500
    """The decay rises as decay × (1 - exp(-step / this)), since early weights are poor."""
    validate_every: PositiveInt = 1
    """Epochs from one validation to the next; the last epoch is always validated."""
    monitor: str | None = None
    """The metric that chooses the best checkpoint and stops early, the larger the better: a number of the
    validation by its name, such as `AP50` or `F1`; null: `AP`, `mask_AP` of a mask_rcnn, `mIoU` of a segmentation."""
    early_stopping_patience: PositiveInt | None = None
    """Stop after this many validations without a better `monitor`; null: never."""
    early_stopping_min_delta: NonNegativeFloat = 0.0
    """By how much a value must be better to count."""
    overfit_batches: NonNegativeInt = 0
    """Train and validate on this many first batches of the training set, without augmentation; 0: off."""
    fast_dev_run: bool = False
    """One training and one validation batch, nothing written: a check that everything runs."""
    log_every_n_steps: PositiveInt = 10
    """Optimiser steps from one entry of `tracking` to the next: losses, learning rates, `diagnostics`; the first step
    has one as well."""
    diagnostics: tuple[Diagnostic, ...] = ("gradient_norm", "update_ratio", "dead_activations")
    """What such an entry says of the network: the norm of the gradient before clipping; the ratio of a step's update
    to the weights, for each part of the network; the fraction of channels whose activation is nowhere positive; and
    `histograms` of weights and gradients, once an epoch. An empty list: nothing."""
    table: bool = False
    """Print the numbers of each class after each validation."""
    num_previews: NonNegativeInt = 8
    """Training images and validation results that are drawn into the run directory."""
    compile: bool = False
    """Compile the model (of a two-stage detector backbone and neck) with torch.compile for training; needs a C++
    compiler on CPUs, and minutes at the beginning. Validations compute as evaluation does, without it."""

    @field_validator("budget", mode="before")
    @classmethod
    def _is_time(cls, budget: Any) -> Any:
        seconds = _seconds(budget) if isinstance(budget, str) else 0.0 if budget is not None else _LEAST_BUDGET
        if seconds < _LEAST_BUDGET:
            expected = f"a time of at least {_LEAST_BUDGET:g} s, such as 90s, 30m or 2h"
            raise ValueError(f"expected {expected}, got {quoted(budget)}")
        return budget

    @property
    def budget_seconds(self) -> float:
        """``budget`` in seconds; infinite where there is none."""
        return math.inf if self.budget is None else _seconds(self.budget)

    @property
    def max_seconds(self) -> float | None:
        """``max_time`` in seconds."""
        if self.max_time is None:
            return None
        hours, minutes, seconds = (int(part) for part in self.max_time.split(":"))
        return float(hours * 3600 + minutes * 60 + seconds)


class EvaluationConfig(Section):
    """How results are measured."""

    max_detections: Count = 100
    """Detections of a class in an image that COCO AP counts; 100 is COCO's rule and is printed with the result."""
    f1_iou: Annotated[float, Field(gt=0, le=1)] = 0.5
    """IoU from which a detection is correct in precision, recall and F1."""
    boundary_width: Annotated[float, Field(gt=0, le=0.5)] = 0.02
    """Width of the band that boundary IoU compares, as a fraction of the image's diagonal (Cheng et al. 2021)."""
    class_weights: dict[str, NonNegativeFloat] | None = None
    """Weights of the classes, by name (1 where none is given), in one more metric: the weighted mean of the classes'
    AP, `weighted_AP`, for example for `trainer.monitor`; of a mask_rcnn `weighted_mask_AP`, of segmentation
    `weighted_mIoU`. null: there is none."""


CHOSEN_SETTINGS = (
    "data.image_size",
    "data.batch_size",
    "data.num_workers",
    "data.augmentation",
    "data.augmentation.horizontal_flip",
    "model.backbone",
    "model.neck",
    "model.rpn",
    "model.roi_heads",
    "model.mask",
    "model.output_stride",
    "model.upsampling",
    "model.loss",
    "model.max_detections",
    "trainer.max_epochs",
    "trainer.validate_every",
    "evaluation.max_detections",
)
"""Settings that a training chooses from its data where they are left out, and where its rules have a reason to; their
defaults stand for other data, and for modules and data sets that Python gives."""


class ExperimentConfig(Section):
    """One experiment: model, data, training, evaluation."""

    seed: NonNegativeInt = 0
    """Seed of the weights and of every random choice."""
    run_dir: Path | None = None
    """Where this run writes; null: `runs/<name of the config file>`, with a number added if that exists."""
    model: ModelConfig = YoloConfig()
    data: DataConfig
    optimizer: OptimizerConfig = AdamWConfig()
    schedule: ScheduleConfig = CosineConfig()
    trainer: TrainerConfig = TrainerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    tracking: tuple[Literal["csv", "tensorboard", "mlflow", "wandb"], ...] = ("csv", "tensorboard")
    """Where the course of a training is written: `csv` is `metrics.csv`, which every run has, named here or not;
    `tensorboard` a folder of the run directory; `mlflow` a database beside the run directories, or what
    MLFLOW_TRACKING_URI names; `wandb` Weights & Biases, without a network where WANDB_MODE is offline."""
    tags: dict[str, str] | None = None
    """Tags of the run for `mlflow` and `wandb`: `{dataset: blood, fold: 1}`; numbers are taken as text; null: none."""

    @field_validator("tags", mode="before")
    @classmethod
    def _as_text(cls, tags: Any) -> Any:
        if not isinstance(tags, dict):
            return tags
        return {name: quoted(tag) if isinstance(tag, int | float) else tag for name, tag in tags.items()}
