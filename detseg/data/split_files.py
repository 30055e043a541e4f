"""Writes the parts of a divided data set as its format has splits: lists of VOC, lists of images, COCO JSON, CVAT XML.

Images stay where they are. Nothing is replaced: all files are named before the first one is written.
"""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from detseg.atomic_write import write_text
from detseg.data.datasets.detection import ImageDataset
from detseg.errors import DataError
from detseg.messages import listed

Members = Sequence[tuple[int, int]]
"""Images of a part: the number of the source, the position in its data set."""

_CVAT_IMAGE = re.compile(r"""\s*<image\b(?:[^>"']|"[^"]*"|'[^']*')*?(?:/>|>.*?</image>)""", re.DOTALL)


@dataclass(frozen=True)
class Source:
    """A split that is divided: its data set; of COCO and folders of masks also the folder of images, and the annotation
    file or the folder of masks."""

    dataset: ImageDataset
    images: Path = Path()
    annotations: Path = Path()


def write_parts(
    layout: str, root: Path, sources: Sequence[Source], parts: Mapping[str, Members], out: Path
) -> tuple[dict[str, dict[str, Any]], list[Path]]:
    """Write a file, or several, for each part.

    Args:
        layout: ``voc``, ``coco``, ``yolo``, ``labelme``, ``cvat`` or ``mask_folder``.
        root: the folder of the data.
        sources: what was divided.
        parts: the images of each part by its name, such as ``train`` or ``fold1_val``.
        out: the folder for lists and JSON; its name begins those of VOC's lists and CVAT's files, which lie where
            their format has them.

    Returns:
        The settings of each part, with ``{}_split``, or ``{}_images`` and ``{}_annotations``, for the name of a split;
        and the files that were written.

    Raises:
        DataError: the layout has no lists, a file exists already, or cannot be read or written.
    """
    write = _WRITE.get(layout)
    if write is None:
        raise DataError(f"{root}: {layout} has no lists of images; set data.val_fraction, which needs none")
    settings, files = write(root, sources, parts, out)
    if existing := [str(path) for path in files if path.exists()]:
        raise DataError(f"{listed(existing)}: exists already; remove it, or choose another place with --out")
    for path, text in files.items():
        write_text(path, text)
    return settings, list(files)


_Written = tuple[dict[str, dict[str, Any]], dict[Path, str]]


def _lists(root: Path, sources: Sequence[Source], parts: Mapping[str, Members], out: Path) -> _Written:
    """Lists of images relative to the root."""
    folder = Path(os.path.relpath(out, root)).as_posix()
    if folder == "." or folder.startswith("../"):
        raise DataError(f"{out}: lists must lie in a folder below {root}; choose one with --out")
    settings, files = dict[str, dict[str, Any]](), dict[Path, str]()
    for part, members in parts.items():
        files[out / f"{part}.txt"] = "".join(f"{_below(root, sources[s].dataset.path(i))}\n" for s, i in members)
        settings[part] = {"{}_split": f"{folder}/{part}.txt"}
    return settings, files


def _voc_parts(root: Path, sources: Sequence[Source], parts: Mapping[str, Members], out: Path) -> _Written:
    """Lists of stems in ``ImageSets``, in that of each year; without ``ImageSets``, lists of images."""
    has_masks = hasattr(sources[0].dataset, "masks")
    sets = f"ImageSets/{'Segmentation' if has_masks else 'Main'}"
    settings, files = dict[str, dict[str, Any]](), dict[Path, str]()
    for part, members in parts.items():
        stems: dict[Path, list[str]] = {}
        for source, index in members:
            path = sources[source].dataset.path(index)
            stems.setdefault(path.parent.parent, []).append(path.stem)
        if not all((base / sets).is_dir() for base in stems):
            return _lists(root, sources, parts, out)
        name, names = f"{out.name}_{part}", []
        for base, own in stems.items():
            files[base / sets / f"{name}.txt"] = "".join(f"{stem}\n" for stem in own)
            names.append(name if base == root else f"{base.name.removeprefix('VOC')}:{name}")
        settings[part] = {"{}_split": "+".join(names)}
    return settings, files


