"""Masks in the structures: what they check, how they are sliced with their boxes, and where grids are pasted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools import mask as referee
from pycocotools.coco import COCO

from detseg.ops.letterbox import Letterbox
from detseg.structures import Batch, BoxTargets, ClassTable, DetectorOutput, InstanceMasks, RoiMasks

CLASSES = ClassTable(("cat", "dog", "emu"), (18, 17, 3))
DENSE = np.zeros((4, 6, 9), dtype=np.bool_)
for number in range(4):
    DENSE[number, number : number + 2, number : 2 * number + 3] = True  # areas 6, 8, 10, 12
MASKS = InstanceMasks.from_dense(DENSE)


def found(masks: InstanceMasks | None = MASKS, grids: RoiMasks | None = None) -> DetectorOutput:
    """Four detections whose boxes and scores say which they are."""
    boxes = torch.arange(4.0)[:, None] + torch.tensor([0.0, 0, 2, 2])
    return DetectorOutput(
        boxes, torch.tensor([0.75, 0.5, 0.25, 0.125]), torch.tensor([2, 0, 1, 0]), CLASSES, masks, grids
    )


def grids(num: int = 4) -> RoiMasks:
    probabilities = torch.arange(float(num)).view(num, 1, 1).expand(num, 3, 3) / 8
    return RoiMasks(probabilities.contiguous(), torch.arange(float(4 * num)).view(num, 4), 0.25)


class TestInstanceMasks:
    def test_dense_and_back(self) -> None:
        np.testing.assert_array_equal(MASKS.dense(), DENSE)
        assert MASKS.dense().dtype == np.bool_
        assert InstanceMasks.from_dense(DENSE.astype(np.uint8) * 255) == MASKS
        np.testing.assert_array_equal(MASKS.mask(2), DENSE[2])

    def test_areas_and_boxes_by_hand(self) -> None:
        assert MASKS.areas.tolist() == [6, 8, 10, 12]
        assert MASKS.boxes.tolist() == [[0, 0, 3, 2], [1, 1, 5, 3], [2, 2, 7, 4], [3, 3, 9, 5]]

    def test_a_part_is_the_mask_within_its_bounds(self) -> None:
        part, corner = MASKS.part(3)
        assert (part.shape, corner) == ((2, 6), (3, 3))
        assert part.dtype == np.bool_
        assert part.all()

    @pytest.mark.parametrize("positions", [[2, 0, 0], np.array([2, 0, 0]), [-2, 0, 0]])
    def test_select_in_the_order_given(self, positions: list[int]) -> None:
        np.testing.assert_array_equal(MASKS.select(positions).dense(), DENSE[[2, 0, 0]])

    def test_none_at_all(self) -> None:
        none = MASKS.select([])
        assert len(none) == 0
        assert none.dense().shape == (0, 6, 9)
        assert none.areas.shape == (0,)
        assert none.boxes.shape == (0, 4)
        assert InstanceMasks.from_dense(np.zeros((0, 6, 9), dtype=np.bool_)) == none

    def test_an_empty_mask_has_a_box_of_zeros(self) -> None:
        empty = InstanceMasks.from_dense(np.zeros((1, 6, 9), dtype=np.bool_))
        assert (empty.areas.tolist(), empty.boxes.tolist()) == ([0], [[0, 0, 0, 0]])
        assert empty.part(0)[0].shape == (0, 0)

    def test_one_mask_alone_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"masks: expected shape \(N, H, W\), got \(6, 9\)"):
            InstanceMasks.from_dense(DENSE[0])


class TestRoiMasks:
    @pytest.mark.parametrize(
        "probabilities",
        [torch.zeros(2, 3), torch.zeros(3, 3, 3), torch.zeros(2, 1, 3, 3), torch.zeros(2, 3, 3).double()],
    )
    def test_one_float32_grid_a_region(self, probabilities: torch.Tensor) -> None:
        with pytest.raises(ValueError, match=r"probabilities: expected float32 of shape \(2, M, M\), got torch.float"):
            RoiMasks(probabilities, torch.zeros(2, 4))

    @pytest.mark.parametrize("threshold", [0.0, -0.5, 1.01, float("nan")])
    def test_a_threshold_is_a_probability(self, threshold: float) -> None:
        with pytest.raises(ValueError, match="threshold: expected a number above 0 and up to 1, got"):
            RoiMasks(torch.zeros(2, 3, 3), torch.zeros(2, 4), threshold)
        with pytest.raises(ValueError, match=r"boxes: expected float32 of shape \(N, 4\)"):
            RoiMasks(torch.zeros(2, 3, 3), torch.zeros(2, 5))

    def test_slicing_takes_regions_along(self) -> None:
        some = grids()[torch.tensor([False, True, False, True])]
        assert some.probabilities[:, 0, 0].tolist() == [0.125, 0.375]
        assert some.regions[:, 0].tolist() == [4, 12]
        assert some.threshold == some.cpu().threshold == 0.25
        assert len(some) == 2


class TestSlicing:
    @pytest.mark.parametrize("make", [torch.tensor, np.array, list], ids=["tensor", "array", "list"])
    @pytest.mark.parametrize(
        ("index", "expected"),
        [
            ([True, False, False, True], [0, 3]),
            ([False] * 4, []),
            ([3, 0, 0], [3, 0, 0]),
            ([-1, 1], [3, 1]),
            ([], []),
        ],
    )
    def test_by_masks_and_indices(
        self, make: Callable[[list[int]], list[int]], index: list[int], expected: list[int]
    ) -> None:
        self.check(found()[make(index)], expected)
        self.check(found(None, grids())[make(index)], expected)

    @pytest.mark.parametrize(
        ("index", "expected"),
        [
            (slice(1, 3), [1, 2]),
            (slice(None, None, 2), [0, 2]),
            (slice(4, None), []),
            (slice(None, None, -1), [3, 2, 1, 0]),
            (slice(-2, None, -2), [2, 0]),
            (np.arange(4)[::-1], [3, 2, 1, 0]),
            (2, [2]),
            (-4, [0]),
            (np.int64(1), [1]),
            (torch.tensor(3), [3]),
        ],
    )
    def test_by_slices_and_numbers(self, index: slice, expected: list[int]) -> None:
        self.check(found()[index], expected)
        self.check(found(None, grids())[index], expected)

    def check(self, some: DetectorOutput, expected: list[int]) -> None:
        assert some.boxes[:, 0].tolist() == expected
        if some.masks is not None:
            assert some.masks == MASKS.select(expected)
            assert some.masks.dense().shape == (len(expected), 6, 9)
        if some.grids is not None:
            assert (some.grids.probabilities[:, 0, 0] * 8).tolist() == expected
        assert (some.masks is None) != (some.grids is None)

    def test_without_masks_there_are_none(self) -> None:
        assert found(None)[:2].masks is None
        assert found(None)[:2].grids is None
        assert found(None).cpu().grids is None

    def test_one_mask_and_one_grid_for_each_box(self) -> None:
        with pytest.raises(ValueError, match="masks: expected one for each of 4 boxes, got 2"):
            found(MASKS.select([0, 1]))
        with pytest.raises(ValueError, match="grids: expected one for each of 4 boxes, got 3"):
            found(None, grids(3))

    def test_main_memory_keeps_masks_and_grids(self) -> None:
        self.check(found().cpu(), [0, 1, 2, 3])
        self.check(found(None, grids()).cpu(), [0, 1, 2, 3])


class TestToOriginal:
    # 100 × 200 in 64 × 64: 0.32 times as large, 32 rows, 16 of padding above.
    LETTERBOX = Letterbox.fit((100, 200), (64, 64))

    def at(self, *regions: list[float]) -> DetectorOutput:
        boxes = torch.tensor(regions)
        num = len(regions)
        full = RoiMasks(torch.ones(num, 28, 28), boxes)
        return DetectorOutput(boxes, torch.ones(num), torch.zeros(num).long(), CLASSES, grids=full)

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

    def test_detections_without_grids_have_no_masks(self) -> None:
        assert found(None).to_original(self.LETTERBOX).masks is None

    def test_what_lies_in_the_padding_is_left_out(self) -> None:
        # A tall image, 200 x 100 in 64 x 64: 16 columns of padding on either side.
        tall = Letterbox.fit((200, 100), (64, 64))
        some = self.at([2.0, 10, 12, 40], [10.0, 24, 32, 40], [48.0, 5, 60, 9], [20.0, 30, 20, 40])
        some = replace(some, scores=torch.tensor([0.75, 0.5, 0.25, 0.125]))
        for found_there in (some.to_original(tall), replace(some, grids=None).to_original(tall)):
            assert found_there.boxes.tolist() == [[0, 75, 50, 125]]
            assert found_there.scores.tolist() == [0.5]
            assert found_there.labels.tolist() == [0]
        masks = some.to_original(tall).masks
        assert masks is not None
        assert masks.boxes.tolist() == [[0, 75, 50, 125]]

    def test_none_found_is_none_there(self) -> None:
        there = self.at([0.0, 0, 1, 1])[:0].to_original(self.LETTERBOX)
        assert there.masks == InstanceMasks((100, 200), ())

    def test_a_batch_pastes_each_into_its_image(self) -> None:
        letterboxes = [self.LETTERBOX, Letterbox.fit((32, 32), (64, 64))]
        batch = Batch(torch.zeros(2, 3, 64, 64).byte(), [BoxTargets.empty()] * 2, [0, 1], letterboxes)
        first, second = batch.to_original([self.at([16.0, 24, 48, 40])] * 2)
        assert first.masks is not None
        assert second.masks is not None
        assert first.masks.boxes.tolist() == [[50, 25, 150, 75]]
        assert second.masks.hw == (32, 32)
        assert second.masks.boxes.tolist() == [[8, 12, 24, 20]]


class TestToCoco:
    def test_pycocotools_reads_boxes_and_masks(self, capsys: pytest.CaptureFixture[str]) -> None:
        entries = json.loads(json.dumps(found().to_coco(np.int64(5))))
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": 5, "height": 6, "width": 9}],
            "annotations": [],
            "categories": [{"id": 3}, {"id": 17}, {"id": 18}],
        }
        truth.createIndex()
        read = truth.loadRes(entries).dataset["annotations"]
        assert [entry["category_id"] for entry in read] == [3, 18, 17, 18]
        assert [entry["bbox"] for entry in read] == [[i, i, 2, 2] for i in range(4)]
        for entry, mask in zip(read, DENSE, strict=True):
            np.testing.assert_array_equal(referee.decode(entry["segmentation"]), mask)

    def test_grids_are_no_result_yet(self) -> None:
        with pytest.raises(ValueError, match="in pixels of a network input; call `to_original` first"):
            found(None, grids()).to_coco(1)


class TestBoxTargets:
    MASKS = torch.from_numpy(DENSE)

    def targets(self, masks: torch.Tensor | None) -> BoxTargets:
        return BoxTargets(torch.zeros(4, 4), torch.arange(4), torch.tensor([False, True, False, False]), masks)

    @pytest.mark.parametrize("wrong", [MASKS[:3], MASKS[0], MASKS.float(), MASKS[None]])
    def test_one_mask_a_box(self, wrong: torch.Tensor) -> None:
        with pytest.raises(ValueError, match=r"masks: expected bool of shape \(4, H, W\), got torch\."):
            self.targets(wrong)

    def test_counted_and_moved_with_their_boxes(self) -> None:
        counted = self.targets(self.MASKS).counted
        assert counted.masks is not None
        assert torch.equal(counted.masks, self.MASKS[[0, 2, 3]])
        moved = self.targets(self.MASKS).to("meta")
        assert moved.masks is not None
        assert moved.masks.device.type == "meta"
        assert self.targets(None).to("cpu").masks is None
        assert self.targets(None).counted.masks is None


def test_boxes_that_are_no_numbers_are_not_lost_on_the_way() -> None:
    boxes = torch.tensor([[1.0, 1.0, 5.0, 5.0], [float("nan"), 1.0, 5.0, 5.0], [7.0, 1.0, 7.0, 5.0]])
    found = DetectorOutput(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3, dtype=torch.int64))
    moved = found.to_original(Letterbox.fit((10, 10), (10, 10)))
    assert moved.scores.tolist() == found.scores[:2].tolist()
    assert moved.boxes[1].isnan().any()
