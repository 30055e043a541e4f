"""Fetching VOC, without a network: torchvision's downloader is replaced."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest
import torchvision.datasets

from detseg.data.download import download_voc
from detseg.data.voc import read_voc
from detseg.errors import DataError
from tests.data.voc_layout import annotation_xml, object_xml, write_voc

Calls = list[tuple[str, str, str]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Replaces torchvision's data set by one that writes a tiny year folder and notes what was asked for."""
    seen: Calls = []

    def fetch(root: str, year: str, image_set: str, download: bool) -> None:
        assert download
        seen.append((root, year, image_set))
        xml = annotation_xml(object_xml(("cat", 1, 1, 2, 2)))
        write_voc(Path(root) / "VOCdevkit" / f"VOC{year}", {image_set: "a"}, {"a": xml})

    monkeypatch.setattr(torchvision.datasets, "VOCDetection", fetch)
    return seen


def test_2007_needs_two_archives_and_is_fetched_once(tmp_path: Path, calls: Calls) -> None:
    folder = download_voc(tmp_path, "2007")
    assert folder == tmp_path / "VOCdevkit" / "VOC2007"
    assert calls == [(str(tmp_path), "2007", "trainval"), (str(tmp_path), "2007", "test")]
    assert download_voc(tmp_path, "2007") == folder
    assert len(calls) == 2
    assert len(read_voc(tmp_path, "2007:test")) == 1


def test_2012_next_to_it_and_a_root_that_is_the_devkit(tmp_path: Path, calls: Calls) -> None:
    assert download_voc(tmp_path / "VOCdevkit", "2012") == tmp_path / "VOCdevkit" / "VOC2012"
    assert calls == [(str(tmp_path), "2012", "trainval")]


@pytest.mark.parametrize("error", [URLError("no network"), RuntimeError("File not found or corrupted.")])
def test_without_a_network_one_line_says_where_the_data_should_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(torchvision.datasets, "VOCDetection", fail)
    with pytest.raises(DataError, match=r"cannot download VOC 2012 trainval \(.*(network|corrupted).*\)") as caught:
        download_voc(tmp_path, "2012")
    assert str(tmp_path / "VOCdevkit" / "VOC2012") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_years_that_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="VOC 2005 cannot be downloaded; expected one of the years 2007, 2012"):
        download_voc(tmp_path, "2005")
