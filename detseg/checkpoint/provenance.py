"""How a run began: command, versions, commit, machine and data, for ``run.json`` and the trackers."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import torch

from detseg.atomic_write import atomic_write
from detseg.errors import CheckpointError
from detseg.messages import one_line, without_secrets

RUN_FILE = "run.json"

_PACKAGE = Path(__file__).parents[1]


def describe_start(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a run, or a resumed one, begins with, as plain data; ``data``: the fingerprints of its sets by name."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command(),
        "folder": str(Path.cwd()),
        "detseg": version("detseg"),
        "git": git_state(Path.cwd()),
        "detseg_git": git_state(_PACKAGE) if _git(_PACKAGE, "ls-files", "--error-unmatch", "__init__.py") else None,
        "machine": machine(),
        "data": dict(data),
        "packages": {"python": platform.python_version(), **_packages()},
    }


def command() -> str:
    """What was typed, without secrets."""
    program = Path(sys.argv[0])
    as_module = program.name == "__main__.py"
    words = [*(["python", "-m", program.parent.name] if as_module else [str(program)]), *sys.argv[1:]]
    return shlex.join(map(without_secrets, words))


def git_state(folder: Path) -> dict[str, Any] | None:
    """The commit that is checked out in ``folder``, and whether tracked files differ from it; None where there is no
    commit, or no git."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    """What git answers; None: it fails, is not there, or takes too long."""
    # A repository's own settings must not start programs here.
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True, errors="replace")
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _packages() -> dict[str, str]:
    found = {str(package.metadata["Name"]): package.version for package in distributions()}
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def machine() -> dict[str, Any]:
    """The machine, as plain data."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "name": platform.node(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "gpus": gpus,
        "cuda": torch.version.cuda if gpus else None,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def read_run_file(run_dir: Path) -> dict[str, Any]:
    """What ``run.json`` holds: ``starts``, each of ``describe_start``, the first one first, and ``trackers``, the run's
    ids in them; both empty where there is none. CheckpointError: it is damaged."""
    path = run_dir / RUN_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {"starts": list(content["starts"]), "trackers": dict(content["trackers"])}
    except FileNotFoundError:
        return {"starts": [], "trackers": {}}
    except (OSError, ValueError, TypeError, KeyError) as error:
        fix = "bring it back, or delete it: trackers then get another run"
        raise CheckpointError(f"{path}: is damaged ({one_line(error)}); {fix}") from error


def write_run_file(run_dir: Path, content: Mapping[str, Any]) -> None:
    """Replace ``run.json``."""
    with atomic_write(run_dir / RUN_FILE, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
