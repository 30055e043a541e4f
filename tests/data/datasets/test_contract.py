"""Wrong samples of a source of one's own are one line; the cache of samples does not change them."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from detseg.config.schema.data import AugmentationConfig
from detseg.data.augment.mosaic import GROUP_SIZE, MixPartners
from detseg.data.datasets.contract import SampleCache, check_sample
from detseg.data.loading.examples import TrainDataset
from detseg.data.loading.loader import eval_loader, train_loader
from detseg.data.loading.sampling import EpochBatchSampler
from detseg.errors import DataError
from detseg.ops.random_streams import epoch_order
from detseg.structures import ClassTable, InstanceMasks, Sample
from tests.data.images.painted import PaintedSource
from tests.data.loading.test_loader import error_of

HW = (20, 30)
GOOD = [0, 0, 30, 20]


class OneSample(PaintedSource):
    """A source of one image with two objects, the first of them right."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(1)
        self.classes = ClassTable(("a", "b"))
        sample = Sample(
            index=0,
            image_id=1,
            path="folder/mine.png",
            image=np.zeros((*HW, 3), dtype=np.uint8),
            boxes=np.array([GOOD, [1, 2, 3, 4]], dtype=np.float32),
            labels=np.array([0, 1]),
            ignore=np.zeros(2, dtype=np.bool_),
        )
        self.sample = replace(sample, **changes)

    def __getitem__(self, index: int) -> Sample:
        return self.sample


def boxes(*second: float) -> dict[str, Any]:
    return {"boxes": np.array([GOOD, second], dtype=np.float32)}


nan, inf = float("nan"), float("inf")
WRONG = [
    (boxes(1, 2, nan, 4), r"object 1: box: expected 0 <= x1 < x2 <= 30 and 0 <= y1 < y2 <= 20, got \[1\.0, 2\.0, nan"),
    *(
        (boxes(*box), rf"object 1: box: .*got \[{', '.join(map(str, map(float, box)))}\]; correct")
        for box in ((1, 2, inf, 4), (-1, 2, 3, 4), (1, 2, 30.5, 4), (1, 2, 3, 20.5), (3, 2, 3, 4), (3, 4, 5, 2))
    ),
    ({"labels": np.array([0, 2])}, "object 1: label: expected 0 to 1, the 2 classes of the data set, got 2"),
    ({"labels": np.array([-1, 0])}, "object 0: label: expected 0 to 1, .* got -1"),
    ({"labels": np.array([0, 1], dtype=np.int32)}, r"labels: expected int64 of shape \(2,\), got int32"),
    ({"boxes": np.zeros((3, 4), dtype=np.float32)}, r"boxes: expected float32 of shape \(2, 4\), got .*\(3, 4\)"),
    ({"boxes": np.zeros((2, 4))}, "boxes: expected float32 .*got float64"),
    ({"ignore": np.zeros(3, dtype=np.bool_)}, r"ignore: expected bool of shape \(2,\), got bool of shape \(3,\)"),
    ({"masks": InstanceMasks.from_dense(np.ones((1, *HW), dtype=np.bool_))}, "masks: expected 2, .*got 1"),
    ({"masks": InstanceMasks.from_dense(np.ones((2, 30, 20), dtype=np.bool_))}, r"masks: .*\(20, 30\), got \(30, 20\)"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_wrong_samples(changes: dict[str, Any], message: str) -> None:
    source = OneSample(**changes)
    with pytest.raises(DataError, match=rf"^folder/mine\.png: {message}") as caught:
        check_sample(source.sample, source.classes)
    assert "\n" not in str(caught.value)


def test_right_samples() -> None:
    source = OneSample(masks=InstanceMasks.from_dense(np.ones((2, *HW), dtype=np.bool_)))
    check_sample(source.sample, source.classes)
    none = {"boxes": np.zeros((0, 4), dtype=np.float32), "labels": np.zeros(0, dtype=np.int64)}
    check_sample(OneSample(**none, ignore=np.zeros(0, dtype=np.bool_)).sample, source.classes)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_every_loader_asks(num_workers: int) -> None:
    source = OneSample(**boxes(1, 2, 31, 4))
    mosaic = AugmentationConfig(mosaic=1.0)
    options: dict[str, Any] = {"input_hw": (32, 32), "batch_size": 1, "num_workers": num_workers}
    train = [train_loader(source, config, seed=0, max_epochs=3, **options) for config in (AugmentationConfig(), mosaic)]
    for loader in (eval_loader(source, **options), *train):
        error = error_of(loader)
        assert isinstance(error, DataError)
        assert str(error).startswith("folder/mine.png: object 1: box: ")


SQUARE = (64, 64)


class Counted(PaintedSource):
    """Lists the samples that are read, by copies too."""

    reads: ClassVar[list[int]] = []

    def __getitem__(self, index: int) -> Sample:
        self.reads.append(index)
        return super().__getitem__(index)


def test_samples_are_read_once_while_they_are_kept_and_errors_are_not() -> None:
    Counted.reads.clear()
    source = PaintedSource(4)
    sizes = [source[index].image.nbytes for index in range(3)]
    cache = SampleCache(Counted(4, broken=3), max_bytes=sizes[0] + max(sizes[1:]))
    for index in (0, 1, 0, 2, 0, 1):  # 2 takes the place of 1, not of 0
        np.testing.assert_array_equal(cache(index, SQUARE).image, source[index].image)
    assert Counted.reads == [0, 1, 2, 1]
    for _ in range(2):
        with pytest.raises(DataError, match=r"3\.jpg"):
            cache(3, SQUARE)
    copy.deepcopy(cache)(1, SQUARE)  # by the same way as pickle, which sends an empty cache
    nothing = SampleCache(Counted(4), max_bytes=0)
    assert nothing(0, SQUARE).index == nothing(0, SQUARE).index == 0
    assert Counted.reads[4:] == [3, 3, 1, 0, 0]


def test_mix_groups_are_neighbours_in_the_order_of_the_epoch() -> None:
    num = 3 * GROUP_SIZE + 5
    groups = MixPartners(7, num)
    for epoch in (0, 1):
        order = epoch_order(7, epoch, num)
        for place in (0, GROUP_SIZE - 1, GROUP_SIZE, 2 * GROUP_SIZE + 3):
            first = place // GROUP_SIZE * GROUP_SIZE
            np.testing.assert_array_equal(groups.group(epoch, int(order[place])), order[first : first + GROUP_SIZE])
        np.testing.assert_array_equal(groups.group(epoch, int(order[-1])), order[-GROUP_SIZE:])
    assert sorted(MixPartners(0, 5).group(0, 3).tolist()) == list(range(5))
    assert MixPartners(0, 1).group(4, 0).tolist() == [0]


def test_an_epoch_of_mosaics_decodes_each_image_once() -> None:
    num = 2 * GROUP_SIZE
    Counted.reads.clear()
    dataset = TrainDataset(Counted(num), AugmentationConfig(mosaic=1.0, mixup=0.5), 0)
    seen = set()
    for batch in EpochBatchSampler(num, 8, 0, SQUARE):
        for request in batch:
            seen |= set(dataset[request].item.labels.tolist()) - {request.index}
    assert sorted(Counted.reads) == list(range(num))
    assert len(seen) > num / 2  # two thirds have objects, which are seen in mosaics of other images
