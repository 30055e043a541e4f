"""The errors that users can fix: each message is one line that says what, where, expected, and how to fix it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_TRAINING = ("lightning", "albumentations", "pycocotools", "msgspec", "tensorboard")  # what the extra `train` installs


class DetsegError(Exception):
    """Base of every error whose cause lies in the user's files or settings; tools print it and exit with code 2."""


class ConfigError(DetsegError, ValueError):
    """A configuration file or an override is wrong."""


class SettingsError(ConfigError):
    """Several wrong settings, each on a line of its own; what the user wrote is escaped and breaks no line."""


class DataError(DetsegError, ValueError):
    """An image, an annotation file or a data folder is missing, unreadable or contradicts itself."""


class ImageSizeError(DataError):
    """An image declares more pixels than are read."""


class LeftOutError(DataError):
    """Some images could not be read; all others are done."""


class MissingSplitError(DataError):
    """A split has no list, file or folder."""


class ClassTableError(DataError):
    """The classes of annotations and the class table that they are read with do not fit together."""


class CheckpointError(DetsegError, ValueError):
    """A checkpoint is missing, damaged, or made for another model or class table."""


class ForeignFileError(CheckpointError):
    """A file of weights that another program wrote, where a checkpoint of detseg's is expected."""


class MissingExtraError(DetsegError, ImportError):
    """A part of detseg needs packages that are not installed."""


def check_type(what: str, value: object, types: Any, expected: str) -> None:
    """Raise a ConfigError unless a ``value`` that Python gives is of ``types``, which ``expected`` says in words."""
    if not isinstance(value, types):
        raise ConfigError(f"{what}: expected {expected}, got {' '.join(repr(value).split())[:100]}")


def check_row(what: str, items: Any, kind: Any, expected: str) -> None:
    """Raise a ConfigError unless ``items`` is a list or the like of the ``kind``; text is no row of letters."""
    if isinstance(items, str) or not isinstance(items, Sequence) or not all(isinstance(item, kind) for item in items):
        check_type(what, items, (), expected)


def path_of(what: str, value: str | Path) -> Path:
    """A path that Python gives, as text or ``Path``; anything else is a ConfigError."""
    check_type(what, value, str | os.PathLike, "a path, as text or Path")
    return Path(value)


def require_training_extra(what: str) -> None:
    """Raise a MissingExtraError if packages of the extra ``train`` are missing; ``what`` needs them."""
    _require(what, _TRAINING, "train")


def require_tuning_extra(what: str) -> None:
    """The same for those of the extra ``tune``, which has those of ``train``."""
    _require(what, (*_TRAINING, "optuna"), "tune")


def require_export_extra(what: str, packages: Sequence[str]) -> None:
    """The same for those of the extra ``train`` and more ``packages``, which the extra ``export`` has."""
    _require(what, (*_TRAINING, *packages), "export")


def require_torch_extra(what: str) -> None:
    """The same for those of the extra ``torch``."""
    _require(what, ("torch", "torchvision", "timm", "safetensors"), "torch")


def require_serving_extra(what: str) -> None:
    """The same for those of the extra ``serve``."""
    _require(what, ("starlette", "uvicorn", "prometheus_client"), "serve")


def _require(what: str, packages: Sequence[str], extra: str) -> None:
    if missing := [name for name in packages if find_spec(name) is None]:
        raise MissingExtraError(f'{what} needs {", ".join(missing)}: pip install "detseg[{extra}]"')


class RunStoppedError(Exception):
    """A run was asked to stop (signal, time limit) and has saved its state. The tools exit with ``EXIT_STOPPED``."""


EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: not done, try again, which here is ``--resume``
