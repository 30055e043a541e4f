"""Models by the names and settings of the configuration files, for Python: ``detseg.build_model``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detseg.config.load import config_from_dict
from detseg.config.schema.experiment import ModelConfig
from detseg.errors import ConfigError
from detseg.factory import Model
from detseg.factory import build_model as build_from_settings
from detseg.structures import ClassTable


@dataclass(frozen=True)
class BuiltFrom:
    """What a model was built from (its attribute ``built_from``), by which checkpoints describe it."""

    config: ModelConfig
    classes: ClassTable


def build_model(
    name: str,
    classes: ClassTable | Sequence[str],
    backbone: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Model:
    """Build a model with weights at their start.

    Args:
        name: ``yolo``, ``faster_rcnn``, ``mask_rcnn``, ``fcn`` or ``unet``.
        classes: of the data: ``train_set.classes``, or names in label order; of fcn and unet with the background.
        backbone: ``csp_nano``, ``unet``, or any timm model with feature maps, such as ``resnet18``; None: the usual one
            of the model.
        settings: other settings of the model by their dotted names below ``model`` (docs/configuration.md), such as
            ``{"backbone.pretrained": True, "head.name": "grid"}``.

    Returns:
        A module that keeps the ``Detector`` or ``Segmenter`` contract (``detseg.models.interface``).

    Raises:
        ConfigError: a setting is wrong; one line for each.
        DetsegError: published weights could not be loaded.
    """
    if isinstance(classes, str):
        raise ConfigError(f"classes: expected a table or names, such as [{classes!r}], got {classes!r}")
    table = classes if isinstance(classes, ClassTable) else ClassTable(tuple(classes))
    given = {f"model.{key}": value for key, value in (settings or {}).items()}
    if backbone is not None:
        given["model.backbone.name"] = backbone
    config = config_from_dict({"model": {"name": name}, "data": {"name": "custom"}}, "build_model", given).model
    model: Any = build_from_settings(config, table)
    model.built_from = BuiltFrom(config, table)
    return model  # type: ignore[no-any-return]  # nn.Module declares that all its attributes are modules
