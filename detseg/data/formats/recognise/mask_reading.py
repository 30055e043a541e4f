"""Which classes masks have: by the files that exports name them in, or by the values that are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from detseg.data.annotations.classes import BACKGROUND
from detseg.data.annotations.mask_names import CLASSES_FILE, META_FILE, names_of_masks
from detseg.data.images.masks import is_colored, read_values
from detseg.data.images.threads import in_threads
from detseg.data.images.tree import Tree
from detseg.errors import DataError
from detseg.messages import counted, listed
from detseg.structures import IntArray

_MOST_MASKS = 20  # that are decoded where no file names the classes
_MOST_VALUES = 40  # of masks without names; more are hardly classes
_VOID = 255
_FIRST_GREY = 64  # from here on values are greys that somebody chose to see them, not numbers of classes
_ENDS = 0.9  # least part of the pixels within a quarter of 0 or 255, for soft edges of two classes


@dataclass(frozen=True)
class MaskReading:
    """The classes of masks.

    Attributes:
        names: in the order of the values or colours; empty: no file names them.
        settings: what has to be set so that they are read, ``classes`` and ``mask_values`` or ``mask_colors``.
        notes: what is unusual, a line each.
    """

    names: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def mask_reading(tree: Tree, masks: Sequence[str]) -> MaskReading:
    """The classes of masks as `names_of_masks` finds them; where no file names any, by the values of some.

    Args:
        tree: the set.
        masks: the paths of those of the training split.
    """
    try:
        there = names_of_masks(tree.root)
    except DataError as error:
        return MaskReading(notes=(str(error),))
    if there is None:
        return _by_values(tree, masks)
    settings: dict[str, Any] = {}
    if there.file.name not in (CLASSES_FILE, META_FILE):
        settings["classes"] = list(there.names)
        if there.colors and masks and is_colored(tree.root / masks[0], there.of_palettes):
            settings["mask_colors"] = [list(color) for color in there.colors]
        elif there.values is not None:
            settings["mask_values"] = list(there.values)
    return MaskReading(there.names, settings)


def _by_values(tree: Tree, masks: Sequence[str]) -> MaskReading:
    """0 is the background, N ``class_N``, or the foreground if it is the only other one."""
    places = np.unique(np.linspace(0, len(masks) - 1, _MOST_MASKS).round().astype(int)).tolist() if masks else []
    counts, wrong = np.zeros(256, dtype=np.int64), list[DataError]()
    for found in in_threads(partial(_count, tree.root), [masks[place] for place in places], "looking at masks"):
        if isinstance(found, DataError):
            wrong.append(found)
        else:
            counts += found
    if len(wrong) == len(places):
        return _unnamed(f" ({wrong[0]})" if wrong else "")
    values = [int(value) for value in np.flatnonzero(counts)]
    seen = f"the values of {counted(len(places) - len(wrong), 'mask')}"
    first = "no file names the classes"
    lossy = any(mask.lower().endswith((".jpg", ".jpeg")) for mask in masks)
    ends = counts[:_FIRST_GREY].sum(), counts[-_FIRST_GREY:].sum()
    between = np.count_nonzero(counts[_FIRST_GREY:_VOID])
    no_numbers = lossy or not 2 <= len(values) <= _MOST_VALUES
    if (no_numbers or between > 1) and all(ends) and sum(ends) > _ENDS * counts.sum():
        settings: dict[str, Any] = {"classes": [BACKGROUND, "foreground"], "mask_threshold": 128}
        what = f"{seen} are nearly all near 0 or 255: those from 128 on are read as foreground"
        return MaskReading(settings=settings, notes=(f"{first}, and {what}; name them in data.classes",))
    if no_numbers:
        return _unnamed(f" ({masks[0]} is JPEG, which changes values)" if lossy else "")
    ignored = _VOID in values and len(values) > 2 and values[-2] < _FIRST_GREY
    kept = [value for value in values if value != _VOID or not ignored]
    others = [value for value in kept if value]
    names = [BACKGROUND if not v else "foreground" if len(kept) == 2 and others == [v] else f"class_{v}" for v in kept]
    settings = {"classes": names}
    if kept != [*range(len(kept))]:
        settings["mask_values"] = kept
    if _VOID in kept:
        settings["ignore_index"] = None
    tail = f", {_VOID} is ignored" if ignored else ""
    how = f"so {seen} do: {listed([f'{v} {name}' for v, name in zip(kept, names, strict=True)])}{tail}"
    return MaskReading(settings=settings, notes=(f"{first}, {how}; give them their names in data.classes",))


def _count(root: Path, mask: str) -> IntArray | DataError:
    try:
        return np.bincount(read_values(root / mask).ravel(), minlength=256)
    except DataError as error:
        return error


def _unnamed(why: str) -> MaskReading:
    fix = f"write {CLASSES_FILE}, a name a line in the order of the values, or set data.classes"
    return MaskReading(notes=(f"no file that is read names the classes of the masks{why}: {fix}",))
