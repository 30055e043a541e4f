"""Prediction over videos: frames in batches → the drawn video and JSON lines, whole whenever it ends."""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from detseg.errors import ConfigError, DataError, DetsegError
from detseg.memory import MemoryErrors
from detseg.messages import console, counted, messages_on_console, printable
from detseg.predict.interface import ImagePredictor, ObjectPredictor
from detseg.predict.refine import Refinement
from detseg.predict.run import MEMORY_ADVICE, try_options
from detseg.predict.video.files import VideoFiles
from detseg.predict.video.find import VideoSource
from detseg.predict.video.frames import Frame, Video, open_video
from detseg.predict.video.tracks import ObjectTracker
from detseg.structures import UInt8Array

logger = logging.getLogger("detseg")

_AS_IT_IS = Refinement()
_NO_OPTIONS: Mapping[str, Any] = {}


@messages_on_console()
def predict_videos(
    predictor: ImagePredictor[Any],
    videos: Sequence[VideoSource],
    out: Path,
    *,
    batch_size: int = 1,
    pictures: bool = True,
    track: bool = False,
    refine: Refinement = _AS_IT_IS,
    overwrite: bool = False,
    resume: bool = False,
    allow_network: bool = False,
    options: Mapping[str, Any] = _NO_OPTIONS,
) -> None:
    """Predict for every frame of videos, one video after the other.

    Args:
        predictor: of objects, or of the class of every pixel.
        videos: of ``split_videos``.
        out: folder for ``NAME.mp4``, with the results drawn on the frames, and ``NAME_frames.jsonl``.
        batch_size: frames that the network sees at a time.
        pictures: whether to write the drawn videos.
        track: whether objects get numbers that stay with them.
        refine: what is kept of each result.
        overwrite: whether files of an earlier run may be replaced.
        resume: whether they are of this run, and stay where they have all frames; else they are replaced.
        allow_network: whether streams may be opened.
        options: of the predictor's call.

    Raises:
        DetsegError: an option that is not for this kind of model, a file that exists or would be written twice, one
            that cannot be written; tracking is not installed; after all else is done, videos that are damaged, of which
            what could be decoded is written, or could not be opened.
    """
    refine.check(predictor.classes, isinstance(predictor, ObjectPredictor))
    least = 0.0
    if track:
        if not isinstance(predictor, ObjectPredictor):
            raise ConfigError("track: follows objects, and this is a segmentation model; leave it out")
        least = refine.lowest_score(predictor.score_threshold, predictor.classes)
        ObjectTracker(1.0, least)  # says what is missing
    places = video_places(videos, out, pictures, overwrite or resume)
    try_options(predictor, refine, batch_size, dict(options))
    failed = []
    for video, (lines, drawn) in zip(videos, places, strict=True):
        if resume and not overwrite and _is_whole(video.source, lines, drawn, track):
            continue
        try:
            with open_video(video.source, allow_network, max(16, 2 * batch_size)) as frames:
                tracker = ObjectTracker(frames.fps, least) if track else None
                with VideoFiles(lines, drawn, frames.fps, frames.is_live) as files:
                    _VideoRun(predictor, frames, files, tracker, refine, options, batch_size).predict(out)
        except DataError as error:
            failed.append(str(error))
    if failed:
        more = f"; and {len(failed) - 3} more" if len(failed) > 3 else ""
        of = f"{len(failed)} of {len(videos)} videos are not whole: " if len(videos) > 1 else ""
        raise DataError(f"{of}{'; '.join(failed[:3])}{more}")


