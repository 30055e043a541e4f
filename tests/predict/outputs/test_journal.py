"""Runs that are interrupted and resumed, or done by several processes, write what an undisturbed one writes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from torch import Tensor

from detseg.cli.deploy.predict import predict
from detseg.errors import DataError, DetsegError, LeftOutError
from detseg.predict import Predictor, SegmentationPredictor
from detseg.predict.files import predict_files
from detseg.predict.outputs import ImageFile, Journal, Share
from detseg.predict.refine import Refinement
from detseg.structures import ClassTable
from tests.cli.mistakes import said
from tests.predict.networks import FoundMasks, noise, two_levels, write_rcnn

CLASSES = ClassTable(("sky & sea", "road", "car"), (5, 7, 90))
REGIONS = torch.tensor([[10.0, 20, 50, 44], [-12.5, 3, 34, 40], [60, 30, 90, 80]])
NUM_IMAGES = 9
ALL = ["coco", "voc", "yolo", "labelme", "cvat", "csv", "geojson"]
Files = dict[str, bytes]


class Interrupted(FoundMasks):
    """Finds masks, and counts the images; ``stop`` is called with their number before each batch."""

    def __init__(self, stop: Callable[[int], None] = lambda num: None) -> None:
        super().__init__(REGIONS)
        self.stop, self.num = stop, 0

    def predict(self, images: Tensor) -> Any:
        self.stop(self.num)
        self.num += len(images)
        return super().predict(images)


def ctrl_c(after: int) -> Callable[[int], None]:
    def stop(num: int) -> None:
        if num >= after:
            raise KeyboardInterrupt

    return stop


def detector(stop: Callable[[int], None] = lambda num: None) -> tuple[Predictor, Any]:
    predictor = Predictor(Interrupted(stop).eval(), CLASSES, (64, 96))
    return predictor, predictor.model


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(NUM_IMAGES):
        cv2.imwrite(str(folder / f"{i}.png"), noise(30 + i, 40))
    return folder


def content_of(out: Path) -> Files:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def lines_of(journal: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in journal.read_text().splitlines()[1:]]


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_interrupted_and_resumed(
    images: Path, tmp_path: Path, batch_size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"formats": ALL, "batch_size": batch_size}
    predict_files(detector()[0], [images], tmp_path / "whole", **options)
    predictor, network = detector(ctrl_c(after=4))
    with pytest.raises(KeyboardInterrupt):
        predict_files(predictor, [images], tmp_path / "out", **options)
    assert network.num == 4
    out = capsys.readouterr().out
    assert (
        f"interrupted: 4 of 9 images are in {tmp_path / 'out'}; the same command with --resume does the others" in out
    )
    assert [line["file_name"] for line in lines_of(tmp_path / "out" / "results.jsonl")] == [
        f"{i}.png" for i in range(4)
    ]
    written = json.loads((tmp_path / "out" / "images.json").read_text())["images"]
    assert [image["id"] for image in written] == [1, 2, 3, 4]  # the formats are whole, too
    assert (tmp_path / "out" / "annotations" / "3.xml").exists()
    with (tmp_path / "out" / "results.jsonl").open("ab") as file:
        file.write(b'{"number": 5, "file_name": "4.png", "hei')  # a kill in the middle of a line
    predictor, network = detector()
    predict_files(predictor, [images], tmp_path / "out", resume=True, **options)
    assert network.num == NUM_IMAGES - 4
    assert content_of(tmp_path / "out") == content_of(tmp_path / "whole")
    predict_files(predictor, [images], tmp_path / "out", resume=True, **options)  # nothing is left to do
    assert network.num == NUM_IMAGES - 4
    assert content_of(tmp_path / "out") == content_of(tmp_path / "whole")


def test_a_batch_that_was_half_done_is_predicted_as_a_whole(images: Path, tmp_path: Path) -> None:
    predict_files(detector()[0], [images], tmp_path / "out", batch_size=4)
    journal = tmp_path / "out" / "results.jsonl"
    before = content_of(tmp_path / "out")
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:7]))  # header, 4 + 2 images
    predictor, network = detector()
    predict_files(predictor, [images], tmp_path / "out", batch_size=4, resume=True)
    assert network.num == 5
    assert content_of(tmp_path / "out") == before


def test_an_image_that_is_another_one_now_is_predicted_again(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under the same name, and of the same number of bytes: a picture as BMP has always as many."""
    (images / "5.png").unlink()
    cv2.imwrite(str(images / "5.bmp"), noise(30, 40))
    predict_files(detector()[0], [images], tmp_path / "out")
    cv2.imwrite(str(images / "5.bmp"), noise(30, 40)[::-1])
    predictor, network = detector()
    predict_files(predictor, [images], tmp_path / "out", resume=True)
    assert network.num == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "predicted again, since changed after their results: " in said
    predict_files(detector()[0], [images], tmp_path / "anew")
    assert content_of(tmp_path / "out") == content_of(tmp_path / "anew")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no locks")
