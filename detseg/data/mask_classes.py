"""Which classes masks have: the given ones, or those that a file beside the masks names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detseg.data.class_names import class_table
from detseg.errors import DataError
from detseg.structures import ClassTable

CLASSES_FILE = "classes.txt"
"""In the root of a data set: one class a line, in label order."""


def mask_class_table(
    root: Path, classes: ClassTable | Sequence[str] | None, values: tuple[int, ...] | None = None
) -> ClassTable:
    """The table of mask pictures; the source's id of a class is its value in the masks.

    Args:
        root: the folder of the data set.
        classes: a table, which is taken as it is; names in label order; None: the lines of ``classes.txt`` in ``root``.
        values: value of each class in the masks; None: the label itself.

    Raises:
        DataError: no classes are given, and there is no such file or it names none.
    """
    if isinstance(classes, ClassTable):
        return classes
    names = class_table(_names_in_file(root) if classes is None else classes).names
    fits = values is not None and len(values) == len(names) == len(set(values))  # else MaskEncoding says what is wrong
    return ClassTable(names, values if values is not None and fits else tuple(range(len(names))))


def _names_in_file(root: Path) -> list[str]:
    path = root / CLASSES_FILE
    mend = "name the classes in the order of their values, a background included, in data.classes"
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise DataError(f"{root}: masks hold no class names; {mend}, or one a line in {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot read the class names: {error}; {mend}") from None
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise DataError(f"{path}: it names no classes; write one a line, or {mend}")
    return names
