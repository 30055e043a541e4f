"""Writes the synthetic set to disk, once, in both layouts: ``voc/`` and ``coco/`` beside each other.

``shapes.json`` states what the folder holds.  It comes last, and the folder gets its name last of all, so that an
interrupted run leaves nothing that could be taken for the set.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detseg.data.formats.coco_writer import CocoWriter
from detseg.data.formats.voc_writer import VocWriter
from detseg.data.synthetic.drawing import SHAPE_CLASSES
from detseg.data.synthetic.scenes import Split, render_scene
from detseg.errors import DataError

MANIFEST = "shapes.json"
FORMAT = 1
"""Raised whenever the same parameters begin to give other files."""


def ensure_shapes(
    root: Path,
    num_train: int,
    num_val: int,
    size: int,
    max_objects: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> bool:
    """Write the synthetic set unless ``root`` holds this very set already; arguments as in ``write_shapes``.

    Returns:
        Whether the set was written now.

    Raises:
        DataError: ``root`` holds another set or other files, or cannot be written.
    """
    if _holds(root, _manifest(num_train, num_val, size, max_objects, seed)):
        return False
    write_shapes(root, num_train, num_val, size, max_objects, seed, progress)
    return True


def write_shapes(
    root: Path,
    num_train: int,
    num_val: int,
    size: int,
    max_objects: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the synthetic set.

    ``root/voc`` gets the VOC layout (splits train and val), ``root/coco`` the COCO layout (folders ``train`` and
    ``val``, ``annotations/instances_train.json`` and ``instances_val.json``), ``root/shapes.json`` the parameters.

    Args:
        root: folder to write; it must be absent or empty.
        num_train, num_val: images of the splits, at least 1.
        size: longest side of the images in pixels, at least 64.
        max_objects: most objects of an image, at least 1.
        seed: at least 0; the same seed gives the same files.
        progress: called after each image with the images done and the images in all.

    Raises:
        DataError: ``root`` is not empty, or cannot be written.
        ValueError: an argument is out of range.
    """
    if num_train < 1 or num_val < 1:
        raise ValueError(f"expected at least one image a split, got {num_train=}, {num_val=}")
    manifest = _manifest(num_train, num_val, size, max_objects, seed)
    if _holds(root, manifest):
        raise DataError(f"{root}: holds this synthetic set already; delete the folder to have it written anew")
    target = root.resolve()
    partial = target.with_name(f".{target.name}.partial-{uuid.uuid4().hex[:8]}")
    try:
        partial.mkdir(parents=True)
        _write_layouts(partial, manifest, progress)
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        if target.is_dir() and not any(target.iterdir()):
            target.rmdir()  # not every system renames onto an empty folder
        if not _holds(root, manifest):  # else another process was first with the same files
            partial.rename(target)
    except OSError as error:
        raise DataError(
            f"{root}: cannot write the synthetic set ({error.strerror or error}); set data.root to a writable folder"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _manifest(num_train: int, num_val: int, size: int, max_objects: int, seed: int) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "num_train": num_train,
        "num_val": num_val,
        "size": size,
        "max_objects": max_objects,
        "seed": seed,
        "classes": list(SHAPE_CLASSES),
    }


def _write_layouts(root: Path, manifest: dict[str, Any], progress: Callable[[int, int], None] | None) -> None:
    voc, coco = VocWriter(root / "voc", SHAPE_CLASSES), CocoWriter(root / "coco", SHAPE_CLASSES)
    splits: list[tuple[Split, int]] = [("train", manifest["num_train"]), ("val", manifest["num_val"])]
    total = manifest["num_train"] + manifest["num_val"]
    done = 0
    for split, num_images in splits:
        for index in range(num_images):
            scene = render_scene(manifest["seed"], split, index, manifest["size"], manifest["max_objects"])
            stem = f"{split}_{index:06d}"
            voc.add(split, stem, scene.image, scene.boxes, scene.labels, scene.masks, scene.truncated)
            coco.add(split, stem, scene.image, scene.boxes, scene.labels, scene.masks)
            done += 1
            if progress is not None:
                progress(done, total)
    voc.finish()
    coco.finish()


def _holds(root: Path, wanted: dict[str, Any]) -> bool:
    """Whether the folder holds the wanted set; False: it is absent or empty.

    Raises:
        DataError: it holds something else.
    """
    if not root.exists():
        return False
    mend = "set data.root to another folder, or delete this one"
    if not root.is_dir():
        raise DataError(f"{root}: is a file, expected a folder for the synthetic set; {mend}")
    path = root / MANIFEST
    if not path.exists():
        names = sorted(entry.name for entry in root.iterdir())
        if not names:
            return False
        some = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        raise DataError(f"{root}: holds {some} but no {MANIFEST}, so it is not a synthetic set; {mend}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); {mend} to have it written anew") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: expected a JSON object, got {type(found).__name__}; {mend} to have it written anew")
    differences = [
        f"{key} is {found.get(key)!r} there and {wanted.get(key)!r} was asked for"
        for key in sorted(wanted.keys() | found.keys())
        if found.get(key) != wanted.get(key)
    ]
    if differences:
        raise DataError(f"{root}: holds another synthetic set: {'; '.join(differences)}; {mend}")
    return True
