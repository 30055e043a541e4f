"""Weights of an earlier training as a start: every tensor is taken, or named with the reason why not.

Tensors go by their names, and those of a level by its stride. Layers with a row for each class go row by row, by the
names of the classes, so that a model for other classes, or for the same in another order, keeps what it knows of those
that both have.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor, nn

from detseg.errors import CheckpointError
from detseg.messages import counted, listed
from detseg.models.rcnn.detector import RCNNDetector
from detseg.models.segmentation import SemanticSegmenter
from detseg.models.yolo.detector import CoupledHead, YoloDetector
from detseg.structures import ClassTable

AnyModel = YoloDetector | RCNNDetector | SemanticSegmenter
Row = tuple[str, str, int]  # what it means, for which class ("" for none), and how many rows of both came before

_COUNTER = "num_batches_tracked"
"""Of normalisation: nothing here reads it, neither torch before 0.4.1 nor frozen layers have it."""
_SETTINGS = ("normalize.", "scheme.", "criterion.")
"""Buffers that follow from settings, not from training."""
_LEVEL = re.compile(r"(neck|head)\.(?!body\.)((?:fpn\.)?\w+)\.(\d+)\.")
_CLASS_TO_CLASS = "head.upsamplings."  # of FCN
_ABSENT, _SHAPE = "not in the file", "of another shape in the file"
_NEW_CLASSES, _NEW_ROWS = "rows of new classes", "rows that the file's head does not have"
_OTHER_CLASSES = "from each class to each, which are others in the file"


@dataclass
class Transfer:
    """What became of the tensors of a model and of a file.

    Attributes:
        num_tensors: of the model.
        taken, in_part: names of the model's tensors that are the file's, as a whole or in some rows.
        left: reason → names of the model's tensors that stay as they were, or do so in part.
        used, unused: names of the file's tensors that something took, and of the others.
        notes: what else a user should know.
    """

    num_tensors: int
    taken: list[str] = field(default_factory=list)
    in_part: list[str] = field(default_factory=list)
    left: dict[str, list[str]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    unused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """What was taken, and a line for each reason why something was not."""
        in_part = f", {len(self.in_part)} in part" if self.in_part else ""
        lines = [f"{len(self.taken)} of {counted(self.num_tensors, 'tensor')} taken{in_part}", *self.notes]
        for reason, names in self.left.items():
            others = {*self.taken, *self.in_part}.difference(names)
            lines.append(f"at random, {reason}: {_subtrees(names, others)}")
        if self.unused:
            lines.append(f"of the file not used: {_subtrees(self.unused, self.used)}")
        return lines

    def leave(self, name: str, reason: str) -> None:
        """Note a tensor of the model that stays as it was, or does so in part."""
        self.left.setdefault(reason, []).append(name)


def _subtrees(names: Sequence[str], others: Iterable[str]) -> str:
    """Names, those of whole modules as the module's name and their number; ``others`` are not among them."""
    apart = {name[:k] for name in others for k in range(len(name)) if name[k] == "."}
    groups: dict[str, int] = {}
    for name in names:
        parts = name.split(".")
        heads = (".".join(parts[:k]) for k in range(1, len(parts)))
        group = next((head for head in heads if head not in apart), name)
        groups[group] = groups.get(group, 0) + 1
    return ", ".join(group if number == 1 else f"{group} ({number})" for group, number in groups.items())


