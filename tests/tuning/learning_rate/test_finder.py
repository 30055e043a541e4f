"""The range test: its steps against a simulation by hand, what it leaves as it was, its command."""

from __future__ import annotations

import copy
import csv
import gc
import multiprocessing
import random
import re
import signal
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import detseg
from detseg.cli import main
from detseg.cli.find_lr import find_lr as tool
from detseg.models.interface import LossTerms
from detseg.training.seeding import seed_generators
from tests.cli.mistakes import said
from tests.test_python_api import Halves
from tests.tiny import TinyRun, write_colors, write_config, write_segmentation_config

pytestmark = pytest.mark.filterwarnings("ignore")

PLAIN_SGD = {"optimizer": {"name": "sgd", "momentum": 0.0, "weight_decay": 0.0}, "trainer.accelerator": "cpu"}


class Parabola(nn.Module):
    """Its loss is the square of a weight of its head and of its backbone, whatever the images."""

    stride = 1
    batches = 0

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(1, 1, 1, bias=False)
        self.head = nn.Parameter(torch.ones(1))
        nn.init.ones_(self.backbone.weight)

    def total(self) -> Tensor:
        return self.head.square().sum() + self.backbone.weight.square().sum()

    def losses(self, images: Tensor, semantic: Tensor) -> LossTerms:
        type(self).batches += 1
        return {"square": self.total()}

    def predict(self, images: Tensor) -> Tensor:
        return images.new_zeros(len(images), 2, *images.shape[-2:])

    def losses_and_predictions(self, images: Tensor, semantic: Tensor) -> tuple[LossTerms, Tensor]:
        return self.losses(images, semantic), self.predict(images)


def find(model: nn.Module, settings: dict[str, Any] | None = None, **options: Any) -> detseg.LrCurve:
    settings = PLAIN_SGD | (settings or {})
    options = {"image_size": 32, "batch_size": 2, "num_workers": 0} | options
    return detseg.find_lr(model, Halves(), Halves(), settings=settings, **options)


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_steps_are_those_of_gradient_descent_with_rising_rates(scale: float) -> None:
    """A step at the rate r takes a weight w to w - 2 r w; the backbone's rate is a multiple of r."""
    found = find(Parabola(), {"optimizer.backbone_lr_scale": scale}, min_lr=1e-4, max_lr=10.0, num_steps=60)
    rates, head, backbone, losses = np.geomspace(1e-4, 10, 60), 1.0, 1.0, []
    for rate in rates:
        losses.append(head**2 + backbone**2)
        head, backbone = head * (1 - 2 * rate), backbone * (1 - 2 * scale * rate)
    number = len(found.losses)
    np.testing.assert_array_equal(found.rates, rates[:number])
    np.testing.assert_allclose(found.losses, losses[:number], rtol=1e-4, atol=1e-12)
    assert found.stopped is not None
    assert found.stopped.startswith("the loss diverges at a rate of")
    assert 0.5 < found.rates[-1] < 10


@pytest.mark.parametrize(
    ("settings", "batches"),
    [({}, 1), ({"trainer.accumulate_grad_batches": 3}, 3), ({"trainer.devices": 2, "trainer.num_nodes": 2}, 4)],
)
def test_a_step_has_as_many_batches_as_in_the_training(settings: dict[str, int], batches: int) -> None:
    Parabola.batches = 0
    found = find(Parabola(), settings, min_lr=1e-4, max_lr=0.4, num_steps=20)
    assert found.stopped is None
    assert (len(found.losses), Parabola.batches) == (20, 20 * batches)
    np.testing.assert_allclose(found.losses[0], 2)


def at_zero(model: Parabola) -> Parabola:
    """The model at its lowest loss."""
    nn.init.zeros_(model.head)
    nn.init.zeros_(model.backbone.weight)
    return model


class Breaks(Parabola):
    """Its loss is the logarithm of what is negative once the weights have changed much."""

    def losses(self, images: Tensor, semantic: Tensor) -> LossTerms:
        return {"square": self.total() + 0 * (self.total() - 0.5).log()}


def test_a_loss_that_is_not_finite_ends_the_test() -> None:
    found = find(Breaks())
    assert np.isfinite(found.losses).all()
    assert re.fullmatch(r"the loss is nan at a rate of 0\.\d+", found.stopped or "")
    with pytest.raises(detseg.DetsegError, match=r"^the loss of the first batch is nan; detseg train says what"):
        find(at_zero(Breaks()))


def test_a_loss_that_does_not_fall_suggests_nothing() -> None:
    verdict = find(at_zero(Parabola()), num_steps=20).verdict
    assert verdict.startswith("no suggestion: the loss does not fall clearly (from 0 to 0, ")


