"""Writes the shapes set to disk, in VOC layout (``voc/``) and in COCO layout (``coco/``)."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

from detseg.data.formats.coco_writer import CocoWriter
from detseg.data.formats.voc_writer import VocWriter
from detseg.data.synthetic.drawing import SHAPE_CLASSES
from detseg.data.synthetic.scenes import Split, render_scene
from detseg.errors import DataError

MANIFEST = "shapes.json"
"""States the parameters of the set in a folder. It is written last, and the folder is renamed into place after that, so
that an interrupted run leaves nothing that looks like a set."""

FORMAT = 1
"""Raised whenever the same parameters give other files."""


def write_shapes(root: Path, num_train: int, num_val: int, size: int, max_objects: int, seed: int) -> bool:
    """Write the shapes set unless ``root`` holds this very set already.

    ``root/voc`` gets the VOC layout (splits train and val), ``root/coco`` the COCO layout (folders ``train`` and
    ``val``, ``annotations/instances_train.json`` and ``instances_val.json``), ``root/shapes.json`` the parameters.

    Args:
        root: folder to write; it must be absent or empty, or hold this set.
        num_train, num_val: images of the splits, at least 1.
        size: longest side of the images in pixels, at least 64.
        max_objects: most objects of an image, at least 1.
        seed: at least 0; the same seed gives the same files.

    Returns:
        whether the set was written now.

    Raises:
        DataError: ``root`` holds another set or other files, or cannot be written.
        ValueError: an argument is out of range.
    """
    if num_train < 1 or num_val < 1:
        raise ValueError(f"expected at least one image per split, got {num_train=}, {num_val=}")
    manifest = {
        "format": FORMAT,
        "num_train": num_train,
        "num_val": num_val,
        "size": size,
        "max_objects": max_objects,
        "seed": seed,
        "classes": list(SHAPE_CLASSES),
    }
    if _holds(root, manifest):
        return False
    target = root.resolve()
    partial = target.with_name(f".{target.name}.partial-{uuid.uuid4().hex[:8]}")
    try:
        partial.mkdir(parents=True)
        _write_layouts(partial, {"train": num_train, "val": num_val}, size, max_objects, seed)
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        return _move(partial, target, manifest)
    except OSError as error:
        raise DataError(
            f"{root}: cannot write the shapes set ({error.strerror or error}); set data.root to a writable folder"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_layouts(root: Path, splits: dict[Split, int], size: int, max_objects: int, seed: int) -> None:
    voc, coco = VocWriter(root / "voc", SHAPE_CLASSES), CocoWriter(root / "coco", SHAPE_CLASSES)
    for split, num_images in splits.items():
        for index in range(num_images):
            scene = render_scene(seed, split, index, size, max_objects)
            stem = f"{split}_{index:06d}"
            voc.add(split, stem, scene.image, scene.boxes, scene.labels, scene.masks, scene.truncated)
            coco.add(split, stem, scene.image, scene.boxes, scene.labels, scene.masks)
    voc.finish()
    coco.finish()


def _move(partial: Path, target: Path, manifest: dict[str, Any]) -> bool:
    """Rename the written folder; False: another process was first with the same set."""
    try:
        if target.is_dir() and not any(target.iterdir()):
            target.rmdir()  # not every system renames onto an empty folder
        partial.rename(target)
    except OSError:
        if not _holds(target, manifest):
            raise
        return False
    return True


def _holds(root: Path, wanted: dict[str, Any]) -> bool:
    """Whether the folder holds the wanted set; False: it is absent or empty. Anything else in it is a DataError."""
    if not root.exists():
        return False
    fix = "set data.root to another folder, or delete this one"
    if not root.is_dir():
        raise DataError(f"{root}: is a file, expected a folder for the shapes set; {fix}")
    path = root / MANIFEST
    if not path.exists():
        names = sorted(entry.name for entry in root.iterdir())
        if not names:
            return False
        some = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        raise DataError(f"{root}: holds {some} but no {MANIFEST}, so it is not a shapes set; {fix}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); {fix}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: expected a JSON object, got {type(found).__name__}; {fix}")
    differences = [
        f"{key} is {found.get(key)!r} there and {wanted.get(key)!r} was asked for"
        for key in sorted(wanted.keys() | found.keys())
        if found.get(key) != wanted.get(key)
    ]
    if differences:
        raise DataError(f"{root}: holds another shapes set: {'; '.join(differences)}; {fix}")
    return True
