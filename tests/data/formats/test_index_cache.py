"""The cache of indices: the same data set from it, never an old one, and no run that fails for it."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import pickle
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.large_coco import write_large_coco
from detseg.data.annotations.issues import DataIssue
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.datasets.fingerprint import fingerprint
from detseg.data.formats import coco, index_cache
from detseg.data.formats.coco import read_coco
from detseg.data.formats.index_cache import MappedAnnotations, cache_folder
from detseg.errors import DataError
from detseg.structures import ClassTable


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set whose index is kept in the folder ``cache`` beside it."""
    monkeypatch.setattr(index_cache, "SMALLEST", 0)
    monkeypatch.setattr(index_cache, "_said", False)
    monkeypatch.setenv(index_cache.VARIABLE, str(tmp_path / "cache"))
    write_large_coco(tmp_path, images=12, annotations=60)
    return tmp_path


def read(root: Path, classes: ClassTable | list[str] | None = None, masks: bool = True) -> DetectionDataset:
    return read_coco(root / "images", root / "instances.json", classes, masks)


def kept(root: Path) -> list[Path]:
    return sorted((root / "cache").iterdir())


def received(data: bytes) -> Any:
    return pickle.loads(data)  # noqa: S301  # as loader processes do it that are not forked


def no_reading(*_: object, **__: object) -> None:
    raise AssertionError("the annotation file was read")


def test_the_second_load_gives_the_same_without_reading(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(index_cache.VARIABLE, "off")
    plain = read(root)
    monkeypatch.setenv(index_cache.VARIABLE, str(root / "cache"))
    first = read(root)
    monkeypatch.setattr(coco, "open_coco", no_reading)
    second = read(root)
    for dataset in (first, second):
        assert isinstance(dataset.packed, MappedAnnotations)
        assert fingerprint(dataset) == fingerprint(plain)
        assert dataset.report.lines() == plain.report.lines() != []
        assert dataset.classes == plain.classes
        for index in range(len(plain)):
            ours, theirs = dataset.annotations(index), plain.annotations(index)
            assert ours.masks is not None
            assert theirs.masks is not None
            assert ours.masks.counts == theirs.masks.counts
            assert dataset.path(index) == plain.path(index)
    part = second.subset([5, 1])
    assert part.annotations(0).boxes.tolist() == plain.annotations(5).boxes.tolist()


def test_arguments_have_indices_of_their_own(root: Path) -> None:
    table = ClassTable(("class 2", "class 1"), (2, 7))
    kinds: list[tuple[ClassTable | list[str] | None, bool]] = [
        (None, True),
        (None, False),
        (table, True),
        (["class 2"], True),
    ]
    found = [read(root, *kind) for kind in kinds]
    assert len(kept(root)) == len(kinds)
    again = [read(root, *kind) for kind in kinds]
    assert len(kept(root)) == len(kinds)
    assert [fingerprint(dataset) for dataset in found] == [fingerprint(dataset) for dataset in again]
    assert [dataset.report.lines() for dataset in found] == [dataset.report.lines() for dataset in again]
    assert again[2].classes is table
    assert again[2].report.examples(DataIssue.OTHER_ID) == ["class 1"]
    assert again[1].packed.regions is None


def test_a_file_of_the_same_size_and_date_is_read_anew(root: Path) -> None:
    before, file = fingerprint(read(root)), root / "instances.json"
    state, text = file.stat(), file.read_text()
    file.write_text(text.replace('"class 1"', '"glass 1"'))
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert file.stat().st_size == state.st_size
    assert "glass 1" in read(root).classes.names
    file.write_text(text)
    assert fingerprint(read(root)) == before
    assert len(kept(root)) == 2


def test_what_depends_on_images_is_looked_at_each_time(root: Path) -> None:
    read(root)
    name = sorted((root / "images").iterdir())[3]
    name.unlink()
    with pytest.raises(DataError, match=rf"1 of 12 images missing: {name.name}"):
        read(root)
    content = json.loads((root / "instances.json").read_text())
    del content["images"][3]["height"]
    (root / "instances.json").write_text(json.dumps(content))
    for height in (300, 400):
        Image.new("RGB", (640, height)).save(name)
        assert read(root).hw(3) == (height, 640)
    assert len(kept(root)) == 1


def test_damaged_indices_are_made_anew(root: Path) -> None:
    expected = fingerprint(read(root))
    (path,) = kept(root)
    good = path.read_bytes()
    for damaged in (
        b"",
        good[:100],
        good[:-5],
        good[:-5] + b"xxxxx",
        b"\xff" * 100,
        good.replace(b"class 1", b"glass 1"),
        (5000).to_bytes(8, "little") + b"[" * 5000,
    ):
        path.write_bytes(damaged)
        dataset = read(root)
        assert fingerprint(dataset) == expected
        assert isinstance(dataset.packed, MappedAnnotations)
        assert path.read_bytes() == good


def test_an_index_under_the_name_of_another_is_made_anew(root: Path) -> None:
    expected = fingerprint(read(root))
    (path,) = kept(root)
    names = read(root).classes.names
    read(root, classes=list(names[:1]))
    (other,) = [file for file in kept(root) if file != path]
    path.write_bytes(other.read_bytes())
    assert fingerprint(read(root)) == expected


def test_a_folder_that_cannot_be_written_is_said_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "file").write_text("")
    monkeypatch.setenv(index_cache.VARIABLE, str(root / "file" / "cache"))
    first, second = read(root), read(root)
    assert [line for line in first.report.lines() if "DETSEG_CACHE" in line] == first.report.lines()[:1]
    assert first.report.lines()[0].startswith(f"{root}/file/cache: the index cannot be kept (")
    assert first.report.lines()[1:] == second.report.lines()
    assert fingerprint(first) == fingerprint(second)


