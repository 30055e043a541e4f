"""What a check knows of a data set: its annotations, and facts of each image, which is decoded once.

Everything that is wrong follows from these arrays; no check opens a file.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from detseg.data.annotations.model import PackedAnnotations
from detseg.data.annotations.report import DataReport
from detseg.data.checks.mask_facts import LabelFacts, MaskFacts, measure_labels, measure_masks, without_exceptions
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.datasets.segmentation import SegmentationDataset
from detseg.data.images.read import decode, open_image, pending_orientation, pil_to_rgb, read_image, upright
from detseg.data.images.similar import SIGNATURE_BYTES, signature
from detseg.data.images.threads import in_threads
from detseg.data.images.values import Extent, ValueRange, deep_values, extent_of, is_deep
from detseg.errors import DataError
from detseg.structures import FloatArray, IntArray, UInt8Array

_ENOUGH_ROWS = 128  # of an image for its mean and its signature: all of them take as long as to decode it


@dataclass(frozen=True, eq=False)
class ImageFacts:
    """What is to be known of an image file.

    Attributes:
        error: why it cannot be read; "" if it can. Else nothing below it but the digest counts.
        digest: of the file's bytes; b"" if there is no file.
        mode: as Pillow names it: CMYK, say.
        extent: lowest and highest value of an image of more than 8 bits; None of 8 bits.
        unread: what of it is not read; "" if all is.
        hw: height and width in pixels, upright.
        orientation: EXIF's, 1 to 8.
        transparent: fraction of the pixels that are not opaque.
        mean, std: (3,) of red, green, blue in [0, 1]; of images of 256 rows or more from some rows, evenly spread.
        signature: what near duplicates are found by.
    """

    error: str = ""
    digest: bytes = b""
    mode: str = ""
    extent: Extent | None = None
    unread: str = ""
    hw: tuple[int, int] = (0, 0)
    orientation: int = 1
    transparent: float = 0.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (0.0, 0.0, 0.0)
    signature: UInt8Array = field(default_factory=lambda: np.zeros(SIGNATURE_BYTES, dtype=np.uint8))


@dataclass(frozen=True, eq=False)
class SplitFacts:
    """A split of a data set: its name, annotations, what was found so far, and the facts of its I images.

    ``images`` and ``masks`` are empty where images are not opened; a mask is None where there is none.
    """

    name: str
    dataset: DetectionDataset | SegmentationDataset
    images: tuple[ImageFacts, ...] = ()
    masks: tuple[MaskFacts | LabelFacts | None, ...] = ()

    @property
    def report(self) -> DataReport:
        """Where checks add what they find."""
        return self.dataset.report

    @property
    def objects(self) -> PackedAnnotations | None:
        """The annotations; None of a set of label maps."""
        return self.dataset.packed if isinstance(self.dataset, DetectionDataset) else None

    @property
    def image_of(self) -> IntArray:
        """(T,) the image of each object."""
        assert self.objects is not None
        return self.objects.image_of

    @property
    def class_counts(self) -> IntArray:
        """(C,) objects of each class, or of label maps pixels: where masks are not opened those in the masks that were
        looked at when the set was. Crowd regions do not count."""
        num = len(self.dataset.classes)
        if self.objects is not None:
            counted = self.objects.labels[~self.objects.crowd]
            return np.asarray(np.bincount(counted, minlength=num)[:num], dtype=np.int64)
        pixels_seen = self.dataset.pixels if isinstance(self.dataset, SegmentationDataset) else None
        if not self.masks and pixels_seen is not None:
            return pixels_seen
        pixels = [mask.counts for mask in self.masks if isinstance(mask, LabelFacts)]
        return np.asarray(sum(pixels, np.zeros(256, dtype=np.int64))[:num], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Expected:
    """What a model asks of the data.

    Attributes:
        input_hw: height and width of the network input.
        max_detections: those of a class in an image that count.
        anchors: (K, 2) float64 widths and heights in input pixels; None: it has none.
        mean, std: by which channels are normalised, in [0, 1]; None: not known.
    """

    input_hw: tuple[int, int] = (640, 640)
    max_detections: int = 100
    anchors: FloatArray | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def examine(path: Path | str, value_range: ValueRange = None) -> ImageFacts:
    """Read an image file once, and say all that checks need of it; what cannot be read is no error here.
    ``value_range``: how more than 8 bits are read."""
    path, digest = Path(path), b""
    try:
        with open_image(path) as (header, stream):
            stream.seek(0)  # some of Pillow's readers have read to the end
            digest = hashlib.blake2b(stream.read(), digest_size=16).digest()
            stream.seek(0)
            found = ImageFacts(digest=digest, mode=header.mode)
            pending = pending_orientation(header)
            orientation = header.getexif().get(274, 1) if header.format == "TIFF" else pending
            frames = 1 if header.format == "MPO" else int(getattr(header, "n_frames", 1))  # MPO: previews
            unread = [f"the first of {frames} pages or frames is read"] if frames > 1 else []
            if header.format in ("JPEG", "MPO"):
                image = read_image(path, said=unread)
            elif is_deep(header):  # what Pillow decodes may show it no longer
                if header.format == "TIFF" and len(header.getbands()) > 3:
                    unread.append("the first 3 of 4 channels are read")
                decode(header, stream)
                values = deep_values(header, stream)
                if part := 1 - float(np.isfinite(values).mean()):
                    unread.append(f"{100 * part:.2g} % of its pixels are no numbers, or infinite")
                found = replace(found, extent=extent_of(values))
                # Floats are an error without a range, which is said of them; what is seen otherwise counts here.
                without = header.mode == "F" and value_range is None
                image = read_image(path, "percentiles" if without else value_range)
            else:
                decode(header, stream)
                found = replace(found, transparent=_transparent(header))
                image = np.ascontiguousarray(upright(pil_to_rgb(header), pending))
    except DataError as error:
        return ImageFacts(error=str(error).removeprefix(f"{path}: ") or "cannot be read", digest=digest)
    hw = (image.shape[0], image.shape[1])
    rows = np.ascontiguousarray(image[:: max(hw[0] // _ENOUGH_ROWS, 1)])
    mean, std = (tuple((values.ravel() / 255).tolist()) for values in cv2.meanStdDev(rows))
    orientation = orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
    found = replace(found, unread="; ".join(unread))
    return replace(found, hw=hw, orientation=orientation, mean=mean, std=std, signature=signature(rows))


def _transparent(image: Image.Image) -> float:
    if image.mode in ("RGBA", "LA", "PA"):
        alpha = image.getchannel("A")
    elif "transparency" in image.info and image.mode in ("P", "RGB", "L"):
        alpha = image.convert("RGBA").getchannel("A")
    else:
        return 0.0
    return 1 - alpha.histogram()[255] / max(alpha.width * alpha.height, 1)


def examine_splits(splits: Sequence[SplitFacts]) -> list[SplitFacts]:
    """The same splits with the facts of their images and masks, which are read in threads, with a progress bar."""
    places = [(split, index) for split in splits for index in range(len(split.dataset))]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # of odd images, of which reports say what matters
        found = iter(list(in_threads(_examine_place, places, "checking images")))
    examined = []
    for split in splits:
        own = [next(found) for _ in range(len(split.dataset))]
        images, masks = tuple(image for image, _ in own), tuple(mask for _, mask in own)
        without_exceptions([mask for mask in masks if isinstance(mask, MaskFacts)])
        examined.append(replace(split, images=images, masks=masks))
    return examined


def _examine_place(place: tuple[SplitFacts, int]) -> tuple[ImageFacts, MaskFacts | LabelFacts | None]:
    split, index = place
    image = examine(split.dataset.path(index), split.dataset.value_range)
    if isinstance(split.dataset, SegmentationDataset):
        return image, measure_labels(split.dataset, index)
    return image, measure_masks(split.dataset.packed, index)
