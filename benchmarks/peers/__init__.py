"""One module per library, each in the library's own idiom and at its best honest setting.

A peer is a class. Making one pins its threads; its methods build what is timed, and return it as a
`Timed`. A method that a library has no business in is absent or raises `Unsupported`:

    training(workload, x, t, dtype)    updates from batches drawn at random with replacement
    inference(workload, x, dtype)      scores of all rows of x, without training's work
    gradient(x, t)                     the numerical gradient of 784-100-10, sigmoid, float64
    product(n)                         of two matrices of n x n, float32, into a third
    convolution(n)                     forward, of n images (workloads.CONVOLUTION), float32

x are rows of floats in 0..1, t integer labels.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workloads import CONVOLUTION

#: what a table calls a library: its module here, its class
PEERS = {
    "cnn-core": ("ours", "CnnCore"),
    "cnn-core avx2": ("ours", "CnnCore"),
    "PyTorch eager": ("pytorch", "Eager"),
    "PyTorch compiled": ("pytorch", "Compiled"),
    "JAX": ("jax_jit", "Jax"),
    "Keras": ("keras_tensorflow", "Keras"),
    "scikit-learn": ("scikit_learn", "ScikitLearn"),
    "NumPy": ("numpy_book", "NumPy"),
    "ONNX Runtime": ("onnx_runtime", "OnnxRuntime"),
}
HIDDEN = 100  # units of the network whose numerical gradient is taken


class Unsupported(Exception):
    """The library has no such layer, or no such use; the message says which."""


@dataclass
class Timed:
    """What is timed: run(n) does n units of work and returns when the last is done.

    scale : units that make up the whole job; more than 1 where only a sample of it is run.
    setting : which of several settings was the fastest here.
    """

    run: Callable[[int], Any]
    scale: float = 1.0
    setting: str = ""


def make(name: str, threads: int) -> Any:
    """The peer of this name, its library imported and pinned to so many threads."""
    module, kind = PEERS[name]
    return getattr(importlib.import_module(f"peers.{module}"), kind)(threads)


def fastest(candidates: dict[str, Callable[[int], Any]]) -> Timed:
    """The fastest of several settings, after a first run that compiles and fills caches."""
    seconds = {}
    for setting, run in candidates.items():
        run(1)
        seconds[setting] = _seconds(run, 1)
        n = min(100, int(0.05 / seconds[setting]))
        if n > 1:
            seconds[setting] = _seconds(run, n)
    best = min(seconds, key=seconds.__getitem__)
    return Timed(candidates[best], setting=best)


def _seconds(run: Callable[[int], Any], n: int) -> float:
    start = time.perf_counter()
    run(n)
    return (time.perf_counter() - start) / n


def repeat(call: Callable[[], Any]) -> Callable[[int], Any]:
    """run(n) of something that is finished when it returns."""

    def run(n: int) -> None:
        for _ in range(n):
            call()

    return run


def matrices(n: int) -> list[Any]:
    """Three of n x n."""
    rng = np.random.default_rng(0)
    return [rng.random((n, n), np.float32) for _ in range(3)]


def images(n: int) -> tuple[Any, Any, Any]:
    """Images, weights and biases of workloads.CONVOLUTION."""
    (channels, size), rng = CONVOLUTION, np.random.default_rng(0)
    shapes = ((n, channels, size, size), (channels, channels, 3, 3), (channels,))
    x, W, b = (rng.random(shape, np.float32) for shape in shapes)
    return x, W, b


def batches_of(rows: int) -> Sequence[int]:
    """The sizes that a long input may be cut into: whole, or pieces that stay in a cache."""
    return [rows, *(size for size in (1000, 100) if rows > size and rows % size == 0)]


def predictions(call: Callable[[Any], Any], x: Any) -> dict[str, Callable[[int], Any]]:
    """Candidates for `fastest`: the rows of x through `call`, whole or in pieces."""

    def all_of(size: int) -> Callable[[int], Any]:
        return repeat(lambda: [call(x[i : i + size]) for i in range(0, len(x), size)])

    return {f"{size} rows at once": all_of(size) for size in batches_of(len(x))}
