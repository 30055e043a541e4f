"""The readers of annotations, with valid files to start from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from detseg.data.formats.coco import read_coco
from detseg.data.formats.instances_to_labels import read_coco_masks
from detseg.data.formats.voc import read_voc
from tests.data.formats.voc_layout import annotation_xml, object_xml, write_voc
from tests.fuzz.campaign import Target
from tests.fuzz.contracts import check_detection, check_semantic
from tests.fuzz.mutator import byte_mutator, other_encoding, then_sometimes
from tests.fuzz.trees import mutate_json, mutate_xml

HW = (10, 20)
_JSON = then_sometimes(
    then_sometimes(mutate_json, other_encoding, 0.05),
    byte_mutator((b'"', b"{", b"[", b"]", b",", b'"id": 1', b"null", b"\\ud800", b"\\u0000")),
    0.2,
)
_XML = then_sometimes(
    then_sometimes(mutate_xml, other_encoding, 0.05),
    byte_mutator((b"<object>", b"</object>", b"<![CDATA[", b"]]>", b"<!--", b"&lt;", b"&#0;", b"&#x1b;", b"<?x?>")),
    0.2,
)
LINES = byte_mutator((b"\n", b"a", b"a 1\n", b"#", b"\x0b", b"\xe2\x80\xa8", b".jpg", b"\xff\xfea\x00"))
"""Changes lists and class names."""


def voc_xml(folder: Path) -> Target:
    """An annotation file of Pascal VOC."""
    write_voc(folder, {"train": "a\n"}, {"a": annotation_xml("")})
    extra = "<pose>Left</pose><truncated>1</truncated><difficult>0</difficult>"
    boxes = [("cat", 2.0, 3.0, 8.0, 9.0), ("dog", 1.5, 1.0, 20.0, 10.0)]
    seeds = [annotation_xml("".join(object_xml(box, extra) for box in boxes[:n]), "a.jpg") for n in (1, 2)]
    seeds.append(annotation_xml(object_xml(boxes[0]), size_wh=None))

    def read(content: bytes) -> None:
        (folder / "Annotations" / "a.xml").write_bytes(content)
        check_detection(read_voc(folder, "train", classes=("cat", "dog")))
        check_detection(read_voc(folder, "train"))

    return Target("voc_xml", encoded(seeds), _XML, read, str(folder))


def voc_list(folder: Path) -> Target:
    """A list of a split of Pascal VOC."""
    xml = annotation_xml(object_xml(("cat", 2, 3, 8, 9)), "a.jpg")
    write_voc(folder, {}, {stem: xml.replace("a.jpg", f"{stem}.jpg") for stem in ("a", "b", "c 1", "é")})

    def read(content: bytes) -> None:
        (folder / "ImageSets" / "Main" / "train.txt").write_bytes(content)
        check_detection(read_voc(folder, "train"))

    return Target("voc_list", encoded(["a\nb\nc 1\né\n", "# x\na 1\r\nb -1\n\n"]), LINES, read, str(folder))


def coco_boxes(folder: Path) -> Target:
    """A COCO file, read for boxes."""
    return _coco("coco_boxes", folder, lambda file: check_detection(read_coco(folder / "images", file)))


def coco_masks(folder: Path) -> Target:
    """A COCO file, read for boxes and masks."""

    def read(file: Path) -> None:
        check_detection(read_coco(folder / "images", file, classes=("a", "b"), masks=True))

    return _coco("coco_masks", folder, read)


def coco_semantic(folder: Path) -> Target:
    """A COCO file, read for semantic maps."""
    return _coco("coco_semantic", folder, lambda file: check_semantic(read_coco_masks(folder / "images", file)))


def _coco(name: str, folder: Path, read_file: Callable[[Path], None]) -> Target:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for stem in ("a", "b"):
        Image.new("RGB", HW[::-1]).save(folder / "images" / f"{stem}.png")
    Image.new("RGB", HW[::-1]).save(folder / "x", format="PNG")  # what "../x" of the mutators would reach
    height, width = HW
    square = [2, 1, 9, 1, 9, 7, 2, 7]
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [2, 1, 7, 6], "segmentation": [square], "area": 42},
        {"id": 2, "image_id": 1, "category_id": 5, "bbox": [0, 0, 20, 10], "iscrowd": 1}
        | {"segmentation": {"size": [height, width], "counts": [0, 50, 100, 50]}, "area": 100},
        {"id": 3, "image_id": 2, "category_id": 3, "bbox": [0.5, 1.25, 3, 4.5], "iscrowd": 0}
        | {"segmentation": {"size": [height, width], "counts": "Z1640Z4"}},
    ]
    images = [
        {"id": n, "file_name": f"{stem}.png", "height": height, "width": width} for n, stem in ((1, "a"), (2, "b"))
    ]
    categories = [{"id": 3, "name": "a", "supercategory": ""}, {"id": 5, "name": "b"}]
    seeds = [
        {"info": {}, "images": images, "annotations": annotations, "categories": categories},
        {"images": images[:1], "annotations": annotations[:1], "categories": categories},
        {"images": [{"id": 1, "file_name": "a.png"}], "annotations": annotations[:2], "categories": categories},
    ]

    def read(content: bytes) -> None:
        file = folder / "x.json"
        file.write_bytes(content)
        read_file(file)

    return Target(name, encoded([json.dumps(seed) for seed in seeds]), _JSON, read, str(folder))


def encoded(texts: list[str]) -> tuple[bytes, ...]:
    """Seeds in UTF-8."""
    return tuple(text.encode() for text in texts)
