"""Which checkpoints a run leaves; the training is a bare Lightning module whose AP is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from detseg.training.checkpoints import AtomicCheckpointIO, BestAndLast


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


def fit(folder: Path, module: GivenAp, max_epochs: int, resume: Path | None = None, **options: Any) -> None:
    """Train on two batches of one number an epoch."""
    loader: DataLoader[Tensor] = DataLoader(torch.ones(2, 1))  # type: ignore[arg-type]  # tensors are data sets
    files = AtomicCheckpointIO()
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=max_epochs,
        callbacks=[BestAndLast(folder, "val/AP", files)],
        plugins=[files],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    trainer.fit(module, loader, loader, ckpt_path=None if resume is None else str(resume))
    files.flush()


def epoch_of(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["epoch"])


@pytest.mark.filterwarnings("ignore")
def test_best_is_the_epoch_of_the_best_ap_and_last_is_the_last_epoch(tmp_path: Path) -> None:
    fit(tmp_path, GivenAp([0.1, 0.5, 0.3, 0.2]), max_epochs=4)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best.ckpt",
        "last.ckpt",
        "previous.ckpt",
    ]
    assert epoch_of(tmp_path / "best.ckpt") == 1
    assert epoch_of(tmp_path / "previous.ckpt") == 2
    assert epoch_of(tmp_path / "last.ckpt") == 3


@pytest.mark.filterwarnings("ignore")
def test_epochs_without_a_validation_are_kept_as_well(tmp_path: Path) -> None:
    fit(tmp_path, GivenAp([0.1, 0.5, 0.3]), max_epochs=3, check_val_every_n_epoch=2)
    assert epoch_of(tmp_path / "best.ckpt") == 1
    assert epoch_of(tmp_path / "last.ckpt") == 2


@pytest.mark.filterwarnings("ignore")
def test_resuming_at_last_trains_the_epochs_that_are_left_and_keeps_the_best(tmp_path: Path) -> None:
    fit(tmp_path, GivenAp([0.5, 0.3]), max_epochs=2)
    resumed = GivenAp([0.5, 0.3, 0.2, 0.4])
    fit(tmp_path, resumed, max_epochs=4, resume=tmp_path / "last.ckpt")
    assert resumed.epochs == [2, 3]
    assert epoch_of(tmp_path / "best.ckpt") == 0
    assert epoch_of(tmp_path / "last.ckpt") == 3


@pytest.mark.filterwarnings("ignore")
def test_a_run_that_was_moved_keeps_its_best(tmp_path: Path) -> None:
    fit(tmp_path / "old", GivenAp([0.5, 0.3]), max_epochs=2)
    (tmp_path / "old").rename(tmp_path / "new")
    fit(tmp_path / "new", GivenAp([0.5, 0.3, 0.4]), max_epochs=3, resume=tmp_path / "new" / "last.ckpt")
    assert epoch_of(tmp_path / "new" / "best.ckpt") == 0


@pytest.mark.filterwarnings("ignore")
def test_a_run_that_goes_on_in_another_folder_gets_a_best_there(tmp_path: Path) -> None:
    fit(tmp_path / "old", GivenAp([0.5, 0.3]), max_epochs=2)
    fit(tmp_path / "new", GivenAp([0.5, 0.3, 0.2, 0.1]), max_epochs=4, resume=tmp_path / "old" / "last.ckpt")
    assert epoch_of(tmp_path / "new" / "best.ckpt") == 2


@pytest.mark.filterwarnings("ignore")
def test_where_no_ap_is_defined_the_newest_epoch_is_the_best(tmp_path: Path) -> None:
    fit(tmp_path, GivenAp([float("nan")] * 3), max_epochs=3)
    assert epoch_of(tmp_path / "best.ckpt") == 2


@pytest.mark.filterwarnings("ignore")
def test_of_equal_epochs_the_first_is_the_best(tmp_path: Path) -> None:
    fit(tmp_path, GivenAp([0.0, 0.5, 0.5]), max_epochs=3)
    assert epoch_of(tmp_path / "best.ckpt") == 1


def test_a_run_killed_between_the_two_files_finds_its_best_epoch_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr(L.Trainer, "save_checkpoint", lambda self, path: written.append(Path(path).name))
    keeper = BestAndLast(tmp_path, "val/AP")
    keeper._new = 0.5
    keeper.on_train_epoch_end(L.Trainer(accelerator="cpu", devices=1, logger=False), L.LightningModule())
    # last.ckpt, from which the run resumes, must not know of a best epoch that best.ckpt does not hold.
    assert written == ["best.ckpt", "last.ckpt"]
