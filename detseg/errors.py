"""The errors that users can fix: each message is one line that says what, where, expected, and how to fix it."""

from __future__ import annotations

from importlib.util import find_spec

_TRAINING = ("lightning", "albumentations", "pycocotools", "msgspec", "tensorboard")  # what the extra `train` installs


class DetsegError(Exception):
    """Base of every error whose cause lies in the user's files or settings; tools print it and exit with code 2."""


class ConfigError(DetsegError, ValueError):
    """A configuration file or an override is wrong."""


class SettingsError(ConfigError):
    """Several wrong settings, each on a line of its own; what the user wrote is escaped and breaks no line."""


class DataError(DetsegError, ValueError):
    """An image, an annotation file or a data folder is missing, unreadable or contradicts itself."""


class ClassTableError(DataError):
    """The classes of annotations and the class table that they are read with do not fit together."""


class CheckpointError(DetsegError, ValueError):
    """A checkpoint is missing, damaged, or made for another model or class table."""


class MissingExtraError(DetsegError, ImportError):
    """A part of detseg needs packages that are not installed."""


def require_training_extra(what: str) -> None:
    """Raise a MissingExtraError if packages of the extra ``train`` are missing; ``what`` needs them."""
    if missing := [name for name in _TRAINING if find_spec(name) is None]:
        raise MissingExtraError(f'{what} needs {", ".join(missing)}: pip install "detseg[train]"')


class RunStoppedError(Exception):
    """A run was asked to stop (signal, time limit) and has saved its state. The tools exit with ``EXIT_STOPPED``."""


EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: not done, try again, which here is ``--resume``
