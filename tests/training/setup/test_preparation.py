"""Settings that follow from the data."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detseg.config.schema.experiment import ExperimentConfig
from detseg.config.schema.segmentation import UNetConfig
from detseg.data.formats.mask_folder import read_mask_folder
from detseg.training.setup.preparation import settings_from_data
from tests.data.formats.mask_layouts import write_pairs
from tests.heard import heard


def test_the_weight_of_a_class_that_fills_nearly_all_stays_above_zero(tmp_path: Path) -> None:
    mask = np.zeros((400, 400), dtype=np.uint8)
    mask[0, :2] = 1, 2
    dataset = read_mask_folder(*write_pairs(tmp_path, {"a": mask.tolist()}), ("ground", "bolt", "nut"))
    config = ExperimentConfig.model_validate(
        {
            "model": {"name": "unet", "loss": {"class_weights": "median_frequency"}},
            "data": {"name": "mask_folder", "root": str(tmp_path)},
        }
    )
    with heard() as lines:
        settings = settings_from_data(config, dataset)
    assert isinstance(settings.model, UNetConfig)
    # Frequencies 159998, 1 and 1 of 160000; their median is that of the rare ones.
    assert settings.model.loss.class_weights == (6.25e-06, 1.0, 1.0)
    assert lines == ["class weights by median frequency: ground 6.25e-06, bolt 1, nut 1"]
