"""Time a training on this machine: detseg benchmark configs/yolo_voc.yaml data.num_workers=4 [--synthetic]"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from detseg.cli.tool import experiment_parser, load_experiment
from detseg.config.load import config_to_yaml

EXIT_TERMINATED = 143
"""What shells report of a program that SIGTERM has ended."""

_STAGES = "start, loader, copy, step, validation, predictor, memory"


def main(argv: Sequence[str]) -> None:
    """Arguments → configuration → a table of what each stage takes, the bottleneck and an advice."""
    parser = experiment_parser("benchmark", "Time each stage of a training on this machine, and name what limits it.")
    parser.add_argument("--synthetic", action="store_true", help="on made-up pictures; the data need not be there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="leave all numbers there")
    parser.add_argument("--steps", type=_count, metavar="N", help="repeat everything so often (for some seconds each)")
    parser.add_argument("--stages", metavar="NAME,NAME", help=f"only some of {_STAGES} (all)")
    parser.add_argument("--workers", type=_counts, metavar="N,N", help="loader processes to try (0,1,2,4,... cores)")
    parser.add_argument("--checkpoint", type=Path, metavar="CKPT", help="trained weights, which find what there is")
    arguments = parser.parse_intermixed_args(argv)
    config = load_experiment(arguments)
    if arguments.print_config:
        print(config_to_yaml(config), end="")
        return

    fresh, begin = "torch" not in sys.modules, time.perf_counter()
    from detseg.benchmark import STAGES, Options, benchmark  # loads torch; the configuration is valid by now
    from detseg.benchmark.effort import Effort

    imported = time.perf_counter() - begin if fresh else None
    stages = STAGES if arguments.stages is None else tuple(arguments.stages.split(","))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))  # so that temporary files are removed
    effort, workers = Effort(arguments.steps), tuple(arguments.workers or ())
    options = Options(stages, arguments.synthetic, workers, effort, arguments.checkpoint, imported)
    benchmark(config, options, arguments.json)


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to 100000, got {text!r}")
    return int(text)


def _counts(text: str) -> list[int]:
    numbers = text.split(",")
    if not all(number.isdecimal() and int(number) <= 1024 for number in numbers):
        raise argparse.ArgumentTypeError(f"expected whole numbers from 0 to 1024 with commas, got {text!r}")
    return [int(number) for number in numbers]
