"""The machine: what it is, and what it can do at most."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import cnn_core as cc


def processor() -> str:
    """The model, as the system names it."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def facts(threads: int, dtype: str) -> dict[str, Any]:
    values = cc.config.config()
    return {
        "processor": processor(),
        "cpus": values["cpus"],
        "platform": values["platform"],
        "isa": values["isa"],
        "compiler": values["compiler"],
        "threads": threads,
        "dtype": dtype,
        "python": values["python"],
        "cnn-core": values["version"],
    }


def peak(threads: int) -> dict[str, float]:
    """GFLOP/s (float32) and GB/s at most, as peak.c measures them.

    Raises RuntimeError, with the reason, where they cannot be measured.
    """
    source = Path(__file__).with_name("peak.c")
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "peak")
        compiler = os.environ.get("CC", "cc").split()
        command = [*compiler, "-O3", "-march=native", "-fopenmp", str(source), "-o", program]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
            result = subprocess.run(
                [program, str(threads)], check=True, capture_output=True, text=True
            )
        except OSError as error:
            raise RuntimeError(f"no C compiler: {error}") from None
        except subprocess.CalledProcessError as error:
            lines = error.stderr.strip().splitlines()
            raise RuntimeError(f"peak.c: {lines[-1] if lines else error}") from None
    gflops, gbytes = map(float, result.stdout.split())
    return {"gflops": gflops, "gbytes": gbytes}


if __name__ == "__main__":
    print(facts(1, "float32"), peak(int(sys.argv[1]) if sys.argv[1:] else 1))
