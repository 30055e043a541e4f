"""Writes the parts of a divided data set as its format has splits: lists of VOC, lists of images, COCO JSON, CVAT XML.

Images stay where they are. What lies beside files of the set has names that begin with ``splits``, so that it is not
taken for a part of it, see `PART_FILE`.
"""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from detseg.data.datasets.detection import ImageDataset
from detseg.data.datasets.segmentation import MaskLayers
from detseg.data.images.tree import own_xml_files
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


Parts = tuple[dict[str, dict[str, Any]], dict[Path, str]]


def part_files(layout: str, root: Path, sources: Sequence[Source], parts: Mapping[str, Members], out: Path) -> Parts:
    """The text of a file, or of several, for each part.

    Args:
        layout: one of ``DIVIDED``.
        root: the folder of the data.
        sources: what was divided.
        parts: the images of each part by its name, such as ``train`` or ``fold1_val``.
        out: the folder for lists and JSON; its name is in those of VOC's lists and CVAT's files, which lie where their
            format has them.

    Returns:
        The settings of each part, with ``{}_split``, or ``{}_images`` and ``{}_annotations``, for the name of a split;
        and the files with their texts.

    Raises:
        DataError: a file of the set cannot be read, or lists cannot tell its parts apart.
    """
    return DIVIDED[layout](root, sources, parts, out)


def _prefix(out: Path) -> str:
    return out.name if f"{out.name}_".startswith("splits_") else f"splits_{out.name}"


def _lists(root: Path, sources: Sequence[Source], parts: Mapping[str, Members], out: Path) -> Parts:
    """Lists of images relative to the root."""
    folder = Path(os.path.relpath(out, root)).as_posix()
    if folder == "." or folder.startswith("../"):
        raise DataError(f"{out}: lists must lie in a folder below {root}; choose one with --out")
    settings, files = dict[str, dict[str, Any]](), dict[Path, str]()
    for part, members in parts.items():
        files[out / f"{part}.txt"] = "".join(f"{_below(root, sources[s].dataset.path(i))}\n" for s, i in members)
        settings[part] = {"{}_split": f"{folder}/{part}.txt"}
    return settings, files


def _voc_parts(root: Path, sources: Sequence[Source], parts: Mapping[str, Members], out: Path) -> Parts:
    """Lists of stems in ``ImageSets``, in that of each year; without ``ImageSets``, lists of images."""
    has_masks = hasattr(sources[0].dataset, "masks")
    sets = f"ImageSets/{'Segmentation' if has_masks else 'Main'}"
    settings, files = dict[str, dict[str, Any]](), dict[Path, str]()
    for part, members in parts.items():
        stems: dict[Path, list[str]] = {}
        for source, index in members:
            path = sources[source].dataset.path(index)
            base = next((folder for folder in path.parents if (folder / sets).is_dir()), path.parent)
            stems.setdefault(base, []).append("/".join(path.with_suffix("").relative_to(base).parts[1:]))
        if not all((base / sets).is_dir() for base in stems):
            return _lists(root, sources, parts, out)
        name, names = f"{_prefix(out)}_{part}", []
        for base, own in stems.items():
            files[base / sets / f"{name}.txt"] = "".join(f"{stem}\n" for stem in own)
            names.append(name if base == root else f"{base.name.removeprefix('VOC')}:{name}")
        settings[part] = {"{}_split": "+".join(names)}
    return settings, files


def _coco_parts(root: Path, sources: Sequence[Source], parts: Mapping[str, Members], out: Path) -> Parts:
    """Files that keep every key of their source, and of it some of the images and their annotations."""
    contents = [json.loads(source.annotations.read_text(encoding="utf-8-sig")) for source in sources]
    settings, files = dict[str, dict[str, Any]](), dict[Path, str]()
    for part, members in parts.items():
        used = sorted({source for source, _ in members})
        one = len(used) == 1
        names = {s: f"{part}.json" if one else f"{part}_{s + 1}.json" for s in used}
        for number in used:
            ids = {sources[number].dataset.image_id(index) for source, index in members if source == number}
            own = dict(contents[number])
            own["images"] = [image for image in own["images"] if image["id"] in ids]
            own["annotations"] = [entry for entry in own["annotations"] if entry["image_id"] in ids]
            files[out / names[number]] = json.dumps(own, ensure_ascii=False)
        folders = [_below(root, sources[number].images) for number in used]
        paths = [_below(root, out / names[number]) for number in used]
        settings[part] = {"{}_images": folders[0] if one else folders, "{}_annotations": paths[0] if one else paths}
    return settings, files


