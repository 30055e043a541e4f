"""The page of a report: its numbers are those of the evaluation, it stands alone, and it can be used."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detseg.cli import main
from detseg.draw.page import html_name, html_text
from detseg.errors import DataError
from detseg.evaluation.report.gallery import Exhibit, place_of
from detseg.evaluation.report.map_page import varied
from detseg.evaluation.report.sections import training_curves, what_next_section
from detseg.evaluation.run import report_folder
from detseg.evaluation.what_next import WhatNext
from detseg.explain.run import explain_split
from detseg.metrics.learning_curve import LearningCurve, Point
from detseg.predict.refine import read_calibration
from detseg.structures import InstanceMasks
from detseg.training.callbacks.run_files import best_epoch
from tests.browser import document_of, measured_in_windows, needs_chromium
from tests.heard import heard
from tests.tiny import TinyRun

pytestmark = pytest.mark.filterwarnings("ignore")

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def page(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a detector."""
    return written(tmp_path_factory.mktemp("report") / "folder", str(tiny_run.run_dir))


@pytest.fixture(scope="module")
def page_of_maps(tiny_segmentation: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("report"), str(tiny_segmentation.best))


@pytest.fixture(scope="module")
def page_of_masks(tiny_instances: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("report"), str(tiny_instances.best))


def written(folder: Path, *arguments: str) -> Path:
    assert main(["report", *arguments, "--out", str(folder)]) == 0
    return folder / "index.html"


def tiles(page: Path) -> dict[str, tuple[str, str]]:
    """Name → value and interval of the numbers at the top."""
    found = re.findall(r'class="tile"><span>(.+?)</span><b>(.+?)</b>(?:<small>(.+?)</small>)?', page.read_text())
    return {name: (value, interval) for name, value, interval in found}


@pytest.mark.parametrize("kind", ["run", "segmentation", "instances"])
def test_the_numbers_are_those_of_evaluate(kind: str, request: pytest.FixtureRequest) -> None:
    run: TinyRun = request.getfixturevalue(f"tiny_{kind}")
    page: Path = request.getfixturevalue({"run": "page", "segmentation": "page_of_maps"}.get(kind, "page_of_masks"))
    result = run.evaluate()
    written_by_evaluate = json.loads((run.run_dir / "evaluation_val.json").read_text())["intervals"]
    shown = tiles(page)
    masks = {"F1"} if kind == "instances" else set()  # that page has mask_F1
    for name, value in result.headline.items():
        if name in masks:
            continue
        assert shown[name][0] == f"{value:.3f}"
        low, high = written_by_evaluate[name]
        assert shown[name][1] == f"{low:.3f} to {high:.3f}"
    for row in result.classes:
        assert f"<td>{row.name}</td>" in page.read_text()


def test_files_beside_the_page(page: Path, page_of_maps: Path, tiny_run: TinyRun) -> None:
    result = tiny_run.evaluate()
    thresholds = json.loads((page.parent / "thresholds.json").read_text())
    assert thresholds == {row.name: row.threshold for row in result.classes if row.threshold == row.threshold}
    errors = rows_of(page.parent / "errors.csv")
    for row in result.classes:
        missed = sum(error["kind"] == "missed" and error["label"] == row.name for error in errors)
        assert missed == row.num_objects - round(row.recall * row.num_objects)
    assert not (page_of_maps.parent / "thresholds.json").exists()
    calibrate = read_calibration(page.parent / "calibration.json")
    assert calibrate.others[-1][0] <= 1
    assert "calibration.json" in page.read_text(encoding="utf-8")
    assert not (page_of_maps.parent / "calibration.json").exists()
    assert len(rows_of(page_of_maps.parent / "errors.csv")) == tiny_run.evaluate().num_images
    for folder in (page.parent, page_of_maps.parent):
        doubts = [float(row["doubt"]) for row in rows_of(folder / "suspects.csv")]
        assert doubts == sorted(doubts, reverse=True)


def test_the_worst_images_are_not_all_of_a_stretch_of_video() -> None:
    names = ["a_100.png", "a_102.png", "a_104.png", "a_150.png", "b_104.png", "x.png"]
    assert varied(names, 6) == [0, 1, 3, 4, 5, 2]  # 150 is 50 from the first; 104 is near two
    assert varied(names, 4) == [0, 1, 3, 4]
    assert varied(["f_1.jp2", "f_2.jp2", "f_3.jp2"], 2) == [0, 1]


