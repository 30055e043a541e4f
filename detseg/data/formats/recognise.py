"""Finds out which layout a folder has: the settings of ``data`` that read it, and what was found, in words.

Nothing is decoded and no annotation is read whole but COCO's: names of folders and files decide, and the beginning of
the first files. A folder may be several sets at once; the model decides which one is taken.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from detseg.data.annotations.classes import placeholders
from detseg.data.images.read import IMAGE_SUFFIXES
from detseg.data.images.tree import Tree
from detseg.errors import DataError
from detseg.messages import counted, listed

Need = Literal["boxes", "outlines", "maps"]
"""What a model learns from: boxes, boxes and outlines of objects, or the class of each pixel."""

SPLITS = ("train", "val", "test")
_ALL = {"train_split": "."}  # of layouts whose annotation files may lie in any folder
_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_IN_WORDS = {"boxes": "boxes", "outlines": "outlines of objects", "maps": "the class of each pixel"}
READ = "VOC XML, COCO JSON, YOLO text, LabelMe JSON, CVAT XML and folders of masks"


@dataclass(frozen=True)
class Layout:
    """One way to read a folder.

    Attributes:
        name: of the layout, for ``data.name``.
        what: the same in words.
        settings: other settings of the ``data`` section, but ``root``.
        has: what a model can learn from it.
        counts: images of each split that there is; None where they are not counted.
        classes: the names, where files list them.
        notes: what is unusual, a line each.
    """

    name: str
    what: str
    settings: dict[str, Any]
    has: frozenset[Need]
    counts: dict[str, int | None]
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recognised:
    """What a folder is.

    Attributes:
        root: the folder that holds the set: the given one, or one below it.
        layout: how it is read.
        others: other ways in which it could be read.
    """

    root: Path
    layout: Layout
    others: tuple[Layout, ...] = field(default=())

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
            lines.append("no validation split: a fifth of the training images validates (data.val_fraction)")
        return lines + [f"also there, not taken: {other.what}" for other in self.others]


def _has(boxes: bool, outlines: bool) -> frozenset[Need]:
    found: list[Need] = ["boxes"] if boxes else []
    if outlines:
        found += ["outlines", "maps"]
    return frozenset(found)


def _split_of(name: str) -> str | None:
    """``train``, ``val`` or ``test``, whichever a name contains as a word; None: none or several of them."""
    found = {_WORDS[word] for word in re.findall("[a-z]+", name.lower()) if word in _WORDS}
    return found.pop() if len(found) == 1 else None


def _named_splits(tree: Tree, folders: Sequence[str]) -> dict[str, tuple[str, int]]:
    """The splits among folders that are named as such: split → folder and its images."""
    found: dict[str, tuple[str, int]] = {}
    for folder in folders:
        split = _split_of(folder.rpartition("/")[2])
        if split is not None and split not in found:
            found[split] = folder, tree.num_images(folder)
    return {split: found[split] for split in SPLITS if split in found}


def recognise(root: Path, need: Need | None = None) -> Recognised:
    """Find out what a folder is.

    Args:
        root: the folder, or one that holds the set one or two levels down.
        need: what a model learns from; None: the first layout that is found is taken.

    Raises:
        DataError: there is no such folder, no layout, several sets, or none with what is needed.
    """
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; set data.root to the folder of the data")
    found = _layouts(root)
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
    return Recognised(folder, taken, tuple(layout for layout in layouts if layout is not taken))


def _layouts(root: Path, depth: int = 2) -> list[tuple[Path, list[Layout]]]:
    """The layouts of a folder; where it has none, those of the folders in it: it may have been unpacked twice."""
    tree = Tree(root)
    kinds = (_coco, _voc_lists, _voc_maps, _cvat, _yolo, _labelme, _voc_files, _mask_folders)
    layouts = [layout for kind in kinds if (layout := kind(tree)) is not None]
    if any(layout.name == "voc" for layout in layouts):  # its masks lie in a folder, too
        layouts = [layout for layout in layouts if layout.name != "mask_folder"]
    if layouts:
        return [(root, layouts)]
    below = [name for name in tree.files if name and "/" not in name] if depth else []
    found = [one for name in below for one in _layouts(root / name, depth - 1)]
    first = [layouts[0] for _, layouts in found]
    if len(first) > 1 and all((one.what, one.settings) == (first[0].what, _ALL) for one in first):
        counts: dict[str, int | None] = {"train": sum(one.counts["train"] or 0 for one in first)}
        return [(root, [replace(first[0], counts=counts)])]  # one set in many folders
    return found


def _what_there_is(tree: Tree) -> str:
    suffixes = Counter(os.path.splitext(name)[1].lower() or name for names in tree.files.values() for name in names)
    if not suffixes:
        return "the folder is empty; set data.root to the folder of the data"
    there = ", ".join(f"{number} {suffix}" for suffix, number in suffixes.most_common(8))
    hint = f"read are {READ}"
    texts = [tree.begin(path, 4096) for path in list(tree.paths({".xml", ".json"}))[:20]]
    if any("<annotation>" in text and "<polygon>" in text for text in texts):
        hint += "; this looks like the XML of the old LabelMe, which is not read: export it as LabelMe JSON or COCO"
    elif any('"annotations"' in text and '"data"' in text and text.lstrip().startswith("[") for text in texts):
        hint += "; this looks like Label Studio's own JSON: export COCO, YOLO or Pascal VOC from it"
    elif any('"images"' in text and '"file_name"' in text for text in texts):
        hint += "; there is COCO JSON without boxes and outlines (captions, labels of images, panoptic maps)"
    elif any(name.rpartition("/")[2] == "labelTxt" for name in tree.files):
        hint += "; labelTxt holds oriented boxes of DOTA, which are not: export upright boxes or polygons"
    elif ".tfrecord" in suffixes:
        hint += "; TFRecord is not: export one of these"
    elif suffixes.keys() <= IMAGE_SUFFIXES:
        hint += "; there are images without annotations"
    return f"no annotations that can be read: there are {there}; {hint}"


# COCO


_Id = int | float | str | None


class _Image(msgspec.Struct, gc=False):
    file_name: str


class _Category(msgspec.Struct):
    name: str
    id: _Id = None
    supercategory: Any = None


class _Object(msgspec.Struct, gc=False):
    category_id: _Id = None


class _Instances(msgspec.Struct):
    images: list[_Image]
    annotations: list[msgspec.Raw]
    categories: list[_Category]


@dataclass(frozen=True)
class _CocoFile:
    path: str
    folder: str | None  # of its images; None: they are not there
    num_images: int
    classes: tuple[str, ...]
    boxes: bool
    outlines: bool


def _coco(tree: Tree) -> Layout | None:
    near = [
        path
        for path in tree.paths({".json"}, depth=1)
        if not path.startswith("splits/")  # of `detseg split`
        and ('"annotations"' in tree.begin(path) or '"images"' in tree.begin(path))
    ]
    found = [file for path in near if (file := _coco_file(tree, path)) is not None]
    if not found:
        return None
    by_split: dict[str | None, list[_CocoFile]] = {}
    for file in found:
        stem, folder = Path(file.path).stem, file.path.rpartition("/")[0].rpartition("/")[2]
        by_split.setdefault(_split_of(stem) or _split_of(folder), []).append(file)
    for files in by_split.values():  # instances_train.json before person_keypoints_train.json
        files.sort(key=lambda f: (f.folder is None, "instances" not in f.path, -f.num_images, f.path))
    if "train" not in by_split:
        others_first = sorted(by_split, key=lambda split: (split is not None, split != "val"))
        by_split["train"] = by_split.pop(others_first[0])
    splits = {split: by_split[split][0] for split in SPLITS if split in by_split}
    settings = dict[str, Any]()
    for split, file in splits.items():
        settings |= {f"{split}_images": file.folder or ".", f"{split}_annotations": file.path}
    others = [file.path for files in by_split.values() for file in files if file not in splits.values()]
    notes = [f"other files, not taken: {listed(sorted(others))}"] if others else []
    notes += [f"the images of {file.path} are not there" for file in splits.values() if file.folder is None]
    train = splits["train"]
    has = _has(train.boxes, train.outlines)
    counts: dict[str, int | None] = {split: file.num_images for split, file in splits.items()}
    return Layout("coco", "COCO JSON", settings, has, counts, train.classes, tuple(notes))


def _coco_file(tree: Tree, path: str) -> _CocoFile | None:
    try:
        content = msgspec.json.decode((tree.root / path).read_bytes().removeprefix(b"\xef\xbb\xbf"), type=_Instances)
        entries = [msgspec.json.decode(entry) for entry in content.annotations[:100]]
        no_classes = _no_classes(content)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    boxes = any(isinstance(entry, dict) and entry.get("bbox") for entry in entries)
    outlines = any(isinstance(entry, dict) and entry.get("segmentation") for entry in entries)
    if not content.categories or (entries and not boxes and not outlines):
        return None
    names = [image.file_name.replace("\\", "/") for image in content.images]
    folder = _image_folder(tree, path, names[:: max(len(names) // 20, 1)])
    classes = tuple(category.name for category in content.categories if category.id not in no_classes)
    return _CocoFile(path, folder, len(names), classes, boxes or not entries, outlines)


def _no_classes(content: _Instances) -> set[Any]:
    parents = [(category.id, category.name, category.supercategory) for category in content.categories]
    if not placeholders(parents, ()):
        return set()
    used = {msgspec.json.decode(entry, type=_Object).category_id for entry in content.annotations}
    return placeholders(parents, used)


def _image_folder(tree: Tree, path: str, names: Sequence[str]) -> str | None:
    """The folder that most of the names are relative to, of several the one that is named like the split or the nearest
    to the annotation file."""
    hits: Counter[str] = Counter()
    for name in names:
        inside, _, base = name.rpartition("/")
        for folder in tree.folders_of_name.get(base, ()):
            if not inside or f"/{folder}".endswith(f"/{inside}"):
                hits[folder.removesuffix(inside).rstrip("/")] += 1
    split, own = _split_of(Path(path).stem), path.rpartition("/")[0]

    def rank(folder: str) -> tuple[object, ...]:
        last = folder.rpartition("/")[2]
        return -hits[folder], last in _MASKS, split is None or _split_of(folder) != split, folder != own, folder

    ranked = sorted(hits, key=rank)
    return ranked[0] if ranked else None


# Pascal VOC

_SETS = "ImageSets"


def _voc_lists(tree: Tree) -> Layout | None:
    return _listed_voc(tree, "Main", "Annotations", "boxes")


def _voc_maps(tree: Tree) -> Layout | None:
    return _listed_voc(tree, "Segmentation", "SegmentationClass", "maps")


def _listed_voc(tree: Tree, task: str, labels: str, need: Need) -> Layout | None:
    places = [place for place in tree.files if place == f"{_SETS}/{task}" or place.endswith(f"/{_SETS}/{task}")]
    bases = {place.removesuffix(f"{_SETS}/{task}").rstrip("/"): place for place in places}
    bases = {base: place for base, place in bases.items() if tree.files.get(f"{base}/{labels}".lstrip("/"))}
    years = {base: base.rpartition("/")[2].removeprefix("VOC") for base in bases}
    if "" in bases:
        bases = {"": bases[""]}
    elif any(not re.fullmatch(r"(VOCdevkit/)?VOC[^/]+", base) for base in bases):
        return None
    lists: dict[str, dict[str, int]] = {}  # split → list with its year → images
    for base, place in bases.items():
        there = {Path(n).stem: _num_lines(tree, f"{place}/{n}") for n in tree.files[place] if n.endswith(".txt")}
        names = {split: split for split in SPLITS if there.get(split)}
        if "train" not in names and (others := [n for n in ("trainval", "default", *there) if there.get(n)]):
            names = {"train": others[0]} | names if others[0] not in names else names
        for split, name in names.items():
            lists.setdefault(split, {})[name if base == "" else f"{years[base]}:{name}"] = there[name]
    if "train" not in lists:
        return None
    splits = {split: lists[split] for split in SPLITS if split in lists}
    settings: dict[str, Any] = {f"{split}_split": "+".join(names) for split, names in splits.items()}
    classes, notes = ((), []) if need == "boxes" else _mask_names(tree, labels)
    what = "Pascal VOC with lists" if need == "boxes" else "Pascal VOC with masks of classes"
    counts: dict[str, int | None] = {split: sum(names.values()) for split, names in splits.items()}
    return Layout("voc", what, settings, frozenset({need}), counts, classes, tuple(notes))


def _num_lines(tree: Tree, path: str) -> int:
    lines = (line.strip() for line in tree.begin(path, 1 << 26).splitlines())
    return sum(1 for line in lines if line and line[0] != "#")


def _mask_names(tree: Tree, labels: str) -> tuple[tuple[str, ...], list[str]]:
    if "classes.txt" in tree.files[""]:
        return _lines(tree, "classes.txt"), []
    return (), [
        "masks do not name their classes: write classes.txt, a name a line in the order of the values, "
        "or set data.classes"
    ]


def _lines(tree: Tree, path: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in tree.begin(path).splitlines() if line.strip())


def _voc_files(tree: Tree) -> Layout | None:
    def is_voc(text: str) -> bool:
        return "<annotation" in text and "<annotations" not in text and "<polygon>" not in text

    found = _beside_images(tree, ".xml", is_voc)
    if found is None or f"{_SETS}/Main" in tree.files:
        return None
    settings, counts, _ = found
    return Layout("voc", "Pascal VOC's XML without lists", settings, frozenset({"boxes"}), counts)


def _beside_images(
    tree: Tree, suffix: str, fits: Callable[[str], bool]
) -> tuple[dict[str, Any], dict[str, int | None], list[str]] | None:
    """The splits of a layout with an annotation file for each image, and the beginnings of some files; None: there are
    no such files in the root, in a folder in it, or in folders of splits."""
    paths = list(tree.paths({suffix}))
    of_folder: dict[str, list[str]] = {}
    for path in paths:
        of_folder.setdefault(path.rpartition("/")[0], []).append(path)
    texts = {folder: [tree.begin(path, 1 << 20) for path in own[:5]] for folder, own in of_folder.items()}
    own = [folder for folder in of_folder if any(map(fits, texts[folder]))]
    if not own:
        return None
    sample = [text for folder in own for text in texts[folder] if fits(text)]
    splits = _named_splits(tree, sorted({folder.partition("/")[0] for folder in own}))
    numbers = {
        split: sum(len(of_folder[f]) for f in own if f"{f}/".startswith(f"{folder}/"))
        for split, (folder, _) in splits.items()
    }
    if "train" in splits:
        return {f"{s}_split": folder for s, (folder, _) in splits.items()}, dict(numbers), sample
    if any("/" in folder for folder in own) and not splits:
        return None
    return dict(_ALL), {"train": sum(len(of_folder[folder]) for folder in own)}, sample


# CVAT, LabelMe, YOLO


def _cvat(tree: Tree) -> Layout | None:
    there = [*tree.paths({".xml"}, depth=0), *tree.paths({".xml"}, "annotations", depth=0)]
    files = [path for path in there if "<annotations>" in tree.begin(path, 4096)]
    texts = {path: tree.begin(path, 1 << 28) for path in files}
    tags = {path: re.findall(r"<image\s[^>]*>", text) for path, text in texts.items()}
    files = [path for path in files if tags[path]]
    if not files:
        return None
    subsets: Counter[str] = Counter()
    for path in files:
        for tag in tags[path]:
            stated = re.search(r'\ssubset="([^"]*)"', tag)
            subsets[stated[1] if stated and len(files) == 1 else path] += 1
    named = {split: name for name in sorted(subsets) if (split := _split_of(name))}
    settings = {f"{split}_split": named[split] for split in SPLITS if split in named}
    if "train" not in named:
        settings["train_split"] = next((name for name in subsets if not _split_of(name)), next(iter(subsets)))
    counts: dict[str, int | None] = {s: subsets[settings[f"{s}_split"]] for s in SPLITS if f"{s}_split" in settings}
    text = "".join(texts.values())
    outlines = re.search(r"<(polygon|mask|ellipse)\s", text) is not None
    classes = tuple(dict.fromkeys(re.findall(r"<label>\s*<name>([^<]*)</name>", text)))
    has = _has(True, outlines)
    return Layout("cvat", "CVAT XML for images", settings, has, counts, classes)


def _labelme(tree: Tree) -> Layout | None:
    found = _beside_images(tree, ".json", lambda text: '"shapes"' in text and '"imagePath"' in text)
    if found is None:
        return None
    settings, counts, sample = found
    outlines = any('"polygon"' in text or '"mask"' in text for text in sample)
    has = _has(True, outlines)
    return Layout("labelme", "LabelMe JSON", settings, has, counts)


_NUMBER = r"[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?"
_BOX = re.compile(rf"\d+(?:\s+{_NUMBER}){{4,}}")
_NAME_FILES = ("classes.txt", "obj.names", "classes.names")


def _yolo(tree: Tree) -> Layout | None:
    top = tree.files[""]
    yamls = [name for name in top if name.endswith((".yaml", ".yml")) and re.search("(?m)^names:", tree.begin(name))]
    darknet = [name for name in top if name.endswith(".data")]
    first_lines = {path: tree.begin(path, 4096).strip().partition("\n")[0].strip() for path in _some_texts(tree)}
    boxes = {path: line for path, line in first_lines.items() if _BOX.fullmatch(line)}
    near = any(re.match(rf"(({'|'.join(_WORDS)})/)?labels/[^/]*(/[^/]*)?$", path) for path in boxes)
    names_file = next((name for name in _NAME_FILES if name in top), None)
    if not (boxes and (yamls or darknet or names_file or near)):
        return None
    classes, stated = _yolo_yaml(tree, yamls[0]) if yamls else ((), {})
    if not classes and names_file is not None:
        classes = _lines(tree, names_file)
    if not yamls and darknet:
        pairs = [line.partition("=") for line in _lines(tree, darknet[0])]
        stated = {key.strip(): value.strip() for key, _, value in pairs if key.strip() in _WORDS}
    folders = [
        f for f in tree.files if f.rpartition("/")[2] not in ("labels", "images") and not f.startswith("labels/")
    ]
    splits = {split: number for split, (_, number) in _named_splits(tree, folders).items() if number}
    settings, counts = dict[str, Any](), dict[str, int | None]()
    for key, place in stated.items():
        split = _WORDS[key]
        settings[f"{split}_split"] = split if key != "dev" else key
        counts[split] = _num_listed(tree, place) or splits.get(split)
    if "train" not in counts:
        settings, counts = {f"{split}_split": split for split in splits}, dict(splits)
    if "train" not in counts:
        settings, counts = {"train_split": "."}, {"train": tree.num_images()}
    notes = [] if classes else ["no file names the classes: write data.yaml with names: [...], or set data.classes"]
    has = _has(True, any(len(line.split()) > 6 for line in boxes.values()))
    counts = {split: counts[split] for split in SPLITS if split in counts}
    return Layout("yolo", "YOLO text", settings, has, counts, classes, tuple(notes))


def _some_texts(tree: Tree) -> list[str]:
    paths = list(tree.paths({".txt"}))
    return paths[:: max(len(paths) // 200, 1)]


def _yolo_yaml(tree: Tree, name: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """The names of classes, and key and place of each split."""
    try:
        content = yaml.load(tree.begin(name), Loader=yaml.BaseLoader)  # noqa: S506  # it makes text of all and nothing else
    except (yaml.YAMLError, ValueError, RecursionError):
        return (), {}
    if not isinstance(content, dict):
        return (), {}
    names = content.get("names")
    found = names.values() if isinstance(names, dict) else names if isinstance(names, list) else ()
    places = {key: content[key] for key in _WORDS if content.get(key)}
    firsts = {key: place[0] if isinstance(place, list) else place for key, place in places.items()}
    return tuple(map(str, found)), {key: place for key, place in firsts.items() if isinstance(place, str)}


def _num_listed(tree: Tree, place: str) -> int | None:
    """The images at a place that may be written from another folder: its end counts."""
    parts = [part for part in place.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    for first in range(len(parts)):
        path = "/".join(parts[first:])
        if path in tree.files:
            return tree.num_images(path)
        folder, _, name = path.rpartition("/")
        if name.endswith(".txt") and name in tree.files.get(folder, ()):
            return _num_lines(tree, path)
    return None


# Folders of images and of masks

_IMAGES = ("images", "image", "imgs", "img", "JPEGImages")
_MASKS = ("masks", "mask", "SegmentationClass", "labels", "annotations", "gt", "gts", "segmentations")


@dataclass(frozen=True)
class _Pair:
    images: str
    masks: str
    num: int
    affixes: tuple[str, str, str, str]  # before and after the common part of the image's name, of the mask's name


def _mask_folders(tree: Tree) -> Layout | None:
    found: dict[str | None, _Pair] = {}
    images_in = {path.rpartition("/")[0] for path in tree.paths(IMAGE_SUFFIXES)}
    images_in |= {folder for folder in tree.files if set(folder.split("/")) & set(_IMAGES)}
    for images in [folder for folder in tree.files if folder in images_in and _is_near(folder)]:
        for masks in _mask_candidates(tree, images):
            split = _split_of(images.replace("/", " "))
            pair = _pair(tree, images, masks)
            if pair is not None and split not in found:
                found[split] = pair
    if "train" not in found and None in found:
        found = {"train": found[None]}
    if "train" not in found:
        return None
    settings, counts = dict[str, Any](), dict[str, int | None]()
    for split in SPLITS:
        if split in found:
            settings |= {f"{split}_images": found[split].images or ".", f"{split}_masks": found[split].masks or "."}
            counts[split] = found[split].num
    keys = ("image_prefix", "image_suffix", "mask_prefix", "mask_suffix")
    settings |= {key: text for key, text in zip(keys, found["train"].affixes, strict=True) if text}
    classes, notes = _mask_names(tree, "")
    return Layout(
        "mask_folder", "folders of images and masks", settings, frozenset({"maps"}), counts, classes, tuple(notes)
    )


def _is_near(folder: str) -> bool:
    """Whether a folder lies in the root, or is that of a split of one that does."""
    return "/" not in folder or (folder.count("/") == 1 and _split_of(folder.replace("/", " ")) is not None)


def _mask_candidates(tree: Tree, images: str) -> list[str]:
    """The folders that masks of the images of a folder may lie in."""
    parts = images.split("/") if images else []
    found = []
    for place, part in enumerate(parts):
        if part in _IMAGES:
            found += ["/".join([*parts[:place], name, *parts[place + 1 :]]) for name in _MASKS]
    if images:
        found += [f"{images}{mark}" for mark in ("_masks", "_mask", "_labels", "_gt", "annot", "_annot")]
        found += [f"{images}/{name}" for name in _MASKS]
    return [folder for folder in found if folder in tree.files]


def _pair(tree: Tree, images: str, masks: str) -> _Pair | None:
    """How the images of a folder and their masks belong together; None if they do not."""
    stems, other = (
        {os.path.splitext(path)[0][len(folder) + 1 if folder else 0 :] for path in tree.paths(IMAGE_SUFFIXES, folder)}
        for folder in (images, masks)
    )
    if images and masks.startswith(f"{images}/"):
        stems = {stem for stem in stems if not f"{images}/{stem}".startswith(f"{masks}/")}
    if not stems or not other:
        return None
    first = min(stems)
    starts = {"", _common(sorted(stems))} if len(stems) > 1 else {""}
    ends = {"", _common([stem[::-1] for stem in sorted(stems)])[::-1]} if len(stems) > 1 else {""}
    options = [(start, end) for start in sorted(starts, key=len) for end in sorted(ends, key=len)]
    for start, end in options:
        core = first[len(start) : len(first) - len(end)]
        whole = [mask for mask in sorted(other) if core and core in mask]
        for before, _, after in (mask.partition(core) for mask in whole):
            flat = "/" not in before + after and ("/" not in core or not (start or before))
            if flat and all(f"{before}{stem[len(start) : len(stem) - len(end)]}{after}" in other for stem in stems):
                return _Pair(images, masks, len(stems), _trimmed(start, end, before, after))
    return None


def _trimmed(start: str, end: str, before: str, after: str) -> tuple[str, str, str, str]:
    """What comes before and after the common part, without what images and masks have in common there."""
    common = len(_common([start[::-1], before[::-1]]))
    shared = len(_common([end, after]))
    return start[: len(start) - common], end[shared:], before[: len(before) - common], after[shared:]


def _common(texts: Sequence[str]) -> str:
    """What texts begin with."""
    first, last = min(texts), max(texts)
    return first[: next((k for k, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]
