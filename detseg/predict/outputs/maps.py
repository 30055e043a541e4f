"""Label maps as files: indexed PNGs, what their values mean, and the area of each class as a table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from detseg.draw import class_colors
from detseg.errors import ConfigError
from detseg.messages import counted
from detseg.predict import MAP_FORMATS, MASK_VALUES
from detseg.predict.outputs.output import (
    REPLACED,
    Entry,
    ExistingFiles,
    ImageFile,
    Output,
    file_checksum,
    write_whole,
)
from detseg.predict.results import SegmentationMap
from detseg.structures import ClassTable

_AREAS = "areas.csv"


class LabelOutput(Output):
    """Labels as indexed PNGs in ``masks/``; what they mean, and how many pixels each class has, in ``classes.json``.

    Args:
        out: the folder to write to.
        classes: the classes of the maps.
        mask_values: ``labels``, or ``source``: the value of each class in the masks that the model was trained on.
        formats: some of ``MAP_FORMATS``: ``csv`` adds ``areas.csv``, a row for each class of each image.
        existing: what becomes of masks that exist.

    Raises:
        ConfigError: another word, or the values do not fit into 8 bits.
    """

    def __init__(
        self,
        out: Path,
        classes: ClassTable,
        mask_values: str = MASK_VALUES[0],
        formats: Sequence[str] = (),
        existing: ExistingFiles = REPLACED,
    ) -> None:
        if mask_values not in MASK_VALUES:
            raise ConfigError(f"mask_values: expected {' or '.join(MASK_VALUES)}, got {mask_values!r}")
        for name in formats:
            if name not in MAP_FORMATS:
                raise ConfigError(
                    f"the format {name} is for detectors, and this is a segmentation model, whose labels are written "
                    f"as indexed PNGs; beside them there may be {' or '.join(MAP_FORMATS)}"
                )
        self.out, self.classes = out, classes
        self._formats, self._existing = tuple(formats), existing
        self._values = classes.source_ids if mask_values == "source" else tuple(range(len(classes)))
        if wrong := [value for value in self._values if not 0 <= value <= 255]:
            what = f"the source values of the classes are {list(self._values)}, and {wrong[0]} does not fit into 8 bits"
            raise ConfigError(f"mask_values: {what}; leave it out, classes.json has them all")

    def files(self, image: Path) -> list[Path]:
        """The labels of the image."""
        return [(self.out / "masks" / image).with_suffix(".png")]

    def is_made(self, image: ImageFile, entry: Entry) -> bool:
        """The labels are: the journal has no room for them."""
        self._described(image, entry)
        return self._existing.has(self.files(image.name)[0], entry["mask_crc32"])

    def must_not_exist(self, images: Sequence[Path]) -> list[Path]:
        """None: labels are replaced."""
        return []

    def entry(self, image: ImageFile, found: SegmentationMap) -> Entry:
        """Write the labels of an image; its size, and the pixels of each class."""
        (mask,) = self.files(image.name)
        with self._existing.write(mask) as file:
            found.save_png(file, self._values)
            checksum = file_checksum(file)
        sizes = {"height": found.hw[0], "width": found.hw[1], "pixels": found.areas}
        return {"mask": mask.relative_to(self.out).as_posix(), "mask_crc32": checksum} | sizes

    def write(self, entries: Iterable[tuple[ImageFile, Entry]], also: Sequence[str] = ()) -> str:
        """Write ``classes.json`` and the table of areas."""
        images = list[dict[str, Any]]()
        for image, entry in entries:
            self._existing.compare(self.files(image.name)[0], entry["mask_crc32"])
            images.append(self._described(image, entry))
        rows = zip(self.classes.names, class_colors(self.classes.names), strict=True)
        classes = [
            {"label": i, "name": name, "color": color, "source_value": source, "mask_value": value}
            for i, ((name, color), source, value) in enumerate(
                zip(rows, self.classes.source_ids, self._values, strict=True)
            )
        ]
        write_whole(self.out / "classes.json", json.dumps({"classes": classes, "images": images}))
        masks, meaning = "masks/ (the class of each pixel, as indexed PNGs)", "classes.json (what the values mean, and "
        written = [*also, masks, f"{meaning}their pixels)"]
        if "csv" in self._formats:
            write_whole(self.out / _AREAS, _areas(images))
            written.append(f"{_AREAS} (pixels of each class)")
        return f"{counted(len(images), 'image')}; written to {self.out}: {', '.join(written)}"

    def _described(self, image: ImageFile, entry: Entry) -> dict[str, Any]:
        pixels = {name: entry["pixels"][name] for name in self.classes.names}
        described = {key: entry[key] for key in ("mask", "height", "width")} | {"pixels": pixels}
        return {"file_name": image.name.as_posix()} | described


def _areas(images: Sequence[dict[str, Any]]) -> str:
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["image", "class", "pixels", "fraction"])
    for image in images:
        total = image["height"] * image["width"]
        for name, pixels in image["pixels"].items():
            rows.writerow([image["file_name"], name, pixels, f"{pixels / total:.6f}"])
    return table.getvalue()
