"""What the readers share in matching class names of files with those that the caller gave."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from detseg.errors import ClassTableError
from detseg.structures import ClassTable

_MAX_LISTED = 10


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """`` (did you mean 'x'?)`` with the known name nearest to ``name``, or nothing where none is near."""
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def printable(name: str) -> str:
    """A name from a file as it can stand in a message: quoted, with escapes, if it holds more than printable text."""
    return name if name.isprintable() else ascii(name)


def listed(names: Sequence[str]) -> str:
    """The names in a row, cut after ten."""
    more = f", and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(printable(name) for name in names[:_MAX_LISTED]) + more


def class_table(classes: ClassTable | Sequence[str]) -> ClassTable:
    """A table as it is, or the table of the given names with the ids 1 to C.

    Raises:
        ClassTableError: no names, or a name twice.
    """
    if isinstance(classes, ClassTable):
        return classes
    if not classes:
        raise ClassTableError("the list of classes is empty; leave it out to take the classes from the data")
    try:
        return ClassTable(tuple(classes))
    except ValueError as error:
        raise ClassTableError(str(error)) from None
