"""Repaired copies: each kind is put right, each change is a line, and nothing of it is found again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detseg.data.annotations.issues import DataIssue
from detseg.data.annotations.model import PackedAnnotations
from detseg.data.annotations.report import DataReport
from detseg.data.checks.facts import Expected
from detseg.data.checks.repair import REPAIRED, Changes, repair, repair_maps, repair_splits, report_lines, unrepaired
from detseg.data.checks.run import Checked, check_splits
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.formats.coco import read_coco
from detseg.data.formats.coco_writer import write_coco_set
from detseg.data.formats.convert import unread_values
from detseg.data.formats.mask_folder import read_mask_folder
from detseg.data.formats.voc import read_voc
from detseg.data.formats.yolo import read_yolo
from detseg.errors import DataError
from tests.data.checks.test_checks import coco_split
from tests.data.formats.layouts import simple_voc
from tests.planted_set import check_planted_set, write_planted_set

SPLITS = ("train", "val")


def repaired(checked: Checked) -> tuple[Checked, Changes]:
    """The repaired sets, checked again; their readers' reports are made again."""
    from detseg.data.annotations.report import report_contents

    sets, changes = repair_splits(checked.splits)
    for dataset in sets.values():
        assert isinstance(dataset, DetectionDataset)
        report_contents(dataset.packed, dataset.classes, dataset.report)
    return check_splits(sets, checked.expected), changes


def test_nothing_that_is_repaired_is_found_again(tmp_path: Path) -> None:
    planted = write_planted_set(tmp_path / "set", 40)
    before = {path: path.read_bytes() for path in planted.root.rglob("*") if path.is_file()}
    first = check_planted_set(planted.root)
    again, changes = repaired(first)
    found = {finding.issue for _, finding in first.findings()}
    assert len(found & REPAIRED) == 11
    assert {finding.issue for _, finding in again.findings()} & REPAIRED == set()
    counts: dict[str, int] = {}
    for _, _, _, what, _, _ in changes.rows:
        counts[what] = counts.get(what, 0) + 1
    planted_numbers = {issue: planted.planted(issue, "train").total() for issue in REPAIRED}
    assert counts == {
        "unreadable image left out": 1,
        "image left out of train, which is in another split, too": 1,
        "size corrected": 1,
        "relative box scaled": planted_numbers[DataIssue.RELATIVE],
        "corners swapped": planted_numbers[DataIssue.INVERTED],
        "box clipped": planted_numbers[DataIssue.OUTSIDE] - 1,  # one is beyond the stated size alone
        "box taken from its mask": planted_numbers[DataIssue.NO_AREA] + planted_numbers[DataIssue.NOTHING_INSIDE],
        "repeated box removed": planted_numbers[DataIssue.REPEATED],
        "run lengths transposed": planted_numbers[DataIssue.ROW_MAJOR],
        "holes cut out": 1,
        "area changed with its box": 1,
    }
    assert counts == changes.numbers
    assert before == {path: path.read_bytes() for path in planted.root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("stated", "right", "is_corrected"),
    [((50, 40), 45, False), ((50, 40), 70, True), ((50, 50), 45, False), ((99, 80), 45, True), ((200, 160), 45, False)],
)
def test_a_size_is_corrected_where_boxes_show_that_it_is_wrong(
    tmp_path: Path, stated: tuple[int, int], right: float, is_corrected: bool
) -> None:
    """Images of 100 x 80: boxes inside the stated size, too, may have been drawn at that size."""
    coco_split(tmp_path, "train", {"a.png": [(0, (5, 5, right - 5, 30))], "b.png": [(0, (5, 5, 9, 9))]})
    content = json.loads((tmp_path / "train.json").read_text())
    for image in content["images"]:
        image["width"], image["height"] = stated
    (tmp_path / "train.json").write_text(json.dumps(content))
    dataset = read_coco(tmp_path / "train", tmp_path / "train.json", report=DataReport(True))
    checked = check_splits({"train": dataset}, Expected())
    copies, changes = repair_splits(checked.splits)
    packed = copies["train"].packed
    assert isinstance(packed, PackedAnnotations)
    assert packed.boxes[0].tolist() == [5, 5, right, 35]
    assert packed.sizes_hw.tolist() == [[80, 100] if is_corrected else list(stated[::-1])] * 2
    left = {issue for _, issue, _ in unrepaired(checked, changes)}
    assert (DataIssue.OTHER_SIZE in left) != is_corrected


