"""Bootstrap over images (Efron 1979): how much a number would differ on other images of the same kind.

A resample draws as many images as there are, with repetition. It is a weight for each image, how often it was drawn, so
that detections are matched once and only counted again. Two models that are given the same resamples are compared image
by image.

Letters: B resamples, C classes, D detections of a class, I images, P right ones among them, T IoU thresholds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detseg.metrics.coco import RECALL_LEVELS, CocoMatches, coco_matches
from detseg.metrics.records import DetectionRecords, IouType, MaskRecords
from detseg.metrics.voc import Ranking, best_matches, rank_classes
from detseg.structures import ClassTable, FloatArray, IntArray

Weights = npt.NDArray[np.int32]
"""(B, I) how often each image is there in each resample."""

FEWEST_IMAGES = 5  # of which resamples say something; of fewer all numbers are NaN
_CHUNK = 64  # resamples that are counted at a time: for most classes the arrays fit into the cache
_MOST_COUNTS, _MOST_THREADS = 2**23, 4  # bound the memory, whatever the detections of a class and the machine


def resamples(num_images: int, num_resamples: int, seed: int = 0) -> Iterator[Weights]:
    """Chunks of resamples, (b, I) with rows that add up to I; the same for a seed."""
    rng = np.random.default_rng(seed)
    for start in range(0, num_resamples, _CHUNK):
        drawn = rng.integers(0, num_images, (min(_CHUNK, num_resamples - start), num_images))
        yield np.array([np.bincount(row, minlength=num_images) for row in drawn], dtype=np.int32)


def interval(number: float, samples: FloatArray, level: float = 0.95) -> tuple[float, float]:
    """Where the number would lie on average over sets of as many images: the quantiles of its (B,) samples, moved so
    that their mean is the number itself; NaN where no sample is defined.

    Resamples repeat images, and so have a higher AP on average: unmoved, the interval would lie too high.
    """
    defined = samples[~np.isnan(samples)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]) + number - defined.mean()
    return float(low), float(high)


@dataclass(frozen=True, eq=False)
class ApCounter:
    """COCO's AP of a class for weighted images.

    The precision at a recall level is the best at that recall or beyond, which is reached at a right detection. So only
    the right ones are looked at, and how many detections stand before each in the ranking.
    """

    images: IntArray  # (D,) of the detections, best first
    object_images: IntArray  # of the objects to find
    right: tuple[IntArray, ...]  # at each threshold the (P,) positions of the right detections
    ignored: tuple[IntArray, ...]  # and of those that do not count

    @classmethod
    def of_classes(cls, matches: CocoMatches, max_detections: int) -> list[ApCounter]:
        """Those of all classes, in the order of the matches, for the detections that ``max_detections`` allows."""
        within = np.flatnonzero(matches.ranks < max_detections)
        found, missed = matches.found[:, 0, within], matches.missed[:, 0, within]
        ends = np.searchsorted(matches.classes[within], np.arange(len(matches.num_objects) + 1)).tolist()
        counters = []
        for k, rows in enumerate(map(slice, ends[:-1], ends[1:])):
            objects = matches.object_images[matches.object_classes == k]
            right = tuple(np.flatnonzero(row) for row in found[:, rows])
            ignored = tuple(np.flatnonzero(row) for row in ~(found | missed)[:, rows])
            counters.append(cls(matches.images[within[rows]], objects, right, ignored))
        return counters

    def ap(self, weights: Weights) -> FloatArray:
        """(B, T) AP at each IoU threshold; NaN where there is no object."""
        num_objects = weights[:, self.object_images].sum(axis=1)[:, None]  # B 1
        there = weights.take(self.images, axis=1)  # B D
        totals = _totals(there)
        found = np.zeros((len(weights), len(self.right)))
        for threshold, (right, ignored) in enumerate(zip(self.right, self.ignored, strict=True)):
            if not len(right):
                continue
            kept = totals.take(right + 1, axis=1)  # B P
            if len(ignored):
                kept -= _totals(there[:, ignored])[:, np.searchsorted(ignored, right)]
            num_right = np.cumsum(there.take(right, axis=1), axis=1, dtype=np.int32)
            best = np.maximum.accumulate((num_right / np.maximum(kept, 1))[:, ::-1], axis=1)[:, ::-1]
            levels = np.diff(_num_levels(num_right / np.maximum(num_objects, 1)), axis=1, prepend=0)
            found[:, threshold] = (best * levels).sum(axis=1) / len(RECALL_LEVELS)
        return np.where(num_objects > 0, found, np.nan)


def _totals(weights: Weights) -> Weights:
    """(B, N) → (B, N + 1) running totals, from 0."""
    totals = np.zeros((len(weights), weights.shape[1] + 1), dtype=np.int32)
    np.cumsum(weights, axis=1, out=totals[:, 1:])
    return totals


def _num_levels(recall: FloatArray) -> IntArray:
    """How many recall levels each recall reaches: all below the one that is next to it, and that one if it does."""
    nearest = np.rint(recall * (len(RECALL_LEVELS) - 1)).astype(np.int64)
    levels: IntArray = nearest + (RECALL_LEVELS[nearest] <= recall)
    return levels


@dataclass(frozen=True, eq=False)
class F1Counter:
    """The best F1 of a class for weighted images, each time at the threshold that is best then. That is the score of a
    right detection."""

    images: IntArray  # (D,) of the detections that count, best first
    object_images: IntArray  # of the objects to find
    right: IntArray  # (P,) positions of the right detections
    ends: IntArray  # (P,) the last one of those with the score of each

    @classmethod
    def of_classes(cls, records: DetectionRecords, rankings: Sequence[Ranking]) -> list[F1Counter]:
        """Those of all classes, by label; of ``rank_classes`` of the same records."""
        image_ids = np.sort(records.image_ids)
        counters = []
        for label, ranking in enumerate(rankings):
            images = np.searchsorted(image_ids, records.detection_image_ids[ranking.detections])
            right = np.flatnonzero(np.diff(ranking.true_positives, prepend=0))
            ends = np.searchsorted(-ranking.scores, -ranking.scores[right], side="right") - 1
            objects = records.object_image_ids[~records.object_ignore & (records.object_labels == label)]
            counters.append(cls(images, np.searchsorted(image_ids, objects), right, ends))
        return counters

    def f1(self, weights: Weights) -> FloatArray:
        """(B,) the best F1; NaN where there is no object."""
        num_objects = weights[:, self.object_images].sum(axis=1)
        there = weights.take(self.images, axis=1)
        kept = _totals(there)[:, self.ends + 1]
        num_right = _totals(there[:, self.right])[:, np.searchsorted(self.right, self.ends, side="right")]
        f1 = (2 * num_right / np.maximum(kept + num_objects[:, None], 1)).max(axis=1, initial=0)
        return np.where(num_objects > 0, f1, np.nan)


@dataclass(frozen=True, eq=False)
class Samples:
    """Numbers of B resamples, under the names that a result has for them; NaN where a resample leaves one undefined,
    and of fewer than five images.

    Attributes:
        numbers: name → (B,), of the whole set.
        by_class: name → (B, C), of each class in the order of the labels.
    """

    numbers: dict[str, FloatArray]
    by_class: dict[str, FloatArray]


def detection_samples(
    records: DetectionRecords,
    classes: ClassTable,
    max_detections: int,
    f1_iou: float,
    num_resamples: int = 1000,
    seed: int = 0,
    f1_of: IouType = "bbox",
) -> Samples:
    """AP, AP50, AP75 and F1 of boxes on resamples of the images; of masks, too (``mask_AP``, ...), where the records
    have some, and F1 of masks instead where asked for (``mask_F1``). Arguments as of the evaluator."""
    order = np.argsort(classes.source_ids, kind="stable")
    counters = {"": ApCounter.of_classes(coco_matches(records, classes, max_detections), max_detections)}
    if isinstance(records, MaskRecords):
        matches = coco_matches(records, classes, max_detections, "segm")
        counters = {"mask_": ApCounter.of_classes(matches, max_detections), **counters}
    f1 = F1Counter.of_classes(records, rank_classes(records, best_matches(records, f1_of), f1_iou, len(classes)))

    def count(weights: Weights) -> tuple[list[FloatArray], FloatArray]:
        ap = [np.stack([one.ap(weights) for one in of_classes], axis=-1) for of_classes in counters.values()]  # B T C
        return ap, np.stack([one.f1(weights) for one in f1], axis=-1)

    most = int(np.bincount(records.detection_labels, minlength=1).max())
    num_parts = min(_CHUNK, 1 + _CHUNK * most // _MOST_COUNTS)
    chunks = resamples(len(records.image_ids), num_resamples, seed)
    parts = (part for chunk in chunks for part in np.array_split(chunk, num_parts) if len(part))
    # NumPy computes outside Python's lock, so threads count at once.
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        counted = list(pool.map(count, parts))
    numbers, by_class = dict[str, FloatArray](), dict[str, FloatArray]()
    for place, kind in enumerate(counters):
        ap = np.concatenate([chunk[place] for chunk, _ in counted])
        by_label = np.empty_like(ap)
        by_label[..., order] = ap
        numbers |= {f"{kind}AP": _mean(ap), f"{kind}AP50": _mean(ap[:, 0]), f"{kind}AP75": _mean(ap[:, 5])}
        by_class |= {f"{kind}AP": by_label.mean(axis=1), f"{kind}AP50": by_label[:, 0]}
    name = "F1" if f1_of == "bbox" else "mask_F1"
    by_class[name] = np.concatenate([chunk for _, chunk in counted])
    return _samples(numbers | {name: _mean(by_class[name])}, by_class, len(records.image_ids))


def segmentation_samples(confusions: IntArray, bands: IntArray, num_resamples: int = 1000, seed: int = 0) -> Samples:
    """mIoU, pixel accuracy, boundary IoU and Dice of label maps on resamples of the images, and IoU by class.

    Args:
        confusions: (I, C, C) pixels by true and by predicted class, of each image.
        bands: (I, 2, C) intersections and unions of the bands along the outlines.
        num_resamples: B.
        seed: of the draws.
    """
    names = ("mIoU", "pixel_accuracy", "boundary_IoU", "Dice", "IoU")
    found: dict[str, list[FloatArray]] = {name: [] for name in names}
    num_classes = confusions.shape[1]
    pixels, overlaps = (part.reshape(len(part), -1).astype(np.float32) for part in (confusions, bands))
    for weights in resamples(len(confusions), num_resamples, seed):
        sums = [(weights.astype(np.float32) @ part).astype(np.float64) for part in (pixels, overlaps)]
        counts = sums[0].reshape(-1, num_classes, num_classes)  # b C C
        inside, around = np.moveaxis(sums[1].reshape(-1, 2, num_classes), 1, 0)
        right, both = np.diagonal(counts, axis1=1, axis2=2), counts.sum(axis=1) + counts.sum(axis=2)
        found["IoU"].append(_ratio(right, both - right))
        found["mIoU"].append(_mean(found["IoU"][-1]))
        found["pixel_accuracy"].append(_ratio(right.sum(axis=1), counts.sum(axis=(1, 2))))
        found["boundary_IoU"].append(_mean(_ratio(inside, around)))
        found["Dice"].append(_mean(_ratio(2 * right, both)))
    samples = {name: np.concatenate(parts) for name, parts in found.items()}
    return _samples({name: samples[name] for name in names[:-1]}, {"IoU": samples["IoU"]}, len(confusions))


def _samples(numbers: dict[str, FloatArray], by_class: dict[str, FloatArray], num_images: int) -> Samples:
    if num_images < FEWEST_IMAGES:
        numbers, by_class = (
            {name: np.full_like(values, np.nan) for name, values in some.items()} for some in (numbers, by_class)
        )
    return Samples(numbers, by_class)


def _ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    """NaN where the whole is 0."""
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _mean(values: FloatArray) -> FloatArray:
    """(B, ...) → (B,) means of what is not NaN; NaN where nothing is."""
    flat = values.reshape(len(values), -1)
    num = np.count_nonzero(~np.isnan(flat), axis=1)
    return np.where(num > 0, np.nansum(flat, axis=1) / np.maximum(num, 1), np.nan)
