"""Several predictors as one, each of which may see an image several times: ensembles and test-time augmentation.

What comes out is a predictor of the same kind, so that tiles, streams, files and the service take it. Torch is not
imported here: checkpoints and exports may be mixed.

Letters for dimensions: B images, C classes, H and W pixels of an image, h and w pixels of the network input.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detseg.errors import ConfigError
from detseg.messages import listed
from detseg.predict.combine.fusion import fuse_detections
from detseg.predict.combine.views import FLIPS, Flip, flipped, unflipped
from detseg.predict.interface import ImagePredictor, MapPredictor, ObjectPredictor
from detseg.predict.results import Detections, SegmentationMap
from detseg.predict.tiles.maps import softmax
from detseg.structures import ClassTable, Float32Array, UInt8Array

MEMBER_THRESHOLD = 0.01
"""Members leave out what scores less, unless the threshold of the ensemble is lower: by no more does that lower the
score of a fused object."""


@dataclass(frozen=True)
class _View:
    """A predictor, how it sees images, and what its say weighs."""

    predictor: Any
    flip: Flip | None
    weight: float


def ensemble(
    predictors: Sequence[ImagePredictor[Any]],
    weights: Sequence[float] | None = None,
    flips: Sequence[Flip] = (),
    scales: Sequence[float] = (1.0,),
    *,
    score_threshold: float | None = None,
) -> ObjectEnsemble | MapEnsemble:
    """Several predictors as one; of a single one with ``flips`` or ``scales``: test-time augmentation.

    Args:
        predictors: all of objects, or all of label maps, with the same classes; checkpoints and exports.
        weights: what each counts, above 0; None: all alike.
        flips: ``horizontal``, ``vertical``: each predictor sees an image as it is, and flipped so.
        scales: each sees it at inputs of so many times its ``input_hw``, in multiples of the network's stride. Exports
            take one size alone, but for those of label maps with ``--any-size``.
        score_threshold: of objects: fused ones below it are left out; None: that of the first predictor. Members
            predict from ``MEMBER_THRESHOLD`` on, whatever their own threshold.

    Returns:
        An ``ObjectPredictor`` (weighted boxes fusion) or a ``MapPredictor`` (mean of log-probabilities).

    Raises:
        ConfigError: predictors of both kinds or with different classes, wrong weights, flips or scales.
    """
    _check(predictors, weights, flips, scales)
    for predictor in predictors:
        sizes = [predictor.scaled(scale).input_hw for scale in scales]
        if len(set(sizes)) < len(sizes):
            shown = ", ".join(f"{height} x {width}" for height, width in sizes)
            raise ConfigError(
                f"scales: inputs are multiples of {predictor.input_step}, so these are {shown}; leave one out"
            )
    views = [
        _View(predictor.scaled(scale), flip, weight)
        for predictor, weight in zip(predictors, weights or [1.0] * len(predictors), strict=True)
        for scale in scales
        for flip in (None, *flips)
    ]
    first, settings = predictors[0], {"flips": list(flips), "scales": list(scales), "weights": list(weights or [])}
    if not isinstance(first, ObjectPredictor):
        if score_threshold is not None:
            raise ConfigError("score_threshold: label maps have none; leave it out")
        return MapEnsemble(views, settings)
    return ObjectEnsemble(views, settings, first.score_threshold if score_threshold is None else score_threshold)


class ObjectEnsemble(ObjectPredictor):
    """Finds objects by several predictions, fused (``detseg.predict.combine.fusion``). See ``ensemble``."""

    def __init__(self, views: Sequence[_View], settings: dict[str, Any], score_threshold: float) -> None:
        first = views[0].predictor
        where = (first.classes, first.input_hw, first.value_range, _described(views), first._place)
        super().__init__(*where, score_threshold)
        self.views, self._settings = [], settings
        for view in views:
            member = copy.copy(view.predictor)
            member.score_threshold = min(MEMBER_THRESHOLD, score_threshold)
            self.views.append(_View(member, view.flip, view.weight))

    @property
    def settings(self) -> dict[str, Any]:
        """The threshold, and how members see images."""
        return super().settings | self._settings

    def _predict(self, images: list[UInt8Array]) -> list[Detections]:
        found: list[list[Detections]] = [[] for _ in images]
        for view in self.views:
            seen = view.predictor._predict([flipped(image, view.flip, 0) for image in images])
            for own, one, image in zip(found, seen, images, strict=True):
                own.append(unflipped(one, view.flip, (image.shape[0], image.shape[1])))
        weights = [view.weight for view in self.views]
        return [fuse_detections(own, weights, self.classes, self.score_threshold) for own in found]


class MapEnsemble(MapPredictor):
    """Labels pixels by the mean of the log-probabilities of several predictions: that of their logits, each less what
    makes its probabilities sum to 1. See ``ensemble``."""

    def __init__(self, views: Sequence[_View], settings: dict[str, Any]) -> None:
        first = views[0].predictor
        super().__init__(first.classes, first.input_hw, first.value_range, _described(views), first._place)
        self.views, self._settings = list(views), settings
        self._total = sum(view.weight for view in views)

    @property
    def settings(self) -> dict[str, Any]:
        """How members see images."""
        return self._settings

    @property
    def stride(self) -> int:
        """What the strides of all members divide."""
        return math.lcm(*(view.predictor.stride for view in self.views))

    def logits(self, images: UInt8Array) -> Float32Array:
        """(B, h, w, 3) uint8 → (B, C, h, w) float32 log-probabilities. DetsegError: some logits are NaN or infinite.
        ConfigError: there are scales."""
        if self._settings["scales"] != [1.0]:
            raise ConfigError(
                "scales: label maps in tiles are seen at the image's own scale; leave out scales, or tile"
            )
        found: Float32Array | None = None
        for view in self.views:
            logits = flipped(view.predictor.logits(flipped(images, view.flip, 1)), view.flip, 2)
            logits = logits - logits.max(axis=1, keepdims=True)
            logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
            logits *= np.float32(view.weight / self._total)
            found = logits if found is None else found + logits
        assert found is not None
        return found

    def _whole(self, images: list[UInt8Array], probabilities: bool) -> list[SegmentationMap]:
        sums = [np.zeros((len(self.classes), *image.shape[:2]), np.float32) for image in images]
        for view in self.views:
            self._add(view, images, sums)
        labels = [logs.argmax(axis=0).astype(np.uint8) for logs in sums]
        return [
            SegmentationMap(own, self.classes, softmax(logs) if probabilities else None)
            for own, logs in zip(labels, sums, strict=True)
        ]

    def _add(self, view: _View, images: list[UInt8Array], sums: list[Float32Array]) -> None:
        """Add the weighted log-probabilities by a view to those of all; in place, since they may be gigabytes."""
        seen = view.predictor._whole([flipped(image, view.flip, 0) for image in images], True)
        for one, total in zip(seen, sums, strict=True):
            logs = np.maximum(one.probabilities, np.finfo(np.float32).tiny, out=one.probabilities)
            np.log(logs, out=logs)
            logs *= np.float32(view.weight / self._total)
            total += flipped(logs, view.flip, 1)


def _described(views: Sequence[_View]) -> str:
    names = dict.fromkeys(view.predictor._network for view in views)
    return f"{len(views)} predictions by {', '.join(names)}"


def _check(
    predictors: Sequence[ImagePredictor[Any]],
    weights: Sequence[float] | None,
    flips: Sequence[str],
    scales: Sequence[float],
) -> None:
    if not predictors:
        raise ConfigError("predictors: expected one at least, got none")
    first = predictors[0]
    for number, other in enumerate(predictors[1:], start=2):
        if isinstance(other, ObjectPredictor) != isinstance(first, ObjectPredictor):
            raise ConfigError("predictors: some find objects and some label pixels; take models of one kind")
        if other.classes.names != first.classes.names:
            raise ConfigError(f"predictors: {_difference(first.classes, other.classes, number)}")
        if other.value_range != first.value_range:
            what = f"model 1 reads {first.value_range}, model {number} {other.value_range}"
            raise ConfigError(
                f"predictors: images of more than 8 bits are read differently ({what}); take models alike"
            )
    if weights is not None and (
        len(weights) != len(predictors) or not all(0 < weight < math.inf for weight in weights)
    ):
        raise ConfigError(f"weights: expected {len(predictors)} numbers above 0, one a predictor, got {list(weights)}")
    if not set(flips) <= set(FLIPS) or len(set(flips)) < len(flips):
        raise ConfigError(f"flips: expected {', '.join(FLIPS)} or both, each once, got {', '.join(map(str, flips))}")
    if not scales or len(set(scales)) < len(scales) or not all(0 < scale <= 8 for scale in scales):
        raise ConfigError(f"scales: expected different numbers above 0, up to 8, got {list(scales)}")


def _difference(first: ClassTable, other: ClassTable, number: int) -> str:
    """What differs between two class tables, in a line."""
    lacks = [name for name in first.names if name not in other.names]
    more = [name for name in other.names if name not in first.names]
    parts = [f"{word} {listed(names)}" for word, names in (("lacks", lacks), ("has also", more)) if names]
    what = " and ".join(parts) if parts else f"has them in another order ({listed(other.names)})"
    return f"the classes have to be those of the first model ({listed(first.names)}), and model {number} {what}"
