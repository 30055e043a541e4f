"""Finds the videos among the sources of a prediction: files, cameras, addresses, and files in folders."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from detseg.data.images.find import find_images
from detseg.data.images.read import IMAGE_SUFFIXES, OTHER_IMAGE_SUFFIXES
from detseg.data.images.sources import is_pattern, match_pattern
from detseg.messages import counted, listed, printable
from detseg.predict.video.frames import CAMERA, STREAM

logger = logging.getLogger("detseg")

VIDEO_SUFFIXES = frozenset(
    {
        *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
        *(".mts", ".ogv", ".webm", ".wmv"),
    }
)
_IMAGES = IMAGE_SUFFIXES | OTHER_IMAGE_SUFFIXES
_PLAYLISTS = frozenset({".m3u8", ".mpd"})  # of streams on web servers


@dataclass(frozen=True)
class VideoSource:
    """A video to predict for.

    Attributes:
        source: as ``open_video`` takes it.
        name: of what is written for it, without a suffix, relative to the folder of the results.
    """

    source: str
    name: Path


def split_videos(sources: Sequence[str | Path]) -> tuple[list[VideoSource], list[str | Path]]:
    """The videos, and the sources that are left: images. Of folders both, of a folder of videos alone only these.

    A file is a video by its suffix, or by its first bytes where it has no suffix of an image; an address by its suffix,
    or where it begins with ``rtsp``. Videos that would have one name get their suffixes, too: ``clip_avi``.
    """
    videos: list[VideoSource] = []
    others: list[str | Path] = []
    for source in sources:
        text, path = str(source), Path(source)
        if camera := CAMERA.fullmatch(text):
            videos.append(VideoSource(text, Path(f"camera{camera[1]}")))
        elif STREAM.match(text):
            place = PurePosixPath(urlsplit(text).path)
            if text.lower().startswith("rtsp") or place.suffix.lower() in VIDEO_SUFFIXES | _PLAYLISTS:
                name = re.sub(r"[^\w.-]+", "_", place.stem).strip(".") or "stream"
                videos.append(VideoSource(text, Path(name)))
            else:
                others.append(source)
        elif path.is_dir():
            found = find_images(path, suffixes=VIDEO_SUFFIXES)
            videos += [VideoSource(str(path / name), name.with_suffix("")) for name in found]
            if not found or find_images(path, suffixes=_IMAGES):
                others.append(source)
        elif is_pattern(source):
            found_videos, has_others = _split_pattern(text)
            videos += found_videos
            if has_others or not found_videos:
                others.append(source)
        elif _is_video(path):
            videos.append(VideoSource(text, Path(path.stem)))
        else:
            others.append(source)
    num = Counter(video.name for video in videos)
    return [video if num[video.name] == 1 else _with_suffix(video) for video in videos], others


def _with_suffix(video: VideoSource) -> VideoSource:
    """With a name that ``clip.avi`` does not have in common with ``clip.mp4``."""
    suffix = PurePosixPath(urlsplit(video.source).path if STREAM.match(video.source) else video.source).suffix
    return VideoSource(video.source, video.name.with_name(f"{video.name.name}{suffix.replace('.', '_')}"))


def _split_pattern(pattern: str) -> tuple[list[VideoSource], bool]:
    """The videos that a pattern matches, and whether it matches images or ZIP files; files of another kind are named in
    a warning."""
    videos: list[VideoSource] = []
    images: list[Path] = []
    unused: list[Path] = []
    for path, name in match_pattern(pattern, VIDEO_SUFFIXES | _IMAGES):
        if _is_video(path):
            videos.append(VideoSource(str(path), name.with_suffix("")))
        else:
            (images if path.suffix.lower() in _IMAGES | {".zip"} else unused).append(path)
    if unused:
        what = f"{counted(len(unused), 'file')} of another kind ({listed(list(map(str, unused)))})"
        logger.warning(f"{printable(pattern)}: matches {what}; not used")
    return videos, bool(images)


def _is_video(path: Path) -> bool:
    """Whether a file is called a video; or is not called an image, and begins as MP4, Matroska, AVI, MPEG or Flash
    videos do."""
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return True
    if suffix in _IMAGES | {".zip"} or not path.is_file():
        return False
    with path.open("rb") as file:
        begin = file.read(12)
    is_mp4 = begin[4:8] == b"ftyp" and begin[8:12] not in (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")
    is_avi = begin[:4] == b"RIFF" and begin[8:12] == b"AVI "
    return is_mp4 or is_avi or begin.startswith((b"\x1aE\xdf\xa3", b"\0\0\1\xba", b"FLV\1"))
