"""Frames of videos: which, when, which way up; what is live, and what is no video."""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detseg.errors import ConfigError, DataError
from detseg.predict import open_video
from detseg.predict.video.find import split_videos
from detseg.predict.video.frames import Video
from tests.predict.video.squares import FPS, HW, predictor, square_frame, turned, with_durations, write_squares


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_squares(tmp_path_factory.mktemp("video") / "squares.mp4")


def differs(one: Any, other: Any) -> float:
    return float(np.abs(one.astype(int) - other).mean())


@pytest.mark.parametrize("buffer", [1, 16])
def test_all_frames_in_order_with_their_times(video: Path, buffer: int) -> None:
    with open_video(video, buffer=buffer) as frames:
        assert (frames.fps, frames.num_frames, frames.is_live) == (FPS, 24, False)
        for i, frame in enumerate(frames):
            assert frame.number == i
            assert frame.time == pytest.approx(i / FPS, abs=1e-3)
            assert differs(frame.image, square_frame(i)) < 4  # RGB, and the right one; compression loses some
        assert i == 23
        assert frames.num_dropped == 0


def test_times_are_those_of_the_file(video: Path) -> None:
    uneven = with_durations(video, [(4, 512), (8, 2048), (12, 1024)])
    ticks = 10240  # a second: the tracks of OpenCV's files have 512 a frame of 20 frames a second
    expected = np.cumsum([0, *[512] * 4, *[2048] * 8, *[1024] * 11]) / ticks
    with open_video(uneven) as frames:
        times = [frame.time for frame in frames]
    np.testing.assert_allclose(times, expected, atol=1e-3)


