"""From a checkpoint, or an exported file, to the predictor of its task. Torch is imported for a checkpoint alone."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detseg.errors import CheckpointError, ConfigError, MissingExtraError, path_of
from detseg.predict.interface import ImagePredictor, refuse_score
from detseg.predict.runtime.engines import SUFFIXES

if TYPE_CHECKING:
    import torch
    from torch import nn


def load_predictor(
    checkpoint: str | Path,
    device: str = "auto",
    score_threshold: float | None = None,
    *,
    compile: bool = False,
    model: nn.Module | None = None,
) -> ImagePredictor[Any]:
    """Load a trained model for prediction.

    Args:
        checkpoint: a run directory, whose best checkpoint counts, or a file: ``.ckpt`` of a run, whose averaged weights
            are used where it has them, ``.safetensors``, or ``.onnx`` or ``.xml`` of `detseg export`.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        score_threshold: of a detector: detections below it are left out, in [0, 1]; 0 keeps all that evaluation counts
            (scores above the model's own, very low threshold). None: 0.3; the table of an evaluation says which is best
            for each class.
        compile: have the networks compiled by torch.compile at the first image, which takes seconds to minutes;
            results then differ from evaluation's by rounding. On a CPU it needs a C++ compiler.
        model: a module of your own, whose weights the checkpoint holds; None: the model that its settings describe.

    Returns:
        A predictor of ``Detections`` or of ``SegmentationMap``, as the model is: of a checkpoint a ``Predictor`` or a
        ``SegmentationPredictor``, else an ``ExportedPredictor`` or an ``ExportedSegmentationPredictor``. Its results
        are typed ``Any``, since only the file knows; ``isinstance``, or an annotation as in
        ``predictor: ImagePredictor[Detections] = load_predictor(path)``, tells a type checker.

    Raises:
        CheckpointError: the file is missing, damaged, or not a detseg checkpoint, or holds weights of a module that is
            not given.
        ConfigError: an argument is wrong, this machine has no such device, or the model gives no scores to threshold.
    """
    path = path_of("checkpoint", checkpoint)
    if path.suffix in SUFFIXES:
        if compile or model is not None:
            raise ConfigError(f"{path}: is exported; compile and model are for checkpoints, leave them out")
        from detseg.predict.runtime.predictor import load_exported

        return load_exported(path, device, score_threshold)
    if path.suffix == ".pt2":
        raise CheckpointError(f"{path}: torch unpickles programs, which could run any code; load a checkpoint or .onnx")
    if find_spec("torch") is None:
        raise MissingExtraError(f'{path}: a checkpoint needs torch: pip install "detseg[torch]"; or export it as ONNX')
    from detseg.factory import load_model
    from detseg.tasks import kind_of

    target = find_device(device)  # first, since it is quick to say
    trained, config, contents = load_model(path, model)
    kind = kind_of(config.model)
    if not kind.finds_objects:
        refuse_score(path, config.model.name, score_threshold)
    options: dict[str, Any] = {} if score_threshold is None else {"score_threshold": score_threshold}
    options |= {"compile": compile, "value_range": config.data.value_range}
    return kind.predictor()(trained, contents.classes, config.data.input_hw, target, **options)


def find_device(device: str) -> torch.device:
    """The device of a name (``cpu``, ``cuda``, ``cuda:1``, ``mps``); ``auto``: a CUDA GPU if there is one. ConfigError:
    this machine, or this build of torch, has no such device."""
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, TypeError, AssertionError) as error:  # torch asserts when it is built without CUDA
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device: expected auto, cpu, cuda, cuda:1, mps, ... as this machine has them, got {device!r} ({reason})"
        ) from error
    return resolved
