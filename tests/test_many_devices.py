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

from detseg.training.optim.freezing import NORMALIZATION
from detseg.training.setup.build import build_data, build_task, open_data
from tests.forked import run_together
from tests.tiny import WRITERS, tiny_config, write_colors, write_ellipses
from tests.training.stub import SILENT

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.processes]
NUM_STEPS = 5
PLAIN = (
    *("optimizer.name=sgd", "optimizer.lr=0.001", "trainer.ema_decay=0"),
    *("data.augmentation.mosaic=0.5", "data.augmentation.multi_scale=[0.8, 1.3]"),
)
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
    config, train_set, val_set = open_data(config)
    task = build_task(config, train_set.classes, load_pretrained=False)
    for module in task.model.modules():
        if isinstance(module, NORMALIZATION):
            module.requires_grad_(False)
    recorder = _Recorder()
    options: dict[str, Any] = {"max_steps": NUM_STEPS, "limit_val_batches": 0, "gradient_clip_val": 10.0, **SILENT}
    strategy = "ddp" if world_size > 1 else "auto"
    options |= {"devices": world_size, "strategy": strategy, "use_distributed_sampler": False}
    trainer = L.Trainer(accelerator="cpu", max_epochs=100, callbacks=[recorder], default_root_dir=folder, **options)
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


SPARSE, FEW = "data.root={sparse}", "data.root={few}"
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "yolo": ("yolo", ()),
    "yolo, anchors": ("yolo", ANCHOR),
    "yolo, grid": ("yolo", ("model.head.name=grid",)),
    "yolo, few objects": ("yolo", (SPARSE,)),
    "yolo, anchors, few objects": ("yolo", (*ANCHOR, SPARSE)),
    "yolo, three images": ("yolo", (FEW,)),
    "unet": ("unet", ALL_LOSSES),
    "unet, few pixels": ("unet", (*ALL_LOSSES, SPARSE)),
    "unet, three images": ("unet", (*ALL_LOSSES, FEW)),
    "faster": ("faster_rcnn", ()),
    "faster, few objects": ("faster_rcnn", (SPARSE,)),
    "mask": ("mask_rcnn", ()),
    "mask, few objects": ("mask_rcnn", ("data.root={few_ellipses}",)),
}
"""Model and settings. The data are dense, or six images of which two have objects, so that whole batches have none, the
last global batch is short by two and is filled up, or three images, fewer than a global batch."""


def _cases(folder: Path) -> dict[str, tuple[Path, tuple[str, ...]]]:
    dense, sparse = write_colors(folder / "dense"), write_colors(folder / "sparse", {"train": 6, "val": 2})
    few = write_colors(folder / "few", {"train": 3, "val": 2})
    empty_all_but(sparse, ("train00", "train03"), "train")
    data = {"yolo": dense, "unet": dense, "mask_rcnn": write_ellipses(folder / "ellipses", {"train": 8, "val": 2})}
    files = {name: WRITERS[name][0](folder / f"{name}.yaml", root) for name, root in data.items()}
    yolo, faster = (yaml.safe_load(files[name].read_text(encoding="utf-8")) for name in ("yolo", "mask_rcnn"))
    del faster["model"]["mask"]
    files["faster_rcnn"] = folder / "faster.yaml"
    settings = {**faster, "model": faster["model"] | {"name": "faster_rcnn"}, "data": yolo["data"]}
    files["faster_rcnn"].write_text(yaml.safe_dump(settings), encoding="utf-8")
    roots = {"sparse": sparse, "few": few, "few_ellipses": _without_most_objects(folder / "few_ellipses")}
    roots = {f"data.root={{{name}}}": f"data.root={root}" for name, root in roots.items()}
    return {
        name: (files[model], tuple(roots.get(o, o) for o in overrides)) for name, (model, overrides) in CASES.items()
    }


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Steps], list[dict[str, Steps]]]:
    """The first steps of every case in one process, and in each of two."""
    folder = tmp_path_factory.mktemp("steps")
    cases = _cases(folder)
    (alone,) = run_together(all_first_steps, 1, cases, folder, 1)
    return alone, run_together(all_first_steps, 2, cases, folder, 2)


@pytest.mark.parametrize("name", CASES)
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
