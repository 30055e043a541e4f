"""A whole training of a U-Net: what it leaves, the same mIoU three times, resume, and prediction at any size."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detseg.checkpoint import read_model_checkpoint
from detseg.config.load import load_config
from detseg.errors import ConfigError
from detseg.predict import SegmentationMap, load_predictor
from detseg.training.run import train
from tests.tiny import WORTH_COMPARING, TinyRun, tiny_config

pytestmark = pytest.mark.filterwarnings("ignore")


def masks_of(run: TinyRun, split: str = "val") -> dict[str, np.ndarray]:
    """The masks as they lie on disk, by stem."""
    stems = (run.data_root / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()
    return {stem: np.array(Image.open(run.data_root / "SegmentationClass" / f"{stem}.png")) for stem in stems}


def mean_iou_by_hand(found: dict[str, SegmentationMap], masks: dict[str, np.ndarray], num_classes: int) -> float:
    """Intersection over union of each class over all files, counted pixel by pixel with numpy alone."""
    ious = []
    for label in range(num_classes):
        intersection = union = 0
        for stem, mask in masks.items():
            counts = mask != 255
            truth, predicted = (mask == label) & counts, (found[stem].labels == label) & counts
            intersection += int((truth & predicted).sum())
            union += int((truth | predicted).sum())
        if union:
            ious.append(intersection / union)
    return float(np.mean(ious))


def test_the_same_mean_iou_three_times(tiny_segmentation: TinyRun) -> None:
    epoch = read_model_checkpoint(tiny_segmentation.best).epoch
    row = next(row for row in tiny_segmentation.rows() if int(row["epoch"]) == epoch)
    result = tiny_segmentation.evaluate()
    assert result.mean_iou >= WORTH_COMPARING
    assert float(row["val/mIoU"]) == result.mean_iou
    masks = masks_of(tiny_segmentation)
    predictor = load_predictor(tiny_segmentation.best, device="cpu")
    found = {stem: predictor(tiny_segmentation.data_root / "JPEGImages" / f"{stem}.png") for stem in masks}
    assert mean_iou_by_hand(found, masks, 4) == pytest.approx(result.mean_iou, abs=1e-15)
    assert sum(int((mask == 255).sum()) for mask in masks.values()) == result.num_ignored > 0
    assert tiny_segmentation.evaluate("data.batch_size=3").mean_iou == result.mean_iou


def test_odd_sizes_are_trained_on_and_come_back(tiny_segmentation: TinyRun, tmp_path: Path) -> None:
    """Pictures and masks of 181 x 239 go in as they are, and labels of 181 x 239 come out."""
    root = shutil.copytree(tiny_segmentation.data_root, tmp_path / "odd")
    for path in [*root.glob("JPEGImages/*.png"), *root.glob("SegmentationClass/*.png")]:
        pixels = np.array(Image.open(path))
        rows, columns = np.arange(181) * pixels.shape[0] // 181, np.arange(239) * pixels.shape[1] // 239
        Image.fromarray(pixels[rows][:, columns]).save(path)
    overrides = (f"data.root={root}", "data.image_size=[181, 239]", "trainer.max_epochs=1")
    train(tiny_config(tiny_segmentation.config_path, tmp_path / "run", *overrides), tiny_segmentation.config_path)
    predictor = load_predictor(tmp_path / "run" / "checkpoints" / "best.ckpt", device="cpu")
    for path in sorted(root.glob("JPEGImages/val*.png")):
        assert predictor(path).labels.shape == (181, 239)
    assert predictor(np.zeros((7, 5, 3), dtype=np.uint8)).labels.shape == (7, 5)


def test_coco_files_are_for_detectors(tiny_segmentation: TinyRun, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--save-coco: is for detectors"):
        tiny_segmentation.evaluate(coco_dir=tmp_path / "coco")
    assert not (tmp_path / "coco").exists()


CSP = ("model.backbone.name=csp_nano", "model.backbone.width=0.0625", "model.backbone.levels=null")


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.name=fcn", *CSP, "model.auxiliary_weight=0.4"],
        ["model.name=fcn", *CSP, "model.neck.name=fpn", "model.upsampling=bilinear", "model.stride=16"],
        [*CSP, "model.output_stride=2", "model.upsampling=resize", "model.auxiliary_weight=0.4"],
        [
            "model.loss.class_weights=median_frequency",
            *(f"model.loss.{x}.weight=1" for x in ("dice", "focal", "tversky")),
        ],
        ["data.augmentation.scale_jitter=[0.5, 2]", "data.augmentation.elastic.probability=1"],
        ["data.augmentation.mosaic=0.5", "data.augmentation.crop=0.5", "data.augmentation.affine.probability=1"],
    ],
    ids=["fcn", "fcn-fpn", "unet-csp", "losses", "elastic", "mosaic"],
)
def test_every_choice_trains_and_loads(
    tiny_segmentation: TinyRun, tmp_path: Path, overrides: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(tiny_segmentation.config_path, tmp_path / "run", "trainer.max_epochs=1", *overrides)
    train(config, tiny_segmentation.config_path)
    assert re.search(r"^classes   ground [\d.]+%, blue [\d.]+%, ", capsys.readouterr().out, flags=re.MULTILINE)
    predictor = load_predictor(tmp_path / "run" / "checkpoints" / "best.ckpt", device="cpu")
    assert predictor(np.zeros((50, 60, 3), dtype=np.uint8)).labels.shape == (50, 60)
    weights = load_config(tmp_path / "run" / "config.yaml").model.loss.class_weights  # type: ignore[union-attr]  # segmentation
    assert weights is None or (len(weights) == 4 and all(isinstance(weight, float) for weight in weights))
