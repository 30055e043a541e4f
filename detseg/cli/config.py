"""`detseg config`."""

from __future__ import annotations

from collections.abc import Sequence

from detseg.cli.tool import ToolParser
from detseg.config.describe import help_text
from detseg.errors import ConfigError

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
    "shapes": """\
  name: shapes                 # images that are made for a first try
  root: data/shapes
""",
}
_BOXES = ("voc", "coco", "shapes")
_LAYOUTS = {"yolo": _BOXES, "faster_rcnn": _BOXES, "mask_rcnn": ("coco", "shapes"), "fcn": (*_DATA,), "unet": (*_DATA,)}
"""Model → the layouts that have what it learns from: boxes, masks of objects, or the class of each pixel."""

_TEXT = """\
# Train it: detseg train THIS_FILE. All settings: detseg config explain
data:
{data}  image_size: 512
  batch_size: 8
model:
  name: {model}
trainer:
  max_epochs: 100
"""


def config(argv: Sequence[str]) -> None:
    """A new file, or settings in words: detseg config new --model yolo --data voc; detseg config explain model.head"""
    parser = ToolParser("config", "Write a configuration file for a model and a layout of data, or explain settings.")
    parser.add_argument("action", choices=("new", "explain"), help="what to print: a new file, or settings in words")
    parser.add_argument("setting", nargs="?", default="", help="explain: a setting or section, as model.head (all)")
    parser.add_argument("--model", choices=tuple(_LAYOUTS), help="new: the model (yolo)")
    parser.add_argument("--data", choices=tuple(_DATA), help="new: the layout of the data (voc)")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.action == "explain":
        if arguments.model or arguments.data:
            raise ConfigError("--model and --data are for `detseg config new`, not for `explain`; leave them out")
        print(help_text(arguments.setting))
        return
    if arguments.setting:
        what = f"{arguments.setting!r}: `detseg config new` takes no setting"
        raise ConfigError(f"{what}; choose with --model and --data, and write settings into the file")
    model, data = arguments.model or "yolo", arguments.data or "voc"
    if data not in (layouts := _LAYOUTS[model]):
        raise ConfigError(f"--data {data}: has not what {model} learns; take {' or '.join(layouts)}")
    text, boxes = _TEXT.format(data=_DATA[data], model=model), "Annotations/, ImageSets/Main/"
    masks = "SegmentationClass/, classes.txt, ImageSets/Segmentation/"
    print(text.replace(boxes, masks) if model in ("fcn", "unet") else text, end="")
