"""Small trainings whose batch is to be found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from detseg.config.schema.experiment import ExperimentConfig
from detseg.data.build import open_dataset
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.datasets.segmentation import SegmentationDataset
from tests.tiny import tiny_config, write_colors, write_config

AUTO = ("data.batch_size=auto", "trainer.max_epochs=2", "optimizer.lr=0.01")


@dataclass(frozen=True)
class Setup:
    """A file of settings for two sets of data, and the training set."""

    path: Path
    folder: Path

    def config(self, *overrides: str, run: str | None = None) -> ExperimentConfig:
        return tiny_config(self.path, None if run is None else self.folder / run, *AUTO, *overrides)

    def train_set(self) -> DetectionDataset | SegmentationDataset:
        return open_dataset(self.config(), "train")


def setup_of(
    folder: Path,
    write_settings: Callable[[Path, Path], Path] = write_config,
    write_data: Callable[..., Path] = write_colors,
) -> Setup:
    data = write_data(folder / "data", {"train": 12, "val": 3})
    return Setup(write_settings(folder / "tiny.yaml", data), folder)
