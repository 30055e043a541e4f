"""Checks of duplicates: the same or nearly the same image twice, within a split and across splits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detseg.data.annotations.issues import DataIssue
from detseg.data.annotations.report import Example
from detseg.data.checks.facts import SplitFacts
from detseg.data.images.find import file_identity
from detseg.data.images.similar import near_duplicates


def check_duplicates(splits: Sequence[SplitFacts]) -> None:
    """Each image that is the same file as, or looks nearly like, an earlier one counts once: the same before similar,
    in another split before its own. The report of the later image's split says so. Where images are not opened,
    the same are those whose paths lead to one file."""
    places = [(split, index) for split in splits for index in range(len(split.dataset))]
    same, first = dict[int, int](), dict[object, int]()
    across = dict[int, int]()
    for place, (split, index) in enumerate(places):
        if split.images:
            key: object = None if split.images[index].error else split.images[index].digest or None
        else:
            key = file_identity(split.dataset.path(index))
        if key is None:
            continue
        earlier = first.setdefault(key, place)
        if earlier != place:
            (same if places[earlier][0] is split else across)[place] = earlier
    _report(places, across, DataIssue.SAME_ACROSS)
    _report(places, same, DataIssue.SAME_IMAGE)
    if not places or not all(split.images or not len(split.dataset) for split in splits):
        return
    split_of = np.repeat(np.arange(len(splits)), [len(split.images) for split in splits])
    exact = set(same) | set(across)
    own, other = dict[int, int](), dict[int, int]()
    for pairs in near_duplicates(np.stack([split.images[index].signature for split, index in places])):
        is_own = split_of[pairs[:, 0]] == split_of[pairs[:, 1]]
        for found, chosen in ((own, pairs[is_own]), (other, pairs[~is_own])):
            later, firsts = np.unique(chosen[:, 1], return_index=True)
            for place, earlier in zip(later.tolist(), chosen[firsts, 0].tolist(), strict=True):
                found[place] = min(earlier, found.get(place, earlier))
    other = {place: earlier for place, earlier in other.items() if place not in exact}
    _report(places, other, DataIssue.SIMILAR_ACROSS)
    own = {place: earlier for place, earlier in own.items() if place not in exact and place not in other}
    _report(places, own, DataIssue.SIMILAR_IMAGE)


def _report(places: Sequence[tuple[SplitFacts, int]], found: dict[int, int], issue: DataIssue) -> None:
    for place, earlier in sorted(found.items()):
        (split, index), (other, other_index) = places[place], places[earlier]
        own_name, other_name = split.dataset.packed.path(index), other.dataset.packed.path(other_index)
        detail = f"like {other_name}" + ("" if other is split else f" in {other.name}")
        split.report.add(issue, Example(own_name, index, detail=detail, other=(other.name, other_index)))
