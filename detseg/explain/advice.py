"""The one setting to try against a cause of misses, with a value that would let at least half of them through.

`--score` is one of `detseg predict`; all others belong to the next training. So does the size of the input: a network
knows objects in the sizes that it was trained at.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_high, median_low
from typing import Any

from detseg.config.schema.experiment import ExperimentConfig
from detseg.config.schema.model import AnchorHeadConfig, DetectorConfig, GridHeadConfig, TwoStageConfig, YoloConfig
from detseg.config.schema.section import MAX_SIDE
from detseg.explain.misses import SMALL_SIDE, Cause, Miss
from detseg.models.rcnn.detector import RCNNDetector

SCORE_OPTION = "--score"
"""The one advice that is no setting, but an option of `detseg predict`."""

_MOST_GROWTH, _GROWTH = 2.0, 1.5  # of the network input at one try, at most, and where no number says by how much
_STEP = 32  # pixels: sides of the network input are multiples of it
_TWICE = 2


@dataclass(frozen=True)
class Setting:
    """A setting by its dotted name, or the option ``--score``, and the value to try."""

    name: str
    value: Any

    def __str__(self) -> str:
        text = json.dumps(self.value, separators=(",", ":"))
        return f"{self.name} {text}" if self.name == SCORE_OPTION else f"{self.name}={text}"


@dataclass(frozen=True, eq=False)
class Adviser:
    """Knows the settings of a detector and what it is made of.

    Args:
        config: its settings, with the data that the misses are of.
        model: the detector.
    """

    config: ExperimentConfig
    model: object

    def setting(self, misses: Sequence[Miss]) -> Setting:
        """What to try against the misses of one cause, one or more."""
        cause, measures = misses[0].cause, [miss.measure for miss in misses]
        model = self.config.model
        assert isinstance(model, DetectorConfig)
        match cause:
            case Cause.CUT:
                return Setting("model.max_detections", _rounded_up(median_high(measures), 100))
            case Cause.SUPPRESSED:
                return Setting("model.nms_iou", math.ceil(median_high(measures) * 20 + 1e-6) / 20)
            case Cause.LOW_SCORE:
                score = math.floor(median_low(measures) * 100) / 100
                name = SCORE_OPTION if median_low(measures) >= model.score_threshold else "model.score_threshold"
                return Setting(name, score)
            case Cause.CONFUSED if isinstance(model, YoloConfig) and not isinstance(model.head, GridHeadConfig):
                return Setting("model.head.class_weight", _TWICE * model.head.class_weight)
            case Cause.SMALL:
                return self._larger_input(SMALL_SIDE / median_low(measures))
            case Cause.MISPLACED:
                return _heavier_boxes(model)
            case Cause.UNASSIGNED if isinstance(model, YoloConfig):
                return self._more_priors(model)
            case Cause.SHARED | Cause.UNASSIGNED:
                return self._larger_input(_GROWTH)
            case _ if isinstance(model, TwoStageConfig) and isinstance(self.model, RCNNDetector):
                return self._first_stage(cause, measures, model, self.model)
        return self._longer()

    def _longer(self) -> Setting:
        return Setting("trainer.max_epochs", _TWICE * self.config.trainer.max_epochs)

    def _larger_input(self, growth: float) -> Setting:
        growth = min(growth, _MOST_GROWTH)
        sides = [min(_rounded_up(side * growth, _STEP), MAX_SIDE) for side in self.config.data.input_hw]
        return Setting("data.image_size", sides[0] if sides[0] == sides[1] else sides)

    def _more_priors(self, model: YoloConfig) -> Setting:
        head = model.head
        if isinstance(head, GridHeadConfig) and head.stride > _STEP // 4:
            return Setting("model.head.stride", head.stride // 2)
        if isinstance(head, AnchorHeadConfig):
            return Setting("model.head.anchors_per_level", head.anchors_per_level + 1)
        return self._larger_input(_GROWTH)

    def _first_stage(
        self, cause: Cause, measures: Sequence[float], config: TwoStageConfig, model: RCNNDetector
    ) -> Setting:
        rpn = model.rpn
        match cause:
            case Cause.PROPOSAL_NMS:
                return Setting("model.rpn.nms_iou", round((1 + rpn.nms_iou) / 2, 2))
            case Cause.PROPOSAL_CUT:
                return Setting("model.rpn.post_nms_top_n", _TWICE * rpn.post_nms_top_n[1])
            case Cause.ANCHOR_CUT:
                return Setting("model.rpn.pre_nms_top_n", _TWICE * rpn.pre_nms_top_n[1])
            case Cause.NO_ANCHOR if config.variant != "custom":  # whose anchors are as they are
                return self._larger_input(_GROWTH)
            case Cause.NO_ANCHOR:
                sizes, side = rpn.anchor_generator.sizes, median_low(measures)
                smallest = min(min(level) for level in sizes)
                if side < smallest:
                    smaller = [[round(size * side / smallest, 1) for size in level] for level in sizes]
                    return Setting("model.rpn.anchor_sizes", smaller)
                # Between two levels: half an octave more at each, as in RetinaNet (Lin et al. 2017).
                more = [sorted({*level, *(round(size * math.sqrt(2), 1) for size in level)}) for level in sizes]
                return Setting("model.rpn.anchor_sizes", more)
        return self._longer()


def _heavier_boxes(model: DetectorConfig) -> Setting:
    if isinstance(model, TwoStageConfig):
        return Setting("model.roi_heads.box_loss.weight", _TWICE * model.roi_heads.box_loss.weight)
    if isinstance(model.head, GridHeadConfig):
        return Setting("model.head.coordinate_weight", _TWICE * model.head.coordinate_weight)
    return Setting("model.head.box_weight", _TWICE * model.head.box_weight)


def _rounded_up(value: float, step: int) -> int:
    return math.ceil(value / step) * step
