"""Interleaved rounds: the libraries take turns, so that a change in the machine's speed meets all.

Each library is a process of its own (child.py) that lives through all workloads. Between its turns
it is stopped: threads that wait for work in a loop would take the others' cores.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from child import FAILED

PAUSE = 0.02  # seconds between two turns


def environment(name: str, threads: int) -> dict[str, str]:
    """Of a child: the number of threads for all that is read from there, and no workarounds."""
    result = {
        key: value
        for key, value in os.environ.items()
        if key not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "CNN_CORE_ISA")
    }
    for library in ("OMP", "OPENBLAS", "MKL"):
        result[f"{library}_NUM_THREADS"] = str(threads)
    if name.startswith("cnn-core "):
        result["CNN_CORE_ISA"] = name.split()[1]
    if threads == 1:
        result["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    return result


class Skipped(Exception):
    """Why a library takes no part."""


class Child:
    """One library's process."""

    def __init__(self, name: str, threads: int, folder: str) -> None:
        self.name, self.setting, self.scale = name, "", 1.0
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  (as long as the process)
        command = [sys.executable, str(Path(__file__).with_name("child.py"))]
        self.process = subprocess.Popen(
            [*command, name, str(threads), folder],
            env=environment(name, threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        self.versions = self._answer()["versions"]
        self._signal("SIGSTOP")

    def _signal(self, name: str) -> None:
        if hasattr(signal, name):  # not on Windows
            self.process.send_signal(getattr(signal, name))

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            lines = self.log.read().strip().splitlines()
            raise Skipped(f"{FAILED} {lines[-1] if lines else 'no message'}")
        answer = json.loads(line)
        if "skip" in answer:
            raise Skipped(answer["skip"])
        return answer

    def order(self, what: str, **arguments: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self._signal("SIGCONT")
        try:
            self.process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
            self.process.stdin.flush()
            return self._answer()
        except BrokenPipeError:
            raise Skipped(f"{FAILED} it has ended") from None
        finally:
            self._signal("SIGSTOP")

    def prepare(self, kind: str, workload: str = "", rows: int = 60_000, dtype: str = "") -> None:
        answer = self.order("prepare", kind=kind, workload=workload, rows=rows, dtype=dtype)
        self.setting, self.scale = answer["setting"], answer["scale"]

    def run(self, n: int) -> float:
        """Seconds of the whole job, once."""
        return self.order("run", n=n)["seconds"] / n * self.scale

    def megabytes(self) -> float:
        return float(self.order("memory")["megabytes"])

    def close(self) -> None:
        self._signal("SIGCONT")
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self.process.wait()
        self.log.close()


@dataclass
class Children:
    """The libraries that take part, and why others do not."""

    threads: int
    folder: str
    running: dict[str, Child] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def get(self, names: list[str]) -> dict[str, Child]:
        for name in names:
            if name in self.running or name in self.skipped:
                continue
            try:
                self.running[name] = Child(name, self.threads, self.folder)
            except Skipped as reason:
                self.skipped[name] = str(reason)
                print(f"without {name}: {reason}", file=sys.stderr)
        return {name: self.running[name] for name in names if name in self.running}

    def close(self) -> None:
        for child in self.running.values():
            child.close()


@dataclass
class Result:
    """Seconds of a job, per library and round."""

    rounds: dict[str, list[float]]
    settings: dict[str, str]
    skipped: dict[str, str]

    def median(self, name: str) -> float:
        return statistics.median(self.rounds[name])

    def fastest(self, ours: str = "cnn-core") -> str:
        """The fastest library that is not cnn-core; "" if there is none."""
        others = [name for name in self.rounds if not name.startswith("cnn-core")]
        return min(others, key=self.median, default="") if ours in self.rounds else ""

    def ratios(self, ours: str = "cnn-core") -> list[float]:
        """Of the fastest library's time to ours, round by round."""
        theirs = self.fastest(ours)
        if not theirs:
            return []
        pairs = zip(self.rounds[ours], self.rounds[theirs], strict=True)
        return [b / a for a, b in pairs]


def _steps_in(child: Child, seconds: float) -> int:
    """How often the child does its job in so many seconds, beside what it does once for all."""
    n = 1
    while True:
        count = max(1, int(seconds * child.scale / child.run(n)))
        if count <= 2 * n:
            return count
        n = min(count, 10 * n)


def compare(children: dict[str, Child], rounds: int, seconds: float, **job: Any) -> Result:
    """All children do the job, in turns of about so many seconds."""
    counts, skipped = {}, {}
    for name, child in children.items():
        try:
            child.prepare(**job)
            child.run(1)
            time.sleep(PAUSE)
            counts[name] = _steps_in(child, seconds)
        except Skipped as reason:
            skipped[name] = str(reason)
    result = Result(
        {name: [] for name in counts}, {name: children[name].setting for name in counts}, skipped
    )
    for _ in range(rounds):
        for name, count in counts.items():
            time.sleep(PAUSE)
            result.rounds[name].append(children[name].run(count))
    return result
