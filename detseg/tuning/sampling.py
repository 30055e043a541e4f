"""What a search tries next: a grid, random values, or what the tree-structured Parzen estimator proposes.

Random search: Bergstra and Bengio 2012. TPE: Bergstra et al. 2011, for several metrics Ozaki et al. 2022.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from detseg.errors import ConfigError
from detseg.tuning.space import Space

_LARGEST_GRID = 1_000_000


class GivenValues(BaseSampler):
    """Proposes the values that it is given."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing: each value is asked for by itself."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing, likewise."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The value of a parameter."""
        return self.values[param_name]


def sampler_of(name: str, space: Space, seed: int, number: int, defaults: Mapping[str, Any] | None) -> BaseSampler:
    """What proposes the values of a trial: a function of seed and number, so that no two trials draw the same numbers,
    whichever process they run in.

    Args:
        name: ``tpe``, ``random`` or ``grid``.
        space: the parameters.
        seed: of the search.
        number: of the trial, from 0.
        defaults: what the first trial takes, but that of a grid; None: what is proposed.
    """
    if name == "grid":
        return GivenValues(_grid_point(space, seed, number))
    if number == 0 and defaults is not None:
        return GivenValues(defaults)
    own_seed = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
    return RandomSampler(own_seed) if name == "random" else TPESampler(seed=own_seed)


def grid_size(space: Space) -> int:
    """The number of points of a grid; ConfigError: a parameter has no single values, or there are far too many."""
    size = int(np.prod([len(parameter.grid_values()) for parameter in space], dtype=object))
    if size > _LARGEST_GRID:
        raise ConfigError(f"--sampler grid: the space has {size} points, more than {_LARGEST_GRID}; take tpe or random")
    return size


def _grid_point(space: Space, seed: int, number: int) -> dict[str, Any]:
    """The points come in random order, so that a part of the grid is spread over all of it."""
    axes = [parameter.grid_values() for parameter in space]
    point = np.random.default_rng(seed).permutation(grid_size(space))[number]
    indices = np.unravel_index(int(point), [len(axis) for axis in axes])
    return {parameter.name: axis[int(i)] for parameter, axis, i in zip(space, axes, indices, strict=True)}
