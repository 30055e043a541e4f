"""Batches copied to a GPU beside its work on the batch before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from detseg.structures import Batch


def copied_ahead(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches on a CUDA device, in their order. While one is worked on, the next is copied by a stream of its own,
    which takes effect where images lie in page-locked memory; so one batch more is in the GPU's memory."""
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch states no types
    ready: tuple[Batch, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(stream):
            copying = batch.to(device), stream.record_event()
        if ready is not None:
            yield _arrived(*ready)
        ready = copying
    if ready is not None:
        yield _arrived(*ready)


def _arrived(batch: Batch, copied: torch.cuda.Event) -> Batch:
    """The batch, once the GPU's work from now on waits for its copy; the host does not wait."""
    work = torch.cuda.current_stream(batch.images.device)
    work.wait_event(copied)
    for tensor in batch.tensors():
        tensor.record_stream(work)  # or a later copy would get the memory before the work is done
    return batch
