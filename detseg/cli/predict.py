"""`detseg predict`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from detseg.cli.tool import CHECKPOINT, DEVICES, ToolParser, score


def predict(argv: Sequence[str]) -> None:
    """Images → drawn copies and detections, or masks: detseg predict runs/mine images/ --out found/"""
    from detseg.predict import EXPORT_FORMATS, MASK_VALUES
    from detseg.structures import SCORE_THRESHOLD

    parser = ToolParser(
        "predict",
        "Find objects in images, or the class of every pixel, as the checkpoint can; writes drawn copies, and "
        "detections (COCO JSON, VOC XML, YOLO text) or masks/ (labels as indexed PNGs).",
    )
    parser.add_argument("checkpoint", type=Path, help=CHECKPOINT)
    parser.add_argument("images", type=Path, nargs="+", help="images, or folders of images (searched all the way)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")
    threshold = f"detectors: leave out what scores below this, 0 to 1: how sure the model is ({SCORE_THRESHOLD})"
    parser.add_argument("--score", type=score, help=threshold)
    names = f"{', '.join(EXPORT_FORMATS[:-1])} or {EXPORT_FORMATS[-1]}"

    def formats(text: str) -> list[str]:
        chosen = [name.strip() for name in text.split(",")]
        if not set(chosen) <= set(EXPORT_FORMATS):
            raise argparse.ArgumentTypeError(f"expected {names}, or several with commas, got {text!r}")
        return chosen

    which = f"detectors: {names}, or several ({EXPORT_FORMATS[0]})"
    parser.add_argument("--format", type=formats, action="extend", metavar="NAME[,NAME]", help=which)
    replace = "detectors: replace annotations of --format voc and yolo that exist"
    parser.add_argument("--overwrite", action="store_true", help=replace)
    tile = "segmentation: look at images in tiles of this size in pixels, unscaled (scaled to the input size)"
    parser.add_argument("--tile", type=int, nargs=2, metavar=("H", "W"), help=tile)
    overlap = "pixels that neighbouring tiles have in common at least (half a tile)"
    parser.add_argument("--overlap", type=int, metavar="N", help=overlap)
    values = "segmentation: write masks with labels 0, 1, 2, ..., or with the values of the training's masks (labels)"
    parser.add_argument("--mask-values", choices=MASK_VALUES, help=values)
    parser.add_argument("--device", default="auto", help=DEVICES)
    arguments = parser.parse_intermixed_args(argv)

    from detseg.predict import load_predictor
    from detseg.predict.files import predict_files

    predict_files(
        load_predictor(arguments.checkpoint, arguments.device, arguments.score),
        arguments.images,
        arguments.out,
        tile=arguments.tile and tuple(arguments.tile),
        overlap=arguments.overlap,
        formats=arguments.format,
        overwrite=arguments.overwrite,
        mask_values=arguments.mask_values,
    )
