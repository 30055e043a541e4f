"""Weights of an earlier training as a start: every tensor is taken, or named with the reason why not.

Tensors go by their names. Layers with a row for each class go row by row, by the names of the classes, so that a model
for other classes, or for the same in another order, keeps what it knows of those that both have.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from detseg.errors import CheckpointError
from detseg.messages import counted, listed, one_line
from detseg.models.rcnn.detector import RCNNDetector
from detseg.models.segmentation import SemanticSegmenter
from detseg.models.yolo.detector import CoupledHead, YoloDetector
from detseg.structures import ClassTable

logger = logging.getLogger("detseg")

AnyModel = YoloDetector | RCNNDetector | SemanticSegmenter

_SETTINGS = ("normalize.", "scheme.", "criterion.")
"""Buffers that follow from settings, not from training."""
_WRAPPERS = ("state_dict", "model_state_dict", "model", "state_dict_ema", "model_ema", "module", "net", "backbone")
"""Keys under which programs keep the tensors of a model in a file, the likeliest first."""
_LEAST_PART = 0.5  # of a backbone's numbers that must fit: with less the file is that of another network
_NO_CLASS = -1
_ABSENT, _SHAPE = "not in the file", "of another shape in the file"
_CLASSES = "rows of classes that the file does not know"


@dataclass
class Transfer:
    """What became of the tensors of a model and of a file.

    Attributes:
        num_tensors: of the model.
        taken: names of the model's tensors that are the file's.
        by_class: of those, layers whose rows went by the names of the classes.
        left: reason → names of the model's tensors that stay as they were, or do so in part.
        used, unused: names of the file's tensors that something took, and of the others.
    """

    num_tensors: int
    taken: list[str] = field(default_factory=list)
    by_class: list[str] = field(default_factory=list)
    left: dict[str, list[str]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    unused: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """One line for what was taken, and one for each reason why something was not."""
        lines = [f"{len(self.taken)} of {counted(self.num_tensors, 'tensor')} taken"]
        if self.by_class:
            lines[0] += f", of which {len(self.by_class)} row by row, by the names of the classes"
        for reason, names in self.left.items():
            lines.append(f"at random, {reason}: {_subtrees(names, set(self.taken) - set(names))}")
        if self.unused:
            lines.append(f"of the file not used: {_subtrees(self.unused, self.used)}")
        return lines


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
        CheckpointError: less than half of the backbone fits.
    """
    ours, theirs = _learned(model), _learned(source)
    of_backbone = {name: own.numel() for name, own in ours.items() if name.startswith("backbone.")}
    fitting = sum(
        size for name, size in of_backbone.items() if name in theirs and theirs[name].shape == ours[name].shape
    )
    if fitting < _LEAST_PART * sum(of_backbone.values()):
        part = f"{100 * fitting / sum(of_backbone.values()):.0f} % of the backbone's weights fit"
        raise CheckpointError(f"its backbone is another ({part}); set model.backbone as it is there")
    rows, their_rows = _class_rows(model, len(classes)), _class_rows(source, len(source_classes))
    found = Transfer(len(ours))
    with torch.no_grad():
        for name, own in ours.items():
            other, layer = theirs.get(name), name.rpartition(".")[0]
            if other is None:
                found.left.setdefault(_ABSENT, []).append(name)
            elif own.shape[1:] != other.shape[1:] or (layer not in rows and own.shape != other.shape):
                found.left.setdefault(_SHAPE, []).append(name)
            elif layer in rows and layer in their_rows:
                keys = _keys(rows[layer], classes)
                places = {key: place for place, key in enumerate(_keys(their_rows[layer], source_classes))}
                both = [(row, places[key]) for row, key in enumerate(keys) if key in places]
                own[[row for row, _ in both]] = other[[place for _, place in both]].to(own.dtype)
                if len(both) < len(keys):
                    missing = [n for n in classes.names if n not in source_classes.names]
                    found.left.setdefault(f"{_CLASSES} ({listed(missing)})", []).append(name)
                (found.taken if both else []).append(name)
                if both and (len(both) < len(keys) or classes.names != source_classes.names):
                    found.by_class.append(name)
            else:
                own.copy_(other)
                found.taken.append(name)
    found.used = set(found.taken)
    found.unused = [name for name in theirs if name not in found.used]
    return found


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def _learned(model: nn.Module) -> dict[str, Tensor]:
    """Weights and measured statistics, without what follows from settings."""
    state: dict[str, Tensor] = model.state_dict()
    return {name: value for name, value in state.items() if not name.startswith(_SETTINGS)}


def _keys(labels: Sequence[int], classes: ClassTable) -> list[tuple[str, int]]:
    """For each row the name of its class ("" for none), and how many rows of it came before."""
    seen: dict[int, int] = {}
    keys = []
    for label in labels:
        seen[label] = seen.get(label, -1) + 1
        keys.append(("" if label == _NO_CLASS else classes.names[label], seen[label]))
    return keys


