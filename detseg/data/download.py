"""Fetches Pascal VOC from its authors' server: archives of known SHA-256, unpacked aside and moved when whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from detseg.data.fetch import RemoteFile, fetch
from detseg.data.unpack import unpack_tar
from detseg.data.voc_lists import find_year_folder
from detseg.errors import DataError, one_line

_SERVER = "https://thor.robots.ox.ac.uk/pascal/VOC"

# Sizes and SHA-256: tensorflow/datasets, tensorflow_datasets/url_checksums/voc.txt.  The same SHA-256 stand in
# pytorch/vision, torchvision/prototype/datasets/_builtin/voc.py; the addresses are those of torchvision's VOCDetection.
VOC_ARCHIVES: dict[str, dict[str, RemoteFile]] = {
    "2007": {
        "trainval": RemoteFile(
            f"{_SERVER}/voc2007/VOCtrainval_06-Nov-2007.tar",
            460_032_000,
            "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508",
        ),
        "test": RemoteFile(
            f"{_SERVER}/voc2007/VOCtest_06-Nov-2007.tar",
            451_020_800,
            "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892",
        ),
    },
    "2012": {
        "trainval": RemoteFile(
            f"{_SERVER}/voc2012/VOCtrainval_11-May-2012.tar",
            1_999_639_040,
            "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
        ),
    },
}
"""Year → list → the archive that holds it; VOC 2012's test annotations were never published."""


def download_voc(root: Path | str, year: str) -> Path:
    """Fetch a year of Pascal VOC, unless it is there.

    The archives lie beside ``VOCdevkit`` and stay there; one that was put there by hand is taken instead of a download.

    Args:
        root: the folder that holds ``VOCdevkit``, or ``VOCdevkit`` itself.
        year: "2007" (trainval and test) or "2012" (trainval).

    Returns:
        The folder of the year, with ``Annotations``, ``ImageSets`` and ``JPEGImages``.

    Raises:
        DataError: another year, or the download failed.
    """
    if year not in VOC_ARCHIVES:
        raise DataError(f"VOC {year} cannot be downloaded; expected one of the years {', '.join(VOC_ARCHIVES)}")
    root = Path(root)
    parent = root.parent if root.name == "VOCdevkit" else root
    expected = parent / "VOCdevkit" / f"VOC{year}"
    for list_name in VOC_ARCHIVES[year]:
        if not _is_there(root, year, list_name):
            _fetch(root, parent, year, list_name)
    return find_year_folder(root, year) or expected


def _is_there(root: Path, year: str, list_name: str) -> bool:
    folder = find_year_folder(root, year)
    return folder is not None and (folder / "ImageSets" / "Main" / f"{list_name}.txt").is_file()


def _fetch(root: Path, parent: Path, year: str, list_name: str) -> None:
    remote = VOC_ARCHIVES[year][list_name]
    archive = parent / remote.name
    expected = parent / "VOCdevkit" / f"VOC{year}"
    unpacked = parent / f".{remote.name}.unpacked"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(parent / f".{remote.name}.lock"):
            if _is_there(root, year, list_name):  # by another process of the run, while this one waited
                return
            fetch(remote, archive)
            shutil.rmtree(unpacked, ignore_errors=True)  # of a process that was killed
            try:
                unpack_tar(archive, unpacked)
                source = unpacked / "VOCdevkit" / f"VOC{year}"
                if not (source / "ImageSets" / "Main" / f"{list_name}.txt").is_file():
                    raise DataError(f"{archive}: holds no VOCdevkit/VOC{year} with the list {list_name}")
                _merge(source, expected)
            finally:
                shutil.rmtree(unpacked, ignore_errors=True)
    except (OSError, DataError) as error:
        raise DataError(
            f"cannot download VOC {year} {list_name} from {remote.url} ({one_line(error)}); fetch it elsewhere and put "
            f"the archive to {archive}, or its Annotations, ImageSets and JPEGImages into {expected}"
        ) from None


def _merge(source: Path, target: Path) -> None:
    """Move the files of a folder into another one that may hold some already, the lists last: they say that all is
    there."""
    files = [path for path in sorted(source.rglob("*")) if path.is_file()]
    for path in sorted(files, key=lambda path: path.relative_to(source).parts[0] == "ImageSets"):
        wanted = target / path.relative_to(source)
        wanted.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, wanted)


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Holds a lock that ends with the process: each process of a run asks for the data."""
    try:
        import fcntl
    except ImportError:  # Windows; runs of several processes are not for it
        yield
        return
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
