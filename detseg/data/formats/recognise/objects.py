"""Pascal VOC, CVAT and LabelMe: layouts with objects in a file for each image, or in lists."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from detseg.data.formats.cvat import image_places
from detseg.data.formats.recognise.layout import (
    SPLITS,
    WHOLE,
    Layout,
    Need,
    is_image,
    kinds_of,
    listed_splits,
    named_splits,
    num_lines,
    other_as_train,
    text_lines,
)
from detseg.data.formats.recognise.mask_reading import MaskReading, mask_reading
from detseg.data.images.find import is_made, split_of, split_words
from detseg.data.images.read import IMAGE_SUFFIXES
from detseg.data.images.tree import Tree
from detseg.errors import DataError
from detseg.messages import counted, listed

_SETS = "ImageSets"
_LOOKED_AT = 20  # files of LabelMe, for where their images are


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
    notes = list[str]()
    for base, place in bases.items():
        names = [name for name in tree.files[place] if name.endswith(".txt")]
        there = {Path(name).stem: num_lines(tree, f"{place}/{name}", known[base]) for name in names}
        if empty := [name for name in ("train", "val") if there.get(name) == 0]:
            raise DataError(f"{tree.root}/{place}/{empty[0]}.txt: it lists no images; write one name a line")
        of_test = text_lines(tree, f"{place}/test.txt") if there.get("test") else ()
        if of_test and not any(_is_known(line, known[base]) for line in of_test):
            del there["test"]
            notes.append(f"test: left out, as none of the images in {place}/test.txt has an annotation")
        for split, chosen in _lists_of_splits(there).items():
            for name in chosen:
                lists.setdefault(split, {})[name if base == "" else f"{years[base]}:{name}"] = there[name]
    if "train" not in lists and lists:
        split = next(split for split in ("val", "test") if split in lists)
        lists["train"] = lists.pop(split)
        notes.append(f"no list is called train: {listed(list(lists['train']))} is taken to train on")
    if "train" not in lists:
        return None
    splits = {split: lists[split] for split in SPLITS if split in lists}
    settings: dict[str, Any] = {f"{split}_split": "+".join(names) for split, names in splits.items()}
    own = MaskReading()
    if need == "maps":
        folders = [f"{base}/{labels}".lstrip("/") for base in bases]
        own = mask_reading(tree, [path for folder in folders for path in tree.paths(IMAGE_SUFFIXES, folder)])
    settings |= own.settings
    used = {name.rpartition(":")[2] for names in splits.values() for name in names}
    known_names = {Path(name).stem for place in bases.values() for name in tree.files[place] if name.endswith(".txt")}
    plain = {name for name in known_names - used if not re.search("(^|_)(train|val|test|trainval)$", name)}
    notes += [f"lists, not taken: {listed(sorted(plain))}"] if plain else []
    what = "Pascal VOC with lists" if need == "boxes" else "Pascal VOC with masks of classes"
    counts: dict[str, int | None] = {split: _num_in_lists(names) for split, names in splits.items()}
    return Layout("voc", what, settings, frozenset({need}), counts, own.names, (*own.notes, *notes))


def _is_known(line: str, known: set[str]) -> bool:
    first = line.split()[0]
    return not {line, first, os.path.splitext(first)[0].removeprefix("JPEGImages/")}.isdisjoint(known)


def _names_in(tree: Tree, folder: str, need: Need) -> set[str]:
    """The names of annotations or masks in and below a folder."""
    paths = tree.paths({".xml"} if need == "boxes" else IMAGE_SUFFIXES, folder)
    return {os.path.splitext(path)[0][len(folder) + 1 :] for path in paths}


def _lists_of_splits(there: dict[str, int]) -> dict[str, list[str]]:
    """The lists of each split: by its name alone, ``train``, ``trainset`` or ``train_val``; else those of classes
    (``cat_train``), all of these together. Where none is to train on, those that no name says a split of."""
    plain = [name for name, number in there.items() if number and _is_plain(name)]
    plain.sort(key=lambda name: (len(split_words(name)), name not in SPLITS))
    found = dict[str, list[str]]()
    for name in plain:
        found.setdefault(split_of(name) or "", [name])
    found.pop("", None)
    of_classes = [name for name, number in there.items() if number and name not in plain]
    for split in SPLITS:
        if split not in found and (own := [name for name in of_classes if name.endswith(f"_{split}")]):
            found[split] = own
    if "train" not in found:
        used = [name for names in found.values() for name in names]
        others = [name for name, number in there.items() if number and name not in used and not _is_plain(name)]
        if usual := [name for name in others if name == "default"] or others:
            found["train"] = usual
    return found


def _is_plain(name: str) -> bool:
    """Whether a name says a split and nothing else."""
    words = re.findall("[a-z]+", name.lower())
    return bool(words) and all(split_words(word) for word in words)


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
    of_tasks = [f for f in tree.files if f.startswith(f"{_SETS}/") and any(n.endswith(".txt") for n in tree.files[f])]
    if of_tasks:
        notes = (*notes, f"lists of other tasks, not taken for boxes: {listed(of_tasks)}")
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
    stems = {os.path.splitext(path)[0].rpartition("/")[2] for path in paths}
    lists, notes = listed_splits(tree, lambda line: is_image(tree, line, stems))
    tops = {folder.partition("/")[0]: of_folder[folder][0] for folder in own if "/" in folder}
    inner = [top for top, path in tops.items() if tree.num_images(top) and _lies_in(tree, top, path)]
    if "train" not in lists and any(split_of(top) is None for top in inner):
        return None  # a set lies in that folder
    numbers = {folder: len(of_folder[folder]) for folder in own}
    splits = lists if "train" in lists else _folder_splits(tree, numbers, notes) | lists
    if "train" not in splits:
        return dict(WHOLE), {"train": sum(numbers.values())}, sample, tuple(notes)
    settings = {f"{split}_split": splits[split][0] for split in SPLITS if split in splits}
    return settings, {split: splits[split][1] for split in SPLITS if split in splits}, sample, tuple(notes)


def _folder_splits(tree: Tree, numbers: dict[str, int], notes: list[str]) -> dict[str, tuple[str, int]]:
    """The splits among folders of annotation files, of which ``numbers`` has how many there are in each: split → folder
    and number. Where none is called train, all that are of no other split are; ``notes`` gets what is left out."""
    named = named_splits(tree, _with_parents(numbers))
    if not named:  # images/train and images/val, and all annotation files in one folder
        images = [folder for folder in _with_parents(tree.files) if tree.num_images(folder) and not is_made(folder)]
        of_images = named_splits(tree, images)
        if "train" in of_images:
            return of_images
    inside = {split: [f for f in numbers if f"{f}/".startswith(f"{folder}/")] for split, (folder, _) in named.items()}
    splits = {split: (named[split][0], sum(numbers[f] for f in own)) for split, own in inside.items()}
    rest = [folder for folder in numbers if not any(folder in own for own in inside.values())]
    if not splits:
        return {}
    if "train" not in splits and rest and "" not in rest:
        splits["train"], rest = ("+".join(rest), sum(numbers[folder] for folder in rest)), []
    elif "train" not in splits and not rest:
        notes.append(other_as_train(splits))
    elif "train" not in splits:
        notes.append(f"no folder is called train: all are taken to train on, with {listed(list(splits))}")
        return {}
    for folder in tree.files:
        split = split_of(folder.replace("/", " "))
        is_train = "train" in splits and f"{folder}/".startswith(f"{splits['train'][0]}/")
        if split is not None and split not in splits and not is_train and (number := tree.num_images(folder)):
            notes.append(f"{split}: left out, as {folder} has {counted(number, 'image')} and no annotations")
    if rest:
        left = [f"{folder or '.'} ({numbers[folder]})" for folder in rest]
        notes.append(f"annotation files that belong to no split: {listed(left)}")
    return splits


def _with_parents(folders: Iterable[str]) -> list[str]:
    """Folders and those above them, the outer ones first."""
    found = {"/".join(folder.split("/")[: n + 1]) for folder in folders for n in range(folder.count("/") + 1)}
    return sorted(found, key=lambda folder: (folder.count("/"), folder))


def _lies_in(tree: Tree, top: str, path: str) -> bool:
    """Whether the image that an annotation file names lies in a folder, not outside it beside what may be masks."""
    stated = re.search(r"<filename>\s*([^<]*?)\s*</filename>", tree.begin(path))
    folders = tree.folders_of_name.get(stated[1], ()) if stated else ()
    return not folders or any(f"{folder}/".startswith(f"{top}/") for folder in folders)


def cvat_xml(tree: Tree) -> Layout | None:
    """CVAT XML for images."""
    of_splits = [folder for folder in tree.files if "/" not in folder and split_of(folder)]
    there = [path for folder in ("", "annotations", *of_splits) for path in tree.paths({".xml"}, folder, depth=0)]
    files = [path for path in there if "<annotations>" in tree.begin(path, 4096)]
    texts = {path: tree.begin(path, 1 << 28) for path in files}
    tags = {path: re.findall(r"<image\s[^>]*>", text) for path, text in texts.items()}
    files = [path for path in files if tags[path]]
    if not files:
        return None
    subsets: Counter[str] = Counter()
    for path in files:
        for tag in tags[path]:
            stated = re.search(r'\ssubset="([^"]*)"', tag) or re.search(r'\sname="([^"/]*)/', tag)
            subsets[stated[1] if stated and len(files) == 1 else path] += 1
    named = {split: name for name in sorted(subsets) if (split := split_of(name))}
    settings = {f"{split}_split": named[split] for split in SPLITS if split in named}
    counts: dict[str, int | None] = {split: subsets[named[split]] for split in SPLITS if split in named}
    others, notes = [name for name in subsets if name not in named.values()], list[str]()
    if "train" not in named:
        only = not settings  # no name says which split is which
        if not only and not others:
            split = "val" if "val" in named else "test"
            others = [settings.pop(f"{split}_split")]
            del counts[split]
            notes.append(f"nothing is called train: {others[0]} is taken to train on")
        settings["train_split"], counts["train"] = (
            (".", sum(subsets.values())) if only else (others[0], subsets[others[0]])
        )
        others = [] if only else others[1:]
    if others:
        numbers = [f"{name or 'no subset'} ({counted(subsets[name], 'image')})" for name in others]
        notes.append(f"subsets or files that belong to no split: {listed(numbers)}")
    counts = {split: counts[split] for split in SPLITS if split in counts}
    if not all(_are_there(tree, path, tags[path][:_LOOKED_AT]) for path in files):
        settings["file_names"] = "relaxed"
        notes.append("not all images are where the file says; data.file_names=relaxed looks further")
    text = "".join(texts.values())
    outlines = re.search(r"<(polygon|mask|ellipse)\s", text) is not None
    classes = tuple(dict.fromkeys(re.findall(r"<label>\s*<name>([^<]*)</name>", text)))
    has = kinds_of(True, outlines)
    return Layout("cvat", "CVAT XML for images", settings, has, counts, classes, tuple(notes))


def _are_there(tree: Tree, path: str, tags: Sequence[str]) -> bool:
    """Whether images of a file of CVAT are where they may be, or have names that no image has."""
    folder, _, file = path.rpartition("/")
    for tag in tags:
        name, subset = (re.search(rf'\s{key}="([^"]*)"', tag) for key in ("name", "subset"))
        stated = name[1].replace("\\", "/") if name else ""
        places = image_places(folder, os.path.splitext(file)[0], stated, subset[1] if subset else "")
        is_there = any(os.path.isfile(tree.root / place) for place in places)
        if not is_there and stated.rpartition("/")[2] in tree.folders_of_name:
            return False
    return True


def labelme_json(tree: Tree) -> Layout | None:
    """LabelMe JSON."""

    def is_labelme(text: str) -> bool:  # of files with sorted keys the image comes first, and may be all that is seen
        return '"imageData"' in text or ('"shapes"' in text and '"imagePath"' in text)

    found = _beside_images(tree, ".json", is_labelme)
    if found is None:
        return None
    settings, counts, sample, notes = found
    outlines = any('"polygon"' in text or '"mask"' in text or '"shapes"' not in text for text in sample)
    paths = [path for path in list(tree.paths({".json"}))[:_LOOKED_AT] if is_labelme(tree.begin(path, 1 << 20))]
    if any(not _has_image(tree, path) for path in paths):
        settings["file_names"] = "relaxed"
        notes = (*notes, "not all images are where their JSON files say; data.file_names=relaxed looks further")
    return Layout("labelme", "LabelMe JSON", settings, kinds_of(True, outlines), counts, notes=notes)


def _has_image(tree: Tree, path: str) -> bool:
    """Whether the image that a JSON file names is there, or has no name that is elsewhere."""
    stated = re.search(r'"imagePath"\s*:\s*"([^"]*)"', tree.begin(path, 1 << 20))
    name = stated[1].replace("\\\\", "/") if stated else ""
    there = os.path.isfile(tree.root / os.path.dirname(path) / name)
    return there or name.rpartition("/")[2] not in tree.folders_of_name
