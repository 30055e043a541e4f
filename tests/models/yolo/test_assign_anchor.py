"""AnchorAssigner against assignments worked out by hand, and its matching against the definition of a stable one."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detseg.models.yolo.assign_anchor import AnchorAssigner, AnchorAssignment, match_anchors, shape_iou
from detseg.structures import BoxTargets

Rows = list[tuple[float, float, float, float, int, bool]]

# An image of 32 × 32 pixels: 4 × 4 cells of 8 pixels (priors 0..31), 2 × 2 cells of 16 pixels (priors 32..39).
ANCHORS = torch.tensor([[[4.0, 4], [8, 4]], [[16, 16], [10, 20]]])
GRIDS = [(4, 4), (2, 2)]


def box_targets(rows: Rows) -> BoxTargets:
    return BoxTargets(
        torch.tensor([row[:4] for row in rows], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([row[4] for row in rows], dtype=torch.int64),
        torch.tensor([row[5] for row in rows], dtype=torch.bool),
    )


def predicted(num_images: int = 1) -> Tensor:
    """Predicted boxes that touch no object."""
    return torch.tensor([31.0, 31, 32, 32]).repeat(num_images, 40, 1)


def assign(*images: Rows, boxes: Tensor | None = None, ignore_iou: float = 0.5) -> AnchorAssignment:
    targets = [box_targets(rows) for rows in images]
    return AnchorAssigner((8, 16), ignore_iou)(
        targets, ANCHORS, GRIDS, predicted(len(images)) if boxes is None else boxes
    )


def test_shape_iou_moves_the_boxes_onto_each_other() -> None:
    # 8 × 4 against 4 × 8: 16 of 48; against 8 × 4: all; against 16 × 16: 32 of 256.
    iou = shape_iou(torch.tensor([[8.0, 4]]), torch.tensor([[4.0, 8], [8, 4], [16, 16]]))
    torch.testing.assert_close(iou, torch.tensor([[1 / 3, 1, 0.125]]))


def test_the_best_shape_over_all_levels_is_responsible_in_the_cell_of_the_centre() -> None:
    # 8 × 4 at centre (10, 11): second anchor of the fine level, row 1, column 1: prior 2 * (1 * 4 + 1) + 1 = 11.
    # 16 × 16 at centre (16, 16): first anchor of the coarse level, row 1, column 1: prior 32 + 2 * (1 * 2 + 1) = 38.
    found = assign([(6, 9, 14, 13, 1, False)], [(8, 8, 24, 24, 0, False)])
    assert found.image.tolist() == [0, 1]
    assert found.prior.tolist() == [11, 38]
    assert found.labels.tolist() == [1, 0]
    assert found.boxes.tolist() == [[6, 9, 14, 13], [8, 8, 24, 24]]
    assert found.num_displaced == 0
    assert not found.left_alone.any()


def test_a_centre_on_the_image_border_belongs_to_the_last_cell() -> None:
    assert assign([(28, 30, 36, 34, 0, False)]).prior.tolist() == [2 * 15 + 1]


def test_a_cell_may_hold_several_objects_of_different_shape() -> None:
    # Both centres (20, 20), coarse cell 3: 16 × 16 → 38, 10 × 20 → 39.
    assert assign([(12, 12, 28, 28, 0, False), (15, 10, 25, 30, 1, False)]).prior.tolist() == [38, 39]


def test_the_better_shape_keeps_the_prior_and_the_other_takes_its_next_best() -> None:
    # Coarse cell 3 twice.  15 × 15 against 16 × 16: 225 / 256; against 10 × 20: 150 / 275; against 8 × 4: 32 / 225.
    # 16 × 16 against 16 × 16: 1.  So the second object keeps prior 38 and the first one moves to 39.
    found = assign([(13, 13, 28, 28, 0, False), (12, 12, 28, 28, 1, False)])
    assert found.prior.tolist() == [39, 38]
    assert found.num_displaced == 0


def test_a_moved_object_may_push_out_a_worse_one() -> None:
    # Coarse cell 3, centres (20, 20).  A 16 × 16 fits 38 with 1.  B 15 × 15 fits 38 with .879, 39 with .545.
    # C 4 × 20 fits 39 with 80 / 200 = .4, 38 with 64 / 272 = .235, then 8 × 4 with 16 / 96 = .167 and 4 × 4 with .2.
    # A keeps 38; B moves to 39, where it beats C; C loses 38 to A too and takes 4 × 4 of fine row 2, column 2, cell
    # 10: prior 20.
    found = assign([(12, 12, 28, 28, 0, False), (12.5, 12.5, 27.5, 27.5, 1, False), (18, 10, 22, 30, 2, False)])
    assert found.prior.tolist() == [38, 39, 20]


def test_of_equal_objects_the_first_is_first_and_the_surplus_is_counted() -> None:
    # Five times the same 8 × 4 at (10, 11): fine cell 5 has priors 10 and 11, coarse cell 0 has 32 and 33.
    # Shape IoU: 8 × 4: 1; 4 × 4: .5; 16 × 16: 32 / 256 = .125; 10 × 20: 32 / 200 = .16.
    found = assign([(6, 9, 14, 13, label, False) for label in range(5)])
    assert found.prior.tolist() == [11, 10, 33, 32]
    assert found.labels.tolist() == [0, 1, 2, 3]
    assert found.num_displaced == 1


def test_priors_whose_predicted_box_overlaps_are_left_alone() -> None:
    boxes = predicted(2)
    boxes[0, 3] = torch.tensor([8.0, 8, 24, 16])  # 128 / 256 of the object: not more than 0.5
    boxes[0, 4] = torch.tensor([8.0, 8, 24, 17])  # 144 / 256: left alone
    boxes[0, 38] = torch.tensor([8.0, 8, 24, 24])  # responsible: positive
    boxes[1, 4] = boxes[0, 4]  # no object in that image
    found = assign([(8, 8, 24, 24, 0, False)], [], boxes=boxes)
    assert found.prior.tolist() == [38]
    assert found.left_alone.nonzero().tolist() == [[0, 4]]


def test_ignored_objects_are_no_positives_and_excuse_the_boxes_that_lie_in_them() -> None:
    boxes = predicted()
    boxes[0, 3] = torch.tensor([1.0, 1, 3, 3])  # wholly inside; its IoU is only 4 / 400
    boxes[0, 4] = torch.tensor([16.0, 0, 24, 10])  # half inside: not more than 0.5
    boxes[0, 5] = torch.tensor([15.0, 0, 24, 10])  # 5 of 9 inside
    boxes[0, 6] = torch.tensor([5.0, 5, 5, 5])  # no area
    found = assign([(0, 0, 20, 20, 1, True)], boxes=boxes)
    assert len(found.prior) == 0
    assert found.num_displaced == 0
    assert found.left_alone.nonzero().tolist() == [[0, 3], [0, 5]]


def test_a_positive_stays_positive_inside_an_ignored_object() -> None:
    boxes = predicted()
    boxes[0, 38] = torch.tensor([8.0, 8, 24, 24])
    found = assign([(0, 0, 32, 30, 1, True), (8, 8, 24, 24, 0, False)], boxes=boxes)
    assert found.prior.tolist() == [38]
    assert not found.left_alone[0, 38]


def test_no_objects() -> None:
    found = assign([], [])
    assert len(found.prior) == 0
    assert found.boxes.shape == (0, 4)
    assert found.left_alone.shape == (2, 40)


@settings(max_examples=150, deadline=None)
@given(num=st.integers(0, 12), num_anchors=st.integers(1, 4), seed=st.integers(0, 10_000))
def test_matching_is_stable_and_complete(num: int, num_anchors: int, seed: int) -> None:
    """No object and prior prefer each other to what they have, and nobody goes without while a prior is free."""
    generator = torch.Generator().manual_seed(seed)
    quality = torch.rand(num, num_anchors, generator=generator)
    cells = torch.randint(0, 3, (num, 1), generator=generator)
    priors = cells * num_anchors + torch.arange(num_anchors)
    anchor = match_anchors(priors, quality).tolist()
    holder = {int(priors[i, a]): i for i, a in enumerate(anchor) if a >= 0}
    assert len(holder) == sum(a >= 0 for a in anchor)  # nobody shares
    for i, own in enumerate(anchor):
        for a in range(num_anchors):
            if own >= 0 and quality[i, a] <= quality[i, own]:
                continue
            other = holder.get(int(priors[i, a]))
            assert other is not None
            assert quality[other, anchor[other]] >= quality[i, a]
