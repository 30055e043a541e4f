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


def run_tool(*command: str) -> None:
    """Run a tool as a user would, from the repository's root."""
    outcome = subprocess.run([sys.executable, *command], cwd=ROOT, check=False)
    assert outcome.returncode == 0


def numbers_of(report: Path) -> dict[str, Any]:
    """The COCO numbers of an evaluation's JSON file."""
    numbers: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))["coco"]
    return numbers


def test_blood_cells_beat_the_peer(tmp_path: Path) -> None:
    """The nano model from scratch, 60 epochs at 320 px; a peer of its size reached AP50 0.817 and AP 0.494 so."""
    root = shared_data("bccd")
    run_dir = tmp_path / "bccd"
    run_tool("tools/train.py", "configs/yolo_bccd.yaml", f"data.root={root}", f"run_dir={run_dir}")
    run_tool("tools/evaluate.py", str(run_dir / "checkpoints" / "best.ckpt"), "--split", "test")
    numbers = numbers_of(run_dir / "evaluation_test.json")
    assert numbers["AP50"] > 0.817
    assert numbers["AP"] > 0.494


def test_twenty_five_coco_images_are_learned_by_heart(tmp_path: Path) -> None:
    """Crowd regions, many classes, tiny objects: whatever is lost on the way would show as objects never found."""
    root = shared_data("coco_mini")
    run_dir = tmp_path / "coco"
    run_tool(
        "tools/train.py",
        "configs/yolo_coco.yaml",
        f"run_dir={run_dir}",
        f"data.root={root}",
        "data.train_images=images",
        "data.train_annotations=annotations/instances_train.json",
        "data.batch_size=5",
        "data.augmentation.min_box_size=1",
        "model.head.strides=[4, 8, 16, 32]",
        "trainer.overfit_batches=5",
        "trainer.max_epochs=150",
        "trainer.validate_every=50",
    )
    assert numbers_of(run_dir / "metrics.json")["AP50"] >= 0.9


def test_shapes_are_learned_in_minutes(tmp_path: Path) -> None:
    """What `make demo` promises."""
    run_dir = tmp_path / "shapes"
    run_tool(
        "tools/train.py", "configs/yolo_shapes.yaml", f"run_dir={run_dir}", f"data.root={tmp_path / 'shapes_data'}"
    )
    assert numbers_of(run_dir / "metrics.json")["AP50"] >= 0.9


def test_two_stages_find_blood_cells(tmp_path: Path) -> None:
    """Faster R-CNN on a light backbone from scratch; measured: AP 0.621, AP50 0.927 (docs/benchmarks.md)."""
    run_dir, root = tmp_path / "bccd", shared_data("bccd")
    run_tool("tools/train.py", "configs/faster_rcnn_bccd.yaml", f"data.root={root}", f"run_dir={run_dir}")
    run_tool("tools/evaluate.py", str(run_dir / "checkpoints" / "best.ckpt"), "--split", "test")
    numbers = numbers_of(run_dir / "evaluation_test.json")
    assert numbers["AP50"] > 0.87
    assert numbers["AP"] > 0.56


def test_single_nuclei_are_found(tmp_path: Path) -> None:
    """Mask R-CNN from scratch; measured: mask AP 0.529, AP50 0.814 (docs/benchmarks.md)."""
    run_dir, root = tmp_path / "nuclei", shared_data("dsb2018_nuclei")
    run_tool("tools/train.py", "configs/mask_rcnn_nuclei.yaml", f"data.root={root}", f"run_dir={run_dir}")
    run_tool("tools/evaluate.py", str(run_dir / "checkpoints" / "best.ckpt"))
    masks = masks_of(run_dir / "evaluation_val.json")["masks"]["summary"]
    assert masks["AP50"] > 0.75
    assert masks["AP"] > 0.46


def masks_of(report: Path) -> dict[str, Any]:
    """The numbers of an evaluation of masks."""
    numbers: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return numbers


def test_street_scenes_beat_the_peer(tmp_path: Path) -> None:
    """A U-Net from scratch, half an hour at most; a peer reached mIoU 0.393 in that time (docs/benchmarks.md)."""
    run_dir, root = tmp_path / "camvid", shared_data("camvid_small")
    run_tool("tools/train.py", "configs/unet_camvid.yaml", f"data.root={root}", f"run_dir={run_dir}")
    run_tool("tools/evaluate.py", str(run_dir / "checkpoints" / "best.ckpt"))
    assert masks_of(run_dir / "evaluation_val.json")["mean_iou"] > 0.55


def test_nuclei_are_told_from_the_ground(tmp_path: Path) -> None:
    """Measured: IoU 0.820, Dice 0.901 (docs/benchmarks.md)."""
    run_dir, root = tmp_path / "nuclei", shared_data("dsb2018_nuclei")
    run_tool("tools/train.py", "configs/unet_nuclei.yaml", f"data.root={root}", f"run_dir={run_dir}")
    run_tool("tools/evaluate.py", str(run_dir / "checkpoints" / "best.ckpt"))
    background, nucleus = masks_of(run_dir / "evaluation_val.json")["classes"]
    assert (background["name"], nucleus["name"]) == ("background", "nucleus")
    assert nucleus["iou"] > 0.77
    assert nucleus["dice"] > 0.87


def test_the_masks_of_shapes_are_learned_in_minutes(tmp_path: Path) -> None:
    """What the README's commands give; measured: mIoU 0.730."""
    run_dir = tmp_path / "shapes"
    run_tool(
        "tools/train.py", "configs/unet_shapes.yaml", f"run_dir={run_dir}", f"data.root={tmp_path / 'shapes_data'}"
    )
    assert masks_of(run_dir / "metrics.json")["mean_iou"] > 0.6
