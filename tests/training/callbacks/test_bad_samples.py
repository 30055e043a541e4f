"""One list of bad samples, over real processes, and in checkpoints."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch.distributed as dist

from detseg.data.datasets.bad_samples import BadSample, BadSampleList
from detseg.errors import DataError
from detseg.training.callbacks.bad_samples import BadSampleLog, share
from detseg.training.distributed import Processes
from tests.forked import run_together


def sample(index: int) -> BadSample:
    return BadSample(index, f"{index}.jpg", "cut short")


def meet_and_share(folder: Path) -> dict[str, Any]:
    """Two processes that have met samples of their own and one that both have met; then one too many."""
    dist.init_process_group("gloo")
    processes = Processes()
    rank = processes.rank
    bad = BadSampleList(10, 0.4, folder / ("bad_samples.csv" if rank == 0 else f"bad_samples.rank{rank}.csv"))
    bad.add([sample(5), sample(rank)])
    processes.any(True)  # both have written by now
    before = sorted(path.name for path in folder.iterdir())
    processes.any(True)
    share(bad, processes)
    processes.any(True)
    after = sorted(path.name for path in folder.iterdir())
    shared = [row["index"] for row in bad.state()]
    processes.any(True)
    bad.take([sample(7 + rank)])  # four are allowed, three were there: none of the two sees too many
    try:
        share(bad, processes)
        message = ""
    except DataError as error:
        message = str(error)
    dist.destroy_process_group()
    return {"before": before, "after": after, "shared": shared, "message": message}


def test_every_process_ends_with_the_list_of_all_and_stops_by_the_fraction_of_all(tmp_path: Path) -> None:
    seen = run_together(meet_and_share, 2, tmp_path)
    assert [each["before"] for each in seen] == [["bad_samples.csv", "bad_samples.rank1.csv"]] * 2
    assert [each["after"] for each in seen] == [["bad_samples.csv"]] * 2
    assert [each["shared"] for each in seen] == [[0, 1, 5]] * 2
    rows = (tmp_path / "bad_samples.csv").read_text().splitlines()[1:]
    assert rows == [f"{i},{i}.jpg,cut short" for i in (0, 1, 5, 7, 8)]
    for each in seen:
        assert each["message"].startswith("5 of 10 training samples (50.00%) cannot be read")


def test_a_checkpoint_keeps_the_list_and_the_file_follows_it(tmp_path: Path) -> None:
    trainer: Any = SimpleNamespace(global_rank=0)
    file, checkpoint = tmp_path / "bad_samples.csv", dict[str, Any]()

    def log() -> BadSampleLog:
        found = BadSampleLog(BadSampleList(10, 0.4), file)
        found.setup(trainer, trainer, "fit")
        return found

    first, second, third = log(), log(), log()
    first.bad.add([sample(5)])
    first.on_save_checkpoint(trainer, trainer, checkpoint)
    first.bad.add([sample(6)])  # met after the checkpoint, and before the run was killed
    second.on_load_checkpoint(trainer, trainer, checkpoint)
    second.on_train_start(trainer, trainer)
    assert [row["index"] for row in second.bad.state()] == [5]
    assert file.read_text().splitlines()[1:] == ["5,5.jpg,cut short"]
    third.on_load_checkpoint(trainer, trainer, {})  # of a run that did not skip
    third.on_train_start(trainer, trainer)
    assert not file.exists()
