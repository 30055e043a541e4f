"""The types that travel between the parts: what they check, and what they are converted to."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from detseg.ops.letterbox import Letterbox
from detseg.structures import Batch, BoxTargets, ClassTable, DetectorOutput, ImageAnnotations, Sample

CLASSES = ClassTable(("cat", "dog", "emu"), (18, 17, 3))
FOUND = DetectorOutput(
    torch.tensor([[0.0, 0, 10, 10], [5, 5, 20, 30], [1, 2, 3, 4], [7, 7, 8, 9]]),
    torch.tensor([0.875, 0.75, 0.5, 0.25]),
    torch.tensor([2, 0, 1, 0]),
    CLASSES,
)


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
    def test_names_and_ids_are_as_many_and_differ(
        self, names: tuple[str, ...], ids: tuple[int, ...], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            ClassTable(names, ids)


BOXES, LABELS, FLAGS = torch.zeros(2, 4), torch.zeros(2).long(), torch.zeros(2).bool()


class TestBoxTargets:
    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ((torch.zeros(2, 5), LABELS, FLAGS), r"boxes: expected float32 of shape \(N, 4\)"),
            ((torch.zeros(4), LABELS, FLAGS), r"boxes: expected float32 of shape \(N, 4\)"),
            ((BOXES.double(), LABELS, FLAGS), r"boxes: expected float32 of shape \(N, 4\)"),
            ((BOXES, LABELS.float(), FLAGS), r"labels: expected torch.int64 of shape \(2,\), got torch.float32"),
            ((BOXES, torch.zeros(3).long(), FLAGS), "labels: expected"),
            ((BOXES, LABELS, LABELS), r"ignore: expected torch\.bool"),
        ],
    )
    def test_columns_have_their_type_and_shape(self, columns: tuple[torch.Tensor, ...], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            BoxTargets(*columns)

    def test_counted_leaves_the_ignored_out(self) -> None:
        targets = BoxTargets(torch.arange(12.0).view(3, 4), torch.tensor([5, 6, 7]), torch.tensor([False, True, False]))
        counted = targets.counted
        assert len(targets) == 3
        assert counted.labels.tolist() == [5, 7]
        assert counted.boxes[:, 0].tolist() == [0, 8]
        assert not counted.ignore.any()

    def test_empty_targets_are_valid(self) -> None:
        assert len(BoxTargets.empty()) == len(BoxTargets.empty().counted) == 0

    def test_moving_moves_every_column(self) -> None:
        moved = BoxTargets.empty().to("meta")
        assert {moved.boxes.device.type, moved.labels.device.type, moved.ignore.device.type} == {"meta"}


class TestDetections:
    def test_columns_have_their_type(self) -> None:
        scores = torch.zeros(2)
        for columns, message in (
            ((BOXES.double(), scores, LABELS), "boxes: expected float32"),
            ((BOXES, scores.half(), LABELS), r"scores: expected torch\.float32"),
            ((BOXES, scores, LABELS.int()), r"labels: expected torch\.int64"),
        ):
            with pytest.raises(ValueError, match=message):
                DetectorOutput(*columns)

    @pytest.mark.parametrize("index", [4, -5, torch.tensor(4)])
    def test_a_number_out_of_range_is_an_error(self, index: int) -> None:
        with pytest.raises(IndexError, match="of 4"):
            FOUND[index]

    def test_a_mask_of_another_length_is_an_error(self) -> None:
        with pytest.raises(IndexError):
            FOUND[torch.tensor([True, False])]

    def test_by_score_and_one_by_one(self) -> None:
        assert FOUND[FOUND.scores > 0.5].names == ["emu", "cat"]
        assert [one.names[0] for one in FOUND] == ["emu", "cat", "dog", "cat"]
        assert list(DetectorOutput.empty()) == []
        assert FOUND[:2].classes is CLASSES

    def test_coco_entries_by_hand(self) -> None:
        # Width and height instead of the second corner, the source's ids instead of labels; plain Python numbers.
        assert FOUND[:2].to_coco(image_id=42) == [
            {"image_id": 42, "category_id": 3, "bbox": [0, 0, 10, 10], "score": 0.875},
            {"image_id": 42, "category_id": 18, "bbox": [5, 5, 15, 25], "score": 0.75},
        ]
        entry = FOUND[:1].to_coco(42)[0]
        assert {type(entry["category_id"]), type(entry["score"]), type(entry["bbox"][0])} == {int, float}

    def test_coco_entries_need_class_ids(self) -> None:
        nameless = DetectorOutput(FOUND.boxes, FOUND.scores, FOUND.labels)
        with pytest.raises(ValueError, match="no class table"):
            nameless.to_coco(1)
        assert DetectorOutput.empty().to_coco(1) == []


def sample_annotations() -> ImageAnnotations:
    flags = np.array([[True, False, False], [False, True, False]])
    return ImageAnnotations(
        np.zeros((3, 4)), np.zeros(3, np.int64), flags[0], flags[1], np.array([False, False, True]), np.ones(3)
    )


def test_crowd_and_difficult_are_ignored_truncated_is_not() -> None:
    annotations = sample_annotations()
    assert len(annotations) == 3
    assert annotations.ignore.tolist() == [True, True, False]


def test_a_sample_says_height_before_width() -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    sample = Sample(0, 1, "a.jpg", image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool))
    assert sample.hw == (4, 6)


class TestBatch:
    def test_detections_go_back_to_the_original_images(self) -> None:
        # 100 × 200 in 64 × 64: 0.32 times as large, 32 rows, 16 above.  (32, 16, 64, 48) - (0, 16) = (32, 0, 64, 32),
        # divided by 0.32: (100, 0, 200, 100).  32 × 32: twice as large, nothing above or beside.
        letterboxes = [Letterbox.fit((100, 200), (64, 64)), Letterbox.fit((32, 32), (64, 64))]
        batch = Batch(torch.zeros(2, 3, 64, 64).byte(), [BoxTargets.empty()] * 2, [0, 1], letterboxes, [7, 8])
        boxes = torch.tensor([[32.0, 16, 64, 48]])
        found = DetectorOutput(boxes, torch.tensor([0.5]), torch.tensor([1]), CLASSES)
        first, second = batch.to_original([found, found])
        torch.testing.assert_close(first.boxes, torch.tensor([[100.0, 0, 200, 100]]))
        torch.testing.assert_close(second.boxes, torch.tensor([[16.0, 8, 32, 24]]))
        assert first.names == second.names == ["dog"]
        assert len(batch) == 2

    def test_as_many_detections_as_images_are_expected(self) -> None:
        batch = Batch(torch.zeros(1, 3, 8, 8).byte(), [BoxTargets.empty()], [0], [Letterbox.fit((8, 8), (8, 8))])
        with pytest.raises(ValueError, match="zip"):
            batch.to_original([DetectorOutput.empty(), DetectorOutput.empty()])

    def test_moving_takes_images_and_targets_along(self) -> None:
        batch = Batch(torch.zeros(1, 3, 8, 8).byte(), [BoxTargets.empty()], [3]).to("meta", non_blocking=True)
        assert batch.images.device.type == batch.targets[0].boxes.device.type == "meta"
        assert batch.indices == [3]
