"""What limits a training, and the one setting to try first: rules over the numbers of a benchmark.

The first rule that holds decides; docs/benchmarking.md states them for readers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from detseg.benchmark.loading import DECODE
from detseg.benchmark.seams import ASSIGNMENT, AVERAGE, CLIPPING, COPY, LOSS, OPTIMISER, PROPOSALS, REST

LOADER_SHARE = 0.15
"""Of the training's time spent waiting: from here on the loader limits it."""
CROWDED_SHARE = 0.2
"""Lost by training with the loader beside it, though it does not wait: from here on loading takes cores away, ..."""
DEMAND = 0.1
"""... if the images that the step could take need this share of all cores to be loaded."""
WORTH_WORKERS = 1.15
"""Times more images a second that other numbers of workers must give to be advised."""
VALIDATION_SHARE = 0.25
REST_SHARE = 0.25
COPY_SHARE = 0.15
UPDATE_SHARE = 0.25
LOSS_SHARE = 0.3
SMALL_MEMORY_SHARE = 0.4
"""Of a GPU's memory in use: below it a larger batch fits."""


@dataclass(frozen=True)
class Figures:
    """The numbers that the rules look at; None: not measured.

    Attributes:
        batch_size: images of a step.
        num_workers: loader processes of the settings.
        num_cores: of the machine, as far as this process may use them.
        loader_rates: images a second by number of processes.
        loading: milliseconds an image by part of loading.
        step_rate: images a second of training alone.
        fed_rate: images a second of training with the loader.
        waiting: share of that time in which the training waits.
        shares: of the parts of a step, summing to 1.
        validation_share: of the time of a training; None also where the data is made up.
        validate_every: epochs from one validation to the next.
        max_epochs: of the training.
        on_gpu: whether it computes on a GPU.
        lowers_precision: whether bfloat16 would be computed natively, and the settings say float32.
        can_compile: whether torch.compile is off and could be on.
        two_stage: whether the model proposes regions.
        memory_share: of the GPU's memory that is in use.
    """

    batch_size: int
    num_workers: int
    num_cores: int = 1
    loader_rates: Mapping[int, float] = field(default_factory=dict)
    loading: Mapping[str, float] = field(default_factory=dict)
    step_rate: float | None = None
    fed_rate: float | None = None
    waiting: float | None = None
    shares: Mapping[str, float] = field(default_factory=dict)
    validation_share: float | None = None
    validate_every: int = 1
    max_epochs: int = 100
    on_gpu: bool = False
    lowers_precision: bool = False
    can_compile: bool = False
    two_stage: bool = False
    memory_share: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What limits a training.

    Attributes:
        rule: which rule held: ``loader``, ``cores``, ``validation``, ``overhead``, ``copy``, ``update``, ``loss``,
            ``network``, ``unknown``.
        bottleneck: what the numbers say, one line.
        advice: what to try first, one line that names a setting.
    """

    rule: str
    bottleneck: str
    advice: str


def judge(figures: Figures) -> Verdict:
    """The verdict of the first rule that holds."""
    flags = (*_loader(figures), *_validation(figures), *_parts_of_step(figures), *_network(figures))
    unmeasured = "training steps were not measured, so that nothing can be compared"
    return next(iter(flags), Verdict("unknown", unmeasured, "measure them: leave --stages out, or add step to it"))


def _loader(figures: Figures) -> Iterator[Verdict]:
    step, fed = figures.step_rate, figures.fed_rate
    if step is None or fed is None or figures.waiting is None:
        return
    workers = _workers(figures.num_workers)
    alone = figures.loader_rates.get(figures.num_workers)
    gives = f"gives {alone:.3g} images/s with {workers}" if alone is not None else f"has {workers}"
    if figures.waiting >= LOADER_SHARE:
        yield Verdict(
            "loader",
            f"the loader limits training: it {gives}, the step could take {step:.3g}; together they do {fed:.3g}, "
            f"{figures.waiting:.0%} of the time spent waiting",
            _loader_advice(figures),
        )
        return
    demand = sum(figures.loading.values()) / 1000 * step / figures.num_cores
    if not figures.on_gpu and fed <= (1 - CROWDED_SHARE) * step and demand >= DEMAND:
        yield Verdict(
            "cores",
            f"loading takes cores from the step: alone it does {step:.3g} images/s, beside {workers} {fed:.3g}",
            _cheaper_loading(figures),
        )


def _loader_advice(figures: Figures) -> str:
    # Without processes, loading and training take turns: that never feeds a step fully.
    rates = {num: rate for num, rate in figures.loader_rates.items() if num}
    now = figures.loader_rates.get(figures.num_workers)
    if rates and now is not None and figures.step_rate is not None:
        enough = [num for num in sorted(rates) if rates[num] >= figures.step_rate]
        best = enough[0] if enough else max(rates, key=lambda num: rates[num])
        if rates[best] >= WORTH_WORKERS * now or (not figures.num_workers and enough):
            return f"set data.num_workers={best}: that gives {rates[best]:.3g} images/s"
    return _cheaper_loading(figures)


def _cheaper_loading(figures: Figures) -> str:
    loading = figures.loading
    if not loading:
        return "raise data.num_workers; with the stage loader measured, a number could be named"
    largest = max(loading, key=lambda name: loading[name])
    of_all = f"takes {loading[largest]:.3g} of {sum(loading.values()):.3g} ms an image"
    if largest != DECODE:
        return f"{largest} {of_all}: take something out of data.augmentation"
    return f"{largest} {of_all}: store the pictures no larger than data.image_size"


def _validation(figures: Figures) -> Iterator[Verdict]:
    share = figures.validation_share
    if share is None or share < VALIDATION_SHARE or figures.validate_every >= figures.max_epochs:
        return
    every = min(figures.max_epochs, max(2 * figures.validate_every, 2))
    yield Verdict(
        "validation",
        f"validation takes {share:.0%} of a training (every {_epochs(figures.validate_every)})",
        f"set trainer.validate_every={every}",
    )


def _parts_of_step(figures: Figures) -> Iterator[Verdict]:
    shares = figures.shares
    doubled = f"set data.batch_size={2 * figures.batch_size} (with optimizer.lr to match): it is paid once a step"
    coarser = "lower data.image_size: it grows with the number of places"
    if (rest := shares.get(REST, 0.0)) >= REST_SHARE:
        yield Verdict("overhead", f"{rest:.0%} of a step are what surrounds it: Lightning, logging, guards", doubled)
    if (copy := shares.get(COPY, 0.0)) >= COPY_SHARE:
        line = "lower data.image_size: bytes to copy grow with its square"
        yield Verdict("copy", f"{copy:.0%} of a step are copying the batch to the device", line)
    if (update := sum(shares.get(name, 0.0) for name in (CLIPPING, OPTIMISER, AVERAGE))) >= UPDATE_SHARE:
        yield Verdict("update", f"{update:.0%} of a step are optimiser, clipping and EMA", doubled)
    losses = [LOSS, ASSIGNMENT, PROPOSALS]
    if (loss := sum(shares.get(name, 0.0) for name in losses)) >= LOSS_SHARE:
        what = "loss, assignment and proposals" if figures.two_stage else "loss and assignment"
        fewer = "lower model.rpn.pre_nms_top_n_train and model.rpn.post_nms_top_n_train"
        yield Verdict("loss", f"{loss:.0%} of a step are {what}", fewer if figures.two_stage else coarser)


def _network(figures: Figures) -> Iterator[Verdict]:
    if figures.step_rate is None or not figures.shares:
        return
    others = (REST, COPY, CLIPPING, OPTIMISER, AVERAGE, LOSS, ASSIGNMENT, PROPOSALS)
    share = 1 - sum(figures.shares.get(name, 0.0) for name in others)
    fast = "" if figures.fed_rate is None else f"; the loader keeps up with its {figures.step_rate:.3g} images/s"
    line = f"the network limits training: forward and backward are {share:.0%} of a step{fast}"
    yield Verdict("network", line, _faster_network(figures))


def _faster_network(figures: Figures) -> str:
    if figures.lowers_precision:
        return "set trainer.precision=auto: bfloat16 is computed natively here"
    if figures.on_gpu and figures.memory_share is not None and figures.memory_share < SMALL_MEMORY_SHARE:
        return (
            f"set data.batch_size={2 * figures.batch_size} (with optimizer.lr to match): {figures.memory_share:.0%} of "
            f"the GPU's memory are in use"
        )
    if figures.can_compile:
        return "try trainer.compile=true, and this benchmark again: it fuses what lies between the convolutions"
    return "lower data.image_size, with whose square the step grows, or take a smaller model.backbone"


def _workers(num: int) -> str:
    return "1 worker" if num == 1 else f"{num} workers"


def _epochs(num: int) -> str:
    return "epoch" if num == 1 else f"{num} epochs"
