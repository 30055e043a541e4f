"""What FSDP and synchronised normalisation are made of; neither runs without GPUs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import FSDPStrategy
from torch import nn

from detseg.config.schema.experiment import AdamWConfig
from detseg.errors import ConfigError
from detseg.models.backbones.csp import CSPBackbone
from detseg.models.backbones.timm import TimmBackbone
from detseg.models.backbones.torchvision import TorchvisionResNet50
from detseg.models.backbones.unet import UNetEncoder
from detseg.training.distributed.strategy import backbone_stages, build_strategy, with_synchronised_norm
from detseg.training.optim.optimizers import parameter_groups, vectors
from detseg.training.setup.trainer import build_trainer
from tests.tiny import TinyRun, tiny_config

SHARDED = ("trainer.strategy=fsdp", "trainer.ema_decay=0", "trainer.gradient_clip_norm=0", "trainer.num_previews=0")


def test_fsdp_shards_the_stages_of_the_backbone_one_by_one() -> None:
    backbone = CSPBackbone(0.1, 0.0625)
    model = nn.ModuleDict({"backbone": backbone, "head": nn.Conv2d(4, 4, 1)})
    assert [build_strategy(name, None) for name in ("auto", "ddp")] == ["auto", "ddp"]  # Lightning's own
    strategy = build_strategy("fsdp", backbone)
    assert isinstance(strategy, FSDPStrategy)
    assert strategy._state_dict_type == "full"  # one plain file
    casts = strategy.mixed_precision_config
    assert casts is not None
    assert (casts.param_dtype, casts.reduce_dtype, casts.buffer_dtype) == (None, None, None)  # autocast alone decides
    policy = strategy.kwargs["auto_wrap_policy"]
    wrapped = [m for m in model.modules() if policy(module=m, recurse=False, nonwrapped_numel=1)]
    assert wrapped == [backbone.stem, *backbone.stages]
    assert policy(module=model, recurse=True, nonwrapped_numel=1)  # it looks inside of everything


@pytest.mark.parametrize(
    ("build", "num_stages"),
    [
        (lambda: CSPBackbone(0.1, 0.0625), 5),
        (lambda: UNetEncoder(width=0.0625), 5),
        (lambda: TimmBackbone("resnet18"), 6),
        (lambda: TimmBackbone("mobilenetv3_small_050"), 1),  # timm's module for it does more than call its parts
        (lambda: TimmBackbone("convnext_atto"), 6),
        (lambda: TorchvisionResNet50(freeze_bn=True), 5),
    ],
    ids=["csp", "unet", "resnet18", "mobilenetv3", "convnext", "published resnet50"],
)
def test_a_stage_is_called_and_has_weights_of_its_own(build: Any, num_stages: int) -> None:
    backbone = build().eval()
    stages, calls = backbone_stages(backbone), Counter[int]()
    assert len(stages) == num_stages
    for number, stage in enumerate(stages):
        stage.register_forward_hook(lambda *_, number=number: calls.update([number]))
    with torch.no_grad():
        backbone(torch.zeros(1, 3, 64, 64))
    assert calls == dict.fromkeys(range(len(stages)), 1)
    parameters = [parameter for stage in stages for parameter in stage.parameters()]
    assert len(set(parameters)) == len(parameters)
    assert set(parameters) == set(backbone.parameters())


def test_weights_that_are_sharded_are_decayed_as_before() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    undecayed = vectors(model)
    whole = [[id(p) for p in group["params"]] for group in parameter_groups(model, AdamWConfig())]  # type: ignore[attr-defined]  # it is a list
    for parameter in model.parameters():  # what FSDP does
        parameter.data = parameter.data.flatten()[:1]
    groups = parameter_groups(model, AdamWConfig(), undecayed=undecayed)
    assert [[id(p) for p in group["params"]] for group in groups] == whole  # type: ignore[attr-defined]  # it is a list
    assert [len(group) for group in whole] == [1, 3]


@pytest.mark.parametrize(
    ("overrides", "path"),
    [
        (("trainer.ema_decay=0.9",), "trainer.ema_decay"),
        (("trainer.gradient_clip_norm=1",), "trainer.gradient_clip_norm"),
        (("trainer.num_previews=1",), "trainer.num_previews"),
        (("trainer.compile=true",), "trainer.compile"),
        (("model.backbone.freeze=stem", "model.backbone.unfreeze_epoch=2"), "model.backbone.unfreeze_epoch"),
        (("trainer.strategy=fsdp_cpu_offload",), "trainer.strategy"),
    ],
)
def test_what_does_not_go_with_fsdp_is_one_line(overrides: tuple[str, ...], path: str, tiny_run: TinyRun) -> None:
    tiny_config(tiny_run.config_path, None, *SHARDED)
    with pytest.raises(ConfigError, match=f"{path}: .*fsdp") as caught:
        tiny_config(tiny_run.config_path, None, *SHARDED, *overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (SHARDED, "trainer.strategy: fsdp shards over GPUs only, this run is on cpu; take ddp, or set "),
        (
            ("trainer.sync_batchnorm=true",),
            "trainer.sync_batchnorm: torch synchronises batch normalisation on GPUs only",
        ),
    ],
    ids=["fsdp", "sync_batchnorm"],
)
def test_what_needs_gpus_is_refused_without(
    overrides: tuple[str, ...], line: str, tiny_run: TinyRun, tmp_path: Path
) -> None:
    config = tiny_config(tiny_run.config_path, tmp_path, *overrides)
    with pytest.raises(ConfigError) as caught:
        build_trainer(config, tmp_path, "val/AP")
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050"])
def test_synchronised_normalisation_is_the_same_network(name: str) -> None:
    torch.manual_seed(0)
    backbone = TimmBackbone(name).eval()
    images = torch.rand(1, 3, 64, 64)
    names = list(backbone.state_dict())
    with torch.no_grad():
        before = backbone(images)
        after = with_synchronised_norm(backbone)(images)
    for expected, found in zip(before, after, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d | nn.SyncBatchNorm)]
    assert norms
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    assert list(backbone.state_dict()) == names  # a checkpoint fits either
