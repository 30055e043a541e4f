"""One table of unusual and bad files for all readers: what each reader makes of each file.

A row is a reader and its outcome: what is read, or words of the error. Boxes are 0-based half-open corners, worked out
by hand: COCO's [x, y, width, height] → [x, y, x + width, y + height], VOC's inclusive 1-based corners → [xmin - 1,
ymin - 1, xmax, ymax].
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from detseg.data.datasets.detection import DetectionDataset
from detseg.data.datasets.segmentation import SegmentationDataset
from detseg.data.formats.coco import read_coco
from detseg.data.formats.voc import read_voc, read_voc_masks, read_voc_xml
from detseg.data.images.masks import read_mask
from detseg.data.images.read import read_image, read_image_hw
from detseg.errors import DataError
from detseg.structures import ClassTable, UInt8Array
from tests.data.formats.layouts import LABELS, READERS, annotation_xml, coco_content, encoding, object_xml
from tests.fuzz.mutator import put_together

Read = Callable[[Path], Any]
Row = tuple[Read, Any]
Rows = list[Row]


def outcome_of(read: Read, path: Path) -> Any:
    """What a reader returns, or the message of its error, which must be one short line that begins with a path at or
    above ``path``."""
    try:
        return read(path)
    except DataError as error:
        message = str(error)
        assert message.isprintable(), message
        assert len(message) < 1000
        assert any(message.startswith(str(place)) for place in (path, *list(path.parents)[:3])), message
        return message


def objects(dataset: DetectionDataset) -> list[tuple[Any, ...]]:
    found = []
    for index in range(len(dataset)):
        assert dataset[index].hw == dataset.hw(index)
        truth, name = dataset.annotations(index), dataset.path(index).name
        columns = zip(truth.labels, truth.boxes.tolist(), truth.crowd.tolist(), strict=True)
        found += [(name, dataset.classes.names[label], *box, crowd) for label, box, crowd in columns]
    return found


def contents(dataset: DetectionDataset | SegmentationDataset) -> list[Any]:
    if isinstance(dataset, DetectionDataset):
        return objects(dataset)
    samples = [dataset[index] for index in range(len(dataset))]
    return [sample.semantic.tolist() for sample in samples if sample.semantic is not None]


def image(path: Path) -> str:
    """Reads an image, and compares it with Pillow's pixels, upright; of 16 bits the upper 8."""
    pixels = read_image(path)
    with Image.open(path) as stored:
        upright = ImageOps.exif_transpose(stored)
        if upright.mode.startswith("I"):
            upright = Image.fromarray((np.asarray(upright).astype(np.int64) // 256).astype(np.uint8))
        assert np.array_equal(pixels, np.asarray(upright.convert("RGB")))
    assert read_image_hw(path) == pixels.shape[:2]
    return "Pillow's pixels"


def mask(path: Path) -> UInt8Array:
    return read_mask(path, encoding())


def xml(path: Path) -> list[Any]:
    found = read_voc_xml(path)
    return [found.hw, *((name, *box) for name, box in zip(found.names, found.boxes.tolist(), strict=True))]


def smallest(path: Path) -> Any:
    return min(xml(path)[1:], key=lambda found: (found[3] - found[1]) * (found[4] - found[2]))


def voc_list(path: Path) -> list[str]:
    dataset = read_voc(path.parents[2], path.stem)
    return [Path(dataset[index].path).name for index in range(len(dataset))]


def mask_list(path: Path) -> list[Any]:
    return contents(read_voc_masks(path.parents[2], path.stem, classes=("background", "cat")))


def coco(images: str) -> Read:
    return lambda path: objects(read_coco(path.parent / images, path))


def coco_masks(images: str) -> Read:
    return lambda path: read_coco(path.parent / images, path, masks=True)[0].boxes.tolist()


def refusals(path: Path) -> list[bool]:
    return [isinstance(outcome_of(read, path), str) for read in (read_image, xml, coco("."))]


def under(folder: str, rows: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{folder}{pattern}": row for pattern, row in rows.items()}


PIXELS: Row = (image, "Pillow's pixels")
NOT_OURS: Row = (refusals, [True] * 3)
VAL = [("b.jpg", "a", 0, 0, 1, 2, False), ("b.jpg", "b", 0, 0, 1, 9, True)]
# The object of the training images has no polygon: its box is read, masks are an error. That of the validation image
# covers 1 x 2 pixels; the run lengths [0, 20, 30] of 10 rows the first two columns.
TRAIN = ([("a.jpg", "b", 2, 2, 5, 3, False)], "1 of 1 annotations have no usable segmentation (ids 1)")
INSTANCES: dict[str, tuple[Any, ...]] = {"train": TRAIN, "val": (VAL, [[0, 0, 1, 2], [0, 0, 2, 10]])}
# Run lengths [10, 10, 5, 10, 15] of 5 rows: columns 2 and 3, 5 and 6.
STUFF = {"train": ([("a.jpg", "a", 2, 0, 6, 4, True)], [[2, 0, 7, 5]]), "val": (VAL[1:], [[0, 0, 2, 10]])}
ROBOFLOW = {
    "train": ([("train_001.jpg", "label_0", 2, 1, 5, 2, False), ("train_002.jpg", "label_1", 0, 0, 2, 4, False)],),
    "val": ([("val_001.jpg", "label_0", 0, 0, 1, 2, False), ("val_001.jpg", "label_1", 0, 0, 9, 1, True)],),
}


def splits(pattern: str, images: str, outcomes: Mapping[str, tuple[Any, ...]] | str) -> dict[str, Rows]:
    """The COCO files of two splits: their objects, and bounds of masks; or words of an error for both."""
    both = {"train": (outcomes,), "val": (outcomes,)} if isinstance(outcomes, str) else outcomes
    reads = {split: (coco(images.format(split)), coco_masks(images.format(split))) for split in both}
    return {pattern.format(k): list(zip(reads[k][: len(row)], row, strict=True)) for k, row in both.items()}


COCO_TASKS = {  # each file is in the task's folder and in that of all tasks
    **splits("captions_{}.json", "../images/{}", "it has no categories"),
    **splits("image_info_{}.json", "../images/{}", "is it an image_info file"),
    **splits("labels_{}.json", "../images/{}", "annotation 1: bbox: expected [x, y, width, height]"),
    **splits("panoptic_{}.json", "../images/{}", "annotation number 0: id: expected a whole number"),
    **splits("instances_{}.json", "../images/{}", INSTANCES),
    **splits("person_keypoints_{}.json", "../images/{}", INSTANCES),
    **splits("stuff_{}.json", "../images/{}", STUFF),
}

VOC_FILES: dict[str, Row] = {
    "1/Annotations/2007_000001.xml": (xml, [(10, 20), ("cat", 0, 1, 3, 4), ("person", 3, 4, 6, 7)]),
    "2/Annotations/@.xml": (xml, [None]),
    "2/Annotations/a.xml": (xml, [None, ("background", 0, 1, 4, 6)]),
    "2/Annotations/b.xml": (xml, [None, ("aeroplane", 1, 1, 7, 6)]),
    "2/Annotations/c.xml": (xml, [None, ("bicycle", 2, 0, 11, 6)]),
    "2/Annotations/d.xml": (xml, [None, ("bird", 3, 3, 8, 8)]),
    "3/Annotations/2007_000001.xml": (xml, [(10, 20), ("cat", 0, 1, 3, 4)]),
    # A list of one class has a second column, whatever it says: all images of the list are images of the split.
    "1/ImageSets/Main/*train.txt": (voc_list, ["2007_000001.jpg"]),
    "1/ImageSets/Main/test.txt": (voc_list, "1 annotation of the list missing: 2007_000002.xml"),
    "2/ImageSets/Main/trainval.txt": (voc_list, "5 images of the list missing: @, a, b"),
    "2/ImageSets/Main/*_trainval.txt": (voc_list, "lists no images"),
    "3/ImageSets/Main/train.txt": (voc_list, ["2007_000001.jpg"]),  # behind a blank line and a comment
    "1/ImageSets/Segmentation/train.txt": (mask_list, "2007_000001.png: the mask is RGB"),
    "1/ImageSets/Segmentation/test.txt": (mask_list, "1 mask of the list missing: 2007_000002.png"),
    "2/ImageSets/Segmentation/trainval.txt": (mask_list, "lists no images"),
    **dict.fromkeys(["?/ImageSets/Action/*", "?/ImageSets/Layout/*", "2/labelmap.txt"], NOT_OURS),
}

EXPORTS: dict[str, Row | Rows] = {
    **under("coco_dataset/coco*/annotations/", COCO_TASKS),
    **splits("coco_dataset/mmdet_coco/annotations/instances_{}.json", "../{}", INSTANCES),
    **splits("coco_dataset/coco_roboflow/{}/_annotations.coco.json", ".", INSTANCES),
    **splits("roboflow_dataset/coco/{}/_annotations.coco.json", ".", ROBOFLOW),
    "cvat_dataset/for_images/*.xml": (xml, "expected <annotation> as the outermost element, got 'annotations'"),
    "labelme_dataset/Annotations/subset1/img1.xml": (xml, "window' has no <bndbox>"),
    # Roboflow begins to count at 0, so that after 1 is taken off a corner may be -1: reported, and clipped in training.
    "roboflow_dataset/voc/train/train_001.xml": (xml, [(5, 10), ("label_0", 1, 0, 5, 2)]),
    "roboflow_dataset/voc/train/train_002.xml": (xml, [(5, 10), ("label_1", -1, -1, 2, 4)]),
    "roboflow_dataset/voc/val/val_001.xml": (xml, [(5, 10), ("label_0", -1, -1, 1, 2), ("label_1", -1, -1, 9, 1)]),
    **under("voc_dataset/voc_dataset", VOC_FILES),
    **dict.fromkeys(["*.jpg", "*.png"], PIXELS),
    **dict.fromkeys(["yolo_dataset/*.txt", "yolo_dataset/*/obj.*", "roboflow_dataset/yolo/*"], NOT_OURS),
    **dict.fromkeys(["*/dataset_meta.json", "LICENSE", "README.md", "SHA256SUMS"], NOT_OURS),
}

NO_IMAGE = (image, "not an image, or damaged beyond recognition")
MALFORMED: dict[str, Row | Rows] = {
    **dict.fromkeys(["images/broken.png", "images/unknown_compression_method.png"], NO_IMAGE),
    "images/decompression_bomb.gif": [
        (image, "more pixels than Pillow reads"),
        (mask, "more pixels than Pillow reads"),
    ],
    "images/png_decompression_dos.png": [(image, "too large"), (mask, "too large")],
    "images/truncated_exif_dpi.jpg": PIXELS,
    "images/truncated*": (image, "runcated"),
    **dict.fromkeys(["images/*", "orientation/*", "annotations/mmdet_VOCdevkit/*.jpg"], PIXELS),
    # xmin == xmax and ymin == ymax is a box of one pixel.
    "annotations/bccd*338*.xml": (smallest, ("RBC", 503, 336, 504, 337)),
    "annotations/bccd*343*.xml": (smallest, ("RBC", 180, 328, 181, 329)),
    "annotations/datumaro_voc_no_size_float_coordinates.xml": (xml, [None, ("bird", 3, 3, 8, 8)]),
    "annotations/datumaro_voc_no_size_no_object.xml": (xml, [None]),
    "annotations/datumaro_voc_imageset_with_comment_and_blank_line.txt": NOT_OURS,  # read in place, above
    "annotations/datumaro_coco*.json": (coco("."), "1 of 1 images missing: b.jpg"),
    "annotations/mmdet_coco*.json": (coco("."), "3 of 3 images missing: fake1.jpg"),
    "annotations/padilla_coco*.JSON": (coco("."), "10 of 10 images missing"),
    "annotations/mmdet_VOC*/ImageSets/Main/*.txt": (voc_list, ["000001.jpg"]),
    "*/VOC2007/*.xml": (xml, [(500, 353), ("dog", 47, 239, 195, 371), ("person", 7, 11, 352, 498)]),
    "*/VOC2012/*.xml": (xml, [(500, 335), ("train", 138, 199, 207, 301)]),
    **dict.fromkeys(["*LICENSE*", "README.md", "SHA256SUMS", "manifest.csv"], NOT_OURS),
}

SHARED: dict[str, Row | Rows] = {**under("formats/", EXPORTS), **under("malformed/", MALFORMED)}
"""Files of the shared data, by pattern (``*`` stands for folders, too); the first pattern that fits a file counts."""

Change = str | bytes | Mapping[str, Any] | Callable[[Path], object]
"""The content of a reader's file (a mapping becomes JSON); or a function that changes the layout in a folder."""


def made(reader: str, change: Change, **options: Any) -> Read:
    def read(folder: Path) -> list[Any]:
        READERS[reader].write(folder)
        file = folder / READERS[reader].file
        if callable(change):
            change(folder)
        elif isinstance(change, Mapping):
            file.write_text(json.dumps(change))
        else:
            file.write_bytes(change if isinstance(change, bytes) else change.encode())
        return contents(READERS[reader].read(folder, **options))

    return read


def image_of(content: bytes, read: Read = image) -> Read:
    def read_content(folder: Path) -> Any:
        (folder / "a.png").write_bytes(content)
        return read(folder / "a.png")

    return read_content


def gone(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def all_of(*changes: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda folder: [change(folder) for change in changes]


def saved(name: str, like: str) -> Callable[[Path], object]:
    return lambda folder: Image.open(folder / like).save(folder / name)


Case = tuple[Any, Any] | tuple[Any, Any, Mapping[str, Any]]
"""A change, or a list of changes; the outcome; options of the reader."""


def rows(reader: str, cases: Sequence[Case]) -> list[Row]:
    return [
        (made(reader, change, **dict(*options)), outcome)
        for changes, outcome, *options in cases
        for change in (changes if isinstance(changes, list) else [changes])
    ]


def box_xml(xmin: Any = 1, name: str = "cat", extra: str = "") -> str:
    return annotation_xml(object_xml((name, xmin, 1, 2, 2), extra))


BOX = ("cat", 2, 3, 8, 9)
CAT = [("a.jpg", "cat", 1, 2, 8, 9, False)]
# Each entity is ten of the one before: the last one would expand to billions of characters.
BILLION = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10 if i else "ha"}">' for i in range(10))
ENTITIES = [
    f"<!DOCTYPE annotation [{BILLION}]>{annotation_xml('&l9;')}",
    f'<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [{BILLION}]>{annotation_xml("&l9;")}'.encode("utf-16"),
    f'<!DOCTYPE a [<!ENTITY a "{"a" * 50_000}">]>{annotation_xml("&a;" * 50_000)}',
    '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + annotation_xml("&x;"),
    '<!DOCTYPE a SYSTEM "http://127.0.0.1:9/a.dtd">' + annotation_xml(""),
    '<!DOCTYPE a [<!ENTITY % x SYSTEM "file:///etc/passwd"> %x;]>' + annotation_xml(""),
]
NO_XML = ["<annotation><object>", "", '<?xml version="1.0" encoding="klingon"?><annotation/>']
NO_NAMES = ["../a", "..\\a", "/etc/passwd", "../../JPEGImages/a", ".."]
ABSENT_NAMES = ["sub/a", "a\0", "\x1b[2J", "x" * 5000]
NO_TEXT = ["two\nlines", "\u202etac", "\x9b2J", "a\u2028b"]
NUMBERED = "expected names only, one a line, got '"
VOC_XML: list[Case] = [
    (NO_XML, "a.xml: not a readable XML file"),
    (ENTITIES, "a.xml: not a readable XML file: document types and entities are not supported; remove"),
    ([box_xml(name=x) for x in ("&l9;", "\0", "\x1b[31m", "&#0;", "&#27;")], "a.xml: not a readable XML file"),
    (["<html/>", f"<{'html' * 3000}/>"], "a.xml: expected <annotation> as the outermost element, got 'html"),
    ("<annotation><object/></annotation>", "a.xml: an <object> has no <name>"),
    (annotation_xml("<object><name>cat</name></object>"), "a.xml: the object 'cat' has no <bndbox>"),
    (
        [box_xml(number) for number in ("nan", "inf", "-1e999", "9" * 5000, "1e16", "1,5", "")],
        "a.xml: xmin of the object 'cat': expected a number, got '",
    ),
    (annotation_xml("", size_wh=(10**300, 1)), "a.xml: <size>: width: expected whole pixels"),
    ("<annotation><size><width>wide</width></size></annotation>", "<size>: width: expected whole pixels, got 'wide'"),
    (box_xml(extra="<difficult>perhaps</difficult>"), "a.xml: <difficult>: expected a number, got 'perhaps'"),
    ([box_xml(name=x) for x in NO_TEXT], "holds control characters; rename"),
    (
        box_xml(name="persn"),
        "a.xml: unknown class 'persn' (did you mean 'person'?)",
        {"classes": ClassTable(("person", "x"))},
    ),
    (annotation_xml(""), "no image has an object; name the classes in data.classes"),
    (
        annotation_xml(object_xml(("cat", 1, 1, 2, 2)), size_wh=(10, 20)),
        "a.jpg: the image is 20 x 10 pixels (width x height), but its annotation says 10 x 20; the sides are swapped",
    ),
    (gone("Annotations/a.xml"), "Annotations: 1 annotation of the list missing: a.xml; add the files"),
    # Elements of any depth are skipped; a <filename> opens no file.
    (annotation_xml("<part>" * 100_000 + "</part>" * 100_000 + object_xml(BOX)), CAT),
    ([annotation_xml(object_xml(BOX), name) for name in ("../../x.png", "/etc/passwd", "\\\\server\\a")], CAT),
]

VOC_LIST: list[Case] = [
    (NO_NAMES, "train.txt:1: expected the name of an image, or its path in the folder of images, got '"),
    ("a\n# b\n\nb/", "train.txt:4: expected the name of an image, or its path in the folder of images, got 'b/'"),
    (ABSENT_NAMES, "JPEGImages: 1 image of the list missing"),
    ("\n".join("defghijklmn"), "11 images of the list missing: d, e, f, g, h, i, j, k, l, m, and 1 more; add"),
    (["", "\n", "# a\n"], "the split 'train' lists no images; write one name a line into its list"),
    (b"\xff\xfe\xff", "train.txt: not a readable list"),
    *(("a", f"split '{x}': expected a list", {"split": x}) for x in ("", "+train", "2007:", ":train", "../train")),
    ("a", "tarin.txt: there is no such list (did you mean 'train'?); the lists", {"split": "tarin"}),
    ("a", "expected VOC2012/ImageSets/Main in it or in its VOCdevkit folder", {"split": "2012:train"}),
    ([saved("JPEGImages/a.PNG", "JPEGImages/a.jpg")], CAT),  # <filename> decides
    (
        all_of(*(saved(f"JPEGImages/a.{x}", "JPEGImages/b.jpg") for x in ("PNG", "bmp")), gone("JPEGImages/a.jpg")),
        "JPEGImages: several files with one name: a.PNG, a.bmp; keep one of them",
    ),
]

# As the lists of detection, by the same function.
MASK_LIST: list[Case] = [
    ("../a", "train.txt:1: expected the name of an image, or its path in the folder of images, got '"),
    ("a", "expected VOC2007/ImageSets/Segmentation in it", {"split": "2007:train"}),
    (gone("SegmentationClass/b.png"), "SegmentationClass: 1 mask of the list missing: b.png; add the"),
    (gone("JPEGImages/a.jpg"), "JPEGImages: 1 image of the list missing: a; add the files"),
    (saved("SegmentationClass/a.tif", "SegmentationClass/a.png"), "several files with one name: a.png, a.tif; keep"),
]

CLASS_NAMES: list[Case] = [
    (["# nothing\n", "\n"], "classes.txt: it names no classes"),
    ("sky\nroad\nsky\n", "classes.txt: class names must differ, got sky more than once"),
    ("sky" * 3000, "classes.txt: masks need 2 to 255 classes, got 1; name the background, too, on a line before 'sky"),
    (["\n".join(f"c{k}" for k in range(256))], "classes.txt: masks need 2 to 255 classes, got 256"),
    (["0 sky\n1 road\n", "# id: name\n0: sky\n1: road\n", "0,sky\n1,road\n"], NUMBERED + "0"),
    (["ground\n\x1b[31mcat\n"], r"classes.txt: the class name '\x1b[31mcat' holds control characters"),
    (b"\xff\xfe\xff", "classes.txt: not a readable file of class names"),
    (gone("classes.txt"), "masks hold no class names; name the classes in the order of their values"),
    ("\ufeff# values 0 to 2\n\n ground\t\r\n  # more\n3 wheeler\n4x4\n", [LABELS.tolist()]),
]

MASK_FOLDER: list[Case] = [
    (gone("masks/a.png"), "masks: 1 of 1 images have no mask: a.jpg; expected a.png, .tif, .tiff or .bmp (data."),
    (all_of(), "1 of 1 images have no mask: a.jpg; expected a_gt.png", {"suffix": "_gt"}),
    (saved("images/a.png", "images/a.jpg"), "images: several files with one name: a.jpg, a.png; keep one"),
    (saved("masks/a.bmp", "masks/a.png"), "masks: several files with one name: a.bmp, a.png; keep one"),
    (gone("images/a.jpg"), "images: there are no images in it; set data.root and the images folder"),
    (all_of(gone("masks/a.png"), saved("masks/a.jpg", "images/a.jpg")), "a.jpg: the mask is JPEG, which changes"),
]


SIDE = 65_000
SMALL, LARGE = ((b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)) for side in (8, SIDE))
PNG_ROWS, END = (b"IDAT", zlib.compress(b"".join(b"\0" + bytes([10, 20, 30] * 8) for _ in range(8)))), (b"IEND", b"")
NOTE, TEXT = [(b"zTXt", b"k\0\0" + zlib.compress(text, 9)) for text in (b"by hand", b"a" * 7_900_000)]
TEXTS = [TEXT] * 130
JPEG_FRAME = struct.pack(">HHHBHHB", 0xFFD8, 0xFFC0, 17, 8, SIDE, SIDE, 3) + bytes([1, 17, 0, 2, 17, 0, 3, 17, 0])
BOMBS = [  # small files that ask for a gigabyte and more
    *(put_together(chunks) for chunks in ([SMALL, *TEXTS, PNG_ROWS, END], [SMALL, PNG_ROWS, *TEXTS, END])),
    put_together([LARGE, PNG_ROWS, END]),
    struct.pack("<HIHHIIiiHHIIIIII", 0x4D42, 54, 0, 0, 54, 40, SIDE, SIDE, 1, 24, 0, 0, 0, 0, 0, 0),  # a BMP
    JPEG_FRAME + b"\xff\xd9",
]
IMAGES: list[Row] = [
    *((image_of(content, read), "a.png: ") for content in BOMBS for read in (image, mask)),
    (image_of(put_together([SMALL, PNG_ROWS, NOTE, END])), "Pillow's pixels"),  # a text behind the pixels is no bomb
    (image_of(b"", refusals), [True] * 3),
    (image, "cannot read the image"),  # a folder
]

OUTSIDE = ["../secret.png", "b/../../secret.png", "./../secret.png", "..\\secret.png", "b\\..\\..\\secret.png"]
OUTSIDE += ["/etc/passwd", "\\\\server\\share\\a.png", "C:\\secret.png", "C:secret.png", __file__]
STRANGE = ["a\0.png", "\0", "b\0/a.png", "\x1b[2J.png", "a.png\n", "x" * 5000]
HALF_PAIRS: list[dict[str, Any]] = [{"image": {"file_name": "\ud800.png"}}, {"category": {"name": "\ud800"}}]
GIGAPIXELS = {"segmentation": {"size": [65536, 65536], "counts": [0, 65536 * 65536]}, "iscrowd": 1}
# A height that is not stated; a product beyond 64 bits.
SIZES = [{"width": w, "height": h} for w, h in ((65536, 65536), (1e14, 0), (10**9, 10**10))]
NAN, INFINITY = float("nan"), float("inf")
NO_NUMBERS = [
    coco_content(**{entry: {key: value}})
    for entry, key, values in (
        ("annotation", "bbox", [[x, 0, 2, 2] for x in (NAN, INFINITY, True, 10**400)]),
        ("annotation", "area", [True, -INFINITY]),
        ("annotation", "iscrowd", [NAN, 0.5]),
        ("annotation", "image_id", [NAN]),
        ("annotation", "id", [2**63]),
        ("image", "width", [True, INFINITY]),
        ("image", "id", [10**100]),
        ("category", "id", [NAN]),
    )
    for value in values
]
NO_JSON = ['{"x":' * 100_000, "\0", "{"]
NO_LISTS = ["[" * 100_000 + "]" * 100_000, '{"images":' * 100_000, "[1]"]
CAT_3 = [("a.png", "c3", 2, 1, 9, 7, False)]
CONTROL_NAMES = [*NO_TEXT, "\x1b[31mcat", "nul\0"]
COCO_ALL: list[Case] = [
    ([coco_content(image={"file_name": x}) for x in OUTSIDE], "x.json: image 1: file_name: expected a path inside"),
    ([coco_content(image={"file_name": x}) for x in STRANGE], "1 of 1 images missing: "),
    ([coco_content(category={"name": x}) for x in CONTROL_NAMES], "holds control characters; rename"),
    ([coco_content(**change) for change in HALF_PAIRS], "x.json: not a readable JSON file"),
    ([coco_content(image=size, annotation=GIGAPIXELS) for size in SIZES], "pixels are more than the"),
]
COCO: list[Case] = [
    (NO_JSON, "x.json: not a readable JSON file"),
    (NO_LISTS, "x.json: expected a list of objects under 'images'; is this a COCO instances file"),
    (gone("x.json"), "x.json: there is no such annotation file"),
    ("{\0}\0", "; save it as UTF-8"),  # UTF-16, as PowerShell writes it
    (['{"images": [1], "annotations": []}', '{"images": [""]}'], "objects under 'images', but entry 0 is none;"),
    ('{"images": [{"id": 1, "file_name": "a.png"}], "annotations": []}', "a list of objects under 'categories'"),
    (coco_content() | {"categories": [{"id": k, "name": f"c{k}"} for k in range(32_000)]}, CAT_3),  # linear time
    (['{"images": [{"id": ' + "9" * 100_000 + "}]}"], "image number 0: id: expected a whole number, got '9999"),
    (coco_content(annotation={"bbox": [1, 2, 3, float("nan")]}), "[1, 2, 3, NaN]"),
    (["NaN"], "JSON has no NaN and no Infinity"),
    (NO_NUMBERS, "x.json: "),
    (["", b"\xff", "[]", "{}"], "x.json: "),
]
COCO_CLASSES: list[Case] = [
    (coco_content(category={"name": "\x1b[31mcat"}), "control", {"classes": ("\x1b[31mcat", "cat")})
]

MADE: list[Row] = [
    *rows("voc_xml", VOC_XML),
    *rows("voc_list", VOC_LIST),
    *rows("mask_list", MASK_LIST),
    *rows("class_names", CLASS_NAMES),
    *rows("mask_folder", MASK_FOLDER),
    *rows("coco_boxes", COCO_ALL + COCO),
    *rows("coco_masks", COCO_ALL),
    *rows("coco_semantic", COCO_ALL + COCO_CLASSES),
    *IMAGES,
]
"""Files that are written for the test."""
