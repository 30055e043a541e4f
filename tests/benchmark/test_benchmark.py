"""The benchmark tool on small models: every stage, parts that make up wholes, nothing left behind, one-line errors."""

from __future__ import annotations

import json
import math
import multiprocessing
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from detseg.benchmark import STAGES
from detseg.benchmark.setup import with_synthetic_data
from detseg.cli.commands import benchmark as tool
from detseg.cli.tool import run_tool
from detseg.config.load import load_config
from detseg.tasks import kind_of
from tests.cli.mistakes import said
from tests.tiny import TinyRun, write_config, write_instance_config, write_segmentation_config

pytestmark = pytest.mark.filterwarnings("ignore")

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
PARTS_OF_STEP = {
    *("copy to the device, to float", "forward", "assignment, losses", "backward"),
    *("clipping, optimiser, EMA", "Lightning, logging, NaN guard"),
}
EXPECTED = {
    "start": {"opening the data", "building the model"},
    "loader": {"read and decode", "data.num_workers=0"},
    "step": {*PARTS_OF_STEP, "whole step", "training", "training with the loader", "waiting for the loader"},
    "validation": {"validation", "scoring", "validation, scoring"},
    "predictor": {"read and decode", "preprocess", "network", "postprocess", "an image"},
    "memory": {"peak, main memory"},
}


def run(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """What a run wrote to its JSON, and what it printed."""
    torch.set_num_threads(1)
    report = folder / "report.json"
    assert run_tool(tool, [*arguments, "--steps", "2", "--json", str(report)]) == 0
    return json.loads(report.read_text(encoding="utf-8")), capsys.readouterr().out


def names(report: dict[str, Any]) -> dict[str, set[str]]:
    stages = dict.fromkeys(m["stage"] for m in report["measurements"])
    return {stage: {m["name"] for m in report["measurements"] if m["stage"] == stage} for stage in stages}


@pytest.mark.parametrize("write", [write_config, write_instance_config, write_segmentation_config])
def test_every_stage_on_synthetic_images(
    write: Callable[[Path, Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write(tmp_path / "tiny.yaml", tmp_path / "nowhere")
    report, printed = run(capsys, tmp_path, str(config), "--synthetic", "--workers", "0", "seed=3")
    assert names(report) == EXPECTED
    for m in report["measurements"]:
        assert all(math.isfinite(value) and value >= 0 for value in m["values"])
        assert min(m["values"]) <= m["median"] <= max(m["values"])
        assert m["name"] in printed
    shares = {m["name"]: m["share"] for m in report["measurements"] if m["stage"] == "step" and m["share"] is not None}
    assert shares.keys() == PARTS_OF_STEP
    assert math.isclose(sum(shares.values()), 1)
    assert min(shares["forward"], shares["backward"]) > 0
    assert report["config"]["seed"] == 3
    assert report["machine"]["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    lines = printed.splitlines()
    assert lines[-2] == f"bottleneck: {report['diagnosis']['bottleneck']}"
    assert lines[-1] == f"advice: {report['diagnosis']['advice']}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "tiny.yaml"]


def test_real_data_and_weights(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "t"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.chdir(tmp_path)
    before = sorted(tiny_run.run_dir.parent.rglob("*"))
    arguments = [str(tiny_run.config_path), "data.num_workers=1", "trainer.accumulate_grad_batches=2", "--workers", "0"]
    arguments += ["--checkpoint", str(tiny_run.best), "--stages", "loader,step,validation"]
    report, printed = run(capsys, tmp_path, *arguments)
    assert names(report)["loader"] == {"read and decode", "data.num_workers=0", "data.num_workers=1"}
    assert names(report).keys() == {"loader", "step", "validation"}
    assert f"weights of {tiny_run.best}" in printed
    assert sorted(tiny_run.run_dir.parent.rglob("*")) == before
    assert list(temporary.iterdir()) == []
    assert not (tmp_path / "runs").exists()
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "set data.root to the folder of the VOC data; or use synthetic images: --synthetic"),
        (
            ["--synthetic", "data.batch_size=auto"],
            "data.batch_size: auto is found when a training begins; give a number",
        ),
        (["--stages", "step,validate"], f"--stages: expected some of {', '.join(STAGES)}, got 'validate'"),
        (["--steps", "0"], "--steps: expected at least 1, got 0"),
        (["--workers", "1,x"], "argument --workers: expected whole numbers from 0 to 1024 with commas, got '1,x'"),
        (["--json", "."], "--json: expected the name of a file, . is a folder"),
        (["--synthetic", "--checkpoint", "no.ckpt"], "no.ckpt: no such checkpoint"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, told = said(tool, [str(write_config(tmp_path / "tiny.yaml", tmp_path / "nowhere")), *arguments], capsys)
    assert (code, told.count("\n")) == (2, 1)
    assert line in told


def test_weights_of_another_model(tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(tiny_run.config_path), "model.neck.name=pan", "--checkpoint", str(tiny_run.best)]
    assert "its weights do not fit the model of this configuration and data" in said(tool, arguments, capsys)[1]


def test_help_names_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tool(["--help"])
    assert ", ".join(STAGES) in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("name", "num_classes"),
    [("yolo_bccd", 20), ("yolo_coco", 80), ("mask_rcnn_nuclei", 80), ("unet_nuclei", 2), ("fcn_voc", 21)],
)
def test_synthetic_images_suit_the_model(name: str, num_classes: int, tmp_path: Path) -> None:
    overrides = ["data.image_size=32", "data.num_workers=3", "data.augmentation.blur=0.25"]
    config = with_synthetic_data(load_config(CONFIGS / f"{name}.yaml", overrides), tmp_path)
    dataset = kind_of(config.model).open_dataset(config.data, "train")
    assert len(dataset.classes) == num_classes
    assert len(dataset) >= config.data.num_images
    assert max(dataset[0].hw) == 128  # four times the input
    assert len(kind_of(config.model).open_dataset(config.data, "val", dataset.classes)) > 0
    assert (config.data.num_workers, config.data.augmentation.blur) == (3, 0.25)
