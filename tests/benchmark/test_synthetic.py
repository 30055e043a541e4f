"""Made-up data suits every configuration of the project, and is read by the project's readers without a complaint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detseg.benchmark import synthetic
from detseg.config.load import load_config
from detseg.config.schema.experiment import ExperimentConfig
from detseg.data.build import open_dataset
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.datasets.segmentation import SegmentationDataset

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def made_up(name: str, root: Path, *overrides: str) -> ExperimentConfig:
    config = load_config(CONFIGS / f"{name}.yaml", ["data.image_size=96", "data.batch_size=2", *overrides])
    return synthetic.with_synthetic_data(config, root)


@pytest.mark.parametrize(
    ("name", "num_classes"),
    [("yolo_bccd", 20), ("yolo_coco", 80), ("mask_rcnn_nuclei", 80), ("faster_rcnn_shapes", 5)],
)
def test_objects(name: str, num_classes: int, tmp_path: Path) -> None:
    config = made_up(name, tmp_path)
    dataset = open_dataset(config, "train")
    assert isinstance(dataset, DetectionDataset)
    assert (len(dataset), len(dataset.classes)) == (8, num_classes)
    assert len(open_dataset(config, "val", dataset.classes)) == 6
    sample = dataset[0]
    assert sample.hw == (288, 384)  # four times the input
    assert 1 <= len(sample.boxes) == len(sample.labels)
    assert (sample.masks is None) == (name != "mask_rcnn_nuclei")
    copied, whole = dataset[6], dataset[0]
    assert np.array_equal(copied.image, whole.image)
    assert np.array_equal(copied.boxes, whole.boxes)


@pytest.mark.parametrize(
    ("name", "num_classes"), [("unet_nuclei", 2), ("fcn_voc", 21), ("unet_shapes", 6), ("unet_camvid", 21)]
)
def test_maps(name: str, num_classes: int, tmp_path: Path) -> None:
    dataset = open_dataset(made_up(name, tmp_path), "train")
    assert isinstance(dataset, SegmentationDataset)
    assert (len(dataset), len(dataset.classes)) == (8, num_classes)
    labels = np.concatenate([np.unique(dataset.semantic(i)) for i in range(len(dataset))])
    assert 0 <= labels.min() < labels.max() < num_classes


def test_settings_stay(tmp_path: Path) -> None:
    data = made_up("yolo_bccd", tmp_path, "data.num_workers=3", "data.augmentation.blur=0.25").data
    assert (data.num_workers, data.augmentation.blur, data.augmentation.mosaic) == (3, 0.25, 0.5)


def test_pictures_are_no_smaller_than_the_input(tmp_path: Path) -> None:
    config = made_up("yolo_bccd", tmp_path, "data.image_size=[320, 704]")
    assert open_dataset(config, "train")[0].hw == (528, 704)


def test_pictures_compress_like_photographs(tmp_path: Path) -> None:
    made_up("yolo_bccd", tmp_path, "data.image_size=640")
    bits = [8 * path.stat().st_size / (640 * 480) for path in (tmp_path / "train").iterdir()]
    assert 0.8 < np.mean(bits) < 3  # of a pixel; photographs at this quality: 1 to 3
