"""The `detseg` command."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

try:
    from detseg.cli import benchmark, config, find_lr, train, tune
    from detseg.cli.data import check, convert, show, split
    from detseg.cli.deploy import export, export_weights, predict, serve
    from detseg.cli.evaluation import compare, evaluate, explain, report
    from detseg.cli.tool import run_tool
    from detseg.errors import ConfigError
    from detseg.messages import did_you_mean, printable
except KeyboardInterrupt:  # these take tenths of a second, in which nothing has begun
    sys.exit(130)

_COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int | None], str]] = {
    "train": (train.train, "train what a configuration file describes, or resume a run"),
    "tune": (tune.tune, "search for better settings with many trainings"),
    "check": (check.check, "say what is wrong with a data set, and write a repaired copy"),
    "convert": (convert.convert, "write a copy of a data set in another format"),
    "show": (show.show, "draw samples of a data set, raw or augmented, on one sheet"),
    "split": (split.split, "divide a data set: validation and test images, folds"),
    "evaluate": (evaluate.evaluate, "evaluate a checkpoint on a split of its data"),
    "report": (report.report, "write a page on a model: how good, and what goes wrong"),
    "compare": (compare.compare, "say which of two models is better, and how sure that is"),
    "explain": (explain.explain, "say why a detector missed objects, and what to try"),
    "predict": (predict.predict, "predict for images: drawn copies, and detections or masks"),
    "serve": (serve.serve, "answer over HTTP with what models find; a page to try them"),
    "demo": (serve.demo, "open that page, with a small model that it trains first"),
    "export": (export.export, "write a model for other programs: ONNX, OpenVINO, torch.export"),
    "export-weights": (export_weights.export_weights, "write a checkpoint's weights as a safetensors file"),
    "find-lr": (find_lr.find_lr, "suggest a learning rate for a training, by a range test"),
    "benchmark": (benchmark.benchmark, "time each stage of a training on this machine"),
    "config": (config.config, "write a configuration file, or explain settings"),
}

_HELP = """\
usage: detseg COMMAND ...

Train, evaluate and run object detectors and segmenters.

{commands}

`detseg COMMAND --help` explains a command.
A first training, on images that are made for it:
    detseg train yolo_shapes
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command of ``argv`` (None: this process's arguments); returns the exit code."""
    return run_tool(_run, argv)


def _run(argv: Sequence[str]) -> int | None:
    command, rest = (argv[0], argv[1:]) if argv else ("--help", ())
    if command in _COMMANDS:
        return _COMMANDS[command][0](rest)
    if command in ("--help", "-h"):
        print(_HELP.format(commands="\n".join(f"  {name:<15} {text}" for name, (_, text) in _COMMANDS.items())), end="")
    elif command == "--version":
        from importlib.metadata import version

        print(f"detseg {version('detseg')}")
    else:
        what = f"there is no command {printable(repr(command))}{did_you_mean(command, _COMMANDS)}"
        raise ConfigError(f"{what}; the commands are {', '.join(_COMMANDS)}; see detseg --help")
    return None
