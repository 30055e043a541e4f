"""Writes the report of a checkpoint on a split, or of a file of detections."""

from __future__ import annotations

import csv
import io
import json
import logging
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from torch import nn

from detseg.atomic_write import check_writable, write_text
from detseg.checkpoint import ModelCheckpoint, run_checkpoint, run_dir_of
from detseg.checkpoint.provenance import command, machine, read_run_file
from detseg.config.load import config_to_dict
from detseg.config.schema.experiment import ExperimentConfig
from detseg.config.schema.model import CustomModelConfig
from detseg.data.build import Split, resolve_data
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.datasets.fingerprint import fingerprint
from detseg.data.datasets.segmentation import SegmentationDataset
from detseg.draw.page import file_link, html_document, html_text
from detseg.errors import CheckpointError
from detseg.evaluation.report.detection_page import DetectionReport, Images
from detseg.evaluation.report.gallery import Gallery
from detseg.evaluation.report.map_page import MapReport, Triple, legend
from detseg.evaluation.report.maps import MapStudy
from detseg.evaluation.report.sections import (
    ERRORS,
    SUSPECTS,
    Section,
    facts_table,
    headline,
    interval_text,
    training_curves,
    what_next_section,
)
from detseg.evaluation.results_file import results_evaluator
from detseg.evaluation.run import evaluated, evaluation_config, open_split_for, report_folder
from detseg.evaluation.what_next import what_next
from detseg.factory import load_model
from detseg.messages import counted, messages_on_console, one_line
from detseg.metrics.detection import DetectionEvaluator
from detseg.metrics.interface import Evaluator
from detseg.metrics.learning_curve import LearningCurve
from detseg.metrics.segmentation import SegmentationEvaluator
from detseg.ops.letterbox import Letterbox
from detseg.predict import find_device, load_predictor
from detseg.structures import ClassTable, UInt8Array
from detseg.tasks import AnyDataset, kind_of

logger = logging.getLogger("detseg")

PAGE = "index.html"
_HERE = Path(__file__).parent
_NUM_TIMED = 20


@messages_on_console()
def report(
    checkpoint: Path,
    split: Split,
    folder: Path | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
    *,
    human: float | None = None,
    train_dev: Sequence[str] = (),
    learn: Callable[[], LearningCurve] | None = None,
    explain: Callable[[], Sequence[Section]] | None = None,
) -> Path:
    """Evaluate a checkpoint and write its report.

    Args:
        checkpoint: a checkpoint, or a run directory, whose best one is taken.
        split: of the data that it was trained on.
        folder: where to write; None: ``report`` in the run directory, or a name that says split and checkpoint where
            these are not val and the best.
        overrides: of ``data`` and ``evaluation``.
        device: ``auto``, ``cpu``, ``cuda``, ...
        human, train_dev: as of ``what_next``.
        learn: trains on fractions of the images, for a learning curve.
        explain: of a detector, gives more sections. Both are called once no mistake is left that can be known before.

    Returns:
        The page; tables are beside it.

    Raises:
        DetsegError: the checkpoint or its data is missing or wrong, or the folder cannot be written.
    """
    find_device(device)  # an error comes first
    checkpoint = run_checkpoint(checkpoint)
    model, contents, config, dataset = _opened(checkpoint, split, overrides, train_dev)
    run_dir, folder = run_dir_of(checkpoint), folder or report_folder(checkpoint, split)
    check_writable(folder, "--out")
    curve, predictor = None if learn is None else learn(), load_predictor(checkpoint, device)
    more = explain() if explain is not None and kind_of(config.model).finds_objects else ()
    found, evaluator = _looked_at(model, dataset, config, contents.classes, predictor)
    facts = {
        "model": f"{config.model.name}, {checkpoint}",
        "images": f"{counted(len(dataset), 'image')} of {split}, {dataset.name}",
        **_fingerprint(dataset),
        **found.protocol,
        "network input": "{1} x {0} pixels".format(*config.data.input_hw),
        "an image takes": _latency(predictor, dataset),
        **_facts(),
    }
    # Test images are not looked at unasked: what is looked at is soon optimised.
    splits: list[Split] = ["train", "val", "test"] if split == "test" else ["train", "val"]
    known: Any = {split: (evaluator, found.samples)} if split != "train" else {}
    options: Any = {"human": human, "train_dev": train_dev, "overrides": overrides, "device": device, "known": known}
    following = what_next(checkpoint, splits=splits, hidden=tuple(found.hidden), **options)
    background = [("training", "Training", _training(run_dir, found)), *_provenance(run_dir), _settings(config)]
    more = [*more, ("next", "What next", what_next_section(following, curve))]
    sentences = [*found.result.explain(), f"What next: {following.verdict}."]
    sentences += [] if curve is None else [f"More images: {curve.verdict}."]
    about = f"{_model_line(config, contents.epoch)}; {found.about(_data_name(config), split)}"
    return _write(found, folder, f"{run_dir.name}, {split}", about, facts, more, background, sentences)


