"""Formats and precisions of exports, and what is wrong with those that are asked for. Torch is not imported here."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from detseg.errors import ConfigError, require_export_extra

Format = Literal["onnx", "openvino", "torch"]
Precision = Literal["fp32", "fp16", "int8"]
SUFFIX: dict[Format, str] = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
PRECISIONS: dict[Format, tuple[Precision, ...]] = {
    "onnx": ("fp32",),
    "openvino": ("fp32", "fp16", "int8"),
    "torch": ("fp32",),
}
_PACKAGES: dict[Format, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "torch": (),
}


def packages(form: Format, precision: Precision) -> tuple[str, ...]:
    """Which packages make and compute such a file, besides torch."""
    return (*_PACKAGES[form], *(("nncf",) if precision == "int8" else ()))


def check_options(form: Format, precision: Precision, out: Path | None) -> None:
    """ConfigError: there is no such precision, or ``out`` is no name of such a file; MissingExtraError: packages are
    missing."""
    if precision not in PRECISIONS[form]:
        able = ", ".join(name for name, precisions in PRECISIONS.items() if precision in precisions)
        raise ConfigError(f"--precision {precision}: --format {form} has no such; take --format {able}")
    if out is not None and out.suffix != SUFFIX[form]:
        raise ConfigError(f"--out {out}: expected a name that ends in {SUFFIX[form]}, by which it is recognised")
    if out is not None and out.is_dir():
        raise ConfigError(f"--out {out}: is a folder; name a file in it, such as {out / f'best{SUFFIX[form]}'}")
    require_export_extra(f"detseg export --format {form}", packages(form, precision))
