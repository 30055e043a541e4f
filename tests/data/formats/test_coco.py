"""The COCO reader on hand-written files and on the real ones, for boxes, masks and semantic maps."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import shutil
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from benchmarks.coco_file import write_large_coco
from detseg.data.annotations.issues import DataIssue
from detseg.data.annotations.model import region_counts
from detseg.data.annotations.report import DataReport
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.formats.coco import read_coco, read_coco_masks
from detseg.errors import ClassTableError, DataError
from detseg.structures import ClassTable, InstanceMasks
from tests.data.formats.layouts import rectangle, save_image, write_coco_masks
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


def read(
    folder: Path,
    content: Content,
    classes: ClassTable | tuple[str, ...] | None = None,
    report: DataReport | None = None,
) -> DetectionDataset:
    (folder / "images" / "sub").mkdir(parents=True, exist_ok=True)
    for name in ("b.png", "sub/a.png", "c.png"):
        Image.new("RGB", (20, 10)).save(folder / "images" / name)
    (folder / "instances.json").write_text(json.dumps(content))
    return read_coco(folder / "images", folder / "instances.json", classes, report=report)


def test_a_small_file(tmp_path: Path, content: Content) -> None:
    dataset = read(tmp_path, content)
    assert dataset.classes == ClassTable(("person", "bus", "zebra"), (3, 8, 70))
    assert [dataset.image_id(i) for i in range(3)] == [9, 4, 5]
    assert dataset.path(1) == tmp_path / "images" / "sub" / "a.png"
    first, second, third = (dataset.annotations(i) for i in range(3))
    assert (first.boxes.tolist(), first.crowd.tolist()) == ([[0.5, 0, 20, 10]], [True])
    assert first.area.tolist() == [195]  # not stated: 19.5 x 10
    assert (second.boxes.tolist(), second.labels.tolist()) == ([[1, 2, 4, 6], [10, 5, 12, 7]], [2, 0])
    assert (second.area.tolist(), second.crowd.tolist()) == ([7.5, 4], [False, False])
    assert len(third) == 0
    sample = dataset[0]
    assert (sample.boxes.tolist(), sample.labels.tolist(), sample.ignore.tolist()) == ([[0.5, 0, 20, 10]], [0], [True])
    assert dataset.report.lines() == [
        "annotations whose area is not stated (that of the mask is taken, without masks that of the box): 2 "
        "(annotation 2, annotation 3)",
        "images without objects (kept, as background): 1 (c.png)",
        "crowd regions (neither right nor wrong to find): 1 (b.png)",
        "classes without any object: 1 (bus)",
    ]


def test_given_names_select_and_reorder(tmp_path: Path, content: Content) -> None:
    dataset = read(tmp_path, content, ("zebra", "bus"))
    assert dataset.classes == ClassTable(("zebra", "bus"), (70, 8))
    assert dataset.packed.labels.tolist() == [0]
    assert dataset.packed.offsets.tolist() == [0, 0, 1, 1]
    assert dataset.report.count(DataIssue.LEFT_OUT) == 2
    assert dataset.report.examples(DataIssue.LEFT_OUT) == ["person"]
    for classes, message in (
        (("persn",), r"the class 'persn' is not among.*did you mean 'person'"),
        (("bus", "bus"), "each class once and at least one, got 'bus' twice"),
        ((), "each class once and at least one, got -"),
    ):
        with pytest.raises(DataError, match=message):
            read(tmp_path, content, classes)
    table = ClassTable(("zebra", "bus", "person"), (1, 8, 2))  # keeps its ids
    dataset = read(tmp_path, content, table)
    assert (dataset.classes, dataset.packed.labels.tolist()) == (table, [2, 0, 2])
    assert dataset.report.examples(DataIssue.OTHER_ID) == [
        "zebra: 70, in the training set 1",
        "person: 3, in the training set 2",
    ]
    for tolerant in (False, True):  # that is not what data.classes says
        report = DataReport(tolerant)
        dataset = read(tmp_path, content, ClassTable(("zebra", "bus"), (70, 8)), report)
        assert dataset.packed.labels.tolist() == [0]
        assert report.examples(DataIssue.NOT_IN_TABLE) == ["person"]
        assert (report.count(DataIssue.NOT_IN_TABLE), report.count(DataIssue.LEFT_OUT)) == (2, 0)


def test_sizes_that_are_not_stated_and_two_entries_of_one_file(tmp_path: Path, content: Content) -> None:
    del content["images"][0]["width"]
    content["images"][1]["height"] = 0
    content["images"].append({"id": 6, "file_name": "./b.png", "width": 20, "height": 10})
    dataset = read(tmp_path, content)
    assert [dataset.hw(i) for i in range(4)] == [(10, 20)] * 4
    assert dataset.report.examples(DataIssue.SIZE_NOT_STATED) == ["b.png", "sub/a.png"]


def test_boxes_that_cannot_be_trained_on_are_reported_and_left_out(tmp_path: Path, content: Content) -> None:
    bboxes = [[1, 1, 0, 5], [4, 4, -2, 3], [30, 1, 5, 5], [15, 5, 10, 3], [2, 2, 1, 0.5], [19, 1, 1.01, 1]]
    content["annotations"] = [
        {"id": number, "image_id": 9, "category_id": 3, "bbox": bbox} for number, bbox in enumerate(bboxes)
    ]
    dataset = read(tmp_path, content)
    # The last one leaves the image by a hundredth of a pixel only.
    issues = (DataIssue.NO_AREA, DataIssue.INVERTED, DataIssue.NOTHING_INSIDE, DataIssue.OUTSIDE, DataIssue.ONE_PIXEL)
    assert [dataset.report.count(issue) for issue in (*issues, DataIssue.NO_OBJECTS)] == [1, 1, 1, 1, 1, 2]
    assert len(dataset.annotations(0)) == 6
    expected = np.array([[15, 5, 20, 8], [2, 2, 3, 2.5], [19, 1, 20, 2]], dtype=np.float32)
    assert np.array_equal(dataset[0].boxes, expected)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("annotations", 1, "area"), 1e15, r"annotation 2: area: expected a number, got 1000000000000000"),
        (("annotations", 1, "bbox"), None, r"annotation 2: bbox: expected \[x, y, width, height\] in pixels, got None"),
        (("annotations", 1, "iscrowd"), 2, "annotation 2: iscrowd: expected 0 or 1, got 2"),
        (("annotations", 1, "image_id"), 77, "annotation 2: image_id: there is no image 77"),
        (("annotations", 1, "image_id"), "9", "annotation 2: image_id: expected a whole number, got '9'"),
        (("annotations", 1, "category_id"), 1, "annotation 2: category_id: there is no category 1"),
        (("annotations", 1, "id"), 1, "two entries have the annotation id 1"),
        (("annotations", 1, "id"), None, "annotation number 1: id: expected a whole number, got None"),
        (("images", 1, "id"), 9, "two entries have the image id 9"),
        (("images", 1, "id"), "4", "image number 1: id: expected a whole number, got '4'"),
        (("images", 1, "file_name"), "", r"image 4: file_name: expected a path, got ''"),
        (("images", 1, "file_name"), "nowhere.png", r"1 of 3 images missing: nowhere\.png; add the files, take them"),
        (("images", 1, "width"), 20.5, "image 4: width: expected whole pixels, got 20.5"),
        (("images",), [], "it lists no images"),
        (("categories",), [], "it has no categories"),
        (("categories", 1, "name"), "zebra", "several categories have the same name: zebra"),
        (("categories", 1, "name"), 5, "category 3: name: expected a name, got 5"),
        (("categories", 1, "id"), 70, "two entries have the category id 70"),
    ],
)
def test_wrong_entries(tmp_path: Path, content: Content, place: tuple[Any, ...], value: object, message: str) -> None:
    *way, last = place
    target: Any = content
    for step in way:
        target = target[step]
    target[last] = value
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, content)
    assert str(caught.value).startswith(str(tmp_path))
    assert str(caught.value).isprintable()


def test_forms_that_exporters_write(tmp_path: Path, content: Content) -> None:
    """A byte order mark, whole numbers as fractions, flags as booleans, null for what is not known."""
    plain = read(tmp_path, content)
    content["images"][0] |= {"width": 20.0, "height": None, "more": {"id": [{"id": 9}]}}
    content["annotations"][0] |= {"iscrowd": False, "ignore": "no", "text": '"segmentation": [[1, 2]]'}
    content["annotations"][1] |= {"iscrowd": True, "area": None}
    dataset = read(tmp_path, content)
    (tmp_path / "bom.json").write_text(json.dumps(content, indent=1), encoding="utf-8-sig")
    with_mark = read_coco(tmp_path / "images", tmp_path / "bom.json")
    for other in (dataset, with_mark):
        for name in ("boxes", "labels", "crowd", "area", "offsets", "sizes_hw"):
            np.testing.assert_array_equal(getattr(other.packed, name), getattr(plain.packed, name))


def test_ignored_and_truncated_objects(tmp_path: Path, content: Content) -> None:
    for entry, flags in zip(content["annotations"], ({"ignore": 1}, {"truncated": True, "ignore": 0}, {}), strict=True):
        entry |= flags
    dataset = read(tmp_path, content)
    assert dataset.packed.difficult.tolist() == [False, True, False]  # the second annotation is of the first image
    assert dataset.packed.truncated.tolist() == [True, False, False]
    assert dataset[1].ignore.tolist() == [True, False]


def test_a_tolerant_report_counts_what_is_wrong_and_leaves_it_out(tmp_path: Path, content: Content) -> None:
    shape = [[0, 0, 4, 0, 4, 4]]
    boxes: list[dict[str, Any]] = [
        {"id": 1, "segmentation": shape},  # the id of an earlier one
        {"id": 11, "image_id": 77},
        {"id": 12, "category_id": 77},
        {"id": 13, "bbox": [1, 2, 3]},
        {"id": 14, "bbox": [1, 2, 3, 4], "area": "large"},
        {"id": 15, "image_id": 6},  # of a missing image
        {"id": 16, "segmentation": [[1, 2, 3]], "area": 12},
        {"id": 17, "segmentation": {"size": [10, 20], "counts": [1, 2]}},
        {"id": 18, "segmentation": []},
        {"id": 19, "segmentation": shape},
    ]
    content["annotations"] += [{"image_id": 5, "category_id": 3, "bbox": [0, 0, 4, 4]} | box for box in boxes]
    content["images"] += [content["images"][0] | {"file_name": "c.png"}, {"id": 6, "file_name": "gone.png"}]
    read(tmp_path, content | {"annotations": []} | {"images": content["images"][:3]})  # writes the images
    (tmp_path / "instances.json").write_text(json.dumps(content))
    report = DataReport(True)
    dataset = read_coco(tmp_path / "images", tmp_path / "instances.json", report=report)
    counts = {finding.issue.name: finding.count for finding in report.findings()}
    assert counts == {
        "MISSING_IMAGE": 1,
        "WRONG_OBJECT": 2,
        "DUPLICATE_ID": 2,
        "UNKNOWN_IMAGE": 1,
        "UNKNOWN_CATEGORY": 1,
        "BAD_MASK": 2,
        "REPEATED": 2,  # the fourth has an outline, which the others have not
        "AREA_NOT_STATED": 5,
        "CROWD": 1,
        "UNSEEN": 1,
    }
    assert dataset.packed.image_ids.tolist() == [9, 4, 5]
    assert [item.segmentation for item in dataset.packed.stated(2)] == [None, None, None, shape]
    assert [item.area for item in dataset.packed.stated(2)[:3]] == [12, 16, 16]
    assert np.isnan(dataset.packed.stated(2)[3].area)  # that of its mask


def test_a_category_without_objects_may_have_the_name_of_another(tmp_path: Path, content: Content) -> None:
    content["categories"].append({"id": 0, "name": "zebra", "supercategory": "none"})  # as Roboflow writes it
    dataset = read(tmp_path, content)
    assert dataset.classes == ClassTable(("person", "bus", "zebra"), (3, 8, 70))
    assert dataset.report.lines()[0] == "categories without objects that have the name of another, left out: ids 0"


def test_placeholders_of_exporters_are_no_classes(tmp_path: Path, content: Content) -> None:
    for category in content["categories"]:
        category["supercategory"] = "animals"
    content["categories"].insert(0, {"id": 0, "name": "animals", "supercategory": "none"})  # Roboflow
    content["categories"].append({"id": 99, "name": "_background_"})  # labelme2coco
    dataset = read(tmp_path, content)
    assert dataset.classes == ClassTable(("person", "bus", "zebra"), (3, 8, 70))
    line = "categories that stand for no object, and have none, left out: animals, _background_"
    assert dataset.report.lines()[0] == line
    content["annotations"][0]["category_id"] = 0  # then it is a class
    assert read(tmp_path, content).classes.names == ("animals", "person", "bus", "zebra")


def parts(root: Path, second: Content) -> list[Path]:
    """Two files: of the image b.png with id 1, and another."""
    first = {
        "images": [{"id": 1, "file_name": "b.png", "width": 20, "height": 10}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 5, "bbox": [0, 0, 4, 4], "segmentation": rectangle(0, 0, 4, 4)}
        ],
        "categories": [{"id": 5, "name": "cat"}, {"id": 6, "name": "dog"}],
    }
    for name, content in (("1.json", first), ("2.json", second)):
        (root / name).write_text(json.dumps(content))
    for path in ("x/b.png", "y/c.png", "y/b.png"):
        save_image(root / path, (10, 20))
    return [root / "1.json", root / "2.json"]


def test_several_files(tmp_path: Path) -> None:
    box = {"id": 1, "bbox": [1, 1, 2, 2], "segmentation": rectangle(1, 1, 3, 3)}
    second = {
        "images": [{"id": 2, "file_name": "c.png"}, {"id": 3, "file_name": "b.png"}],
        "annotations": [box | {"image_id": 3, "category_id": 2}, box | {"id": 2, "image_id": 2, "category_id": 9}],
        "categories": [{"id": 9, "name": "dog"}, {"id": 2, "name": "ant"}],
    }
    files = parts(tmp_path, second)
    dataset = read_coco([tmp_path / "x", tmp_path / "y"], files, masks=True)
    assert dataset.root == tmp_path
    assert [dataset.packed.path(index) for index in range(3)] == ["x/b.png", "y/c.png", "y/b.png"]
    assert dataset.packed.image_ids.tolist() == [1, 2, 3]
    assert dataset.classes == ClassTable(("ant", "cat", "dog"), (2, 5, 6))
    assert dataset.packed.labels.tolist() == [1, 2, 0]
    assert [dataset[index].boxes.tolist() for index in range(3)] == [[[0, 0, 4, 4]], [[1, 1, 3, 3]], [[1, 1, 3, 3]]]
    semantic = read_coco_masks([tmp_path / "x", tmp_path / "y"], files)
    assert np.bincount(semantic.semantic(1).ravel()).tolist() == [196, 0, 0, 4]
    # In one folder b.png of both files is one image.
    save_image(tmp_path / "y" / "b.png", (10, 20))
    united = read_coco(tmp_path / "y", files)
    assert united.packed.offsets.tolist() == [0, 2, 3]
    assert united.packed.image_ids.tolist() == [1, 2]
    assert united.report.count(DataIssue.LISTED_TWICE) == 1
    second["images"][0]["id"] = second["annotations"][1]["image_id"] = 1
    second["categories"][1]["id"] = second["annotations"][0]["category_id"] = 6
    colliding = read_coco([tmp_path / "x", tmp_path / "y"], parts(tmp_path, second))
    assert colliding.packed.image_ids.tolist() == [1, 2, 3]
    assert colliding.classes == ClassTable(("cat", "dog", "ant"), (1, 2, 3))
    assert colliding.packed.labels.tolist() == [0, 1, 2]
    assert colliding.report.lines()[:2] == [
        "images of several files have the same ids: all 3 are numbered from 1",
        "categories of several files have the same ids: all 3 are numbered from 1",
    ]
    with pytest.raises(DataError, match="one folder of images, or one for each of 1 annotation files, got 2"):
        read_coco([tmp_path / "x", tmp_path / "y"], files[0])


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    write_large_coco(folder, images=300, annotations=17_000)
    return folder


@pytest.mark.parametrize(("file", "step"), [("annotations/instances_all.json", 1), ("instances.json", 10)])
def test_files_are_what_pycocotools_reads(large: Path, file: str, step: int) -> None:
    root = shared_data("coco_mini") if step == 1 else large
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(root / file)
    dataset = read_coco(root / "images", root / file, masks=True)
    assert dataset.report.count(DataIssue.CROWD) == sum(entry["iscrowd"] for entry in reference.anns.values())
    assert dataset.packed.image_ids.tolist() == list(reference.imgs)
    assert list(dataset.classes.source_ids) == sorted(reference.cats)
    assert len(dataset.packed.labels) == len(reference.anns)
    for index in range(0, len(dataset), step):
        objects, image_id = dataset.annotations(index), dataset.image_id(index)
        expected, image = reference.imgToAnns[image_id], reference.imgs[image_id]
        assert dataset.hw(index) == (image["height"], image["width"])
        corners = [(x, y, x + w, y + h) for x, y, w, h in (entry["bbox"] for entry in expected)]
        assert objects.boxes.tolist() == [list(box) for box in corners]
        assert [dataset.classes.source_ids[label] for label in objects.labels] == [e["category_id"] for e in expected]
        assert objects.area.tolist() == [entry["area"] for entry in expected]
        assert objects.crowd.tolist() == [entry["iscrowd"] for entry in expected]
        assert objects.masks is not None
        for counts, entry in zip(objects.masks.counts, expected, strict=True):
            if isinstance(entry["segmentation"], list):  # run lengths of no pixels are joined here
                assert counts == reference.annToRLE(entry)["counts"]


def mask_counts(dataset: DetectionDataset) -> list[tuple[bytes, ...]]:
    found = [dataset.annotations(index).masks for index in range(0, len(dataset), 30)]
    return [masks.counts for masks in found if masks is not None]


def send_counts(dataset: DetectionDataset, sender: Connection) -> None:
    """What a loader process does; it also says whether its arrays are shared memory."""
    sender.send((mask_counts(dataset), isinstance(dataset.packed.boxes.base, torch.Tensor)))


def in_a_process(method: str, dataset: DetectionDataset) -> Any:
    context: Any = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    worker = context.Process(target=send_counts, args=(dataset, sender))
    worker.start()
    found = receiver.recv()
    worker.join()
    return found


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_masks_in_loader_processes_and_threads(method: str, large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = read_coco(large / "images", large / "instances.json", masks=True)
    assert in_a_process(method, dataset) == (mask_counts(dataset), method == "spawn")
    with ThreadPoolExecutor(8) as threads:
        assert len({tuple(counts) for counts in threads.map(mask_counts, [dataset] * 8)}) == 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Namespace(free=1 << 20))  # nearly full, as in Docker
    assert in_a_process(method, dataset.subset(range(300))) == (mask_counts(dataset), False)


def test_a_file_that_changes_while_it_is_used_is_an_error(tmp_path: Path, content: Content) -> None:
    for entry in content["annotations"]:
        entry["segmentation"] = [[0, 0, 4, 0, 4, 4]]
    read(tmp_path, content)
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(content), encoding="utf-8-sig")  # places count from the mark
    dataset = read_coco(tmp_path / "images", file, masks=True)
    assert dataset.annotations(0).masks == InstanceMasks((10, 20), (region_counts([[0, 0, 4, 0, 4, 4]], (10, 20)),))
    file.write_text(file.read_text().replace("zebra", "horse"))  # of the same length
    with pytest.raises(DataError, match=r"instances\.json: the annotation file changed while it was in use"):
        dataset[0]
    file.unlink()
    with pytest.raises(DataError, match=r"instances\.json: cannot read the annotation file"):
        dataset[0]


def area(category_id: int, *corners: int, **more: object) -> dict[str, Any]:
    """An annotation that is a rectangle; its stated area is wrong, since nobody may go by it."""
    return {"category_id": category_id, "segmentation": rectangle(*corners), "area": 1, "bbox": [0, 0, 1, 1], **more}


def test_small_objects_cover_large_ones_and_all_cover_crowds(tmp_path: Path) -> None:
    entries = [
        area(4, 2, 2, 4, 4),  # the smallest, though first in the file
        area(3, 1, 1, 6, 5),
        area(4, 0, 0, 4, 2, iscrowd=1),  # smaller than the one before, but a crowd
    ]
    dataset = read_coco_masks(*write_coco_masks(tmp_path, entries))
    expected = np.zeros((6, 8), dtype=np.uint8)
    expected[0:2, 0:4] = 255
    expected[1:5, 1:6] = 1
    expected[2:4, 2:4] = 2
    assert dataset.semantic(0).tolist() == expected.tolist()
    assert (dataset.image_id(0), dataset[0].hw) == (7, (6, 8))
    equal = [area(4, 0, 0, 3, 3), area(3, 1, 0, 4, 3)]  # objects of equal size cover in the order of the file
    for order, expected in ((equal, [[2, 1, 1, 1, 0]]), (equal[::-1], [[2, 2, 2, 1, 0]])):
        assert read_coco_masks(*write_coco_masks(tmp_path, order)).semantic(0)[:1, :5].tolist() == expected


def test_classes(tmp_path: Path) -> None:
    folders = write_coco_masks(tmp_path, [area(3, 0, 0, 2, 2), area(4, 4, 4, 8, 6)])
    assert read_coco_masks(*folders).classes == ClassTable(("background", "a", "b"), (0, 3, 4))
    given = read_coco_masks(*folders, ["ground", "b"])
    assert given.classes == ClassTable(("ground", "b"), (0, 4))
    assert np.bincount(given.semantic(0).ravel()).tolist() == [40, 8]  # a is background now
    assert given.report.lines() == ["objects of classes that data.classes leaves out: 1 (a)"]
    table = ClassTable(("ground", "b", "a"), (0, 9, 3))
    other = read_coco_masks(*folders, table)
    assert other.classes is table
    assert np.bincount(other.semantic(0).ravel()).tolist() == [36, 8, 4]


def test_classes_that_do_not_fit(tmp_path: Path) -> None:
    folders = write_coco_masks(tmp_path, [area(3, 0, 0, 2, 2)])
    taken = write_coco_masks(tmp_path / "taken", [area(3, 0, 0, 2, 2)], names=("background", "a"))
    many = write_coco_masks(tmp_path / "many", [area(3, 0, 0, 2, 2)], names=[f"c{k}" for k in range(255)])
    for paths, classes, message in (
        (folders, ["a", "b"], r"label 0 is the background, but 'a' is the name of a class of objects; begin"),
        (folders, ["background", "c"], r"the class 'c' is not among its classes"),
        (folders, ["background"], "expected a background and classes of objects"),
        (taken, None, "begin data.classes with a name that no class has"),
        (many, None, "255 classes and a background are more than the 255 that"),
    ):
        with pytest.raises(ClassTableError, match=message):
            read_coco_masks(*paths, classes)
    assert len(read_coco_masks(*taken, ["ground", "background", "a"])) == 1
    file = folders[1]
    file.write_text(file.read_text().replace('"id": 3', '"id": 0').replace('"category_id": 3', '"category_id": 0'))
    assert read_coco_masks(*folders).classes.source_ids == (-1, 0, 4)


def test_coco_mini_is_composed_as_pycocotools_would() -> None:
    root = shared_data("coco_mini")
    file = root / "annotations" / "instances_all.json"
    dataset = read_coco_masks(root / "images", file)
    assert len(dataset) == 33
    assert len(dataset.classes) == 81
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO(file)
    for index in range(len(dataset)):
        entries = api.loadAnns(api.getAnnIds(imgIds=[dataset.image_id(index)]))
        masks = [api.annToMask(entry) for entry in entries]
        expected = np.zeros(dataset[index].hw, dtype=np.uint8)
        # Of the objects that cover a pixel the smallest wins, of equal ones the later: asked pixel by pixel.
        best = np.full(expected.shape, np.inf)
        for entry, mask in zip(entries, masks, strict=True):
            crowd = bool(entry["iscrowd"])
            size = np.inf if crowd else float(mask.sum())
            wins = (mask == 1) & (size <= best) & ((expected == 0) | (not crowd))
            expected[wins] = 255 if crowd else dataset.classes.source_ids.index(entry["category_id"])
            best[wins] = size
        assert np.array_equal(dataset.semantic(index), expected)
