"""GridAssigner against assignments worked out by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from detseg.models.yolo.assign_grid import GridAssigner
from detseg.structures import BoxTargets

Rows = list[tuple[float, float, float, float, int, bool]]


def box_targets(rows: Rows) -> BoxTargets:
    return BoxTargets(
        torch.tensor([row[:4] for row in rows], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([row[4] for row in rows], dtype=torch.int64),
        torch.tensor([row[5] for row in rows], dtype=torch.bool),
    )


def predicted(num_images: int = 1, rows: int = 2, columns: int = 3) -> Tensor:
    """Two predicted boxes a cell, (0, 0, 1, 1) everywhere."""
    return torch.tensor([0.0, 0, 1, 1]).repeat(num_images, rows, columns, 2, 1)


def test_the_cell_of_the_centre_is_responsible() -> None:
    # Two rows and three columns of 10 pixels.  Centres: (25, 5) → row 0, column 2; (4, 16) → row 1, column 0 → cell 3.
    found = GridAssigner(10)(
        [box_targets([(20, 0, 30, 10, 1, False)]), box_targets([(0, 14, 8, 18, 0, False)])], predicted(2)
    )
    assert found.image.tolist() == [0, 1]
    assert found.cell.tolist() == [2, 3]
    assert found.labels.tolist() == [1, 0]
    assert found.boxes.tolist() == [[20, 0, 30, 10], [0, 14, 8, 18]]
    assert found.num_displaced == 0
    assert not found.excluded.any()


def test_centres_on_borders_go_right_and_down_but_not_out_of_the_image() -> None:
    rows: Rows = [
        (5, 0, 15, 10, 0, False),  # centre (10, 5), on the border of columns 0 and 1
        (28, 18, 32, 22, 0, False),  # centre (30, 20), the corner of the image: the last cell
    ]
    assert GridAssigner(10)([box_targets(rows)], predicted()).cell.tolist() == [1, 5]


def test_the_box_of_best_current_iou_in_the_cell_is_responsible() -> None:
    boxes = predicted()
    # Object (0, 0, 10, 8), centre (5, 4), cell 0.  First box (0, 0, 5, 8): 40 / 80; second (0, 0, 10, 10): 80 / 100.
    boxes[0, 0, 0] = torch.tensor([[0.0, 0, 5, 8], [0, 0, 10, 10]])
    boxes[0, 0, 1, 0] = torch.tensor([0.0, 0, 10, 8])  # perfect, but of another cell
    found = GridAssigner(10)([box_targets([(0, 0, 10, 8, 0, False)])], boxes)
    assert found.cell.tolist() == [0]
    assert found.slot.tolist() == [1]
    torch.testing.assert_close(found.iou, torch.tensor([0.8]))


def test_without_any_overlap_the_first_box_is_responsible() -> None:
    found = GridAssigner(10)([box_targets([(22, 12, 28, 18, 0, False)])], predicted())
    assert (found.slot.tolist(), found.iou.tolist()) == ([0], [0])


def test_the_largest_object_keeps_the_cell_and_the_others_are_counted() -> None:
    rows: Rows = [
        (4, 4, 6, 6, 0, False),  # cell 0, area 4: displaced
        (0, 0, 10, 10, 1, False),  # cell 0, area 100: keeps it
        (10, 0, 18, 10, 2, False),  # cell 1, area 80: keeps it, the first of equals
        (11, 0, 19, 10, 3, False),  # cell 1, area 80: displaced
    ]
    other_image: Rows = [(3, 3, 7, 7, 4, False)]  # cell 0 too, but of another image
    found = GridAssigner(10)([box_targets(rows), box_targets(other_image)], predicted(2))
    assert found.image.tolist() == [0, 0, 1]
    assert found.cell.tolist() == [0, 1, 0]
    assert found.labels.tolist() == [1, 2, 4]
    assert found.num_displaced == 2


def test_ignored_objects_exclude_the_cells_whose_centre_they_cover() -> None:
    # Centres of the cells: x 5, 15, 25; y 5, 15.  The box covers (5, 5) and (15, 5), but neither 25 nor y = 15.
    found = GridAssigner(10)([BoxTargets.empty(), box_targets([(2, 3, 24, 15, 0, True)])], predicted(2))
    assert len(found.image) == 0
    assert found.num_displaced == 0
    assert found.excluded.tolist() == [[False] * 6, [True, True, False, False, False, False]]


def test_a_small_ignored_object_excludes_the_cell_of_its_centre() -> None:
    rows: Rows = [(21, 11, 23, 13, 0, True), (20, 10, 24, 13, 0, True)]  # both in cell 5, off its centre (25, 15)
    found = GridAssigner(10)([box_targets(rows)], predicted())
    assert found.excluded.tolist() == [[False] * 5 + [True]]


def test_a_counted_object_on_an_ignored_one_is_still_assigned() -> None:
    found = GridAssigner(10)([box_targets([(0, 0, 10, 10, 0, True), (1, 1, 5, 5, 2, False)])], predicted())
    assert found.cell.tolist() == [0]
    assert found.labels.tolist() == [2]
    assert found.num_displaced == 0
    assert found.excluded[0].tolist() == [True] + [False] * 5