@pytest.mark.parametrize(
    ("box", "polygon", "wanted"),
    [
        ((10, 10, 190, 40), [10, 10, 200, 10, 10, 50], [10, 10, 10, 50, 100, 10, 100, 10 + 40 * 10 / 19]),
        ((0.1, 0.125, 0.4, 0.5), [0.1, 0.125, 0.5, 0.125, 0.1, 0.625], [10, 10, 10, 50, 50, 10]),
    ],
)
def test_outlines_are_clipped_and_scaled_with_their_boxes(
    tmp_path: Path, box: tuple[float, ...], polygon: list[float], wanted: list[float]
) -> None:
    dataset = coco_split(tmp_path, "train", {"a.png": [(0, box)]}, segmentation=[polygon], area=0.1)
    copies, changes = repair_splits(check_splits({"train": dataset}, Expected()).splits)
    packed = copies["train"].packed
    assert isinstance(packed, PackedAnnotations)
    (stated,) = packed.stated(0)
    (outline,) = stated.segmentation
    assert np.ravel(sorted(np.reshape(outline, (-1, 2)).tolist())).tolist() == pytest.approx(wanted)
    how = "scaled" if box[0] < 1 else "clipped"
    what = [f"relative box {how}" if box[0] < 1 else f"box {how}", f"outline {how}"]
    assert [row[3] for row in changes.rows if row[3] != "area changed with its box"] == what
    before, after = next(row[4:] for row in changes.rows if row[3] == f"outline {how}")
    assert json.loads(before) == [polygon]
    assert json.loads(after) == [outline]


def test_what_becomes_of_boxes_and_masks(tmp_path: Path) -> None:
    boxes = [(0, (-9.0, 10, 29, 20)), (0, (60, 50, -20, -10)), (1, (5, 5, 10, 10)), (1, (5, 5, 10, 10))]
    boxes += [(0, (70 + k, 20 + 9 * k, 8, 8)) for k in range(5)]
    sets = {"train": coco_split(tmp_path, "train", {"a.png": boxes, "b.png": [(1, (0.25, 0.5, 0.5, 0.25))]})}
    again, changes = repaired(check_splits(sets, Expected()))
    packed = again.splits[0].objects
    assert packed is not None
    assert packed.boxes[:3].tolist() == [[0, 10, 20, 30], [40, 40, 60, 50], [5, 5, 15, 15]]
    assert packed.boxes[-1].tolist() == [25, 40, 75, 60]
    changes.write(tmp_path / "changes.csv")
    lines = (tmp_path / "changes.csv").read_text().splitlines()
    assert lines[0] == "split,place,object,what,before,after"
    assert "train,a.png,0,box clipped,-9 10 20 30,0 10 20 30" in lines
    assert "train,b.png,0,relative box scaled,0.25 0.5 0.75 0.75,25 40 75 60" in lines
    assert "train,a.png,3,repeated box removed,5 5 15 15," in lines
    assert "train,b.png,0,area changed with its box,1,8000" in lines
    assert len(lines) == 6


def test_what_readers_leave_out_is_listed(tmp_path: Path) -> None:
    dataset = coco_split(tmp_path, "train", {"A.png": [(0, (5, 5, 10, 10))], "b.png": [(1, (5, 5, 10, 10))]})
    file = tmp_path / "train.json"
    content = json.loads(file.read_text().replace("A.png", "a.png"))
    content["annotations"].append(content["annotations"][0] | {"bbox": [1, 2, 8, 8]})
    file.write_text(json.dumps(content))
    dataset = read_coco(tmp_path / "train", file, report=DataReport(True))
    _, changes = repaired(check_splits({"train": dataset}, Expected()))
    assert report_lines(changes) == [
        "names of images corrected: 1",
        "entries with the id of an earlier one left out: 1",
    ]


@pytest.mark.parametrize(("common", "left"), [(1, 2), (2, 3), (3, 3)])
def test_a_split_is_never_emptied(tmp_path: Path, common: int, left: int) -> None:
    """Of three training images 1, 2 and 3 are in val: a slip, or rather the same folder twice."""
    sets = {name: coco_split(tmp_path, name, {f"{k}.png": [(0, (5, 5, 9, 9))] for k in range(3)}) for name in SPLITS}
    for k in range(common):
        shutil.copyfile(tmp_path / "train" / f"{k}.png", tmp_path / "val" / f"{k}.png")
    again, changes = repair_splits(check_splits(sets, Expected()).splits)
    assert len(again["train"]) == left
    assert len(changes.rows) == 3 - left


