"""What to work on next: the gaps between human level, training, validation and test images, each with its interval.

Ng, "Machine Learning Yearning" (2018): avoidable bias is what is missing on the training images (chapter 22), variance
what is lost on new images of their kind (chapter 20), data mismatch what is lost on images of another kind (chapter
40), and what is lost from validation to test is overfitting to the validation images (chapter 12).
"""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from detseg.checkpoint import BEST, ModelCheckpoint, run_dir_of
from detseg.config.schema.experiment import ExperimentConfig
from detseg.data.annotations.report import sizes_in_input
from detseg.data.build import Split, resolve_data
from detseg.data.datasets.detection import DetectionDataset
from detseg.errors import CheckpointError, ConfigError, DataError
from detseg.evaluation.advice import Facts, GapName, Step, steps_against
from detseg.evaluation.run import evaluated, evaluation_config, open_split_for
from detseg.factory import load_model
from detseg.messages import counted
from detseg.metrics.bootstrap import Samples, detection_samples, interval, segmentation_samples
from detseg.metrics.detection import DetectionEvaluator
from detseg.metrics.interface import Evaluator, Result, format_number, new_table, without_nan
from detseg.metrics.segmentation import SegmentationEvaluator
from detseg.predict import find_device
from detseg.structures import FloatArray
from detseg.tasks import AnyDataset

if TYPE_CHECKING:
    from rich.console import RenderableType

logger = logging.getLogger("detseg")

Part = Literal["train", "train-dev", "val", "test"]
"""``train-dev``: images like those of the training that were not trained on."""

PREFERRED = ("mask_AP50", "AP50", "mIoU")
"""The metrics by which gaps are read, the first that there is. AP averages how exactly boxes fit as well, of which
annotators fall short, too: measured from 1, it would always say that bias is what is wrong."""

_SEEDS: dict[Part, int] = {"val": 0, "train": 1, "train-dev": 2, "test": 3}  # 0 as in all other reports
_LARGE_BIAS, _MANY_TIMES = 0.2, 5.0  # of the metric measured from 1, and of the largest other gap
_UNLEARNED = 0.05  # of the metric of a class on the training images
_NOISE = 0.005  # by which a metric changes from one validation to the next where nothing is learned
_SHORT = 32.0  # pixels of the network input; COCO's border of small objects


