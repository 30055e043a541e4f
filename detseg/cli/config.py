"""`detseg config`."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detseg.cli.tool import ToolParser
from detseg.config.describe import help_text
from detseg.config.load import config_from_dict, plain_to_yaml
from detseg.config.schema.experiment import ExperimentConfig
from detseg.errors import ConfigError, DataError
from detseg.messages import one_line, printable

if TYPE_CHECKING:
    from detseg.training.setup.recipe import Choice

_DATA = {
    "voc": """\
  name: voc
  root: data/mine              # with Annotations/, ImageSets/Main/ (train.txt, val.txt) and JPEGImages/
""",
    "coco": """\
  name: coco
  root: data/mine              # the paths below are relative to it
  train_images: train
  train_annotations: annotations/instances_train.json
  val_images: val
  val_annotations: annotations/instances_val.json
""",
    "mask_folder": """\
  name: mask_folder
  root: data/mine              # the paths below are relative to it; classes.txt in it: one class a line
  train_images: train/images
  train_masks: train/masks
  val_images: val/images
  val_masks: val/masks
""",
    "yolo": """\
  name: yolo
  root: data/mine              # with data.yaml (names, train, val), images/ and labels/
""",
    "labelme": """\
  name: labelme
  root: data/mine              # with a folder of images and JSON files for each split
  train_split: train
  val_split: val
""",
    "cvat": """\
  name: cvat
  root: data/mine              # with annotations.xml and images/
  train_split: Train           # a subset that the file names, or an XML file
  val_split: Validation
""",
    "auto": """\
  name: auto                   # detseg finds out how the folder is laid out
  root: data/mine
""",
    "shapes": """\
  name: shapes                 # images that are made for a first try
  root: data/shapes
""",
}
_BOXES = tuple(name for name in _DATA if name != "mask_folder")
_OUTLINES = tuple(name for name in _BOXES if name != "voc")
_LAYOUTS = {"yolo": _BOXES, "faster_rcnn": _BOXES, "mask_rcnn": _OUTLINES, "fcn": (*_DATA,), "unet": (*_DATA,)}
"""Model → the layouts that have what it learns from: boxes, masks of objects, or the class of each pixel."""

_TEXT = """\
# Train it: detseg train THIS_FILE. All settings: detseg config explain
# What is left out, such as data.image_size or trainer.max_epochs, a training chooses from the data (docs/recipes.md).
data:
{data}model:
  name: {model}
"""
_WIDTH = 110


def config(argv: Sequence[str]) -> None:
    """A new file, or settings in words: detseg config new DIR [--model unet]; detseg config explain model.head"""
    parser = ToolParser("config", "Write a configuration file for a model and a layout of data, or explain settings.")
    parser.add_argument("action", choices=("new", "explain"), help="what to print: a new file, or settings in words")
    what = "new: the folder of your data, whose layout is found out; explain: a setting or section, as model.head (all)"
    parser.add_argument("what", nargs="?", default="", metavar="DIR|SETTING", help=what)
    parser.add_argument("--model", choices=tuple(_LAYOUTS), help="new: the model (one that learns from the data)")
    budget = "new DIR: how long a training may take, such as 30m or 2h (as many epochs as measured well)"
    parser.add_argument("--budget", metavar="TIME", help=budget)
    parser.add_argument("--data", choices=tuple(_DATA), help="new, without DIR: the layout of the data (voc)")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.action == "explain":
        if arguments.model or arguments.data or arguments.budget:
            raise ConfigError("--model, --data and --budget are for `config new`, not for `explain`; leave them out")
        print(help_text(arguments.what))
        return
    if arguments.what:
        if arguments.data:
            raise ConfigError("--data is for a file without DIR, whose layout is found out; leave one of them out")
        print(_new_for_folder(Path(arguments.what), arguments.model, arguments.budget), end="")
        return
    if arguments.budget:
        raise ConfigError("--budget is for the file of a folder: detseg config new DIR --budget 30m")
    model, data = arguments.model or "yolo", arguments.data or "voc"
    if data not in (layouts := _LAYOUTS[model]):
        raise ConfigError(f"--data {data}: has not what {model} learns; take {' or '.join(layouts)}")
    text, boxes = _TEXT.format(data=_DATA[data], model=model), "Annotations/, ImageSets/Main/"
    masks = "SegmentationClass/, classes.txt, ImageSets/Segmentation/"
    print(text.replace(boxes, masks) if model in ("fcn", "unet") else text, end="")


def _new_for_folder(folder: Path, model: str | None, budget: str | None) -> str:
    """The file for a folder of data, with what was found in it as comments."""
    if not folder.is_dir():
        what = f"{printable(str(folder))!r}: `detseg config new` takes a folder of data, and there is none of this name"
        raise ConfigError(f"{what}; without one, choose a layout with --data")
    from detseg.data.formats.recognise import recognise  # loads torch

    needs = {"mask_rcnn": "outlines", "fcn": "maps", "unet": "maps"}
    found = recognise(folder, needs.get(model, "boxes") if model else None)  # type: ignore[arg-type]  # values above
    model = model or ("yolo" if "boxes" in found.layout.has else "unet")
    settings: dict[str, dict[str, Any]] = {"data": found.settings, "model": {"name": model}}
    if budget is not None:
        settings["trainer"] = {"budget": budget}
    lines = [printable(f"# {line}") for line in found.lines]
    try:
        choices = _choices(config_from_dict(settings, str(folder)))
    except DataError as error:
        lines += _comment(f"Not to be trained on as it is (detseg check says more): {one_line(error)}")
        choices = []
    else:
        lines += ["# Chosen for this machine by the rules of docs/recipes.md. All settings: detseg config explain"]
    sections = {name: plain_to_yaml(values).splitlines() for name, values in settings.items()}
    for choice in choices:
        section, _, key = choice.path.partition(".")
        own = sections.setdefault(section, [])
        own += [*_comment(choice.why), *plain_to_yaml({key: choice.value}).splitlines()]
        own += _HINTS.get(choice.path, [])
    for name, own in sections.items():
        lines += [f"{name}:", *(f"  {line}" for line in own)]
    return "\n".join(lines) + "\n"


_HINTS = {
    "data.augmentation": [
        "  # vertical_flip: 0.5    # where images have no up and down: under a microscope, from above"
    ]
}
"""What no number tells, to be switched on by hand."""


def _choices(config: ExperimentConfig) -> list[Choice]:
    """What the rules choose for the folder and this machine, without loader processes. DataError: the data is wrong, or
    there is nothing to learn."""
    from detseg.data.annotations.report import nothing_to_learn
    from detseg.data.datasets.detection import DetectionDataset
    from detseg.tasks import kind_of
    from detseg.training.setup.facts import DataFacts, Machine
    from detseg.training.setup.recipe import recommend

    train_set = kind_of(config.model).open_dataset(config.data, "train")
    if isinstance(train_set, DetectionDataset) and (why := nothing_to_learn(train_set.packed, train_set.report)):
        raise DataError(why)
    facts = DataFacts.of(train_set)
    choices = recommend(config, facts, Machine.of(config.trainer))
    return [choice for choice in choices if choice.path != "data.num_workers"]


def _comment(text: str) -> list[str]:
    return textwrap.wrap(printable(text), _WIDTH, initial_indent="# ", subsequent_indent="# ")
