"""Reads the segmentation part of the Pascal VOC layout (Everingham et al. 2010).

``ImageSets/Segmentation/`` lists the images of each split; ``SegmentationClass/NAME.png`` is the mask of
``JPEGImages/NAME.jpg``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detseg.data.annotations import pack_images
from detseg.data.class_names import listed
from detseg.data.mask_classes import mask_class_table
from detseg.data.mask_encoding import MaskEncoding
from detseg.data.mask_inspection import inspect_masks
from detseg.data.report import DataReport, Oddity
from detseg.data.semantic_dataset import PictureMasks, SegmentationDataset
from detseg.data.voc_lists import check_present, files_by_stem, listed_stems, voc_lists
from detseg.errors import DataError, shown
from detseg.structures import ClassTable


def read_voc_masks(
    root: Path | str,
    split: str,
    years: Sequence[str] = (),
    classes: ClassTable | Sequence[str] | None = None,
    values: Sequence[int] | None = None,
    ignore_index: int | None = 255,
    skip_bad: bool = False,
) -> SegmentationDataset:
    """Read one split of a data set in VOC layout for semantic segmentation.

    Image ids are 1 to I in the order of the lists, since names may occur in several years.

    Args:
        root: the folder with ``ImageSets``, ``SegmentationClass`` and ``JPEGImages`` (``images`` where there is no
            folder of that name); or ``VOCdevkit``, which holds such folders; or the folder that holds ``VOCdevkit``.
        split, years: as ``read_voc`` takes them; the lists are those of ``ImageSets/Segmentation``.
        classes: the classes in label order, a background included; None: the lines of ``classes.txt`` in ``root``.
            A table says that another set is trained on, so that in this one a class alone is noted, not refused.
        values: value of each class in the masks, in label order; None: the label itself.
        ignore_index: value that counts nowhere; None: there is none.
        skip_bad: as ``inspect_masks`` takes it.

    Raises:
        DataError: a folder, list, image or mask is missing or wrong, or the classes are not named.
    """
    root = Path(root)
    name = f"voc {split}" if not years else f"voc {'+'.join(years)} {split}"
    folders = voc_lists(root, split, years, "Segmentation")
    mask_values = None if values is None else tuple(values)
    encoding = MaskEncoding(mask_class_table(root, classes, mask_values), mask_values, ignore_index)
    report = DataReport()
    pairs: dict[str, str] = {}
    for folder, list_name in folders:
        for image, mask in _pairs(root, folder, list_name, report):
            if image in pairs:
                report.add(Oddity.LISTED_TWICE, image)
            pairs[image] = mask
    if not pairs:
        raise DataError(f"{root}: the split '{split}' lists no images; write one name a line into its list")
    masks = PictureMasks(pack_images(list(pairs.values())), root, encoding)
    dataset = SegmentationDataset(pack_images(list(pairs)), masks, root, encoding.classes, report, name)
    inspect_masks(dataset, encoding, training=not isinstance(classes, ClassTable), skip_bad=skip_bad)
    return dataset


def _pairs(root: Path, folder: Path, list_name: str, report: DataReport) -> list[tuple[str, str]]:
    """Paths, relative to the root, of the images of a list and of their masks."""
    images_folder, masks_folder = _images_folder(folder), folder / "SegmentationClass"
    images, masks = files_by_stem(images_folder), files_by_stem(masks_folder)
    stems = listed_stems(folder, "Segmentation", list_name, images.keys() | masks.keys(), report)
    check_present("image", images_folder, [stem for stem in stems if stem not in images])
    check_present("mask", masks_folder, [f"{stem}.png" for stem in stems if stem not in masks])
    return [
        (_only(root, images_folder, stem, images[stem]), _only(root, masks_folder, stem, masks[stem])) for stem in stems
    ]


def _images_folder(folder: Path) -> Path:
    usual, other = folder / "JPEGImages", folder / "images"
    return other if other.is_dir() and not usual.is_dir() else usual


def _only(root: Path, folder: Path, stem: str, names: list[str]) -> str:
    if len(names) > 1:
        raise DataError(f"{folder}: which file is {shown(stem)}: {listed(names)}? Remove all but one")
    return f"{folder.relative_to(root).as_posix()}/{names[0]}"
