"""Runs whose loss is no number because of one known sample: what they say, and what the replay of the step finds."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from detseg.checkpoint import read_raw_checkpoint
from detseg.cli import replay as tool
from detseg.errors import DataError
from detseg.experiment import train
from detseg.experiment.replay import Replay, replay
from detseg.models.necks import FPN
from detseg.models.rcnn.detector import RCNNDetector
from detseg.models.yolo.detector import YoloDetector
from detseg.training.nan_bundle import read_bundle
from tests.broken_runs import (
    ODD_ONE,
    WHOLE,
    BrokenRun,
    bad_slope,
    batches_seen,
    break_losses,
    broken_run,
    broken_yolo,
    content,
    edit_json,
    one_yellow,
)
from tests.tiny import (
    tiny_config,
    write_colors,
    write_config,
    write_ellipses,
    write_instance_config,
    write_segmentation_config,
)

pytestmark = pytest.mark.filterwarnings("ignore")


def printed(bundle: Path) -> tuple[Replay, str]:
    """The result of a replay, and what it printed."""
    console = Console(record=True, width=400, file=StringIO(), markup=False)
    return replay(bundle, console=console), console.export_text()


@pytest.fixture(scope="module")
def nan_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokenRun]:
    """A YOLO whose box term is NaN in the second epoch; it stays broken."""
    folder = tmp_path_factory.mktemp("nan")
    with pytest.MonkeyPatch.context() as patch:
        yield broken_yolo(folder, patch)


@pytest.fixture
def copied(nan_run: BrokenRun, tmp_path: Path) -> Path:
    """A copy of its bundle."""
    return Path(shutil.copytree(nan_run.bundle, tmp_path / "bundle"))


def faults(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("at fault")]


def test_the_run_names_the_step_the_term_and_the_samples(nan_run: BrokenRun) -> None:
    bundle, _ = read_bundle(nan_run.bundle)
    (batch,) = bundle.batches
    ids = ", ".join(f"{index} (train{index:02d}.png)" for index in batch.indices)
    assert ODD_ONE in batch.indices
    assert nan_run.message.startswith(f"epoch 2, step {bundle.step}: the loss is not finite (box nan, class ")
    assert f"; samples {ids}; gradient not finite in " in nan_run.message
    assert f"; python tools/replay.py {nan_run.bundle} finds the sample; " in nan_run.message
    assert nan_run.bundle.name == f"nan_epoch002_step{bundle.step:05d}"
    assert len(nan_run.message.splitlines()) == 1


def test_the_checkpoint_is_that_of_the_last_good_epoch(nan_run: BrokenRun) -> None:
    saved = read_raw_checkpoint(nan_run.run_dir / "checkpoints" / "last.ckpt")
    assert saved["global_step"] == 8
    assert all(bool(value.isfinite().all()) for value in saved["state_dict"].values())


def test_the_replay_has_the_recorded_numbers_and_finds_sample_and_term(nan_run: BrokenRun) -> None:
    result, text = printed(nan_run.bundle)
    (recorded,) = read_bundle(nan_run.bundle)[0].batches
    assert result.as_recorded
    assert str(recorded.terms["box"]) == str(result.batches[0].terms["box"]) == "nan"
    assert recorded.terms["class"] == result.batches[0].terms["class"]
    assert [(sample.index, Path(str(sample.path)).name) for sample in result.faulty] == [(ODD_ONE, "train05.png")]
    assert sorted(sample.index for sample in result.samples) == sorted(recorded.indices)
    (line,) = faults(text)
    assert line.startswith(f"at fault: sample {ODD_ONE} (")
    assert "train05.png): box nan, class" in line
    assert "all modules' outputs are finite, the loss is not" in line
    (picture,) = result.pictures
    assert picture.parent == nan_run.bundle
    with Image.open(picture) as image:
        assert image.size == (64, 64)


def test_the_tool_finds_data_that_was_moved(nan_run: BrokenRun, copied: Path, tmp_path: Path, capsys: Any) -> None:
    moved = shutil.copytree(nan_run.run_dir.parent / "colors", tmp_path / "moved")
    config = content(copied)["config"]
    edit_json(copied, config=config | {"data": config["data"] | {"root": "gone"}})
    with pytest.raises(
        DataError, match=r"^gone: there is no such folder; set data\.root to the folder of the VOC data$"
    ):
        tool.main([str(copied)])
    tool.main([str(copied), f"data.root={moved}"])
    out = capsys.readouterr().out
    assert ", as recorded\n" in out
    assert f"at fault: sample {ODD_ONE} (" in out


def test_samples_that_are_bad_only_together(nan_run: BrokenRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def together(model: nn.Module, terms: dict[str, Tensor], targets: Any) -> None:
        terms["class"] = terms["class"] * (float("inf") if len(targets) > 1 else 1)

    break_losses(monkeypatch, YoloDetector, together)
    result, text = printed(nan_run.bundle)
    assert result.faulty == []
    assert not result.as_recorded
    assert "not the recorded numbers: the images or annotations may have been changed" in text
    assert faults(text)[0].startswith("at fault: no sample alone, only together: class inf, ")


def test_a_step_that_is_finite_here(nan_run: BrokenRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(YoloDetector, "losses", WHOLE[YoloDetector])
    result, text = printed(nan_run.bundle)
    assert faults(text) == ["at fault: nothing; here, all terms and gradients are finite"]
    norms = [sample.outcome.norm for sample in result.samples]
    assert f"largest first: {result.samples[norms.index(max(norms))].index} {max(norms):.4g}, " in text


def test_the_first_module_whose_output_is_not_finite(nan_run: BrokenRun, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = FPN.forward
    monkeypatch.setattr(FPN, "forward", lambda self, maps: [m / 0 for m in whole(self, maps)])
    result, text = printed(nan_run.bundle)
    assert len(result.faulty) == 2
    assert all("; first module whose output is not finite: neck; " in line for line in faults(text))


def test_weights_that_were_bad_before_the_step(copied: Path) -> None:
    tensors = load_file(copied / "weights.safetensors")
    tensors["model.backbone.stem.0.weight"][0] = float("inf")
    save_file(tensors, copied / "weights.safetensors")
    _, text = printed(copied)
    assert "1 weights were not finite before the step, first backbone.stem.0.weight: no sample is to blame" in text


def test_an_infinite_slope_in_accumulated_batches_of_bfloat16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_losses(monkeypatch, YoloDetector, bad_slope)
    options = (
        "trainer.accumulate_grad_batches=4",
        "trainer.precision=bfloat16",
        "data.augmentation.multi_scale=[0.5,1.5]",
    )
    run = broken_run(tmp_path, write_config, one_yellow(tmp_path / "colors"), *options)
    assert re.match(r"epoch 1, step [12]: the gradient is not finite \(box \d", run.message)
    assert ", ... (" not in run.message  # eight samples are named
    result, text = printed(run.bundle)
    assert result.as_recorded
    assert len(result.batches) == 4
    assert [sample.index for sample in result.faulty] == [ODD_ONE]
    assert result.faulty[0].outcome.bad_slopes == ["root"]
    assert f"train{ODD_ONE:02d}.png): the slope of root; gradient not finite in 1 of " in faults(text)[0]
    assert "recorded in bf16-mixed on cpu" in text


def test_a_rate_that_is_far_too_high_is_no_samples_fault(tmp_path: Path) -> None:
    options = ("optimizer.name=sgd", "optimizer.lr=1e18", "schedule.warmup_epochs=0", "trainer.gradient_clip_norm=0")
    run = broken_run(tmp_path, write_segmentation_config, write_colors(tmp_path / "colors"), *options)
    result, text = printed(run.bundle)
    assert result.as_recorded
    assert len(result.faulty) == len(result.samples)
    assert "all of the samples are: it is not the data; lower optimizer.lr" in text
    assert run.message.endswith("if no sample is at fault, lower optimizer.lr, or set trainer.precision=float32")


def test_what_a_mask_rcnn_draws_at_random_is_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bad_mask(model: nn.Module, terms: dict[str, Tensor], targets: Any) -> None:
        if batches_seen(model) == 15:
            terms["mask"] = terms["mask"] / 0

    break_losses(monkeypatch, RCNNDetector, bad_mask)
    run = broken_run(tmp_path, write_instance_config, write_ellipses(tmp_path / "ellipses"))
    assert run.message.startswith("epoch 2, step 15: the loss is not finite (mask inf, ")
    result, _ = printed(run.bundle)
    assert result.as_recorded
    assert result.batches[0].terms["mask"] == float("inf")


def test_a_run_that_skips_goes_on_and_leaves_its_bundles(
    nan_run: BrokenRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config_path = nan_run.run_dir.parent / "tiny.yaml"
    config = tiny_config(config_path, tmp_path / "run", "trainer.max_epochs=3", "trainer.on_nan=skip")
    train(config, config_path)
    bundles = sorted(path.name for path in (tmp_path / "run").glob("nan_*"))
    assert [name[:12] for name in bundles] == ["nan_epoch002", "nan_epoch003"]
    out = capsys.readouterr().out
    assert out.count(": skipped (1 of at most 10): the loss is not finite (box nan") == 1
    assert out.count(": skipped (2 of at most 10): the loss is not finite (box nan") == 1
    saved = read_raw_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert all(bool(value.isfinite().all()) for value in saved["state_dict"].values())
    assert saved["detseg"]["skipped_steps"] == 2
    assert "nan" not in (tmp_path / "run" / "metrics.csv").read_text()  # the means are of the steps that were made
