"""Peak memory of training a workload, per library, each in a process of its own.

python benchmarks/memory.py W8        Needs: pip install '.[bench]'
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

from runners import RUNNERS

import cnn_core as cc
from workloads import WORKLOADS


def train(library: str, workload: str, steps: int, threads: int) -> None:
    """Print the peak resident memory, in MB: after the data are there, and after training."""
    (x, t), _ = cc.datasets.load_mnist()
    x, t = x[:6000].copy(), t[:6000].copy()
    RUNNERS[library](WORKLOADS[workload], x, t, "float32", threads).steps(steps)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", nargs="?", default="W8", choices=list(WORKLOADS))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--library", choices=list(RUNNERS), help="measure this one, here")
    options = parser.parse_args()
    if options.library:
        train(options.library, options.workload, options.steps, options.threads)
        return
    print(f"peak resident memory of {options.workload}, {options.steps} steps, MB:")
    for library in RUNNERS:
        command = [sys.executable, __file__, *sys.argv[1:], "--library", library]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"  {library:<10} {float(result.stdout):8.0f}")


if __name__ == "__main__":
    main()
