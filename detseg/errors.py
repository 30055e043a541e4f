"""The errors that users can mend: each message is one line that says what, where, expected, and how to mend it."""

from __future__ import annotations


class DetsegError(Exception):
    """Base of every error whose cause lies in the user's files or settings; tools print it and exit with code 2."""


class ConfigError(DetsegError, ValueError):
    """A configuration file or an override is wrong."""


class SettingsError(ConfigError):
    """Several mistakes in settings, each on a line of its own; what the user wrote is escaped and breaks no line."""


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


_MOST_OF_AN_ERROR = 300
_MOST_OF_A_VALUE = 100


def one_line(error: BaseException) -> str:
    """What another library's error says, on one line, for the inside of one of ours."""
    return _shortened(str(error), _MOST_OF_AN_ERROR) or type(error).__name__


def shown(value: object) -> str:
    """A value of a user's file as it can stand in a message: on one line, quoted where it is text, not too long."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deep, or a number of too many digits
        text = f"a {type(value).__name__}"
    return _shortened(text, _MOST_OF_A_VALUE)


def _shortened(text: str, most: int) -> str:
    """Text on one line, with what would move a terminal's cursor as escapes, cut after so many characters."""
    line = " ".join(text[: 20 * most].split())
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)
    return line if len(line) <= most else f"{line[:most]}..."
