"""`detseg show`: sheets of raw and of augmented samples, and the table of the augmentation's steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from detseg.cli.data.show import show
from detseg.cli.tool import run_tool
from tests.tiny import write_colors

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colors(tmp_path_factory.mktemp("colors"))


def config_file(root: Path, folder: Path, model: str = "yolo", **data: object) -> Path:
    settings = {"data": {"name": "voc", "root": str(root), "image_size": 64, **data}, "model": {"name": model}}
    (folder / "a.yaml").write_text(yaml.safe_dump(settings))
    return folder / "a.yaml"


def test_raw_samples_of_a_folder(root: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "sheet.png"
    assert run_tool(show, [str(root), "--number", "6", "--out", str(out)]) == 0
    assert f"written: {out} (6 of 16 images of train)" in capsys.readouterr().out
    sheet = np.asarray(Image.open(out))
    assert sheet.shape[1] > 4 * 400  # four columns of enlarged images
    assert (sheet == [224, 59, 59]).all(axis=2).sum() > 100  # the colour of the first class


def test_a_sheet_replaces_no_image_of_the_data(root: Path, capsys: Capture) -> None:
    image = next(root.rglob("*.png"))
    before = image.read_bytes()
    assert run_tool(show, [str(root), "--out", str(image)]) == 2
    assert f"lies in the data, {root}" in capsys.readouterr().err
    assert image.read_bytes() == before


def test_augmented_samples_are_those_of_the_training(root: Path, tmp_path: Path, capsys: Capture) -> None:
    augmentation = {"mosaic": 0.5, "affine": {"probability": 0.5}}
    config, out = config_file(root, tmp_path, augmentation=augmentation, batch_size=4), tmp_path / "sheet.jpg"
    command = [str(config), "--augmented", "--number", "5", "--out", str(out)]
    assert run_tool(show, command) == 0
    said = capsys.readouterr().out
    assert f"written: {out} (5 samples from 16 images of train)" in said
    assert "augmentation, as the training of seed 0 applies it in the first epoch:" in said
    rows = {line.split()[0]: line.split()[1:] for line in said.splitlines()}
    assert rows["all"][:2] == ["steps", "16"]
    assert {"letterbox", "mosaic", "affine", "horizontal_flip"} <= rows.keys()
    assert rows["affine"][0].isdecimal()
    first = out.read_bytes()
    assert run_tool(show, [*command, "--audit", "8"]) == 0
    said = capsys.readouterr().out
    assert "in the first 8 samples of the first epoch, of 16:" in said
    assert f"replaced: {out}" in said
    assert out.read_bytes() == first
    assert run_tool(show, [*command, "seed=1"]) == 0
    assert out.read_bytes() != first


def test_validation_is_letterboxed_and_maps_are_shown(root: Path, tmp_path: Path, capsys: Capture) -> None:
    config, out = config_file(root, tmp_path, "unet"), tmp_path / "sheet.png"
    classes = ["data.classes=[background, blue, red, yellow]"]
    for more, line in (
        (["--augmented", "--split", "val"], "images of val are not augmented: they are letterboxed only"),
        (["--split", "val"], "replaced: "),
        (["--augmented"], "all steps"),
    ):
        assert run_tool(show, [str(config), *classes, "--number", "4", "--out", str(out), *more]) == 0
        assert line in capsys.readouterr().out
        assert Image.open(out).width > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{root}", "--out", "sheet.txt"], "--out sheet.txt: expected the name of an image file"),
        (["{root}", "--number", "0"], "expected a whole number from 1 to 200, got '0'"),
        (["{root}", "--number", "201"], "expected a whole number from 1 to 200, got '201'"),
        (["{root}", "--audit", "5"], "--audit: it is for the table of the augmentation: give it with --augmented"),
        (["{empty}"], "{empty}: "),
        ([], "no configuration file given"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, root: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    places = {"root": root, "empty": tmp_path / "empty"}
    assert run_tool(show, [text.format(**places) for text in arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert message.format(**places) in said
