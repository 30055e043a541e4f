"""Loads a COCO file in a process of its own and says what that took; the far side of ``benchmarks.coco_index``.

python -m benchmarks.index_process {ours,pycocotools} FOLDER {boxes,masks}
python -m benchmarks.index_process {fork,spawn} FOLDER {boxes,masks}
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import resource
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

WORKERS = 8
_EVERY = 20
"""Of so many images one is looked at, as a loader does: its boxes, and its masks are filled."""


def memory(key: str) -> float:
    """MB of this process: ``Rss``, ``Pss``, or a sum such as ``Private``."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024 / 1e6


def measured(which: str, folder: Path, masks: bool) -> dict[str, float]:
    """Seconds of loading, and the MB that it added: at most on the way, and once it is done."""
    file = folder / "instances.json"
    if which == "pycocotools":
        from pycocotools.coco import COCO

        def load() -> Any:
            with contextlib.redirect_stdout(io.StringIO()):
                return COCO(str(file))
    else:
        from detseg.data.formats.coco import read_coco

        def load() -> Any:
            return read_coco(folder / "images", file, masks=masks)

    before = memory("Rss")
    begin = time.perf_counter()
    held = load()
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    assert held is not None
    return {"seconds": seconds, "peak": peak - before, "after": memory("Rss") - before}


def added_by_workers(method: str, folder: Path, masks: bool) -> dict[str, float]:
    """MB that each of eight loader processes adds by holding and using the data set; MB of the main process, and of the
    arrays of annotations in it."""
    from detseg.data.formats.coco import read_coco

    dataset = read_coco(folder / "images", folder / "instances.json", masks=masks)
    main, size = memory("Rss"), sum(array.nbytes for array in _arrays(dataset)) / 1e6
    without = _private(method, None)
    return {"added": _private(method, dataset) - without, "main": main, "size": size}


def _arrays(dataset: Any) -> list[Any]:
    packed, regions = dataset.packed, dataset.packed.regions
    parts = [*vars(packed).values(), *(vars(regions).values() if regions else ())]
    return [part for part in parts if hasattr(part, "nbytes")]


def _private(method: str, dataset: Any) -> float:
    """Median of the workers' own MB; none of it is shared with another process."""
    context: Any = multiprocessing.get_context(method)
    barrier = context.Barrier(WORKERS)
    pipes, workers = [], []
    for _ in range(WORKERS):
        receiver, sender = context.Pipe(duplex=False)
        workers.append(context.Process(target=_hold, args=(dataset, barrier, sender), daemon=True))
        workers[-1].start()
        pipes.append(receiver)
    found = sorted(pipe.recv() for pipe in pipes)
    for worker in workers:
        worker.join()
    return float(found[WORKERS // 2])


def _hold(dataset: Any, barrier: Any, sender: Connection) -> None:
    from pycocotools import mask  # noqa: F401  # both kinds of worker shall have imported the same

    import detseg.data.formats.coco

    assert detseg.data.formats.coco
    if dataset is not None:
        for array in _arrays(dataset):
            array.max(initial=0)
        for index in range(0, len(dataset), _EVERY):
            dataset.annotations(index)
    barrier.wait()
    private = memory("Private")
    barrier.wait()
    sender.send(private)


if __name__ == "__main__":
    which, folder, masks = sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "masks"
    measure = added_by_workers if which in ("fork", "spawn") else measured
    print(json.dumps(measure(which, folder, masks)))
