"""What is frozen does not move by a bit, weights and statistics; and it moves once its epoch has come."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from detseg.config.schema.experiment import AdamWConfig
from detseg.config.schema.model import BackboneConfig
from detseg.errors import ConfigError
from detseg.factory.backbones import build_backbone
from detseg.structures import Batch, BoxTargets, ClassTable
from detseg.tasks import Detection
from detseg.training.optim.freezing import FrozenParts
from detseg.training.optim.optimizers import build_optimizer
from detseg.training.task import Task
from tests.forked import run_together
from tests.training.stub import CONSTANT, SILENT, OneWeight, loader_of

pytestmark = pytest.mark.filterwarnings("ignore")


def backbone_of(name: str) -> Any:
    torch.manual_seed(0)
    width = 0.0625 if name.startswith("csp") else None
    return build_backbone(BackboneConfig(name=name, width=width), (8, 16, 32), load_pretrained=False)


class OnBackbone(OneWeight):
    """A detector whose loss is that of a backbone's maps, and which finds what ``OneWeight`` finds."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def losses(self, images: Tensor, targets: list[BoxTargets]) -> dict[str, Tensor]:
        return {"maps": torch.stack([(x - self.weight).square().mean() for x in self.backbone(images)]).sum()}


class Snapshots(Callback):
    """The state of the trained and of the averaged model at the beginning and after each epoch."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.states.append({name: value.clone() for name, value in pl_module.state_dict().items()})

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.on_train_start(trainer, pl_module)

    def moved(self, epoch: int, prefix: str = "model.backbone.") -> set[str]:
        """The entries of a backbone that an epoch (from 1) changed."""
        before, after = self.states[epoch - 1], self.states[epoch]
        changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
        return {name.removeprefix(prefix) for name in changed if name.startswith(prefix)}


def train(freezing: BackboneConfig, backbone: nn.Module, folder: Path, epochs: int = 1, **options: Any) -> Snapshots:
    """Train with weight decay and an average of the weights, which could move what has no gradient, too; each process
    has images of its own."""
    snapshots, optimizer = Snapshots(), AdamWConfig(lr=0.01, weight_decay=0.5)
    model, classes = OnBackbone(backbone), ClassTable(("a", "b"))
    task = Task(Detection(), model, classes, optimizer, CONSTANT, ema_decay=0.5, freezing=freezing)
    generator = torch.Generator().manual_seed(int(os.environ.get("RANK", 0)))
    images = torch.randint(0, 256, (3, 2, 3, 64, 64), dtype=torch.uint8, generator=generator)
    batches = [Batch(x, [BoxTargets.empty(), BoxTargets.empty()], [0, 1]) for x in images]
    options |= {"max_epochs": epochs, **SILENT}
    trainer = L.Trainer(accelerator="cpu", callbacks=[snapshots], default_root_dir=folder, **options)
    trainer.fit(task, loader_of(batches))
    return snapshots


FIRST_STAGES = {"csp_nano": ["stem.", "stages.0."], "test_resnet": ["body.conv1.", "body.bn1.", "body.layer1."]}


@pytest.mark.parametrize(
    ("name", "freeze", "num_frozen"),
    [("csp_nano", "stem", 1), ("csp_nano", 2, 2), ("test_resnet", "stem", 2), ("test_resnet", 2, 3)],
)
def test_frozen_stages_do_not_move_by_a_bit(name: str, freeze: Any, num_frozen: int, tmp_path: Path) -> None:
    backbone = backbone_of(name)
    frozen = {key for key in backbone.state_dict() if key.startswith(tuple(FIRST_STAGES[name][:num_frozen]))}
    snapshots = train(BackboneConfig(freeze=freeze), backbone, tmp_path)
    assert frozen
    assert snapshots.moved(1) == backbone.state_dict().keys() - frozen
    assert snapshots.moved(1, "average.model.backbone.").isdisjoint(frozen)


@pytest.mark.parametrize("freeze_bn", [False, True])
def test_a_frozen_backbone_trains_from_its_epoch_on(freeze_bn: bool, tmp_path: Path) -> None:
    backbone = backbone_of("csp_nano")
    modules = {name: module for name, module in backbone.named_modules() if isinstance(module, nn.BatchNorm2d)}
    norms = {f"{name}.{key}" for name, module in modules.items() if freeze_bn for key in module.state_dict()}
    config = BackboneConfig(freeze="backbone", unfreeze_epoch=2, freeze_bn=freeze_bn)
    snapshots = train(config, backbone, tmp_path, epochs=3)
    assert snapshots.moved(1) == snapshots.moved(1, "average.model.backbone.") == set()
    for epoch in (2, 3):
        assert snapshots.moved(epoch) == backbone.state_dict().keys() - norms


def test_without_freezing_all_moves_and_frozen_normalisation_alone_stays(tmp_path: Path) -> None:
    backbone = backbone_of("csp_nano")
    assert train(BackboneConfig(), backbone, tmp_path).moved(1) == backbone.state_dict().keys()
    moved = train(BackboneConfig(freeze_bn=True), backbone, tmp_path).moved(1)
    assert moved == {f"{name}.weight" for name, part in backbone.named_modules() if isinstance(part, nn.Conv2d)}


class Bare(nn.Module):
    def stage_parameters(self) -> list[list[nn.Parameter]]:
        return []


@pytest.mark.parametrize(
    ("backbone", "settings", "message"),
    [
        (
            Bare(),
            {"freeze": 2},
            r"model\.backbone\.freeze: expected .* a stage that this backbone has \(none\), got 2; or freeze",
        ),
        (nn.Linear(2, 2), {"freeze": 2}, r"model\.backbone\.freeze: a Linear has no stages \(stage_parameters\(\)"),
        (nn.GroupNorm(2, 4), {"freeze_bn": True}, r"model\.backbone\.freeze_bn: this backbone has no batch norm"),
    ],
)
def test_what_is_not_there_cannot_be_frozen(backbone: nn.Module, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        FrozenParts(backbone, BackboneConfig(**settings))


@pytest.mark.parametrize(("name", "fraction", "num_layers"), [("csp_nano", 0.25, 7), ("test_resnet", 0.5, 8)])
def test_a_fraction_of_the_layers_is_counted_from_the_image(name: str, fraction: float, num_layers: int) -> None:
    backbone = backbone_of(name)
    FrozenParts(backbone, BackboneConfig(freeze=fraction))
    layers = [parameter for parameter in backbone.parameters() if parameter.ndim > 1]
    assert num_layers == round(fraction * len(layers))
    assert [parameter.requires_grad for parameter in layers] == [k >= num_layers for k in range(len(layers))]
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert sum(not norm.weight.requires_grad for norm in norms) == num_layers


@pytest.mark.parametrize(("fraction", "num_layers"), [(0.001, 1), (0.999, 14)])
def test_a_fraction_is_neither_nothing_nor_all(fraction: float, num_layers: int) -> None:
    backbone = backbone_of("test_resnet")  # of 15 layers
    FrozenParts(backbone, BackboneConfig(freeze=fraction))
    layers = [parameter.requires_grad for parameter in backbone.parameters() if parameter.ndim > 1]
    assert layers == [False] * num_layers + [True] * (15 - num_layers)


@pytest.mark.parametrize("key", ["backbone_lr_scale", "layer_decay"])
def test_what_never_trains_has_no_rate(key: str) -> None:
    model = OnBackbone(backbone_of("csp_nano"))
    parts = FrozenParts(model.backbone, BackboneConfig(freeze=5, unfreeze_epoch=2))
    config = AdamWConfig(**{key: 0.5})
    build_optimizer(config, model, parts.held)
    with pytest.raises(
        ConfigError, match=rf"^optimizer\.{key}: the whole backbone is always frozen, so it has no rate; leave it out"
    ):
        build_optimizer(config, model)


def test_gradual_unfreezing_goes_from_the_last_stage_to_the_image() -> None:
    backbone = backbone_of("csp_nano")
    parts = FrozenParts(backbone, BackboneConfig(freeze="backbone", unfreeze_epoch=3, unfreeze_every=2))

    def trained() -> set[str]:
        found = [name.split(".")[:2] for name, p in backbone.named_parameters() if p.requires_grad]
        return {stage if kind == "stages" else "stem" for kind, stage in found}

    found = {}
    for epoch in range(1, 14):
        held = len(parts.held)
        assert parts.release(epoch) == (len(parts.held) < held)
        found[epoch] = trained()
    assert found[2] == set()
    assert found[3] == found[4] == {"3"}
    assert found[5] == {"2", "3"}
    assert found[9] == found[10] == {"0", "1", "2", "3"}
    assert found[11] == found[13] == {"0", "1", "2", "3", "stem"}
    late = FrozenParts(backbone_of("csp_nano"), BackboneConfig(freeze=2, unfreeze_epoch=3, unfreeze_every=2))
    assert [late.release(epoch) for epoch in (4, 5, 6)] == [True, True, False]  # resumed in the fourth


def test_a_run_that_is_resumed_late_is_released_at_once() -> None:
    parts = FrozenParts(backbone_of("csp_nano"), BackboneConfig(freeze="backbone", unfreeze_epoch=3))
    assert [parts.release(epoch) for epoch in (2, 7, 8)] == [False, True, False]


def train_in_two(folder: Path) -> list[list[float]]:
    """The first convolution's weights at the beginning and after each epoch."""
    config = BackboneConfig(freeze="backbone", unfreeze_epoch=2)
    options = {"strategy": "ddp", "devices": 2, "use_distributed_sampler": False}
    snapshots = train(config, backbone_of("csp_nano"), folder, epochs=2, **options)
    return [state["model.backbone.stem.0.weight"].flatten().tolist() for state in snapshots.states]


@pytest.mark.processes
def test_what_is_released_trains_alike_in_all_processes(tmp_path: Path) -> None:
    first, second = run_together(train_in_two, 2, tmp_path)
    assert first == second
    assert first[0] == first[1] != first[2]
