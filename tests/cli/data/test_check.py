"""`detseg check`: what it prints, its exit codes, JSON, the page, and repaired copies."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detseg.cli import main
from detseg.data.shapes import write_shapes
from tests.browser import measured_in_windows, needs_chromium
from tests.data.checks.test_checks import coco_split
from tests.data.formats.layouts import Box, annotation_xml, object_xml, write_voc
from tests.planted_set import write_planted_set

CLEAN: dict[str, list[Box]] = {
    split + str(k): [("cat", 2, 2, 9, 9), ("dog", 11, 2, 18, 9)] for split in ("train", "val") for k in range(12)
}


def voc_config(root: Path, boxes: dict[str, list[Box]], size: int = 64) -> str:
    """A VOC set of noise images of 20 x 10 pixels whose names begin with their split, and its configuration file."""
    xml = {name: annotation_xml("".join(map(object_xml, own)), f"{name}.jpg") for name, own in boxes.items()}
    lists = {
        split: "".join(f"{name}\n" for name in boxes if name.startswith(split)) for split in ("train", "val", "test")
    }
    write_voc(root, {split: text for split, text in lists.items() if text}, xml)
    for number, name in enumerate(boxes):
        pixels = np.random.default_rng(number).integers(0, 256, (10, 20, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
    config = root / "check.yaml"
    config.write_text(f"data: {{name: voc, root: {root}, image_size: {size}}}\n")
    return str(config)


def test_a_clean_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", voc_config(tmp_path, CLEAN, size=160)]) == 0
    out = capsys.readouterr().out
    assert "voc; train 12 images, val 12 images; 48 objects of 2 classes" in out
    assert "nothing is wrong; next:" in out


def test_warnings_and_errors_have_their_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    warned = CLEAN | {"train0": [*CLEAN["train0"], CLEAN["train0"][0]]}
    assert main(["check", voc_config(tmp_path / "a", warned, 160), "--json", str(tmp_path / "a.json")]) == 1
    out = capsys.readouterr().out
    assert "warning: train: boxes that repeat another of the same class in the image exactly: 1 in 1 image\n" in out
    assert "fix: remove the repetitions" in out
    (finding,) = [f for f in json.loads((tmp_path / "a.json").read_text())["findings"] if f["severity"] == "warning"]
    assert (finding["kind"], finding["split"], finding["count"]) == ("repeated", "train", 1)
    wrong = CLEAN | {"val3": [("cat", 9, 9, 2, 2), ("dog", 11, 2, 18, 9)]}
    assert main(["check", voc_config(tmp_path / "b", wrong, 160), "--fast"]) == 2
    assert "error: val: boxes whose second corner lies left of or above the first" in capsys.readouterr().out


def test_a_split_that_cannot_be_opened_does_not_hide_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = voc_config(tmp_path, {name: own for name, own in CLEAN.items() if name.startswith("train")})
    assert main(["check", config, "--fast"]) == 2
    out = capsys.readouterr().out
    assert "train 12 images; 24 objects" in out
    assert "splits that cannot be opened: 1" in out
    assert "val.txt: there is no such list" in out


def kinds(file: Path) -> set[str]:
    return {finding["kind"] for finding in json.loads(file.read_text())["findings"]}


def test_a_repaired_copy_of_voc(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = CLEAN | {
        "train0": [("cat", 9, 9, 2, 2), ("dog", 11, 2, 18, 9), ("dog", 11, 2, 18, 9)],
        "train1": [("cat", 2, 2, 9, 20), ("dog", 30, 2, 40, 9)],
    }
    config = voc_config(tmp_path / "set", wrong, 160)
    shutil.copy(tmp_path / "set/JPEGImages/val0.jpg", tmp_path / "set/JPEGImages/train5.jpg")
    (tmp_path / "set/JPEGImages/train6.jpg").write_bytes(b"no image")
    out, json_file = tmp_path / "out", tmp_path / "again.json"
    assert main(["check", config, "--fix", str(out), "--json", str(tmp_path / "first.json")]) == 2
    said = capsys.readouterr().out
    assert "6 changes in changes.csv" in said
    assert len((out / "changes.csv").read_text().splitlines()) == 7
    expected = {"inverted", "repeated", "outside", "nothing_inside", "same_across", "unreadable"}
    assert kinds(tmp_path / "first.json") >= expected
    assert main(["check", str(out), "data.image_size=160", "--json", str(json_file)]) == 1
    assert kinds(json_file) == {"few_objects"}  # nine dogs are left
    assert json.loads(json_file.read_text())["splits"]["train"]["images"] == 10
    assert main(["check", config, "--fix", str(out)]) == 2
    assert "there is something already" in capsys.readouterr().err
    assert main(["check", config, "--fix", str(tmp_path / "set" / "sub")]) == 2
    assert "sub: lies in the data, " in capsys.readouterr().err
    assert not (tmp_path / "set" / "sub").exists()


def test_a_repaired_copy_of_coco(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planted = write_planted_set(tmp_path / "set")
    paths = ", ".join(f"{s}_images: {s}, {s}_annotations: {s}.json" for s in ("train", "val"))
    settings = f"data: {{name: coco, root: {planted.root}, image_size: 128, {paths}}}\n"
    (tmp_path / "check.yaml").write_text(settings)
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    main(["check", str(tmp_path / "check.yaml"), "--fast"])
    main(["check", str(tmp_path / "check.yaml"), "--json", str(first), "--fix", str(tmp_path / "out")])
    assert "--fix REPAIRED" not in capsys.readouterr().out  # needs the images; is at work
    main(["check", str(tmp_path / "out"), "data.image_size=128", "--json", str(second)])
    repaired = {"repeated", "outside", "no_area", "nothing_inside", "inverted", "relative", "other_size", "unreadable"}
    repaired |= {"row_major", "filled_holes", "same_across"}
    assert kinds(first) >= repaired
    assert kinds(second) & repaired == set()
    assert {"nearly_repeated", "before_rotation", "similar_across"} <= kinds(second)  # are for somebody who looks


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the planted set, with a class whose name is a script."""
    folder = tmp_path_factory.mktemp("page")
    planted = write_planted_set(folder / "set")
    for split in ("train", "val"):
        file = planted.root / f"{split}.json"
        file.write_text(file.read_text().replace('"lamp post"', '"<script>alert(1)</script>"'))
    paths = ", ".join(f"{s}_images: {s}, {s}_annotations: {s}.json" for s in ("train", "val"))
    settings = f"data: {{name: coco, root: {planted.root}, image_size: 128, on_bad_sample: skip, {paths}}}\n"
    (folder / "check.yaml").write_text(
        settings + "model: {name: mask_rcnn, rpn: {nms_iou: 0.7}}\nevaluation: {max_detections: 20}\n"
    )
    arguments = ["check", str(folder / "check.yaml"), "--json", str(folder / "check.json")]
    assert main([*arguments, "--html", str(folder / "check.html")]) == 2
    return folder / "check.html"


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags, self.ids, self.links = list[str](), set[str](), list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.ids.add(values.get("id") or "")
        self.links += [values[key] or "" for key in ("src", "href") if key in values]