@dataclass(frozen=True, eq=False)
class Scored:
    """A number of a part of the data.

    Attributes:
        number: the metric.
        samples: (B,) of resamples of the images, drawn apart from those of every other part.
        num_images: how many images.
    """

    number: float
    samples: FloatArray
    num_images: int

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, within [0, 1]."""
        low, high = interval(self.number, self.samples)
        return max(0.0, low), min(1.0, high)


@dataclass(frozen=True)
class Gap:
    """What is lost from one level to the next.

    Attributes:
        name: what Ng calls it.
        value: the level above minus the level below.
        low, high: ends of its 95 % interval, for the choice of the images of both.
        words: the two levels, and what lies between them.
        steps: what to try against it, most promising first.
        is_vague: measured from 1, which nobody may reach, and nothing else says that this is what is wrong.
    """

    name: GapName
    value: float
    low: float
    high: float
    words: str
    steps: tuple[Step, ...] = ()
    is_vague: bool = False

    @property
    def is_clear(self) -> bool:
        """Whether something is lost, and not by the choice of the images alone."""
        return self.low > 0

    @property
    def sentence(self) -> str:
        """Name, value, interval and words."""
        doubt = "" if self.is_clear else ", nothing is lost" if self.high < 0 else ", not clear"
        return f"{self.name} {self.value:+.3f} ({self.low:+.3f} to {self.high:+.3f}{doubt}): {self.words}"


def gaps(
    scores: Mapping[Part, Scored],
    metric: str,
    human: float | None = None,
    config: ExperimentConfig | None = None,
    facts: Facts | None = None,
    fewer: Callable[[Part, int], Scored] | None = None,
) -> list[Gap]:
    """The gaps between parts of the data: clear ones first, the largest first. Without a human level bias is last,
    unless the training images say that it is what is wrong: a low score on them, of a run that was still rising or has
    not learned all classes, or a gap of five times the others.

    Args:
        scores: of the parts that there are.
        metric: its name.
        human: what people reach in it, in (0, 1]; None: not known, and taken as 1.
        config: of the run, for what to try; None: nothing is suggested.
        facts: what else is known of the run.
        fewer: the score of so many images of a part, with which a smaller part is compared; None: all are compared.

    Returns:
        Those whose two parts are there, of defined numbers.
    """
    found, facts = [], facts or Facts()
    for name, above, below in _pairs(scores):
        top = scores.get(above) if above != "human" else Scored(human or 1.0, np.zeros(1), 0)
        bottom = scores.get(below)
        if top is None or bottom is None or math.isnan(top.number - bottom.number):
            continue
        if fewer is not None and above != "human" and top.num_images != bottom.num_images:
            number = min(top.num_images, bottom.num_images)
            top, bottom = (
                one if one.num_images == number else fewer(part, number)
                for part, one in ((above, top), (below, bottom))
            )
        value = top.number - bottom.number
        low, high = interval(value, top.samples - bottom.samples)
        words = _words(name, metric, (above, top.number), (below, bottom.number), human, config)
        if name == "avoidable bias":
            words += _unlearned(facts, metric)
        steps = steps_against(name, config, facts) if config is not None else ()
        found.append(Gap(name, value, low, high, words, steps))
    # What 1 would be is not known: a gap from there is the largest in nearly every run, and tells least.
    if human is None and not _is_biased(found, facts):
        found = [replace(gap, is_vague=gap.name == "avoidable bias") for gap in found]
    return sorted(found, key=lambda gap: (not gap.is_clear, gap.is_vague, -gap.value if gap.is_clear else 0.0))


def _is_biased(found: Sequence[Gap], facts: Facts) -> bool:
    """Whether bias is what is wrong, though what 1 would be is not known."""
    bias = next((gap.value for gap in found if gap.name == "avoidable bias"), 0.0)
    others = [gap.value for gap in found if gap.name != "avoidable bias"]  # clear or not
    is_unlearned = bias > _LARGE_BIAS and (facts.still_rising or bool(facts.unlearned))  # on val it may be variance
    return is_unlearned or bias > _MANY_TIMES * max(others, default=0.0)


def _pairs(scores: Mapping[Part, Scored]) -> list[tuple[GapName, Part | Literal["human"], Part]]:
    unseen: Part = "train-dev" if "train-dev" in scores else "val"
    return [
        ("avoidable bias", "human", "train"),
        ("variance", "train", unseen),
        ("data mismatch", "train-dev", "val"),
        ("overfitting to val", "val", "test"),
    ]


def _words(
    name: GapName,
    metric: str,
    above: tuple[str, float],
    below: tuple[str, float],
    human: float | None,
    config: ExperimentConfig | None,
) -> str:
    val_is_like_train = config is not None and config.data.val_fraction is not None
    both = f"{metric} is {above[1]:.3f} on {above[0]} and {below[1]:.3f} on {below[0]}"
    match name:
        case "avoidable bias":
            level = f"human level is {human:.3f}" if human else "measured from 1, as no human level is given"
            return f"{metric} is {below[1]:.3f} on images that the model was trained on; {level}"
        case "variance":
            mixed = below[0] == "val" and not val_is_like_train
            doubt = (
                "; where val's images are of another kind than the training's, a part of that is due to the kind: "
                "--train-dev tells how much"
            )
            return f"{both}, which the model was not trained on{doubt if mixed else ''}"
        case "data mismatch":
            return f"{both}; the model was trained on neither, so what differs is the kind of images"
        case "overfitting to val":
            doubt = ", and test may be of another kind" if val_is_like_train else ""
            return f"{both}; the best epoch and the settings were chosen by val{doubt}"


def _unlearned(facts: Facts, metric: str) -> str:
    of = "IoU" if metric == "mIoU" else metric
    parts = {"train": facts.unlearned, "val": facts.unlearned_on_val}
    named = [f"on {part} {', '.join(names)}" for part, names in parts.items() if names]
    return f"; classes that are not learned ({of} below {_UNLEARNED:g}): {'; '.join(named)}" if named else ""


@dataclass(frozen=True)
class WhatNext:
    """The scores of a model on all parts of its data, and what to work on.

    Attributes:
        checkpoint: which.
        metric: by which gaps are read.
        scores: part → (number, low, high, images), with the 95 % interval.
        human: what people reach; None: not known.
        gaps: the clear ones first, largest first.
        notes: how it was measured, and what is missing.
    """

    checkpoint: str
    metric: str
    scores: dict[Part, tuple[float, float, float, int]]
    human: float | None
    gaps: tuple[Gap, ...]
    notes: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """What to do next, in a sentence."""
        if not self.gaps:
            return f"no gap could be measured: {self.notes[0]}"
        first = self.gaps[0]
        if not first.is_clear or first.is_vague:
            besides = "; --human-level says how much of the bias can be avoided" if first.is_clear else ""
            which = "no gap is clear but that from 1, which may be out of reach" if besides else "no gap is clear"
            return f"{which}: more validation and test images would make the intervals narrower{besides}"
        return f"work first on {first.sentence}{''.join(f'; {step.to_do}' for step in first.steps[:1])}"

    def table(self) -> RenderableType:
        """For the screen, 80 columns wide."""
        from rich.console import Group

        numbers = new_table(f"What next, by {self.metric}", ("images", self.metric, "95 % interval"), of="part")
        for part, (number, low, high, num_images) in self.scores.items():
            ends = f"{format_number(low)} to {format_number(high)}"
            numbers.add_row(part, str(num_images), format_number(number), ends)
        return Group(numbers, *self.lines())

    def lines(self) -> list[str]:
        """Gap by gap, with what to try, and how it was measured."""
        lines = []
        for gap in self.gaps:
            lines.append(gap.sentence)
            lines += [f"  {step.to_do}" for step in gap.steps] if gap.is_clear else []
        return [*lines, *self.notes]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file."""
        plain: dict[str, Any] = without_nan(asdict(self) | {"verdict": self.verdict})
        return plain