def _coco_parts(root: Path, sources: Sequence[Source], parts: Mapping[str, Members], out: Path) -> _Written:
    """Files that keep every key of their source, and of it some of the images and their annotations."""
    contents = [json.loads(source.annotations.read_text(encoding="utf-8-sig")) for source in sources]
    settings, files = dict[str, dict[str, Any]](), dict[Path, str]()
    for part, members in parts.items():
        used = sorted({source for source, _ in members})
        names = {s: f"{part}_{sources[s].annotations.stem}.json" if len(used) > 1 else f"{part}.json" for s in used}
        for number in used:
            ids = {sources[number].dataset.image_id(index) for source, index in members if source == number}
            own = dict(contents[number])
            own["images"] = [image for image in own["images"] if image["id"] in ids]
            own["annotations"] = [entry for entry in own["annotations"] if entry["image_id"] in ids]
            files[out / names[number]] = json.dumps(own, ensure_ascii=False)
        folders = [_below(root, sources[number].images) for number in used]
        paths = [_below(root, out / names[number]) for number in used]
        one = len(used) == 1
        settings[part] = {"{}_images": folders[0] if one else folders, "{}_annotations": paths[0] if one else paths}
    return settings, files


def _below(root: Path, path: Path) -> str:
    """A path for settings: relative to the root where it lies below it."""
    relative = Path(os.path.relpath(path, root)).as_posix()
    return os.path.abspath(path) if relative.startswith("../") else relative


def _cvat_parts(root: Path, sources: Sequence[Source], parts: Mapping[str, Members], out: Path) -> _Written:
    """The file without the images of other parts, and everything else as it is."""
    found = {path: path.read_text(encoding="utf-8-sig") for path in sorted(root.glob("*.xml"))}
    texts = [text for text in found.values() if "<annotations>" in text[:4096] and "<image" in text]
    if len(texts) != 1:
        what = f"expected one XML file in it, got {listed([path.name for path in found]) or 'none'}"
        raise DataError(f"{root}: {what}; divide one at a time")
    settings, files = dict[str, dict[str, Any]](), dict[Path, str]()
    for part, members in parts.items():
        wanted = {sources[source].dataset.packed.path(index) for source, index in members}

        def kept(match: re.Match[str], wanted: set[str] = wanted) -> str:
            return match[0] if _cvat_paths(match[0]) & wanted else ""

        files[root / f"{out.name}_{part}.xml"] = _CVAT_IMAGE.sub(kept, texts[0])
        settings[part] = {"{}_split": f"{out.name}_{part}.xml"}
    return settings, files


def _cvat_paths(element: str) -> set[str]:
    """Where the image of an element may lie below the root."""
    tag = element.partition(">")[0]
    values = dict(re.findall(r"""\s(name|subset)=["']([^"']*)["']""", tag))
    name, subset = (html.unescape(values.get(key, "")) for key in ("name", "subset"))
    folders = [f"images/{subset}", subset] if subset else []
    return {os.path.normpath(f"{folder}/{name}") for folder in [*folders, "images", "."]}


def _mask_lists(root: Path, sources: Sequence[Source], parts: Mapping[str, Members], out: Path) -> _Written:
    """Lists of images relative to the root, whose masks lie in one folder."""
    if len(folders := {_below(root, source.annotations) for source in sources}) > 1:
        what = f"masks lie in several folders, {listed(sorted(folders))}"
        raise DataError(f"{root}: {what}; put them into one, or set data.val_fraction")
    settings, files = _lists(root, sources, parts, out)
    masks = folders.pop()
    return {part: {"{}_images": own["{}_split"], "{}_masks": masks} for part, own in settings.items()}, files


_WRITE = {
    "coco": _coco_parts,
    "cvat": _cvat_parts,
    "voc": _voc_parts,
    "yolo": _lists,
    "labelme": _lists,
    "mask_folder": _mask_lists,
}


def data_yaml(root: Path, names: Sequence[str], splits: Mapping[str, str]) -> str:
    """YOLO's ``data.yaml`` for lists relative to the root."""
    content = {"path": str(root.resolve()), **splits, "names": dict(enumerate(names))}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