def _class_rows(model: AnyModel, num_classes: int) -> dict[str, list[int]]:
    """Layers with a row for each class → the label of each row; ``_NO_CLASS`` where it is of none."""
    labels = list(range(num_classes))
    if isinstance(model, YoloDetector):
        scheme, levels = model.scheme, range(len(model.scheme.strides))
        of_classes = labels * (scheme.class_outputs // num_classes)
        if isinstance(model.head, CoupledHead):
            of_boxes = [_NO_CLASS] * scheme.box_outputs
            return {f"head.branches.{k}.2": of_boxes + of_classes for k in levels}
        return {f"head.class_branches.{k}.2": of_classes for k in levels}
    if isinstance(model, RCNNDetector):
        num_outputs = len(model.state_dict()["roi_heads.box_predictor.cls_score.bias"])
        label_of = [_NO_CLASS] * num_outputs  # of background, and of COCO's gaps
        given = model.output_of_label
        for label, output in enumerate(range(1, num_outputs) if given is None else given.tolist()):
            label_of[output] = label
        return {
            "roi_heads.box_predictor.cls_score": label_of,
            "roi_heads.box_predictor.bbox_pred": [label for label in label_of for _ in range(4)],
            "roi_heads.mask_predictor.mask_fcn_logits": label_of,
        }
    layers = {name.rpartition(".")[0]: len(value) for name, value in model.state_dict().items() if "score" in name}
    return {name: labels if rows == num_classes else [1] for name, rows in layers.items()}  # [1]: binary


def take_backbone_weights(backbone: nn.Module, path: Path, network: str) -> Transfer:
    """Load a local file into a backbone: weights of timm or torchvision, of a classifier or of a whole training of any
    program's. What comes before the names of the backbone's tensors (``model.backbone.``) is found out.

    Args:
        backbone: gets them.
        path: a ``.safetensors`` file, a ``.ckpt`` of detseg's, or what ``torch.save`` wrote, of which nothing but
            tensors and plain data is read.
        network: its name, for messages.

    Raises:
        CheckpointError: the file is missing, damaged or holds more than that; or has less than half of the backbone.
    """
    theirs = read_tensors(path)
    body = getattr(backbone, "body", backbone)  # of timm and torchvision
    ours: dict[str, Tensor] = body.state_dict()
    plain = {_plain(name): name for name in theirs}
    prefix = _best_prefix(ours, theirs, plain)
    found = Transfer(len(ours))
    with torch.no_grad():
        for name, own in ours.items():
            place = plain.get(_plain(prefix + name))
            if place is None:
                found.left.setdefault(_ABSENT, []).append(name)
            elif theirs[place].shape != own.shape:
                found.left.setdefault(_SHAPE, []).append(name)
            else:
                found.taken.append(name)
                found.used.add(place)
        if _size(ours[name] for name in found.taken) < _LEAST_PART * _size(ours.values()):
            what = f"{len(found.taken)} of {len(ours)} tensors of {network} are in it"
            has = f"it has {listed(list(theirs)[:2])}, expected such as {listed(list(ours)[:2])}"
            raise CheckpointError(f"{path}: is it of another network? {what}; {has}")
        for name in found.taken:
            ours[name].copy_(theirs[plain[_plain(prefix + name)]])
    found.unused = [name for name in theirs if name not in found.used]
    return found


def _plain(name: str) -> str:
    """timm names a stage ``stages.0`` in a classifier and ``stages_0`` among features."""
    return name.replace("_", ".")


def _best_prefix(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], plain: Mapping[str, str]) -> str:
    """What comes before the backbone's names in a file: with it the most tensors fit."""
    prefixes = {"", *(name[: k + 1] for name in theirs for k in range(len(name)) if name[k] == ".")}

    def num_fitting(prefix: str) -> int:
        places = ((plain.get(_plain(prefix + name)), own) for name, own in ours.items())
        return sum(place is not None and theirs[place].shape == own.shape for place, own in places)

    return max(sorted(prefixes), key=num_fitting)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file of weights, by name. CheckpointError: it is missing, damaged, or holds other things."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file of weights")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt", device="cpu") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        content = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # what safetensors and torch raise on damaged bytes is not a closed list
        what = "damaged, or no file of tensors alone; nothing else in it is read, since that could run a program"
        raise CheckpointError(f"{path}: {what} ({one_line(error)}); save a state_dict, or safetensors") from error
    while isinstance(content, Mapping):
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
        inner = [content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)]
        content = inner[0] if inner else None
    raise CheckpointError(f"{path}: expected tensors by name, found none; save the state_dict of a model")
