"""The trials of a search, as Optuna's study has them.

A trial of ours is carried out by one trial of Optuna's, an attempt, or by several: where a process was stopped or
killed, another one is queued with the same values, and resumes the run. The number of a trial is its position among the
first attempts: Optuna's databases number attempts one by one, so that all processes agree on it without a lock.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from optuna.exceptions import ExperimentalWarning
from optuna.storages import fail_stale_trials
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

State = Literal["complete", "pruned", "failed", "running", "interrupted"]

# What attempts carry. One that failed without an error was interrupted, and one of these without a stop killed.
RETRY_OF, ERROR, STOPPED, METRICS = "retry_of", "error", "stopped", "metrics"

_MOST_KILLS = 3


@dataclass(frozen=True)
class Trial:
    """One trial; ``attempts`` in their order, at least one."""

    number: int
    attempts: tuple[FrozenTrial, ...]

    @property
    def attempt(self) -> FrozenTrial:
        """The one that counts: the first that has not failed, else the last that was not interrupted, else the last."""
        failed = [attempt for attempt in self.attempts if not _interrupted(attempt)] or self.attempts
        return next((attempt for attempt in self.attempts if attempt.state != TrialState.FAIL), failed[-1])

    @property
    def state(self) -> State:
        """What became of it; ``interrupted``: it is to be resumed."""
        match self.attempt.state:
            case TrialState.COMPLETE:
                return "complete"
            case TrialState.PRUNED:
                return "pruned"
            case TrialState.RUNNING:
                return "running"
        return "failed" if self.error else "interrupted"

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do."""
        return self.state in ("complete", "pruned", "failed")

    @property
    def error(self) -> str:
        """Why it failed; empty: it did not."""
        kills = sum(_interrupted(attempt) and STOPPED not in attempt.user_attrs for attempt in self.attempts)
        if _interrupted(self.attempt) and kills >= _MOST_KILLS:
            return f"its process was killed {kills} times; memory?"
        return str(self.attempt.user_attrs.get(ERROR, ""))

    @property
    def values(self) -> dict[str, Any]:
        """Its values by the names of the parameters; empty where it was killed before they were chosen."""
        return next((attempt.params for attempt in reversed(self.attempts) if attempt.params), {})

    @property
    def metrics(self) -> dict[str, float]:
        """What its run was measured by; empty before its end."""
        return self.attempt.user_attrs.get(METRICS, {})  # type: ignore[no-any-return]  # written by us

    @property
    def validations(self) -> dict[int, float]:
        """Epoch → criterion, of all attempts together: one that resumes a run does not validate its epochs again."""
        return dict(sorted(item for attempt in self.attempts for item in attempt.intermediate_values.items()))

    @property
    def seconds(self) -> float:
        """How long its last attempt took, if it has ended: others' ends are when their being killed was noticed."""
        return 0.0 if self.attempt.duration is None else self.attempt.duration.total_seconds()


def trials_of(study: Study) -> list[Trial]:
    """All trials by their numbers, also those that other processes have begun beyond the number that is wanted."""
    attempts = sorted(study.get_trials(deepcopy=False), key=lambda attempt: attempt.number)
    retries = defaultdict[int, list[FrozenTrial]](list)
    for attempt in attempts:
        if RETRY_OF in attempt.user_attrs:
            retries[attempt.user_attrs[RETRY_OF]].append(attempt)
    firsts = [attempt for attempt in attempts if RETRY_OF not in attempt.user_attrs]
    return [Trial(number, (first, *retries[first.number])) for number, first in enumerate(firsts)]


def states_text(trials: Sequence[Trial]) -> str:
    """``12 complete, 3 pruned``."""
    states = [trial.state for trial in trials]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))


def queue_interrupted(study: Study, num_trials: int, grace: float) -> list[Trial]:
    """Queue another attempt at each trial whose process was stopped, or gave no sign of life for ``grace`` seconds;
    returns the trials."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        fail_stale_trials(study)
    for attempt in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        # Killed before its first sign of life, Optuna waits for it forever.
        begun = attempt.datetime_start
        if not attempt.params and begun is not None and (datetime.now() - begun).total_seconds() > grace:
            with suppress(ValueError):  # another process was faster
                study.tell(attempt.number, state=TrialState.FAIL)
    trials = trials_of(study)[:num_trials]
    queue_again(study, [t for t in trials if t.state == "interrupted" and t.attempt.state == TrialState.FAIL])
    return trials_of(study)[:num_trials]


def queue_again(study: Study, trials: Sequence[Trial]) -> None:
    """Queue another attempt at each of some trials, with the same values."""
    for trial in trials:
        study.enqueue_trial(trial.values, {RETRY_OF: trial.attempts[0].number})


def _interrupted(attempt: FrozenTrial) -> bool:
    return attempt.state == TrialState.FAIL and ERROR not in attempt.user_attrs
