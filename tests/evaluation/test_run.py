"""The same number three times: in training, by evaluation, and from the Predictor's outputs by pycocotools alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from detseg.checkpoint import read_model_checkpoint
from detseg.config.load import config_from_dict
from detseg.data.build import open_split
from detseg.data.formats.coco_writer import coco_ground_truth
from detseg.data.loading.loader import eval_loader
from detseg.errors import CheckpointError, DataError
from detseg.evaluation import evaluate_checkpoint
from detseg.factory import load_model
from detseg.metrics.detection_result import DetectionResult
from detseg.models.yolo.detector import YoloDetector
from detseg.ops.tensors import to_float
from detseg.predict import Detections, load_predictor
from detseg.training.run import train
from tests.metrics.builders import plain_cocoeval
from tests.rounding import rounding_of, rounding_of_losses
from tests.tiny import CLASSES, WORTH_COMPARING, TinyRun, rows_of, tiny_config, write_colors

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def result(tiny_run: TinyRun) -> DetectionResult:
    found: DetectionResult = tiny_run.evaluate()
    return found


@pytest.fixture(scope="module")
def predicted(tiny_run: TinyRun) -> dict[int, Detections]:
    """What the Predictor finds in the image files, one by one, by image id."""
    dataset = open_split(tiny_config(tiny_run.config_path, None).data, "val")
    predictor = load_predictor(tiny_run.best, device="cpu", score_threshold=0)
    return {dataset.image_id(i): predictor(dataset.path(i)) for i in range(len(dataset))}


def test_training_logged_the_number_that_evaluation_finds(tiny_run: TinyRun, result: DetectionResult) -> None:
    best = next(row for row in tiny_run.rows() if int(row["epoch"]) == read_model_checkpoint(tiny_run.best).epoch)
    for name in ("AP", "AP50", "AP75"):
        assert float(best[f"val/{name}"]) == result.coco[name], name
    assert result.num_ignored == 2  # difficult objects are part of the comparison


def test_pycocotools_finds_it_too(tiny_run: TinyRun, result: DetectionResult, predicted: dict[int, Detections]) -> None:
    dataset = open_split(tiny_config(tiny_run.config_path, None).data, "val")
    truth = json.loads(json.dumps(coco_ground_truth(dataset)))
    assert sum(entry["iscrowd"] for entry in truth["annotations"]) == 2
    entries = [entry for image_id, found in predicted.items() for entry in found.to_coco(image_id)]
    stats = plain_cocoeval(truth, json.loads(json.dumps(entries))).stats
    expected = [-1.0 if value is None else value for value in result.to_dict()["coco"].values()]
    assert stats.tolist() == expected
    assert stats[0] >= WORTH_COMPARING


def test_the_predictor_finds_exactly_what_evaluation_finds_and_leaves(
    tiny_run: TinyRun, predicted: dict[int, Detections], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tiny_run.evaluate("data.batch_size=1", coco_dir=tmp_path)
    assert f"AP          {result.coco['AP']:.3f}" in capsys.readouterr().out
    truth, entries = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("ground_truth", "detections"))
    assert plain_cocoeval(truth, entries).stats[0] == result.coco["AP"]  # the files hold the printed number
    assert entries == [entry for image_id, found in predicted.items() for entry in found.to_coco(image_id)]
    assert len(entries) > 9


def test_neighbours_change_only_rounding(tiny_run: TinyRun, predicted: dict[int, Detections], tmp_path: Path) -> None:
    def ranked(entries: list[dict[str, Any]]) -> list[tuple[int, float]]:
        """Class by class, since two scores of rounding's distance may come in either order."""
        return sorted((entry["category_id"], -entry["score"]) for entry in entries)

    tiny_run.evaluate("data.batch_size=9", coco_dir=tmp_path)
    found = json.loads((tmp_path / "detections.json").read_text())
    tolerance = 4 * rounding_of(load_model(tiny_run.best)[0])  # of a score, whose logit is below 16
    for image_id, alone in predicted.items():
        together = ranked([entry for entry in found if entry["image_id"] == image_id])
        expected = ranked(alone.to_coco(image_id))
        assert [label for label, _ in together] == [label for label, _ in expected]
        assert [score for _, score in together] == pytest.approx([score for _, score in expected], rel=0, abs=tolerance)


