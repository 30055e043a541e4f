"""Samples that cannot be read or are wrong: one line, or replaced the same way in any layout; the cache of samples."""

from __future__ import annotations

import copy
import csv
import itertools
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from detseg.config.schema.data import AugmentationConfig
from detseg.data.augment.mosaic import GROUP_SIZE, MixPartners
from detseg.data.datasets.bad_samples import BadSample, BadSampleList
from detseg.data.datasets.contract import SampleCache, SampleSource, check_sample
from detseg.data.formats.mask_folder import read_mask_folder
from detseg.data.formats.voc import read_voc
from detseg.data.loading.examples import TrainDataset
from detseg.data.loading.loader import TrainLoader, eval_loader, train_loader
from detseg.data.loading.sampling import EpochBatchSampler, SampleRequest
from detseg.errors import DataError, DetsegError
from detseg.ops.random_streams import Stream, epoch_order, random_stream
from detseg.structures import ClassTable, InstanceMasks, Sample
from tests.data.formats.layouts import BINARY, annotation_xml, object_xml, write_pairs, write_voc
from tests.data.images.painted import PaintedSource
from tests.data.loading.test_loader import error_of, run_epochs
from tests.shared_data import shared_data

HW = (20, 30)
GOOD = [0, 0, 30, 20]


