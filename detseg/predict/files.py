"""Prediction over files and folders, with progress: drawn pictures, and what was found in files."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.progress import track

from detseg.console import console, messages_on_console
from detseg.data.images.find import find_images
from detseg.data.images.read import IMAGE_SUFFIXES, read_image
from detseg.draw import can_be_written, write_picture
from detseg.errors import ConfigError, DataError
from detseg.memory import MemoryErrors
from detseg.messages import printable
from detseg.predict.detection import Predictor
from detseg.predict.load import load_predictor
from detseg.predict.outputs import DetectionOutput, Output, SegmentationOutput
from detseg.predict.segmentation import SegmentationPredictor
from detseg.predict.writing import replace_text

logger = logging.getLogger("detseg")

SCORE_THRESHOLD = 0.3
"""Detections below it are left out of files, unless another threshold is given."""

MEMORY_ADVICE = "take smaller tiles (--tile, segmentation only), or a device with more memory (--device)"

UNREADABLE = "unreadable.txt"
"""The pictures of the last run that could not be read, with the reason, one a line; only where there are any."""


@messages_on_console()
def predict_files(
    checkpoint: Path,
    sources: Sequence[Path],
    out: Path,
    score_threshold: float | None = None,
    device: str = "auto",
    tile: tuple[int, int] | None = None,
    overlap: int | None = None,
    formats: Sequence[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Predict for every picture, draw what is found, and write all of it in a form to go on with.

    Args:
        checkpoint: a ``.ckpt`` file of a run.
        sources: pictures and folders.
        out: folder for the drawn pictures, which keep their names (and their subfolders).  Of a detector also for the
            files of ``formats``; of a segmentation model for ``masks/`` (labels as indexed PNGs, names and subfolders
            kept) and ``classes.json`` (what the labels are, and the pixels of each class in each picture).
        score_threshold: of a detector: detections below it are left out; None: ``SCORE_THRESHOLD``.
        device: ``auto``, ``cpu``, ``cuda``, ...
        tile: of a segmentation model: height and width of tiles, pixels; None: pictures are scaled to the input size.
        overlap: pixels that neighbouring tiles share at least; None: half of the tile's sides.
        formats: of a detector: ``coco`` (``detections.json``, COCO results, and ``images.json``, which file each
            ``image_id`` is, and the categories; of a model of masks also ``detections_masks.json``), ``voc``
            (``annotations/``, an XML file a picture), ``yolo`` (``labels/`` and, of a model of masks, ``segments/``, a
            text file a picture, and ``classes.txt``); None: ``coco`` alone.
        overwrite: whether files of ``voc`` and ``yolo`` that exist may be replaced; those of ``coco`` always are.

    Raises:
        DetsegError: no pictures, a checkpoint that cannot be loaded, an option that is not for its kind of model, an
            output that would overwrite an input; and, after all others are done and written, pictures that cannot be
            read (``unreadable.txt`` lists them).
    """
    pictures = find_pictures(sources)
    targets = _targets(pictures, out)
    output = _open_output(checkpoint, out, score_threshold, device, tile, overlap, formats)
    _check_other_files(output, pictures, targets, overwrite)
    unreadable: list[DataError] = []
    with MemoryErrors(MEMORY_ADVICE) as errors:
        for image_id, ((path, relative), target) in enumerate(
            track(list(zip(pictures, targets, strict=True)), description="predicting", console=console), start=1
        ):
            errors.doing = f"predicting for {path}"
            try:
                image = read_image(path)
            except DataError as error:  # the others need not suffer
                unreadable.append(error)
                continue
            drawn = output.add(image_id, relative, image)
            write_picture(target, drawn)
        errors.doing = "writing the results"
        out.mkdir(parents=True, exist_ok=True)
        logger.info(output.finish())
    _list_unreadable(unreadable, len(pictures), out / UNREADABLE)


def _list_unreadable(errors: Sequence[DataError], num_pictures: int, file: Path) -> None:
    """List in a file what was left out; remove the list of an earlier run where nothing was.

    Raises:
        DataError: something was.
    """
    if not errors:
        file.unlink(missing_ok=True)
        return
    replace_text(file, "".join(f"{printable(str(error))}\n" for error in errors))
    more = f"; and {len(errors) - 3} more, all listed in {file}" if len(errors) > 3 else ""
    raise DataError(f"{len(errors)} of {num_pictures} pictures were left out: {'; '.join(map(str, errors[:3]))}{more}")


