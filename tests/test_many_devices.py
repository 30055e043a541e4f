"""Two processes against one: the same losses, the same metrics, and what is uneven between them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from PIL import Image

from detseg.tasks import kind_of
from detseg.training.optim.freezing import NORMALIZATION
from detseg.training.setup.build import build_data, build_task, open_data
from tests.forked import run_together
from tests.tiny import (
    tiny_config,
    write_colors,
    write_config,
    write_ellipses,
    write_instance_config,
    write_segmentation_config,
)
from tests.training.stub import SILENT

pytestmark = pytest.mark.filterwarnings("ignore")
NUM_STEPS = 5
PLAIN = (
    *("optimizer.name=sgd", "optimizer.lr=0.001", "trainer.ema_decay=0"),
    *("data.augmentation.mosaic=0.5", "data.augmentation.multi_scale=[0.8, 1.3]"),
)
GRID = ("model.head.name=grid",)
ANCHOR = (
    *("model.head.name=anchor", "model.head.anchors_per_level=1"),
    "model.head.anchors=[[20, 20], [24, 30], [32, 26]]",
)
ALL_LOSSES = (
    *("model.loss.dice.weight=1", "model.loss.tversky.weight=1", "model.loss.focal.weight=1"),
    "model.loss.class_weights=[0.2, 1, 2, 3]",
)


@dataclass(frozen=True)
class Steps:
    """What a process saw of a training's first steps: loss terms of each, and all weights afterwards, in a row."""

    losses: list[dict[str, float]]
    weights: np.ndarray[Any, np.dtype[np.float32]]


class _Recorder(Callback):
    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        latest = trainer.callback_metrics
        self.losses.append({name: float(latest[name]) for name in latest if name.endswith("_step")})


def first_steps(config_path: Path, folder: Path, world_size: int, overrides: tuple[str, ...]) -> Steps:
    """Train for some steps on global batches of four, without a validation; normalisation is not trained, since its
    statistics are those of a process's own batch."""
    config = tiny_config(config_path, None, *PLAIN, *overrides, f"data.batch_size={4 // world_size}")
    L.seed_everything(config.seed, verbose=False)
    train_set, val_set = open_data(config)
    config = kind_of(config.model).settings_from_data(config, train_set)
    task = build_task(config, train_set.classes, load_pretrained=False)
    for module in task.model.modules():
        if isinstance(module, NORMALIZATION):
            module.requires_grad_(False)
    recorder = _Recorder()
    trainer = L.Trainer(
        accelerator="cpu",
        devices=world_size,
        strategy="ddp" if world_size > 1 else "auto",
        max_epochs=100,
        max_steps=NUM_STEPS,
        limit_val_batches=0,
        gradient_clip_val=10.0,
        use_distributed_sampler=False,
        callbacks=[recorder],
        default_root_dir=folder,
        **SILENT,
    )
    trainer.fit(task, build_data(config, train_set, val_set))
    weights = torch.cat([parameter.detach().flatten() for parameter in task.model.parameters()])
    return Steps(recorder.losses, weights.numpy())


def all_first_steps(cases: dict[str, tuple[Path, tuple[str, ...]]], folder: Path, world_size: int) -> dict[str, Steps]:
    return {name: first_steps(path, folder, world_size, overrides) for name, (path, overrides) in cases.items()}


def empty_all_but(root: Path, kept: tuple[str, ...], split: str) -> None:
    """Take the objects out of a folder of ``write_colors``, and let no pixel of the masks count."""
    for path in (root / "Annotations").glob(f"{split}*.xml"):
        if path.stem not in kept:
            text = path.read_text(encoding="utf-8")
            path.write_text(re.sub(r"<object>.*?</object>", "", text, flags=re.DOTALL), encoding="utf-8")
            mask = root / "SegmentationClass" / f"{path.stem}.png"
            Image.fromarray(np.full_like(np.asarray(Image.open(mask)), 255)).save(mask)


