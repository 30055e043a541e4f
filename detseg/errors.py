"""The errors that users can mend: each message is one line that says what, where, expected, and how to mend it."""

from __future__ import annotations


class DetsegError(Exception):
    """Base of every error whose cause lies in the user's files or settings; tools print it and exit with code 2."""


class ConfigError(DetsegError, ValueError):
    """A configuration file or an override is wrong."""


class DataError(DetsegError, ValueError):
    """An image, an annotation file or a data folder is missing, unreadable or contradicts itself."""


class ClassTableError(DataError):
    """The classes of annotations and the class table that they are read with do not fit together."""


class CheckpointError(DetsegError, ValueError):
    """A checkpoint is missing, damaged, or made for another model or class table."""


class RunStoppedError(Exception):
    """A run was asked to stop (signal, time limit); all it has done is saved.  The tools exit with ``EXIT_STOPPED``."""


EXIT_STOPPED = 75
"""sysexits.h's EX_TEMPFAIL: not done, try again, which here is ``--resume``."""


def one_line(error: BaseException) -> str:
    """What another library's error says, on one line, for the inside of one of ours."""
    return " ".join(str(error).split()) or type(error).__name__
