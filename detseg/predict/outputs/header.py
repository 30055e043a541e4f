"""The first line of a file of results, of the images of a run or of a video: what made them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from detseg.errors import DataError
from detseg.messages import shown

_VERSION = 2


def header_line(settings: dict[str, Any], **more: Any) -> bytes:
    """The line, for ``settings`` that the results depend on, as JSON has them."""
    return json.dumps({"detseg_results": _VERSION, "settings": settings} | more).encode("ascii") + b"\n"


def read_header(path: Path) -> tuple[dict[str, Any] | None, bool]:
    """What the first line holds, and whether there is a second one: a mistake in an option leaves none. None where the
    first line is torn, or there is no file (any more). DataError: the file is something else."""
    try:
        with path.open("rb") as file:
            line, has_results = file.readline(), bool(file.readline())
    except FileNotFoundError:
        return None, False
    if not line.endswith(b"\n") and (not line or line.startswith(b'{"detseg_results"')):
        return None, False
    try:
        content: dict[str, Any] = json.loads(line)
        version, settings = content["detseg_results"], content["settings"]
    except (ValueError, KeyError, TypeError):
        version = settings = None
    if not isinstance(settings, dict):
        raise DataError(f"{path}: is no file of results that detseg predict wrote; choose another --out")
    if version != _VERSION:
        raise DataError(f"{path}: was written by another version of detseg; remove it, or choose another --out")
    return content, has_results


def check_settings(path: Path, header: dict[str, Any], now: dict[str, Any]) -> None:
    """DataError: results were made with other settings than those of ``now``."""
    then = header["settings"]
    if wrong := [key for key in dict.fromkeys([*now, *then]) if now.get(key) != then.get(key)]:
        changes = ", ".join(f"{key} {shown(then.get(key))}, now {shown(now.get(key))}" for key in wrong)
        fix = "resume with those settings, take --overwrite in place of --resume, or choose another --out"
        raise DataError(f"{path}: was made with other settings ({changes}); {fix}")
