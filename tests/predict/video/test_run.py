"""Prediction over videos: JSON lines and drawn videos, whole whenever it ends; tracks; what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from torch import Tensor

from detseg.cli.deploy.predict import predict
from detseg.errors import ConfigError, DataError, MissingExtraError
from detseg.predict import Frame, SegmentationPredictor, open_video
from detseg.predict.refine import Refinement, ScoreCalibration
from detseg.predict.video.files import VideoFiles
from detseg.predict.video.find import split_videos
from detseg.predict.video.run import predict_videos
from detseg.structures import ClassTable
from tests.cli.mistakes import said
from tests.predict.networks import noise, two_levels, write_rcnn, write_unet
from tests.predict.video.squares import FPS, HW, Squares, corners, predictor, square_frame, write_squares, write_video


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_squares(tmp_path_factory.mktemp("video") / "squares.mp4")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rcnn(tmp_path_factory.mktemp("rcnn") / "best.ckpt", "mask_rcnn")


def run(videos: list[Path], out: Path, network: Any = None, **options: Any) -> None:
    predict_videos(predictor(network), split_videos(videos)[0], out, **options)


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Without the first one, on what made the others."""
    return [json.loads(line) for line in path.read_text().splitlines()[1:]]


def frames_of(path: Path) -> list[Any]:
    with open_video(path) as frames:
        return [frame.image for frame in frames]