@pytest.mark.parametrize("option", ["resume", "overwrite"])
def test_a_second_run_into_the_same_folder_is_refused(option: str, images: Path, tmp_path: Path) -> None:
    """Begun by the network of the first one, at its third image."""
    errors = list[str]()

    def second(num: int) -> None:
        if num == 3:
            with pytest.raises(DataError) as caught:
                predict_files(detector()[0], [images], tmp_path / "out", **{option: True})
            errors.append(str(caught.value))

    predict_files(detector(second)[0], [images], tmp_path / "out")
    (error,) = errors
    assert error.endswith("another process is writing its results here; wait for it, or choose another --out")
    predict_files(detector()[0], [images], tmp_path / "alone")
    assert content_of(tmp_path / "out") == content_of(tmp_path / "alone")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no locks")
@pytest.mark.parametrize(("first", "other"), [(Share(0, 2, 0.3), Share()), (Share(), Share(1, 2))])
def test_one_process_beside_several_is_refused(first: Share, other: Share, images: Path, tmp_path: Path) -> None:
    def second(num: int) -> None:
        if num == 3:
            with pytest.raises(DataError, match="another process is writing its results here; wait for it, or choose"):
                predict_files(detector()[0], [images], tmp_path / "out", resume=True, share=other)

    with pytest.raises(DetsegError, match="process 1 of 2 has died or") if first.num > 1 else nullcontext():
        predict_files(detector(second)[0], [images], tmp_path / "out", share=first)
    predict_files(detector()[0], [images], tmp_path / "out", resume=True)
    predict_files(detector()[0], [images], tmp_path / "alone")
    assert content_of(tmp_path / "out") == content_of(tmp_path / "alone")


