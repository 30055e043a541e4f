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
from detseg.messages import listed, one_line, shown

MANIFEST = "shapes.json"
"""Holds the parameters of the set. The folder is renamed into place when all is written."""
FORMAT = 1
"""Raised whenever the same parameters give other files."""
_FIX = "set data.root to another folder, or delete this one"


def write_shapes(root: Path, num_train: int, num_val: int, size: int, max_objects: int, seed: int) -> bool:
    """Write the shapes set unless ``root`` holds this very set already.

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
    if min(num_train, num_val, max_objects) < 1 or size < 64 or seed < 0:
        raise ValueError(f"out of range: {num_train=}, {num_val=}, {size=}, {max_objects=}, {seed=}")
    splits: dict[Split, int] = {"train": num_train, "val": num_val}
    manifest: dict[str, Any] = {"format": FORMAT, "num_train": num_train, "num_val": num_val, "size": size}
    manifest |= {"max_objects": max_objects, "seed": seed, "classes": list(SHAPE_CLASSES)}
    target = root.resolve()
    partial = target.with_name(f".{target.name}.partial-{uuid.uuid4().hex[:8]}")
    try:
        if _holds(root, manifest):
            return False
        partial.mkdir(parents=True)
        voc, coco = VocWriter(partial / "voc", SHAPE_CLASSES), CocoWriter(partial / "coco", SHAPE_CLASSES)
        for split, num_images in splits.items():
            for index in range(num_images):
                scene = render_scene(seed, split, index, size, max_objects)
                stem = f"{split}_{index:06d}"
                voc.add(split, stem, scene.image, scene.boxes, scene.labels, scene.masks, scene.truncated)
                coco.add(split, stem, scene.image, scene.boxes, scene.labels, scene.masks)
        voc.finish()
        coco.finish()
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        return _move(partial, target, manifest)
    except OSError as error:
        raise DataError(f"{root}: cannot write the shapes set ({error.strerror or error}); {_FIX}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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
    path = root / MANIFEST
    if not path.exists():
        names = sorted(entry.name for entry in root.iterdir())
        if not names:
            return False
        raise DataError(f"{root}: holds {listed(names)} but no {MANIFEST}, so it is not a shapes set; {_FIX}")
    try:
        found = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({one_line(error)}); {_FIX}") from error
    keys = [key for key in wanted if found.get(key) != wanted[key]]
    if keys:
        differences = "; ".join(f"{key} is {shown(found.get(key))} there, not {shown(wanted[key])}" for key in keys)
        raise DataError(f"{root}: holds another shapes set: {differences}; {_FIX}")
    return True
