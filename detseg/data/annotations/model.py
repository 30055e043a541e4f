"""The annotations of a whole data set in a few arrays: I images with T objects in all, N of one image.

Loader processes share them: forked ones share all memory that nobody writes to, as touching a Python object does, and
spawned ones (macOS, Windows) are sent shared memory.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.context import get_spawning_popen
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from detseg.errors import DataError
from detseg.messages import shown
from detseg.ops.masks import encode_edges, run_lengths
from detseg.structures import BoolArray, FloatArray, ImageAnnotations, InstanceMasks, IntArray, UInt8Array

if TYPE_CHECKING:
    import torch

LARGEST = 1e15  # numbers beyond this are no pixels; up to it, float64 holds every whole number
_MAX_COORDINATE = 1e6  # corners of polygons farther from the image's corner than this, pixels, are mistakes
_POLYGONS = "expected a list of polygons [[x, y, x, y, ...], ...]"
_ANY_NAME = "surrogatepass"  # encodes file names that are not UTF-8, too, of which `os.fsdecode` makes surrogates
_SMALLEST_SHARED = 1 << 18  # bytes of an array from which on it is shared; smaller ones are copied
_LARGEST_FRACTION = 0.25  # of the free shared memory: batches need it, too, and Docker gives 64 MB
_SHARED_MEMORY = Path("/dev/shm")  # where Linux has it; nothing is written there by name


class _SharedArrays:  # base of frozen dataclasses that hold large numpy arrays
    def __reduce__(self) -> tuple[Any, ...]:
        columns = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        if get_spawning_popen() is not None:
            if not (shared := vars(self).get("_shared")):  # once for all processes
                vars(self)["_shared"] = shared = _in_shared_memory(columns)
                vars(self).update({name: tensor.numpy() for name, tensor in shared.items()})  # one copy in this process
            return _rebuild, (type(self), {name: v for name, v in columns.items() if name not in shared}, shared)
        return _rebuild, (type(self), columns, {})


def _in_shared_memory(columns: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The large arrays as shared tensors; empty where there is no room for them."""
    large = {name: value for name, value in columns.items() if getattr(value, "nbytes", 0) >= _SMALLEST_SHARED}
    num_bytes = sum(array.nbytes for array in large.values())
    if _SHARED_MEMORY.is_dir() and num_bytes > _LARGEST_FRACTION * shutil.disk_usage(_SHARED_MEMORY).free:
        return {}
    import torch  # here, since predictors over exported models write annotations without it

    try:
        return {name: torch.tensor(array).share_memory_() for name, array in large.items()}  # type: ignore[no-untyped-call]  # torch's lack
    except RuntimeError:  # another process was faster
        return {}


def _rebuild(kind: type[Any], columns: dict[str, Any], shared: dict[str, torch.Tensor]) -> Any:
    return kind(**columns, **{name: tensor.numpy() for name, tensor in shared.items()})


@dataclass(frozen=True, eq=False)
class PackedImages(_SharedArrays):
    """Ids and paths of I images."""

    image_ids: IntArray  # (I,) int64, all different
    path_bytes: bytes  # the images' paths, relative to the data set's root, one after the other in UTF-8
    path_offsets: IntArray  # (I + 1,) int64; path i is path_bytes[path_offsets[i] : path_offsets[i + 1]]

    def __post_init__(self) -> None:
        if len(np.unique(self.image_ids)) != len(self.image_ids):
            raise ValueError("image ids must differ")

    def __len__(self) -> int:
        return len(self.image_ids)

    def path(self, index: int) -> str:
        """The path of one image relative to the data set's root, with forward slashes."""
        begin, end = int(self.path_offsets[index]), int(self.path_offsets[index + 1])
        return self.path_bytes[begin:end].decode("utf-8", _ANY_NAME)

    def select(self, indices: Sequence[int]) -> PackedImages:
        """Some of the images, in the given order, without repetition."""
        return pack_images([self.path(index) for index in indices], self.image_ids[list(indices)])


