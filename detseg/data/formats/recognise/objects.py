"""Pascal VOC, CVAT, LabelMe and YOLO text: layouts with objects in a file for each image, or in lists."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from detseg.data.formats.recognise.layout import (
    NUMBER,
    SPLITS,
    WHOLE,
    WORDS,
    Layout,
    Need,
    kinds_of,
    named_splits,
    num_lines,
    split_of,
    text_lines,
)
from detseg.data.formats.recognise.mask_names import MaskNames, mask_names
from detseg.data.formats.yolo import NAME_FILES
from detseg.data.images.read import IMAGE_SUFFIXES
from detseg.data.images.tree import Tree
from detseg.messages import listed

_SETS = "ImageSets"


def voc_lists(tree: Tree) -> Layout | None:
    """Pascal VOC with lists for detection."""
    return _listed_voc(tree, "Main", "Annotations", "boxes")


def voc_maps(tree: Tree) -> Layout | None:
    """Pascal VOC with lists for segmentation."""
    return _listed_voc(tree, "Segmentation", "SegmentationClass", "maps")


def _listed_voc(tree: Tree, task: str, labels: str, need: Need) -> Layout | None:
    places = [place for place in tree.files if place == f"{_SETS}/{task}" or place.endswith(f"/{_SETS}/{task}")]
    bases = {place.removesuffix(f"{_SETS}/{task}").rstrip("/"): place for place in places}
    known = {base: _names_in(tree, f"{base}/{labels}".lstrip("/"), need) for base in bases}
    bases = {base: place for base, place in bases.items() if known[base]}
    years = {base: base.rpartition("/")[2].removeprefix("VOC") for base in bases}
    if "" in bases:
        bases = {"": bases[""]}
    elif any(not re.fullmatch(r"(VOCdevkit/)?VOC[^/]+", base) for base in bases):
        return None
    lists: dict[str, dict[str, int]] = {}  # split → list with its year → images
    for base, place in bases.items():
        names = [name for name in tree.files[place] if name.endswith(".txt")]
        there = {Path(name).stem: num_lines(tree, f"{place}/{name}", known[base]) for name in names}
        for split, chosen in _lists_of_splits(there).items():
            for name in chosen:
                lists.setdefault(split, {})[name if base == "" else f"{years[base]}:{name}"] = there[name]
    if "train" not in lists:
        return None
    splits = {split: lists[split] for split in SPLITS if split in lists}
    settings: dict[str, Any] = {f"{split}_split": "+".join(names) for split, names in splits.items()}
    own = MaskNames()
    if need == "maps":
        folders = [f"{base}/{labels}".lstrip("/") for base in bases]
        own = mask_names(tree, [path for folder in folders for path in tree.paths(IMAGE_SUFFIXES, folder)])
    settings |= own.settings
    what = "Pascal VOC with lists" if need == "boxes" else "Pascal VOC with masks of classes"
    counts: dict[str, int | None] = {split: _num_in_lists(names) for split, names in splits.items()}
    return Layout("voc", what, settings, frozenset({need}), counts, own.names, own.notes)


def _names_in(tree: Tree, folder: str, need: Need) -> set[str]:
    """The names of annotations or masks in and below a folder."""
    paths = tree.paths({".xml"} if need == "boxes" else IMAGE_SUFFIXES, folder)
    return {os.path.splitext(path)[0][len(folder) + 1 :] for path in paths}


def _lists_of_splits(there: dict[str, int]) -> dict[str, list[str]]:
    """The lists of each split; where there are those of classes alone (``cat_train``), all of these together."""
    found = {split: [split] for split in SPLITS if there.get(split)}
    if "train" in found:
        return found
    for split in SPLITS:
        if split not in found and (own := [name for name in there if there[name] and name.endswith(f"_{split}")]):
            found[split] = own
    if "train" not in found and (others := [n for n in ("trainval", "default", *there) if there.get(n)]):
        found = {"train": others[:1]} | {split: names for split, names in found.items() if split != others[0]}
    return found


def _num_in_lists(numbers: dict[str, int]) -> int:
    """The images of lists: those of classes (``cat_train``) name the same images."""
    of_classes = [number for name, number in numbers.items() if re.search("_(train|val|test)$", name)]
    return sum(numbers.values()) - sum(of_classes) + max(of_classes, default=0)


def voc_files(tree: Tree) -> Layout | None:
    """Pascal VOC's XML files without lists."""

    def is_voc(text: str) -> bool:
        return "<annotation" in text and "<annotations" not in text and "<polygon>" not in text

    found = _beside_images(tree, ".xml", is_voc)
    if found is None or any(name.endswith(".txt") for name in tree.files.get(f"{_SETS}/Main", ())):
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
    tops = {folder.partition("/")[0] for folder in own if "/" in folder}
    if any(tree.num_images(top) for top in tops if split_of(top) is None):
        return None  # a set lies in that folder
    parents = {"/".join(folder.split("/")[: n + 1]) for folder in own for n in range(folder.count("/") + 1)}
    splits = named_splits(tree, sorted(parents, key=lambda folder: (folder.count("/"), folder)))
    numbers = {
        split: sum(len(of_folder[f]) for f in own if f"{f}/".startswith(f"{folder}/"))
        for split, (folder, _) in splits.items()
    }
    if "train" in splits:
        return {f"{s}_split": folder for s, (folder, _) in splits.items()}, dict(numbers), sample
    return dict(WHOLE), {"train": sum(len(of_folder[folder]) for folder in own)}, sample


