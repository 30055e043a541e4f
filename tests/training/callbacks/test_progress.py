"""What is printed of an epoch."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from detseg.training.callbacks.progress import EpochLines, ValidateLastEpoch
from tests.heard import heard
from tests.training.stub import OneWeight, batch_of, fit, task_of


@pytest.mark.filterwarnings("ignore")
def test_a_line_an_epoch_with_a_validation_where_there_was_one(tmp_path: Path) -> None:
    """The weight falls from 9 by 0.5 a step, two steps an epoch; validated are the second epoch and the last."""
    callbacks = [EpochLines(), ValidateLastEpoch()]
    batches = [batch_of(255), batch_of(255)]
    with heard() as lines:
        fit(task_of(OneWeight(9.0)), batches, tmp_path, max_epochs=3, callbacks=callbacks, check_val_every_n_epoch=2)
    shown = [re.sub(r"  [\d.]+ img/s  left \d:\d\d:\d\d$", "", line) for line in lines]
    assert shown == [
        "epoch 1/3  loss 8.750  lr 5.00e-01",
        "epoch 2/3  loss 7.750  val loss 7.000  AP50 1.000  AP 1.000  lr 5.00e-01",
        "epoch 3/3  loss 6.750  val loss 6.000  AP50 1.000  AP 1.000  lr 5.00e-01",
    ]
    assert shown != lines
