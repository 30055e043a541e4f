"""Two of the examples' real sets, from clones of their sources: ``python tools/real_sets.py camvid CLONE``.

docs/data_formats.md, "The sets of the examples", says where the sources are. The files are those that the numbers in
docs/benchmarks.md were measured on.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

CLASSES = "sky building pole road pavement tree signsymbol fence car pedestrian bicyclist"
CAMVID_UNLABELLED, IGNORE = 11, 255

# The 120 of the 664 images, by the first letters of their names: about a quarter for validation.
NUCLEI = {
    "train": """
        57bd0 5c6eb 5ef44 65c85 670eb 6ab24 6c67b 6eefe 6fc83 708eb 71875 72e8c 76c44 777f7 7798c 7aa1a 7af09 7c015
        7c318 7f34d 80559 81552 8175a 84eee 86f90 87ea7 8a26b 8b12e 8d9b4 8ecdb 8efed 8f27e 8fdc3 930f2 942d5 94519
        95321 97158 9a71a 9c95e 9d429 9facc a0229 a0325 a1f50 a31de a3a1b a5fe0 a6001 a65bb a6e81 a9d88 aa83f ae9f7
        b0def b1e3a b1f23 b3a9f b3b16 b560d b6eda b7a86 b9868 bde37 be191 bf769 c00ae c0c4a c35e6 c6206 c7513 cab48
        ce9e1 d1ba6 d2ce5 d3ce3 d7ec8 d910b da5f9 dabfe db459 df33b e216e e4537 e50ac e66a9 e8565 ead94 ec486 edd36""",
    "val": """
        41934 431b9 442c4 45f05 48291 4948e 4b274 4ca50 4d14a 4d40d 4e23e 514cc 52a4a 52a6b 54fe2 56d0d 573a6 58c59
        5953a 5afcb 5b2cc 5c235 5ddbf 602f2 60cb7 61a15 64863 68f83 6af82 6f819""",
}


def camvid(clone: Path, out: Path) -> None:
    """CamVid's training and validation images at half size, in VOC's layout with 255 for unlabelled pixels."""
    palette = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)
    for split in ("train", "val"):
        images = sorted((clone / "CamVid" / split).glob("*.png"))
        for path in images:
            with Image.open(path) as image:
                image.convert("RGB").reduce(2).save(_new(out / "JPEGImages" / f"{path.stem}.jpg"), quality=92)
            with Image.open(clone / "CamVid" / f"{split}annot" / path.name) as image:
                labels = np.array(image)[::2, ::2]
            _write_labels(out, path.stem, np.where(labels == CAMVID_UNLABELLED, IGNORE, labels), palette)
        _write_list(out, split, [path.stem for path in images])
    (out / "classes.txt").write_text(CLASSES.replace(" ", "\n") + "\n", encoding="utf-8")


def nuclei(clone: Path, out: Path) -> None:
    """120 images of nuclei with the mask of each as COCO run lengths, and their union in VOC's layout."""
    palette = np.array([[0, 0, 0], [255, 255, 255]], dtype=np.uint8)
    for split, prefixes in NUCLEI.items():
        names = [next((clone / "stage1_train").glob(f"{prefix}*")).name for prefix in prefixes.split()]
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for image_id, name in enumerate(names, start=1):
            folder = clone / "stage1_train" / name
            shutil.copyfile(folder / "images" / f"{name}.png", _new(out / "images" / f"{name}.png"))
            masks = [np.array(Image.open(path)) > 0 for path in sorted((folder / "masks").glob("*.png"))]
            height, width = masks[0].shape
            images.append({"id": image_id, "file_name": f"{name}.png", "width": width, "height": height})
            for mask in masks:
                run_lengths = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
                annotation: dict[str, Any] = {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 1,
                    "iscrowd": 0,
                }
                annotation |= {"area": int(mask.sum()), "bbox": coco_mask.toBbox(run_lengths).tolist()}
                annotation["segmentation"] = {"size": [height, width], "counts": run_lengths["counts"].decode()}
                annotations.append(annotation)
            _write_labels(out, name, np.any(masks, axis=0), palette)
        categories = [{"id": 1, "name": "nucleus", "supercategory": "cell"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        _new(out / "annotations" / f"instances_{split}.json").write_text(json.dumps(content), encoding="utf-8")
        _write_list(out, split, names)


def _write_labels(out: Path, name: str, labels: np.ndarray[Any, Any], palette: np.ndarray[Any, Any]) -> None:
    image = Image.fromarray(labels.astype(np.uint8))
    image.putpalette(palette.tobytes())
    image.save(_new(out / "SegmentationClass" / f"{name}.png"))


def _write_list(out: Path, split: str, names: Sequence[str]) -> None:
    path = _new(out / "ImageSets" / "Segmentation" / f"{split}.txt")
    path.write_text("\n".join([*names, ""]), encoding="utf-8")


def _new(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


SETS = {"camvid": (camvid, "data/camvid_small"), "nuclei": (nuclei, "data/dsb2018_nuclei")}


def main() -> None:
    """Write the set of the arguments where the examples look for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=SETS)
    parser.add_argument("clone", type=Path, help="the clone of the source")
    parser.add_argument("--out", type=Path, help="where to write (data/camvid_small or data/dsb2018_nuclei)")
    arguments = parser.parse_args()
    write, out = SETS[arguments.name]
    write(arguments.clone, arguments.out or Path(out))


if __name__ == "__main__":
    main()
