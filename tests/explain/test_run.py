"""The misses of trained and of random detectors, against those found anew from what their predictors return."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from detseg.checkpoint import model_entry
from detseg.cli import main
from detseg.config.load import config_from_dict
from detseg.data.build import open_split
from detseg.data.datasets.detection import DetectionDataset
from detseg.errors import DetsegError
from detseg.explain.run import explain_image, explain_split
from detseg.factory import build_model
from detseg.predict import load_predictor
from detseg.structures import ClassTable
from tests.tiny import CLASSES, TinyRun, tiny_config, write_colors

pytestmark = pytest.mark.filterwarnings("ignore")

Missed = set[tuple[str, int]]


def iou(one: list[float], two: list[float]) -> float:
    width, height = (max(min(one[k + 2], two[k + 2]) - max(one[k], two[k]), 0) for k in (0, 1))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, two)]
    return width * height / (sum(areas) - width * height)


def missed_by_predictor(checkpoint: Path, dataset: DetectionDataset, threshold: float) -> Missed:
    """Files and objects that no detection of the predictor has: the best score takes the object that it overlaps
    most."""
    predictor, missed = load_predictor(checkpoint, "cpu", threshold), set[tuple[str, int]]()
    for index in range(len(dataset)):
        truth, found = dataset.annotations(index), predictor(dataset.path(index))
        free = {i for i in range(len(truth)) if not truth.ignore[i]}
        for box, label in zip(found.boxes.tolist(), found.labels.tolist(), strict=True):
            overlaps = {i: iou(box, truth.boxes[i].tolist()) for i in free if truth.labels[i] == label}
            best = max(overlaps, key=lambda i: overlaps[i], default=None)
            if best is not None and overlaps[best] >= 0.5:
                free.remove(best)
        missed |= {(dataset.packed.path(index), i) for i in free}
    return missed


MODELS: dict[str, dict[str, Any]] = {
    "grid": {"name": "yolo", "head": {"name": "grid"}},
    "anchor": {"name": "yolo", "head": {"name": "anchor", "anchors": [[s, s] for s in range(10, 55, 5)]}},
    "faster_rcnn": {"name": "faster_rcnn", "roi_heads": {"hidden": 32}},
}


def write_random(path: Path, root: Path, model: dict[str, Any]) -> Path:
    """A checkpoint as training would leave it, of random weights that tell places apart."""
    backbone, neck = {"name": "csp_nano", "width": 0.0625, "depth": 0.1}, {"name": "fpn", "channels": 16}
    settings = {
        "model": {**model, "backbone": backbone, "neck": neck, "score_threshold": 0.0},
        "data": {"name": "voc", "root": str(root), "classes": list(CLASSES), "image_size": 64, "num_workers": 0},
    }
    config, classes = config_from_dict(settings, "settings"), ClassTable(CLASSES)
    torch.manual_seed(0)
    network = build_model(config.model, classes)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim in (2, 4) and ("head" in name or "rpn" in name):
                weight.normal_(std=1 / weight[0].numel() ** 0.5)
    state = {f"model.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 0, "detseg": model_entry(config.model_dump(mode="json"), classes)}, path)
    return path


@pytest.fixture(scope="module")
def colors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colors(tmp_path_factory.mktemp("colors"), {"train": 4, "val": 30}, seed=1)


@pytest.mark.parametrize("name", MODELS)
def test_misses_are_those_of_the_predictor(name: str, colors: Path, tmp_path: Path) -> None:
    checkpoint = write_random(tmp_path / "best.ckpt", colors, MODELS[name])
    config = config_from_dict({"data": {"name": "voc", "root": str(colors), "classes": list(CLASSES)}})
    dataset = open_split(config.data, "val")
    summary = explain_split(checkpoint, "val", (), 0.0, "cpu")
    missed = {(path, miss.index) for path, miss in summary.misses}
    assert missed == missed_by_predictor(checkpoint, dataset, 0.0)
    assert 0 < len(missed) < summary.num_objects
    assert sum(row.count for row in summary.causes) == len(summary.misses) == len(missed)


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.9])
def test_misses_of_a_trained_yolo(threshold: float, tiny_run: TinyRun) -> None:
    dataset = open_split(tiny_config(tiny_run.config_path, None).data, "val")
    summary = explain_split(tiny_run.best, "val", (), threshold, "cpu")
    assert {(path, m.index) for path, m in summary.misses} == missed_by_predictor(tiny_run.best, dataset, threshold)
    assert summary.num_objects == sum(int((~dataset.annotations(i).ignore).sum()) for i in range(len(dataset)))


def test_misses_of_a_trained_mask_rcnn(tiny_instances: TinyRun) -> None:
    dataset = open_split(tiny_config(tiny_instances.config_path, None).data, "val", masks=True)
    summary = explain_split(tiny_instances.best, "val", (), 0.5, "cpu")
    assert {(path, m.index) for path, m in summary.misses} == missed_by_predictor(tiny_instances.best, dataset, 0.5)


def test_what_is_tried_for_a_low_score_finds_half_of_these(tiny_run: TinyRun) -> None:
    summary = explain_split(tiny_run.best, "train", (), 0.95, "cpu")
    (low,) = (row for row in summary.causes if row.cause == "low score")
    assert low.setting.name == "--score"
    again = explain_split(tiny_run.best, "train", (), low.setting.value, "cpu")
    assert len(summary.misses) - len(again.misses) >= low.count / 2


def wrong_by_predictor(checkpoint: Path, dataset: DetectionDataset, low: float, high: float) -> int:
    """Detections with scores between the two that are on no object that is free, and on none to ignore."""
    predictor, wrong = load_predictor(checkpoint, "cpu", low), 0
    for index in range(len(dataset)):
        truth, found = dataset.annotations(index), predictor(dataset.path(index))
        taken = set[int]()
        for box, label, score in zip(found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True):
            on = {i: iou(box, truth.boxes[i].tolist()) for i in range(len(truth)) if truth.labels[i] == label}
            on = {i: overlap for i, overlap in on.items() if overlap >= 0.5 and i not in taken}
            if free := {i: overlap for i, overlap in on.items() if not truth.ignore[i]}:
                taken.add(max(free, key=lambda i: free[i]))
            elif not on:
                wrong += score < high
    return wrong


def test_what_a_lower_score_brings_is_what_the_predictor_finds(tiny_run: TinyRun) -> None:
    dataset = open_split(tiny_config(tiny_run.config_path, None).data, "train")
    summary = explain_split(tiny_run.best, "train", (), 0.95, "cpu")
    lower = summary.lower_score
    assert lower is not None
    missed = [len(missed_by_predictor(tiny_run.best, dataset, score)) for score in (0.95, lower.score)]
    assert lower.found == missed[0] - missed[1] > 0
    assert lower.wrong == wrong_by_predictor(tiny_run.best, dataset, lower.score, 0.95)
    found = [summary.num_objects - number for number in missed]
    wrong = [wrong_by_predictor(tiny_run.best, dataset, score, 1.1) for score in (0.95, lower.score)]
    f1 = [2 * right / (right + other + summary.num_objects) for right, other in zip(found, wrong, strict=True)]
    assert lower.f1 == pytest.approx(f1)


def test_the_command_over_a_split(tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tiny_run.run_dir)
    assert main(["explain", run, "--score", "0.95", "data.batch_size=4", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    report = json.loads((tiny_run.run_dir / "explain_val.json").read_text())
    assert (report["checkpoint"], report["split"], report["overrides"]) == ("best.ckpt", "val", ["data.batch_size=4"])
    assert {Path(row["image"]).parent for row in report["misses"]} == {Path("JPEGImages")}  # within the data
    assert report["num_missed"] == len(report["misses"]) > 0
    first = report["causes"][0]
    assert f"{first['sentence']}; try {report['recommended']}" in out
    assert f"missed with a score of 0.95: {report['num_missed']} of {report['num_objects']} objects in 9 images" in out
    assert max(map(len, out.split("missed with")[0].splitlines())) <= 80


def test_the_command_for_an_image(tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*argv: str) -> tuple[int, list[str]]:
        code = main(["explain", str(tiny_run.best), *argv, "--device", "cpu"])
        captured = capsys.readouterr()
        return code, (captured.out + captured.err).splitlines()

    dataset = open_split(tiny_config(tiny_run.config_path, None).data, "test")  # found without --split
    index = next(i for i in range(len(dataset)) if (~dataset.annotations(i).ignore).any())
    path, number = str(dataset.path(index)), str(int((~dataset.annotations(index).ignore).argmax()))
    found, _ = explain_image(tiny_run.best, Path(path), None, (), 1.0, "cpu")
    code, lines = said(path, "--score", "1")
    assert code == 0
    assert lines[0] == f"{path}: {len(found.misses)} of {len(found.misses)} objects missed"
    assert len(lines) == 1 + 5 * len(found.misses)
    assert said(path, "--score", "1", "--object", number)[1] == lines[1:6]
    within = dataset.packed.path(index)  # as over a split
    assert said(within, "--score", "1")[1] == [f"{within}: {lines[0].partition(': ')[2]}", *lines[1:]]
    assert said(path, "--object", "99") == (
        2,
        [f"error: --object 99: {path} has {len(dataset.annotations(index))} objects, counted from 0"],
    )
    truth = [(i, k) for i in range(len(dataset)) for k in range(len(dataset.annotations(i)))]
    ignored, k = next((i, k) for i, k in truth if dataset.annotations(i).ignore[k])
    assert "neither as found nor as missed" in said(str(dataset.path(ignored)), "--object", str(k))[1][0]


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["no.png"], "no.png: is not in the data of "),
        (["no.png", "--split", "test"], "no.png: is not in the data of "),
        (["a.png", "b.png"], "b.png: one image at a time"),
        (["--object", "1"], "--object: is for one image"),
        (["--score", "2"], "argument --score: expected a number from 0 to 1, got '2'"),
        (["model.nms_iou=0.9"], "override model.nms_iou=0.9: the checkpoint decides; only data.* and evaluation.*"),
    ],
)
def test_mistakes_are_one_line(
    argv: list[str], line: str, tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(tiny_run.best), *argv]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {line}")
    assert err.count("\n") == 1


def test_label_maps_have_no_misses(tiny_segmentation: TinyRun) -> None:
    with pytest.raises(DetsegError, match="is a unet, which gives every pixel a class; only detectors miss objects"):
        explain_split(tiny_segmentation.best)
