"""`detseg config`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detseg.cli.tool import ToolParser
from detseg.config.describe import help_text
from detseg.config.load import plain_to_yaml
from detseg.errors import ConfigError
from detseg.messages import printable

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
data:
{data}  image_size: 512
  batch_size: 8
model:
  name: {model}
trainer:
  max_epochs: 100
"""


def config(argv: Sequence[str]) -> None:
    """A new file, or settings in words: detseg config new DIR [--model unet]; detseg config explain model.head"""
    parser = ToolParser("config", "Write a configuration file for a model and a layout of data, or explain settings.")
    parser.add_argument("action", choices=("new", "explain"), help="what to print: a new file, or settings in words")
    what = "new: the folder of your data, whose layout is found out; explain: a setting or section, as model.head (all)"
    parser.add_argument("what", nargs="?", default="", metavar="DIR|SETTING", help=what)
    parser.add_argument("--model", choices=tuple(_LAYOUTS), help="new: the model (one that learns from the data)")
    parser.add_argument("--data", choices=tuple(_DATA), help="new, without DIR: the layout of the data (voc)")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.action == "explain":
        if arguments.model or arguments.data:
            raise ConfigError("--model and --data are for `detseg config new`, not for `explain`; leave them out")
        print(help_text(arguments.what))
        return
    if arguments.what:
        if arguments.data:
            raise ConfigError("--data is for a file without DIR, whose layout is found out; leave one of them out")
        print(_new_for_folder(Path(arguments.what), arguments.model), end="")
        return
    model, data = arguments.model or "yolo", arguments.data or "voc"
    if data not in (layouts := _LAYOUTS[model]):
        raise ConfigError(f"--data {data}: has not what {model} learns; take {' or '.join(layouts)}")
    text, boxes = _TEXT.format(data=_DATA[data], model=model), "Annotations/, ImageSets/Main/"
    masks = "SegmentationClass/, classes.txt, ImageSets/Segmentation/"
    print(text.replace(boxes, masks) if model in ("fcn", "unet") else text, end="")


def _new_for_folder(folder: Path, model: str | None) -> str:
    """The file for a folder of data, with what was found in it as comments."""
    if not folder.is_dir():
        what = f"{printable(str(folder))!r}: `detseg config new` takes a folder of data, and there is none of this name"
        raise ConfigError(f"{what}; without one, choose a layout with --data")
    from detseg.data.formats.recognise import recognise  # loads torch

    needs = {"mask_rcnn": "outlines", "fcn": "maps", "unet": "maps"}
    found = recognise(folder, needs.get(model, "boxes") if model else None)  # type: ignore[arg-type]  # values above
    data = "".join(f"  {line}\n" for line in plain_to_yaml(found.settings).splitlines())
    model = model or ("yolo" if "boxes" in found.layout.has else "unet")
    comments = "".join(f"# {printable(line)}\n" for line in found.lines)
    return comments + _TEXT.format(data=data, model=model)
