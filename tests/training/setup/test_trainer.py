"""Every configuration file and every kind of optimiser and schedule trains, and settings reach the trainer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from detseg.config.load import load_config
from detseg.data.shapes import write_shapes
from detseg.errors import ConfigError, DataError
from detseg.structures import ClassTable
from detseg.training.run import train
from detseg.training.setup.build import build_task
from detseg.training.setup.trainer import Precision, build_trainer, resolve_precision
from tests.heard import heard
from tests.tiny import CLASSES, TinyRun, tiny_config, write_colors

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
pytestmark = pytest.mark.filterwarnings("ignore")
SMALL = ("data.image_size=64", "data.batch_size=2", "data.num_workers=0", "trainer.accelerator=cpu")
SHAPES = ("data.num_train=4", "data.num_val=2", "data.size=64")
COCO = (
    *("data.train_images=train", "data.train_annotations=annotations/instances_train.json"),
    *("data.val_images=val", "data.val_annotations=annotations/instances_val.json"),
)
FEW = ("model.rpn.post_nms_top_n_train=64", "model.rpn.post_nms_top_n=32", "model.roi_heads.batch_size_per_image=32")
RANDOM = ("model.weights=null", *FEW)
"""The published weights cannot be fetched here; tests/factory/test_torchvision_weights.py loads files like them."""
LAYOUTS = {
    "yolo_shapes": SHAPES,
    "yolo_coco": COCO,
    "yolo_bccd": (),
    "yolo_voc": (),
    "yolo_anchor_voc": (),
    "yolo_grid_voc": (),
    "faster_rcnn_shapes": SHAPES,
    "faster_rcnn_bccd": (),
    "faster_rcnn_voc": RANDOM,
    "faster_rcnn_coco": (*COCO, *FEW, "model.backbone.pretrained=false"),
    "mask_rcnn_shapes": SHAPES,
    "mask_rcnn_nuclei": COCO,
    "mask_rcnn_coco": (*COCO, *RANDOM),
}
DETECTORS = ("yolo", "faster_rcnn", "mask_rcnn")


def test_every_config_file_of_a_detector_is_tried() -> None:
    assert {path.stem for name in DETECTORS for path in CONFIGS.glob(f"{name}_*.yaml")} == set(LAYOUTS)


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A data root for each config file, with the splits that it names."""
    folder = tmp_path_factory.mktemp("layouts")
    write_shapes(folder / "shapes", num_train=4, num_val=2, size=64, max_objects=6, seed=0)
    write_colors(folder / "bccd", {"train": 8, "val": 3})
    write_colors(folder / "devkit" / "VOC2007", {"trainval": 6, "test": 3})
    write_colors(folder / "devkit" / "VOC2012", {"trainval": 6}, seed=1)
    roots = {"shapes": "shapes", "coco": "shapes/coco", "nuclei": "shapes/coco", "bccd": "bccd", "voc": "devkit"}
    return {name: folder / roots[name.rpartition("_")[2]] for name in LAYOUTS}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_config_file_runs(name: str, layouts: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    overrides = (f"data.root={layouts[name]}", *SMALL, *LAYOUTS[name], "trainer.fast_dev_run=true")
    train(load_config(CONFIGS / f"{name}.yaml", overrides), CONFIGS / f"{name}.yaml")
    assert "epoch 1/1  loss " in capsys.readouterr().out


@pytest.mark.parametrize(
    "overrides",
    [
        ("optimizer.name=sgd", "schedule.name=cosine"),
        ("optimizer.name=adam", "schedule.name=step"),
        ("optimizer.name=rmsprop", "schedule.name=inverse_time"),
        ("optimizer.name=adamw", "schedule.name=one_cycle"),
        ("trainer.precision=bfloat16", "trainer.ema_decay=0"),
        ("trainer.gradient_clip_norm=0", "trainer.accumulate_grad_batches=2"),
        ("data.augmentation.multi_scale=[0.5, 1.5]", "data.augmentation.mosaic=1.0", "data.augmentation.mixup=1.0"),
    ],
    ids=lambda overrides: overrides[0],
)
def test_every_optimizer_and_schedule_runs(
    overrides: tuple[str, ...], tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = yaml.safe_load(tiny_run.config_path.read_text(encoding="utf-8"))
    del settings["schedule"]  # the keys of one kind do not fit another
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    train(tiny_config(path, None, "trainer.fast_dev_run=true", *overrides), path)
    assert "epoch 1/1  loss " in capsys.readouterr().out


def test_objects_too_small_to_train_on_are_said(tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    """Of 22 objects of at most 35 pixels, 4 are difficult. Where all are too small, nothing is trained."""
    overrides = ("trainer.fast_dev_run=true", "data.augmentation.min_box_size=")
    small, none = (tiny_config(tiny_run.config_path, None, overrides[0], f"{overrides[1]}{size}") for size in (30, 64))
    train(small, tiny_run.config_path)
    assert re.search(r"voc train: 1\d of 18 objects \(\d+\.\d%\) have a side below", capsys.readouterr().out)
    with pytest.raises(DataError, match=r"voc train: there is no object to train on: 18 of 18 objects \(100\.0%\)"):
        train(none, tiny_run.config_path)


def test_the_metric_that_is_watched(tiny_run: TinyRun, tmp_path: Path) -> None:
    names = ("trainer.monitor=AP50", "trainer.early_stopping_patience=2", "trainer.early_stopping_min_delta=0.01")
    config = tiny_config(tiny_run.config_path, tmp_path, *names)
    task = build_task(config, ClassTable(CLASSES), load_pretrained=False)
    assert task.criterion == "AP50"
    stopper = build_trainer(config, tmp_path, f"val/{task.criterion}").early_stopping_callback
    assert stopper is not None
    assert (stopper.monitor, stopper.patience, stopper.min_delta) == ("val/AP50", 2, 0.01)
    wrong = tiny_config(tiny_run.config_path, tmp_path, "trainer.monitor=AP5")
    with pytest.raises(
        ConfigError, match=r"trainer\.monitor: expected one of AP, AP50, AP75, F1, weighted_AP, got 'AP5' \(did"
    ):
        build_task(wrong, ClassTable(CLASSES), load_pretrained=False)
    unweighted = tiny_config(tiny_run.config_path, tmp_path, "trainer.monitor=weighted_AP")
    with pytest.raises(ConfigError, match=r"weighted_AP needs weights of the classes; set evaluation\.class_weights"):
        build_task(unweighted, ClassTable(CLASSES), load_pretrained=False)
    weighted = ("trainer.monitor=weighted_AP", f"evaluation.class_weights.{CLASSES[0]}=2.5")
    config = tiny_config(tiny_run.config_path, tmp_path, *weighted)
    assert build_task(config, ClassTable(CLASSES), load_pretrained=False).criterion == "weighted_AP"


@pytest.mark.parametrize(("max_epochs", "late"), [(3, "epoch 4, 6"), (5, "epoch 6"), (6, None)])
def test_stages_whose_turn_does_not_come_are_said(
    max_epochs: int, late: str | None, tiny_run: TinyRun, tmp_path: Path
) -> None:
    freezing = ("model.backbone.freeze=3", "model.backbone.unfreeze_epoch=2", "model.backbone.unfreeze_every=2")
    config = tiny_config(tiny_run.config_path, tmp_path, *freezing, f"trainer.max_epochs={max_epochs}")
    with heard() as lines:
        build_task(config, ClassTable(CLASSES), load_pretrained=False)
    text = f"frozen stages whose turn comes after the last epoch never train: {late}, trainer.max_epochs={max_epochs}"
    assert lines == ([text] if late else [])


def test_settings_reach_the_trainer(tiny_run: TinyRun, tmp_path: Path) -> None:
    overrides = ("trainer.gradient_clip_norm=3.0", "trainer.accumulate_grad_batches=2", "trainer.validate_every=4")
    config = tiny_config(tiny_run.config_path, tmp_path, *overrides)
    trainer = build_trainer(config, tmp_path, "val/AP")
    assert (trainer.gradient_clip_val, trainer.accumulate_grad_batches) == (3.0, 2)
    assert (trainer.check_val_every_n_epoch, trainer.max_epochs, trainer.world_size) == (4, 16, 1)
    unclipped = tiny_config(tiny_run.config_path, tmp_path, "trainer.gradient_clip_norm=0")
    assert build_trainer(unclipped, tmp_path, "val/AP").gradient_clip_val is None


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("trainer.strategy=dpp",), r"strategy=dpp: .*invalid strategy"),
        (("trainer.accelerator=gpu", "trainer.devices=7"), r"accelerator=gpu, devices=7, .*: \S+"),
        (("trainer.accelerator=mps",), r"accelerator=mps, .*: \S+"),
        (("trainer.strategy=fsdp",), r"strategy=fsdp: .*\S+"),
    ],
)
def test_what_lightning_refuses(overrides: tuple[str, ...], reason: str, tiny_run: TinyRun, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^trainer: Lightning refuses .*{reason}") as caught:
        train(tiny_config(tiny_run.config_path, tmp_path / "run", *overrides), tiny_run.config_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("precision", "device", "native", "expected"),
    [
        ("float32", "cuda", ("avx512_bf16",), "float32"),
        ("bfloat16", "mps", (), "bfloat16"),
        ("auto", "cuda", ("cuda",), "bfloat16"),
        ("auto", "cuda", (), "float32"),  # emulated
        ("auto", "cpu", ("avx512_bf16",), "bfloat16"),
        ("auto", "cpu", ("amx_bf16",), "bfloat16"),
        ("auto", "cpu", ("avx2",), "float32"),
        ("auto", "mps", ("cuda", "amx_bf16"), "float32"),
    ],
)
def test_bfloat16_is_taken_where_it_is_native(
    precision: Precision, device: str, native: tuple[str, ...], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: "cuda" in native)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(native, True), raising=False)
    assert resolve_precision(precision, device) == expected


def test_synchronised_normalisation_is_the_same_network_and_needs_a_gpu(tiny_run: TinyRun, tmp_path: Path) -> None:
    name = ("model.backbone.name=mobilenetv3_small_050", *(f"model.backbone.{key}=null" for key in ("width", "depth")))
    config = tiny_config(tiny_run.config_path, tmp_path, "trainer.sync_batchnorm=true", *name)
    with pytest.raises(ConfigError, match=r"^trainer\.sync_batchnorm: torch synchronises batch normalisation on GPUs"):
        build_trainer(config, tmp_path, "val/AP")
    plain = tiny_config(tiny_run.config_path, tmp_path, *name)
    tasks = [build_task(each, ClassTable(CLASSES), load_pretrained=False).eval() for each in (plain, config)]
    tasks[1].load_state_dict(tasks[0].state_dict())  # a checkpoint fits either
    norms = [m for m in tasks[1].model.modules() if isinstance(m, nn.BatchNorm2d | nn.SyncBatchNorm)]
    assert norms
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected, found = (task.model.backbone(images) for task in tasks)
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