def pack_images(paths: Sequence[str], image_ids: Sequence[int] | IntArray | None = None) -> PackedImages:
    """Images by their paths; without ids they are counted from 1."""
    ids = np.arange(1, len(paths) + 1) if image_ids is None else np.asarray(image_ids)
    encoded = [path.encode("utf-8", _ANY_NAME) for path in paths]
    return PackedImages(ids.astype(np.int64), b"".join(encoded), running_total([len(path) for path in encoded]))


def running_total(counts: Sequence[int] | IntArray) -> IntArray:
    """(I,) counts → (I + 1,) int64 offsets, from 0 to the sum."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def file_version(file: BinaryIO) -> tuple[int, int]:
    """Size in bytes of an open file, and when it was last changed, in nanoseconds."""
    state = os.fstat(file.fileno())
    return state.st_size, state.st_mtime_ns


@dataclass(frozen=True, eq=False)
class Segmentations(_SharedArrays):
    """The segmentations of T objects as JSON texts, and where each lies: in an annotation file, which every use opens
    again, for any thread, or in ``content``."""

    file: Path  # JSON in UTF-8; with ``content`` for messages alone
    version: tuple[int, int]  # of the file, as `file_version` gives it
    annotation_ids: IntArray  # (T,) int64, for messages
    starts: IntArray  # (T,) int64, the position in the file of the first byte of each
    lengths: IntArray  # (T,) int64, bytes of each; 0 where an annotation has no segmentation
    content: UInt8Array | None = None  # (B,) uint8, the texts of readers whose files are no COCO JSON

    @classmethod
    def of_texts(cls, file: Path, annotation_ids: IntArray, texts: Sequence[bytes]) -> Segmentations:
        """Those of readers that have the texts, b"" where there is none; ``file`` is for messages."""
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        content = np.frombuffer(b"".join(texts), dtype=np.uint8)
        return cls(file, (0, 0), annotation_ids, running_total(lengths)[:-1], lengths, content)

    def __len__(self) -> int:
        return len(self.starts)

    def masks(self, rows: range, hw: tuple[int, int]) -> InstanceMasks:
        """The masks of some objects of one image of height and width ``hw`` pixels; an object's polygons are united. A
        DataError if a segmentation is missing or wrong, or the file has changed since it was read."""
        import msgspec  # prediction, which looks for images, must not need it

        counts: list[bytes] = []
        for row, text in zip(rows, self.texts(rows), strict=True):
            try:
                counts.append(region_counts(msgspec.json.decode(text or b"null"), hw))
            except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
                where = f"{self.file}: annotation {self.annotation_ids[row]}: segmentation"
                raise DataError(f"{where}: {error}; fix it, or remove the annotation") from None
        return InstanceMasks(hw, tuple(counts))

    def texts(self, rows: Iterable[int]) -> Iterator[bytes]:
        """The segmentations of some objects as the file has them; raises a DataError if it has changed, or is gone."""
        if self.content is not None:
            for row in rows:
                yield self.content[int(self.starts[row]) :][: int(self.lengths[row])].tobytes()
            return
        try:
            with self.file.open("rb", buffering=0) as file:
                if file_version(file) != self.version:
                    raise DataError(f"{self.file}: the annotation file changed while it was in use; start again")
                for row in rows:
                    file.seek(int(self.starts[row]))
                    yield file.read(int(self.lengths[row]))
        except OSError as error:
            raise DataError(f"{self.file}: cannot read the annotation file: {error.strerror}") from None

    def select(self, rows: IntArray) -> Segmentations:
        """Those of some objects, in the given order."""
        columns = {name: getattr(self, name)[rows] for name in ("annotation_ids", "starts", "lengths")}
        return Segmentations(self.file, self.version, **columns, content=self.content)


def region_counts(segmentation: object, hw: tuple[int, int]) -> bytes:
    """The compressed run lengths of one segmentation, filled exactly as pycocotools fills it: a list of polygons ``[x,
    y, x, y, ...]``, or ``{"size": [H, W], "counts": ...}`` with run lengths as a list or as a compressed string, in an
    image of ``hw`` pixels (height, width); a ValueError if it is not that."""
    if isinstance(segmentation, dict):
        return _rle_counts(segmentation, hw)
    check_region(segmentation, hw)
    from pycocotools import mask

    return bytes(mask.merge(mask.frPyObjects(segmentation, *hw))["counts"])


def check_region(segmentation: object, hw: tuple[int, int]) -> None:
    """Raise the ValueError of `region_counts`, without filling polygons."""
    if isinstance(segmentation, dict):
        _rle_counts(segmentation, hw)
        return
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError(f"expected polygons or run lengths, got {shown(segmentation)}")
    if all(isinstance(value, int | float) for value in segmentation):
        raise ValueError(f"{_POLYGONS}, got one flat list of numbers; put it in brackets")
    for polygon in segmentation:
        check_polygon(polygon)


def check_polygon(polygon: object) -> None:
    """Raise a ValueError unless this is a polygon ``[x, y, x, y, ...]`` of at least 3 corners near the image."""
    if isinstance(polygon, list) and polygon and all(isinstance(point, list) for point in polygon):
        raise ValueError(f"{_POLYGONS}, got one of points [[x, y], ...]; write its numbers one after the other")
    if not isinstance(polygon, list) or not set(map(type, polygon)) <= {int, float}:
        raise ValueError(f"{_POLYGONS}, got {shown(polygon)} in it")
    if len(polygon) < 6 or len(polygon) % 2:
        raise ValueError(f"a polygon needs x and y of at least 3 corners, got {len(polygon)} numbers")
    if not all(-_MAX_COORDINATE <= value <= _MAX_COORDINATE for value in polygon):  # NaN is not
        raise ValueError(f"corners of a polygon lie more than {_MAX_COORDINATE:.0f} pixels away, or nowhere")


def _rle_counts(rle: dict[str, Any], hw: tuple[int, int]) -> bytes:  # checked: pycocotools trusts them
    size, given, counts = rle.get("size"), rle.get("counts"), None
    if size != list(hw):
        raise ValueError(f"size: expected that of the image, [height, width] = {list(hw)}, got {shown(size)}")
    if isinstance(given, str) and given.isascii():
        counts = run_lengths(given.encode())
    elif isinstance(given, list) and set(map(type, given)) == {int} and min(given) > -(2**31) and max(given) < 2**31:
        counts = np.array(given, dtype=np.int64)
    if counts is None:
        what = "run lengths, a list of whole numbers or a compressed string"
        raise ValueError(f"counts: expected {what}, got {shown(given)}")
    if (counts < 0).any() or counts.sum() != hw[0] * hw[1]:
        raise ValueError(f"counts: the run lengths must add up to {hw[0]} x {hw[1]} pixels, got {int(counts.sum())}")
    if isinstance(given, str) and counts[1:].all():
        return given.encode()
    # Runs of no pixels are joined with their neighbours: pycocotools finds wrong bounds with them.
    ends = np.cumsum(counts)
    kept = (np.arange(len(counts)) % 2 == 1) & (counts > 0)
    return encode_edges(np.stack([(ends - counts)[kept], ends[kept]], axis=1).ravel(), int(counts.sum()))


FLAGS = ("crowd", "difficult", "truncated")
"""Of an object."""

_OBJECT_COLUMNS = ("boxes", "labels", *FLAGS, "area")


@dataclass(frozen=True, eq=False)
class PackedAnnotations(PackedImages):
    """The ground truth of I images with T objects in all."""

    sizes_hw: IntArray  # (I, 2) int64, height and width in pixels, from the annotation file, else from the image
    offsets: IntArray  # (I + 1,) int64; the objects of image i are the rows offsets[i] to offsets[i + 1]
    boxes: FloatArray  # (T, 4) float64 xyxy in pixels, exactly as the file states them
    labels: IntArray  # (T,) int64
    crowd: BoolArray  # (T,)
    difficult: BoolArray  # (T,)
    truncated: BoolArray  # (T,)
    area: FloatArray  # (T,) float64, square pixels; NaN for that of the mask, where there are masks
    regions: Segmentations | None = None  # None where only boxes were read
    centred: bool = False  # whether the file states the centres of boxes and their sides

    def image(self, index: int) -> ImageAnnotations:
        """The objects of one image, as views of the arrays; masks are decoded now, a DataError if one is wrong."""
        rows = range(int(self.offsets[index]), int(self.offsets[index + 1]))
        objects = ImageAnnotations(**self._columns(slice(rows.start, rows.stop)))
        if self.regions is None:
            return objects
        masks, area = self.regions.masks(rows, self.hw(index)), objects.area
        if np.isnan(area).any():
            area = np.where(np.isnan(area), masks.areas, area)
        return replace(objects, masks=masks, area=area)

    def _columns(self, rows: slice | IntArray) -> dict[str, Any]:
        return {name: getattr(self, name)[rows] for name in _OBJECT_COLUMNS}

    def hw(self, index: int) -> tuple[int, int]:
        """Height and width of one image in pixels."""
        return int(self.sizes_hw[index, 0]), int(self.sizes_hw[index, 1])

    def select(self, indices: Sequence[int]) -> PackedAnnotations:
        """The annotations of some images, in the given order, without repetition."""
        selected = np.asarray(indices, dtype=np.int64)
        begins, counts = self.offsets[selected], np.diff(self.offsets)[selected]
        offsets = running_total(counts)
        rows = np.repeat(begins - offsets[:-1], counts) + np.arange(offsets[-1])
        return PackedAnnotations(
            **vars(super().select(indices)),
            sizes_hw=self.sizes_hw[selected],
            offsets=offsets,
            **self._columns(rows),
            regions=None if self.regions is None else self.regions.select(rows),
            centred=self.centred,
        )

    def keep_objects(self, kept: BoolArray) -> PackedAnnotations:
        """The same images with the objects that a (T,) bool mask marks."""
        rows = np.flatnonzero(kept)
        return replace(
            self,
            offsets=np.concatenate([[0], np.cumsum(kept)])[self.offsets].astype(np.int64),
            **self._columns(rows),
            regions=None if self.regions is None else self.regions.select(rows),
        )

    @property
    def image_of(self) -> IntArray:
        """(T,) int64, the position of the image of each object."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.offsets))

    def stated(self, index: int) -> list[StatedObject]:
        """The objects of one image as the annotation states them, for writers; a DataError if a text cannot be read."""
        import msgspec

        rows = range(int(self.offsets[index]), int(self.offsets[index + 1]))
        texts = [b""] * len(rows) if self.regions is None else self.regions.texts(rows)
        return [
            StatedObject(
                box=tuple(self.boxes[row].tolist()),
                label=int(self.labels[row]),
                crowd=bool(self.crowd[row]),
                difficult=bool(self.difficult[row]),
                truncated=bool(self.truncated[row]),
                area=float(self.area[row]),
                segmentation=msgspec.json.decode(text) if text else None,
            )
            for row, text in zip(rows, texts, strict=True)
        ]


