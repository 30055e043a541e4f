"""How several devices train one model: Lightning's strategies by name, and FSDP (Zhao et al. 2023), which keeps a part
of every weight, gradient and optimiser state on each GPU, with what it needs to know of a model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import FSDPStrategy, Strategy
from timm.layers.norm_act import convert_sync_batchnorm
from timm.models import FeatureListNet
from torch import nn
from torch.distributed.fsdp import MixedPrecision
from torch.distributed.fsdp.wrap import lambda_auto_wrap_policy

from detseg.config.schema.experiment import TrainerConfig
from detseg.errors import ConfigError

Model = TypeVar("Model", bound=nn.Module)


def check_device(settings: TrainerConfig, device_type: str) -> None:
    """Refuse what torch computes on NVIDIA's and AMD's GPUs alone.

    Raises:
        ConfigError: synchronised batch normalisation or FSDP on another device.
    """
    if device_type == "cuda":
        return
    if settings.sync_batchnorm:
        raise ConfigError(
            f"trainer.sync_batchnorm: torch synchronises batch normalisation on GPUs only, this run is on "
            f"{device_type}; set it to false"
        )
    if settings.strategy == "fsdp":
        raise ConfigError(
            f"trainer.strategy: fsdp shards over GPUs only, this run is on {device_type}; take ddp, or set "
            f"trainer.accelerator=gpu"
        )


def slurm_environment() -> list[SLURMEnvironment]:
    """SLURM's numbers of the processes, without Lightning's own saving and requeueing; nothing where SLURM has not
    started this process, or has by way of torchrun, which knows better."""
    by_slurm = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
    return [SLURMEnvironment(auto_requeue=False)] if by_slurm else []


def with_synchronised_norm(model: Model) -> Model:
    """The model with batch normalisation over the batches of all GPUs together; names and numbers stay as they are.

    timm's function, since torch's (which Lightning calls) drops the activation within timm's normalisation layers.
    """
    convert: Callable[[Model], Model] = convert_sync_batchnorm
    return convert(model)


def build_strategy(name: str, backbone: nn.Module | None) -> str | Strategy:
    """What Lightning's Trainer takes as its strategy; ``fsdp`` shards the stages of the backbone one by one."""
    if name != "fsdp":
        return name
    stages = set() if backbone is None else set(backbone_stages(backbone))
    return FSDPStrategy(
        auto_wrap_policy=partial(lambda_auto_wrap_policy, lambda_fn=stages.__contains__),
        mixed_precision=MixedPrecision(),  # autocast alone decides what is computed in bfloat16, as without FSDP
        state_dict_type="full",  # one plain file, as without FSDP
    )


def backbone_stages(backbone: nn.Module) -> list[nn.Module]:
    """The largest parts of a backbone that are called as modules of their own: of a list of modules its entries; a part
    that is used by another way than its call (timm's ``FeatureGetterNet``) stays whole within the backbone."""
    return [part for child in backbone.children() for part in _called_parts(child)]


def _called_parts(module: nn.Module) -> list[nn.Module]:
    if isinstance(module, nn.ModuleList | FeatureListNet) or type(module) is nn.ModuleDict:
        return [part for child in module.children() for part in _called_parts(child)]
    if isinstance(module, nn.ModuleDict) or not any(True for _ in module.parameters()):
        return []
    return [module]
