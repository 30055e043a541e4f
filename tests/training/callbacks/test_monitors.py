"""What trackers get of a network and of a validation, against what is computed by hand."""

from __future__ import annotations

import logging
import math
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn

from detseg.config.schema.experiment import CosineConfig
from detseg.training.callbacks.monitors import EpochNumbers, StepMonitors, class_keys, parts_of
from tests.training.stub import SILENT, OneWeight, batch_of, loader_of, task_of

ALL = ("gradient_norm", "update_ratio", "dead_activations")


class Notebook(Logger):
    """A logger that keeps what it is told: step → name → number."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: dict[int, dict[str, float]] = {}

    @property
    def name(self) -> str:
        return "notebook"

    @property
    def version(self) -> str:
        return "0"

    def log_hyperparams(self, *arguments: Any, **options: Any) -> None:
        raise AssertionError

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        assert step is not None
        self.pages.setdefault(step, {}).update(metrics)


def fit(
    model: nn.Module, num_steps: int, monitors: StepMonitors, accumulate: int = 1, **of_task: Any
) -> dict[int, dict[str, float]]:
    notebook, task = Notebook(), task_of(model, **of_task)
    options = SILENT | {"logger": [notebook], "log_every_n_steps": 1}
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", accumulate_grad_batches=accumulate, callbacks=[monitors], **options
    )
    trainer.fit(task, loader_of([batch_of(51) for _ in range(num_steps * accumulate)]))
    return {step: page for step, page in notebook.pages.items() if "lr" in page}


def test_the_first_step_and_every_third_by_hand() -> None:
    """The gradient is 0.2 in each step, the rate 0.5: the weight is 1, 0.9, 0.8, ..."""
    steps = fit(OneWeight(1.0), 7, StepMonitors(3, ALL))
    assert list(steps) == [1, 3, 6]
    for step, page in steps.items():
        weight = 1 - 0.1 * (step - 1)
        assert page["train/loss_step"] == pytest.approx(weight * 0.2, rel=1e-5)
        assert (page["lr"], page["gradient_norm"]) == pytest.approx((0.5, 0.2))
        assert page["update_ratio/other"] == pytest.approx(0.1 / weight, rel=1e-5)
    assert not any(name.startswith("dead") for name in steps[1])  # there is no activation


def test_the_rate_is_that_of_the_step() -> None:
    """Of a rate that falls: what it moves the weight by is seen in the next step's loss, 0.2 times the weight."""
    steps = fit(OneWeight(1.0), 4, StepMonitors(1, ()), schedule=CosineConfig(warmup_epochs=0, final_lr_fraction=0.1))
    weights = [page["train/loss_step"] / 0.2 for page in steps.values()]
    for (step, page), before, after in zip(steps.items(), weights, weights[1:], strict=False):
        assert page["lr"] * 0.2 == pytest.approx(before - after, rel=1e-4), step
    assert steps[1]["lr"] == 0.5


def test_without_diagnostics_losses_and_rates_are_left() -> None:
    assert fit(OneWeight(1.0), 1, StepMonitors(1, ()))[1].keys() == {
        "lr",
        "train/loss_step",
        "train/first_step",
        "train/second_step",
    }


def test_accumulated_batches_are_one_step() -> None:
    steps = fit(OneWeight(1.0), 2, StepMonitors(1, ALL), accumulate=3)
    assert list(steps) == [1, 2]
    assert steps[2]["update_ratio/other"] == pytest.approx(0.1 / 0.9, rel=1e-5)


class HalfDead(OneWeight):
    """Of four channels, one is negative everywhere and one is zero; a second part has no dead one."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(nn.ReLU()), nn.SiLU()

    def forward(self, images: Tensor) -> list[Tensor]:
        signs = torch.tensor([1.0, -1.0, 0.0, 2.0])
        live = self.body(images.mean() * signs.reshape(1, 4, 1, 1).expand(2, 4, 3, 3))
        return [self.weight * self.head(live + 1).sum() * 0 + super().forward(images)[0]]


def test_the_fraction_of_dead_channels_of_each_part() -> None:
    page = fit(HalfDead(), 1, StepMonitors(5, ALL))[1]
    assert (page["dead_activations/body"], page["dead_activations/head"]) == (0.5, 0.0)


def test_a_part_without_activations_that_are_looked_at_is_named(caplog: pytest.LogCaptureFixture) -> None:
    model = HalfDead()
    model.head = nn.Sequential(nn.Linear(1, 1), nn.GELU())  # type: ignore[assignment]  # of another kind
    model.forward = OneWeight.forward.__get__(model)  # type: ignore[method-assign]  # without the parts
    with caplog.at_level(logging.INFO, "detseg"):
        fit(model, 1, StepMonitors(1, ALL))
    (line,) = caplog.messages
    assert line.startswith("trainer.diagnostics: no dead_activations of head, which has none of ReLU, ReLU6, ")


def test_no_hook_stays() -> None:
    model = HalfDead()
    fit(model, 2, StepMonitors(1, ALL))
    assert not any(module._forward_hooks for module in model.modules())


def test_parts_are_children_and_the_stages_of_a_backbone() -> None:
    model, backbone = nn.Module(), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    backbone.stage_parameters = lambda: [list(backbone[0].parameters()), []]  # type: ignore[assignment]  # as a backbone has it
    model.backbone, model.head = backbone, nn.Linear(2, 1)
    backbone[0].bias.requires_grad_(False)
    assert {name: len(parameters) for name, parameters in parts_of(model).items()} == {
        "backbone.stage1": 1,
        "backbone": 2,
        "head": 2,
    }


def test_each_class_of_a_validation_is_written_and_shown(caplog: pytest.LogCaptureFixture) -> None:
    notebook, options = Notebook(), SILENT | {"log_every_n_steps": 1}
    callbacks = [EpochNumbers(table=True)]
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", callbacks=callbacks, **options | {"logger": [notebook]})
    with caplog.at_level(logging.INFO, "detseg"):
        trainer.fit(task_of(OneWeight()), loader_of([batch_of(90)]), loader_of([batch_of(90)]))
    page = notebook.pages[1]
    assert (page["val_by_class/AP/a"], page["val_by_class/F1/a"], page["val/AR_1"]) == pytest.approx((1, 1, 1))
    assert math.isnan(page["val_by_class/AP/b"])
    rows = [record.getMessage().split() for record in caplog.records]
    assert ["a", "1", "1", *["1.000"] * 7, "0.500"] in rows
    assert ["b", "0", "0", *["-"] * 8] in rows


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (("cat", "dog"), ["cat", "dog"]),
        (("a b", "naïve", "猫", "a.b_c-d"), ["a b", "naïve", "猫", "a.b_c-d"]),
        (("0_a_b", "a/b"), ["0_0_a_b", "1_a_b"]),
        (("a", ".."), ["0_a", "1_.."]),
    ],
)
def test_where_one_class_name_cannot_stay_all_get_their_label(names: tuple[str, ...], keys: list[str]) -> None:
    assert class_keys(names) == keys
