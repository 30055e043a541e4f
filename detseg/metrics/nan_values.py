"""Numbers that may be undefined (NaN): their mean, on the screen, and as plain data."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np


def mean_defined(values: Iterable[float]) -> float:
    """The mean of the numbers that are not NaN; NaN if there are none."""
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")


def ratio(part: float, whole: float) -> float:
    """``part / whole``; NaN where ``whole`` is 0."""
    return part / whole if whole else float("nan")


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
