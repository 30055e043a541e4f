"""What of a result is kept, and cleaned: calibrated scores, classes, thresholds of their own, specks and holes of masks
and maps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np

from detseg.errors import ConfigError, DataError
from detseg.messages import did_you_mean, listed, one_line, shown
from detseg.ops.masks import encode_part
from detseg.ops.regions import drop_specks, fill_holes, relabel_specks
from detseg.predict.results import Detections, SegmentationMap
from detseg.structures import ClassTable, InstanceMasks

_Result = TypeVar("_Result", Detections, SegmentationMap)

_Corners: TypeAlias = Sequence[tuple[float, float]]
_ROUNDING = 1e-6  # of scores


@dataclass(frozen=True)
class ScoreCalibration:
    """Replaces scores by the fraction of detections that were right at them, ``calibrate(found)``.

    Attributes:
        classes: name of a class → corners (score, fraction) of its map, both ascending, between which it is linear.
        others: that of all other classes.
    """

    classes: Mapping[str, _Corners]
    others: _Corners

    def __call__(self, found: Detections) -> Detections:
        """The same objects with these scores, best first."""
        scores, names = found.scores.copy(), np.array(found.names, dtype=np.str_)
        for name in dict.fromkeys(found.names):
            own = names == name
            scores[own] = self.fraction(name, found.scores[own])
        return replace(found, scores=scores)[np.argsort(-scores, kind="stable")]

    def fraction(self, name: str, scores: Any) -> Any:
        """What scores of a class, a number or an array of them, become."""
        corners = np.array(self.classes.get(name, self.others), dtype=np.float64)
        return np.interp(scores, corners[:, 0], corners[:, 1])

    def lowest(self, fraction: float) -> float:
        """The score from which a predictor has to find objects, so that none is missed that becomes ``fraction`` or
        more; 1 if none does."""
        return min(_lowest(corners, fraction) for corners in (*self.classes.values(), self.others))

    @property
    def fingerprint(self) -> str:
        """What tells it from others."""
        content = json.dumps([dict(self.classes), self.others], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def _lowest(corners: _Corners, fraction: float) -> float:
    before: tuple[float, float] | None = None
    for score, value in corners:
        if value >= fraction:
            if before is None:
                return 0.0
            part = (fraction - before[1]) / (value - before[1])
            return max(before[0] + part * (score - before[0]) - _ROUNDING, 0.0)
        before = score, value
    return 1.0


@dataclass(frozen=True)
class Refinement:
    """Applied to each result, ``refine(found)``; by default nothing changes.

    Attributes:
        classes: of detections, the names of those that are kept; none: all.
        thresholds: of detections, name of a class → the score below which they are left out, beside that of the
            predictor; classes that are not named have none.
        min_area: masks lose their regions of fewer pixels, and an object goes with its last one; in label maps such
            regions take the label around them (``relabel_specks``).
        fill_holes: holes of masks of at most so many pixels are filled.
        calibration: of detections: comes first, so that thresholds are of the scores that it gives.

    Raises:
        ConfigError: a number of pixels is negative.
    """

    classes: Sequence[str] = ()
    thresholds: Mapping[str, float] = field(default_factory=dict)
    min_area: int = 0
    fill_holes: int = 0
    calibration: ScoreCalibration | None = None

    def __post_init__(self) -> None:
        for name, pixels in (("min_area", self.min_area), ("fill_holes", self.fill_holes)):
            if pixels < 0:
                raise ConfigError(f"{name}: expected a number of pixels, 0 or more, got {pixels}")

    def check(self, table: ClassTable, finds_objects: bool) -> None:
        """Raise a ConfigError for a class that the model does not have, or what is not for its kind of results."""
        for name in () if finds_objects else ("classes", "thresholds", "fill_holes", "calibration"):
            if getattr(self, name):
                more = "; min_area gives specks and holes the label around them" if name == "fill_holes" else ""
                raise ConfigError(f"{name}: is for detectors, and this is a segmentation model; leave it out{more}")
        check_names("classes", self.classes, table)
        check_names("thresholds", self.thresholds, table)
        check_names("calibration", () if self.calibration is None else self.calibration.classes, table)

    def lowest_score(self, score_threshold: float, table: ClassTable) -> float:
        """What the scores that are kept are not below, of a detector with this threshold."""
        lowest = []
        for name in self.classes or table.names:
            least = score_threshold if self.calibration is None else self.calibration.fraction(name, score_threshold)
            lowest.append(max(float(least), self.thresholds.get(name, 0.0)))
        return min(lowest)

    def __call__(self, found: _Result) -> _Result:
        """The result with all of this applied. ConfigError: masks are to be cleaned, and there are none."""
        if isinstance(found, SegmentationMap):
            return replace(found, labels=relabel_specks(found.labels, self.min_area)) if self.min_area > 1 else found
        if self.calibration is not None:
            found = self.calibration(found)
        if self.classes or self.thresholds:
            found = found[self._kept(found)]
        return self._cleaned(found) if self.min_area > 1 or self.fill_holes else found

    def _kept(self, found: Detections) -> list[bool]:
        wanted = set(self.classes)
        least = {name: np.float32(score) for name, score in self.thresholds.items()}  # as scores are
        pairs = zip(found.names, found.scores, strict=True)
        return [(not wanted or name in wanted) and bool(score >= least.get(name, 0)) for name, score in pairs]

    def _cleaned(self, found: Detections) -> Detections:
        masks = found.masks
        if masks is None:
            raise ConfigError("min_area, fill_holes: are for masks, and this model finds boxes alone; leave them out")
        counts, kept = [], []
        for i in range(len(masks)):
            part, corner = masks.part(i)
            if not part.size and self.min_area > 1:
                continue
            if part.size:
                part = fill_holes(part, self.fill_holes)
                part = drop_specks(part, self.min_area)
                if not part.any():
                    continue
            counts.append(encode_part(part, corner, masks.hw))
            kept.append(i)
        return replace(found[kept], masks=InstanceMasks(masks.hw, tuple(counts)))


def read_thresholds(path: Path) -> dict[str, float]:
    """The thresholds of classes by name, from ``thresholds.json`` of a report. DataError: it is missing, or no such
    file."""
    content = _read_json(path)
    if not isinstance(content, dict) or not all(_is_score(value) for value in content.values()):
        what = "expected names of classes with scores from 0 to 1, as `detseg report` writes them"
        raise DataError(f"{path}: {what}, got {shown(content)}")
    return {name: float(value) for name, value in content.items()}


def read_calibration(path: Path) -> ScoreCalibration:
    """The ``calibration.json`` of a report. DataError: it is missing, or no such file."""
    content = _read_json(path)
    entries: dict[str, Any] = content if isinstance(content, dict) else {}
    classes: Any = entries.get("classes")
    others: Any = entries.get("other classes")
    if not isinstance(classes, dict) or not all(map(_is_monotone, (*classes.values(), others))):
        what = "expected corners (score, fraction right) that ascend from 0 to 1, as `detseg report` writes them"
        raise DataError(f"{path}: {what}, got {shown(content)}")
    return ScoreCalibration(classes, others)


def _is_monotone(corners: Any) -> bool:
    if not isinstance(corners, list) or not corners:
        return False
    if not all(isinstance(one, list) and len(one) == 2 and all(map(_is_score, one)) for one in corners):
        return False
    return all(low[0] < high[0] and low[1] <= high[1] for low, high in pairwise(corners))


def _read_json(path: Path) -> object:
    try:
        content: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({one_line(error)}); `detseg report` writes it") from error
    return content


def _is_score(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def check_names(what: str, names: Iterable[str], table: ClassTable) -> None:
    """Raise a ConfigError, which begins with ``what``, for a name that the table does not have."""
    for name in names:
        if name not in table.names:
            known = f"{did_you_mean(name, table.names)}; the classes are {listed(table.names)}"
            raise ConfigError(f"{what}: the model has no class {shown(name)}{known}")