def video_places(
    videos: Sequence[VideoSource], out: Path, pictures: bool, overwrite: bool
) -> list[tuple[Path, Path | None]]:
    """Where JSON lines and drawn videos go, None: there are none. DataError: a file exists, is a video itself, or would
    be written twice."""
    places: list[tuple[Path, Path | None]] = []
    owners: dict[Path, str] = {}
    for video in videos:
        lines = out / video.name.with_name(f"{video.name.name}_frames.jsonl")
        drawn = out / video.name.with_name(f"{video.name.name}.mp4") if pictures else None
        for file in (lines, drawn):
            if file is None:
                continue
            if file in owners:
                what = f"two videos would be written here, {owners[file]} and {video.source}"
                raise DataError(f"{file}: {what}; rename one of them, or predict them into different --out folders")
            if file.exists() and any(Path(v.source).exists() and file.samefile(v.source) for v in videos):
                raise DataError(f"{file}: is a video to predict for and would be overwritten; choose another --out")
            if file.exists() and not overwrite:
                raise DataError(f"{file}: exists; replace it with --overwrite, or choose another --out")
            owners[file] = video.source
        places.append((lines, drawn))
    return places


def _is_whole(source: str, lines: Path, drawn: Path | None, track: bool) -> bool:
    """Whether there are results of all frames that a file states, with tracks or without, and as many are drawn."""
    num_frames = []
    try:
        for path in (source, drawn) if drawn else (source,):
            if Path(path).is_file():
                with open_video(path) as video:
                    num_frames.append(video.num_frames)
        results = [json.loads(line) for line in lines.read_bytes().splitlines()]
    except (DataError, OSError, ValueError):
        return False
    has_tracks = {"track" in one for result in results for one in result.get("objects", ())}
    return num_frames == [len(results)] * (2 if drawn else 1) and has_tracks <= {track}


@dataclass
class _VideoRun:
    """One video, from its frames to its files."""

    predictor: ImagePredictor[Any]
    video: Video
    files: VideoFiles
    tracker: ObjectTracker | None
    refine: Refinement
    options: Mapping[str, Any]
    batch_size: int
    _waiting: deque[Frame] = field(default_factory=deque)  # whose results are still to come
    _num_frames: int = 0
    _num_objects: int = 0
    _tracks: set[int] = field(default_factory=set)

    def predict(self, out: Path) -> None:
        """Predict for all frames, and say what was written; also when it is interrupted."""
        columns = (TextColumn("{task.description}"), BarColumn(), _Speed(), TimeRemainingColumn())
        began = "interrupted: "
        try:
            with Progress(*columns, console=console) as progress, MemoryErrors(MEMORY_ADVICE) as errors:
                errors.doing = f"predicting for {self.video.name}"
                shown = progress.add_task(printable(self.video.name[-40:]), total=self.video.num_frames)
                for result in self.predictor.stream(self._images(), self.batch_size, **self.options):
                    self._add(self._waiting.popleft(), self.refine(result))
                    progress.update(shown, advance=1)
            began = ""
        except DetsegError:
            began = ""
            raise
        finally:
            logger.info(f"{began}{self._summary(out)}")

    def _images(self) -> Iterator[UInt8Array]:
        for frame in self.video:
            self._waiting.append(frame)
            yield frame.image

    def _add(self, frame: Frame, found: Any) -> None:
        tracks = None if self.tracker is None else self.tracker.update(found, frame.time)
        self.files.add(frame, found, tracks)
        self._num_frames += 1
        if isinstance(self.predictor, ObjectPredictor):
            self._num_objects += len(found)
        self._tracks.update(track for track in tracks or () if track is not None)

    def _summary(self, out: Path) -> str:
        total = self.video.num_frames
        of = f"{self._num_frames} of {total} frames" if total else counted(self._num_frames, "frame")
        parts = [f"{printable(self.video.name)}: {of} are in {out}"]
        if isinstance(self.predictor, ObjectPredictor):
            parts.append(counted(self._num_objects, "object"))
        if self.tracker is not None:
            parts.append(counted(len(self._tracks), "track"))
        if self.video.num_dropped:
            parts.append(f"{self.video.num_dropped} more frames were dropped, since they came faster than predicted")
        return "; ".join(parts)


class _Speed(ProgressColumn):
    """Frames that are done, of how many, and how many a second."""

    def render(self, task: Task) -> Text:
        """As text."""
        of = "" if task.total is None else f"/{task.total:g}"
        return Text(f"{task.completed:g}{of} frames, {task.finished_speed or task.speed or 0:.1f}/s")
