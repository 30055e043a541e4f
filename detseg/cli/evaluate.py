"""Evaluate a checkpoint: detseg evaluate runs/yolo_voc/checkpoints/best.ckpt [--split test] [data.root=DIR]"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detseg.cli.tool import ToolParser
from detseg.errors import require_training_extra


def main(argv: Sequence[str]) -> None:
    """Arguments → checkpoint → numbers on the screen and in the run directory."""
    parser = ToolParser("evaluate", "Evaluate a checkpoint on a split of its data, or on data with the same classes.")
    parser.add_argument("checkpoint", type=Path, help="a .ckpt file of a run directory")
    parser.add_argument("overrides", nargs="*", metavar="key.key=value", help="settings over those of the run")
    parser.add_argument("--split", choices=("train", "val", "test"), default="val", help="which images (val)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    parser.add_argument(
        "--save-coco", type=Path, metavar="DIR", help="of a detector: leave truth and detections as COCO JSON"
    )
    arguments = parser.parse_intermixed_args(argv)
    require_training_extra("detseg evaluate")
    from detseg.checkpoint import read_model_checkpoint  # loads torch; the arguments are valid by now
    from detseg.evaluation import evaluate_checkpoint, evaluation_config

    trained = read_model_checkpoint(arguments.checkpoint)
    config = evaluation_config(trained.config, str(arguments.checkpoint), arguments.overrides)
    evaluate_checkpoint(arguments.checkpoint, arguments.split, config, arguments.device, arguments.save_coco)
