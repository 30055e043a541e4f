"""Each stage that can lose an object, planted by hand: the boxes before NMS are given, the cause and what to try are
known, and what is tried finds the object where that can be told without a training."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from detseg.config.load import config_from_dict, config_to_dict
from detseg.config.schema.experiment import ExperimentConfig
from detseg.explain.advice import Adviser
from detseg.explain.misses import Cause, ImageMisses, Miss, explain_misses
from detseg.explain.summary import MissSummary
from detseg.explain.trace import FirstStage, Limits, ObjectPriors, Trace
from detseg.models.rcnn.detector import RCNNDetector
from detseg.ops.letterbox import Letterbox
from detseg.structures import ClassTable
from tests.models.rcnn.small import small_detector
from tests.models.targets import Rows, box_targets

CLASSES = ClassTable(("cat", "dog"))
LIMITS = Limits(score_threshold=0.001, nms_iou=0.5, max_detections=100)
HERE, SHIFTED, BESIDE = (10, 10, 30, 30), (14, 10, 34, 30), (20, 10, 40, 30)
"""Of 20 x 20 pixels each; IoU of the first with the second 320 / 480, with the third 200 / 600."""


def trace_of(boxes: Rows, scores: Sequence[Sequence[float]], num_objects: int, **parts: Any) -> Trace:
    """Boxes that both classes share, with the scores of both, and objects that have a prior each."""
    ones = torch.ones(num_objects, dtype=torch.int64)
    given = {"limits": LIMITS, "priors": ObjectPriors("points lie inside it", 9 * ones, ones), "stride": 8} | parts
    return Trace(torch.tensor(boxes).float().reshape(-1, 1, 4), torch.tensor(scores).float().reshape(-1, 2), **given)


def explained(trace: Trace, objects: Rows, threshold: float = 0.3, hw: tuple[int, int] = (64, 64)) -> ImageMisses:
    """Of an image of ``hw`` pixels in a network input of 64 x 64."""
    return explain_misses(trace, box_targets(objects), Letterbox.fit(hw, (64, 64)), CLASSES, threshold)


def missed(trace: Trace, objects: Rows, threshold: float = 0.3) -> Miss:
    (miss,) = explained(trace, objects, threshold).misses
    assert miss.lines()
    return miss


def config_of(model: dict[str, Any], image_size: Any = 64) -> ExperimentConfig:
    data = {"name": "voc", "root": "nowhere", "image_size": image_size}
    return config_from_dict({"model": model, "data": data}, "settings")


def advice(miss: Miss, model: dict[str, Any] | None = None, network: object = None) -> str:
    """What to try, which is a setting of the schema and goes with the other settings."""
    config = config_of(model or {"name": "yolo"})
    setting = Adviser(config, network).setting([miss])
    if not setting.name.startswith("--"):
        config_from_dict(config_to_dict(config), "settings", [str(setting)])
    return str(setting)


def test_found_missed_and_ignored_objects_are_told_apart() -> None:
    objects = [(*HERE, 0, False), (40, 40, 60, 60, 1, False), (0, 0, 20, 20, 1, True)]
    found = explained(trace_of([(10, 10, 30, 28)], [(0.9, 0.1)], 3), objects)
    assert list(found.found) == [0]
    assert (found.found[0].name, found.found[0].score) == ("cat", pytest.approx(0.9))
    assert found.found[0].iou == pytest.approx(0.9)
    assert [miss.index for miss in found.misses] == [1]
    assert found.ignored == (2,)


def test_nothing_was_seen() -> None:
    miss = missed(trace_of([HERE], [(0.04, 0.2)], 1), [(*HERE, 0)])
    assert (miss.cause, miss.own and miss.own.score) == (Cause.UNSEEN, pytest.approx(0.04))
    assert miss.best is not None
    assert (miss.best.name, miss.best.iou) == ("dog", pytest.approx(1))
    assert missed(trace_of([], [], 1), [(*HERE, 0)]).own is None
    assert advice(miss) == "trainer.max_epochs=200"


def test_training_would_not_learn_it() -> None:
    priors = ObjectPriors("points lie inside it", torch.tensor([9]), torch.tensor([0]))
    miss = missed(trace_of([HERE], [(0.01, 0.01)], 1, priors=priors), [(*HERE, 0)])
    assert (miss.cause, miss.num_assigned, miss.priors) == (Cause.UNASSIGNED, 0, "9 points lie inside it")
    assert advice(miss) == "data.image_size=96"
    assert advice(miss, {"name": "yolo", "head": {"name": "grid"}}) == "model.head.stride=16"
    assert advice(miss, {"name": "yolo", "head": {"name": "anchor"}}) == "model.head.anchors_per_level=4"


def test_it_is_too_small_in_the_network_input() -> None:
    # 16 x 9 pixels of an image of 128 x 128 are 8 x 4.5 of the input: the root of the area is 6.
    (miss,) = explained(trace_of([HERE], [(0.2, 0)], 1), [(20, 20, 36, 29, 0)], hw=(128, 128)).misses
    assert (miss.cause, miss.width, miss.height) == (Cause.SMALL, pytest.approx(8), pytest.approx(4.5))
    assert miss.measure == pytest.approx(6)
    assert advice(miss) == "data.image_size=96"  # 64 · 8 / 6 = 85.3, and a multiple of 32


def test_its_score_is_too_low() -> None:
    trace = trace_of([HERE], [(0.237, 0.1)], 1)
    miss = missed(trace, [(*HERE, 0)])
    assert (miss.cause, advice(miss)) == (Cause.LOW_SCORE, "--score 0.23")
    assert explained(trace, [(*HERE, 0)], threshold=0.23).misses == ()
    strict = replace(trace, limits=replace(LIMITS, score_threshold=0.5))
    miss = missed(strict, [(*HERE, 0)], threshold=0.2)
    assert "below 0.5 (model.score_threshold)" in miss.detail
    assert advice(miss, {"name": "yolo", "score_threshold": 0.5}) == "model.score_threshold=0.23"


def test_a_box_of_its_class_lies_beside_it() -> None:
    miss = missed(trace_of([BESIDE], [(0.8, 0)], 1), [(*HERE, 0)])
    assert (miss.cause, miss.own) == (Cause.MISPLACED, None)
    assert "(score 0.80) lies beside it: IoU 0.33" in miss.detail
    assert advice(miss) == "model.head.box_weight=20.0"
    assert advice(miss, {"name": "yolo", "head": {"name": "grid"}}) == "model.head.coordinate_weight=10.0"
    assert advice(miss, {"name": "faster_rcnn"}) == "model.roi_heads.box_loss.weight=2.0"
    # That of a neighbour is not one of this object.
    found = explained(trace_of([BESIDE], [(0.8, 0)], 2), [(*HERE, 0), (*BESIDE, 0)])
    assert [(miss.index, miss.cause) for miss in found.misses] == [(0, Cause.UNSEEN)]


def test_nms_prefers_a_box_that_lies_beside_it() -> None:
    # (10, 10, 30, 30) with (17, 10, 37, 30): 260 / 540, below 0.5; with (16, 10, 36, 30): 280 / 520, above it.
    miss = missed(trace_of([(17, 10, 37, 30), (16, 10, 36, 30)], [(0.9, 0), (0.8, 0)], 1), [(*HERE, 0)])
    assert (miss.cause, miss.own and miss.own.iou) == (Cause.MISPLACED, pytest.approx(280 / 520))


def test_it_was_taken_for_another_class() -> None:
    miss = missed(trace_of([HERE], [(0.1, 0.7)], 1), [(*HERE, 0)])
    assert (miss.cause, advice(miss)) == (Cause.CONFUSED, "model.head.class_weight=2.0")
    assert miss.detail == "found as dog (score 0.70); its own class has 0.100 there"
    assert advice(miss, {"name": "faster_rcnn"}) == "trainer.max_epochs=200"
    # A dog that is really there is no confusion.
    (miss,) = explained(trace_of([HERE], [(0.1, 0.7)], 2), [(*HERE, 0), (*SHIFTED, 1)]).misses
    assert miss.cause is Cause.LOW_SCORE


def test_nms_dropped_its_box_for_that_of_a_neighbour() -> None:
    trace, objects = trace_of([HERE, SHIFTED], [(0.8, 0), (0.9, 0)], 2), [(*HERE, 0), (*SHIFTED, 0)]
    miss = missed(trace, objects)
    assert (miss.index, miss.cause, miss.measure) == (0, Cause.SUPPRESSED, pytest.approx(2 / 3))
    assert "box (score 0.80) for one on object 1 (score 0.90): their IoU is 0.67, above 0.5" in miss.detail
    assert advice(miss) == "model.nms_iou=0.7"
    assert explained(replace(trace, limits=replace(LIMITS, nms_iou=0.7)), objects).misses == ()


def test_its_box_is_that_of_a_neighbour() -> None:
    objects = [(*HERE, 0), (*SHIFTED, 0)]
    miss = missed(trace_of([SHIFTED], [(0.9, 0)], 2), objects)
    assert (miss.cause, miss.detail) == (Cause.SHARED, "its box (score 0.90) is on object 1, too, which has it")
    assert advice(miss) == "data.image_size=96"
    # A box between the two has an IoU of 18 / 22 with either: not another one that NMS should have kept.
    near = [(12, 10, 32, 30), SHIFTED]
    assert missed(trace_of(near, [(0.5, 0), (0.9, 0)], 2), objects).cause is Cause.SHARED


def test_better_detections_fill_the_image() -> None:
    trace = trace_of([HERE, (40, 40, 60, 60), (0, 40, 20, 60)], [(0.5, 0), (0.9, 0), (0, 0.6)], 1)
    miss = missed(replace(trace, limits=replace(LIMITS, max_detections=2)), [(*HERE, 0)])
    assert (miss.cause, miss.measure) == (Cause.CUT, 3)
    assert miss.detail == "its box (score 0.50) is number 3, and 2 are kept"
    assert advice(miss) == "model.max_detections=100"
    assert explained(replace(trace, limits=replace(LIMITS, max_detections=3)), [(*HERE, 0)]).misses == ()


def first_stage(boxes: Rows, scores: Sequence[float], proposals: Rows) -> tuple[RCNNDetector, FirstStage]:
    """Of a detector whose first stage takes the best 40 anchors of a level and keeps 30 proposals; two levels."""
    detector = small_detector(3, masks=False)
    sizes = [len(boxes) - 1, 1]
    return detector, FirstStage(detector.rpn, _rows(boxes), torch.tensor(scores), sizes, _rows(proposals))


def _rows(boxes: Rows) -> Tensor:
    return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)


ELSEWHERE = (40, 40, 60, 60)
RCNN = {"name": "faster_rcnn"}


@pytest.mark.parametrize(
    ("boxes", "scores", "proposals", "anchor_iou", "cause", "tried"),
    [
        ([ELSEWHERE] * 2, [0.9, 0.5], [ELSEWHERE], 0.4, Cause.NO_ANCHOR, "model.rpn.anchor_sizes=[[12.0,17.0],"),
        ([ELSEWHERE] * 2, [0.9, 0.5], [ELSEWHERE], 0.8, Cause.NOT_PROPOSED, "trainer.max_epochs=200"),
        (
            [HERE, *[ELSEWHERE] * 41],
            [0.1] + [0.5] * 41,
            [ELSEWHERE],
            0.8,
            Cause.ANCHOR_CUT,
            "model.rpn.pre_nms_top_n=80",
        ),
        ([HERE, ELSEWHERE], [0.1, 0.5], [ELSEWHERE] * 30, 0.8, Cause.PROPOSAL_CUT, "model.rpn.post_nms_top_n=60"),
        ([HERE, ELSEWHERE], [0.1, 0.5], [ELSEWHERE], 0.8, Cause.PROPOSAL_NMS, "model.rpn.nms_iou=0.85"),
        ([HERE, ELSEWHERE], [0.1, 0.5], [SHIFTED], 0.8, Cause.UNSEEN, "trainer.max_epochs=200"),
    ],
)
def test_the_first_stage_lost_it(
    boxes: Rows, scores: list[float], proposals: Rows, anchor_iou: float, cause: Cause, tried: str
) -> None:
    detector, stage = first_stage(boxes, scores, proposals)
    priors = ObjectPriors("anchors overlap it", torch.tensor([1]), torch.tensor([1]), torch.tensor([anchor_iou]))
    trace = trace_of([ELSEWHERE], [(0.9, 0)], 1, priors=priors, first_stage=stage)
    miss = missed(trace, [(*HERE, 0)])
    assert miss.cause is cause
    assert miss.proposal_iou == pytest.approx(2 / 3 if cause is Cause.UNSEEN else 0)
    assert advice(miss, RCNN, detector).startswith(tried)


def test_anchors_shrink_for_objects_below_the_smallest() -> None:
    detector, stage = first_stage([ELSEWHERE] * 2, [0.9, 0.5], [ELSEWHERE])
    priors = ObjectPriors("anchors overlap it", torch.tensor([0]), torch.tensor([1]), torch.tensor([0.4]))
    trace = trace_of([ELSEWHERE], [(0.9, 0)], 1, priors=priors, first_stage=stage)
    miss = missed(trace, [(10, 10, 19, 19, 0)])  # 9 pixels, and the smallest anchor has 12
    assert advice(miss, RCNN, detector) == "model.rpn.anchor_sizes=[[9.0],[18.0],[36.0],[60.0]]"
    assert advice(miss, RCNN | {"variant": "resnet50_fpn"}, detector) == "data.image_size=96"


def miss_of(cause: Cause, measure: float) -> Miss:
    trace = trace_of([HERE], [(0.04, 0)], 1)
    return replace(missed(trace, [(*HERE, 0)]), cause=cause, measure=measure)


NONE = np.zeros(0)


def test_a_split_in_numbers() -> None:
    causes = [(Cause.SMALL, 2.0), (Cause.LOW_SCORE, 0.1), (Cause.SMALL, 6.0), (Cause.SMALL, 7.0), (Cause.UNSEEN, 0.0)]
    misses = tuple((f"{i % 2}.jpg", miss_of(*row)) for i, row in enumerate(causes))
    adviser = Adviser(config_of({"name": "yolo"}, [64, 128]), None)
    summary = MissSummary.of(4, 20, 0.3, misses, adviser, np.array([0.9] * 15 + [0.1]), np.array([0.5]))
    assert [(row.cause, row.count, row.fraction) for row in summary.causes] == [
        (Cause.SMALL, 3, 0.6),
        (Cause.LOW_SCORE, 1, 0.2),
        (Cause.UNSEEN, 1, 0.2),
    ]
    assert summary.causes[0].sentence == "60 % of the misses are below 8 px after resizing"
    # 8 pixels for one of 6, the middle one: 64 · 8 / 6 = 85.3 and 170.7
    assert str(summary.recommended) == "data.image_size=[96,192]"
    assert summary.lines() == [
        "missed with a score of 0.3: 5 of 20 objects in 4 images; most in 0.jpg (3), 1.jpg (2)",
        "60 % of the misses are below 8 px after resizing; try data.image_size=[96,192]",
        # 30 / 36 and 32 / 37
        "--score 0.10 finds 1 object more, with 0 wrong detections more: F1 0.833 now, 0.865 then",
    ]
    empty = MissSummary.of(4, 20, 0.3, (), adviser, NONE, NONE)
    assert (empty.recommended, empty.lines()) == (None, ["missed with a score of 0.3: 0 of 20 objects in 4 images"])


@pytest.mark.parametrize(
    ("wrong", "f1", "recommended", "line"),
    [
        # Right from 0.3 on: 2 of 5 objects, with 1 wrong; at 0.15 2 more are right, and 1 or 11 more are wrong.
        ([0.4, 0.2], (4 / 8, 8 / 11), "--score 0.15", "1 wrong detection more: F1 0.500 now, 0.727 then"),
        (
            [0.4, *[0.2] * 11],
            (4 / 8, 8 / 21),
            "trainer.max_epochs=200",
            "11 wrong detections more: F1 0.500 now, 0.",
        ),
    ],
)
def test_a_lower_score_is_recommended_only_if_f1_rises(
    wrong: list[float], f1: tuple[float, float], recommended: str, line: str
) -> None:
    misses = [miss_of(Cause.LOW_SCORE, 0.155), miss_of(Cause.LOW_SCORE, 0.155), miss_of(Cause.UNSEEN, 0.0)]
    adviser, right = Adviser(config_of({"name": "yolo"}), None), np.array([0.9, 0.5, 0.155, 0.155])
    found = MissSummary.of(1, 5, 0.3, tuple(("a.jpg", miss) for miss in misses), adviser, right, np.array(wrong))
    assert found.lower_score is not None
    assert found.lower_score.f1 == pytest.approx(f1)
    assert (found.lower_score.found, found.lower_score.wrong) == (2, len(wrong) - 1)
    assert str(found.recommended) == found.to_dict()["recommended"] == recommended
    lines = found.lines()
    assert lines[1].endswith(f"; try {recommended}")
    assert f"--score 0.15 finds 2 objects more, with {line}" in lines[2]
    assert ("(lowers F1)" in found.html()) is (f1[1] < f1[0])
    # 0.9 and 0.5 alone: 4 / 7; with what scores 0.155: 8 / 11, which is the best, and needs no second number.
    assert ("the best is 0.571, at 0.50" in lines[2]) is (len(wrong) > 2)
    assert ("the best is" in lines[2]) is (len(wrong) > 2)
    alone = MissSummary.of(1, 5, 0.3, tuple(("a.jpg", miss) for miss in misses[:2]), adviser, right, np.array(wrong))
    assert (alone.recommended is None) is (f1[1] < f1[0])


def test_the_score_to_try_is_the_best_one() -> None:
    """At 0.15 half of the misses are found, and F1 falls from 4 / 9 to 10 / 23; at 0.25 it is 6 / 10."""
    misses = [miss_of(Cause.LOW_SCORE, score) for score in (0.155, 0.155, 0.25)]
    adviser, wrong = Adviser(config_of({"name": "yolo"}), None), np.array([0.4, *[0.18] * 11])
    right = np.array([0.9, 0.5, 0.25, 0.155, 0.155])
    found = MissSummary.of(1, 6, 0.3, tuple(("a.jpg", miss) for miss in misses), adviser, right, wrong)
    assert str(found.recommended) == "--score 0.25"
    assert found.lines()[2] == (
        "--score 0.25 finds 1 object more, with 0 wrong detections more: F1 0.444 now, 0.600 then"
    )
    assert "lowers F1" not in found.html()


def test_the_table_cuts_no_setting_at_80_columns() -> None:
    adviser = Adviser(config_of(RCNN), small_detector(3, masks=False))
    misses = tuple(("a.jpg", miss_of(cause, 2.0)) for cause in (Cause.MISPLACED, Cause.PROPOSAL_CUT, Cause.NO_ANCHOR))
    summary = MissSummary.of(1, 5, 0.3, misses, adviser, NONE, NONE)
    console = Console(width=80, file=io.StringIO())
    with console.capture() as shown:
        console.print(summary.table())
    assert "…" not in shown.get()
    cells = "".join(line[43:].strip() for line in shown.get().splitlines())
    assert all(str(row.setting) in cells for row in summary.causes)
    assert max(map(len, shown.get().splitlines())) <= 80


def test_every_cause_has_a_sentence() -> None:
    config, detector = config_of(RCNN), small_detector(3, masks=False)
    for cause in Cause:
        miss = miss_of(cause, 0.6)
        summary = MissSummary.of(1, 1, 0.3, (("a.jpg", miss),), Adviser(config, detector), NONE, NONE)
        assert summary.causes[0].sentence.startswith("100 % of the misses ")
        assert summary.to_dict()["misses"][0]["cause"] == cause
        advice(miss, RCNN, detector)
        for head in ("grid", "anchor", "task_aligned"):
            advice(miss, {"name": "yolo", "head": {"name": head}})