@messages_on_console()
def report_results(
    results: Path, annotations: Path, folder: Path, images: Path | None, overrides: Sequence[str] = ()
) -> Path:
    """Write the report of a file of detections of any program.

    Args:
        results, annotations: as of ``evaluate_results``.
        folder: where to write.
        images: the folder with the images; None: there are no pictures.
        overrides: of ``evaluation``.
    """
    check_writable(folder, "--out")
    evaluator, truth = results_evaluator(results, annotations, overrides, images)
    names = [truth.packed.path(index) for index in range(len(truth))]

    def read(place: int) -> UInt8Array:
        from detseg.data.images.read import read_image

        return read_image(truth.path(place))

    ids = [truth.image_id(index) for index in range(len(truth))]
    found = DetectionReport.of(evaluator, Images(ids, names, None, read if images else None))
    facts = {"detections": str(results), "annotations": str(annotations), **found.protocol, **_facts()}
    about, sentences = found.about(annotations.name, "COCO"), found.result.explain(of_a_run=False)
    return _write(found, folder, results.name, about, facts, sentences=sentences)


def _opened(
    checkpoint: Path, split: Split, overrides: Sequence[str], train_dev: Sequence[str]
) -> tuple[nn.Module, ModelCheckpoint, ExperimentConfig, AnyDataset]:
    """Model, what its checkpoint says, settings and data; the train-dev set is opened to know that it can be."""
    model, _, contents = load_model(checkpoint)
    config = resolve_data(evaluation_config(contents.config, str(checkpoint), overrides))
    dataset = open_split_for(config, split, contents.classes, checkpoint)
    if train_dev:
        of_val = resolve_data(evaluation_config(contents.config, "--train-dev", [*overrides, *train_dev]))
        open_split_for(of_val, "val", contents.classes, checkpoint)
    return model, contents, config, dataset


def _model_line(config: ExperimentConfig, epoch: int) -> str:
    """Model, where it began, its input, and how long it was trained."""
    model, (height, width) = config.model, config.data.input_hw
    parts: list[str] = [model.name]
    if not isinstance(model, CustomModelConfig):
        backbone = model.backbone
        parts[0] += f" on {backbone.name}"
        file = model.weights or backbone.weights
        published = "published weights" if backbone.pretrained else "random weights"
        parts.append(f"begun from {Path(file).name if file else published}")
    return ", ".join([*parts, f"input {width} x {height} pixels", f"epoch {epoch} of {config.trainer.max_epochs}"])


def _data_name(config: ExperimentConfig) -> str:
    """The data set's folder and format, for a line."""
    root = getattr(config.data, "root", None)  # a set that is drawn has none
    return f"{Path(root).name} ({config.data.name})" if root else config.data.name


def _looked_at(
    model: nn.Module, dataset: AnyDataset, config: ExperimentConfig, classes: ClassTable, predictor: Any
) -> tuple[DetectionReport | MapReport, Evaluator]:
    """Everything that is found on the data set, and the evaluator that has seen it."""
    study = MapStudy(len(classes), config.evaluation.boundary_width)
    also = study.update_batch if isinstance(dataset, SegmentationDataset) else None
    evaluator = evaluated(model, dataset, config, classes, predictor.device, keep_images=True, also=also)
    names = [dataset.packed.path(index) for index in range(len(dataset))]
    if isinstance(evaluator, SegmentationEvaluator):

        def look(place: int) -> Triple:
            assert isinstance(dataset, SegmentationDataset)
            image = predictor.read(dataset.path(place))
            return image, dataset.semantic(place), predictor(image).labels

        return MapReport.of(evaluator, study, names, look), evaluator
    assert isinstance(evaluator, DetectionEvaluator)
    return DetectionReport.of(evaluator, _images_of(dataset, names, config, predictor.read)), evaluator


def _images_of(dataset: AnyDataset, names: Sequence[str], config: ExperimentConfig, read: Any) -> Images:
    places = range(len(dataset))
    assert isinstance(dataset, DetectionDataset)
    fits = [Letterbox.fit(dataset.hw(place), config.data.input_hw) for place in places]
    scales = np.array([np.sqrt(np.prod(fit.scale_xy)) for fit in fits])
    return Images([dataset.image_id(place) for place in places], names, scales, lambda place: read(dataset.path(place)))


def _latency(predictor: Any, dataset: AnyDataset) -> str:
    """Of a file, read and predicted alone; a first round does not count."""
    paths = [dataset.path(index) for index in range(min(_NUM_TIMED, len(dataset)))]
    times = []
    for number, path in enumerate([*paths[:2], *paths]):
        begin = time.perf_counter()
        predictor(path)
        if number >= 2:
            times.append((time.perf_counter() - begin) * 1e3)
    if not times:
        return "-"
    return f"{statistics.median(times):.1f} ms ({min(times):.1f} to {max(times):.1f}), from the file on, one at a time"


