"""What of results is kept, and how masks and maps are cleaned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detseg.cli.deploy.predict import predict
from detseg.errors import ConfigError, DataError
from detseg.predict import Detections, SegmentationMap
from detseg.predict.refine import Refinement, ScoreCalibration, read_thresholds
from detseg.structures import ClassTable, InstanceMasks
from tests.cli.mistakes import said
from tests.predict.networks import noise, write_rcnn, write_unet

CLASSES = ClassTable(("sky", "road", "car"))


def given() -> Detections:
    """Three objects in 8 x 8 pixels: a ring with a speck, a pixel, a square; the boxes are not those of the masks."""
    masks = np.zeros((3, 8, 8), dtype=np.bool_)
    masks[0, 1:5, 1:5] = True
    masks[0, 2:4, 2:4] = False
    masks[0, 7, 7] = True
    masks[1, 0, 7] = True
    masks[2, 4:8, 0:4] = True
    boxes, scores = np.tile(np.array([0, 0, 8, 8], np.float32), (3, 1)), np.array([0.9, 0.6, 0.4], np.float32)
    return Detections(boxes, scores, np.array([0, 1, 2]), CLASSES, InstanceMasks.from_dense(masks))


def test_classes_and_thresholds_of_their_own() -> None:
    assert Refinement(["road", "car"])(given()).names == ["road", "car"]
    assert Refinement(thresholds={"sky": 0.95, "road": float(np.float32(0.6))})(given()).names == ["road", "car"]
    assert Refinement(["sky"], {"sky": 0.95})(given()).names == []
    assert Refinement()(given()).names == ["sky", "road", "car"]


def test_a_score_that_is_the_threshold_stays() -> None:
    """As float32 0.9 is less than 0.9, and calibrated scores are fractions like this one."""
    found = replace(given(), scores=np.full(len(given()), 0.9, dtype=np.float32))
    assert len(Refinement(thresholds=dict.fromkeys(found.classes.names, 0.9))(found)) == len(found) > 0
    assert len(Refinement(thresholds=dict.fromkeys(found.classes.names, 0.9001))(found)) == 0


def test_the_lowest_score_that_is_kept() -> None:
    """A tracker has to know it: of the predictor, of the classes' thresholds, or calibrated."""
    calibration = ScoreCalibration({"car": [(0.0, 0.1), (1.0, 0.5)]}, [(0.0, 0.0), (1.0, 0.8)])
    for refine, expected in (
        (Refinement(), 0.5),
        (Refinement(thresholds={"sky": 0.2, "road": 0.7}), 0.5),
        (Refinement(["road"], {"sky": 0.6, "road": 0.7}), 0.7),
        (Refinement(calibration=calibration), 0.3),  # car: 0.1 + 0.4 / 2
        (Refinement(["sky"], calibration=calibration), 0.4),
        (Refinement(thresholds=dict.fromkeys(CLASSES.names, 0.35), calibration=calibration), 0.35),
    ):
        assert refine.lowest_score(0.5, CLASSES) == pytest.approx(expected)


def test_masks_lose_specks_and_holes() -> None:
    before = given()
    assert before.masks is not None
    dense = before.masks.dense()
    cleaned = Refinement(min_area=2)(before)
    assert cleaned.names == ["sky", "car"]  # a pixel is a speck
    assert cleaned.masks is not None
    dense[0, 7, 7] = False
    np.testing.assert_array_equal(cleaned.masks.dense(), dense[[0, 2]])
    filled = Refinement(fill_holes=4)(before)
    assert filled.masks is not None
    dense = before.masks.dense()
    dense[0, 2:4, 2:4] = True
    np.testing.assert_array_equal(filled.masks.dense(), dense)
    np.testing.assert_array_equal(filled.boxes, before.boxes)
    kept = Refinement(fill_holes=3)(before)
    assert kept.masks == before.masks


