"""All readers that are tried, by name, with valid files to start from, and what holds of all that a reader accepts."""

from __future__ import annotations

import io
import json
import math
import os
import random
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from detseg.checkpoint import (
    ModelCheckpoint,
    model_entry,
    read_model_checkpoint,
    read_raw_checkpoint,
    save_atomically,
    write_weights,
)
from detseg.config.load import config_from_dict, config_to_dict, config_to_yaml, load_config
from detseg.config.schema.experiment import ExperimentConfig
from detseg.data.datasets.contract import check_sample
from detseg.data.datasets.detection import DetectionDataset, ImageDataset
from detseg.data.datasets.segmentation import MaskFiles, SegmentationDataset
from detseg.data.images.masks import MaskEncoding, read_mask
from detseg.data.images.read import pending_orientation, read_image, read_image_hw
from detseg.factory import build_model, load_model
from detseg.structures import IGNORE_LABEL, ClassTable, is_plain_text
from tests.bits import digest_of
from tests.data.formats.layouts import (
    HW,
    LABELS,
    MASK_CLASSES,
    READERS,
    YOLO_LINE,
    annotation_xml,
    cvat_content,
    labelme_content,
    object_xml,
)
from tests.fuzz.campaign import NotTestedError, Target
from tests.fuzz.mutator import (
    PNG_SIGNATURE,
    Mutator,
    byte_mutator,
    either,
    mutate_json,
    mutate_xml,
    mutate_yaml,
    other_encoding,
    png_chunks,
    put_together,
    take_apart,
    then_sometimes,
)
from tests.tiny import CLASSES, tiny_config, write_config


def check_detection(dataset: DetectionDataset) -> None:
    """Boxes, labels, areas and masks are finite and fit together; samples can be trained on."""
    packed = dataset.packed
    check_all(dataset)
    assert np.isfinite(packed.boxes).all()
    assert not np.isinf(packed.area).any()
    assert ((packed.labels >= 0) & (packed.labels < len(dataset.classes))).all()
    for index in range(len(dataset)):
        truth = dataset.annotations(index)
        num = len(truth.labels)
        assert truth.boxes.shape == (num, 4)
        if truth.masks is not None:
            assert (truth.masks.hw, len(truth.masks)) == (dataset.hw(index), num)
            assert ((truth.masks.areas >= 0) & (truth.masks.areas <= np.prod(truth.masks.hw))).all()
        sample = dataset[index]  # DataError where the image is not of the size that the file states
        check_sample(sample, dataset.classes)
        if sample.masks is not None:
            assert (sample.masks.areas > 0).all()
            np.testing.assert_array_equal(sample.masks.boxes.astype(np.float32), sample.boxes)
        else:  # every object that lies in the image with an area is there, clipped by hand
            assert sample.boxes.tolist() == [box for row in truth.boxes.tolist() if (box := clipped(row, sample.hw))]


def clipped(box: list[float], hw: tuple[int, int]) -> list[float]:
    x1, x2 = (float(np.float32(min(max(x, 0.0), float(hw[1])))) for x in box[::2])
    y1, y2 = (float(np.float32(min(max(y, 0.0), float(hw[0])))) for y in box[1::2])
    return [x1, y1, x2, y2] if x1 < x2 and y1 < y2 else []


def check_semantic(dataset: SegmentationDataset) -> None:
    """Maps have the size of their image and hold labels of the table or the ignore label."""
    check_all(dataset)
    for index in range(len(dataset)):
        if isinstance(dataset.masks, MaskFiles):
            assert is_inside(Path(dataset.masks.where(index)), dataset.masks.root)
        sample = dataset[index]
        assert sample.semantic is not None
        assert (sample.semantic.dtype, sample.semantic.shape) == (np.uint8, sample.hw)
        assert set(np.unique(sample.semantic).tolist()) <= {*range(len(dataset.classes)), IGNORE_LABEL}


def check_all(dataset: ImageDataset) -> None:
    """Classes are plain text, every image lies in the folder of the images, and a terminal can show the report."""
    assert len(dataset) > 0
    assert all(is_plain_text(name) for name in dataset.classes.names), dataset.classes.names
    assert all(is_inside(dataset.path(index), dataset.root) for index in range(len(dataset)))
    assert all(line.isprintable() for line in dataset.report.lines()), dataset.report.lines()


def is_inside(path: Path, folder: Path) -> bool:
    return os.path.normpath(path).startswith(os.path.normpath(folder) + os.sep)


