"""Class tables: from names, from a table, or from ``classes.txt`` beside masks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from detseg.errors import ClassTableError, DataError, check_row
from detseg.messages import listed, shown
from detseg.structures import MAX_CLASSES, ClassTable, is_plain_text


def check_class_name(where: str, name: str) -> None:
    """Raise a DataError that begins with ``where`` unless the name can be printed and written to every file format."""
    if not is_plain_text(name):
        what = f"the class name {shown(name)} holds control characters"
        raise DataError(f"{where}: {what}; rename it to text of one line")


def class_table(classes: ClassTable | Sequence[str]) -> ClassTable:
    """A given table, or that of the given names with the ids 1 to C; a DataError if there are none, one is there twice,
    or is not plain text."""
    if isinstance(classes, ClassTable):
        return classes
    check_row("classes", classes, str, "a table or names, such as ['person']")
    for name in classes:
        check_class_name("data.classes", name)
    if not classes or len(set(classes)) != len(classes):
        raise ClassTableError(f"data.classes: expected each class once and at least one, got {listed(classes) or '-'}")
    return ClassTable(tuple(classes))


# In the root of a data set of masks: one class a line, in label order; empty lines and lines with # are skipped.
CLASSES_FILE = "classes.txt"
_NUMBERED = re.compile(r"\d+\s*[:;,=\s]\s*\S")
_FIX = "name the classes in the order of their values, a background included, in data.classes"


def mask_class_table(
    root: Path, classes: ClassTable | Sequence[str] | None, values: tuple[int, ...] | None = None
) -> ClassTable:
    """The class table of mask images; the source's id of a class is its value in the masks.

    ``classes`` is a table, which is returned, or names in label order; None: the lines of ``classes.txt`` in ``root``,
    a DataError if there is no such file or it is wrong. ``values``: of each class; None: the label itself.
    """
    if isinstance(classes, ClassTable):
        return classes
    names = class_table(_read_names(root / CLASSES_FILE) if classes is None else classes).names
    if values is None or len(set(values)) != len(values) or len(values) != len(names):  # MaskEncoding raises then
        values = tuple(range(len(names)))
    return ClassTable(names, values)


def check_classes_file(root: Path, table: ClassTable) -> None:
    """Raise a ClassTableError if ``classes.txt`` in ``root`` is there and names other classes than the given table:
    that of the training set or of a checkpoint."""
    path, expected = root / CLASSES_FILE, list(table.names)
    found = _read_names(path) if path.exists() else expected
    if found != expected:
        differing = (k for k, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1])
        labels = [f" (label {k} is {shown(found[k])}, expected {shown(expected[k])})" for k in differing][:1]
        raise ClassTableError(
            f"{path}: {len(found)} classes, {listed(found)}; expected {len(expected)}, {listed(expected)}"
            f"{''.join(labels)}; values of these masks would be read as other classes; if they do mean the expected "
            "ones, name these in data.classes"
        )


def _read_names(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise DataError(f"{path.parent}: masks hold no class names; {_FIX}, or one a line in {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot read the class names: {error}; {_FIX}") from None
    names = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    if not names:
        raise DataError(f"{path}: it names no classes; write one a line, or {_FIX}")
    if all(_NUMBERED.match(name) for name in names):
        raise DataError(
            f"{path}: expected names only, one a line, got {shown(names[0])}; take the numbers out (values other than "
            f"0, 1, 2, ... go into data.mask_values), or {_FIX}"
        )
    for name in names:
        check_class_name(str(path), name)
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise DataError(f"{path}: class names must differ, got {listed(twice)} more than once")
    if not 2 <= len(names) <= MAX_CLASSES:
        fix = f"; name the background, too, on a line before {shown(names[0])}" if len(names) == 1 else ""
        raise DataError(f"{path}: masks need 2 to {MAX_CLASSES} classes, got {len(names)}{fix}")
    return names
