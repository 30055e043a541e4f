"""``data.batch_size: auto``: the largest batch that fits into a GPU's memory, found by trying, and its learning rate.

Each trial makes training steps and a validation on the largest and fullest images that a training may meet.
"""

from __future__ import annotations

import gc
import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from detseg.checkpoint import ENTRY, read_raw_checkpoint
from detseg.config.schema.experiment import ExperimentConfig, OptimizerConfig, SgdConfig
from detseg.config.schema.model import DetectorConfig, MaskRcnnConfig, TwoStageConfig
from detseg.data.datasets.contract import EvalSource
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.loading.sampling import SIZE_STEP
from detseg.errors import CheckpointError, ConfigError
from detseg.memory import is_out_of_memory
from detseg.messages import console
from detseg.ops.tensors import to_float
from detseg.structures import Batch, BoxTargets
from detseg.training.optim.optimizers import build_optimizer
from detseg.training.setup.build import build_task
from detseg.training.setup.facts import num_processes
from detseg.training.setup.trainer import resolve_precision
from detseg.training.task import Task

logger = logging.getLogger("detseg")

_REFERENCE = 16
"""The batch that ``optimizer.lr`` is for where the batch is to be found: the default of ``data.batch_size``."""
_LARGEST = 1024  # larger batches are not tried
_USABLE = 0.85  # fraction of a GPU's free memory that a batch may take: its allocator cannot use the rest in one piece


def with_batch_size(
    config: ExperimentConfig, train_set: EvalSource, checkpoint: Path | None, device: torch.device | None = None
) -> ExperimentConfig:
    """The settings, ``data.batch_size: auto`` replaced by a number, and ``optimizer.lr`` by that which goes with it;
    weights and random generators of the training are not touched.

    Args:
        config: the settings.
        train_set: its fullest image counts.
        checkpoint: of the run that is resumed; its batch is taken, and nothing is tried.
        device: where batches are tried; None: the GPU of the run.

    Raises:
        ConfigError: see ``gpu_of_run``; or not even one image fits.
        CheckpointError: the checkpoint does not say its batch.
    """
    if config.data.batch_size != "auto":
        return config
    if checkpoint is not None:
        num_images, why = _batch_of(checkpoint), "that of the run that is resumed"
    else:
        worst, device = WorstImage.of(config, train_set), device or gpu_of_run(config)
        with console.status("finding data.batch_size"):
            num_images = _largest(config, train_set, worst, device)
        if not num_images:
            raise ConfigError(
                f"data.batch_size: auto: not even one image of {worst} fits into the memory of {device}; lower "
                f"data.image_size, take a smaller model, or make room"
            )
        why = f"the largest that fits on {device} with images of {worst}"
    rate = scaled_rate(config.optimizer, num_images)
    ratio = f"{num_images}/{_REFERENCE}"
    factor = ratio if isinstance(config.optimizer, SgdConfig) else f"sqrt({ratio})"
    logger.info(f"data.batch_size={num_images}: {why}; optimizer.lr={rate:g} ({config.optimizer.lr:g} x {factor})")
    data = config.data.model_copy(update={"batch_size": num_images})
    optimizer = config.optimizer.model_copy(update={"lr": rate})
    return config.model_copy(update={"data": data, "optimizer": optimizer})


def gpu_of_run(config: ExperimentConfig) -> torch.device:
    """The CUDA device that the training computes on; ConfigError: there is none, or several, which had to agree."""
    settings = config.trainer
    if settings.accelerator not in ("auto", "gpu") or not torch.cuda.is_available():
        raise ConfigError(
            "data.batch_size: auto is found on a CUDA GPU only, and this run has none; give a number, e.g. "
            f"data.batch_size={_REFERENCE}"
        )
    if num_processes(settings) > 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "data.batch_size: auto is found by one process, and this run has several; start it once with "
            "trainer.devices=1 trainer.num_nodes=1 trainer.fast_dev_run=true, which prints data.batch_size and "
            "optimizer.lr, and give these numbers"
        )
    return torch.device("cuda", 0)


