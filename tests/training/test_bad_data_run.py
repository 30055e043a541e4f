"""Whole trainings on data with a sample that cannot be read, and on data that changes before they go on."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Run:
    """A training of two epochs with a pipeline of the user that has skipped an image."""

    folder: Path
    config_path: Path
    said: str

    @property
    def bad(self) -> Path:
        """The image."""
        return self.folder / "colors" / "JPEGImages" / "train03.png"

    @property
    def pipeline(self) -> Path:
        """The file of the pipeline."""
        return self.folder / "pipeline.json"

    def train(self, run_dir: Path, *overrides: str, resume: str | None = None) -> None:
        """Train, or resume."""
        pipeline = f"data.augmentation.albumentations={self.pipeline}"
        train(tiny_config(self.config_path, run_dir, *SKIP, pipeline, *overrides), self.config_path, resume)

    def copy(self, to: Path) -> Path:
        """The run directory, to go on in."""
        return Path(shutil.copytree(self.folder / "run", to / "run"))

    def go_on(self, run_dir: Path, *overrides: str) -> None:
        """Train it to the third epoch."""
        self.train(run_dir, "trainer.max_epochs=3", *overrides, resume="last")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("bad")
    data = write_colors(folder / "colors", {"train": 16, "val": 2})
    found = Run(folder, write_config(folder / "tiny.yaml", data), "")
    found.bad.write_bytes(found.bad.read_bytes()[:100])
    A.save(A.Compose([A.RandomRotate90(p=0.2)]), found.pipeline, data_format="json")
    with heard() as lines:
        found.train(folder / "run", "trainer.max_epochs=2")
    return Run(folder, found.config_path, "\n".join(lines))


def rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "bad_samples.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_run_lists_what_it_skipped_and_says_so_at_its_end(run: Run) -> None:
    (row,) = rows(run.folder / "run")
    assert (row["index"], row["file"]) == ("3", str(run.bad))
    assert row["reason"].startswith(f"{run.bad}: cannot read the image")
    line = f"bad data: 1 of 16 training samples (6.25%) could not be read and were replaced by others: {run.bad}; "
    when = [i for i, said in enumerate(run.said.splitlines()) if said.startswith((line, "epoch"))]
    assert len(when) == 4
    assert run.said.splitlines()[when[1]].startswith(line)  # when the first epoch has ended
    assert run.said.splitlines()[when[3]].startswith(line)  # when the second, which was the last, has


def test_by_default_the_sample_is_an_error_with_its_name(run: Run, tmp_path: Path) -> None:
    config = tiny_config(run.config_path, tmp_path / "run", "trainer.max_epochs=1")
    with pytest.raises(DataError, match=r"train03\.png: cannot read the image") as caught:
        train(config, run.config_path)
    assert "\n" not in str(caught.value)


def test_evaluation_never_skips(run: Run, tmp_path: Path) -> None:
    data = tmp_path / "colors"
    shutil.copytree(run.folder / "colors", data)
    image = data / "JPEGImages" / "val01.png"
    image.write_bytes(image.read_bytes()[:100])
    config = tiny_config(run.config_path, tmp_path / "run", "trainer.max_epochs=1", f"data.root={data}", *SKIP)
    with pytest.raises(DataError, match=r"val01\.png: cannot read the image"):
        train(config, run.config_path)


def test_a_run_that_goes_on_has_the_list_that_it_had(run: Run, tmp_path: Path) -> None:
    run_dir = run.copy(tmp_path)
    (run_dir / "bad_samples.csv").unlink()
    run.go_on(run_dir)
    assert len(rows(run_dir)) == 1
    assert [row["index"] for row in read_raw_checkpoint(run_dir / "checkpoints" / "last.ckpt")["bad_samples"]] == [3]


def test_a_run_does_not_go_on_with_other_data_unless_told_to(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = run.copy(tmp_path)
    data = tmp_path / "moved"  # somewhere else, which is no change
    shutil.copytree(run.folder / "colors", data)
    annotation = data / "Annotations" / "train01.xml"
    annotation.write_text(
        annotation.read_text().replace("<difficult>1</difficult>", "").replace("<xmin>", "<xmin>1", 1)
    )
    (data / "ImageSets" / "Main" / "val.txt").write_text("val00\n")
    change = "the data is not what the run began with: train: the annotations changed; val: 2 images, now 1; "
    with pytest.raises(CheckpointError) as caught:
        run.go_on(run_dir, f"data.root={data}")
    assert str(caught.value).startswith(change)
    run.go_on(run_dir, f"data.root={data}", "data.on_change=warn")
    assert f"warning: {change}the run resumes with what it is now" in capsys.readouterr().out
    run.go_on(run_dir, f"data.root={data}", "trainer.max_epochs=4")  # what it went on with is what counts from now on


def test_a_run_notices_that_its_pipeline_was_edited(run: Run, tmp_path: Path) -> None:
    run_dir, before = run.copy(tmp_path), run.pipeline.read_text()
    run.pipeline.write_text(before.replace("0.2", "0.3"))
    with pytest.raises(
        CheckpointError, match=r"train: the pipeline of data\.augmentation\.albumentations changed; bring"
    ):
        run.go_on(run_dir)
    run.pipeline.write_text(json.dumps(json.loads(before), indent=7))  # the same pipeline in another layout
    run.go_on(run_dir)


BROKEN = {
    "image": "JPEGImages/train03.png: cannot read the image",
    "header": "JPEGImages/train03.png: not an image",
    "mask": "SegmentationClass/train03.png: cannot read the mask",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_segmenter_skips_broken_pictures_from_the_opening_on(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_colors(tmp_path / "colors", {"train": 16, "val": 2})
    config_path = write_segmentation_config(tmp_path / "tiny.yaml", data)
    path = data / BROKEN[kind].partition(":")[0]
    path.write_bytes(path.read_bytes()[: {"image": 100, "header": 10, "mask": 60}[kind]])
    options = ("trainer.max_epochs=1", "model.loss.class_weights=median_frequency")
    with pytest.raises(DataError, match=BROKEN[kind]):
        train(tiny_config(config_path, tmp_path / "error", *options), config_path)
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
        data = tmp_path / name.partition("/")[0]
        shutil.copytree(run.folder / "colors", data)
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
