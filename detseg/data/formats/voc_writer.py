"""Writes the Pascal VOC layout (Everingham et al. 2010) for detection and segmentation.

``JPEGImages/``, ``Annotations/`` with 1-based inclusive corners, ``ImageSets/Main/`` and ``ImageSets/Segmentation/``
with one list a split, and the palette images ``SegmentationClass/`` (label + 1) and ``SegmentationObject/`` (number of
the object in the annotation, from 1), both 0 on the ground.

Letters for dimensions: N objects, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from detseg.data.formats.voc_xml import VocAnnotation, write_voc_xml
from detseg.structures import BoolArray, FloatArray, IntArray, UInt8Array

MAX_INDEX = 254
"""Largest value of a palette image that is not taken: 255 means void."""


class VocWriter:
    """Writes images one by one; the layout is complete after ``finish``."""

    def __init__(self, root: Path, classes: Sequence[str]) -> None:
        """Make the folders.

        Args:
            root: the folder that will hold the layout.
            classes: class names in the order of the labels, at most 254.

        Raises:
            ValueError: more classes than a palette image can hold.
        """
        if len(classes) > MAX_INDEX:
            raise ValueError(f"a palette image holds at most {MAX_INDEX} classes, got {len(classes)}")
        self.root = root
        self.classes = tuple(classes)
        self._stems: dict[str, list[str]] = {}
        for folder in (
            "JPEGImages",
            "Annotations",
            "SegmentationClass",
            "SegmentationObject",
            "ImageSets/Main",
            "ImageSets/Segmentation",
        ):
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
            split: name of the list that it belongs to.
            stem: its name without a suffix.
            image: (H, W, 3) uint8 RGB.
            boxes: (N, 4) xyxy pixels, 0-based and half-open.
            labels: (N,) positions in the class names.
            masks: (N, H, W) bool; where two overlap, the later one is written.
            truncated: (N,) bool, the flag of that name.

        Raises:
            ValueError: the arrays differ in N, or N is more than a palette image can hold.
        """
        if len(labels) > MAX_INDEX:
            raise ValueError(f"{stem}: a palette image holds at most {MAX_INDEX} objects, got {len(labels)}")
        annotation = VocAnnotation(
            filename=f"{stem}.jpg",
            hw=(image.shape[0], image.shape[1]),
            names=tuple(self.classes[label] for label in labels),
            boxes=boxes,
            difficult=np.zeros(len(labels), dtype=np.bool_),
            truncated=truncated,
        )
        write_voc_xml(self.root / "Annotations" / f"{stem}.xml", annotation, folder="JPEGImages", segmented=True)
        semantic = np.zeros(image.shape[:2], dtype=np.uint8)
        instance = np.zeros(image.shape[:2], dtype=np.uint8)
        for number, (label, mask) in enumerate(zip(labels, masks, strict=True), start=1):
            semantic[mask] = label + 1
            instance[mask] = number
        _write_palette_image(self.root / "SegmentationClass" / f"{stem}.png", semantic)
        _write_palette_image(self.root / "SegmentationObject" / f"{stem}.png", instance)
        # Full chroma resolution: small coloured objects keep their edges.
        Image.fromarray(image).save(self.root / "JPEGImages" / f"{stem}.jpg", quality=95, subsampling=0)
        self._stems.setdefault(split, []).append(stem)

    def finish(self) -> None:
        """Write the lists of the splits."""
        for split, stems in self._stems.items():
            text = "".join(f"{stem}\n" for stem in stems)
            for task in ("Main", "Segmentation"):
                (self.root / "ImageSets" / task / f"{split}.txt").write_text(text, encoding="utf-8")


def voc_palette() -> list[int]:
    """The 256 colours of VOC's palette images as 768 numbers R, G, B, R, …

    The bits of an index are dealt to red, green and blue in turn, from the lowest bit on, each filling its colour from
    the highest bit down: neighbouring indices get colours far apart (VOC development kit, ``VOClabelcolormap``).
    """
    palette = []
    for index in range(256):
        for channel in range(3):
            palette.append(sum(((index >> (3 * k + channel)) & 1) << (7 - k) for k in range(3)))
    return palette


def _write_palette_image(path: Path, indices: UInt8Array) -> None:
    picture = Image.fromarray(indices, mode="P")
    picture.putpalette(voc_palette())
    picture.save(path)
