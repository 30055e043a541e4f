"""Ids that stay with objects from frame to frame: ByteTrack (Zhang et al. 2022), of the package trackers."""

from __future__ import annotations

from typing import Any

import numpy as np

from detseg.errors import MissingExtraError
from detseg.predict.results import Detections

_MARGIN = 0.1
"""Above the lowest score: what scores less goes on with a track, but begins none, as in the paper."""


class ObjectTracker:
    """Follows the objects of one video, whatever their class, by their boxes alone.

    Args:
        fps: frames per second.
        least_score: of the detections that it gets, in [0, 1].

    Raises:
        MissingExtraError: the packages are not installed.
    """

    def __init__(self, fps: float, least_score: float) -> None:
        try:
            import supervision
            from trackers import ByteTrackTracker
        except ImportError as error:
            raise MissingExtraError(f'tracking needs {error.name}: pip install "detseg[track]"') from error
        begins = min(least_score + _MARGIN, 1.0)
        self._detections: Any = supervision.Detections
        self._tracker: Any = ByteTrackTracker(
            frame_rate=fps, track_activation_threshold=begins, high_conf_det_threshold=begins
        )

    def update(self, found: Detections, time: float) -> list[int | None]:
        """The tracks of the N objects of the next frame, at a time in seconds: numbers from 0. None: of none yet, as
        in the first frame in which an object is seen."""
        ids: list[int | None] = [None] * len(found)
        columns: dict[str, Any] = {"xyxy": found.boxes, "confidence": found.scores, "class_id": found.labels}
        given = self._detections(**columns, data={"position": np.arange(len(found))})
        tracked = self._tracker.update(given, timestamp=time)
        for position, number in zip(tracked.data.get("position", ()), tracked.tracker_id, strict=True):
            ids[int(position)] = None if number < 0 else int(number)
        return ids