def test_the_page_stands_alone_and_has_a_section_for_each_finding(page: Path) -> None:
    text, parsed = page.read_text(), _Tags()
    parsed.feed(text)
    assert "script" not in parsed.tags
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert all(link.startswith(("data:", "#")) for link in parsed.links)
    findings = json.loads(page.with_suffix(".json").read_text())["findings"]
    assert {f"{finding['split']}-{finding['kind']}" for finding in findings} <= parsed.ids
    assert parsed.tags.count("img") >= 40
    assert parsed.tags.count("svg") >= 8


@pytest.mark.browser
@needs_chromium
def test_the_page_in_a_browser(page: Path, tmp_path: Path) -> None:
    """It shows what it should without a word on the console, and nothing is wider than the window."""
    images = "images: w.document.images.length, sections: w.document.querySelectorAll('section').length"
    broken = "broken: [...w.document.images].filter(one => !one.naturalWidth).length"
    findings = json.loads(page.with_suffix(".json").read_text())["findings"]
    for found in measured_in_windows(page, [400, 1400], f"{{{images}, {broken}}}", tmp_path):
        assert found["images"] >= 40
        assert (found["broken"], found["sections"]) == (0, len(findings))


def test_a_wrong_size_and_a_picture_that_fails_leave_the_page_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = write_planted_set(tmp_path / "set", 40)
    file = planted.root / "train.json"
    content = json.loads(file.read_text())
    for image in content["images"]:
        image["width"] += 6  # no mask has the size of its image
    file.write_text(json.dumps(content))
    page = tmp_path / "page.html"
    assert main(["check", str(planted.root), "--html", str(page)]) == 2
    assert "data:image/jpeg" in page.read_text()
    monkeypatch.setattr("detseg.draw.draw_boxes", lambda *args, **options: 1 / 0)
    assert main(["check", str(planted.root), "--html", str(page)]) == 2
    assert "(no picture: division by zero)" in page.read_text()


