"""Scores a file of COCO results of any program, as pycocotools' ``loadRes`` and ``COCOeval`` do."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from detseg.config.load import Settings, config_from_dict
from detseg.config.schema.experiment import EvaluationConfig
from detseg.data.annotations.model import LARGEST, region_counts
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.formats.coco import read_coco
from detseg.errors import ConfigError, DataError, check_type, path_of
from detseg.evaluation.details import report
from detseg.messages import listed, messages_on_console, one_line, shown
from detseg.metrics.detection import DetectionEvaluator
from detseg.metrics.detection_result import DetectionResult
from detseg.structures import FloatArray, InstanceMasks, IntArray

logger = logging.getLogger("detseg")

_EXPECTED = "a list of results, each with image_id, category_id, score, and bbox [x, y, width, height] or segmentation"
_ADVICE = {
    ": set data.file_names=relaxed, or correct": ": name the folder that these names are relative to, or correct",
    ", or set data.file_names=relaxed": "",
    ", or leave them out with data.on_missing=skip": ", or leave out --images",
}
"""Of settings that a file of results has not, and what helps instead."""

_Number = Annotated[float, msgspec.Meta(gt=-LARGEST, lt=LARGEST)]


class _Entry(msgspec.Struct, gc=False):
    image_id: int
    category_id: int
    score: _Number
    bbox: tuple[_Number, _Number, _Number, _Number] | None = None
    segmentation: dict[str, Any] | list[list[float]] | None = None


@dataclass(frozen=True, eq=False)
class FoundInImage:
    """The N detections of an image as a file states them, in pixels of the image."""

    boxes: FloatArray  # (N, 4) xyxy
    scores: FloatArray  # (N,)
    labels: IntArray  # (N,)
    masks: InstanceMasks | None  # None: the file has boxes alone


@messages_on_console()
def evaluate_results(
    results: str | Path,
    annotations: str | Path,
    *,
    masks: bool | None = None,
    settings: Mapping[str, Any] | None = None,
) -> DetectionResult:
    """Score the detections of any program, in COCO's results format, against COCO annotations. No image is read.

    Args:
        results: a JSON list of detections, each with ``image_id``, ``category_id``, ``score`` and ``bbox``
            ([x, y, width, height] in pixels) or ``segmentation`` (run lengths or polygons), or both. Boxes that are not
            stated are those around the masks.
        annotations: the JSON file with the truth; images without a detection count as such.
        masks: whether to score masks, too; None: if every detection has one.
        settings: of ``evaluation``, by their dotted names.

    Returns:
        The result, as that of ``detseg.evaluate`` of a detector.

    Raises:
        DetsegError: a file is missing or wrong, a detection is of an image or a category that the annotations do not
            have, or a setting is wrong.
    """
    check_type("settings", settings, Mapping | None, 'a mapping, such as {"evaluation.max_detections": 300}')
    of_evaluation = _evaluation_settings(settings or {})
    found = _read(path_of("results", results))
    where = path_of("results", results), path_of("annotations", annotations)
    return _evaluator(found, *where, masks, of_evaluation)[0].compute()


def evaluate_results_file(results: Path, annotations: Path, overrides: Sequence[str]) -> DetectionResult:
    """The command: score a file of results, say the numbers and what they mean, and write them beside the file."""
    settings = _evaluation_settings(overrides)
    evaluator, _ = _evaluator(_read(results), results, annotations, None, settings)
    result = evaluator.compute()
    file = results.with_name(f"{results.stem}_evaluation.json")
    origin = {"results": results.name, "annotations": str(annotations)}
    explained = result.explain(of_a_run=False)
    report(evaluator, result, file, origin, settings.model_dump(mode="json"), explained)
    return result


def results_evaluator(
    results: Path, annotations: Path, overrides: Sequence[str], images: Path | None = None
) -> tuple[DetectionEvaluator, DetectionDataset]:
    """The evaluator that has seen a file of results, and the truth; with ``images``, their folder, its images can be
    read."""
    return _evaluator(_read(results), results, annotations, None, _evaluation_settings(overrides), images)


def _evaluation_settings(overrides: Settings) -> EvaluationConfig:
    if other := [text for text in overrides if not text.startswith("evaluation.")]:
        raise ConfigError(f"setting {other[0]}: a file of results has only settings of evaluation, evaluation.*")
    return config_from_dict({"data": {"name": "custom"}}, "settings", overrides).evaluation


def _evaluator(
    entries: list[_Entry],
    file: Path,
    annotations: Path,
    masks: bool | None,
    settings: EvaluationConfig,
    images: Path | None = None,
) -> tuple[DetectionEvaluator, DetectionDataset]:
    have = sum(bool(entry.segmentation) for entry in entries)
    if masks and have < len(entries):
        raise DataError(f"{file}: {len(entries) - have} of {len(entries)} detections have no segmentation to score")
    masks = bool(entries) and have == len(entries) if masks is None else masks
    truth = _read_truth(annotations, masks, images)
    for line in truth.report.lines():
        logger.info(f"{truth.name}: {line}")
    evaluator = DetectionEvaluator(
        truth.classes, settings.max_detections, settings.f1_iou, masks, settings.class_weights
    )
    for index, found in enumerate(_by_image(entries, file, truth, masks)):
        evaluator.update(truth.image_id(index), found, truth.annotations(index))
    return evaluator, truth


def _read_truth(annotations: Path, masks: bool, images: Path | None) -> DetectionDataset:
    try:
        return read_coco(images, annotations, masks=masks)
    except DataError as error:
        advice = str(error)
        for setting, instead in _ADVICE.items():
            advice = advice.replace(setting, instead)
        raise DataError(advice) from error


def _read(file: Path) -> list[_Entry]:
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{file}: there is no such file of results") from None
    except OSError as error:
        raise DataError(f"{file}: cannot read the results: {error.strerror}") from None
    try:
        return msgspec.json.decode(text, type=list[_Entry])
    except msgspec.ValidationError as error:
        wrong = one_line(error)
        if text.lstrip()[:1] == b"{":
            wrong = "got one object; are --results and --annotations exchanged?"
        elif place := re.search(r"\$\[(\d+)\]", wrong):
            wrong = (
                f"number {place[1]} is {shown(msgspec.json.decode(text)[int(place[1])])}: {wrong.partition(' - ')[0]}"
            )
        raise DataError(f"{file}: expected {_EXPECTED}; {wrong}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{file}: not a readable JSON file: {one_line(error)}; NaN and Infinity are none") from None


def _by_image(entries: list[_Entry], file: Path, truth: DetectionDataset, masks: bool) -> list[FoundInImage]:
    """The detections of each image, in the order of the file."""
    places = {truth.image_id(index): index for index in range(len(truth))}
    labels = {number: label for label, number in enumerate(truth.classes.source_ids)}
    _check_known(file, "image", [entry.image_id for entry in entries], places)
    _check_known(file, "category", [entry.category_id for entry in entries], labels)
    rows: list[list[int]] = [[] for _ in places]
    for number, entry in enumerate(entries):
        rows[places[entry.image_id]].append(number)
    return [
        _found([entries[number] for number in of_image], file, of_image, truth.hw(index), labels, masks)
        for index, of_image in enumerate(rows)
    ]


def _check_known(file: Path, kind: str, ids: Sequence[int], known: Mapping[int, int]) -> None:
    if unknown := sorted({number for number in ids if number not in known}):
        numbers, some = listed([str(number) for number in unknown]), listed([str(number) for number in known])
        num = sum(number not in known for number in ids)
        one, hint = "an image", "are they of another split?"
        if kind == "category":
            one, hint = "a category", "are the classes counted from 0?"
        what = f"{num} of {len(ids)} detections are of {one} that the annotations do not have ({kind}_id {numbers})"
        raise DataError(f"{file}: {what}; these have {some}: {hint}")


def _found(
    entries: Sequence[_Entry],
    file: Path,
    numbers: Sequence[int],
    hw: tuple[int, int],
    labels: Mapping[int, int],
    masks: bool,
) -> FoundInImage:
    counts, boxes = list[bytes](), np.zeros((len(entries), 4))
    for row, (entry, number) in enumerate(zip(entries, numbers, strict=True)):
        if masks or entry.bbox is None:
            try:
                counts.append(region_counts(entry.segmentation, hw))
            except ValueError as error:
                where = f"{file}: number {number}, of image {entry.image_id}: "
                raise DataError(where + (f"segmentation: {error}" if entry.segmentation else "no bbox")) from None
        if entry.bbox is None:
            boxes[row] = InstanceMasks(hw, (counts[-1],)).boxes[0]
        else:
            x, y, width, height = entry.bbox
            if width < 0 or height < 0:
                stated = f"bbox {list(entry.bbox)}: expected [x, y, width, height], got a negative size"
                raise DataError(f"{file}: number {number}, of image {entry.image_id}: {stated}")
            boxes[row] = x, y, x + width, y + height
    return FoundInImage(
        boxes,
        np.array([entry.score for entry in entries], dtype=np.float64),
        np.array([labels[entry.category_id] for entry in entries], dtype=np.int64),
        InstanceMasks(hw, tuple(counts)) if masks else None,
    )