class OneSample(PaintedSource):
    """A source of one image with two objects, the first of them right."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(1)
        self.classes = ClassTable(("a", "b"))
        image, two = np.zeros((*HW, 3), dtype=np.uint8), np.array([GOOD, [1, 2, 3, 4]], dtype=np.float32)
        sample = Sample(0, 1, "folder/mine.png", image, two, np.array([0, 1]), np.zeros(2, dtype=np.bool_))
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
    ({"labels": np.array([0, 1], dtype=np.int32)}, r"labels: expected .*int64 of shape \(2,\), got int32"),
    ({"boxes": np.zeros((3, 4), dtype=np.float32)}, r"boxes: expected .*float32 of shape \(2, 4\), got .*\(3, 4\)"),
    ({"boxes": np.zeros((2, 4))}, "boxes: expected .*float32 .*got float64"),
    ({"ignore": np.zeros(3, dtype=np.bool_)}, r"ignore: expected .*bool of shape \(2,\), got bool of shape \(3,\)"),
    ({"image": np.zeros((*HW, 3))}, r"image: expected .*uint8 of shape \(20, 30, 3\), got float64"),
    ({"image": np.zeros(HW, dtype=np.uint8)}, r"image: expected .*\(20, 30, 3\), got uint8 of shape \(20, 30\)"),
    ({"image": torch.zeros(3, *HW, dtype=torch.uint8)}, r"image: .*\(3, 20, 3\), got torch\.uint8 of shape"),
    ({"semantic": np.zeros(HW)}, "semantic: expected .*uint8 .*got float64"),
    ({"semantic": np.full(HW, 2, dtype=np.uint8)}, "semantic: expected labels below 2 or 255, got 2"),
    ({"masks": InstanceMasks.from_dense(np.ones((1, *HW), dtype=np.bool_))}, "masks: expected 2, .*got 1"),
    ({"masks": InstanceMasks.from_dense(np.ones((2, 30, 20), dtype=np.bool_))}, r"masks: .*, got 2 of \(30, 20\)"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_wrong_samples(changes: dict[str, Any], message: str) -> None:
    right = OneSample(masks=InstanceMasks.from_dense(np.ones((2, *HW), dtype=np.bool_)))
    check_sample(right.sample, right.classes)
    source = OneSample(**changes)
    with pytest.raises(DataError, match=rf"^folder/mine\.png: {message}") as caught:
        check_sample(source.sample, source.classes)
    assert "\n" not in str(caught.value)


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


MIXED = AugmentationConfig(mosaic=0.5, mixup=0.3)
PLAIN = AugmentationConfig(horizontal_flip=0.0)
CANNOT_BE_READ = DataError("the image\ncannot be read")


class Failing(PaintedSource):
    """Images of which the bad ones raise an error, or end the process."""

    def __init__(self, num: int, bad: set[int], error: Exception | None = CANNOT_BE_READ) -> None:
        super().__init__(num)
        self.bad, self.error = bad, error

    def __getitem__(self, index: int) -> Sample:
        if index not in self.bad:
            return super().__getitem__(index)
        if self.error is None:
            os._exit(9)
        raise copy.copy(self.error)

    def path(self, index: int) -> Path:
        return Path(f"{index}.jpg")


def loader_of(
    source: SampleSource, num_workers: int = 0, bad: BadSampleList | None = None, config: AugmentationConfig = MIXED
) -> TrainLoader:
    options: dict[str, Any] = {"input_hw": (64, 64), "batch_size": 4, "seed": 3, "max_epochs": 10}
    return train_loader(source, config, num_workers=num_workers, bad_samples=bad, **options)


def test_a_corrupt_photograph_is_an_error_or_skipped_alike(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    stems = [f"photo{number:02d}" for number in range(20)]
    xml = annotation_xml(object_xml(("face", 20, 20, 90, 90)), size_wh=(128, 128))
    write_voc(tmp_path, {"train": "\n".join(stems)}, dict.fromkeys(stems, xml))
    data = shared_data("malformed", "images", "hopper.jpg").read_bytes()
    for stem in stems:
        lost = 300 if stem == "photo07" else 0
        (tmp_path / "JPEGImages" / f"{stem}.jpg").write_bytes(data[:3000] + data[3000 + lost :])
    photographs = read_voc(tmp_path, "train")
    streams = []
    for num_workers in (0, 2):
        evaluation = eval_loader(photographs, input_hw=(64, 64), batch_size=4, num_workers=num_workers)
        for loader in (loader_of(photographs, num_workers), evaluation):
            error = error_of(loader)
            assert isinstance(error, DataError)
            assert str(error).startswith(f"{photographs.path(7)}: the image is damaged")
            assert "\n" not in str(error)
        bad = BadSampleList(20, 0.05)
        streams.append(run_epochs(loader_of(photographs, num_workers, bad), (0, 1, 2)))
        assert [row["file"] for row in bad.state()] == [str(photographs.path(7))]
    assert len(streams[0]) == 15
    assert streams[0] == streams[1]
    assert capfd.readouterr().err == ""


def test_the_replacement_follows_from_seed_epoch_and_index() -> None:
    source = Failing(30, bad={4, 5, 7})
    dataset = TrainDataset(source, PLAIN, seed=3, skip_bad=True)
    for epoch, index in itertools.product(range(4), source.bad):
        draws, drawn = random_stream(Stream.REPLACEMENT, 3, epoch, index), index
        while drawn in source.bad:
            drawn = int(draws.integers(30))
        found, expected = (dataset[SampleRequest(epoch, k, 64, 64, False)] for k in (index, drawn))
        np.testing.assert_array_equal(found.item.image, expected.item.image)
        assert (found.index, found.item.labels.tolist()) == (index, expected.item.labels.tolist())
        assert index in {sample.index for sample in found.skipped}
        assert expected.skipped == ()


def test_partners_of_a_mosaic_are_replaced_too_and_the_loader_stops_at_the_fraction() -> None:
    dataset = TrainDataset(Failing(6, bad={2}), AugmentationConfig(mosaic=1.0, mixup=1.0), seed=0, skip_bad=True)
    examples = [dataset[SampleRequest(0, index, 64, 64, True)] for index in range(6)]
    assert {sample.index for example in examples for sample in example.skipped} == {2}
    assert 2 not in {label for example in examples for label in example.item.labels.tolist()}
    with pytest.raises(DataError, match=r"2 of 20 training samples \(10\.00%\) cannot be read, more than data.max_bad"):
        list(loader_of(Failing(20, bad={3, 11}), bad=BadSampleList(20, 0.05)))


def test_nothing_but_bad_samples_is_an_error_not_a_search_for_ever() -> None:
    with pytest.raises(DataError, match=r"none of 5 samples drawn at random can be read; the image cannot be read"):
        TrainDataset(Failing(5, bad=set(range(5))), PLAIN, 0, skip_bad=True)[SampleRequest(0, 0, 64, 64, False)]


@pytest.mark.parametrize("failure", [MemoryError("no memory for 178 956 970 pixels"), OSError(5, "Input/output error")])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_what_is_no_fault_of_the_data_is_not_skipped_and_names_the_file(failure: Exception, num_workers: int) -> None:
    error = error_of(loader_of(Failing(12, {7}, failure), num_workers, BadSampleList(12, 1.0)))
    assert isinstance(error, MemoryError | OSError | RuntimeError)
    assert "This happened while 7.jpg was read." in str(error) + " ".join(getattr(error, "__notes__", []))


def test_a_worker_that_exits_is_an_error_of_one_line() -> None:
    error = error_of(loader_of(Failing(12, {7}, error=None), num_workers=2))
    assert isinstance(error, DetsegError)
    assert re.match(r"a loader process has died with exit code 9: .*; if it was killed .*data\.num_workers", str(error))


def test_the_list_counts_each_sample_once_and_its_file_is_always_whole(tmp_path: Path) -> None:
    file = tmp_path / "run" / "bad_samples.csv"
    bad = BadSampleList(100, 0.03, file)
    assert bad.lines() == []
    nine = BadSample(9, "9.jpg", "9.jpg: cut short")
    bad.add([nine, nine])
    bad.add([BadSample(3, 'a "b", c.jpg', "no, it is\tbad"), nine])
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    third, ninth = ["3", 'a "b", c.jpg', "no, it is\tbad"], ["9", "9.jpg", "9.jpg: cut short"]
    assert rows == [["index", "file", "reason"], third, ninth]
    assert [path.name for path in file.parent.iterdir()] == [file.name]  # nothing half written is left
    assert bad.lines() == [
        "bad data: 2 of 100 training samples (2.00%) could not be read and were replaced by others: "
        'a "b", c.jpg, 9.jpg; bad_samples.csv lists them with the reasons'
    ]
    resumed = BadSampleList(100, 0.03)
    resumed.load(bad.state())
    assert resumed.state() == bad.state()
    bad.add([BadSample(10, "10.jpg", "bad")])  # 3 % are allowed
    with pytest.raises(DataError) as caught:
        bad.add([BadSample(50, "50.jpg", "bad")])
    assert str(caught.value) == (
        "4 of 100 training samples (4.00%) cannot be read, more than data.max_bad_fraction=0.03: "
        f'a "b", c.jpg, 9.jpg, 10.jpg, ...; {file} lists them with the reasons; fix or remove the files, or raise '
        "data.max_bad_fraction"
    )
    assert len(file.read_text().splitlines()) == 5


def test_a_mask_that_cannot_be_read_counts_as_its_image(tmp_path: Path) -> None:
    dataset = read_mask_folder(*write_pairs(tmp_path, {str(number): [[0, 1]] for number in range(8)}), BINARY)
    (tmp_path / "masks" / "5.png").write_bytes(b"no mask")
    (bad,) = TrainDataset(dataset, PLAIN, 0, skip_bad=True)[SampleRequest(0, 5, 32, 32, False)].skipped
    assert bad.file == str(tmp_path / "images" / "5.jpg")
    assert str(tmp_path / "masks" / "5.png") in bad.reason