def test_masks_are_drawn_where_other_objects_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coco_split(tmp_path, "train", {"a.png": [(0, (10, 10, 20, 20)), (1, (50, 40, 20, 20))]})
    content = json.loads((tmp_path / "train.json").read_text())
    content["annotations"][0]["segmentation"] = [[60, 10, 80, 10, 80, 30, 60, 30]]  # not in its box
    (tmp_path / "train.json").write_text(json.dumps(content))
    masks = []
    monkeypatch.setattr("detseg.draw.draw_boxes", lambda *args, **options: masks.append(options.get("masks")))
    main(["check", str(tmp_path), "--html", str(tmp_path / "page.html")])
    assert [len(one) for one in masks if one is not None] == [1]


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_only_files_of_its_own_are_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
    coco_split(tmp_path, "train", {"a.png": [(0, (1, 1, 20, 20)), (1, (30, 1, 20, 20))]})
    file, own = tmp_path / "train.json", tmp_path / "own"
    before = file.read_bytes()
    assert main(["check", str(tmp_path), "--fast", option, str(file)]) == 2
    assert f"{option} {file}: exists, and detseg check has not written it" in capsys.readouterr().err
    assert file.read_bytes() == before
    for _ in range(2):
        assert main(["check", str(tmp_path), "--fast", option, str(own)]) == 1


def test_where_nothing_is_repaired_no_copy_is_offered_or_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val"):
        coco_split(tmp_path, split, {"a.png": [(0, (1, 1, 20, 20)), (1, (30, 1, 20, 20))]})
    shutil.copy(tmp_path / "train" / "a.png", tmp_path / "val" / "a.png")
    assert main(["check", str(tmp_path), "--fix", str(tmp_path.with_name("copy"))]) == 2
    out = capsys.readouterr().out
    assert "error: val: images that are in two splits" in out
    assert "--fix REPAIRED" not in out
    assert "no copy is written: --fix repairs nothing of what was found\n  not repaired: val: images that" in out
    assert not tmp_path.with_name("copy").exists()


def test_a_test_list_with_a_missing_file_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = voc_config(tmp_path, CLEAN | {"test0": CLEAN["val0"]}, 160)
    (tmp_path / "Annotations" / "test0.xml").unlink()
    assert main(["check", config, "--fast"]) == 2
    assert "error: splits that cannot be opened: 1\n    test (" in capsys.readouterr().out


def test_a_class_that_only_val_has_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco_split(tmp_path, "train", {"a.png": [(0, (1, 1, 20, 20)), (1, (30, 1, 20, 20))]})
    coco_split(tmp_path, "val", {"b.png": [(0, (1, 1, 20, 20)), (2, (30, 1, 20, 20))]}, ("cat", "dog", "emu"))
    assert main(["check", str(tmp_path), "--fast"]) == 1
    out = capsys.readouterr().out
    assert "warning: val: objects of categories that the training set does not list (left out): 1\n    emu" in out
    assert "data.classes leaves out" not in out
    both = ["--json", str(tmp_path / "one"), "--html", str(tmp_path / "one")]
    assert main(["check", str(tmp_path), "--fast", *both]) == 2
    assert "--json and --html: both are" in capsys.readouterr().err
    assert main(["check", str(tmp_path), "--fast", "--examples", "3"]) == 2
    assert "--examples 3: is for --json FILE, which is not there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "line", "words"),
    [
        ("task: obb\n", "0 .1 .1 .5 .1 .5 .5 .1 .5", "1.txt:1 (oriented boxes (task: obb) are not supported;"),
        ("", "0 .5 .5 .2 .2 .9", "1.txt:1 (expected 'class x y width height', or 'class x1 y1 x2 y2 x3 y3 ...'"),
        ("", "0 .5 .5 .2 .2 .9", "there is no object to train on: none is left of its 1 images; objects that cannot"),
    ],
)
def test_what_readers_leave_out_has_their_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], names: str, line: str, words: str
) -> None:
    (tmp_path / "data.yaml").write_text(f"{names}train: images\nnames: [cat]\n")
    (tmp_path / "images").mkdir()
    Image.new("RGB", (20, 10)).save(tmp_path / "images" / "1.jpg")
    (tmp_path / "images" / "1.txt").write_text(f"{line}\n")
    assert main(["check", str(tmp_path), "--fast"]) == 2
    out = capsys.readouterr().out
    assert words in out
    assert "iscrowd" not in out


