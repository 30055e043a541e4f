"""Reads a folder of images and a folder of masks, where a mask has the name of its image.

Folders in the folders keep their names: ``images/a/1.jpg`` belongs to ``masks/a/1.png``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from detseg.data.annotations.classes import mask_class_table
from detseg.data.annotations.issues import DataIssue, DataReport
from detseg.data.annotations.model import pack_images
from detseg.data.checks.mask_inspection import inspect_masks
from detseg.data.datasets.segmentation import PictureMasks, SegmentationDataset
from detseg.data.images.mask_encoding import MaskEncoding, Rgb
from detseg.data.images.read import IMAGE_SUFFIXES
from detseg.errors import DataError
from detseg.messages import listed
from detseg.structures import ClassTable


def read_mask_folder(
    images: Path | str,
    masks: Path | str,
    classes: ClassTable | Sequence[str],
    suffix: str = "",
    values: Sequence[int] | None = None,
    ignore_index: int | None = 255,
    colors: Sequence[Rgb] | None = None,
    ignore_colors: Sequence[Rgb] = (),
    skip_bad: bool = False,
) -> SegmentationDataset:
    """Read pairs of images and masks; image ids are 1 to I in the order of the paths.

    Args:
        images, masks: the folders; the same one is allowed where ``suffix`` tells masks from images.
        classes: the classes in label order, a background included. A table says that another set is trained on, so
            that in this one a class alone is noted, not refused.
        suffix: what the name of a mask has behind that of its image, before its file type: ``_mask`` for ``a.jpg`` and
            ``a_mask.png``.
        values: value of each class in the masks, in label order; None: the label itself.
        ignore_index: value that counts nowhere; None: there is none.
        colors: colour of each class in label order, where masks are colour pictures.
        ignore_colors: colours that count nowhere.
        skip_bad: as ``inspect_masks`` takes it.

    Raises:
        DataError: a folder or file is missing or wrong, an image has no mask or several, or the masks do not fit the
            classes.
    """
    images, masks = Path(images), Path(masks)
    for folder, key in ((images, "images"), (masks, "masks")):
        if not folder.is_dir():
            raise DataError(f"{folder}: there is no such folder; set data.root and the {key} folder of the split")
    mask_values = None if values is None else tuple(values)
    encoding = MaskEncoding(
        mask_class_table(images, classes, mask_values),
        mask_values,
        ignore_index,
        None if colors is None else tuple(colors),
        tuple(ignore_colors),
    )
    report = DataReport()
    pairs = _pairs(images, masks, suffix, report)
    source = PictureMasks(pack_images([mask for _, mask in pairs]), masks, encoding)
    packed = pack_images([image for image, _ in pairs])
    dataset = SegmentationDataset(packed, source, images, encoding.classes, report, f"folder {images}")
    inspect_masks(dataset, encoding, training=not isinstance(classes, ClassTable), skip_bad=skip_bad)
    return dataset


def _pairs(images: Path, masks: Path, suffix: str, report: DataReport) -> list[tuple[str, str]]:
    """Paths of each image and its mask, relative to their folders, in the order of the images' paths."""
    together = images.resolve() == masks.resolve()
    if together and not suffix:
        raise DataError(f"{images}: images and masks lie in one folder; set data.mask_suffix, or move the masks out")
    image_files = _files(images, leave_out=masks)
    if together:
        image_files = {stem: names for stem, names in image_files.items() if not stem.endswith(suffix)}
    mask_files = _files(masks, leave_out=images)
    if not image_files:
        raise DataError(f"{images}: there are no images in it; set data.root and the images folder of the split")
    wanted = {stem: stem + suffix for stem in image_files}
    missing = [image_files[stem][0] for stem, mask in wanted.items() if mask not in mask_files]
    if missing:
        example = f"{next(stem for stem, mask in wanted.items() if mask not in mask_files)}{suffix}.png"
        raise DataError(
            f"{masks}: {len(missing)} of {len(image_files)} images have no mask: {listed(missing)}; expected "
            f"{example}, .tif, .tiff or .bmp (data.mask_suffix is what comes before the file type); add the masks "
            "or take the images out"
        )
    for stem in sorted(mask_files.keys() - set(wanted.values()) - (image_files.keys() if together else set())):
        report.add(DataIssue.NO_IMAGE, mask_files[stem][0])
    return [(_only(images, image_files[stem]), _only(masks, mask_files[mask])) for stem, mask in wanted.items()]


def _files(folder: Path, leave_out: Path) -> dict[str, list[str]]:
    """The picture files of each stem, in the order of the stems: relative paths, hidden files left out."""
    other = leave_out.resolve()
    found: dict[str, list[str]] = {}
    for parent, folders, names in os.walk(folder, followlinks=True):
        inside = Path(parent)
        folders[:] = [name for name in folders if not name.startswith(".") and (inside / name).resolve() != other]
        for name in names:
            stem, kind = os.path.splitext(name)
            if kind.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                relative = inside.relative_to(folder)
                found.setdefault((relative / stem).as_posix(), []).append((relative / name).as_posix())
    return {stem: sorted(found[stem]) for stem in sorted(found)}


def _only(folder: Path, names: list[str]) -> str:
    if len(names) > 1:
        raise DataError(
            f"{folder}: which file is meant: {listed(names)}? Their names differ in the type only; keep one"
        )
    return names[0]
