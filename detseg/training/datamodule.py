"""Hands the loaders to Lightning, which knows rank and number of processes only once it runs."""

from __future__ import annotations

from functools import partial
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from detseg.config.schema.data import AugmentationConfig
from detseg.data.datasets.bad_samples import BadSampleList
from detseg.data.datasets.contract import EvalSource, SampleSource
from detseg.data.loading.loader import TIMEOUT, BatchLoader, TrainLoader, eval_loader, train_loader
from detseg.data.loading.processes import WaitInterrupted
from detseg.structures import Batch


class ImageDataModule(L.LightningDataModule):
    """A training and a validation set as loaders.

    Args:
        train, val: samples to train and to validate on.
        input_hw: height and width of the network input, pixels.
        batch_size: images of one step and process.
        augmentation: what happens to training images.
        num_workers: loader processes.
        timeout: seconds to wait for a batch of theirs, beyond which there is a DetsegError.
        max_epochs: epochs of the whole training; the last ones may be plain.
        seed: of every random choice.
        bad_samples: where training samples that cannot be read are listed, which others take the place of; None: such a
            sample is an error.
    """

    def __init__(
        self,
        train: SampleSource,
        val: EvalSource,
        *,
        input_hw: tuple[int, int],
        batch_size: int,
        augmentation: AugmentationConfig,
        num_workers: int,
        timeout: float = TIMEOUT,
        max_epochs: int,
        seed: int,
        bad_samples: BadSampleList | None = None,
    ) -> None:
        super().__init__()
        self.bad_samples = bad_samples
        options: dict[str, Any] = {"input_hw": input_hw, "batch_size": batch_size, "timeout": timeout}
        self._train = partial(train_loader, train, augmentation, **options, num_workers=num_workers)
        self._train = partial(self._train, max_epochs=max_epochs, seed=seed, bad_samples=bad_samples)
        self._val = partial(eval_loader, val, **options, num_workers=min(num_workers, 2))
        self._train_loader: TrainLoader | None = None
        self._val_loader: BatchLoader | None = None

    def train_dataloader(self) -> DataLoader[Batch]:
        """Augmented batches of this process; on a GPU, each is copied there during the step before."""
        self._train_loader = self._train(**self._process())
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        self._train_loader.gpu = device if device.type == "cuda" else None  # Lightning copies when a step begins
        return self._train_loader

    def val_dataloader(self) -> DataLoader[Batch]:
        """Letterboxed batches of this process."""
        self._val_loader = self._val(**self._process())
        return self._val_loader

    def on_exception(self, exception: BaseException) -> None:
        """Where a batch did not come, ends the loaders' processes at once: torch would wait for each for 10 seconds."""
        for loader in (self._train_loader, self._val_loader):
            if loader is not None and isinstance(exception, WaitInterrupted):
                loader.processes.end()

    def lines(self) -> list[str]:
        """What the end of a run says about the training data."""
        reports = (self.bad_samples, self._train_loader)
        return [line for report in reports if report is not None for line in report.lines()]

    def _process(self) -> dict[str, Any]:
        trainer = self.trainer
        return {"rank": trainer.global_rank, "world_size": trainer.world_size} if trainer else {}
