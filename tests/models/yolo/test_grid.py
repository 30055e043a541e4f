"""YOLOv1 against assignments and losses worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detseg.models.yolo.grid import GridAssigner, GridScheme
from detseg.ops.boxes import matched_iou
from detseg.structures import BoxTargets
from tests.models.targets import Rows, box_targets, logit


def flat_map(num_images: int = 1) -> Tensor:
    """64 × 64 pixels, 2 × 2 cells, 2 boxes, 2 classes: sigmoids of 0.5, but confidences of 0.2."""
    raw = torch.zeros(num_images, 12, 2, 2)
    raw[:, [4, 9]] = logit(0.2)
    return raw


SCHEME = GridScheme(num_classes=2, stride=32, boxes_per_cell=2)
TARGET = box_targets([(8, 8, 40, 24, 1)])


def test_loss_of_one_object_and_one_empty_image() -> None:
    # Object: centre (24, 16) in cell 0, at (0.75, 0.5) of it; sides 32 and 16 of 64: square roots 0.70711 and 0.5.
    # Every box says: centre (0.5, 0.5) of its cell, square roots 0.5, so 16 pixels wide and high; that of cell 0 is
    # (8, 8, 24, 24), overlap 16 * 16 = 256, union 256 + 512 - 256 = 512, IoU 0.5.  The first of its two boxes wins.
    terms = SCHEME.losses([flat_map(2)], [TARGET, BoxTargets.empty()])
    expected = {
        "centre": 5 * 0.25**2 / 2,  # lambda_coord, and half as there are two images
        "size": 5 * (0.70710678 - 0.5) ** 2 / 2,
        "confidence": (0.2 - 0.5) ** 2 / 2,
        "no_object": 0.5 * (7 + 8) * 0.2**2 / 2,  # 8 boxes an image, one of them responsible
        "class": 2 * 0.5**2 / 2,  # two equal classes: (0.5 - 0)² + (0.5 - 1)²
    }
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, abs=1e-6)


def test_a_class_weight_counts_the_class_loss_of_its_objects() -> None:
    # Two objects of two cells, each with a class error of 2 · 0.5² = 0.5: times 4 for class 1, times 0.5 for class 0.
    targets = [box_targets([(8, 8, 40, 24, 1), (40, 40, 60, 60, 0)])]
    weighted = GridScheme(2, 32, 2, class_weights=torch.tensor([0.5, 4.0]))
    found, plain = (scheme.losses([flat_map()], targets) for scheme in (weighted, SCHEME))
    assert found["class"].item() == pytest.approx((4 + 0.5) * 0.5)
    assert all(torch.equal(found[name], plain[name]) for name in plain if name != "class")


def test_ignored_objects_leave_the_confidence_of_their_cells_alone() -> None:
    # (0, 0, 40, 20) covers the centre (16, 16) of cell 0, not (48, 16): 2 of 8 boxes are not punished.
    terms = SCHEME.losses([flat_map()], [box_targets([(0, 0, 40, 20, 0, True)])])
    assert terms["no_object"].item() == pytest.approx(0.5 * 6 * 0.04)
    assert sum(terms[name].item() for name in ("centre", "size", "confidence", "class")) == 0


def test_gradient_reaches_the_responsible_box_and_all_confidences_only() -> None:
    raw = flat_map().requires_grad_()
    torch.autograd.backward(list(SCHEME.losses([raw], [TARGET]).values()))
    assert raw.grad is not None
    gradient = raw.grad[0].flatten(1)  # (12, 4 cells)
    assert (gradient[[0, 2, 4, 10, 11], 0] != 0).all()  # x, w, confidence of the first box, both classes of cell 0
    assert (gradient[[4, 9]] != 0).all()
    gradient[[0, 2, 4, 10, 11], 0] = 0
    gradient[[4, 9]] = 0
    assert (gradient == 0).all()  # y and h of the object are met already; nothing else answers for it


def test_maps_built_for_a_box_decode_to_it() -> None:
    # Image of 64 rows and 96 columns.  Object (50, 6, 80, 42): centre (65, 24), cell row 0, column 2, at
    # (1 / 32, 0.75); sides 30 of 96 and 36 of 64, square roots 0.559017 and 0.75.
    raw = torch.full((1, 13, 2, 3), -4.0)
    raw[0, 5:10, 0, 2] = torch.tensor([logit(1 / 32), logit(0.75), logit(0.559017), logit(0.75), logit(0.9)])
    raw[0, 10:, 0, 2] = torch.tensor([0.7, 0.2, 0.1]).log()
    decoded = GridScheme(3, 32, 2).decode([raw])
    boxes, scores = decoded.boxes, decoded.scores
    assert boxes.shape == (1, 12, 4)
    at = 2 * 2 + 1  # second box of the third cell
    torch.testing.assert_close(boxes[0, at], torch.tensor([50.0, 6, 80, 42]), atol=1e-3, rtol=0)
    torch.testing.assert_close(scores[0, at], torch.tensor([0.63, 0.18, 0.09]))  # class × confidence
    assert scores[0].max() == scores[0, at].max()


def test_a_perfect_map_has_hardly_any_loss() -> None:
    raw = torch.full((1, 12, 2, 2), -12.0)
    raw[0, :5, 0, 0] = torch.tensor([logit(0.75), 0, logit(0.70710678), 0, 12.0])
    raw[0, 11, 0, 0] = 12.0
    assert matched_iou(SCHEME.decode([raw]).boxes[0, 0], TARGET.boxes[0]) > 0.9999
    assert sum(term.item() for term in SCHEME.losses([raw], [TARGET]).values()) < 1e-6


def test_objects_that_share_a_cell_are_reported() -> None:
    targets = box_targets([(8, 8, 40, 24, 1), (10, 10, 20, 20, 0)])
    with pytest.warns(UserWarning, match="YOLOv1 learns only the largest"):
        SCHEME.losses([flat_map()], [targets])


def predicted(num_images: int = 1, rows: int = 2, columns: int = 3) -> Tensor:
    """Two predicted boxes a cell, (0, 0, 1, 1) everywhere."""
    return torch.tensor([0.0, 0, 1, 1]).repeat(num_images, rows, columns, 2, 1)


def test_the_cell_of_the_centre_is_responsible() -> None:
    # Two rows and three columns of 10 pixels.  Centres: (25, 5) → row 0, column 2; (4, 16) → row 1, column 0 → cell 3.
    found = GridAssigner(10)([box_targets([(20, 0, 30, 10, 1)]), box_targets([(0, 14, 8, 18, 0)])], predicted(2))
    assert found.image.tolist() == [0, 1]
    assert (found.prior // 2).tolist() == [2, 3]  # two boxes a cell
    assert found.labels.tolist() == [1, 0]
    assert found.boxes.tolist() == [[20, 0, 30, 10], [0, 14, 8, 18]]
    assert found.num_unassigned == 0
    assert not found.ignored.any()


def test_centres_on_borders_go_right_and_down_but_not_out_of_the_image() -> None:
    rows: Rows = [
        (5, 0, 15, 10, 0),  # centre (10, 5), on the border of columns 0 and 1
        (28, 18, 32, 22, 0),  # centre (30, 20), the corner of the image: the last cell
    ]
    assert (GridAssigner(10)([box_targets(rows)], predicted()).prior // 2).tolist() == [1, 5]


def test_without_any_overlap_the_first_box_is_responsible() -> None:
    found = GridAssigner(10)([box_targets([(22, 12, 28, 18, 0)])], predicted())
    assert found.prior.tolist() == [2 * 5]


def test_the_largest_object_keeps_the_cell_and_the_others_are_counted() -> None:
    rows: Rows = [
        (4, 4, 6, 6, 0),  # cell 0, area 4: displaced
        (0, 0, 10, 10, 1),  # cell 0, area 100: keeps it
        (10, 0, 18, 10, 2),  # cell 1, area 80: keeps it, the first of equals
        (11, 0, 19, 10, 3),  # cell 1, area 80: displaced
    ]
    other_image: Rows = [(3, 3, 7, 7, 4)]  # cell 0 too, but of another image
    found = GridAssigner(10)([box_targets(rows), box_targets(other_image)], predicted(2))
    assert found.image.tolist() == [0, 0, 1]
    assert (found.prior // 2).tolist() == [0, 1, 0]
    assert found.labels.tolist() == [1, 2, 4]
    assert found.num_unassigned == 2


def test_a_counted_object_on_an_ignored_one_is_still_assigned() -> None:
    found = GridAssigner(10)([box_targets([(0, 0, 10, 10, 0, True), (1, 1, 5, 5, 2)])], predicted())
    assert found.prior.tolist() == [0]
    assert found.labels.tolist() == [2]
    assert found.num_unassigned == 0
    assert found.ignored[0].tolist() == [False, True] + [False] * 10  # the other box of the cell
