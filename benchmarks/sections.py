"""The parts of the benchmark: each measures, and returns its Markdown and its figures."""

from __future__ import annotations

import argparse
import contextlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cnn_core as cc
import growth as growing
import machine
import tables
import workloads
from cnn_core import _bench
from measure import Child, Children, Result, Skipped, compare, environment
from peers import PEERS

Answer = tuple[str, Any]  # Markdown, and what goes into the JSON file


class Run:
    """One run of the benchmark: its options, and the libraries' processes."""

    def __init__(self, options: argparse.Namespace, folder: str) -> None:
        self.options, self.folder = options, folder
        self.children = Children(options.threads, folder)

    def compare(self, names: list[str], **job: Any) -> Result:
        found = self.children.get([name for name in names if name in self.options.peers])
        began = time.perf_counter()
        result = compare(found, self.options.rounds, self.options.seconds, **job)
        took = f"{time.perf_counter() - began:.0f} s"
        print(*(value for value in job.values() if value), took, file=sys.stderr)
        return result

    def child(self, *command: str, threads: int | None = None) -> list[str]:
        """A Python program; its output, line by line."""
        env = environment("", threads or self.options.threads)
        result = subprocess.run(
            [sys.executable, *command], env=env, check=True, capture_output=True, text=True
        )
        return result.stdout.splitlines()


def _plain(results: dict[str, Result]) -> dict[str, Any]:
    return {title: asdict(result) for title, result in results.items()}


# -------------------------------------------------------------------------- libraries in turns


def training(run: Run) -> Answer:
    """A step of W1 to W8; with AVX2 alone for some of them, in the same rounds."""
    results: dict[str, Result] = {}
    bars, avx2, avx2_bars = {}, {}, {}
    for name in run.options.workloads:
        workload = workloads.WORKLOADS[name]
        slower = machine.facts(1, "")["isa"] == "avx512" and name in workloads.AVX2_BARS
        names = [peer for peer in PEERS if slower or not peer.startswith("cnn-core ")]
        title = f"{name} {workload.title}, batch {workload.batch}"
        results[title] = run.compare(names, kind="training", workload=name, dtype=run.options.dtype)
        bars[title] = workloads.TRAINING_BARS[name]
        if "cnn-core avx2" in results[title].rounds:
            avx2[title], avx2_bars[title] = results[title], workloads.AVX2_BARS[name]
    others = [name for name in PEERS if name != "cnn-core avx2"]
    text = tables.comparison(results, others, bars)
    if avx2:
        others = [name for name in PEERS if name != "cnn-core"]
        text += "\n\nWith `CNN_CORE_ISA=avx2`, in the same rounds:\n\n"
        text += tables.comparison(avx2, others, avx2_bars, "cnn-core avx2")
    return f"{text}\n\n{tables.notes(results)}", _plain(results)


def inference(run: Run) -> Answer:
    """Scores of one row and of many."""
    results: dict[str, Result] = {}
    bars = {}
    for name, (text, many) in workloads.INFERENCE.items():
        for rows, wanted in ((1, workloads.ONE_ROW_BARS), (many, workloads.MANY_ROWS_BARS)):
            title = f"{text}, {rows:,} row{'s' if rows > 1 else ''}"
            results[title] = run.compare(
                [peer for peer in PEERS if peer != "cnn-core avx2"],
                kind="inference",
                workload=name,
                rows=rows,
                dtype=run.options.dtype,
            )
            bars[title] = wanted[name]
    text = tables.comparison(results, list(PEERS), bars)
    return f"{text}\n\n{tables.notes(results)}", _plain(results)


def gradient(run: Run) -> Answer:
    """The numerical gradient of 784-100-10, sigmoid, on 100 rows, float64."""
    result = run.compare(["cnn-core", "NumPy"], kind="gradient", rows=100, dtype="float64")
    results = {"784-100-10, 100 rows": result}
    text = tables.comparison(results, list(PEERS), dict.fromkeys(results, workloads.GRADIENT_BAR))
    sample = result.settings.get("NumPy", "")
    return f"{text}\n\nNumPy: {sample}, scaled up.", _plain(results)