def test_long_names_are_shortened_in_the_middle() -> None:
    assert html_name("a.png") == "a.png"
    name = "0123456789" * 6 + ".png"
    assert html_name(name) == f'<span title="{name}">012345678901234…90123456789.png</span>'


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_page_needs_nothing_else(page: Path, page_of_maps: Path, page_of_masks: Path) -> None:
    for one in (page, page_of_maps, page_of_masks):
        text = one.read_text()
        assert not re.search(r'src="(?!data:)', text)
        links = set(re.findall(r'href="(?!data:|#)(.*?)"', text))
        assert links == {path.name for path in one.parent.iterdir()} - {"index.html"}
        assert "http" not in re.sub(r"<pre>.*?</pre>", "", text, flags=re.DOTALL)
        assert len(text) < 5_000_000
        ids = re.findall(r' id="(.+?)"', text)
        assert len(ids) == len(set(ids))


def test_what_to_do_next_and_why_objects_are_missed(page: Path, page_of_maps: Path, tiny_run: TinyRun) -> None:
    summary = explain_split(tiny_run.best, "val", device="cpu")
    text, of_maps = page.read_text(), page_of_maps.read_text()
    assert 'id="misses"' not in of_maps
    for line in summary.lines():
        assert html_text(line) in text
    misses = text.partition('id="misses"')[2].partition("<h2")[0]
    assert "Counted as detseg predict shows boxes: every class from a score of 0.3 on" in misses
    assert str(tiny_run.data_root) not in misses
    for shown, metric in ((text, "AP50"), (of_maps, "mIoU")):
        assert re.search(rf'id="next">What next</h2>.*?<th>{metric}</th>.*?avoidable bias', shown)
        assert "What next: " in shown


def test_a_learning_curve_has_its_chart() -> None:
    scores = (0.30, 0.40, 0.47, 0.52)
    points = tuple(Point(size, score, 0) for size, score in zip((25, 50, 100, 200), scores, strict=True))
    found = WhatNext("a.ckpt", "AP50", {}, None, (), ())
    html = what_next_section(found, LearningCurve(points, "AP"))
    assert "twice the images (400) would bring AP +0.0" in html
    assert html.count("<ellipse") == 4
    assert html.count("<polyline") == 3
    few = what_next_section(found, LearningCurve(points[:3], "AP"))
    assert "no prediction: 3 numbers of images are too few" in few
    assert few.count("<polyline") == 0


@pytest.mark.browser
@needs_chromium
def test_a_reader_sorts_and_moves_the_threshold(page: Path, tiny_run: TinyRun, tmp_path: Path) -> None:
    result = tiny_run.evaluate()
    best = max(result.classes, key=lambda row: row.num_objects)
    script = f"""<script>
      const of = name => document.getElementById(name), select = of("class");
      const slider = document.querySelector("input[type=range]");
      const choose = name => {{ select.value = name; select.dispatchEvent(new Event("change")); }};
      const names = ["threshold", "precision", "recall", "F1", "right", "wrong", "missed"];
      const numbers = () => names.map(n => of("at-" + n).textContent);
      choose({1 + [row.name for row in result.classes if row.num_objects].index(best.name)}); const best = numbers();
      const thumb = Number(slider.value), ends = [slider.min, slider.max].map(Number);
      const move = value => {{ slider.value = value; slider.dispatchEvent(new Event("input")); return numbers(); }};
      const middle = move(0.3), all = move(0);
      of("least-precision").value = 0.5; of("by-precision").click(); const precise = numbers();
      of("cost").value = 1000; of("by-cost").click(); const careful = numbers();
      const table = document.querySelector("#classes ~ .wide table"), head = table.querySelectorAll("th")[1];
      const column = () => [...table.tBodies[0].rows].map(row => Number(row.cells[1].textContent));
      head.click(); const falling = column(); head.click(); const rising = column();
      document.title = JSON.stringify({{best, thumb, ends, middle, all, precise, careful, falling, rising}});
    </script>"""
    used = tmp_path / "used.html"
    used.write_text(page.read_text().replace("</body>", f"{script}</body>"))
    shown = re.search("<title>(.+)</title>", document_of(used.as_uri(), tmp_path))
    assert shown is not None
    got: dict[str, Any] = json.loads(shown[1])
    right = round(best.recall * best.num_objects)
    threshold, precision, recall, f1, *counts = got["best"]
    assert (threshold, precision, recall, f1) == tuple(
        f"{value:.3f}" for value in (best.threshold, best.precision, best.recall, best.f1)
    )
    assert counts == [str(right), str(round(right / best.precision) - right), str(best.num_objects - right)]
    assert got["thumb"] == pytest.approx(best.threshold, abs=1e-5)
    assert got["ends"] == [0, 1]  # those of the chart below
    assert float(got["middle"][0]) == pytest.approx(0.3, abs=0.006)
    assert got["all"][0] == "0.000"
    assert int(got["all"][4]) + int(got["all"][5]) <= best.num_detections
    assert float(got["precise"][1]) >= 0.5
    assert float(got["precise"][2]) >= float(got["best"][2]) or best.precision < 0.5
    assert got["careful"][6] == got["all"][6]  # nothing is missed that is found at all
    assert got["falling"] == sorted((row.num_objects for row in result.classes), reverse=True) == got["rising"][::-1]


