"""Class tables: from names, or from a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detseg.data.annotations.issues import DataIssue
from detseg.data.annotations.report import DataReport
from detseg.errors import ClassTableError, DataError, check_row
from detseg.messages import did_you_mean, listed, shown
from detseg.structures import MAX_CLASSES, ClassTable, IntArray, is_plain_text


def check_class_name(where: str, name: str) -> None:
    """Raise a DataError that begins with ``where`` unless the name can be printed and written to every file format."""
    if not is_plain_text(name):
        what = f"the class name {shown(name)} holds control characters"
        raise DataError(f"{where}: {what}; rename it to text of one line")


def check_class_names(where: str, names: Collection[str]) -> None:
    """Raise a DataError that begins with ``where`` unless there are names, all different, as `check_class_name` wants
    them."""
    if not names or "" in names:
        raise DataError(f"{where}: expected class names, got {'an empty one' if names else 'none'}")
    if twice := [name for name, number in Counter(names).items() if number > 1]:
        raise DataError(f"{where}: class names must differ, got {listed(twice)} more than once; rename or merge them")
    for name in names:
        check_class_name(where, name)


NO_CLASSES = ("__ignore__", "_background_")
"""Names of LabelMe's convention, the first two lines of its list of classes, that are none."""


def placeholders(categories: Sequence[tuple[Any, str, Any]], used: Collection[Any]) -> set[Any]:
    """The ids of COCO categories that exporters add for no object: Roboflow's parent of all others, and those of
    LabelMe's convention. ``categories``: id, name, supercategory; ``used``: ids that annotations have."""
    found = {number for number, name, _ in categories if number not in used and name in NO_CLASSES}
    others = [category for category in categories if category[0] not in found]
    for number, name, _ in others if len(others) > 1 else ():
        if number not in used and all(parent == name for other, _, parent in others if other != number):
            found.add(number)
    return found if len(found) < len(categories) else set()


Spec = str | Mapping[str, Sequence[str]]
"""One class: its name, or its name and the names that it merges, ``{"truck": ["lorry", "van"]}``."""


@dataclass(frozen=True)
class ClassSelection:
    """Which classes of a data set count, and what they are called: ``data.classes``.

    Attributes:
        names: of the classes, in label order.
        label_of: name in the annotations → label; several names may have one label.
        source_ids: of the classes, where a table is given as well; empty: those of the annotations.
        background: of label maps that are drawn from objects, a name that none of their classes may have.
    """

    names: tuple[str, ...]
    label_of: Mapping[str, int]
    source_ids: tuple[int, ...] = ()
    background: str = ""


Classes = ClassTable | ClassSelection | Sequence[Spec] | None
"""How readers take classes: the table of a training set or checkpoint; a selection, also as names and mappings; None:
all that the data has."""


def select_classes(given: Sequence[Spec]) -> ClassSelection:
    """The selection that ``data.classes`` states; a DataError if it is empty, names something twice, or holds a name
    that is not plain text."""
    check_row("classes", given, str | Mapping, "a table, or names, such as ['person', {'truck': ['lorry', 'van']}]")
    names, label_of = list[str](), dict[str, int]()
    for spec in given:
        merged = {spec: [spec]} if isinstance(spec, str) else spec
        for name, sources in merged.items():
            check_row(f"data.classes: {shown(name)}", sources, str, "the names that it merges, [lorry, van]")
            for source in sources:
                if source in label_of:
                    what = f"expected each class once and at least one, got {shown(source)} twice"
                    raise ClassTableError(f"data.classes: {what}")
                label_of[source] = len(names)
            names.append(name)
    if not names or len(set(names)) != len(names):
        raise ClassTableError(f"data.classes: expected each class once and at least one, got {listed(names) or '-'}")
    return ClassSelection(tuple(names), label_of)


def selection_of(classes: ClassTable | ClassSelection | Sequence[Spec]) -> ClassSelection:
    """Classes in any form as a selection; a table selects the classes of its names."""
    if isinstance(classes, ClassSelection):
        return classes
    if isinstance(classes, ClassTable):
        return ClassSelection(classes.names, {name: k for k, name in enumerate(classes.names)}, classes.source_ids)
    return select_classes(classes)


def are_of_another_set(classes: Classes) -> bool:
    """Whether classes are those of a training set or checkpoint, which other data is read with: a table is given."""
    return isinstance(classes, ClassTable) or (isinstance(classes, ClassSelection) and bool(classes.source_ids))


def class_table(classes: ClassTable | ClassSelection | Sequence[Spec]) -> ClassTable:
    """A given table, or that of the given classes with the ids 1 to C; errors as in `select_classes`."""
    if isinstance(classes, ClassTable):
        return classes
    chosen = selection_of(classes)
    return ClassTable(chosen.names, chosen.source_ids)


