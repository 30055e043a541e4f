"""`detseg benchmark`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from detseg.atomic_write import check_writable, write_text
from detseg.cli.tool import exit_on_sigterm, experiment_parser, load_experiment
from detseg.config.load import printed
from detseg.errors import ConfigError, require_training_extra


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
        print(printed(config), end="")
        return
    if arguments.json is not None and arguments.json.is_dir():
        raise ConfigError(f"--json: expected the name of a file, {arguments.json} is a folder")
    if arguments.json is not None:
        check_writable(arguments.json.parent, "--json")

    require_training_extra("detseg benchmark")
    from detseg.benchmark import STAGES
    from detseg.benchmark import benchmark as run

    with exit_on_sigterm():
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
        write_text(arguments.json, text)


def _counts(text: str) -> list[int]:
    numbers = text.split(",")
    if not all(number.isdecimal() and int(number) <= 1024 for number in numbers):
        raise argparse.ArgumentTypeError(f"expected whole numbers from 0 to 1024 with commas, got {text!r}")
    return [int(number) for number in numbers]
