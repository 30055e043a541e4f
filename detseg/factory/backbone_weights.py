"""A backbone's weights from a file of any program's: all of them, or an error that says what does not fit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from detseg.checkpoint import read_tensors
from detseg.errors import CheckpointError
from detseg.factory.transfer import Transfer, learned, members_beyond, plain
from detseg.messages import listed

_AVERAGES = {"ema", "average", "averaged"}
"""Words in the names of averaged weights, which are taken rather than those that they are the average of."""
_FEW = 3  # names in an error


def take_backbone_weights(backbone: nn.Module, path: Path, network: str) -> Transfer:
    """Load a local file into a backbone: weights of timm or torchvision, of a classifier or of a whole training of any
    program's. What comes before the names of the backbone's tensors (``state_dict.module.``) is found out.

    Args:
        backbone: gets them.
        path: what ``read_tensors`` takes.
        network: its name, for messages.

    Raises:
        CheckpointError: the file cannot be read, lacks a tensor of the backbone, or has one that is NaN or infinite; or
            it has more layers between those of the backbone, so that it is another network's.
    """
    body: nn.Module = getattr(backbone, "body", backbone)  # of timm and torchvision
    ours, theirs = learned(body.state_dict()), learned(read_tensors(path))
    places = {plain(name): name for name in theirs}
    prefixes = _best_prefixes(ours, theirs, places)
    here = {name: places[plain(prefixes[0] + name)] for name in ours if plain(prefixes[0] + name) in places}
    _check_fit(ours, {name: theirs[place] for name, place in here.items()}, theirs, f"{path}", network)
    found = Transfer(len(ours), taken=list(here), used=set(here.values()))
    found.unused = [name for name in theirs if name not in found.used]
    beside = [name.removeprefix(prefixes[0]) for name in found.unused if name.startswith(prefixes[0])]
    if more := members_beyond(backbone, beside):
        what = f"it has more layers than {network}: {_first(more)}"
        raise CheckpointError(f"{path}: is it of another network? {what}; set model.backbone.name to the file's")
    if not_finite := [name for name, place in here.items() if not theirs[place].to(ours[name].dtype).isfinite().all()]:
        what = f"NaN or infinite in {len(not_finite)} of {len(ours)} tensors, first in {here[not_finite[0]]}"
        raise CheckpointError(f"{path}: {what}; take another file")
    with torch.no_grad():
        for name, place in here.items():
            ours[name].copy_(theirs[place])
    if len(prefixes) > 1:
        others = listed([repr(prefix) for prefix in prefixes[1:]])
        found.notes.append(f"it holds {len(prefixes)} such networks, taken is that under {prefixes[0]!r}, not {others}")
    return found


def _check_fit(
    ours: Mapping[str, Tensor], here: Mapping[str, Tensor], theirs: Mapping[str, Tensor], path: str, network: str
) -> None:
    missing = [name for name in ours if name not in here]
    shapes = {name: (tuple(own.shape), tuple(here[name].shape)) for name, own in ours.items() if name in here}
    others = [f"{name} {there} instead of {own}" for name, (own, there) in shapes.items() if own != there]
    if not missing and not others:
        return
    parts = [f"{len(ours) - len(missing) - len(others)} of {len(ours)} tensors of {network} are in it"]
    parts += [f"not in it: {_first(missing)}"] if missing else []
    parts += [f"of another shape: {_first(others)}"] if others else []
    parts += [] if here else [f"it has {_first(list(theirs))}"]
    raise CheckpointError(f"{path}: is it of another network? {'; '.join(parts)}")


def _first(names: list[str]) -> str:
    return listed(names[:_FEW]) + (f", and {len(names) - _FEW} more" if names[_FEW:] else "")


def _best_prefixes(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], places: Mapping[str, str]) -> list[str]:
    """What comes before the backbone's names where most of its tensors fit: averages of weights first, else in the
    file's order."""
    names = {plain(name) for name in ours}
    starts = ((name, start) for name in theirs for start in (0, *(dot.end() for dot in re.finditer(r"\.", name))))
    prefixes = list(dict.fromkeys(name[:start] for name, start in starts if plain(name[start:]) in names))

    def num_fitting(prefix: str) -> int:
        found = ((places.get(plain(prefix + name)), own) for name, own in ours.items())
        return sum(place is not None and theirs[place].shape == own.shape for place, own in found)

    fitting = {prefix: num_fitting(prefix) for prefix in prefixes}
    best = [prefix for prefix in prefixes if fitting[prefix] == max(fitting.values())]
    return sorted(best, key=lambda prefix: _AVERAGES.isdisjoint(re.split(r"[._]", prefix))) or [""]