def test_boxes_alone_cannot_be_cleaned() -> None:
    boxes, scores = np.zeros((1, 4), np.float32), np.ones(1, np.float32)
    with pytest.raises(ConfigError, match="are for masks, and this model finds boxes alone"):
        Refinement(min_area=5)(Detections(boxes, scores, np.array([0]), CLASSES))


def test_specks_of_maps() -> None:
    labels = np.zeros((5, 6), dtype=np.uint8)
    labels[:, 3:] = 1
    labels[2, 4] = 2
    expected = np.where(labels == 2, 1, labels)
    np.testing.assert_array_equal(Refinement(min_area=2)(SegmentationMap(labels, CLASSES)).labels, expected)
    np.testing.assert_array_equal(Refinement()(SegmentationMap(labels, CLASSES)).labels, labels)


def test_what_is_wrong_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "a.png"
    Image.fromarray(noise(30, 40)).save(image)
    calibration = tmp_path / "c.json"
    calibration.write_text(json.dumps({"classes": {"raod": [[0, 0], [1, 1]]}, "other classes": [[0, 0], [1, 1]]}))
    for checkpoint, option, message in (
        (
            write_rcnn(tmp_path / "r.ckpt", "mask_rcnn"),
            "--classes=sky,raod",
            "(did you mean 'road'?); the classes are ",
        ),
        (
            write_unet(tmp_path / "u.ckpt"),
            "--classes=sky",
            "classes: is for detectors, and this is a segmentation model",
        ),
        (write_unet(tmp_path / "u.ckpt"), "--fill-holes=3", "min_area gives specks and holes the label around them"),
        (tmp_path / "r.ckpt", "--min-area=-1", "argument --min-area: expected a whole number of at least 0, got '-1'"),
        (
            tmp_path / "r.ckpt",
            "--batch-size=0",
            "argument --batch-size: expected a whole number of at least 1, got '0'",
        ),
        (tmp_path / "r.ckpt", f"--thresholds={image}", "cannot be read as JSON"),
        (
            tmp_path / "r.ckpt",
            f"--calibration={calibration}",
            "calibration: the model has no class 'raod' (did you mean ",
        ),
        (
            write_rcnn(tmp_path / "f.ckpt", "faster_rcnn"),
            "--min-area=5",
            "are for masks, and this model finds boxes alone",
        ),
        (
            tmp_path / "f.ckpt",
            "--merge=nms",
            "overlap, full_image, merge: belong to tiles; give tile=(height, width) too",
        ),
    ):
        code, text = said(predict, [str(checkpoint), str(image), "--out", str(tmp_path / "out"), option], capsys)
        assert (code, text.count("\n")) == (2, 1)
        assert message in text
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["[]", '{"sky": 2}', '{"sky": "0.5"}', '{"sky": NaN}', '{"sky": true}', "3"])
def test_wrong_thresholds(tmp_path: Path, content: str) -> None:
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(DataError, match="expected names of classes with scores from 0 to 1, as `detseg report` writes"):
        read_thresholds(tmp_path / "t.json")


def test_thresholds_on_the_command_line(tmp_path: Path) -> None:
    """Classes in the file have theirs, which may be below --score; the others have --score."""
    checkpoint, image = write_rcnn(tmp_path / "r.ckpt", "faster_rcnn"), tmp_path / "a.png"
    Image.fromarray(noise(60, 90)).save(image)

    def found(*options: str) -> list[tuple[str, float]]:
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        predict([str(checkpoint), str(image), "--out", str(out), "--device", "cpu", *options])
        objects = json.loads((out / "results.jsonl").read_text().splitlines()[1])["objects"]
        return [(one["name"], one["score"]) for one in objects]

    every = found("--score=0")
    ranked = sorted(score for _, score in every)
    middle, name = ranked[len(ranked) // 2], every[-1][0]  # the lowest score is of this class
    (tmp_path / "t.json").write_text(json.dumps({name: 0.0}))
    chosen = found(f"--score={middle}", f"--thresholds={tmp_path / 't.json'}")
    assert chosen == [(own, score) for own, score in every if own == name or score >= middle]
    assert every[-1] in chosen