def largest_batch(fits: Callable[[int], bool], most: int) -> int:
    """The largest batch up to ``most`` that fits, by doubling until one does not, then halving the gap; from 8 on a
    multiple of 4; 0: not even one image fits."""
    largest, tried = 0, 1
    while tried <= most and fits(tried):
        largest, tried = tried, 2 * tried
    step = 1 if largest < 8 else 4
    too_large = min(tried, (most // step + 1) * step)
    while too_large - largest > step:
        tried = (largest + too_large) // 2 // step * step
        if fits(tried):
            largest = tried
        else:
            too_large = tried
    return largest


def scaled_rate(optimizer: OptimizerConfig, num_images: int) -> float:
    """The learning rate for a batch, to four significant digits, from that of the settings, which is for 16 images.

    SGD: in proportion to the batch (Goyal et al. 2017, section 2.1). Adam, AdamW, RMSprop: to its square root
    (Krizhevsky 2014, section 5; Malladi et al. 2022, definition 4.1).
    """
    ratio = num_images / _REFERENCE
    return float(f"{optimizer.lr * (ratio if isinstance(optimizer, SgdConfig) else math.sqrt(ratio)):.4g}")


@dataclass(frozen=True)
class WorstImage:
    """An image as large and as full as the data and the augmentation can make one."""

    hw: tuple[int, int]  # height and width, pixels: the largest of ``multi_scale``, and at least those of validation
    # Those of the fullest training image, four times where there are mosaics, twice more where there is mixup, and once
    # more where there is copy-paste; of a two-stage detector at least as many as it samples positives.
    num_objects: int

    def __str__(self) -> str:
        return f"{self.hw[0]} x {self.hw[1]} pixels and {self.num_objects} objects"

    @classmethod
    def of(cls, config: ExperimentConfig, train_set: EvalSource) -> WorstImage:
        """That of a training on this set."""
        augmentation = config.data.augmentation
        height, width = config.data.input_hw
        if augmentation.multi_scale is not None:  # as EpochBatchSampler.batch_hw rounds it
            steps = [round(side * augmentation.multi_scale[1] / SIZE_STEP) for side in (height, width)]
            height, width = max(height, steps[0] * SIZE_STEP), max(width, steps[1] * SIZE_STEP)
        if not isinstance(train_set, DetectionDataset):
            return cls((height, width), 0)
        objects = int(np.diff(train_set.packed.offsets).max(initial=0))
        if augmentation.mosaic_epochs(config.trainer.max_epochs) > 0:
            num_images = (4 if augmentation.mosaic else 1) * (2 if augmentation.mixup else 1)
            objects *= num_images + (augmentation.copy_paste > 0)
        if isinstance(config.model, TwoStageConfig) and objects:
            heads = config.model.roi_heads
            objects = max(objects, int(heads.batch_size_per_image * heads.positive_fraction))
        return cls((height, width), objects)

    def batch(self, num_images: int, config: ExperimentConfig, num_classes: int) -> Batch:
        """So many of it, of noise, with the targets that the model learns from."""
        height, width = self.hw
        generator = torch.Generator().manual_seed(0)
        noise = torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, generator=generator)
        images = noise.repeat(num_images, 1, 1, 1)
        semantic = None if isinstance(config.model, DetectorConfig) else images[:, 0] % num_classes
        sides = 1 / 16 + (1 / 2 - 1 / 16) * torch.rand(self.num_objects, 2, generator=generator)
        corners = torch.rand(self.num_objects, 2, generator=generator) * (1 - sides)
        boxes = torch.cat([corners, corners + sides], dim=1) * torch.tensor([width, height, width, height])
        labels = torch.arange(self.num_objects) % num_classes
        with_masks = isinstance(config.model, MaskRcnnConfig)
        masks = torch.ones(self.num_objects, height, width, dtype=torch.bool) if with_masks else None
        targets = BoxTargets(boxes, labels, torch.zeros(self.num_objects, dtype=torch.bool), masks)
        return Batch(images, [targets] * num_images, list(range(num_images)), semantic=semantic)


class Trial:
    """A training of nothing but worst-case batches."""

    def __init__(self, task: Task, config: ExperimentConfig, worst: WorstImage, device: torch.device) -> None:
        self.task, self.config, self.worst, self.device = task, config, worst, device
        self.on_gpu = device.type == "cuda"
        self.room = _USABLE * torch.cuda.mem_get_info(device)[0] if self.on_gpu else math.inf
        self.bfloat16 = resolve_precision(config.trainer.precision, device.type) == "bfloat16"
        if task.frozen is not None:  # what trains later takes memory later
            task.frozen.release(config.trainer.max_epochs)
        task.to(device)
        # At a rate of 0 the weights stay, and with them all losses finite; the optimiser takes the same memory.
        self.optimizer = build_optimizer(config.optimizer.model_copy(update={"lr": 0.0}), task.model)

    def fits(self, num_images: int) -> bool:
        """Whether there is memory to train and to validate on so many images."""
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        fits = False
        try:
            self._run(num_images)
            fits = not self.on_gpu or torch.cuda.max_memory_allocated(self.device) <= self.room
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        self.optimizer.zero_grad()
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()
        return fits

    def _run(self, num_images: int) -> None:
        # Two steps, since gradients and the optimiser's state are there after the first, and a validation.
        batch = self.worst.batch(num_images, self.config, len(self.task.classes)).to(self.device)
        self.task.train()
        for _ in range(2):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                terms = self.task.model.losses(to_float(batch.images), self.task.targets(batch))
            if self.config.trainer.accumulate_grad_batches == 1:
                self.optimizer.zero_grad()  # as late as Lightning does it
            torch.autograd.backward(torch.stack(list(terms.values())).sum())
            self.optimizer.step()
        self.task.eval()
        with torch.no_grad():
            self.task.evaluated_model.losses_and_predictions(to_float(batch.images), self.task.targets(batch))


def _largest(config: ExperimentConfig, train_set: EvalSource, worst: WorstImage, device: torch.device) -> int:
    # Compiling would take minutes for each size that is tried; compiled networks keep fewer maps, not more.
    plain = config.trainer.model_copy(update={"compile": False})
    one = config.data.model_copy(update={"batch_size": 1})
    config = config.model_copy(update={"trainer": plain, "data": one})
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        task = build_task(config, train_set.classes, load_pretrained=False)
        trial = Trial(task, config, worst, device)
        largest = largest_batch(trial.fits, min(len(train_set), _LARGEST))
    del task, trial
    gc.collect()  # what was trained is gone from the GPU before the training begins
    return largest


def _batch_of(checkpoint: Path) -> int:
    try:
        num_images = read_raw_checkpoint(checkpoint)[ENTRY]["config"]["data"]["batch_size"]
    except (KeyError, TypeError):
        num_images = None
    if not isinstance(num_images, int):
        raise CheckpointError(f"{checkpoint}: does not say its data.batch_size; give a number instead of auto")
    return num_images
