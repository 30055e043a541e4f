"""What the writers of formats share: the copies of images, and what a format cannot hold."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from detseg.data.annotations.model import StatedObject, check_region
from detseg.data.annotations.outlines import Box, Outline, outline_bounds, own_area
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.images.find import copy_names, new_folder, place_image
from detseg.messages import counted

_SAME = 1e-3  # pixels up to which a stated box is that of its outline


class Losses:
    """What a ``format`` cannot hold of a data set: a count of each kind, as lines of text."""

    def __init__(self, format: str) -> None:
        self._format = format
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, line: str, noun: str = "object") -> None:
        """Count one more ``noun`` of a kind; ``{}`` in the line stands for their number."""
        self._counts[line, noun] += 1

    def lines(self) -> list[str]:
        """One line for each kind, with its number."""
        return [line.format(counted(number, noun)) for (line, noun), number in self._counts.items()]

    def add_ids(self, kind: str, ids: Sequence[int]) -> None:
        """Count the ids of a ``kind``, class or image, that are not those that readers of names give: 1, 2, 3, ..."""
        for _ in range(sum(own != usual for usual, own in enumerate(ids, start=1))):
            self.add(f"ids of {{}}: {self._format} has none; they are counted from 1", kind)

    def outline_of(self, stated: StatedObject, hw: tuple[int, int]) -> tuple[Outline | None, Box]:
        """The outline that is written of an object, with its bounds: None, and the stated box, if there is none, or it
        is wrong or has no pixel. That is counted, and so is a stated area or box that is not that of the outline (of
        the box, where there is none)."""
        outline, bounds = self._checked(stated, hw)
        if outline is not None and max(abs(a - b) for a, b in zip(stated.box, bounds, strict=True)) > _SAME:
            what = f"{self._format} has one of both; the outline is kept"
            self.add(f"boxes of {{}}, which differ from their outlines: {what}")
        if math.isfinite(stated.area):
            own, of = own_area(bounds, outline, hw), "boxes" if outline is None else "outlines"
            if abs(stated.area - own) > max(1.0, 0.01 * own):
                what = f"{self._format} states none; those count"
                self.add(f"areas of {{}}, which differ from those of their {of}: {what}")
        return outline, bounds

    def _checked(self, stated: StatedObject, hw: tuple[int, int]) -> tuple[Outline | None, Box]:
        outline = stated.segmentation
        try:
            if isinstance(outline, dict):
                bounds = outline_bounds(outline, hw)
                if bounds[0] < bounds[2]:
                    return outline, bounds
                self.add("masks without a pixel of {}: their boxes are written")
            elif outline is not None:
                check_region(outline, hw)
                return outline, outline_bounds(outline, hw)
        except ValueError:
            self.add("outlines of {}, which cannot be read: their boxes are written")
        return None, stated.box


@dataclass(frozen=True)
class ImageCopy:
    """The copy of an image, and what a writer is to say of it."""

    split: str
    name: str  # its path below the folder of the split
    path: Path
    hw: tuple[int, int]
    objects: list[StatedObject]


def copy_images(
    splits: Mapping[str, DetectionDataset],
    target: Path,
    folder: str,
    link: bool,
    losses: Losses,
    read_order: Callable[[str], Path] | None = None,
) -> Iterator[ImageCopy]:
    """Copy the images of some splits, or link them, one by one, to an empty or new folder.

    ``folder`` is where those of a split lie, which ``{}`` stands for. ``read_order``: of a format that finds the files
    of an image by its name without suffix, what the names are sorted by when it is read; the second of two such names
    gets another. Ids and names that are lost are counted.
    """
    new_folder(target)
    losses.add_ids("class", next(iter(splits.values())).classes.source_ids)
    for split, dataset in splits.items():
        packed, place = dataset.packed, target / folder.format(split)
        place.mkdir(parents=True, exist_ok=True)
        paths = [packed.path(index) for index in range(len(packed))]
        names = copy_names(paths, split, by_stem=read_order is not None)
        ids = list(zip(names, packed.image_ids.tolist(), strict=True))
        if read_order is not None:
            ids.sort(key=lambda pair: read_order(pair[0]))
        losses.add_ids("image", [number for _, number in ids])
        for index, name in enumerate(names):
            if Path(name).stem != Path(paths[index]).stem:
                losses.add("names of {}, as two in a folder differ in the suffix alone: it was added", "image")
            place_image(dataset.path(index), place / name, link)
            yield ImageCopy(split, name, place / name, packed.hw(index), packed.stated(index))
