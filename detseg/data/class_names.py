"""What the readers share in matching class names of files with those that the caller gave."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from detseg.errors import ClassTableError, DataError, shown
from detseg.structures import ClassTable, is_plain_text

_MAX_LISTED = 10
_LONGEST = 300
"""Characters; the names of files have up to 255, and folders before them."""


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """`` (did you mean 'x'?)`` with the known name nearest to ``name``, or nothing where none is near."""
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {shown(near[0])}?)" if near else ""


def printable(name: str) -> str:
    """A name from a file as it can stand in a message: quoted, with escapes, if it holds more than printable text; cut
    where it is too long for a name."""
    return name if name.isprintable() and len(name) <= _LONGEST else shown(name)


def listed(names: Sequence[str]) -> str:
    """The names in a row, cut after ten."""
    more = f", and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(printable(name) for name in names[:_MAX_LISTED]) + more


def check_class_name(where: str, name: str) -> None:
    """Refuse a name that would write over a terminal, or be two lines or no XML in a file.

    Args:
        where: the file, and where in it.
        name: of a class.

    Raises:
        DataError: it holds control characters, line breaks, or marks that turn the direction of text.
    """
    if not is_plain_text(name):
        raise DataError(
            f"{where}: the class name {shown(name)} holds control characters; rename it to text of one line"
        )


def class_table(classes: ClassTable | Sequence[str]) -> ClassTable:
    """A table as it is, or the table of the given names with the ids 1 to C.

    Raises:
        DataError: no names, a name twice, or one that is no plain text.
    """
    if isinstance(classes, ClassTable):
        return classes
    if not classes:
        raise ClassTableError("the list of classes is empty; leave it out to take the classes from the data")
    for name in classes:
        check_class_name("data.classes", name)
    try:
        return ClassTable(tuple(classes))
    except ValueError as error:
        raise ClassTableError(str(error)) from None
