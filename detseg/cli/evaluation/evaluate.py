"""`detseg evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detseg.cli.tool import CHECKPOINT, DEVICES, ToolParser
from detseg.errors import ConfigError, require_training_extra


def evaluate(argv: Sequence[str]) -> None:
    """A checkpoint → numbers: detseg evaluate runs/yolo_voc [--split test] [data.root=DIR]"""
    what = "Evaluate a checkpoint on a split of its data, or on data with the same classes; or a file of results."
    parser = ToolParser("evaluate", what)
    parser.add_argument("checkpoint", nargs="?", type=Path, help=CHECKPOINT)
    parser.add_argument("overrides", nargs="*", metavar="key.key=value", help="settings over those of the run")
    parser.add_argument("--split", choices=("train", "val", "test"), help="which images (val)")
    parser.add_argument("--device", help=DEVICES)
    save = "of a detector: leave truth and detections as COCO JSON"
    parser.add_argument("--save-coco", type=Path, metavar="DIR", help=save)
    results = "instead of a checkpoint: detections of any program in COCO's results format, with --annotations"
    parser.add_argument("--results", type=Path, metavar="JSON", help=results)
    parser.add_argument("--annotations", type=Path, metavar="JSON", help="the truth for --results, in COCO's format")
    arguments = parser.parse_intermixed_args(argv)
    overrides = arguments.overrides
    if arguments.results or arguments.annotations:
        if arguments.checkpoint is not None:  # no place among the arguments tells the two apart
            overrides = [str(arguments.checkpoint), *overrides]
        _check_results_alone(arguments.results, arguments.annotations, overrides)
        if others := [name for name in ("split", "device", "save_coco") if getattr(arguments, name)]:
            raise ConfigError(f"--{others[0].replace('_', '-')}: is for a checkpoint, not for --results; leave it out")
    elif arguments.checkpoint is None:
        raise ConfigError("no checkpoint given, and no --results with --annotations; see detseg evaluate --help")

    require_training_extra("detseg evaluate")
    from detseg import evaluation

    if arguments.results:
        evaluation.evaluate_results_file(arguments.results, arguments.annotations, overrides)
        return
    from detseg.checkpoint import read_model_checkpoint

    trained = read_model_checkpoint(arguments.checkpoint)
    config = evaluation.evaluation_config(trained.config, str(arguments.checkpoint), overrides)
    device, save = arguments.device or "auto", arguments.save_coco
    evaluation.evaluate_checkpoint(arguments.checkpoint, arguments.split or "val", config, device, save)


def _check_results_alone(results: Path | None, annotations: Path | None, overrides: Sequence[str]) -> None:
    if results is None or annotations is None:
        raise ConfigError("--results, the detections, and --annotations, the truth, go together; give both")
    if wrong := [text for text in overrides if "=" not in text]:
        raise ConfigError(f"{wrong[0]}: --results are scored without a checkpoint; leave it out")
