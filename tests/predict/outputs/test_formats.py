"""Detections in the formats of other programs: through our own readers, and by hand."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detseg.data.datasets.detection import DetectionDataset
from detseg.data.formats.cvat import read_cvat
from detseg.data.formats.labelme import read_labelme
from detseg.errors import DataError
from detseg.predict import Detections, Predictor, SegmentationPredictor
from detseg.predict.files import predict_files
from detseg.predict.outputs import DetectionOutput, ImageFile
from detseg.structures import ClassTable, InstanceMasks
from tests.predict.networks import FoundMasks, noise, two_levels

CLASSES = ClassTable(("sky & sea", "road", "car"), (5, 7, 90))
SIZES = {"b.jpg": (37, 20), "day two/a.png": (64, 96)}
REGIONS = torch.tensor([[10.0, 20, 50, 44], [-12.5, 3, 34, 40], [60, 30, 90, 80], [45.3, 30.1, 52.9, 38.7]])


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name, hw in SIZES.items():
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "images" / name), noise(*hw))
    return tmp_path / "images"


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """A model of masks that finds four rings in every image."""
    return Predictor(FoundMasks(REGIONS).eval(), CLASSES, (64, 96))


def write_one(out: Path, name: str, found: Detections) -> None:
    """Write the results of one image, which lies in ``images`` beside ``out``, in one format."""
    output = DetectionOutput(out, CLASSES, [name])
    image = ImageFile(1, out.parent / "images" / "deep" / "a.png", Path("deep", "a.png"))
    output.write([(image, output.entry(image, found))])


def given(masks: InstanceMasks | None = None) -> Detections:
    """Two detections of an image of 10 x 20 pixels."""
    boxes = np.array([[3.25, 4, 5, 6.5], [0, 0, 20, 10]], np.float32)
    scores, image = np.array([0.9, 0.5], np.float32), np.zeros((10, 20, 3), np.uint8)
    return Detections(boxes, scores, np.array([2, 0]), CLASSES, masks, image)


def two_masks() -> InstanceMasks:
    """A square of 4 x 4 pixels with a hole of one, and a pixel beside it; and nothing."""
    masks = np.zeros((2, 10, 20), dtype=np.bool_)
    masks[0, 2:6, 10:14] = True
    masks[0, 3, 11] = False
    masks[0, 8, 1] = True
    return InstanceMasks.from_dense(masks)


def compare(dataset: DetectionDataset, predictor: Predictor, images: Path) -> None:
    """Names, and masks to the pixel."""
    assert len(dataset) == len(SIZES)
    for index in range(len(dataset)):
        found, read = predictor(dataset.path(index)), dataset.annotations(index)
        assert dataset.path(index).is_relative_to(images)
        assert found.masks is not None
        assert read.masks is not None
        there = [i for i, area in enumerate(found.masks.areas) if area]
        assert len(there) >= 3
        assert [dataset.classes.names[label] for label in read.labels[there]] == found[there].names
        np.testing.assert_array_equal(
            read.masks.select(np.flatnonzero(read.masks.areas)).dense(), found.masks.select(there).dense()
        )


def test_labelme_comes_back(predictor: Predictor, images: Path) -> None:
    root = images.parent
    predict_files(predictor, [images], root / "out", formats=["labelme"], pictures=False)
    compare(read_labelme(root, "out/labelme", classes=CLASSES, masks=True), predictor, images)


def test_cvat_comes_back(predictor: Predictor, images: Path) -> None:
    root = images.parent
    predict_files(predictor, [images], root / "out", formats=["cvat"], pictures=False)
    (root / "out" / "cvat.xml").rename(root / "cvat.xml")
    compare(read_cvat(root, "cvat.xml", classes=CLASSES, masks=True), predictor, images)


def test_labelme_by_hand(tmp_path: Path) -> None:
    write_one(tmp_path / "out", "labelme", given())
    content = json.loads((tmp_path / "out" / "labelme" / "deep" / "a.json").read_text())
    assert content["imagePath"] == "../../../images/deep/a.png"  # LabelMe opens it from there
    assert (content["imageHeight"], content["imageWidth"], content["imageData"]) == (10, 20, None)
    first, second = content["shapes"]
    assert (first["label"], first["shape_type"], first["points"]) == ("car", "rectangle", [[3.25, 4], [5, 6.5]])
    assert (first["score"], second["label"]) == (pytest.approx(0.9), "sky & sea")


def test_a_name_that_labelme_takes_for_no_class(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'_background_': LabelMe's mark for what is no class"):
        DetectionOutput(tmp_path, ClassTable(("_background_",)), ["labelme"])


def test_cvat_by_hand(tmp_path: Path) -> None:
    write_one(tmp_path, "cvat", given())
    root = ET.parse(tmp_path / "cvat.xml").getroot()
    assert [label.findtext("name") for label in root.iter("label")] == list(CLASSES.names)
    (image,) = root.iter("image")
    assert image.attrib == {"id": "0", "name": "deep/a.png", "width": "20", "height": "10"}
    first, second = image
    corners = {"xtl": "3.25", "ytl": "4.0", "xbr": "5.0", "ybr": "6.5"}
    assert first.attrib == corners | {"label": "car", "source": "auto", "occluded": "0", "z_order": "0"}
    assert (first.tag, second.get("label")) == ("box", "sky & sea")


@pytest.mark.parametrize("masks", [None, two_masks()])
def test_csv_by_hand(tmp_path: Path, masks: InstanceMasks | None) -> None:
    write_one(tmp_path, "csv", given(masks))
    with (tmp_path / "detections.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    areas = [[], [], []] if masks is None else [["mask_area"], ["16"], ["0"]]
    assert header == ["image", "name", "label", "score", "x1", "y1", "x2", "y2", *areas[0]]
    assert rows == [
        ["deep/a.png", "car", "2", "0.9", "3.25", "4.0", "5.0", "6.5", *areas[1]],
        ["deep/a.png", "sky & sea", "0", "0.5", "0.0", "0.0", "20.0", "10.0", *areas[2]],
    ]


def test_geojson_by_hand(tmp_path: Path) -> None:
    write_one(tmp_path, "geojson", given(two_masks()))
    content = json.loads((tmp_path / "geojson" / "deep" / "a.geojson").read_text())
    assert (content["type"], content["image"], content["width"]) == ("FeatureCollection", "deep/a.png", 20)
    first, second = content["features"]
    assert first["properties"] == {"name": "car", "label": 2, "score": pytest.approx(0.9)}
    assert first["geometry"]["type"] == "MultiPolygon"
    rings = {
        frozenset(map(tuple, ring)): (number, ring[0] == ring[-1])
        for polygon in first["geometry"]["coordinates"]
        for number, ring in enumerate(polygon)
    }
    assert rings == {
        frozenset({(10, 2), (14, 2), (14, 6), (10, 6)}): (0, True),
        frozenset({(11, 3), (12, 3), (12, 4), (11, 4)}): (1, True),  # the hole
        frozenset({(1, 8), (2, 8), (2, 9), (1, 9)}): (0, True),
    }
    box = [[0, 0], [20, 0], [20, 10], [0, 10], [0, 0]]  # of the object without a pixel
    assert second["geometry"] == {"type": "Polygon", "coordinates": [box]}


def test_areas_of_label_maps(images: Path, tmp_path: Path) -> None:
    predictor = SegmentationPredictor(two_levels(), ClassTable(("sky", "road", "car")), (48, 64))
    predict_files(predictor, [images], tmp_path / "out", formats=["csv"])
    with (tmp_path / "out" / "areas.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [(name, *item) for name in SIZES for item in predictor(images / name).areas.items()]
    assert [(row["image"], row["class"], int(row["pixels"])) for row in rows] == expected
    height, width = SIZES["b.jpg"]
    assert float(rows[0]["fraction"]) == pytest.approx(expected[0][2] / (height * width), abs=5e-7)
