"""`detseg predict`: images by way of a journal, videos frame by frame."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detseg.cli.deploy.predict_options import predict_parser
from detseg.cli.tool import exit_on_sigterm
from detseg.errors import ConfigError, DataError, LeftOutError

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
    arguments = predict_parser().parse_intermixed_args(argv)

    from PIL import Image

    from detseg.predict.files import is_output
    from detseg.predict.run import run_settings
    from detseg.predict.video.find import split_videos
    from detseg.predict.video.run import video_places

    share = _share()
    videos, images = split_videos(arguments.images)
    videos = [video for video in videos if not is_output(Path(video.source), video.name, arguments.out)]
    _check_video_options(arguments, bool(videos), bool(images))
    if share.rank > 0:
        videos = []  # the first process does them
    passed_over, errors = False, list[DataError]()
    with exit_on_sigterm():
        predictor, refine = _opened(arguments, _device(arguments.device, share))
        if arguments.max_pixels is not None:
            predictor.max_pixels = arguments.max_pixels
            Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit, which its reader of TIFF looks at
        options = _tiling(arguments, predictor)
        model_id = "+".join(map(_checksum, [arguments.checkpoint, *arguments.members]))
        of_model = predictor, refine, model_id, arguments.batch_size, not arguments.no_pictures, options
        settings = run_settings(*of_model) | {"track": arguments.track}
        places = video_places(videos, arguments.out, settings, arguments.overwrite, arguments.resume)  # before any work
        of_videos = [file for place in places for file in place if file is not None]
        try:
            if images:
                passed_over = _predict_images(arguments, predictor, images, refine, model_id, share, options, of_videos)
        except LeftOutError as error:  # the videos are done all the same
            errors.append(error)
        try:
            if videos:
                _predict_videos(arguments, predictor, videos, refine, model_id, options)
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
    model_id: str,
    share: Share,
    options: dict[str, Any],
    of_videos: Sequence[Path],
) -> bool:
    """Whether some were passed over."""
    from detseg.predict.files import predict_files

    done = predict_files(
        predictor,
        images,
        arguments.out,
        formats=arguments.format,
        mask_values=arguments.mask_values,
        batch_size=arguments.batch_size,
        pictures=not arguments.no_pictures,
        refine=refine,
        overwrite=arguments.overwrite,
        resume=arguments.resume,
        model_id=model_id,
        share=share,
        allow_network=arguments.allow_network,
        also_replaced=of_videos,
        **options,
    )
    return bool(done.passed_over)


def _predict_videos(
    arguments: argparse.Namespace,
    predictor: ImagePredictor[Any],
    videos: Sequence[VideoSource],
    refine: Refinement,
    model_id: str,
    options: dict[str, Any],
) -> None:
    from detseg.predict.video.run import predict_videos

    predict_videos(
        predictor,
        videos,
        arguments.out,
        batch_size=arguments.batch_size,
        pictures=not arguments.no_pictures,
        track=arguments.track,
        refine=refine,
        overwrite=arguments.overwrite,
        resume=arguments.resume,
        model_id=model_id,
        allow_network=arguments.allow_network,
        options=options,
    )


def _tiling(arguments: argparse.Namespace, predictor: ImagePredictor[Any]) -> dict[str, Any]:
    """The options of the predictor's call that are given; ConfigError for one of the other kind of model."""
    from detseg.predict.interface import ObjectPredictor

    given = {"overlap": arguments.overlap, "full_image": arguments.full_image or None, "merge": arguments.merge}
    found = {name: value for name, value in given.items() if value is not None}
    wrong = [name for name in ("full_image", "merge") if name in found]
    if wrong and not isinstance(predictor, ObjectPredictor):
        what = "is for tiles of detectors, and this is a segmentation model; leave it out"
        raise ConfigError(f"--{wrong[0].replace('_', '-')}: {what}")
    return found | ({"tile": tuple(arguments.tile)} if arguments.tile else {})


def _check_video_options(arguments: argparse.Namespace, has_videos: bool, has_images: bool) -> None:
    """ConfigError for an option that is for images alone, or for videos."""
    if not has_videos:
        if arguments.track:
            raise ConfigError("--track: follows objects through a video, and there is none; leave it out")
        return
    if not has_images and (arguments.format or arguments.mask_values):
        raise ConfigError("--format, --mask-values: are for images; a video gets JSON lines, leave them out")


def _opened(arguments: argparse.Namespace, device: str) -> tuple[ImagePredictor[Any], Refinement]:
    """The predictor of all models, which finds all that is not below its final threshold, and what is kept of that."""
    from detseg.predict import ensemble, load_predictor
    from detseg.predict.interface import ObjectPredictor
    from detseg.predict.refine import Refinement, read_calibration, read_thresholds
    from detseg.structures import SCORE_THRESHOLD

    if arguments.thresholds is not None and arguments.calibration is not None:
        raise ConfigError(
            "--thresholds are of scores that are not calibrated; leave out --calibration, or them: --score then says "
            "how often what is kept has to be right"
        )
    score: float = SCORE_THRESHOLD if arguments.score is None else arguments.score
    least = score
    thresholds: dict[str, float] = {}
    calibration = None if arguments.calibration is None else read_calibration(arguments.calibration)
    if arguments.thresholds is not None:
        thresholds = read_thresholds(arguments.thresholds)
        least = min(score, *thresholds.values())
    if calibration is not None:
        least = calibration.lowest(score)
    models = [load_predictor(path, device, arguments.score) for path in (arguments.checkpoint, *arguments.members)]
    for model in models:
        if isinstance(model, ObjectPredictor):
            model.score_threshold = least
    predictor = models[0]
    if len(models) > 1 or arguments.flips or arguments.scales:
        predictor = ensemble(models, flips=arguments.flips, scales=arguments.scales or (1.0,))
    if arguments.thresholds is not None or calibration is not None:  # what is not in the file has the score of all
        thresholds = dict.fromkeys(predictor.classes.names, score) | thresholds
    kept = arguments.classes, thresholds, arguments.min_area, arguments.fill_holes
    return predictor, Refinement(*kept, calibration)


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
    digest = hashlib.sha256()
    for path in (checkpoint, *([checkpoint.with_suffix(".bin")] if checkpoint.suffix == ".xml" else [])):
        digest.update(path.read_bytes())  # OpenVINO's weights are in the second file
    return digest.hexdigest()[:16]
