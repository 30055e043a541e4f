"""How much main memory a process may still take: what the machine has left, and what a container is left with.

Sizes are bytes.  Linux only: elsewhere nothing is known.
"""

from __future__ import annotations

from pathlib import Path

_KIB = 1024

_CGROUP_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Limit, usage, and the line of ``memory.stat`` for cached files, which are given up when memory is short: of version 2
and of version 1 of control groups."""


def available_memory(root: Path = Path("/")) -> int | None:
    """Main memory that this process and its children can still take.

    The least of what the kernel holds to be available (``MemAvailable``) and what every control group around this
    process leaves it; a limit by ``ulimit`` is not looked at.

    Args:
        root: the folder that ``proc`` and ``sys`` are in.

    Returns:
        bytes; None where the system does not say.
    """
    machine = _entries(root / "proc/meminfo").get("MemAvailable")
    if machine is None:
        return None
    left = [room for room in map(_left, _cgroups(root)) if room is not None]
    return max(min([machine * _KIB, *left]), 0)


def process_memory(root: Path = Path("/")) -> tuple[int, int]:
    """What this process holds in main memory now, and the most that it ever held.

    Raises:
        OSError: not on Linux.
    """
    entries = _entries(root / "proc/self/status")
    if "VmRSS" not in entries or "VmHWM" not in entries:
        raise OSError(f"{root / 'proc/self/status'}: does not say how much memory this process holds")
    return entries["VmRSS"] * _KIB, entries["VmHWM"] * _KIB


def _entries(path: Path) -> dict[str, int]:
    """The numbers of a file of lines ``name: number unit`` or ``name number``."""
    found = {}
    for line in _read(path).splitlines():
        name, *rest = line.replace(":", " ").split() or [""]
        if rest and rest[0].isdigit():
            found[name] = int(rest[0])
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _cgroups(root: Path) -> list[Path]:
    """The folders of the control groups that this process is in, and of those around them.

    In a container the path that the kernel names may be one of the host, which is not there: what is mounted is the
    container's own group then, at the top.
    """
    folders = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        own = top / path.strip("/")
        folders += [own, *own.parents[: len(own.parts) - len(top.parts)]]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _left(folder: Path) -> int | None:
    """What one control group leaves; None where it sets no limit."""
    for limit_file, usage_file, cache in _CGROUP_FILES:
        limit, usage = _read(folder / limit_file).strip(), _read(folder / usage_file).strip()
        if limit.isdigit() and usage.isdigit():
            return int(limit) - int(usage) + _entries(folder / "memory.stat").get(cache, 0)
    return None