def _without_most_objects(root: Path) -> Path:
    """A folder of ``write_ellipses`` of whose training images only the first has objects."""
    path = write_ellipses(root, {"train": 8, "val": 2}) / "annotations" / "instances_train.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    first = content["images"][0]["id"]
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] == first]
    path.write_text(json.dumps(content), encoding="utf-8")
    return root


def _cases(folder: Path) -> dict[str, tuple[Path, tuple[str, ...]]]:
    """Settings by name: of dense data; of six images of which two have objects, so that whole batches have none, the
    last global batch is short by two and is filled up; and of three images, fewer than a global batch."""
    dense, sparse = write_colors(folder / "dense"), write_colors(folder / "sparse", {"train": 6, "val": 2})
    few = write_colors(folder / "few", {"train": 3, "val": 2})
    empty_all_but(sparse, ("train00", "train03"), "train")
    ellipses = write_ellipses(folder / "ellipses", {"train": 8, "val": 2})
    yolo = write_config(folder / "yolo.yaml", dense)
    unet = write_segmentation_config(folder / "unet.yaml", dense)
    mask = write_instance_config(folder / "mask.yaml", ellipses)
    settings = yaml.safe_load(mask.read_text(encoding="utf-8"))
    settings["model"] = {key: value for key, value in settings["model"].items() if key != "mask"} | {
        "name": "faster_rcnn"
    }
    settings["data"] = yaml.safe_load(yolo.read_text(encoding="utf-8"))["data"]
    faster = folder / "faster.yaml"
    faster.write_text(yaml.safe_dump(settings), encoding="utf-8")
    at_sparse, at_few = f"data.root={sparse}", f"data.root={few}"
    return {
        "yolo": (yolo, ()),
        "yolo, anchors": (yolo, ANCHOR),
        "yolo, grid": (yolo, GRID),
        "yolo, few objects": (yolo, (at_sparse,)),
        "yolo, anchors, few objects": (yolo, (*ANCHOR, at_sparse)),
        "yolo, three images": (yolo, (at_few,)),
        "unet": (unet, ALL_LOSSES),
        "unet, few pixels": (unet, (*ALL_LOSSES, at_sparse)),
        "unet, three images": (unet, (*ALL_LOSSES, at_few)),
        "faster": (faster, ()),
        "faster, few objects": (faster, (at_sparse,)),
        "mask": (mask, ()),
        "mask, few objects": (mask, (f"data.root={_without_most_objects(folder / 'few_ellipses')}",)),
    }


NAMES = (
    *("yolo", "yolo, anchors", "yolo, grid", "yolo, few objects", "yolo, anchors, few objects", "yolo, three images"),
    *("unet", "unet, few pixels", "unet, three images", "faster", "faster, few objects", "mask", "mask, few objects"),
)


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Steps], list[dict[str, Steps]]]:
    """The first steps of every case in one process, and in each of two."""
    folder = tmp_path_factory.mktemp("steps")
    cases = _cases(folder)
    assert tuple(cases) == NAMES
    (alone,) = run_together(all_first_steps, 1, cases, folder, 1)
    return alone, run_together(all_first_steps, 2, cases, folder, 2)


@pytest.mark.parametrize("name", NAMES)
def test_two_have_the_losses_of_one(name: str, steps: tuple[dict[str, Steps], list[dict[str, Steps]]]) -> None:
    alone, both = steps[0][name], [each[name] for each in steps[1]]
    assert len(alone.losses) == len(both[0].losses) == NUM_STEPS
    for number, (one, first, second) in enumerate(zip(alone.losses, both[0].losses, both[1].losses, strict=True)):
        together = {term: (first[term] + second[term]) / 2 for term in one}
        assert all(np.isfinite(list(each.values())).all() for each in (one, first, second))
        assert together == pytest.approx(one, rel=2e-4, abs=1e-6), number
    np.testing.assert_array_equal(both[0].weights, both[1].weights)
    np.testing.assert_allclose(both[0].weights, alone.weights, rtol=0, atol=2e-5)
    assert alone.losses[0]["train/loss_step"] != alone.losses[-1]["train/loss_step"]
