"""The sheets of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lightning as L
import pytest
import torch

from detseg.structures import BoxTargets, ClassTable
from detseg.tasks import Detection
from detseg.training.callbacks import run_files
from detseg.training.callbacks.run_files import SampleImages
from detseg.training.task import Task
from tests.training.stub import OneWeight, batch_of


@pytest.mark.parametrize(("num", "named"), [(3, ["0", "1", "2"]), (40, ["2", "35"])])
def test_of_many_classes_those_that_are_there_are_in_the_legend(
    num: int, named: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    legends: list[list[str]] = []
    whole = run_files.contact_sheet

    def sheet(images: Any, columns: int, titles: Any, legend: Any) -> Any:
        legends.append([name for name, _, _ in legend])
        return whole(images, columns, titles, legend)

    monkeypatch.setattr(run_files, "contact_sheet", sheet)
    boxes = torch.tensor([[1.0, 1, 6, 6]] * 2)
    targets = [BoxTargets(boxes, torch.tensor([2, min(35, num - 1)]), torch.zeros(2, dtype=torch.bool))]
    task = Task(Detection(), OneWeight(), ClassTable(tuple(map(str, range(num)))))
    trainer = cast(L.Trainer, SimpleNamespace(is_global_zero=True, loggers=[], global_step=0))
    SampleImages(tmp_path, 1).on_train_batch_start(trainer, task, replace(batch_of(90), targets=targets), 0)
    assert legends == [named]
