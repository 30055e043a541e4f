"""Settings that are left out, chosen from the training set and the machine by a few rules (in the spirit of nnU-Net,
Isensee et al. 2021). docs/recipes.md has the measurements behind each.

What a configuration states is never changed, and the rules go by it: with ``data.image_size`` given, the sizes of
anchors are chosen for that. A section that is a choice, such as ``data.augmentation``, is chosen whole or not at all.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detseg.checkpoint import read_model_checkpoint
from detseg.config.load import config_from_dict, is_stated, stated_settings
from detseg.config.schema.data import ShapesConfig
from detseg.config.schema.experiment import CHOSEN_SETTINGS, ExperimentConfig
from detseg.config.schema.model import (
    DetectorConfig,
    MaskRcnnConfig,
    RcnnConfig,
    SegmenterConfig,
    UNetConfig,
    YoloConfig,
)
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.datasets.segmentation import SegmentationDataset
from detseg.errors import DetsegError
from detseg.messages import counted, quoted
from detseg.training.setup.facts import DataFacts, Machine

logger = logging.getLogger("detseg")

_STEP = 32
"""Sides of a detector's input are multiples of it."""
_LEAST_OBJECT, _LEAST_SIDE, _MOST_SIDE = 16, 320, 640
"""Pixels in the network input: of small objects, and bounds of its longer side."""
_MOST_ENLARGED = 384
"""Up to which images with small objects are enlarged, at most to twice their sides."""
_MOST_MAP_SIDE = {False: 320, True: 512}
"""Longest side of the input of a network for maps, pixels: whether it is on a GPU → the side."""
_FEW_IMAGES = 1000
"""Up to so many, batches are small, since they give more steps."""
_NUM_STEPS, _FEWEST_EPOCHS, _MOST_EPOCHS = 2000, 30, 300
NUM_VALIDATIONS = 15
_NETWORK = [f"model.{part}" for part in ("backbone", "neck", "rpn", "roi_heads", "mask", "output_stride", "upsampling")]
"""What has to be as in the checkpoint that a model begins with."""
_COCO_DETECTIONS = 100
"""Detections of a class in an image that COCO's AP counts."""
_SMALL_ANCHORS = [[16], [32], [64], [128], [256]]
_SMALL_ANCHORS_BELOW = 16
"""Pixels of small objects in the network input, which anchors from 32 pixels on do not fit."""
_MANY_OBJECTS = 50
"""In an image; more need more proposals."""
_MANY_PROPOSALS = {
    "batch_size_per_image": 256,
    "pre_nms_top_n_train": 1000,
    "post_nms_top_n_train": 1000,
    "pre_nms_top_n": 1000,
    "post_nms_top_n": 1000,
}
_USUAL_PROPOSALS = 1000
_FEW_PROPOSALS = {
    "batch_size_per_image": 128,
    "pre_nms_top_n_train": 1000,
    "post_nms_top_n_train": 500,
    "pre_nms_top_n": 500,
    "post_nms_top_n": 300,
}


@dataclass(frozen=True)
class Choice:
    """A setting that was left out.

    Attributes:
        path: its dotted name, or that of a section.
        value: of it, plain data.
        why: the reason, for the log and for comments in a file.
    """

    path: str
    value: Any
    why: str


def complete(config: ExperimentConfig, train_set: object, level: int = logging.INFO) -> ExperimentConfig:
    """The settings with those that were left out chosen for a training set of detseg's readers, each logged with the
    reason; for another set they stay as they are. DataError: the header of an image is wrong."""
    if not isinstance(train_set, DetectionDataset | SegmentationDataset):
        return config
    choices = recommend(config, DataFacts.of(train_set), Machine.of(config.trainer))
    for choice in choices:
        logger.log(level, f"{' '.join(_overrides(choice.path, choice.value))}: {choice.why}")
    return with_choices(config, {choice.path: choice.value for choice in choices})


