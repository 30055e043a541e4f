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
_NEAR_LAST, _NEAR_FIRST = 2.0, 10.0  # factors: so near to the end of the range the curve is not all there


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

    The suggestion is the rate at which the smoothed loss is half-way down to its lowest. It is close to the steepest
    descent, and moves less with the noise of single batches than that or a fraction of the rate of the lowest loss.

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
        return None if self.doubt else float(f"{self.rates[self._half]:.1e}")

    @property
    def doubt(self) -> str | None:
        """Why the curve suggests no rate, in one line; None: it does."""
        smoothed, lowest = self.smoothed, int(self.smoothed.argmin())
        noise = 1.48 * float(np.median(np.abs(self.losses - smoothed)))  # the standard deviation, without outliers
        error = noise * float(np.linalg.norm(_weights(self.rates, self.rates[:1])))
        if smoothed[0] - smoothed[lowest] <= max(_CLEAR * error, _LEAST * abs(smoothed[0])):
            what = f"from {smoothed[0]:.3g} to {smoothed[lowest]:.3g}, where steps differ by {noise:.2g}"
            return f"the loss does not fall clearly ({what}): more steps may show a fall; a trained model has none"
        if self.stopped is None and self.rates[lowest] * _NEAR_LAST > self.rates[-1]:
            return f"the loss still falls at the highest rate, {self.rates[-1]:.2g}: raise it"
        if self.rates[self._half] < self.rates[0] * _NEAR_FIRST:
            return f"the loss falls from the lowest rate on, {self.rates[0]:.2g}: lower it"
        return None

    @property
    def verdict(self) -> str:
        """One line: what is suggested and why, or why nothing is."""
        if (rate := self.suggestion) is None:
            return f"no suggestion: {self.doubt}"
        fall = f"from {self.smoothed[0]:.3g} to {self.smoothed.min():.3g}"
        return f"suggested optimizer.lr={rate:g} (now {self.present_lr:g}): there the loss is half-way down {fall}"

    @property
    def _half(self) -> int:
        return int((self.smoothed <= (self.smoothed[0] + self.smoothed.min()) / 2).argmax())

    def to_csv(self) -> str:
        """A table with the columns ``lr``, ``loss`` and ``smoothed_loss``."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("lr", "loss", "smoothed_loss"))
        table.writerows(zip(self.rates.tolist(), self.losses.tolist(), self.smoothed.tolist(), strict=True))
        return text.getvalue()
