"""Two models on the same images: what is said of equal ones, of different ones, and what cannot be compared."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from detseg.checkpoint import read_raw_checkpoint, run_checkpoint, save_atomically
from detseg.cli import main
from detseg.errors import DetsegError
from detseg.evaluation.compare import Comparison, compare
from detseg.evaluation.compare_page import page_of
from detseg.messages import console
from tests.browser import measured_in_windows, needs_chromium
from tests.tiny import TinyRun, write_colors

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def with_last(tiny_run: TinyRun) -> Comparison:
    """The best epoch against the last one."""
    (found,) = compare([tiny_run.run_dir, tiny_run.best.with_name("last.ckpt")], "val", device="cpu")
    return found


def test_a_model_is_as_good_as_its_copy(tiny_run: TinyRun, tmp_path: Path) -> None:
    copied = Path(shutil.copy(tiny_run.best, tmp_path / "copy.ckpt"))
    (found,) = compare([tiny_run.run_dir, copied], "val", device="cpu")
    for row in (*found.numbers.values(), *found.by_class.values()):
        np.testing.assert_equal((row.low, row.high, row.p), (0, 0, 1) if row.first == row.first else (np.nan,) * 3)
        assert not row.is_clear
    assert found.verdict.startswith("no clear difference: AP ")
    assert (found.changed, found.settings) == ([], {})
    assert min(found.latency_ms) > 0


def test_the_numbers_are_those_of_evaluate(tiny_run: TinyRun, with_last: Comparison) -> None:
    best = tiny_run.evaluate()
    assert with_last.num_images == best.num_images
    assert {name: row.first for name, row in with_last.numbers.items()} == {
        name: best.numbers[name] for name in ("AP", "AP50", "AP75", "F1")
    }
    by_class = dict(zip((row.name for row in best.classes), best.by_class["AP"], strict=True))
    assert {name: row.first for name, row in with_last.by_class.items()} == by_class
    for row in with_last.numbers.values():
        assert row.low <= row.second - row.first <= row.high
        assert 0 < row.p <= 1
        assert row.is_clear == (row.p < 0.05)


def test_the_command_writes_a_page_and_numbers(
    tiny_segmentation: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, page = str(tiny_segmentation.run_dir), tmp_path / "found.html"
    last = str(tiny_segmentation.best.with_name("last.ckpt"))
    assert main(["compare", run, last, "data.batch_size=1", "--device", "cpu", "--out", str(page)]) == 0
    said = capsys.readouterr().out
    (found,) = json.loads(page.with_suffix(".json").read_text())
    assert found["verdict"] in said.replace("\n", " ")
    assert found["metric"] == "IoU"
    assert list(found["numbers"]) == ["mIoU", "pixel_accuracy", "boundary_IoU", "Dice"]
    assert found["numbers"]["mIoU"]["first"] == tiny_segmentation.evaluate().headline["mIoU"]
    assert run in page.read_text()


@pytest.mark.browser
@needs_chromium
def test_the_page_in_a_browser(with_last: Comparison, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(page_of([with_last], "val"))
    measure = "w.document.querySelectorAll('table').length"
    assert all(number >= 2 for number in measured_in_windows(page, [400, 1280], measure, tmp_path))


@pytest.fixture(scope="module")
def over_seeds(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs of one configuration, of the best and of the last epoch's weights, and two of another one, both of the
    best epoch's."""
    folder, last = tmp_path_factory.mktemp("seeds"), tiny_run.best.with_name("last.ckpt")
    runs = []
    for name, origin, seed, rate in (
        ("a1", tiny_run.best, 1, 0.1),
        ("b1", tiny_run.best, 1, 0.2),
        ("a2", last, 2, 0.1),
        ("b2", tiny_run.best, 2, 0.2),
    ):
        content = read_raw_checkpoint(origin)
        content["detseg"]["config"]["seed"] = seed
        content["detseg"]["config"]["optimizer"]["lr"] = rate
        runs.append(folder / f"{name}.ckpt")
        save_atomically(content, runs[-1])
    return runs


