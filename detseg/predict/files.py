"""Prediction over files and folders, with progress: drawn copies, and what was found in files."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from detseg.atomic_write import atomic_write, write_errors, write_text
from detseg.data.formats.coco_writer import MASK_RESULTS, RESULTS, CocoFile, result_files
from detseg.data.formats.voc_writer import VocAnnotation, check_xml_text, write_voc_xml
from detseg.data.formats.yolo_writer import write_yolo_boxes, write_yolo_polygons
from detseg.data.images.find import find_images
from detseg.data.images.read import IMAGE_SUFFIXES, OTHER_IMAGE_SUFFIXES, why_unread
from detseg.draw import can_be_written, class_colors
from detseg.errors import ConfigError, DataError
from detseg.memory import MemoryErrors
from detseg.messages import console, counted, listed, messages_on_console, printable
from detseg.predict import EXPORT_FORMATS, MASK_VALUES
from detseg.predict.interface import ImagePredictor, ObjectPredictor
from detseg.predict.results import Detections, SegmentationMap
from detseg.structures import ClassTable

logger = logging.getLogger("detseg")

MEMORY_ADVICE = "take smaller tiles (--tile, segmentation only), or a device with more memory (--device)"

UNREADABLE = "unreadable.txt"
"""The images of the last run that could not be read, with the reason, one a line; only where there are any."""

# PGM holds grey only, and the drawings are coloured; of the others OpenCV has no writer.
_DRAWN_AS = {".pgm": ".png", **dict.fromkeys((".avif", ".heic", ".heif", ".jfif"), ".jpg")}

_FOLDERS = {"voc": [("annotations", ".xml")], "yolo": [("labels", ".txt"), ("segments", ".txt")]}
"""Format → folders below that of the drawn copies with a file for each image, and its suffix."""


@messages_on_console()
def predict_files(
    predictor: ImagePredictor[Any],
    sources: Sequence[Path],
    out: Path,
    *,
    tile: tuple[int, int] | None = None,
    overlap: int | None = None,
    formats: Sequence[str] | None = None,
    overwrite: bool = False,
    mask_values: str | None = None,
) -> None:
    """Predict for every image; draw what is found, and write it in files for other programs.

    Args:
        predictor: of objects, or of the class of every pixel.
        sources: images and folders.
        out: folder for the drawn copies, which keep the names (and subfolders) of the images; small ones are enlarged.
            A detector's results have the files of ``formats``; a segmentation model's are ``masks/`` (labels as indexed
            PNGs, names and subfolders kept) and ``classes.json`` (what the values are, and the pixels of each class in
            each image).
        tile: of a segmentation model: height and width of tiles, pixels; None: images are scaled to the input size.
        overlap: pixels that neighbouring tiles share at least; None: half of the tile's sides.
        formats: of a detector: ``coco`` (``detections.json``, COCO results, and ``images.json``, which file each
            ``image_id`` is, and the categories; of a model of masks also ``detections_masks.json``), ``voc``
            (``annotations/``, an XML file an image), ``yolo`` (``labels/`` and, of a model of masks, ``segments/``, a
            text file an image, and ``classes.txt``); None: ``coco`` alone.
        mask_values: of a segmentation model: ``labels`` (None is the same), or ``source``, which writes ``masks/`` with
            the value that each class had in the masks of the training, so that they can be read with its settings.
        overwrite: whether files of ``voc`` and ``yolo`` that exist may be replaced; those of ``coco`` always are.

    Raises:
        DetsegError: no images, an option that is not for this kind of model, an output that would overwrite an input;
            and, after all others are done and written, images that cannot be read (``unreadable.txt`` lists them).
    """
    tiling: dict[str, Any] = {} if tile is None and overlap is None else {"tile": tile, "overlap": overlap}
    output = _open_output(predictor, out, bool(tiling), formats, mask_values)
    images = find_sources(sources)
    targets = _drawn_copies(images, out)
    _check_files(output, images, targets, overwrite)
    unreadable: list[DataError] = []
    with MemoryErrors(MEMORY_ADVICE) as errors:
        for image_id, ((path, relative), target) in enumerate(
            track(list(zip(images, targets, strict=True)), description="predicting", console=console), start=1
        ):
            errors.doing = f"predicting for {path}"
            try:
                image = predictor.read(path)
            except DataError as error:  # the other images are done all the same
                unreadable.append(error)
                continue
            found = predictor(image, **tiling)
            output.add(image_id, relative, found)
            found.save(target)
        errors.doing = "writing the results"
        with write_errors(out / "any"):  # makes the folder, though every image was unreadable
            logger.info(output.finish())
    _list_unreadable(unreadable, len(images), out / UNREADABLE)


class DetectionOutput:
    """Detections in one format or several: COCO (Lin et al. 2014) takes everything, VOC (Everingham et al. 2010) and
    YOLO text are a file an image, and have no place for masks but polygons.

    Args:
        out: the folder to write to.
        classes: the classes that may occur.
        formats: some of ``EXPORT_FORMATS``.
        score_threshold: of the predictor, for the last message.

    Raises:
        ConfigError: an unknown format.
    """

    def __init__(self, out: Path, classes: ClassTable, formats: Sequence[str], score_threshold: float = 0.0) -> None:
        for name in formats:
            if name not in EXPORT_FORMATS:
                raise ConfigError(f"format: expected one of {', '.join(EXPORT_FORMATS)}, got {name!r}")
        self.out, self.classes = out, classes
        self._formats, self._score_threshold = tuple(dict.fromkeys(formats)), score_threshold
        self._entries: list[dict[str, Any]] = []
        self._coco = CocoFile(classes)
        self._with_masks = False
        self._num_images = self._num_objects = self._num_empty = 0

    def files(self, image: Path) -> list[Path]:
        """The files for an image, by its path relative to the folder that it was found in. DataError: a format has no
        place for its name."""
        if "voc" in self._formats:
            try:
                check_xml_text("name", image.as_posix())
            except ValueError as error:  # a name of a file may hold anything
                raise DataError(
                    f"{self._file('annotations', image, '.xml')}: {error}; rename the image, or export another format"
                ) from error
        kinds = [kind for name in self._formats for kind in _FOLDERS.get(name, ())]
        return [self._file(folder, image, suffix) for folder, suffix in kinds]

    def must_not_exist(self, images: Sequence[Path]) -> list[Path]:
        """Files that are overwritten only on request, since a person may have made them."""
        names = [self.out / "classes.txt"] if "yolo" in self._formats else []
        return [file for image in images for file in self.files(image)] + names

    def add(self, image_id: int, image: Path, found: Detections) -> None:
        """Write the files of an image; COCO's entries are kept.

        Raises:
            DataError: a file could not be written, or a format has no place for the image's name.
        """
        self.files(image)
        assert found.image is not None  # a predictor's results know it
        hw = (found.image.shape[0], found.image.shape[1])
        self._num_images += 1
        self._num_objects += len(found)
        self._with_masks |= found.masks is not None
        if "coco" in self._formats:
            self._entries += found.to_coco(image_id)
            self._coco.add(image_id, image.as_posix(), hw)
        if "voc" in self._formats:
            path = self._file("annotations", image, ".xml")
            no = np.zeros(len(found), dtype=np.bool_)
            boxes = found.boxes.astype(np.float64)
            annotation = VocAnnotation(image.name, hw, tuple(found.names), boxes, difficult=no, truncated=no)
            folder = "" if image.parent == Path() else image.parent.as_posix()
            with write_errors(path):
                write_voc_xml(path, annotation, folder, scores=found.scores.tolist())
        if "yolo" in self._formats:
            write_yolo_boxes(self._file("labels", image, ".txt"), hw, found.labels, found.boxes, found.scores)
            if found.masks is not None:
                segments = self._file("segments", image, ".txt")
                self._num_empty += write_yolo_polygons(segments, found.labels, found.masks)

    def finish(self) -> str:
        """Write what COCO and YOLO have for all images; returns what to tell the user."""
        written = ["the drawn images"]
        for name in self._formats:
            match name:
                case "coco":
                    images = {key: self._coco.content[key] for key in ("images", "categories")}
                    contents = result_files(self._entries, self._with_masks) | {"images.json": images}
                    for file, content in contents.items():
                        write_text(self.out / file, json.dumps(content))
                    without_boxes = [f"{MASK_RESULTS} (without boxes, to score as segm)"] if self._with_masks else []
                    written += [RESULTS, *without_boxes, "images.json"]
                case "voc":
                    written.append("annotations/ (VOC XML)")
                case "yolo":
                    write_text(self.out / "classes.txt", "".join(f"{name}\n" for name in self.classes.names))
                    left_out = f"; {self._num_empty} without a pixel are not in it" if self._num_empty else ""
                    segments = [f"segments/ (polygons{left_out})"] if self._with_masks else []
                    written += ["labels/ (YOLO text)", *segments, "classes.txt"]
        counts = f"{counted(self._num_objects, 'object')} in {counted(self._num_images, 'image')}"
        score = f"score {self._score_threshold:g} or more; a score says how sure the model is, from 0 to 1"
        text = f"{counts} ({score}); written to {self.out}: {', '.join(written)}"
        if self._num_objects or not self._num_images or not self._score_threshold:
            return text
        return f"{text}\nno object scored that much: try a lower score, such as --score 0.05, or train longer"

    def _file(self, folder: str, image: Path, suffix: str) -> Path:
        return (self.out / folder / image).with_suffix(suffix)


class LabelOutput:
    """Labels as indexed PNGs in ``masks/``; what they mean, and how many pixels each class has, in ``classes.json``.

    ``mask_values``: ``labels``, or ``source``: the value of each class in the masks that the model was trained on.
    ConfigError: another word, or these values do not fit into 8 bits.
    """

    def __init__(self, out: Path, classes: ClassTable, mask_values: str = MASK_VALUES[0]) -> None:
        if mask_values not in MASK_VALUES:
            raise ConfigError(f"mask_values: expected {' or '.join(MASK_VALUES)}, got {mask_values!r}")
        self.out, self.classes = out, classes
        self._values = classes.source_ids if mask_values == "source" else tuple(range(len(classes)))
        if wrong := [value for value in self._values if not 0 <= value <= 255]:
            what = f"the source values of the classes are {list(self._values)}, and {wrong[0]} does not fit into 8 bits"
            raise ConfigError(f"mask_values: {what}; leave it out, classes.json has them all")
        self._images: list[dict[str, Any]] = []

    def files(self, image: Path) -> list[Path]:
        """The labels of the image."""
        return [(self.out / "masks" / image).with_suffix(".png")]

    def must_not_exist(self, images: Sequence[Path]) -> list[Path]:
        """None: labels are replaced."""
        return []

    def add(self, image_id: int, image: Path, found: SegmentationMap) -> None:
        """Write the labels of an image."""
        (mask,) = self.files(image)
        found.save_png(mask, self._values)
        sizes = {"height": found.hw[0], "width": found.hw[1], "pixels": found.areas}
        names = {"file_name": image.as_posix(), "mask": mask.relative_to(self.out).as_posix()}
        self._images.append(names | sizes)

    def finish(self) -> str:
        """Write ``classes.json``; returns what to tell the user."""
        rows = zip(self.classes.names, class_colors(self.classes.names), strict=True)
        classes = [
            {"label": i, "name": name, "color": color, "source_value": source, "mask_value": value}
            for i, ((name, color), source, value) in enumerate(
                zip(rows, self.classes.source_ids, self._values, strict=True)
            )
        ]
        write_text(self.out / "classes.json", json.dumps({"classes": classes, "images": self._images}))
        return (
            f"{counted(len(self._images), 'image')}; written to {self.out}: the drawn images, masks/ (the class of "
            f"each pixel, as indexed PNGs), classes.json (what the values mean, and their pixels)"
        )


def _open_output(
    predictor: ImagePredictor[Any], out: Path, tiled: bool, formats: Sequence[str] | None, mask_values: str | None
) -> DetectionOutput | LabelOutput:
    """What writes for the kind of predictor; ConfigError for an option of the other kind."""
    if isinstance(predictor, ObjectPredictor):
        if tiled:
            raise ConfigError("tile and overlap are for segmentation models, and this is a detector; leave them out")
        if mask_values is not None:
            raise ConfigError("mask_values are for segmentation models, and this is a detector; leave them out")
        return DetectionOutput(out, predictor.classes, formats or EXPORT_FORMATS[:1], predictor.score_threshold)
    if formats is not None:
        raise ConfigError(
            f"a format ({', '.join(formats)}) is for detectors, and this is a segmentation model, whose labels are "
            f"written as indexed PNGs; leave it out"
        )
    return LabelOutput(out, predictor.classes, mask_values or MASK_VALUES[0])


def find_sources(sources: Sequence[Path]) -> list[tuple[Path, Path]]:
    """The images that files and folders stand for, each with its path relative to the folder that it was found in.

    Sub-folders and links are followed as ``find_images`` does it. Files in folders whose names are those of images that
    cannot be read here are passed over with a warning. DataError: a source does not exist, cannot be read, or holds no
    images.
    """
    found, passed_over = [], list[Path]()
    for source in sources:
        if source.is_file():
            found.append((source, Path(source.name)))
        elif source.is_dir():
            files = find_images(source, suffixes=IMAGE_SUFFIXES | OTHER_IMAGE_SUFFIXES)
            known = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
            inside = [path for path in known if why_unread(path) is None]
            left = [source / path for path in files if path not in set(inside)]
            if not inside:
                others = f"; {_passed_over(left)}" if left else ""
                raise DataError(f"{source}: holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}){others}")
            passed_over += left
            found += [(source / path, path) for path in inside]
        else:
            raise DataError(f"{source}: no such file or folder")
    if passed_over:
        logger.warning(_passed_over(passed_over))
    return found


def _passed_over(files: Sequence[Path]) -> str:
    """One line on image files that are not read: number, names, and what would read them, if anything here does."""
    reasons = dict.fromkeys(reason for path in files if (reason := why_unread(path)) is not None)
    needs = "".join(f"; some {reason}" for reason in reasons)
    names = listed([str(path) for path in files])
    return f"passed over, since they cannot be read: {counted(len(files), 'file')} ({names}){needs}"


def _drawn_copies(images: list[tuple[Path, Path]], out: Path) -> list[Path]:
    """Where the drawn copy of each image goes; DataError for an image in ``out``, or of a format without a writer."""
    targets = [out / name.with_suffix(_DRAWN_AS.get(name.suffix.lower(), name.suffix)) for _, name in images]
    real_out = out.resolve()
    for (path, relative), target in zip(images, targets, strict=True):
        source = path.parents[len(relative.parts) - 1].resolve()
        if real_out in path.resolve().parents and real_out not in source.parents:
            raise DataError(
                f"{path}: lies in --out already, as an original or as an earlier drawing; choose another folder"
            )
        if not can_be_written(target):
            raise DataError(f"{path}: a drawn copy cannot be written in this format; convert it to PNG or JPEG")
    return targets


def _check_files(
    output: DetectionOutput | LabelOutput, images: list[tuple[Path, Path]], targets: list[Path], overwrite: bool
) -> None:
    """DataError for files that would overwrite an image (be it through a link), one another, or other work."""
    files = [(path, target) for (path, _), target in zip(images, targets, strict=True)]
    files += [(path, file) for path, relative in images for file in output.files(relative)]
    owners: dict[Path, Path] = {}
    sources = {_identity(path) for path, _ in images}
    for image, file in files:
        if (identity := _identity(file)) and identity in sources:
            raise DataError(f"{file}: is an image to predict for and would be overwritten; choose another --out")
        place = file.resolve()  # two names may be links to one file
        if place in owners:
            raise DataError(
                f"{file}: two images would be written here, {owners[place]} and {image}; rename one of them, or "
                "predict them into different --out folders"
            )
        owners[place] = image
    for file in () if overwrite else output.must_not_exist([relative for _, relative in images]):
        if file.exists():
            raise DataError(
                f"{file}: exists, and may be somebody's work; choose another --out, or replace it with --overwrite"
            )


def _identity(path: Path) -> tuple[int, int] | None:
    """What two names of one file have in common, through symbolic and hard links; None without a file."""
    try:
        return path.stat().st_dev, path.stat().st_ino
    except OSError:
        return None


def _list_unreadable(errors: Sequence[DataError], num_images: int, file: Path) -> None:
    """List in a file what was left out, and raise a DataError; remove the list of an earlier run where nothing was."""
    if not errors:
        file.unlink(missing_ok=True)
        return
    with atomic_write(file, "w", encoding="utf-8", errors="backslashreplace") as lines:
        lines.writelines(f"{printable(str(error))}\n" for error in errors)
    more = f"; and {len(errors) - 3} more, all listed in {file}" if len(errors) > 3 else ""
    raise DataError(f"{len(errors)} of {num_images} images were left out: {'; '.join(map(str, errors[:3]))}{more}")
