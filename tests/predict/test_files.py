"""Prediction over files with a detector: what is written, where, in which form, and what is refused."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as referee
from pycocotools.coco import COCO

from detseg.cli.deploy.predict import predict
from detseg.data.formats.voc import read_voc, read_voc_xml
from detseg.errors import ConfigError, DataError
from detseg.predict import Detections, Predictor
from detseg.predict.files import find_sources, predict_files
from detseg.predict.outputs import DetectionOutput, ImageFile
from detseg.structures import ClassTable, InstanceMasks
from tests.cli.mistakes import said
from tests.predict.networks import FoundMasks, noise, write_rcnn

CLASSES = ClassTable(("sky & sea", "road", "car"), (5, 7, 90))
SIZES = {"B.JPG": (37, 20), "a.png": (100, 130), "day two/a.png": (64, 96)}
COCO_FILES = ("detections.json", "detections_masks.json", "images.json", "results.jsonl")
REGIONS = torch.tensor([[10.0, 20, 50, 44], [-12.5, 3, 34, 40], [60, 30, 90, 80], [45.3, 30.1, 52.9, 38.7]])
Capture: TypeAlias = pytest.CaptureFixture[str]
NOT_UTF8 = os.fsdecode(b"caf\xe9.png")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with images at its top and in a subfolder, and what is none."""
    folder = tmp_path / "images"
    for name, hw in SIZES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), noise(*hw))
    (folder / "notes.txt").write_text("no image")
    (folder / "folder.jpg").mkdir()
    return folder


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """A model of masks that finds four objects in every image, all above the default threshold."""
    return Predictor(FoundMasks(REGIONS).eval(), CLASSES, (64, 96))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Mask R-CNN of random weights, which finds something."""
    return write_rcnn(tmp_path_factory.mktemp("rcnn") / "best.ckpt", "mask_rcnn", CLASSES)


def command(checkpoint: Path, *others: str | Path) -> list[str]:
    return [str(checkpoint), "--device", "cpu", "--score", "0", *map(str, others)]


def written(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def test_names_are_kept_and_coco_has_all(predictor: Predictor, images: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out" / "here"
    predict_files(predictor, [images], out)
    assert written(out) == sorted([*SIZES, *COCO_FILES])
    assert (
        f"12 objects in 3 images (score 0.3 or more; scores are from 0 to 1); written to {out}"
    ) in capsys.readouterr().out
    for name, (height, width) in SIZES.items():
        drawn = cv2.imread(str(out / name))
        assert drawn is not None
        times = drawn.shape[0] // height
        assert drawn.shape == (times * height, times * width, 3)
        assert max(drawn.shape) >= 320  # small ones are enlarged
    results_of_masks = json.loads((out / "detections_masks.json").read_text())
    assert all(set(entry) == {"image_id", "category_id", "score", "segmentation"} for entry in results_of_masks)
    full = json.loads((out / "detections.json").read_text())
    assert [entry | {"bbox": other["bbox"]} for entry, other in zip(results_of_masks, full, strict=True)] == full
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(out / "images.json"))
        truth.dataset |= {"annotations": [], "info": {}}
        results = truth.loadRes(str(out / "detections.json"))
    categories = {entry["id"]: entry["name"] for entry in truth.dataset["categories"]}
    assert categories == dict(zip(CLASSES.source_ids, CLASSES.names, strict=True))
    for image in truth.dataset["images"]:
        assert (image["height"], image["width"]) == SIZES[image["file_name"]]
        found = predictor(images / image["file_name"])
        read = results.loadAnns(results.getAnnIds(imgIds=[image["id"]]))
        assert [entry["category_id"] for entry in read] == [5, 7, 90, 5]
        assert [entry["score"] for entry in read] == found.scores.tolist()
        assert [entry["bbox"][:2] for entry in read] == found.boxes[:, :2].tolist()
        assert found.masks is not None
        for entry, mask in zip(read, found.masks.dense(), strict=True):
            np.testing.assert_array_equal(referee.decode(entry["segmentation"]), mask)


def test_nothing_found_is_told_with_what_to_try(images: Path, tmp_path: Path, capsys: Capture) -> None:
    network = FoundMasks(REGIONS).eval()
    predict_files(Predictor(network, CLASSES, (64, 96), score_threshold=1), [images / "a.png"], tmp_path / "one")
    assert "1 object in 1 image (score 1 or more;" in capsys.readouterr().out
    none = Predictor(FoundMasks(REGIONS[:0]).eval(), CLASSES, (64, 96))
    predict_files(none, [images], tmp_path / "none")
    out = capsys.readouterr().out
    assert "0 objects in 3 images (score 0.3 or more;" in out
    assert (
        "no object is left: try a lower score, such as --score 0.05, leave out --classes and --min-area, or train"
        in out
    )


def test_voc_comes_back_through_the_voc_reader(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_files(predictor, [images], out, formats=["voc"])
    assert written(out) == sorted(
        [*SIZES, "annotations/a.xml", "annotations/B.xml", "annotations/day two/a.xml", "results.jsonl"]
    )
    for name in SIZES:
        found = predictor(images / name)
        path = (out / "annotations" / name).with_suffix(".xml")
        read = read_voc_xml(path)
        assert (read.filename, read.hw) == (Path(name).name, SIZES[name])
        assert list(read.names) == ["sky & sea", "road", "car", "sky & sea"]
        np.testing.assert_allclose(read.boxes, found.boxes, rtol=0, atol=5.01e-4)  # to a thousandth of a pixel
        assert not (read.difficult | read.truncated).any()
        scores = [float(item.findtext("score", "")) for item in ET.parse(path).getroot().iter("object")]
        np.testing.assert_allclose(scores, found.scores, rtol=0, atol=5.01e-7)
    # As a data set: predictions as the start of labelling.
    (tmp_path / "set" / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "set" / "ImageSets" / "Main" / "all.txt").write_text("a\n")
    shutil.copytree(images, tmp_path / "set" / "JPEGImages")
    shutil.copytree(out / "annotations", tmp_path / "set" / "Annotations")
    dataset = read_voc(tmp_path / "set", "all", classes=CLASSES)
    assert dataset.annotations(0).labels.tolist() == [0, 1, 2, 0]


def given(boxes: list[list[float]], labels: list[int], masks: InstanceMasks | None = None) -> Detections:
    """Detections of an image of 10 x 20 pixels, with the scores 0.875 and 0.5."""
    columns = (np.array(boxes, np.float32), np.array([0.875, 0.5], np.float32), np.array(labels))
    return Detections(*columns, CLASSES, masks, np.zeros((10, 20, 3), np.uint8))


def write_one(output: DetectionOutput, name: str, found: Detections) -> str:
    image = ImageFile(1, Path(name), Path(name))
    return output.write([(image, output.entry(image, found))])


def test_corners_in_voc_by_hand(tmp_path: Path) -> None:
    found = given([[0, 0, 20, 10], [3.25, 4, 5, 6.5]], [1, 2])
    write_one(DetectionOutput(tmp_path, CLASSES, ["voc"]), "deep/a.b.jpg", found)
    root = ET.parse(tmp_path / "annotations" / "deep" / "a.b.xml").getroot()
    assert (root.findtext("folder"), root.findtext("filename"), root.findtext("segmented")) == ("deep", "a.b.jpg", "0")
    corners = [[corner.text for corner in box] for box in root.iter("bndbox")]
    assert corners == [["1", "1", "20", "10"], ["4.25", "5", "5", "6.5"]]  # 1-based, the last pixel included
    assert [item.findtext("score") for item in root.iter("object")] == ["0.875000", "0.500000"]


def test_yolo_has_fractions_of_the_image(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_files(predictor, [images], out, formats=["yolo"])
    texts = [f"{folder}/{name}.txt" for folder in ("labels", "segments") for name in ("a", "B", "day two/a")]
    assert written(out) == sorted([*SIZES, *texts, "classes.txt", "results.jsonl"])
    assert (out / "classes.txt").read_text() == "sky & sea\nroad\ncar\n"
    for name, (height, width) in SIZES.items():
        found = predictor(images / name)
        rows = np.loadtxt((out / "labels" / name).with_suffix(".txt"))
        assert rows[:, 0].tolist() == found.labels.tolist()
        centers, sides = rows[:, 1:3] * [width, height], rows[:, 3:5] * [width, height]
        boxes = np.concatenate([centers - sides / 2, centers + sides / 2], axis=1)
        np.testing.assert_allclose(boxes, found.boxes, rtol=0, atol=1e-6 * max(width, height))
        np.testing.assert_allclose(rows[:, 5], found.scores, rtol=0, atol=5.01e-7)
        assert found.masks is not None
        lines = (out / "segments" / name).with_suffix(".txt").read_text().splitlines()
        masks = found.masks.select([i for i, area in enumerate(found.masks.areas) if area])
        assert len(lines) == len(masks) >= 3
        for line, mask in zip(lines, masks.dense(), strict=True):
            polygon = np.array(line.split()[1:], dtype=np.float64).reshape(-1, 2) * [width, height]
            # The rings' holes are lost; the outline is that of the mask: pixels beyond it are none of its own.
            filled = np.zeros((height, width), dtype=np.uint8)
            cv2.fillPoly(filled, [np.round(polygon * 64).astype(np.int32)], (1,), shift=6)
            assert not (mask & (filled == 0)).any()
            rows_of, columns_of = np.nonzero(mask)
            assert polygon.min(axis=0).round(3).tolist() == [columns_of.min(), rows_of.min()]
            assert polygon.max(axis=0).round(3).tolist() == [columns_of.max() + 1, rows_of.max() + 1]


def test_yolo_by_hand(tmp_path: Path) -> None:
    output = DetectionOutput(tmp_path, CLASSES, ["yolo"])
    masks = np.zeros((2, 10, 20), dtype=np.bool_)
    masks[0, 2:7, 10:14] = True
    masks_of = InstanceMasks.from_dense(masks)
    message = write_one(output, "a.jpg", given([[10, 2, 14, 7], [0, 0, 20, 10]], [2, 0], masks_of))
    assert (tmp_path / "labels" / "a.txt").read_text() == (
        "2 0.600000 0.450000 0.200000 0.500000 0.875000\n0 0.500000 0.500000 1.000000 1.000000 0.500000\n"
    )
    label, *numbers = (tmp_path / "segments" / "a.txt").read_text().split()  # one line: the other mask is empty
    assert label == "2"
    corners = {(float(x), float(y)) for x, y in zip(numbers[::2], numbers[1::2], strict=True)}
    assert corners == {(0.5, 0.2), (0.7, 0.2), (0.5, 0.7), (0.7, 0.7)}
    listed = "labels/ (YOLO text), segments/ (polygons; 1 without a pixel are not in it), classes.txt"
    assert message.endswith(f"written to {tmp_path}: {listed}")


def test_boxes_alone_give_no_segments(tmp_path: Path) -> None:
    output = DetectionOutput(tmp_path, CLASSES, ["yolo"])
    message = write_one(output, "none.jpg", given([[0, 0, 1, 1]] * 2, [0, 0])[:0])
    assert message.endswith(f"written to {tmp_path}: labels/ (YOLO text), classes.txt")
    assert written(tmp_path) == ["classes.txt", "labels/none.txt"]
    assert (tmp_path / "labels" / "none.txt").read_text() == ""


def test_several_formats_at_once_from_the_command_line(checkpoint: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict(command(checkpoint, images, "--out", out, "--format", "yolo,coco", "--format", "voc, yolo"))
    names = {path.name for path in out.iterdir()}
    assert {"detections.json", "images.json", "labels", "segments", "classes.txt", "annotations"} < names
    entries = json.loads((out / "detections.json").read_text())
    lines = [line for path in (out / "labels").rglob("*.txt") for line in path.read_text().splitlines()]
    assert len(entries) == len(lines) > 0  # yolo was asked for twice, and written once


@pytest.mark.parametrize(
    ("name", "file"),
    [("voc", "annotations/a.xml"), ("yolo", "labels/a.txt"), ("yolo", "segments/a.txt"), ("yolo", "classes.txt")],
)
def test_annotations_that_exist_are_not_overwritten(
    predictor: Predictor, checkpoint: Path, images: Path, tmp_path: Path, name: str, file: str
) -> None:
    mine = tmp_path / "out" / file
    mine.parent.mkdir(parents=True)
    mine.write_text("made by hand")
    with pytest.raises(DataError) as caught:
        predict_files(predictor, [images], tmp_path / "out", formats=[name])
    message = "exists, and may be somebody's work; choose another --out, or replace it with --overwrite"
    assert str(caught.value) == f"{mine}: {message}"
    assert mine.read_text() == "made by hand"
    assert written(tmp_path / "out") == [file]  # nothing was done
    predict(command(checkpoint, images, "--out", tmp_path / "out", "--format", name, "--overwrite"))
    assert "made by hand" not in mine.read_text()


@pytest.mark.parametrize(("name", "file"), [("voc", "annotations/a.xml"), ("yolo", "labels/a.txt")])
def test_two_images_have_two_files(predictor: Predictor, images: Path, tmp_path: Path, name: str, file: str) -> None:
    shutil.copy(images / "a.png", images / "a.bmp")
    with pytest.raises(DataError, match=f"{file}: two images would be written here") as caught:
        predict_files(predictor, [images], tmp_path / "out", formats=[name], overwrite=True)
    both = f"{images / 'a.bmp'} and {images / 'a.png'}"
    assert str(caught.value).endswith(f"{both}; rename one of them, or predict them into different --out folders")
    assert not (tmp_path / "out").exists()
    for _ in range(2):  # which knows them apart, and replaces the files of the last run
        predict_files(predictor, [images], tmp_path / "out", formats=["coco"], overwrite=True)


def test_the_name_that_would_be_too_long_is_said(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    shutil.copy(images / "a.png", images / f"{'n' * 242}.png")  # 246 bytes, and 247 with .json
    with pytest.raises(
        DataError, match=rf"nnn\.png: {tmp_path}/out/labelme/n+\.json would be written for it, whose name"
    ):
        predict_files(predictor, [images], tmp_path / "out", formats=["coco", "labelme"])
    predict_files(predictor, [images], tmp_path / "out", formats=["yolo"])


def test_a_file_that_cannot_be_written_is_one_line(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "labels").write_text("no folder")
    with pytest.raises(DataError, match=r"labels/a\.txt: could not be written \(") as caught:
        predict_files(predictor, [images / "a.png"], tmp_path / "out", formats=["yolo"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["pascal", "coco,", "", "COCO", "coco;voc"])
def test_an_unknown_format_is_refused(predictor: Predictor, images: Path, tmp_path: Path, text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"argument --format: expected coco, voc, .* or geojson, or several with commas, got"
    ):
        predict(["a.ckpt", "images", "--out", "out", "--format", text])
    with pytest.raises(ConfigError, match=f"format: expected one of coco, voc, yolo, .*, geojson, got '{text}'"):
        predict_files(predictor, [images], tmp_path / "out", formats=["coco", text])
    assert not (tmp_path / "out").exists()


def test_outputs_never_overwrite(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    before = (images / "a.png").read_bytes()
    for sources, out in (([images], images), ([images / "a.png"], images), ([images / "day two"], images / "day two")):
        with pytest.raises(DataError, match="lies in --out already, as an original or as an earlier drawing; choo"):
            predict_files(predictor, sources, out)
    with pytest.raises(DataError, match=r"a\.png: two images would be written here, .*; rename one of them, or"):
        predict_files(predictor, [images / "a.png", images / "day two"], tmp_path / "out")
    with pytest.raises(DataError, match=r"^a\.png: two images have this name, .*; rename one of them, or predict them"):
        predict_files(predictor, [images / "a.png", images / "day two"], tmp_path / "out", pictures=False)
    assert (images / "a.png").read_bytes() == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_links_to_images_are_safe(predictor: Predictor, images: Path, tmp_path: Path, link: Callable[..., Any]) -> None:
    before = (images / "a.png").read_bytes()
    (tmp_path / "out").mkdir()
    link(images / "a.png", tmp_path / "out" / "a.png")
    with pytest.raises(DataError, match=r"out/a\.png: is an image to predict for and would be overwritten; choose"):
        predict_files(predictor, [images], tmp_path / "out")
    assert (images / "a.png").read_bytes() == before
    shutil.copy(images / "a.png", images / "b.png")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "b.png").symlink_to("a.png")
    with pytest.raises(DataError, match=r"other/b\.png: two images would be written here"):
        predict_files(predictor, [images], tmp_path / "other")


def test_drawings_of_an_earlier_run_are_not_taken_for_images(predictor: Predictor, images: Path) -> None:
    for options in ({}, {"resume": True}, {"overwrite": True}):
        predict_files(predictor, [images], images / "found", **options)
        predict_files(predictor, [str(images / "*")], images / "found", resume=True)
    assert written(images / "found") == sorted([*SIZES, *COCO_FILES])
    with pytest.raises(DataError, match="lies in --out already"):
        predict_files(predictor, [images / "found"], images / "found")
    with pytest.raises(DataError, match=r"images/found: all images lie in --out, as drawings of an earlier run"):
        predict_files(predictor, [images / "f*"], images / "found")
    (images / "day two" / "link").symlink_to(images / "found", target_is_directory=True)
    with pytest.raises(DataError, match="lies in --out already"):
        predict_files(predictor, [images / "day two"], images / "found")
    (images / "day two" / "link").unlink()
    # A folder above the images is no reason to refuse.
    (images / "up").mkdir()
    predict_files(predictor, [images / "day two" / "a.png"], images / "up" / "..")


@pytest.mark.parametrize("name", ["a.picture", os.fsdecode(b"a.pn\xe9")])
def test_a_wrong_format_is_refused_before_work(predictor: Predictor, images: Path, tmp_path: Path, name: str) -> None:
    shutil.copy(images / "a.png", images / name)
    with pytest.raises(DataError, match=": a drawn copy cannot be written in this format; convert it to PNG"):
        predict_files(predictor, [images / "a.png", images / name], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_find_sources(images: Path, tmp_path: Path) -> None:
    assert [relative.as_posix() for _, relative in find_sources([images])] == list(SIZES)
    assert find_sources([images / "B.JPG"]) == [(images / "B.JPG", Path("B.JPG"))]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: holds no images \(\.avif, .*\.jfif, \.jpeg, \.jpg, "):
        find_sources([tmp_path / "empty"])
    with pytest.raises(DataError, match=r"nowhere: no such file or folder"):
        find_sources([tmp_path / "nowhere"])


def test_a_name_that_is_no_utf8_is_kept(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    shutil.copy(images / "a.png", images / NOT_UTF8)
    out = tmp_path / "out"
    predict_files(predictor, [images / NOT_UTF8], out, formats=["coco", "yolo"])
    assert (out / NOT_UTF8).read_bytes().startswith(b"\x89PNG")
    assert (out / "labels" / NOT_UTF8).with_suffix(".txt").is_file()
    assert json.loads((out / "images.json").read_text())["images"][0]["file_name"] == NOT_UTF8


@pytest.mark.parametrize("name", ["a\x01.png", "two\x1b[2J/a.png", NOT_UTF8])
def test_voc_refuses_unfit_names(checkpoint: Path, images: Path, tmp_path: Path, capsys: Capture, name: str) -> None:
    (images / name).parent.mkdir(exist_ok=True)
    shutil.copy(images / "a.png", images / name)
    code, message = said(predict, command(checkpoint, images, "--out", tmp_path / "out", "--format=voc,yolo"), capsys)
    assert (code, message.count("\n")) == (2, 1)
    assert "XML has no place for some of the characters" in message
    assert message[:-1].isprintable()
    assert not (tmp_path / "out").exists()


def test_all_that_cannot_be_read_is_listed(checkpoint: Path, images: Path, tmp_path: Path, capsys: Capture) -> None:
    names = ["0\nerror: forged.png", *(f"{i}.png" for i in range(1, 6)), f"9{NOT_UTF8}"]
    for name in names:
        (images / name).write_text("not an image")
    out = tmp_path / "out"
    code, message = said(predict, command(checkpoint, images, "--out", out), capsys)
    assert (code, message.count("\n")) == (2, 1)
    assert message.startswith(f"error: 7 of 10 images were left out: {images}/0\\nerror: forged.png: not an image")
    assert message.endswith(f"; and 4 more, all listed in {out}/unreadable.txt\n")
    lines = (out / "unreadable.txt").read_text(encoding="utf-8").splitlines()
    escaped = ["0\\nerror: forged.png", *names[1:6], "9caf\\udce9.png"]
    assert [line.split(": not an image")[0] for line in lines] == [f"{images}/{name}" for name in escaped]
    assert not list(out.glob(".*"))
    files = json.loads((out / "images.json").read_text())["images"]
    assert sorted(image["file_name"] for image in files) == list(SIZES)
    ids = {entry["image_id"] for entry in json.loads((out / "detections.json").read_text())}
    assert ids <= {image["id"] for image in files}
    for name in names:
        (images / name).unlink()
    predict(command(checkpoint, images, "--out", out, "--overwrite"))
    assert not (out / "unreadable.txt").exists()
