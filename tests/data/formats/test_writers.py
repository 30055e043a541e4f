"""The writers, read back by ElementTree, Pillow and pycocotools (test_codecs.py reads with ours); polygons of masks."""

from __future__ import annotations

import contextlib
import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pycocotools.coco import COCO

from detseg.data.formats.coco_writer import CocoWriter, coco_ground_truth
from detseg.data.formats.voc import read_voc
from detseg.data.formats.voc_writer import VocWriter, voc_palette
from detseg.data.formats.yolo_writer import outer_polygon
from detseg.structures import BoolArray, FloatArray
from tests.data.formats.layouts import annotation_xml, object_xml, write_voc

CLASSES, BOX = ("dog", "bird"), ("cat", 2, 3, 8, 9)
Arrays = tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]


def two_objects() -> Arrays:
    """A bird over the whole left column, a dog of 2 × 3 pixels with a hole, on a red image 6 wide and 5 high."""
    image = np.zeros((5, 6, 3), dtype=np.uint8)
    image[..., 0] = 200
    masks = np.zeros((2, 5, 6), dtype=bool)
    masks[0, :, 0] = True
    masks[1, 1:4, 2:4] = True
    masks[1, 2, 2] = False
    boxes = np.array([[0, 0, 1, 5], [2, 1, 4, 4]], dtype=np.float64)
    return image, boxes, np.array([1, 0]), masks


def nothing() -> Arrays:
    image = np.full((4, 3, 3), 90, dtype=np.uint8)
    return image, np.zeros((0, 4)), np.zeros(0, dtype=np.int64), np.zeros((0, 4, 3), dtype=bool)


@pytest.fixture
def voc_root(tmp_path: Path) -> Path:
    writer = VocWriter(tmp_path, CLASSES)
    writer.add("train", "a", *two_objects(), truncated=np.array([True, False]))
    writer.add("val", "b", *nothing(), truncated=np.zeros(0, dtype=bool))
    writer.add("train", "c", *nothing(), truncated=np.zeros(0, dtype=bool))
    writer.finish()
    return tmp_path


def test_voc_corners_are_one_based_and_inclusive(voc_root: Path) -> None:
    root = ET.parse(voc_root / "Annotations/a.xml").getroot()
    size = [root.findtext(f"size/{tag}") for tag in ("width", "height", "depth")]
    assert (root.findtext("filename"), size) == ("a.jpg", ["6", "5", "3"])
    found = [
        [entry.findtext(tag) for tag in ("name", "truncated", "difficult")]
        + [entry.findtext(f"bndbox/{tag}") for tag in ("xmin", "ymin", "xmax", "ymax")]
        for entry in root.iter("object")
    ]
    assert found == [["bird", "1", "0", "1", "1", "1", "5"], ["dog", "0", "0", "3", "2", "4", "4"]]
    assert ET.parse(voc_root / "Annotations/b.xml").getroot().find("object") is None


def test_voc_lists_images_and_maps(voc_root: Path) -> None:
    for task in ("Main", "Segmentation"):
        assert (voc_root / "ImageSets" / task / "train.txt").read_text() == "a\nc\n"
        assert (voc_root / "ImageSets" / task / "val.txt").read_text() == "b\n"
    image = np.asarray(Image.open(voc_root / "JPEGImages/a.jpg"))
    assert np.abs(image.astype(int) - two_objects()[0]).max() <= 3
    classes, objects = (Image.open(voc_root / f"Segmentation{kind}/a.png") for kind in ("Class", "Object"))
    assert (classes.mode, objects.mode) == ("P", "P")
    dog = [[0] * 6, [0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 0, 0], [0, 0, 1, 1, 0, 0], [0] * 6]
    semantic, instance = np.array(dog), 2 * np.array(dog)
    semantic[:, 0], instance[:, 0] = 2, 1
    assert np.asarray(classes).tolist() == semantic.tolist()
    assert np.asarray(objects).tolist() == instance.tolist()
    assert not np.asarray(Image.open(voc_root / "SegmentationClass/b.png")).any()


def test_voc_palette_has_the_published_colours() -> None:
    # Background, aeroplane, bicycle, person, tv monitor and void, as the development kit's documentation lists them.
    published = [[0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128], [0, 64, 128], [224, 224, 192]]
    assert np.array(voc_palette()).reshape(256, 3)[[0, 1, 2, 15, 20, 255]].tolist() == published


