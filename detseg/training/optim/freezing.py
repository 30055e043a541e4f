"""Transfer learning: parts of a backbone that stay as they are, for the whole training or for its first epochs."""

from __future__ import annotations

from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from detseg.config.schema.model import BackboneConfig
from detseg.errors import ConfigError

NORMALIZATION = (nn.BatchNorm2d, nn.SyncBatchNorm)  # layers that measure statistics while they train


class FrozenParts:
    """What of a backbone is not trained. Normalisation whose weights are frozen keeps its statistics (``Task.train``).

    Args:
        backbone: with ``freeze_stages(n)``, as every backbone of ours; its parameters are switched off here.
        config: what to freeze, and until when.

    Attributes:
        held: the parameters that train again from ``unfreeze_epoch`` on; empty where that is never.

    Raises:
        ConfigError: the backbone has not so many stages, or no normalisation to freeze.
    """

    def __init__(self, backbone: nn.Module, config: BackboneConfig) -> None:
        trained = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
        if config.freeze == "backbone":
            backbone.requires_grad_(False)
        elif config.freeze != "none":
            _freeze_stages(backbone, 1 if config.freeze == "stem" else config.freeze)
        self.unfreeze_epoch = config.unfreeze_epoch
        self.held = [p for p in trained if not p.requires_grad] if config.unfreeze_epoch is not None else []
        if config.freeze_bn:
            norms = _freeze_norm(backbone)
            self.held = [parameter for parameter in self.held if parameter not in norms]

    def release(self, epoch: int) -> bool:
        """Let the held parameters train if ``epoch``, which begins (from 1), is theirs; whether they now do."""
        if self.unfreeze_epoch is None or epoch < self.unfreeze_epoch or not self.held:
            return False
        for parameter in self.held:
            parameter.requires_grad_(True)
        self.held = []
        return True


def _freeze_norm(backbone: nn.Module) -> set[nn.Parameter]:
    norms = [module for module in backbone.modules() if isinstance(module, (*NORMALIZATION, FrozenBatchNorm2d))]
    if not norms:
        raise ConfigError(
            "model.backbone.freeze_bn: this backbone has no batch normalisation; set it to false, or take another one"
        )
    return {parameter for module in norms for parameter in module.requires_grad_(False).parameters()}


def _freeze_stages(backbone: nn.Module, num_stages: int) -> None:
    freeze_stages = getattr(backbone, "freeze_stages", None)
    if freeze_stages is None:
        raise ConfigError(
            f"model.backbone.freeze: a {type(backbone).__name__} has no stages to freeze; take none or backbone"
        )
    try:
        freeze_stages(num_stages)
    except ValueError as error:
        raise ConfigError(f"model.backbone.{error}; or freeze the whole backbone") from error
