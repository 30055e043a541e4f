"""How much memory is left, read from hand-written files of the kernel."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detseg.memory.host import available_memory, process_memory

MEMINFO = "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    600 kB\n"


def system(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def test_what_the_machine_has(tmp_path: Path) -> None:
    assert available_memory(system(tmp_path, {})) == 600 * 1024


def test_nothing_is_known_where_there_is_no_proc(tmp_path: Path) -> None:
    assert available_memory(tmp_path) is None


def test_a_group_of_version_2_leaves_less_and_its_cache_counts_as_free(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/jobs/mine"
    files = {
        "proc/self/cgroup": "0::/jobs/mine\n",
        f"{group}/memory.max": "500000\n",
        f"{group}/memory.current": "300000\n",
        f"{group}/memory.stat": "anon 200000\ninactive_file 50000\nactive_file 7\n",
    }
    assert available_memory(system(tmp_path, files)) == 250000  # 500000 - 300000 + 50000


def test_the_group_around_counts_too(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/jobs/mine\n",
        "sys/fs/cgroup/jobs/mine/memory.max": "max\n",
        "sys/fs/cgroup/jobs/mine/memory.current": "300000\n",
        "sys/fs/cgroup/jobs/memory.max": "400000\n",
        "sys/fs/cgroup/jobs/memory.current": "300000\n",
    }
    assert available_memory(system(tmp_path, files)) == 100000


def test_a_container_of_version_1_whose_path_is_that_of_the_host(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "200000\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "150000\n",
        "sys/fs/cgroup/memory/memory.stat": "inactive_file 1\ntotal_inactive_file 10000\n",
    }
    assert available_memory(system(tmp_path, files)) == 60000


def test_no_limit_of_version_1_is_a_huge_one(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "4:memory:/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "150000\n",
    }
    assert available_memory(system(tmp_path, files)) == 600 * 1024


def test_a_group_beyond_its_limit_leaves_nothing(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": "100\n",
        "sys/fs/cgroup/memory.current": "300\n",
    }
    assert available_memory(system(tmp_path, files)) == 0


def test_this_process(tmp_path: Path) -> None:
    before, _ = process_memory()
    held = torch.ones(64 * 2**20, dtype=torch.uint8)
    now, most = process_memory()
    assert now - before >= 60 * 2**20
    assert most >= now
    del held
    with pytest.raises(OSError, match="does not say how much memory"):
        process_memory(tmp_path)
