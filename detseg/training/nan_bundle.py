"""What a run leaves of a step whose numbers are not finite, for ``tools/replay.py``: a folder of plain data.

``bundle.json`` says which samples the step was made of and what came of it, ``weights.safetensors`` holds the model
from before the step.  There is no pickle in it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from detseg.errors import CheckpointError
from detseg.messages import one_line, printable

JSON, WEIGHTS = "bundle.json", "weights.safetensors"
_MAX_BYTES = 64 * 1024**2
"""A larger ``bundle.json`` is none of ours."""
_NotNegative = Annotated[int, Field(ge=0, lt=2**63)]
_Positive = Annotated[int, Field(ge=1, lt=2**63)]


class _Plain(BaseModel):
    # JSON has no NaN: they are written, and read, as text.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


def _as_utf8(path: str) -> str:
    """The path with what is no UTF-8 escaped, which JSON could not hold; the sample is found by its index."""
    return path.encode(errors="backslashreplace").decode()


class BundleSample(_Plain):
    """A sample as the sampler asked for it, see ``SampleRequest``; ``path``: of its image, where the data set knows."""

    index: _NotNegative
    height: _Positive
    width: _Positive
    mix: bool
    path: Annotated[str, AfterValidator(_as_utf8)] | None


class BundleBatch(_Plain):
    """A batch of the step.

    Attributes:
        rank: the process that had it.
        number: its number within the epoch, from 0.
        samples: in their order; empty where the loader was none of ours.
        indices: positions in the data set.
        terms: its loss terms and their sum, ``loss``; empty for batches of other processes than the bundle's.
    """

    rank: _NotNegative
    number: _NotNegative
    samples: list[BundleSample]
    indices: list[int]
    terms: dict[str, float]


class NanBundle(_Plain):
    """A step whose loss or gradient is not finite.

    Attributes:
        format: of this file.
        config: resolved settings of the run; empty for a task that was made without.
        class_names, source_ids: the class table.
        seed: of the run.
        epoch: of the step, from 0.
        step: its number in the run, from 1.
        rank, world_size: the process that speaks, and how many there were.
        device: what it computed on, as ``cpu`` or ``cuda``.
        num_threads: of the CPU, which the last bits depend on.
        precision: Lightning's name: ``32-true`` or ``bf16-mixed``.
        accumulate_batches: the gradient is that of the losses divided by this.
        num_samples: length of the training set; 0 where the loader was none of ours.
        batches: those of the process in their order, then those of the others.
        gradient_norms: of the last steps, this one last; empty where the gradient is sharded.
        largest_gradients: parameters and the norms of their gradients; those that are not finite first.
        versions: of what computed it.
        numpy_state: name, position and Gaussian left over of numpy's random state; the keys are with the weights.
        python_state: version and Gaussian left over of Python's; its numbers are with the weights.
    """

    format: Literal[1]
    config: dict[str, Any]
    class_names: list[str]
    source_ids: list[int]
    seed: Annotated[int, Field(ge=0, lt=2**64)]
    epoch: _NotNegative
    step: _Positive
    rank: _NotNegative
    world_size: _Positive
    device: str
    num_threads: _Positive
    precision: str
    accumulate_batches: _Positive
    num_samples: _NotNegative
    batches: list[BundleBatch]
    gradient_norms: list[float]
    largest_gradients: list[tuple[str, float]]
    versions: dict[str, str]
    numpy_state: tuple[str, int, int, float]
    python_state: tuple[int, float | None]


class BundleTensors:
    """The tensors of a bundle.

    Attributes:
        weights: the model's state before the step; empty where it was sharded over processes.
        random: keys of the generators of torch, numpy and Python before the step.
    """

    def __init__(self, weights: dict[str, Tensor], random: dict[str, Tensor]) -> None:
        self.weights = weights
        self.random = random


def split_random_state(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A ``random_state`` as the two fields of a ``NanBundle`` and as tensors; that of GPUs is left out."""
    name, keys, *rest = state["numpy"]
    version, numbers, gauss = state["python"]
    fields = {"numpy_state": (name, *rest), "python_state": (version, gauss)}
    tensors = {"torch": state["torch"], "numpy": keys, "python": torch.tensor(numbers, dtype=torch.int64)}
    return fields, tensors


def join_random_state(bundle: NanBundle, random: dict[str, Tensor]) -> dict[str, Any]:
    """The ``random_state`` that ``split_random_state`` took apart."""
    name, *rest = bundle.numpy_state
    version, gauss = bundle.python_state
    return {
        "torch": random["torch"],
        "cuda": [],
        "numpy": [name, random["numpy"], *rest],
        "python": [version, random["python"].tolist(), gauss],
    }


def write_bundle(folder: Path, bundle: NanBundle, tensors: BundleTensors) -> None:
    """Write a bundle, whole or not at all; one of the same step, left by the run before it was resumed, is replaced.

    Raises:
        OSError: the disk refused.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        (partial / JSON).write_text(bundle.model_dump_json(indent=1), encoding="utf-8")
        named = {f"model.{name}": value for name, value in tensors.weights.items()}
        named |= {f"random.{name}": value for name, value in tensors.random.items()}
        # Copies, since safetensors takes neither tied weights nor channels-last.
        flat = {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in named.items()
        }
        try:
            save_file(flat, partial / WEIGHTS)
        except SafetensorError as error:
            raise OSError(one_line(error)) from error
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_bundle(folder: Path) -> tuple[NanBundle, BundleTensors]:
    """Read a bundle.

    Raises:
        CheckpointError: missing, damaged, or not ours.
    """
    path, weights = folder / JSON, folder / WEIGHTS
    if not path.is_file() or not weights.is_file():
        raise CheckpointError(
            f"{folder}: not a bundle of a step, which is a folder of {JSON} and {WEIGHTS}; give the one that the error "
            f"of the run names, nan_epoch..._step..."
        )
    if path.stat().st_size > _MAX_BYTES:
        raise CheckpointError(f"{path}: not a bundle of a step: larger than {_MAX_BYTES >> 20} MiB")
    try:
        bundle = NanBundle.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        what = printable(f"{where}: {first['msg']}" if where else first["msg"])
        raise CheckpointError(f"{path}: damaged, or not a bundle of this version of detseg ({what})") from error
    try:
        tensors = load_file(weights, device="cpu")
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{weights}: damaged, or not a safetensors file ({printable(one_line(error))})"
        ) from error
    parts = {
        kind: {name.removeprefix(kind): value for name, value in tensors.items() if name.startswith(kind)}
        for kind in ("model.", "random.")
    }
    if {"torch", "numpy", "python"} - parts["random."].keys():
        raise CheckpointError(f"{weights}: not the weights of a bundle: the random state is missing")
    return bundle, BundleTensors(parts["model."], parts["random."])
