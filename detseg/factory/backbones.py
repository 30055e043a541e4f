"""From settings to backbones and necks, which all models share."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeAlias

from detseg.config.schema.model import BackboneConfig, NeckConfig
from detseg.errors import CheckpointError, ConfigError
from detseg.factory.backbone_weights import take_backbone_weights
from detseg.models.backbones.csp import CSP_FAMILY, CSPBackbone
from detseg.models.backbones.unet import UNetEncoder
from detseg.models.necks import FPN, PAN

if TYPE_CHECKING:
    from detseg.models.backbones.timm import TimmBackbone

logger = logging.getLogger("detseg")

Backbone: TypeAlias = "CSPBackbone | UNetEncoder | TimmBackbone"

_CSP_NAMES = ", ".join(CSP_FAMILY)


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
    is_csp, is_unet = config.name in CSP_FAMILY, config.name == "unet"
    for setting, applies, owners in (
        ("depth", is_csp, _CSP_NAMES),
        ("width", is_csp or is_unet, f"{_CSP_NAMES}, unet"),
        ("levels", is_unet, "unet"),
        ("pretrained", not (is_csp or is_unet), "timm models; no weights are published for ours"),
    ):
        if not applies and getattr(config, setting) not in (None, False):
            raise ConfigError(f"model.backbone.{setting}: does not apply to {config.name!r}, belongs to {owners}")
    if config.weights is not None and config.pretrained:
        raise ConfigError("model.backbone.weights: takes the place of the published weights; set pretrained to false")
    try:
        backbone = _build(config, strides, load_pretrained)
    except ValueError as error:
        raise ConfigError(f"model.backbone: {error}; ours are {_CSP_NAMES}, unet") from error
    if config.weights is not None and load_pretrained:
        try:
            found = take_backbone_weights(backbone, config.weights, config.name)
        except CheckpointError as error:
            raise CheckpointError(f"model.backbone.weights: {error}") from error
        for line in found.lines():
            logger.info(f"weights of the backbone: {config.weights}: {line}")
    return backbone


def _build(config: BackboneConfig, strides: tuple[int, ...] | None, load_pretrained: bool) -> Backbone:
    if config.name in CSP_FAMILY:
        depth, width = CSP_FAMILY[config.name]
        return CSPBackbone(config.depth or depth, config.width or width, strides)
    if config.name == "unet":
        asked = 5 if strides is None else max(strides, default=1).bit_length()  # 5 in the paper
        return UNetEncoder(config.width or 1.0, config.levels or asked, strides)
    from detseg.models.backbones.timm import TimmBackbone  # timm takes half a second to import

    return TimmBackbone(config.name, config.pretrained and load_pretrained, strides)


def build_neck(
    config: NeckConfig, backbone: BackboneConfig, in_channels: tuple[int, ...], strides: tuple[int, ...]
) -> FPN | PAN:
    """The neck that ``config`` describes, on a backbone with ``in_channels``. ConfigError: a setting that does not
    apply to this neck."""
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
