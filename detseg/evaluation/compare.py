"""Whether a model is better than another: both find on the same images, and are scored on the same resamples of them
(paired bootstrap; Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 16). Runs that differ in the
seed alone are a group, whose means are compared over images and over seeds (Welch 1947)."""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from detseg.checkpoint import read_model_checkpoint, run_checkpoint
from detseg.config.load import config_to_dict
from detseg.config.schema.experiment import ExperimentConfig
from detseg.data.build import Split, resolve_data
from detseg.data.datasets.fingerprint import fingerprint
from detseg.errors import CheckpointError, ConfigError
from detseg.evaluation.run import evaluated, evaluation_config, open_split_for
from detseg.evaluation.seeds import OverSeeds, welch
from detseg.factory import load_model
from detseg.messages import counted, listed
from detseg.metrics.bootstrap import Samples, detection_samples, interval, segmentation_samples
from detseg.metrics.detection import DetectionEvaluator
from detseg.metrics.interface import Evaluator, Result, format_number, new_table, without_nan
from detseg.metrics.records import IouType
from detseg.metrics.segmentation import SegmentationEvaluator
from detseg.metrics.voc import best_f1, best_matches, rank_classes
from detseg.predict import find_device, load_predictor
from detseg.structures import ClassTable, FloatArray
from detseg.tasks import AnyDataset, kind_of

if TYPE_CHECKING:
    from rich.console import RenderableType

logger = logging.getLogger("detseg")

_NUM_TIMED, _NUM_CHANGED = 20, 10
_NOT_OF_THE_MODEL = ("run_dir", "tags", "tracking")
_OTHER_TRUTH = "the annotations of their images differ"


@dataclass(frozen=True)
class Difference:
    """A number of both models, or of two groups of runs.

    Attributes:
        first, second: the number of each; of a group the mean.
        low, high: ends of the 95 % interval of ``second - first``, for the choice of the images.
        p: two-sided, of no difference: where the interval of that level would end at 0.
        seeds: the same over seeds; None: one of them is a single run.
    """

    first: float
    second: float
    low: float
    high: float
    p: float
    seeds: OverSeeds | None = None

    @property
    def is_clear_over_images(self) -> bool:
        """Whether the interval for the choice of the images leaves out 0."""
        return self.low > 0 or self.high < 0

    @property
    def is_clear(self) -> bool:
        """Whether each interval that there is leaves out 0."""
        return self.is_clear_over_images and (self.seeds is None or self.seeds.is_clear)


