"""What a search found: ``best.yaml``, ``trials.csv`` and ``study.html``, which each process writes after each trial."""

from __future__ import annotations

import csv
import io
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.study import Study

from detseg.atomic_write import write_text
from detseg.config.load import config_to_yaml
from detseg.messages import counted, printable
from detseg.tuning.objective import Goal, metrics_text
from detseg.tuning.page import Found, page_of
from detseg.tuning.space import values_of
from detseg.tuning.study import Plan
from detseg.tuning.trials import Trial, states_text

_FEWEST_FOR_IMPORTANCE = 8
_GOOD = 0.25


def trial_dir(folder: Path, number: int) -> Path:
    """The run directory of a trial."""
    return folder / f"trial_{number:04d}"


def best_of(trials: Sequence[Trial], goal: Goal) -> Trial | None:
    """The complete trial with the highest criterion within the limit; the first of equals; None: there is none."""
    allowed = [trial for trial in trials if trial.state == "complete" and goal.allows(trial.metrics)]
    return max(allowed, key=lambda trial: trial.metrics[goal.criterion], default=None)


def defaults_of(trials: Sequence[Trial], plan: Plan) -> Trial | None:
    """The complete trial that has the settings of the file; None: there is none."""
    values = values_of(plan.space, plan.base)
    return next((trial for trial in trials if trial.state == "complete" and trial.values == values), None)


def front_of(trials: Sequence[Trial], goal: Goal) -> list[Trial]:
    """The complete trials that no other one beats in both metrics (Pareto), the cheapest first."""
    assert goal.cost is not None
    front: list[Trial] = []
    complete = [trial for trial in trials if trial.state == "complete"]
    for trial in sorted(complete, key=lambda t: (t.metrics[str(goal.cost)], -t.metrics[goal.criterion])):
        if not front or trial.metrics[goal.criterion] > front[-1].metrics[goal.criterion]:
            front.append(trial)
    return front


def write_results(folder: Path, plan: Plan, study: Study, trials: Sequence[Trial]) -> None:
    """Write all three files; ``best.yaml`` once a trial is complete."""
    found = _found(plan, study, trials)
    if found.best is not None:
        what = f"{metrics_text(found.best.metrics)} in {trial_dir(folder, found.best.number).name}"
        settings = config_to_yaml(plan.config(found.best.values))
        _replace(folder / "best.yaml", f"# {printable(folder.name)}: {what}\n{settings}")
    _replace(folder / "trials.csv", _table(plan, trials))
    _replace(folder / "study.html", page_of(folder.absolute().name, plan, found))


def conclusion(folder: Path, plan: Plan, trials: Sequence[Trial]) -> list[str]:
    """What a search says at its end."""
    lines = [f"{counted(len(trials), 'trial')}: {states_text(trials)}"]
    best = best_of(trials, plan.goal)
    if best is not None:
        lines.append(f"best: {metrics_text(best.metrics)}, {trial_dir(folder, best.number)}")
        lines += [f"  {name}={value}" for name, value in best.values.items()]
    if (defaults := defaults_of(trials, plan)) is not None:
        lines.append(
            f"the settings of the file: {metrics_text(defaults.metrics)}, {trial_dir(folder, defaults.number)}"
        )
    if plan.goal.has_trade_off:
        lines += [
            f"trade-off: {metrics_text(t.metrics)}, {trial_dir(folder, t.number)}" for t in front_of(trials, plan.goal)
        ]
    lines.append(f"all trials: {folder / 'study.html'}, {folder / 'trials.csv'}")
    if best is not None:
        lines.append(f"next: detseg train {shlex.quote(str(folder / 'best.yaml'))}")
    return lines


def _found(plan: Plan, study: Study, trials: Sequence[Trial]) -> Found:
    importances = {}
    if sum(trial.state == "complete" for trial in trials) >= _FEWEST_FOR_IMPORTANCE:
        evaluator = PedAnovaImportanceEvaluator(target_quantile=_GOOD)
        importances = get_param_importances(study, evaluator=evaluator)
    front = front_of(trials, plan.goal) if plan.goal.has_trade_off else []
    return Found(trials, best_of(trials, plan.goal), front, defaults_of(trials, plan), importances)


def _table(plan: Plan, trials: Sequence[Trial]) -> str:
    text = io.StringIO()
    parameters = [parameter.name for parameter in plan.space]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", *plan.goal.names, "seconds", "attempts", *parameters, "error"])
    for trial in trials:
        metrics = [trial.metrics.get(name, "") for name in plan.goal.names]
        values = [trial.values.get(name, "") for name in parameters]
        writer.writerow(
            [trial.number, trial.state, *metrics, round(trial.seconds, 1), len(trial.attempts), *values, trial.error]
        )
    return text.getvalue()


def _replace(path: Path, text: str) -> None:
    """Write a file whole; other processes may be writing theirs at the same time."""
    own = path.with_name(f".{path.name}.{os.getpid()}")
    write_text(own, text)
    os.replace(own, path)
