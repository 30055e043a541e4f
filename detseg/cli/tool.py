"""What the sub-commands share: arguments, one-line errors, exit codes. Imports nothing heavy.

Exit codes: 0 done, 2 a mistake that the user can fix (one line on stderr), 75 a training that was asked to stop and
has saved its state, 130 interrupted; a bug of ours keeps its traceback and exits with 1. A command may return another
one: `detseg check` 1 for warnings and 2 for errors in the data, `detseg predict` 1 where files were passed over.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import io
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from detseg.config.load import config_from_dict, load_config
from detseg.config.schema.data import CustomDataConfig
from detseg.config.schema.experiment import ExperimentConfig
from detseg.errors import EXIT_STOPPED, ConfigError, DataError, DetsegError, RunStoppedError, SettingsError
from detseg.memory import keep_freed_memory
from detseg.messages import messages_on_console, printable

CHECKPOINT = "a run directory, whose best.ckpt counts, a .ckpt file, or a .safetensors file of `detseg export-weights`"
MODEL = f"{CHECKPOINT}; or an .onnx or .xml file of `detseg export`"
DEVICES = "auto, cpu, cuda, cuda:1, mps (auto)"

if TYPE_CHECKING:
    from detseg.data.formats.recognise import Recognised
    from detseg.data.formats.recognise.layout import Need


class ToolParser(argparse.ArgumentParser):
    """A sub-command's parser of arguments with ``--debug``, whose errors are one line, raised as ``ConfigError``."""

    def __init__(self, command: str, description: str) -> None:
        super().__init__(prog=f"detseg {command}", description=description, allow_abbrev=False)
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def error(self, message: str) -> NoReturn:
        """Raises instead of printing the usage and exiting."""
        raise ConfigError(f"{message}; see {self.prog} --help")


def score(text: str) -> float:
    """The type of an argument that is a score."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return value


def experiment_parser(command: str, description: str, folders: bool = False) -> ToolParser:
    """A parser for commands that read an experiment: file, overrides, ``--print-config``. ``folders``: a folder of data
    may stand for the file, see `load_data_experiment`."""
    parser = ToolParser(command, f"{description} `detseg config explain` lists all settings.")
    # Optional for argparse alone: it would name the overrides among the "required" arguments.
    what = f"{'a folder of data, a ' if folders else ''}YAML file, or the name of an example: yolo_shapes"
    parser.add_argument("config", nargs="?", type=Path, help=what)
    parser.add_argument("overrides", nargs="*", metavar="key.key=value", help="settings that replace those of the file")
    parser.add_argument("--print-config", action="store_true", help="print every setting as resolved, and exit")
    return parser


def load_experiment(arguments: argparse.Namespace) -> ExperimentConfig:
    """The configuration that the arguments of an ``experiment_parser`` name; ConfigError if they name none."""
    path: Path | None = arguments.config
    if path is None:
        raise ConfigError("no configuration file given, such as configs/yolo_shapes.yaml; see --help")
    if path.is_file() and _is_of_data(path):
        raise ConfigError(f"{path}: is a file of a data set, no configuration; name its folder, {path.parent}")
    if "=" in str(path) and not path.exists():
        raise ConfigError(f"argument {printable(repr(str(path)))}: expected the configuration file before any override")
    return load_config(path, arguments.overrides)


def _is_of_data(path: Path) -> bool:
    """Whether a file is JSON or an image, or YOLO's data.yaml, which has the names of classes and no model."""
    if path.suffix.lower() not in (".yaml", ".yml"):
        return True
    text = path.read_text(encoding="utf-8", errors="replace")
    return bool(re.search("(?m)^names:", text)) and not re.search("(?m)^(model|data|run_dir|base):", text)


def refuse_inside(out: Path, config: ExperimentConfig) -> None:
    """A ConfigError if a copy of a data set, or a picture, would lie in the set itself."""
    root = None if isinstance(config.data, CustomDataConfig) else config.data.root
    if root is not None and out.resolve().is_relative_to(root.resolve()):
        raise ConfigError(f"{out}: lies in the data, {root}: choose a place beside it")


