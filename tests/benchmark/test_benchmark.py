"""Benchmarks of small models: every stage is there, parts make up wholes, nothing stays, mistakes are one line."""

from __future__ import annotations

import json
import math
import multiprocessing
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from detseg.benchmark import STAGES
from detseg.benchmark.report import SCHEMA
from detseg.benchmark.seams import STEP_ORDER
from detseg.benchmark.stepping import IN_PARTS, TOGETHER, WAITING, WHOLE
from detseg.cli import benchmark as tool
from detseg.cli.tool import run_tool
from detseg.errors import DataError
from tests.tiny import TinyRun, write_colors, write_config, write_instance_config, write_segmentation_config

pytestmark = pytest.mark.filterwarnings("ignore")

STEP = {"copy to the device", "forward", "loss", "backward", "finite check, clipping", "optimiser", "EMA", "rest"}
VALIDATION = {"waiting for the loader", "network", "loss", "rest", "validation", "scoring"}
PREDICTOR = {
    *("read and decode", "pre: letterbox, to float", "network", "post: to original pixels"),
    *("an image, p50", "an image, p95"),
}
DETECTION = {"threshold, NMS", "evaluator"}
SEGMENTATION = {"labels at original size", "confusion, boundary"}
EXPECTED: dict[str, dict[str, set[str]]] = {
    "yolo": {
        "step": STEP | {"assignment"},
        "validation": VALIDATION | DETECTION | {"decode"},
        "predictor": PREDICTOR | {"decode", "threshold, NMS"},
    },
    "mask_rcnn": {
        "step": STEP | {"assignment", "proposals, NMS"},
        "validation": VALIDATION | DETECTION | {"proposals, NMS"},
        "predictor": PREDICTOR | {"proposals, NMS", "threshold, NMS"},
    },
    "unet": {"step": STEP, "validation": VALIDATION | SEGMENTATION, "predictor": PREDICTOR},
}
EXPECTED["faster_rcnn"] = EXPECTED["mask_rcnn"]
WHOLES = {"whole step, timed in parts", "whole step", "training alone", TOGETHER, WAITING}


