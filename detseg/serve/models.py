"""The models of a service: opened once, named, and told apart by what they find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detseg.draw import Color, class_colors
from detseg.draw.classes import told_apart
from detseg.errors import ConfigError
from detseg.predict import load_predictor
from detseg.predict.interface import ObjectPredictor
from detseg.serve.settings import ServiceSettings

_NUM_SHADES = 6


@dataclass(frozen=True)
class ServedModel:
    """A model by its name.

    Attributes:
        name: that of its run or file; no two are equal.
        predictor: an ``ImagePredictor``, of whatever runtime.
    """

    name: str
    predictor: Any

    @property
    def finds_objects(self) -> bool:
        """Whether its results are ``Detections``; else they are ``SegmentationMap``."""
        return isinstance(self.predictor, ObjectPredictor)

    def describe(self) -> dict[str, Any]:
        """For a client: name, task, classes with the colours that pictures show them in, and of each class those of
        objects that touch, its own first."""
        names = self.predictor.classes.names
        colors = class_colors(names)
        alike = np.zeros((_NUM_SHADES, 4))  # boxes that all touch
        shades = [[_hex(one) for one in told_apart([color] * _NUM_SHADES, alike, len(names) == 1)] for color in colors]
        task = "detection" if self.finds_objects else "segmentation"
        described = {"name": self.name, "task": task, "classes": list(names), "colors": [_hex(one) for one in colors]}
        return described | {"shades": shades}


def _hex(color: Color) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def open_models(paths: Sequence[Path], settings: ServiceSettings) -> list[ServedModel]:
    """Open run directories and files for a service.

    Raises:
        DetsegError: as of ``detseg.load_predictor``; or there are no paths.
    """
    if not paths:
        raise ConfigError("no model given: name a run directory or a checkpoint")
    models: dict[str, ServedModel] = {}
    for path in paths:
        predictor: Any = load_predictor(path, settings.device)
        if isinstance(predictor, ObjectPredictor):
            predictor.score_threshold = settings.min_score
        name = own = _name_of(path)
        number = 2
        while name in models:
            name, number = f"{own}-{number}", number + 1
        models[name] = ServedModel(name, predictor)
    return list(models.values())


def _name_of(path: Path) -> str:
    """Of ``runs/mine``, ``runs/mine/checkpoints/best.ckpt`` and ``mine.safetensors`` alike: mine."""
    path = path.resolve()
    if path.is_dir():
        return path.name
    return path.parent.parent.name if path.parent.name == "checkpoints" else path.stem
