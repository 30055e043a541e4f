"""A search as one HTML page that needs nothing else: no script, no font, no file beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from detseg.draw.charts import Axis, Look, Point, bars_chart, points_chart
from detseg.draw.page import html_document, html_table, html_text
from detseg.messages import counted
from detseg.tuning.objective import Goal, metrics_text
from detseg.tuning.space import Choice, Parameter
from detseg.tuning.study import Plan
from detseg.tuning.trials import Trial, states_text


@dataclass(frozen=True)
class Found:
    """What a search has found so far.

    Attributes:
        trials: those that have begun.
        best: the best of them; None: none is complete, or within the limit.
        front: of a search for trade-offs, those that no other one beats in both metrics.
        defaults: the trial with the settings of the file; None: there is none.
        importances: parameter → fraction, in falling order; empty: too few trials are complete.
    """

    trials: Sequence[Trial]
    best: Trial | None
    front: Sequence[Trial]
    defaults: Trial | None
    importances: Mapping[str, float]


def page_of(title: str, plan: Plan, found: Found) -> str:
    """The page."""
    goal, measured = plan.goal, [trial for trial in found.trials if trial.metrics]
    charts = [_history(goal, found, measured)] if measured else []
    if found.importances:
        charts.append(bars_chart("Importance", list(found.importances.items())))
    if goal.cost is not None and measured:
        charts.append(_trade_off(goal, goal.cost, found, measured))
    charts += [_parameter(goal, parameter, found, measured) for parameter in plan.space if measured]
    parts = [f"<h1>{html_text(title)}</h1>", *_summary(plan, found), f'<div class="charts">{"".join(charts)}</div>']
    if measured:
        red = "trade-offs that no other trial beats" if goal.has_trade_off else "the best"
        legend = f"Filled: complete; empty: pruned; red: {red}. The mouse over a point shows its trial."
        what = "Importance: what the best quarter of the complete trials differs in (PED-ANOVA, Watanabe et al. 2023)."
        parts.append(f'<p class="soft">{legend}{f" {what}" if found.importances else ""}</p>')
    return html_document(title, "detseg tune", [*parts, "<h2>Trials</h2>", _table(plan, found)])


def _summary(plan: Plan, found: Found) -> list[str]:
    lines = [f"{counted(len(found.trials), 'trial')} of {plan.num_trials}: {states_text(found.trials)}."]
    if found.best is None:
        lines.append("No trial is complete" + (" and within the limit." if plan.goal.limit is not None else "."))
    else:
        what = f"Best: {metrics_text(found.best.metrics)} in trial {found.best.number} ({_values(found.best)})"
        lines.append(f"{what}; its settings are in best.yaml.")
    if found.defaults is not None:
        lines.append(
            f"The settings of the file: {metrics_text(found.defaults.metrics)} in trial {found.defaults.number}."
        )
    if plan.goal.limit is not None:
        lines.append(f"Limit: {plan.goal.cost} of at most {plan.goal.limit:g}.")
    return [f"<p>{html_text(line)}</p>" for line in lines]


def _history(goal: Goal, found: Found, measured: Sequence[Trial]) -> str:
    y = _criterion_axis(goal, measured)
    complete = [trial for trial in measured if trial.state == "complete" and goal.allows(trial.metrics)]
    best = accumulate((trial.metrics[goal.criterion] for trial in complete), max)
    steps, before = list[tuple[float, float]](), None
    for trial, value in zip(complete, best, strict=True):
        steps += [(trial.number, value if before is None else before), (trial.number, value)]
        before = value
    if before is not None:
        steps.append((measured[-1].number, before))
    points = [_point(trial.number, goal, found, trial) for trial in measured]
    axis = Axis.around("trial", [trial.number for trial in measured])
    return points_chart(f"{goal.criterion} by trial, and the best so far", axis, y, points, steps)


def _trade_off(goal: Goal, cost: str, found: Found, measured: Sequence[Trial]) -> str:
    y = _criterion_axis(goal, measured)
    costs = [trial.metrics[cost] for trial in measured]
    axis = Axis.around(cost, costs if goal.limit is None else [*costs, goal.limit])
    line = [(trial.metrics[cost], trial.metrics[goal.criterion]) for trial in found.front]
    title = f"{goal.criterion} against {cost}, and the trade-offs that no other trial beats"
    if goal.limit is not None:
        line, title = [(goal.limit, y.low), (goal.limit, y.high)], f"{goal.criterion} against {cost}, and its limit"
    return points_chart(title, axis, y, [_point(t.metrics[cost], goal, found, t) for t in measured], line)


def _parameter(goal: Goal, parameter: Parameter, found: Found, measured: Sequence[Trial]) -> str:
    values = [trial.values[parameter.name] for trial in measured]
    if isinstance(parameter, Choice):
        texts = list(parameter.by_text)
        axis, values = Axis.of_words(parameter.name, texts), [texts.index(value) for value in values]
    else:
        axis = Axis.around(parameter.name, values, parameter.log)
    points = [_point(value, goal, found, trial) for value, trial in zip(values, measured, strict=True)]
    return points_chart(f"{goal.criterion} by {parameter.name}", axis, _criterion_axis(goal, measured), points)


def _criterion_axis(goal: Goal, measured: Sequence[Trial]) -> Axis:
    return Axis.around(goal.criterion, [trial.metrics[goal.criterion] for trial in measured])


def _point(x: float, goal: Goal, found: Found, trial: Trial) -> Point:
    is_best = trial == found.best or trial in found.front
    look: Look = "best" if is_best else "normal" if trial.state == "complete" else "pale"
    text = f"trial {trial.number}: {metrics_text(trial.metrics)}; {_values(trial)}"
    return Point(x, trial.metrics[goal.criterion], text, look)


def _table(plan: Plan, found: Found) -> str:
    parameters = [parameter.name for parameter in plan.space]
    head = ["trial", "state", *plan.goal.names, "minutes", *parameters, ""]
    rows = []
    for trial in found.trials:
        metrics = [f"{trial.metrics[name]:.4g}" if trial.metrics else "" for name in plan.goal.names]
        values = [_short(trial.values.get(name, "")) for name in parameters]
        note = "best" if trial == found.best else ""
        rows.append([str(trial.number), trial.state, *metrics, f"{trial.seconds / 60:.1f}", *values, note])
    errors = [f"<p>Trial {trial.number} failed: {html_text(trial.error)}</p>" for trial in found.trials if trial.error]
    return html_table(head, rows) + "".join(errors)


def _values(trial: Trial) -> str:
    return ", ".join(f"{name}={_short(value)}" for name, value in trial.values.items())


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
