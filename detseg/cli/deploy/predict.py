"""`detseg predict`: images by way of a journal, videos frame by frame."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detseg.cli.tool import CHECKPOINT, DEVICES, ToolParser, exit_on_sigterm, score
from detseg.errors import ConfigError, DataError

if TYPE_CHECKING:
    from detseg.predict import ImagePredictor
    from detseg.predict.outputs import Share
    from detseg.predict.refine import Refinement
    from detseg.predict.video.find import VideoSource


def predict(argv: Sequence[str]) -> int:
    """Images → drawn copies and detections, or masks: detseg predict runs/mine images/ --out found/"""
    # Before OpenCV loads: our own lines say what is wrong with a video.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    arguments = _parser().parse_intermixed_args(argv)

    from PIL import Image

    from detseg.predict import load_predictor
    from detseg.predict.refine import Refinement, read_thresholds
    from detseg.predict.video.find import split_videos

    share = _share()
    videos, images = split_videos(arguments.images)
    _check_video_options(arguments, bool(videos), bool(images), share)
    least: float | None = arguments.score
    thresholds: dict[str, float] = {}
    if arguments.thresholds is not None:
        thresholds = read_thresholds(arguments.thresholds)
        least = min([_or_default(arguments.score), *thresholds.values()])
    passed_over, errors = False, list[DataError]()
    with exit_on_sigterm():
        predictor = load_predictor(arguments.checkpoint, _device(arguments.device, share), least)
        if arguments.max_pixels is not None:
            predictor.max_pixels = arguments.max_pixels
            Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit, which its reader of TIFF looks at
        if arguments.thresholds is not None:  # what is not in the file has the score of all
            thresholds = dict.fromkeys(predictor.classes.names, _or_default(arguments.score)) | thresholds
        refine = Refinement(arguments.classes, thresholds, arguments.min_area, arguments.fill_holes)
        try:
            passed_over = bool(images) and _predict_images(arguments, predictor, images, refine, share)
        except DataError as error:  # the videos are done all the same
            errors.append(error)
        try:
            if videos:
                _predict_videos(arguments, predictor, videos, refine)
        except DataError as error:
            errors.append(error)
    if errors:
        raise DataError("; ".join(map(str, errors)))
    return int(passed_over and share.rank == 0)


def _predict_images(
    arguments: argparse.Namespace,
    predictor: ImagePredictor[Any],
    images: Sequence[str | Path],
    refine: Refinement,
    share: Share,
) -> bool:
    """Whether some were passed over."""
    from detseg.predict.files import predict_files

    done = predict_files(
        predictor,
        images,
        arguments.out,
        tile=arguments.tile and tuple(arguments.tile),
        overlap=arguments.overlap,
        formats=arguments.format,
        mask_values=arguments.mask_values,
        batch_size=arguments.batch_size,
        pictures=not arguments.no_pictures,
        refine=refine,
        overwrite=arguments.overwrite,
        resume=arguments.resume,
        model_id=_checksum(arguments.checkpoint),
        share=share,
        allow_network=arguments.allow_network,
    )
    return bool(done.passed_over)


def _predict_videos(
    arguments: argparse.Namespace, predictor: ImagePredictor[Any], videos: Sequence[VideoSource], refine: Refinement
) -> None:
    from detseg.predict.interface import ObjectPredictor
    from detseg.predict.video.run import predict_videos

    tiling = {"tile": arguments.tile and tuple(arguments.tile), "overlap": arguments.overlap}
    is_tiled = arguments.tile is not None or arguments.overlap is not None
    if is_tiled and isinstance(predictor, ObjectPredictor):
        raise ConfigError("tile and overlap are for segmentation models, and this is a detector; leave them out")
    predict_videos(
        predictor,
        videos,
        arguments.out,
        batch_size=arguments.batch_size,
        pictures=not arguments.no_pictures,
        track=arguments.track,
        refine=refine,
        overwrite=arguments.overwrite,
        allow_network=arguments.allow_network,
        options=tiling if is_tiled else {},
    )


def _check_video_options(arguments: argparse.Namespace, has_videos: bool, has_images: bool, share: Share) -> None:
    """ConfigError for an option that is for images alone, or for videos."""
    if not has_videos:
        if arguments.track:
            raise ConfigError("--track: follows objects through a video, and there is none; leave it out")
        return
    if arguments.resume:
        raise ConfigError("--resume: is for images; predict the video anew with --overwrite, apart from images")
    if share.num > 1:
        raise ConfigError("a video is done by one process: predict it without torchrun, apart from images")
    if not has_images and (arguments.format or arguments.mask_values):
        raise ConfigError("--format, --mask-values: are for images; a video gets JSON lines, leave them out")


def _parser() -> ToolParser:
    from detseg.predict import EXPORT_FORMATS, MAP_FORMATS, MASK_VALUES
    from detseg.structures import SCORE_THRESHOLD

    parser = ToolParser(
        "predict",
        "Find objects in images and videos, or the class of every pixel, as the checkpoint can. Writes drawn copies, "
        "results.jsonl as results come (of a video NAME_frames.jsonl), and files for other programs. Exit code 1: "
        "files were passed over; 2: images or videos could not be read, or nothing was done.",
    )
    parser.add_argument("checkpoint", type=Path, help=CHECKPOINT)
    _add_run_options(parser)

    objects = parser.add_argument_group("detectors: which objects")
    threshold = f"leave out what scores below this, 0 to 1: how sure the model is ({SCORE_THRESHOLD})"
    objects.add_argument("--score", type=score, help=threshold)
    own = "a threshold for each class: thresholds.json of `detseg report`; --score is that of all others"
    objects.add_argument("--thresholds", type=Path, metavar="FILE", help=own)
    objects.add_argument(
        "--classes", type=_names, action="extend", default=[], metavar="NAME[,NAME]", help="only these"
    )

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

    tiles = parser.add_argument_group("segmentation: large images")
    tile = "look at images in tiles of this size in pixels, unscaled (scaled to the input size)"
    tiles.add_argument("--tile", type=int, nargs=2, metavar=("H", "W"), help=tile)
    overlap = "pixels that neighbouring tiles have in common at least (half a tile)"
    tiles.add_argument("--overlap", type=int, metavar="N", help=overlap)
    return parser


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
    local = os.environ.get("LOCAL_RANK", "")
    if share.num == 1 or device not in ("auto", "cuda") or not local.isdecimal() or find_spec("torch") is None:
        return device
    import torch

    return f"cuda:{int(local) % torch.cuda.device_count()}" if torch.cuda.is_available() else device


def _checksum(checkpoint: Path) -> str:
    """What tells a model from others."""
    import hashlib

    if checkpoint.is_dir():
        from detseg.checkpoint import run_checkpoint  # loads torch, which an exported file needs not

        checkpoint = run_checkpoint(checkpoint)
    with checkpoint.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
