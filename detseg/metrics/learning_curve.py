"""The score over the number of training images as a power law, and what twice the images would bring.

``score(n) = a - b · n^-c`` (Hestness et al. 2017, "Deep Learning Scaling is Predictable, Empirically"; Rosenfeld et al.
2020, "A Constructive Prediction of the Generalization Error Across Scales"). Four scores do not determine three
parameters, so there is no best curve here but all that fit, by how well they do: the posterior of a linear model for
each exponent (Gelman et al. 2013, "Bayesian Data Analysis", chapter 14), over all exponents. A bootstrap of the
residuals is far too sure with so few of them.

Letters: K exponents, P points, S draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from detseg.metrics.interface import without_nan
from detseg.structures import FloatArray

_EXPONENTS = np.linspace(0.05, 1.5, 59)  # 0.07 to 0.35 in Hestness et al.; 0.5 for the error of a mean
_NUM_DRAWS = 20_000
_FEWEST_SIZES = 4
_TOO_NOISY = 0.05  # standard deviation around the best curve
_LONG_ENOUGH = 0.8  # of the score of the run itself
_SURE, _LIKELY = 0.975, 0.05


class Point(NamedTuple):
    """The score of a training: with how many images, and of which seed."""

    num_images: int
    score: float
    seed: int


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """The scores of trainings on fractions of the images.

    Attributes:
        points: of at least two numbers of images.
        metric: what the scores are, in [0, 1].
        reached: the score of a training to its end with all images, by which trainings that were too short are told;
            None: not known.
    """

    points: tuple[Point, ...]
    metric: str
    reached: float | None = None

    @property
    def num_images(self) -> int:
        """The largest number of images."""
        return max(point.num_images for point in self.points)

    @property
    def doubt(self) -> str | None:
        """Why nothing is predicted, in one line; None: it is."""
        sizes = sorted({point.num_images for point in self.points})
        if len(sizes) < _FEWEST_SIZES:
            return f"{len(sizes)} numbers of images are too few for a curve; train on {_FEWEST_SIZES} or more"
        if any(math.isnan(point.score) for point in self.points):
            return f"{self.metric} of a training is not defined"
        with_all = float(np.mean([point.score for point in self.points if point.num_images == self.num_images]))
        if self.reached is not None and with_all < _LONG_ENOUGH * self.reached:
            scores = f"{self.metric} with all images is {with_all:.3f}, and {self.reached:.3f} of the run itself"
            return f"the trainings were too short: {scores}; give them more epochs"
        if (noise := self._noise) > _TOO_NOISY:
            return f"trainings differ by {noise:.3f} from any curve; train longer, or with several seeds"
        if self._rises < 1 - _SURE:
            return f"{self.metric} falls with more images; were the trainings too short to learn from all of them?"
        if len(self._draws[0]) < _LIKELY * _NUM_DRAWS:
            return f"{self.metric} rises as no power law does that ends at 1; more images help, how much is not clear"
        return None

    @property
    def gain(self) -> tuple[float, float, float]:
        """What twice the images would bring: the median, and the ends of the 95 % interval; NaN where ``doubt``."""
        if self.doubt:
            return (math.nan,) * 3
        middle, low, high = np.quantile(self._draws[1], (0.5, 0.025, 0.975)).tolist()
        return (middle, low if self._rises >= _SURE else 0.0, high)

    @property
    def verdict(self) -> str:
        """Whether more images would help, in one sentence."""
        if self.doubt:
            return f"no prediction: {self.doubt}"
        middle, low, high = self.gain
        what = f"twice the images ({2 * self.num_images}) would bring {self.metric} {middle:+.3f}"
        what = f"{what} ({low:.3f} to {high:.3f})"
        return what if low > 0 else f"not clear that more images help: {what}"

    def band(self, num_images: Sequence[float]) -> FloatArray:
        """(N, 3) the median score at each number of images, and the ends of its 95 % interval; NaN where ``doubt``."""
        if self.doubt:
            return np.full((len(num_images), 3), np.nan)
        last, gain, exponent = self._draws
        return np.array(
            [
                np.quantile(last + gain * _rise(np.array(num / self.num_images), exponent), (0.5, 0.025, 0.975))
                for num in num_images
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file."""
        points = [point._asdict() for point in self.points]
        plain: dict[str, Any] = without_nan(
            {"metric": self.metric, "points": points, "gain": self.gain, "verdict": self.verdict}
        )
        return plain

    @cached_property
    def _fits(self) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """For each exponent a straight line of the scores over ``_rise``: (K,) slopes, which are the gains; means of
        the abscissas; their squared deviations; and sums of the squared residuals."""
        ratios = np.array([point.num_images for point in self.points]) / self.num_images
        scores = np.array([point.score for point in self.points])
        x = _rise(ratios, _EXPONENTS[:, None])  # K P
        means = x.mean(axis=1)
        deviations, residuals = x - means[:, None], scores - scores.mean()
        spread = (deviations**2).sum(axis=1)
        slopes = deviations @ residuals / spread
        left = ((residuals - slopes[:, None] * deviations) ** 2).sum(axis=1)
        return slopes, means, spread, np.maximum(left, 1e-12)

    @property
    def _noise(self) -> float:
        return math.sqrt(float(self._fits[3].min()) / (len(self.points) - 2))

    @cached_property
    def _posterior(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """(S,) draws of the score with all images, of the gain, and of the exponent: flat in the first two and in the
        logarithm of the noise, for each exponent."""
        slopes, means, spread, left = self._fits
        rng, num, freedom = np.random.default_rng(0), len(self.points), len(self.points) - 2
        log_weights = -0.5 * np.log(spread) - freedom / 2 * np.log(left)
        weights = np.exp(log_weights - log_weights.max())
        which = rng.choice(len(_EXPONENTS), _NUM_DRAWS, p=weights / weights.sum())
        variance = left[which] / rng.chisquare(freedom, _NUM_DRAWS)
        gain = slopes[which] + np.sqrt(variance / spread[which]) * rng.standard_normal(_NUM_DRAWS)
        mean = np.mean([point.score for point in self.points])
        middle = mean + np.sqrt(variance / num) * rng.standard_normal(_NUM_DRAWS)
        return middle - gain * means[which], gain, _EXPONENTS[which]

    @property
    def _rises(self) -> float:
        """The probability that more images help."""
        return float(np.mean(self._posterior[1] > 0))

    @cached_property
    def _draws(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Those of curves that rise, and to no more than 1."""
        last, gain, exponent = self._posterior
        possible = (gain >= 0) & (last + gain / (1 - 2.0**-exponent) <= 1)
        return last[possible], gain[possible], exponent[possible]


def _rise(ratio: FloatArray, exponent: FloatArray) -> FloatArray:
    """Where a number of images lies on the curve, by its ratio to the largest one: 0 at that, 1 at twice as many."""
    return np.asarray((1 - ratio**-exponent) / (1 - 2.0**-exponent))
