"""The search: how many trials, which values, pruning, failures, resuming, other studies; trials are formulas."""

from __future__ import annotations

import csv
import logging
import math
import multiprocessing as mp
import re
from pathlib import Path
from typing import Any

import pytest

from detseg.config.load import load_config
from detseg.errors import ConfigError, DetsegError, RunStoppedError
from detseg.training.callbacks.stopping import StopRequest
from detseg.tuning.objective import Goal, goal_of
from detseg.tuning.search import tune
from tests.heard import heard
from tests.tuning.studies import failing, formula, plan_of, run_killed, run_process

pytestmark = pytest.mark.filterwarnings("error::optuna.exceptions.ExperimentalWarning")


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "study" / "trials.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def search(folder: Path, num_trials: int = 6, stop: StopRequest | None = None, **changes: Any) -> list[dict[str, str]]:
    """Search, and return the table."""
    carry_out = changes.pop("carry_out", formula)
    tune(plan_of(folder, num_trials, **changes), folder / "study", stop=stop, beat=1, carry_out=carry_out)
    return rows(folder)


def test_the_best_settings_are_a_configuration_file(tmp_path: Path) -> None:
    with heard() as lines:
        table = search(tmp_path, 14, prune=False)
    assert [int(row["trial"]) for row in table] == list(range(14))
    assert {row["state"] for row in table} == {"complete"}
    best = max(table, key=lambda row: float(row["AP"]))
    assert float(best["AP"]) > 0.8
    config = load_config(tmp_path / "study" / "best.yaml")
    assert (config.optimizer.lr, config.trainer.max_epochs) == (float(best["optimizer.lr"]), 6)
    assert config.model.backbone.name == best["model.backbone.name"]  # type: ignore[union-attr]  # it is a yolo
    assert lines[-1] == f"next: detseg train {tmp_path / 'study' / 'best.yaml'}"
    assert "14 trials: 14 complete" in lines


def test_the_first_trial_has_the_settings_of_the_file(tmp_path: Path) -> None:
    first, second = search(tmp_path, 2, overrides=("optimizer.lr=0.02",))
    assert (first["optimizer.lr"], first["model.backbone.name"]) == ("0.02", "csp_nano")
    assert second["optimizer.lr"] != "0.02"


def test_a_search_does_not_see_later_changes_of_its_file(tmp_path: Path) -> None:
    def edits(config: Any, *rest: Any) -> dict[str, float]:
        next(tmp_path.glob("mine*.yaml")).write_text("data: {name: coco}\n", encoding="utf-8")
        assert config.data.name == "voc"
        return formula(config, *rest)

    assert [row["state"] for row in search(tmp_path, 2, carry_out=edits)] == ["complete"] * 2


def test_random_values_follow_from_seed_and_number_alone(tmp_path: Path) -> None:
    tables = []
    for name, batches, seed in (("a", [3], 0), ("b", [2, 3], 0), ("c", [3], 1)):
        (folder := tmp_path / name).mkdir()
        for num_trials in batches:  # the second command raises the number
            table = search(folder, num_trials, sampler="random", overrides=(f"seed={seed}",))
        tables.append([row["optimizer.lr"] for row in table])
    assert tables[0] == tables[1] != tables[2]
    assert len(set(tables[0])) == 3


def test_a_grid_ends_when_it_is_complete(tmp_path: Path) -> None:
    space = (
        "optimizer.lr: {categorical: [0.001, 0.003, 0.1]}\nmodel.backbone.name: {categorical: [csp_nano, csp_small]}\n"
    )
    table = search(tmp_path, 50, space=space, sampler="grid")
    assert len({(row["optimizer.lr"], row["model.backbone.name"]) for row in table}) == len(table) == 6
    for num_trials in (50, 2):  # nothing is left to do, and nothing is forgotten
        assert search(tmp_path, num_trials, space=space, sampler="grid") == table


def test_trials_worse_than_the_median_are_pruned(tmp_path: Path) -> None:
    table = search(tmp_path, 12, sampler="random")
    pruned = [row for row in table if row["state"] == "pruned"]
    complete = [row for row in table if row["state"] == "complete"]
    assert len(pruned) >= 2
    assert [row["state"] for row in table[:5]] == ["complete"] * 5  # the median is of five at least
    assert max(float(row["AP"]) for row in pruned) < max(float(row["AP"]) for row in complete)


def test_a_failed_trial_does_not_end_the_search(tmp_path: Path) -> None:
    def fails_with_large_rates(config: Any, goal: Any, is_enough: Any, stop: Any) -> dict[str, float]:
        return (failing if config.optimizer.lr > 3e-3 else formula)(config, goal, is_enough, stop)

    table = search(tmp_path, 6, sampler="random", carry_out=fails_with_large_rates)
    failed = [row for row in table if row["state"] == "failed"]
    assert 1 <= len(failed) <= 5
    for row in failed:
        assert float(row["optimizer.lr"]) > 3e-3
        assert row["error"] == f"{tmp_path}/study/trial_{int(row['trial']):04d}: no such data"