def take_weights(model: AnyModel, classes: ClassTable, source: AnyModel, source_classes: ClassTable) -> Transfer:
    """Copy the weights of a trained model, as far as they fit, into a new one for other data or of another form.

    Args:
        model: gets them.
        classes: that it is to find.
        source: the trained one, of any kind of detseg's.
        source_classes: that it finds.

    Raises:
        CheckpointError: the backbone is another.
    """
    ours, theirs = learned(model.state_dict()), learned(source.state_dict())
    _check_backbone(model, ours, theirs)
    rows, their_rows = _rows_of(model, classes.names), _rows_of(source, source_classes.names)
    strides, their_strides = _level_strides(model), _level_strides(source)
    found, same_classes = Transfer(len(ours)), classes.names == source_classes.names
    with torch.no_grad():
        for name, own in ours.items():
            place = _at_stride(name, strides, their_strides)
            other, layer, there = theirs.get(place), name.rpartition(".")[0], place.rpartition(".")[0]
            by_row = layer in rows and there in their_rows
            if other is None:
                found.leave(name, _ABSENT)
            elif own.shape[1:] != other.shape[1:] or (not by_row and own.shape != other.shape):
                found.leave(name, _SHAPE)
            elif name.startswith(_CLASS_TO_CLASS) and not same_classes:
                found.leave(name, _OTHER_CLASSES)
            elif by_row:
                places = {row: k for k, row in enumerate(their_rows[there])}
                both = [(k, places[row]) for k, row in enumerate(rows[layer]) if row in places]
                own[[k for k, _ in both]] = other[[k for _, k in both]].to(own.dtype)
                missing = {row for row in rows[layer] if row not in places}
                new = {row for row in missing if row[1] and row[1] not in source_classes.names}
                if new:
                    found.leave(name, _NEW_CLASSES)
                if missing > new:
                    found.leave(name, _NEW_ROWS)
                if both:
                    (found.in_part if missing else found.taken).append(name)
                    found.used.add(place)
            else:
                own.copy_(other)
                found.taken.append(name)
                found.used.add(place)
    found.unused = [name for name in theirs if name not in found.used]
    if not same_classes and any(name.rpartition(".")[0] in rows for name in (*found.taken, *found.in_part)):
        found.notes = _account_of_classes(classes.names, source_classes.names)
    return found


def _account_of_classes(names: Sequence[str], theirs: Sequence[str]) -> list[str]:
    both, new = [name for name in names if name in theirs], [name for name in names if name not in theirs]
    left = [name for name in theirs if name not in names]
    parts = {"in both, taken": both, "new, at random": new, "of the file alone, left": left}
    lines = ["classes: " + "; ".join(f"{what}: {listed(part)}" for what, part in parts.items() if part)]
    alike = [f"{name} and {other}" for name in new for other in left if _letters(name) == _letters(other)]
    if alike:
        lines.append(f"the same class? {listed(alike)}: names must be equal to the letter, nothing was taken for these")
    return lines


def _letters(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).casefold()