@pytest.mark.browser
@needs_chromium
def test_it_fits_into_windows(page: Path, page_of_maps: Path, page_of_masks: Path, tmp_path: Path) -> None:
    for one in (page, page_of_maps, page_of_masks):
        measure = "w.document.querySelectorAll('figure').length"
        assert all(number > 0 for number in measured_in_windows(one, [390, 1280], measure, tmp_path))


def test_a_file_of_detections_has_a_report(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tiny_run.evaluate(coco_dir=tmp_path)
    files = ["--results", str(tmp_path / "detections.json"), "--annotations", str(tmp_path / "ground_truth.json")]
    assert main(["report", *files]) == 0
    page = tmp_path / "detections_report" / "index.html"
    assert f"written: {page}" in capsys.readouterr().out
    assert tiles(page)["AP"][0] == f"{result.coco['AP']:.3f}"
    assert "<figure" not in page.read_text()
    with_pictures = written(tmp_path / "more", *files, "--images", str(tiny_run.data_root))
    assert "<figure" in with_pictures.read_text()


def test_a_model_that_is_never_right_shows_its_errors(tmp_path: Path) -> None:
    image = {"id": 1, "file_name": "a.jpg", "width": 64, "height": 64}
    entry = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0}
    truth = {"images": [image], "categories": [{"id": 1, "name": "<b>"}], "annotations": [entry]}
    found = [{"image_id": 1, "category_id": 1, "bbox": [40, 40, 9, 9], "score": score} for score in (0.9, 0.2)]
    for name, content in (("truth", truth), ("found", found)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    files = ["--results", str(tmp_path / "found.json"), "--annotations", str(tmp_path / "truth.json")]
    page = written(tmp_path / "report", *files)
    errors = rows_of(page.parent / "errors.csv")
    assert [(row["kind"], row["score"]) for row in errors] == [("background", "0.9000"), ("missed", "")]
    assert "<td>&lt;b&gt;</td>" in page.read_text()
    assert "interval" not in page.read_text().split("<ul")[1].split("</ul>")[0]  # of one image


@pytest.fixture(scope="module")
def page_of_slivers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight objects in as many images, whose boxes are found exactly, and of whose masks the left tenth is."""
    folder = tmp_path_factory.mktemp("slivers")
    numbers = range(1, 9)
    images = [{"id": k, "file_name": f"{k}.png", "width": 64, "height": 64} for k in numbers]
    whole, sliver = ([[4, 4, x, 4, x, 44, 4, 44]] for x in (44, 8))
    entry = {"category_id": 1, "bbox": [4, 4, 40, 40]}
    true = [entry | {"id": k, "image_id": k, "segmentation": whole, "area": 1600, "iscrowd": 0} for k in numbers]
    found = [entry | {"image_id": k, "segmentation": sliver, "score": 0.9} for k in numbers]
    truth = {"images": images, "categories": [{"id": 1, "name": "cell"}], "annotations": true}
    for name, content in (("truth", truth), ("found", found)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    for k in numbers:
        Image.new("RGB", (64, 64)).save(folder / f"{k}.png")
    files = ["--results", str(folder / "found.json"), "--annotations", str(folder / "truth.json")]
    return written(folder / "report", *files, "--images", str(folder))


def test_the_page_of_masks_is_about_masks(page_of_slivers: Path) -> None:
    shown = {name: value for name, (value, _) in tiles(page_of_slivers).items()}
    assert (shown["mask_AP"], shown["mask_F1"], shown["AP"]) == ("0.000", "0.000", "1.000")
    assert "F1" not in shown
    text = page_of_slivers.read_text()
    assert "Masks: At the best threshold of each class 0 of 8 objects are found (0%), and 8 of 8 detections" in text
    errors = rows_of(page_of_slivers.parent / "errors.csv")
    assert sorted(row["kind"] for row in errors) == ["location"] * 8 + ["missed"] * 8
    assert not rows_of(page_of_slivers.parent / "suspects.csv")  # the model has no say in it: its masks are bad
    assert json.loads((page_of_slivers.parent / "thresholds.json").read_text()) == {}
    assert "<th>mask_AP (95 %)</th><th>mask_AP50</th>" in text


def test_pictures_of_masks_show_their_outlines() -> None:
    """The box's corners stay black where the mask is a triangle."""
    mask = np.triu(np.ones((64, 64), dtype=np.bool_))  # above the diagonal: the lower left is outside
    one = Exhibit(0, "", (0, 0, 64, 64), None, InstanceMasks.from_dense(mask[None]))
    picture = place_of(np.zeros((64, 64, 3), dtype=np.uint8), one)
    assert picture[0, 110].any()
    assert not picture[-5:, :20].any()
    assert picture[110, 110].any()  # the diagonal
    box = place_of(np.zeros((64, 64, 3), dtype=np.uint8), replace(one, true_mask=None))
    assert box[-1, :20].any()


@pytest.mark.parametrize(
    ("name", "content", "section"),
    [
        ("run.json", b"{}", "run"),
        ("metrics.csv", b"epoch,train/loss\nxx,1.0\n2,0.5\n", "training"),
        ("metrics.csv", b"epoch,train/loss\n1,\xff\xfe\n", "training"),
    ],
)
def test_a_damaged_file_of_the_run_costs_a_section_alone(
    name: str, content: bytes, section: str, tiny_segmentation: TinyRun, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_segmentation.run_dir, run)
    (run / name).write_bytes(content)
    with heard() as lines:
        page = written(tmp_path / "report", str(run))
    assert f'id="{section}"' not in page.read_text()
    assert 'id="settings"' in page.read_text()
    assert any(f"{name}: is damaged" in line for line in lines)
    if name == "metrics.csv":
        with pytest.raises(DataError, match="is damaged"):
            best_epoch(run / name, "epoch")


def test_reports_of_one_run_do_not_replace_one_another(tiny_segmentation: TinyRun, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_segmentation.run_dir, run)
    for arguments in ([str(run)], [str(run / "checkpoints" / "last.ckpt"), "--split", "test"]):
        assert main(["report", *arguments]) == 0
    titles = {page.parent.name: page.read_text().split("<h1>")[1].split("</h1>")[0] for page in run.glob("*/*.html")}
    assert titles == {"report": "run, val", "report_test_last": "run, test"}
    assert report_folder(run / "checkpoints" / "best.ckpt", "test") == run / "report_test"


def test_a_huge_loss_does_not_flatten_the_others() -> None:
    """The first of ten epochs; without it the axis would end at 1000."""
    losses = [1000.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
    rows = [{"epoch": str(k), "train/loss": str(loss)} for k, loss in enumerate(losses)]
    html = training_curves(rows, "AP")
    assert "Loss (cut off at 10.8; the highest is 1e+03)" in html
    (points,) = re.findall(r'<polyline points="(.+?)"', html)
    heights = [float(point.split(",")[1]) for point in points.split()]
    assert max(heights) - heights[1] > 100  # of the 206 of the plane
    assert "cut off" not in training_curves(rows[1:], "AP")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "no run given, and no --results with --annotations"),
        (["none.ckpt"], "none.ckpt"),
        (["RUN", "--human-level", "95"], "--human-level: expected a number from 0 to 1, got '95'"),
        (["RUN", "--human-level", "0"], "--human-level: expected a number above 0, up to 1"),
        (["RUN", "--seeds", "3"], "--seeds 3: expected 1 or more, and --learning-curve, whose seeds they are"),
        (["RUN", "--train-dev", "model.name=fcn"], "only data.* and evaluation.* can be changed"),
        (["--results", "a.json"], "go together; give both"),
        (["--images", "folder", "RUN"], "--images: is for --results; leave it out"),
        (["RUN", "--results", "a.json", "--annotations", "b.json"], "--results are scored without a run"),
        (["--results", "a.json", "--annotations", "b.json", "--split", "val"], "--split: is for a run"),
        (["RUN", "model.name=fcn"], "only data.* and evaluation.* can be changed"),
        (["RUN", "--learning-curve", "--device", "foo"], "device: expected auto, cpu, cuda"),
        (["RUN", "--learning-curve", "--split", "test", "data.test_split=nope"], "nope.txt"),
        (["RUN", "--learning-curve", "--train-dev", "data.val_split=nope"], "nope.txt"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_trained(
    arguments: list[str], line: str, tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(tiny_run.run_dir) if argument == "RUN" else argument for argument in arguments]
    assert main(["report", *given]) == 2
    assert not (tiny_run.run_dir / "learning_curve").exists()
    (error,) = capsys.readouterr().err.splitlines()
    assert line in error
