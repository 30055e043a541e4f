from __future__ import annotations

import math

import pytest
import torch

from detseg.structures import BoxTargets
from tests.models.rcnn.small import small_detector, spread_outputs
from tests.models.targets import box_targets

GOOD = [10.0, 10.0, 40.0, 40.0]


@pytest.mark.parametrize(
    "bad",
    [[30.0, 10.0, 30.0, 40.0], [10.0, 41.0, 40.0, 40.0], [10.0, math.nan, 40.0, 40.0], [-math.inf, 10.0, 40.0, 40.0]],
    ids=["no width", "corners swapped", "not a number", "infinite"],
)
def test_a_box_without_area_is_an_error_that_says_where(bad: list[float]) -> None:
    model = small_detector(3, masks=False)
    targets = [box_targets([GOOD]), box_targets([GOOD, bad, bad])]
    for losses in (model.losses, model.losses_and_predictions):
        with pytest.raises(ValueError, match="image 1 of the batch, box 1: expected finite") as error:
            losses(torch.rand(2, 3, 64, 64), targets)
        assert str(error.value).endswith(f"got {bad}")


@pytest.mark.parametrize("method", ["predict", "losses", "losses_and_predictions"])
def test_sides_that_the_coarsest_stride_does_not_divide_are_refused(method: str) -> None:
    model = small_detector(3, masks=False)
    images = torch.rand(1, 3, 64, 72)
    arguments = (images,) if method == "predict" else (images, [BoxTargets.empty()])
    with pytest.raises(
        ValueError, match=r"^images: expected sides that are multiples of 16 pixels, got 64 x 72; letterb"
    ):
        getattr(model, method)(*arguments)


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_that_are_no_class_are_refused(label: int) -> None:
    with pytest.raises(ValueError, match=rf"^targets: expected labels from 0 to 1, got {label}$"):
        small_detector(3, masks=False).losses(torch.rand(1, 3, 64, 64), [box_targets([GOOD], [label])])


def test_each_image_has_targets() -> None:
    with pytest.raises(ValueError, match=r"^targets: expected one entry for each of 2 images, got 1$"):
        small_detector(3, masks=False).losses(torch.rand(2, 3, 64, 64), [BoxTargets.empty()])


@pytest.mark.parametrize("outputs", [(1, 1), (0, 1)])
def test_outputs_of_labels_differ_and_are_not_background(outputs: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"output_of_label: expected different numbers of at least 1, got \("):
        small_detector(3, masks=False, output_of_label=outputs)


def test_labels_learn_and_speak_through_their_outputs() -> None:
    """A model of labels (0, 1) on outputs (3, 1) is the model of outputs 1 to 3 seen through other labels."""
    torch.manual_seed(0)
    dense = small_detector(4, masks=False, score_threshold=0.01, max_detections=1000)
    spread_outputs(dense)
    sparse = small_detector(4, False, output_of_label=(3, 1), score_threshold=0.01, max_detections=1000)
    assert set(sparse.state_dict()) == set(dense.state_dict())
    sparse.load_state_dict(dense.state_dict())
    dense.eval()
    sparse.eval()
    images = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))

    boxes = [GOOD, [50.0, 50, 90, 80]]
    as_outputs = dense.losses(images, [box_targets(boxes, [2, 0])])
    assert sparse.losses(images, [box_targets(boxes, [0, 1])]) == as_outputs

    (all_found,), (found,) = dense.predict(images), sparse.predict(images)
    label_of_output = torch.tensor([1, -1, 0])
    expected = all_found[label_of_output[all_found.labels] >= 0]
    assert 0 < len(expected) < len(all_found)
    assert found.labels.tolist() == label_of_output[expected.labels].tolist()
    assert torch.equal(found.boxes, expected.boxes)
    assert torch.equal(found.scores, expected.scores)


def test_one_pass_serves_losses_and_predictions() -> None:
    model = small_detector(3, masks=False)
    passes = []
    for part in (model.backbone, model.neck, model.rpn.head):
        part.register_forward_hook(lambda module, inputs, output: passes.append(type(module).__name__))
    model.losses_and_predictions(torch.rand(1, 3, 64, 64), [box_targets([GOOD])])
    assert passes == ["Body", "Pyramid", "RPNHead"]


def test_proposals_of_training_and_of_prediction_are_counted_apart() -> None:
    model = small_detector(3, masks=False, batch_size_per_image=10_000)
    seen = []
    model.roi_heads.box_pool.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[1][0])))
    model.rpn.nms_iou = 1.0  # nothing is suppressed
    with torch.no_grad():
        model.rpn.head.bbox_pred.weight.zero_()
    for training in (True, False):
        model.train(training).losses_and_predictions(torch.rand(1, 3, 128, 128), [box_targets([GOOD])])
    # 80 proposals and the object itself for the losses, 30 for the predictions, whatever the mode.
    assert seen[1::2] == [30, 30]
    assert all(70 < num <= 81 for num in seen[::2])


def test_raw_maps_have_a_level_more_than_the_neck() -> None:
    maps = small_detector(3, masks=False)(torch.rand(2, 3, 64, 96))
    assert [tuple(raw.shape) for raw in maps] == [(2, 15, *hw) for hw in [(16, 24), (8, 12), (4, 6), (2, 3)]]
