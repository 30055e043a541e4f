"""What is written of a video: a copy with the results drawn on its frames (MP4), and JSON lines, one a frame."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import cv2
import numpy as np

from detseg.atomic_write import write_errors
from detseg.draw import draw_boxes
from detseg.errors import DataError
from detseg.predict.outputs.detections import describe_objects
from detseg.predict.results import Detections, SegmentationMap
from detseg.predict.video.frames import Frame
from detseg.structures import UInt8Array

_LONGEST_PAUSE = 10.0  # seconds that a frame of a live source is shown at most
_MOST_TICKS = 65535  # a second in MPEG-4: of a rate with three decimals a thousand times it


class VideoFiles:
    """The files of one video, a context that leaves them whole.

    Args:
        lines: where the JSON lines go.
        header: the first one, which says what made the others.
        drawn: where the drawn video goes; None: there is none.
        fps: of the drawn video, which has a constant rate.
        keeps_time: whether frames are repeated where some are missing, and left out where they come faster than
            ``fps``, so that it is as long as it took; else it has as many frames as were added.

    Raises:
        DataError: a file cannot be written.
    """

    def __init__(self, lines: Path, header: bytes, drawn: Path | None, fps: float, keeps_time: bool) -> None:
        with write_errors(lines):
            self._lines: IO[bytes] = lines.open("wb")
            self._lines.write(header)
            self._lines.flush()
        self._path, self._drawn, self._keeps_time = lines, drawn, keeps_time
        self._fps = round(fps, int(math.log10(_MOST_TICKS / fps)))
        self._writer: Any = None
        self._hw, self._num_drawn = (0, 0), 0

    def __enter__(self) -> VideoFiles:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lines.close()
        if self._writer is not None:
            self._writer.release()

    def add(self, frame: Frame, found: Detections | SegmentationMap, tracks: list[int | None] | None) -> None:
        """Write the result of the next frame; ``tracks``: of its objects, None without tracking. DataError: it could
        not be written."""
        if self._drawn is not None:
            self._draw(frame.time, draw_result(found, tracks))
        line = {"frame": frame.number, "time": round(frame.time, 6)} | describe_result(found, tracks)
        with write_errors(self._path):
            self._lines.write(json.dumps(line).encode("ascii") + b"\n")
            self._lines.flush()

    def _draw(self, time: float, picture: UInt8Array) -> None:
        if self._writer is None:
            self._writer = self._open(picture.shape[0], picture.shape[1])
        height, width = self._hw
        if picture.shape[0] not in (height, height - 1) or picture.shape[1] not in (width, width - 1):
            picture = np.asarray(cv2.resize(picture, (width, height)), np.uint8)  # the source has changed its size
        missing = [(0, height - picture.shape[0]), (0, width - picture.shape[1]), (0, 0)]
        written = cv2.cvtColor(np.pad(picture, missing, mode="edge"), cv2.COLOR_RGB2BGR)
        due = 1
        if self._keeps_time:
            due = round(time * self._fps) + 1 - self._num_drawn
            due = min(due, max(round(_LONGEST_PAUSE * self._fps), 1))
        for _ in range(due):
            self._writer.write(written)
            self._num_drawn += 1

    def _open(self, height: int, width: int) -> Any:
        assert self._drawn is not None
        self._hw = height + height % 2, width + width % 2  # MPEG-4 has no odd sides
        try:
            code = cv2.VideoWriter.fourcc(*"mp4v")
            writer = cv2.VideoWriter(str(self._drawn), cv2.CAP_FFMPEG, code, self._fps, (self._hw[1], self._hw[0]))
        except UnicodeEncodeError:
            raise DataError(f"{self._drawn}: OpenCV writes no video whose name is no UTF-8; rename it") from None
        if not writer.isOpened():
            fix = "is there space, and the right to write? --no-pictures writes none"
            raise DataError(f"{self._drawn}: the drawn video cannot be written; {fix}")
        return writer


def draw_result(found: Detections | SegmentationMap, tracks: list[int | None] | None = None) -> UInt8Array:
    """A result on its frame, (H, W, 3) uint8 RGB, with the numbers of the tracks of its N objects."""
    if isinstance(found, SegmentationMap) or tracks is None:
        return found.draw()
    assert found.image is not None
    columns = found.boxes, found.labels, found.classes.names, found.scores, found.masks
    return draw_boxes(found.image, *columns, scale=1, ids=tracks)


def describe_result(found: Detections | SegmentationMap, tracks: list[int | None] | None = None) -> dict[str, Any]:
    """A result as plain values: height, width, and the objects as the journal has them, with their ``track``; or the
    ``pixels`` of each class of a label map."""
    if isinstance(found, SegmentationMap):
        return {"height": found.hw[0], "width": found.hw[1], "pixels": found.areas}
    described = describe_objects(found)
    for one, track in zip(described["objects"], tracks or (), strict=tracks is not None):
        one["track"] = track
    return described
