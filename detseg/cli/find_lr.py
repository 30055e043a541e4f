"""`detseg find-lr`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from detseg.atomic_write import check_writable, write_text
from detseg.cli.tool import exit_on_sigterm, experiment_parser, load_experiment, refuse_inside
from detseg.config.load import printed
from detseg.errors import ConfigError, require_training_extra
from detseg.messages import printable


def find_lr(argv: Sequence[str]) -> None:
    """A configuration → a learning rate for its training: detseg find-lr yolo_bccd [--out lr.svg]"""
    what = "Raise the learning rate step by step on the task itself, and suggest one for its training."
    parser = experiment_parser("find-lr", what)
    parser.add_argument("--min", type=float, metavar="RATE", help="the first rate (1e-6)")
    parser.add_argument("--max", type=float, metavar="RATE", help="the last rate (1)")
    parser.add_argument("--steps", type=int, metavar="N", help="optimiser steps from the first to the last (100)")
    out = "the curve (find_lr.svg); beside it is a table, find_lr_losses.csv"
    parser.add_argument("--out", type=Path, default=Path("find_lr.svg"), metavar="FILE.svg", help=out)
    arguments = parser.parse_intermixed_args(argv)
    config = load_experiment(arguments)
    if arguments.print_config:
        print(printed(config), end="")
        return
    plot: Path = arguments.out
    table = plot.with_name(f"{plot.stem}_losses.csv")
    if plot.suffix.lower() != ".svg" or plot.is_dir():
        raise ConfigError(f"--out {plot}: expected the name of an SVG file, such as find_lr.svg")
    refuse_inside(plot, config)
    check_writable(plot.parent, "--out")

    require_training_extra("detseg find-lr")
    from detseg.tuning.learning_rate.finder import range_test
    from detseg.tuning.learning_rate.plot import lr_plot

    given = {"min_lr": arguments.min, "max_lr": arguments.max, "num_steps": arguments.steps}
    with exit_on_sigterm():
        curve = range_test(config, **{name: value for name, value in given.items() if value is not None})
    what = "replaced" if plot.exists() or table.exists() else "written"
    write_text(table, curve.to_csv())
    write_text(plot, lr_plot(curve, f"Learning rates of {arguments.config.name}"))
    print(f"{what}: {printable(str(plot))}, {printable(str(table))}")
    if curve.stopped is not None:
        print(f"the test ended early: {curve.stopped}")
    print(curve.verdict)
    if (rate := curve.suggestion) is not None:
        command = ["detseg", "train", str(arguments.config), *arguments.overrides, f"optimizer.lr={rate:g}"]
        print(f"train with it: {printable(shlex.join(command))}")
