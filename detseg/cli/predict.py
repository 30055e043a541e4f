"""Predict for images: detseg predict runs/yolo_voc/checkpoints/best.ckpt images/ --out found/"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from detseg.cli.tool import ToolParser
from detseg.predict import EXPORT_FORMATS
from detseg.structures import SCORE_THRESHOLD

_NAMED_FORMATS = f"{', '.join(EXPORT_FORMATS[:-1])} or {EXPORT_FORMATS[-1]}"


def main(argv: Sequence[str]) -> None:
    """Arguments → predictor → drawn copies, with detections in a format of choice or with masks."""
    parser = ToolParser(
        "predict",
        "Find objects in images, or the class of every pixel, as the checkpoint can; writes drawn copies, and "
        "detections (COCO JSON, VOC XML, YOLO text) or masks/ (labels as indexed PNGs).",
    )
    parser.add_argument("checkpoint", type=Path, help="a .ckpt file of a run directory")
    parser.add_argument("images", type=Path, nargs="+", help="images, or folders of images (searched all the way)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")
    parser.add_argument(
        "--score",
        type=_score,
        help=f"detectors: leave out what scores below this, 0 to 1: how sure the model is ({SCORE_THRESHOLD})",
    )
    parser.add_argument(
        "--format",
        type=_formats,
        action="extend",
        metavar="NAME[,NAME]",
        help=f"detectors: {_NAMED_FORMATS}, or several ({EXPORT_FORMATS[0]})",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="detectors: replace annotations of --format voc and yolo that exist"
    )
    parser.add_argument(
        "--tile",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="segmentation: look at images in tiles of this size in pixels, unscaled (scaled to the input size)",
    )
    parser.add_argument(
        "--overlap", type=int, metavar="N", help="pixels that neighbouring tiles share at least (half a tile)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    arguments = parser.parse_intermixed_args(argv)
    tile = None if arguments.tile is None else (arguments.tile[0], arguments.tile[1])

    from detseg.predict import load_predictor  # loads torch; the arguments are valid by now
    from detseg.predict.files import predict_files

    predict_files(
        load_predictor(arguments.checkpoint, arguments.device, arguments.score),
        arguments.images,
        arguments.out,
        tile=tile,
        overlap=arguments.overlap,
        formats=arguments.format,
        overwrite=arguments.overwrite,
    )


def _score(text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return score


def _formats(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not set(names) <= set(EXPORT_FORMATS):
        raise argparse.ArgumentTypeError(f"expected {_NAMED_FORMATS}, or several with commas, got {text!r}")
    return names
