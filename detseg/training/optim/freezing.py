"""Transfer learning: parts of a backbone that stay as they are, for the whole training or for its first epochs."""

from __future__ import annotations

from itertools import accumulate

from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from detseg.config.schema.model import BackboneConfig
from detseg.errors import ConfigError
from detseg.messages import listed

NORMALIZATION = (nn.BatchNorm2d, nn.SyncBatchNorm)  # layers that measure statistics while they train


class FrozenParts:
    """What of a backbone is not trained. Normalisation whose weights are frozen keeps its statistics (``Task.train``).

    Args:
        backbone: with ``stage_parameters()``, as every backbone of ours; its parameters are switched off here.
        config: what to freeze, and until when.

    Raises:
        ConfigError: the backbone has not so many stages, or no normalisation to freeze.
    """

    def __init__(self, backbone: nn.Module, config: BackboneConfig) -> None:
        trained = {parameter for parameter in backbone.parameters() if parameter.requires_grad}
        frozen = [parameter for parameter in _chosen(backbone, config.freeze) if parameter in trained]
        for parameter in frozen:
            parameter.requires_grad_(False)
        norms = _freeze_norm(backbone) if config.freeze_bn else set()
        waiting = [parameter for parameter in frozen if parameter not in norms]
        self._waiting: list[tuple[int, list[nn.Parameter]]] = []  # from which epoch on which parameters train
        if config.unfreeze_epoch is not None and config.unfreeze_every is None:
            self._waiting = [(config.unfreeze_epoch, waiting)]
        elif config.unfreeze_epoch is not None and config.unfreeze_every is not None:
            parts = _from_the_last_stage(backbone, waiting)
            self._waiting = [(config.unfreeze_epoch + k * config.unfreeze_every, part) for k, part in enumerate(parts)]

    @property
    def held(self) -> list[nn.Parameter]:
        """The parameters that are frozen now, and train later."""
        return [parameter for _, part in self._waiting for parameter in part]

    def turns_after(self, last_epoch: int) -> list[int]:
        """The epochs, from 1, in which something would be released, but which do not come."""
        return [first for first, _ in self._waiting if first > last_epoch]

    def release(self, epoch: int) -> bool:
        """Let the parameters train whose epoch, from 1, has come, as ``epoch`` begins; whether there are any."""
        released = [parameter for first, part in self._waiting if first <= epoch for parameter in part]
        for parameter in released:
            parameter.requires_grad_(True)
        self._waiting = [(first, part) for first, part in self._waiting if first > epoch]
        return bool(released)


def stage_parameters(backbone: nn.Module, setting: str) -> list[list[nn.Parameter]]:
    """The parameters of each stage of a backbone, from the image on. A ConfigError that names the ``setting`` which
    asks for them: this one has no stages."""
    stages = getattr(backbone, "stage_parameters", None)
    if stages is None:
        what = f"a {type(backbone).__name__} has no stages (stage_parameters(), see docs/extending.md)"
        raise ConfigError(f"{setting}: {what}; leave it out, or take another backbone")
    found: list[list[nn.Parameter]] = stages()
    return found


def freeze_stages(backbone: nn.Module, num_stages: int) -> None:
    """Stop training the first stages of a backbone; a ConfigError if it has not so many."""
    for parameter in _of_stages(backbone, num_stages):
        parameter.requires_grad_(False)


def _chosen(backbone: nn.Module, freeze: str | float) -> list[nn.Parameter]:
    """What to freeze: all, so many stages, or a fraction of the layers, each with the normalisation behind it."""
    match freeze:
        case "none":
            return []
        case "backbone":
            return list(backbone.parameters())
        case "stem":
            return _of_stages(backbone, 1)
        case int():
            return _of_stages(backbone, freeze)
    parameters = list(backbone.parameters())
    layer_of = list(accumulate(int(parameter.ndim > 1) for parameter in parameters))
    wanted = min(max(1, round(float(freeze) * layer_of[-1])), layer_of[-1] - 1)  # neither none nor all
    return [parameter for parameter, layer in zip(parameters, layer_of, strict=True) if layer <= wanted]


def _of_stages(backbone: nn.Module, number: int) -> list[nn.Parameter]:
    stages = stage_parameters(backbone, "model.backbone.freeze")
    possible = [str(k) for k, stage in enumerate(stages, start=1) if stage]
    if number and str(number) not in possible:
        what = f"expected the number of a stage that this backbone has ({listed(possible) or 'none'}), got {number}"
        raise ConfigError(f"model.backbone.freeze: {what}; or freeze the whole backbone")
    return [parameter for stage in stages[:number] for parameter in stage]


def _from_the_last_stage(backbone: nn.Module, parameters: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Parameters by their stage, the last stage first; those that are in none are with it."""
    stages = [set(stage) for stage in stage_parameters(backbone, "model.backbone.unfreeze_every")]
    inner = set[nn.Parameter]().union(*stages[:-1])
    stages[-1:] = [{parameter for parameter in parameters if parameter not in inner}]
    parts = [[parameter for parameter in parameters if parameter in stage] for stage in reversed(stages)]
    return [part for part in parts if part]


def _freeze_norm(backbone: nn.Module) -> set[nn.Parameter]:
    norms = [module for module in backbone.modules() if isinstance(module, (*NORMALIZATION, FrozenBatchNorm2d))]
    if not norms:
        raise ConfigError(
            "model.backbone.freeze_bn: this backbone has no batch normalisation; set it to false, or take another one"
        )
    return {parameter for module in norms for parameter in module.requires_grad_(False).parameters()}