def test_coco_file_by_hand(tmp_path: Path) -> None:
    writer = CocoWriter(tmp_path, CLASSES)
    for split, stem, arrays in (("train", "c", nothing()), ("train", "a", two_objects()), ("val", "b", nothing())):
        writer.add(split, stem, *arrays)
    writer.finish()
    content = json.loads((tmp_path / "annotations/instances_train.json").read_text())
    assert content["categories"] == [{"id": 1, "name": "dog"}, {"id": 2, "name": "bird"}]
    assert content["images"] == [
        {"id": 1, "file_name": "c.jpg", "height": 4, "width": 3},
        {"id": 2, "file_name": "a.jpg", "height": 5, "width": 6},
    ]
    bird, dog = content["annotations"]
    assert bird.pop("segmentation") == {"size": [5, 6], "counts": [0, 5, 25]}
    assert bird == {"id": 1, "image_id": 2, "category_id": 2, "bbox": [0, 0, 1, 5], "area": 5, "iscrowd": 0}
    assert (dog["id"], dog["category_id"], dog["bbox"], dog["area"]) == (2, 1, [2, 1, 2, 3], 5)
    assert dog["segmentation"]["counts"] == [11, 1, 1, 1, 2, 3, 11]
    assert json.loads((tmp_path / "annotations/instances_val.json").read_text())["annotations"] == []
    assert [(tmp_path / name).exists() for name in ("train/a.jpg", "val/b.jpg")] == [True, True]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(tmp_path / "annotations/instances_train.json")
    assert [coco.annToMask(entry).tolist() for entry in coco.loadAnns([1, 2])] == two_objects()[3].tolist()


def test_voc_becomes_coco(tmp_path: Path) -> None:
    hard = object_xml(("dog", 1, 1, 20, 10), "<difficult>1</difficult>")
    dataset = read_voc(write_voc(tmp_path, {"train": "a"}, {"a": annotation_xml(object_xml(BOX) + hard)}), "train")
    cat, dog = coco_ground_truth(dataset)["annotations"]
    assert cat == {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 7, 7], "area": 49, "iscrowd": 0}
    assert dog == {"id": 2, "image_id": 1, "category_id": 2, "bbox": [0, 0, 20, 10], "area": 200, "iscrowd": 1}


CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=np.bool_)


def area(polygon: FloatArray) -> float:
    x, y = polygon.T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def held(polygon: FloatArray, hw: tuple[int, int]) -> BoolArray:
    """(H, W) bool: pixels from whose centre a ray to the right crosses the polygon an odd number of times."""
    inside = np.zeros(hw, dtype=np.bool_)
    for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if x1 == x2:
            rows = slice(int(min(y1, y2)), int(max(y1, y2)))
            inside[rows, : int(x1)] ^= True
    return inside


def largest_piece_filled(mask: BoolArray) -> list[BoolArray]:
    """The pieces of most pixels (several, if equal), connected by sides and corners, their holes filled."""
    num, pieces = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    filled = []
    for piece in range(1, num):
        around = np.pad(np.asarray(pieces != piece), 1, constant_values=True).astype(np.uint8)
        _, outside = cv2.connectedComponents(around, connectivity=4)
        filled.append(np.asarray(outside != outside[0, 0])[1:-1, 1:-1])
    most = max(int(piece.sum()) for piece in filled)
    return [piece for piece in filled if piece.sum() == most]


def test_by_hand() -> None:
    square = outer_polygon(np.ones((1, 1), dtype=np.bool_))
    assert sorted(map(tuple, square.tolist())) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    wide = outer_polygon(np.pad(np.ones((2, 5), dtype=np.bool_), ((1, 0), (3, 2))))
    assert sorted(map(tuple, wide.tolist())) == [(3, 1), (3, 3), (8, 1), (8, 3)]
    assert len(outer_polygon(CROSS)) == 12  # every corner once
    assert area(outer_polygon(CROSS)) == 5


@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))).filter(lambda mask: bool(mask.any())))
@example(np.pad(CROSS, 2))
@example(~np.pad(CROSS, 2))
@example(np.eye(4, dtype=np.bool_))
def test_holds_the_largest_piece_and_nothing_else(mask: BoolArray) -> None:
    polygon = outer_polygon(mask)
    assert len(polygon) >= 4
    sides = np.abs(polygon - np.roll(polygon, 1, axis=0))
    assert ((sides == 0).sum(axis=1) == 1).all()  # upright or level, none without length
    inside = held(polygon, mask.shape)
    candidates = largest_piece_filled(mask)
    assert any(np.array_equal(inside, piece) for piece in candidates)
    assert area(polygon) == candidates[0].sum()


@pytest.mark.parametrize("shape", [(3, 4), (0, 0)])
def test_an_empty_mask_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="mask: expected a pixel inside, got none"):
        outer_polygon(np.zeros(shape, dtype=np.bool_))