def settings(kind: str, path: Path, data_root: Path) -> Path:
    """A configuration file of a small model of the kind."""
    writers = {
        "unet": write_segmentation_config,
        "mask_rcnn": write_instance_config,
        "faster_rcnn": write_instance_config,
    }
    writers.get(kind, write_config)(path, data_root)
    if kind == "faster_rcnn":
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        del content["model"]["mask"]
        content["model"]["name"] = kind
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def run(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """What a run left in its JSON, and what it printed."""
    torch.set_num_threads(1)
    report = folder / "report.json"
    assert run_tool(tool.main, [*arguments, "--steps", "2", "--json", str(report)]) == 0
    return json.loads(report.read_text(encoding="utf-8")), capsys.readouterr().out


def names(report: dict[str, Any], stage: str) -> set[str]:
    return {m["name"] for m in report["measurements"] if m["stage"] == stage}


def values(report: dict[str, Any], stage: str, name: str) -> list[float]:
    (found,) = [m for m in report["measurements"] if (m["stage"], m["name"]) == (stage, name)]
    return list(found["values"])


@pytest.mark.parametrize("kind", ["yolo", "faster_rcnn", "mask_rcnn", "unet"])
def test_every_stage_of_every_kind_of_model(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = settings(kind, tmp_path / "tiny.yaml", tmp_path / "nowhere")
    report, printed = run(capsys, tmp_path, str(config), "--synthetic", "--workers", "0")
    for stage, expected in EXPECTED[kind].items():
        found = names(report, stage) - (WHOLES if stage == "step" else set())
        assert found == expected
    assert names(report, "start") == {"opening the data", "building the model"}  # the imports were made before
    assert names(report, "loader") == {
        *("read and decode", "letterbox, augment", "collate", "an image, on one core", "0 workers"),
    }
    assert set(report["skipped"]) == {"copy", "memory: device"}
    for m in report["measurements"]:
        assert len(m["values"]) == len([v for v in m["values"] if math.isfinite(v) and v >= 0])
        assert m["min"] <= m["median"] <= m["max"]
        assert m["share"] is None or 0 <= m["share"] <= 1
        assert m["name"] in printed
    assert min(values(report, "loader", "read and decode")) > 0
    check_sums(report)
    lines = printed.splitlines()
    assert lines[-3].startswith("bottleneck: ")
    assert lines[-2].startswith("advice: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "tiny.yaml"]


def check_sums(report: dict[str, Any]) -> None:
    """Parts make up their wholes."""
    parts = [m for m in report["measurements"] if m["stage"] == "step" and m["share"] is not None]
    assert {m["name"] for m in parts} <= set(STEP_ORDER)
    assert math.isclose(sum(m["share"] for m in parts), 1, abs_tol=1e-6)
    sums = [sum(of_round) for of_round in zip(*(m["values"] for m in parts), strict=True)]
    assert sums == pytest.approx(values(report, "step", IN_PARTS))
    assert min(*sums, *values(report, "step", WHOLE), *values(report, "step", TOGETHER)) > 0
    assert all(0 <= share <= 100 for share in values(report, "step", WAITING))
    images = [m["values"] for m in report["measurements"] if m["stage"] == "predictor" and m["share"] is not None]
    assert [sum(v) for v in zip(*images, strict=True)] == pytest.approx(values(report, "predictor", "an image, p50"))


def test_the_json_says_on_what_and_by_which_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = settings("yolo", tmp_path / "tiny.yaml", tmp_path / "nowhere")
    arguments = (str(config), "--synthetic", "--stages", "start,memory", "trainer.accumulate_grad_batches=2", "seed=3")
    report, printed = run(capsys, tmp_path, *arguments)
    assert report["schema"] == SCHEMA
    assert report["config"]["seed"] == 3
    assert report["config"]["data"]["image_size"] == 64
    assert report["machine"]["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert report["machine"]["cores"] >= 1
    assert report["synthetic"] is True
    assert report["gflops_per_image"] > 0
    assert report["verdict"]["rule"] == "unknown"
    assert {m["stage"] for m in report["measurements"]} == {"start", "memory"}
    assert "GFLOPs" in printed


def test_real_data_with_loader_processes_and_trained_weights(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.chdir(tmp_path)
    before = sorted(tiny_run.run_dir.parent.rglob("*"))
    arguments = [str(tiny_run.config_path), "data.num_workers=1", "trainer.accumulate_grad_batches=2", "--workers", "1"]
    arguments += ["--checkpoint", str(tiny_run.best), "--stages", "loader,step,validation"]
    report, printed = run(capsys, tmp_path, *arguments)
    assert names(report, "loader") >= {"1 worker"}
    assert "0 workers" not in names(report, "loader")
    assert 0 < report["validation_share"] < 1
    assert "trainer.accumulate_grad_batches=2" in printed
    assert f"weights: {tiny_run.best}" in printed
    assert sorted(tiny_run.run_dir.parent.rglob("*")) == before
    assert list(temporary.iterdir()) == []
    assert not (tmp_path / "runs").exists()
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            [],
            "there is no such folder; set data.root to the folder of the VOC data; or measure on made-up pictures: "
            "--synthetic",
        ),
        (
            ["--synthetic", "data.batch_size=auto"],
            "data.batch_size: auto is found when a training begins; give a number",
        ),
        (["--stages", "step,validate"], f"--stages: expected some of {', '.join(STAGES)}, got 'validate'"),
        (["--steps", "0"], "argument --steps: expected a whole number from 1 to 100000, got '0'"),
        (["--workers", "1,x"], "argument --workers: expected whole numbers from 0 to 1024 with commas, got '1,x'"),
        (["--json", "."], "--json: expected the name of a file, . is a folder"),
        (["--synthetic", "--checkpoint", "no.ckpt"], "no.ckpt: no such checkpoint"),
        (["model.bakbone=1"], "override model.bakbone=1: model.bakbone: unknown key (did you mean 'backbone'?)"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    line: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    config = write_config(tmp_path / "tiny.yaml", tmp_path / "nowhere")
    assert run_tool(tool.main, [str(config), *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (said,) = captured.err.splitlines()
    assert said.startswith("error: ")
    assert line in said


def test_weights_of_another_model(tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(tiny_run.config_path), "model.neck.name=pan", "--checkpoint", str(tiny_run.best)]
    assert run_tool(tool.main, arguments) == 2
    assert "its weights do not fit the model of this configuration and data" in capsys.readouterr().err


def test_a_damaged_picture_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data_root = write_colors(tmp_path / "colors")
    (data_root / "JPEGImages" / "train03.png").write_bytes(b"no image")
    config = write_config(tmp_path / "tiny.yaml", data_root)
    assert run_tool(tool.main, [str(config), "--steps", "10", "--workers", "0", "--stages", "loader"]) == 2
    assert "train03.png" in capsys.readouterr().err


def test_help_names_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tool.main(["--help"])
    assert ", ".join(STAGES) in " ".join(capsys.readouterr().out.split())


def test_print_config_measures_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path / "tiny.yaml", tmp_path / "nowhere")
    tool.main([str(config), "--print-config"])
    assert yaml.safe_load(capsys.readouterr().out)["data"]["image_size"] == 64


def test_a_missing_folder_is_the_users_error(tmp_path: Path) -> None:
    config = write_config(tmp_path / "tiny.yaml", tmp_path / "nowhere")
    with pytest.raises(DataError):
        tool.main([str(config)])
