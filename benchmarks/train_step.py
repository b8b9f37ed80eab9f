"""Microseconds per training step, side by side: python benchmarks/train_step.py

The libraries take turns, round by round, so that a change in the machine's speed meets all of them;
the median of the rounds is reported, and the ratio round by round. Needs: pip install '.[bench]'
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import statistics
import time

import numpy as np
from runners import RUNNERS

import cnn_core as cc
from workloads import WORKLOADS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workloads", nargs="*", default=list(WORKLOADS), help="default: all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.3, help="of one round of one library")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    (x, t), _ = cc.datasets.load_mnist()
    figures = {
        name: measure(name, x.astype(options.dtype), t, options) for name in options.workloads
    }
    if options.json:
        print(json.dumps({"machine": machine(options), "microseconds": figures}, indent=2))
    else:
        print(table(figures, options))


def measure(name: str, x: np.ndarray, t: np.ndarray, options: argparse.Namespace) -> dict:
    """Per library: the step time of each round, in microseconds."""
    arguments = (WORKLOADS[name], x, t, options.dtype, options.threads)
    runners = {library: runner(*arguments) for library, runner in RUNNERS.items()}
    counts = {}
    for library, runner in runners.items():
        runner.steps(5)
        start = time.perf_counter()
        runner.steps(10)
        counts[library] = max(5, int(10 * options.seconds / (time.perf_counter() - start)))
    rounds: dict[str, list[float]] = {library: [] for library in runners}
    for _ in range(options.rounds):
        for library, runner in runners.items():
            start = time.perf_counter()
            runner.steps(counts[library])
            rounds[library].append((time.perf_counter() - start) / counts[library] * 1e6)
    return rounds


def machine(options: argparse.Namespace) -> dict:
    versions = {name: importlib.metadata.version(name) for name in ("torch", "numpy")}
    model = platform.processor()
    try:
        with open("/proc/cpuinfo") as file:
            model = next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        pass
    return {
        "processor": model,
        "isa": cc.ops.native_config()["isa"],
        "threads": options.threads,
        "dtype": options.dtype,
        **versions,
    }


def table(figures: dict, options: argparse.Namespace) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in machine(options).items())
    lines = [facts, "", "| workload | batch | cnn-core | PyTorch eager | ratio (rounds' range) |"]
    lines.append("|---|---|---|---|---|")
    for name, rounds in figures.items():
        ratios = [b / a for a, b in zip(rounds["cnn-core"], rounds["PyTorch"], strict=True)]
        ours, theirs = (statistics.median(rounds[key]) for key in ("cnn-core", "PyTorch"))
        lines.append(
            f"| {name} {WORKLOADS[name].title} | {WORKLOADS[name].batch} | {ours:,.0f} µs"
            f" | {theirs:,.0f} µs | {statistics.median(ratios):.2f}"
            f" ({min(ratios):.2f} to {max(ratios):.2f}) |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
