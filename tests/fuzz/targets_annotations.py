"""The readers of annotations, with valid files to start from."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.data.formats.readers import HW, MASK_CLASSES, READERS
from tests.data.formats.voc_layout import annotation_xml, object_xml
from tests.fuzz.campaign import Target
from tests.fuzz.contracts import check_detection, check_semantic
from tests.fuzz.mutator import Mutator, byte_mutator, other_encoding, then_sometimes
from tests.fuzz.trees import mutate_json, mutate_xml

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


def target(
    name: str,
    folder: Path,
    seeds: Sequence[str | bytes],
    mutate: Mutator,
    check: Callable[[Any], None],
    *options: dict[str, Any],
) -> Target:
    """A reader of ``READERS``, which reads each changed file once with each of the options."""
    reader = READERS[name]
    reader.write(folder)

    def read(content: bytes) -> None:
        (folder / reader.file).write_bytes(content)
        for some in options or ({},):
            check(reader.read(folder, **some))

    contents = tuple(seed.encode() if isinstance(seed, str) else seed for seed in seeds)
    return Target(name, contents, mutate, read, str(folder))


def voc_xml(folder: Path) -> Target:
    """An annotation file of Pascal VOC."""
    extra = "<pose>Left</pose><truncated>1</truncated><difficult>0</difficult>"
    boxes = [("cat", 2.0, 3.0, 8.0, 9.0), ("dog", 1.5, 1.0, 20.0, 10.0)]
    seeds = [annotation_xml("".join(object_xml(box, extra) for box in boxes[:n]), "a.jpg") for n in (1, 2)]
    seeds.append(annotation_xml(object_xml(boxes[0]), size_wh=None))
    return target("voc_xml", folder, seeds, _XML, check_detection, {"classes": ("cat", "dog")}, {})


def voc_list(folder: Path) -> Target:
    """A list of a split of Pascal VOC."""
    return target("voc_list", folder, ["a\nb\nc 1\né\n", "# x\na 1\r\nb -1\n\n"], LINES, check_detection)


def coco_boxes(folder: Path) -> Target:
    """A COCO file, read for boxes."""
    return target("coco_boxes", folder, _coco_seeds(), _JSON, check_detection)


def coco_masks(folder: Path) -> Target:
    """A COCO file, read for boxes and masks."""
    return target("coco_masks", folder, _coco_seeds(), _JSON, check_detection, {"classes": ("a", "b")})


def coco_semantic(folder: Path) -> Target:
    """A COCO file, read for semantic maps."""
    return target("coco_semantic", folder, _coco_seeds(), _JSON, check_semantic)


def class_names(folder: Path) -> Target:
    """``classes.txt`` beside a folder of images and one of masks."""
    return target("class_names", folder, ["\n".join(MASK_CLASSES), "# x\na\n\nb\nc\r\n"], LINES, check_semantic)


def _coco_seeds() -> list[str]:
    height, width = HW
    counts: list[Any] = [[0, 50, 100, 50], "Z1640Z4"]
    square, crowd, compressed = [[2, 1, 9, 1, 9, 7, 2, 7]], *({"size": [height, width], "counts": c} for c in counts)
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [2, 1, 7, 6], "segmentation": square, "area": 42},
        {"id": 2, "image_id": 1, "category_id": 5, "bbox": [0, 0, 20, 10], "iscrowd": 1}
        | {"segmentation": crowd, "area": 100},
        {"id": 3, "image_id": 2, "category_id": 3, "bbox": [0.5, 1.25, 3, 4.5], "iscrowd": 0}
        | {"segmentation": compressed},
    ]
    images = [{"id": n, "file_name": f"{x}.png", "height": height, "width": width} for n, x in ((1, "a"), (2, "b"))]
    categories = [{"id": 3, "name": "a", "supercategory": ""}, {"id": 5, "name": "b"}]
    seeds = [
        {"info": {}, "images": images, "annotations": annotations, "categories": categories},
        {"images": images[:1], "annotations": annotations[:1], "categories": categories},
        {"images": [{"id": 1, "file_name": "a.png"}], "annotations": annotations[:2], "categories": categories},
    ]
    return [json.dumps(seed) for seed in seeds]
