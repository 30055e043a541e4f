"""What `detseg convert` writes reads back the same, and what a format cannot hold is listed; see round_trips.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image

from detseg.data.annotations.collect import AnnotationCollector
from detseg.data.annotations.report import DataReport
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.formats.coco import read_coco
from detseg.data.formats.convert import WRITERS
from detseg.data.formats.labelme import write_labelme
from detseg.data.formats.voc import read_voc
from detseg.data.formats.voc_writer import write_voc_set
from detseg.data.formats.yolo import read_yolo
from detseg.data.formats.yolo_writer import write_yolo
from detseg.errors import DataError
from detseg.ops.masks import decode_mask, encode_mask
from tests.data.formats.layouts import annotation_xml, object_xml, save_image, write_voc
from tests.random_sets import Picture, RandomSet, Thing, random_sets, read_set
from tests.round_trips import FORMATS, PAIRS, TABLE, convert, opened, present, try_trips
from tests.shared_data import shared_data

HEIGHT, WIDTH = HW = (6, 9)


def rle(mask: Any) -> dict[str, Any]:
    return {"size": list(HW), "counts": encode_mask(np.asarray(mask, dtype=np.bool_)).decode()}


def thing(box: tuple[float, float, float, float], area: float | None, outline: Any = None, flag: int = -1) -> Thing:
    crowd, difficult, truncated = (flag == k for k in range(3))
    return Thing(1, box, crowd, difficult, truncated, area, outline)


RING = np.pad(np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]]), ((1, 2), (1, 5)))
RING_AND_PIXEL = RING.copy()
RING_AND_PIXEL[5, 8] = 1  # as many pixels as the ring has with its hole filled
TRIANGLE, TURNED = [1, 1, 3, 1, 3, 3], [8, 5, 8, 2, 5, 2]  # of area 2 and 4.5; they turn the other way round
ALL = RandomSet(
    ((3, " é 日本"), (70, "a & <b>"), (71, "no")),
    {
        "train": (
            Picture(9, "sub/a.png", HW, (thing((1, 1, 4, 4), 9, None, 0), thing((1, 1, 4.5, 4), 10.5, None, 1))),
            Picture(
                4,
                "sub/a.bmp",
                HW,
                (
                    thing((1.0625, 1, 4, 4.012345), 20, None, 2),
                    thing((1, 1, 1.5, 4), 1.5),
                    thing((-6, 1, 4, 4), 30),
                    thing((1, 1, 3, 3), 2, [TRIANGLE]),
                    thing((1, 1, 8, 5), 6.5, [TRIANGLE, TURNED]),
                    thing((0, 0, 8, 5), 40, [TRIANGLE, TURNED]),
                    thing((1, 1, 3, 3), None, [[-1.0, 1, 3, 1, 3, 3]]),
                ),
            ),
            Picture(
                1,
                "#1 é.png",
                HW,
                (
                    thing((1, 1, 4, 4), 8, rle(RING)),
                    thing((1, 1, 9, 6), 9, rle(RING_AND_PIXEL)),
                    thing((1, 1, 4, 4), 9, rle(np.pad(np.ones((3, 3)), ((1, 2), (1, 5))))),
                    thing((1, 1, 4, 4), 9, rle(np.zeros(HW))),
                ),
            ),
        ),
        "val": (Picture(1, "a.png", HW, ()),),
    },
)


def faults(truth: RandomSet, pairs: Any = ()) -> list[Any]:
    return [fault for trip in try_trips(truth, pairs).values() for fault in trip.faults]


def test_a_set_of_everything_comes_back_as_the_table_says() -> None:
    """To each format, and from each format to each other one."""
    assert present(ALL, "coco") == set(TABLE)
    assert faults(ALL, PAIRS) == []


@settings(max_examples=8, deadline=None, derandomize=True)
@given(random_sets())
def test_random_sets_come_back_as_the_table_says(truth: RandomSet) -> None:
    assert faults(truth) == []


def test_images_of_coco_come_back_as_the_table_says(tmp_path: Path) -> None:
    """33 images with 246 objects of 80 classes, of which 3 are crowds, some of several parts."""
    root = shared_data("coco_mini")
    truth = read_set(root)
    source = opened(root, truth.splits)
    assert sum(len(picture.things) for own in truth.splits.values() for picture in own) == 246
    for layout in FORMATS:
        assert [line for _, line in convert(truth, source, layout, tmp_path / layout).faults] == []


def test_a_class_that_labelme_reads_as_none_is_refused(tmp_path: Path) -> None:
    source = dataset_of(tmp_path / "source", ["_background_"], {"a.png": []})
    with pytest.raises(DataError, match="the class name '_background_': LabelMe's mark for what is no class; rename"):
        write_labelme({"train": source}, tmp_path / "labelme")


def test_folders_of_a_layout_are_not_doubled(tmp_path: Path) -> None:
    """images/ of YOLO is not part of the names in COCO's file."""
    source = dataset_of(tmp_path / "source", ["a"], {"train/images/x/a.png": [], "train/images/b.png": []})
    WRITERS["coco"]({"train": source}, tmp_path / "coco", False)
    names = json.loads((tmp_path / "coco" / "annotations" / "instances_train.json").read_text())["images"]
    assert [image["file_name"] for image in names] == ["x/a.png", "b.png"]
    assert (tmp_path / "coco" / "train" / "x" / "a.png").is_file()


