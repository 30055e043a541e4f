"""Runs that a step stops whose numbers are not finite, because of one known sample."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detseg.errors import DetsegError
from detseg.experiment import train
from detseg.models.rcnn.detector import RCNNDetector
from detseg.models.yolo.detector import YoloDetector
from tests.tiny import tiny_config, write_colors, write_config

YELLOW = 2
WHOLE: dict[Any, Any] = {model: model.losses for model in (RCNNDetector, YoloDetector)}
"""The losses of the models as they are."""
ODD_ONE = 5
"""Position of the only image with a yellow object."""


def break_losses(patch: pytest.MonkeyPatch, model: Any, broken: Any) -> None:
    """Have ``broken(model, terms, targets)`` change the loss terms of a class of models."""

    def losses(self: Any, images: Tensor, targets: Any) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = WHOLE[model](self, images, targets)
        broken(self, terms, targets)
        return terms

    patch.setattr(model, "losses", losses)


def batches_seen(model: nn.Module) -> int:
    """Batches that the first normalisation of a model has seen, this one included."""
    tracked = next(m.num_batches_tracked for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert tracked is not None
    return int(tracked)


def has_yellow(targets: Any) -> bool:
    return any(bool((target.labels == YELLOW).any()) for target in targets)


def bad_box(model: nn.Module, terms: dict[str, Tensor], targets: Any) -> None:
    """From the second epoch of 8 batches on, an image with yellow makes the term of the boxes NaN."""
    if batches_seen(model) > 8 and has_yellow(targets):
        terms["box"] = terms["box"] * float("nan")


def bad_slope(model: nn.Module, terms: dict[str, Tensor], targets: Any) -> None:
    """An image with yellow adds a term that is 0, and whose slope is not finite."""
    weight = next(model.parameters())
    terms["root"] = (weight.square().sum() * (0 if has_yellow(targets) else 1)).sqrt()


def one_yellow(root: Path) -> Path:
    """The data of ``write_colors``, where yellow is in one image alone."""
    data = write_colors(root)
    for path in (data / "Annotations").glob("*.xml"):
        path.write_text(path.read_text().replace("<name>yellow<", "<name>red<"))
    odd = data / "Annotations" / f"train{ODD_ONE:02d}.xml"
    odd.write_text(odd.read_text().replace("<name>blue<", "<name>yellow<").replace("<name>red<", "<name>yellow<"))
    return data


@dataclass(frozen=True)
class BrokenRun:
    """A run that a bad step has stopped: its folder, what it said, and the bundle that it left."""

    run_dir: Path
    message: str
    bundle: Path


def broken_run(folder: Path, write: Any, data: Path, *overrides: str) -> BrokenRun:
    """Train on the data with settings that ``write`` writes, until a bad step stops the run."""
    torch.set_num_threads(1)
    config_path = write(folder / "tiny.yaml", data)
    config = tiny_config(config_path, folder / "run", "trainer.max_epochs=3", "trainer.num_previews=0", *overrides)
    with pytest.raises(DetsegError) as caught:
        train(config, config_path)
    (bundle,) = (folder / "run").glob("nan_*")
    return BrokenRun(folder / "run", str(caught.value), bundle)


def broken_yolo(folder: Path, patch: pytest.MonkeyPatch) -> BrokenRun:
    """A YOLO whose box term is NaN in the second epoch; it stays broken as long as the patch."""
    break_losses(patch, YoloDetector, bad_box)
    return broken_run(folder, write_config, one_yellow(folder / "colors"))


def edit_json(bundle: Path, **changes: Any) -> None:
    """Change what a bundle says."""
    (bundle / "bundle.json").write_text(json.dumps(content(bundle) | changes))


def content(bundle: Path) -> dict[str, Any]:
    """What a bundle says."""
    read: dict[str, Any] = json.loads((bundle / "bundle.json").read_text())
    return read
