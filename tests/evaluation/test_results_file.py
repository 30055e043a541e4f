"""Files of results of other programs, scored: pycocotools' numbers, and mistakes in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

import detseg
from detseg.cli import main
from detseg.data.formats.coco_writer import coco_ground_truth
from detseg.data.formats.voc import read_voc
from detseg.errors import DetsegError
from tests.metrics.builders import plain_cocoeval
from tests.shared_data import shared_data
from tests.tiny import CLASSES, write_colors

BOX = {"image_id": 7, "category_id": 3, "bbox": [10, 10, 20, 20], "score": 0.5}
TRUTH: dict[str, Any] = {
    "images": [{"id": id_, "file_name": f"{id_}.jpg", "width": 64, "height": 48} for id_ in (7, 8)],
    "categories": [{"id": 3, "name": "cat"}, {"id": 90, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 10, 20, 20], "area": 400, "iscrowd": 0},
        {"id": 2, "image_id": 8, "category_id": 90, "bbox": [0, 0, 30, 30], "area": 900, "iscrowd": 0},
    ],
}


def written(folder: Path, results: Any, truth: Any = TRUTH) -> tuple[Path, Path]:
    paths = folder / "results.json", folder / "truth.json"
    for path, content in zip(paths, (results, truth), strict=True):
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return paths


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_published_numbers(kind: str) -> None:
    """The example results of the COCO API; no image is there."""
    folder = shared_data("oracles", "coco_val2014_fake100")
    truth, results = folder / "instances_val2014_100.json", folder / f"instances_val2014_fake{kind}100_results.json"
    expected = json.loads((folder / "expected.json").read_text())[kind]
    result = detseg.evaluate_results(results, truth)
    assert (result.masks is not None) == (kind == "segm")
    found = result.masks.summary if result.masks else result.coco
    assert list(found.values()) == pytest.approx(list(expected.values()), abs=1e-12)
    reference = plain_cocoeval(json.loads(truth.read_text()), json.loads(results.read_text()), kind)
    assert list(found.values()) == reference.stats.tolist()


def small_faster_rcnn() -> Any:
    """Torchvision's, on three layers."""
    layers = [
        layer
        for k, side in ((3, 32), (32, 64), (64, 64))
        for layer in (nn.Conv2d(k, side, 3, 2, 1), nn.GroupNorm(8, side), nn.ReLU())
    ]
    backbone = nn.Sequential(*layers)
    backbone.out_channels = 64  # type: ignore[assignment]  # torchvision's contract
    return torchvision.models.detection.FasterRCNN(
        backbone,
        num_classes=1 + len(CLASSES),
        min_size=96,
        max_size=128,
        rpn_anchor_generator=torchvision.models.detection.anchor_utils.AnchorGenerator(((16, 32, 64),), ((1.0,),)),
        box_roi_pool=torchvision.ops.MultiScaleRoIAlign(["0"], 7, 2),
    )


@pytest.mark.slow
def test_the_results_of_torchvisions_reference_evaluation(tmp_path: Path) -> None:
    """A detector of torchvision's, its detections in the form that its `references/detection/coco_eval.py` hands to
    pycocotools: a row for each, boxes as x, y, width and height, numbers as float32 has them."""
    data = read_voc(write_colors(tmp_path / "colors"), "train", classes=CLASSES)
    chosen = range(4)
    samples = [data[index] for index in chosen]
    pixels = [torch.from_numpy(sample.image).permute(2, 0, 1).float() / 255 for sample in samples]
    targets = [
        {"boxes": torch.from_numpy(sample.boxes), "labels": torch.from_numpy(sample.labels) + 1} for sample in samples
    ]
    torch.manual_seed(0)
    model = small_faster_rcnn()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(80):
        optimizer.zero_grad()
        sum(model(pixels, targets).values()).backward()
        optimizer.step()
    truth, results = coco_ground_truth(data.subset(chosen)), list[dict[str, Any]]()
    model.train(False)
    for index, image in zip(chosen, pixels, strict=True):
        with torch.no_grad():
            (found,) = model([image])
        boxes = torchvision.ops.box_convert(found["boxes"], "xyxy", "xywh").tolist()
        for box, label, score in zip(boxes, found["labels"].tolist(), found["scores"].tolist(), strict=True):
            results.append({"image_id": data.image_id(index), "category_id": label, "bbox": box, "score": score})
    scored = detseg.evaluate_results(*written(tmp_path, results, truth)).coco
    reference = plain_cocoeval(truth, results, "bbox").stats
    expected = np.where(reference == -1, np.nan, reference)  # no small objects, say
    assert np.array_equal(list(scored.values()), expected, equal_nan=True)
    assert scored["AP50"] > 0.1


TIDE = {
    "bbox": (64.2049888173, 22.2460397442, 0.2278910237, 8.5235737877, 6.8215875245, 17.6849785352),
    "segm": (51.8008304631, 16.1859819450, 11.6007038814, 7.7786204300, 8.6603472336, 23.7458192008),
}
"""AP50; gains of class, location, missed; without wrong detections; without missed objects: of tidecv 1.0.1, in
percent, on the images in the order of their ids, which decides between equal scores."""


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_what_errors_cost_as_tidecv_has_it(kind: str, tmp_path: Path) -> None:
    folder = shared_data("oracles", "coco_val2014_fake100")
    results = tmp_path / "found.json"
    results.write_bytes((folder / f"instances_val2014_fake{kind}100_results.json").read_bytes())
    truth = folder / "instances_val2014_100.json"
    assert main(["evaluate", "--results", str(results), "--annotations", str(truth)]) == 0
    report = json.loads((tmp_path / "found_evaluation.json").read_text())
    errors = report["errors"]
    gains = [errors[name]["gain"] for name in ("class", "location", "missed")]
    found = [errors["ap50"], *gains, errors["false_positive_gain"], errors["false_negative_gain"]]
    assert [number * 100 for number in found] == pytest.approx(TIDE[kind], abs=1e-6)
    low, high = report["intervals"]["mask_AP" if kind == "segm" else "AP"]
    assert low < (report["masks"]["summary"] if kind == "segm" else report["coco"])["AP"] < high


