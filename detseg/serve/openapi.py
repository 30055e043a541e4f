"""The operations of a service in words: an OpenAPI 3.1 document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detseg import __version__
from detseg.serve.request import FORMATS
from detseg.serve.settings import ServiceSettings
from detseg.structures import SCORE_THRESHOLD

_BOX = {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4, "description": "xyxy, pixels"}
_MASK = {
    "type": "object",
    "description": "COCO's compressed run lengths",
    "properties": {"size": {"type": "array", "items": {"type": "integer"}}, "counts": {"type": "string"}},
}
_OBJECT = {
    "type": "object",
    "properties": {
        "box": _BOX,
        "score": {"type": "number"},
        "label": {"type": "integer"},
        "name": {"type": "string"},
        "mask": _MASK,
    },
}
_SCHEMAS: dict[str, Any] = {
    "Answer": {
        "type": "object",
        "properties": {
            "model": {"type": "string"},
            "image": {"type": "object", "description": "width and height, pixels, of the upright image"},
            "objects": {"type": "array", "items": _OBJECT, "description": "of a detector, best first"},
            "labels": {"type": "string", "description": "of a segmenter: the class of each pixel, PNG in base64"},
            "pixels": {"type": "object", "description": "of a segmenter: the number of pixels of each class"},
            "timing": {"type": "object", "description": "milliseconds, and the number of images predicted together"},
        },
    },
    "Error": {"type": "object", "properties": {"error": {"type": "string", "description": "one line"}}},
}
_FORMAT = "image: the image with what was found drawn on it; decoded: the image alone, as the model sees it"
_ERRORS = {
    "400": "an option is wrong, the body is not JSON as described, or the connection ended early",
    "401": "the key is missing or wrong",
    "408": "the body did not arrive in time",
    "413": "more bytes or pixels than are read",
    "415": "neither image/*, application/octet-stream nor application/json",
    "422": "not an image, or a damaged one",
    "500": "the model failed on this image",
    "503": "too many requests are waiting: try again after the seconds in Retry-After",
    "504": "no result in time",
}


def openapi_document(models: Sequence[str], settings: ServiceSettings) -> dict[str, Any]:
    """The document of a service with these models."""
    security: list[dict[str, list[str]]] = [{"key": []}] if settings.api_key is not None else []
    paths = {
        "/predict": {"post": _predict(models, settings, security)},
        "/models": {"get": _get("The models, their classes, and the limits of this service", security)},
        "/health": {"get": _get("200 when it can predict, 503 before", ())},
        "/metrics": {"get": _get("Numbers for Prometheus: requests, seconds, batch sizes, queue", security)},
        "/openapi.json": {"get": _get("This document", ())},
        "/": {"get": _get("A page to try it", ())},
    }
    schemes = {"key": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "detseg", "version": __version__, "description": "Objects, or the class of every pixel."},
        "paths": paths,
        "components": {"schemas": _SCHEMAS, "securitySchemes": schemes},
    }


def _predict(models: Sequence[str], settings: ServiceSettings, security: Sequence[Any]) -> dict[str, Any]:
    lowest = settings.min_score
    options: dict[str, tuple[dict[str, Any], str]] = {
        "model": ({"type": "string", "enum": list(models), "default": models[0]}, "which model predicts"),
        "score": (
            {"type": "number", "minimum": lowest, "maximum": 1, "default": max(SCORE_THRESHOLD, lowest)},
            "detectors: leave out what scores less",
        ),
        "classes": ({"type": "string"}, "answer these alone: names with commas; in JSON a list"),
        "masks": ({"type": "boolean", "default": False}, "with the masks of the objects"),
        "format": ({"enum": list(FORMATS), "default": FORMATS[0]}, _FORMAT),
    }
    parameters = [
        {"name": name, "in": "query", "schema": schema, "description": text} for name, (schema, text) in options.items()
    ]
    image = {"image": {"type": "string", "contentEncoding": "base64"}}
    properties = image | {name: schema for name, (schema, _) in options.items()}
    properties["classes"] = {"type": "array", "items": {"type": "string"}}
    binary = {"schema": {"type": "string", "format": "binary"}}
    body = {
        "image/*": binary,
        "application/octet-stream": binary,
        "application/json": {"schema": {"type": "object", "required": ["image"], "properties": properties}},
    }
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    answer = {"application/json": {"schema": {"$ref": "#/components/schemas/Answer"}}, "image/jpeg": binary}
    responses: dict[str, Any] = {"200": {"description": "what was found", "content": answer}}
    responses |= {status: {"description": text, "content": error} for status, text in _ERRORS.items()}
    return {
        "summary": "An image → what is in it",
        "parameters": parameters,
        "requestBody": {"required": True, "content": body},
        "responses": responses,
        "security": security,
    }


def _get(summary: str, security: Sequence[Any]) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": {"description": summary}}, "security": security}