def _below(root: Path, path: Path) -> str:
    """A path for settings: relative to the root where it lies below it."""
    relative = Path(os.path.relpath(path, root)).as_posix()
    return os.path.abspath(path) if relative.startswith("../") else relative


def _cvat_parts(root: Path, sources: Sequence[Source], parts: Mapping[str, Members], out: Path) -> Parts:
    """The file without the images of other parts, and everything else as it is."""
    found = {path: path.read_text(encoding="utf-8-sig") for path in own_xml_files(root)}
    texts = [text for text in found.values() if "<annotations>" in text[:4096] and "<image" in text]
    divided = {sources[source].dataset.packed.path(index) for own in parts.values() for source, index in own}
    texts = [text for text in texts if any(_cvat_paths(match[0]) & divided for match in _CVAT_IMAGE.finditer(text))]
    if len(texts) != 1:
        what = f"expected one XML file of these images, got {listed([path.name for path in found]) or 'none'}"
        raise DataError(f"{root}: {what}; divide one at a time")
    settings, files = dict[str, dict[str, Any]](), dict[Path, str]()
    for part, members in parts.items():
        wanted = {sources[source].dataset.packed.path(index) for source, index in members}

        def kept(match: re.Match[str], wanted: set[str] = wanted) -> str:
            return match[0] if _cvat_paths(match[0]) & wanted else ""

        files[root / f"{_prefix(out)}_{part}.xml"] = _CVAT_IMAGE.sub(kept, texts[0])
        settings[part] = {"{}_split": f"{_prefix(out)}_{part}.xml"}
    return settings, files


def _cvat_paths(element: str) -> set[str]:
    """Where the image of an element may lie below the root."""
    tag = element.partition(">")[0]
    values = dict(re.findall(r"""\s(name|subset)=["']([^"']*)["']""", tag))
    name, subset = (html.unescape(values.get(key, "")) for key in ("name", "subset"))
    folders = [f"images/{subset}", subset] if subset else []
    return {os.path.normpath(f"{folder}/{name}") for folder in [*folders, "images", "."]}


def _mask_lists(root: Path, sources: Sequence[Source], parts: Mapping[str, Members], out: Path) -> Parts:
    """Lists of images relative to the root, whose masks lie in one folder, or in folders that are called as those of
    their images."""
    pairs = {(source.images.absolute(), source.annotations.absolute()) for source in sources}
    per_class = isinstance(getattr(sources[0].dataset, "masks", None), MaskLayers)
    masks = Path(os.path.commonpath([own for _, own in pairs]))
    for images, own in pairs if len(pairs) > 1 else ():
        ends_alike = images.as_posix().endswith(f"/{own.relative_to(masks).as_posix()}")
        apart = images == own or not images.is_relative_to(masks)
        if own != masks and (not (ends_alike and apart) or per_class):
            what = f"masks lie in several folders, {listed(sorted(_below(root, own) for _, own in pairs))}"
            fix = "put them into one" if per_class else "lay them out as images/NAME/a.jpg and masks/NAME/a.png"
            raise DataError(f"{root}: {what}, which lists cannot tell apart; {fix}, or set data.val_fraction")
    settings, files = _lists(root, sources, parts, out)
    return {
        part: {"{}_images": own["{}_split"], "{}_masks": _below(root, masks)} for part, own in settings.items()
    }, files


DIVIDED: dict[str, Callable[[Path, Sequence[Source], Mapping[str, Members], Path], Parts]] = {
    "coco": _coco_parts,
    "cvat": _cvat_parts,
    "voc": _voc_parts,
    "yolo": _lists,
    "labelme": _lists,
    "mask_folder": _mask_lists,
}
"""What makes the files, by layout; others are not divided."""


def data_yaml(root: Path, names: Sequence[str], splits: Mapping[str, str]) -> str:
    """YOLO's ``data.yaml`` for lists relative to the root."""
    content = {"path": str(root.resolve()), **splits, "names": dict(enumerate(names))}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
