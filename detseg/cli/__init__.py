"""The `detseg` command: one file for each sub-command, each loaded when it is called."""

from __future__ import annotations

from collections.abc import Sequence

from detseg.cli.tool import run_tool
from detseg.errors import ConfigError
from detseg.messages import did_you_mean, printable

_COMMANDS = {
    "train": "train the model that a configuration file describes, or resume a run",
    "evaluate": "evaluate a checkpoint on a split of its data",
    "predict": "predict for images and folders; drawn copies, detections or masks",
    "export-weights": "write a checkpoint's weights as a safetensors file",
    "benchmark": "time each stage of a training on this machine",
    "config": "write a configuration file, or explain settings",
}

_HELP = """\
usage: detseg COMMAND ...

Train, evaluate and run object detectors and segmenters.

{commands}

`detseg COMMAND --help` explains a command. A first training, on images that are made for it:
    detseg train yolo_shapes
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command of ``argv`` (None: this process's arguments); returns the exit code."""
    return run_tool(_run, argv)


def _run(argv: Sequence[str]) -> None:
    command, rest = (argv[0], argv[1:]) if argv else ("--help", ())
    match command:
        case "train":
            from detseg.cli.train import main as run
        case "evaluate":
            from detseg.cli.evaluate import main as run
        case "predict":
            from detseg.cli.predict import main as run
        case "export-weights":
            from detseg.cli.export_weights import main as run
        case "benchmark":
            from detseg.cli.benchmark import main as run
        case "config":
            from detseg.cli.config import main as run
        case "--help" | "-h":
            print(_HELP.format(commands="\n".join(f"  {name:<15} {text}" for name, text in _COMMANDS.items())), end="")
            return
        case "--version":
            from importlib.metadata import version

            print(f"detseg {version('detseg')}")
            return
        case _:
            raise ConfigError(
                f"there is no command {printable(repr(command))}{did_you_mean(command, _COMMANDS)}; the commands are "
                f"{', '.join(_COMMANDS)}; see detseg --help"
            )
    run(rest)
