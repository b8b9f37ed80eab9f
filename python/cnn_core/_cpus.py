"""How many processors this process may use: its affinity (cpusets), its cgroups' share of time."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator


def count(system: str | os.PathLike[str] = "/") -> int:
    """Processors that the process may use, at least 1: a quota of 1.5 processors counts as 2.

    system : where /proc and /sys are.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min([cpus, *map(math.ceil, _quotas(os.fspath(system)))]))


def _quotas(system: str) -> Iterator[float]:
    """The limits, in processors, of the process's cgroups (version 1 or 2) and those above."""
    mounted = os.path.join(system, "sys/fs/cgroup")
    for line in _read(os.path.join(system, "proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            for folder in _upwards(mounted, path):
                quota, period = [*_read(f"{folder}/cpu.max").split(), "", ""][:2]
                yield from _share(quota, period)
        elif "cpu" in controllers.split(","):
            for folder in _upwards(f"{mounted}/cpu", path):
                quota, period = (_read(f"{folder}/cpu.cfs_{n}_us") for n in ("quota", "period"))
                yield from _share(quota, period)


def _upwards(mounted: str, path: str) -> Iterator[str]:
    """The folders of a cgroup and of all above it; a container does not see all of them."""
    names = [] if ".." in path.split("/") else path.strip("/").split("/")
    for depth in range(len(names), -1, -1):
        yield os.path.join(mounted, *names[:depth])


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def _share(quota: str, period: str) -> Iterator[float]:
    """Nothing where there is no limit: "max" or -1."""
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        yield int(quota) / int(period)
