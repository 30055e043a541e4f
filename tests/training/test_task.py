"""The task on a detector of one weight, whose steps are computed by hand, and on a real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from detseg.config.schema.experiment import CosineConfig
from detseg.structures import BoxTargets
from detseg.training.task import Task
from tests.training.stub import OneWeight, Validated, batch_of, fit, task_of

pytestmark = pytest.mark.filterwarnings("ignore")
WHITE, BLACK = batch_of(255), batch_of(0)


def weight_of(task: Task) -> float:
    return float(task.model.weight)


def test_the_terms_are_summed_and_one_step_is_taken_a_batch(tmp_path: Path) -> None:
    task = task_of(OneWeight(1.0))
    trainer = fit(task, [WHITE, WHITE], tmp_path)
    assert weight_of(task) == 0.0  # 1 - 0.5 - 0.5
    assert task.average is None
    assert float(trainer.callback_metrics["val/loss"]) == 0.0  # of the model itself
    assert float(trainer.callback_metrics["train/loss_epoch"]) == 0.75  # (1 + 0.5) / 2
    assert float(trainer.callback_metrics["train/first_epoch"]) == 0.375


def test_gradients_are_clipped_to_the_norm_before_the_step(tmp_path: Path) -> None:
    task = task_of(OneWeight(1.0))
    fit(task, [WHITE, WHITE], tmp_path, gradient_clip_val=0.25)
    assert weight_of(task) == pytest.approx(0.75)  # two steps of 0.5 * 0.25


def test_accumulated_gradients_are_averaged_and_the_average_moves_once_a_step(tmp_path: Path) -> None:
    task = task_of(OneWeight(1.0), ema_decay=0.5)
    fit(task, [WHITE, BLACK, WHITE, BLACK], tmp_path, accumulate_grad_batches=2)
    assert weight_of(task) == 0.5  # two steps of 0.5 * (1 + 0) / 2
    assert float(task.evaluated_model.weight) == 0.6875  # 1 -> 0.875 -> 0.6875


def test_the_average_is_validated_and_its_ap_kept_in_full(tmp_path: Path) -> None:
    task = task_of(OneWeight(1.0), ema_decay=0.5)
    trainer = fit(task, [WHITE], tmp_path)
    assert weight_of(task) == 0.5
    assert float(trainer.callback_metrics["val/loss"]) == 0.75
    assert trainer.callback_metrics["val/AP"].dtype == torch.float64
    assert task.result is not None
    assert task.result.coco["AP"] == pytest.approx(1.0)
    assert task.result.coco["AP"] == float(trainer.callback_metrics["val/AP"])


def test_the_rate_follows_the_schedule_step_by_step(tmp_path: Path) -> None:
    task = task_of(OneWeight(4.0), CosineConfig(warmup_epochs=0, final_lr_fraction=0.0))
    fit(task, [WHITE, WHITE, WHITE], tmp_path)
    assert weight_of(task) == pytest.approx(4 - 0.5 * (1 + 0.75 + 0.25))


class Folding(OneWeight):
    """Its validation loss is what normalisation behind a convolution makes of white images."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))

    def losses_and_predictions(self, images: Tensor, targets: list[BoxTargets]) -> Validated:
        return {"norms": self.block(images).sum() * 0 + isinstance(self.block[1], nn.BatchNorm2d)}, self.predict(images)


class Watching(Callback):
    """Notes what a checkpoint that is saved during a validation would hold."""

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        self.state = {name: value.clone() for name, value in pl_module.state_dict().items()}


@pytest.mark.parametrize("ema_decay", [0.0, 0.5])
def test_validation_folds_a_copy_and_leaves_model_and_checkpoint_as_they_are(ema_decay: float, tmp_path: Path) -> None:
    task, watching = task_of(Folding(), ema_decay=ema_decay), Watching()
    trainer = fit(task, [WHITE], tmp_path, callbacks=[watching])
    assert float(trainer.callback_metrics["val/norms"]) == 0
    state = task.state_dict()
    assert list(watching.state) == list(state)
    assert all(torch.equal(watching.state[name], value) for name, value in state.items())
    assert task.evaluated_model is (task.average.model if task.average else task.model)
    assert isinstance(task.evaluated_model.block[1], nn.BatchNorm2d)


def test_draws_follow_from_the_users_seed_and_the_place_in_the_run() -> None:
    def drawn(seed: int, batch_index: int, **settings: Any) -> float:
        torch.manual_seed(seed)
        task = task_of(OneWeight(), **settings).train()
        task.log = lambda *_, **__: None  # type: ignore[method-assign]  # there is no trainer to log to
        torch.rand(5)  # what came before in this process does not matter
        task.training_step(batch_of(100), batch_index)
        return float(torch.rand(1))

    assert drawn(1, 0) == drawn(1, 0)
    assert len({drawn(1, 0), drawn(2, 0), drawn(1, 1)}) == 3
    assert drawn(1, 0, config={"seed": 5}) == drawn(2, 0, config={"seed": 5})
