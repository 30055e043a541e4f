"""Says which sample and which term made the numbers of a step wrong (``tools/replay.py``)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from detseg.draw import write_picture
from detseg.experiment.replay_step import Outcome, ReplayedStep, SampleOutcome
from detseg.messages import printable
from detseg.training.nan_bundle import BundleBatch, NanBundle, read_bundle
from detseg.training.nan_report import gradient_sentence, terms_sentence

_MAX_LISTED = 8


@dataclass(frozen=True)
class Replay:
    """A step that was made once more.

    Attributes:
        batches: what each batch of the bundle's process gave, in their order.
        as_recorded: whether all their terms are the recorded ones, to the last bit.
        bad_weights: names of the weights that were not finite before the step.
        samples: what each sample gave alone.
        pictures: of samples at fault with their targets, in the folder of the bundle.
    """

    batches: list[Outcome]
    as_recorded: bool
    bad_weights: list[str]
    samples: list[SampleOutcome]
    pictures: list[Path]

    @property
    def faulty(self) -> list[SampleOutcome]:
        """The samples that are at fault by themselves."""
        return [sample for sample in self.samples if sample.outcome.at_fault]


def replay(folder: Path, overrides: Sequence[str] = (), console: Console | None = None) -> Replay:
    """Make the step of a bundle once more on the CPU, and say what came of it.

    Args:
        folder: the bundle; pictures of samples at fault are left in it.
        overrides: ``data.key=value`` each, as ``data.root=DIR`` where the data lies elsewhere by now.
        console: where it is said; None: standard output.

    Raises:
        CheckpointError: not a bundle, or one that does not fit the data or itself.
        ConfigError: an override is wrong, or the settings in the bundle are.
        DataError: the data is missing or wrong, or a picture could not be written.
    """
    say = partial((console or Console(markup=False)).print, highlight=False, markup=False, soft_wrap=True)
    bundle, tensors = read_bundle(folder)
    step = ReplayedStep(folder, bundle, tensors, overrides)
    own = [batch for batch in bundle.batches if batch.rank == bundle.rank]
    others = [batch for batch in bundle.batches if batch.rank != bundle.rank]
    say(_headline(bundle))
    outcomes = [step.run(batch) for batch in own]
    same = [_say_terms(entry, outcome, say) for entry, outcome in zip(own, outcomes, strict=True)]
    if not all(same):
        say(_why_different(bundle))
    samples = [sample for batch in own for sample in step.run_alone(batch)]
    if others and not any(sample.outcome.at_fault for sample in samples):
        say("no sample of this process is at fault alone; those of the others are looked at")
        samples += [sample for batch in others for sample in step.run_alone(batch)]
    result = Replay(outcomes, all(same), step.bad_weights, samples, [])
    for line in _verdict(result):
        say(line)
    for sample in result.faulty[:_MAX_LISTED]:
        if sample.picture is not None:
            path = folder / f"batch{sample.batch:05d}_sample{sample.index:07d}.png"
            write_picture(path, sample.picture)
            result.pictures.append(path)
            say(f"picture: {path}")
    return result


def _headline(bundle: NanBundle) -> str:
    where = f"epoch {bundle.epoch + 1}, step {bundle.step}"
    process = f", process {bundle.rank} of {bundle.world_size}" if bundle.world_size > 1 else ""
    norms = ", ".join(f"{norm:.4g}" for norm in bundle.gradient_norms[-5:])
    last = f"; gradient norms up to it: {norms}" if norms else ""
    recorded = printable(f"{bundle.precision} on {bundle.device}")
    return f"{where}{process}: recorded in {recorded}, replayed on cpu{last}"


def _say_terms(entry: BundleBatch, outcome: Outcome, say: Callable[[str], object]) -> bool:
    """Say the terms of a batch; returns whether they are the recorded ones."""
    shown = f"batch {entry.number}, {len(entry.samples)} samples: {terms_sentence(outcome.terms)}"
    if _same(entry.terms, outcome.terms):
        say(f"{shown}, as recorded")
        return True
    recorded = terms_sentence({"loss": math.nan, **entry.terms})
    say(f"{shown}; recorded: {printable(recorded)}")
    return False


def _same(recorded: dict[str, float], found: dict[str, float]) -> bool:
    return recorded.keys() == found.keys() and all(
        found[name] == value or (math.isnan(found[name]) and math.isnan(value)) for name, value in recorded.items()
    )


def _why_different(bundle: NanBundle) -> str:
    reasons = []
    if bundle.device != "cpu":
        reasons.append(f"{printable(bundle.device)} adds up in another order, and draws other numbers")
    if bundle.world_size > 1:
        reasons.append("the run divided by the counts of all its processes")
    reasons.append("the images or annotations may have been changed, or torch is another version")
    return f"not the recorded numbers: {'; '.join(reasons)}"


def _verdict(result: Replay) -> Iterator[str]:
    """Who is at fault, in lines."""
    if result.bad_weights:
        num_bad, first = len(result.bad_weights), result.bad_weights[0]
        yield f"{num_bad} weights were not finite before the step, first {first}: no sample is to blame"
    if any(sample.recorded_statistics for sample in result.samples):
        yield "alone, samples this small are normalised by the recorded statistics instead of their own"
    for sample in result.faulty[:_MAX_LISTED]:
        yield f"at fault: {_name(sample)}: {_fault(sample.outcome)}"
    if len(result.faulty) > _MAX_LISTED:
        yield f"... and {len(result.faulty) - _MAX_LISTED} more"
    if len(result.samples) > 1 and len(result.faulty) == len(result.samples):
        yield "all of the samples are: it is not the data; lower optimizer.lr, or set trainer.precision=float32"
    if not result.faulty:
        together = [outcome for outcome in result.batches if outcome.at_fault]
        if together:
            yield f"at fault: no sample alone, only together: {_fault(together[0])}"
        else:
            yield "at fault: nothing; here, all terms and gradients are finite"
    finite = [sample for sample in result.samples if not sample.outcome.at_fault]
    finite.sort(key=lambda sample: -sample.outcome.norm)
    if finite:
        norms = ", ".join(f"{sample.index} {sample.outcome.norm:.4g}" for sample in finite[:_MAX_LISTED])
        yield f"gradient norms of the other samples alone, largest first: {norms}"


def _name(sample: SampleOutcome) -> str:
    return f"sample {sample.index}" + ("" if sample.path is None else f" ({printable(sample.path)})")


def _fault(outcome: Outcome) -> str:
    """Which term, module and parameter."""
    if outcome.bad_slopes:
        return f"the slope of {', '.join(outcome.bad_slopes)}; {gradient_sentence(outcome.norms)}"
    where = (
        "all modules' outputs are finite, the loss is not"
        if outcome.module is None
        else f"first module whose output is not finite: {outcome.module}"
    )
    return f"{terms_sentence(outcome.terms)}; {where}; {gradient_sentence(outcome.norms)}"