def dataset_of(root: Path, classes: list[str], images: dict[str, list[dict[str, Any]]]) -> DetectionDataset:
    """A data set of images of 9 x 6 pixels; of each object there are the arguments of `add_object`."""
    collector = AnnotationCollector(root, classes)
    for name, objects in images.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (WIDTH, HEIGHT)).save(root / name, "PNG")
        collector.add_image(name, HW)
        for entry in objects:
            collector.add_object(**entry)
    packed, table = collector.pack(None, report := DataReport(True), masks=False, strict=False)
    return DetectionDataset(packed, root, table, report, "made")


def test_seams_join_the_parts_of_an_object(tmp_path: Path) -> None:
    """Two squares of 2 x 2 pixels are one line of 4 + 1 + 4 + 1 corners, which holds their pixels alone."""
    squares = [[1, 1, 3, 1, 3, 3, 1, 3], [5, 2, 7, 2, 7, 4, 5, 4]]
    source = dataset_of(
        tmp_path / "source", ["a"], {"a.png": [{"name": "a", "box": (1, 1, 7, 4), "segmentation": squares}]}
    )
    lines = write_yolo({"train": source}, tmp_path / "yolo")
    assert lines == ["parts of 1 object: YOLO has one polygon for each; they are joined by seams without area"]
    found = read_yolo(tmp_path / "yolo", masks=True)
    polygon = found.packed.stated(0)[0].segmentation[0]
    assert polygon == [*squares[0], 1, 1, *squares[1], 5, 2]
    truth = np.zeros(HW, dtype=np.uint8)
    truth[1:3, 1:3] = truth[2:4, 5:7] = 1
    masks = found.annotations(0).masks
    assert masks is not None
    assert decode_mask(masks.counts[0], HW).tolist() == truth.tolist()


def test_parts_that_turn_the_other_way_round_count_as_much(tmp_path: Path) -> None:
    """A triangle of 2 square pixels, and one of 4.5 whose corners are listed the other way round."""
    entry = {"name": "a", "box": (1, 1, 8, 5), "segmentation": [TRIANGLE, TURNED]}
    source = dataset_of(tmp_path / "source", ["a"], {"a.png": [entry]})
    write_yolo({"train": source}, tmp_path / "yolo")
    assert read_yolo(tmp_path / "yolo").packed.area.tolist() == [6.5]


def test_what_yolo_text_cannot_hold(tmp_path: Path) -> None:
    ring = np.zeros(HW, dtype=bool)
    ring[1:4, 1:4], ring[2, 2] = True, False
    objects: list[dict[str, Any]] = [
        {"name": "a", "box": (1, 1, 4, 4), "segmentation": rle(ring)},
        {"name": "a", "box": (-2, 1, 4, 4)},  # a corner outside: the centre and the sides are fractions
        {"name": "a", "box": (-6, 1, 4, 4)},  # the centre is outside, too
        {"name": "a", "box": (0, 0, 9, 6), "segmentation": [[-1, 0, 9, 0, 9, 6]]},
        {"name": "a", "box": (0, 0, 3, 3), "segmentation": rle(np.zeros(HW))},
        {"name": "a", "box": (0, 0, 3, 3), "difficult": True, "truncated": True},
    ]
    source = dataset_of(tmp_path / "source", ["a"], {"x/a.png": objects, "a.bmp": [], "a.png": []})
    assert write_yolo({"val": source}, tmp_path / "yolo") == [
        "ids of 3 images: YOLO has none; they are counted from 1",  # a.bmp is the first now
        "masks of 1 object, which have holes or several pieces: the outline of the largest piece is kept",
        "parts of 2 objects outside their images: YOLO's fractions are 0 to 1; they are clipped",
        "boxes of 1 object, which differ from their outlines: YOLO has one of both; the outline is kept",
        "masks without a pixel of 1 object: their boxes are written",
        "areas of 1 object, which differ from those of their boxes: YOLO states none; those count",
        "difficult flags of 1 object: YOLO has none",
        "truncated flags of 1 object: YOLO has none",
        "names of 1 image, as two in a folder differ in the suffix alone: it was added",
    ]
    found = read_yolo(tmp_path / "yolo", "val", report=DataReport(True))
    assert [found.packed.path(k) for k in range(3)] == [f"val/images/{x}" for x in ("a.bmp", "a_png.png", "x/a.png")]
    boxes = [[1, 1, 4, 4], [-2, 1, 4, 4], [0, 1, 4, 4], [0, 0, 9, 6], [0, 0, 3, 3], [0, 0, 3, 3]]
    assert found.packed.boxes.tolist() == boxes


