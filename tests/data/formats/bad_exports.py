"""Unusual and bad files of annotation tools: YOLO text, LabelMe and CVAT; see `tests.data.formats.bad_files`.

The object of the layouts, the box (2, 1, 9, 7) in an image of 20 x 10 pixels, is in YOLO text 0.275 0.4 0.35 0.6.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.data.formats.bad_files import BILLION, NO_TEXT, Case, Row, all_of, gone, rows
from tests.data.formats.layouts import CVAT_BOX, YOLO_LINE, cvat_content, labelme_content

CAT = [("a.png", "cat", 2, 1, 9, 7, False)]
DOG = [("a.png", "dog", 2, 1, 9, 7, False)]
CORNERS = "0.1 0.1 0.45 0.1 0.45 0.7 0.1 0.7"  # of the same box
UTF_16 = b"\xff\xfe0\x00 \x00"


def written(**files: str | bytes) -> Any:
    """Write files, whose names have `__` for a slash and `_` for the dot of their suffix."""

    def change(folder: Path) -> None:
        for name, content in files.items():
            path = folder / ".".join(name.replace("__", "/").rsplit("_", 1))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


LINES: list[Case] = [
    (
        [
            YOLO_LINE + "\n",
            "\ufeff" + YOLO_LINE,
            f"\r\n{YOLO_LINE}\r\n",
            YOLO_LINE.replace(" ", "\t"),
            "0.0 .275 4e-1 .35 +.6",
            f"0 {CORNERS}",
        ],
        CAT,
    ),
    ("0 1.00005 1 0 0", [("a.png", "cat", 20.001, 10, 20.001, 10, False)]),  # a rounding error beyond the image
    (f"{YOLO_LINE}\n\n0 0.5 0.5 0.5", "a.txt:3: expected 'class x y width height', or 'class x1 y1"),
    (["0", "0 0.1 0.2 0.3 0.4 0.5 0.6 0.7"], "a.txt:1: expected 'class x y width height', or"),
    ("0 0.1 0.1 0.2 0.2 0.9", "got 6 numbers; take the sixth away; is it a score, a track id or the angle"),
    (
        ["10 20 30 20 30 40 10 40 plane 0", f"{CORNERS} cat", "1.0 1.0 9.0 1.0 9.0 9.0 1.0 9.0 ship 1"],
        "a.txt:1: oriented boxes, 'x1 y1 ... x4 y4 class', are not supported; write 'class x1 y1 ... x4 y4'",
    ),
    (["0 55 40 70 60", f"0 {CORNERS.replace('0.1', '30')}"], "are these pixels? divide x by the width and y by"),
    (["0 0.5 0.5 1.2 0.5", "0 -0.01 0.5 0.5 0.5"], "a.txt:1: expected fractions of the image's sides, from 0 to 1, go"),
    (["0 nan 0 0 0", "0 inf 0 0 0", "x 0 0 0 0", "0,5 1 1 1 1", "0 1e999 1 1 1"], "a.txt:1: expected numbers, got '"),
    (["-1 0 0 0 0", "0.5 0 0 0 0"], "a.txt:1: expected the number of a class from 0, got '"),
    ("9" * 400 + " 0 0 0 0", "a.txt:1: expected numbers, got '9999"),
    (["2 0.5 0.5 0.1 0.1"], "a.txt:1: there is no class 2: the 2 classes are 0 to 1; do ids count from 1?"),
    ("2 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1 0.1", "there is no class 2: the 2 classes are 0 to 1; correct the line, or"),
    ("7 0.5 0.5 0.1 0.1", "there is no class 7: the 2 classes are 0 to 1; correct the line, or the names"),
    (["", "\n\n"], []),  # an image without objects
    ([UTF_16, b"\x000 1 1 1 1", b"\xe9"], "a.txt"),
    (gone("labels/a.txt"), "none of 1 images has a label file; expected labels/a.txt, or one beside the image"),
    (all_of(gone("labels/a.txt"), written(images__a_txt=f"1 {CORNERS}")), DOG),  # beside the image
    (all_of(gone("labels/a.txt"), written(Labels__a_txt=YOLO_LINE)), CAT),
    (written(images__a_png=b"no image"), "a.png: not an image, or damaged beyond recognition"),
]

TWO = "names: [cat, dog]\n"
YAML: list[Case] = [
    ([f"{TWO}train: {x}" for x in ("images", "../images", "./images/", "images/a.png", "[images]")], CAT),
    ([f"{TWO}train: {x}" for x in ("/content/set/images", "C:\\data\\images", "/images")], CAT),
    ([f"path: ../datasets/mine\n{TWO}train: images", f"{TWO}path: /x/y\ntrain: images"], CAT),
    ("names: {0: cat, 1: dog}\ntrain: images\nnc: 2", CAT),
    ("names: {1: dog, 0: cat}\ntrain: images", CAT),
    ("names: [no, yes]\ntrain: images", [("a.png", "no", 2, 1, 9, 7, False)]),  # YAML 1.1 makes truth values of these
    ("names: [1, 2.0]\ntrain: images", [("a.png", "1", 2, 1, 9, 7, False)]),
    (f"{TWO}train: pictures", "data.yaml: train: there is no 'pictures' below "),
    ([f"{TWO}train: ../../secret", f"{TWO}train: images/../../x"], "data.yaml: train: there is no '"),
    (f"{TWO}nc: 3\ntrain: images", "data.yaml: nc is '3', but names has 2 classes; correct one of them"),
    ("names: [cat, cat]\ntrain: images", "data.yaml: class names must differ, got cat more than once; rename or"),
    (["names: cat", "names: {a: cat}", "names: [[cat]]", "names: {0: [cat]}"], "data.yaml: names: expected "),
    ([f"names: [cat, '{x}']\ntrain: images" for x in ("\x9b2J", "\u202etac")], "data.yaml"),
    (f"{TWO}train: images\nkpt_shape: [17, 3]", "data.yaml: kpt_shape: keypoints are not supported"),
    ("train: images", "nothing names the classes; write data.yaml with 'names: [first class, second class, ...]'"),
    ("train: images", CAT, {"classes": ["cat", "dog"]}),
    (["[", "a: b: c", "\0", b"\xff\xfe", "!!python/object:os.system {}", "- " * 100_000], "data.yaml"),
    (["", "just text", "[cat]"], "data.yaml: expected keys such as names, train and val, got "),
    (
        all_of(written(data_yaml=f"{TWO}train: images\ntask: obb"), written(labels__a_txt=f"0 {CORNERS}")),
        "a.txt:1: oriented boxes (task: obb) are not supported; without 'task: obb' they are read as polygons",
    ),
    (all_of(gone("data.yaml"), written(a_yaml=TWO, b_yaml=TWO)), "several files may describe the data: a.yaml, b.yaml"),
    (all_of(gone("data.yaml"), written(classes_txt="cat\ndog\n")), CAT, {"split": "."}),  # Label Studio's layout
    (all_of(gone("data.yaml"), written(classes_txt="cat\n\ndog\n")), "classes.txt:2: expected a class", {"split": "."}),
    *((f"{TWO}train: images", "there is no split '", {"split": x}) for x in ("tset", "../x", "/etc", "C:\\x", "\0")),
    # Lists of images: relative to the root or to the list, or absolute and of another machine.
    (
        [
            all_of(written(data_yaml=f"{TWO}train: train.txt"), written(train_txt=line))
            for line in ("images/a.png", "./images/a.png\r\n", "/home/me/set/images/a.png", "x\\images\\a.png")
        ],
        CAT,
    ),
    (
        all_of(written(data_yaml=f"{TWO}train: train.txt"), written(train_txt="images/a.png\nimages/#1.png")),
        "1 of 2 images missing: images/#1.png; add the files",
    ),
    (
        all_of(written(data_yaml=f"{TWO}train: train.txt"), written(train_txt="images/a.png\nx/../../secret.png")),
        "1 of 2 images missing: secret.png; add the files",
    ),
    (all_of(written(data_yaml=f"{TWO}train: train.txt"), written(train_txt="")), "there are no images in train.txt"),
]

RECTANGLE = {"label": "cat", "points": [[9, 7], [2, 1]], "shape_type": "rectangle"}  # any two opposite corners
POLYGON = {"label": "cat", "points": [[2, 1], [9, 1], [9, 7]]}  # old files have polygons alone
SHARP = {"label": "cat", "shape_type": "mask", "points": [[2, 1], [9, 7]]}
NUMBERS: list[Any] = [float("nan"), float("inf"), 10**400, "1", None, True, [1], 1e7]
LABELME: list[Case] = [
    ([labelme_content(RECTANGLE), labelme_content(POLYGON), labelme_content(imageHeight=None, imageWidth=None)], CAT),
    ("\ufeff" + json.dumps(labelme_content()).replace(",", ",\r\n"), CAT),
    ([labelme_content(imagePath=x) for x in ("./a.png", "x/../a.png", "C:\\photos\\a.png", "/home/me/a.png")], CAT),
    (json.dumps(labelme_content())[:-20], "a.json: not a readable JSON file: "),
    (["", "{", "[" * 100_000, '{"shapes":' * 100_000, "\0", UTF_16, b"\xe9"], "a.json: not a readable "),
    (["[]", "{}", '{"shapes": 1}', '{"images": [], "annotations": []}'], "a.json: expected LabelMe's 'shapes' and"),
    ([labelme_content(imagePath=x) for x in (None, 1, "")], "a.json: imagePath: expected the path of the image, got"),
    (
        [labelme_content(imagePath=x) for x in ("../secret.png", "..\\secret.png", "x/../../secret.png", "..")],
        "a.json: imagePath: expected a path inside ",
    ),
    (
        [labelme_content(imagePath=x) for x in ("a\0.png", "\x1b[2J.png", "x" * 5000, "\ud800.png", "b/a.jpg")],
        "but a.png has the name of this file; correct imagePath, or set data.file_names=relaxed to take that",
    ),
    (gone("data/a.png"), "1 of 1 images missing: "),
    (labelme_content(imagePath="A.PNG"), "all of them are found with any case (A.PNG is a.png): set data.file_names"),
    (labelme_content(imagePath="a.jpg"), "all of them are found with another suffix (a.jpg is a.png): set data.file_"),
    (
        all_of(gone("data/a.png"), written(data__a_json=json.dumps(labelme_content(imageData="AA==")))),
        "1 of 1 images are in their JSON files alone (imageData",
    ),
    ([labelme_content(imageHeight=x) for x in (-1, 1.5, "x", 10**400, [])], "a.json: height: expected"),
    (labelme_content(imageHeight=10**9, imageWidth=10**9), "pixels are more than the"),
    (labelme_content(imageHeight=20, imageWidth=10), "its annotation says 10 x 20; the sides are swapped"),
    (
        [labelme_content(x) for x in (1, {}, {"label": 1}, {"label": ""})],
        "shape 0: label: expected the name of a class",
    ),
    (
        [labelme_content(POLYGON | {"points": x}) for x in (None, 1, [1], [[1]], [[1, 2, 3]])],
        "shape 0: points: expected",
    ),
    ([labelme_content(POLYGON | {"points": [[x, 1], [9, 1], [9, 7]]}) for x in NUMBERS], "a.json: "),
    ([labelme_content(RECTANGLE | {"points": [[x, 1], [9, 7]]}) for x in NUMBERS], "a.json: "),
    (labelme_content(POLYGON | {"points": [[2, 1], [9, 1]]}), "got 'polygon' of 2 points; correct or remove the shape"),
    (
        labelme_content(POLYGON | {"shape_type": "cube"}),
        "expected a rectangle, polygon, circle or mask, got 'cube' of 3",
    ),
    (labelme_content(RECTANGLE | {"points": [[2, 1], [9, 2], [8, 7], [1, 6]]}), "rotated boxes are not supported, and"),
    ([labelme_content(SHARP | {"mask": x}) for x in (None, 1, "", "?", "AA==")], "shape 0: mask: not a PNG in base64"),
    ([labelme_content(RECTANGLE | {"label": x}) for x in NO_TEXT], "holds control characters; rename"),
    (
        labelme_content(RECTANGLE | {"shape_type": "point"}),
        "no image has an object; points, lines, tags and the like, which are neither boxes nor outlines (left out): 1",
    ),
    (gone("data/a.json"), "there is no JSON file of LabelMe; is this the folder of the data?"),
    (all_of(gone("data/a.json"), written(data__a_xml="<annotation/>")), "no JSON of LabelMe; its old XML is not suppo"),
    (written(data__labels_txt="__ignore__\n_background_\ndog\ncat\n"), CAT),
    (written(data__labels_txt="dog\ncta\n"), "shape 0: unknown class 'cat' (did you mean 'cta'?); labels.txt has dog"),
    (written(data__labels_txt="dog\ndog\n"), "labels.txt: class names must differ, got dog more than once"),
    (written(data__list_txt="a.png\nb.png"), CAT, {"split": "list"}),
    (written(data__list_txt="a.png\n../b.png"), "list.txt:2: expected the path of an image below", {"split": "list"}),
    *((labelme_content(), "there is no split '", {"split": x}) for x in ("tset", "../x", "/etc", "\0", "\x1b[2J")),
]


def cvat_shapes(*shapes: str) -> list[str]:
    return [cvat_content(shape) for shape in shapes]


CVAT: list[Case] = [
    ([cvat_content(), cvat_content(name="./a.png"), cvat_content(side=""), cvat_content(name="x/..\\a.png")], CAT),
    (cvat_content(name="b.png"), [("b.png", *CAT[0][1:])]),  # beside the XML
    (["\ufeff" + cvat_content(), cvat_content().replace(" ", "\r\n"), cvat_content().encode("utf-16")], CAT),
    (cvat_content()[:-30], "annotations.xml: not a readable XML file: "),
    (["", "\0", "<a", '<?xml version="1.0" encoding="klingon"?><a/>', b"<annotations>\xe9"], "not a readable XML file"),
    (
        [f"<!DOCTYPE annotations [{BILLION}]>{cvat_content('&l9;')}", f"<!DOCTYPE a>{cvat_content()}"],
        "annotations.xml: not a readable XML file: document types and entities are not supported; remove",
    ),
    ("<a>" * 100_000 + "</a>" * 100_000, "annotations.xml: expected <annotations> as the outermost element, got 'a'"),
    (
        "<annotation/>",
        "expected <annotations> as the outermost element, got 'annotation'; export 'CVAT for images 1.1'",
    ),
    ("<annotations><track/></annotations>", "this is 'CVAT for video', which is not supported; export 'CVAT for"),
    ("<annotations/>", "annotations.xml: it lists no images; set data.train_split"),
    (cvat_content(), "no images of the subset 'val'; the subsets are Train; set data.train_split", {"split": "val"}),
    (cvat_content(), CAT, {"split": "annotations"}),
    (cvat_content(), CAT, {"split": "."}),
    (all_of(gone("data/annotations.xml"), written(data__a_xml="", data__b_xml="")), "one XML file, got a.xml, b.xml"),
    (gone("data/annotations.xml"), "expected annotations.xml or one XML file, got none; set data.root"),
    (
        [cvat_content(name=x) for x in ("../secret.png", "..\\secret.png", "/etc/x.png", "C:\\x.png", "", ".")],
        "name: expected the path of an image inside ",
    ),
    (cvat_content(name="c.png"), "1 of 1 images missing: images/Train/c.png"),
    ([cvat_content(side=f'width="20" height="{x}"') for x in ("-1", "1.5", "x", "9" * 5000)], "height: expected whole"),
    (cvat_content(side=f'width="{10**8}" height="{10**8}"'), "pixels are more than the"),
    (cvat_content(side='width="10" height="20"'), "its annotation says 10 x 20; the sides are swapped"),
    (
        [
            cvat_content(CVAT_BOX.replace('"2"', f'"{x}"'))
            for x in ("nan", "inf", "1e999", "1e15", "", "2,5", "9" * 999)
        ],
        "image 'a.png': shape 0: xtl: expected a number, got '",
    ),
    (cvat_content(CVAT_BOX.replace("xtl", "x")), "shape 0: xtl: expected a number, got nothing"),
    (cvat_content(CVAT_BOX.replace("/>", ' rotation="30"/>')), "shape 0: rotated boxes are not supported (rotat"),
    (cvat_content(CVAT_BOX.replace("/>", ' rotation="360.0"/>')), CAT),
    (
        cvat_shapes('<polygon label="cat" points="2,1;9,1"/>'),
        "shape 0: a polygon needs x and y of at least 3",
    ),
    (
        cvat_shapes(*(f'<polygon label="cat" points="{x}"/>' for x in ("", "1", "1,2,3;4,5,6;7,8"))),
        "shape 0: points:",
    ),
    (cvat_shapes('<polygon label="cat" points="1,2;1e7,3;4,5"/>'), "pixels away, or nowhere"),
    (
        cvat_shapes('<cylinder label="cat"/>', f'<{"cylinder" * 999} label="cat"/>'),
        "shape 0: expected box, polygon, mask, ellipse, got 'cylinder",
    ),
    (
        cvat_shapes(
            *(f'<mask label="cat" left="2" top="1" width="2" height="2" rle="{x}"/>' for x in ("", "1,-1", "x"))
        ),
        "shape 0: rle: expected whole numbers, got '",
    ),
    (
        cvat_shapes(*(f'<mask label="cat" left="2" top="1" width="2" height="2" rle="{x}"/>' for x in ("1", "9" * 9))),
        "shape 0: rle: the run lengths must add up to 4 pixels, got ",
    ),
    (
        cvat_shapes('<mask label="cat" left="0" top="0" width="99999" height="99999" rle="1"/>'),
        "beyond its image of 20",
    ),
    (
        cvat_shapes('<mask label="cat" left="0.5" top="0" width="2" height="2" rle="4"/>'),
        "shape 0: left, top, width, he",
    ),
    (cvat_content(labels=["dog", "cta"]), "unknown class 'cat' (did you mean 'cta'?); <labels> has dog, cta: correct"),
    (cvat_content(labels=["dog", "cat"]), CAT),
    (cvat_content(labels=["dog", "dog"]), "<labels>: class names must differ, got dog more than"),
    (
        [cvat_content(CVAT_BOX.replace("cat", x)) for x in ("\u202etac", "\x9b2J", "a\u2028b")],
        "holds control characters",
    ),
    *(
        (cvat_content(), "annotations.xml: it has no images of the subset '", {"split": x})
        for x in ("../x", "\0", "\x1b")
    ),
]


MADE_EXPORTS: list[Row] = [
    *rows("yolo_labels", LINES),
    *rows("yolo_yaml", YAML),
    *rows("labelme", LABELME),
    *rows("cvat", CVAT),
]
"""Files that are written for the test."""