def test_the_same_failure_from_the_start_ends_it(tmp_path: Path) -> None:
    with pytest.raises(DetsegError, match="the first 3 trials failed alike: its run directory: no such data"):
        search(tmp_path, 10, carry_out=failing)
    assert [row["state"] for row in rows(tmp_path)] == ["failed"] * 3


def test_a_bug_is_raised_and_its_trial_not_repeated(tmp_path: Path) -> None:
    def broken(*_: Any) -> dict[str, float]:
        raise ZeroDivisionError("by zero")

    search(tmp_path, 1)
    with pytest.raises(ZeroDivisionError):
        search(tmp_path, 3, carry_out=broken)
    _, second, third = search(tmp_path, 3)
    assert (second["state"], second["error"], third["state"]) == ("failed", "ZeroDivisionError: by zero", "complete")


def test_where_all_trials_have_failed_the_next_command_begins_them_again(tmp_path: Path) -> None:
    for carry_out in (failing, failing):
        with pytest.raises(DetsegError, match="the first 3 trials failed alike"):
            search(tmp_path, 4, carry_out=carry_out)
    values = [row["optimizer.lr"] for row in rows(tmp_path)]
    table = search(tmp_path, 4)
    assert [(row["state"], row["attempts"]) for row in table] == [("complete", n) for n in "3331"]
    assert [row["optimizer.lr"] for row in table[:3]] == values


def test_a_search_without_a_result_is_an_error(tmp_path: Path) -> None:
    for _ in range(2):  # a search that has ended, too
        with pytest.raises(DetsegError, match="no trial is complete with latency_ms of at most 1e-06: there is no"):
            search(tmp_path, 2, goal=goal_of("AP", None, "latency_ms<1e-6"))


