"""`detseg report`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detseg.cli.tool import DEVICES, ToolParser, score
from detseg.errors import ConfigError, require_training_extra
from detseg.messages import printable

if TYPE_CHECKING:
    from detseg.data.build import Split
    from detseg.metrics.learning_curve import LearningCurve

_OF_A_RUN = ("split", "device", "human_level", "train_dev", "learning_curve", "seeds")


def report(argv: Sequence[str]) -> None:
    """A run → a page: how good it is, and what goes wrong: detseg report runs/yolo_voc [--split test]"""
    what = "Write a page on a model, or on a file of detections: how good, how sure, which errors, what next."
    parser = ToolParser("report", what)
    run = "a run directory, whose best.ckpt counts, or a checkpoint"
    parser.add_argument("run", nargs="?", type=Path, metavar="RUN", help=run)
    parser.add_argument("overrides", nargs="*", metavar="key.key=value", help="settings over those of the run")
    parser.add_argument("--split", choices=("train", "val", "test"), help="which images (val)")
    parser.add_argument("--device", help=DEVICES)
    out = "where to write (report, report_test, report_last, ... in the run directory)"
    parser.add_argument("--out", type=Path, metavar="DIR", help=out)
    human = "what people reach in AP50 (with masks mask_AP50) or mIoU, above 0 and up to 1, to read the gaps by"
    parser.add_argument("--human-level", type=_level, metavar="X", help=human)
    dev = "a setting that makes val a set of images like those of the training that were not trained on"
    parser.add_argument("--train-dev", action="append", metavar="data.key=value", help=dev)
    curve = "train on fractions of the images, twice as long as the run: would more images help?"
    parser.add_argument("--learning-curve", action="store_true", default=None, help=curve)
    seeds = "trainings of each fraction, for --learning-curve (1)"
    parser.add_argument("--seeds", type=int, metavar="N", help=seeds)
    results = "instead of a run: detections of any program in COCO's results format, with --annotations"
    parser.add_argument("--results", type=Path, metavar="JSON", help=results)
    parser.add_argument("--annotations", type=Path, metavar="JSON", help="the truth for --results, in COCO's format")
    parser.add_argument("--images", type=Path, metavar="DIR", help="the images of --annotations, for pictures")
    arguments = parser.parse_intermixed_args(argv)
    page = _of_results(arguments) if arguments.results or arguments.annotations else _of_run(arguments)
    print(f"written: {printable(str(page))}")


def _level(text: str) -> float:
    value = score(text)
    if value == 0:
        raise argparse.ArgumentTypeError("expected a number above 0, up to 1")
    return value


def _of_results(arguments: argparse.Namespace) -> Path:
    overrides: list[str] = arguments.overrides
    if arguments.run is not None:  # no place among the arguments tells the two apart
        overrides = [str(arguments.run), *overrides]
    if arguments.results is None or arguments.annotations is None:
        raise ConfigError("--results, the detections, and --annotations, the truth, go together; give both")
    if wrong := [text for text in overrides if "=" not in text]:
        raise ConfigError(f"{wrong[0]}: --results are scored without a run; leave it out")
    for name in _OF_A_RUN:
        if getattr(arguments, name) is not None:
            raise ConfigError(f"--{name.replace('_', '-')}: is for a run; leave it out")
    require_training_extra("detseg report")
    from detseg.evaluation.report.run import report_results

    out = arguments.out or arguments.results.with_name(f"{arguments.results.stem}_report")
    return report_results(arguments.results, arguments.annotations, out, arguments.images, overrides)


def _of_run(arguments: argparse.Namespace) -> Path:
    if arguments.run is None:
        raise ConfigError("no run given, and no --results with --annotations; see detseg report --help")
    if arguments.images is not None:
        raise ConfigError("--images: is for --results; leave it out")
    if arguments.seeds is not None and (arguments.seeds < 1 or not arguments.learning_curve):
        raise ConfigError(f"--seeds {arguments.seeds}: expected 1 or more, and --learning-curve, whose seeds they are")
    require_training_extra("detseg report")
    from detseg.checkpoint import run_checkpoint
    from detseg.evaluation.report.run import report as write_report
    from detseg.explain.run import explain_split

    checkpoint, overrides = run_checkpoint(arguments.run), arguments.overrides
    split: Split = arguments.split or "val"
    device = arguments.device or "auto"
    num_seeds: int = arguments.seeds or 1

    def misses() -> list[tuple[str, str, str]]:
        html = explain_split(checkpoint, split, overrides, device=device).html()
        return [("misses", "Why objects are missed", html)]

    return write_report(
        checkpoint,
        split,
        arguments.out,
        overrides,
        device,
        human=arguments.human_level,
        train_dev=arguments.train_dev or (),
        learn=(lambda: _learning_curve(checkpoint, num_seeds, overrides)) if arguments.learning_curve else None,
        explain=misses,
    )


def _learning_curve(checkpoint: Path, num_seeds: int, overrides: Sequence[str]) -> LearningCurve:
    """Of the run's settings with the overrides, in a folder of its own."""
    from detseg.checkpoint import read_model_checkpoint, run_dir_of
    from detseg.checkpoint.provenance import command
    from detseg.cli.signals import stop_on_signals
    from detseg.evaluation.run import evaluation_config
    from detseg.training.callbacks.run_files import best_epoch
    from detseg.training.setup.build import criterion_of
    from detseg.tuning.learning_curve import learning_curve

    config = evaluation_config(read_model_checkpoint(checkpoint).config, str(checkpoint), overrides)
    run_dir = run_dir_of(checkpoint)
    metric = f"val/{criterion_of(config)}"
    best = best_epoch(run_dir / "metrics.csv", metric)
    reached = float(best[metric]) if best and not overrides else None  # it may be of other data
    with stop_on_signals() as stop:
        stop.how_to_resume = f"the same command resumes: {command()}"
        return learning_curve(config, run_dir / "learning_curve", num_seeds=num_seeds, reached=reached, stop=stop)
