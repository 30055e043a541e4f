"""`detseg evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detseg.cli.tool import CHECKPOINT, DEVICES, ToolParser
from detseg.errors import require_training_extra


def evaluate(argv: Sequence[str]) -> None:
    """A checkpoint → numbers: detseg evaluate runs/yolo_voc/checkpoints/best.ckpt [--split test] [data.root=DIR]"""
    parser = ToolParser("evaluate", "Evaluate a checkpoint on a split of its data, or on data with the same classes.")
    parser.add_argument("checkpoint", type=Path, help=CHECKPOINT)
    parser.add_argument("overrides", nargs="*", metavar="key.key=value", help="settings over those of the run")
    parser.add_argument("--split", choices=("train", "val", "test"), default="val", help="which images (val)")
    parser.add_argument("--device", default="auto", help=DEVICES)
    save = "of a detector: leave truth and detections as COCO JSON"
    parser.add_argument("--save-coco", type=Path, metavar="DIR", help=save)
    arguments = parser.parse_intermixed_args(argv)

    require_training_extra("detseg evaluate")
    from detseg.checkpoint import read_model_checkpoint
    from detseg.evaluation import evaluate_checkpoint, evaluation_config

    trained = read_model_checkpoint(arguments.checkpoint)
    config = evaluation_config(trained.config, str(arguments.checkpoint), arguments.overrides)
    evaluate_checkpoint(arguments.checkpoint, arguments.split, config, arguments.device, arguments.save_coco)
