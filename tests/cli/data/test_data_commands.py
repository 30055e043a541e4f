"""The commands for a folder of data: `config new DIR`, and what `data.name: auto` leaves in a run directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from detseg.checkpoint import read_model_checkpoint
from detseg.cli import main
from detseg.config.load import load_config
from detseg.data.build import open_split
from tests.shared_data import shared_data
from tests.tiny import TinyRun

pytestmark = pytest.mark.filterwarnings("ignore")


def out_of(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(argv) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("folder", "model", "layout", "train", "val"),
    [
        ("coco_mini", "yolo", "coco", 25, 8),
        ("bccd", "yolo", "voc", 205, 87),
        ("formats/roboflow_dataset/coco", "yolo", "coco", 2, 1),
        ("dsb2018_nuclei", "mask_rcnn", "coco", 90, 30),
    ],
)
def test_a_new_file_for_a_folder_opens_it(
    folder: str, model: str, layout: str, train: int, val: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = out_of(capsys, "config", "new", str(shared_data(folder)), *(["--model", model] if model != "yolo" else []))
    assert text.splitlines()[0].startswith("# ")
    assert f"train {train} images, val {val} image" in text.splitlines()[0]
    (file := tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    config = load_config(file)
    assert (config.model.name, config.data.name) == (model, layout)
    train_set = open_split(config.data, "train", masks=model == "mask_rcnn")
    assert (len(train_set), len(open_split(config.data, "val", train_set.classes))) == (train, val)


def test_a_folder_without_validation_split_gets_a_fraction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shared_data("formats/cvat_dataset/for_images/export_task")
    text = out_of(capsys, "config", "new", str(folder))
    assert "# no validation split: a training takes a fifth of the training images (data.val_fraction)\n" in text
    assert "  val_fraction: 0.2\n" in text


def test_a_run_with_auto_holds_the_layout_that_was_found(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = load_config(tiny_run.config_path).model_dump()["data"]["root"]
    settings = [f"run_dir={tmp_path / 'run'}", "trainer.max_epochs=1", "trainer.overfit_batches=1", "model.name=yolo"]
    file = tmp_path / "auto.yaml"
    file.write_text(
        f"data: {{name: auto, root: '{root}', image_size: 64, batch_size: 2, num_workers: 0}}\nmodel: {{name: yolo}}\n"
    )
    assert "Pascal VOC with lists" in out_of(capsys, "train", str(file), *settings)
    held = read_model_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt").config["data"]
    assert (held["name"], held["root"], held["train_split"]) == ("voc", str(root), "train")
    assert load_config(tmp_path / "run" / "config.yaml").data.name == "voc"
    best = str(tmp_path / "run" / "checkpoints" / "best.ckpt")
    assert "AP" in out_of(capsys, "evaluate", best, "data.name=auto", f"data.root={root}")


def test_the_same_image_in_both_splits_is_a_warning(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [
        f"run_dir={tmp_path / 'run'}",
        "data.val_split=train",
        "trainer.fast_dev_run=true",
        "data.num_workers=0",
    ]
    out = out_of(capsys, "train", str(tiny_run.config_path), *settings)
    assert "validation images are training images, too (JPEGImages/train00.png, " in out