def test_the_command_says_and_writes_the_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, truth = written(tmp_path, [BOX])
    command = ["evaluate", "--results", str(results), "--annotations", str(truth), "evaluation.max_detections=10"]
    assert main(command) == 0
    report = json.loads((tmp_path / "results_evaluation.json").read_text())
    assert report["coco"]["AP"] == pytest.approx(0.5)  # the cat, and not the dog
    assert (report["results"], report["settings"]["max_detections"]) == ("results.json", 10)
    captured = capsys.readouterr()
    assert "AP          0.500" in captured.out
    assert "without a single detection: dog" in captured.err + captured.out


def test_no_detection_is_a_result(tmp_path: Path) -> None:
    result = detseg.evaluate_results(*written(tmp_path, []))
    assert result.coco["AP"] == 0
    assert result.explain() == [
        "There are no detections at all: train longer (trainer.max_epochs), or lower the threshold."
    ]
    assert result.explain(of_a_run=False) == ["There are no detections at all."]


def test_nothing_to_find_is_a_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, truth = written(tmp_path, [BOX], {**TRUTH, "annotations": []})
    files = ["--results", str(results), "--annotations", str(truth)]
    assert main(["evaluate", *files]) == 0
    assert "have no objects to find" in " ".join(capsys.readouterr().out.split())
    assert main(["report", *files, "--out", str(tmp_path / "report")]) == 0
    assert "AP is not defined: there is nothing to find." in (tmp_path / "report" / "index.html").read_text()


def test_boxes_around_masks(tmp_path: Path) -> None:
    """A file of masks alone: pixels 10 to 29 of rows and columns."""
    polygon = {**BOX, "segmentation": [[10, 10, 30, 10, 30, 30, 10, 30]]}
    del polygon["bbox"]
    of_boxes = detseg.evaluate_results(*written(tmp_path, [polygon, {**BOX, "image_id": 8}]))
    assert of_boxes.masks is None
    assert of_boxes.classes[0].ap == pytest.approx(1)  # the other one is of a lower rank
    truth = json.loads(json.dumps(TRUTH))
    for entry in truth["annotations"]:
        x, y, width, height = entry["bbox"]
        entry["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    of_masks = detseg.evaluate_results(*written(tmp_path, [polygon], truth))
    assert of_masks.masks is not None
    assert of_masks.masks.class_ap == pytest.approx((1, 0))
    assert detseg.evaluate_results(*written(tmp_path, [polygon], truth), masks=False).masks is None


WITHOUT_SIZES = [{"id": id_, "file_name": "a"} for id_ in (7, 8)]
WRONG: list[tuple[Any, Any, str]] = [
    ("[", TRUTH, "results.json: not a readable JSON file: "),
    (json.dumps([{**BOX, "score": float("nan")}]), TRUTH, "not a readable JSON file: .* NaN and Infinity"),
    (TRUTH, TRUTH, "got one object; are --results and --annotations exchanged?"),
    ([BOX, {"image_id": 7}], TRUTH, r"number 1 is \{'image_id': 7\}: Object missing required field `category_id`"),
    ([{**BOX, "score": "1"}], TRUTH, r"number 0 is .*: Expected `float`, got `str`"),
    ([{**BOX, "bbox": [1, 2, 3]}], TRUTH, r"number 0 is .*: Expected `array` of length 4"),
    ([{**BOX, "bbox": [9, 9, -4, 4]}], TRUTH, "number 0, of image 7: bbox .*: expected .* got a negative size"),
    ([{key: BOX[key] for key in ("image_id", "category_id", "score")}], TRUTH, "number 0, of image 7: no bbox$"),
    ([BOX, {**BOX, "image_id": 9}], TRUTH, r"1 of 2 detections are of an image .* \(image_id 9\); these have 7, 8: "),
    ([{**BOX, "category_id": 0}], TRUTH, r" \(category_id 0\); these have 3, 90: are the classes counted from 0\?"),
    ([{**BOX, "segmentation": [[1, 2]]}], TRUTH, "no annotation|no usable segmentation"),
    ([BOX], {**TRUTH, "images": WITHOUT_SIZES}, "image 7: height and width: expected whole pixels, since the"),
]


@pytest.mark.parametrize(("results", "truth", "line"), WRONG, ids=[line for _, _, line in WRONG])
def test_mistakes_are_one_line(results: Any, truth: Any, line: str, tmp_path: Path) -> None:
    with pytest.raises(DetsegError, match=line) as caught:
        detseg.evaluate_results(*written(tmp_path, results, truth))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "no checkpoint given, and no --results with --annotations"),
        (["--results", "r.json"], "--results, the detections, and --annotations, the truth, go together"),
        (["best.ckpt", "--results", "r.json", "--annotations", "t.json"], "best.ckpt: --results are scored without a"),
        (["--results", "r.json", "--annotations", "t.json", "--split", "val"], "--split: is for a checkpoint"),
        (["--results", "r.json", "--annotations", "t.json", "data.root=a"], "has only settings of evaluation"),
        (["--results", "r.json", "--annotations", "t.json"], "r.json: there is no such file of results"),
    ],
)
def test_wrong_commands_are_one_line(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", *arguments]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert line in error
