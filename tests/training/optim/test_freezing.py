"""What is frozen does not move by a bit, weights and statistics; and it moves once its epoch has come."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from detseg.config.schema.model import BackboneConfig
from detseg.config.schema.training import AdamWConfig
from detseg.errors import ConfigError
from detseg.factory import build_backbone
from detseg.structures import Batch, BoxTargets, ClassTable
from detseg.tasks import Detection
from detseg.training.optim.freezing import FrozenParts
from detseg.training.task import Task
from tests.training.stub import CONSTANT, OneWeight, loader_of

STRIDES = (8, 16, 32)


def backbone_of(name: str) -> Any:
    torch.manual_seed(0)
    width = 0.0625 if name.startswith("csp") else None
    return build_backbone(BackboneConfig(name=name, width=width), STRIDES, load_pretrained=False)


class OnBackbone(OneWeight):
    """A detector whose loss is that of a backbone's maps, and which finds what ``OneWeight`` finds."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def losses(self, images: Tensor, targets: list[BoxTargets]) -> dict[str, Tensor]:
        return {"maps": torch.stack([(x - self.weight).square().mean() for x in self.backbone(images)]).sum()}


def batches() -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, 2, 3, 64, 64), dtype=torch.uint8, generator=generator)
    return [Batch(x, [BoxTargets.empty(), BoxTargets.empty()], [0, 1]) for x in images]