def check_image(path: Path) -> None:
    """Pixels are RGB bytes of the size that the header says; those of a PNG are Pillow's."""
    image = read_image(path)
    assert (image.dtype, image.ndim, image.shape[2], image.flags.c_contiguous) == (np.uint8, 3, 3, True)
    assert read_image_hw(path) == image.shape[:2]
    content = path.read_bytes()
    if content.startswith(PNG_SIGNATURE):
        with Image.open(path) as header:
            if pending_orientation(header) != 1:
                return
        wanted = [(name, data) for name, data in take_apart(content) if name in {b"IHDR", b"PLTE", b"IDAT", b"IEND"}]
        with Image.open(io.BytesIO(put_together(wanted))) as stored:
            stored.load()  # pixels that Pillow refuses are not to be guessed at
            if stored.mode in {"L", "RGB"}:
                assert np.array_equal(image, np.asarray(stored.convert("RGB")))  # without copies: some are large


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
VOC_LISTS = "a\nb\nc 1\né\n", "# x\na 1\r\nb -1\n\n"
CLASS_FILES = "\n".join(MASK_CLASSES), "# x\na\n\nb\nc\r\n"
_LINES = byte_mutator((b"\n", b"a", b"a 1\n", b"#", b"\x0b", b"\xe2\x80\xa8", b".jpg", b"\xff\xfea\x00"))


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
    extra = "<pose>Left</pose><truncated>1</truncated><difficult>0</difficult>"
    boxes = [("cat", 2.0, 3.0, 8.0, 9.0), ("dog", 1.5, 1.0, 20.0, 10.0)]
    seeds = [annotation_xml("".join(object_xml(box, extra) for box in boxes[:n]), "a.jpg") for n in (1, 2)]
    seeds.append(annotation_xml(object_xml(boxes[0]), size_wh=None))
    return target("voc_xml", folder, seeds, _XML, check_detection, {"classes": ("cat", "dog")}, {})


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


def yolo_labels(folder: Path) -> Target:
    polygon = "1 0.1 0.1 0.45 0.1 0.45 0.7"
    seeds = [YOLO_LINE, f"{YOLO_LINE}\r\n{polygon}\r\n", "\n"]
    return target("yolo_labels", folder, seeds, byte_mutator((b"\n", b" ", b"0.5", b"1", b"-", b"e9")), check_detection)


def yolo_yaml(folder: Path) -> Target:
    seeds = ["names: [cat, dog]\ntrain: images\n", "path: ../x\ntrain: ../images\nnc: 1\nnames:\n  0: cat\n"]
    return target("yolo_yaml", folder, seeds, _YAML, check_detection)


def labelme(folder: Path) -> Target:
    polygon = {"label": "dog", "points": [[1, 1], [5, 1.5], [3, 9]], "shape_type": "polygon", "group_id": 1}
    circle = {"label": "cat", "points": [[8, 5], [8, 2]], "shape_type": "circle", "flags": {"crowd": True}}
    contents = labelme_content(), labelme_content(polygon, polygon, circle)
    return target("labelme", folder, [json.dumps(content) for content in contents], _JSON, check_detection)


def cvat(folder: Path) -> Target:
    shapes = (
        '<polygon label="cat" points="1,1;5,1.5;3,9" group_id="1"/><ellipse label="cat" cx="8" cy="5" rx="3" ry="1"/>'
    )
    mask = '<mask label="cat" rle="0, 1, 1, 3, 1" left="4" top="2" width="3" height="2"/>'
    seeds = [cvat_content(), cvat_content(shapes + mask, labels=["dog", "cat"])]
    return target("cvat", folder, seeds, _XML, check_detection)


_MARKERS = b"\xff\xd8", b"\xff\xd9", b"\xff\xc2", b"\xff\xdd\x00\x04", b"Exif\x00\x00MM", b"II*\x00"
_BYTES = byte_mutator((b"IHDR", b"tRNS", *_MARKERS, b"VP8L"))
_ORIENTATION = 274
_COLORS = ((0, 0, 0), (255, 0, 0), (0, 128, 0))