def what_next(
    checkpoint: Path,
    *,
    splits: Sequence[Split] = ("train", "val", "test"),
    train_dev: Sequence[str] = (),
    human: float | None = None,
    metric: str | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
    known: Mapping[Part, tuple[Evaluator, Samples]] = MappingProxyType({}),
    hidden: tuple[str, ...] = (),
) -> WhatNext:
    """Score a model on all parts of its data, and read the gaps between them.

    Training images are scored without augmentation; of a larger training set a random part, as many as ``val`` has.

    Args:
        checkpoint: of a run, usually its ``best.ckpt``.
        splits: which; those that are not there are left out, and a note says why.
        train_dev: overrides that make ``val`` a set like the training's that was not trained on; empty: none.
        human: what people reach in the metric, in (0, 1]; None: not known.
        metric: by which gaps are read; None: the first of ``PREFERRED``.
        overrides: of ``data`` and ``evaluation``.
        device: ``auto``, ``cpu``, ``cuda``, ...
        known: evaluator (label maps: ``keep_images``) and samples (seed 0) of val or test with these overrides.
        hidden: of ``Facts``.

    Raises:
        DetsegError: the checkpoint is missing or wrong, there is no such metric, or the train-dev set cannot be opened.
    """
    _check_human(human)
    target = find_device(device)
    model, trained, contents = load_model(checkpoint)
    opened, notes = _open(checkpoint, contents, splits, overrides, train_dev)
    scores, facts, seen = dict[Part, Scored](), Facts(hidden=hidden), dict[Part, DetectionEvaluator]()
    for part, (config, dataset) in opened.items():
        logger.info(f"{part}: {counted(len(dataset), 'image')} of {dataset.name}")
        seed = _SEEDS["test" if part == "val" and "test" in known else part]  # 0 is that of what is known
        evaluator, samples = known.get(part) or _evaluated(model, dataset, config, contents, target, seed)
        metric = _known_metric(metric, samples)
        result = evaluator.compute()
        scores[part] = Scored(result.numbers[metric], samples.numbers[metric], len(dataset))
        seen |= {part: evaluator} if isinstance(evaluator, DetectionEvaluator) else {}
        if math.isnan(scores[part].number):
            notes.append(f"{part}: {metric} is not defined; are there annotations?")
        facts = replace(facts, **_facts_of(part, dataset, evaluator, result, config, metric))
    assert metric is not None  # something was opened
    facts = replace(facts, still_rising=_still_rising(checkpoint, contents.epoch, trained, metric))
    if seen and len({one.num_images for one in scores.values()}) > 1:
        notes.append("A gap is between as many images of both parts, by seed 0: of fewer images scores are higher.")
    notes.append("Intervals of 95 % are for the choice of the images; other seeds would change the numbers, too.")
    return WhatNext(
        checkpoint=str(checkpoint),
        metric=metric,
        scores={part: (one.number, *one.interval, one.num_images) for part, one in scores.items()},
        human=human,
        gaps=tuple(gaps(scores, metric, human, trained, facts, _Fewer(seen, metric) if seen else None)),
        notes=tuple(notes),
    )