def float64(run: Run) -> Answer:
    """Training in float64."""
    results: dict[str, Result] = {}
    bars = {}
    for name, bar in workloads.FLOAT64_BARS.items():
        title = f"{name} {workloads.WORKLOADS[name].title}"
        results[title] = run.compare(
            ["cnn-core", "PyTorch eager", "PyTorch compiled"],
            kind="training",
            workload=name,
            dtype="float64",
        )
        bars[title] = bar
    return tables.comparison(results, list(PEERS), bars), _plain(results)


# --------------------------------------------------------------------------- cnn-core by itself


def _bar(weights: tuple[int, ...]) -> float | None:
    """The wanted share of the peak: by columns of a product, input channels of a convolution.

    With a batch of one row there is none: memory is the limit then, not arithmetic.
    """
    size, wide, narrow = (weights[1], 50, 10) if len(weights) == 2 else (weights[1], 16, 1)
    if size >= wide:
        return workloads.WIDE_KERNEL_BAR
    return workloads.NARROW_KERNEL_BAR if size <= narrow else None


def kernels(run: Run) -> Answer:
    """Products and convolutions by one thread, as shares of the measured multiply-add peak.

    Each is the best of all rounds, and so is the peak: other programs slow a shared machine down.
    """
    from peers.ours import network

    (x, t), _ = cc.datasets.load_mnist()
    before = cc.get_num_threads()
    cc.set_num_threads(1)
    trainers = {}
    for name in run.options.workloads:
        workload = workloads.WORKLOADS[name]
        trainers[name] = cc.Trainer(network(workload, "float32"), cc.SGD(lr=workload.lr))
    peaks: list[dict[str, float]] = []
    best: dict[tuple[str, int], _bench.Kernel] = {}
    for _ in range(run.options.rounds):
        peaks.append(machine.peak(1))
        for name, trainer in trainers.items():
            batch = workloads.WORKLOADS[name].batch
            _, timed = _bench.kernel_times(trainer, x, t, batch, run.options.seconds)
            for number, kernel in enumerate(timed):
                so_far = best.setdefault((name, number), kernel)
                if kernel.seconds < so_far.seconds:
                    best[name, number] = kernel
    cc.set_num_threads(before)
    found = [
        {
            "workload": name,
            **asdict(kernel),
            "gflops": kernel.gflops,
            "bar": _bar(kernel.weights) if workloads.WORKLOADS[name].batch > 1 else None,
        }
        for (name, _), kernel in best.items()
        if kernel.weights
    ]
    peak = {key: max(each[key] for each in peaks) for key in peaks[0]}
    text = f"Peak of one thread: {peak['gflops']:.0f} GFLOP/s, {peak['gbytes']:.0f} GB/s.\n\n"
    text += tables.kernel_table(found, peak["gflops"])
    return text, {"peak": peak, "kernels": found}


def imports(run: Run) -> Answer:
    """What `import cnn_core` takes where NumPy is imported already."""
    code = (
        "import time; a = time.perf_counter(); import numpy; b = time.perf_counter();"
        "import cnn_core; print(b - a, time.perf_counter() - b)"
    )
    rounds = [run.child("-c", code)[0].split() for _ in range(run.options.rounds + 1)][1:]
    numpy, ours = ([1e3 * float(line[i]) for line in rounds] for i in (0, 1))
    text = tables.table(
        ["ms", "import numpy", "import cnn_core after it (rounds)", "wanted, at most"],
        [
            [
                "median",
                f"{statistics.median(numpy):.0f}",
                f"{statistics.median(ours):.0f} ({min(ours):.0f} to {max(ours):.0f})",
                f"{workloads.IMPORT_BAR:g}",
            ]
        ],
    )
    return text, {"numpy_ms": numpy, "cnn_core_ms": ours}