def draws() -> tuple[float, float, float]:
    """The next number of each global generator."""
    return random.random(), float(np.random.rand()), float(torch.rand(1))  # noqa: NPY002  # the global one is meant


def test_the_model_is_as_before() -> None:
    model: Any = detseg.build_model(
        "unet", Halves.classes, "unet", settings={"backbone.width": 0.125, "backbone.levels": 2}
    )
    model.backbone.eval()
    next(model.parameters()).requires_grad_(False)
    before = copy.deepcopy(model)
    find(model, {"optimizer": {"name": "adamw"}}, num_steps=20)
    assert [module.training for module in model.modules()] == [module.training for module in before.modules()]
    for (name, value), old in zip(model.state_dict().items(), before.state_dict().values(), strict=True):
        assert torch.equal(value, old), name
        assert value.stride() == old.stride()
    for parameter, old in zip(model.parameters(), before.parameters(), strict=True):
        assert parameter.requires_grad is old.requires_grad
        assert parameter.grad is None


@pytest.mark.parametrize("fails", [False, True])
def test_the_process_is_as_before(fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    folder = tempfile.TemporaryDirectory(prefix="lr-")  # loader processes want a short name
    monkeypatch.setattr(tempfile, "tempdir", folder.name)
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    model = at_zero(Breaks()) if fails else Parabola()
    seed_generators(1)
    expected = draws()
    seed_generators(1)
    with pytest.raises(detseg.DetsegError) if fails else nullcontext():
        find(model, num_steps=20, num_workers=1)
    assert draws() == expected
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    assert list((tmp_path / "here").iterdir()) == list(Path(folder.name).glob("detseg*")) == []
    gc.collect()  # the error is gone, and with it what held the loader
    assert multiprocessing.active_children() == []
    folder.cleanup()


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    write_segmentation_config(Path("tiny.yaml"), write_colors(Path("data")))
    Path("found").mkdir()
    Path("found/lr.svg").write_text("of an earlier test")
    assert main(["find-lr", "tiny.yaml", "data.batch_size=4", "--steps", "40", "--out", "found/lr.svg"]) == 0
    *lines, verdict, command = capsys.readouterr().out.splitlines()
    assert "replaced: found/lr.svg, found/lr_losses.csv" in lines
    suggested = re.match(
        r"suggested optimizer\.lr=(\S+) \(now 0\.0\d+\): a twentieth of the rate where the loss is lowest, ", verdict
    )
    assert suggested
    assert suggested[0] in Path("found/lr.svg").read_text(encoding="utf-8")
    with Path("found/lr_losses.csv").open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) <= 40
    assert command == f"train with it: detseg train tiny.yaml data.batch_size=4 optimizer.lr={suggested[1]}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "found", "tiny.yaml"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--min", "0"], "the rates to test: expected 0 < min < max, got 0.0 and 1.0"),
        (["--min", "2"], "the rates to test: expected 0 < min < max, got 2.0 and 1.0"),
        (["--max", "inf"], "the rates to test: expected 0 < min < max, got 1e-06 and inf"),
        (["--max", "much"], "argument --max: invalid float value: 'much'; see detseg find-lr --help"),
        (["--steps", "5"], "steps of the test: expected a whole number from 20 to 5000, got 5"),
        (["--out", "lr.png"], "--out lr.png: expected the name of an SVG file, such as find_lr.svg"),
        (["--out", "tiny.yaml/lr.svg"], "--out: tiny.yaml: tiny.yaml is no folder that you may write into; choose"),
        (["--out", "nowhere/lr.svg"], "nowhere/lr.svg: lies in the data, nowhere: choose a place beside it"),
        (["data.root=none"], "none: there is no such folder; set data.root to the folder of the data"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_config(Path("tiny.yaml"), Path("nowhere"))
    code, told = said(tool, ["tiny.yaml", *arguments], capsys)
    assert (code, told.count("\n")) == (2, 1)
    assert line in told
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


@pytest.mark.parametrize(("name", "value"), [("min_lr", "0.1"), ("max_lr", None), ("num_steps", 20.5)])
def test_arguments_of_a_wrong_type_are_one_line(name: str, value: Any) -> None:
    with pytest.raises(detseg.ConfigError, match=r"^(the rates to|steps of the) test: expected "):
        find(Parabola(), **{name: value})


def test_the_batch_is_a_number(tiny_run: TinyRun) -> None:
    with pytest.raises(detseg.ConfigError, match=r"^data\.batch_size: auto is found when a training begins; give a n"):
        detseg.find_lr(tiny_run.config_path, settings={"data.batch_size": "auto"})
