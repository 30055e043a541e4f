"""Checks of classes: their names, and how many objects of each there are in which split."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from detseg.data.annotations.issues import DataIssue
from detseg.data.annotations.report import DataReport, Example
from detseg.data.checks.facts import SplitFacts
from detseg.messages import shown

_FEW = 10  # objects of a class in train
_RARE = 100  # times as many as of a class has the most frequent one
_LONG = 5  # letters of a name from which on one letter may be a slip: `cat` and `car` are two words


def check_names(splits: Sequence[SplitFacts], report: DataReport) -> None:
    """Names that differ by case, white space, a plural s or their form in Unicode; or, of five letters or more, by one
    that is left out or two that changed places, behind the first."""
    names = dict.fromkeys(name for split in splits for name in split.dataset.classes.names)
    for split in splits:
        for issue in (DataIssue.UNKNOWN_CLASS, DataIssue.NOT_IN_TABLE, DataIssue.LEFT_OUT):
            names |= dict.fromkeys(split.report.examples(issue))
    for one, other in combinations(names, 2):
        if abs(len(one) - len(other)) < 4 and _is_slip(one, other):
            same = unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)
            names_shown = [ascii(name) if same else shown(name) for name in (one, other)]
            report.add(DataIssue.SIMILAR_NAMES, " and ".join(names_shown))


def _is_slip(one: str, other: str) -> bool:
    normal = (unicodedata.normalize("NFKC", name) for name in (one, other))
    one, other = (re.sub(r"[\s_-]+", " ", name.strip()).casefold() for name in normal)
    shorter, longer = sorted((one, other), key=len)
    if shorter == longer or (len(shorter) > 1 and longer == shorter + "s"):
        return True
    if len(shorter) < _LONG or len(longer) - len(shorter) > 1 or shorter[0] != longer[0]:  # mouse, house
        return False
    start = next((k for k, (a, b) in enumerate(zip(shorter, longer, strict=False)) if a != b), len(shorter))
    if len(shorter) == len(longer):  # two letters changed places
        end = start + 2
        same_rest = shorter[start:end] == longer[start:end][::-1] and shorter[end:] == longer[end:]
    else:
        same_rest = shorter[start:] == longer[start + 1 :]
    return same_rest and not longer[start].isdigit()  # class 1, class 12


def check_counts(splits: Sequence[SplitFacts], report: DataReport) -> None:
    """Classes with few objects in train, or with far fewer than others."""
    for split in splits:
        if split.name != "train" or split.objects is None:
            continue
        names, counts = split.dataset.classes.names, split.class_counts
        for label in np.argsort(counts, kind="stable").tolist():
            num, most = int(counts[label]), int(counts.max())
            if 0 < num < _FEW:
                report.add(DataIssue.FEW_OBJECTS, Example(names[label], detail=f"{num} in train", badness=-float(num)))
            if 0 < num * _RARE <= most:
                detail = f"{num} against {most} of {shown(names[int(counts.argmax())])}"
                report.add(DataIssue.IMBALANCE, Example(names[label], detail=detail, badness=-float(num)))


def check_first_class(splits: Sequence[SplitFacts], report: DataReport) -> None:
    """Ids that are off by one: no object of the first class, though objects have an id one beyond the last; of COCO's
    categories also the reverse."""
    sets = [split for split in splits if split.objects is not None]
    for split in sets:
        ids, counts = split.dataset.classes.source_ids, split.class_counts
        beyond = split.report.examples(DataIssue.UNKNOWN_CATEGORY, None)
        for without, number in ((-1, min(ids) - 1), (0, max(ids) + 1)):
            if f"category {number}" in beyond and not counts[without]:
                name = shown(split.dataset.classes.names[without])
                detail = f"no object of {name}, and objects of category {number} of {min(ids)} to {max(ids)}"
                report.add(DataIssue.OFF_BY_ONE, Example(split.name, detail=detail))
    if not sets or any(split.class_counts[:1].sum() for split in sets):
        return
    num = len(sets[0].dataset.classes)
    beyond = [place for split in sets for place in split.report.examples(DataIssue.UNKNOWN_CLASS)]
    if num > 1 and any(re.search(rf"\b{num}\b", place) for place in beyond):
        first = shown(sets[0].dataset.classes.names[0])
        detail = f"no object of the first class, {first}, and objects of class {num} of 0 to {num - 1}"
        report.add(DataIssue.OFF_BY_ONE, Example("all splits", detail=detail))
