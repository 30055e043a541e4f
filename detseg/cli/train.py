"""`detseg train`. What loads torch is imported where the arguments are known to be valid, in all commands."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from detseg.cli.tool import experiment_parser, load_experiment
from detseg.config.load import printed
from detseg.errors import require_training_extra


def train(argv: Sequence[str], how_to_resume: str | None = None) -> None:
    """A configuration → a training: detseg train configs/yolo_voc.yaml trainer.max_epochs=3 [--resume]"""
    begun = time.monotonic()
    parser = experiment_parser("train", "Train the model that a configuration file describes.")
    resume = (
        "continue where this checkpoint stopped; without CKPT: at the last checkpoint of the run directory; auto: "
        "that, or begin where there is none (for jobs that a cluster starts again)"
    )
    parser.add_argument("--resume", nargs="?", const="last", type=_checkpoint, metavar="CKPT", help=resume)
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="where to write; the same as run_dir=DIR")
    parser.add_argument("--budget", metavar="TIME", help="30m, 2h: train as many epochs as fit; as trainer.budget=TIME")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.budget is not None:
        arguments.overrides.append(f"trainer.budget={arguments.budget}")
    config = load_experiment(arguments)
    if arguments.run_dir is not None:
        config = config.model_copy(update={"run_dir": arguments.run_dir})
    if arguments.print_config:
        print(printed(config), end="")
        return

    require_training_extra("detseg train")
    from detseg.cli.signals import stop_on_signals
    from detseg.training.run import train as run
    from detseg.training.setup.build import Own

    with stop_on_signals() as stop:
        stop.how_to_resume = how_to_resume or stop.how_to_resume
        run(config, arguments.config, arguments.resume, Own(stop=stop, begun=begun))


def _checkpoint(text: str) -> str:
    if "=" in text or text.endswith((".yaml", ".yml")):
        raise argparse.ArgumentTypeError(f"{text!r} is no checkpoint; put --resume last, or name one: --resume=CKPT")
    return text
