from __future__ import annotations

import pytest
import torch

from detseg.structures import BoxTargets
from tests.models.rcnn.small import small_detector
from tests.models.targets import box_targets

GOOD = [10.0, 10.0, 40.0, 40.0]


@pytest.mark.parametrize("method", ["predict", "losses", "losses_and_predictions"])
def test_sides_that_the_coarsest_stride_does_not_divide_are_refused(method: str) -> None:
    model = small_detector(3, masks=False)
    images = torch.rand(1, 3, 64, 72)
    arguments = (images,) if method == "predict" else (images, [BoxTargets.empty()])
    with pytest.raises(
        ValueError, match=r"^images: expected sides that are multiples of 16 pixels, got 64 x 72; letterb"
    ):
        getattr(model, method)(*arguments)


def test_labels_learn_through_their_outputs() -> None:
    """A model of labels (0, 1) on outputs (3, 1) learns as one of outputs 1 to 3 whose labels are 2 and 0."""
    torch.manual_seed(0)
    dense, sparse = small_detector(4, masks=False).eval(), small_detector(4, False, output_of_label=(3, 1)).eval()
    sparse.load_state_dict(dense.state_dict())
    images, boxes = torch.rand(1, 3, 96, 96), [GOOD, [50.0, 50, 90, 80]]
    as_outputs = dense.losses(images, [box_targets(boxes, [2, 0])])
    assert sparse.losses(images, [box_targets(boxes, [0, 1])]) == as_outputs


def test_one_pass_serves_losses_and_predictions() -> None:
    model = small_detector(3, masks=False)
    passes = []
    for part in (model.backbone, model.neck, model.rpn.head):
        part.register_forward_hook(lambda module, inputs, output: passes.append(type(module).__name__))
    model.losses_and_predictions(torch.rand(1, 3, 64, 64), [box_targets([GOOD])])
    assert passes == ["Body", "TorchvisionFPN", "RPNHead"]


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
