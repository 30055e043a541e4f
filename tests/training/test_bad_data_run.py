"""Whole trainings on data with a sample that cannot be read, and on data that changes before they go on."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import albumentations as A
import numpy as np
import pytest
import torch
from PIL import Image

from detseg.checkpoint import read_raw_checkpoint
from detseg.errors import CheckpointError, DataError
from detseg.training.run import train
from tests.heard import heard
from tests.tiny import tiny_config, write_colors, write_config, write_segmentation_config

pytestmark = pytest.mark.filterwarnings("ignore")

SKIP = ("data.on_bad_sample=skip", "data.max_bad_fraction=0.1", "trainer.num_previews=0")


class Run:
    """A training of two epochs with a pipeline of the user that has skipped an image."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config_path = write_config(folder / "tiny.yaml", write_colors(folder / "colors", {"train": 16, "val": 2}))
        self.bad, self.pipeline = folder / "colors" / "JPEGImages" / "train03.png", folder / "pipeline.json"
        self.bad.write_bytes(self.bad.read_bytes()[:100])
        A.save(A.Compose([A.RandomRotate90(p=0.2)]), self.pipeline, data_format="json")
        with heard() as lines:
            self.train(folder / "run", "trainer.max_epochs=2")
        self.said = lines

    def train(self, run_dir: Path, *overrides: str, resume: str | None = None) -> None:
        pipeline = f"data.augmentation.albumentations={self.pipeline}"
        train(tiny_config(self.config_path, run_dir, *SKIP, pipeline, *overrides), self.config_path, resume)

    def copy(self, to: Path) -> Path:
        """The run directory, to resume in."""
        return Path(shutil.copytree(self.folder / "run", to / "run"))

    def resume(self, run_dir: Path, *overrides: str) -> None:
        """Train it to the third epoch."""
        self.train(run_dir, "trainer.max_epochs=3", *overrides, resume="last")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    torch.set_num_threads(1)
    return Run(tmp_path_factory.mktemp("bad"))


def rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "bad_samples.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_run_lists_what_it_skipped_and_says_so_at_its_end(run: Run) -> None:
    (row,) = rows(run.folder / "run")
    assert (row["index"], row["file"]) == ("3", str(run.bad))
    assert row["reason"].startswith(f"{run.bad}: cannot read the image")
    line = f"bad data: 1 of 16 training samples (6.25%) could not be read and were replaced by others: {run.bad}; "
    said = [each.startswith(line) for each in run.said if each.startswith((line, "epoch"))]
    assert said == [False, True, False, True]  # when the first epoch has ended, and the second, which was the last


def test_evaluation_never_skips(run: Run, tmp_path: Path) -> None:
    data = shutil.copytree(run.folder / "colors", tmp_path / "colors")
    image = data / "JPEGImages" / "val01.png"
    image.write_bytes(image.read_bytes()[:100])
    config = tiny_config(run.config_path, tmp_path / "run", "trainer.max_epochs=1", f"data.root={data}", *SKIP)
    with pytest.raises(DataError, match=r"val01\.png: cannot read the image"):
        train(config, run.config_path)


def test_a_run_that_goes_on_has_the_list_that_it_had(run: Run, tmp_path: Path) -> None:
    run_dir = run.copy(tmp_path)
    (run_dir / "bad_samples.csv").unlink()
    run.resume(run_dir)
    assert len(rows(run_dir)) == 1
    assert [row["index"] for row in read_raw_checkpoint(run_dir / "checkpoints" / "last.ckpt")["bad_samples"]] == [3]


