"""Prediction over files: what is written, where, and what is refused."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path

import cv2
import pytest
from pycocotools.coco import COCO

from detseg.errors import DataError
from detseg.predict import load_predictor
from detseg.predict.files import find_pictures, predict_files
from tests.tiny import TinyRun


@pytest.fixture
def images(tiny_run: TinyRun, tmp_path: Path) -> Path:
    """A folder with pictures at its top and in a subfolder, and a file that is none."""
    source, folder = tiny_run.data_root / "JPEGImages", tmp_path / "images"
    (folder / "day two").mkdir(parents=True)
    shutil.copy(source / "val00.png", folder / "a.png")
    shutil.copy(source / "val01.png", folder / "day two" / "a.png")
    cv2.imwrite(str(folder / "B.JPG"), cv2.imread(str(source / "val02.png")))
    (folder / "notes.txt").write_text("no picture")
    (folder / "folder.jpg").mkdir()
    return folder


def test_names_and_subfolders_are_kept_and_pycocotools_reads_the_rest(
    tiny_run: TinyRun, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out" / "here"
    best = float(load_predictor(tiny_run.best, "cpu")(images / "a.png").scores[0])
    predict_files(tiny_run.best, [images], out, score_threshold=best / 2, device="cpu")  # so that something is found
    written = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert written == ["B.JPG", "a.png", "day two/a.png", "detections.json", "images.json"]
    for name in ("B.JPG", "a.png", "day two/a.png"):
        before, after = cv2.imread(str(images / name)), cv2.imread(str(out / name))
        assert before is not None
        assert after is not None
        assert before.shape == after.shape

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(out / "images.json"))
        truth.dataset["annotations"] = []
        results = truth.loadRes(str(out / "detections.json"))
    by_name = {image["file_name"]: image for image in truth.dataset["images"]}
    assert by_name.keys() == {"B.JPG", "a.png", "day two/a.png"}
    assert (by_name["day two/a.png"]["width"], by_name["day two/a.png"]["height"]) == (90, 60)
    assert [entry["name"] for entry in truth.dataset["categories"]] == ["blue", "red", "yellow"]
    predictor = load_predictor(tiny_run.best, "cpu", best / 2)
    for name, image in by_name.items():
        expected = predictor(images / name).to_coco(image["id"])
        found = results.loadAnns(results.getAnnIds(imgIds=[image["id"]]))
        assert [(entry["bbox"], entry["score"]) for entry in found] == [(e["bbox"], e["score"]) for e in expected]
    num = len(results.dataset["annotations"])
    assert num > 0
    assert f"{num} objects in 3 pictures; written to {out}" in capsys.readouterr().out


def test_a_damaged_picture_is_named_and_the_others_are_done(tiny_run: TinyRun, images: Path, tmp_path: Path) -> None:
    (images / "broken.jpg").write_bytes((images / "B.JPG").read_bytes()[:300])
    with pytest.raises(DataError) as caught:
        predict_files(tiny_run.best, [images], tmp_path / "out", 0.05, "cpu")
    assert str(caught.value).startswith(
        f"1 of 4 pictures were left out: {images / 'broken.jpg'}: cannot read the image"
    )
    assert "\n" not in str(caught.value)
    files = json.loads((tmp_path / "out" / "images.json").read_text())["images"]
    assert [image["file_name"] for image in files] == ["B.JPG", "a.png", "day two/a.png"]
    assert {entry["image_id"] for entry in json.loads((tmp_path / "out" / "detections.json").read_text())} <= {
        image["id"] for image in files
    }


def test_outputs_never_overwrite(tiny_run: TinyRun, images: Path, tmp_path: Path) -> None:
    before = (images / "a.png").read_bytes()
    for sources, out in (([images], images), ([images / "a.png"], images), ([images / "day two"], images / "day two")):
        with pytest.raises(
            DataError, match="lies in --out already, as an original or as an earlier drawing; choose an"
        ):
            predict_files(tiny_run.best, sources, out, 0.05, "cpu")
    with pytest.raises(DataError, match=r"a\.png: two pictures would be written here, .*; rename one of them, or"):
        predict_files(tiny_run.best, [images / "a.png", images / "day two"], tmp_path / "out", 0.05, "cpu")
    assert (images / "a.png").read_bytes() == before
    assert not (tmp_path / "out").exists()


def test_drawings_of_an_earlier_run_are_not_taken_for_pictures(tiny_run: TinyRun, images: Path) -> None:
    predict_files(tiny_run.best, [images], images / "found", 0.05, "cpu")
    with pytest.raises(DataError, match="lies in --out already"):
        predict_files(tiny_run.best, [images], images / "found", 0.05, "cpu")
    (images / "day two" / "link").symlink_to(images / "found", target_is_directory=True)
    with pytest.raises(DataError, match="lies in --out already"):
        predict_files(tiny_run.best, [images / "day two"], images / "found", 0.05, "cpu")
    (images / "day two" / "link").unlink()
    # A folder above the pictures is no reason to refuse.
    (images / "up").mkdir()
    predict_files(tiny_run.best, [images / "day two" / "a.png"], images / "up" / "..", 0.05, "cpu")


def test_a_format_that_cannot_be_written_is_refused_before_the_work(
    tiny_run: TinyRun, images: Path, tmp_path: Path
) -> None:
    shutil.copy(images / "a.png", images / "a.picture")
    with pytest.raises(
        DataError, match=r"a\.picture: a drawn copy cannot be written in this format; convert it to PNG"
    ):
        predict_files(tiny_run.best, [images / "a.png", images / "a.picture"], tmp_path / "out", 0.05, "cpu")
    assert not (tmp_path / "out").exists()


def test_find_pictures(images: Path, tmp_path: Path) -> None:
    assert [relative.as_posix() for _, relative in find_pictures([images])] == ["B.JPG", "a.png", "day two/a.png"]
    assert find_pictures([images / "B.JPG"]) == [(images / "B.JPG", Path("B.JPG"))]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: holds no pictures \(\.bmp, .*\.jpeg, \.jpg, "):
        find_pictures([tmp_path / "empty"])
    with pytest.raises(DataError, match=r"nowhere: no such file or folder"):
        find_pictures([tmp_path / "nowhere"])