def _check_human(human: float | None) -> None:
    if human is not None and not 0 < human <= 1:
        raise ConfigError(f"human level: expected a number above 0 and up to 1, such as 0.95, got {human:g}")


def _known_metric(metric: str | None, samples: Samples) -> str:
    metric = metric or next(name for name in PREFERRED if name in samples.numbers)
    if metric not in samples.numbers:
        raise ConfigError(f"metric: there is no {metric}; choose from {', '.join(samples.numbers)}")
    return metric


_Opened = dict[Part, tuple[ExperimentConfig, AnyDataset]]


def _open(
    checkpoint: Path,
    contents: ModelCheckpoint,
    splits: Sequence[Split],
    overrides: Sequence[str],
    train_dev: Sequence[str],
) -> tuple[_Opened, list[str]]:
    """The parts that there are, with the settings of each, and what to say of them."""
    parts: list[tuple[Part, Split, Sequence[str]]] = [(split, split, overrides) for split in splits]
    if train_dev:
        parts.insert(1, ("train-dev", "val", [*overrides, *train_dev]))
    opened, notes = _Opened(), list[str]()
    for part, split, own in parts:
        config = resolve_data(evaluation_config(contents.config, str(checkpoint), own))
        try:
            opened[part] = config, open_split_for(config, split, contents.classes, checkpoint)
        except CheckpointError:
            raise
        except DataError as error:
            if part == "train-dev":  # which was named
                raise
            notes.append(f"{part} is left out: {error}")
    if not opened:
        raise DataError(f"{checkpoint}: there is nothing to score: {'; '.join(notes)}")
    if "train" in opened and "val" in opened:
        config, dataset = opened["train"]
        opened["train"] = config, _as_many(dataset, len(opened["val"][1]), notes)
    return opened, notes


def _as_many(dataset: AnyDataset, number: int, notes: list[str]) -> AnyDataset:
    if len(dataset) <= number:
        return dataset
    chosen = np.sort(np.random.default_rng(0).choice(len(dataset), number, replace=False))
    notes.append(f"train: {number} of {len(dataset)} images, as many as val has, by seed 0; without augmentation.")
    return dataset.subset(chosen.tolist())


def _evaluated(
    model: nn.Module,
    dataset: AnyDataset,
    config: ExperimentConfig,
    contents: ModelCheckpoint,
    device: torch.device,
    seed: int,
) -> tuple[Evaluator, Samples]:
    evaluator = evaluated(model, dataset, config, contents.classes, device, keep_images=True)
    return evaluator, _samples(evaluator, seed)


