"""Whole trainings on real images, by the commands of the documentation: `make test-slow`, more than an hour."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.shared_data import shared_data

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.slow


def numbers_of(config: str, run_dir: Path, data_root: Path, split: str | None = None, *overrides: str) -> Any:
    """The numbers of a training's last validation, or of its best checkpoint on a split; by the tools, as a user would
    run them from the repository's root."""

    def run_tool(*command: str) -> None:
        assert subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode == 0

    run_tool("tools/train.py", f"configs/{config}.yaml", f"run_dir={run_dir}", f"data.root={data_root}", *overrides)
    if split is not None:
        run_tool("tools/evaluate.py", str(run_dir / "checkpoints" / "best.ckpt"), "--split", split)
    report = "metrics.json" if split is None else f"evaluation_{split}.json"
    return json.loads((run_dir / report).read_text(encoding="utf-8"))


def test_blood_cells_beat_the_peer(tmp_path: Path) -> None:
    """The nano model from scratch, 60 epochs at 320 px; a peer of its size reached AP50 0.817 and AP 0.494 so."""
    numbers = numbers_of("yolo_bccd", tmp_path / "bccd", shared_data("bccd"), "test")["coco"]
    assert numbers["AP50"] > 0.817
    assert numbers["AP"] > 0.494


def test_twenty_five_coco_images_are_learned_by_heart(tmp_path: Path) -> None:
    """Crowd regions, many classes, tiny objects: whatever is lost on the way would show as objects never found."""
    overrides = (
        *("data.train_images=images", "data.train_annotations=annotations/instances_train.json", "data.batch_size=5"),
        *("data.augmentation.min_box_size=1", "model.head.strides=[4, 8, 16, 32]", "trainer.overfit_batches=5"),
        *("trainer.max_epochs=150", "trainer.validate_every=50"),
    )
    numbers = numbers_of("yolo_coco", tmp_path / "coco", shared_data("coco_mini"), None, *overrides)["coco"]
    assert numbers["AP50"] >= 0.9


def test_shapes_are_learned_in_minutes(tmp_path: Path) -> None:
    """What `make demo` promises."""
    assert numbers_of("yolo_shapes", tmp_path / "shapes", tmp_path / "shapes_data")["coco"]["AP50"] >= 0.9


def test_two_stages_find_blood_cells(tmp_path: Path) -> None:
    """Faster R-CNN on a light backbone from scratch; measured: AP 0.621, AP50 0.927 (docs/benchmarks.md)."""
    numbers = numbers_of("faster_rcnn_bccd", tmp_path / "bccd", shared_data("bccd"), "test")["coco"]
    assert numbers["AP50"] > 0.87
    assert numbers["AP"] > 0.56


def test_single_nuclei_are_found(tmp_path: Path) -> None:
    """Mask R-CNN from scratch; measured: mask AP 0.529, AP50 0.814 (docs/benchmarks.md)."""
    numbers = numbers_of("mask_rcnn_nuclei", tmp_path / "nuclei", shared_data("dsb2018_nuclei"), "val")
    assert numbers["masks"]["summary"]["AP50"] > 0.75
    assert numbers["masks"]["summary"]["AP"] > 0.46


def test_street_scenes_beat_the_peer(tmp_path: Path) -> None:
    """A U-Net from scratch, half an hour at most; a peer reached mIoU 0.393 in that time (docs/benchmarks.md)."""
    assert numbers_of("unet_camvid", tmp_path / "camvid", shared_data("camvid_small"), "val")["mean_iou"] > 0.55


def test_nuclei_are_told_from_the_ground(tmp_path: Path) -> None:
    """Measured: IoU 0.820, Dice 0.901 (docs/benchmarks.md)."""
    numbers = numbers_of("unet_nuclei", tmp_path / "nuclei", shared_data("dsb2018_nuclei"), "val")
    background, nucleus = numbers["classes"]
    assert (background["name"], nucleus["name"]) == ("background", "nucleus")
    assert nucleus["iou"] > 0.77
    assert nucleus["dice"] > 0.87


def test_the_masks_of_shapes_are_learned_in_minutes(tmp_path: Path) -> None:
    """What the README's commands give; measured: mIoU 0.730."""
    assert numbers_of("unet_shapes", tmp_path / "shapes", tmp_path / "shapes_data")["mean_iou"] > 0.6