def memory(run: Run) -> Answer:
    """Peak memory: of `cnn-core train`, and of 20 steps of W8 per library."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL,"
        " check=True); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    )
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "cnn_core", "train", "--epochs", "1", "--out", out]
        train = float(run.child("-c", code, *command)[-1])
    found: dict[str, float] = {}
    for name in (name for name in run.options.peers if name != "cnn-core avx2"):
        with (
            contextlib.suppress(Skipped),
            contextlib.closing(Child(name, run.options.threads, run.folder)) as child,
        ):
            child.prepare(kind="training", workload="W8", rows=6000, dtype="float32")
            child.run(20)
            found[name] = child.megabytes()
    rows = [["`cnn-core train`", f"{train:.0f}", f"{workloads.MEMORY_BAR:g}"]]
    rows += [[f"W8, {name}", f"{megabytes:.0f}", ""] for name, megabytes in found.items()]
    text = tables.table(["", "peak memory, MB", "wanted, at most"], rows)
    return text, {"train": train, "W8": found}


def _trained(run: Run, *command: str) -> tuple[float, float, float]:
    """Seconds from the start of a process until it tells the accuracy on the test images, and until
    its end; and that accuracy."""
    env = environment("", run.options.threads) | {"PYTHONUNBUFFERED": "1"}
    start, said, accuracy = time.perf_counter(), 0.0, 0.0
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, *command], env=env, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            found = re.search(r'^test accuracy ([\d.]+)|"test_accuracy": ([\d.]+)', line)
            if found and not said:
                said = time.perf_counter() - start
                accuracy = float(found[1] or found[2])
    if process.returncode or not said:
        raise RuntimeError(f"{' '.join(command)}: code {process.returncode}, no test accuracy")
    return said, time.perf_counter() - start, accuracy


def to99(run: Run) -> Answer:
    """From process start to a trained and tested net: `cnn-core train` and PyTorch, one recipe."""
    threads = str(run.options.threads)
    runs: dict[str, list[tuple[float, float, float]]] = {"cnn-core": [], "PyTorch eager": []}
    for seed in map(str, range(run.options.trainings)):
        with tempfile.TemporaryDirectory() as out:
            ours = "-m", "cnn_core", "train", "--seed", seed, "--out", out, "--threads", threads
            runs["cnn-core"].append(_trained(run, *ours))
        theirs = str(Path(__file__).with_name("train_pytorch.py"))
        runs["PyTorch eager"].append(_trained(run, theirs, run.folder, seed, threads))
    ratios = [b[0] / a[0] for a, b in zip(*runs.values(), strict=True)]
    rows = []
    for name, results in runs.items():
        said, ended, accuracies = zip(*results, strict=True)
        shown = f"{statistics.median(said):.2f}", f"{statistics.median(ended):.2f}"
        rows.append([name, *shown, ", ".join(f"{accuracy:.4f}" for accuracy in accuracies)])
    text = tables.table(["", "seconds", "to the end of the process", "test accuracy per run"], rows)
    low, bar = " ".join(tables.ratio(ratios, None)).strip(), workloads.TO_99_BAR
    text += f"\n\nRatio {low}; wanted {bar:g}, and at most {workloads.SECONDS_TO_99_BAR:g} s."
    return text, runs


def growth(run: Run) -> Answer:
    """Step times of cnn-core against the size of everything."""
    (x, t), _ = cc.datasets.load_mnist(normalize=True)
    figures: dict[str, Any] = {}
    texts = []
    with growing.threads(run.options.threads):
        for heads, measure in growing.TABLES.items():
            rows = measure(x, t, run.options.seconds)
            figures[heads[0]] = rows
            shown = [
                [
                    f"{size:,}" if isinstance(size, int) else size,
                    *(
                        tables.duration(value) if "µs" in head else f"{value:.0f}"
                        for head, value in zip(heads[1:], values, strict=True)
                    ),
                ]
                for size, *values in rows
            ]
            texts.append(tables.table(heads, shown))
    return "\n\n".join(texts), figures


def large(run: Run) -> Answer:
    """Single large kernels beside NumPy's and PyTorch's."""
    results = {
        title: run.compare(["cnn-core", "PyTorch eager", "NumPy"], kind=kind, rows=size)
        for title, (kind, size) in workloads.LARGE.items()
    }
    bars = dict.fromkeys(results, workloads.LARGE_BAR)
    text = tables.comparison(results, list(PEERS), bars)
    return f"{text}\n\n{tables.notes(results)}", _plain(results)


#: by name: title, function, whether it runs unless it is asked for by name
SECTIONS = {
    "training": ("A step of training", training, True),
    "inference": ("Inference", inference, True),
    "gradient": ("The numerical gradient", gradient, True),
    "float64": ("Training in float64", float64, True),
    "kernels": ("Kernels, one thread", kernels, True),
    "large": ("Large kernels", large, True),
    "growth": ("How the cost grows", growth, False),
    "import": ("Import", imports, True),
    "memory": ("Memory", memory, True),
    "to99": ("From process start to a trained network", to99, False),
}