@dataclass(frozen=True)
class StatedObject:
    """One object as its annotation states it, in plain values."""

    box: tuple[float, float, float, float]  # xyxy pixels
    label: int
    crowd: bool
    difficult: bool
    truncated: bool
    area: float  # square pixels; NaN where it is that of the mask
    segmentation: Any  # COCO's: polygons [[x, y, ...], ...], or run lengths {"size": [H, W], "counts": ...}; or None

    @property
    def flags(self) -> list[str]:
        """Those of `FLAGS` that are set."""
        return [flag for flag in FLAGS if getattr(self, flag)]


def no_objects() -> ImageAnnotations:
    """The annotations of an image without objects."""
    flags = np.zeros(0, dtype=np.bool_)
    return ImageAnnotations(np.zeros((0, 4)), np.zeros(0, dtype=np.int64), flags, flags, flags, np.zeros(0))


def training_boxes(boxes: FloatArray, hw: IntArray | tuple[int, int]) -> tuple[npt.NDArray[np.float32], BoolArray]:
    """Boxes for training: of (N, 4) float64 xyxy pixels, and ``hw``, height and width of the image, or (N, 2) of each
    box's → (N, 4) float32, clipped to the image, and (N,) bool, whether they have an area then."""
    limit = np.asarray(hw)[..., [1, 0, 1, 0]]
    clipped = np.clip(boxes, 0, limit).astype(np.float32)
    return clipped, (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