def choose_labels(
    source: ClassTable | Sequence[str],
    counts: IntArray,
    classes: Classes,
    where: str,
    report: DataReport,
    declared: bool,
    strict: bool,
    places: Mapping[str, str] | None = None,
) -> tuple[ClassTable, IntArray]:
    """The class table of a data set, and the label of each class in its annotations, -1 for those that are left out.

    Args:
        source: the classes as the annotations have them, with ids if there are any; S of them.
        counts: (S,) the objects of each.
        classes: what the caller asks for. A class of a table that the annotations lack is one without objects.
        where: begins each message.
        report: gets the number of objects of each class that is left out, and classes whose ids are not the table's.
        declared: whether ``source`` is a list that the format states, so that a name beyond it is a mistake; else it
            is what the objects happen to be.
        strict: whether objects of classes that a table lacks are an error, not left out: where there is no list, a
            name that the training set has not may be a slip.
        places: class → the file that has its first object, for messages.

    Raises:
        ClassTableError: a class is not known, or objects are of a class that the table lacks.
    """
    names = source.names if isinstance(source, ClassTable) else tuple(source)
    ids = source.source_ids if isinstance(source, ClassTable) else tuple(range(1, len(names) + 1))
    if classes is None:
        return ClassTable(names, ids), np.arange(len(names), dtype=np.int64)
    chosen, has_table = selection_of(classes), are_of_another_set(classes)
    _check_background(chosen.background, names, where)
    for name in chosen.names:
        check_class_name("data.classes", name)
    for name in chosen.label_of if declared and not has_table else ():
        if name not in names:
            raise ClassTableError(
                f"{where}: the class {shown(name)} is not among its classes{did_you_mean(name, names)}; they are "
                f"{listed(names)}: correct data.classes, or the annotations"
            )
    labels = np.array([chosen.label_of.get(name, -1) for name in names], dtype=np.int64)
    left_out = {name: int(n) for name, label, n in zip(names, labels, counts, strict=True) if label < 0 < n}
    _report_left_out(left_out, classes, strict, places or {}, where, report)
    if names and (labels < 0).all():
        near = next(filter(None, (did_you_mean(name, names) for name in chosen.label_of)), "")
        what = f"has none of the classes {listed(list(chosen.label_of))}{near}; it has {listed(names)}"
        raise ClassTableError(f"{where}: {what}: correct data.classes, or the annotations")
    ids_there = source.source_ids if isinstance(source, ClassTable) else ()
    _report_other_ids(dict(zip(names, ids_there, strict=False)), chosen, report)
    return ClassTable(chosen.names, chosen.source_ids or _ids_of(chosen, names, ids_there)), labels


def _report_left_out(
    left_out: Mapping[str, int],
    classes: ClassTable | ClassSelection | Sequence[Spec],
    strict: bool,
    places: Mapping[str, str],
    where: str,
    report: DataReport,
) -> None:
    """Say of classes with objects that are left out who did not want them: ``data.classes``, or a training set."""
    for name, count in left_out.items():
        if not isinstance(classes, ClassTable):
            report.add(DataIssue.LEFT_OUT, name, count)
        elif not strict:
            report.add(DataIssue.NOT_IN_TABLE, name, count)
        else:
            what = f"unknown class {shown(name)}{did_you_mean(name, classes.names)}; the classes are"
            fix = "correct the annotation or name the class in data.classes"
            message = f"{places.get(name, where)}: {what} {listed(classes.names)}: {fix}"
            report.wrong(DataIssue.UNKNOWN_CLASS, name, message, count, ClassTableError)


def _report_other_ids(ids: Mapping[str, int], chosen: ClassSelection, report: DataReport) -> None:
    for name, known in zip(chosen.names, chosen.source_ids, strict=False):
        if (number := ids.get(name, known)) != known:
            report.add(DataIssue.OTHER_ID, f"{name}: {number}, in the training set {known}")


def _ids_of(chosen: ClassSelection, names: Sequence[str], ids: Sequence[int]) -> tuple[int, ...]:
    """The source's ids of the chosen classes, of merged ones that of the first; () where the source has none."""
    if not ids:
        return ()
    id_of = dict(zip(names, ids, strict=True))
    id_of_label = {label: id_of[name] for name, label in reversed(list(chosen.label_of.items()))}
    return tuple(id_of_label[label] for label in range(len(chosen.names)))


BACKGROUND = "background"
"""The name of label 0 of maps that are drawn from objects, if none is given."""


def split_background(classes: Classes) -> tuple[str, Classes]:
    """The classes of label maps that are drawn from objects → the name of the background, their first, and those of the
    objects; None for these means all that there are."""
    if classes is None:
        return BACKGROUND, None
    chosen = selection_of(classes)
    names, ids = chosen.names[1:], chosen.source_ids[1:]
    if not names:
        raise ClassTableError(f"data.classes: expected a background and classes of objects, got {listed(chosen.names)}")
    if isinstance(classes, ClassTable):
        return chosen.names[0], ClassTable(names, ids)
    label_of = {name: label - 1 for name, label in chosen.label_of.items() if label}
    return chosen.names[0], ClassSelection(names, label_of, ids, chosen.names[0])


def _check_background(background: str, names: Sequence[str], where: str) -> None:
    if background in names:
        what = f"label 0 is the background, but {shown(background)} is the name of a class of objects"
        raise ClassTableError(f"{where}: {what}; begin data.classes with a name that no class has")


def add_background(objects: ClassTable, background: str, where: str, classes: Classes = None) -> ClassTable:
    """The table of label maps: the background, then the classes of objects; a given table ``classes`` stays as it is.
    A ClassTableError that begins with ``where`` if the name is taken, or there are more than maps can hold."""
    check_class_name("data.classes", background)
    _check_background(background, objects.names, where)
    if isinstance(classes, ClassTable):
        return classes
    if len(objects) >= MAX_CLASSES:
        what = f"{len(objects)} classes and a background are more than the {MAX_CLASSES}"
        raise ClassTableError(f"{where}: {what} that a map can tell apart; name those that count in data.classes")
    source_id = 0 if 0 not in objects.source_ids else min(objects.source_ids) - 1
    return ClassTable((background, *objects.names), (source_id, *objects.source_ids))
