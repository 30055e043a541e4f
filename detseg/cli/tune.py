"""`detseg tune`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from detseg.cli.tool import experiment_parser, load_experiment
from detseg.config.load import file_of, printed
from detseg.config.strict_yaml import read_yaml
from detseg.errors import ConfigError, require_tuning_extra
from detseg.messages import printable
from detseg.tuning.space import read_space


def tune(argv: Sequence[str]) -> None:
    """A configuration and a space → the best settings: detseg tune mine.yaml --space space.yaml --trials 50"""
    parser = experiment_parser("tune", "Search for better settings; the same command again joins or resumes.")
    parser.add_argument("--space", type=Path, metavar="FILE", help="YAML: the settings that vary, and their values")
    parser.add_argument("--trials", type=_positive_int, metavar="N", help="trainings, of all processes together")
    parser.add_argument("--time", type=_positive, metavar="H", help="hours after which this process stops")
    study = "where to write (runs/<name of the config file>_study)"
    parser.add_argument("--study", type=Path, metavar="DIR", help=study)
    storage = "database for several machines, such as postgresql://… (a SQLite file in DIR)"
    parser.add_argument("--storage", metavar="URL", help=storage)
    parser.add_argument("--sampler", choices=("tpe", "random", "grid"), default="tpe", help="what to try next (tpe)")
    parser.add_argument("--no-pruning", action="store_true", help="train every trial to its end")
    costs = parser.add_mutually_exclusive_group()
    costs.add_argument("--minimize", metavar="METRIC", help="also lower latency_ms or parameters: find the trade-offs")
    costs.add_argument("--subject-to", metavar="LIMIT", help="the best within a limit: 'latency_ms<20'")
    arguments = parser.parse_intermixed_args(argv)
    config = load_experiment(arguments)
    if arguments.print_config:
        print(printed(config), end="")
        return
    for name in ("space", "trials"):
        if getattr(arguments, name) is None:
            raise ConfigError(f"--{name}: is missing; see detseg tune --help")
    space = read_space(arguments.space)
    settings = read_yaml(file_of(arguments.config))  # once: a search may take days
    name = printable(str(arguments.config))

    require_tuning_extra("detseg tune")
    from detseg.cli.signals import stop_on_signals
    from detseg.training.setup.build import criterion_of
    from detseg.tuning.objective import goal_of
    from detseg.tuning.search import tune as run
    from detseg.tuning.study import Plan

    goal = goal_of(criterion_of(config), arguments.minimize, arguments.subject_to)
    plan = Plan(
        name,
        settings,
        arguments.overrides,
        space,
        goal,
        arguments.sampler,
        arguments.trials,
        prune=not arguments.no_pruning,
    )
    folder = arguments.study or Path("runs") / f"{arguments.config.stem}_study"
    with stop_on_signals() as stop:
        run(plan, folder, arguments.storage, arguments.time and 3600 * arguments.time, stop)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return number


def _positive_int(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)
