"""The types that travel between the parts: what they check, how they are sliced, and what they are converted to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from detseg.ops.letterbox import Letterbox
from detseg.structures import (
    Batch,
    BoxTargets,
    ClassTable,
    DetectorOutput,
    ImageAnnotations,
    InstanceMasks,
    RoiMasks,
    Sample,
)

DENSE = np.zeros((4, 6, 9), dtype=np.bool_)
for number in range(4):
    DENSE[number, number : number + 2, number : 2 * number + 3] = True  # areas 6, 8, 10, 12
MASKS = InstanceMasks.from_dense(DENSE)
BOXES, LABELS, FLAGS = torch.zeros(2, 4), torch.zeros(2).long(), torch.zeros(2).bool()


class TestClassTable:
    def test_source_ids_count_from_one_where_none_are_given(self) -> None:
        assert ClassTable(("a", "b")).source_ids == (1, 2)
        assert len(ClassTable(("a", "b"))) == 2

    @pytest.mark.parametrize(
        ("names", "ids", "message"),
        [
            (("a", "b", "a"), (), r"must differ, got \['a'\] more than once"),
            (("a", "b"), (1,), "expected 2 different source ids"),
            (("a", "b"), (1, 2, 3), "expected 2 different source ids"),
            (("a", "b"), (4, 4), "expected 2 different source ids"),
        ],
    )
    def test_names_and_ids_differ(self, names: tuple[str, ...], ids: tuple[int, ...], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            ClassTable(names, ids)


class TestInstanceMasks:
    def test_dense_and_back(self) -> None:
        np.testing.assert_array_equal(MASKS.dense(), DENSE)
        assert MASKS.dense().dtype == np.bool_
        assert InstanceMasks.from_dense(DENSE.astype(np.uint8) * 255) == MASKS
        np.testing.assert_array_equal(MASKS.mask(2), DENSE[2])
        with pytest.raises(ValueError, match=r"masks: expected shape \(N, H, W\), got \(6, 9\)"):
            InstanceMasks.from_dense(DENSE[0])

    def test_areas_boxes_and_parts_by_hand(self) -> None:
        assert MASKS.areas.tolist() == [6, 8, 10, 12]
        assert MASKS.boxes.tolist() == [[0, 0, 3, 2], [1, 1, 5, 3], [2, 2, 7, 4], [3, 3, 9, 5]]
        part, corner = MASKS.part(3)
        assert (part.shape, part.dtype, corner) == ((2, 6), np.bool_, (3, 3))
        assert part.all()

    @pytest.mark.parametrize("positions", [[2, 0, 0], np.array([2, 0, 0]), [-2, 0, 0]])
    def test_select_in_the_order_given(self, positions: list[int]) -> None:
        np.testing.assert_array_equal(MASKS.select(positions).dense(), DENSE[[2, 0, 0]])

    def test_none_at_all_and_an_empty_one(self) -> None:
        none = MASKS.select([])
        assert (len(none), none.dense().shape, none.areas.shape, none.boxes.shape) == (0, (0, 6, 9), (0,), (0, 4))
        assert InstanceMasks.from_dense(np.zeros((0, 6, 9), dtype=np.bool_)) == none
        empty = InstanceMasks.from_dense(np.zeros((1, 6, 9), dtype=np.bool_))
        assert (empty.areas.tolist(), empty.boxes.tolist()) == ([0], [[0, 0, 0, 0]])
        assert empty.part(0)[0].shape == (0, 0)


def grids(num: int = 4) -> RoiMasks:
    probabilities = torch.arange(float(num)).view(num, 1, 1).expand(num, 3, 3) / 8
    return RoiMasks(probabilities.contiguous(), torch.arange(float(4 * num)).view(num, 4), 0.25)


def found(masks: InstanceMasks | None = MASKS, grids: RoiMasks | None = None) -> DetectorOutput:
    """Four detections whose boxes and scores say which they are."""
    boxes = torch.arange(4.0)[:, None] + torch.tensor([0.0, 0, 2, 2])
    return DetectorOutput(boxes, torch.tensor([0.75, 0.5, 0.25, 0.125]), torch.tensor([2, 0, 1, 0]), masks, grids)


@pytest.mark.parametrize(
    ("kind", "columns", "message"),
    [
        (BoxTargets, (torch.zeros(2, 5), LABELS, FLAGS), r"boxes: expected float32 of shape \(N, 4\)"),
        (BoxTargets, (torch.zeros(4), LABELS, FLAGS), r"boxes: expected float32 of shape \(N, 4\)"),
        (BoxTargets, (BOXES.double(), LABELS, FLAGS), r"boxes: expected float32 of shape \(N, 4\)"),
        (BoxTargets, (BOXES, LABELS.float(), FLAGS), r"labels: expected torch.int64 of shape \(2,\), got torch.float"),
        (BoxTargets, (BOXES, torch.zeros(3).long(), FLAGS), "labels: expected"),
        (BoxTargets, (BOXES, LABELS, LABELS), r"ignore: expected torch\.bool"),
        (BoxTargets, (BOXES, LABELS, FLAGS, torch.zeros(3, 6, 9).bool()), r"masks: expected bool of shape \(2, H, W\)"),
        (BoxTargets, (BOXES, LABELS, FLAGS, torch.zeros(2, 6, 9)), r"masks: expected bool of shape \(2, H, W\)"),
        (DetectorOutput, (BOXES.double(), torch.zeros(2), LABELS), "boxes: expected float32"),
        (DetectorOutput, (BOXES, torch.zeros(2).half(), LABELS), r"scores: expected torch\.float32"),
        (DetectorOutput, (BOXES, torch.zeros(2), LABELS.int()), r"labels: expected torch\.int64"),
        (DetectorOutput, (BOXES, torch.zeros(2), LABELS, MASKS), "masks: expected one for each of 2 boxes, got 4"),
        (DetectorOutput, (BOXES, torch.zeros(2), LABELS, None, grids(3)), "grids: expected one for each of 2 boxes"),
        (RoiMasks, (torch.zeros(2, 3), BOXES), r"probabilities: expected float32 of shape \(2, M, M\), got torch.fl"),
        (RoiMasks, (torch.zeros(3, 3, 3), BOXES), r"probabilities: expected float32 of shape \(2, M, M\)"),
        (RoiMasks, (torch.zeros(2, 3, 3).double(), BOXES), r"probabilities: expected float32 of shape \(2, M, M\)"),
        (RoiMasks, (torch.zeros(2, 3, 3), torch.zeros(2, 5)), r"boxes: expected float32 of shape \(N, 4\)"),
        *(
            (RoiMasks, (torch.zeros(2, 3, 3), BOXES, threshold), "threshold: expected a number above 0 and up to 1, g")
            for threshold in (0.0, 1.01, float("nan"))
        ),
    ],
)
def test_columns_have_their_type_and_shape(kind: type, columns: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(*columns)


class TestDetectorOutput:
    # 100 × 200 in 64 × 64: 0.32 times as large, 32 rows, 16 of padding above.
    LETTERBOX = Letterbox.fit((100, 200), (64, 64))

    @pytest.mark.parametrize(
        ("index", "expected"),
        [
            (torch.tensor([True, False, False, True]), [0, 3]),
            (torch.tensor([3, 0, 0]), [3, 0, 0]),
            (torch.zeros(4).bool(), []),
            (slice(1, 3), [1, 2]),
            (slice(4, None), []),
        ],
    )
    def test_slicing_takes_masks_and_grids_along(self, index: slice, expected: list[int]) -> None:
        some, other = found().cpu()[index], found(None, grids()).cpu()[index]
        assert some.boxes[:, 0].tolist() == other.boxes[:, 0].tolist() == expected
        assert some.masks == MASKS.select(expected)
        assert some.grids is None
        assert other.masks is None
        assert other.grids is not None
        assert (other.grids.probabilities[:, 0, 0] * 8).tolist() == expected
        assert other.grids.regions[:, 0].tolist() == [4 * i for i in expected]
        assert other.grids.threshold == 0.25

    def at(self, *regions: list[float]) -> DetectorOutput:
        boxes, num = torch.tensor(regions), len(regions)
        full = RoiMasks(torch.ones(num, 28, 28), boxes)
        return DetectorOutput(boxes, torch.arange(num, 0, -1) / 8, torch.zeros(num).long(), grids=full)

    def test_a_mask_lands_where_its_box_does(self) -> None:
        # (16, 24, 48, 40) - (0, 16) = (16, 8, 48, 24), divided by 0.32: (50, 25, 150, 75).
        there = self.at([16.0, 24, 48, 40]).to_original(self.LETTERBOX)
        assert there.grids is None
        assert there.masks is not None
        assert there.masks.hw == (100, 200)
        assert there.boxes.tolist() == [[50, 25, 150, 75]]
        # Probability falls to 0.5 at the edge of the region: all of it, but for what is cut off each corner.
        assert there.masks.boxes.tolist() == [[50, 25, 150, 75]]
        inside = np.zeros((100, 200), dtype=np.bool_)
        inside[25:75, 50:150] = True
        mask = there.masks.mask(0)
        assert not (mask & ~inside).any()
        assert 0 < (inside & ~mask).sum() <= 4 * 2 * 2

    def test_a_grid_keeps_its_place_where_the_box_is_clipped(self) -> None:
        # Of a box that begins 8 pixels to the left of the image only the right half is in it: columns 0 to 25 of the
        # original, and of the grid the half that is zero.
        cut = self.at([-8.0, 24, 8, 40])
        assert cut.grids is not None
        cut.grids.probabilities[:, :, 14:] = 0
        there = cut.to_original(self.LETTERBOX)
        assert there.boxes.tolist() == [[0, 25, 25, 75]]
        assert there.masks is not None
        assert there.masks.areas.tolist() == [0]

    def test_what_lies_in_the_padding_is_left_out(self) -> None:
        # A tall image, 200 x 100 in 64 x 64: 16 columns of padding on either side.
        tall = Letterbox.fit((200, 100), (64, 64))
        some = self.at([2.0, 10, 12, 40], [10.0, 24, 32, 40], [48.0, 5, 60, 9], [20.0, 30, 20, 40])
        plain = DetectorOutput(some.boxes, some.scores, some.labels)
        for there in (some.to_original(tall), plain.to_original(tall)):
            assert there.boxes.tolist() == [[0, 75, 50, 125]]
            assert there.scores.tolist() == [3 / 8]
        assert plain.to_original(tall).masks is None
        masks = some.to_original(tall).masks
        assert masks is not None
        assert masks.boxes.tolist() == [[0, 75, 50, 125]]
        assert some[:0].to_original(tall).masks == InstanceMasks((200, 100), ())

    def test_boxes_that_are_no_numbers_are_not_lost_on_the_way(self) -> None:
        boxes = torch.tensor([[1.0, 1.0, 5.0, 5.0], [float("nan"), 1.0, 5.0, 5.0], [7.0, 1.0, 7.0, 5.0]])
        some = DetectorOutput(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3, dtype=torch.int64))
        moved = some.to_original(Letterbox.fit((10, 10), (10, 10)))
        assert moved.scores.tolist() == some.scores[:2].tolist()
        assert moved.boxes[1].isnan().any()


class TestBoxTargets:
    def test_moving_moves_every_column(self) -> None:
        moved = BoxTargets(BOXES, LABELS, FLAGS, torch.zeros(2, 6, 9).bool()).to("meta")
        assert moved.masks is not None
        columns = (moved.boxes, moved.labels, moved.ignore, moved.masks)
        assert {column.device.type for column in columns} == {"meta"}


class TestBatch:
    def test_detections_go_back_to_the_original_images(self) -> None:
        # 100 × 200: (32, 16, 64, 48) - (0, 16) = (32, 0, 64, 32), divided by 0.32: (100, 0, 200, 100).  32 × 32: twice
        # as large, nothing above or beside.
        letterboxes = [Letterbox.fit((100, 200), (64, 64)), Letterbox.fit((32, 32), (64, 64))]
        batch = Batch(torch.zeros(2, 3, 64, 64).byte(), [BoxTargets.empty()] * 2, [0, 1], letterboxes, [7, 8])
        boxes = torch.tensor([[32.0, 16, 64, 48]])
        some = DetectorOutput(boxes, torch.ones(1), torch.tensor([1]), grids=RoiMasks(torch.ones(1, 28, 28), boxes))
        first, second = batch.to_original([some, some])
        torch.testing.assert_close(first.boxes, torch.tensor([[100.0, 0, 200, 100]]))
        torch.testing.assert_close(second.boxes, torch.tensor([[16.0, 8, 32, 24]]))
        assert first.masks is not None
        assert second.masks is not None
        assert (first.masks.hw, second.masks.hw) == ((100, 200), (32, 32))
        assert second.masks.boxes.tolist() == [[16, 8, 32, 24]]
        assert len(batch) == 2
        with pytest.raises(TypeError, match=r"expected a detseg\.DetectorOutput for each of 2 images"):
            batch.to_original([some])

    def test_moving_takes_images_and_targets_along(self) -> None:
        batch = Batch(torch.zeros(1, 3, 8, 8).byte(), [BoxTargets.empty()], [3]).to("meta", non_blocking=True)
        assert batch.images.device.type == batch.targets[0].boxes.device.type == "meta"
        assert batch.indices == [3]

    def test_the_number_of_copies_does_not_grow_with_the_images(self) -> None:
        corners, two = torch.tensor([[1.0, 2, 3, 4], [0, 0, 8, 8]]), torch.tensor([False, True])
        some = BoxTargets(corners, torch.tensor([5, 6]), two, draw_seed=11)
        targets = [some, BoxTargets.empty(), some, BoxTargets.empty()]
        batch = Batch(torch.zeros(4, 3, 8, 8).byte(), targets, [0, 1, 2, 3])
        with torch.profiler.profile() as profile:
            moved = batch.to("meta")
        assert sum(event.name == "aten::_to_copy" for event in profile.events()) == 4  # images, boxes, labels, flags
        assert [len(target) for target in moved.targets] == [2, 0, 2, 0]
        assert [target.draw_seed for target in moved.targets] == [11, None, 11, None]
        assert {tensor.device.type for tensor in moved.tensors()} == {"meta"}
        copied = batch.to("cpu:0")  # another name of the device that has values
        for before, after in zip(batch.targets, copied.targets, strict=True):
            assert torch.equal(before.boxes, after.boxes)
            assert torch.equal(before.labels, after.labels)
            assert torch.equal(before.ignore, after.ignore)
        assert len(moved.tensors()) == 1 + 4 * 3
        assert Batch(torch.zeros(0, 3, 8, 8).byte(), [], []).to("meta").targets == []
        assert batch.to("cpu") is batch


def test_crowd_and_difficult_are_ignored_truncated_is_not() -> None:
    flags = np.array([[True, False, False], [False, True, False], [False, False, True]])
    annotations = ImageAnnotations(np.zeros((3, 4)), np.zeros(3, np.int64), *flags, np.ones(3))
    assert len(annotations) == 3
    assert annotations.ignore.tolist() == [True, True, False]


def test_a_sample_says_height_before_width() -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    sample = Sample(0, 1, "a.jpg", image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool))
    assert sample.hw == (4, 6)