@dataclass(frozen=True)
class Comparison:
    """A model against another one, or a group of runs that differ in the seed alone against another group.

    Attributes:
        first, second: run directory or checkpoint; of a group the first one, with the number of seeds.
        runs: all of both.
        num_images: of the split.
        numbers: metric → difference, the headline first.
        metric: that of ``by_class``.
        by_class: class → difference.
        changed: images whose errors changed most, with the errors of both, of a group the mean: wrong detections above
            the best threshold of each class, and missed objects; or the fraction of the pixels that are wrong.
        settings: what differs: name → both values.
        latency_ms: for an image, of both, measured in turn on this machine.
    """

    first: str
    second: str
    runs: tuple[tuple[str, ...], tuple[str, ...]]
    num_images: int
    numbers: dict[str, Difference]
    metric: str
    by_class: dict[str, Difference]
    changed: list[tuple[str, float, float]]
    settings: dict[str, tuple[Any, Any]]
    latency_ms: tuple[float, float]

    @property
    def verdict(self) -> str:
        """In one sentence."""
        name, found = next(iter(self.numbers.items()))
        by = f"{name} {found.first:.3f} and {found.second:.3f}, {found.second - found.first:+.3f}"
        sure = f"95 % interval {_signed(found.low)} to {_signed(found.high)}, p = {found.p:.3f}"
        too_few = [] if found.is_clear_over_images else [f"{self.num_images} images"]
        if (seeds := found.seeds) is not None:
            ends = f"95 % interval {_signed(seeds.low)} to {_signed(seeds.high)}, p = {seeds.p:.3f}"
            sure = f"over images: {sure}; over seeds: {ends}"
            too_few += [] if seeds.is_clear else [f"{len(seeds.first)} and {len(seeds.second)} seeds"]
        if not found.is_clear:
            return f"no clear difference: {by} ({sure}); {' and '.join(too_few)} do not tell which is better"
        return f"{self.second if found.low > 0 else self.first} is better: {by} ({sure})"

    def table(self) -> RenderableType:
        """For the screen, 80 columns wide."""
        from rich.console import Group

        columns = ("first", "second", "change", "95 % interval", "p")
        title = f"first: {self.first}\nsecond: {self.second}"
        tables = [new_table(title, columns, of="metric"), new_table(f"{self.metric} by class", columns)]
        for table, rows in zip(tables, (self.numbers, self.by_class), strict=True):
            for name, row in rows.items():
                ends = f"{_signed(row.low)} to {_signed(row.high)}"
                cells = (format_number(row.first), format_number(row.second), _signed(row.second - row.first))
                table.add_row(f"{name} *" if row.is_clear else name, *cells, ends, format_number(row.p))
                if row.seeds is not None:
                    table.add_row(*over_seeds(row.seeds))
        return Group(*tables, *self.lines())

    def lines(self) -> list[str]:
        """What stands below the tables."""
        first, second = self.latency_ms
        star = "the interval leaves out 0, as that of one in twenty does by chance"
        lines = [f"{counted(self.num_images, 'image')}. *: {star}."]
        if self.has_groups:
            lines += [f"{which}: {', '.join(runs)}" for which, runs in zip(("first", "second"), self.runs, strict=True)]
            lines.append(self.about_seeds)
        lines.append(f"An image takes {first:.1f} ms and {second:.1f} ms here.")
        lines += [f"{name}: {one!r} and {other!r}" for name, (one, other) in self.settings.items()]
        return lines

    @property
    def has_groups(self) -> bool:
        """Whether there are several runs of one configuration."""
        return any(len(runs) > 1 for runs in self.runs)

    @property
    def about_seeds(self) -> str:
        """What the numbers of groups are."""
        if min(len(runs) for runs in self.runs) == 1:
            return "Of several seeds the means; one of both is a single run, so there is no interval over seeds."
        return "Over seeds: standard deviations, and Welch's t interval of the change; *: both intervals leave out 0."

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file."""
        plain: dict[str, Any] = without_nan(asdict(self) | {"verdict": self.verdict})
        return plain


@dataclass(frozen=True, eq=False)
class _Opened:
    run: Path
    config: ExperimentConfig
    classes: ClassTable
    dataset: AnyDataset


@dataclass(frozen=True, eq=False)
class _Scored(_Opened):
    evaluator: Evaluator
    result: Result


_Numbers = tuple[list[float], FloatArray]  # of each run, and (B,) the means of the runs on each resample


@dataclass(frozen=True, eq=False)
class _Group:
    """Runs of one configuration and different seeds, often a single one, with the samples of each."""

    runs: tuple[_Scored, ...]
    samples: tuple[Samples, ...]

    def of(self, name: str) -> _Numbers:
        samples = np.mean([samples.numbers[name] for samples in self.samples], axis=0)
        return [run.result.numbers[name] for run in self.runs], samples

    def of_class(self, metric: str, label: int) -> _Numbers:
        samples = np.mean([samples.by_class[metric][:, label] for samples in self.samples], axis=0)
        return [run.result.by_class[metric][label] for run in self.runs], samples

    @property
    def name(self) -> str:
        return f"{self.runs[0].run} ({len(self.runs)} seeds)" if len(self.runs) > 1 else str(self.runs[0].run)


def compare(
    runs: Sequence[Path], split: Split, overrides: Sequence[str] = (), device: str = "auto"
) -> list[Comparison]:
    """Compare the first model with each of the others; runs whose settings differ in the seed alone count as one
    model, unless all do.

    Args:
        runs: checkpoints, or run directories, whose best one is taken.
        split: of the data that each was trained on.
        overrides: of ``data`` and ``evaluation``, for all.
        device: ``auto``, ``cpu``, ``cuda``, ...

    Raises:
        DetsegError: a checkpoint or its data is missing or wrong, or they differ in what they find, in their classes,
            in how they are measured, or in their images or annotations.
    """
    if len(runs) < 2:
        raise ConfigError(f"expected two runs or more to compare, got {len(runs)}")
    paths = [run_checkpoint(run).resolve() for run in runs]
    if twice := [run for run, path in zip(runs, paths, strict=True) if paths.count(path) > 1]:
        raise ConfigError(f"{twice[-1]}: is named twice; a run is compared with others")
    target = find_device(device)
    opened = [_open(run, split, overrides) for run in runs]
    for one in opened[1:]:  # before it takes long
        _refuse(opened[0], one, next(_obstacles(opened[0], one), None))
    first, *others = (_scored(one, target) for one in opened)
    for other in others:
        if any(not np.array_equal(*pair) for pair in zip(_truth(first), _truth(other), strict=True)):
            _refuse(first, other, f"{_OTHER_TRUTH}; name one set with data.root=...")
    group, *groups = [_Group(tuple(one), tuple(map(_samples, one))) for one in _grouped([first, *others])]
    return [_compared(group, other, device) for other in groups]


def _grouped(runs: Sequence[_Scored]) -> list[list[_Scored]]:
    """Runs of one configuration together, as long as their seeds differ; each for itself where that leaves nothing to
    compare."""
    groups: list[list[_Scored]] = []
    for run in runs:
        own = next((group for group in groups if all(_differ_in_seed(run, other) for other in group)), None)
        groups.append([run]) if own is None else own.append(run)
    return groups if len(groups) > 1 else [[run] for run in runs]


def _differ_in_seed(one: _Scored, two: _Scored) -> bool:
    return set(dict(_other_settings(config_to_dict(one.config), config_to_dict(two.config)))) == {"seed"}


def _open(run: Path, split: Split, overrides: Sequence[str]) -> _Opened:
    contents = read_model_checkpoint(run)
    config = resolve_data(evaluation_config(contents.config, str(run), overrides))
    return _Opened(run, config, contents.classes, open_split_for(config, split, contents.classes, run))


def _scored(one: _Opened, device: torch.device) -> _Scored:
    logger.info(f"{one.run}: {counted(len(one.dataset), 'image')} of {one.dataset.name}")
    model, _, _ = load_model(one.run)
    evaluator = evaluated(model, one.dataset, one.config, one.classes, device, keep_images=True)
    return _Scored(**vars(one), evaluator=evaluator, result=evaluator.compute())


def _refuse(first: _Opened, other: _Opened, reason: str | None) -> None:
    if reason is not None:
        raise CheckpointError(f"{first.run} and {other.run} cannot be compared: {reason}")


def _obstacles(first: _Opened, other: _Opened) -> Iterator[str]:
    names = first.config.model.name, other.config.model.name
    if kind_of(first.config.model).finds_objects != kind_of(other.config.model).finds_objects:
        yield f"a {names[0]} and a {names[1]} find different things"
        return
    if first.classes.names != other.classes.names:
        yield f"their classes are {listed(first.classes.names)}, and {listed(other.classes.names)}"
    own, others = first.config.evaluation.model_dump(), other.config.evaluation.model_dump()
    for name in own:
        if own[name] != others[name]:
            yield f"evaluation.{name} is {own[name]!r} and {others[name]!r}; give one value for both"
    if len(first.dataset) != len(other.dataset):
        numbers = f"the first has {len(first.dataset)} images, the second {len(other.dataset)}"
        yield f"{numbers}; name one set with data.root=..."
        return
    for index in range(len(first.dataset)):
        paths = first.dataset.packed.path(index), other.dataset.packed.path(index)
        if paths[0] != paths[1]:
            yield f"image {index} is {paths[0]} and {paths[1]}; name one set with data.root=..."
            return
    one, two = fingerprint(first.dataset), fingerprint(other.dataset)
    differ = {
        "the image files differ (by their sizes in bytes)": one["files"] != two["files"],
        "the mask files differ (by their sizes in bytes)": one["masks"] != two["masks"],
        # Of those with masks beside those without them only the boxes can be compared, as they are when all are found.
        _OTHER_TRUTH: _has_masks(first) == _has_masks(other) and one["annotations"] != two["annotations"],
    }
    yield from (f"{what}; name one set with data.root=..." for what, is_so in differ.items() if is_so)


def _has_masks(opened: _Opened) -> bool:
    return kind_of(opened.config.model).finds_masks


def _truth(scored: _Scored) -> list[np.ndarray[Any, Any]]:
    if isinstance(scored.evaluator, SegmentationEvaluator):
        return [scored.evaluator.image_counts[0].sum(axis=2)]
    assert isinstance(scored.evaluator, DetectionEvaluator)
    records = scored.evaluator.records
    return [records.object_image_ids, records.object_boxes, records.object_labels, records.object_ignore]


def _samples(scored: _Scored) -> Samples:
    evaluator = scored.evaluator
    if isinstance(evaluator, SegmentationEvaluator):
        return segmentation_samples(*evaluator.image_counts)
    assert isinstance(evaluator, DetectionEvaluator)
    return detection_samples(evaluator.records, evaluator.classes, evaluator.max_detections, evaluator.f1_iou)


def _compared(first: _Group, other: _Group, device: str) -> Comparison:
    one, two = first.runs[0], other.runs[0]
    names = [name for name in first.samples[0].numbers if name in other.samples[0].numbers]  # of masks those of both
    metric = next(name for name in first.samples[0].by_class if name in other.samples[0].by_class)
    by_label = [_difference(first.of_class(metric, k), other.of_class(metric, k)) for k in range(len(one.classes))]
    settings = dict(_other_settings(config_to_dict(one.config), config_to_dict(two.config)))
    if len(first.runs) > 1 or len(other.runs) > 1:
        settings.pop("seed", None)
    return Comparison(
        first=first.name,
        second=other.name,
        runs=(tuple(str(run.run) for run in first.runs), tuple(str(run.run) for run in other.runs)),
        num_images=len(one.dataset),
        numbers={name: _difference(first.of(name), other.of(name)) for name in names},
        metric=metric,
        by_class=dict(zip(one.classes.names, by_label, strict=True)),
        changed=_changed(first, other),
        settings=settings,
        latency_ms=_latencies(one, two, device),
    )


def _difference(first: _Numbers, second: _Numbers) -> Difference:
    found = difference(statistics.fmean(first[0]), statistics.fmean(second[0]), first[1], second[1])
    single = min(len(first[0]), len(second[0])) == 1
    return found if single else replace(found, seeds=welch(first[0], second[0]))


def difference(first: float, second: float, samples: FloatArray, others: FloatArray) -> Difference:
    """Of a number of two models and of the same (B,) resamples."""
    change, differences = second - first, others - samples
    differences = differences[~np.isnan(differences)]
    low, high = interval(change, differences)
    moved, num = differences - differences.mean() + change if len(differences) else differences, 1 + len(differences)
    tails = [(1 + np.count_nonzero(side)) / num for side in (moved <= 0, moved >= 0)]
    return Difference(first, second, low, high, min(1.0, 2 * min(tails)) if len(differences) else math.nan)


def _changed(first: _Group, other: _Group) -> list[tuple[str, float, float]]:
    of_masks = _has_masks(first.runs[0]) and _has_masks(other.runs[0])
    errors, others = (
        np.mean([_errors_by_image(run, "segm" if of_masks else "bbox") for run in group.runs], axis=0)
        for group in (first, other)
    )
    order = np.argsort(-np.abs(errors - others), kind="stable")[:_NUM_CHANGED].tolist()
    packed = first.runs[0].dataset.packed
    return [(packed.path(k), float(errors[k]), float(others[k])) for k in order if errors[k] != others[k]]


def _errors_by_image(scored: _Scored, iou_type: IouType) -> FloatArray:
    """(I,) in the order of the data set: wrong pixels as a fraction, or missed objects and wrong detections, each class
    from its best threshold on."""
    evaluator = scored.evaluator
    if isinstance(evaluator, SegmentationEvaluator):
        confusions = evaluator.image_counts[0]
        right, all_ = np.trace(confusions, axis1=1, axis2=2), confusions.sum(axis=(1, 2))
        return np.asarray(1 - right / np.maximum(all_, 1), dtype=np.float64)
    assert isinstance(evaluator, DetectionEvaluator)
    records, ids = evaluator.records, [scored.dataset.image_id(k) for k in range(len(scored.dataset))]
    place = {number: k for k, number in enumerate(ids)}
    errors = np.zeros(len(ids))
    np.add.at(errors, [place[k] for k in records.object_image_ids[~records.object_ignore].tolist()], 1)
    matches = best_matches(records, iou_type)
    for ranking in rank_classes(records, matches, evaluator.f1_iou, len(evaluator.classes)):
        kept = np.flatnonzero(ranking.scores >= best_f1(ranking).threshold)
        right = np.diff(ranking.true_positives, prepend=0)[kept] > 0
        images = [place[k] for k in records.detection_image_ids[ranking.detections[kept]].tolist()]
        np.add.at(errors, images, np.where(right, -1.0, 1.0))
    return errors


def _other_settings(
    one: Mapping[str, Any], two: Mapping[str, Any], path: str = ""
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    for key in sorted({**one, **two}, key=lambda key: key != "name"):
        name, values = f"{path}.{key}".lstrip("."), (one.get(key), two.get(key))
        if name in _NOT_OF_THE_MODEL or values[0] == values[1]:
            continue
        if key == "name":
            yield name, values
            return  # the rest are settings of another kind
        mappings = [value for value in values if isinstance(value, Mapping)]
        if len(mappings) == 2:
            yield from _other_settings(mappings[0], mappings[1], name)
        else:
            yield name, values


def _latencies(first: _Scored, other: _Scored, device: str) -> tuple[float, float]:
    """Medians over the first images, each predicted by both in turn; a first round does not count."""
    predictors = [load_predictor(one.run, device) for one in (first, other)]
    times: list[list[float]] = [[], []]
    indices = range(min(_NUM_TIMED, len(first.dataset)))
    images = [first.dataset.path(index) for index in indices]
    for number, path in enumerate([*images[:2], *images]):
        for predictor, own in zip(predictors, times, strict=True):
            begin = time.perf_counter()
            predictor(path)
            if number >= 2:
                own.append((time.perf_counter() - begin) * 1e3)
    medians = [statistics.median(own) if own else math.nan for own in times]
    return medians[0], medians[1]


def over_seeds(found: OverSeeds) -> tuple[str, str, str, str, str, str]:
    """The cells of a row below that of a number."""
    ends = f"{_signed(found.low)} to {_signed(found.high)}"
    return "  over seeds", f"± {found.first_sd:.3f}", f"± {found.second_sd:.3f}", "", ends, format_number(found.p)


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.3f}"
