"""`detseg predict`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detseg.cli.tool import CHECKPOINT, DEVICES, ToolParser, exit_on_sigterm, score
from detseg.errors import ConfigError

if TYPE_CHECKING:
    from detseg.predict import ImagePredictor
    from detseg.predict.outputs import Share
    from detseg.predict.refine import Refinement


def predict(argv: Sequence[str]) -> int:
    """Images → drawn copies and detections, or masks: detseg predict runs/mine images/ --out found/"""
    arguments = _parser().parse_intermixed_args(argv)

    from detseg.predict.files import predict_files

    share = _share()
    with exit_on_sigterm():
        predictor, refine = _opened(arguments, _device(arguments.device, share))
        done = predict_files(
            predictor,
            arguments.images,
            arguments.out,
            tile=arguments.tile and tuple(arguments.tile),
            overlap=arguments.overlap,
            full_image=arguments.full_image,
            merge=arguments.merge,
            formats=arguments.format,
            mask_values=arguments.mask_values,
            batch_size=arguments.batch_size,
            pictures=not arguments.no_pictures,
            refine=refine,
            overwrite=arguments.overwrite,
            resume=arguments.resume,
            model_id="+".join(map(_checksum, [arguments.checkpoint, *arguments.members])),
            share=share,
        )
    return int(bool(done.passed_over) and share.rank == 0)


def _opened(arguments: argparse.Namespace, device: str) -> tuple[ImagePredictor[Any], Refinement]:
    """The predictor of all models, which finds all that is not below its final threshold, and what is kept of that."""
    from detseg.predict import ensemble, load_predictor
    from detseg.predict.refine import Refinement, read_calibration, read_thresholds

    if arguments.thresholds is not None and arguments.calibration is not None:
        raise ConfigError(
            "--thresholds are of scores that are not calibrated; leave out --calibration, or them: --score then says "
            "how often what is kept has to be right"
        )
    least: float | None = arguments.score
    thresholds: dict[str, float] = {}
    calibration = None if arguments.calibration is None else read_calibration(arguments.calibration)
    if arguments.thresholds is not None:
        thresholds = read_thresholds(arguments.thresholds)
        least = min([_or_default(arguments.score), *thresholds.values()])
    if calibration is not None:
        least = calibration.lowest(_or_default(arguments.score))
    models = [load_predictor(path, device, least) for path in (arguments.checkpoint, *arguments.members)]
    predictor = models[0]
    if len(models) > 1 or arguments.flips or arguments.scales:
        predictor = ensemble(models, flips=arguments.flips, scales=arguments.scales or (1.0,))
    if arguments.thresholds is not None or calibration is not None:  # what is not in the file has the score of all
        thresholds = dict.fromkeys(predictor.classes.names, _or_default(arguments.score)) | thresholds
    kept = arguments.classes, thresholds, arguments.min_area, arguments.fill_holes
    return predictor, Refinement(*kept, calibration)


def _parser() -> ToolParser:
    from detseg.predict import EXPORT_FORMATS, MAP_FORMATS, MASK_VALUES
    from detseg.structures import SCORE_THRESHOLD

    parser = ToolParser(
        "predict",
        "Find objects in images, or the class of every pixel, as the checkpoint can. Writes drawn copies, "
        "results.jsonl as results come, and files for other programs. Exit code 1: files were passed over; 2: images "
        "could not be read, or nothing was done.",
    )
    parser.add_argument("checkpoint", type=Path, help=CHECKPOINT)
    parser.add_argument("images", type=Path, nargs="+", help="images, or folders of images (searched all the way)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")
    parser.add_argument("--device", default="auto", help=DEVICES)
    batch = "images, or tiles, that the network sees at a time (1)"
    parser.add_argument("--batch-size", type=_number(1), default=1, metavar="N", help=batch)
    resume = "predict only what an earlier run in --out, which was killed or interrupted, has not done"
    parser.add_argument("--resume", action="store_true", help=resume)

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
    replace = "replace the results of an earlier run, and annotations that exist"
    written.add_argument("--overwrite", action="store_true", help=replace)
    values = "label maps: with labels 0, 1, 2, ..., or the values of the training's masks (labels)"
    written.add_argument("--mask-values", choices=MASK_VALUES, help=values)

    _add_tiles_and_members(parser)
    return parser


def _add_tiles_and_members(parser: ToolParser) -> None:
    from detseg.predict.tiles.objects import MERGES

    tiles = parser.add_argument_group("large images")
    tile = "look at images in tiles of this size in pixels, unscaled (scaled to the input size)"
    tiles.add_argument("--tile", type=int, nargs=2, metavar=("H", "W"), help=tile)
    overlap = "pixels that neighbouring tiles have in common at least (label maps: half a tile, detectors: a quarter)"
    tiles.add_argument("--overlap", type=int, metavar="N", help=overlap)
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


def _or_default(given: float | None) -> float:
    from detseg.structures import SCORE_THRESHOLD

    return SCORE_THRESHOLD if given is None else given


def _share() -> Share:
    """The part of this process under torchrun, or another launcher that sets the same variables."""
    from detseg.predict.outputs import Share

    rank, num = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank is None or num is None:
        return Share()
    if not rank.isdecimal() or not num.isdecimal():
        raise ConfigError(f"RANK and WORLD_SIZE: expected whole numbers, as torchrun sets them, got {rank!r}, {num!r}")
    return Share(int(rank), int(num))


def _device(device: str, share: Share) -> str:
    """Of several processes on a machine each takes a GPU of its own, in turn."""
    import torch

    local = os.environ.get("LOCAL_RANK", "")
    if share.num > 1 and device in ("auto", "cuda") and local.isdecimal() and torch.cuda.is_available():
        return f"cuda:{int(local) % torch.cuda.device_count()}"
    return device


def _checksum(checkpoint: Path) -> str:
    """What tells a model from others."""
    import hashlib

    from detseg.checkpoint import run_checkpoint

    with run_checkpoint(checkpoint).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
