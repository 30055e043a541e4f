"""Pascal VOC, CVAT, LabelMe and YOLO text: layouts with objects in a file for each image, or in lists."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from detseg.data.formats.recognise.layout import (
    NUMBER,
    SPLITS,
    WHOLE,
    WORDS,
    Layout,
    Need,
    is_image,
    kinds_of,
    listed_splits,
    named_splits,
    num_lines,
    split_of,
)
from detseg.data.formats.recognise.mask_reading import MaskReading, mask_reading
from detseg.data.formats.yolo import NAME_FILES, YoloFiles, read_yolo_files
from detseg.data.images.read import IMAGE_SUFFIXES
from detseg.data.images.tree import Tree
from detseg.errors import DataError
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
    own = MaskReading()
    if need == "maps":
        folders = [f"{base}/{labels}".lstrip("/") for base in bases]
        own = mask_reading(tree, [path for folder in folders for path in tree.paths(IMAGE_SUFFIXES, folder)])
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
    settings, counts, _, notes = found
    return Layout("voc", "Pascal VOC's XML without lists", settings, frozenset({"boxes"}), counts, notes=notes)


def _beside_images(
    tree: Tree, suffix: str, fits: Callable[[str], bool]
) -> tuple[dict[str, Any], dict[str, int | None], list[str], tuple[str, ...]] | None:
    """The splits of a layout with an annotation file for each image, the beginnings of some files, and notes; None:
    there are no such files, or they are those of a set in a folder."""
    paths = list(tree.paths({suffix}))
    of_folder: dict[str, list[str]] = {}
    for path in paths:
        of_folder.setdefault(path.rpartition("/")[0], []).append(path)
    texts = {folder: [tree.begin(path, 1 << 20) for path in own[:5]] for folder, own in of_folder.items()}
    own = [folder for folder in of_folder if any(map(fits, texts[folder]))]
    if not own:
        return None
    sample = [text for folder in own for text in texts[folder] if fits(text)]
    tops = {folder.partition("/")[0]: of_folder[folder][0] for folder in own if "/" in folder}
    if any(tree.num_images(top) and _lies_in(tree, top, path) for top, path in tops.items() if split_of(top) is None):
        return None  # a set lies in that folder
    parents = {"/".join(folder.split("/")[: n + 1]) for folder in own for n in range(folder.count("/") + 1)}
    folders = named_splits(tree, sorted(parents, key=lambda folder: (folder.count("/"), folder)))
    splits = {
        split: (folder, sum(len(of_folder[f]) for f in own if f"{f}/".startswith(f"{folder}/")))
        for split, (folder, _) in folders.items()
    }
    stems = {os.path.splitext(path)[0].rpartition("/")[2] for path in paths} if suffix == ".xml" else set[str]()
    lists, notes = listed_splits(tree, lambda line: is_image(tree, line, stems))
    if "train" in (splits := splits | lists):
        settings = {f"{split}_split": splits[split][0] for split in SPLITS if split in splits}
        return settings, {split: splits[split][1] for split in SPLITS if split in splits}, sample, tuple(notes)
    return dict(WHOLE), {"train": sum(len(of_folder[folder]) for folder in own)}, sample, tuple(notes)


def _lies_in(tree: Tree, top: str, path: str) -> bool:
    """Whether the image that an annotation file names lies in a folder, not outside it beside what may be masks."""
    stated = re.search(r"<filename>\s*([^<]*?)\s*</filename>", tree.begin(path))
    folders = tree.folders_of_name.get(stated[1], ()) if stated else ()
    return not folders or any(f"{folder}/".startswith(f"{top}/") for folder in folders)


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

    def is_labelme(text: str) -> bool:  # of files with sorted keys the image comes first, and may be all that is seen
        return '"imageData"' in text or ('"shapes"' in text and '"imagePath"' in text)

    found = _beside_images(tree, ".json", is_labelme)
    if found is None:
        return None
    settings, counts, sample, notes = found
    outlines = any('"polygon"' in text or '"mask"' in text or '"shapes"' not in text for text in sample)
    has = kinds_of(True, outlines)
    return Layout("labelme", "LabelMe JSON", settings, has, counts, notes=notes)


_BOX = re.compile(rf"\d+(?:\s+{NUMBER}){{4,}}")


def _is_box(line: str, classes: Sequence[str]) -> bool:
    """Whether a line is one of a label file; with the name of a class for its number, too, of which the reader says
    that it is wrong."""
    name = next((name for name in classes if line.startswith(f"{name} ")), None)
    return _BOX.fullmatch(line if name is None else f"0{line[len(name) :]}") is not None


def yolo_text(tree: Tree) -> Layout | None:
    """YOLO text."""
    top, notes, layout, wrong = tree.files[""], list[str](), YoloFiles(tree.root), None
    described = any(name.endswith(".data") or name in NAME_FILES or _names_classes(tree, name) for name in top)
    if described:
        try:
            layout = read_yolo_files(tree.root)
        except DataError as error:
            wrong = error
    classes = tuple((layout.names or {}).values())
    first_lines = {path: tree.begin(path, 4096).strip().partition("\n")[0].strip() for path in _some_texts(tree)}
    boxes = {path: line for path, line in first_lines.items() if _is_box(line, classes)}
    near = any(re.match(rf"(({'|'.join(WORDS)})/)?labels/[^/]*(/[^/]*)?$", path) for path in boxes)
    labels = [line for path, line in first_lines.items() if "labels" in path.split("/")[:-1]]
    all_empty = bool(layout.splits and labels) and not any(labels)  # no image has an object
    if not tree.num_images() or (not all_empty and not (boxes and (described or near))):
        return None
    if wrong is not None:
        raise wrong
    folders = [
        f for f in tree.files if f.rpartition("/")[2] not in ("labels", "images") and not f.startswith("labels/")
    ]
    named = {
        split: (folder.removeprefix("images/"), n) for split, (folder, n) in named_splits(tree, folders).items() if n
    }
    settings, counts, absent = dict[str, Any](), dict[str, int | None](), list[str]()
    for key, places in layout.splits.items():
        split = WORDS.get(key.lower())
        if split is None or split in counts:
            continue
        numbers = [_num_listed(tree, place) for place in places]
        number = sum(n or 0 for n in numbers) or named.get(split, ("", 0))[1] or None
        if number or split == "train":
            settings[f"{split}_split"] = key
            counts[split] = number
        else:
            absent.append(f"{key} ({listed(places)})")
    if "train" not in counts:
        lists, more = listed_splits(tree, lambda line: _num_listed(tree, line) is not None)
        notes += more
        splits = named | lists
        settings, counts = {f"{split}_split": name for split, (name, _) in splits.items()}, dict[str, int | None]()
        counts |= {split: number for split, (_, number) in splits.items()}
    if "train" not in counts:
        settings, counts = {"train_split": "."}, {"train": tree.num_images()}
    if not classes:
        notes.append("no file names the classes: write data.yaml with names: [...], or set data.classes")
    if absent:
        notes.append(f"left out, since there are no images of it: {listed(absent)} of {layout.file.name}")
    has = kinds_of(True, any(len(line.split()) > 6 for line in boxes.values()))
    counts = {split: counts[split] for split in SPLITS if split in counts}
    return Layout("yolo", "YOLO text", settings, has, counts, classes, tuple(notes))


def _names_classes(tree: Tree, name: str) -> bool:
    return name.endswith((".yaml", ".yml")) and re.search("(?m)^names:", tree.begin(name)) is not None


def _some_texts(tree: Tree) -> list[str]:
    paths = list(tree.paths({".txt"}))
    return paths[:: max(len(paths) // 200, 1)]


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
        if name in tree.files.get(folder, ()):
            return num_lines(tree, path) if name.endswith(".txt") else 1
    return None
