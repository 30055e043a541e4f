"""The pictures of an explanation as files: heat maps over the image, feature maps, filters, receptive fields."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from detseg.draw import Color, class_colors, contact_sheet, draw_boxes, draw_legend, write_image
from detseg.draw.images import enlarged, greyed
from detseg.errors import ConfigError
from detseg.explain.features import ReceptiveField, describe_fields, first_filters, receptive_fields
from detseg.explain.heat_maps import HeatMap, ObjectHeat, class_heat_maps, detection_heat_maps, strides_of
from detseg.messages import listed
from detseg.predict import Predictor, SegmentationPredictor, load_predictor
from detseg.predict.interface import preprocess
from detseg.predict.predictor import as_input
from detseg.structures import BoolArray, FloatArray, UInt8Array

logger = logging.getLogger("detseg")

_MOST_MAPS = 36  # of a feature map's channels on a sheet
_MAP_SIDE, _FILTER_SIDE = 160, 60  # pixels on a sheet, about
_PAPER = (255, 255, 255)
_OPACITY = 0.7  # of the greatest heat
_SHIFTS = 8  # of the image, over which a receptive field is averaged


def write_pictures(
    checkpoint: Path,
    image: Path,
    folder: Path,
    *,
    object_number: int | None = None,
    class_name: str | None = None,
    device: str = "auto",
    most_objects: int = 10,
    object_sizes: FloatArray | None = None,
) -> list[Path]:
    """Write what a network sees in an image as PNG files; the log says how much of each heat map is where it should be.

    ``object_<n>.png`` and ``mask_<n>.png`` for the n-th best detection, or ``class_<label>.png`` for each class of a
    semantic map; ``features_stride_<s>.png``, ``filters.png`` and ``receptive_field.png``.

    Args:
        checkpoint: a run directory, or a checkpoint of it.
        image: the file of the image.
        folder: for the pictures; existing ones are replaced.
        object_number: of a detector: only this detection, 1 being the best; None: ``most_objects``.
        class_name: of a segmenter: only this class; None: all that occur in the predicted map.
        device: see ``detseg.load_predictor``.
        object_sizes: (T,) pixels of the network input, the square roots of the areas of the boxes of a data set, to
            compare receptive fields with.

    Returns:
        The files.

    Raises:
        ConfigError: a number or class that this image does not have, or that this kind of model does not know.
        DetsegError: the checkpoint or the image is missing or wrong, or a picture could not be written.
    """
    predictor = load_predictor(checkpoint, device)
    pixels = predictor.read(image)
    if isinstance(predictor, Predictor):
        if class_name is not None:
            raise ConfigError(f"class_name: {checkpoint} holds a detector; choose a detection by its number")
        pictures = _of_objects(predictor, pixels, object_number, most_objects)
    elif isinstance(predictor, SegmentationPredictor):
        if object_number is not None:
            raise ConfigError(f"object_number: {checkpoint} holds a segmenter; choose a class by its name")
        pictures = _of_classes(predictor, pixels, class_name)
    assert isinstance(predictor, Predictor | SegmentationPredictor)
    pictures |= _of_network(predictor, pixels, object_sizes)
    for name, picture in pictures.items():
        write_image(folder / name, picture)
    return [folder / name for name in pictures]


def lay_heat(image: UInt8Array, heat: npt.NDArray[np.float32]) -> UInt8Array:
    """(H, W) float32 heat in [0, 1] over an (H, W, 3) uint8 RGB image, which turns grey: from blue over green to red,
    and the more opaque the hotter."""
    colors = cv2.applyColorMap(np.rint(heat * 255).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    weight = _OPACITY * np.sqrt(heat)[..., None]
    return np.rint(greyed(image) * (1 - weight) + colors * weight).astype(np.uint8)


def _of_objects(predictor: Predictor, image: UInt8Array, number: int | None, most: int) -> dict[str, UInt8Array]:
    heats = detection_heat_maps(predictor, image, most if number is None else number)
    if number is not None and not 1 <= number <= len(heats):
        least, num = f"{predictor.score_threshold:g} or more", len(predictor(image))
        if not num:
            raise ConfigError(f"object_number {number}: nothing in this image scores {least}")
        which = f"of the detections of this image that score {least}, the best first"
        raise ConfigError(f"object_number: expected 1 to {num}, {which}, got {number}")
    if not heats:
        logger.info(f"nothing in this image scores {predictor.score_threshold:g} or more: no object to explain")
    pictures = {}
    for i, heat in enumerate(heats, 1):
        if number in (None, i):
            for name, own in ((f"object_{i}.png", heat.score), (f"mask_{i}.png", heat.mask)):
                if own is not None and (picture := _of_object(name, heat, own, image)) is not None:
                    pictures[name] = picture
    return pictures


def _of_object(name: str, heat: ObjectHeat, own: HeatMap, image: UInt8Array) -> UInt8Array | None:
    found, names = heat.found, heat.found.classes.names
    region, where = _box_region(found.boxes[0], image.shape[:2]), "box"
    if own is heat.mask and found.masks is not None:
        region, where = found.masks.mask(0), "mask"
    note = _note(f"{name}: {found.names[0]} {found.scores[0]:.2f}", own, region, where)
    if note is None:
        return None
    picture = lay_heat(image, own.heat)
    if where == "mask":
        _outline(picture, region, class_colors(names)[found.labels[0]])
    drawn = draw_boxes(picture, found.boxes, found.labels, names, found.scores)
    return draw_legend(drawn, [(note, "", _PAPER)])


def _box_region(box: npt.NDArray[np.float32], hw: tuple[int, ...]) -> BoolArray:
    """(H, W) bool: the pixels that an xyxy box touches."""
    (x1, y1), (x2, y2) = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
    region = np.zeros(hw, dtype=np.bool_)
    region[y1:y2, x1:x2] = True
    return region


def _outline(picture: UInt8Array, region: BoolArray, color: Color) -> None:
    contours, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, color, 1)


def _of_classes(predictor: SegmentationPredictor, image: UInt8Array, class_name: str | None) -> dict[str, UInt8Array]:
    names, found = predictor.classes.names, predictor(image)
    occurring = [name for name, area in found.areas.items() if area]
    if class_name is not None and class_name not in occurring:
        known = class_name in names
        what = "has no pixel in the predicted map, which has" if known else "is not one of the classes"
        raise ConfigError(f"class_name: {class_name} {what} {listed(occurring if known else names)}")
    labels = None if class_name is None else [names.index(class_name)]
    pictures = {}
    for label, heat in class_heat_maps(predictor, image, labels).items():
        name, region = f"class_{label}.png", found.labels == label
        note = _note(f"{name}: {names[label]}", heat, region, "pixels of the class")
        if note is not None:
            picture = lay_heat(image, heat.heat)
            _outline(picture, region, class_colors(names)[label])
            pictures[name] = draw_legend(enlarged(picture, None), [(f"{names[label]}; {note}", "", _PAPER)])
    return pictures


def _note(what: str, heat: HeatMap, region: BoolArray, where: str) -> str | None:
    """What is written below a heat map and to the log; None, and a warning, where there is nothing to draw."""
    if heat.is_empty:
        logger.warning(f"{what}: no heat map, as no place of the feature map speaks for it, or it has no gradient")
        return None
    inside = f"{heat.fraction_inside(region):.0%} of the heat in the {where}, {region.mean():.1%} of the image"
    strides = f"stride{'s' if len(heat.strides) > 1 else ''} {', '.join(map(str, heat.strides))}"
    logger.info(f"{what}: {inside} ({strides})")
    return f"{strides}: {inside}"


def _of_network(
    predictor: Predictor | SegmentationPredictor, image: UInt8Array, object_sizes: FloatArray | None
) -> dict[str, UInt8Array]:
    model, pictures = predictor.model, {}
    letterboxed, _ = preprocess([image], predictor.input_hw)
    inputs = as_input(letterboxed, predictor.device)
    strides = strides_of(model)
    with torch.no_grad():
        maps = model.features(inputs)
    for stride, x in zip(strides, maps, strict=True):
        pictures[f"features_stride_{stride}.png"] = _sheet_of_maps(x[0].float().cpu(), stride)
    filters = first_filters(model)
    if filters is None:
        logger.info("no filters.png: the first layer does not see red, green and blue")
    else:
        pictures["filters.png"] = _sheet_of_filters(filters)
    # One image, shifted around its borders, so that the centre sees other parts of it.
    steps = [(inputs.shape[2] * i // _SHIFTS, inputs.shape[3] * (3 * i % _SHIFTS) // _SHIFTS) for i in range(_SHIFTS)]
    fields = receptive_fields(model.features, strides, torch.cat([inputs.roll(step, dims=(2, 3)) for step in steps]))
    logger.info(describe_fields(fields, object_sizes))
    pictures["receptive_field.png"] = _sheet_of_fields(fields, letterboxed[0])
    return pictures


def _sheet_of_maps(channels: Tensor, stride: int) -> UInt8Array:
    """Each of (K, h, w) in its own range; dark is its least, white its most."""
    least, most = channels.amin(dim=(1, 2), keepdim=True), channels.amax(dim=(1, 2), keepdim=True)
    order = channels.flatten(1).std(dim=1).argsort(descending=True)[:_MOST_MAPS]
    constant = int((most == least).sum())
    scaled = (255 * (channels - least) / (most - least).clamp(min=1e-12)).round().byte()
    cells = [_grown(scaled[i].numpy()[..., None].repeat(3, axis=2), _MAP_SIDE) for i in order.tolist()]
    note = f"stride {stride}: the {len(cells)} of {len(channels)} channels that vary most; {constant} do not vary"
    return draw_legend(contact_sheet(cells, 6), [(note, "", _PAPER)])


def _sheet_of_filters(filters: Tensor) -> UInt8Array:
    """Each of (K, 3, k, k) in its own range around grey, which is 0."""
    scaled = 128 + 127 * filters / filters.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
    cells = [
        _grown(np.ascontiguousarray(own), _FILTER_SIDE) for own in scaled.round().byte().permute(0, 2, 3, 1).numpy()
    ]
    note = f"{len(cells)} filters of {filters.shape[3]} x {filters.shape[2]} pixels, the strongest first"
    return draw_legend(contact_sheet(cells, 8), [(note, "", _PAPER)])


def _sheet_of_fields(fields: list[ReceptiveField], image: UInt8Array) -> UInt8Array:
    cells = [lay_heat(image, (field.gradient * field.is_inside).numpy()) for field in fields]
    return contact_sheet(cells, len(cells), [f"stride {field.stride}: {field.size:.0f} px" for field in fields])


def _grown(image: UInt8Array, side: int) -> UInt8Array:
    scale = max(1, side // max(image.shape[:2]))
    return image.repeat(scale, axis=0).repeat(scale, axis=1)