_MODEL_FOR = {"outlines": "mask_rcnn", "boxes": "yolo", "maps": "unet"}


def load_data_experiment(
    arguments: argparse.Namespace, needs: Sequence[Need] = ("boxes", "maps")
) -> tuple[ExperimentConfig, list[str]]:
    """As ``load_experiment``, where a folder of data may stand for the configuration: that of a model which learns the
    first of ``needs`` that the folder has, and what was found is printed. Also the splits that there are, or may be."""
    from detseg.data.build import resolve_data  # loads torch

    path: Path | None = arguments.config
    if path is None or not path.is_dir():
        config = resolve_data(load_experiment(arguments))
        splits = ["train", "test"] if config.data.val_fraction else ["train", "val", "test"]
        return config, splits[:2] if config.data.name == "shapes" else splits
    found, need = _recognised(path, needs)
    print(*map(printable, found.lines), sep="\n")
    settings = {"model": {"name": _MODEL_FOR[need]}, "data": _without_guesses(found, arguments.overrides)}
    return config_from_dict(settings, str(path), arguments.overrides), list(found.layout.counts)


def _without_guesses(found: Recognised, overrides: Sequence[str]) -> dict[str, Any]:
    """The settings of a folder; of masks whose values no file names without what was made of these, where an override
    says what they are."""
    given = {text.partition("=")[0] for text in overrides}
    says = {f"data.{key}" for key in ("mask_threshold", "mask_values", "mask_colors", "classes")}
    if found.layout.classes or not given & says:
        return found.settings
    guesses = ("mask_values", "mask_threshold", "ignore_index")
    settings = {key: value for key, value in found.settings.items() if key not in guesses}
    if "data.mask_threshold" in given and "classes" in settings:
        settings["classes"] = ["background", "foreground"]
    return settings


def _recognised(path: Path, needs: Sequence[Need]) -> tuple[Recognised, Need]:
    from detseg.data.formats.recognise import recognise

    errors = list[DataError]()
    for need in needs:
        try:
            return recognise(path, need), need
        except DataError as error:
            errors.append(error)
    raise errors[0]


def run_tool(main: Callable[[Sequence[str]], int | None], argv: Sequence[str] | None = None) -> int:
    """Run a command on ``argv`` (None: this process's arguments); returns the exit code: what the command returns, if
    it ends without an error."""
    # Before torch loads OpenMP: threads that wait sleep, or a training beside another program spins its cores away.
    # What the user has set (OMP_WAIT_POLICY, GOMP_SPINCOUNT, KMP_BLOCKTIME) counts.
    if not {"GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Before it exits, Python looks for cycles among all objects, which takes seconds after a training.
    atexit.register(gc.freeze)
    if argv is None:  # the process is the command's
        keep_freed_memory()
    arguments = sys.argv[1:] if argv is None else list(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # else a letter that the terminal cannot show would be an error
            stream.reconfigure(errors="backslashreplace")
    try:
        with messages_on_console():
            code = main(arguments)
        sys.stdout.flush()
    except DetsegError as error:
        # In other errors a line break comes from the name of a file, and must not look like another message.
        return _report(str(error).split("\n") if isinstance(error, SettingsError) else [str(error)], arguments)
    except RunStoppedError as stopped:
        print(printable(str(stopped)), file=sys.stderr)
        return EXIT_STOPPED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has exited; the interpreter must not flush again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.filename is None or error.strerror is None:
            raise
        return _report([f"{error.filename}: {error.strerror}"], arguments)  # no space, no right to write, ...
    return code or 0


def _report(lines: Sequence[str], arguments: Sequence[str]) -> int:
    """Print the error that is being handled; returns the exit code."""
    if "--debug" in arguments:
        traceback.print_exc()
    for line in lines:
        print(f"error: {printable(line)}", file=sys.stderr)
    return 2


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """SIGTERM leaves by way of ``finally`` and ``except``, so that temporary files go, with the exit code of shells.

    A handler that somebody else has set is left in place.
    """
    before = signal.getsignal(signal.SIGTERM)
    if before is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