def test_a_resumed_trial_is_pruned_by_all_of_its_validations(tmp_path: Path) -> None:
    stops = [6]

    def best_at_first(config: Any, goal: Any, is_enough: Any, stop: Any) -> dict[str, float]:
        number = int(config.run_dir.name.removeprefix("trial_"))
        begins_at = 1 if number != 6 or stops else 4
        for epoch in range(begins_at, 7):
            value = 0.5 if number != 6 else 0.9 if epoch <= 3 else 0.4
            if is_enough(epoch, value):
                break
            if stops == [number] and epoch == 3:
                stops.clear()
                raise RunStoppedError("stopped by SIGTERM after step 9; everything is saved")
        return {"AP": 0.5 if number != 6 else 0.9}

    with pytest.raises(RunStoppedError):
        search(tmp_path, 7, carry_out=best_at_first)
    assert [row["state"] for row in search(tmp_path, 7, carry_out=best_at_first)] == ["complete"] * 7
    assert "AP 0.9 in trial_0006" in (tmp_path / "study" / "best.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143)])
def test_what_is_interrupted_goes_on_with_its_values(error: BaseException, tmp_path: Path) -> None:
    values = []

    def interrupted(config: Any, goal: Any, is_enough: Any, stop: Any) -> dict[str, float]:
        values.append(config.optimizer.lr)
        if len(values) == 3:
            raise error
        return formula(config, goal, is_enough, stop)

    with pytest.raises(type(error)):
        search(tmp_path, 4, carry_out=interrupted)
    assert [row["state"] for row in rows(tmp_path)] == ["complete", "complete", "interrupted"]
    table = search(tmp_path, 4, carry_out=interrupted)
    assert [(row["state"], row["attempts"]) for row in table] == [("complete", n) for n in "1121"]
    assert values[3] == values[2] == float(table[2]["optimizer.lr"])


def test_a_request_stops_it_and_says_how_far_it_is(tmp_path: Path) -> None:
    stop = StopRequest()

    def asks(config: Any, *rest: Any) -> dict[str, float]:
        if config.run_dir.name == "trial_0001":
            stop.ask("by SIGTERM")
        return formula(config, *rest)

    said = "stopped by SIGTERM after step 1; 1 of 4 trials have ended; the same command goes on"
    with pytest.raises(RunStoppedError, match=said):
        search(tmp_path, 4, stop, carry_out=asks)
    with pytest.raises(RunStoppedError, match="stopped by --time; 1 of 4 trials have ended; the same command goes on"):
        tune(plan_of(tmp_path, 4), tmp_path / "study", seconds=1e-9, beat=1, carry_out=formula)
    assert [row["attempts"] for row in search(tmp_path, 4)] == ["1", "2", "1", "1"]


def test_a_trial_is_two_lines_and_what_it_says_is_in_a_file(tmp_path: Path) -> None:
    def talks(config: Any, *rest: Any) -> dict[str, float]:
        logger = logging.getLogger("detseg")
        logger.info("hint      205 training images")
        logger.warning("boxes of one pixel")
        logger.info(f"epoch 1/6 of {config.run_dir.name}")
        return formula(config, *rest)

    space = "optimizer.lr: {categorical: [0.01, 0.003, 0.03]}\n"  # accuracies 0.74, 1 and 0.5
    with heard() as lines:
        search(tmp_path, 3, space=space, sampler="grid", prune=False, carry_out=talks)
    log = tmp_path / "study" / "logs"
    assert re.fullmatch(rf"trial 0 of 3: optimizer.lr=0\.\d+; what it says is in {log}/trial_0000.log", lines[0])
    assert lines[1:3] == ["hint      205 training images", "boxes of one pixel"]
    ends = [line.partition(": AP ")[2].partition(", best so far ") for line in lines[3:8] if ": AP " in line]
    values = [float(value) for value, _, _ in ends]
    for number, (_, _, best) in enumerate(ends):
        highest = max(values[: number + 1])
        assert best == f"{highest:g} (trial {values.index(highest)})"
    assert [line.startswith("trial ") for line in lines[3:8]] == [True] * 5  # one and two lines
    said = ["hint      205 training images", "boxes of one pixel", "epoch 1/6 of trial_0002"]
    assert (log / "trial_0002.log").read_text(encoding="utf-8").splitlines() == said


@pytest.mark.processes
def test_two_processes_share_a_study_and_lose_nothing_when_one_is_killed(tmp_path: Path) -> None:
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(["tests.tuning.studies"])
    processes = [context.Process(target=run_process, args=(tmp_path, 6)) for _ in range(2)]
    plan_of(tmp_path)
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert sorted(process.exitcode or 0 for process in processes) == [-9, 0]
    table = rows(tmp_path)
    assert len(table) == 6
    assert all(row["state"] in ("complete", "pruned") for row in table), table
    assert [row["attempts"] for row in table] == ["1", "1", "2"] + ["1"] * 3
    assert len({row["optimizer.lr"] for row in table}) == 6
    assert len(list((tmp_path / "study").glob("trial_*"))) == 6


@pytest.mark.slow
def test_a_trial_whose_process_is_killed_three_times_has_failed(tmp_path: Path) -> None:
    context = mp.get_context("forkserver")
    for _ in range(3):
        process = context.Process(target=run_killed, args=(tmp_path,))
        process.start()
        process.join(60)
    with pytest.raises(DetsegError, match="no trial is complete"):
        search(tmp_path, 1)
    (row,) = rows(tmp_path)
    assert (row["state"], row["error"]) == ("failed", "its process was killed 3 times; memory?")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"overrides": ("optimizer.weight_decay=0.1",)}, r"optimizer.weight_decay was 0.05 and is 0.1"),
        ({"overrides": ("optimizer.name=sgd",)}, r"optimizer.name was 'adamw' and is 'sgd'"),
        ({"space": "optimizer.lr: {log_uniform: [1e-5, 1]}\n"}, r"space.optimizer.lr was "),
        ({"sampler": "random"}, "sampler was 'tpe' and is 'random'"),
        ({"goal": Goal("AP", "parameters", 5e6)}, "metrics was "),
    ],
)
def test_another_study_is_one_line(changes: dict[str, Any], line: str, tmp_path: Path) -> None:
    search(tmp_path, 1)
    with pytest.raises(
        ConfigError, match=rf"study: holds another study: {line}.*; repeat the command that began it, or"
    ):
        search(tmp_path, 1, **changes)


def test_files_of_others_are_not_replaced(tmp_path: Path) -> None:
    (folder := tmp_path / "study").mkdir()
    (folder / "best.yaml").write_text("mine")
    with pytest.raises(ConfigError, match=r"best.yaml: is not of this study, which begins; give it another folder"):
        search(tmp_path, 1)
    assert (folder / "best.yaml").read_text() == "mine"


def test_the_database_lies_in_the_folder_whatever_its_name(tmp_path: Path) -> None:
    (folder := tmp_path / "a?b #c %41&é").mkdir()
    search(folder, 1)
    assert (folder / "study" / "study.db").is_file()


def test_settings_outside_the_space_are_told(tmp_path: Path) -> None:
    with heard() as lines:
        search(tmp_path, 1, overrides=("optimizer.lr=0.5",))
    assert lines[0] == "the settings of the file are not in the space: no trial has them"


