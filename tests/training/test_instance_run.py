"""A whole training of a Mask R-CNN: the same AP three times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detseg.checkpoint import read_model_checkpoint
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.formats.coco_writer import MASK_RESULTS, result_files
from detseg.predict import load_predictor
from detseg.tasks import kind_of
from tests.tiny import WORTH_COMPARING, TinyRun, tiny_config

pytestmark = pytest.mark.filterwarnings("ignore")


def by_pycocotools(truth: Path, results: Path, kind: Any) -> list[float]:
    """The twelve numbers that pycocotools itself computes from two files."""
    coco = COCO(str(truth))
    evaluation = COCOeval(coco, coco.loadRes(str(results)), kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return [float("nan") if number == -1 else float(number) for number in evaluation.stats]


def test_mask_ap_three_times(tiny_instances: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    validated = [row for row in tiny_instances.rows() if row["val/mask_AP"]]
    assert [int(row["epoch"]) for row in validated] == [10, 20]
    row = max(validated, key=lambda row: float(row["val/mask_AP"]))  # the best epoch is that of the masks
    assert read_model_checkpoint(tiny_instances.best).epoch == int(row["epoch"])
    result = tiny_instances.evaluate(coco_dir=tmp_path)
    assert "detections.json, detections_masks.json (without boxes, to score as segm)" in capsys.readouterr().out
    assert result.masks is not None
    assert result.masks.summary["AP"] >= WORTH_COMPARING
    for name in ("AP", "AP50", "AP75"):
        assert float(row[f"val/mask_{name}"]) == result.masks.summary[name]
        assert float(row[f"val/{name}"]) == result.coco[name]
    # What the predictor finds in the files, scored by pycocotools against the file that the data set was read from.
    config = tiny_config(tiny_instances.config_path, None)
    dataset = kind_of(config.model).open_dataset(config.data, "val")
    assert isinstance(dataset, DetectionDataset)
    predictor = load_predictor(tiny_instances.best, device="cpu", score_threshold=0)
    entries = [entry for i in range(len(dataset)) for entry in predictor(dataset.path(i)).to_coco(dataset.image_id(i))]
    truth = tiny_instances.data_root / "annotations" / "instances_val.json"
    ours = list(result.masks.summary.values())
    predicted = json.dumps(result_files(entries, masks=True)[MASK_RESULTS])
    (tmp_path / "predicted.json").write_text(predicted, encoding="utf-8")
    assert by_pycocotools(truth, tmp_path / "predicted.json", "segm") == pytest.approx(ours, abs=1e-12, nan_ok=True)
    # And from the files that evaluation leaves.
    truth = tmp_path / "ground_truth.json"
    by_masks = by_pycocotools(truth, tmp_path / "detections_masks.json", "segm")
    assert by_masks == pytest.approx(ours, abs=1e-12, nan_ok=True)
    by_boxes = by_pycocotools(truth, tmp_path / "detections.json", "bbox")
    assert by_boxes == pytest.approx(list(result.coco.values()), abs=1e-12, nan_ok=True)
