"""Prediction over files and folders: drawn pictures and COCO results, with progress."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
from rich.console import Console
from rich.progress import track

from detseg.data.images import IMAGE_SUFFIXES, read_image
from detseg.errors import DataError
from detseg.predict import load_predictor


def predict_files(
    checkpoint: Path, sources: Sequence[Path], out: Path, score_threshold: float, device: str = "auto"
) -> None:
    """Detect in every picture, draw what is found, and write all of it as COCO JSON.

    Args:
        checkpoint: a ``.ckpt`` file of a run.
        sources: pictures and folders.
        out: folder for the drawn pictures, which keep their names (and their subfolders), for ``detections.json`` (COCO
            results) and for ``images.json`` (which file each ``image_id`` is, and the categories).
        score_threshold: detections below it are left out.
        device: ``auto``, ``cpu``, ``cuda``, ...

    Raises:
        DetsegError: no pictures, a checkpoint that cannot be loaded, an output that would overwrite an input; and,
            after all others are done and written, pictures that cannot be read.
    """
    console = Console(markup=False)
    pictures = find_pictures(sources)
    targets = _targets(pictures, out)
    predictor = load_predictor(checkpoint, device, score_threshold)
    entries: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    unreadable: list[DataError] = []
    for image_id, ((path, relative), target) in enumerate(
        track(list(zip(pictures, targets, strict=True)), description="predicting", console=console), start=1
    ):
        try:
            image = read_image(path)
        except DataError as error:  # the others need not suffer
            unreadable.append(error)
            continue
        detections = predictor(image)
        entries += detections.to_coco(image_id)
        height, width = image.shape[:2]
        images.append({"id": image_id, "file_name": relative.as_posix(), "height": height, "width": width})
        target.parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(target), cv2.cvtColor(detections.draw(image), cv2.COLOR_RGB2BGR)):
            raise DataError(f"{target}: the picture could not be written; is there space, and the right to write?")
    table = predictor.classes
    categories = [{"id": i, "name": name} for i, name in zip(table.source_ids, table.names, strict=True)]
    out.mkdir(parents=True, exist_ok=True)
    (out / "detections.json").write_text(json.dumps(entries), encoding="utf-8")
    (out / "images.json").write_text(json.dumps({"images": images, "categories": categories}), encoding="utf-8")
    console.print(
        f"{len(entries)} objects in {len(images)} pictures; written to {out}: the drawn pictures, detections.json, "
        f"images.json",
        highlight=False,
        soft_wrap=True,
    )
    if unreadable:
        more = f"; and {len(unreadable) - 3} more" if len(unreadable) > 3 else ""
        raise DataError(
            f"{len(unreadable)} of {len(pictures)} pictures were left out: {'; '.join(map(str, unreadable[:3]))}{more}"
        )


def _targets(pictures: list[tuple[Path, Path]], out: Path) -> list[Path]:
    """Where each picture's drawn copy goes.

    Raises:
        DataError: nowhere: the copy would overwrite a picture or another copy, or cannot be written in its format.
    """
    # PGM holds grey only, and the drawings are coloured.
    names = [path.with_suffix(".png") if path.suffix.lower() == ".pgm" else path for _, path in pictures]
    targets = [out / name for name in names]
    clash = [str(target) for target, count in Counter(targets).items() if count > 1]
    if clash:
        raise DataError(f"{clash[0]}: two pictures would be written here; predict the folders one by one")
    out_and_above = [out.resolve(), *out.resolve().parents]
    for (path, relative), target in zip(pictures, targets, strict=True):
        searched = path.resolve().parents[len(relative.parts) - 1]
        if searched in out_and_above and out_and_above[0] in path.resolve().parents:
            raise DataError(
                f"{path}: lies in --out already, as an original or as an earlier drawing; choose another folder"
            )
        if not cv2.haveImageWriter(str(target)):
            raise DataError(f"{path}: a drawn copy cannot be written in this format; convert it to PNG or JPEG")
    return targets


def find_pictures(sources: Sequence[Path]) -> list[tuple[Path, Path]]:
    """The pictures that files and folders stand for, each with its path relative to the folder that it was found in.

    Raises:
        DataError: a source does not exist, or holds no pictures.
    """
    found = []
    for source in sources:
        if source.is_file():
            found.append((source, Path(source.name)))
        elif source.is_dir():
            inside = sorted(
                path for path in source.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
            )
            if not inside:
                raise DataError(f"{source}: holds no pictures ({', '.join(sorted(IMAGE_SUFFIXES))})")
            found += [(path, path.relative_to(source)) for path in inside]
        else:
            raise DataError(f"{source}: no such file or folder")
    return found
