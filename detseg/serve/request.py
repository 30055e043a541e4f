"""From what a client sends to an image and options; whatever is wrong with it is a ``ServiceError``."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from detseg.data.images.read import ImageBytes, read_image
from detseg.errors import DataError, ImageSizeError
from detseg.messages import listed, one_line, shown
from detseg.serve.models import ServedModel
from detseg.serve.settings import ServiceError, ServiceSettings
from detseg.structures import SCORE_THRESHOLD, UInt8Array

FORMATS = ("json", "image", "decoded")
_NO_IMAGE, _FILE_ADVICE = "not an image, or damaged beyond recognition", "; replace the file or take it off the list"
_KEYS = ("model", "score", "classes", "masks", "format")


def is_json(request: Request) -> bool:
    """Whether the body is JSON, by its declared type, and else an image; 415 for anything else."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return True
    if not kind.startswith("image/") and kind != "application/octet-stream":
        wanted = 'the bytes of an image (Content-Type: image/jpeg, ...) or JSON {"image": base64}'
        raise ServiceError(415, f"expected {wanted}, got Content-Type {shown(kind)}")
    return False


async def read_body(request: Request, settings: ServiceSettings) -> bytes:
    """The whole body. 413: it is too large, by its header or as it comes; 408: it does not come in time.

    ``request.state.unread`` says whether more of it may come.
    """
    most = settings.max_bytes
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > most:
        raise ServiceError(413, f"the request has {_mib(int(declared))}; this service takes up to {_mib(most)}")
    body, more = bytearray(), True
    try:
        async with asyncio.timeout(settings.timeout):
            while more:
                message = await request.receive()
                if message["type"] == "http.disconnect":  # nobody reads this answer; it is counted
                    raise ServiceError(400, "the connection was closed before the body was whole")
                body += message.get("body", b"")
                more = request.state.unread = message.get("more_body", False)
                if len(body) > most:
                    raise ServiceError(413, f"the request has more than the {_mib(most)} that this service takes")
    except TimeoutError:
        raise ServiceError(408, f"the body did not arrive within {settings.timeout:g} s") from None
    return bytes(body)


def _mib(number: int) -> str:
    return f"{math.ceil(10 * number / (1 << 20)) / 10:g} MiB"


def parse_json(body: bytes) -> tuple[bytes, dict[str, Any]]:
    """The bytes of the image and the options of a body of JSON."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ServiceError(400, f"the body is not JSON: {one_line(error)}") from None
    if not isinstance(content, dict) or not isinstance(content.get("image"), str):
        raise ServiceError(400, 'expected a JSON object with the key "image", its value a text in base64')
    text = content.pop("image")
    text = text.partition(",")[2] if text.startswith("data:") else text  # of a data URL
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ServiceError(400, f'"image" is not base64: {one_line(error)}') from None
    return data, content


def decode_image(data: bytes, max_pixels: int, predictor: Any) -> UInt8Array:
    """(H, W, 3) uint8 RGB, upright, as the predictor reads files. 413: too many pixels, of which none is decoded; 422:
    not an image, or damaged."""
    try:
        return read_image(ImageBytes(data, max_pixels=max_pixels), getattr(predictor, "value_range", None))
    except ImageSizeError as error:
        what = one_line(error).partition(";")[0].replace("the image: the file declares", "the image has")
        what = what.replace(f"{max_pixels} that are read", f"{max_pixels / 1e6:g} million that this service reads")
        raise ServiceError(413, f"{what}; make it smaller") from None
    except DataError as error:  # what there is to do with files helps no client
        what = one_line(error).replace(_NO_IMAGE, "not an image that can be read here, or damaged")
        raise ServiceError(422, what.replace(_FILE_ADVICE, "").removeprefix("the image: ")) from None


@dataclass(frozen=True)
class Options:
    """What a client wants to know.

    Attributes:
        model: which one predicts.
        score: detections that score less are left out.
        classes: which are answered; None: all.
        masks: whether those of objects are answered, too.
        format: ``json``; ``image``: a picture of what was found; ``decoded``: the image alone.
    """

    model: ServedModel
    score: float
    classes: tuple[str, ...] | None
    masks: bool
    format: str

    @classmethod
    def parse(cls, given: Mapping[str, Any], models: Sequence[ServedModel], min_score: float) -> Options:
        """Of the query (texts) or of JSON; 400 for a key or a value that is not known."""
        if unknown := [key for key in given if key not in _KEYS]:
            raise ServiceError(400, f"there is no option {shown(unknown[0])}; the options are {', '.join(_KEYS)}")
        model = _one_of(given, "model", {one.name: one for one in models})
        default = max(SCORE_THRESHOLD, min_score)
        return cls(
            model,
            _score(given["score"], model, min_score) if "score" in given else default,
            _classes(given.get("classes"), model),
            _boolean(given, "masks"),
            _one_of(given, "format", {name: name for name in FORMATS}),
        )


def _one_of(given: Mapping[str, Any], key: str, choices: Mapping[str, Any]) -> Any:
    """What a word stands for; without one, the first."""
    value = given.get(key, next(iter(choices)))
    if not isinstance(value, str) or value not in choices:
        raise ServiceError(400, f"{key}: expected {listed(list(choices))}, got {shown(value)}")
    return choices[value]


def _boolean(given: Mapping[str, Any], key: str) -> bool:
    """Of words and numbers, as languages write them."""
    value = given.get(key, False)
    word = str(value).lower()
    if word not in ("false", "0", "true", "1"):
        raise ServiceError(400, f"{key}: expected false, true, got {shown(value)}")
    return word in ("true", "1")


def _score(value: Any, model: ServedModel, min_score: float) -> float:
    if not model.finds_objects:
        raise ServiceError(400, f"score: {model.name} gives every pixel a class and has no scores; leave it out")
    try:
        number = float("nan" if isinstance(value, bool) else value)
    except (TypeError, ValueError, OverflowError):
        number = -1.0
    if not min_score <= number <= 1:
        raise ServiceError(400, f"score: expected a number from {min_score:g} to 1, got {shown(value)}")
    return number


def _classes(value: Any, model: ServedModel) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    known = model.predictor.classes.names
    if not isinstance(names, list) or not all(isinstance(name, str) and name in known for name in names):
        raise ServiceError(400, f"classes: expected some of {listed(known)}, got {shown(value)}")
    return tuple(names)
