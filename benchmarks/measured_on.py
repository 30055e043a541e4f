"""Where and with what a figure was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime

from benchmarks.peer_process import ROOT
from detseg.benchmark.results import machine_facts


def machine() -> dict[str, str]:
    """Processor, cores, memory and system in words."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else 0
    return {
        "processor": machine_facts()["processor"],
        "cores": str(os.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "system": platform.system(),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _commit(),
    }


def versions() -> dict[str, str]:
    """Python's and of the packages that matter for speed."""
    found: dict[str, str] = machine_facts()["versions"]
    return found


def _commit() -> str:
    """The commit, with a + where the working tree differs from it."""
    found = subprocess.run(["git", "describe", "--always", "--dirty=+"], cwd=ROOT, capture_output=True, text=True)
    return found.stdout.strip() or "unknown"
