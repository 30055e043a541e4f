"""Frames of video files, cameras and streams, decoded ahead in a thread by OpenCV, which has FFmpeg for that."""

from __future__ import annotations

import logging
import math
import re
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2

from detseg.data.images.sources import check_network
from detseg.data.images.threads import in_background
from detseg.errors import ConfigError, DataError
from detseg.messages import one_line, printable, without_secrets
from detseg.structures import UInt8Array

logger = logging.getLogger("detseg")

CAMERA = re.compile(r"camera:(\d+)")
STREAM = re.compile(r"(rtsp|rtsps|http|https)://", re.IGNORECASE)
_TIMEOUT_MS = 20_000  # of a server: to open, and until the next frame
_MOST_FAILED = 10_000  # frames in a row that cannot be decoded, before the end of a file counts as reached
_MAX_MOVIE_BYTES = 2**26
_FPS = 25.0  # where a source does not say
_LOST = 0.02
"""Fraction of the frames and of the length that may be missing before a file counts as damaged: some only estimate."""


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame of a video.

    Attributes:
        number: from 0; of a live source the dropped ones are counted, too.
        time: seconds: of a file as it says, whatever its rate; of a live source since its first frame, when it came.
        image: (H, W, 3) uint8 RGB, upright.
    """

    number: int
    time: float
    image: UInt8Array


class Video:
    """The frames of a video, which are given once, in a ``with`` block or until `close`.

    A thread decodes a few frames ahead. Where a file's frames are taken slowly, it waits; a live source does not, and
    its oldest waiting frames are dropped.

    Args:
        capture: OpenCV's, open.
        name: what messages call it.
        is_live: whether it is a camera or a stream without an end.
        buffer: frames that are decoded ahead, at least 1.
        file: where it is one of this machine. After frames that cannot be decoded later ones are tried, and an MP4 may
            state more frames than its edit list shows, since phones trim so.

    Attributes:
        fps: frames per second, on average.
        num_frames: as a file states them, which may be an estimate; None: unknown.
        num_dropped: of a live source, so far.
    """

    def __init__(self, capture: Any, name: str, is_live: bool, buffer: int, file: Path | None = None) -> None:
        self.name, self.is_live, self.num_dropped = name, is_live, 0
        fps, count = float(capture.get(cv2.CAP_PROP_FPS)), float(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.fps = fps if math.isfinite(fps) and 0 < fps <= 1000 else _FPS
        self.num_frames = int(count) if not is_live and count > 0 else None
        self._capture, self._room, self._file = capture, buffer, file
        self._waiting: deque[Frame] = deque()
        self._changed = threading.Condition()
        self._has_ended = self._is_closed = False
        self._error: DataError | None = None
        self._thread = threading.Thread(target=self._decode, name="detseg-video", daemon=True)
        self._thread.start()

    def __enter__(self) -> Video:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the decoding."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(2.0)  # a server that does not answer is not waited for

    def __iter__(self) -> Iterator[Frame]:
        """The frames that are left. DataError, after the last one: the file is damaged, or ends too early."""
        while True:
            with self._changed:
                while not self._waiting and not self._has_ended:
                    self._changed.wait(0.5)  # on Windows, Ctrl-C is seen between two waits
                if not self._waiting:
                    break
                frame = self._waiting.popleft()
                self._changed.notify_all()
            yield frame
        if self._error is not None:
            raise self._error

    def _decode(self) -> None:
        number, last, began = 0, -1.0, 0.0
        num_failed, damaged_at = 0, None  # in a row; the time before the first frame that others follow
        try:
            while not self._is_closed:
                if not self._capture.grab():
                    num_failed += 1
                    if num_failed > self._most_failed(number):
                        break
                    continue
                now = time.monotonic()
                began = began or now
                seconds = now - began if self.is_live else self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                if number and seconds <= last:  # a file without time stamps
                    seconds = last + 1 / self.fps
                is_whole, image = self._capture.retrieve()
                if not is_whole:
                    num_failed += 1
                    continue
                if num_failed and damaged_at is None:
                    damaged_at = max(last, 0.0)
                self._put(Frame(number, seconds, cv2.cvtColor(image, cv2.COLOR_BGR2RGB)))
                number, last, num_failed = number + 1, seconds, 0
            if not self._is_closed:
                self._error = self._missing(number, last, damaged_at)
        except cv2.error as error:
            self._error = DataError(f"{self.name}: cannot be decoded after {number} frames ({one_line(error)})")
        finally:
            self._capture.release()
            with self._changed:
                self._has_ended = True
                self._changed.notify_all()

    def _most_failed(self, number: int) -> int:
        """How many frames in a row may fail before the end counts as reached."""
        if self._file is None or self.num_frames is None:
            return 0
        return min(max(self.num_frames - number, 0), _MOST_FAILED)

    def _put(self, frame: Frame) -> None:
        with self._changed:
            if self.is_live and len(self._waiting) >= self._room:
                self._waiting.popleft()
                self.num_dropped += 1
            while len(self._waiting) >= self._room and not self._is_closed:
                self._changed.wait()
            self._waiting.append(frame)
            self._changed.notify_all()

    def _missing(self, number: int, last: float, damaged_at: float | None) -> DataError | None:
        """An error where frames are missing in between, or both the frames and the time of the last one say that the
        end is missing."""
        if not number:
            return DataError(f"{self.name}: no frame of it can be decoded; is it a whole video?")
        if self.num_frames is None:
            return None
        what = f"{self.name}: {number} of the {self.num_frames} frames that it states could be decoded"
        if damaged_at is not None:
            return DataError(f"{what}; the file is damaged, first after {damaged_at:.2f} seconds")
        end = last + 2 / self.fps
        length = self.num_frames / self.fps
        if number >= self.num_frames * (1 - _LOST) - 1 or end >= length * (1 - _LOST):
            return None
        shown = None if self._file is None else _edited_length(self._file)
        if shown is not None and end >= shown * (1 - _LOST):
            logger.warning(f"{what}; the others are cut off by an edit list")
            return None
        return DataError(f"{what}; the file is damaged, or cut short")


def open_video(source: str | Path, allow_network: bool = False, buffer: int = 16) -> Video:
    """Open a video to take its frames, which are turned as the file says.

    Args:
        source: a file; ``camera:0``, the first camera of this machine; an address: ``rtsp://``, ``http://``,
            ``https://``.
        allow_network: whether an address may be opened.
        buffer: frames that are decoded ahead; each takes 3 bytes a pixel.

    Raises:
        ConfigError: an address, and the network is not allowed; ``buffer`` is below 1.
        DataError: there is no such file or camera, it is no video, or the server does not answer.
    """
    if buffer < 1:
        raise ConfigError(f"buffer: expected at least 1 frame, got {buffer}")
    text, name = str(source), printable(without_secrets(str(source)))
    if camera := CAMERA.fullmatch(text):
        capture = cv2.VideoCapture(int(camera[1]))
        if not capture.isOpened():
            raise DataError(f"{name}: there is no such camera, another program has it, or you may not open it")
        return Video(capture, name, True, buffer)
    if STREAM.match(text):
        check_network(text, allow_network)
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _TIMEOUT_MS]
        capture = in_background(lambda: cv2.VideoCapture(text, cv2.CAP_FFMPEG, limits)).result()  # Ctrl-C ends it
        if not capture.isOpened():
            raise DataError(f"{name}: the server does not answer, or what it sends is no video that is read here")
        is_live = text.lower().startswith("rtsp") or capture.get(cv2.CAP_PROP_FRAME_COUNT) <= 0
        return Video(capture, name, is_live, buffer)
    path = Path(source).resolve()  # FFmpeg takes what is before a colon for a protocol
    if not path.is_file():
        raise DataError(f"{name}: there is no such video")
    try:
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    except UnicodeEncodeError:
        raise DataError(f"{name}: its name is no UTF-8, with which OpenCV opens no video; rename it") from None
    if not capture.isOpened():
        raise DataError(f"{name}: is no video, of a kind that is not read here, or damaged: cut short, or empty")
    return Video(capture, name, False, buffer, path)


def _edited_length(path: Path) -> float | None:
    """How many seconds of an MP4 or MOV are shown: the shortest of its edit lists (ISO/IEC 14496-12, 8.6.6); None where
    it has none."""
    movie, lengths = _movie_box(path), []
    begin = movie.find(b"mvhd") + 4
    try:
        (scale,) = struct.unpack_from(">I", movie, begin + (20 if movie[begin] else 12))  # ticks a second
        for found in re.finditer(b"elst", movie):
            version, num = struct.unpack_from(">B3xI", movie, found.end())
            entry = ">Q12x" if version else ">I8x"  # its length, its begin, its speed
            places = (found.end() + 8 + i * struct.calcsize(entry) for i in range(num))
            lengths.append(sum(struct.unpack_from(entry, movie, place)[0] for place in places) / scale)
    except (struct.error, IndexError, ZeroDivisionError):  # damaged here, too
        return None
    return min(lengths, default=None)


def _movie_box(path: Path) -> bytes:
    """The box on what is in an MP4 or MOV; nothing where the file is no such, or it does not say where that is."""
    size, at = path.stat().st_size, 0
    with path.open("rb") as file:
        while at < size:
            file.seek(at)
            head = file.read(16)
            length = int.from_bytes(head[8:16] if head[:4] == b"\0\0\0\1" else head[:4], "big")
            if length < 8 or (at == 0 and head[4:8] != b"ftyp"):
                break
            if head[4:8] == b"moov":
                return head[8:] + file.read(min(length, _MAX_MOVIE_BYTES) - 16)
            at += length
    return b""