def test_it_can_be_switched_off_and_leaves_small_files_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(index_cache.VARIABLE, "off")
    read(root)
    monkeypatch.setenv(index_cache.VARIABLE, str(root / "cache"))
    monkeypatch.setattr(index_cache, "SMALLEST", 1 << 20)
    read(root)
    assert not (root / "cache").exists()


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (index_cache.VARIABLE, "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for platform, folder in (("linux", ".cache"), ("darwin", "Library/Caches"), ("win32", "AppData/Local")):
        monkeypatch.setattr(sys, "platform", platform)
        assert cache_folder() == tmp_path / folder / "detseg"
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/detseg")
    monkeypatch.setenv(index_cache.VARIABLE, "/y")
    assert cache_folder() == Path("/y")


def test_the_oldest_go_when_there_is_no_room(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [[f"class {number}"] for number in range(1, 5)]
    for number, classes in enumerate(names):
        read(root, classes)
        os.utime(max(kept(root), key=os.path.getmtime), (number, number))
    read(root, names[0])  # used again
    size = kept(root)[0].stat().st_size
    abandoned, writing = root / "cache" / ".x.partial", root / "cache" / ".y.partial"
    for path in (abandoned, writing):
        path.write_text("")
    os.utime(abandoned, (time.time() - 90_000,) * 2)
    monkeypatch.setattr(index_cache, "LARGEST", int(2.5 * size))
    read(root, ["class 5"])
    assert not abandoned.exists()
    assert writing.exists()
    monkeypatch.setattr(coco, "open_coco", no_reading)
    read(root, names[0])
    read(root, ["class 5"])
    with pytest.raises(AssertionError):
        read(root, names[1])


def test_another_process_is_sent_a_name(root: Path) -> None:
    dataset = read(root)
    sent = io.BytesIO()
    pickle.dump(dataset.packed, sent)
    assert len(sent.getvalue()) < 500
    assert isinstance(received(sent.getvalue()), MappedAnnotations)
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(dataset, sender))
    process.start()
    assert receiver.recv() == [dataset.annotations(0).boxes.tolist(), dataset.packed.path(3)]
    process.join()
    (path,) = kept(root)
    path.unlink()
    whole = received(pickle.dumps(dataset.packed))
    np.testing.assert_array_equal(whole.boxes, dataset.packed.boxes)
    with pytest.raises(DataError, match="the index has gone while it was used"):
        received(sent.getvalue())


def _report(dataset: DetectionDataset, sender: Connection) -> None:
    sender.send([dataset.annotations(0).boxes.tolist(), dataset.packed.path(3)])