def _overrides(path: str, value: Any) -> Iterator[str]:
    """The value of a setting or section as overrides of the command line."""
    if not isinstance(value, dict):
        yield f"{path}={json.dumps(value)}"
        return
    for key, part in value.items():
        yield from _overrides(f"{path}.{key}", part)


def taken_from(config: ExperimentConfig, stored: Mapping[str, Any]) -> ExperimentConfig:
    """The settings of a run that is resumed: those that would be chosen are as the run, whose plain settings are
    ``stored``, had them; and its budget is what it has made of it."""
    is_same = stored.get("model", {}).get("name") == config.model.name
    found = _unstated(config, stored, [path for path in CHOSEN_SETTINGS if is_same or not path.startswith("model.")])
    epochs = stored.get("trainer", {}).get("max_epochs")
    if config.trainer.budget is not None and epochs is not None:
        found |= {"trainer.max_epochs": epochs, "trainer.budget": None}
        logger.info(f"trainer.budget counts where a run begins; this one has chosen trainer.max_epochs={epochs}")
    return with_choices(config, found)


def _unstated(config: ExperimentConfig, stored: Mapping[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """What plain settings have for paths that a configuration does not state."""
    found: dict[str, Any] = {}
    for path in paths:
        value: Any = stored
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None and not is_stated(config, path):
            found[path] = value
    return found


def with_choices(config: ExperimentConfig, values: Mapping[str, Any]) -> ExperimentConfig:
    """The settings with these values, by their dotted names."""
    if not values:
        return config
    settings = stated_settings(config)
    for path, value in values.items():
        *parents, key = path.split(".")
        section = settings
        for parent in parents:
            section = section.setdefault(parent, {})
        section[key] = copy.deepcopy(value)
    return config_from_dict(settings, "settings chosen from the data")


def recommend(config: ExperimentConfig, facts: DataFacts, machine: Machine) -> list[Choice]:
    """What is chosen for the settings that a configuration leaves out; those of the synthetic shapes, and of modules
    of the user's own, stay at their defaults."""
    if isinstance(config.data, ShapesConfig) or config.model.name == "custom":
        return []
    draft = _Draft(config)
    draft.choose(_image_size(config, facts, machine))
    draft.choose(_batch_size(facts))
    draft.choose(_workers(machine))
    if config.trainer.budget is None and not config.trainer.overfit_batches:
        draft.choose(_epochs(config, draft.value("data.batch_size"), facts))
        if config.trainer.early_stopping_patience is None:  # which counts validations
            draft.choose(_validations(draft.value("trainer.max_epochs")))
    for choice in _augmentation(config, facts):
        draft.choose(choice)
    for choice in _model(config, draft, facts, machine):
        draft.choose(choice)
    for choice in _ceiling(config, facts):
        draft.choose(choice)
    return draft.choices


class _Draft:
    """The choices so far, and what was stated."""

    def __init__(self, config: ExperimentConfig) -> None:
        self._config = config
        self.choices: list[Choice] = []

    def choose(self, choice: Choice | None) -> None:
        """Take a choice, where nothing is stated."""
        if choice is not None and not is_stated(self._config, choice.path):
            self.choices.append(choice)

    def value(self, path: str) -> Any:
        """Of a setting, chosen or stated."""
        for choice in self.choices:
            if choice.path == path:
                return choice.value
        section: Any = self._config
        for key in path.split("."):
            section = getattr(section, key)
        return section


def _image_size(config: ExperimentConfig, facts: DataFacts, machine: Machine) -> Choice:
    path, (height, width) = "data.image_size", facts.hw
    longer = max(height, width)
    if isinstance(config.model, SegmenterConfig):
        most = _MOST_MAP_SIDE[machine.on_gpu]
        if facts.same_size and longer <= most and min(height, width) >= _STEP:
            return Choice(path, _square_or_both(height, width), "the size of the images: nothing is resampled")
        scale = min(1.0, most / longer)
        sides = (height, width) if facts.same_proportions else (longer, longer)
        value = _square_or_both(*(_rounded(side * scale) for side in sides))
        return Choice(path, value, f"images are about {width} x {height}{', reduced to save time' * (scale < 1)}")
    least = min(_LEAST_SIDE, _rounded_up(longer))
    most = max(least, min(_MOST_SIDE, _rounded_up(longer)), min(_MOST_ENLARGED, _rounded_up(2 * longer)))
    wanted = least if facts.small_object is None else _rounded_up(_LEAST_OBJECT / facts.small_object)
    side = min(max(wanted, least), most)
    small = "" if facts.small_object is None else f", small objects are {facts.small_object * side:.0f} pixels there"
    sides = (height, width) if facts.same_proportions else (longer, longer)
    value = _square_or_both(*(_rounded_up(each * side / longer) for each in sides))
    return Choice(path, value, f"images are about {width} x {height}{small}")


def _square_or_both(height: int, width: int) -> int | list[int]:
    return height if height == width else [height, width]


def _rounded(side: float) -> int:
    return max(_STEP, round(side / _STEP) * _STEP)


def _rounded_up(side: float) -> int:
    return max(_STEP, math.ceil(side / _STEP - 1e-6) * _STEP)


def _batch_size(facts: DataFacts) -> Choice:
    few = facts.num_images < _FEW_IMAGES
    why = "small batches give more steps" if few else "enough for a steady gradient"
    return Choice("data.batch_size", 8 if few else 16, f"{counted(facts.num_images, 'training image')}: {why}")


def _workers(machine: Machine) -> Choice:
    num_workers = min(8, max(1, machine.num_cores - 1))
    return Choice("data.num_workers", num_workers, f"cores for this training: {machine.num_cores}")


def _epochs(config: ExperimentConfig, batch_size: int | str, facts: DataFacts) -> Choice:
    steps = math.ceil(facts.num_images / (batch_size if isinstance(batch_size, int) else 16))
    epochs = min(max(round(_NUM_STEPS / steps), _FEWEST_EPOCHS), _MOST_EPOCHS)
    epochs = max(epochs, getattr(getattr(config.model, "backbone", None), "unfreeze_epoch", None) or 0)
    return Choice("trainer.max_epochs", epochs, f"steps of an epoch: {steps}, of the training: {epochs * steps}")


def _validations(epochs: int) -> Choice | None:
    every = max(1, round(epochs / NUM_VALIDATIONS))
    why = f"about {NUM_VALIDATIONS} validations choose the best epoch"
    return Choice("trainer.validate_every", every, why) if every > 1 else None


def is_directed(name: str) -> bool:
    """Whether a mirrored object is probably of another class, or of none: by ``left`` or ``right`` as a word, also in
    camelCase, ``l`` or ``r`` as one between spaces and the like; and of a name that is a letter or a number."""
    parts = [part.lower() for part in re.split(r"[\s_.:/-]+", name)]
    words = {word.lower() for word in re.findall(r"[A-Z]?[a-z']+|[A-Z]+(?![a-z])", name)}
    is_sign = len(name) == 1 or name.isdecimal()
    return is_sign or bool({"left", "right"} & words) or (len(parts) > 1 and bool({"l", "r"} & set(parts)))


def _augmentation(config: ExperimentConfig, facts: DataFacts) -> Iterator[Choice]:
    chosen: dict[str, Any] = {"color": {"probability": 0.5}}
    if isinstance(config.model, YoloConfig):
        chosen |= {"affine": {"probability": 0.5}, "mosaic": 0.5, "no_mosaic_last_epochs": 0.15}
    elif isinstance(config.model, RcnnConfig):
        chosen |= {"affine": {"probability": 0.5}}
    else:
        chosen |= {"scale_jitter": [0.7, 2.0]}
    whys = ["what measured best"]
    if directed := [name for name in facts.class_names if is_directed(name)]:
        why = f"a mirrored {quoted(directed[0])} is another class"
        if is_stated(config, "data.augmentation"):
            yield Choice("data.augmentation.horizontal_flip", 0.0, why)
        chosen["horizontal_flip"] = 0.0
        whys.append(why)
    yield Choice("data.augmentation", chosen, "; ".join(whys))


def _model(config: ExperimentConfig, draft: _Draft, facts: DataFacts, machine: Machine) -> Iterator[Choice]:
    """Smaller parts where a CPU trains from random weights; those of the checkpoint that a model begins with."""
    model = config.model
    if isinstance(weights := getattr(model, "weights", None), Path):
        with suppress(DetsegError):  # which is said when the weights are taken
            stored = read_model_checkpoint(weights).config
            if stored.get("model", {}).get("name") == model.name:
                for path, value in _unstated(config, stored, _NETWORK).items():
                    of_network = _without_training(value) if path == "model.backbone" else value
                    yield Choice(path, of_network, f"as in {weights}")
        return
    if weights is not None or getattr(model, "variant", "custom") != "custom":
        return
    if isinstance(model, RcnnConfig):
        proposals = dict[str, Any]()
        size = draft.value("data.image_size")
        side = size if isinstance(size, int) else max(size)
        whys = list[str]()
        small = facts.small_object is not None and facts.small_object * side < _SMALL_ANCHORS_BELOW
        if small and not is_stated(config, "model.strides"):
            proposals["anchor_sizes"] = _SMALL_ANCHORS
            whys.append(f"objects of less than {_SMALL_ANCHORS_BELOW} pixels need small anchors")
        light = "a light network, which a CPU trains in minutes"
        if not machine.on_gpu and not is_stated(config, "model.backbone"):
            yield Choice("model.backbone", {"name": "csp_nano"}, light)
            yield Choice("model.neck", {"name": "fpn", "channels": 64}, light)
            yield Choice("model.roi_heads", {"hidden": 256, "batch_size_per_image": 128}, light)
            if isinstance(model, MaskRcnnConfig):
                yield Choice("model.mask", {"channels": 64}, light)
            proposals |= _FEW_PROPOSALS
            whys.append(light)
            if facts.most_objects > _MANY_OBJECTS:
                proposals |= _MANY_PROPOSALS
        if (room := _room(facts)) > _USUAL_PROPOSALS:
            proposals |= {"pre_nms_top_n": room, "post_nms_top_n": room}
            whys.append(f"the fullest image has {facts.most_objects} objects")
        if proposals:
            yield Choice("model.rpn", proposals, "; ".join(whys))
    decides = ("model.backbone", "model.strides", "model.decoder_channels")
    if isinstance(model, UNetConfig) and not any(is_stated(config, path) for path in decides):
        yield Choice("model.backbone", {"name": "csp_small"}, "trains fast and well from random weights")
        yield Choice("model.output_stride", 2, "the last level would cost as much as all others together")
        yield Choice("model.upsampling", "resize", "cheaper, without a checkerboard")
        yield Choice("model.loss", {"dice": {"weight": 1.0}}, "Dice counts small classes as much as large ones")


def _without_training(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """What of the settings of a backbone makes its network."""
    return {key: backbone[key] for key in ("name", "depth", "width", "levels") if backbone.get(key) is not None}


def _room(facts: DataFacts) -> int:
    """For half as many objects again as the fullest image has."""
    return math.ceil(1.5 * facts.most_objects / 100) * 100


def _ceiling(config: ExperimentConfig, facts: DataFacts) -> Iterator[Choice]:
    """Room for all objects of the fullest image."""
    model = config.model
    if not isinstance(model, DetectorConfig):
        return
    wanted, kept = _room(facts), model.max_detections
    if facts.most_objects > kept:
        yield Choice("model.max_detections", wanted, f"the fullest image has {facts.most_objects} objects")
        kept = kept if is_stated(config, "model.max_detections") else wanted
    if min(facts.most_of_class, kept) > _COCO_DETECTIONS:
        why = f"{facts.most_of_class} objects of a class are in one image, and the {_COCO_DETECTIONS} that COCO counts"
        yield Choice("evaluation.max_detections", min(wanted, kept), f"{why} could not find all")
