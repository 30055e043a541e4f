"""A data set with a known number of each kind of issue, to count what `detseg check` finds, misses and makes up.

``python -m tests.planted_set --images 2000`` writes one below a temporary folder, checks it, and prints a line for each
kind: planted, found, missed, false alarms.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from detseg.data.annotations.issues import DataIssue
from detseg.data.annotations.report import DataReport
from detseg.data.checks.facts import Expected
from detseg.data.checks.run import Checked, check_splits
from detseg.data.formats.coco import read_coco
from detseg.ops.masks import encode_mask as encoded
from detseg.ops.masks import run_lengths

WIDTH, HEIGHT = 120, 96
CLASSES = ("car", "person", "bicycle", "dog", "lamp post")
Pixels = npt.NDArray[np.uint8]


@dataclass
class PlantedSplit:
    """A split as it is written: images and annotations of COCO, and what was planted, by kind the names of images and,
    for kinds of objects, how many."""

    name: str
    folder: Path
    rng: np.random.Generator
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    planted: dict[DataIssue, Counter[str]] = field(default_factory=dict)

    def plant(self, issue: DataIssue, image: dict[str, Any], count: int = 1) -> None:
        self.planted.setdefault(issue, Counter())[image["file_name"]] += count

    def pixels(self, width: int = WIDTH, height: int = HEIGHT) -> Pixels:
        """Smooth random texture, unlike that of any other image."""
        coarse = self.rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
        image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float64)
        return (image + self.rng.normal(0, 6, image.shape)).clip(0, 255).astype(np.uint8)

    def add_image(self, pixels: Pixels | Image.Image, suffix: str = ".jpg", **options: Any) -> dict[str, Any]:
        picture = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
        name = f"{self.name}_{len(self.images):05d}{suffix}"
        picture.save(self.folder / name, **({"quality": 92} if suffix == ".jpg" else {}), **options)
        image = {"id": len(self.images) + 1, "file_name": name, "width": picture.width, "height": picture.height}
        self.images.append(image)
        return image

    def add_object(self, image: dict[str, Any], box: tuple[float, ...], label: int, **fields: Any) -> dict[str, Any]:
        """``box``: x, y, width, height; its mask is the rectangle, unless a segmentation is given."""
        x, y, w, h = box
        corners = [[float(v) for v in (x, y, x + w, y, x + w, y + h, x, y + h)]]
        entry = {"id": len(self.annotations) + 1, "image_id": image["id"], "category_id": label + 1, "bbox": list(box)}
        entry |= {"area": float(abs(w * h)), "iscrowd": 0, "segmentation": corners} | fields
        self.annotations.append(entry)
        return entry

    def add_clean(self, num: int | None = None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """An image with objects in which nothing is wrong."""
        image = self.add_image(self.pixels())
        return image, self.add_objects(image, num)

    def add_objects(self, image: dict[str, Any], num: int | None = None) -> list[dict[str, Any]]:
        found = []
        for place in self.rng.permutation(12)[: num or int(self.rng.integers(2, 6))].tolist():
            column, row = place % 4, place // 4  # one object a cell of 30 x 32 pixels
            w, h = (int(v) for v in self.rng.integers(12, 24, 2))
            label = int(self.rng.integers(0, 3))
            found.append(self.add_object(image, (column * 30 + 2, row * 32 + 3, w, h), label))
        return found


Plant = Callable[[PlantedSplit], None]


def _unreadable(split: PlantedSplit) -> None:
    image, _ = split.add_clean()
    path = split.folder / image["file_name"]
    path.write_bytes(path.read_bytes()[:-600])
    split.plant(DataIssue.UNREADABLE, image)


def _odd_mode(split: PlantedSplit) -> None:
    mode = ("CMYK", "P", "1", "LA")[int(split.rng.integers(0, 4))]
    picture = Image.fromarray(split.pixels()).convert("L" if mode == "LA" else "RGB").convert(mode)
    image = split.add_image(picture, ".jpg" if mode == "CMYK" else ".png")
    split.add_objects(image)
    split.plant(DataIssue.ODD_MODE, image)


def _transparent(split: PlantedSplit) -> None:
    picture = Image.fromarray(split.pixels()).convert("RGBA")
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[:20, :30] = 0
    picture.putalpha(Image.fromarray(alpha))
    image = split.add_image(picture, ".png")
    split.add_objects(image)
    split.plant(DataIssue.TRANSPARENT, image)


def _sixteen_bits(split: PlantedSplit, largest: int, issue: DataIssue) -> None:
    grey = split.pixels()[..., 0].astype(np.uint16)
    values = (grey * (largest / grey.max())).astype(np.uint16)
    image = split.add_image(Image.fromarray(values), ".png")
    split.add_objects(image)
    split.plant(issue, image)


def _before_rotation(split: PlantedSplit) -> None:
    exif = Image.Exif()
    exif[274] = 6
    image = split.add_image(split.pixels(), exif=exif)
    split.add_objects(image)
    split.plant(DataIssue.BEFORE_ROTATION, image)


def _other_size(split: PlantedSplit) -> None:
    image = split.add_image(split.pixels())
    split.add_object(image, (67, 10, 50, 20), 0)
    image["width"] -= 6
    split.plant(DataIssue.OTHER_SIZE, image)
    split.plant(DataIssue.OUTSIDE, image)


def _boxes(issue: DataIssue, change: Callable[[list[float]], list[float]]) -> Plant:
    def plant(split: PlantedSplit) -> None:
        image, objects = split.add_clean(6)
        for entry in objects[: int(split.rng.integers(1, 3))]:
            entry["bbox"] = change(entry["bbox"])
            if issue == DataIssue.NARROW:
                x, y, w, h = entry["bbox"]
                entry |= {"segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]], "area": w * h}
            split.plant(issue, image)

    return plant


def _relative(split: PlantedSplit) -> None:
    image, objects = split.add_clean()
    for entry in objects:
        x, y, w, h = entry["bbox"]
        entry["bbox"] = [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT]
        split.plant(DataIssue.RELATIVE, image)


def _repeated(split: PlantedSplit) -> None:
    image, objects = split.add_clean()
    for entry in objects:
        split.add_object(image, tuple(entry["bbox"]), entry["category_id"] - 1)
        split.plant(DataIssue.REPEATED, image)


def _nearly_repeated(split: PlantedSplit) -> None:
    image, objects = split.add_clean()
    x, y, w, h = objects[0]["bbox"]
    split.add_object(image, (x + 0.2, y, w, h), objects[0]["category_id"] - 1)
    split.plant(DataIssue.NEARLY_REPEATED, image)


def _row_major(split: PlantedSplit) -> None:
    image = split.add_image(split.pixels())
    for column in range(2):
        x, y, w, h = 10 + 50 * column, 30, 20, 14
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[y : y + h, x : x + w] = 1
        # The rows one after the other, as if they were columns of an image of the transposed shape.
        counts = run_lengths(encoded(np.ascontiguousarray(mask.T))).tolist()
        segmentation = {"size": [HEIGHT, WIDTH], "counts": [*counts, HEIGHT * WIDTH - sum(counts)]}
        split.add_object(image, (x, y, w, h), column, segmentation=segmentation)
        split.plant(DataIssue.ROW_MAJOR, image)


def _filled_holes(split: PlantedSplit) -> None:
    image = split.add_image(split.pixels())
    outer, inner = [20, 20, 60, 20, 60, 60, 20, 60], [30, 30, 44, 30, 44, 44, 30, 44]
    split.add_object(image, (20, 20, 40, 40), 0, segmentation=[outer, inner], area=1600.0 - 196)
    split.plant(DataIssue.FILLED_HOLES, image)


def _box_not_of_mask(split: PlantedSplit) -> None:
    image, objects = split.add_clean()
    objects[0]["bbox"] = [30, 40, 40, 40]
    split.plant(DataIssue.BOX_NOT_OF_MASK, image)


def _area_not_of_mask(split: PlantedSplit) -> None:
    image, objects = split.add_clean()
    objects[0]["area"] *= 2
    split.plant(DataIssue.AREA_NOT_OF_MASK, image)


def _no_objects(split: PlantedSplit) -> None:
    split.plant(DataIssue.NO_OBJECTS, split.add_image(split.pixels()))


def _crowd(split: PlantedSplit) -> None:
    image, objects = split.add_clean()
    objects[0]["iscrowd"] = 1
    split.plant(DataIssue.CROWD, image)


def _too_many(split: PlantedSplit) -> None:
    image = split.add_image(split.pixels())
    for k in range(24):
        split.add_object(image, ((k % 6) * 20 + 1, (k // 6) * 24 + 1, 12, 12 + k % 3), 0)
    split.plant(DataIssue.TOO_MANY, image)


def _same_image(split: PlantedSplit) -> None:
    image, _ = split.add_clean()
    copy, _ = split.add_clean()
    (split.folder / copy["file_name"]).write_bytes((split.folder / image["file_name"]).read_bytes())
    split.plant(DataIssue.SAME_IMAGE, copy)


def _similar_image(split: PlantedSplit) -> None:
    pixels = split.pixels()
    split.add_objects(split.add_image(pixels))
    brighter = (pixels * 1.08).clip(0, 255).astype(np.uint8)
    image = split.add_image(brighter)
    split.add_objects(image)
    split.plant(DataIssue.SIMILAR_IMAGE, image)


def _unlisted(split: PlantedSplit) -> None:
    image = split.add_image(split.pixels())
    split.images.remove(image)
    name = f"extra_{len(split.planted.get(DataIssue.UNLISTED, ()))}_{image['file_name']}"
    (split.folder / image["file_name"]).rename(split.folder / name)
    split.plant(DataIssue.UNLISTED, {"file_name": name})


PLANTS: dict[DataIssue, Plant] = {
    DataIssue.UNREADABLE: _unreadable,
    DataIssue.ODD_MODE: _odd_mode,
    DataIssue.TRANSPARENT: _transparent,
    DataIssue.LOW_RANGE: lambda split: _sixteen_bits(split, 4095, DataIssue.LOW_RANGE),
    DataIssue.SIXTEEN_BITS: lambda split: _sixteen_bits(split, 65535, DataIssue.SIXTEEN_BITS),
    DataIssue.BEFORE_ROTATION: _before_rotation,
    DataIssue.OTHER_SIZE: _other_size,
    DataIssue.NO_AREA: _boxes(DataIssue.NO_AREA, lambda b: [b[0], b[1], 0, b[3]]),
    DataIssue.NOTHING_INSIDE: _boxes(DataIssue.NOTHING_INSIDE, lambda b: [WIDTH + b[0] + 1, b[1], b[2], b[3]]),
    DataIssue.OUTSIDE: _boxes(DataIssue.OUTSIDE, lambda b: [-8.0, b[1], b[2], b[3]]),
    DataIssue.ONE_PIXEL: _boxes(DataIssue.ONE_PIXEL, lambda b: [b[0], b[1], 1, 1]),
    DataIssue.INVERTED: _boxes(DataIssue.INVERTED, lambda b: [b[0] + b[2], b[1] + b[3], -b[2], -b[3]]),
    DataIssue.NARROW: _boxes(DataIssue.NARROW, lambda b: [b[0], b[1], 1.5, b[3]]),
    DataIssue.RELATIVE: _relative,
    DataIssue.REPEATED: _repeated,
    DataIssue.NEARLY_REPEATED: _nearly_repeated,
    DataIssue.ROW_MAJOR: _row_major,
    DataIssue.FILLED_HOLES: _filled_holes,
    DataIssue.BOX_NOT_OF_MASK: _box_not_of_mask,
    DataIssue.AREA_NOT_OF_MASK: _area_not_of_mask,
    DataIssue.NO_OBJECTS: _no_objects,
    DataIssue.CROWD: _crowd,
    DataIssue.TOO_MANY: _too_many,
    DataIssue.SAME_IMAGE: _same_image,
    DataIssue.SIMILAR_IMAGE: _similar_image,
    DataIssue.UNLISTED: _unlisted,
}
"""What is planted in train: each changes an image of its own."""


@dataclass
class PlantedSet:
    root: Path
    splits: dict[str, PlantedSplit]

    def planted(self, issue: DataIssue, split: str) -> Counter[str]:
        return self.splits[split].planted.get(issue, Counter()) if split in self.splits else Counter()


def write_planted_set(root: Path, num_images: int = 40, of_each: int = 1, seed: int = 0) -> PlantedSet:
    """A set of about so many images in COCO layout with ``of_each`` images of every kind that can be planted."""
    splits = {}
    for number, name in enumerate(("train", "val")):
        (root / name).mkdir(parents=True)
        splits[name] = PlantedSplit(name, root / name, np.random.default_rng((seed, number)))
    train, val = splits["train"], splits["val"]
    for plant in PLANTS.values():
        for _ in range(of_each):
            plant(train)
    while len(train.images) < num_images * 3 // 4:
        train.add_clean()
    while len(val.images) < num_images // 4:
        val.add_clean()
    for k in range(of_each):  # the last images of train: nothing else is wrong with them
        source = train.folder / train.images[-1 - k]["file_name"]
        image, _ = val.add_clean()
        (val.folder / image["file_name"]).write_bytes(source.read_bytes())
        val.plant(DataIssue.SAME_ACROSS, image)
        pixels = np.asarray(Image.open(train.folder / train.images[-1 - of_each - k]["file_name"]))
        similar = val.add_image((pixels * 0.93).astype(np.uint8))
        val.add_objects(similar)
        val.plant(DataIssue.SIMILAR_ACROSS, similar)
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)]
    for split in splits.values():
        text = {"images": split.images, "annotations": split.annotations, "categories": categories}
        (root / f"{split.name}.json").write_text(json.dumps(text))
    return PlantedSet(root, splits)


def check_planted_set(root: Path, max_detections: int = 20) -> Checked:
    datasets = {}
    for name in ("train", "val"):
        classes = datasets["train"].classes if datasets else None
        report = DataReport(True)
        datasets[name] = read_coco(root / name, root / f"{name}.json", classes, True, True, report)
    return check_splits(datasets, Expected(input_hw=(128, 128), max_detections=max_detections))


def compare(planted: PlantedSet, checked: Checked) -> dict[DataIssue, tuple[int, int]]:
    """Of each kind the number that was planted, and that was found."""
    kinds = [*PLANTS, DataIssue.SAME_ACROSS, DataIssue.SIMILAR_ACROSS]
    table = {}
    for issue in kinds:
        wanted = sum(planted.planted(issue, split).total() for split in planted.splits)
        table[issue] = wanted, sum(finding.count for _, finding in checked.findings() if finding.issue == issue)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--each", type=int, default=20, help="images of each kind")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        planted = write_planted_set(Path(folder) / "set", arguments.images, arguments.each)
        checked = check_planted_set(planted.root)
        print(f"{'kind':<20}{'planted':>8}{'found':>8}{'missed':>8}{'false':>8}")
        for issue, (wanted, found) in compare(planted, checked).items():
            missed, false = max(wanted - found, 0), max(found - wanted, 0)
            print(f"{issue.name.lower():<20}{wanted:>8}{found:>8}{missed:>8}{false:>8}")
        others = [finding for _, finding in checked.findings() if finding.issue not in compare(planted, checked)]
        print("besides:", "; ".join(f"{finding.issue.name.lower()} {finding.count}" for finding in others))


if __name__ == "__main__":
    main()
