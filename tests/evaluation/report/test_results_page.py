"""Reports of files of detections: what is wrong with them is said, and what does not follow from them is not."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detseg.cli import main
from tests.browser import document_of, needs_chromium

pytestmark = pytest.mark.filterwarnings("ignore")

WIDTH, HEIGHT = 640, 480
Rows = list[dict[str, Any]]


def truth_of(num_images: int, boxes: list[list[float]], num_classes: int = 2) -> dict[str, Any]:
    """The same boxes in each image, of one class after the other."""
    images = [{"id": i, "file_name": f"deep/{i}.jpg", "width": WIDTH, "height": HEIGHT} for i in range(num_images)]
    annotations = [
        {"id": 1 + i * len(boxes) + k, "image_id": i, "category_id": 1 + k % num_classes, "bbox": box, "iscrowd": 0}
        for i in range(num_images)
        for k, box in enumerate(boxes)
    ]
    for annotation in annotations:
        annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
    categories = [{"id": 1 + k, "name": f"class{k}"} for k in range(num_classes)]
    return {"images": images, "annotations": annotations, "categories": categories}


def found_of(truth: dict[str, Any], score: float = 0.9) -> Rows:
    """All objects, with scores that fall."""
    return [
        {name: one[name] for name in ("image_id", "category_id", "bbox")} | {"score": score * 0.999**k}
        for k, one in enumerate(truth["annotations"])
    ]


def page_of(folder: Path, truth: dict[str, Any], found: Rows, *more: str) -> str:
    """Its text; it lies in ``folder / "page"``."""
    for name, content in (("truth", truth), ("found", found)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    files = ["--results", str(folder / "found.json"), "--annotations", str(folder / "truth.json")]
    assert main(["report", *files, "--out", str(folder / "page"), *more]) == 0
    return (folder / "page" / "index.html").read_text()


def num_suspects(folder: Path) -> int:
    with (folder / "page" / "suspects.csv").open(newline="") as file:
        return len(list(csv.DictReader(file)))


BOXES = [[100.0, 100.0, 200.0, 120.0], [350.0, 200.0, 150.0, 200.0]]


@pytest.mark.parametrize("mistake", ["normalised", "corners as sizes"])
def test_boxes_in_other_coordinates_are_not_the_labels_fault(mistake: str, tmp_path: Path) -> None:
    truth = truth_of(8, BOXES)
    found = found_of(truth)
    for one in found:
        x, y, w, h = one["bbox"]
        one["bbox"] = [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT] if mistake[0] == "n" else [x, y, x + w, y + h]
    text = page_of(tmp_path, truth, found)
    assert "None of the 16 detections overlaps an object by IoU &gt;= 0.5" in text
    assert "boxes are in other coordinates than the objects" in text
    assert "may be wrong or missing" not in text
    assert num_suspects(tmp_path) == 0
    assert "it is not the labels that are wrong" in text
    assert "The weakest class" not in text  # both have 0.000
    assert "0.000 to 0.000" not in text
    assert "Small numbers" not in text
    good = page_of(tmp_path, truth, [*found_of(truth)[:-1], {**found_of(truth)[-1], "bbox": [0, 0, 60, 60]}])
    assert "1 label may be wrong or missing" in good
    assert "The weakest class is class1" in good


def test_scores_that_are_no_probabilities(tmp_path: Path) -> None:
    truth = truth_of(8, BOXES)
    text = page_of(tmp_path, truth, [*found_of(truth, 87.0)[1:], {**found_of(truth)[0], "bbox": [0, 0, 60, 60]}])
    assert "Scores are from 0.9 to 86.9" in text.split("<ul")[1].split("</ul>")[0]
    assert 'id="calibration"' not in text
    assert num_suspects(tmp_path) == 0
    assert ">50</text>" in text.split("By threshold</h3>")[1].split("</svg>")[0]  # a mark of the axis
    assert 'id="calibration"' in page_of(tmp_path, truth, found_of(truth))


def test_a_file_without_detections_has_a_page(tmp_path: Path) -> None:
    text = page_of(tmp_path, truth_of(8, BOXES), [])
    assert "There are no detections at all." in text
    assert "0 of 16 objects are found (0%)." in text
    assert "trainer." not in text
    assert "nan" not in text.partition("<script")[0].lower()
    assert 'id="calibration"' not in text


def test_one_class_has_one_curve(tmp_path: Path) -> None:
    truth = truth_of(8, BOXES, num_classes=1)
    text = page_of(tmp_path, truth, found_of(truth))
    assert "all classes together" not in text
    assert text.split('<select id="class">')[1].split("</select>")[0] == '<option value="0">class0</option>'
    several = truth_of(8, BOXES)
    assert "all classes together at one threshold" in page_of(tmp_path, several, found_of(several))


def test_why_the_ap50_of_tide_is_another_one(tmp_path: Path) -> None:
    """120 objects of an image, all found: COCO counts 100 of each class, TIDE 100 of all."""
    grid = [[40.0 * (k % 12), 40.0 * (k // 12), 30.0, 30.0] for k in range(120)]
    truth = truth_of(1, grid)
    text = page_of(tmp_path, truth, found_of(truth))
    assert re.search(r"by these rules is 0\.8\d\d, as TIDE counts the best 100 detections of an image", text)
    few = truth_of(1, grid[:100])
    assert "by these rules is 1.000. Without" in page_of(tmp_path, few, found_of(few))


def noise(folder: Path, num_images: int) -> Path:
    """Images that no JPEG makes small."""
    (folder / "images" / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(num_images):
        pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / "images" / "deep" / f"{i}.jpg"), pixels)
    return folder / "images"


def test_pictures_do_not_make_a_page_large(tmp_path: Path) -> None:
    """Six images with each kind of error, nearly all of which are shown."""
    images, truth = noise(tmp_path, 24), truth_of(24, BOXES)
    found = found_of(truth)
    kinds: dict[int, dict[str, Any]] = {1: {"bbox": [0, 0, 60, 60]}, 2: {"bbox": [380, 260, 150, 200]}}
    kinds[3] = {"category_id": 1}
    for one in found[1::2]:
        one |= kinds.get(one["image_id"] // 6, {})
    rest = [one for one in found if one["image_id"] // 6 or one["category_id"] == 1]
    text = page_of(tmp_path, truth, rest, "--images", str(images))
    assert text.count('class="whole"') >= 20
    assert len(text) < 5_000_000
    assert re.search(r"\d+ pixels wide at most, so that the page stays small", text)


@pytest.mark.browser
@needs_chromium
def test_a_click_shows_the_error_and_another_one_leads_back(tmp_path: Path) -> None:
    """Of one that is not drawn in the whole image, as its score is below the threshold; the page was opened with a
    whole image open, so that the entry before in the history is none of it."""
    images, truth = noise(tmp_path, 8), truth_of(8, BOXES)
    lost = {"image_id": 3, "category_id": 1, "bbox": [64, 48, 32, 24], "score": 0.3}
    text = page_of(tmp_path, truth, [*found_of(truth)[:-1], lost], "--images", str(images))
    script = """<script>
      const link = [...document.querySelectorAll("figure a")].find(a => a.firstChild.alt.includes("no label"));
      const begun = document.querySelectorAll(".whole i").length;
      link.click();
      setTimeout(() => {
        const whole = document.querySelector(".whole:target"), picture = whole.querySelector(".picture img");
        const of = box => { const a = box.getBoundingClientRect(), b = picture.getBoundingClientRect();
          return [(a.x - b.x) / b.width, (a.y - b.y) / b.height, a.width / b.width, a.height / b.height]; };
        const boxes = [...whole.querySelectorAll("i.found")].map(of), num = history.length;
        const shown = whole.querySelector(".part").textContent;
        const links = [...document.querySelectorAll("figure a")], now = links.indexOf(link);
        const open = () => document.querySelector(".whole:target");
        const press = key => document.dispatchEvent(new KeyboardEvent("keydown", {key}));
        const part = () => open().querySelector(".part").textContent, steps = [];
        open().querySelector(".next").click(); steps.push(part());
        press("ArrowLeft"); steps.push(part());
        open().querySelector(".previous").click(); steps.push(part());
        press("ArrowRight"); steps.push(part());
        const expected = [1, 0, -1, 0].map(by => links[(now + by + links.length) % links.length].firstChild.alt);
        scrollTo(0, 200); const place = scrollY;
        whole.querySelector(".close").click();
        setTimeout(() => { document.title = JSON.stringify({begun, boxes, steps, expected, shown, place, after: scrollY,
          hash: location.hash, open: document.querySelectorAll(".whole:target").length}); }, 300);
      }, 500);
    </script>"""
    page = tmp_path / "page" / "used.html"
    page.write_text(text.replace("</body>", f"{script}</body>"))
    number = re.findall(r'id="(image-\d+)"', text)[0]
    shown = re.search(
        "<title>(.+)</title>", document_of(f"{page.as_uri()}#{number}", tmp_path, "--virtual-time-budget=5000")
    )
    assert shown is not None
    got = json.loads(shown[1])
    half = 64 / 129  # of the width; the gap is a 64th of a picture
    expected = [[half * 0.1, 0.1, half * 0.05, 0.05], [1 - half * 0.9, 0.1, half * 0.05, 0.05]]
    assert np.array(got["boxes"]) == pytest.approx(np.array(expected), abs=0.003)
    assert got["begun"] >= 2  # by its address alone
    assert got["shown"] == "no label, 0.30: class0 0.30"
    assert got["steps"] == got["expected"]
    assert (got["open"], got["hash"]) == (0, "")
    assert got["after"] == got["place"] > 0


def test_wrong_folders_of_images_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, truth = noise(tmp_path, 2), truth_of(3, BOXES)
    for name, content in (("truth", truth_of(2, BOXES)), ("more", truth), ("found", [])):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    for folder, name, line in (
        (images / "deep", "truth", "name the folder that these names are relative to, or correct the names"),
        (images, "more", "add the files, take them out of the annotations, or leave out --images"),
    ):
        files = ["--results", str(tmp_path / "found.json"), "--annotations", str(tmp_path / f"{name}.json")]
        assert main(["report", *files, "--images", str(folder)]) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert line in error
        assert "data." not in error
