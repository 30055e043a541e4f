"""Fetches Pascal VOC through torchvision's data set, which shows progress and verifies the archive's checksum."""

from __future__ import annotations

from pathlib import Path

from detseg.data.voc_lists import find_year_folder
from detseg.errors import DataError

_LISTS = {"2007": ("trainval", "test"), "2012": ("trainval",)}
"""The lists whose archives exist; VOC 2012's test annotations were never published."""


def download_voc(root: Path | str, year: str) -> Path:
    """Fetch a year of Pascal VOC, unless it is there.

    Args:
        root: the folder that holds ``VOCdevkit``, or ``VOCdevkit`` itself.
        year: "2007" (trainval and test) or "2012" (trainval).

    Returns:
        The folder of the year, with ``Annotations``, ``ImageSets`` and ``JPEGImages``.

    Raises:
        DataError: another year, or the download failed.
    """
    if year not in _LISTS:
        raise DataError(f"VOC {year} cannot be downloaded; expected one of the years {', '.join(_LISTS)}")
    root = Path(root)
    parent = root.parent if root.name == "VOCdevkit" else root
    expected = parent / "VOCdevkit" / f"VOC{year}"
    for list_name in _LISTS[year]:
        folder = find_year_folder(root, year)
        if folder is None or not (folder / "ImageSets" / "Main" / f"{list_name}.txt").is_file():
            _fetch(parent, year, list_name, expected)
    return find_year_folder(root, year) or expected


def _fetch(parent: Path, year: str, list_name: str, expected: Path) -> None:
    from torchvision.datasets import VOCDetection

    try:
        parent.mkdir(parents=True, exist_ok=True)
        VOCDetection(str(parent), year=year, image_set=list_name, download=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"cannot download VOC {year} {list_name} ({reason}); fetch it elsewhere and put its Annotations, ImageSets "
            f"and JPEGImages into {expected}"
        ) from None
