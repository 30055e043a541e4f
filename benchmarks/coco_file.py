"""Loading a COCO file of 118 000 images and 860 000 annotations with polygons, beside ``pycocotools.COCO``."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.comparison import Row, in_turn

NUM_WORKERS = 8
HEIGHT, WIDTH = 480, 640


def coco_file(blocks: int = 3, small: bool = False) -> Iterator[Row]:
    """Time and memory of loading with and without polygons, and what loader processes add."""
    num_images, num_annotations = (1000, 8000) if small else (118_000, 860_000)
    work = f"{num_images // 1000} k images, {num_annotations // 1000} k annotations"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _in_new_process(write_large_coco, folder, num_images, num_annotations)
        results: dict[str, list[dict[str, float]]] = {"polygons": [], "boxes": [], "pycocotools": []}

        def load(*kinds: str) -> float:
            for kind in kinds:
                results[kind].append(_in_new_process(_load, kind, folder))
            return 0.0

        in_turn(partial(load, "polygons", "boxes"), partial(load, "pycocotools"), blocks, warm_up=0)
        for stage, key, kind, unit, target in (
            ("load with polygons", "seconds", "polygons", "s", 4.0),
            ("load with boxes", "seconds", "boxes", "s", 5.0),
            ("most memory while loading", "peak", "polygons", "MB", 3.0),
            ("memory once loaded", "after", "polygons", "MB", 5.0),
        ):
            ours, theirs = (tuple(values[key] for values in results[side]) for side in (kind, "pycocotools"))
            yield Row(f"COCO file: {stage}", work, f"pycocotools {version('pycocotools')}", ours, theirs, unit, target)
        for method in ("fork", "spawn"):
            added, main, size = _in_new_process(_added_by_workers, method, folder)
            stage = f"COCO file: each of {NUM_WORKERS} loader processes adds ({method})"
            note = f"the main process has {main:.0f} MB, of which the annotations are {size:.0f} MB"
            yield Row(stage, work, "5 % of the main process", (max(added, 0.1),), (0.05 * main,), "MB", 1.0, note)


def _in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _memory(key: str) -> float:
    """MB of this process: ``VmHWM:`` (the most so far), ``Rss:``, or a sum such as ``Private``."""
    texts = [Path(f"/proc/self/{name}").read_text(encoding="ascii") for name in ("status", "smaps_rollup")]
    return sum(int(line.split()[1]) for line in "".join(texts).splitlines() if line.startswith(key)) * 1024 / 1e6


def _load(kind: str, folder: Path) -> dict[str, float]:
    """Seconds of loading, and the MB that it added: at most on the way, and once it is done."""
    from pycocotools.coco import COCO

    from detseg.data.formats.coco import read_coco

    file, before, begin = folder / "instances.json", _memory("Rss:"), time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        held = COCO(file) if kind == "pycocotools" else read_coco(folder / "images", file, masks=kind == "polygons")
    seconds = time.perf_counter() - begin
    peak, after = _memory("VmHWM:") - before, _memory("Rss:") - before
    del held
    return {"seconds": seconds, "peak": peak, "after": after}


def _added_by_workers(method: str, folder: Path) -> tuple[float, float, float]:
    """MB that each loader process adds by holding and using the data set; of the main process; of the annotations."""
    from detseg.data.formats.coco import read_coco

    dataset = read_coco(folder / "images", folder / "instances.json", masks=True)
    main, size = _memory("Rss:"), sum(array.nbytes for array in _arrays(dataset)) / 1e6
    without = _private(method, None)
    return _private(method, dataset) - without, main, size


def _arrays(dataset: Any) -> list[Any]:
    parts = [*vars(dataset.packed).values(), *vars(dataset.packed.regions).values()]
    return [part for part in parts if hasattr(part, "nbytes")]


def _private(method: str, dataset: Any) -> float:
    """Median of the MB that are each worker's own, which no other process shares."""
    context: Any = multiprocessing.get_context(method)
    barrier, queue = context.Barrier(NUM_WORKERS), context.SimpleQueue()
    workers = [context.Process(target=_hold, args=(dataset, barrier, queue), daemon=True) for _ in range(NUM_WORKERS)]
    for worker in workers:
        worker.start()
    return float(sorted(queue.get() for _ in workers)[NUM_WORKERS // 2])


def _hold(dataset: Any, barrier: Any, queue: Any) -> None:
    """Look at every twentieth image as a loader does: its boxes, and its masks are filled."""
    from pycocotools import mask  # noqa: F401  # both kinds of worker shall have imported the same

    from detseg.data.formats.coco import read_coco  # noqa: F401  # likewise

    if dataset is not None:
        for array in _arrays(dataset):
            array.max(initial=0)
        for index in range(0, len(dataset), 20):
            dataset.annotations(index)
    barrier.wait()
    private = _memory("Private")
    barrier.wait()
    queue.put(private)


def write_large_coco(folder: Path, images: int, annotations: int, seed: int = 0) -> Path:
    """Write a folder ``images`` of empty files and ``instances.json``, whose path is returned.

    Regions come from a pool of random ones, with as many corners as COCO's; keys, their order and the form of numbers
    are those of ``instances_train2017.json``.  Some images have no annotation, others dozens.
    """
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    ids = np.sort(rng.choice(600_000, images, replace=False)).tolist()
    size = {"height": HEIGHT, "width": WIDTH, "date_captured": "2013-11-14 11:18:45"}
    entries = []
    for image_id in ids:
        name, url = f"{image_id:012d}.jpg", f"http://farm9.staticflickr.com/8186/{image_id}_6a1fb9ae8f_z.jpg"
        (folder / "images" / name).touch()
        names = {"file_name": name, "coco_url": f"http://images.cocodataset.org/train2017/{name}"}
        entries.append({"license": 1, **names, **size, "flickr_url": url, "id": image_id})
    pool_size = min(8192, annotations)
    pool = [_region(rng, crowd=number < 0.012 * pool_size) for number in range(pool_size)]
    weights = rng.gamma(1.0, size=images)
    image_ids = rng.choice(ids, annotations, p=weights / weights.sum()).tolist()
    regions, categories = (rng.integers(low, high, annotations).tolist() for low, high in ((0, pool_size), (1, 81)))
    objects = [
        {**pool[region][0], "image_id": image_id, **pool[region][1], "category_id": category, "id": number}
        for number, (image_id, region, category) in enumerate(zip(image_ids, regions, categories, strict=True), 1)
    ]
    classes = [{"supercategory": "thing", "id": n, "name": f"class {n}"} for n in range(1, 81)]
    content = {"info": {"description": "synthetic"}, "licenses": [{"id": 1, "name": "none"}], "images": entries}
    file = folder / "instances.json"
    file.write_text(json.dumps({**content, "annotations": objects, "categories": classes}), encoding="utf-8")
    return file


def _region(rng: np.random.Generator, crowd: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """An annotation's members before and behind its ``image_id``: a crowd's run lengths, or one to three polygons."""
    if crowd:  # it leaves out four columns on the left
        inside = HEIGHT * (WIDTH - 4)
        runs = np.sort(rng.choice(inside // 20, 200, replace=False)) * 20
        counts = [HEIGHT * 4, *np.diff(runs, prepend=0, append=inside).tolist()]
        segmentation: Any = {"counts": counts, "size": [HEIGHT, WIDTH]}
        box = [4, 0, WIDTH - 4, HEIGHT]
    else:
        polygons, side = [], float(np.exp(rng.normal(4.2, 1.0)).clip(3, 460))
        centre = side / 2 + rng.random(2) * [WIDTH - side, HEIGHT - side]
        for _ in range(1 + int(rng.random() < 0.1) + int(rng.random() < 0.03)):  # about 22 corners around the centre
            angles = np.linspace(0, 2 * np.pi, int(np.exp(rng.normal(2.85, 0.65)).clip(4, 250)), endpoint=False)
            radii = side / 2 * (0.7 + 0.3 * rng.random((len(angles), 1)))
            points = centre + np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii
            polygons.append(points.clip(0, [WIDTH, HEIGHT]).round(2))
        segmentation = [polygon.ravel().tolist() for polygon in polygons]
        every = np.concatenate(polygons)
        box = [round(v, 2) for v in (*every.min(0).tolist(), *np.ptp(every, axis=0).tolist())]
    area = round(box[2] * box[3] * 0.6 + 0.0625, 4)
    return {"segmentation": segmentation, "area": area, "iscrowd": int(crowd)}, {"bbox": box}