def test_label_maps_are_resumed(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the last image half a line is left; of others the drawn copy or the mask is gone, or the mask is corrected."""
    predictor = SegmentationPredictor(two_levels(), ClassTable(("sky", "road", "car")), (48, 64))
    predict_files(predictor, [images], tmp_path / "out", formats=["csv"])
    before = content_of(tmp_path / "out")
    journal = tmp_path / "out" / "results.jsonl"
    journal.write_bytes(journal.read_bytes()[:-300])
    for name in ("8.png", "masks/8.png", "classes.json", "3.png", "masks/4.png", "5.png"):
        (tmp_path / "out" / name).unlink()
    (tmp_path / "out" / "masks" / "5.png").write_bytes(b"corrected")
    predict_files(predictor, [images], tmp_path / "out", formats=["csv"], mask_values="labels", resume=True)
    assert content_of(tmp_path / "out") == before | {"masks/5.png": b"corrected"}
    for name in ("5.png", "6.png"):
        cv2.imwrite(str(images / name), noise(50, 60))
    predict_files(predictor, [images], tmp_path / "new", formats=["csv"])
    capsys.readouterr()
    for _ in range(2):
        predict_files(predictor, [images], tmp_path / "out", formats=["csv"], resume=True)
        assert content_of(tmp_path / "out") == content_of(tmp_path / "new") | {"masks/5.png": b"corrected"}
        text = " ".join(capsys.readouterr().out.split())
        assert f"would be written: 1 file ({tmp_path}/out/masks/5.png); --resume --overwrite replaces them" in text
    predict_files(predictor, [images], tmp_path / "out", formats=["csv"], resume=True, overwrite=True)
    assert content_of(tmp_path / "out") == content_of(tmp_path / "new")


class Killed(SegmentationPredictor):
    """Dies at the fourth image."""

    num = 0

    def read(self, image: Any) -> Any:
        self.num += isinstance(image, Path)
        if isinstance(image, Path) and self.num > 3:
            raise RuntimeError
        return super().read(image)


def test_a_killed_run_that_overwrites_is_resumed_without_files_of_the_earlier_one(images: Path, tmp_path: Path) -> None:
    made = two_levels(), CLASSES, (48, 64)
    out, lines = tmp_path / "out", tmp_path / "out" / "clip_frames.jsonl"
    predict_files(SegmentationPredictor(*made), [images], out)
    lines.write_text("of a video")
    with pytest.raises(RuntimeError):
        predict_files(Killed(*made), [images], out, mask_values="source", overwrite=True, also_replaced=[lines])
    assert len(lines_of(out / "results.jsonl")) == 3
    predict_files(SegmentationPredictor(*made), [images], out, resume=True, mask_values="source")
    predict_files(SegmentationPredictor(*made), [images], tmp_path / "whole", mask_values="source")
    assert content_of(out) == content_of(tmp_path / "whole")


def test_an_image_that_cannot_be_read_for_a_moment_keeps_its_result(tmp_path: Path) -> None:
    image = ImageFile(1, tmp_path / "a.png", Path("a.png"))
    image.path.write_bytes(b"an image")
    for content in (b"an image", None, b"another one"):
        image.path.unlink() if content is None else image.path.write_bytes(content)
        with Journal(tmp_path, [image], {}, Share(), 1, lambda image, entry: True) as journal:
            journal.open(resume=True, overwrite=False)
            assert journal.has(image) == (content is None)
            if not journal.has(image):
                journal.add(image, {})


def test_what_is_left_and_cannot_be_read_is_named_on_ctrl_c(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (images / "1.png").write_text("none")
    for after, resume in ((3, False), (1, True)):
        with pytest.raises(KeyboardInterrupt):
            predict_files(detector(ctrl_c(after))[0], images, out, formats=["labelme"], resume=resume)
        assert "1.png" in (out / "unreadable.txt").read_text()
        (out / "labelme" / "2.json").write_text("corrected")
    assert f"1 file ({out}/labelme/2.json)" in " ".join(capsys.readouterr().out.split())


def test_what_people_corrected_stays_when_resumed(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, good = tmp_path / "out", (images / "2.png").read_bytes()
    predict_files(detector()[0], str(images), str(tmp_path / "whole"), formats=ALL)
    (images / "2.png").write_bytes(good[:40])
    with pytest.raises(LeftOutError, match=r"1 of 9 images were left out: .*2\.png"):
        predict_files(detector()[0], images, out, formats=["labelme"])
    (images / "2.png").write_bytes(good)
    mine = {"labelme/1.json": b"corrected", "annotations/3.xml": b"made by hand", "classes.txt": b"mine"}
    for name, content in mine.items():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(content)
    capsys.readouterr()
    predict_files(detector()[0], images, out, formats=ALL, resume=True)
    assert content_of(out) == content_of(tmp_path / "whole") | mine
    said = " ".join(capsys.readouterr().out.split())
    assert "left as they were, since they differ from what would be written: 3 files (" in said
    assert "classes.txt); --resume --overwrite replaces them" in said
    predict_files(detector()[0], images, out, formats=ALL, resume=True, overwrite=True)
    assert content_of(out) == content_of(tmp_path / "whole")
    assert "left as they were" not in capsys.readouterr().out


def test_other_formats_of_the_same_results_need_no_model(images: Path, tmp_path: Path) -> None:
    predict_files(detector()[0], [images], tmp_path / "out")
    predictor, network = detector()
    predict_files(predictor, [images], tmp_path / "out", formats=ALL, resume=True)
    assert network.num == 0
    predict_files(detector()[0], [images], tmp_path / "whole", formats=ALL)
    assert content_of(tmp_path / "out") == content_of(tmp_path / "whole")


def test_results_of_an_earlier_run(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_files(detector()[0], [images], out)
    (out / "results.mine.jsonl").write_text("no part of a run\n")
    before = content_of(out)
    message = "holds results of an earlier run; resume that with --resume, replace it with --overwrite, or choose anoth"
    with pytest.raises(DataError, match=message):
        predict_files(detector()[0], [images], out)
    for options, what in (
        ({"batch_size": 2}, "batch_size 1, now 2"),
        ({"model_id": "new"}, "model '', now 'new'"),
        ({"pictures": False}, "pictures True, now False"),
    ):
        with pytest.raises(
            DataError, match=rf"results\.jsonl: was made with other settings \({what}\); resume with th"
        ):
            predict_files(detector()[0], [images], out, resume=True, **options)
    with pytest.raises(DataError, match=r"other settings \(images '9 of names .*', now '1 of names .*'\)"):
        predict_files(detector()[0], [images / "3.png"], out, resume=True)
    assert content_of(out) == before
    predict_files(detector()[0], [images], out, overwrite=True)
    assert content_of(out) == before


def test_settings_that_do_not_matter(images: Path, tmp_path: Path) -> None:
    """The order of the classes; and those of another run that has begun, and has no results."""
    one, other = Refinement(classes=("road", "car")), Refinement(classes=("car", "road"))
    predict_files(detector()[0], [images / "0.png"], tmp_path / "other")
    header = (tmp_path / "other" / "results.jsonl").read_bytes().splitlines(keepends=True)[0]
    predict_files(detector()[0], [images], tmp_path / "out", refine=one)
    before = content_of(tmp_path / "out")
    (tmp_path / "out" / "results.1.jsonl").write_bytes(header)
    predict_files(detector()[0], [images], tmp_path / "out", refine=other, resume=True)
    assert content_of(tmp_path / "out") == before


@pytest.mark.parametrize("text", ["mine\n", '{"number": 1}\n', "[]\n", "mine"])
def test_a_file_of_the_name_that_is_no_journal(images: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "results.jsonl").write_text(text)
    for options in ({"resume": True}, {"overwrite": True}, {}):
        with pytest.raises(DataError, match="is no file of results that detseg predict wrote; choose another --out"):
            predict_files(detector()[0], [images], tmp_path, **options)
    assert (tmp_path / "results.jsonl").read_text() == text


@pytest.mark.parametrize("line", [b"\0" * 40 + b"\n", b'{"number": 0}\n', b'{"number": 99}\n', b"[]\n"])
def test_a_damaged_journal(images: Path, tmp_path: Path, line: bytes) -> None:
    predict_files(detector()[0], [images], tmp_path / "out")
    with (tmp_path / "out" / "results.jsonl").open("ab") as file:
        file.write(line)
    with pytest.raises(DataError, match=r"the line that begins at byte \d+ is damaged; take --overwrite in place of"):
        predict_files(detector()[0], [images], tmp_path / "out", resume=True)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [('"objects"', '"object"'), ('"file_name"', '"file"'), ('"car"', '"bus"'), ('"box": [', '"box": [1, ')],
)
def test_a_journal_that_was_changed_by_hand(images: Path, tmp_path: Path, right: str, wrong: str) -> None:
    predict_files(detector()[0], [images / "0.png"], tmp_path)
    journal = tmp_path / "results.jsonl"
    header, line = journal.read_text().splitlines()
    assert right in line
    journal.write_text(f"{header}\n{line.replace(right, wrong)}\n")
    with pytest.raises(DataError, match=rf"line that begins at byte {len(header) + 1} is damaged; take --overwrite in"):
        predict_files(detector()[0], [images / "0.png"], tmp_path, resume=True)


def test_what_could_not_be_read_is_tried_again(images: Path, tmp_path: Path) -> None:
    predict_files(detector()[0], [images], tmp_path / "whole", batch_size=2)
    good = (images / "2.png").read_bytes()
    (images / "2.png").write_bytes(good[:40])
    with pytest.raises(DataError, match=r"1 of 9 images were left out: .*2\.png"):
        predict_files(detector()[0], [images], tmp_path / "out", batch_size=2)
    assert len(lines_of(tmp_path / "out" / "results.jsonl")) == 8
    (images / "2.png").write_bytes(good)
    predictor, network = detector()
    predict_files(predictor, [images], tmp_path / "out", batch_size=2, resume=True)
    assert network.num == 2
    assert content_of(tmp_path / "out") == content_of(tmp_path / "whole")


def test_a_mistake_while_it_runs_keeps_what_was_done(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(num: int) -> None:
        if num == 3:
            raise MemoryError("too much")

    with pytest.raises(DetsegError, match=r"out of memory: predicting for .*3\.png"):
        predict_files(detector(stop)[0], [images], tmp_path / "out")
    assert "3 of 9 images are in" in capsys.readouterr().out
    predict_files(detector()[0], [images], tmp_path / "out", resume=True)
    assert len(lines_of(tmp_path / "out" / "results.jsonl")) == 9


def test_without_pictures(images: Path, tmp_path: Path) -> None:
    (images / "a.ppm").write_bytes((images / "0.png").read_bytes())
    predict_files(detector()[0], [images], tmp_path / "out", pictures=False)
    names = {"detections.json", "detections_masks.json", "images.json", "results.jsonl"}
    assert set(content_of(tmp_path / "out")) == names


def test_files_passed_over_are_in_the_exit_code(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = write_rcnn(tmp_path / "best.ckpt", "faster_rcnn", CLASSES)
    command = [str(checkpoint), str(images), "--device", "cpu", "--out"]
    assert said(predict, [*command, str(tmp_path / "one")], capsys) == (0, "")
    (images / "plan.svg").write_text("<svg/>")
    code = predict([*command, str(tmp_path / "two")])
    assert code == 1
    assert "passed over, since they cannot be read: 1 file (" in capsys.readouterr().out
    (images / "1.png").write_text("none")
    code, text = said(predict, [*command, str(tmp_path / "three")], capsys)
    assert (code, text.count("\n")) == (2, 1)


def together(images: Path, out: Path, num: int, ranks: list[int], patience: float = 30, **options: Any) -> list[str]:
    """Run some of ``num`` processes as threads; returns the errors."""
    errors: list[str] = []

    def one(rank: int) -> None:
        try:
            predict_files(detector()[0], [images], out, share=Share(rank, num, patience), **options)
        except DetsegError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=one, args=(rank,)) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


@pytest.mark.parametrize(("num", "batch_size"), [(2, 1), (2, 2), (3, 1), (12, 1)])
def test_several_processes_write_what_one_does(images: Path, tmp_path: Path, num: int, batch_size: int) -> None:
    (images / "5.png").write_text("none")
    options: dict[str, Any] = {"formats": ALL, "batch_size": batch_size}
    alone = together(images, tmp_path / "alone", 1, [0], **options)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.mine.jsonl").write_text("no part of a run\n")
    several = together(images, tmp_path / "out", num, list(range(num)), **options)
    assert alone == several == [alone[0]]
    assert "1 of 9 images were left out" in alone[0]
    (tmp_path / "out" / "results.mine.jsonl").unlink()  # it was not taken for one, nor removed
    assert content_of(tmp_path / "out") == content_of(tmp_path / "alone")


def test_a_process_that_never_comes_is_an_error_and_the_run_is_resumed(images: Path, tmp_path: Path) -> None:
    """By both, by one, by three: whatever has been done is not done again."""
    predict_files(detector()[0], [images], tmp_path / "whole")
    for name, ranks, num in (("both", [0, 1], 2), ("one", [0], 1), ("three", [0, 1, 2], 3)):
        out = tmp_path / name
        (error,) = together(images, out, 2, [0], patience=0.5)
        what = "process 1 of 2 has died or has not begun: no sign of life for 0.5 seconds"
        assert error == f"{what}; 5 of 9 images are in {out}; the same command with --resume does the others"
        (again,) = together(images, out, 2, [0])
        assert "results.0.jsonl: holds results of an earlier run; resume that with --resume, remove it" in again
        assert together(images, out, num, ranks, resume=True) == []
        assert together(images, out, 2, [1], resume=True) == []  # begins after the run has ended
        assert content_of(out) == content_of(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_killed_processes(images: Path, tmp_path: Path) -> None:
    """The command itself: ended by SIGTERM and resumed; two processes, of which one is killed, and resumed."""
    for i in range(NUM_IMAGES, 150):
        cv2.imwrite(str(images / f"{i}.png"), noise(100, 120 + i % 5))
    checkpoint = write_rcnn(tmp_path / "best.ckpt", "mask_rcnn", CLASSES)

    def start(out: str, *options: str, **environment: str) -> subprocess.Popen[str]:
        line = [sys.executable, "-m", "detseg", "predict", str(checkpoint), str(images), "--out", str(tmp_path / out)]
        line += ["--device", "cpu", "--score", "0", "--format", "coco,yolo", *options]
        variables = os.environ | {"OMP_NUM_THREADS": "1"} | environment
        return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables)

    def stop(process: subprocess.Popen[str], journal: Path, number: int) -> str:
        while not journal.exists() or len(journal.read_bytes().splitlines()) < 20:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        return process.communicate()[0]

    def end(process: subprocess.Popen[str]) -> int:
        process.communicate()
        return process.returncode

    assert end(start("whole")) == 0
    whole = content_of(tmp_path / "whole")
    process = start("out")
    said_to_user = stop(process, tmp_path / "out" / "results.jsonl", signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM
    assert " of 150 images are in " in said_to_user
    assert 10 < len(json.loads((tmp_path / "out" / "images.json").read_text())["images"]) < 150
    assert end(start("out", "--resume")) == 0
    assert content_of(tmp_path / "out") == whole
    pair = [start("two", RANK=str(rank), WORLD_SIZE="2") for rank in range(2)]
    stop(pair[1], tmp_path / "two" / "results.1.jsonl", signal.SIGKILL)
    pair[0].send_signal(signal.SIGKILL)  # as torchrun does then
    assert [end(process) for process in pair] == [-signal.SIGKILL] * 2
    pair = [start("two", "--resume", RANK=str(rank), WORLD_SIZE="2") for rank in range(2)]
    assert [end(process) for process in pair] == [0, 0]
    assert content_of(tmp_path / "two") == whole
