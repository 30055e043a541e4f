"""The COCO reader on hand-written files and on the real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from detseg.data.annotations.issues import DataIssue
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.formats.coco import read_coco
from detseg.errors import DataError
from detseg.structures import ClassTable
from tests.shared_data import shared_data

Content = dict[str, Any]


@pytest.fixture
def content() -> Content:
    """Two images out of order, one of them without annotations, and categories with gaps, out of order, too."""
    return {
        "images": [
            {"id": 9, "file_name": "b.png", "width": 20, "height": 10},
            {"id": 4, "file_name": "sub/a.png", "width": 20, "height": 10},
            {"id": 5, "file_name": "c.png", "width": 20, "height": 10},
        ],
        "annotations": [
            {"id": 1, "image_id": 4, "category_id": 70, "bbox": [1, 2, 3, 4], "area": 7.5, "iscrowd": 0},
            {"id": 2, "image_id": 9, "category_id": 3, "bbox": [0.5, 0, 19.5, 10], "iscrowd": 1},
            {"id": 3, "image_id": 4, "category_id": 3, "bbox": [10, 5, 2, 2]},
        ],
        "categories": [{"id": 70, "name": "zebra"}, {"id": 3, "name": "person"}, {"id": 8, "name": "bus"}],
    }


def read(folder: Path, content: Content, classes: ClassTable | tuple[str, ...] | None = None) -> DetectionDataset:
    (folder / "images" / "sub").mkdir(parents=True, exist_ok=True)
    for name in ("b.png", "sub/a.png", "c.png"):
        Image.new("RGB", (20, 10)).save(folder / "images" / name)
    (folder / "instances.json").write_text(json.dumps(content))
    return read_coco(folder / "images", folder / "instances.json", classes)


def test_a_small_file(tmp_path: Path, content: Content) -> None:
    dataset = read(tmp_path, content)
    assert dataset.classes == ClassTable(("person", "bus", "zebra"), (3, 8, 70))
    assert [dataset.image_id(i) for i in range(3)] == [9, 4, 5]
    assert dataset.path(1) == tmp_path / "images" / "sub" / "a.png"
    first, second, third = (dataset.annotations(i) for i in range(3))
    assert first.boxes.tolist() == [[0.5, 0, 20, 10]]
    assert first.crowd.tolist() == [True]
    assert first.area.tolist() == [195]  # not stated: 19.5 x 10
    assert second.boxes.tolist() == [[1, 2, 4, 6], [10, 5, 12, 7]]
    assert second.labels.tolist() == [2, 0]
    assert second.area.tolist() == [7.5, 4]
    assert second.crowd.tolist() == [False, False]
    assert len(third) == 0
    sample = dataset[0]
    assert (sample.boxes.tolist(), sample.labels.tolist(), sample.ignore.tolist()) == ([[0.5, 0, 20, 10]], [0], [True])
    assert dataset.report.lines() == [
        "annotations whose area is not stated (that of the mask is taken, without masks that of the box): 2 (2, 3)",
        "images without objects (kept, as background): 1 (c.png)",
        "crowd regions (neither right nor wrong to find): 1 (b.png)",
        "classes without any object: 1 (bus)",
    ]


@pytest.mark.parametrize("split", ["train", "val", "all"])
def test_real_coco_equals_what_pycocotools_reads(split: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = shared_data("coco_mini", "annotations", f"instances_{split}.json")
    dataset = read_coco(shared_data("coco_mini", "images"), file)
    reference = COCO(str(file))
    assert [dataset.image_id(i) for i in range(len(dataset))] == list(reference.imgs)
    assert list(dataset.classes.source_ids) == sorted(reference.cats)
    assert len(dataset.packed.labels) == len(reference.anns) == {"train": 168, "val": 78, "all": 246}[split]
    for index in range(len(dataset)):
        objects = dataset.annotations(index)
        expected = reference.imgToAnns[dataset.image_id(index)]
        image = reference.imgs[dataset.image_id(index)]
        assert dataset.hw(index) == (image["height"], image["width"])
        assert len(objects) == len(expected)
        for row, entry in enumerate(expected):
            x, y, w, h = entry["bbox"]
            assert objects.boxes[row].tolist() == [x, y, x + w, y + h]
            assert dataset.classes.source_ids[objects.labels[row]] == entry["category_id"]
            assert objects.crowd[row] == entry["iscrowd"]
            assert objects.area[row] == entry["area"]
    assert dataset.report.count(DataIssue.CROWD) == {"train": 2, "val": 1, "all": 3}[split]
    assert dataset.report.count(DataIssue.NO_OBJECTS) == {"train": 0, "val": 1, "all": 1}[split]
    capsys.readouterr()  # pycocotools prints


def test_every_image_of_coco_mini_decodes_to_its_stated_size() -> None:
    folder = shared_data("coco_mini")
    dataset = read_coco(folder / "images", folder / "annotations" / "instances_all.json")
    for sample in dataset:
        assert sample.image.shape == (*dataset.hw(sample.index), 3)
        assert (sample.boxes[:, :2] < sample.boxes[:, 2:]).all()
        assert len(sample.boxes) == len(dataset.annotations(sample.index))


@pytest.mark.parametrize(
    ("images", "file", "boxes", "hw"),
    [
        ("coco_dataset/coco/images/val", "coco_dataset/coco/annotations/instances_val.json", 2, (10, 5)),
        ("coco_dataset/mmdet_coco/train", "coco_dataset/mmdet_coco/annotations/instances_train.json", 1, (5, 10)),
        ("coco_dataset/coco_roboflow/train", "coco_dataset/coco_roboflow/train/_annotations.coco.json", 1, (5, 10)),
        ("roboflow_dataset/coco/train", "roboflow_dataset/coco/train/_annotations.coco.json", 2, (5, 10)),
        ("roboflow_dataset/coco/val", "roboflow_dataset/coco/val/_annotations.coco.json", 2, (5, 10)),
    ],
)
def test_exports_of_other_tools(images: str, file: str, boxes: int, hw: tuple[int, int]) -> None:
    dataset = read_coco(shared_data("formats") / images, shared_data("formats") / file)
    assert len(dataset.packed.labels) == boxes
    for sample in dataset:
        assert sample.hw == dataset.hw(sample.index) == hw


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("coco_labels/annotations/labels_train.json", r"annotation 1: bbox: expected \[x, y, width, height\].*None"),
        ("coco_image_info/annotations/image_info_train.json", "it has no categories; is it an image_info file"),
        ("coco_panoptic/annotations/panoptic_train.json", "annotation number 0: id: expected a whole number, got None"),
        ("coco_captions/annotations/captions_train.json", "it has no categories"),
    ],
)
def test_files_of_other_coco_tasks_are_told_apart(file: str, message: str) -> None:
    folder = shared_data("formats", "coco_dataset")
    images = folder / "coco_labels" / "images" / "train"
    with pytest.raises(DataError, match=message):
        read_coco(images, folder / file)


def test_missing_images_are_named_and_counted(tmp_path: Path, content: Content) -> None:
    read(tmp_path, content)
    (tmp_path / "images" / "sub" / "a.png").unlink()
    (tmp_path / "images" / "c.png").unlink()
    with pytest.raises(DataError, match=r"2 of 3 images missing: sub/a\.png, c\.png"):
        read_coco(tmp_path / "images", tmp_path / "instances.json")
    no_images = shared_data("malformed", "annotations") / "mmdet_coco_sample_no_iscrowd_no_segmentation_info_null.json"
    with pytest.raises(DataError, match=r"3 of 3 images missing: fake1\.jpg"):
        read_coco(tmp_path / "images", no_images)


def test_no_iscrowd_no_segmentation_and_null_info(tmp_path: Path) -> None:
    file = shared_data("malformed", "annotations") / "mmdet_coco_sample_no_iscrowd_no_segmentation_info_null.json"
    for number in (1, 2, 3):
        Image.new("L", (800, 800)).save(tmp_path / f"fake{number}.jpg")
    dataset = read_coco(tmp_path, file)
    assert dataset.packed.image_ids.tolist() == [0, 1, 2]
    assert dataset.packed.labels.tolist() == [0, 1, 0]
    assert dataset[2].boxes.shape == (0, 4)


def test_ids_of_zero(tmp_path: Path) -> None:
    file = shared_data("malformed", "annotations", "padilla_coco_annotation_id_0_category_id_0.JSON")
    for entry in json.loads(file.read_text())["images"]:
        Image.new("L", (entry["width"], entry["height"])).save(tmp_path / entry["file_name"])
    dataset = read_coco(tmp_path, file)
    assert dataset.classes.source_ids[0] == 0
    assert dataset.annotations(0).boxes[0].tolist() == [1, 49, 341, 499]
    assert len(dataset.packed.labels) == 12


def test_given_names_select_and_reorder(tmp_path: Path, content: Content) -> None:
    dataset = read(tmp_path, content, ("zebra", "bus"))
    assert dataset.classes == ClassTable(("zebra", "bus"), (70, 8))
    assert dataset.packed.labels.tolist() == [0]
    assert dataset.packed.offsets.tolist() == [0, 0, 1, 1]
    assert dataset.report.count(DataIssue.LEFT_OUT) == 2
    assert dataset.report.examples(DataIssue.LEFT_OUT) == ["person"]


def test_a_given_table_keeps_its_ids(tmp_path: Path, content: Content) -> None:
    table = ClassTable(("zebra", "bus", "person"), (1, 8, 2))
    dataset = read(tmp_path, content, table)
    assert dataset.classes is table
    assert dataset.packed.labels.tolist() == [2, 0, 2]
    assert dataset.report.examples(DataIssue.OTHER_ID) == ["zebra", "person"]


def test_unknown_classes_name_their_neighbour(tmp_path: Path, content: Content) -> None:
    with pytest.raises(DataError, match=r"the class 'persn' is not among.*did you mean 'person'"):
        read(tmp_path, content, ("persn",))
    with pytest.raises(DataError, match="each class once"):
        read(tmp_path, content, ("bus", "bus"))
    with pytest.raises(DataError, match="at least one"):
        read(tmp_path, content, ())


def test_sizes_that_are_not_stated_come_from_the_images(tmp_path: Path, content: Content) -> None:
    del content["images"][0]["width"]
    content["images"][1]["height"] = 0
    dataset = read(tmp_path, content)
    assert [dataset.hw(i) for i in range(3)] == [(10, 20)] * 3
    assert dataset.report.examples(DataIssue.SIZE_NOT_STATED) == ["b.png", "sub/a.png"]


def test_boxes_that_cannot_be_trained_on_are_reported_and_left_out(tmp_path: Path, content: Content) -> None:
    bboxes = [[1, 1, 0, 5], [4, 4, -2, 3], [30, 1, 5, 5], [15, 5, 10, 3], [2, 2, 1, 0.5], [19, 1, 1.01, 1]]
    content["annotations"] = [
        {"id": number, "image_id": 9, "category_id": 3, "bbox": bbox, "ignore": int(number == 3)}
        for number, bbox in enumerate(bboxes)
    ]
    dataset = read(tmp_path, content)
    counts = {issue: dataset.report.count(issue) for issue in DataIssue if dataset.report.count(issue)}
    assert counts == {
        DataIssue.NO_AREA: 2,
        DataIssue.NOTHING_INSIDE: 1,
        DataIssue.OUTSIDE: 1,  # but not the last one, which leaves the image by a hundredth of a pixel
        DataIssue.ONE_PIXEL: 1,
        DataIssue.IGNORE_KEY: 1,
        DataIssue.AREA_NOT_STATED: 6,
        DataIssue.NO_OBJECTS: 2,
        DataIssue.UNSEEN: 2,
    }
    assert len(dataset.annotations(0)) == 6
    expected = np.array([[15, 5, 20, 8], [2, 2, 3, 2.5], [19, 1, 20, 2]], dtype=np.float32)
    assert np.array_equal(dataset[0].boxes, expected)


def test_two_entries_of_one_file_are_reported(tmp_path: Path, content: Content) -> None:
    content["images"].append({"id": 6, "file_name": "./b.png", "width": 20, "height": 10})
    dataset = read(tmp_path, content)
    assert len(dataset) == 4
    assert dataset.report.examples(DataIssue.SHARED_IMAGE) == ["b.png"]


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("annotations", 1, "bbox"), [1, 2, 3], "annotation 2: bbox: expected"),
        (("annotations", 1, "bbox"), [1, 2, 3, "4"], "annotation 2: bbox: expected"),
        (("annotations", 1, "bbox"), [1, 2, 3, float("nan")], "annotation 2: bbox: expected"),
        (("annotations", 1, "bbox"), [1, 2, 3, None], "annotation 2: bbox: expected"),
        (("annotations", 1, "bbox"), [1, 2, 3, 10**400], "annotation 2: bbox: expected"),
        (("annotations", 1, "area"), float("inf"), "annotation 2: area: expected a number"),
        (("annotations", 1, "iscrowd"), 2, "annotation 2: iscrowd: expected 0 or 1, got 2"),
        (("annotations", 1, "image_id"), 77, "annotation 2: image_id: there is no image 77"),
        (("annotations", 1, "image_id"), "9", "annotation 2: image_id: there is no image '9'"),
        (("annotations", 1, "category_id"), 1, "annotation 2: category_id: there is no category 1"),
        (("annotations", 1, "id"), 1, "two entries have the annotation id 1"),
        (("annotations", 1, "id"), None, "annotation number 1: id: expected a whole number, got None"),
        (("annotations", 1), 3, "expected a list of objects under 'annotations'"),
        (("images", 1, "id"), 9, "two entries have the image id 9"),
        (("images", 1, "id"), "4", "image number 1: id: expected a whole number, got '4'"),
        (("images", 1, "id"), 2**63, "image number 1: id: expected a whole number"),
        (("images", 1, "file_name"), "../b.png", r"image 4: file_name: expected a path inside the image folder"),
        (("images", 1, "file_name"), "sub/../../b.png", r"image 4: file_name: expected a path inside"),
        (("images", 1, "file_name"), "/etc/passwd", r"image 4: file_name: expected a path inside"),
        (("images", 1, "file_name"), "C:\\b.png", r"image 4: file_name: expected a path inside"),
        (("images", 1, "file_name"), None, r"image 4: file_name: expected a path, got None"),
        (("images", 1, "file_name"), "\ud800\n.png", "1 of 3 images missing"),
        (("images", 1, "width"), 1e300, "image 4: width: expected whole pixels"),
        (("images", 1, "width"), "20", "image 4: width: expected whole pixels, got '20'"),
        (("images", 1, "width"), 20.5, "image 4: width: expected whole pixels, got 20.5"),
        (("images",), [], "it lists no images"),
        (("images",), {}, "expected a list of objects under 'images'"),
        (("categories", 1, "name"), "zebra", "several categories have the same name: zebra"),
        (("categories", 1, "name"), 5, "category 3: expected a name, got 5"),
        (("categories", 1, "id"), 70, "two entries have the category id 70"),
    ],
)
def test_wrong_entries_are_named(
    tmp_path: Path, content: Content, place: tuple[str | int, ...], value: object, message: str
) -> None:
    *way, last = place
    target: Any = content
    for step in way:
        target = target[step]
    target[last] = value
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, content)
    assert str(caught.value).startswith(str(tmp_path))
    assert str(caught.value).isprintable()


def test_files_that_are_no_annotation_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.json: there is no such annotation file"):
        read_coco(tmp_path, tmp_path / "gone.json")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DataError, match=r"a\.json: not a readable JSON file"):
        read_coco(tmp_path, tmp_path / "a.json")
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(DataError, match="is this a COCO instances file"):
        read_coco(tmp_path, tmp_path / "a.json")
