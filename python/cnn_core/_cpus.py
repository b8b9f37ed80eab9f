"""How many processors this process may use: its affinity (cpusets), its cgroups' share of time."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path


def count(system: Path = Path("/")) -> int:
    """Processors that the process may use, at least 1: a quota of 1.5 processors counts as 2.

    system : where /proc and /sys are.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min([cpus, *map(math.ceil, _quotas(system))]))


def _quotas(system: Path) -> Iterator[float]:
    """The limits, in processors, of the process's cgroups (version 1 or 2) and those above."""
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mounted = system / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            for folder in _upwards(mounted, path):
                quota, period = [*_read(folder / "cpu.max").split(), "", ""][:2]
                yield from _share(quota, period)
        elif "cpu" in controllers.split(","):
            for folder in _upwards(mounted / "cpu", path):
                quota, period = (_read(folder / f"cpu.cfs_{n}_us") for n in ("quota", "period"))
                yield from _share(quota, period)


def _upwards(mounted: Path, path: str) -> Iterator[Path]:
    """The folders of a cgroup and of all above it; a container does not see all of them."""
    names = [] if ".." in path.split("/") else path.strip("/").split("/")
    for depth in range(len(names), -1, -1):
        yield mounted.joinpath(*names[:depth])


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _share(quota: str, period: str) -> Iterator[float]:
    """Nothing where there is no limit: "max" or -1."""
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        yield int(quota) / int(period)