def learned(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights and measured statistics of a state, without what follows from settings, and without counters."""
    return {name: value for name, value in state.items() if not name.startswith(_SETTINGS) and _COUNTER not in name}


def _check_backbone(model: AnyModel, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    """CheckpointError: a layer that fits follows one that does not, counted from the image: trained layers behind
    random ones are no start. The last layers may differ: they depend on the strides that are asked for."""
    names = [name for name in ours if name.startswith("backbone.")]
    fits = [name in theirs and theirs[name].shape == ours[name].shape for name in names]
    prefix = "backbone.body." if hasattr(model.backbone, "body") else "backbone."
    beside = [name.removeprefix(prefix) for name in theirs if name.startswith(prefix) and name not in ours]
    if all(fits) and (more := members_beyond(model.backbone, beside)):
        wrong = f"{prefix}{more[0]} is in the file alone"
    elif not fits[0] or list(accumulate(fits, min)) != fits:
        name = names[fits.index(False)]
        wrong = f"{name} is {_SHAPE if name in theirs else _ABSENT}"
    else:
        return
    raise CheckpointError(f"its backbone is another ({wrong}); set model.backbone as it is there")


def members_beyond(backbone: nn.Module, names: Iterable[str]) -> list[str]:
    """Which ``names``, of tensors that the backbone does not have, are those of further members of its sequences, as
    ``layer1.2`` is where it ends with ``layer1.1``: a network with them is deeper. Further stages are none of these."""
    stage_of = {parameter: k for k, stage in enumerate(cast(Any, backbone).stage_parameters()) for parameter in stage}
    members, stages = dict[str, set[str]](), dict[str, set[int]]()
    for name, parameter in getattr(backbone, "body", backbone).named_parameters():
        for parent, member in _memberships(name):
            members.setdefault(parent, set()).add(member)
            stages.setdefault(parent, set()).add(stage_of.get(parameter, -1))
    within = {parent for parent in members if len(members[parent]) > 1 and len(stages[parent]) == 1}
    pairs = ((name, parent, member) for name in names for parent, member in _memberships(name))
    return list(dict.fromkeys(name for name, parent, k in pairs if parent in within and k not in members[parent]))


def _memberships(name: str) -> list[tuple[str, str]]:
    """``layer1.0.conv1`` → ``layer1``, ``0``: sequences, and which member of each."""
    parts = plain(name).split(".")
    return [(".".join(parts[:k]), part) for k, part in enumerate(parts) if part.isdigit()]


def plain(name: str) -> str:
    """timm names a stage ``stages.0`` in a classifier and ``stages_0`` among features."""
    return name.replace("_", ".")


def _level_strides(model: AnyModel) -> dict[str, Sequence[int]]:
    """Parts that have modules for each level → the strides of the levels."""
    strides = dict[str, Sequence[int]]()
    if model.neck is not None:
        strides["neck"] = cast(Any, model.neck).strides
    if isinstance(model, YoloDetector):
        strides["head"] = model.scheme.strides
    elif isinstance(model, SemanticSegmenter):
        strides["head"] = [cast(Any, model.head).stride * 2**k for k in range(8)]
    return strides


def _at_stride(name: str, strides: Mapping[str, Sequence[int]], theirs: Mapping[str, Sequence[int]]) -> str:
    """The name of the same tensor in another model, whose levels may have other strides; "" where it has none of it."""
    match = _LEVEL.match(name)
    if match is None or (part := match[1]) not in strides.keys() & theirs.keys():
        return name
    stride = strides[part][int(match[3])]
    level = list(theirs[part]).index(stride) if stride in theirs[part] else None
    return "" if level is None else f"{part}.{match[2]}.{level}.{name[match.end() :]}"


def _rows_of(model: AnyModel, names: Sequence[str]) -> dict[str, list[Row]]:
    """Layers whose rows are outputs → what each row is; rows of two models that are the same mean the same."""
    if isinstance(model, YoloDetector):
        scheme, levels = model.scheme, range(len(model.scheme.strides))
        kind, num_priors = type(scheme).__name__, scheme.class_outputs // len(names)
        boxes = _rows(f"{kind}, {scheme.box_outputs} of boxes", [""] * scheme.box_outputs)
        of_classes = _rows(f"{kind}, {num_priors} of each class", [*names] * num_priors)
        if isinstance(model.head, CoupledHead):
            return {f"head.branches.{k}.2": boxes + of_classes for k in levels}
        return {f"head.box_branches.{k}.2": boxes for k in levels} | {
            f"head.class_branches.{k}.2": of_classes for k in levels
        }
    if isinstance(model, RCNNDetector):
        num_outputs = len(model.state_dict()["roi_heads.box_predictor.cls_score.bias"])
        outputs = [""] * num_outputs  # of background, and of COCO's gaps
        given = model.output_of_label
        for label, output in enumerate(range(1, num_outputs) if given is None else given.tolist()):
            outputs[output] = names[label]
        return {
            "roi_heads.box_predictor.cls_score": _rows("class", outputs),
            "roi_heads.box_predictor.bbox_pred": _rows("box", [name for name in outputs for _ in range(4)]),
            "roi_heads.mask_predictor.mask_fcn_logits": _rows("mask", outputs),
        }
    layers = {name.rpartition(".")[0]: len(value) for name, value in model.state_dict().items() if "score" in name}
    binary = _rows("binary", names[1:])
    return {name: _rows("class", names) if num == len(names) else binary for name, num in layers.items()}


def _rows(meaning: str, names: Iterable[str]) -> list[Row]:
    seen = Counter[str]()
    rows = list[Row]()
    for name in names:
        rows.append((meaning, name, seen[name]))
        seen[name] += 1
    return rows
