"""What of a result is kept, and cleaned: classes, thresholds of their own, specks and holes of masks and maps."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from detseg.errors import ConfigError, DataError
from detseg.messages import did_you_mean, listed, one_line, shown
from detseg.ops.masks import encode_part
from detseg.ops.regions import drop_specks, fill_holes, relabel_specks
from detseg.predict.results import Detections, SegmentationMap
from detseg.structures import ClassTable, InstanceMasks

_Result = TypeVar("_Result", Detections, SegmentationMap)


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

    Raises:
        ConfigError: a number of pixels is negative.
    """

    classes: Sequence[str] = ()
    thresholds: Mapping[str, float] = field(default_factory=dict)
    min_area: int = 0
    fill_holes: int = 0

    def __post_init__(self) -> None:
        for name, pixels in (("min_area", self.min_area), ("fill_holes", self.fill_holes)):
            if pixels < 0:
                raise ConfigError(f"{name}: expected a number of pixels, 0 or more, got {pixels}")

    def check(self, table: ClassTable, finds_objects: bool) -> None:
        """Raise a ConfigError for a class that the model does not have, or what is not for its kind of results."""
        check_names("classes", self.classes, table)
        check_names("thresholds", self.thresholds, table)
        if finds_objects:
            return
        for name in ("classes", "thresholds", "fill_holes"):
            if getattr(self, name):
                more = "; min_area gives specks and holes the label around them" if name == "fill_holes" else ""
                raise ConfigError(f"{name}: is for detectors, and this is a segmentation model; leave it out{more}")

    def __call__(self, found: _Result) -> _Result:
        """The result with all of this applied. ConfigError: masks are to be cleaned, and there are none."""
        if isinstance(found, SegmentationMap):
            return replace(found, labels=relabel_specks(found.labels, self.min_area)) if self.min_area > 1 else found
        if self.classes or self.thresholds:
            found = found[self._kept(found)]
        return self._cleaned(found) if self.min_area > 1 or self.fill_holes else found

    def _kept(self, found: Detections) -> list[bool]:
        pairs = zip(found.names, found.scores.tolist(), strict=True)
        wanted = set(self.classes)
        return [(not wanted or name in wanted) and score >= self.thresholds.get(name, 0.0) for name, score in pairs]

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
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({one_line(error)}); `detseg report` writes it") from error
    if not isinstance(content, dict) or not all(_is_score(value) for value in content.values()):
        what = "expected names of classes with scores from 0 to 1, as `detseg report` writes them"
        raise DataError(f"{path}: {what}, got {shown(content)}")
    return {name: float(value) for name, value in content.items()}


def _is_score(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def check_names(what: str, names: Iterable[str], table: ClassTable) -> None:
    """Raise a ConfigError, which begins with ``what``, for a name that the table does not have."""
    for name in names:
        if name not in table.names:
            known = f"{did_you_mean(name, table.names)}; the classes are {listed(table.names)}"
            raise ConfigError(f"{what}: the model has no class {shown(name)}{known}")
