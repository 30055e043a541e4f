"""The loss over the learning rate that a range test has measured, and the rate that it suggests."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_WIDTH = 0.15  # of the smoothing: standard deviation in decades of the rate
_CLEAR, _LEAST = 4.0, 0.01  # a fall counts above so many standard errors of the smoothed loss, and this part of it
_NEAR_LAST = 2.0  # a factor: so near to the last rate the loss still falls
_AT_ONCE = 10.0  # a factor: so near to the first rate the loss diverges at once
_PART = 20  # the suggestion is this part of the rate of the lowest loss: docs/benchmarks.md has what it trains to


def smooth(rates: Floats, losses: Floats) -> Floats:
    """Means of the losses (N,), weighted by a Gaussian over the distance of the rates in decades. A running mean would
    shift the curve towards higher rates."""
    smoothed: Floats = _weights(rates) @ losses
    return smoothed


def smooth_last(rates: Floats, losses: Floats) -> float:
    """The last of the smoothed losses, as far as they are known."""
    return float(_weights(rates, rates[-1:])[0] @ losses)


def _weights(rates: Floats, at: Floats | None = None) -> Floats:
    """(M, N): in row i those of the N losses in the smoothed loss at ``at[i]``, with a sum of 1; None: at all rates."""
    decades = np.log10(rates)
    places = decades if at is None else np.log10(at)
    weights = np.exp(-((places[:, None] - decades) ** 2) / (2 * _WIDTH**2))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


@dataclass(frozen=True, eq=False)
class LrCurve:
    """The losses of a range test.

    The suggestion is a twentieth of the rate at which the smoothed loss is lowest. A tenth is more usual, and was too
    high in half of the comparisons of docs/benchmarks.md; the rate of the steepest fall is far too low where a loss
    falls in two steps.

    Attributes:
        rates: (N,) float64, of the steps, rising: values of ``optimizer.lr``.
        losses: (N,) float64, finite, of the batch of each step, before it.
        stopped: why there was no further step, in words; None: the last rate was reached.
        present_lr: ``optimizer.lr`` of the settings.
    """

    rates: Floats
    losses: Floats
    stopped: str | None
    present_lr: float

    @cached_property
    def smoothed(self) -> Floats:
        """(N,) float64: the losses without the noise of single batches."""
        return smooth(self.rates, self.losses)

    @property
    def suggestion(self) -> float | None:
        """A value for ``optimizer.lr``, of two digits; None: the curve shows none, see ``doubt``."""
        return None if self.doubt else float(f"{self._lowest_rate / _PART:.1e}")

    @property
    def doubt(self) -> str | None:
        """Why the curve suggests no rate, in one line; None: it does."""
        smoothed, lowest = self.smoothed, self.smoothed.min()
        noise = 1.48 * float(np.median(np.abs(self.losses - smoothed)))  # the standard deviation, without outliers
        error = noise * float(np.linalg.norm(_weights(self.rates, self.rates[:1])))
        if smoothed[0] - lowest <= max(_CLEAR * error, _LEAST * abs(smoothed[0])):
            what = f"from {smoothed[0]:.3g} to {lowest:.3g}, where steps differ by {noise:.2g}"
            if self.stopped is not None and self.rates[-1] < _AT_ONCE * self.rates[0]:
                return f"the test ended soon after its first rate, {self.rates[0]:.2g}, without a fall: begin lower"
            return f"the loss does not fall clearly ({what}): more steps may show a fall; a trained model has none"
        if self.stopped is None and self._lowest_rate * _NEAR_LAST > self.rates[-1]:
            return f"the loss still falls at the highest rate, {self.rates[-1]:.2g}: raise it"
        if self._lowest_rate / _PART < self.rates[0]:
            return f"the loss falls within the first rates, from {self.rates[0]:.2g} on: begin lower"
        return None

    @property
    def verdict(self) -> str:
        """One line: what is suggested and why, or why nothing is."""
        if (rate := self.suggestion) is None:
            return f"no suggestion: {self.doubt}"
        lowest = f"the rate where the loss is lowest, {self._lowest_rate:.2g}"
        return f"suggested optimizer.lr={rate:g} (now {self.present_lr:g}): a twentieth of {lowest}"

    @property
    def _lowest_rate(self) -> float:
        return float(self.rates[self.smoothed.argmin()])

    def to_csv(self) -> str:
        """A table with the columns ``lr``, ``loss`` and ``smoothed_loss``."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("lr", "loss", "smoothed_loss"))
        table.writerows(zip(self.rates.tolist(), self.losses.tolist(), self.smoothed.tolist(), strict=True))
        return text.getvalue()
