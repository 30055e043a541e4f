"""Fetching VOC from a server of our own, in archives that the test makes."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from detseg.data import download
from detseg.data import download as fetch
from detseg.data.download import VOC_ARCHIVES, RemoteFile, download_voc
from detseg.data.formats.voc import read_voc
from detseg.errors import DataError
from tests.data.formats.voc_layout import annotation_xml, object_xml, write_voc
from tests.data.serving import Site, serve

LISTS = (("2007", "trainval"), ("2007", "test"), ("2012", "trainval"))


def archive(tmp_path: Path, year: str, list_name: str) -> bytes:
    """What the real archives hold, with one picture."""
    stem = f"{year}{list_name}"
    folder = tmp_path / "made" / stem
    write_voc(folder, {list_name: stem}, {stem: annotation_xml(object_xml(("cat", 1, 1, 2, 2)))})
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.add(folder, f"VOCdevkit/VOC{year}")
    return stream.getvalue()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server with small archives of the real names, whose sizes and SHA-256 take the place of the real ones."""
    monkeypatch.setattr(fetch, "_SCHEMES", {"http"})
    files = {(year, name): archive(tmp_path, year, name) for year, name in LISTS}
    with serve(Site({f"/{VOC_ARCHIVES[year][name].name}": content for (year, name), content in files.items()})) as made:
        for (year, name), content in files.items():
            url = f"{made.address}/{VOC_ARCHIVES[year][name].name}"
            small = RemoteFile(url, len(content), hashlib.sha256(content).hexdigest())
            monkeypatch.setitem(VOC_ARCHIVES[year], name, small)
        yield made


def test_the_real_archives_are_asked_for_over_https_with_a_whole_sha256() -> None:
    archives = [VOC_ARCHIVES[year][name] for year, name in LISTS]
    assert [name for year in VOC_ARCHIVES for name in VOC_ARCHIVES[year]] == [name for _, name in LISTS]
    assert all(archive.url.startswith("https://") and len(archive.sha256) == 64 for archive in archives)


def test_2007_needs_two_archives_and_is_fetched_once(tmp_path: Path, site: Site) -> None:
    root = tmp_path / "data"
    folder = download_voc(root, "2007")
    assert folder == root / "VOCdevkit" / "VOC2007"
    asked = [("/VOCtrainval_06-Nov-2007.tar", None), ("/VOCtest_06-Nov-2007.tar", None)]
    assert site.asked == asked
    assert download_voc(root, "2007") == folder
    assert site.asked == asked
    assert len(read_voc(root, "2007:trainval")) == 1
    assert read_voc(root, "2007:test").path(0).stem == "2007test"
    assert not list(root.glob(".*.unpacked"))


def test_2012_next_to_it_and_a_root_that_is_the_devkit(tmp_path: Path, site: Site) -> None:
    root = tmp_path / "data" / "VOCdevkit"
    assert download_voc(root, "2012") == root / "VOC2012"
    assert [path for path, _ in site.asked] == ["/VOCtrainval_11-May-2012.tar"]


def test_an_archive_that_was_put_there_is_taken(tmp_path: Path, site: Site) -> None:
    name = "VOCtrainval_11-May-2012.tar"
    (tmp_path / name).write_bytes(site.files[f"/{name}"])
    download_voc(tmp_path, "2012")
    assert site.asked == []
    assert len(read_voc(tmp_path, "2012:trainval")) == 1
    assert (tmp_path / name).is_file()


def test_an_interrupted_move_is_made_up_for(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, moved = download.os.replace, []

    def fail_at_the_third(source: Path, target: Path) -> None:
        if not str(target).endswith(".tar"):
            moved.append(target.relative_to(tmp_path / "data" / "VOCdevkit" / "VOC2012").parts[0])
            if len(moved) == 3:
                raise OSError("no space")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(download.os, "replace", fail_at_the_third)
        with pytest.raises(DataError, match="no space"):
            download_voc(tmp_path / "data", "2012")
    assert moved == ["Annotations", "JPEGImages", "ImageSets"]  # the list says that all is there: it comes last
    download_voc(tmp_path / "data", "2012")
    assert len(read_voc(tmp_path / "data", "2012:trainval")) == 1


def test_processes_that_ask_at_once_fetch_it_once(tmp_path: Path, site: Site) -> None:
    with ThreadPoolExecutor(4) as pool:  # threads open the lock anew each, as processes do
        list(pool.map(lambda _: download_voc(tmp_path / "data", "2012"), range(4)))
    assert len(site.asked) == 1
    assert len(read_voc(tmp_path / "data", "2012:trainval")) == 1


def test_without_a_network_one_line_says_where_the_data_should_be(tmp_path: Path, site: Site) -> None:
    site.files.clear()
    with pytest.raises(
        DataError, match=r"cannot download VOC 2012 trainval from http://.*/VOC.*\.tar \(.*404"
    ) as caught:
        download_voc(tmp_path, "2012")
    message = str(caught.value)
    assert f"put the archive to {tmp_path / 'VOCtrainval_11-May-2012.tar'}, or" in message
    assert str(tmp_path / "VOCdevkit" / "VOC2012") in message
    assert "\n" not in message


def test_years_that_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="VOC 2005 cannot be downloaded; expected one of the years 2007, 2012"):
        download_voc(tmp_path, "2005")
