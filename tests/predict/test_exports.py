"""What tools/predict.py writes for detectors in COCO's, VOC's and YOLO's form, read back from outside."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as referee
from pycocotools.coco import COCO

from detseg.cli import predict
from detseg.data.formats.voc import read_voc, read_voc_xml
from detseg.errors import ConfigError, DataError
from detseg.predict import Predictor, files
from detseg.predict.exports import open_export
from detseg.predict.files import predict_files
from detseg.structures import ClassTable, DetectorOutput, InstanceMasks
from tests.predict.networks import FoundMasks, noise, write_unet

CLASSES = ClassTable(("sky & sea", "road", "car"), (5, 7, 90))
SIZES = {"a.png": (100, 130), "day two/a.png": (64, 96), "b.jpg": (37, 20)}
REGIONS = torch.tensor([[10.0, 20, 50, 44], [-12.5, 3, 34, 40], [60, 30, 90, 80], [45.3, 30.1, 52.9, 38.7]])


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for name, hw in SIZES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), noise(*hw))
    return folder


@pytest.fixture
def predictor(monkeypatch: pytest.MonkeyPatch) -> Predictor:
    """What every checkpoint holds in these tests: a model of masks, all of whose scores are above 0.3."""
    detector = Predictor(FoundMasks(REGIONS).eval(), CLASSES, (64, 96))
    monkeypatch.setattr(files, "load_predictor", lambda checkpoint, device: detector)
    return detector


def written(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def expected(predictor: Predictor, images: Path) -> dict[str, DetectorOutput]:
    return {name: predictor(images / name) for name in SIZES}


def test_coco_is_the_default_and_holds_the_masks(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    predict_files(Path("a.ckpt"), [images], tmp_path / "out")
    assert written(tmp_path / "out") == sorted([*SIZES, "detections.json", "detections_masks.json", "images.json"])
    results_of_masks = json.loads((tmp_path / "out" / "detections_masks.json").read_text())
    assert all(set(entry) == {"image_id", "category_id", "score", "segmentation"} for entry in results_of_masks)
    full = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [entry | {"bbox": other["bbox"]} for entry, other in zip(results_of_masks, full, strict=True)] == full
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "out" / "images.json"))
        truth.dataset |= {"annotations": [], "info": {}}
        results = truth.loadRes(str(tmp_path / "out" / "detections.json"))
    for image in truth.dataset["images"]:
        found = expected(predictor, images)[image["file_name"]]
        read = results.loadAnns(results.getAnnIds(imgIds=[image["id"]]))
        assert [entry["category_id"] for entry in read] == [5, 7, 90, 5]
        assert [entry["bbox"][:2] for entry in read] == found.boxes[:, :2].tolist()
        assert found.masks is not None
        for entry, mask in zip(read, found.masks.dense(), strict=True):
            np.testing.assert_array_equal(referee.decode(entry["segmentation"]), mask)


def test_voc_comes_back_through_the_voc_reader(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_files(Path("a.ckpt"), [images], out, formats=["voc"])
    assert written(out) == sorted([*SIZES, "annotations/a.xml", "annotations/b.xml", "annotations/day two/a.xml"])
    for name, found in expected(predictor, images).items():
        path = (out / "annotations" / name).with_suffix(".xml")
        read = read_voc_xml(path)
        assert (read.filename, read.hw) == (Path(name).name, SIZES[name])
        assert list(read.names) == ["sky & sea", "road", "car", "sky & sea"]
        np.testing.assert_allclose(read.boxes, found.boxes.numpy(), rtol=0, atol=5.01e-4)  # to a thousandth of a pixel
        assert not read.difficult.any()
        assert not read.truncated.any()
        scores = [float(item.findtext("score", "")) for item in ET.parse(path).getroot().iter("object")]
        np.testing.assert_allclose(scores, found.scores.numpy(), rtol=0, atol=5.01e-7)
    # As a data set: predictions as the start of labelling.
    (tmp_path / "set" / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "set" / "ImageSets" / "Main" / "all.txt").write_text("a\nb\n")
    shutil.copytree(images, tmp_path / "set" / "JPEGImages")
    shutil.copytree(out / "annotations", tmp_path / "set" / "Annotations")
    dataset = read_voc(tmp_path / "set", "all", classes=CLASSES)
    assert dataset.annotations(0).labels.tolist() == [0, 1, 2, 0]


def test_corners_in_voc_by_hand(tmp_path: Path) -> None:
    export = open_export("voc", tmp_path, CLASSES)
    boxes = torch.tensor([[0.0, 0, 20, 10], [3.25, 4, 5, 6.5]])
    found = DetectorOutput(boxes, torch.tensor([0.875, 0.5]), torch.tensor([1, 2]), CLASSES)
    export.add(1, Path("deep", "a.b.jpg"), (10, 20), found)
    root = ET.parse(tmp_path / "annotations" / "deep" / "a.b.xml").getroot()
    assert (root.findtext("folder"), root.findtext("filename"), root.findtext("segmented")) == ("deep", "a.b.jpg", "0")
    corners = [[corner.text for corner in box] for box in root.iter("bndbox")]
    assert corners == [["1", "1", "20", "10"], ["4.25", "5", "5", "6.5"]]  # 1-based, the last pixel included
    assert [item.findtext("score") for item in root.iter("object")] == ["0.875000", "0.500000"]


def test_yolo_has_shares_of_the_picture(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_files(Path("a.ckpt"), [images], out, formats=["yolo"])
    texts = [f"{folder}/{name}.txt" for folder in ("labels", "segments") for name in ("a", "b", "day two/a")]
    assert written(out) == sorted([*SIZES, *texts, "classes.txt"])
    assert (out / "classes.txt").read_text() == "sky & sea\nroad\ncar\n"
    for name, found in expected(predictor, images).items():
        height, width = SIZES[name]
        rows = np.loadtxt((out / "labels" / name).with_suffix(".txt"))
        assert rows[:, 0].tolist() == found.labels.tolist()
        centers, sides = rows[:, 1:3] * [width, height], rows[:, 3:5] * [width, height]
        boxes = np.concatenate([centers - sides / 2, centers + sides / 2], axis=1)
        np.testing.assert_allclose(boxes, found.boxes.numpy(), rtol=0, atol=1e-6 * max(width, height))
        np.testing.assert_allclose(rows[:, 5], found.scores.numpy(), rtol=0, atol=5.01e-7)
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
    export = open_export("yolo", tmp_path, CLASSES)
    masks = np.zeros((2, 10, 20), dtype=np.bool_)
    masks[0, 2:7, 10:14] = True
    boxes = torch.tensor([[10.0, 2, 14, 7], [0, 0, 20, 10]])
    scores, labels = torch.tensor([0.875, 0.5]), torch.tensor([2, 0])
    found = DetectorOutput(boxes, scores, labels, CLASSES, InstanceMasks.from_dense(masks))
    export.add(1, Path("a.jpg"), (10, 20), found)
    assert (tmp_path / "labels" / "a.txt").read_text() == (
        "2 0.600000 0.450000 0.200000 0.500000 0.875000\n0 0.500000 0.500000 1.000000 1.000000 0.500000\n"
    )
    label, *numbers = (tmp_path / "segments" / "a.txt").read_text().split()  # one line: the other mask is empty
    assert label == "2"
    corners = {(float(x), float(y)) for x, y in zip(numbers[::2], numbers[1::2], strict=True)}
    assert corners == {(0.5, 0.2), (0.7, 0.2), (0.5, 0.7), (0.7, 0.7)}
    assert export.finish() == "labels/ (YOLO text), segments/ (polygons; 1 without a pixel are not in it), classes.txt"


def test_boxes_alone_give_no_segments(tmp_path: Path) -> None:
    export = open_export("yolo", tmp_path, CLASSES)
    export.add(1, Path("none.jpg"), (10, 20), DetectorOutput.empty(CLASSES))
    assert export.finish() == "labels/ (YOLO text), classes.txt"
    assert written(tmp_path) == ["classes.txt", "labels/none.txt"]
    assert (tmp_path / "labels" / "none.txt").read_text() == ""


@pytest.mark.usefixtures("predictor")
def test_several_formats_at_once_from_the_command_line(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    predict.main(["a.ckpt", str(images), "--out", str(out), "--format", "yolo,coco", "--format", "voc, yolo"])
    assert f"12 objects in 3 pictures; written to {out}: the drawn pictures, labels/" in capsys.readouterr().out
    assert {"detections.json", "images.json", "labels", "segments", "classes.txt", "annotations"} < {
        path.name for path in out.iterdir()
    }
    assert len(json.loads((out / "detections.json").read_text())) == 12  # yolo was asked for twice, and written once


@pytest.mark.usefixtures("predictor")
@pytest.mark.parametrize(
    ("name", "file"),
    [("voc", "annotations/a.xml"), ("yolo", "labels/a.txt"), ("yolo", "segments/a.txt"), ("yolo", "classes.txt")],
)
def test_annotations_that_exist_are_not_overwritten(images: Path, tmp_path: Path, name: str, file: str) -> None:
    mine = tmp_path / "out" / file
    mine.parent.mkdir(parents=True)
    mine.write_text("made by hand")
    with pytest.raises(
        DataError, match="exists, and may be somebody's work; choose another --out, or replace it with --overwrite"
    ) as said:
        predict_files(Path("a.ckpt"), [images], tmp_path / "out", formats=[name])
    assert str(said.value).startswith(f"{mine}: ")
    assert mine.read_text() == "made by hand"
    assert written(tmp_path / "out") == [file]  # nothing was done
    predict.main(["a.ckpt", str(images), "--out", str(tmp_path / "out"), "--format", name, "--overwrite"])
    assert "made by hand" not in mine.read_text()


@pytest.mark.usefixtures("predictor")
@pytest.mark.parametrize(("name", "file"), [("voc", "annotations/a.xml"), ("yolo", "labels/a.txt")])
def test_two_pictures_are_not_written_to_one_file(images: Path, tmp_path: Path, name: str, file: str) -> None:
    shutil.copy(images / "a.png", images / "a.bmp")
    with pytest.raises(DataError, match=f"{file}: two pictures would be written here") as said:
        predict_files(Path("a.ckpt"), [images], tmp_path / "out", formats=[name], overwrite=True)
    assert str(said.value).endswith(
        f"here, {images / 'a.bmp'} and {images / 'a.png'}; rename one of them, or predict them into different --out "
        "folders"
    )
    assert not (tmp_path / "out").exists()
    for _ in range(2):  # which knows them apart, and replaces the files of the last run
        predict_files(Path("a.ckpt"), [images], tmp_path / "out", formats=["coco"])


@pytest.mark.usefixtures("predictor")
def test_a_file_that_cannot_be_written_is_one_line(images: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "labels").write_text("no folder")
    with pytest.raises(DataError, match=r"labels/a\.txt: could not be written \(") as said:
        predict_files(Path("a.ckpt"), [images / "a.png"], tmp_path / "out", formats=["yolo"])
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("text", ["pascal", "coco,", "", "COCO", "coco;voc"])
def test_an_unknown_format_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="argument --format: expected coco, voc or yolo, or several with commas, got"):
        predict.main(["a.ckpt", "images", "--out", "out", "--format", text])


@pytest.mark.usefixtures("predictor")
def test_an_unknown_format_is_refused_in_python(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="format: expected coco, voc or yolo, got 'pascal'"):
        predict_files(Path("a.ckpt"), [images], tmp_path / "out", formats=["coco", "pascal"])
    assert not (tmp_path / "out").exists()


def test_a_segmentation_model_has_no_format(images: Path, tmp_path: Path) -> None:
    checkpoint = write_unet(tmp_path / "unet.ckpt")
    with pytest.raises(ConfigError) as said:
        predict_files(checkpoint, [images], tmp_path / "out", device="cpu", formats=["voc"])
    assert str(said.value) == (
        f"{checkpoint}: is a segmentation model, whose labels are written as indexed PNGs; a format (voc) is for "
        f"detectors, leave it out"
    )
