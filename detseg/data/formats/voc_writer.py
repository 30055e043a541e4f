"""Writes the Pascal VOC layout (Everingham et al. 2010) for detection and segmentation.

``JPEGImages/``, ``Annotations/``, ``ImageSets/Main/`` and ``ImageSets/Segmentation/`` with one list a split, and the
palette images ``SegmentationClass/`` (label + 1) and ``SegmentationObject/`` (number of the object in the annotation,
from 1), both 0 for background.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from detseg.data.formats.voc_xml import VocAnnotation, write_voc_xml
from detseg.structures import BoolArray, FloatArray, IntArray, UInt8Array

_MAX_INDEX = 254
"""Largest index of a palette image for classes and objects; 255 means void."""

_MAPS = ("SegmentationClass", "SegmentationObject")
_LISTS = ("ImageSets/Main", "ImageSets/Segmentation")


class VocWriter:
    """Writes images one by one; the layout is complete after ``finish``.

    Args:
        root: the folder of the layout, which is created.
        classes: class names in label order, at most 254, which is what a palette image can hold.
    """

    def __init__(self, root: Path, classes: Sequence[str]) -> None:
        if len(classes) > _MAX_INDEX:
            raise ValueError(f"a palette image holds at most {_MAX_INDEX} classes, got {len(classes)}")
        self.root = root
        self.classes = tuple(classes)
        self._stems: dict[str, list[str]] = {}
        for folder in ("JPEGImages", "Annotations", *_MAPS, *_LISTS):
            (root / folder).mkdir(parents=True, exist_ok=True)

    def add(
        self,
        split: str,
        stem: str,
        image: UInt8Array,
        boxes: FloatArray,
        labels: IntArray,
        masks: BoolArray,
        truncated: BoolArray,
    ) -> None:
        """Write one image with its annotation and its two segmentation maps.

        Args:
            split: name of the split.
            stem: name of the image without a suffix.
            image: (H, W, 3) uint8 RGB.
            boxes: (N, 4) xyxy pixels, 0-based and half-open.
            labels: (N,) positions in the class names.
            masks: (N, H, W) bool; where two overlap, the later one is drawn.
            truncated: (N,) bool, VOC's flag.

        Raises:
            ValueError: the arrays differ in N, or N is more than a palette image can hold.
        """
        if len(labels) > _MAX_INDEX:
            raise ValueError(f"{stem}: a palette image holds at most {_MAX_INDEX} objects, got {len(labels)}")
        names = tuple(self.classes[label] for label in labels)
        not_difficult = np.zeros(len(labels), dtype=np.bool_)
        annotation = VocAnnotation(f"{stem}.jpg", image.shape[:2], names, boxes, not_difficult, truncated)
        write_voc_xml(self.root / "Annotations" / f"{stem}.xml", annotation, folder="JPEGImages", segmented=True)
        maps = np.zeros((2, *image.shape[:2]), dtype=np.uint8)
        for number, (label, mask) in enumerate(zip(labels, masks, strict=True), start=1):
            maps[:, mask] = [[label + 1], [number]]
        for folder, indices in zip(_MAPS, maps, strict=True):
            palette_image = Image.fromarray(indices, mode="P")
            palette_image.putpalette(voc_palette())
            palette_image.save(self.root / folder / f"{stem}.png")
        # Full chroma resolution: small coloured objects keep their edges.
        Image.fromarray(image).save(self.root / "JPEGImages" / f"{stem}.jpg", quality=95, subsampling=0)
        self._stems.setdefault(split, []).append(stem)

    def finish(self) -> None:
        """Write the lists of the splits."""
        for split, stems in self._stems.items():
            for folder in _LISTS:
                (self.root / folder / f"{split}.txt").write_text("\n".join([*stems, ""]), encoding="utf-8")


def voc_palette() -> list[int]:
    """The 256 colours of VOC's palette images as 768 numbers R, G, B, R, …

    Bit 3k + c of an index is bit 7 - k of channel c (VOC development kit, ``VOClabelcolormap``).
    """
    return [sum((i >> (3 * k + c) & 1) << (7 - k) for k in range(3)) for i in range(256) for c in range(3)]