@dataclass(frozen=True, eq=False)
class _Fewer:
    """Scores parts of the data again, on fewer images."""

    seen: Mapping[Part, DetectionEvaluator]
    metric: str

    def __call__(self, part: Part, number: int) -> Scored:
        """Of so many images, by seed 0."""
        records, few = self.seen[part].records, copy(self.seen[part])
        left_out = np.random.default_rng(0).permutation(records.image_ids)[number:]
        few.reset()
        few.merge(records.without_images(left_out).to_state())
        return Scored(few.compute().numbers[self.metric], _samples(few, _SEEDS[part]).numbers[self.metric], number)


def _facts_of(
    part: Part, dataset: AnyDataset, evaluator: Evaluator, result: Result, config: ExperimentConfig, metric: str
) -> dict[str, Any]:
    """What a part says: sizes that of val, before that of train; classes of which hardly anything is found train."""
    if part not in ("train", "val"):
        return {}
    values = result.by_class.get("IoU" if metric == "mIoU" else metric, ())  # of some metrics there are none
    low = classes_not_learned(evaluator, values)
    facts = _sizes(dataset, evaluator, config)
    return facts | {"unlearned" if part == "train" else "unlearned_on_val": low}


def classes_not_learned(evaluator: Evaluator, values: Sequence[float]) -> tuple[str, ...]:
    """The classes of the images, pixels or objects, whose values (by label; of some metrics there are none) are very
    low."""
    if isinstance(evaluator, SegmentationEvaluator):
        counts = evaluator.image_counts[0].sum(axis=(0, 2))
    else:
        assert isinstance(evaluator, DetectionEvaluator)
        labels = evaluator.records.object_labels[~evaluator.records.object_ignore]
        counts = np.bincount(labels, minlength=len(evaluator.classes))
    rows = zip(evaluator.classes.names, values, counts.tolist(), strict=False)
    return tuple(name for name, value, num in rows if num and value < _UNLEARNED)


def _still_rising(checkpoint: Path, epoch: int, config: ExperimentConfig, metric: str) -> bool:
    """Whether the last epoch was the best, and its validation better than the one before by more than noise: with a
    falling learning rate the last is nearly always the best. False where nothing is known."""
    if checkpoint.name != BEST or epoch != config.trainer.max_epochs:
        return False
    try:
        with (run_dir_of(checkpoint) / "metrics.csv").open(newline="", encoding="utf-8") as file:
            values = [float(row[f"val/{metric}"]) for row in csv.DictReader(file) if row.get(f"val/{metric}")]
    except (OSError, ValueError, csv.Error):
        return False
    return len(values) > 1 and values[-1] - values[-2] > _NOISE


def _samples(evaluator: Evaluator, seed: int) -> Samples:
    if isinstance(evaluator, SegmentationEvaluator):
        return segmentation_samples(*evaluator.image_counts, seed=seed)
    assert isinstance(evaluator, DetectionEvaluator)
    return detection_samples(
        evaluator.records, evaluator.classes, evaluator.max_detections, evaluator.f1_iou, seed=seed
    )


def _sizes(dataset: AnyDataset, evaluator: Evaluator, config: ExperimentConfig) -> dict[str, Any]:
    """The median side of the objects of each class, in pixels of the network input, where it is short; and the scale
    from images to the input, where label maps are found."""
    if isinstance(evaluator, SegmentationEvaluator):
        pixels = float(np.median(evaluator.image_counts[0].sum(axis=(1, 2))))
        return {"scale": math.sqrt(math.prod(config.data.input_hw) / max(pixels, 1.0))}
    assert isinstance(dataset, DetectionDataset)
    sizes, rows = sizes_in_input(dataset.packed, config.data.input_hw)
    sides, labels = np.sqrt(sizes.prod(axis=1)), dataset.packed.labels[rows]
    medians = {
        name: float(np.median(sides[labels == label]))
        for label, name in enumerate(dataset.classes.names)
        if (labels == label).any()
    }
    return {"small": {name: side for name, side in medians.items() if side < _SHORT}}
