"""The lists of the Pascal VOC layout (Everingham et al. 2010): which images a split has, and where they lie.

Detection and segmentation differ in the folder of the lists, ``ImageSets/Main`` or ``ImageSets/Segmentation``.
"""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Literal

from detseg.data.class_names import did_you_mean, listed
from detseg.data.images import IMAGE_SUFFIXES
from detseg.data.report import DataReport, Oddity
from detseg.errors import DataError, shown

Task = Literal["Main", "Segmentation"]
"""The folder in ``ImageSets`` that holds the lists."""


def find_year_folder(root: Path, year: str, task: Task = "Main") -> Path | None:
    """The folder of a year (``VOC2007`` for "2007") in or below ``root``, or None."""
    folder = f"VOC{year}"
    candidates = [root / folder, root / "VOCdevkit" / folder] + ([root] if root.name == folder else [])
    return next((path for path in candidates if (path / "ImageSets" / task).is_dir()), None)


def voc_lists(root: Path, split: str, years: Sequence[str], task: Task) -> list[tuple[Path, str]]:
    """The folders that a split is made of, each with the name of its list.

    Args:
        root, split, years: as ``read_voc`` takes them.
        task: whose lists.

    Raises:
        DataError: a folder is missing, or the split is none.
    """
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; set data.root to the folder of the VOC data")
    lists = []
    for part in split.split("+"):
        year, colon, list_name = part.strip().rpartition(":")
        if not list_name or (colon and not year) or "/" in list_name or "\\" in list_name:
            raise DataError(f"split '{split}': expected a list like 'train' or '2007:train+2012:train', got '{part}'")
        for folder_year in [year] if colon else years:
            folder = find_year_folder(root, folder_year, task)
            if folder is None:
                raise DataError(f"{root}: expected VOC{folder_year}/ImageSets/{task} in it or in its VOCdevkit folder")
            lists.append((folder, list_name))
        if not colon and not years:
            lists.append((_only_folder(root, task), list_name))
    return lists


def _only_folder(root: Path, task: Task) -> Path:
    if (root / "ImageSets" / task).is_dir():
        return root
    years = sorted(
        path.parts[-3][3:] for path in [*root.glob(f"VOC*/ImageSets/{task}"), *root.glob(f"*/VOC*/ImageSets/{task}")]
    )
    annotations = "Annotations" if task == "Main" else "SegmentationClass"
    mend = f"set data.root to the folder that holds {annotations}, ImageSets and JPEGImages"
    if years:
        mend = f"it holds the years {', '.join(years)}: set data.years, or write the split as '{years[0]}:train'"
    raise DataError(f"{root}: there is no ImageSets/{task} in it; {mend}")


def listed_stems(folder: Path, task: Task, list_name: str, present: Container[str], report: DataReport) -> list[str]:
    """The names that a list holds, each once.

    Args:
        folder: the one with ``ImageSets``.
        task: whose list.
        list_name: its name without its suffix.
        present: the names that have an image or an annotation.
        report: where names that are listed twice are noted.

    Raises:
        DataError: the list is missing, unreadable, or holds other things than names.
    """
    path = folder / "ImageSets" / task / f"{list_name}.txt"
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        there = sorted(item.stem for item in path.parent.glob("*.txt"))
        raise DataError(
            f"{path}: there is no such list{did_you_mean(list_name, there)}; the lists there: {listed(there) or 'none'}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot read the list: {error}") from None
    stems: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        stem = _listed_name(line, present)
        if not stem:
            continue
        if "/" in stem or "\\" in stem or Path(stem).suffix.lower() in IMAGE_SUFFIXES:
            raise DataError(
                f"{path}:{number}: expected the name of an image without folder and suffix, got {shown(stem)}"
            )
        if stem in stems:
            report.add(Oddity.LISTED_TWICE, stem)
        stems[stem] = None
    return list(stems)


def _listed_name(line: str, present: Container[str]) -> str:
    """The name on a line; lists of one class (``cat_train.txt``) have -1, 0 or 1 behind it, and so have some names."""
    line = line.strip()
    if line.startswith("#"):
        return ""
    if line in present:
        return line
    words = line.split()
    return words[0] if len(words) == 2 and words[1] in ("-1", "0", "1") else line


def files_by_stem(folder: Path) -> dict[str, list[str]]:
    """From one listing of the folder: the image files of each stem."""
    found: dict[str, list[str]] = {}
    for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in IMAGE_SUFFIXES:
            found.setdefault(stem, []).append(name)
    return found


def stems_of(folder: Path, suffix: str) -> set[str]:
    """The names, without it, of the files in a folder that have a suffix."""
    names = os.listdir(folder) if folder.is_dir() else []
    return {name.removesuffix(suffix) for name in names if name.endswith(suffix)}


def check_present(kind: str, folder: Path, missing: list[str]) -> None:
    """Refuse a list of which files are missing.

    Raises:
        DataError: some are.
    """
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} {kind}(s) of the list missing: {listed(missing)}; "
            "add the files or take the names off the list"
        )
