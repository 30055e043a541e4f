"""Hands the loaders to Lightning, which knows rank and number of processes only once it runs."""

from __future__ import annotations

import lightning as L
from torch.utils.data import DataLoader

from detseg.config.schema.data import AugmentationConfig
from detseg.data.datasets.bad_samples import BadSampleList
from detseg.data.datasets.contract import EvalSource, SampleSource
from detseg.data.loading.loader import TrainLoader, eval_loader, train_loader
from detseg.structures import Batch


class ImageDataModule(L.LightningDataModule):
    """A training and a validation set as loaders.

    Args:
        train: samples to train on.
        val: samples to validate on.
        input_hw: height and width of the network input, pixels.
        batch_size: images of one step and process.
        augmentation: what happens to training images.
        num_workers: loader processes.
        max_epochs: epochs of the whole training; the last ones may be plain.
        seed: of every random choice.
        shuffle: whether training images come in a new order every epoch.
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
        max_epochs: int,
        seed: int,
        shuffle: bool = True,
        bad_samples: BadSampleList | None = None,
    ) -> None:
        super().__init__()
        self.train = train
        self.val = val
        self.input_hw = input_hw
        self.batch_size = batch_size
        self.augmentation = augmentation
        self.num_workers = num_workers
        self.max_epochs = max_epochs
        self.seed = seed
        self.shuffle = shuffle
        self.bad_samples = bad_samples
        self._train_loader: TrainLoader | None = None

    def train_dataloader(self) -> DataLoader[Batch]:
        """Augmented batches of this process's share."""
        rank, world_size = self._process()
        self._train_loader = train_loader(
            self.train,
            self.augmentation,
            input_hw=self.input_hw,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            max_epochs=self.max_epochs,
            seed=self.seed,
            shuffle=self.shuffle,
            rank=rank,
            world_size=world_size,
            bad_samples=self.bad_samples,
        )
        return self._train_loader

    def lines(self) -> list[str]:
        """What the end of a run says about the training data."""
        reports = (self.bad_samples, self._train_loader)
        return [line for report in reports if report is not None for line in report.lines()]

    def val_dataloader(self) -> DataLoader[Batch]:
        """Letterboxed batches of this process's share."""
        rank, world_size = self._process()
        return eval_loader(
            self.val,
            input_hw=self.input_hw,
            batch_size=self.batch_size,
            num_workers=min(self.num_workers, 2),
            rank=rank,
            world_size=world_size,
        )

    def _process(self) -> tuple[int, int]:
        """Number of this process, and of all."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