def image(folder: Path) -> Target:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    grey = Image.fromarray(rng.integers(0, 256, (9, 14), dtype=np.uint8))
    color = Image.fromarray(rng.integers(0, 256, (9, 14, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[_ORIENTATION] = 6
    seeds = [
        *(_saved(one, kind) for one in (grey, color) for kind in ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP")),
        *(_saved(color, kind, exif=exif) for kind in ("JPEG", "PNG", "TIFF", "WEBP")),
        *(_saved(color.convert(mode), "PNG") for mode in ("P", "RGBA", "LA", "1", "I;16")),
        *(_saved(color.convert(mode), "TIFF", compression="tiff_lzw") for mode in ("CMYK", "LAB", "RGB")),
        _saved(color, "JPEG", progressive=True),
        _saved(color.convert("CMYK"), "JPEG"),
        _saved(color, "PNG", save_all=True, append_images=[color, color.rotate(180)]),
        _saved(color, "PPM"),
    ]

    def read(content: bytes) -> None:
        path = folder / "image.jpg"
        path.write_bytes(content)
        check_image(path)

    return Target("image", tuple(seeds), _chunks_or_bytes, read, str(folder))


def _mask(name: str, folder: Path, encoding: MaskEncoding, seeds: list[bytes]) -> Target:
    folder.mkdir(parents=True, exist_ok=True)

    def read(content: bytes) -> None:
        path = folder / "mask.png"
        path.write_bytes(content)
        labels = read_mask(path, encoding)
        assert (labels.dtype, labels.ndim) == (np.uint8, 2)
        assert set(np.unique(labels).tolist()) <= {0, 1, 2, 255}

    return Target(name, tuple(seeds), _chunks_or_bytes, read, str(folder))


def mask_values(folder: Path) -> Target:
    grey, palette = Image.fromarray(LABELS), Image.fromarray(LABELS, mode="P")
    palette.putpalette([(7 * k) % 256 for k in range(768)])
    seeds = [*(_saved(grey, kind) for kind in ("PNG", "TIFF", "BMP")), *(_saved(palette, k) for k in ("PNG", "TIFF"))]
    return _mask("mask_values", folder, MaskEncoding(ClassTable(MASK_CLASSES), None, 255), seeds)


def mask_colors(folder: Path) -> Target:
    encoding = MaskEncoding(ClassTable(MASK_CLASSES), None, None, _COLORS, ((255, 255, 255),))
    image = Image.fromarray(np.array(_COLORS, dtype=np.uint8)[LABELS])
    palette = image.quantize(3, dither=Image.Dither.NONE)
    seeds = [*(_saved(image, kind) for kind in ("PNG", "TIFF", "BMP")), *(_saved(palette, k) for k in ("PNG", "GIF"))]
    return _mask("mask_colors", folder, encoding, seeds)


def _saved(image: Image.Image, kind: str, **how: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def _chunks_or_bytes(data: bytes, rng: random.Random) -> bytes:
    return png_chunks(data, rng) if data.startswith(PNG_SIGNATURE) and rng.random() < 0.6 else _BYTES(data, rng)


CONFIGS = Path(__file__).resolve().parents[2] / "configs"
_YAML_TOKENS = (
    b": ",
    b"- ",
    b"\n  ",
    b"\t",
    b"&a ",
    b"*a",
    b"!!",
    b"? ",
    b"---\n",
    b"%YAML 1.1\n",
    b"|\n",
    b"<<: ",
    b"\\U",
)
_YAML = either(then_sometimes(mutate_yaml, other_encoding, 0.05), byte_mutator(_YAML_TOKENS))


def config(folder: Path) -> Target:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("yolo_shapes", "unet_nuclei", "mask_rcnn_shapes", "faster_rcnn_voc", "yolo_anchor_voc")
    seeds = [(CONFIGS / f"{name}.yaml").read_bytes() for name in names]
    seeds += [config_to_yaml(load_config(CONFIGS / f"{name}.yaml")).encode() for name in names[:3]]

    def read(content: bytes) -> None:
        path = folder / "x.yaml"
        path.write_bytes(content)
        found = load_config(path)
        _check_config(found)
        path.write_text(config_to_yaml(found), encoding="utf-8")
        assert load_config(path) == found

    return Target("config", tuple(seeds), _YAML, read, str(folder))


def overrides(folder: Path) -> Target:
    seeds = ["model.backbone.width=0.5\ntrainer.max_epochs=3", "data.classes=[a, 'b c']\nseed=7", "model.name=unet"]
    tokens = [name.encode() for name in ("model.", "data.", "optimizer.lr", "=", "==", "{a: 1}", "[", "null", "~", "#")]

    def read(content: bytes) -> None:
        lines = content.decode(errors="surrogateescape").split("\n")  # as Python decodes arguments
        _check_config(load_config(CONFIGS / "yolo_shapes.yaml", lines))

    return Target("overrides", tuple(seed.encode() for seed in seeds), byte_mutator(tokens), read, "")


def _check_config(found: ExperimentConfig) -> None:
    """It comes back from plain data, and every number in it is finite."""
    plain = config_to_dict(found)
    assert config_from_dict(plain) == found
    assert all(math.isfinite(value) for value in _leaves(plain) if isinstance(value, float))


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    return [leaf for item in value for leaf in _leaves(item)] if isinstance(value, list) else [value]


def checkpoint(folder: Path) -> Target:
    """The bytes of a checkpoint: either they are refused, or all that was written is there."""
    path = folder / "x.ckpt"
    save_atomically(_contents(folder), path)
    seed = path.read_bytes()
    written = digest_of(read_raw_checkpoint(path))

    def read(content: bytes) -> None:
        path.write_bytes(content)
        found = digest_of(read_raw_checkpoint(path))
        read_model_checkpoint(path)
        assert found == written, "damaged, and not noticed"

    return Target("checkpoint", (seed,), byte_mutator((b"PK\x03\x04", b"PK\x05\x06")), read, str(folder))


def checkpoint_records(folder: Path) -> Target:
    """A checkpoint with a changed record whose CRC-32 is right: it is refused or read."""
    path = folder / "x.ckpt"
    save_atomically(_contents(folder), path)

    def read(content: bytes) -> None:
        path.write_bytes(content)
        read_model_checkpoint(path)

    return Target("checkpoint_records", (path.read_bytes(),), _repacked, read, str(folder))


def _repacked(data: bytes, rng: random.Random) -> bytes:
    """A checkpoint in which the content of one of the archive's entries is changed and its CRC is right."""
    mutate, file = byte_mutator(), io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        names = old.namelist()
        pickles = [name for name in names if name.endswith("data.pkl")]
        chosen = rng.choice(pickles if rng.random() < 0.7 else names)
        for name in names:
            content = old.read(name)
            new.writestr(name, mutate(content, rng) if name == chosen else content)
    return file.getvalue()


def weights(folder: Path) -> Target:
    """The bytes of a file of weights alone: either they are refused, or all that was written is there."""
    save_atomically(_contents(folder), folder / "x.ckpt")
    path = folder / "x.safetensors"
    write_weights(path, read_model_checkpoint(folder / "x.ckpt"))
    seed, written = path.read_bytes(), read_model_checkpoint(path)
    digest = _weights_digest(written)  # now: the tensors may be views of the file

    def read(content: bytes) -> None:
        path.write_bytes(content)
        found = read_model_checkpoint(path)
        assert _weights_digest(found) == digest, "damaged, and not noticed"
        assert (found.config, found.classes, found.epoch) == (written.config, written.classes, written.epoch)

    return Target("weights", (seed,), either(byte_mutator(), _other_header), read, str(folder))


def _weights_digest(contents: ModelCheckpoint) -> str:
    return digest_of(dict(sorted(contents.weights.items())))


def _other_header(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file in whose header, which is JSON, nodes are changed; its length is right."""
    length = int.from_bytes(data[:8], "little")
    header = mutate_json(data[8 : 8 + length], rng)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def checkpoint_entries(folder: Path) -> Target:
    """A whole checkpoint with other plain data than expected: names, types, settings; up to the model."""
    contents = _contents(folder)
    weights = contents.pop("state_dict")

    def read(content: bytes) -> None:
        path = folder / "x.ckpt"
        try:
            entries = json.loads(content)
            torch.save({"state_dict": weights} | entries, path)
        except (TypeError, ValueError, RecursionError, AttributeError):
            raise NotTestedError from None
        model, found, _ = load_model(path)
        assert model is not None
        assert config_from_dict(config_to_dict(found)) == found

    return Target("checkpoint_entries", (json.dumps(contents).encode(),), mutate_json, read, str(folder))


def _contents(folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    settings = tiny_config(write_config(folder / "tiny.yaml", Path("data")), None)
    model = build_model(settings.model, ClassTable(CLASSES))
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    entry = model_entry(config_to_dict(settings), ClassTable(CLASSES))
    return {"detseg": entry, "state_dict": state, "epoch": 2, "global_step": 30, "optimizer_states": [], "loops": {}}


TARGETS: dict[str, Callable[[Path], Target]] = {
    "voc_xml": voc_xml,
    "yolo_labels": yolo_labels,
    "yolo_yaml": yolo_yaml,
    "labelme": labelme,
    "cvat": cvat,
    "voc_list": lambda folder: target("voc_list", folder, VOC_LISTS, _LINES, check_detection),
    "coco_boxes": lambda folder: target("coco_boxes", folder, _coco_seeds(), _JSON, check_detection),
    "coco_masks": lambda folder: target(
        "coco_masks", folder, _coco_seeds(), _JSON, check_detection, {"classes": ("a", "b")}
    ),
    "coco_semantic": lambda folder: target("coco_semantic", folder, _coco_seeds(), _JSON, check_semantic),
    "semantic_voc": lambda folder: target(
        "semantic_voc", folder, [_saved(Image.fromarray(LABELS), "PNG")], _chunks_or_bytes, check_semantic
    ),
    "class_names": lambda folder: target("class_names", folder, CLASS_FILES, _LINES, check_semantic),
    "mask_values": mask_values,
    "mask_colors": mask_colors,
    "image": image,
    "config": config,
    "overrides": overrides,
    "checkpoint": checkpoint,
    "checkpoint_records": checkpoint_records,
    "weights": weights,
    "checkpoint_entries": checkpoint_entries,
}
"""Each prepares its target in a folder of its own."""