def test_sizes_as_corners_and_corners_of_voc(tmp_path: Path) -> None:
    """VOC counts from 1 and includes both corners: 5 to 8 is 4 pixels, whichever corner comes first."""
    sizes = [("cat", 17.0, 8.0, 3.0, 2.0), ("cat", 3.0, 7.0, 5.0, 3.0), ("dog", 2.0, 2.0, 3.0, 3.0)]
    folder = simple_voc(tmp_path / "sizes", sizes)
    again, _ = repaired(check_splits({"train": read_voc(folder, "train", report=DataReport(True))}, Expected()))
    assert again.splits[0].objects is not None
    assert again.splits[0].objects.boxes.tolist() == [[16, 7, 19, 9], [2, 6, 7, 9], [1, 1, 4, 4]]
    several = [("cat", 8.0, 9.0, 5.0, 2.0)] + [("cat", 18.0 - k, 9.0, 20.0 - k, 10.0) for k in range(6)]
    folder = simple_voc(tmp_path / "swapped", several)
    again, _ = repaired(check_splits({"train": read_voc(folder, "train", report=DataReport(True))}, Expected()))
    assert again.splits[0].objects is not None
    assert again.splits[0].objects.boxes[0].tolist() == [4, 1, 8, 9]


def test_corners_as_sizes_of_coco(tmp_path: Path) -> None:
    """Stated as x1, y1, x2, y2: of 4 boxes 2 leave the image of 100 x 80 when these are read as width and height."""
    corners = [(60.0, 50, 80, 60), (40, 30, 70, 50), (5, 5, 25, 25), (8, 9, 48, 69)]
    sets = {"train": coco_split(tmp_path, "train", {"a.png": [(0, box) for box in corners]})}
    checked = check_splits(sets, Expected())
    assert checked.reports["train"].count(DataIssue.CORNER_AS_SIZE) == 4
    assert checked.reports["train"].count(DataIssue.OUTSIDE) == 0
    again, changes = repaired(checked)
    assert again.splits[0].objects is not None
    assert again.splits[0].objects.boxes.tolist() == [list(box) for box in corners]
    assert report_lines(changes) == ["width and height taken as the second corner: 4"]


