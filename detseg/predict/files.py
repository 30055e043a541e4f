"""Prediction over files and folders: drawn copies, and what was found in files."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from detseg.atomic_write import atomic_write, write_errors
from detseg.data.images.sources import Place, find_sources
from detseg.draw import can_be_written
from detseg.errors import ConfigError, DataError, DetsegError, LeftOutError
from detseg.messages import counted, listed, messages_on_console, printable
from detseg.predict import EXPORT_FORMATS, MASK_VALUES
from detseg.predict.interface import ImagePredictor, ObjectPredictor
from detseg.predict.outputs import DetectionOutput, ExistingFiles, ImageFile, Journal, LabelOutput, Output, Share
from detseg.predict.outputs.output import Entry
from detseg.predict.refine import Refinement
from detseg.predict.run import FileRun, run_settings, try_options

logger = logging.getLogger("detseg")

UNREADABLE = "unreadable.txt"
"""The images of the last run that could not be read, with the reason, one a line; only where there are any."""

_LONGEST_NAME = 246  # bytes; file systems take 255, of which `atomic_write` needs 9

# PGM holds grey only, and the drawings are coloured; of the others OpenCV has no writer.
_DRAWN_AS = {".pgm": ".png", **dict.fromkeys((".avif", ".heic", ".heif", ".jfif"), ".jpg")}

_AS_IT_IS, _ALONE = Refinement(), Share()


@dataclass(frozen=True)
class RunSummary:
    """What became of the images of a run.

    Attributes:
        num_images: that were asked for, by all processes.
        passed_over: files in the folders whose names are those of images that cannot be read here.
    """

    num_images: int
    passed_over: tuple[Path, ...]


@messages_on_console()
def predict_files(
    predictor: ImagePredictor[Any],
    sources: Sequence[Path | str] | Path | str,
    out: Path | str,
    *,
    formats: Sequence[str] | None = None,
    mask_values: str | None = None,
    batch_size: int = 1,
    pictures: bool = True,
    refine: Refinement = _AS_IT_IS,
    overwrite: bool = False,
    resume: bool = False,
    model_id: str = "",
    share: Share = _ALONE,
    allow_network: bool = False,
    also_replaced: Sequence[Path] = (),
    **options: Any,
) -> RunSummary:
    """Predict for every image; draw what is found, and write it in files for other programs.

    Results go to ``results.jsonl`` as they come, from which the files are written at the end, or when interrupted.

    Args:
        predictor: of objects, or of the class of every pixel.
        sources: images, folders, patterns, ZIP files, addresses of images, see ``find_sources``; one or several.
        out: folder for the drawn copies, which keep the names (and subfolders) of the images; small ones are enlarged.
            Label maps are in ``masks/`` (indexed PNGs, names and subfolders kept), with ``classes.json``.
        formats: of a detector some of ``EXPORT_FORMATS``, None: ``coco``; of a segmentation model of ``MAP_FORMATS``.
        mask_values: of a segmentation model: ``labels`` (None), or ``source``: ``masks/`` with the training's values.
        batch_size: images, or tiles of an image, that the network sees at a time.
        pictures: whether to write the drawn copies.
        refine: what is kept of each result.
        overwrite: whether results of an earlier run, and files that people correct, are removed before this one begins.
        resume: predict only for what the earlier run in ``out`` has no results of; there need be none. Files of single
            images that people corrected stay, unless ``overwrite``, and are named in a warning.
        model_id: what tells the model from others, such as a checksum; only a run of the same one is resumed.
        share: the part of this process, where several do a run together.
        allow_network: whether images may be downloaded from addresses.
        also_replaced: more files that ``overwrite`` removes, such as those of videos, which are written afterwards.
        options: of the predictor's call, such as ``tile``.

    Raises:
        DetsegError: no images, an option that is not for this kind of model, an output that would overwrite an input,
            results of another run; after all else a LeftOutError: images that cannot be read (``unreadable.txt``).
    """
    out, existing, passed_over = Path(out), ExistingFiles(stay=resume and not overwrite), list[Path]()
    output = _open_output(predictor, out, formats, mask_values, refine, existing)
    images = _find_images(sources, out, passed_over, allow_network)
    copies = _drawn_copies(images, out, pictures)
    settings = run_settings(predictor, refine, model_id, batch_size, pictures, options)
    settings |= {"mask_values": mask_values or MASK_VALUES[0]}
    try_options(predictor, refine, batch_size, options)
    with Journal(out, images, settings, share, batch_size, partial(_is_made, output, copies)) as journal:
        _check_files(output, images, copies, overwrite or (resume and journal.exists()))
        replaced = [*_replaced(output, journal.own_images, copies, share), *also_replaced] if overwrite else []
        journal.open(resume, overwrite, replaced)
        run = FileRun(predictor, images, output, journal, share, batch_size, copies, refine, options)
        _do(run, existing, out / UNREADABLE)
    return RunSummary(len(images), tuple(passed_over))


def _find_images(
    sources: Sequence[Path | str] | Path | str, out: Path, passed_over: list[Path], allow_network: bool
) -> list[ImageFile]:
    """As ``find_sources``, without what an earlier run has drawn. DataError: nothing is left."""
    sources = [sources] if isinstance(sources, str | Path) else sources
    found = [at for at in find_sources(sources, passed_over, allow_network) if not is_output(*at, out)]
    if not found:
        raise DataError(f"{out}: all images lie in --out, as drawings of an earlier run; choose others")
    return [ImageFile(i, *at) for i, at in enumerate(found, start=1)]


def is_output(place: Place, name: Path, out: Path) -> bool:
    """Whether a file that was found in a folder, under a name, is in ``out``, which is in that folder, too."""
    if not isinstance(place, Path):
        return False
    real_out = out.resolve()
    return real_out in place.resolve().parents and place.parents[len(name.parts) - 1].resolve() in real_out.parents


def _is_made(output: Output, copies: Sequence[Path] | None, image: ImageFile, entry: Entry) -> bool:
    return output.is_made(image, entry) and (copies is None or copies[image.number - 1].exists())


def _do(run: FileRun, existing: ExistingFiles, unreadable: Path) -> None:
    """Predict and write; and say, also of what was interrupted, which files stayed and which images are left out."""
    try:
        run.predict()
        run.finish()
    except (KeyboardInterrupt, SystemExit):  # Ctrl-C, and SIGTERM where the command has made one of it
        run.interrupted()
        raise
    except DetsegError:
        if run.journal.num_done:
            logger.warning(run.journal.progress())
        raise
    finally:
        _warn_of_left(list(existing.left))
        if run.share.rank == 0:
            _list_unreadable(run.journal.errors, unreadable)
    if run.share.rank == 0 and (errors := run.journal.errors):
        more = f"; and {len(errors) - 3} more, all listed in {unreadable}" if len(errors) > 3 else ""
        raise LeftOutError(f"{len(errors)} of {len(run.images)} images were left out: {'; '.join(errors[:3])}{more}")


def _open_output(
    predictor: ImagePredictor[Any],
    out: Path,
    formats: Sequence[str] | None,
    mask_values: str | None,
    refine: Refinement,
    existing: ExistingFiles,
) -> Output:
    """What writes for the kind of predictor; ConfigError for an option of the other kind."""
    refine.check(predictor.classes, isinstance(predictor, ObjectPredictor))
    if isinstance(predictor, ObjectPredictor):
        if mask_values is not None:
            raise ConfigError("mask_values are for segmentation models, and this is a detector; leave them out")
        score = None if refine.thresholds else predictor.score_threshold
        return DetectionOutput(out, predictor.classes, formats or EXPORT_FORMATS[:1], score, existing)
    return LabelOutput(out, predictor.classes, mask_values or MASK_VALUES[0], formats or (), existing)


def _drawn_copies(images: Sequence[ImageFile], out: Path, pictures: bool) -> list[Path] | None:
    """Where the drawn copy of each image goes, None if there are to be none; DataError for an image in ``out``, or of a
    format without a writer."""
    targets, real_out = [], out.resolve()
    for path, name in ((image.path, image.name) for image in images):
        target = out / name.with_suffix(_DRAWN_AS.get(name.suffix.lower(), name.suffix))
        if isinstance(path, Path) and real_out in path.resolve().parents:
            source = path.parents[len(name.parts) - 1].resolve()
            if real_out not in source.parents:
                raise DataError(
                    f"{path}: lies in --out already, as an original or as an earlier drawing; choose another folder"
                )
        if pictures and not can_be_written(target):
            raise DataError(f"{path}: a drawn copy cannot be written in this format; convert it to PNG or JPEG")
        targets.append(target)
    return targets if pictures else None


def _replaced(
    output: Output, images: Sequence[ImageFile], copies: Sequence[Path] | None, share: Share
) -> Iterator[Path]:
    """The files that a process writes for its images, and the first one for all, of those that a person may change."""
    for image in images:
        yield from output.files(image.name)
        if copies is not None:
            yield copies[image.number - 1]
    if share.rank == 0:
        yield from output.must_not_exist([])


def _check_files(output: Output, images: Sequence[ImageFile], copies: Sequence[Path] | None, overwrite: bool) -> None:
    """DataError for files that would overwrite an image (be it through a link), one another, or other work, or whose
    names no disk takes; and for images that have one name in all that is written."""
    files = [] if copies is None else [(image.path, copy) for image, copy in zip(images, copies, strict=True)]
    files += [(image.path, file) for image in images for file in output.files(image.name)]
    owners: dict[Path, Place] = {}
    sources = {_identity(image.path) for image in images}
    for image, file in files:
        if any(len(os.fsencode(part)) > _LONGEST_NAME for part in file.parts):
            what = f"{file} would be written for it, whose name has a part of more than {_LONGEST_NAME} bytes"
            raise DataError(f"{image}: {what}; rename the image")
        if (identity := _identity(file)) and identity in sources:
            raise DataError(f"{file}: is an image to predict for and would be overwritten; choose another --out")
        place = file.resolve()  # two names may be links to one file
        if place in owners:
            raise DataError(
                f"{file}: two images would be written here, {owners[place]} and {image}; rename one of them, or "
                "predict them into different --out folders"
            )
        owners[place] = image
    folders = {folder: image for place, image in owners.items() for folder in place.parents}
    for file in owners.keys() & folders.keys():
        what = f"would be a file, of {owners[file]}, and a folder, of {folders[file]}"
        raise DataError(f"{file}: {what}; rename one of them, or predict them into different --out folders")
    named: dict[Path, ImageFile] = {}
    for one in images:
        if (other := named.setdefault(one.name, one)) is not one:
            what = f"two images have this name, {other.path} and {one.path}; rename one of them, or"
            raise DataError(f"{one.name}: {what} predict them into different --out folders")
    for file in () if overwrite else output.must_not_exist([image.name for image in images]):
        if file.exists():
            raise DataError(
                f"{file}: exists, and may be somebody's work; choose another --out, or replace it with --overwrite"
            )


def _identity(path: Place) -> tuple[int, int] | None:
    """What two names of one file have in common, through symbolic and hard links; None without a file."""
    with suppress(OSError):
        if isinstance(path, Path):
            return path.stat().st_dev, path.stat().st_ino
    return None


def _warn_of_left(files: Sequence[Path]) -> None:
    if files:
        what = f"left as they were, since they differ from what would be written: {counted(len(files), 'file')}"
        logger.warning(f"{what} ({listed(list(map(str, files)))}); --resume --overwrite replaces them")


def _list_unreadable(errors: Sequence[str], file: Path) -> None:
    """List in a file what was left out; where nothing was, remove an earlier list."""
    if not errors:
        file.unlink(missing_ok=True)
        return
    with write_errors(file), atomic_write(file, "w", encoding="utf-8", errors="backslashreplace") as lines:
        lines.writelines(f"{printable(error)}\n" for error in errors)
