"""The interface of evaluators and their results, whatever the task; numbers that may be undefined (NaN), and tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from detseg.errors import ConfigError
from detseg.messages import did_you_mean, listed, shown
from detseg.structures import Batch

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


class Result(Protocol):
    """The result of an evaluation."""

    @property
    def headline(self) -> dict[str, float]:
        """The numbers to follow, most important first; the best checkpoint and early stopping go by the first, or by
        the one that ``trainer.monitor`` names."""

    @property
    def numbers(self) -> dict[str, float]:
        """All numbers of the whole set by name; those of the headline are among them."""

    @property
    def by_class(self) -> dict[str, tuple[float, ...]]:
        """Metric → its number for each class, in the order of the labels."""

    def explain(self) -> list[str]:
        """What is suspicious about the result, one sentence each."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file; what is undefined is None."""

    def table(self) -> RenderableType:
        """The numbers for the screen, 80 columns wide."""

    def class_table(self) -> RenderableType:
        """Those of each class alone."""


class Evaluator(Protocol):
    """Collects predictions and ground truth, batch by batch, and scores them."""

    def reset(self) -> None:
        """Forget everything collected."""

    def update_batch(self, batch: Batch, predictions: Any, /) -> None:
        """Add an evaluation batch and what the model's ``predict`` returned for its images."""

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Everything collected as plain arrays by name, for another process to ``merge``."""

    def merge(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Add the images of another evaluator's ``state``; the numbers do not depend on the order."""

    def compute(self) -> Result:
        """Score everything collected so far; the state stays."""


def mean_defined(values: Iterable[float]) -> float:
    """The mean of the numbers that are not NaN; NaN if there are none."""
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


def class_weights_of(names: Sequence[str], weights: Mapping[str, float] | None) -> tuple[float, ...] | None:
    """The weight of each class, 1 where ``weights`` does not name it; None for None. ConfigError: it names a class that
    there is not, or no class has any weight."""
    if weights is None:
        return None
    for name in weights:
        if name not in names:
            what = f"there is no class {shown(name)}{did_you_mean(name, names)}"
            raise ConfigError(f"evaluation.class_weights: {what}; the classes are {listed(names)}")
    found = tuple(float(weights.get(name, 1.0)) for name in names)
    if not any(found):
        raise ConfigError("evaluation.class_weights: all are 0; give a class that counts a weight above 0")
    return found


def weighted_mean(values: Iterable[float], weights: Iterable[float]) -> float:
    """The weighted mean of the numbers that are not NaN; NaN where none of them has a weight."""
    pairs = [(value, weight) for value, weight in zip(values, weights, strict=True) if not math.isnan(value)]
    return ratio(sum(value * weight for value, weight in pairs), sum(weight for _, weight in pairs))


def ratio(part: float, whole: float) -> float:
    """``part / whole``; NaN where ``whole`` is 0."""
    return part / whole if whole else math.nan


def format_number(value: float) -> str:
    """Three decimals; a dash for NaN."""
    return "-" if math.isnan(value) else f"{value:.3f}"


def without_nan(data: Any) -> Any:
    """Dictionaries, lists and numbers with None in place of NaN, which JSON does not have."""
    if isinstance(data, dict):
        return {key: without_nan(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [without_nan(value) for value in data]
    return None if isinstance(data, float) and math.isnan(data) else data


def new_table(
    title: str, columns: Sequence[str] = (), padding: int | tuple[int, int] = (0, 1), of: str = "class"
) -> Table:
    """A table without rows: what each is ``of``, and ``columns`` of numbers; without columns it has no header."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", padding=padding, show_header=bool(columns))
    if columns:
        table.add_column(of, overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table
