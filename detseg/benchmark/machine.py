"""What a benchmark ran on: versions, processor, memory, and the size of the model."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from detseg.benchmark.measurement import Findings, Measurement
from detseg.benchmark.subject import Subject
from detseg.memory import process_memory
from detseg.messages import one_line
from detseg.ops.images import to_float

STAGE = "memory"
PEAK_DEVICE = "most on the device, reserved"

_PACKAGES = (
    *("detseg", "torch", "torchvision", "lightning", "numpy", "opencv-python-headless", "albumentations", "timm"),
    *("pycocotools", "pydantic"),
)


def num_cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def machine_facts() -> dict[str, Any]:
    """Processor, cores, GPU, operating system and versions, as plain data."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": _processor(),
        "cores": num_cores(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "system": platform.platform(),
        "versions": versions,
    }


def measure_memory(subject: Subject, findings: Findings) -> None:
    """The most memory so far, on the host and on the device."""
    try:
        peak = process_memory()[1] / 2**20
        note = "of the training's own process, all stages; loader processes are apart"
        findings.measurements.append(Measurement(STAGE, "most in main memory", "MiB", (peak,), note=note))
    except OSError:
        findings.skipped[f"{STAGE}: host"] = "only Linux says how much a process held"
    if subject.device.type == "cuda":
        device = subject.device
        total = torch.cuda.get_device_properties(device).total_memory
        used = torch.cuda.max_memory_reserved(device)
        findings.facts["device_memory_share"] = used / total
        findings.measurements += [
            Measurement(STAGE, "most on the device, in use", "MiB", (torch.cuda.max_memory_allocated(device) / 2**20,)),
            Measurement(STAGE, PEAK_DEVICE, "MiB", (used / 2**20,), note=f"of {total / 2**20:.0f}"),
        ]
    else:
        findings.skipped[f"{STAGE}: device"] = "there is no CUDA device in use"


@torch.no_grad()
def count_flops(subject: Subject, findings: Findings) -> None:
    """What the network computes for one image: torch's count of convolutions and matrix products."""
    model: Any = subject.task.evaluated_model.eval()
    device = next(model.parameters()).device
    image = torch.zeros(1, 3, *subject.config.data.input_hw, dtype=torch.uint8, device=device)
    counter = FlopCounterMode(display=False)
    try:
        with torch.compiler.set_stance("force_eager"), counter:  # it does not see into compiled networks
            model.predict(to_float(image))
    except (RuntimeError, TypeError, NotImplementedError) as error:
        findings.skipped["model: FLOPs"] = f"torch's counter cannot tell: {one_line(error)}"
        return
    findings.facts["gflops_per_image"] = counter.get_total_flops() / 1e9


def _processor() -> str:
    """Its name, as far as the system says."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
