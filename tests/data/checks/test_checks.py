"""Each kind of issue by tiny sets with counts by hand, and all kinds at once in a set in which they are planted."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from detseg.data.annotations.issues import DataIssue
from detseg.data.annotations.report import DataReport, Finding
from detseg.data.checks.facts import Expected, examine
from detseg.data.checks.repair import repair_splits
from detseg.data.checks.run import TOGETHER, Checked, check_splits
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.formats.coco import read_coco
from detseg.data.formats.mask_folder import read_mask_folder
from detseg.data.formats.yolo import read_yolo
from detseg.data.images.read import FORMATS
from detseg.data.images.values import ValueRange
from detseg.errors import DataError
from tests.planted_set import check_planted_set, compare, write_planted_set
from tests.shared_data import shared_data

Box = tuple[int, Sequence[float]]  # class, xywh


def coco_split(
    root: Path, split: str, boxes: dict[str, list[Box]], names: Sequence[str] = ("cat", "dog"), **fields: Any
) -> DetectionDataset:
    """A split of images of 100 x 80 pixels of noise, by name, with boxes."""
    (root / split).mkdir(parents=True)
    seed = sum(map(ord, split))
    images, annotations = [], []
    for number, (name, own) in enumerate(boxes.items(), 1):
        pixels = np.random.default_rng((seed, number)).integers(0, 256, (80, 100, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(root / split / name)
        images.append({"id": number, "file_name": name, "height": 80, "width": 100})
        for label, box in own:
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": label + 1, "bbox": list(box)}
            annotations.append(entry | {"area": 1.0, "iscrowd": 0} | fields)
    categories = [{"id": k, "name": name} for k, name in enumerate(names, 1)]
    text = {"images": images, "annotations": annotations, "categories": categories}
    (root / f"{split}.json").write_text(json.dumps(text))
    return read_coco(root / split, root / f"{split}.json", report=DataReport(True))


def found(checked: Checked, issue: DataIssue, split: str = "train") -> Finding:
    (finding,) = [item for name, item in checked.findings() if (name, item.issue) == (split, issue)]
    return finding


def kinds(checked: Checked) -> set[str]:
    return {finding.issue.name for _, finding in checked.findings()}


def test_a_planted_set_is_found_whole_and_nothing_else(tmp_path: Path) -> None:
    planted = write_planted_set(tmp_path / "set", 40)
    checked = check_planted_set(planted.root)
    table = compare(planted, checked)
    assert {issue.name: numbers for issue, numbers in table.items() if numbers[0] != numbers[1]} == {}
    assert all(wanted for wanted, _ in table.values())
    for name, finding in checked.findings():
        if finding.issue in table and name in planted.splits:
            assert {place.where for place in finding.examples} <= set(planted.planted(finding.issue, name))
    others = {finding.issue for _, finding in checked.findings()} - set(table)
    assert others <= {DataIssue.UNSEEN, DataIssue.FEW_OBJECTS, DataIssue.SMALL_IN_INPUT}


def test_a_hundredth_of_a_pixel_is_no_difference(tmp_path: Path) -> None:
    """A box as centre and sides, and as four corners, each rounded to six decimals by YOLO text."""
    boxes = [(0, (10.00002, 20, 30, 40)), (0, (10, 20, 30.00003, 40)), (0, (10, 20, 30.2, 40))]
    found = check_splits({"train": coco_split(tmp_path, "train", {"a.png": boxes})}, Expected()).reports["train"]
    assert (found.count(DataIssue.REPEATED), found.count(DataIssue.NEARLY_REPEATED)) == (1, 1)


def test_sizes_as_corners_are_one_pattern_of_a_split(tmp_path: Path) -> None:
    """Stated as x, y, width, height where corners belong: of 4 boxes 2 are inverted, one in x alone, and all fit when
    read so, where as swapped corners 2 would be larger than half a side."""
    corners = [(80, 50, 15, 10), (40, 10, 30, 20), (5, 5, 20, 20), (8, 9, 40, 60)]
    boxes = [(0, (x, y, w - x, h - y)) for x, y, w, h in corners]  # COCO: second corner minus first
    checked = check_splits({"train": coco_split(tmp_path, "train", {"a.png": boxes})}, Expected())
    assert found(checked, DataIssue.SIZE_AS_CORNER).count == 2
    assert "INVERTED" not in kinds(checked)
    fitting = [(0, (10, 10, 20, 20)), (0, (50, 60, -20, -10)), (0, (90, 70, -80, -60))]  # 90 + 10 fits, 70 + 10 too
    inverted = check_splits({"train": coco_split(tmp_path / "b", "train", {"a.png": fitting})}, Expected())
    assert found(inverted, DataIssue.INVERTED).count == 2


def test_swapped_corners_that_would_fit_as_sizes_stay_as_they_are(tmp_path: Path) -> None:
    """Both readings lie inside the image; the right box (5, 5, 25, 25) is never made larger."""
    boxes = [(0, (45, 40, -20, -20)), (0, (30, 30, -15, -15)), (0, (5, 5, 20, 20))]
    checked = check_splits({"train": coco_split(tmp_path, "train", {"a.png": boxes})}, Expected())
    assert found(checked, DataIssue.SIZE_OR_SWAPPED).count == 2
    assert not {"INVERTED", "SIZE_AS_CORNER"} & kinds(checked)
    with pytest.raises(
        DataError, match=r"train: no copy is written: .* swapped corners, or width and height as second"
    ):
        repair_splits(checked.splits)


@pytest.mark.parametrize(
    ("move", "count"), [((1, 1, 0, 0), 1), ((0, 0, 1, 1), 1), ((0.4, -0.3, 0, 0), 1), ((2, 0, 0, 0), 0)]
)
def test_a_small_box_a_pixel_off_is_nearly_repeated(tmp_path: Path, move: Sequence[float], count: int) -> None:
    boxes: list[Box] = [(0, (10, 20, 12, 12)), (0, np.add((10, 20, 12, 12), move).tolist())]
    boxes += [(0, (11, 21, 4, 4)), (0, (13, 23, 4, 4))]
    checked = check_splits({"train": coco_split(tmp_path, "train", {"a.png": boxes})}, Expected(), open_images=False)
    assert checked.reports["train"].count(DataIssue.NEARLY_REPEATED) == count


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"iscrowd": 1}, "all 2 objects are crowd regions (iscrowd 1)"), ({}, "the others have no area")],
)
def test_nothing_to_learn(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    box = (10.0, 10, 20, 20) if fields else (10.0, 10, 0, 0)
    dataset = coco_split(tmp_path, "train", {"a.png": [(0, box), (1, (box[0] + 40, *box[1:]))]}, **fields)
    checked = check_splits({"train": dataset}, Expected())
    assert words in found(checked, DataIssue.NOTHING_TO_LEARN).examples[0].detail


def test_the_ceiling_of_recall_is_exact(tmp_path: Path) -> None:
    """12 cats and 3 dogs with 5 detections of a class: 5 + 3 of 15."""
    boxes = [(0, (k * 7, 1, 6, 6)) for k in range(12)] + [(1, (k * 9, 30, 8, 8)) for k in range(3)]
    checked = check_splits({"train": coco_split(tmp_path, "train", {"a.png": boxes})}, Expected(max_detections=5))
    (place,) = found(checked, DataIssue.TOO_MANY).examples
    assert place.detail == "12 of cat; the split's recall is at most 0.533 with 5"


def test_sizes_after_the_letterbox_and_the_size_that_would_do(tmp_path: Path) -> None:
    """100 x 80 in 50 x 50: half as large, so 10 pixels become 5, 40 become 20."""
    boxes = [(0, (1, 1, 10, 10)), (0, (20, 1, 10, 10)), (0, (40, 1, 40, 40)), (1, (1, 45, 30, 30))]
    dataset = coco_split(tmp_path, "train", {"a.png": boxes})
    checked = check_splits({"train": dataset}, Expected(input_hw=(50, 50)))
    assert checked.numbers["train"].sizes_in_input == [2, 1, 1, 0, 0]
    (place,) = found(checked, DataIssue.SMALL_IN_INPUT).examples
    assert place.detail == "50 % of 4 at 50 pixels; data.image_size=96 leaves at most 5 %"
    assert place.rows == (0, 1)


def test_the_best_recall_of_anchors(tmp_path: Path) -> None:
    """An anchor of 20 x 20 fits 20 x 20 and, with IoU 0.5, 20 x 10, not 40 x 40 (0.25)."""
    boxes = [(0, (1, 1, 20, 20)), (0, (30, 1, 20, 10)), (0, (55, 30, 40, 40))]
    dataset = coco_split(tmp_path, "train", {"a.png": boxes})
    expected = Expected(input_hw=(80, 100), anchors=np.array([[20.0, 20.0]]))
    checked = check_splits({"train": dataset}, expected, open_images=False)
    assert checked.numbers["train"].best_recall_of_anchors == pytest.approx(2 / 3)
    assert found(checked, DataIssue.ANCHORS).count == 1


def test_classes_in_splits(tmp_path: Path) -> None:
    names = ("bicycle", "bicycles", "truck", "Truck ", "lane 1", "lane 2", "dog", "dot", "mouse", "house")
    names += ("caf\u00e9", "cafe\u0301")  # é as one character, and as two
    train = {f"{k}.png": [(0, (1 + k, 1, 20, 20)), (2, (40, 1, 20, 20))] for k in range(12)}
    train["0.png"].append((1, (1, 40, 20, 20)))
    sets = {"train": coco_split(tmp_path, "train", train, names)}
    sets["val"] = coco_split(tmp_path, "val", {"v.png": [(0, (1, 1, 20, 20)), (3, (40, 1, 20, 20))]}, names)
    checked = check_splits(sets, Expected())
    similar = [place.where for place in found(checked, DataIssue.SIMILAR_NAMES, TOGETHER).examples]
    assert similar == ["'bicycle' and 'bicycles'", "'truck' and 'Truck '", r"'caf\xe9' and 'cafe\u0301'"]
    assert [place.where for place in found(checked, DataIssue.FEW_OBJECTS, TOGETHER).examples] == ["bicycles"]
    absent = {split: [place.where for place in found(checked, DataIssue.UNSEEN, split).examples] for split in sets}
    unused = list(names[4:])
    assert absent == {"train": ["Truck ", *unused], "val": ["bicycles", "truck", *unused]}


def test_ids_that_count_from_one(tmp_path: Path) -> None:
    """YOLO text whose classes are 1 and 2, where two names make them 0 and 1."""
    (tmp_path / "data.yaml").write_text("train: images\nnames: [cat, dog]\n")
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (40, 30), (90, 20, 130)).save(tmp_path / "images" / "a.png")
    (tmp_path / "labels" / "a.txt").write_text("1 0.5 0.5 0.2 0.2\n2 0.3 0.3 0.2 0.2\n")
    checked = check_splits({"train": read_yolo(tmp_path, "train", report=DataReport(True))}, Expected())
    (place,) = found(checked, DataIssue.OFF_BY_ONE, TOGETHER).examples
    assert place.detail == "no object of the first class, 'cat', and objects of class 2 of 0 to 1"


def test_where_all_was_left_out_the_errors_are_named(tmp_path: Path) -> None:
    coco_split(tmp_path, "train", {"a.png": [(7, (1, 1, 20, 20))]})
    dataset = read_coco(tmp_path / "train", tmp_path / "train.json", report=DataReport(True))
    (place,) = found(check_splits({"train": dataset}, Expected()), DataIssue.NOTHING_TO_LEARN).examples
    assert "none is left of its 1 images; objects of categories" in place.detail


def test_the_bounds_of_a_thin_outline_are_a_right_box(tmp_path: Path) -> None:
    """Of a triangle of 30 x 2 pixels, whose tip covers none."""
    fields = {"segmentation": [[10, 10, 40, 10, 40, 12]], "area": 30.0}
    boxes = [(0, (10, 10, 30, 2)), (1, (20, 10, 10, 10))]
    dataset = coco_split(tmp_path, "train", {"a.png": boxes}, **fields)
    (place,) = found(check_splits({"train": dataset}, Expected()), DataIssue.BOX_NOT_OF_MASK).examples
    assert place.rows == (1,)


@pytest.mark.skipif(find_spec("pi_heif") is not None, reason="HEIC is read here")
def test_heic_names_its_package(tmp_path: Path) -> None:
    coco_split(tmp_path, "train", {"a.png": [(0, (1, 1, 20, 20))], "b.png": []})
    file = tmp_path / "train.json"
    for name in ("a", "b"):
        (tmp_path / "train" / f"{name}.png").rename(tmp_path / "train" / f"{name}.heic")
        file.write_text(file.read_text().replace(f"{name}.png", f"{name}.heic"))
        if name == "a":
            dataset = read_coco(tmp_path / "train", file, report=DataReport(True))
            checked = check_splits({"train": dataset}, Expected(), open_images=False)
            assert "detseg[heic]" in found(checked, DataIssue.NEEDS_PACKAGE).issue.fix
            assert "UNLISTED" not in kinds(checked)
    with pytest.raises(DataError, match=r"they are HEIF images, which need the package pi-heif"):
        read_coco(tmp_path / "train", file, report=DataReport(True))


def test_categories_of_coco_that_are_off_by_one(tmp_path: Path) -> None:
    """Objects of 0 and 1, where the categories are 1 and 2."""
    coco_split(tmp_path, "train", {"a.png": [(-1, (1, 1, 20, 20)), (0, (30, 1, 20, 20))]})
    dataset = read_coco(tmp_path / "train", tmp_path / "train.json", report=DataReport(True))
    checked = check_splits({"train": dataset}, Expected())
    (place,) = found(checked, DataIssue.OFF_BY_ONE, TOGETHER).examples
    assert place.detail == "no object of 'dog', and objects of category 0 of 1 to 2"


def test_a_box_of_two_classes_and_an_image_that_is_turned(tmp_path: Path) -> None:
    box = (1, 1, 20, 20)
    dataset = coco_split(tmp_path, "train", {"a.png": [(0, box), (1, box)], "b.png": [(0, box)]})
    exif = Image.Exif()
    exif[274] = 3
    Image.new("RGB", (100, 80)).save(tmp_path / "train" / "b.png", exif=exif)
    checked = check_splits({"train": dataset}, Expected())
    assert [(place.where, place.rows) for place in found(checked, DataIssue.TWO_CLASSES).examples] == [("a.png", (1,))]
    assert [place.detail for place in found(checked, DataIssue.ORIENTED).examples] == ["orientation 3"]


@pytest.mark.parametrize(("value_range", "kind"), [(None, DataIssue.LOW_RANGE), ((0.0, 16383.0), None)])
def test_14_bits(tmp_path: Path, value_range: ValueRange, kind: DataIssue | None) -> None:
    dataset = coco_split(tmp_path, "train", {"a.png": [(0, (1, 1, 20, 20))]})
    values = np.linspace(0, 16300, 8000).astype(np.uint16).reshape(80, 100)
    Image.fromarray(values).save(tmp_path / "train" / "a.png")
    dataset.value_range = value_range
    checked = check_splits({"train": dataset}, Expected())
    of_range = {DataIssue.LOW_RANGE, DataIssue.SIXTEEN_BITS}
    places = [place for _, one in checked.findings() if one.issue in of_range for place in one.examples]
    assert [place.detail for place in places] == ["values 0 to 16300; all: data.value_range=[0, 16383]"] * (
        kind is not None
    )


def test_a_hot_pixel_hides_no_12_bits_and_one_range_holds_for_all_splits(tmp_path: Path) -> None:
    sets = {name: coco_split(tmp_path, name, {"a.png": [(0, (1, 1, 20, 20))]}) for name in ("train", "val")}
    for name, first, last in (("train", 0, 1500), ("val", 400, 4000)):
        values = np.linspace(first, last, 8000).astype(np.uint16).reshape(80, 100)
        values[3, 5] = 65535
        Image.fromarray(values).save(tmp_path / name / "a.png")
    checked = check_splits(sets, Expected())
    details = [place.detail for name in sets for place in found(checked, DataIssue.LOW_RANGE, name).examples]
    assert details == [f"values {extent}; all: data.value_range=[0, 4095]" for extent in ("1 to 1498", "403 to 3996")]


def test_what_is_not_read_of_an_image_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    dataset = coco_split(tmp_path, "train", {f"{k}.tif": [(0, (1, 1, 20, 20))] for k in range(4)})
    floats = np.linspace(0, 1, 8000, dtype=np.float32).reshape(80, 100)
    pages = Image.fromarray(np.uint8(255 * floats))
    pages.save(tmp_path / "train" / "0.tif", save_all=True, append_images=[pages])
    cv2.imwrite(str(tmp_path / "train" / "1.tif"), np.repeat(np.uint16(60000 * floats)[..., None], 4, axis=2))
    floats[:8] = np.nan
    Image.fromarray(floats).save(tmp_path / "train" / "2.tif")
    cv2.imwrite(str(tmp_path / "train" / "3.tif"), np.zeros((80, 100, 3), np.float32))
    checked = check_splits({"train": dataset}, Expected())
    assert [place.detail for place in found(checked, DataIssue.PARTLY_READ).examples] == [
        "the first of 2 pages or frames is read",
        "the first 3 of 4 channels are read",
        "10 % of its pixels are no numbers, or infinite",
    ]
    (place,) = found(checked, DataIssue.UNREADABLE).examples
    assert "of a kind that is not read (several channels of floats, 64 bits); convert it" in place.detail
    assert "WARN" not in "".join(capfd.readouterr())


def test_stray_bytes_of_a_jpeg_are_found(tmp_path: Path) -> None:
    dataset = coco_split(tmp_path, "train", {"a.jpg": [(0, (1, 1, 20, 20))], "b.jpg": [(0, (1, 1, 20, 20))]})
    shutil.copyfile(shared_data("malformed", "images", "hopper_bad_exif.jpg"), tmp_path / "train" / "a.jpg")
    (place,) = found(check_splits({"train": dataset}, Expected()), DataIssue.PARTLY_READ).examples
    assert (place.where, place.detail) == ("a.jpg", "Corrupt JPEG data: 1214 extraneous bytes before marker 0xd0")


def test_pixels_far_from_the_normalisation(tmp_path: Path) -> None:
    dataset = coco_split(tmp_path, "train", {"a.png": [(0, (1, 1, 20, 20))]})
    Image.new("RGB", (100, 80), (128, 20, 130)).save(tmp_path / "train" / "a.png")
    expected = Expected(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    checked = check_splits({"train": dataset}, expected)
    assert checked.numbers["train"].mean == pytest.approx([128 / 255, 20 / 255, 130 / 255])
    assert [place.where for place in found(checked, DataIssue.OTHER_PIXELS).examples] == ["red", "green", "blue"]


def test_without_images_nothing_is_opened(tmp_path: Path) -> None:
    dataset = coco_split(tmp_path, "train", {"a.png": [(0, (1, 1, 20, 20)), (0, (1, 1, 20, 20))]})
    (tmp_path / "train" / "a.png").write_bytes(b"no image")
    again = read_coco(tmp_path / "train", tmp_path / "train.json", report=DataReport(True))
    checked = check_splits({"train": dataset, "val": again}, Expected(), open_images=False)
    assert found(checked, DataIssue.REPEATED).count == 1
    assert found(checked, DataIssue.SAME_ACROSS, "val").count == 1
    assert "UNREADABLE" not in kinds(checked)
    assert "UNREADABLE" in kinds(check_splits({"train": dataset}, Expected()))


def test_facts_of_an_image(tmp_path: Path) -> None:
    pixels = np.zeros((6, 4, 3), np.uint8)
    pixels[:3] = (255, 51, 0)
    exif = Image.Exif()
    exif[274] = 8
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    facts = examine(tmp_path / "a.png")
    assert (facts.error, facts.mode, facts.hw, facts.orientation) == ("", "RGB", (4, 6), 8)
    assert facts.mean == pytest.approx((0.5, 0.1, 0.0))
    assert facts.std == pytest.approx((0.5, 0.1, 0.0))
    assert "no such image" in examine(tmp_path / "b.png").error


@pytest.mark.parametrize("kind", FORMATS)
def test_the_digest_is_that_of_the_file_in_every_format(tmp_path: Path, kind: str) -> None:
    Image.new("RGB", (16, 16), (200, 30, 60)).save(tmp_path / "a", format=kind)
    facts = examine(tmp_path / "a")
    assert facts.error == ""
    assert facts.digest == hashlib.blake2b((tmp_path / "a").read_bytes(), digest_size=16).digest()


def test_floats_want_a_range_and_are_no_damage(tmp_path: Path) -> None:
    dataset = coco_split(tmp_path, "train", {"a.tif": [(0, (1, 1, 20, 20))]})
    Image.fromarray(np.linspace(0, 1, 8000, dtype=np.float32).reshape(80, 100)).save(tmp_path / "train" / "a.tif")
    checked = check_splits({"train": dataset}, Expected())
    assert [place.detail for place in found(checked, DataIssue.FLOATS).examples] == [
        "values 0 to 1; all: data.value_range=[0, 1]"
    ]
    assert not {"UNREADABLE", "LOW_RANGE"} & kinds(checked)
    assert len(repair_splits(checked.splits)[0]["train"]) == 1


def test_plain_values_are_json_with_stable_keys(tmp_path: Path) -> None:
    dataset = coco_split(tmp_path, "train", {"a.png": [(0, (1, 1, 20, 20)), (0, (1, 1, 20, 20))]})
    plain = json.loads(json.dumps(check_splits({"train": dataset}, Expected()).plain()))
    assert set(plain) == {
        *("version", "severity", "images_opened", "classes", "input", "size_bounds", "splits", "notes", "findings")
    }
    images = {f"{k}.png": list[Box]() for k in range(9)} | {"a.png": [(0, (1, 1, 20, 20))]}
    many = check_splits({"train": coco_split(tmp_path / "many", "train", images)}, Expected(), open_images=False)
    lengths = [
        len(one["examples"])
        for most in (None, 2)
        for one in many.plain(most)["findings"]
        if one["kind"] == "no_objects"
    ]
    assert lengths == [9, 2]
    (repeated,) = [finding for finding in plain["findings"] if finding["kind"] == "repeated"]
    assert repeated == {
        "kind": "repeated",
        "severity": "warning",
        "split": "train",
        "count": 1,
        "places": 1,
        "text": DataIssue.REPEATED.text,
        "fix": DataIssue.REPEATED.fix,
        "examples": [{"where": "a.png", "image": 0, "rows": [1], "detail": ""}],
    }
    assert plain["severity"] == "warning"


def test_masks_beside_their_images_are_no_images_without_a_split(tmp_path: Path) -> None:
    for number in range(2):
        Image.fromarray(np.full((8, 8, 3), 100 * number, np.uint8)).save(tmp_path / f"{number}.png")
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / f"{number}_mask.png")
    dataset = read_mask_folder(tmp_path, tmp_path, ["ground", "line"], "_mask", report=DataReport(True))
    findings = list(check_splits({"train": dataset}, Expected()).findings())
    assert len(dataset) == 2
    assert not [finding for _, finding in findings if finding.issue == DataIssue.UNLISTED]
