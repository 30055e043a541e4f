"""The classes of mask images: the files that name them, and what ``data.classes`` chooses of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detseg.data.annotations.classes import (
    NO_CLASSES,
    Classes,
    are_of_another_set,
    check_class_names,
    class_table,
    selection_of,
)
from detseg.data.annotations.files import parse_json, read_list
from detseg.errors import ClassTableError, DataError
from detseg.messages import did_you_mean, listed, one_line, shown
from detseg.structures import IGNORE_LABEL, MAX_CLASSES, ClassTable

Color = tuple[int, int, int]

# In the root of a data set of masks: one class a line, in label order; empty lines and lines with # are skipped.
CLASSES_FILE = "classes.txt"
META_FILE = "dataset_meta.json"  # of OpenVINO's "common semantic segmentation" layout
_NUMBERED = re.compile(r"\d+\s*[:;,=\s]\s*\S")
_FIX = "name the classes in the order of their values, a background included, in data.classes"


@dataclass(frozen=True)
class MaskNames:
    """What a file says of the classes of masks.

    Attributes:
        file: which one.
        names: in the order of their values or colours.
        values: of each; None: 0, 1, 2, ...
        colors: of each, for colour images; empty: it names none.
    """

    file: Path
    names: tuple[str, ...]
    values: tuple[int, ...] | None = None
    colors: tuple[Color, ...] = ()

    @property
    def of_palettes(self) -> bool:
        """Whether the colours are those of palettes, too."""
        return self.file.name != META_FILE


def names_of_masks(root: Path) -> MaskNames | None:
    """What ``classes.txt`` in ``root`` says, else ``dataset_meta.json``, Roboflow's ``_classes.csv`` (in a folder of
    ``root``), LabelMe's ``class_names.txt``, CVAT's ``labelmap.txt``, ``class_dict.csv`` or nnU-Net's ``dataset.json``;
    None: there is none with two names or more. A DataError if one of the first two is wrong, or those of Roboflow
    differ."""
    if (root / CLASSES_FILE).exists():
        return MaskNames(root / CLASSES_FILE, tuple(_read_names(root / CLASSES_FILE)))
    if (root / META_FILE).exists():
        return _read_meta(root / META_FILE)
    of_roboflow = [root / "_classes.csv", *sorted(root.glob("*/_classes.csv"))]
    found = [_of_pairs(path, _rows_of_csv(path)) for path in of_roboflow]
    tables = [one for one in found if one is not None]
    if other := next((one for one in tables if (one.names, one.values) != (tables[0].names, tables[0].values)), None):
        raise DataError(f"{other.file}: expected the classes of {tables[0].file}; make both the same")
    if tables:
        return tables[0]
    if (names := _lines(root / "class_names.txt"))[1:]:  # of labelme2voc: _background_ is 0, __ignore__ before it -1
        names = names[names[0] == NO_CLASSES[0] :]
        check_class_names(str(root / "class_names.txt"), names)
        return MaskNames(root / "class_names.txt", tuple(names))
    of_colors = (_of_colors(root / name) for name in ("labelmap.txt", "class_dict.csv"))
    return next(filter(None, of_colors), None) or _of_pairs(root / "dataset.json", _rows_of_json(root / "dataset.json"))


def _of_pairs(path: Path, pairs: list[tuple[int, str]]) -> MaskNames | None:
    if len(pairs) < 2:
        return None
    values, names = zip(*sorted(pairs), strict=True)
    check_class_names(str(path), names)
    return MaskNames(path, names, None if values == tuple(range(len(values))) else values)


def _lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8-sig", errors="replace") if path.is_file() else ""
    return [line.strip() for line in text.splitlines() if line.strip()]


def _rows_of_csv(path: Path) -> list[tuple[int, str]]:
    """``value, name`` a line, below a heading."""
    rows = [line.partition(",") for line in _lines(path)]
    return [(int(value), name.strip()) for value, _, name in rows if value.strip().isdecimal() and name.strip()]


def _rows_of_json(path: Path) -> list[tuple[int, str]]:
    """nnU-Net's ``labels``, either way round; none where the file is another one."""
    try:
        labels = parse_json(path)["labels"]
        pairs = [(name, value) if isinstance(value, str) else (value, name) for name, value in labels.items()]
        return [(int(value), str(name)) for value, name in pairs]
    except (DataError, ValueError, TypeError, KeyError, AttributeError):
        return []


def _of_colors(path: Path) -> MaskNames | None:
    """Lines ``name:r,g,b:parts:actions`` or ``name,r,g,b``."""
    found = dict[str, Color]()
    for line in _lines(path):
        if ":" in line:
            line = line.rpartition(":")[0].rpartition(":")[0].replace(":", ",", 1)
        name, _, rest = line.partition(",")
        parts = [part.strip() for part in rest.split(",")]
        if name and name[0] != "#" and len(parts) == 3 and all(p.isdecimal() and int(p) < 256 for p in parts):
            found[name.strip()] = (int(parts[0]), int(parts[1]), int(parts[2]))
    if len(found) < 2 or len(set(found.values())) < len(found):
        return None
    check_class_names(str(path), tuple(found))
    return MaskNames(path, tuple(found), colors=tuple(found.values()))


