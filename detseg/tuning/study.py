"""The study of a search: Optuna's database, which the processes share, and what they must agree on."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.storages import RDBStorage
from optuna.study import Study, StudyDirection
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from detseg.config.load import config_from_dict, config_to_dict, differences
from detseg.config.schema.experiment import ExperimentConfig
from detseg.errors import ConfigError
from detseg.messages import one_line
from detseg.tuning.objective import Goal
from detseg.tuning.space import Choice, Space, overrides_of

_PLAN = "detseg"  # the study's attribute that says what it searches
_MAY_DIFFER = frozenset({"run_dir", "data.root", "data.num_workers", "data.loader_timeout", "trainer.accelerator"})
"""Settings that may differ from machine to machine."""
_OPENING_SECONDS = 5

RESULTS = ("best.yaml", "trials.csv", "study.html")
"""Files of a study's folder, beside its database and the trials."""


@dataclass(frozen=True)
class Plan:
    """What is searched.

    Attributes:
        name: of the configuration file, for errors.
        settings, overrides: what it says, and what is said after it.
        space: those that vary.
        goal: the metrics.
        sampler: ``tpe``, ``random`` or ``grid``.
        num_trials: of all processes together.
        prune: whether trials end early that validate worse than the median of the others.
    """

    name: str
    settings: Mapping[str, Any]
    overrides: Sequence[str]
    space: Space
    goal: Goal
    sampler: str
    num_trials: int
    prune: bool

    @cached_property
    def base(self) -> ExperimentConfig:
        """The settings without values for those that vary."""
        return config_from_dict(self.settings, self.name, self.overrides)

    def config(self, values: Mapping[str, Any]) -> ExperimentConfig:
        """The settings of a trial."""
        return config_from_dict(self.settings, self.name, [*self.overrides, *overrides_of(self.space, values)])

    @property
    def content(self) -> dict[str, Any]:
        """What all processes of a study must have in common, as plain data."""
        space = {p.name: p.settings if isinstance(p, Choice) else [p.low, p.high, p.step, p.log] for p in self.space}
        goal = {"metrics": self.goal.names, "limit": self.goal.limit, "sampler": self.sampler}
        content: dict[str, Any] = json.loads(json.dumps({"settings": config_to_dict(self.base), "space": space} | goal))
        return content

    @property
    def pruner(self) -> BasePruner:
        """Judges from the second third of the epochs on, once five trials are complete."""
        return MedianPruner(n_warmup_steps=self.base.trainer.max_epochs // 3) if self.prune else NopPruner()


def open_study(plan: Plan, folder: Path, storage: str | None, beat: int, grace: int) -> Study:
    """Begin the study of a folder, or join it.

    Args:
        plan: what is searched.
        folder: where trials are written; its name is the study's.
        storage: URL of a database; None: a SQLite file in the folder.
        beat, grace: seconds from one sign of life of a running trial to the next, and until it counts as killed.

    Raises:
        ConfigError: the database cannot be opened, or the study is another one.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    directions = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE][: len(plan.goal.objectives)]
    own = URL.create("sqlite", database=str(folder.absolute() / "study.db")).render_as_string(hide_password=False)
    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=_database(storage or own, beat, grace),
        pruner=plan.pruner,
        study_name=folder.absolute().name,
        directions=directions,
        load_if_exists=True,
    )
    if _PLAN not in study.user_attrs:
        study.set_user_attr(_PLAN, plan.content)
    then, now = study.user_attrs[_PLAN], plan.content
    other = [*differences(then.pop("settings"), now.pop("settings"), _MAY_DIFFER), *differences(then, now)]
    if other:
        fix = "repeat the command that began it, or begin another study with --study"
        raise ConfigError(f"{folder}: holds another study: {'; '.join(other[:3])}; {fix}")
    left = [path for pattern in ("trial_*", *RESULTS) for path in sorted(folder.glob(pattern))]
    if left and not study.get_trials(deepcopy=False):
        raise ConfigError(f"{left[0]}: is not of this study, which begins; give it another folder with --study")
    return study


def _database(url: str, beat: int, grace: int) -> RDBStorage:
    """The database; again where it fails, since two processes that begin at once may both be making its tables."""
    options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    last_try = time.monotonic() + _OPENING_SECONDS
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return RDBStorage(url, options, heartbeat_interval=beat, grace_period=grace)
        except (SQLAlchemyError, ImportError, RuntimeError) as error:  # the last: made by another version of Optuna
            if time.monotonic() > last_try or not isinstance(error, DBAPIError):
                raise ConfigError(f"--storage: the database cannot be opened: {one_line(error)}") from error
            time.sleep(0.3)
