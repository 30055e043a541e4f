"""Prediction over videos: frames in batches → the drawn video and JSON lines, whole whenever it ends."""

from __future__ import annotations

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
from detseg.predict.outputs.header import check_settings, header_line, read_header
from detseg.predict.outputs.output import file_checksum, remove_files
from detseg.predict.refine import Refinement
from detseg.predict.run import MEMORY_ADVICE, run_settings, try_options
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
    model_id: str = "",
    allow_network: bool = False,
    options: Mapping[str, Any] = _NO_OPTIONS,
) -> None:
    """Predict for every frame of videos, one video after the other.

    Args:
        predictor: of objects, or of the class of every pixel.
        videos: of ``split_videos``.
        out: folder for ``NAME.mp4``, with the results drawn on the frames, and ``NAME_frames.jsonl``.
        batch_size, pictures: frames that the network sees at a time, and whether to write the drawn videos.
        track: whether objects get numbers that stay with them.
        refine: what is kept of each result.
        overwrite: whether files of an earlier run may be replaced.
        resume: whether videos of which an earlier run has done all frames stay; others are done from their first frame.
        model_id: what tells the model from others, such as a checksum; only a run of the same one is resumed.
        allow_network: whether streams may be opened.
        options: of the predictor's call.

    Raises:
        DetsegError: an option that is not for this kind of model, a file that exists or would be written twice, one
            that cannot be written; tracking is not installed; after all else is done, videos that are damaged, of which
            what could be decoded is written, or could not be opened.
    """
    refine.check(predictor.classes, isinstance(predictor, ObjectPredictor))
    least = _least_score(predictor, refine) if track else 0.0
    settings = run_settings(predictor, refine, model_id, batch_size, pictures, options) | {"track": track}
    places = video_places(videos, out, settings, overwrite, resume)
    try_options(predictor, refine, batch_size, dict(options))
    if not resume:  # so that what is there when this is resumed is of this run
        remove_files(file for place in places for file in place if file is not None)
    failed = []
    for video, (lines, drawn) in zip(videos, places, strict=True):
        checksum = file_checksum(Path(video.source))
        if resume and _is_done(video.source, checksum, lines, drawn):
            continue
        try:
            with open_video(video.source, allow_network, max(16, 2 * batch_size)) as frames:
                tracker = ObjectTracker(frames.fps, least) if track else None
                header = header_line(settings, crc32=checksum)
                with VideoFiles(lines, header, drawn, frames.fps, frames.is_live) as files:
                    _VideoRun(predictor, frames, files, tracker, refine, options, batch_size).predict(out)
        except DataError as error:
            failed.append(str(error))
    if failed:
        more = f"; and {len(failed) - 3} more" if len(failed) > 3 else ""
        of = f"{len(failed)} of {len(videos)} videos are not whole: " if len(videos) > 1 else ""
        raise DataError(f"{of}{'; '.join(failed[:3])}{more}")


def _least_score(predictor: ImagePredictor[Any], refine: Refinement) -> float:
    """Of the detections that are tracked. DetsegError: there are none, or tracking is not installed."""
    if not isinstance(predictor, ObjectPredictor):
        raise ConfigError("track: follows objects, and this is a segmentation model; leave it out")
    least = refine.lowest_score(predictor.score_threshold, predictor.classes)
    ObjectTracker(1.0, least)  # says what is missing
    return least


def video_places(
    videos: Sequence[VideoSource], out: Path, settings: dict[str, Any], overwrite: bool, resume: bool
) -> list[tuple[Path, Path | None]]:
    """Where JSON lines and drawn videos go, None: there are none.

    Args:
        videos: of ``split_videos``.
        out: folder of the results.
        settings: those of ``run_settings``, and ``track``.
        overwrite: whether files of an earlier run may be replaced.
        resume: whether an earlier run is resumed.

    Raises:
        DataError: a file exists, is a video itself, would be written twice, or was made with other settings.
    """
    places: list[tuple[Path, Path | None]] = []
    owners: dict[Path, str] = {}
    for video in videos:
        lines = out / video.name.with_name(f"{video.name.name}_frames.jsonl")
        drawn = out / video.name.with_name(f"{video.name.name}.mp4") if settings["pictures"] else None
        # What a camera has shown cannot be done again.
        may_replace = overwrite or (resume and lines.exists() and Path(video.source).is_file())
        for file in (lines, drawn):
            if file is None:
                continue
            if file in owners:
                what = f"two videos would be written here, {owners[file]} and {video.source}"
                raise DataError(f"{file}: {what}; rename one of them, or predict them into different --out folders")
            if file.exists() and any(Path(v.source).exists() and file.samefile(v.source) for v in videos):
                raise DataError(f"{file}: is a video to predict for and would be overwritten; choose another --out")
            if file.exists() and not may_replace:
                raise DataError(f"{file}: exists; replace it with --overwrite, or choose another --out")
            owners[file] = video.source
        if resume and (header := read_header(lines)[0]) is not None:
            check_settings(lines, header, settings)
        places.append((lines, drawn))
    return places


def _is_done(source: str, checksum: int | None, lines: Path, drawn: Path | None) -> bool:
    """Whether there are results of all frames that a file of this checksum states, and as many are drawn."""
    header, _ = read_header(lines)
    if header is None or not Path(source).is_file():
        return False
    if header.get("crc32") != checksum:
        logger.warning(f"predicted again, since changed after its results: {printable(source)}")
        return False
    with lines.open("rb") as file:
        num_results = sum(line.endswith(b"\n") for line in file) - 1
    try:
        for path in (source, drawn) if drawn else (source,):
            with open_video(path) as video:
                if video.num_frames != num_results:
                    return False
    except DataError:
        return False
    return True


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
