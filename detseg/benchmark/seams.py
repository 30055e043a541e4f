"""Where a step, a validation and a prediction are divided into parts: calls of live objects that are timed while a
``with`` block runs.  Neither models nor tasks know of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from detseg.benchmark.clock import Stopwatch

REST = "rest"
"""What no seam claims: Lightning, logging, the conversion of the images, and what a guard keeps."""

COPY, FORWARD, LOSS, ASSIGNMENT, PROPOSALS = "copy to the device", "forward", "loss", "assignment", "proposals, NMS"
BACKWARD, OPTIMISER, CLIPPING, AVERAGE = "backward", "optimiser", "finite check, clipping", "EMA"
NETWORK, DECODE, NMS = "network", "decode", "threshold, NMS"
PRE, POST = "pre: letterbox, to float", "post: to original pixels"
STEP_ORDER = (COPY, FORWARD, LOSS, ASSIGNMENT, PROPOSALS, BACKWARD, CLIPPING, OPTIMISER, AVERAGE, REST)
"""Parts of a step in the order of the table."""

EVALUATOR, AT_ORIGINAL_SIZE, CONFUSION = "evaluator", "labels at original size", "confusion, boundary"

LOADING = "waiting for the loader"
VALIDATION_ORDER = (LOADING, NETWORK, PROPOSALS, LOSS, DECODE, NMS, EVALUATOR, AT_ORIGINAL_SIZE, CONFUSION, REST)
PREDICTION_ORDER = (PRE, NETWORK, PROPOSALS, DECODE, NMS, POST)


class Seam(NamedTuple):
    """A call that is timed.

    Attributes:
        owner: an object.
        attribute: what of it is called, a method or a callable attribute; calls of its methods are timed as well.
        part: whose time that is.
    """

    owner: Any
    attribute: str
    part: str


class _Timed:
    """Stands in for something that is called, or whose methods are."""

    def __init__(self, inner: Any, stopwatch: Stopwatch, part: str) -> None:
        self.__wrapped__ = inner  # by this name ``inspect`` finds the arguments of what is called
        self._stopwatch, self._part = stopwatch, part

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if not self._stopwatch.is_running:
            return self.__wrapped__(*arguments, **options)
        with self._stopwatch.part(self._part):
            return self.__wrapped__(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.__wrapped__, name)
        return _Timed(value, self._stopwatch, self._part) if callable(value) and not name.startswith("_") else value


@contextmanager
def timed_calls(stopwatch: Stopwatch, seams: Iterable[Seam]) -> Iterator[None]:
    """Times the seams by the stopwatch, while it runs; behind the block all objects are as they were."""
    undone = []
    try:
        for owner, attribute, part in seams:
            own, called = vars(owner), getattr(owner, attribute)
            undone.append((own, attribute, attribute in own, own.get(attribute)))
            # Past ``__setattr__``: in an nn.Module a submodule is hidden so, and stays registered.
            own[attribute] = _Timed(called, stopwatch, part)
        yield
    finally:
        for own, attribute, was_there, before in reversed(undone):
            if was_there:
                own[attribute] = before
            else:
                del own[attribute]


def step_seams(trainer: Any, task: Any) -> list[Seam]:
    """A training step within ``trainer.fit``."""
    average = [] if task.average is None else [Seam(task.average, "update", AVERAGE)]
    return [
        Seam(trainer.strategy, "batch_to_device", COPY),
        Seam(task, "training_step", REST),
        Seam(task.model, "losses", FORWARD),
        *_existing(
            (getattr(task.model, "scheme", None), "losses", LOSS),
            (getattr(task.model, "scheme", None), "assigner", ASSIGNMENT),
            (getattr(task.model, "rpn", None), "losses", LOSS),
            (getattr(task.model, "rpn", None), "assigner", ASSIGNMENT),
            (getattr(task.model, "rpn", None), "propose", PROPOSALS),
            (getattr(task.model, "roi_heads", None), "losses", LOSS),
            (getattr(task.model, "roi_heads", None), "assigner", ASSIGNMENT),
            (task.model, "criterion", LOSS),
        ),
        *_region_networks(task.model, FORWARD),
        Seam(task, "backward", BACKWARD),
        Seam(task, "optimizer_zero_grad", OPTIMISER),
        Seam(task.guard, "check", CLIPPING),
        Seam(task, "configure_gradient_clipping", CLIPPING),
        *(Seam(optimizer, "step", OPTIMISER) for optimizer in trainer.optimizers),
        *average,
    ]


def validation_seams(task: Any) -> list[Seam]:
    """A validation step."""
    model, evaluator = task.evaluated_model, task.evaluator
    is_dense = hasattr(model, "scheme")
    scores_maps = hasattr(model, "criterion")
    return [
        Seam(model, "losses_and_predictions", NMS if is_dense else NETWORK),
        *_existing(
            (getattr(model, "scheme", None), "losses", LOSS),
            (getattr(model, "rpn", None), "losses", LOSS),
            (getattr(model, "roi_heads", None), "losses", LOSS),
            (model, "criterion", LOSS),
        ),
        *_decoding(model),
        Seam(evaluator, "update_batch", AT_ORIGINAL_SIZE if scores_maps else EVALUATOR),
        *([Seam(evaluator, "update", CONFUSION)] if scores_maps else []),
    ]


def prediction_seams(model: Any) -> list[Seam]:
    """``model.predict``, within the call of a Predictor."""
    return [Seam(model, "predict", NMS if hasattr(model, "scheme") else NETWORK), *_decoding(model)]


def _decoding(model: Any) -> list[Seam]:
    """From images to detections; a segmenter has none of it."""
    return [
        *([Seam(model, "forward", NETWORK)] if hasattr(model, "scheme") else []),
        *_existing(
            (getattr(model, "scheme", None), "best_scores", DECODE),
            (getattr(model, "scheme", None), "decode", DECODE),
            (getattr(model, "rpn", None), "propose", PROPOSALS),
            (getattr(model, "roi_heads", None), "detect", NMS),
        ),
        *_region_networks(model, NETWORK),
    ]


def _region_networks(model: Any, part: str) -> list[Seam]:
    """The networks of a second stage, which are called between its losses or its decoding."""
    heads = getattr(model, "roi_heads", None)
    names = [f"{kind}_{name}" for kind in ("box", "mask") for name in ("pool", "head", "predictor")]
    return _existing(*((heads, name, part) for name in names))


def _existing(*seams: tuple[Any, str, str]) -> list[Seam]:
    """Those whose owner is there and has the attribute."""
    return [Seam(*seam) for seam in seams if getattr(seam[0], seam[1], None) is not None]
