"""A made-up COCO file of the size of COCO train2017, and its folder of (empty) images.

Objects are drawn from a pool of random regions, with as many corners as COCO's; keys, their order and the form of the
numbers are those of ``instances_train2017.json``.

    python -m benchmarks.large_coco FOLDER
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

IMAGES = 118_000
ANNOTATIONS = 860_000
HEIGHT, WIDTH = 480, 640

_POOL = 8192
_CATEGORIES = 80
_CROWDS = 0.012
"""Share of regions that are run lengths, as in COCO."""

_CLEAR = 4
"""Columns of an image that a crowd leaves out on the left."""


def write_large_coco(folder: Path, images: int = IMAGES, annotations: int = ANNOTATIONS, seed: int = 0) -> Path:
    """Write the file and the folder ``images``.

    Args:
        folder: is made where it is missing.
        images: how many; files of no bytes, since their sizes are stated.
        annotations: how many; as in COCO some images have none, others dozens.
        seed: of everything random.

    Returns:
        the annotation file, about 520 bytes an annotation.
    """
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    names = [f"{number:012d}.jpg" for number in np.sort(rng.choice(600_000, images, replace=False)).tolist()]
    for name in names:
        (folder / "images" / name).touch()
    ids = [int(name[:-4]) for name in names]
    pool = _regions(rng, min(_POOL, annotations))
    file = folder / "instances.json"
    with file.open("w", encoding="utf-8") as out:
        out.write('{"info": {"description": "made up"}, "licenses": [{"id": 1, "name": "none"}], "images": [')
        out.write(", ".join(_image(image_id, name) for image_id, name in zip(ids, names, strict=True)))
        out.write('], "annotations": [')
        weights = rng.gamma(1.0, size=images)
        image_of = rng.choice(ids, annotations, p=weights / weights.sum()).tolist()
        region_of = rng.integers(0, len(pool), annotations).tolist()
        category_of = rng.integers(1, _CATEGORIES + 1, annotations).tolist()
        for number, (image_id, region, category) in enumerate(zip(image_of, region_of, category_of, strict=True), 1):
            before, behind = pool[region]
            separator = ", " if number > 1 else ""
            out.write(
                f'{separator}{{{before}, "image_id": {image_id}, {behind}, "category_id": {category}, "id": {number}}}'
            )
        categories = [{"supercategory": "thing", "id": n, "name": f"class {n}"} for n in range(1, _CATEGORIES + 1)]
        out.write(f'], "categories": {json.dumps(categories)}}}')
    return file


def _image(image_id: int, name: str) -> str:
    entry = {
        "license": 1,
        "file_name": name,
        "coco_url": f"http://images.cocodataset.org/train2017/{name}",
        "height": HEIGHT,
        "width": WIDTH,
        "date_captured": "2013-11-14 11:18:45",
        "flickr_url": f"http://farm9.staticflickr.com/8186/{image_id}_6a1fb9ae8f_z.jpg",
        "id": image_id,
    }
    return json.dumps(entry)


def _regions(rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """Texts of an annotation's members before and behind its ``image_id``."""
    found = []
    for number in range(count):
        if number < _CROWDS * count:
            outside, inside = HEIGHT * _CLEAR, HEIGHT * (WIDTH - _CLEAR)
            runs = np.sort(rng.choice(inside // 20, 200, replace=False)) * 20
            counts = [outside, *np.diff(runs, prepend=0, append=inside).tolist()]
            segmentation: Any = {"counts": counts, "size": [HEIGHT, WIDTH]}
            box, crowd = [_CLEAR, 0, WIDTH - _CLEAR, HEIGHT], 1
        else:
            parts = 1 + int(rng.random() < 0.1) + int(rng.random() < 0.03)
            side = float(np.exp(rng.normal(4.2, 1.0)).clip(3, 460))
            corner = rng.random(2) * [WIDTH - side, HEIGHT - side]
            polygons = [_polygon(rng, corner, side / parts) for _ in range(parts)]
            segmentation, crowd = [p.ravel().tolist() for p in polygons], 0
            low, high = np.min([p.min(0) for p in polygons], 0), np.max([p.max(0) for p in polygons], 0)
            box = [round(v, 2) for v in (*low.tolist(), *(high - low).tolist())]
        area = round(box[2] * box[3] * 0.6 + 0.0625, 4)
        before = f'"segmentation": {json.dumps(segmentation)}, "area": {area}, "iscrowd": {crowd}'
        found.append((before, f'"bbox": {json.dumps(box)}'))
    return found


def _polygon(rng: np.random.Generator, corner: Any, side: float) -> Any:
    """(K, 2) corners around a centre, to a hundredth of a pixel; about 22 of them."""
    corners = int(np.exp(rng.normal(2.85, 0.65)).clip(4, 250))
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    radii = side / 2 * (0.7 + 0.3 * rng.random(corners))
    points = corner + side / 2 + np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]
    return points.clip(0, [WIDTH, HEIGHT]).round(2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    print(write_large_coco(parser.parse_args().folder))
