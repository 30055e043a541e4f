"""The sub-commands of `detseg`: each function takes the arguments after its name.

What loads torch is imported where the arguments are known to be valid.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from detseg.cli.tool import ToolParser, experiment_parser, load_experiment
from detseg.config.describe import help_text
from detseg.config.load import config_to_yaml
from detseg.errors import ConfigError, require_training_extra

_CHECKPOINT = "a .ckpt file of a run directory, or a .safetensors file of `detseg export-weights`"
_DEVICES = "auto, cpu, cuda, cuda:1, mps (auto)"


def train(argv: Sequence[str]) -> None:
    """A configuration → a training: detseg train configs/yolo_voc.yaml trainer.max_epochs=3 [--resume]"""
    parser = experiment_parser("train", "Train the model that a configuration file describes.")
    resume = (
        "continue where this checkpoint stopped; without CKPT: at the last checkpoint of the run directory; auto: "
        "that, or begin where there is none (for jobs that a cluster starts again)"
    )
    parser.add_argument("--resume", nargs="?", const="last", type=_checkpoint, metavar="CKPT", help=resume)
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="where to write; the same as run_dir=DIR")
    arguments = parser.parse_intermixed_args(argv)
    config = load_experiment(arguments)
    if arguments.run_dir is not None:
        config = config.model_copy(update={"run_dir": arguments.run_dir})
    if arguments.print_config:
        print(config_to_yaml(config), end="")
        return

    require_training_extra("detseg train")
    from detseg.cli.signals import stop_on_signals
    from detseg.training.run import train as run
    from detseg.training.setup.build import Own

    with stop_on_signals() as stop:
        run(config, arguments.config, arguments.resume, Own(stop=stop))


def _checkpoint(text: str) -> str:
    if "=" in text or text.endswith((".yaml", ".yml")):
        raise argparse.ArgumentTypeError(f"{text!r} is no checkpoint; put --resume last, or name one: --resume=CKPT")
    return text


def evaluate(argv: Sequence[str]) -> None:
    """A checkpoint → numbers: detseg evaluate runs/yolo_voc/checkpoints/best.ckpt [--split test] [data.root=DIR]"""
    parser = ToolParser("evaluate", "Evaluate a checkpoint on a split of its data, or on data with the same classes.")
    parser.add_argument("checkpoint", type=Path, help=_CHECKPOINT)
    parser.add_argument("overrides", nargs="*", metavar="key.key=value", help="settings over those of the run")
    parser.add_argument("--split", choices=("train", "val", "test"), default="val", help="which images (val)")
    parser.add_argument("--device", default="auto", help=_DEVICES)
    save = "of a detector: leave truth and detections as COCO JSON"
    parser.add_argument("--save-coco", type=Path, metavar="DIR", help=save)
    arguments = parser.parse_intermixed_args(argv)

    require_training_extra("detseg evaluate")
    from detseg.checkpoint import read_model_checkpoint
    from detseg.evaluation import evaluate_checkpoint, evaluation_config

    trained = read_model_checkpoint(arguments.checkpoint)
    config = evaluation_config(trained.config, str(arguments.checkpoint), arguments.overrides)
    evaluate_checkpoint(arguments.checkpoint, arguments.split, config, arguments.device, arguments.save_coco)


def predict(argv: Sequence[str]) -> None:
    """Images → drawn copies and detections, or masks: detseg predict best.ckpt images/ --out found/"""
    from detseg.predict import EXPORT_FORMATS, MASK_VALUES
    from detseg.structures import SCORE_THRESHOLD

    parser = ToolParser(
        "predict",
        "Find objects in images, or the class of every pixel, as the checkpoint can; writes drawn copies, and "
        "detections (COCO JSON, VOC XML, YOLO text) or masks/ (labels as indexed PNGs).",
    )
    parser.add_argument("checkpoint", type=Path, help=_CHECKPOINT)
    parser.add_argument("images", type=Path, nargs="+", help="images, or folders of images (searched all the way)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")
    score = f"detectors: leave out what scores below this, 0 to 1: how sure the model is ({SCORE_THRESHOLD})"
    parser.add_argument("--score", type=float, help=score)
    names = f"{', '.join(EXPORT_FORMATS[:-1])} or {EXPORT_FORMATS[-1]}"

    def formats(text: str) -> list[str]:
        chosen = [name.strip() for name in text.split(",")]
        if not set(chosen) <= set(EXPORT_FORMATS):
            raise argparse.ArgumentTypeError(f"expected {names}, or several with commas, got {text!r}")
        return chosen

    which = f"detectors: {names}, or several ({EXPORT_FORMATS[0]})"
    parser.add_argument("--format", type=formats, action="extend", metavar="NAME[,NAME]", help=which)
    replace = "detectors: replace annotations of --format voc and yolo that exist"
    parser.add_argument("--overwrite", action="store_true", help=replace)
    tile = "segmentation: look at images in tiles of this size in pixels, unscaled (scaled to the input size)"
    parser.add_argument("--tile", type=int, nargs=2, metavar=("H", "W"), help=tile)
    overlap = "pixels that neighbouring tiles have in common at least (half a tile)"
    parser.add_argument("--overlap", type=int, metavar="N", help=overlap)
    values = "segmentation: write masks with labels 0, 1, 2, ..., or with the values of the training's masks (labels)"
    parser.add_argument("--mask-values", choices=MASK_VALUES, help=values)
    parser.add_argument("--device", default="auto", help=_DEVICES)
    arguments = parser.parse_intermixed_args(argv)

    from detseg.predict import load_predictor
    from detseg.predict.files import predict_files

    predict_files(
        load_predictor(arguments.checkpoint, arguments.device, arguments.score),
        arguments.images,
        arguments.out,
        tile=arguments.tile and tuple(arguments.tile),
        overlap=arguments.overlap,
        formats=arguments.format,
        overwrite=arguments.overwrite,
        mask_values=arguments.mask_values,
    )


def export_weights(argv: Sequence[str]) -> None:
    """A checkpoint → weights, settings and classes as safetensors: detseg export-weights best.ckpt yolo.safetensors"""
    parser = ToolParser(
        "export-weights",
        "Write a checkpoint's weights (the averaged ones, where it has them), settings and classes as a safetensors "
        "file, which `detseg predict`, `detseg evaluate` and load_predictor take like a checkpoint.",
    )
    parser.add_argument("checkpoint", type=Path, help="a .ckpt file of a run directory")
    parser.add_argument("out", type=Path, metavar="OUT.safetensors", help="the file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    arguments = parser.parse_args(argv)
    if arguments.out.suffix != ".safetensors":
        raise ConfigError(f"{arguments.out}: expected a name that ends in .safetensors, by which it is recognised")
    if arguments.out.exists() and not arguments.overwrite:
        raise ConfigError(f"{arguments.out}: exists already; choose another name, or replace it with --overwrite")

    from detseg.checkpoint import read_model_checkpoint, write_weights

    trained = read_model_checkpoint(arguments.checkpoint)
    write_weights(arguments.out, trained)
    print(f"{arguments.out}: {len(trained.weights)} tensors, {len(trained.classes)} classes, epoch {trained.epoch}")


def benchmark(argv: Sequence[str]) -> None:
    """A configuration → what each stage of its training takes, the bottleneck, an advice: detseg benchmark yolo_voc"""
    parser = experiment_parser("benchmark", "Time each stage of a training on this machine, and name what limits it.")
    parser.add_argument("--synthetic", action="store_true", help="use synthetic images; the data need not be there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to this file")
    parser.add_argument("--steps", type=int, metavar="N", help="repetitions of everything (a few seconds' worth)")
    stages = "start, loader, step, validation, predictor"
    parser.add_argument("--stages", metavar="NAME,NAME", help=f"only some of {stages} (all)")
    parser.add_argument("--workers", type=_counts, metavar="N,N", help="loader processes to try (0,1,2,4,... cores)")
    parser.add_argument("--checkpoint", type=Path, metavar="CKPT", help="trained weights: random ones find nonsense")
    arguments = parser.parse_intermixed_args(argv)
    config = load_experiment(arguments)
    if arguments.print_config:
        print(config_to_yaml(config), end="")
        return
    if arguments.json is not None and arguments.json.is_dir():
        raise ConfigError(f"--json: expected the name of a file, {arguments.json} is a folder")

    require_training_extra("detseg benchmark")
    from detseg.benchmark import STAGES
    from detseg.benchmark import benchmark as run

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that temporary files are removed
    results, diagnosis = run(
        config,
        arguments.stages.split(",") if arguments.stages else STAGES,
        synthetic=arguments.synthetic,
        workers=arguments.workers or (),
        steps=arguments.steps,
        checkpoint=arguments.checkpoint,
    )
    print(*results.lines(), f"\nbottleneck: {diagnosis.bottleneck}", f"advice: {diagnosis.advice}", sep="\n")
    if arguments.json is not None:
        text = json.dumps(results.to_dict() | {"diagnosis": vars(diagnosis)}, indent=2)
        arguments.json.write_text(text, encoding="utf-8")


def _counts(text: str) -> list[int]:
    numbers = text.split(",")
    if not all(number.isdecimal() and int(number) <= 1024 for number in numbers):
        raise argparse.ArgumentTypeError(f"expected whole numbers from 0 to 1024 with commas, got {text!r}")
    return [int(number) for number in numbers]


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
