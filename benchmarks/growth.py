"""How the cost of cnn-core grows: with batch, width, images, channels, threads and rows of data."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import cnn_core as cc

BATCHES = (1, 4, 16, 64, 256, 1024, 4096)
WIDTHS = (50, 64, 100, 128, 256, 512, 1000, 1024, 2048, 4096)
IMAGES = ((1, 28), (3, 32), (16, 28), (16, 56), (64, 14), (64, 28), (64, 56), (64, 112))
FILTERS, IMAGES_AT_ONCE = 64, 8
ROWS = (60_000, 600_000, 6_000_000)


def fit_seconds(trainer: cc.Trainer, x: Any, t: Any, batch: int, n: int) -> float:
    """Of n steps of `fit` with batches drawn at random."""
    start = time.perf_counter()
    trainer.fit(
        x,
        t,
        batch_size=batch,
        sampling="replacement",
        epochs=-(-n // -(-len(x) // batch)),
        iterations=n,
        verbose=False,
    )
    return time.perf_counter() - start


def step_seconds(trainer: cc.Trainer, x: Any, t: Any, batch: int, seconds: float) -> float:
    """Of a step: the fastest of several runs."""
    fit_seconds(trainer, x, t, batch, 2)
    n = max(2, int(seconds / 5 / fit_seconds(trainer, x, t, batch, 2) * 2))
    return min(fit_seconds(trainer, x, t, batch, n) for _ in range(5)) / n


def dense(hidden: int) -> cc.Trainer:
    layers = [cc.Affine(hidden), cc.ReLU(), cc.Affine(10)]
    return cc.Trainer(cc.Sequential(layers, input_shape=(784,)), cc.SGD(lr=0.01))


def convolution(channels: int, size: int) -> cc.Trainer:
    """A 3x3 convolution behind another layer, so that it has a gradient of its input."""
    layers = [cc.Conv2D(channels, 1), cc.Conv2D(FILTERS, 3, padding=1), cc.GlobalAvgPool2D()]
    net = cc.Sequential([*layers, cc.Affine(10)], input_shape=(channels, size, size))
    return cc.Trainer(net, cc.SGD(lr=0.01))


@contextmanager
def threads(n: int) -> Iterator[None]:
    before = cc.get_num_threads()
    cc.set_num_threads(n)
    try:
        yield
    finally:
        cc.set_num_threads(before)


def by_batch(x: Any, t: Any, seconds: float) -> list[list[Any]]:
    """Batch size, seconds of a step, seconds of it per row: 784-50-10."""
    rows = []
    for batch in BATCHES:
        taken = step_seconds(dense(50), x, t, batch, seconds)
        rows.append([batch, taken, taken / batch])
    return rows


def by_width(x: Any, t: Any, seconds: float) -> list[list[Any]]:
    """Hidden units, seconds of a step of 100 rows, GFLOP/s: 784-units-10."""
    rows = []
    for units in WIDTHS:
        taken = step_seconds(dense(units), x, t, 100, seconds)
        rows.append([units, taken, 100 * (4 * 784 + 6 * 10) * units / taken / 1e9])
    return rows


def by_image(seconds: float) -> list[list[Any]]:
    """Channels and size, seconds of a step of 8 images, GFLOP/s of the 3x3 convolution alone."""
    rows = []
    for channels, size in IMAGES:
        shape = (2 * IMAGES_AT_ONCE, channels, size, size)
        x = np.random.default_rng(0).random(shape, np.float32)
        t = np.arange(len(x)) % 10
        trainer = convolution(channels, size)
        taken = step_seconds(trainer, x, t, IMAGES_AT_ONCE, seconds)
        flop = 6 * 9 * channels * FILTERS * size**2 * IMAGES_AT_ONCE
        rows.append([f"{channels} x {size} x {size}", taken, flop / taken / 1e9])
    return rows


def by_threads(x: Any, t: Any, seconds: float) -> list[list[Any]]:
    """Threads, seconds of a step of 784-50-10 and of 784-1024-10: up to twice the processors."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    rows = []
    for n in sorted({1, 2, cpus, 2 * cpus, *(2**k for k in range(8) if 2**k < cpus)}):
        with threads(n):
            taken = [step_seconds(dense(units), x, t, 100, seconds) for units in (50, 1024)]
        rows.append([n, *taken])
    return rows


def by_rows(seconds: float) -> list[list[Any]]:
    """Rows of bytes in a memory-mapped file, seconds of a step of 784-50-10, and to begin a fit.

    The file has holes in the place of zeros: what is measured is the library, not a disk.
    """
    rows = []
    for n in ROWS:
        with tempfile.TemporaryDirectory() as folder:
            x = np.memmap(Path(folder) / "x", np.uint8, "w+", shape=(n, 784))
            few, t = 10, np.arange(n) % 10
            trainer = dense(50)
            # Steps enough that they are most of the time.
            many = int(max(seconds, 4 * fit_seconds(trainer, x, t, 100, few)) / 1e-4)
            taken = [min(fit_seconds(trainer, x, t, 100, k) for _ in range(3)) for k in (few, many)]
            step = (taken[1] - taken[0]) / (many - few)
            rows.append([n, step, taken[0] - few * step])
            del x
    return rows


#: heads of a table, and what measures its lines
Measure = Callable[[Any, Any, float], list[list[Any]]]
TABLES: dict[tuple[str, ...], Measure] = {
    ("784-50-10, batch", "µs a step", "µs a row"): by_batch,
    ("784-units-10, batch 100: units", "µs a step", "GFLOP/s"): by_width,
    (f"3x3 convolution, {FILTERS} filters: image", "µs a step", "GFLOP/s"): (
        lambda x, t, seconds: by_image(seconds)
    ),
    ("threads", "µs a step of 784-50-10", "µs a step of 784-1024-10"): by_threads,
    ("rows of memory-mapped bytes", "µs a step", "µs to begin"): lambda x, t, seconds: by_rows(
        seconds
    ),
}