def test_a_set_of_which_nothing_is_left_has_the_first_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {"shapes": [], "imagePath": "1.jpg", "imageHeight": 10, "imageWidth": 20, "imageData": "AA=="}
    (tmp_path / "1.json").write_text(json.dumps(content))
    assert main(["check", str(tmp_path)]) == 2
    assert "1 of 1 images are in their JSON files alone (imageData), which is not read" in capsys.readouterr().err


@pytest.mark.parametrize("layout", ["coco", "mask_folder", "voc"])
def test_a_test_split_need_not_be_there(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_shapes(tmp_path / "shapes", 4, 2, 48, 3, 0)
    root, model = ("voc", "unet") if layout == "mask_folder" else (layout, "yolo")
    data = {"name": layout, "root": f"shapes/{root}"}
    if layout == "coco":
        data |= {f"{split}_images": split for split in ("train", "val")}
        data |= {f"{split}_annotations": f"annotations/instances_{split}.json" for split in ("train", "val")}
    if layout == "mask_folder":
        data |= {f"{split}_images": "JPEGImages" for split in ("train", "val")}
        data |= {"classes": ["background", "circle", "rectangle", "triangle"]}
        data |= {f"{split}_masks": "SegmentationClass" for split in ("train", "val")}
    Path("mine.yaml").write_text(json.dumps({"model": {"name": model}, "data": data}))
    main(["check", "mine.yaml", "--json", "found.json"])
    kinds = {finding["kind"] for finding in json.loads(Path("found.json").read_text())["findings"]}
    assert "cannot_open" not in kinds
    assert "test: not checked: " in capsys.readouterr().out


def test_objects_without_outlines_are_an_error_where_masks_are_learned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outline = [[1, 1, 21, 1, 21, 21, 1, 21]]
    coco_split(tmp_path, "train", {"a.png": [(0, (1, 1, 20, 20))] * 2}, ("cat",), segmentation=outline, area=400.0)
    content = json.loads((tmp_path / "train.json").read_text())
    del content["annotations"][1]["segmentation"]
    (tmp_path / "train.json").write_text(json.dumps(content))
    assert main(["check", str(tmp_path)]) == 1
    assert main(["check", str(tmp_path), "model.name=mask_rcnn"]) == 2
    assert "error: train: objects with a box and no outline, of which masks cannot be learned: 1 in 1 image" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [("data.yaml", "names: [cat]\ntrain: images\n", "is a file of a data set"), ("a.json", "{}", "name its folder, ")],
)
def test_a_file_of_a_set_is_no_configuration(
    name: str, text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(text)
    assert main(["check", str(tmp_path / name)]) == 2
    assert message in capsys.readouterr().err


def test_a_threshold_counts_before_what_values_seem_to_be(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (8, 8), (9, 90, 9)).save(tmp_path / "images" / "a.png")
    mask = Image.new("L", (8, 8))
    mask.paste(255, (0, 0, 4, 8))
    mask.paste(128, (4, 0, 6, 8))
    mask.save(tmp_path / "masks" / "a.png")
    assert main(["check", str(tmp_path), "data.mask_threshold=100"]) < 2


@pytest.mark.parametrize(
    "settings",
    [
        "model: {name: yolo, head: {name: anchor}, class_weights: inverse_sqrt_frequency}",
        "model: {name: unet, loss: {class_weights: median_frequency}}",
    ],
)
def test_weights_of_classes_that_a_training_counts_are_not_asked_for(
    settings: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "a.yaml"
    config.write_text(
        f"{settings}\ndata: {{name: shapes, root: {tmp_path / 'a'}, num_train: 4, num_val: 2, image_size: 64}}\n"
    )
    assert main(["check", str(config), "--fast"]) < 2
    assert "class weights" not in capsys.readouterr().out