@pytest.mark.parametrize("name", FORMATS)
def test_images_are_copied_or_linked_to_an_empty_folder(name: str, tmp_path: Path) -> None:
    source = dataset_of(tmp_path / "source", ["a"], {"a.png": [{"name": "a", "box": (1, 1, 7, 4)}]})
    for link in (False, True):
        target = tmp_path / f"target{link}"
        assert WRITERS[name]({"train": source}, target, link) == []
        found = opened(target, ["train"])["train"]
        assert found.path(0).is_symlink() == link
        assert found.path(0).read_bytes() == source.path(0).read_bytes()
    with pytest.raises(DataError, match="targetTrue: expected an empty or a new folder, but it holds files"):
        WRITERS[name]({"train": source}, tmp_path / "targetTrue", False)
    source.path(0).unlink()
    with pytest.raises(DataError, match=r"a\.png: there is no such image"):
        WRITERS[name]({"train": source}, tmp_path / "other", False)


def test_voc_says_what_it_cannot_hold(tmp_path: Path) -> None:
    box = {"image_id": 4, "category_id": 9, "bbox": [1, 1, 5, 5], "area": 25}
    content: dict[str, Any] = {
        "images": [
            {"id": 4, "file_name": "x/a.png"},
            {"id": 7, "file_name": "y/a.png"},
            {"id": 5, "file_name": "a.png.png"},
        ],
        "categories": [{"id": 9, "name": "zebra"}, {"id": 11, "name": "ant"}],
        "annotations": [
            box | {"id": 1, "segmentation": [[1, 1, 6, 1, 6, 6]], "area": 12.5},
            box | {"id": 2, "iscrowd": 1},
            box | {"id": 3, "bbox": [1, 1, 0.5, 9], "area": 4.5},
            box | {"id": 4, "area": 7, "image_id": 7},
            box | {"id": 5, "bbox": [1.00004, 1, 5, 5], "image_id": 7},
        ],
    }
    for image in content["images"]:
        save_image(tmp_path / "images" / image["file_name"], (40, 40))
    (tmp_path / "x.json").write_text(json.dumps(content))
    source = read_coco(tmp_path / "images", tmp_path / "x.json", report=DataReport(True))
    assert write_voc_set({"train": source}, tmp_path / "voc") == [
        "ids of 3 images: VOC has none; they are counted from 1",
        "masks of 1 object: the boxes are written, and their areas count; VOC's XML has no masks of objects",
        "crowd regions of 1 object: written as difficult objects; VOC has none",
        "boxes of 1 object: thinner than a pixel or inverted, written one pixel wide or high; VOC's corners are "
        "inclusive",
        "folders of 2 images: VOC has one for all images",
        "areas of 1 object: those of the boxes count; VOC states none",
        "corners of 1 object: rounded to a thousandth of a pixel",
        "names of 2 images: changed, since all lie in one folder and are listed without suffix",
        "ids of 2 classes: VOC has none; they are counted from 1",
        "the order of the classes, and classes without objects in the first split: VOC lists no classes; read it with "
        "data.classes: ['zebra', 'ant']",
    ]
    found = read_voc(tmp_path / "voc", "train")
    assert [Path(found[index].path).name for index in range(3)] == ["a.png", "y_a.png", "a_png.png"]
    with pytest.raises(DataError, match="voc: expected an empty or a new folder, but it holds files"):
        write_voc_set({"train": source}, tmp_path / "voc")


def test_splits_of_voc_stay_apart(tmp_path: Path) -> None:
    xml = annotation_xml(object_xml(("cat", 1, 1, 2, 2)))
    write_voc(tmp_path / "a", {"train": "a\n#12", "val": "b c"}, {"a": xml, "#12": xml, "b c": xml})
    sets = {split: read_voc(tmp_path / "a", split, report=DataReport(True)) for split in ("train", "val")}
    assert write_voc_set(sets, tmp_path / "b") == []
    for name in ("ImageSets/Main/train.txt", "ImageSets/Main/val.txt"):
        assert (tmp_path / "a" / name).read_text().splitlines() == (tmp_path / "b" / name).read_text().splitlines()
    assert len(read_voc(tmp_path / "b", "train")) == 2
