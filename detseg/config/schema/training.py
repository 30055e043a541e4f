"""Settings of the optimiser, the schedule, the trainer and the evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

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


class OptimizerSection(Section):
    """What every optimiser has."""

    backbone_lr_scale: PositiveFloat = 1.0
    """The backbone learns at this multiple of `lr`; below 1 where its weights are pretrained."""


class SgdConfig(OptimizerSection):
    """Stochastic gradient descent with Nesterov momentum."""

    name: Literal["sgd"]
    """Which optimiser."""
    lr: PositiveFloat = 0.01
    """Learning rate after warm-up."""
    momentum: Decay = 0.937
    """Momentum."""
    weight_decay: NonNegativeFloat = 5e-4
    """Weight decay of the weights; biases and normalisation layers have none."""


class AdamConfig(OptimizerSection):
    """Adam (Kingma, Ba 2015): weight decay is added to the gradient."""

    name: Literal["adam"]
    """Which optimiser."""
    lr: PositiveFloat = 1e-3
    """Learning rate after warm-up."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay of the running means."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay of the weights; biases and normalisation layers have none."""


class AdamWConfig(OptimizerSection):
    """AdamW (Loshchilov, Hutter 2019): weight decay apart from the gradient."""

    name: Literal["adamw"] = "adamw"
    """Which optimiser."""
    lr: PositiveFloat = 1e-3
    """Learning rate after warm-up."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay of the running means."""
    weight_decay: NonNegativeFloat = 0.05
    """Weight decay of the weights; biases and normalisation layers have none."""


class RmspropConfig(OptimizerSection):
    """RMSprop (Hinton 2012)."""

    name: Literal["rmsprop"]
    """Which optimiser."""
    lr: PositiveFloat = 1e-3
    """Learning rate after warm-up."""
    momentum: Decay = 0.9
    """Momentum."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay of the weights; biases and normalisation layers have none."""


OptimizerConfig = Annotated[SgdConfig | AdamConfig | AdamWConfig | RmspropConfig, Field(discriminator="name")]


class Warmup(Section):
    """What every schedule but one-cycle begins with: the rate climbs linearly from near zero."""

    warmup_epochs: NonNegativeFloat = 3.0
    """Epochs of the climb; fractions count steps."""


class CosineConfig(Warmup):
    """Half a cosine from the learning rate down to a share of it (Loshchilov, Hutter 2017)."""

    name: Literal["cosine"] = "cosine"
    """Which schedule."""
    final_share: Probability = 0.01
    """The rate at the end as a share of the rate."""


class StepConfig(Warmup):
    """The rate falls by a factor at given shares of the training."""

    name: Literal["step"]
    """Which schedule."""
    milestones: tuple[Probability, ...] = (0.7, 0.9)
    """When, as shares of the training."""
    gamma: Probability = 0.1
    """The factor."""


class InverseTimeConfig(Warmup):
    """The rate is divided by (1 + decay × share of the training done, counted from the end of the warm-up)."""

    name: Literal["inverse_time"]
    """Which schedule."""
    decay: NonNegativeFloat = 9.0
    """9: the rate ends at a tenth."""


class OneCycleConfig(Section):
    """Up and down once by cosines (Smith, Topin 2018)."""

    name: Literal["one_cycle"]
    """Which schedule."""
    rise_share: Probability = 0.15
    """Share of the training spent on the way up."""
    initial_share: PositiveFloat = 0.04
    """The rate at the beginning as a share of the rate."""
    final_share: Probability = 0.001
    """The rate at the end as a share of the rate."""


ScheduleConfig = Annotated[CosineConfig | StepConfig | InverseTimeConfig | OneCycleConfig, Field(discriminator="name")]


class TrainerConfig(Section):
    """How long, on what, and with which care the model is trained."""

    max_epochs: PositiveInt = 100
    """Passes over the training set."""
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """What to run on."""
    devices: PositiveInt | Literal["auto"] = "auto"
    """How many devices of a node; auto: all GPUs, or one CPU process."""
    num_nodes: PositiveInt = 1
    """Nodes."""
    strategy: str = "auto"
    """Lightning's strategy name: `auto` (`ddp` where there are several devices), `ddp`, `fsdp`, ...; `fsdp` shards a
    large backbone's weights over GPUs, see docs/multi_gpu.md."""
    sync_batchnorm: bool = False
    """Batch normalisation over the batches of all GPUs together; for few images a GPU."""
    save_every_steps: PositiveInt | None = None
    """Optimiser steps from one save to the next within an epoch, besides the save at each epoch's end; null: none. A
    run that is killed repeats what came after its last save."""
    max_time: Annotated[str, Field(pattern=r"^[0-9]{1,4}:[0-5][0-9]:[0-5][0-9]$")] | None = None
    """Hours, minutes, seconds (`11:30:00`) after which this call finishes its step, saves and leaves with exit code 75,
    to be gone on with by --resume; null: never."""
    on_nan: Literal["stop", "skip"] = "stop"
    """When a loss or gradient is not finite: `stop` the run, or `skip` the step; either leaves a bundle for
    tools/replay.py."""
    max_nan_steps: PositiveInt = 10
    """So many steps of a run are skipped at most; one more stops it."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the training's matrix products; auto: bfloat16 where the CPU or GPU computes it natively, else float32.
    Evaluation and prediction always compute in float32, so that a number does not depend on where it was computed."""
    accumulate_batches: PositiveInt = 1
    """Batches whose gradients are averaged for one step."""
    gradient_clip_norm: NonNegativeFloat = 10.0
    """Largest norm of the gradient; 0: no clipping."""
    ema_decay: Decay = 0.999
    """Decay of the moving average of the weights, which is what is evaluated and predicts; 0: none."""
    ema_warmup_steps: NonNegativeInt = 500
    """The decay climbs as decay × (1 - exp(-step / this)), since the first weights are not worth keeping."""
    validate_every: PositiveInt = 1
    """Epochs from one validation to the next; the last epoch is always validated."""
    early_stopping_patience: PositiveInt | None = None
    """Stop after so many validations without a better AP (segmentation: mIoU); null: never."""
    overfit_batches: NonNegativeInt = 0
    """Train and validate on the first so many batches of the training set, unaugmented; 0: off."""
    fast_dev_run: bool = False
    """One training and one validation batch, nothing written: does it run at all?"""
    num_pictures: NonNegativeInt = 8
    """Pictures of training batches and of validation results left in the run directory."""
    compile: bool = False
    """Compile the model (of a two-stage detector backbone and neck) with torch.compile; needs a C++ compiler on CPUs,
    and minutes at the beginning."""

    @property
    def max_seconds(self) -> float | None:
        """``max_time`` in seconds."""
        if self.max_time is None:
            return None
        hours, minutes, seconds = (int(part) for part in self.max_time.split(":"))
        return float(hours * 3600 + minutes * 60 + seconds)


class EvaluationConfig(Section):
    """What a result is measured by."""

    max_detections: Count = 100
    """Detections of a class in an image that COCO AP counts; 100 is COCO's rule and is printed with the result."""
    operating_iou: Annotated[float, Field(gt=0, le=1)] = 0.5
    """IoU from which a detection is right in precision, recall and F1."""
    boundary_width: Annotated[float, Field(gt=0, le=0.5)] = 0.02
    """Width of the band that boundary IoU compares, as a share of the image's diagonal (Cheng et al. 2021)."""