@pytest.mark.parametrize("overrides", [("data.batch_size=1",), ("data.batch_size=9",), ("data.num_workers=2",)])
def test_batches_change_no_numbers(overrides: tuple[str, ...], tiny_run: TinyRun, result: DetectionResult) -> None:
    assert tiny_run.evaluate(*overrides).to_dict()["coco"] == result.to_dict()["coco"]


def test_the_report_lies_in_the_run_directory(tiny_run: TinyRun, tmp_path: Path) -> None:
    result = tiny_run.evaluate()
    report = json.loads((tiny_run.run_dir / "evaluation_val.json").read_text())
    assert report.pop("checkpoint") == "best.ckpt"
    assert report.pop("split") == "val"
    assert report.pop("settings")["data"]["root"].endswith("colors")
    low, high = report.pop("intervals")["AP"]
    assert low <= result.coco["AP"] <= high
    assert report.pop("errors")["missed"]["count"] >= 0
    assert report == json.loads(json.dumps(result.to_dict()))
    shutil.copy(tiny_run.best, tmp_path / "model.ckpt")
    evaluate_checkpoint(tmp_path / "model.ckpt", "val", None, "cpu")
    assert (tmp_path / "evaluation_val_model.json").is_file()  # beside a checkpoint that was taken out of its run


def test_other_splits(tiny_run: TinyRun) -> None:
    found = tiny_run.evaluate(split="test")
    assert (found.num_images, found.num_objects, found.num_ignored) == (5, 4, 2)  # the 35th to 40th object
    assert tiny_run.evaluate(split="train").num_images == 16


def test_another_layout_with_the_same_classes(tiny_run: TinyRun, result: DetectionResult, tmp_path: Path) -> None:
    dataset = open_split(tiny_config(tiny_run.config_path, None).data, "val")
    (tmp_path / "val.json").write_text(json.dumps(coco_ground_truth(dataset)))
    overrides = ("data.name=coco", f"data.root={tiny_run.data_root}", "data.val_images=.")
    as_coco = tiny_run.evaluate(*overrides, f"data.val_annotations={tmp_path / 'val.json'}")
    # Without the corners' detour through VOC's 1-based integers nothing changes; difficult objects come as crowd.
    assert as_coco.to_dict()["coco"] == result.to_dict()["coco"]
    with pytest.raises(DataError, match=r"^data\.test_images, data\.test_annotations: not set, so there is no test"):
        tiny_run.evaluate(*overrides, split="test")


def test_a_checkpoint_of_other_classes_is_one_line(tiny_run: TinyRun, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        tiny_run.evaluate("data.classes=[cat, dog]")
    assert str(caught.value) == (
        f"{tiny_run.best}: was trained on the classes {list(CLASSES)}, data.classes are ['cat', 'dog']; leave "
        "data.classes out, or take the checkpoint that fits"
    )
    other = write_colors(tmp_path / "other", {"val": 3})
    xml = other / "Annotations" / "val00.xml"
    name = next(name for name in CLASSES if name in xml.read_text())
    xml.write_text(xml.read_text().replace(name, "green"))
    with pytest.raises(
        CheckpointError, match=r"val00\.xml: unknown class 'green'.* \(the table is that of .*best\.ckpt"
    ):
        tiny_run.evaluate(f"data.root={other}", "data.classes=null")


def test_validation_computes_in_float32_when_training_does_not(tiny_run: TinyRun, tmp_path: Path) -> None:
    overrides = ("trainer.max_epochs=1", "trainer.precision=bfloat16")
    config = tiny_config(tiny_run.config_path, tmp_path / "run", *overrides)
    run_dir = train(config, tiny_run.config_path)
    logged = float(rows_of(run_dir)[0]["val/loss"])
    model, trained, _ = load_model(run_dir / "checkpoints" / "last.ckpt")
    assert isinstance(model, YoloDetector)
    assert config_from_dict(trained.model_dump(mode="json")).trainer.precision == "bfloat16"
    dataset = open_split(config.data, "val")
    total = 0.0
    for batch in eval_loader(dataset, input_hw=(64, 64), batch_size=2, num_workers=0):
        with torch.no_grad():
            terms = model.losses(to_float(batch.images), batch.targets)
        total += float(sum(terms.values())) * len(batch)
    assert logged == pytest.approx(total / len(dataset), rel=rounding_of_losses(model))
