"""The parts of ``benchmarks.gpu``: each gives rows, and leaves nothing behind but its process."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback, LambdaCallback
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

import detseg
from benchmarks.comparison import measured_on
from detseg.benchmark.results import num_cores
from detseg.checkpoint import read_raw_checkpoint
from detseg.config.load import config_from_dict
from detseg.config.schema.experiment import ExperimentConfig
from detseg.data.formats.coco_writer import CocoWriter
from detseg.data.shapes import render_scene
from detseg.errors import RunStoppedError
from detseg.models.acceleration import compile_networks
from detseg.ops.tensors import to_float
from detseg.structures import Batch, BoxTargets, ClassTable
from detseg.training.callbacks.stopping import StopRequest
from detseg.training.nan import StepGuard
from detseg.training.optim.optimizers import build_optimizer
from detseg.training.setup.build import build_data, build_task, open_data
from detseg.training.setup.trainer import build_bare_trainer


@dataclass(frozen=True)
class Row:
    """What was measured; a ``value`` in its ``unit``, or None where the note says why there is none."""

    what: str
    value: float | None = None
    unit: str = ""
    note: str = ""


@dataclass(frozen=True)
class Options:
    """How parts run: on ``cuda`` or ``cpu``, tiny or not, with an empty folder, and the peak that was measured."""

    device_type: str
    small: bool
    folder: Path
    peak_tflops: float | None = None

    @property
    def device(self) -> torch.device:
        """The first GPU, or the CPU."""
        return torch.device(self.device_type, 0) if self.device_type == "cuda" else torch.device("cpu")

    @property
    def seconds(self) -> float:
        """Of one measurement."""
        return 0.05 if self.small else 3.0

    def timer(self) -> float:
        """Seconds, once the GPU has done its work."""
        if self.device_type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


@dataclass(frozen=True)
class Network:
    """A network with the batch that it trains on; ``tiny`` are the settings of its model with ``--small``."""

    model: dict[str, Any]
    tiny: dict[str, Any]
    side: int
    batch_size: int

    def config(self, options: Options, batch_size: int, **trainer: Any) -> ExperimentConfig:
        """Settings on data that is made here, of 20 classes, with a background where the task wants one."""
        data = {"name": "coco", "root": "unused", "image_size": self.shape(options)[0], "batch_size": batch_size}
        accelerator = "gpu" if options.device_type == "cuda" else "cpu"
        model = self.tiny if options.small else self.model
        return config_from_dict({"model": model, "data": data, "trainer": {"accelerator": accelerator, **trainer}})

    def shape(self, options: Options) -> tuple[int, int]:
        """Side of the input and images of a batch."""
        return (64, 2) if options.small else (self.side, self.batch_size)

    def batch(self, options: Options, size: int) -> Batch:
        """Noise with eight random objects an image, or with label maps of squares; page-locked for a GPU."""
        side, generator = self.shape(options)[0], torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (size, 3, side, side), dtype=torch.uint8, generator=generator)
        targets, semantic = [BoxTargets.empty()] * size, None
        if self.model["name"] == "unet":
            labels = torch.randint(0, 20, (size, side // 16, side // 16), dtype=torch.uint8, generator=generator)
            semantic = labels.repeat_interleave(16, dim=1).repeat_interleave(16, dim=2)
        else:
            corners = torch.rand(size, 8, 2, generator=generator) * side * 0.6
            extents = side / 20 + torch.rand(size, 8, 2, generator=generator) * side * 0.3
            drawn = torch.randint(0, 20, (size, 8), generator=generator)
            boxes, none = torch.cat([corners, corners + extents], dim=2), torch.zeros(8, dtype=torch.bool)
            targets = [BoxTargets(boxes[i], drawn[i], none) for i in range(size)]
        images = images.pin_memory() if options.device_type == "cuda" else images
        return Batch(images, targets, list(range(size)), semantic=semantic)


_TINY = {"name": "csp_nano", "width": 0.0625, "depth": 0.1}
_TINY_YOLO = {"name": "yolo", "backbone": _TINY, "neck": {"name": "pan"}}
_TINY_UNET = {"name": "unet", "backbone": {"name": "unet", "width": 0.0625, "levels": 2}}
_RCNN = {"name": "faster_rcnn", "variant": "resnet50_fpn"}
NETWORKS = {
    "yolo_nano": Network({"name": "yolo"}, _TINY_YOLO, 640, 64),
    "yolo_small": Network({"name": "yolo", "backbone": {"name": "csp_small"}}, _TINY_YOLO, 640, 64),
    "faster_rcnn": Network(_RCNN, {"name": "faster_rcnn", "backbone": _TINY}, 800, 8),
    "unet": Network({"name": "unet", "backbone": {"name": "resnet18"}}, _TINY_UNET, 512, 32),
}
_WARM_UP = 8  # batches of Lightning's that are not measured
CLASSES = ClassTable(tuple(f"class{i}" for i in range(20)))


def machine(options: Options) -> Iterator[Row]:
    """What it was measured on."""
    if options.device_type == "cuda":
        facts = torch.cuda.get_device_properties(0)
        number = f"compute capability {facts.major}.{facts.minor}, torch {torch.__version__}, CUDA {torch.version.cuda}"
        yield Row("memory of the GPU", facts.total_memory / 2**30, "GiB", f"{facts.name}, {number}")
    yield Row("machine", note=measured_on())  # behind the other, since it needs git and an installed detseg


def peak(options: Options) -> Iterator[Row]:
    """What the device does at best: products of large matrices, and copies."""
    size, device = 256 if options.small else 8192, options.device
    for name, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        rate = _calls_per_second(options, partial(torch.matmul, left, right))
        yield Row(f"peak in {name}", 2 * size**3 * rate / 1e12, "TFLOP/s", f"product of matrices of {size}")
    images = torch.zeros(2 if options.small else 64, 3, 640, 640, dtype=torch.uint8)
    for name, host in (("pageable", images), ("page-locked", images)):
        if name == "page-locked" and options.device_type == "cuda":
            host = host.pin_memory()
        rate = _calls_per_second(options, partial(torch.Tensor.to, host, device, non_blocking=True, copy=True))
        yield Row(f"copy of {name} images", images.numel() * rate / 1e9, "GB/s", f"{images.numel() / 1e6:.0f} MB")


def _calls_per_second(options: Options, call: Callable[[], object]) -> float:
    """After calls that warm up; as many as there is time for."""
    for _ in range(3):
        begin = options.timer()
        call()
        each = options.timer() - begin
    number = max(3, min(200, int(options.seconds / max(each, 1e-6))))
    begin = options.timer()
    for _ in range(number):
        call()
    return number / (options.timer() - begin)


class Steps:
    """Training steps of a network on one batch on the device, as the task makes them, with parts left out."""

    def __init__(self, network: Network, options: Options, size: int) -> None:
        torch.manual_seed(0)
        self.options, config = options, network.config(options, size)
        self.task: Any = build_task(config, CLASSES, load_pretrained=False).to(options.device).train()
        self.model: Any = self.task.model
        self.average: Any = self.task.average
        self.optimizer = build_optimizer(config.optimizer, self.model)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.guard = StepGuard()
        self.guard.begin_epoch(self.model)
        self.batch = network.batch(options, size).to(options.device)

    def losses(self, bfloat16: bool = True) -> dict[str, Tensor]:
        """The loss terms with their sum; always with the same random choices."""
        torch.manual_seed(0)
        with torch.autocast(self.options.device_type, torch.bfloat16, enabled=bfloat16):
            terms = self.model.losses(to_float(self.batch.images), self.task.targets(self.batch))
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    def gradient(self, bfloat16: bool = True) -> dict[str, Tensor]:
        """The loss terms, with fresh gradients."""
        self.optimizer.zero_grad()
        terms = self.losses(bfloat16)
        terms["loss"].backward()  # type: ignore[no-untyped-call]  # torch states no types
        return {name: term.detach() for name, term in terms.items()}

    def __call__(self, bfloat16: bool = True, guarded: bool = True) -> None:
        """A whole step."""
        terms = self.gradient(bfloat16)
        if guarded:
            context: Any = SimpleNamespace(batches=[SimpleNamespace(terms=terms)])  # all that a good step is asked for
            self.guard.check(context, self.optimizer)
        clip_grad_norm_(self.parameters, 10.0)
        self.optimizer.step()
        self.average.update(self.model, 1000)


def _fitting(network: Network, options: Options) -> Steps:
    """With the batch of the network, or half of it, again and again, where the memory is not enough."""
    for halvings in range(8):
        with suppress(torch.OutOfMemoryError):
            steps = Steps(network, options, max(network.shape(options)[1] >> halvings, 1))
            steps(bfloat16=False)  # float32 takes the most
            return steps
        steps = None  # type: ignore[assignment]  # frees its memory
        torch.cuda.empty_cache()
    raise RuntimeError("the memory is not enough for one image")


def training_steps(network: Network, options: Options) -> Iterator[Row]:
    """Images a second, and the share of the peak in bfloat16, of steps on a batch on the device."""
    steps = _fitting(network, options)
    size, side = len(steps.batch), network.shape(options)[0]
    with FlopCounterMode(display=False) as counter:
        steps.gradient()
    flops = counter.get_total_flops() / size
    note = f"{side} px, batch {size}, forward and backward, {len(steps.parameters)} parameters"
    yield Row("work of an image", flops / 1e9, "GFLOP", note)
    rate = partial(_calls_per_second, options)
    guarded = rate(steps)
    yield from _rates("as detseg trains (bfloat16, channels-last)", size * guarded, flops, options)
    free = rate(partial(steps, guarded=False))
    yield Row("the guard's reading", 1000 * (1 / guarded - 1 / free), "ms/step", f"{1 - guarded / free:.1%} of a step")
    yield from _rates("in float32", size * rate(partial(steps, bfloat16=False)), flops, options)
    if options.device_type == "cuda":
        yield Row("memory at most", torch.cuda.max_memory_allocated() / 2**30, "GiB", "with float32")
    steps.model.to(memory_format=torch.contiguous_format)
    yield from _rates("not channels-last, bfloat16", size * rate(steps), flops, options)
    del steps
    rate_of_all = _lightning(network.config(options, size), _held(network, options, size), options)
    yield from _rates("in Lightning's loop, batch copied each step", rate_of_all, flops, options)


def _rates(what: str, images: float, flops: float, options: Options) -> Iterator[Row]:
    tflops = images * flops / 1e12
    share = "" if options.peak_tflops is None else f", {tflops / options.peak_tflops:.1%} of the peak in bfloat16"
    yield Row(what, images, "images/s", f"{tflops:.3g} TFLOP/s{share}")


def compiled_steps(network: Network, options: Options) -> Iterator[Row]:
    """The same with compiled networks."""
    if options.small:
        torch.compiler.set_stance("force_eager")  # the calls alone: a compiler takes a minute
    steps = _fitting(network, options)
    with FlopCounterMode(display=False) as counter:
        steps.gradient()
    flops, size = counter.get_total_flops() / len(steps.batch), len(steps.batch)
    compile_networks(steps.model)
    begin = options.timer()
    steps()
    yield Row("the first step, which compiles", options.timer() - begin, "s")
    rate = _calls_per_second(options, steps)
    yield from _rates("compiled, bfloat16, channels-last", size * rate, flops, options)


def _lightning(config: ExperimentConfig, loader: Any, options: Options) -> float:
    """Images a second of a training by Lightning on the batches of a loader, behind some that warm up."""
    marks, warm_up = list[float](), _WARM_UP if not options.small else 1

    def note_time(trainer: Any, _: Any, __: Any, ___: Any, index: int) -> None:
        if index in (warm_up, len(loader) - 1):
            marks.append(options.timer())

    trainer = build_bare_trainer(config, options.folder / "lightning")
    trainer.callbacks = [LambdaCallback(on_train_batch_end=note_time)]
    trainer.fit(build_task(config, CLASSES, load_pretrained=False), train_dataloaders=loader)
    return config.data.num_images * (len(loader) - warm_up - 1) / (marks[1] - marks[0])


def _held(network: Network, options: Options, size: int) -> Any:
    """A loader that gives the same batch in memory again and again."""
    batches: Any = [network.batch(options, size)] * (4 if options.small else _WARM_UP + 40)  # all that it asks of a set
    return DataLoader(batches, batch_size=None)


def loader(options: Options) -> Iterator[Row]:
    """The nano fed from JPEG files by the loader with default augmentation, beside the same on a batch in memory."""
    network = NETWORKS["yolo_nano"]
    side, size = network.shape(options)
    root, workers = options.folder / "jpeg", 1 if options.small else min(max(num_cores() - 1, 1), 16)
    begin = time.perf_counter()
    number = _write_jpegs(root, side, 12 if options.small else 3072)
    yield Row(
        "writing the set", time.perf_counter() - begin, "s", f"{number} JPEG files of {side} px, 24 of which differ"
    )
    data = {"name": "coco", "root": str(root), "image_size": side, "batch_size": size, "num_workers": workers}
    data |= {"classes": list(CLASSES.names), "train_images": "train", "val_images": "train"}
    data |= dict.fromkeys(("train_annotations", "val_annotations"), "annotations/instances_train.json")
    augmentation = {"mosaic": 1.0, "affine": {"probability": 1.0}, "color": {"probability": 1.0}}
    accelerator = {"accelerator": "gpu" if options.device_type == "cuda" else "cpu"}
    settings = {"model": network.tiny if options.small else network.model, "trainer": accelerator}
    config = config_from_dict({**settings, "data": {**data, "augmentation": augmentation}})
    config, train_set, val_set = open_data(config)
    batches = build_data(config, train_set, val_set).train_dataloader()
    begin = time.perf_counter()
    count = sum(len(batch) for batch in batches)
    yield Row(
        "the loader alone", count / (time.perf_counter() - begin), "images/s", f"{workers} processes, from their start"
    )
    held = _lightning(config, _held(network, options, size), options)
    yield Row("training on a batch in memory", held, "images/s")
    places = {"copied when a step begins": None, "copied ahead": options.device}
    for what, device in places.items() if options.device_type == "cuda" else [("on the CPU", None)]:
        fresh: Any = build_data(config, train_set, val_set).train_dataloader()
        fresh.gpu = device
        rate = _lightning(config, fresh, options)
        yield Row(f"training with the loader, {what}", rate, "images/s", f"the loader's share {1 - rate / held:.1%}")


def _write_jpegs(root: Path, side: int, number: int) -> int:
    """A COCO folder of 24 scenes of shapes, each under many names."""
    writer, drawn = CocoWriter(root, CLASSES.names), 24 if number > 24 else number
    for i in range(drawn):
        scene = render_scene(0, "train", i, max(side, 64), 12)
        writer.add("train", f"{i:06d}", scene.image, scene.boxes, scene.labels, scene.masks)
    writer.finish()
    path = root / "annotations" / "instances_train.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    images, objects = list(content["images"]), list(content["annotations"])
    for copy in range(1, number // drawn):
        for image in images:
            name = f"{copy:04d}_{image['file_name']}"
            os.link(root / "train" / image["file_name"], root / "train" / name)
            content["images"].append({**image, "id": image["id"] + copy * 10**6, "file_name": name})
        for entry in objects:
            ids = {"id": entry["id"] + copy * 10**6, "image_id": entry["image_id"] + copy * 10**6}
            content["annotations"].append({**entry, **ids})
    path.write_text(json.dumps(content), encoding="utf-8")
    return len(content["images"])


def amp_losses(options: Options) -> Iterator[Row]:
    """Losses and gradients in bfloat16 against float32, of the same batch and weights."""
    for name, network in NETWORKS.items():
        steps = Steps(network, options, min(network.shape(options)[1], 8))
        found: list[tuple[dict[str, Tensor], Tensor]] = []
        for bfloat16 in (False, True):
            terms = steps.gradient(bfloat16)
            found.append((terms, torch.cat([p.grad.flatten() for p in steps.parameters if p.grad is not None])))
        (exact, slope), (rounded, other) = found
        parts = ", ".join(f"{key} {float(exact[key]):.4g} → {float(rounded[key]):.4g}" for key in exact)
        yield Row(f"{name}: loss", _off(rounded["loss"], exact["loss"]), "relative", parts)
        cosine = torch.nn.functional.cosine_similarity(slope.double(), other.double(), dim=0)
        yield Row(f"{name}: cosine of the gradients", float(cosine))


def _off(value: Tensor, truth: Tensor) -> float:
    return float((value - truth).abs() / truth.abs())


def _trained(options: Options, name: str, stop_at: int | None = None, **trainer: Any) -> detseg.TrainingRun:
    """A short training on shapes; one that is to stop behind a step is resumed from there."""
    side, num_train = (64, 8) if options.small else (160, 256)
    data = {"name": "shapes", "root": str(options.folder / "shapes"), "size": side, "image_size": side}
    data |= {"num_train": num_train, "num_val": num_train // 4}
    data |= {"batch_size": 4 if options.small else 16, "num_workers": 0 if options.small else 4}
    accelerator = "gpu" if options.device_type == "cuda" else "cpu"
    settings = {"accelerator": accelerator, "devices": 1, "max_epochs": 2 if options.small else 10, "num_previews": 0}
    settings |= {"validate_every": 2 if options.small else 10, **trainer}
    model = _TINY_YOLO if options.small else {"name": "yolo"}
    config = config_from_dict({"model": model, "data": data, "trainer": settings})
    request = StopRequest()

    def stop(trainer: Any, *_: Any) -> None:
        if trainer.global_step == stop_at:
            request.ask()

    callbacks: list[Callback] = [LambdaCallback(on_train_batch_end=stop)]
    run = partial(detseg.train, config, run_dir=options.folder / name, stop=request)
    if stop_at is not None:
        with suppress(RunStoppedError):
            run(callbacks=callbacks)
            raise RuntimeError(f"the training did not stop at step {stop_at}")
    return run(resume="last" if stop_at is not None else None)


def _weights(run: detseg.TrainingRun) -> Tensor:
    state = read_raw_checkpoint(run.run_dir / "checkpoints" / "last.ckpt")["state_dict"]
    return torch.cat([value.double().flatten() for value in state.values()])


def _apart(run: detseg.TrainingRun, other: detseg.TrainingRun) -> float:
    """The norm of the difference of the weights of two trainings over that of the weights; 0: they are the same."""
    first, second = _weights(run), _weights(other)
    return float((first - second).norm() / first.norm())


def amp_training(options: Options) -> Iterator[Row]:
    """A short training in both precisions."""
    for precision in ("float32", "bfloat16"):
        begin = time.perf_counter()
        run = _trained(options, precision, precision=precision)
        yield Row(f"{precision}: AP", run.metrics["AP"], note=f"{time.perf_counter() - begin:.0f} s, shapes, one seed")


def resume(options: Options) -> Iterator[Row]:
    """The weights of a training that was stopped and resumed against those of one that was not, and the noise."""
    whole, again = _trained(options, "whole"), _trained(options, "again")
    yield Row("the same training once more", _apart(whole, again), "relative", "difference of all weights")
    resumed = _trained(options, "resumed", stop_at=3 if options.small else 75)
    yield Row("stopped and resumed", _apart(whole, resumed), "relative", "difference of all weights")


@contextmanager
def _alone(options: Options) -> Iterator[None]:
    backend = "nccl" if options.device_type == "cuda" else "gloo"
    place = f"file://{options.folder}/rendezvous_{os.getpid()}"
    dist.init_process_group(backend, init_method=place, rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def all_reduce(options: Options) -> Iterator[Row]:
    """NCCL in a world of one process: that it is there and works; nothing travels."""
    with _alone(options):
        values = torch.ones(10**3 if options.small else 25 * 10**6, device=options.device)
        rate = _calls_per_second(options, partial(dist.all_reduce, values))
        name, right = dist.get_backend(), "right" if bool((values == 1).all()) else "wrong"
        yield Row(f"all-reduce by {name}", 1000 / rate, "ms", f"{4 * len(values) / 1e6:.3g} MB, a world of 1: {right}")


def ddp(options: Options) -> Iterator[Row]:
    """Trainings by DDP in a world of one, with and without SyncBatchNorm, against one without."""
    plain = _trained(options, "plain")
    yield Row("DDP", _apart(plain, _trained(options, "ddp", strategy="ddp")), "relative", "difference of all weights")
    if options.device_type == "cuda":
        run = _trained(options, "sync", strategy="ddp", sync_batchnorm=True)
        yield Row("DDP with SyncBatchNorm", _apart(plain, run), "relative", "difference of all weights")
    else:
        yield Row("DDP with SyncBatchNorm", note="left out: torch has it for GPUs alone")


def fsdp(options: Options) -> Iterator[Row]:
    """A step of a detector whose parts are sharded; detseg itself trains by DDP alone."""
    steps = Steps(NETWORKS["yolo_nano"], options, 2)
    steps.model.to(memory_format=torch.contiguous_format)  # it shards no others
    expected = float(steps.gradient(bfloat16=False)["loss"])
    with _alone(options):
        mesh = init_device_mesh(options.device_type, (1,))
        parts: list[nn.Module] = [steps.model.backbone, steps.model.neck, steps.model.head]
        for part in parts:
            fully_shard(part, mesh=mesh)
        found = steps.gradient(bfloat16=False)["loss"]
        torch.optim.SGD(steps.model.parameters(), lr=1e-3).step()
        note = f"loss {float(found):.6g} against {expected:.6g}; a world of 1, backbone, neck and head sharded"
        yield Row("a step by fully_shard", abs(float(found) - expected) / expected, "relative", note)


@dataclass(frozen=True)
class Part:
    """Its rows, and the seconds that it may take."""

    rows: Callable[[Options], Iterator[Row]]
    seconds: float


PARTS = {
    "machine": Part(machine, 30),
    "peak": Part(peak, 40),
    **{name: Part(partial(training_steps, network), 60) for name, network in NETWORKS.items()},
    "loader": Part(loader, 80),
    "amp_losses": Part(amp_losses, 40),
    "amp_training": Part(amp_training, 90),
    "all_reduce": Part(all_reduce, 30),
    "ddp": Part(ddp, 90),
    "fsdp": Part(fsdp, 30),
    "resume": Part(resume, 120),
    **{f"{name}_compiled": Part(partial(compiled_steps, network), 90) for name, network in NETWORKS.items()},
}
"""What cannot be waited for comes first: compilers take longest."""
