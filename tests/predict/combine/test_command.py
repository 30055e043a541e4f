"""Tiles, ensembles and calibrated scores by `detseg predict`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detseg.cli.deploy.predict import predict
from detseg.predict import ensemble, load_predictor
from detseg.predict.refine import read_calibration
from detseg.structures import ClassTable
from tests.cli.mistakes import said
from tests.predict.networks import CLASSES, noise, write_rcnn, write_unet


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.fromarray(noise(100, 150)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_rcnn(tmp_path / "r.ckpt", "mask_rcnn")


def objects_of(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((out / "results.jsonl").read_text().splitlines()[1])["objects"]
    return found


def found_by(*options: str | Path) -> list[dict[str, Any]]:
    """The objects in an image by the command; options end with ``--out`` and its folder."""
    assert predict([*map(str, options), "--device=cpu", "--no-pictures"]) == 0
    return objects_of(Path(options[-1]))


def test_tiles_and_members_of_detectors(checkpoint: Path, image: Path, tmp_path: Path) -> None:
    tiles = ("--tile", "64", "96", "--overlap", "20", "--full-image", "--merge", "nms", "--batch-size", "3")
    members = ("--with", checkpoint, "--flips", "horizontal", "--scales", "1,1.5", "--score", "0.05")
    predictor: Any = load_predictor(checkpoint, "cpu", 0.05)
    combined: Any = ensemble([predictor, predictor], None, ("horizontal",), (1, 1.5))
    expected = combined(image, 3, tile=(64, 96), overlap=20, full_image=True, merge="nms")
    found = found_by(checkpoint, image, *tiles, *members, "--out", tmp_path / "out")
    assert len(expected) > 3
    assert [one["name"] for one in found] == expected.names
    assert [one["score"] for one in found] == expected.scores.tolist()
    assert [one["box"] for one in found] == expected.boxes.tolist()
    assert [one["mask"].encode() for one in found] == list(expected.masks.counts)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (("--flips", "vertical", "--scales", "1"), "flips ['horizontal'], now ['vertical']"),
        (("--flips", "horizontal", "--scales", "1.5"), "scales [1.0], now [1.5]"),
        (("--flips", "horizontal", "--scales", "1", "--full-image", "--tile", "64", "96"), "now [64, 96]"),
    ],
)
def test_a_run_of_other_members_is_not_resumed(
    changed: tuple[str, ...], message: str, checkpoint: Path, image: Path, tmp_path: Path, capsys: Any
) -> None:
    common = [str(checkpoint), str(image), "--out", str(tmp_path / "out"), "--device=cpu", "--no-pictures"]
    assert said(predict, [*common, "--flips", "horizontal", "--scales", "1"], capsys) == (0, "")
    code, text = said(predict, [*common, *changed, "--resume"], capsys)
    assert code == 2
    assert "was made with other settings" in text
    assert message in text
    assert said(predict, [*common, "--flips", "horizontal", "--scales", "1", "--resume"], capsys) == (0, "")


def test_calibrated_scores(checkpoint: Path, image: Path, tmp_path: Path, capsys: Any) -> None:
    """Scores from s0 on become 0.9 or more for one class, half of themselves for the others."""
    every = found_by(checkpoint, image, "--score", "0", "--out", tmp_path / "every")
    ranked = sorted(one["score"] for one in every)
    name, middle = every[0]["name"], ranked[len(ranked) // 2]
    file = tmp_path / "calibration.json"
    corners = [[middle / 2, 0.1], [middle, 0.9]]
    file.write_text(json.dumps({"classes": {name: corners}, "other classes": [[0.0, 0.0], [1.0, 0.5]]}))
    found = found_by(checkpoint, image, "--calibration", file, "--score", "0.5", "--out", tmp_path / "out")
    expected = {}
    for one in every:
        xs, ys = zip(*corners, strict=True) if one["name"] == name else ((0, 1), (0, 0.5))
        if (score := float(np.interp(one["score"], xs, ys))) >= 0.5:
            expected[tuple(one["box"])] = pytest.approx(score)
    assert {tuple(one["box"]): one["score"] for one in found} == expected
    assert found
    assert read_calibration(file).lowest(0.5) < middle
    (tmp_path / "t.json").write_text("{}")
    wrong = [str(checkpoint), str(image), "--out", str(tmp_path / "new"), f"--calibration={file}"]
    code, text = said(predict, [*wrong, f"--thresholds={tmp_path / 't.json'}"], capsys)
    assert (code, text.count("\n")) == (2, 1)
    assert "--thresholds are of scores that are not calibrated" in text


def test_members_of_label_maps(image: Path, tmp_path: Path, capsys: Any) -> None:
    unet = write_unet(tmp_path / "u.ckpt")
    common = [str(unet), str(image), "--out", str(tmp_path / "out"), "--device=cpu", "--no-pictures", "--with"]
    assert said(predict, [*common, str(unet), "--flips", "horizontal", "--scales", "1,0.5"], capsys) == (0, "")
    predictor: Any = load_predictor(unet, "cpu")
    expected = ensemble([predictor] * 2, None, ("horizontal",), (1, 0.5))(image)
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "out" / "masks" / "a.png")), expected.labels)
    other = write_unet(tmp_path / "o.ckpt", ClassTable((*CLASSES.names[::-1],)))
    for wrong, message in (
        ([str(other)], "and model 2 has them in another order (car, road, sky)"),
        ([str(write_rcnn(tmp_path / "r.ckpt", "faster_rcnn"))], "some find objects and some label pixels"),
        ([str(unet), "--tile", "32", "32", "--full-image"], "--full-image: is for tiles of detectors"),
        ([str(unet), "--merge", "ios"], "merge: is for tiles of detectors, and this is a segmentation model; leave it"),
    ):
        code, text = said(predict, [*common, *wrong, "--overwrite"], capsys)
        assert (code, text.count("\n")) == (2, 1)
        assert message in text
