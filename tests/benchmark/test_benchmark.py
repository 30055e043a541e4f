"""The benchmark tool on small models: every stage, parts that make up wholes, errors; each rule of the diagnosis."""

from __future__ import annotations

import json
import math
import multiprocessing
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from detseg.benchmark import STAGES
from detseg.benchmark.results import BACKWARD, COPY, FORWARD, LOSSES, OVERHEAD, UPDATE, Diagnosis, Results, diagnose
from detseg.benchmark.setup import with_synthetic_data
from detseg.cli.benchmark import benchmark as tool
from detseg.cli.tool import run_tool
from detseg.config.load import load_config
from detseg.tasks import kind_of
from tests.cli.mistakes import said
from tests.tiny import WRITERS, TinyRun, write_config

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


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "mask_rcnn" else []) for name in WRITERS]
)
def test_synthetic(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = WRITERS[name][0](tmp_path / "tiny.yaml", tmp_path / "nowhere")
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
        ([], "set data.root to the folder of the data; or use synthetic images: --synthetic"),
        (["--synthetic", "data.batch_size=auto"], "data.batch_size: auto is found when a training begins; give a n"),
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


SLOW_READING = {2: 200.0, 4: 205.0}
RATES = {0: 120.0, 1: 110.0, 2: 210.0, 4: 400.0, 8: 520.0}


def diagnosis(
    *overrides: str,
    step: float = 100.0,
    fed: float = 98.0,
    waiting: float = 1.0,
    decoding: float = 5.0,
    validation: float | None = 500.0,
    rates: dict[int, float] | None = None,
    parts: dict[str, float] | None = None,
    **facts: object,
) -> Diagnosis:
    """Of a training that its network limits, with other numbers."""
    results = Results(
        facts={"device": "cpu", "synthetic": False, "loader_rates": RATES if rates is None else rates} | facts
    )
    names = {COPY: 1.0, FORWARD: 30.0, LOSSES: 5.0, BACKWARD: 60.0, UPDATE: 2.0, OVERHEAD: 2.0} | (parts or {})
    results.add("loader", "read and decode", "ms/image", [decoding])
    results.add_parts("step", "ms", {name: [value] for name, value in names.items()})
    results.add("step", "training", "images/s", [step])
    results.add("step", "training with the loader", "images/s", [fed])
    results.add("step", "waiting for the loader", "%", [waiting])
    if validation is not None:
        results.add("validation", "validation, scoring", "images/s", [validation])
    usual = ["data.num_workers=2", "data.batch_size=16", "trainer.precision=auto", "trainer.max_epochs=100"]
    settings = [*usual, "trainer.validate_every=1", *overrides]
    return diagnose(results, load_config(CONFIGS / "yolo_bccd.yaml", settings), num_train=1000, num_val=500)


@pytest.mark.parametrize(
    ("step", "num_workers", "rates", "decoding", "advice"),
    [
        (480.0, 2, RATES, 5.0, "set data.num_workers=8: that gives 520 images/s"),
        (390.0, 2, RATES, 5.0, "set data.num_workers=4: that gives 400 images/s"),  # the smallest that is enough
        (900.0, 2, RATES, 5.0, "set data.num_workers=8: that gives 520 images/s"),  # the fastest
        (100.0, 0, RATES, 5.0, "set data.num_workers=1: that gives 110 images/s"),
        (480.0, 2, SLOW_READING, 5.0, "store the images no larger than data.image_size: reading takes 5 of 10 ms"),
        (480.0, 2, SLOW_READING, 2.0, "take something out of data.augmentation: reading takes only 2 of 10 ms"),
        (480.0, 0, {0: 100.0}, 2.0, "take something out of data.augmentation: reading takes only 2 of 10 ms"),
        (480.0, 2, {}, 2.0, "raise data.num_workers"),
    ],
)
def test_the_loader(step: float, num_workers: int, rates: dict[int, float], decoding: float, advice: str) -> None:
    slow = {OVERHEAD: 90.0}  # the loader goes first
    found = diagnosis(
        f"data.num_workers={num_workers}", step=step, fed=90.0, waiting=55.0, rates=rates, decoding=decoding, parts=slow
    )
    line = f"the loader: the step could take {step:.3g} images/s, gets 90, and waits 55% of the time"
    assert found.bottleneck == line
    assert found.advice.startswith(advice)


def test_validation() -> None:
    found = diagnosis(validation=50.0, fed=100.0, parts={OVERHEAD: 90.0})
    assert found == Diagnosis("validation: it takes 50% of the whole training", "set trainer.validate_every=2")
    assert diagnosis("trainer.validate_every=4", validation=50.0, fed=100.0).bottleneck.startswith("the network")
    assert diagnosis("trainer.max_epochs=1", validation=50.0).bottleneck.startswith("the network")
    assert diagnosis(validation=50.0, synthetic=True).bottleneck.startswith("the network")
    assert diagnosis(validation=None).bottleneck.startswith("the network")


@pytest.mark.parametrize(
    ("part", "ms", "setting"),
    [
        (OVERHEAD, 33.0, "data.batch_size=32"),
        (COPY, 18.0, "data.image_size"),
        (UPDATE, 33.0, "data.batch_size=32"),
        (LOSSES, 45.0, "data.image_size"),
    ],
)
def test_parts_around_the_network(part: str, ms: float, setting: str) -> None:
    found = diagnosis(parts={part: ms})
    assert found.bottleneck.startswith(part)
    assert setting in found.advice
    assert diagnosis(parts={part: 0.6 * ms}).bottleneck.startswith("the network")


def test_the_network() -> None:
    assert diagnosis().bottleneck == "the network: forward and backward are 90% of a step"
    assert "trainer.compile=true" in diagnosis().advice
    assert "data.image_size" in diagnosis("trainer.compile=true").advice


def test_without_steps_there_is_no_diagnosis() -> None:
    assert "step" in diagnose(Results(facts={}), load_config(CONFIGS / "yolo_bccd.yaml"), 1, 1).advice