def _facts() -> dict[str, str]:
    here = machine()
    return {
        "machine": f"{here['processor']}, {here['cores']} cores, {', '.join(here['gpus']) or 'no GPU'}",
        "system": here["system"],
        "versions": f"detseg {version('detseg')}, torch {version('torch')}, Python {platform.python_version()}",
        "command": command(),
    }


def _fingerprint(dataset: AnyDataset) -> dict[str, str]:
    """Of what was measured."""
    found = fingerprint(dataset)
    return {"fingerprint": ", ".join(f"{name} {value}" for name, value in found.items() if value)}


def _training(run_dir: Path, found: DetectionReport | MapReport) -> str:
    """The curves of its ``metrics.csv``; empty where there is none, or a damaged one."""
    table = run_dir / "metrics.csv"
    try:
        with table.open(newline="", encoding="utf-8") as file:
            return training_curves(list(csv.DictReader(file)), next(iter(found.result.headline)))
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        logger.warning(f"{table}: is damaged ({one_line(error)}); the page has no curves of the training")
        return ""


def _settings(config: ExperimentConfig) -> Section:
    lines = "\n".join(map(html_text, yaml.safe_dump(config_to_dict(config), sort_keys=False).splitlines()))
    return "settings", "Settings", f"<pre>{lines}</pre>"


def _provenance(run_dir: Path) -> Iterator[Section]:
    """How the run began, of its ``run.json``."""
    parts = []
    try:
        starts = read_run_file(run_dir)["starts"]
    except CheckpointError as error:
        logger.warning(str(error))
        return
    for start in starts:
        git = start.get("git") or {}
        dirty = " (with changes)" if git.get("dirty") else ""
        facts = {
            "began": str(start.get("time")),
            "command": str(start.get("command")),
            "detseg": str(start.get("detseg")),
            "commit": f"{git.get('commit', '-')}{dirty}",
            "processor": str((start.get("machine") or {}).get("processor")),
        }
        for name, prints in (start.get("data") or {}).items():
            facts[f"data, {name}"] = ", ".join(f"{key} {value}" for key, value in prints.items() if value)
        parts.append(facts_table(facts))
    yield "run", "How it was trained", "".join(parts)  # nothing of exported weights


def _write(
    found: DetectionReport | MapReport,
    folder: Path,
    title: str,
    about: str,
    facts: Mapping[str, str],
    more: Sequence[Section] = (),
    background: Sequence[Section] = (),
    sentences: Sequence[str] = (),
) -> Path:
    gallery = Gallery()
    measured = ("facts", "What was measured", facts_table(facts))
    sections = [*found.sections(gallery), *more, measured, *(part for part in background if part[2])]
    lines = [*found.in_short(), *sentences]
    parts = [
        f'<h1>{html_text(title)}</h1><p class="soft">{html_text(about)}</p>',
        headline(found.headline, found.intervals, found.notes),
    ]
    if any(map(interval_text, found.intervals.values())):
        parts.append(
            '<p class="soft">Small numbers: 95 % intervals, of 1000 bootstrap resamples. As many other images of the '
            "same kind would give another number; the mean of many such numbers most likely lies in this interval. It "
            "is too narrow where images resemble one another, such as frames of a video.</p>"
        )
    tables = found.tables() if isinstance(found, DetectionReport) else {}
    files = [ERRORS, SUSPECTS, *tables]
    parts.append(f'<p class="soft">Beside this page: {", ".join(map(file_link, files))}.</p>')
    parts.append(f'<ul class="short">{"".join(f"<li>{html_text(line)}</li>" for line in lines)}</ul>')
    links = "".join(f'<a href="#{anchor}">{html_text(name)}</a> ' for anchor, name, _ in sections)
    parts.append(f"<nav>{links}</nav>")
    if isinstance(found, MapReport):
        parts.append(f'<p class="legend">{legend(found.classes)}</p>')
    parts += [f'<h2 id="{anchor}">{html_text(name)}</h2>{html}' for anchor, name, html in sections]
    names = found.names if isinstance(found, MapReport) else found.images.names
    parts.append(gallery.whole_images(names, found.shown))
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    write_text(folder / ERRORS, _csv(found.error_rows()))
    write_text(folder / SUSPECTS, _csv(found.suspect_rows()))
    for name, table in tables.items():
        write_text(folder / name, json.dumps(table, indent=2))
    page = folder / PAGE
    write_text(page, html_document(title, "detseg report", parts, style, script))
    for line in lines:
        logger.info(line)
    return page


def _csv(rows: Iterator[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