def test_runs_of_several_seeds_are_groups(
    tiny_run: TinyRun, with_last: Comparison, over_seeds: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The mean of best and last epoch is half as far from the best as the last epoch is, on each resample, too."""
    (found,) = compare(over_seeds, "val", device="cpu")
    names = [tuple(f"{over_seeds[0].parent}/{name}.ckpt" for name in group) for group in (("a1", "a2"), ("b1", "b2"))]
    assert list(found.runs) == names
    assert found.first == f"{names[0][0]} (2 seeds)"
    assert found.settings == {"optimizer.lr": (0.1, 0.2)}
    for name, row in found.numbers.items():
        alone = with_last.numbers[name]
        assert row.first == pytest.approx((alone.first + alone.second) / 2)
        assert row.second == alone.first
        assert (row.low, row.high) == pytest.approx((-alone.high / 2, -alone.low / 2))
        assert row.p == pytest.approx(alone.p, abs=0.003)
        assert row.seeds is not None
        assert row.seeds.first == (alone.first, alone.second)
        change, error = (alone.first - alone.second) / 2, abs(alone.first - alone.second) / 2
        # One degree of freedom: 12.7062 from tables.
        assert row.seeds.high == pytest.approx(change + 12.7062 * error, abs=1e-3)
        assert not row.is_clear
    assert found.verdict.endswith("2 and 2 seeds do not tell which is better")
    page = page_of([found], "val")
    assert "over seeds" in page
    assert "another seed would change is not in it" not in page
    console.print(found.table())
    assert "over seeds" in capsys.readouterr().out


def test_groups_need_another_configuration_and_other_seeds(over_seeds: list[Path], tmp_path: Path) -> None:
    a1, b1, a2, _ = over_seeds
    copied = Path(shutil.copy(run_checkpoint(a1), tmp_path / "copy.ckpt"))
    (found,) = compare([a1, a2], "val", device="cpu")  # nothing else to compare: each stands for itself
    assert (found.first, found.second, found.settings) == (str(a1), str(a2), {"seed": (1, 2)})
    found, other = compare([a1, a2, b1, copied], "val", device="cpu")
    assert found.runs == ((str(a1), str(a2)), (str(b1),))
    assert other.runs == ((str(a1), str(a2)), (str(copied),))
    assert all(row.seeds is None for row in found.numbers.values())
    assert any("no interval over seeds" in line for line in found.lines())


def test_what_cannot_be_compared_is_one_line(
    tiny_run: TinyRun, tiny_segmentation: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [tiny_run.run_dir, tiny_segmentation.run_dir]
    with pytest.raises(DetsegError, match="cannot be compared: a yolo and a unet find different things"):
        compare(runs, "val", device="cpu")
    with pytest.raises(DetsegError, match="expected two runs or more to compare, got 1"):
        compare(runs[:1], "val")
    with pytest.raises(DetsegError, match=r"best\.ckpt: is named twice"):
        compare([tiny_run.run_dir, tiny_run.best], "val")
    for arguments, line in (
        ([str(runs[0]), str(tmp_path / "none.ckpt")], "none.ckpt"),
        ([str(run) for run in runs] + ["--out", "page.txt"], "--out page.txt: expected the name of an HTML file"),
        ([str(run) for run in runs] + ["model.name=fcn"], "only data.* and evaluation.* can be changed"),
    ):
        assert main(["compare", *arguments]) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert line in error


@pytest.mark.parametrize(
    ("section", "key", "value", "line"),
    [
        ("evaluation", "max_detections", 7, r"evaluation\.max_detections is 100 and 7; give one value for both$"),
        ("data", "root", "fewer", r"the first has \d+ images, the second 3; name one set with data\.root="),
        ("data", "root", "others", "the annotations of their images differ; name one set with data.root="),
        ("data", "root", "blurred", r"the image files differ \(by their sizes in bytes\); name one set with"),
    ],
)
def test_another_protocol_or_set_cannot_be_compared(
    section: str, key: str, value: object, line: str, tiny_run: TinyRun, tmp_path: Path
) -> None:
    shutil.copytree(tiny_run.data_root, tmp_path / "others")
    annotation = next(iter(sorted((tmp_path / "others" / "Annotations").glob("val*.xml"))))
    annotation.write_text(re.sub(r"<xmax>\d+", "<xmax>3", annotation.read_text()).replace("<xmin>", "<xmin>0"))
    write_colors(tmp_path / "fewer", {"train": 2, "val": 3})
    shutil.copytree(tiny_run.data_root, tmp_path / "blurred")
    for path in (tmp_path / "blurred" / "JPEGImages").glob("val*"):
        Image.open(path).filter(ImageFilter.GaussianBlur(2)).save(path)
    content = read_raw_checkpoint(tiny_run.best)
    content["detseg"]["config"][section][key] = str(tmp_path / value) if isinstance(value, str) else value
    other = tmp_path / "other.ckpt"
    save_atomically(content, other)
    with pytest.raises(DetsegError, match=line):
        compare([tiny_run.best, other], "val", device="cpu")


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ("SegmentationClass", r"the mask files differ \(by their sizes in bytes\); name one set with data.root="),
        ("val_objects", "the annotations of their images differ; name one set with data.root="),
    ],
)
def test_other_masks_cannot_be_compared(
    changed: str, line: str, tiny_segmentation: TinyRun, tiny_instances: TinyRun, tmp_path: Path
) -> None:
    """Of label maps, with as many pixels of each class as before, and of objects, with the boxes as they were."""
    run = tiny_segmentation if changed == "SegmentationClass" else tiny_instances
    root = tmp_path / "data"
    shutil.copytree(run.data_root, root)
    if run is tiny_segmentation:
        for path in (root / changed).glob("val*.png"):
            mask = Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            mask.save(path, compress_level=0)
    else:
        file = root / "annotations" / "instances_val.json"
        content = json.loads(file.read_text())
        for entry in content["annotations"]:
            x, y, width, height = entry["bbox"]
            entry["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
        file.write_text(json.dumps(content))
    content = read_raw_checkpoint(run.best)
    content["detseg"]["config"]["data"]["root"] = str(root)
    save_atomically(content, tmp_path / "other.ckpt")
    with pytest.raises(DetsegError, match=line):
        compare([run.best, tmp_path / "other.ckpt"], "val", device="cpu")
