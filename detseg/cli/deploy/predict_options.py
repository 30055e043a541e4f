"""The options of `detseg predict`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from detseg.cli.tool import DEVICES, MODEL, ToolParser, score


def predict_parser() -> ToolParser:
    """What the command takes."""
    from detseg.predict import EXPORT_FORMATS, MAP_FORMATS, MASK_VALUES
    from detseg.structures import SCORE_THRESHOLD

    parser = ToolParser(
        "predict",
        "Find objects in images and videos, or the class of every pixel, as the checkpoint can. Writes drawn copies, "
        "results.jsonl as results come (of a video NAME_frames.jsonl), and files for other programs. Exit code 1: "
        "files were passed over; 2: images or videos could not be read, or nothing was done.",
    )
    parser.add_argument("checkpoint", type=Path, help=MODEL)
    _add_run_options(parser)

    objects = parser.add_argument_group("detectors: which objects")
    threshold = f"leave out what scores below this, 0 to 1: how sure the model is ({SCORE_THRESHOLD})"
    objects.add_argument("--score", type=score, help=threshold)
    own = "a threshold for each class: thresholds.json of `detseg report`; --score is that of all others"
    objects.add_argument("--thresholds", type=Path, metavar="FILE", help=own)
    objects.add_argument(
        "--classes", type=_names, action="extend", default=[], metavar="NAME[,NAME]", help="only these"
    )

    right = "replace scores by how often what has them is right: calibration.json of `detseg report`"
    objects.add_argument("--calibration", type=Path, metavar="FILE", help=right)

    cleaning = parser.add_argument_group("cleaning of masks and label maps")
    specks = "drop regions of fewer pixels; those of label maps take the label around them"
    cleaning.add_argument("--min-area", type=_number(0), default=0, metavar="PX", help=specks)
    holes = "fill holes of at most so many pixels in the masks of objects"
    cleaning.add_argument("--fill-holes", type=_number(0), default=0, metavar="PX", help=holes)

    written = parser.add_argument_group("what is written")
    which = f"of detectors {_either(EXPORT_FORMATS)}, or several ({EXPORT_FORMATS[0]}); of label maps {MAP_FORMATS[0]}"
    written.add_argument("--format", type=_formats(EXPORT_FORMATS), action="extend", metavar="NAME[,NAME]", help=which)
    written.add_argument("--no-pictures", action="store_true", help="write no drawn copies")
    replace = (
        "remove the results of an earlier run, and annotations that exist, first; with --resume only replace these"
    )
    written.add_argument("--overwrite", action="store_true", help=replace)
    values = "label maps: with labels 0, 1, 2, ..., or the values of the training's masks (labels)"
    written.add_argument("--mask-values", choices=MASK_VALUES, help=values)

    _add_tiles_and_members(parser)
    return parser


def _add_tiles_and_members(parser: ToolParser) -> None:
    from detseg.predict.tiles.objects import MERGES

    tiles = parser.add_argument_group("large images")
    tile = "look at images in tiles of this size in pixels, unscaled (scaled to the input size)"
    tiles.add_argument("--tile", type=_number(1), nargs=2, metavar=("H", "W"), help=tile)
    overlap = "pixels that neighbouring tiles have in common at least (label maps: half a tile, detectors: a quarter)"
    tiles.add_argument("--overlap", type=_number(0), metavar="N", help=overlap)
    full = "detectors: look at the whole image, too, for objects larger than the overlap"
    tiles.add_argument("--full-image", action="store_true", help=full)
    merge = "detectors: by what overlap boxes of two tiles are one object (ios)"
    tiles.add_argument("--merge", choices=MERGES, help=merge)

    several = parser.add_argument_group("several predictions of an image, made into one")
    members = "more models with the same classes, checkpoints or exports"
    several.add_argument(
        "--with", type=Path, nargs="+", action="extend", default=[], dest="members", metavar="MODEL", help=members
    )
    flips = "see images flipped, too: horizontal, vertical, or both with a comma"
    several.add_argument("--flips", type=_names, default=[], metavar="NAME[,NAME]", help=flips)
    scales = "see images at several scales of the input size, such as 1,1.25 (1)"
    several.add_argument("--scales", type=_scales, metavar="X[,X]", help=scales)


def _add_run_options(parser: ToolParser) -> None:
    """What is predicted for, where to, and with what."""
    from detseg.data.images.read import MAX_PIXELS

    sources = "images, videos, folders of them (searched all the way), patterns in quotes, ZIP files of images"
    others = "; camera:0; with --allow-network addresses: https://... of an image or a video, rtsp://..."
    parser.add_argument("images", nargs="+", metavar="source", help=f"{sources}{others}")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")
    parser.add_argument("--device", default="auto", help=DEVICES)
    batch = "images, frames, or tiles, that the network sees at a time (1)"
    parser.add_argument("--batch-size", type=_number(1), default=1, metavar="N", help=batch)
    resume = "predict only what an earlier run in --out, which was killed or interrupted, has not done"
    parser.add_argument("--resume", action="store_true", help=resume)
    network = "open the addresses that are given as sources; nothing else is sent or fetched"
    parser.add_argument("--allow-network", action="store_true", help=network)
    most = f"read images of up to so many pixels, each of which takes 3 bytes of memory and more ({MAX_PIXELS})"
    parser.add_argument("--max-pixels", type=_number(1), metavar="N", help=most)
    follow = 'videos: number objects, so that each keeps its number (pip install "detseg[track]")'
    parser.add_argument("--track", action="store_true", help=follow)


def _either(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _scales(text: str) -> list[float]:
    try:
        return [float(scale) for scale in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected numbers with commas, such as 1,1.25, got {text!r}") from error


def _formats(known: Sequence[str]) -> Callable[[str], list[str]]:
    def formats(text: str) -> list[str]:
        chosen = _names(text)
        if not set(chosen) <= set(known):
            raise argparse.ArgumentTypeError(f"expected {_either(known)}, or several with commas, got {text!r}")
        return chosen

    return formats


def _number(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")
        return int(text)

    return number
