"""Finds the image files below a folder, and those that annotations name; their sizes, and the places of copies."""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Set
from pathlib import Path
from typing import NoReturn
from urllib.parse import unquote

from detseg.data.annotations.files import parse_number
from detseg.data.annotations.issues import DataIssue
from detseg.data.annotations.report import DataReport, Example
from detseg.data.images.read import IMAGE_SUFFIXES, MAX_PIXELS, read_image_hw, why_unread
from detseg.data.images.threads import in_threads
from detseg.errors import DataError, path_of
from detseg.messages import listed, one_line, printable, shown

HEIC_SUFFIXES = frozenset({".heic", ".heif"})
"""Of images as phones write them, which Pillow reads with another package only."""


def find_images(
    folder: Path, skip: Callable[[str], bool] = lambda path: False, suffixes: Set[str] = IMAGE_SUFFIXES
) -> list[Path]:
    """Sorted paths, relative to ``folder``, of the files below it with one of the ``suffixes``, which are not opened;
    without files and folders whose path ``skip`` says. Folders are read as in `walk_folders`."""
    images: list[Path] = []
    for inside, _, files in walk_folders(folder, skip):
        images += [Path(inside, name) for name in files if os.path.splitext(name)[1].lower() in suffixes]
    return sorted(path.relative_to(folder) for path in images if not skip(str(path)))


def walk_folders(
    folder: Path, skip: Callable[[str], bool] = lambda path: False
) -> Iterator[tuple[str, list[str], list[str]]]:
    """As `os.walk` from a folder down, without hidden files and folders (macOS makes ``._a.jpg`` and ``__MACOSX``) and
    folders whose path ``skip`` says. A DataError if a folder cannot be read.

    Links to folders are followed, but each folder is read once: at its own place if that lies below ``folder``, else
    through the first link that is met; ``folder`` and those above it through none.
    """

    def cannot_read(error: OSError) -> NoReturn:
        raise DataError(f"{error.filename}: cannot read the folder: {one_line(error)}") from None

    top, seen = Path(os.path.realpath(folder)), set[Path]()
    for inside, folders, files in os.walk(folder, onerror=cannot_read, followlinks=True):
        followed = []
        for name in sorted(name for name in folders if name[0] != "." and name != "__MACOSX"):
            path = os.path.join(inside, name)
            if skip(path):
                continue
            real = Path(os.path.realpath(path))
            leads_back = os.path.islink(path) and (real.is_relative_to(top) or top.is_relative_to(real))
            if real not in seen and not leads_back:
                seen.add(real)
                followed.append(name)
        folders[:] = followed  # os.walk reads these next
        yield inside, folders, [name for name in files if name[0] != "."]


