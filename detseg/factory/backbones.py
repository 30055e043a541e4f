"""From settings to backbones and necks, which all models share."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from detseg.config.schema.model import BackboneConfig, NeckConfig
from detseg.errors import ConfigError
from detseg.models.backbones.csp import CSP_FAMILY, CSPBackbone
from detseg.models.backbones.unet import UNetEncoder
from detseg.models.necks import FPN, PAN

if TYPE_CHECKING:
    from detseg.models.backbones.timm import TimmBackbone

Backbone: TypeAlias = "CSPBackbone | UNetEncoder | TimmBackbone"

_PAPER_LEVELS = 5


def build_backbone(config: BackboneConfig, strides: tuple[int, ...] | None, load_pretrained: bool) -> Backbone:
    """The backbone that ``config`` describes; what is to be frozen is frozen by the task that trains it.

    Args:
        config: the ``model.backbone`` section.
        strides: of the maps that it returns; None: all that it has, 32 the coarsest.
        load_pretrained: fetch published weights where the settings ask for them.

    Raises:
        ConfigError: no such backbone, it lacks a stride, or a setting does not apply to it.
        DetsegError: published weights could not be loaded.
    """
    ours = ", ".join([*CSP_FAMILY, "unet"])
    _check_settings(config)
    backbone: Backbone
    try:
        if config.name in CSP_FAMILY:
            depth, width = CSP_FAMILY[config.name]
            backbone = CSPBackbone(config.depth or depth, config.width or width, strides)
        elif config.name == "unet":
            asked = _PAPER_LEVELS if strides is None else max(strides, default=1).bit_length()
            backbone = UNetEncoder(config.width or 1.0, config.levels or asked, strides)
        else:
            from detseg.models.backbones.timm import TimmBackbone  # takes half a second, an eighth of the predictor's

            backbone = TimmBackbone(config.name, config.pretrained and load_pretrained, strides)
    except ValueError as error:
        raise ConfigError(f"model.backbone: {error}; ours are {ours}") from error
    return backbone


def _check_settings(config: BackboneConfig) -> None:
    """Refuse what does not apply to the backbone of this name."""
    is_csp, is_unet = config.name in CSP_FAMILY, config.name == "unet"
    if (is_csp or is_unet) and config.pretrained:
        raise ConfigError(f"model.backbone.pretrained: no weights are published for {config.name!r}")
    if is_unet and config.depth is not None:
        raise ConfigError(
            f"model.backbone.depth: belongs to {', '.join(CSP_FAMILY)}; 'unet' has none, set model.backbone.levels"
        )
    if not is_unet and config.levels is not None:
        raise ConfigError(f"model.backbone.levels: belongs to unet; {config.name!r} has none")
    if not (is_csp or is_unet) and (config.depth is not None or config.width is not None):
        raise ConfigError(
            f"model.backbone: depth and width belong to {', '.join(CSP_FAMILY)}, width also to unet; "
            f"{config.name!r} has none"
        )


def build_neck(
    config: NeckConfig, backbone: BackboneConfig, in_channels: tuple[int, ...], strides: tuple[int, ...]
) -> FPN | PAN:
    """The neck that ``config`` describes, on a backbone with ``in_channels``.

    Raises:
        ConfigError: a setting that does not apply to this neck.
    """
    match config.name:
        case "fpn":
            if config.depth is not None:
                raise ConfigError("model.neck.depth: belongs to pan, an fpn has no CSP layers; leave it out")
            return FPN(in_channels, strides, config.channels or in_channels[0])
        case "pan":
            if len(strides) == 1 and (config.channels is not None or config.depth is not None):
                raise ConfigError(
                    "model.neck: a pan on one stride passes the backbone's map on as it is, so channels and depth do "
                    "not apply; leave them out, or set model.neck.name=fpn"
                )
            family_depth, _ = CSP_FAMILY.get(backbone.name, CSP_FAMILY["csp_nano"])
            first = config.channels
            channels = in_channels if first is None else tuple(first * 2**i for i in range(len(in_channels)))
            return PAN(in_channels, strides, channels, config.depth or backbone.depth or family_depth)
