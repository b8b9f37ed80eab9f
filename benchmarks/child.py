"""A library in a process of its own, which works when it is told to and sleeps in between.

run.py starts one per library (`measure.Child`), so that thread pools and environment variables of
one do not meet another's. Orders come as lines of JSON on stdin; answers go, line by line, to
stdout, which is kept from what libraries print.
"""

from __future__ import annotations

import gc
import importlib.metadata
import json
import os
import resource
import sys
import time
from typing import Any, TextIO

import numpy as np

FAILED = "failed:"  # begins a reason that is not the library's nature


def pin(threads: int) -> None:
    """Some libraries take as many threads as the process has processors, and ask nobody."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


class Server:
    def __init__(self, name: str, threads: int, folder: str, answers: TextIO) -> None:
        import peers

        self.folder, self.answers, self.timed = folder, answers, None
        self.unsupported = peers.Unsupported
        self.peer = peers.make(name, threads)
        versions = {}
        for package in self.peer.packages:
            try:
                versions[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                continue
        self.answer(versions=versions)

    def answer(self, **values: Any) -> None:
        self.answers.write(json.dumps(values) + "\n")
        self.answers.flush()

    def rows(self, n: int, dtype: str) -> tuple[Any, Any]:
        """n training images of MNIST as rows of floats in 0..1, and their labels."""
        x = np.load(os.path.join(self.folder, "x.npy"), mmap_mode="r")[:n]
        return (x / np.array(255, dtype)).astype(dtype, copy=False), self.labels(n)

    def labels(self, n: int) -> Any:
        return np.load(os.path.join(self.folder, "t.npy"))[:n]

    def prepare(self, kind: str, workload: str, rows: int, dtype: str) -> None:
        from workloads import WORKLOADS

        self.timed = None
        gc.collect()
        if not hasattr(self.peer, kind):
            raise self.unsupported(f"no {kind} with this library")
        if kind in ("product", "convolution"):
            self.timed = getattr(self.peer, kind)(rows)
            self.answer(setting=self.timed.setting, scale=self.timed.scale)
            return
        x, t = self.rows(rows, dtype)
        if kind == "training":
            self.timed = self.peer.training(WORKLOADS[workload], x, t, dtype)
        elif kind == "inference":
            self.timed = self.peer.inference(WORKLOADS[workload], x, dtype)
        else:
            self.timed = self.peer.gradient(x, t)
        self.answer(setting=self.timed.setting, scale=self.timed.scale)

    def run(self, n: int) -> None:
        """The seconds of n units of the prepared work."""
        start = time.perf_counter()
        self.timed.run(n)
        self.answer(seconds=time.perf_counter() - start)

    def memory(self) -> None:
        """The peak resident memory of this process so far, in MB."""
        unit = 2**20 if sys.platform == "darwin" else 2**10
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if sys.platform == "linux":  # where ru_maxrss is not below the parent's at its start
            with open("/proc/self/status") as status:
                peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
        self.answer(megabytes=peak / unit)


def main() -> None:
    name, threads, folder = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    pin(int(threads))
    try:
        server = Server(name, int(threads), folder, answers)
    except ImportError as error:
        answers.write(json.dumps({"skip": str(error)}) + "\n")
        return
    for line in sys.stdin:
        order = json.loads(line)
        try:
            getattr(server, order.pop("do"))(**order)
        except server.unsupported as error:
            server.answer(skip=str(error))
        except Exception as error:
            first = str(error).strip().split("\n")[0]
            server.answer(skip=f"{FAILED} {type(error).__name__}: {first}")


if __name__ == "__main__":
    main()