class Files:
    """Files below a folder, by name and by stem."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.paths = list(paths)
        self._by_name, self._by_stem = dict[str, list[Path]](), dict[str, list[Path]]()
        for path in self.paths:
            self._by_name.setdefault(path.name, []).append(path)
            self._by_stem.setdefault(path.stem, []).append(path)

    def named(self, name: str, beside: Path) -> list[Path]:
        """Those with a name, of several folders those in the one that is nearest to ``beside``, see `_nearest`."""
        return _nearest(self._by_name.get(name, []), beside)

    def with_stem(self, stem: str, beside: Path) -> list[Path]:
        """Those with a stem, as `named`."""
        return _nearest(self._by_stem.get(stem, []), beside)


def _nearest(paths: list[Path], beside: Path) -> list[Path]:
    """Of some paths those in the folder of ``beside``; else those whose folders end in the same names as that one, the
    most of them: ``images/a/1.jpg`` is near ``Annotations/a/1.xml``. Not those in folders of another split; nor, if
    there are others, those in folders of masks and the like."""
    paths = [path for path in paths if not _are_of_two_splits(path, beside)]
    paths = [path for path in paths if not is_made(path.parent.as_posix())] or paths
    paths = [path for path in paths if is_called_images(path.parent.name)] or paths

    def nearness(path: Path) -> int:
        if path.parent == beside.parent:
            return len(path.parts)
        pairs = zip(reversed(path.parent.parts), reversed(beside.parent.parts), strict=False)
        return next((number for number, (one, other) in enumerate(pairs) if one != other), 0)

    if len(paths) < 2:
        return paths
    best = max(map(nearness, paths))
    return [path for path in paths if nearness(path) == best]


def _are_of_two_splits(one: Path, other: Path) -> bool:
    """Whether the folders of two files say different splits: ``images/val`` and ``Annotations/train``."""
    words, others = (split_words(path.parent.as_posix()) for path in (one, other))
    return bool(words - others and others - words)


def find_listed(root: Path, lines: Sequence[str]) -> list[str]:
    """The lines of a list as paths of images relative to ``root``: also names without folder or suffix that one image
    alone has, and lines of columns, of which the first is such a name. Others are returned as they are."""
    lost = [line for line in lines if not os.path.isfile(root / line)]
    if not lost:
        return list(lines)
    images, found = Files(find_images(root)), dict[str, str]()
    for line in lost:
        for name in dict.fromkeys((line, line.split()[0])):
            path = Path(name)
            own = images.named(path.name, path) or images.with_stem(path.name, path)
            if len(own) == 1 and own[0].parts[-len(path.parts) : -1] == path.parts[:-1]:
                found.setdefault(line, own[0].as_posix())
    return [found.get(line, line) for line in lines]


_OF_IMAGES = {"images", "image", "imgs", "img", "original", "originals", "rgb", "photos"}
IMAGE_FOLDERS = frozenset({*_OF_IMAGES, "jpegimages", "leftimg8bit", "imagestr"})
_OF_TOOLS = ("segmentationclass", "segmentationclasspng", "gtfine", "labelstr")  # VOC, LabelMe, Cityscapes, nnU-Net
_OF_MASKS = ("masks", "mask", "labels", "label", "annotations", "ann", "gt", "gts", "segmentations", "segmentation")
MASK_FOLDERS = (*_OF_MASKS, "groundtruth", "ground_truth", *_OF_TOOLS)
"""Words in the names of folders of images, and of masks, in small letters; the likeliest first."""
_MADE = {*MASK_FOLDERS, "visualization", "visualizations", "vis", "overlay", "overlays", "preview", "previews"}
_MADE |= {"thumbnails", "thumbs", "results", "predictions", "pred", "preds", "depth", "heatmaps", "trimaps"}

_PARTS = re.compile("[-_./ ]")

_VALIDATION = ("val", "valid", "validation")
WORDS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval", "vld"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
"""What words in the names of folders and files say of the split that is in them."""

_DRIVE = re.compile(r"[A-Za-z]:")


def is_called_images(folder: str) -> bool:
    """Whether a folder, or one above it, is called images or the like, also as a word of its name."""
    return not (IMAGE_FOLDERS | {"data"}).isdisjoint(_PARTS.split(folder.lower()))


def is_made(folder: str) -> bool:
    """Whether a folder, or one above it, seems to hold what was made of images: masks, drawings, copies."""
    return not _MADE.isdisjoint(_PARTS.split(folder.lower()))


def split_names(split: str) -> list[str]:
    """How a split may be called: ``val``, ``valid`` and ``validation`` mean the same; the given name comes first."""
    return [split, *(name for name in _VALIDATION if split.lower() in _VALIDATION and name != split)]


def split_words(name: str) -> set[str]:
    """Which of ``train``, ``val`` and ``test`` a name contains, as words or as in ``trainset`` and ``trainval``."""
    words = re.findall("[a-z]+", re.sub("(?<=[a-z])(?=[A-Z])", "-", name).lower().replace("trainval", "train-val"))
    words += [re.sub("(set|data|images|imgs|list|split)s?$", "", word) for word in words]
    return {WORDS[word] for word in words if word in WORDS}


def split_of(name: str) -> str | None:
    """The split that a name means; None: none or several. What is of train and val is to train on."""
    found = split_words(name)
    return "train" if found == {"train", "val"} else found.pop() if len(found) == 1 else None


def without_split(path: str, numbers: bool = True) -> str:
    """A path whose words for a split are replaced, so that those of different splits are the same; ``numbers``: so are
    all numbers, those of years and folds."""

    def general(word: re.Match[str]) -> str:
        return "*" if split_words(word[0]) or (numbers and word[0].isdigit()) else word[0]

    return re.sub(r"[a-z]+|\d+", general, path.lower())


def is_absolute(name: str) -> bool:
    """Whether a path begins at a root or a drive, of this system or another."""
    return name.startswith(("/", "\\")) or bool(_DRIVE.match(name))


def inner_path(name: str) -> str | None:
    """A relative path with forward slashes, without ``.`` and ``..``; None if it leads out of its folder."""
    path = posixpath.normpath(name)
    return None if is_absolute(name) or path == ".." or path.startswith("../") else path


def data_folder(root: Path | str) -> Path:
    """The folder of a data set; a DataError if there is none."""
    if not (folder := path_of("root", root)).is_dir():
        raise DataError(f"{folder}: there is no such folder; set data.root to the folder of the data")
    return folder


def stated_size(where: str, height: object, width: object) -> tuple[int, int] | None:
    """Height and width as an annotation states them, numbers or text; None where one is missing or 0. A DataError that
    begins with ``where`` if they are no whole pixels, or more than are read."""
    sides = list[int]()
    for key, value in (("height", height), ("width", width)):
        try:
            number = parse_number(0 if value in (None, "") else value)
        except ValueError:
            number = -1
        if number < 0 or number != int(number):
            raise DataError(f"{where}: {key}: expected whole pixels, got {shown(value)}; correct it")
        sides.append(int(number))
    check_num_pixels(where, sides[0], sides[1])
    return (sides[0], sides[1]) if min(sides) > 0 else None


def check_num_pixels(where: str, height: int, width: int) -> None:
    """Raise a DataError that begins with ``where`` if a stated size has more pixels than are read."""
    if max(height, 1) * max(width, 1) > MAX_PIXELS:
        what = f"{width} x {height} pixels are more than the {MAX_PIXELS} that are read"
        raise DataError(f"{where}: {what}; correct width and height, or cut the image into tiles")


def image_sizes(
    root: Path,
    paths: Sequence[str | None],
    report: DataReport,
    stated: Sequence[tuple[int, int] | None] | None = None,
) -> list[tuple[int, int] | None]:
    """Height and width in pixels of many images, upright: as ``stated``, by formats that state them, else from their
    headers, which is reported; None where there is no path, or an image that the report accepts cannot be read."""

    def size(path: str) -> tuple[int, int] | DataError:
        try:
            return read_image_hw(root / path)
        except DataError as error:
            return error

    sizes = list(stated or [None] * len(paths))
    unknown = [(row, path) for row, path in enumerate(paths) if path is not None and sizes[row] is None]
    of_each = in_threads(size, [path for _, path in unknown], "reading sizes")
    for (row, path), found in zip(unknown, of_each, strict=True):
        if stated is not None:
            report.add(DataIssue.SIZE_NOT_STATED, path)
        if isinstance(found, DataError):
            report.wrong(DataIssue.UNREADABLE, path, str(found))
        else:
            sizes[row] = found
    return sizes


def _slashes(name: str) -> str:
    return name.replace("\\", "/")


def _same_text(name: str) -> str:
    return unicodedata.normalize("NFC", _slashes(name)).casefold()


_SPELLINGS: dict[str, Callable[[str], str]] = {
    "slashes for backslashes": _slashes,
    "any case": lambda name: _slashes(name).casefold(),
    "any Unicode form": _same_text,
    "another suffix": lambda name: os.path.splitext(_same_text(name))[0],
    "the base name alone": lambda name: _same_text(name).rpartition("/")[2],
    "the base name of the URL": lambda name: _same_text(unquote(name.partition("?")[0])).rpartition("/")[2],
}
"""How a name may be spelt otherwise than its file, the nearest spellings first. Another suffix counts in the same
folder alone: a mask elsewhere often has the name of its image."""


def locate_images(root: Path, names: Sequence[str], report: DataReport) -> list[str | None]:
    """The paths, relative to ``root`` and with forward slashes, of the images that annotations name; None where one is
    missing and the report accepts that.

    A name that is no file is looked for in the spellings above, where one file alone may fit: an error that names the
    spelling, unless the report accepts `DataIssue.OTHER_SPELLING`; `DataIssue.MISSING_IMAGE` in the same way.
    """
    paths = [posixpath.normpath(name) for name in names]
    # One listing for each folder is faster than one question for each image.
    folders = [folder for folder in {posixpath.dirname(path) for path in paths} if os.path.isdir(root / folder)]
    there = {posixpath.join(folder, name) for folder in folders for name in os.listdir(root / folder)}
    missing = [path for path in dict.fromkeys(paths) if path not in there]
    if not missing:
        return list(paths)
    named = set(paths) & there  # a file of an exact name is no other image's, too
    files = [path.as_posix() for path in find_images(root)] if root.is_dir() else []
    files = [file for file in files if file not in named]
    found, spelling = dict[str, str](), ""
    for rule, key in _SPELLINGS.items():
        by_key: dict[str, list[str]] = {}
        for file in files:
            by_key.setdefault(key(file), []).append(file)
        wanted = Counter(key(name) for name in missing)
        new = {
            name: by_key[key(name)][0]
            for name in missing
            if name not in found and wanted[key(name)] == len(by_key.get(key(name), ())) == 1
        }
        found, spelling = found | new, rule if new else spelling
    lost = [name for name in missing if name not in found]
    counted = f"{len(missing)} of {len(paths)} images missing"
    if found:
        example = [printable(text) for text in next(iter(found.items()))]
        which = "all" if not lost else f"{len(found)}"
        message = (
            f"{root}: {counted}: {listed(missing)}; {which} of them are found with {spelling} ({example[0]} is "
            f"{example[1]}): set data.file_names=relaxed, or correct the names"
        )
        for name, file in found.items():
            place = Example(f"{printable(name)} is {printable(file)}", detail=f"found with {spelling}")
            report.wrong(DataIssue.OTHER_SPELLING, place, message)
    if lost:
        hint = "is this the image folder of the annotations?"
        if len(lost) < len(paths):
            hint = "add the files, take them out of the annotations, or leave them out with data.on_missing=skip"
        message = f"{root}: {len(lost)} of {len(paths)} images missing: {listed(lost)}; {hint}"
        if len(lost) == len(paths) and not report.tolerant:
            raise DataError(message)
        report.wrong(DataIssue.MISSING_IMAGE, lost[0], message, len(lost))
    return [path if path in there else found.get(path) for path in paths]


def report_heic(where: Path, names: Collection[str], report: DataReport) -> set[str]:
    """Those of the images below ``where`` that cannot be read without another package, for which ``report`` gets an
    error."""
    heic = sorted(name for name in names if os.path.splitext(name)[1].lower() in HEIC_SUFFIXES)
    if not heic or (reason := why_unread(Path(heic[0]))) is None:
        return set()
    message = f"{where}: {len(heic)} of {len(names)} images ({listed(heic)}) {reason}"
    report.wrong(DataIssue.NEEDS_PACKAGE, heic[0], message, len(heic))
    return set(heic)


def place_image(source: Path, target: Path, link: bool = False) -> None:
    """Copy an image to a new place, or make a symbolic link to it there; folders are made. A DataError: it is missing,
    or there is a file already."""
    if target.exists():
        raise DataError(f"{target}: exists already; choose an empty folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if link:
            target.symlink_to(source.resolve())
        else:
            shutil.copyfile(source, target)
    except FileNotFoundError:
        raise DataError(f"{source}: there is no such image") from None


def new_folder(target: Path) -> Path:
    """Make a folder for a copy of a data set; a DataError if there is something in it, or it cannot be made."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        if any(target.iterdir()):
            raise DataError(f"{target}: expected an empty or a new folder, but it holds files; choose another")
    except OSError as error:
        raise DataError(f"{target}: cannot make the folder: {error.strerror}") from None
    return target


def copy_names(paths: Sequence[str], split: str, by_stem: bool) -> list[str]:
    """The paths of copies of a split's images within their folder: as they are, without the folders up to ``images``
    or the name of the split, which all have in common.

    ``by_stem``: names must differ without their suffixes; the second of two gets its suffix added, ``a_png.png``.
    """
    common = posixpath.commonpath([posixpath.dirname(path) for path in paths]).split("/") if paths else []
    layout = {"images", "jpegimages", "obj_train_data", *map(str.lower, split_names(split))}
    dropped = max((place for place, part in enumerate(common, start=1) if part.lower() in layout), default=0)
    names, taken = list[str](), {os.path.splitext(path)[0] for path in paths}
    seen = set[str]()
    for path in paths:
        stem, suffix = os.path.splitext(path)
        if by_stem and stem in seen:
            stem = f"{stem}_{suffix[1:]}"
            while stem in taken:
                stem += "_"
            taken.add(stem)
        seen.add(stem)
        names.append("/".join((stem + suffix).split("/")[dropped:]))
    return names


def file_identity(path: Path) -> tuple[int, int] | None:
    """What is the same for all names and links of a file; None if it cannot be found."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino
