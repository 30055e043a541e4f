"""Reads a folder of images and a folder of masks, where a mask has the name of its image.

Sub-folders keep their names: ``images/a/1.jpg`` belongs to ``masks/a/1.png``. Names that begin with a dot are left out.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from detseg.data.annotations.classes import mask_class_table
from detseg.data.annotations.issues import DataIssue, DataReport
from detseg.data.annotations.model import pack_images
from detseg.data.datasets.segmentation import MaskFiles, SegmentationDataset, inspect_masks
from detseg.data.images.find import find_images
from detseg.data.images.masks import MaskEncoding, Rgb
from detseg.errors import DataError, path_of
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
        images, masks: the folders; they may be one folder if ``suffix`` tells masks from images.
        classes: in label order, a background included. A table is that of another set, which is trained on: masks of
            one class are reported then, not an error.
        suffix: what a mask has after the name of its image: ``_mask`` for ``a.jpg`` and ``a_mask.png``.
        values, ignore_index, colors, ignore_colors: see ``MaskEncoding``.
        skip_bad: see ``inspect_masks``.

    Raises:
        DataError: a folder or file is missing or wrong, an image has no single mask, or masks do not fit the classes.
    """
    images, masks, report = path_of("images", images), path_of("masks", masks), DataReport()
    for folder, key in ((images, "images"), (masks, "masks")):
        if not folder.is_dir():
            raise DataError(f"{folder}: there is no such folder; set data.root and the {key} folder of the split")
    mask_values, class_colors = None if values is None else tuple(values), None if colors is None else tuple(colors)
    table = mask_class_table(images, classes, mask_values)
    encoding = MaskEncoding(table, mask_values, ignore_index, class_colors, tuple(ignore_colors))
    image_files, mask_files = zip(*_pairs(images, masks, suffix, report), strict=True)
    source = MaskFiles(pack_images(mask_files), masks, encoding)
    dataset = SegmentationDataset(pack_images(image_files), source, images, table, report, f"folder {images}")
    inspect_masks(dataset, encoding, training=not isinstance(classes, ClassTable), skip_bad=skip_bad)
    return dataset


def _pairs(images: Path, masks: Path, suffix: str, report: DataReport) -> list[tuple[str, str]]:
    """Paths of each image and its mask, relative to their folders, in the order of the images' paths."""
    together = images.resolve() == masks.resolve()
    if together and not suffix:
        raise DataError(f"{images}: images and masks lie in one folder; set data.mask_suffix, or move the masks out")
    image_files = _files_by_stem(images, masks)
    mask_files = image_files if together else _files_by_stem(masks, images)
    if together:
        image_files = {stem: names for stem, names in image_files.items() if not stem.endswith(suffix)}
    if not image_files:
        raise DataError(f"{images}: there are no images in it; set data.root and the images folder of the split")
    if missing := [stem for stem in image_files if stem + suffix not in mask_files]:
        names = listed([image_files[stem][0] for stem in missing])
        raise DataError(
            f"{masks}: {len(missing)} of {len(image_files)} images have no mask: {names}; expected {missing[0]}{suffix}"
            ".png, .tif, .tiff or .bmp (data.mask_suffix is what comes before the file type); add them"
        )
    used = {stem + suffix for stem in image_files} | (image_files.keys() if together else set())
    for stem in sorted(mask_files.keys() - used):
        report.add(DataIssue.NO_IMAGE, mask_files[stem][0])
    pairs = [(image_files[stem], mask_files[stem + suffix]) for stem in image_files]
    for folder, files in ((images, [pair[0] for pair in pairs]), (masks, [pair[1] for pair in pairs])):
        for several in [names for names in files if len(names) > 1]:
            raise DataError(f"{folder}: several files with one name: {listed(several)}; keep one of them")
    return [(image[0], mask[0]) for image, mask in pairs]


def _files_by_stem(folder: Path, other: Path) -> dict[str, list[str]]:
    """The image files of each stem in a folder, but not in ``other``: relative paths, in the order of the stems."""
    left_out = os.path.realpath(other)
    files = find_images(folder, lambda p: os.path.basename(p).startswith(".") or os.path.realpath(p) == left_out)
    found: dict[str, list[str]] = {}
    for stem, name in sorted((os.path.splitext(file.as_posix())[0], file.as_posix()) for file in files):
        found.setdefault(stem, []).append(name)
    return found
