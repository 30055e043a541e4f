"""Which checkpoints a run leaves; the training is a bare Lightning module whose AP is given."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from detseg.checkpoint import ENTRY, read_raw_checkpoint, save_atomically
from detseg.errors import CheckpointError
from detseg.training.callbacks.checkpoints import AtomicCheckpointIO, BestAndLast
from tests.training.stub import SILENT, OneWeight, batch_of, task_of
from tests.training.stub import fit as fit_stub

pytestmark = pytest.mark.filterwarnings("ignore")


class GivenAp(L.LightningModule):
    """Learns one number, and validates to the AP that is listed for the epoch."""

    def __init__(self, ap: list[float]) -> None:
        super().__init__()
        self.ap = ap
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.epochs: list[int] = []

    def training_step(self, batch: Tensor, batch_index: int) -> Tensor:
        return (self.weight - batch).square().sum()

    def on_train_epoch_start(self) -> None:
        self.epochs.append(self.current_epoch)

    def validation_step(self, batch: Tensor, batch_index: int) -> None:
        self.log("val/AP", self.ap[self.current_epoch])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[ENTRY] = {"format": 1}


def fit(folder: Path, module: GivenAp, max_epochs: int, resume: Path | None = None, **options: Any) -> None:
    """Train on two batches of one number an epoch."""
    loader: DataLoader[Tensor] = DataLoader(torch.ones(2, 1))  # type: ignore[arg-type]  # tensors are data sets
    files = AtomicCheckpointIO()
    options |= SILENT | {"enable_checkpointing": True, "num_sanity_val_steps": 0, "plugins": [files]}
    saver = BestAndLast(folder, "val/AP", files)
    trainer = L.Trainer(accelerator="cpu", max_epochs=max_epochs, callbacks=[saver], **options)
    trainer.fit(module, loader, loader, ckpt_path=None if resume is None else str(resume))
    files.flush()


def epoch_of(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["epoch"])


@pytest.mark.parametrize(
    ("ap", "every", "best"),
    [
        ([0.1, 0.5, 0.3, 0.2], 1, 1),
        ([0.1, 0.5, 0.3], 2, 1),  # the other epochs are saved without a validation
        ([0.0, 0.5, 0.5], 1, 1),  # of equal epochs the first
        ([float("nan")] * 3, 1, 2),  # not defined: the newest
    ],
)
def test_best_has_the_best_ap_and_last_is_the_last(ap: list[float], every: int, best: int, tmp_path: Path) -> None:
    fit(tmp_path, GivenAp(ap), max_epochs=len(ap), check_val_every_n_epoch=every)
    assert {path.name: epoch_of(path) for path in tmp_path.iterdir()} == {
        "best.ckpt": best,
        "previous.ckpt": len(ap) - 2,
        "last.ckpt": len(ap) - 1,
    }


@pytest.mark.parametrize(("folder", "best"), [("old", 0), ("renamed", 0), ("another", 2)])
def test_a_resumed_run_keeps_its_best_epoch_where_its_file_is(folder: str, best: int, tmp_path: Path) -> None:
    fit(tmp_path / "old", GivenAp([0.5, 0.3]), max_epochs=2)
    if folder == "renamed":
        (tmp_path / "old").rename(tmp_path / folder)
    last = tmp_path / ("old" if folder == "another" else folder) / "last.ckpt"
    resumed = GivenAp([0.5, 0.3, 0.2, 0.1])
    fit(tmp_path / folder, resumed, max_epochs=4, resume=last)
    assert resumed.epochs == [2, 3]
    assert epoch_of(tmp_path / folder / "best.ckpt") == best
    assert epoch_of(tmp_path / folder / "last.ckpt") == 3


def test_a_run_killed_between_two_files_finds_its_best_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, replace = [], os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (written.append(Path(new).name), replace(old, new)))
    fit(tmp_path, GivenAp([0.1, 0.5]), max_epochs=2)
    # last.ckpt, from which the run resumes, must not know of a best epoch that best.ckpt does not hold.
    assert written == ["best.ckpt", "last.ckpt", "best.ckpt", "previous.ckpt", "last.ckpt"]
    assert (tmp_path / "best.ckpt").read_bytes() == (tmp_path / "last.ckpt").read_bytes()


def contents(value: float) -> dict[str, Any]:
    return {ENTRY: {"format": 1}, "weight": torch.full((3,), value)}


def test_training_continues_while_a_file_is_written_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, began = threading.Event(), threading.Event()

    def slow(content: Any, path: Path, **options: Any) -> None:
        began.set()
        assert disk.wait(timeout=30)
        save_atomically(content, path, **options)

    monkeypatch.setattr("detseg.training.callbacks.checkpoints.save_atomically", slow)
    files, content = AtomicCheckpointIO(), contents(1.0)
    files.save_checkpoint(content, tmp_path / "last.ckpt")
    assert began.wait(timeout=30)
    content["weight"].fill_(2.0)  # the next step
    files.raise_failure()  # nothing is known yet, and nothing is waited for
    assert not (tmp_path / "last.ckpt").exists()
    disk.set()
    files.flush()
    assert read_raw_checkpoint(tmp_path / "last.ckpt")["weight"].tolist() == [1.0] * 3
    files.close()


def test_a_full_disk_stops_the_run_and_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(tmp_path, GivenAp([0.5, 0.3]), max_epochs=2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(content: Any, file: Any) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    refused = r"could not be written \(.*No space left on device; \d+ MB are free there\)"
    with pytest.raises(CheckpointError, match=rf"last\.ckpt: {refused}; the previous file is untouched"):
        fit(tmp_path, GivenAp([0.5, 0.3, 0.6, 0.7]), max_epochs=4, resume=tmp_path / "last.ckpt")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_middle_of_an_epoch_needs_a_loader_that_can_go_on_there(tmp_path: Path) -> None:
    task = task_of(OneWeight())
    task.run_state.resumed_at = {"epoch": 0, "batch": 1}
    with pytest.raises(CheckpointError, match="is from the middle of an epoch, where only a loader of"):
        fit_stub(task, [batch_of(255)], tmp_path)