def test_corners_as_centres_and_sizes_of_yolo(tmp_path: Path) -> None:
    """Corners as fractions of 100 x 80 pixels where centres and sides belong."""
    corners = [[10, 16, 60, 40], [20, 8, 80, 72], [50, 40, 90, 64], [5, 20, 25, 60]]
    lines = "".join(f"0 {a / 100} {b / 80} {c / 100} {d / 80}\n" for a, b, c, d in corners)
    for path, content in (("train/labels/a.txt", lines), ("data.yaml", "names: [cat]\ntrain: train/images\n")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    (tmp_path / "train" / "images").mkdir()
    Image.new("RGB", (100, 80), (90, 90, 90)).save(tmp_path / "train" / "images" / "a.png")
    first = check_splits({"train": read_yolo(tmp_path, "train", report=DataReport(True))}, Expected())
    assert first.reports["train"].count(DataIssue.CORNER_AS_SIZE) == 4
    again, changes = repaired(first)
    packed = again.splits[0].objects
    assert packed is not None
    assert packed.boxes.round(6).tolist() == corners
    assert {row[3] for row in changes.rows} == {"width and height taken as the second corner"}


def test_repaired_masks_have_the_pixels_that_were_meant(tmp_path: Path) -> None:
    planted = write_planted_set(tmp_path / "set", 40)
    again, _ = repaired(check_planted_set(planted.root))
    dataset = again.splits[0].dataset
    assert isinstance(dataset, DetectionDataset)
    images = json.loads((planted.root / "train.json").read_text())["images"]
    names = [dataset.packed.path(index) for index in range(len(dataset))]
    (row_major,) = planted.planted(DataIssue.ROW_MAJOR, "train")
    masks = dataset.annotations(names.index(row_major)).masks
    assert masks is not None
    assert masks.boxes.tolist() == [[10, 30, 30, 44], [60, 30, 80, 44]]
    assert masks.areas.tolist() == [280, 280]
    (holes,) = planted.planted(DataIssue.FILLED_HOLES, "train")
    masks = dataset.annotations(names.index(holes)).masks
    assert masks is not None
    assert masks.areas.tolist() == [pytest.approx(1404, abs=60)]
    assert not masks.mask(0)[37, 37]
    assert len(images) - len(names) == 2
    assert np.isfinite(dataset.packed.boxes).all()


def run_length_split(root: Path, transposed: int, upright: int) -> Checked:
    """Masks of 30 x 12 pixels of an image of 100 x 80; some were written row by row."""
    coco_split(root, "train", {"a.png": [(0, (10.0, 5, 30, 12))] * (transposed + upright)})
    content = json.loads((root / "train.json").read_text())
    mask = np.zeros((80, 100), np.uint8)
    mask[5:17, 10:40] = 1
    for number, entry in enumerate(content["annotations"]):
        pixels = mask.ravel(order="C" if number < transposed else "F")
        changes = np.flatnonzero(np.diff(pixels, prepend=0, append=0)).tolist()
        counts = np.diff([0, *changes, len(pixels)]).tolist()
        entry |= {"segmentation": {"size": [80, 100], "counts": counts}, "area": 360.0, "id": 7 + 2 * number}
    (root / "train.json").write_text(json.dumps(content | {"info": {"year": 2026}}))
    dataset = read_coco(root / "train", root / "train.json", report=DataReport(True))
    return check_splits({"train": dataset}, Expected())


@pytest.mark.parametrize(("transposed", "upright", "count"), [(1, 9, 0), (3, 9, 3), (1, 1, 1)])
def test_row_by_row_is_a_pattern_of_several_masks(tmp_path: Path, transposed: int, upright: int, count: int) -> None:
    checked = run_length_split(tmp_path, transposed, upright)
    assert checked.reports["train"].count(DataIssue.ROW_MAJOR) == count
    rows = [row for row in repair_splits(checked.splits)[1].rows if row[3] == "run lengths transposed"]
    assert [row[5] for row in rows] == ["10 5 40 17"] * count


def test_a_copy_keeps_ids_and_says_what_it_lacks(tmp_path: Path) -> None:
    checked = run_length_split(tmp_path, 0, 1)
    lines = write_coco_set(repair_splits(checked.splits)[0], tmp_path / "copy")
    assert lines == []
    (entry,) = json.loads((tmp_path / "copy" / "annotations" / "instances_train.json").read_text())["annotations"]
    assert (entry["id"], entry["bbox"]) == (7, [10.0, 5.0, 30.0, 12.0])
    assert unread_values(split.dataset for split in checked.splits) == ["values that are not read: 1 (info)"]


def test_objects_that_differ_in_more_than_their_box_are_no_repetition(tmp_path: Path) -> None:
    """Of five objects with one box the second has another outline, the third the same, the fourth is a crowd's."""
    box = (10.0, 10.0, 20.0, 20.0)
    coco_split(tmp_path, "train", {"a.png": [(0, box)] * 5})
    content = json.loads((tmp_path / "train.json").read_text())
    upper, lower = [10, 10, 30, 10, 10, 30], [30, 10, 30, 30, 10, 30]
    for entry, outline, crowd in zip(
        content["annotations"], (upper, lower, upper, upper, upper), (0, 0, 0, 1, 0), strict=True
    ):
        entry |= {"segmentation": [outline], "iscrowd": crowd, "area": 200.0}
    (tmp_path / "train.json").write_text(json.dumps(content))
    dataset = read_coco(tmp_path / "train", tmp_path / "train.json", report=DataReport(True))
    checked = check_splits({"train": dataset}, Expected())
    assert checked.reports["train"].count(DataIssue.REPEATED) == 2
    again, changes = repaired(checked)
    assert [row[2:4] for row in changes.rows] == [("2", "repeated box removed"), ("4", "repeated box removed")]
    packed = again.splits[0].objects
    assert packed is not None
    assert [stated.segmentation for stated in packed.stated(0)] == [[upper], [lower], [upper]]


def test_a_copy_that_would_be_worse_is_refused(tmp_path: Path) -> None:
    """Pixels where fractions belong, so that no line is read; and ids of a list that counts from 1."""
    for folder, lines, message in (
        ("pixels", ["0 10 10 5 5", "0 20 20 5 5"], r"train: no copy is written, as it would lack 2 of 2 objects"),
        ("ids", ["1 0.5 0.5 0.2 0.2", "2 0.3 0.3 0.2 0.2"], r"no copy is written: class ids that seem to count from 1"),
    ):
        root = tmp_path / folder
        for place in ("images", "labels"):
            (root / "train" / place).mkdir(parents=True)
        (root / "data.yaml").write_text("names: [cat, dog]\ntrain: train/images\n")
        Image.new("RGB", (100, 80), (90, 90, 90)).save(root / "train" / "images" / "a.png")
        (root / "train" / "labels" / "a.txt").write_text("\n".join(lines))
        checked = check_splits({"train": read_yolo(root, "train", report=DataReport(True))}, Expected())
        with pytest.raises(DataError, match=message):
            repair(checked)


def test_what_readers_have_left_out_has_a_line_for_each_place(tmp_path: Path) -> None:
    for place in ("images", "labels"):
        (tmp_path / "train" / place).mkdir(parents=True)
    (tmp_path / "data.yaml").write_text("names: [cat, dog]\ntrain: train/images\n")
    for name in ("a", "b", "c"):
        Image.new("RGB", (100, 80), (90, 90, 90)).save(tmp_path / "train" / "images" / f"{name}.png")
        boxes = "".join(f"0 0.5 0.5 0.2 0.{k}\n" for k in range(2, 6))
        (tmp_path / "train" / "labels" / f"{name}.txt").write_text(f"{boxes}0 {name} 0.5 0.2 0.2\n")
    (tmp_path / "train" / "images" / "c.png").write_bytes(b"<html>")
    checked = check_splits({"train": read_yolo(tmp_path, "train", report=DataReport(True))}, Expected())
    copies, changes = repair(checked)
    assert len(copies["train"]) == 2
    assert changes.numbers == {"objects that cannot be read left out": 3, "unreadable image left out": 1}
    places = {row[1]: row[4] for row in changes.rows}
    assert places.keys() == {*(f"train/labels/{name}.txt:5" for name in "abc"), "train/images/c.png"}
    assert "expected numbers, got 'a'" in places["train/labels/a.txt:5"]


def test_what_is_not_repaired_is_counted(tmp_path: Path) -> None:
    """Boxes of two images of another size do not tell which is right; a file is in val and in test."""
    boxes = {"a.png": [(0, (5, 5, 9, 9))], "b.png": [(0, (50, 5, 40, 9))]}
    sets = {name: coco_split(tmp_path, name, boxes) for name in ("train", "val", "test")}
    for name in boxes:
        Image.new("RGB", (60, 80), (40, 50, 60 + ord(name[0]))).save(tmp_path / "train" / name)
    shutil.copyfile(tmp_path / "val" / "a.png", tmp_path / "test" / "a.png")
    checked = check_splits(sets, Expected())
    left = unrepaired(checked, repair_splits(checked.splits)[1])
    assert ("train", DataIssue.OTHER_SIZE, 2) in left
    assert ("test", DataIssue.SAME_ACROSS, 1) in left


def test_label_maps_that_cannot_be_used_are_left_out(tmp_path: Path) -> None:
    """Of six pairs one has a broken image, one a broken mask, one a mask of half the size; an image has no mask."""
    for number in range(7):
        for kind, mode, color in (("images", "RGB", (40 * number % 256, 90, 250 - 30 * number)), ("masks", "L", 0)):
            file = tmp_path / kind / f"{number}.png"
            file.parent.mkdir(exist_ok=True)
            image = Image.new(mode, (32, 24), color)
            image.paste(1 if kind == "masks" else (9, 9, 9), (4, 4, 12, 12 + number))
            image.save(file)
    (tmp_path / "images" / "1.png").write_bytes((tmp_path / "images" / "1.png").read_bytes()[:60])
    (tmp_path / "masks" / "2.png").write_bytes(b"no image")
    Image.new("L", (16, 12)).save(tmp_path / "masks" / "3.png")
    (tmp_path / "masks" / "6.png").unlink()
    classes = ["background", "cell"]
    dataset = read_mask_folder(tmp_path / "images", tmp_path / "masks", classes, report=DataReport(True))
    checked = check_splits({"train": dataset}, Expected())
    maps, changes = repair_maps(checked.splits)
    assert [maps["train"].packed.path(index) for index in range(3)] == ["0.png", "4.png", "5.png"]
    assert len(maps["train"]) == 3
    assert [row[1:4] for row in changes.rows] == [
        ("6.png", "", "images without a mask left out"),
        ("1.png", "", "unreadable image left out"),
        ("2.png", "", "unreadable mask left out"),
        ("3.png", "", "mask of another size left out"),
    ]
    assert changes.rows[3][4] == "16 x 12, image 32 x 24"
    assert unrepaired(checked, changes) == []