def test_a_trimmed_file_is_not_damaged(video: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = bytearray(video.read_bytes())
    at = data.index(b"elst") + 12  # after version and number: how long the first entry is, in thousandths of a second
    assert int.from_bytes(data[at : at + 4], "big") == 1200
    data[at : at + 4] = (400).to_bytes(4, "big")
    (tmp_path / "trimmed.mp4").write_bytes(data)
    with open_video(tmp_path / "trimmed.mp4") as frames:
        assert len(list(frames)) < 12
    assert "of the 24 frames that it states could be decoded; the others are cut off by an edit" in caplog.text


def test_frames_are_turned_as_the_file_says(video: Path) -> None:
    with open_video(turned(video)) as frames:
        for i, frame in enumerate(frames):
            assert frame.image.shape == (HW[1], HW[0], 3)
            assert differs(frame.image, np.rot90(square_frame(i), -1)) < 4


def test_a_predictor_takes_them(video: Path) -> None:
    with open_video(video) as frames:
        found = list(predictor().stream((frame.image for frame in frames), batch_size=5))
    assert [len(one) for one in found] == [2] * 24


def test_it_is_closed_before_its_end(video: Path) -> None:
    before = threading.active_count()
    with open_video(video, buffer=1) as frames:
        assert next(iter(frames)).number == 0
    assert threading.active_count() == before


class Camera:
    """In the place of OpenCV's: a hundred frames at once, then nothing more."""

    num = 0

    def get(self, name: int) -> float:
        return 0.0 if name == cv2.CAP_PROP_FPS else -1.0

    def grab(self) -> bool:
        self.num += 1
        return self.num <= 100

    def retrieve(self) -> tuple[bool, Any]:
        return True, np.full((4, 6, 3), self.num - 1, dtype=np.uint8)

    def release(self) -> None:
        pass


def test_a_live_source_keeps_the_newest_frames() -> None:
    with Video(Camera(), "camera:0", True, buffer=8) as frames:
        while frames.num_dropped < 92:
            time.sleep(0.001)
        taken = list(frames)
    assert [frame.number for frame in taken] == list(range(92, 100))
    assert [int(frame.image[0, 0, 0]) for frame in taken] == list(range(92, 100))
    times = [frame.time for frame in taken]
    assert times == sorted(times)
    assert (frames.num_dropped, frames.num_frames, frames.fps) == (92, None, 25)


class Unsteady(Camera):
    """Every second frame is broken."""

    def retrieve(self) -> tuple[bool, Any]:
        return self.num % 2 == 1, super().retrieve()[1]


def test_a_live_source_goes_on_after_a_broken_frame() -> None:
    with Video(Unsteady(), "camera:0", True, buffer=50) as frames:
        assert len(list(frames)) == 50


class Understated(Camera):
    """A file that states half of its frames."""

    def get(self, name: int) -> float:
        return 50.0 if name == cv2.CAP_PROP_FRAME_COUNT else 25.0


def test_a_file_that_states_too_few_frames_gives_all() -> None:
    with Video(Understated(), "a.mkv", False, buffer=8, file=Path("a.mkv")) as frames:
        assert len(list(frames)) == 100


@pytest.mark.parametrize("code", ["MJPG", "mp4v"])
def test_a_file_that_is_cut_short_gives_what_there_is(tmp_path: Path, code: str) -> None:
    whole = write_squares(tmp_path / f"whole.{'avi' if code == 'MJPG' else 'mkv'}", code=code)
    with open_video(whole) as frames:
        assert len(list(frames)) == 24
    cut = whole.with_stem("cut")
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    taken: list[Any] = []
    with open_video(cut) as frames, pytest.raises(DataError, match=r"cut\.\w+: \d+ of the 24 frames that it states"):
        taken.extend(frames)
    assert 2 < len(taken) < 20


def overwritten(path: Path, begin: float, end: float) -> Path:
    """A copy in which a part of the content, given as fractions, is random bytes."""
    data = bytearray(path.read_bytes())
    at, after = data.index(b"mdat") + 4, data.index(b"moov") - 4
    first, last = (round(at + fraction * (after - at)) for fraction in (begin, end))
    data[first:last] = np.random.default_rng(0).bytes(last - first)
    target = path.with_name(f"damaged_{path.name}")
    target.write_bytes(data)
    return target


def test_what_follows_damage_is_decoded_too(video: Path) -> None:
    taken: list[Any] = []
    with open_video(overwritten(video, 0.4, 0.6)) as frames, pytest.raises(DataError) as caught:
        taken.extend(frames)
    assert 13 < len(taken) < 24
    assert [frame.number for frame in taken] == list(range(len(taken)))
    assert taken[-1].time == pytest.approx(23 / FPS, abs=1e-3)
    last_before = max(frame.time for frame, after in itertools.pairwise(taken) if after.time > frame.time + 1.5 / FPS)
    what = f"{len(taken)} of the 24 frames that it states could be decoded; the file is damaged, first after"
    assert str(caught.value) == f"{frames.name}: {what} {last_before:.2f} seconds"


def test_a_whole_file_whose_end_is_damaged(video: Path) -> None:
    """It has an edit list, which does not explain what is missing."""
    with open_video(overwritten(video, 0.6, 1)) as frames, pytest.raises(DataError, match="damaged, or cut short"):
        assert 8 < len(list(frames)) < 20


def test_what_is_no_video(tmp_path: Path, video: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video " * 100)
    (tmp_path / "cut.mp4").write_bytes(video.read_bytes()[:2000])  # its list of frames is at the end
    for name in ("empty.mp4", "text.mp4", "cut.mp4"):
        with pytest.raises(DataError, match=f"{name}: is no video, of a kind that is not read here, or damaged"):
            open_video(tmp_path / name)
    with pytest.raises(DataError, match=r"none\.mp4: there is no such video"):
        open_video(tmp_path / "none.mp4")
    with pytest.raises(DataError, match="camera:99: there is no such camera"):
        open_video("camera:99")
    with pytest.raises(ConfigError, match=r"rtsp://me:\*\*\*@there/1: is on the network, which is not used unless"):
        open_video("rtsp://me:secret@there/1")
    with pytest.raises(ConfigError, match="buffer: expected at least 1 frame, got 0"):
        open_video(video, buffer=0)


def test_videos_among_sources(tmp_path: Path, video: Path) -> None:
    (tmp_path / "mixed" / "day").mkdir(parents=True)
    (tmp_path / "videos").mkdir()
    for place in ("mixed/day/a.MP4", "videos/b.mov", "without_suffix"):
        (tmp_path / place).write_bytes(video.read_bytes())
    (tmp_path / "mixed" / "c.png").touch()
    places = [str(tmp_path / name) for name in ("mixed", "videos", "without_suffix", "mixed/c.png")]
    addresses = ["camera:1", "rtsp://there/one/two", "https://there/a.mp4?x=1", "https://there/a.jpg"]
    videos, others = split_videos([*places, *addresses])
    names = ["day/a", "b", "without_suffix", "camera1", "two", "a"]
    assert [one.name.as_posix() for one in videos] == names
    assert others == [places[0], places[3], addresses[3]]


def test_patterns_of_videos(tmp_path: Path, video: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "day").mkdir()
    for name in ("clip.mp4", "clip.avi", "day/other.mp4", "without_suffix"):
        (tmp_path / name).write_bytes(video.read_bytes())
    for name in ("c.png", "c.zip", "notes.txt"):
        (tmp_path / name).touch()
    videos, others = split_videos([str(tmp_path / "cl*.mp4")])
    assert ([one.name.as_posix() for one in videos], others) == (["clip"], [])
    pattern = str(tmp_path / "*")
    videos, others = split_videos([pattern])
    assert [one.name.as_posix() for one in videos] == ["clip_avi", "clip_mp4", "day/other", "without_suffix"]
    assert others == [pattern]
    assert f"{pattern}: matches 1 file of another kind ({tmp_path}/notes.txt); not used" in caplog.text
    assert split_videos([str(tmp_path / "*.mkv")]) == ([], [str(tmp_path / "*.mkv")])
