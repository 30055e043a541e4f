"""Hand-written VOC folders for the tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

Box = tuple[str, float, float, float, float]


def object_xml(box: Box, extra: str = "") -> str:
    """One ``<object>``: class and 1-based inclusive corners."""
    name, xmin, ymin, xmax, ymax = box
    corners = f"<xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>"
    return f"<object><name>{name}</name>{extra}<bndbox>{corners}</bndbox></object>"


def annotation_xml(content: str, filename: str = "", size_wh: tuple[int, int] | None = (20, 10)) -> str:
    size = "" if size_wh is None else f"<size><width>{size_wh[0]}</width><height>{size_wh[1]}</height></size>"
    return f"<annotation><filename>{filename}</filename>{size}{content}</annotation>"


def write_voc(folder: Path, lists: dict[str, str], annotations: dict[str, str]) -> Path:
    """A VOC folder with lists, annotations by stem, and a black 20 x 10 image for each annotation."""
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, text in lists.items():
        (folder / "ImageSets" / "Main" / f"{name}.txt").write_text(text)
    for stem, text in annotations.items():
        (folder / "Annotations" / f"{stem}.xml").write_text(text)
        Image.new("RGB", (20, 10)).save(folder / "JPEGImages" / f"{stem}.jpg")
    return folder


def simple_voc(folder: Path, boxes: Sequence[Box] = (("cat", 2, 3, 8, 9),), stem: str = "a") -> Path:
    content = "".join(object_xml(box) for box in boxes)
    return write_voc(folder, {"train": f"{stem}\n"}, {stem: annotation_xml(content, f"{stem}.jpg")})
