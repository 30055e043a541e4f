"""`detseg tune`: trials of settings, by one process or by many that share a study."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError, TrialPruned, UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import Trial as Attempt
from sqlalchemy.exc import SQLAlchemyError

from detseg.config.load import config_from_dict, is_stated, stated_settings
from detseg.config.schema.experiment import ExperimentConfig
from detseg.config.strict_yaml import Override
from detseg.data.build import resolve_data
from detseg.errors import ConfigError, DataError, DetsegError, RunStoppedError
from detseg.factory.backbones import build_backbone
from detseg.messages import listed, messages_on_console, messages_to_file, one_line
from detseg.tasks import kind_of
from detseg.training.callbacks.stopping import StopRequest
from detseg.training.setup.build import criterion_of
from detseg.training.setup.recipe import complete
from detseg.tuning.objective import Goal, metrics_text, train_and_measure
from detseg.tuning.results import best_of, conclusion, trial_dir, write_results
from detseg.tuning.sampling import grid_size, sampler_of
from detseg.tuning.space import check_space, values_of
from detseg.tuning.study import Plan, open_study
from detseg.tuning.trials import ERROR, METRICS, STOPPED, Trial, queue_again, queue_interrupted, trials_of

logger = logging.getLogger("detseg")

CarryOut = Callable[[ExperimentConfig, Goal, Callable[[int, float], bool], StopRequest], Mapping[str, float]]
"""As ``train_and_measure``."""

_ENOUGH_FAILURES = 3


@messages_on_console()
def tune(
    plan: Plan,
    folder: Path,
    storage: str | None = None,
    seconds: float | None = None,
    stop: StopRequest | None = None,
    beat: int = 10,
    carry_out: CarryOut = train_and_measure,
) -> None:
    """Run trials until all of the plan have ended, in this process or in others.

    Args:
        plan: what is searched.
        folder: gets a run directory for each trial, ``best.yaml``, ``trials.csv`` and ``study.html``.
        storage: URL of the study's database; None: ``study.db`` in the folder.
        seconds: after which this process stops; None: never.
        stop: by which another thread may ask it to.
        beat: seconds from one sign of life of a running trial to the next; six without one, and it counts as killed.
        carry_out: how a trial is carried out.

    Raises:
        ConfigError: the settings cannot be searched, or the folder holds another study.
        DetsegError: the first trials failed alike, or the database is gone.
        RunStoppedError: it was asked to stop; the running trial has saved itself.
    """
    _check_base(plan.base)
    _check_space(plan)
    plan = _completed(plan)
    if plan.sampler == "grid":
        plan = replace(plan, num_trials=min(plan.num_trials, grid_size(plan.space)))
    stop, grace = stop or StopRequest(), 6 * beat
    timer = threading.Timer(seconds or 0, stop.ask, ["by --time"])
    timer.daemon = True
    try:
        study = open_study(plan, folder, storage, beat, grace)
        search = _Search(study, plan, folder, stop, grace, carry_out)
        if seconds is not None:
            timer.start()
        try:
            search.run(math.inf if seconds is None else time.monotonic() + seconds)
        finally:
            timer.cancel()
            stop.reason = None  # it may be given to another search
            if search.trials():
                search.write()
    except (StorageInternalError, SQLAlchemyError) as error:
        raise DetsegError(f"the database of the study fails: {one_line(error)}; repeat the command to go on") from error
    for line in conclusion(folder, plan, trials := search.trials()):
        logger.info(line)
    if best_of(trials, plan.goal) is None:
        limit = "" if plan.goal.limit is None else f" with {plan.goal.cost} of at most {plan.goal.limit:g}"
        raise DetsegError(f"no trial is complete{limit}: there is no best.yaml")


def _check_base(config: ExperimentConfig) -> None:
    """Raise a ConfigError if trials cannot have these settings."""
    trainer = config.trainer
    if trainer.fast_dev_run:
        raise ConfigError("trainer.fast_dev_run: leaves nothing to compare; set it to false")
    if trainer.max_time is not None:
        raise ConfigError("trainer.max_time: would stop trials halfway; leave it out, --time ends a search")
    if trainer.budget is not None:
        raise ConfigError("trainer.budget: trials are compared after as many epochs; set trainer.max_epochs instead")
    wrong = {"devices": trainer.devices not in ("auto", 1), "num_nodes": trainer.num_nodes != 1}
    for name in (name for name, is_wrong in wrong.items() if is_wrong):
        fix = "set it to 1, and start the command once for each GPU with its CUDA_VISIBLE_DEVICES"
        raise ConfigError(f"trainer.{name}: a trial has one device, got {getattr(trainer, name)}; {fix}")


def _completed(plan: Plan) -> Plan:
    """The plan with what its settings leave out chosen from the data, once for all trials: but for the loader processes
    of each machine, and for the network, where the space has several kinds."""
    try:
        config = resolve_data(plan.base)
        train_set = kind_of(config.model).open_dataset(config.data, "train")
    except DataError:
        return plan  # of which each trial says what is wrong
    done = stated_settings(complete(config, train_set, logging.DEBUG))
    if not is_stated(config, "data.num_workers"):
        done["data"].pop("num_workers", None)
    if any(one.name in ("model", "model.name") for one in plan.space):
        done["model"] = stated_settings(config).get("model", {})
    return replace(plan, settings=done, overrides=())


def _check_space(plan: Plan) -> None:
    """Raise a ConfigError if a value is no valid setting, as far as that is known without the data, or makes trials
    that cannot be compared."""
    backbones = list[Any]()

    def load(overrides: Sequence[Override]) -> None:
        config = config_from_dict(plan.settings, plan.name, [*plan.overrides, *overrides])
        if (name := criterion_of(config)) != plan.goal.criterion:
            what = f"model.name={config.model.name} is judged by {name}, the settings of the file by"
            raise ConfigError(f"{what} {plan.goal.criterion}: they cannot be compared; search models of one task")
        backbone = getattr(config.model, "backbone", None)
        if backbone is not None and backbone not in backbones:
            backbones.append(backbone)
            build_backbone(backbone, None, load_pretrained=False)

    check_space(plan.space, load)
    if plan.sampler != "grid" and values_of(plan.space, plan.base) is None:
        logger.info("the settings of the file are not in the space: no trial has them")


class _NoResultError(Exception):
    """An attempt ends without a result; what became of it is noted."""


class _Search:
    """The part of one process in a study."""

    def __init__(
        self, study: Study, plan: Plan, folder: Path, stop: StopRequest, grace: float, carry_out: CarryOut
    ) -> None:
        self.study, self.plan, self.folder, self.stop, self.grace = study, plan, folder, stop, grace
        self.carry_out = carry_out
        self._defaults = values_of(plan.space, plan.base)
        self._failures: list[str] = []  # of this process, in their order
        self._leaving: BaseException | None = None  # why this process ends
        self._is_lost = False  # another process has taken the trial over
        self._is_first = True  # trial of this process

    def trials(self) -> list[Trial]:
        """Those that are wanted, as far as they have begun, and those of an earlier command that wanted more."""
        return [trial for trial in trials_of(self.study) if trial.number < self.plan.num_trials or trial.ended]

    def write(self) -> None:
        write_results(self.folder, self.plan, self.study, self.trials())

    def run(self, deadline: float) -> None:
        """Run trials until none is left to begin or to take over; others' last trials are given time for a sign of
        life, so that whoever ends last has seen each process that was killed."""
        waits_until: float | None = None
        if (failed := self.trials()) and all(trial.state == "failed" for trial in failed):
            logger.info("all trials have failed so far: they begin again")
            queue_again(self.study, failed)
        while True:
            trials = queue_interrupted(self.study, self.plan.num_trials, self.grace)
            if len(trials) == self.plan.num_trials and all(trial.ended for trial in trials):
                return
            reason = "by --time" if time.monotonic() >= deadline else self.stop.reason
            if reason is not None:
                raise RunStoppedError(f"stopped {reason}; {self._how_far()}")
            if len(trials) < self.plan.num_trials or any(trial.state == "interrupted" for trial in trials):
                self._run_one()
                waits_until = None
                continue
            if waits_until is None:
                waits_until = time.monotonic() + 1.5 * self.grace
                running = [str(trial.number) for trial in trials if trial.state == "running"]
                logger.info(f"waiting for a sign of life of the processes of trials {listed(running)}")
            elif time.monotonic() > waits_until:
                return
            time.sleep(0.5)

    def _run_one(self) -> None:
        self._leaving, self._is_lost = None, False
        try:
            self.study.optimize(self._objective, n_trials=1, catch=(_NoResultError,))
        except ValueError:  # Optuna's word for a trial that has ended already
            if not self._is_lost:
                raise
            logger.warning("another process has taken this trial over, for want of a sign of life of this one")
        self.write()
        if self._leaving is not None:
            if isinstance(self._leaving, RunStoppedError):
                when = str(self._leaving).partition(";")[0]
                raise RunStoppedError(f"{when}; {self._how_far()}") from None
            raise self._leaving
        latest = self._failures[-_ENOUGH_FAILURES:]
        if len(latest) == _ENOUGH_FAILURES and len(set(latest)) == 1 and not any(t.metrics for t in self.trials()):
            raise DetsegError(f"the first {_ENOUGH_FAILURES} trials failed alike: {latest[0]}")

    def _how_far(self) -> str:
        ended = sum(trial.ended for trial in self.trials())
        return f"{ended} of {self.plan.num_trials} trials have ended; the same command goes on"

    def _objective(self, attempt: Attempt) -> list[float]:
        """Carry out an attempt, and return its metrics."""
        trial = next(t for t in trials_of(self.study) if attempt.number in (a.number for a in t.attempts))
        if trial.number >= self.plan.num_trials or trial.attempt.number != attempt.number:
            attempt.set_user_attr(STOPPED, True)  # other processes were faster
            raise _NoResultError
        try:
            metrics, is_pruned = self._train(attempt, trial)
            attempt.set_user_attr(METRICS, metrics)
        except BaseException as error:
            self._note(attempt, trial.number, error)
            raise _NoResultError from None
        logger.info(f"{self._name(trial)}{' (pruned)' if is_pruned else ''}: {metrics_text(metrics)}{self._best()}")
        if is_pruned:
            raise TrialPruned
        return [metrics[name] for name in self.plan.goal.objectives]

    def _name(self, trial: Trial) -> str:
        return f"trial {trial.number} of {self.plan.num_trials}"

    def _best(self) -> str:
        """The best of the trials so far, the one that is about to end among them."""
        criterion = self.plan.goal.criterion
        done = [t for t in self.trials() if t.state in ("complete", "running") and t.metrics]
        best = max(
            (t for t in done if self.plan.goal.allows(t.metrics)), key=lambda t: t.metrics[criterion], default=None
        )
        return "" if best is None else f", best so far {best.metrics[criterion]:.4g} (trial {best.number})"

    def _is_shown(self, record: logging.LogRecord) -> bool:
        """Whether what a training says is shown: what is of the data or the settings, once."""
        return self._is_first and (record.levelno >= logging.WARNING or record.getMessage().startswith("hint "))

    def _train(self, attempt: Attempt, trial: Trial) -> tuple[Mapping[str, float], bool]:
        """The metrics, and whether the training was pruned."""
        plan, run_dir, is_pruned = self.plan, trial_dir(self.folder, trial.number), False
        earlier = trial.validations
        self.study.sampler = sampler_of(plan.sampler, plan.space, plan.base.seed, trial.number, self._defaults)
        for parameter in plan.space:
            parameter.suggest(attempt)
        config = plan.config(attempt.params)
        values = ", ".join(f"{name}={value}" for name, value in attempt.params.items())
        log = self.folder / "logs" / f"{run_dir.name}.log"
        logger.info(f"{self._name(trial)}: {values}{f'; what it says is in {log}' if self._is_first else ''}")

        def is_enough(epoch: int, value: float) -> bool:
            nonlocal is_pruned
            if not plan.goal.has_trade_off and not math.isnan(value):  # of several metrics Optuna prunes nothing
                for before in [each for each in earlier if each < epoch]:  # of the run that is resumed
                    attempt.report(earlier.pop(before), before)
                earlier.pop(epoch, None)  # validated again
                attempt.report(value, epoch)
                is_pruned = epoch < config.trainer.max_epochs and attempt.should_prune()
            return is_pruned

        trainer = config.trainer.model_copy(update={"devices": 1})
        config = config.model_copy(update={"run_dir": run_dir, "trainer": trainer})
        try:
            with messages_to_file(log, self._is_shown):
                metrics = self.carry_out(config, plan.goal, is_enough, self.stop)
        finally:
            self._is_first = False
        if plan.goal.cost is not None and plan.goal.limit is not None:
            attempt.set_constraint(plan.goal.cost, metrics[plan.goal.cost] - plan.goal.limit)
        return metrics, is_pruned

    def _note(self, attempt: Attempt, number: int, error: BaseException) -> None:
        """Keep why an attempt has no result: in the study, and for this process where it ends, too."""
        stops = isinstance(error, RunStoppedError | KeyboardInterrupt | SystemExit)
        is_bug = not stops and not isinstance(error, DetsegError | UpdateFinishedTrialError)
        line = f"{type(error).__name__}: {one_line(error)}" if is_bug else "; ".join(str(error).splitlines())
        try:
            attempt.set_user_attr(*((STOPPED, True) if stops else (ERROR, line)))
        except UpdateFinishedTrialError:
            self._is_lost = True
        if stops or is_bug:
            self._leaving = error
        elif not self._is_lost:
            logger.warning(f"trial {number} failed: {line}")
            self._failures.append(line.replace(str(trial_dir(self.folder, number)), "its run directory"))