def _open_output(
    checkpoint: Path,
    out: Path,
    score_threshold: float | None,
    device: str,
    tile: tuple[int, int] | None,
    overlap: int | None,
    formats: Sequence[str] | None,
) -> Output:
    """What predicts and writes for the checkpoint's kind of model.

    Raises:
        DetsegError: the checkpoint cannot be loaded, or an option is not for its kind of model.
    """
    predictor = load_predictor(checkpoint, device)
    if isinstance(predictor, SegmentationPredictor):
        if score_threshold is not None:
            raise ConfigError(
                f"{checkpoint}: is a segmentation model, which gives every pixel a class; a score threshold is for "
                f"detectors, leave it out"
            )
        if formats is not None:
            raise ConfigError(
                f"{checkpoint}: is a segmentation model, whose labels are written as indexed PNGs; a format "
                f"({', '.join(formats)}) is for detectors, leave it out"
            )
        return SegmentationOutput(predictor, out, tile, overlap)
    if tile is not None or overlap is not None:
        raise ConfigError(f"{checkpoint}: is a detector; tile and overlap are for segmentation models, leave them out")
    threshold = SCORE_THRESHOLD if score_threshold is None else score_threshold
    detector = Predictor(predictor.model, predictor.classes, predictor.input_hw, predictor.device, threshold)
    return DetectionOutput(detector, out, ["coco"] if formats is None else formats)


def _targets(pictures: list[tuple[Path, Path]], out: Path) -> list[Path]:
    """Where each picture's drawn copy goes.

    Raises:
        DataError: nowhere: the copy would overwrite a picture (be it through a link) or another copy, or cannot be
            written in its format.
    """
    # PGM holds grey only, and the drawings are coloured.
    names = [path.with_suffix(".png") if path.suffix.lower() == ".pgm" else path for _, path in pictures]
    targets = [out / name for name in names]
    _refuse_clashes((path, target) for (path, _), target in zip(pictures, targets, strict=True))
    real_out = out.resolve()
    for (path, relative), target in zip(pictures, targets, strict=True):
        source = path.parents[len(relative.parts) - 1].resolve()
        if real_out in path.resolve().parents and real_out not in source.parents:
            raise DataError(
                f"{path}: lies in --out already, as an original or as an earlier drawing; choose another folder"
            )
        if not can_be_written(target):
            raise DataError(f"{path}: a drawn copy cannot be written in this format; convert it to PNG or JPEG")
    return targets


def _check_other_files(output: Output, pictures: list[tuple[Path, Path]], targets: list[Path], overwrite: bool) -> None:
    """Refuse files beside the drawn copies that would overwrite these, one another, a picture, or other work.

    Args:
        output: says which files it will write.
        pictures: as ``find_pictures`` gives them.
        targets: the drawn copy of each.
        overwrite: whether files that exist may be replaced.

    Raises:
        DataError: they would.
    """
    files = [(path, target) for (path, _), target in zip(pictures, targets, strict=True)]
    for path, relative in pictures:
        files += [(path, file) for file in output.written_with(relative)]
    sources = {_identity(path) for path, _ in pictures}
    for _, file in files:
        if (identity := _identity(file)) and identity in sources:
            raise DataError(f"{file}: is a picture to predict for and would be overwritten; choose another --out")
    _refuse_clashes(files)
    for file in () if overwrite else output.must_not_exist([relative for _, relative in pictures]):
        if file.exists():
            raise DataError(
                f"{file}: exists, and may be somebody's work; choose another --out, or replace it with --overwrite"
            )


def _identity(path: Path) -> tuple[int, int] | None:
    """What two names of one file have in common, through symbolic and hard links; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _refuse_clashes(files: Iterable[tuple[Path, Path]]) -> None:
    """Refuse to write a file twice.

    Args:
        files: each picture with a file that will be written for it.

    Raises:
        DataError: one file for two pictures.
    """
    owners: dict[Path, Path] = {}
    for picture, file in files:
        place = file.resolve()  # two names may be links to one file
        if place in owners:
            raise DataError(
                f"{file}: two pictures would be written here, {owners[place]} and {picture}; rename one of them, or "
                "predict them into different --out folders"
            )
        owners[place] = picture


def find_pictures(sources: Sequence[Path]) -> list[tuple[Path, Path]]:
    """The pictures that files and folders stand for, each with its path relative to the folder that it was found in.

    Sub-folders and links are followed as ``find_images`` does it.

    Raises:
        DataError: a source does not exist, cannot be read, or holds no pictures.
    """
    found = []
    for source in sources:
        if source.is_file():
            found.append((source, Path(source.name)))
        elif source.is_dir():
            inside, _ = find_images(source)
            if not inside:
                raise DataError(f"{source}: holds no pictures ({', '.join(sorted(IMAGE_SUFFIXES))})")
            found += [(source / path, path) for path in inside]
        else:
            raise DataError(f"{source}: no such file or folder")
    return found