def cvat_xml(tree: Tree) -> Layout | None:
    """CVAT XML for images."""
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
    named = {split: name for name in sorted(subsets) if (split := split_of(name))}
    settings = {f"{split}_split": named[split] for split in SPLITS if split in named}
    if "train" not in named:
        settings["train_split"] = next((name for name in subsets if not split_of(name)), next(iter(subsets)))
    counts: dict[str, int | None] = {s: subsets[settings[f"{s}_split"]] for s in SPLITS if f"{s}_split" in settings}
    text = "".join(texts.values())
    outlines = re.search(r"<(polygon|mask|ellipse)\s", text) is not None
    classes = tuple(dict.fromkeys(re.findall(r"<label>\s*<name>([^<]*)</name>", text)))
    has = kinds_of(True, outlines)
    return Layout("cvat", "CVAT XML for images", settings, has, counts, classes)


def labelme_json(tree: Tree) -> Layout | None:
    """LabelMe JSON."""
    found = _beside_images(tree, ".json", lambda text: '"shapes"' in text and '"imagePath"' in text)
    if found is None:
        return None
    settings, counts, sample = found
    outlines = any('"polygon"' in text or '"mask"' in text for text in sample)
    has = kinds_of(True, outlines)
    return Layout("labelme", "LabelMe JSON", settings, has, counts)


_BOX = re.compile(rf"\d+(?:\s+{NUMBER}){{4,}}")


def _is_box(line: str, classes: Sequence[str]) -> bool:
    """Whether a line is one of a label file; with the name of a class for its number, too, of which the reader says
    that it is wrong."""
    name = next((name for name in classes if line.startswith(f"{name} ")), None)
    return _BOX.fullmatch(line if name is None else f"0{line[len(name) :]}") is not None


def yolo_text(tree: Tree) -> Layout | None:
    """YOLO text."""
    top = tree.files[""]
    yamls = [name for name in top if name.endswith((".yaml", ".yml")) and re.search("(?m)^names:", tree.begin(name))]
    darknet = [name for name in top if name.endswith(".data")]
    first_lines = {path: tree.begin(path, 4096).strip().partition("\n")[0].strip() for path in _some_texts(tree)}
    classes, stated = _yolo_yaml(tree, yamls[0]) if yamls else ((), {})
    names_file = next((name for name in NAME_FILES if name in top), None)
    if not classes and names_file is not None:
        classes = text_lines(tree, names_file)
    boxes = {path: line for path, line in first_lines.items() if _is_box(line, classes)}
    near = any(re.match(rf"(({'|'.join(WORDS)})/)?labels/[^/]*(/[^/]*)?$", path) for path in boxes)
    labels = [line for path, line in first_lines.items() if "labels" in path.split("/")[:-1]]
    all_empty = bool(yamls and labels) and not any(labels)  # no image has an object
    if not all_empty and not (boxes and (yamls or darknet or names_file or near)):
        return None
    if not yamls and darknet:
        pairs = [line.partition("=") for line in text_lines(tree, darknet[0])]
        stated = {key.strip(): value.strip() for key, _, value in pairs if key.strip() in WORDS}
    folders = [
        f for f in tree.files if f.rpartition("/")[2] not in ("labels", "images") and not f.startswith("labels/")
    ]
    splits = {split: number for split, (_, number) in named_splits(tree, folders).items() if number}
    settings, counts, absent = dict[str, Any](), dict[str, int | None](), list[str]()
    for key, place in stated.items():
        split = WORDS[key]
        number = _num_listed(tree, place) or splits.get(split)
        if number or split == "train":
            settings[f"{split}_split"] = split if key != "dev" else key
            counts[split] = number
        else:
            absent.append(f"{key} ({place})")
    if "train" not in counts:
        settings, counts = {f"{split}_split": split for split in splits}, dict(splits)
    if "train" not in counts:
        settings, counts = {"train_split": "."}, {"train": tree.num_images()}
    notes = [] if classes else ["no file names the classes: write data.yaml with names: [...], or set data.classes"]
    if absent:
        notes.append(f"left out, since there are no images of it: {listed(absent)} of {[*yamls, *darknet][0]}")
    has = kinds_of(True, any(len(line.split()) > 6 for line in boxes.values()))
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
    places = {key: content[key] for key in WORDS if content.get(key)}
    firsts = {key: place[0] if isinstance(place, list) else place for key, place in places.items()}
    return tuple(map(str, found)), {key: place for key, place in firsts.items() if isinstance(place, str)}


def _num_listed(tree: Tree, place: str) -> int | None:
    """The images at a place that may be written from another folder: its end counts."""
    parts = [part for part in place.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    if not parts or parts == [tree.root.name]:
        return tree.num_images()
    for first in range(len(parts)):
        path = "/".join(parts[first:])
        if path in tree.files:
            return tree.num_images(path)
        folder, _, name = path.rpartition("/")
        if name.endswith(".txt") and name in tree.files.get(folder, ()):
            return num_lines(tree, path)
    return None
