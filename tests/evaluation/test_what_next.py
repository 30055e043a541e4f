"""Gaps between parts of the data: their numbers against brute force, their order, and what is said of real runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from detseg.checkpoint import read_raw_checkpoint, save_atomically
from detseg.config.load import load_config
from detseg.data.build import open_split
from detseg.errors import DetsegError
from detseg.evaluation import evaluate
from detseg.evaluation.advice import Facts
from detseg.evaluation.run import evaluated, evaluation_config, open_split_for
from detseg.evaluation.what_next import Part, Scored, WhatNext, classes_not_learned, gaps, what_next
from detseg.factory import load_model
from detseg.messages import rendered
from detseg.metrics.bootstrap import detection_samples, interval, resamples
from detseg.metrics.detection import DetectionEvaluator
from detseg.metrics.segmentation import SegmentationEvaluator
from detseg.predict import find_device
from detseg.structures import ClassTable
from tests.tiny import TinyRun, tiny_config

pytestmark = pytest.mark.filterwarnings("ignore")


def scored(images: np.ndarray, seed: int) -> Scored:
    """A metric that is the mean over the images, with resamples of them."""
    weights = np.concatenate(list(resamples(len(images), 1000, seed)))
    return Scored(float(images.mean()), weights @ images / len(images), len(images))


def levels(**numbers: float) -> Mapping[Part, Scored]:
    """Parts with a spread of about 0.01."""
    rng = np.random.default_rng(0)
    names: dict[str, Part] = {"train": "train", "train_dev": "train-dev", "val": "val", "test": "test"}
    return {names[name]: Scored(one, one + 0.01 * rng.standard_normal(1000), 50) for name, one in numbers.items()}


def test_the_interval_of_a_gap_is_that_of_independent_images() -> None:
    """By brute force: each set drawn anew with repetition, 20 000 times; the images of both come in one order."""
    rng = np.random.default_rng(1)
    train, val = np.sort(rng.beta(8, 2, 60)), np.sort(rng.beta(5, 3, 60))
    (bias, variance) = sorted(
        gaps({"train": scored(train, 0), "val": scored(val, 1)}, "AP50"), key=lambda gap: gap.name
    )
    means = [rng.choice(one, (20_000, 60)).mean(axis=1) for one in (train, val)]
    change = means[0] - means[1]
    assert variance.value == pytest.approx(train.mean() - val.mean())
    assert (variance.low, variance.high) == pytest.approx(np.quantile(change, (0.025, 0.975)), abs=0.006)
    assert (bias.low, bias.high) == pytest.approx(1 - np.quantile(means[0], (0.975, 0.025)), abs=0.006)


def test_intervals_hold_the_gap_of_endless_images() -> None:
    rng, held = np.random.default_rng(2), 0
    for _ in range(200):
        train, val = rng.beta(8, 2, 60), rng.beta(6, 3, 40)
        variance = next(g for g in gaps({"train": scored(train, 0), "val": scored(val, 1)}, "x") if g.name[0] == "v")
        held += variance.low <= 8 / 10 - 6 / 9 <= variance.high
    assert 0.90 <= held / 200 <= 0.99


@pytest.mark.parametrize(
    ("numbers", "human", "expected"),
    [
        (
            {"train": 0.70, "val": 0.65, "test": 0.50},
            None,
            ["overfitting to val", "variance", "avoidable bias"],
        ),  # from 1
        ({"train": 0.94, "val": 0.70, "test": 0.70}, 0.95, ["variance", "avoidable bias", "overfitting to val"]),
        (
            {"train": 0.90, "train_dev": 0.89, "val": 0.70},
            0.9,
            ["data mismatch", "avoidable bias", "variance"],
        ),
        ({"val": 0.9, "test": 0.7}, None, ["overfitting to val"]),
        ({"train": float("nan"), "val": 0.9, "test": 0.7}, None, ["overfitting to val"]),
        ({}, 0.9, []),
    ],
)
def test_clear_gaps_come_first_and_large_ones(
    numbers: dict[str, float], human: float | None, expected: list[str]
) -> None:
    found = gaps(levels(**numbers), "AP50", human)
    assert [gap.name for gap in found] == expected
    assert all(gap.is_clear == (gap.value > 0.03) for gap in found)
    if found:
        assert ("not clear" in found[-1].sentence) is not found[-1].is_clear


@pytest.mark.parametrize(
    ("numbers", "facts", "expected"),
    [
        # The U-Net that has not learned four classes of eleven, and what would make its bias doubtful.
        ({"train": 0.494, "val": 0.44}, Facts(still_rising=True), "avoidable bias"),
        ({"train": 0.494, "val": 0.34}, Facts(unlearned=("pole",)), "avoidable bias"),
        ({"train": 0.494, "val": 0.34}, Facts(), "variance"),  # 0.51 and 0.15
        ({"train": 0.494, "val": 0.42}, Facts(), "avoidable bias"),  # 0.51 and 0.07
        ({"train": 0.9, "val": 0.8}, Facts(still_rising=True), "variance"),  # the score on train is not low
    ],
)
def test_bias_comes_first_where_the_training_images_say_so(
    numbers: dict[str, float], facts: Facts, expected: str
) -> None:
    config = load_config("unet_shapes", ["model.loss.class_weights=null"])
    found = gaps(levels(**numbers), "mIoU", None, config, facts)
    assert found[0].is_clear
    assert found[0].name == expected
    verdict = WhatNext("a.ckpt", "mIoU", {}, None, tuple(found), ("",)).verdict
    assert verdict.endswith(f"; {found[0].steps[0].to_do}")
    if expected == "avoidable bias":
        assert ("classes that are not learned (IoU below 0.05): on train pole" in verdict) is bool(facts.unlearned)
        first = {True: "try trainer.max_epochs=", False: "try "}[facts.still_rising]
        assert f"; {first}" in verdict


def test_a_bias_from_1_is_no_verdict_where_nothing_else_is_clear() -> None:
    rng = np.random.default_rng(0)
    of = {"train": 0.97, "val": 0.93}
    parts: Mapping[Part, Scored] = {k: Scored(v, v + 0.03 * rng.standard_normal(1000), 50) for k, v in of.items()}  # type: ignore[misc]  # two keys
    parts = {**parts, "train": Scored(0.97, 0.97 + 0.01 * rng.standard_normal(1000), 50)}
    for human, says in ((None, "no gap is clear but that from 1, which may be out of reach"), (0.999, "work first on")):
        found = gaps(parts, "AP50", human)
        assert [gap.is_clear for gap in found] == [True, False]
        assert WhatNext("a.ckpt", "AP50", {}, human, tuple(found), ("",)).verdict.startswith(says)


def test_the_verdict_names_a_first_step_that_is_no_setting() -> None:
    config = load_config("yolo_shapes", ["model.backbone.name=csp_small", "model.backbone.width=0.5"])
    (variance, *_) = gaps(levels(train=0.95, val=0.6), "AP50", None, config)
    assert variance.steps[0].overrides == ()
    verdict = WhatNext("a.ckpt", "AP50", {}, None, (variance,), ("",)).verdict
    assert verdict.endswith(f"; {variance.steps[0].why}")
    assert "; more training images like those of val; " in verdict


def test_a_gap_is_between_as_many_images_of_both_parts(tiny_run: TinyRun) -> None:
    """Val has 9 images, test 5: val is scored again on 5 of its own."""
    found = what_next(tiny_run.best, splits=["val", "test"], device="cpu")
    assert any("between as many images of both parts" in note for note in found.notes)
    (gap,) = found.gaps
    chosen = np.random.default_rng(0).permutation(9)[:5]
    config = tiny_config(tiny_run.config_path, None)
    dataset = open_split(config.data, "val").subset(sorted(chosen.tolist()))
    few = evaluate(tiny_run.best, dataset, device="cpu").numbers["AP50"]
    assert few != found.scores["val"][0]
    assert gap.value == pytest.approx(few - found.scores["test"][0])
    alone = what_next(tiny_run.best, splits=["val"], device="cpu")
    assert not any("as many images" in note for note in alone.notes)


def test_a_validation_part_of_the_training_images_is_of_their_kind() -> None:
    config = load_config("yolo_shapes", ["data.val_fraction=0.2"])
    variance = {
        own is None: next(gap for gap in gaps(levels(train=0.9, val=0.7), "AP50", None, own) if gap.name == "variance")
        for own in (config, None)
    }
    assert "another kind" not in variance[False].words
    assert "another kind" in variance[True].words


def test_the_scores_are_those_of_evaluate(tiny_run: TinyRun) -> None:
    found = what_next(tiny_run.best, human=0.9, train_dev=["data.val_split=test"], device="cpu")
    assert list(found.scores) == ["train", "train-dev", "val", "test"]
    for part, split in (("val", "val"), ("test", "test"), ("train-dev", "test")):
        number, low, high, num_images = found.scores[part]  # type: ignore[index]  # one of the keys
        result = tiny_run.evaluate(split=split)
        assert (number, num_images) == (result.numbers["AP50"], result.num_images)
        assert low <= number <= high
    assert found.scores["train"][3] == 9
    assert any(note.startswith("train: 9 of 16 images, as many as val has") for note in found.notes)
    values = {gap.name: gap.value for gap in found.gaps}
    assert set(values) == {"avoidable bias", "variance", "data mismatch", "overfitting to val"}
    assert values["avoidable bias"] == pytest.approx(0.9 - found.scores["train"][0])
    both = what_next(tiny_run.best, splits=["train", "val"], device="cpu").gaps
    (variance,) = (gap for gap in both if gap.name == "variance")
    assert variance.value == pytest.approx(found.scores["train"][0] - found.scores["val"][0])
    content = json.loads(json.dumps(found.to_dict()))
    assert content["verdict"] == found.verdict
    assert found.metric in rendered(found.table())


@pytest.mark.parametrize(("last", "longer"), [(0.504, False), (0.506, True)])
def test_a_run_still_rises_where_the_last_validation_is_better_by_more_than_noise(
    last: float, longer: bool, tiny_run: TinyRun, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run.run_dir, run)
    best = run / "checkpoints" / "best.ckpt"
    content = read_raw_checkpoint(best)
    content["detseg"]["config"]["trainer"]["max_epochs"] = load_model(best)[2].epoch
    save_atomically(content, best)
    (run / "metrics.csv").write_text(f"epoch,val/AP50\n5,0.3\n10,0.5\n11,\n15,{last}\n")
    bias = next(gap for gap in what_next(best, splits=["train"], device="cpu").gaps if gap.name == "avoidable bias")
    assert ("still rose" in bias.steps[0].why) is longer


def test_what_was_evaluated_already_is_not_evaluated_again(tiny_run: TinyRun) -> None:
    """Told by the images of another split."""
    model, _, contents = load_model(tiny_run.best)
    config = evaluation_config(contents.config, "tiny", ())
    dataset = open_split_for(config, "test", contents.classes, tiny_run.best)
    evaluator = evaluated(model, dataset, config, contents.classes, find_device("cpu"))
    assert isinstance(evaluator, DetectionEvaluator)
    samples = detection_samples(evaluator.records, evaluator.classes, evaluator.max_detections, evaluator.f1_iou)
    found = what_next(tiny_run.best, splits=["train", "val"], known={"val": (evaluator, samples)}, device="cpu")
    assert found.scores["val"][0] == tiny_run.evaluate(split="test").numbers["AP50"]
    both = what_next(tiny_run.best, splits=["val", "test"], known={"test": (evaluator, samples)}, device="cpu")
    ends = interval(found.scores["val"][0], samples.numbers["AP50"])
    assert both.scores["test"][1:3] == pytest.approx(np.clip(ends, 0, 1))  # as in all other reports


def test_a_class_that_is_not_in_the_images_is_not_called_unlearned() -> None:
    evaluator = SegmentationEvaluator(ClassTable(("road", "car", "tram")))
    evaluator.keep_images()
    true = np.zeros((8, 8), dtype=np.uint8)
    true[4:] = 1
    found = true.copy()
    found[:, 4:], found[0, 0] = 0, 2
    evaluator.update(found, true)
    low = evaluator.compute().by_class["IoU"]
    assert low[2] == 0
    assert classes_not_learned(evaluator, low) == ()
    found[4:] = 0
    evaluator.reset()
    evaluator.update(found, true)
    assert classes_not_learned(evaluator, evaluator.compute().by_class["IoU"]) == ("car",)


def test_a_train_dev_set_that_cannot_be_opened_is_an_error(tiny_run: TinyRun) -> None:
    with pytest.raises(DetsegError, match=r"nope\.txt"):
        what_next(tiny_run.best, train_dev=["data.val_split=nope"], device="cpu")


def test_of_label_maps_and_of_parts_that_are_missing(
    tiny_segmentation: TinyRun, tiny_instances: TinyRun, tmp_path: Path
) -> None:
    found = what_next(tiny_segmentation.best, splits=["train", "val"], device="cpu")
    assert (found.metric, list(found.scores)) == ("mIoU", ["train", "val"])
    assert found.scores["val"][0] == tiny_segmentation.evaluate().headline["mIoU"]
    masks = what_next(tiny_instances.best, metric="mask_AP", device="cpu")
    assert (masks.metric, list(masks.scores)) == ("mask_AP", ["train", "val"])
    assert any(note.startswith("test is left out: data.test_images") for note in masks.notes)


def test_wrong_arguments_are_one_line(tiny_run: TinyRun, tmp_path: Path) -> None:
    with pytest.raises(DetsegError, match=r"^human level: expected a number above 0 and up to 1, such as 0\.95, got"):
        what_next(tiny_run.best, human=95)
    with pytest.raises(DetsegError, match="there is no mIoU; choose from AP, AP50, AP75, F1"):
        what_next(tiny_run.best, metric="mIoU", device="cpu")
    shutil.copytree(tiny_run.data_root, tmp_path / "data")
    for path in (tmp_path / "data" / "ImageSets" / "Main").glob("*.txt"):
        path.unlink()
    content = read_raw_checkpoint(tiny_run.best)
    content["detseg"]["config"]["data"]["root"] = str(tmp_path / "data")
    save_atomically(content, tmp_path / "other.ckpt")
    with pytest.raises(DetsegError, match=r"nothing to score: train is left out"):
        what_next(tmp_path / "other.ckpt", device="cpu")