def test_another_machine_may_have_its_data_elsewhere(tmp_path: Path) -> None:
    search(tmp_path, 1)
    assert len(search(tmp_path, 2, overrides=("data.root=/mnt/voc", "data.num_workers=7"))) == 2


@pytest.mark.filterwarnings("error:The reported value is ignored")
def test_a_trial_that_begins_again_reports_each_epoch_once(tmp_path: Path) -> None:
    is_first = [True]

    def stopped_once(config: Any, goal: Any, is_enough: Any, stop: Any) -> dict[str, float]:
        for epoch in range(1, 4):
            is_enough(epoch, 0.1 * epoch)
        if is_first:
            is_first.clear()
            raise RunStoppedError("stopped by SIGTERM after step 3; nothing was saved")
        return {"AP": 0.3}

    with pytest.raises(RunStoppedError):
        search(tmp_path, 1, carry_out=stopped_once)
    assert [row["state"] for row in search(tmp_path, 1, carry_out=stopped_once)] == ["complete"]


def test_one_database_serves_folders_that_are_not_shared(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (folder := tmp_path / name).mkdir()
        tune(
            plan_of(folder, 2 if name == "a" else 3),
            folder / "study",
            f"sqlite:///{tmp_path}/shared.db",
            carry_out=formula,
        )
    assert [row["state"] for row in rows(tmp_path / "b")] == ["complete"] * 3
    assert len(list((tmp_path / "b" / "study").glob("trial_*"))) == 1
    with pytest.raises(ConfigError, match="trial_0002: is not of this study, which begins; give it"):
        tune(plan_of(tmp_path, 2), tmp_path / "b" / "study", f"sqlite:///{tmp_path}/new.db", carry_out=formula)
    with pytest.raises(ConfigError, match="--storage: the database cannot be opened: "):
        tune(plan_of(tmp_path, 2), tmp_path / "study", "nosuch://host/db", carry_out=formula)


def test_the_best_within_a_limit(tmp_path: Path) -> None:
    table = search(tmp_path, 10, goal=goal_of("AP", None, "latency_ms < 1.5"), prune=False)
    allowed = [row for row in table if float(row["latency_ms"]) <= 1.5]
    best = load_config(tmp_path / "study" / "best.yaml")
    assert best.optimizer.lr == float(max(allowed, key=lambda row: float(row["AP"]))["optimizer.lr"]) <= 1.5e-3
    assert max(float(row["AP"]) for row in table) > max(float(row["AP"]) for row in allowed)


def test_trade_offs_are_those_that_no_other_trial_beats(tmp_path: Path) -> None:
    with heard() as lines:
        table = search(tmp_path, 10, goal=goal_of("AP", "latency_ms", None))
    assert {row["state"] for row in table} == {"complete"}
    pairs = [(float(row["AP"]), float(row["latency_ms"])) for row in table]
    front = [p for p in pairs if not any(q != p and q[0] >= p[0] and q[1] <= p[1] for q in pairs)]
    assert len(front) > 2
    assert sum(line.startswith("trade-off: ") for line in lines) == len(front)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("trainer.fast_dev_run=true", "trainer.fast_dev_run: leaves nothing to compare"),
        ("trainer.max_time='1:00:00'", "trainer.max_time: would stop trials halfway"),
        (
            "trainer.devices=2",
            "trainer.devices: a trial has one device, got 2; set it to 1, and start the command once",
        ),
    ],
)
def test_settings_that_trials_cannot_have(override: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=line):
        search(tmp_path, overrides=(override,))
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("minimize", "subject_to", "line"),
    [
        (
            "latency",
            None,
            r"--minimize: expected latency_ms or parameters, got 'latency' \(did you mean 'latency_ms'\?\)",
        ),
        (
            None,
            "latency_ms>3",
            "--subject-to: a limit is what a cost must not exceed: write '<', got 'latency_ms>3'",
        ),
        (None, "latency<3", "--subject-to: expected a limit of latency_ms or parameters, such as 'latency_ms<20', got"),
        (None, "latency_ms<1.2.3", "--subject-to: expected a limit of "),
        (None, "latency_ms<.", "--subject-to: expected a limit of "),
    ],
)
def test_wrong_metrics_are_one_line(minimize: str | None, subject_to: str | None, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        goal_of("AP", minimize, subject_to)


def test_an_accuracy_that_is_not_defined_prunes_nothing(tmp_path: Path) -> None:
    def undefined(config: Any, goal: Any, is_enough: Any, stop: Any) -> dict[str, float]:
        assert not is_enough(1, math.nan)
        return formula(config, goal, is_enough, stop)

    assert [row["state"] for row in search(tmp_path, 2, carry_out=undefined)] == ["complete"] * 2
