"""Which classes masks have, by the files that exports of masks name them in."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from detseg.data.annotations.classes import CLASSES_FILE, META_FILE, read_mask_meta
from detseg.data.formats.recognise.layout import text_lines
from detseg.data.images.read import open_image
from detseg.data.images.tree import Tree
from detseg.errors import DataError


@dataclass(frozen=True)
class MaskNames:
    """The classes of masks.

    Attributes:
        names: in the order of the values or colours; empty: no file names them.
        settings: what has to be set so that they are read, ``classes`` and ``mask_values`` or ``mask_colors``.
        notes: what is unusual, a line each.
    """

    names: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def mask_names(tree: Tree, images: str, mask: str) -> MaskNames:
    """The classes of masks, from ``classes.txt``, ``dataset_meta.json``, Roboflow's ``_classes.csv``, CVAT's
    ``labelmap.txt``, a ``class_dict.csv``, or nnU-Net's ``dataset.json``.

    Args:
        tree: the set.
        images: the folder of its training images.
        mask: one of its masks, which shows whether they hold values or colours.
    """
    if CLASSES_FILE in tree.files[""]:
        return MaskNames(text_lines(tree, CLASSES_FILE))
    if META_FILE in tree.files[""]:
        try:
            return MaskNames(tuple(read_mask_meta(tree.root)[0]))
        except DataError as error:
            return MaskNames(notes=(str(error),))
    rows = [line.partition(",") for line in text_lines(tree, f"{images}/_classes.csv".lstrip("/"))]
    pairs = [(int(value), name.strip()) for value, _, name in rows if value.strip().isdecimal() and name.strip()]
    pairs = pairs or _numbered(tree)
    if len(pairs) > 1:
        pairs.sort()
        values, names = [value for value, _ in pairs], [name for _, name in pairs]
        found: dict[str, Any] = {"classes": names}
        return MaskNames(tuple(names), found if values == [*range(len(values))] else found | {"mask_values": values})
    if colors := _colored(tree):
        found = {"classes": list(colors)}
        if _is_colored(tree, mask):
            found["mask_colors"] = [list(color) for color in colors.values()]
        return MaskNames(tuple(colors), found)
    fix = f"write {CLASSES_FILE}, a name a line in the order of the values, or set data.classes"
    return MaskNames(notes=(f"no file that is read names the classes of the masks: {fix}",))


def _numbered(tree: Tree) -> list[tuple[int, str]]:
    """nnU-Net's ``labels``, either way round."""
    try:
        labels = json.loads(tree.begin("dataset.json", 1 << 24))["labels"]
        pairs = [(name, value) if isinstance(value, str) else (value, name) for name, value in labels.items()]
        return [(int(value), str(name)) for value, name in pairs]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []


def _colored(tree: Tree) -> dict[str, tuple[int, ...]]:
    """Names and their colours of ``labelmap.txt`` (``name:r,g,b:parts:actions``) or ``class_dict.csv``."""
    found = dict[str, tuple[int, ...]]()
    for line in text_lines(tree, "labelmap.txt") or text_lines(tree, "class_dict.csv"):
        if ":" in line:
            line = line.rpartition(":")[0].rpartition(":")[0].replace(":", ",", 1)
        name, _, rest = line.partition(",")
        parts = [part.strip() for part in rest.split(",")]
        if name and name[0] != "#" and len(parts) == 3 and all(p.isdecimal() and int(p) < 256 for p in parts):
            found[name.strip()] = tuple(map(int, parts))
    return found if len(found) > 1 and len(set(found.values())) == len(found) else {}


def _is_colored(tree: Tree, mask: str) -> bool:
    try:
        with open_image(tree.root / mask, "mask", header_only=True) as (header, _):
            return header.mode in ("RGB", "RGBA", "P")
    except DataError:
        return False