def test_a_run_refuses_other_data_unless_told_to(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = run.copy(tmp_path)
    data = shutil.copytree(run.folder / "colors", tmp_path / "moved")  # somewhere else, which is no change
    xml = data / "Annotations" / "train01.xml"
    xml.write_text(xml.read_text().replace("<difficult>1</difficult>", "").replace("<xmin>", "<xmin>1", 1))
    (data / "ImageSets" / "Main" / "val.txt").write_text("val00\n")
    change = "the data is not what the run began with: train: the annotations changed; val: 2 images, now 1; "
    with pytest.raises(CheckpointError) as caught:
        run.resume(run_dir, f"data.root={data}")
    assert str(caught.value).startswith(change)
    run.resume(run_dir, f"data.root={data}", "data.on_change=warn")
    assert f"warning: {change}the run resumes with what it is now" in capsys.readouterr().out
    run.resume(run_dir, f"data.root={data}", "trainer.max_epochs=4")  # what it went on with is what counts from now on


def test_a_run_notices_that_its_pipeline_was_edited(run: Run, tmp_path: Path) -> None:
    run_dir, before = run.copy(tmp_path), run.pipeline.read_text()
    run.pipeline.write_text(before.replace("0.2", "0.3"))
    message = r"train: the pipeline of data\.augmentation\.albumentations changed; bring"
    with pytest.raises(CheckpointError, match=message):
        run.resume(run_dir)
    run.pipeline.write_text(json.dumps(json.loads(before), indent=7))  # the same pipeline in another layout
    run.resume(run_dir)


BROKEN = {
    "image": "JPEGImages/train03.png: cannot read the image",
    "header": "JPEGImages/train03.png: not an image",
    "mask": "SegmentationClass/train03.png: cannot read the mask",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_segmenter_skips_broken_images(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_colors(tmp_path / "colors", {"train": 16, "val": 2})
    config_path = write_segmentation_config(tmp_path / "tiny.yaml", data)
    path = data / BROKEN[kind].partition(":")[0]
    path.write_bytes(path.read_bytes()[: {"image": 100, "header": 10, "mask": 60}[kind]])
    options = ("trainer.max_epochs=1", "model.loss.class_weights=median_frequency")
    with pytest.raises(DataError, match=BROKEN[kind]) as caught:  # by default
        train(tiny_config(config_path, tmp_path / "error", *options), config_path)
    assert "\n" not in str(caught.value)
    capsys.readouterr()
    train(tiny_config(config_path, tmp_path / "run", *options, *SKIP), config_path)
    (row,) = rows(tmp_path / "run")
    assert row["index"] == "3"
    assert BROKEN[kind] in row["reason"]
    out = capsys.readouterr().out
    assert out.count("bad data: 1 of 16 training samples") == 1  # the run's end is that of its one epoch
    noted = "voc train: masks or images that cannot be read, which the training will skip: 1 of 16; the first: "
    assert out.count(noted) == (kind != "image")  # of images the header alone is read at the opening
    assert f"class weights by median frequency: ground {weight_of_ground(data, kind == 'mask'):.3g}, " in out


def weight_of_ground(data: Path, without_the_bad: bool) -> float:
    """Of the masks, the bad one with or without."""
    pixels, present = np.zeros(4), np.zeros(4)
    for number in range(16):
        if not (without_the_bad and number == 3):
            with Image.open(data / "SegmentationClass" / f"train{number:02d}.png") as picture:
                counts = np.bincount(np.asarray(picture).ravel(), minlength=256)[:4]
            pixels += counts
            present[counts > 0] += counts.sum()
    return float(np.median(pixels / present) / (pixels / present)[0])


def test_annotations_that_are_broken_or_missing_are_never_skipped(run: Run, tmp_path: Path) -> None:
    for name, reason in (("Annotations/train03.xml", "not a readable XML file"), ("JPEGImages/train03.png", "missing")):
        data = shutil.copytree(run.folder / "colors", tmp_path / name.partition("/")[0])
        (data / name).write_text("<") if name.endswith("xml") else (data / name).unlink()
        with pytest.raises(DataError, match=reason):
            train(tiny_config(run.config_path, tmp_path / "run", f"data.root={data}", *SKIP), run.config_path)


def test_when_every_mask_is_broken_the_first_is_an_error(tmp_path: Path) -> None:
    data = write_colors(tmp_path / "colors", {"train": 4, "val": 2})
    config_path = write_segmentation_config(tmp_path / "tiny.yaml", data)
    for path in (data / "SegmentationClass").glob("train*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"train00\.png"):
        train(tiny_config(config_path, tmp_path / "run", *SKIP), config_path)
