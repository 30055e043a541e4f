"""One process of a prediction over files: read ahead, predict, keep each result, write the files at the end."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from rich.progress import track

from detseg.data.images.sources import StoredImage
from detseg.data.images.threads import in_background
from detseg.errors import DataError, ImageSizeError
from detseg.memory import MemoryErrors
from detseg.messages import console
from detseg.predict.interface import ImagePredictor
from detseg.predict.outputs import ImageFile, Journal, Output, Share
from detseg.predict.refine import Refinement
from detseg.structures import UInt8Array

logger = logging.getLogger("detseg")

MEMORY_ADVICE = "take smaller tiles (--tile) or a smaller --batch-size, or a device with more memory (--device)"

_PATIENCE = 0.5  # seconds for a decoder to end, after an error or Ctrl-C; a download is not waited for

_Batch: TypeAlias = Sequence[ImageFile]
_Read: TypeAlias = list[UInt8Array | DataError]


def try_options(predictor: ImagePredictor[Any], refine: Refinement, batch_size: int, options: dict[str, Any]) -> None:
    """Predict for a black image of the network's size, if there are options. DetsegError: those of the call, or what is
    to be kept, do not suit the model, which is best known before anything is written."""
    if not (options or refine.min_area or refine.fill_holes):
        return
    with MemoryErrors(MEMORY_ADVICE):
        refine(predictor(np.zeros((*predictor.input_hw, 3), np.uint8), batch_size, **options))


def run_settings(
    predictor: ImagePredictor[Any],
    refine: Refinement,
    model_id: str,
    batch_size: int,
    pictures: bool,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """What results depend on, as JSON has it; formats are not among it, since they are written from the results."""
    settings = {
        "classes of the model": list(predictor.classes.names),
        **predictor.settings,
        "classes": sorted(set(refine.classes)),
        "thresholds": dict(refine.thresholds),
        "calibration": None if refine.calibration is None else refine.calibration.fingerprint,
        "min_area": refine.min_area,
        "fill_holes": refine.fill_holes,
        **options,
        "model": model_id,
        "batch_size": batch_size,
        "pictures": pictures,
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


@dataclass(frozen=True)
class FileRun:
    """The images of a run that this process predicts for, and what all processes found.

    Batches are the same whatever was done before and however many processes there are, since the last bits of a
    network's numbers may depend on what else is in a batch.

    Attributes:
        predictor: of any kind.
        images: of all processes.
        output: what is written.
        journal: open.
        share: of this process.
        batch_size: images, or tiles of an image, at a time.
        pictures: where the drawn copy of each image goes; None: there are none.
        refine: what is kept of a result.
        options: of the predictor's call.
    """

    predictor: ImagePredictor[Any]
    images: Sequence[ImageFile]
    output: Output
    journal: Journal
    share: Share
    batch_size: int
    pictures: Sequence[Path] | None
    refine: Refinement
    options: dict[str, Any]

    def predict(self) -> None:
        """Predict for the images of this process that are not done. DetsegError: memory ran out, or a file could not be
        written; what was done before is kept."""
        batches = [self.images[i : i + self.batch_size] for i in range(0, len(self.images), self.batch_size)]
        own = batches[self.share.rank :: self.share.num]
        if self.options.get("tile") is not None:  # batches are of tiles then: more images would only take memory
            own = [[image] for batch in own for image in batch]
        to_do = [batch for batch in own if not all(map(self.journal.has, batch))]
        with MemoryErrors(MEMORY_ADVICE) as errors:
            following = iter([*to_do, ()])
            reading = self._start_reading(next(following))
            try:
                for batch in track(to_do, "predicting", console=console, disable=self.share.rank > 0):
                    errors.doing = f"predicting for {batch[0].path}"
                    arrays = reading.result()
                    reading = self._start_reading(next(following))  # meanwhile
                    self._predict_batch(batch, arrays)
            finally:
                wait([reading], _PATIENCE)

    def _start_reading(self, batch: _Batch) -> Future[_Read]:
        return in_background(lambda: self._read(batch))

    def _read(self, batch: _Batch) -> _Read:
        arrays: _Read = []
        for image in batch:
            try:
                path, most = image.path, self.predictor.max_pixels
                arrays.append(self.predictor.read(path.load(most) if isinstance(path, StoredImage) else path))
            except ImageSizeError as error:
                arrays.append(ImageSizeError(f"{error}, or allow it with --max-pixels (max_pixels of the predictor)"))
            except DataError as error:  # the other images are done all the same
                arrays.append(error)
        return arrays

    def _predict_batch(self, batch: _Batch, arrays: _Read) -> None:
        readable: list[tuple[ImageFile, UInt8Array]] = []
        for image, array in zip(batch, arrays, strict=True):
            if not isinstance(array, DataError):
                readable.append((image, array))
            elif not self.journal.has(image):
                self.journal.add_error(image, array)
        if all(self.journal.has(image) for image, _ in readable):
            return
        results = self.predictor([array for _, array in readable], batch_size=self.batch_size, **self.options)
        for (image, _), result in zip(readable, results, strict=True):
            if self.journal.has(image):
                continue
            found = self.refine(result)
            entry = self.output.entry(image, found)
            if self.pictures is not None:
                found.save(self.pictures[image.number - 1])
            self.journal.add(image, entry)  # last: what is in the journal is whole

    def finish(self) -> None:
        """The first process waits for the others, and writes the files of all. DetsegError: another process died, or a
        file could not be written."""
        if self.share.rank > 0:
            self.journal.close()
            logger.info(f"process {self.share.rank} of {self.share.num} has done its images")
            return
        if self.share.num > 1:
            self.journal.wait()
        self._write()
        self.journal.finish()

    def interrupted(self) -> None:
        """The first process writes the files of what is done, and says how far that is."""
        if self.share.rank == 0:
            self.journal.refresh()
            logger.info(f"interrupted: {self.journal.progress()}")
            self._write()

    def _write(self) -> None:
        also = [] if self.pictures is None else ["the drawn images"]
        logger.info(self.output.write(self.journal.entries(), also))
