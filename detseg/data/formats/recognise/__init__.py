"""Finds out which layout a folder has: the settings of ``data`` that read it, and what was found, in words.

Nothing is decoded and no annotation is read whole but COCO's: names of folders and files decide, and the beginning of
the first files. A folder may be several sets at once; the model decides which one is taken.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from detseg.data.formats.mask_folder import LABEL_STUDIO
from detseg.data.formats.recognise.coco_json import coco_json
from detseg.data.formats.recognise.layout import NUMBER, WHOLE, Layout, Need
from detseg.data.formats.recognise.masks import mask_folders
from detseg.data.formats.recognise.objects import cvat_xml, labelme_json, voc_files, voc_lists, voc_maps
from detseg.data.formats.recognise.yolo_text import yolo_text
from detseg.data.formats.yolo import NAME_FILES
from detseg.data.images.find import data_folder, is_called_images, is_made, split_of, split_words
from detseg.data.images.read import IMAGE_SUFFIXES
from detseg.data.images.tree import Tree
from detseg.errors import DataError
from detseg.messages import counted, listed

_IN_WORDS = {"boxes": "boxes", "outlines": "outlines of objects", "maps": "the class of each pixel"}
_LIKE_YOLO = re.compile(rf"\d+(?:\.0*)?(?:\s+{NUMBER}){{4,}}")
_COMMAS = re.compile(r"-?\d+(?:[\s,.]+-?\d+){4,},?")
_DOTA = re.compile(rf"(?:{NUMBER}\s+){{8}}\S+(?:\s+\d)?")
_MASKS_FIT = (
    "masks in folders of other names are read by data: {name: mask_folder, train_images: FOLDER, train_masks: FOLDER}, "
    "with mask_suffix, image_suffix or mask_per_class where their names differ from those of the images"
)
_OF_TASKS = (
    "Label Studio names masks by task: call the images 1.jpg or task-1.jpg, ..., and data.mask_per_class reads them"
)
READ = "VOC XML, COCO JSON, YOLO text, LabelMe JSON, CVAT XML and folders of masks"


@dataclass(frozen=True)
class Recognised:
    """What a folder is.

    Attributes:
        root: the folder that holds the set: the given one, or one below it.
        layout: how it is read.
        others: other ways in which it could be read.
        beside: sets in folders of the root that it does not hold, in words.
    """

    root: Path
    layout: Layout
    others: tuple[Layout, ...] = ()
    beside: tuple[str, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """The ``data`` section as plain values; without a validation split it has ``val_fraction``."""
        found = {"name": self.layout.name, "root": str(self.root)} | self.layout.settings
        return found if "val" in self.layout.counts else found | {"val_fraction": 0.2}

    @property
    def lines(self) -> list[str]:
        """What was found."""
        one = self.layout
        splits = [f"{split} {'' if n is None else counted(n, 'image')}".strip() for split, n in one.counts.items()]
        classes = [f"classes, {len(one.classes)}: {listed(one.classes)}"] if one.classes else []
        lines = [f"{one.what} in {self.root}: {', '.join(splits)}", *classes, *one.notes]
        if "val" not in one.counts:
            lines.append("no validation split: a training takes a fifth of the training images (data.val_fraction)")
        if self.beside:
            lines.append(f"other sets in folders, not taken: {listed(self.beside)}; name one of these to read it")
        return lines + [f"also there, not taken: {other.what}" for other in self.others]


def recognise(root: Path, need: Need | None = None) -> Recognised:
    """Find out what a folder is.

    Args:
        root: the folder, or one that holds the set one or two levels down.
        need: what a model learns from; None: the first layout that is found is taken.

    Raises:
        DataError: there is no such folder, no layout, several sets, or none with what is needed.
    """
    found = _layouts(data_folder(root))
    if not found:
        raise DataError(f"{root}: {_what_there_is(Tree(root))}")
    if len(found) > 1:
        names = [f"{folder.relative_to(root)} ({layouts[0].what})" for folder, layouts in found]
        raise DataError(f"{root}: holds several data sets: {listed(names)}; name one of these folders")
    folder, layouts = found[0]
    fitting = [layout for layout in layouts if need is None or need in layout.has]
    if not fitting:
        what = f"found {listed([layout.what for layout in layouts])}, which has not {_IN_WORDS[need or 'boxes']}"
        raise DataError(f"{folder}: {what}; take another model, or annotate that")
    if need == "maps":  # what is drawn as a map, with names, before what is made of outlines, before what lacks names
        fitting.sort(key=lambda layout: (layout.has == {"maps"} and not layout.classes, layout.has != {"maps"}))
    taken = fitting[0]
    others = tuple(layout for layout in layouts if layout is not taken)
    return Recognised(folder, taken, others, _sets_beside(folder, layouts))


def _sets_beside(root: Path, layouts: Sequence[Layout]) -> tuple[str, ...]:
    """The sets in those folders of a root that none of its layouts reads. Of formats that name no folders all of the
    kind are read, and COCO names its other files itself."""
    values = [value for layout in layouts for value in layout.settings.values()]
    texts = [text for value in values for text in (value if isinstance(value, list) else [value])]
    used = {text.partition("/")[0] for text in texts if isinstance(text, str)}
    of_folders = {"labelme", "mask_folder"} if "." not in used else set[str]()
    names = {layout.name for layout in layouts} - of_folders
    tree = Tree(root)
    tops = [name for name in tree.files if name and "/" not in name and name not in used and split_of(name) is None]
    found = [one for top in tops if tree.num_images(top) for one in _layouts(root / top, 1)]
    kinds = [(folder, layout) for folder, own in found for layout in own[:1] if layout.name not in names]
    return tuple(f"{folder.relative_to(root)} ({layout.what})" for folder, layout in kinds)


def _layouts(root: Path, depth: int = 2) -> list[tuple[Path, list[Layout]]]:
    """The layouts of a folder; where it has none, those of the folders in it: it may have been unpacked twice."""
    tree = Tree(root)
    kinds = (coco_json, voc_lists, voc_maps, cvat_xml, yolo_text, labelme_json, voc_files, mask_folders)
    layouts = [layout for kind in kinds if (layout := kind(tree)) is not None]
    if any(layout.name == "voc" and "maps" in layout.has for layout in layouts):  # its masks lie in a folder, too
        layouts = [layout for layout in layouts if layout.name != "mask_folder"]
    if layouts:
        notes = list[str]()
        if tree.parts:
            named = listed(tree.parts[:3]) + (", ..." if len(tree.parts) > 3 else "")
            notes.append(f"of detseg split, not taken: {named}; a configuration that it wrote reads them")
        texts = [path for path in tree.paths({".txt"}, depth=1) if not path.startswith("labels/")]
        tops = {path.partition("/")[0] for path in tree.paths(IMAGE_SUFFIXES) if "/" in path}
        tops = {top for top in tops if not is_made(top) and not is_called_images(top)}
        pooled = [f"read as one set: {listed(sorted(tops))}"] if len(tops) > 1 else []
        lists = [path for path in texts if split_of(os.path.splitext(path)[0].rpartition("/")[2])]
        return [
            (root, [_with_notes(layout, [*notes, *_unused(layout, lists)], pooled) for layout in layouts]),
        ]
    below = [name for name in tree.files if name and "/" not in name]
    below = below if depth or len(below) == 1 else []
    found = [one for name in below for one in _layouts(root / name, depth - (len(below) > 1))]
    first = [layouts[0] for _, layouts in found]
    names_split = any(split_words(folder.name) for folder, _ in found)
    if len(first) > 1 and not names_split and all((o.what, o.settings) == (first[0].what, WHOLE) for o in first):
        counts: dict[str, int | None] = {"train": sum(one.counts["train"] or 0 for one in first)}
        return [(root, [replace(first[0], counts=counts)])]  # one set in many folders
    return found


def _with_notes(layout: Layout, notes: Sequence[str], of_whole: Sequence[str]) -> Layout:
    more = [*notes, *(of_whole if layout.settings.get("train_split") == "." else ())]
    return replace(layout, notes=(*layout.notes, *more))


def _unused(layout: Layout, lists: Sequence[str]) -> list[str]:
    """A note of lists of splits beside a layout that has none."""
    what = f"{layout.what} has files for splits, so that these lists are not taken"
    return [f"{what}: {listed(lists)}"] if lists and layout.name in ("coco", "cvat") else []


def _what_there_is(tree: Tree) -> str:
    suffixes = Counter(os.path.splitext(name)[1].lower() or name for names in tree.files.values() for name in names)
    if not suffixes:
        return "the folder is empty; set data.root to the folder of the data"
    there = ", ".join(f"{number} {suffix}" for suffix, number in suffixes.most_common(8))
    texts = [tree.begin(path, 4096) for path in list(tree.paths({".xml", ".json"}))[:20]]
    lines = {path: tree.begin(path, 4096).strip().partition("\n")[0] for path in list(tree.paths({".txt"}))[:20]}
    hint = _hint(texts, lines, suffixes)
    if any(LABEL_STUDIO.fullmatch(os.path.splitext(name)[0]) for names in tree.files.values() for name in names):
        hint = _OF_TASKS
    return f"no annotations that can be read: there are {there}; read are {READ}" + (f"; {hint}" if hint else "")


def _hint(texts: Sequence[str], lines: Mapping[str, str], suffixes: Mapping[str, int]) -> str:
    """What the files are, by the beginnings of XML and JSON and by the first lines of text files."""
    if any("<annotation>" in text and "<polygon>" in text for text in texts):
        return "this looks like the XML of the old LabelMe, which is not read: export it as LabelMe JSON or COCO"
    if any("<annotations>" in text and ("<track" in text or ">interpolation<" in text) for text in texts):
        return "this is the XML of CVAT for video, which is not read: export CVAT for images, or COCO"
    if any('"annotations"' in text and '"data"' in text and text.lstrip().startswith("[") for text in texts):
        return "this looks like Label Studio's own JSON: export COCO, YOLO or Pascal VOC from it"
    if any('"images"' in text and '"file_name"' in text for text in texts):
        return "there is COCO JSON without boxes and outlines (captions, labels of images, panoptic maps)"
    if dota := next((name for name in lines if _DOTA.fullmatch(lines[name].strip())), None):
        return f"{dota} looks like DOTA's oriented boxes, which are not read: export polygons or upright boxes"
    if yolo := next((name for name in lines if _LIKE_YOLO.fullmatch(lines[name].strip())), None):
        where = "in a folder labels beside the folder images, or beside each image, with classes.txt or data.yaml"
        return f"{yolo} looks like YOLO text: a line begins with the whole number of a class, and the files lie {where}"
    if comma := next((name for name in lines if _COMMAS.fullmatch(lines[name].strip())), None):
        return f"{comma} has numbers with commas; of text files YOLO's are read: spaces between numbers, points in them"
    labels = [line for name, line in lines.items() if name.rpartition("/")[2] not in NAME_FILES]
    if labels and not any(line.strip() for line in labels):
        return "the text files are empty: no image has an object, or the export has failed"
    if ".tfrecord" in suffixes:
        return "TFRecord is not: export one of these"
    if set(suffixes) <= IMAGE_SUFFIXES:
        return f"there are images without annotations; {_MASKS_FIT}"
    others = sum(suffixes[suffix] for suffix in (".txt", ".json", ".xml", ".csv") if suffix in suffixes)
    images = sum(suffixes[suffix] for suffix in IMAGE_SUFFIXES if suffix in suffixes)
    return _MASKS_FIT if images > 2 * others else ""