class Snapshots(Callback):
    """The state of the trained and of the averaged model at the beginning and after each epoch."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._take(pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._take(pl_module)

    def _take(self, task: L.LightningModule) -> None:
        self.states.append({name: value.clone() for name, value in task.state_dict().items()})

    def moved(self, epoch: int) -> set[str]:
        """The entries that an epoch (from 1) changed."""
        before, after = self.states[epoch - 1], self.states[epoch]
        return {name for name, value in before.items() if not torch.equal(value, after[name])}


def train(freezing: BackboneConfig, backbone: nn.Module, folder: Path, epochs: int = 1) -> Snapshots:
    """Train with weight decay and an average of the weights, which could move what has no gradient, too."""
    snapshots = Snapshots()
    task = Task(
        Detection(),
        OnBackbone(backbone),
        ClassTable(("a", "b")),
        AdamWConfig(lr=0.01, weight_decay=0.5),
        CONSTANT,
        ema_decay=0.5,
        freezing=freezing,
    )
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[snapshots],
        default_root_dir=folder,
    )
    trainer.fit(task, loader_of(batches()))
    return snapshots


def statistics(names: set[str]) -> set[str]:
    return {name for name in names if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}


@pytest.mark.parametrize("name", ["csp_nano", "test_resnet"])
@pytest.mark.parametrize("freeze", ["none", "stem", 2, "backbone"])
@pytest.mark.filterwarnings("ignore")
def test_frozen_parts_do_not_move_by_a_bit(name: str, freeze: Any, tmp_path: Path) -> None:
    backbone = backbone_of(name)
    whole = {f"model.backbone.{key}" for key in backbone.state_dict()}
    moved = train(BackboneConfig(freeze=freeze), backbone, tmp_path).moved(1)
    for prefix in ("", "average."):
        inside = {key.removeprefix(prefix) for key in moved if key.startswith(f"{prefix}model.backbone.")}
        if freeze == "none":
            assert inside == whole if not prefix else inside
        elif freeze == "backbone":
            assert not inside
        else:
            frozen = frozen_prefixes(name, freeze)
            still = {key for key in whole if key.startswith(frozen)}
            assert still
            assert inside == whole - still if not prefix else not inside & still


def frozen_prefixes(name: str, freeze: Any) -> tuple[str, ...]:
    """What the first stages of the two backbones are called."""
    if name == "csp_nano":
        names = ["stem", "stages.0"]
    else:
        names = ["body.conv1", "body.bn1"] if freeze == "stem" else ["body.conv1", "body.bn1", "body.layer1"]
        return tuple(f"model.backbone.{x}" for x in names)
    return tuple(f"model.backbone.{x}." for x in names[: 1 if freeze == "stem" else freeze])


@pytest.mark.filterwarnings("ignore")
def test_frozen_normalisation_does_not_move_and_its_convolutions_do(tmp_path: Path) -> None:
    backbone = backbone_of("csp_nano")
    norms = {
        f"model.backbone.{name}.{key}"
        for name, module in backbone.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for key in module.state_dict()
    }
    moved = train(BackboneConfig(freeze_bn=True), backbone, tmp_path).moved(1)
    assert not moved & norms
    whole = {f"model.backbone.{key}" for key in backbone.state_dict()}
    assert moved & whole == whole - norms


def test_normalisation_that_is_not_there_cannot_be_frozen() -> None:
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4))
    with pytest.raises(ConfigError, match=r"^model\.backbone\.freeze_bn: this backbone has no batch normalisation"):
        FrozenParts(backbone, BackboneConfig(freeze_bn=True))


@pytest.mark.parametrize("freeze_bn", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_what_is_held_back_trains_from_its_epoch_on(freeze_bn: bool, tmp_path: Path) -> None:
    backbone = backbone_of("csp_nano")
    whole = {f"model.backbone.{key}" for key in backbone.state_dict()}
    config = BackboneConfig(freeze="backbone", unfreeze_epoch=3, freeze_bn=freeze_bn)
    snapshots = train(config, backbone, tmp_path, epochs=4)
    for epoch in (1, 2):
        assert not snapshots.moved(epoch) & whole
    for epoch in (3, 4):
        moved = snapshots.moved(epoch) & whole
        assert bool(statistics(moved)) != freeze_bn
        assert {key for key in moved if key.endswith(".0.weight")}, "convolutions"
        assert freeze_bn or moved == whole


@pytest.mark.parametrize(("freeze", "number"), [("stem", 1), (2, 2)])
def test_a_stage_that_is_not_there_is_one_line(freeze: Any, number: int) -> None:
    class Bare(nn.Module):
        def freeze_stages(self, num_stages: int) -> None:
            raise ValueError(f"freeze: expected 0 to 0 stages, got {num_stages}")

    with pytest.raises(
        ConfigError, match=rf"^model\.backbone\.freeze: expected 0 to 0 stages, got {number}; or freeze"
    ):
        FrozenParts(Bare(), BackboneConfig(freeze=freeze))
    with pytest.raises(ConfigError, match="a Linear has no stages to freeze"):
        FrozenParts(nn.Linear(2, 2), BackboneConfig(freeze=freeze))


def test_a_run_that_is_resumed_late_is_released_at_once() -> None:
    parts = FrozenParts(backbone_of("csp_nano"), BackboneConfig(freeze="backbone", unfreeze_epoch=3))
    assert not parts.release(2)
    assert parts.release(7)
    assert not parts.release(8), "only once"


TWO_PROCESSES = """
import os, sys
import lightning as L, torch
from detseg.config.schema.model import BackboneConfig
from detseg.config.schema.training import AdamWConfig
from detseg.structures import Batch, BoxTargets, ClassTable
from detseg.tasks import Detection
from detseg.training.task import Task
from tests.training.stub import CONSTANT, loader_of
from tests.training.optim.test_freezing import OnBackbone, backbone_of

class Report(L.Callback):
    def on_train_epoch_end(self, trainer, task):
        weight = task.model.backbone.stem[0].weight.detach()
        first, second = trainer.strategy.all_gather(weight)
        if trainer.is_global_zero:
            print("moved" if not torch.equal(weight, start) else "still", torch.equal(first, second), flush=True)

generator = torch.Generator().manual_seed(int(os.environ.get("LOCAL_RANK", 0)))  # other images in each process
images = torch.randint(0, 256, (2, 2, 3, 32, 32), dtype=torch.uint8, generator=generator)
freezing = BackboneConfig(freeze="backbone", unfreeze_epoch=2)
model = OnBackbone(backbone_of("csp_nano"))
task = Task(Detection(), model, ClassTable(("a",)), AdamWConfig(), CONSTANT, freezing=freezing)
start = task.model.backbone.stem[0].weight.detach().clone()
trainer = L.Trainer(
    accelerator="cpu", devices=2, strategy="ddp", max_epochs=2, logger=False, enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False, callbacks=[Report()], use_distributed_sampler=False,
    default_root_dir=sys.argv[1],
)
trainer.fit(task, loader_of([Batch(x, [BoxTargets.empty()] * 2, [0, 1]) for x in images]))
"""


def test_what_is_released_trains_alike_in_all_processes(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.endswith("True")] == ["still True", "moved True"]