def _read_meta(path: Path) -> MaskNames:
    content = parse_json(path)
    try:
        names = {int(value): str(name) for value, name in content["label_map"].items()}
        colors = [tuple(int(part) for part in color) for color in content.get("segmentation_colors", [])]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path}: cannot read label_map and segmentation_colors: {one_line(error)}; {_FIX}") from None
    if sorted(names) != list(range(len(names))) or len(names) < 2 or any(len(color) != 3 for color in colors):
        raise DataError(f"{path}: expected names of the values 0, 1, 2, ... and colours [R, G, B]; {_FIX}")
    check_class_names(str(path), names.values())
    in_order = tuple(names[value] for value in sorted(names))
    return MaskNames(path, in_order, colors=tuple((red, green, blue) for red, green, blue in colors))


def _read_names(path: Path) -> list[str]:
    names = [line for _, line in read_list(path, lambda line: False, "file of class names")]
    if not names:
        raise DataError(f"{path}: it names no classes; write one a line, or {_FIX}")
    if all(_NUMBERED.match(name) for name in names):
        raise DataError(
            f"{path}: expected names only, one a line, got {shown(names[0])}; take the numbers out (values other than "
            f"0, 1, 2, ... go into data.mask_values), or {_FIX}"
        )
    check_class_names(str(path), names)
    if not 2 <= len(names) <= MAX_CLASSES:
        fix = f"; name the background, too, on a line before {shown(names[0])}" if len(names) == 1 else ""
        raise DataError(f"{path}: masks need 2 to {MAX_CLASSES} classes, got {len(names)}{fix}")
    return names


def mask_class_table(
    root: Path, classes: ClassTable | Sequence[str] | None, values: tuple[int, ...] | None = None
) -> ClassTable:
    """The class table of mask images; the source's id of a class is its value in the masks.

    ``classes`` is a table, which is returned, or names in label order; None: those of the file in ``root`` that names
    them; a DataError if there is no such file or it is wrong. ``values``: of each class; None: the label itself.
    """
    if isinstance(classes, ClassTable):
        return classes
    if classes is None:
        there = names_of_masks(root)
        if there is None:
            raise DataError(f"{root}: masks hold no class names; {_FIX}, or one a line in {root / CLASSES_FILE}")
        classes = there.names
    names = class_table(classes).names
    if values is None or len(set(values)) != len(values) or len(values) != len(names):  # MaskEncoding raises then
        values = tuple(range(len(names)))
    return ClassTable(names, values)


@dataclass(frozen=True)
class MaskClasses:
    """The classes of mask images, and those of the data set.

    Attributes:
        source: as the masks have them, in the order of their values or colours.
        table: as the data set has them.
        labels: (S,) of each source class its label, `IGNORE_LABEL` where it is left out; None: both are the same.
        there: the file that names those of the source; None: ``data.classes`` does.
    """

    source: ClassTable
    table: ClassTable
    labels: tuple[int, ...] | None = None
    there: MaskNames | None = None


def mask_classes(root: Path | None, classes: Classes, values: tuple[int, ...] | None = None) -> MaskClasses:
    """The classes of mask images, as `names_of_masks` gives them, and those that ``classes`` selects and merges.

    Where a file in ``root`` names the classes, a selection has names of that file; the pixels of the others are
    ignored. Else the names of the selection are those of the values in their order.

    Raises:
        DataError: there are no names, a single class is chosen, or a selection has a name that the file has not.
    """
    try:
        there = None if root is None else names_of_masks(root)
    except DataError:
        if classes is None:
            raise
        there = None  # what is not needed may be wrong
    if there is not None and values is None:
        values = there.values
    if classes is None or isinstance(classes, ClassTable):
        table = mask_class_table(root or Path(), classes if there is None or classes else there.names, values)
        return MaskClasses(table, table, None, there if there is not None and there.names == table.names else None)
    chosen = selection_of(classes)
    if len(chosen.names) < 2:
        what = f"expected 2 to {MAX_CLASSES} classes, got {len(chosen.names)}"
        raise ClassTableError(f"data.classes: {what}; name the background, too: [background, {chosen.names[0]}]")
    names = tuple(chosen.label_of) if there is None else there.names
    unknown = [name for name in chosen.label_of if name not in names]
    if there is not None and unknown and (not are_of_another_set(classes) or len(unknown) == len(chosen.label_of)):
        what = f"the class {shown(unknown[0])} is not among its classes{did_you_mean(unknown[0], names)}; they are"
        fix = f"correct data.classes, in which {{new: [{names[0]}]}} renames one, or take that file away if it is wrong"
        raise ClassTableError(f"{there.file}: {what} {listed(names)}: {fix}")
    source = mask_class_table(root or Path(), names, values)
    labels = tuple(chosen.label_of.get(name, IGNORE_LABEL) for name in names)
    first = dict(reversed(list(zip(labels, source.source_ids, strict=True))))
    table = ClassTable(chosen.names, chosen.source_ids or tuple(first[label] for label in range(len(chosen.names))))
    return MaskClasses(source, table, None if labels == tuple(range(len(table))) else labels, there)


def check_classes_file(root: Path, table: ClassTable) -> None:
    """Raise a ClassTableError if a file in ``root`` names other classes than the given table: that of the training set
    or of a checkpoint."""
    there, expected = names_of_masks(root), list(table.names)
    if there is None or list(there.names) == expected:
        return
    differing = (k for k, pair in enumerate(zip(there.names, expected, strict=False)) if pair[0] != pair[1])
    labels = [f" (label {k} is {shown(there.names[k])}, expected {shown(expected[k])})" for k in differing][:1]
    raise ClassTableError(
        f"{there.file}: {len(there.names)} classes, {listed(there.names)}; expected {len(expected)}, {listed(expected)}"
        f"{''.join(labels)}; values of these masks would be read as other classes; if they do mean the expected "
        f"ones, say so in data.classes: [{{{expected[0]}: [{there.names[0]}]}}, ...]"
    )