def test_lines_and_drawn_video(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run([video], tmp_path, batch_size=7)
    lines = lines_of(tmp_path / "squares_frames.jsonl")
    assert [line["frame"] for line in lines] == list(range(24))
    np.testing.assert_allclose([line["time"] for line in lines], np.arange(24) / FPS, atol=1e-3)
    for i, line in enumerate(lines):
        assert (line["height"], line["width"]) == HW
        assert [one["name"] for one in line["objects"]] == ["red", "blue"]
        for one, left, top in zip(line["objects"], corners(i), (20, 56), strict=True):
            np.testing.assert_allclose(one["box"], [left, top, left + 20, top + 20], atol=2)  # compression blurs edges
            assert "track" not in one
    drawn = frames_of(tmp_path / "squares.mp4")
    assert len(drawn) == 24
    before = frames_of(video)
    for i, (one, other) in enumerate(zip(drawn, before, strict=True)):
        changed = np.abs(one.astype(int) - other).max(axis=2) > 40
        assert changed.any()
        _, columns = np.nonzero(changed[48:])  # names and outlines of the blue square, and nothing far from it
        assert (np.abs(columns - corners(i)[1] - 10) < 60).all()
    assert f"squares.mp4: 24 of 24 frames are in {tmp_path}; 48 objects\n" in capsys.readouterr().out


def test_only_what_is_asked_for(video: Path, tmp_path: Path) -> None:
    run([video], tmp_path, pictures=False, refine=Refinement(classes=["blue"]))
    assert [path.name for path in tmp_path.iterdir()] == ["squares_frames.jsonl"]
    assert {one["name"] for line in lines_of(tmp_path / "squares_frames.jsonl") for one in line["objects"]} == {"blue"}


@pytest.mark.parametrize("hw", [(49, 65), (48, 66)])
def test_label_maps_and_odd_sides(tmp_path: Path, hw: tuple[int, int]) -> None:
    source = tmp_path / "in.avi"
    write_video(source, [noise(50, 66)] * 3, "MJPG")
    with open_video(source) as frames:
        image = next(iter(frames)).image[: hw[0], : hw[1]]
    segmenter = SegmentationPredictor(two_levels(3), ClassTable(("sky", "road", "car"), (5, 7, 90)), (48, 64))
    found = segmenter(np.ascontiguousarray(image))
    with VideoFiles(tmp_path / "a.jsonl", b"{}\n", tmp_path / "a.mp4", 20.0, False) as files:
        for i in range(3):
            files.add(Frame(i, i / 20, image), found, None)
    (line, *_) = lines_of(tmp_path / "a.jsonl")
    assert line == {"frame": 0, "time": 0.0, "height": hw[0], "width": hw[1], "pixels": found.areas}
    drawn = frames_of(tmp_path / "a.mp4")
    assert [one.shape[:2] for one in drawn] == [(hw[0] + hw[0] % 2, hw[1] + hw[1] % 2)] * 3
    assert np.abs(drawn[0][: hw[0], : hw[1]].astype(int) - found.draw()).mean() < 12
    predict_videos(segmenter, split_videos([source])[0], tmp_path / "out", options={"tile": (48, 64)})
    assert [sum(line["pixels"].values()) for line in lines_of(tmp_path / "out" / "in_frames.jsonl")] == [50 * 66] * 3


@pytest.mark.parametrize(
    ("fps", "times", "num"),
    [
        (20.0, [0.0, 0.2, 0.25, 1.0], 21),  # in twentieths: 0, 4, 5, 20
        (20.0, [i / 60 for i in range(61)], 21),  # they come faster than the rate says
        (0.05, [0.0, 20.0, 60.0], 3),  # the last one is not shown for longer than a frame takes
    ],
)
def test_a_drawn_live_video_is_as_long_as_it_took(tmp_path: Path, fps: float, times: list[float], num: int) -> None:
    found = predictor()(square_frame(0))
    with VideoFiles(tmp_path / "a.jsonl", b"{}\n", tmp_path / "a.mp4", fps, True) as files:
        for number, time in enumerate(times):
            files.add(Frame(number, time, square_frame(0)), found, None)
    assert len(frames_of(tmp_path / "a.mp4")) == num
    assert [line["time"] for line in lines_of(tmp_path / "a.jsonl")] == [round(time, 6) for time in times]


@pytest.mark.parametrize("fps", [0.02, 23.976, 66.127, 118.543, 239.317, 900.125])
def test_drawn_videos_of_files_have_their_rate(tmp_path: Path, fps: float) -> None:
    found = predictor()(square_frame(0))
    with VideoFiles(tmp_path / "a.jsonl", b"{}\n", tmp_path / "a.mp4", fps, False) as files:
        for number in range(3):
            files.add(Frame(number, number / fps, square_frame(0)), found, None)
    with open_video(tmp_path / "a.mp4") as drawn:
        assert drawn.fps == pytest.approx(fps, rel=1e-4)
        assert len(list(drawn)) == 3


FAINT = ScoreCalibration({}, ((0.0, 0.0), (0.3, 0.05), (0.9, 0.2)))  # what scores 0.3 and 0.9


@pytest.mark.parametrize("refine", [Refinement(), Refinement(calibration=FAINT), Refinement(thresholds={"red": 0.85})])
def test_tracks_stay_with_their_objects(video: Path, tmp_path: Path, refine: Refinement) -> None:
    pytest.importorskip("trackers", exc_type=ImportError)
    run([video], tmp_path, batch_size=5, track=True, refine=refine)
    lines = lines_of(tmp_path / "squares_frames.jsonl")
    tracks = [{one["name"]: one["track"] for one in line["objects"]} for line in lines]
    assert tracks[0] == {"red": None, "blue": None}  # in the first frame there is nothing to follow
    assert set(tracks[1].values()) == {0, 1}
    assert tracks[1:] == [tracks[1]] * 23


def test_tracking_that_is_not_installed(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(MissingExtraError, match=r'tracking needs \w+: pip install "detseg\[track\]"'):
        run([video], tmp_path, track=True)
    assert not list(tmp_path.iterdir())


class Interrupted(Squares):
    num = 0

    def predict(self, images: Tensor) -> Any:
        self.num += len(images)
        if self.num > 10:
            raise KeyboardInterrupt
        return super().predict(images)


def test_ctrl_c_leaves_whole_files(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        run([video], tmp_path, Interrupted(), batch_size=5)
    assert len(lines_of(tmp_path / "squares_frames.jsonl")) == 10
    assert len(frames_of(tmp_path / "squares.mp4")) == 10
    assert f"interrupted: {video}: 10 of 24 frames are in {tmp_path}; 20 objects" in capsys.readouterr().out
    with pytest.raises(DataError, match=r"squares_frames\.jsonl: exists; replace it with --overwrite, or choose"):
        run([video], tmp_path)
    run([video], tmp_path, overwrite=True)
    assert len(lines_of(tmp_path / "squares_frames.jsonl")) == 24


def test_t9_a_folder_of_images_and_videos_some_damaged(
    checkpoint: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.mp4").write_bytes(video.read_bytes())
    (folder / "empty.mp4").touch()
    long = write_squares(tmp_path / "whole.mkv")
    (folder / "cut.mkv").write_bytes(long.read_bytes()[: long.stat().st_size // 2])
    cv2.imwrite(str(folder / "photo.png"), noise(40, 60))
    argv = [str(checkpoint), str(folder), "--out", str(out), "--device", "cpu", "--batch-size", "4"]
    code, message = said(predict, argv, capsys)
    assert (code, message.count("\n")) == (2, 1)
    assert message.startswith(f"error: 2 of 3 videos are not whole: {folder}/cut.mkv: ")
    assert f"; {folder}/empty.mp4: is no video, of a kind that is not read here, or damaged" in message
    assert len(lines_of(out / "deep" / "a_frames.jsonl")) == 24
    num = len(lines_of(out / "cut_frames.jsonl"))
    assert 2 < num < 20
    assert len(frames_of(out / "cut.mp4")) == num
    assert (out / "photo.png").is_file()
    assert len(lines_of(out / "results.jsonl")) == 1
    assert not (out / "empty_frames.jsonl").exists()
    whole, part = out / "deep" / "a_frames.jsonl", out / "cut_frames.jsonl"
    before = whole.stat().st_mtime_ns, part.stat().st_mtime_ns
    (folder / "empty.mp4").unlink()
    code, message = said(predict, [*argv, "--resume"], capsys)
    assert (code, message.count("cut.mkv: "), message.count("\n")) == (2, 1, 1)
    assert whole.stat().st_mtime_ns == before[0]  # all its frames are there
    assert part.stat().st_mtime_ns > before[1]
    whole.write_bytes(whole.read_bytes()[:-200])  # as a kill leaves it
    with pytest.raises(DataError, match=r"cut_frames\.jsonl: was made with other settings \(batch_size 4, now 3\)"):
        predict([*argv, "--resume", "--batch-size", "3"])
    torn = whole.read_bytes()
    (out / "results.jsonl").write_text("mine")
    with pytest.raises(DataError, match=r"results\.jsonl: is no file of results that detseg predict wrote"):
        predict([*argv, "--overwrite"])
    assert whole.read_bytes() == torn  # nothing was done for videos either, nor removed
    (out / "results.jsonl").unlink()
    assert said(predict, [*argv, "--resume"], capsys)[0] == 2
    assert len(lines_of(whole)) == 24


def test_videos_are_resumed_by_what_made_their_lines(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, out = tmp_path / "clip.mp4", tmp_path / "out"
    clip.write_bytes(video.read_bytes())
    lines = out / "clip_frames.jsonl"

    def again(**options: Any) -> bool:
        """Whether it was done again."""
        before = lines.stat().st_mtime_ns
        run([clip], out, resume=True, **options)
        return lines.stat().st_mtime_ns > before

    run([clip], out)
    assert not again()
    assert not again(overwrite=True)
    what = "model '', now 'other'"
    with pytest.raises(DataError, match=rf"clip_frames\.jsonl: was made with other settings \({what}\); resume with"):
        again(model_id="other")
    with lines.open("ab") as file:
        file.write(b"5\n")
    assert again()
    write_squares(clip, num=7)
    capsys.readouterr()
    assert again()
    assert f"predicted again, since changed after its results: {clip}" in " ".join(capsys.readouterr().out.split())
    assert [line["frame"] for line in lines_of(lines)] == list(range(7))
    lines.write_text("mine\n")
    with pytest.raises(DataError, match=r"clip_frames\.jsonl: is no file of results that detseg predict wrote"):
        again()
    lines.unlink()
    with pytest.raises(DataError, match=r"clip\.mp4: exists; replace it with --overwrite, or choose another"):
        run([clip], out, resume=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "coco"], "--format, --mask-values: are for images; a video gets JSON lines, leave them out"),
    ],
)
def test_options_for_images_alone(video: Path, tmp_path: Path, options: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        predict(["none.ckpt", str(video), "--out", str(tmp_path / "out"), *options])
    assert str(caught.value) == message


def test_what_else_is_refused(
    checkpoint: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unet = write_unet(tmp_path / "unet.ckpt")
    begin = [str(video), "--out", str(tmp_path / "out"), "--device", "cpu"]
    with pytest.raises(ConfigError, match="track: follows objects, and this is a segmentation model; leave it out"):
        predict([str(unet), *begin, "--track"])
    with pytest.raises(ConfigError, match="--track: follows objects through a video, and there is none; leave it out"):
        predict([str(unet), "a.png", *begin[1:], "--track"])
    with pytest.raises(DataError, match=r"squares\.mp4: is a video to predict for and would be overwritten"):
        predict([str(checkpoint), str(video), "--out", str(video.parent), "--overwrite", "--device", "cpu"])
    (tmp_path / "squares.mp4").write_bytes(video.read_bytes())
    cv2.imwrite(str(tmp_path / "photo.png"), noise(40, 60))  # is not predicted for first
    with pytest.raises(DataError, match=r"squares_mp4_frames\.jsonl: two videos would be written here"):
        predict([str(checkpoint), str(tmp_path / "squares.mp4"), str(tmp_path / "photo.png"), *begin])
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert predict([str(checkpoint), *begin]) == 0  # the first process does it
    assert not (tmp_path / "out").exists()
